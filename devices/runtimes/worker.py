"""Measure models: one self-contained program that runs on the device.

    python worker.py ENGINE.py

It needs Python ≥ 3.10 and what its engine needs, and nothing of phonenas. An engine is a file
beside it with a class `Engine(settings)`: `identity()`, and `load(path)`, which returns a model
with `run()`, `provider` and `load_ms`, the time in which the runtime made it ready. The worker
reads requests from standard input, a JSON document a line, answers likewise, and ends when that
input closes; empty lines only show that the other side is alive.

    {"op": "hello", "cores": [1], "threads": 1, "optimisation": "all", "provider":
     "CPUExecutionProvider", "silence_s": 4, "folder": "/data/local/tmp/phonenas-x"}
    → {"runtime": ..., "version": ..., "sha256": ..., "python": ..., "machine": "aarch64",
       "cores": [1]}
    {"op": "run", "models": [path, ...], "runs": [15, ...], "warmup_runs": 5, "warmup_s": 0.3,
     "limit_s": 30, "sentinel": path, "remove": true}
    → one line a model, in order, {"index", "samples_ms", "sentinel_ms", "preempted", "first_ms",
      "clock_mhz", "busy_s", "provider"} or {"index", "error"}, then {"done": true}; an error
      with "preempted" above 0 says that other programs took the core from every run
    with `remove` the models' files, and the .npz files of their inputs, are deleted after the
    batch, except the sentinel's
    {"op": "stop"} during a batch ends it after the present model, with {"done": true}
    {"op": "leave"} → {"done": true}, and the worker ends; its folder stays
    {"op": "startup", "model": path, "runs": 20, "energy_s": 3, and the settings of hello} as the
     only request
    → {"load_ms", "first_ms", "peak_bytes", "model_bytes", "file_bytes", "energy_mj"}: of a process
      that runs this model alone; bytes of memory are null where /proc does not tell them; the
      energy of an inference is over `energy_s` further seconds of runs (0: not asked for), null
      where the device does not tell it

    {"op": "trace", "model": path, "warmup_runs": 5, "runs": 21, and the settings of hello} as the
     only request
    → {"plain_us", "profiled_us", "shown_us", "nodes": [[name, op, provider, us, start_us,
      shown_us], ...]}: medians of the runs, and the run in the middle; of an engine that has a
      method `profile(path, warmup_runs, runs)`

Timing rules: at least `warmup_runs` runs of each model, and the core under unbroken load for at
least `warmup_s` before the first sample; runs in which the scheduler took the core away are dropped
and repeated, up to four times as many runs in all. Between the samples, every 2 ms or after each
longer one, the sentinel model runs twice and its second run is timed: what slows it slows the
sample beside it, too. It is loaded anew for each request, as each model is. `sentinel_ms` holds,
for each sample, the mean of the sentinel's times before and after.

No worker may stay on a phone: a thread reads the input. When it closes, or brings nothing for
`silence_s` seconds (a cable was pulled out), the worker removes `folder` and ends at once, even in
the middle of a run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import select
import sys
import threading
import time
from pathlib import Path
from typing import Any

_IDLE_S = 0.05  # in a longer pause the core lowers its clock: load must build up again
_MAX_WARMUP_RUNS = 100_000
_BLOCK_S = 0.002  # of samples between two runs of the sentinel
_SENTINEL_TRIES = 5
_SUPPLY_S = 0.1  # between two readings of a battery
_LEAST_UW, _MOST_UW = 5e4, 1e9  # 50 mW to 1 kW
_POWERCAP, _SUPPLIES = Path("/sys/class/powercap"), Path("/sys/class/power_supply")
_CLOCK = "/sys/devices/system/cpu/cpu{}/cpufreq/scaling_cur_freq"

try:
    from resource import RUSAGE_THREAD, getrusage

    def preemptions() -> int:
        """Times that the scheduler took the core from this thread."""
        return getrusage(RUSAGE_THREAD).ru_nivcsw

except ImportError:  # not Linux: preemptions are not counted

    def preemptions() -> int:
        """Unknown here."""
        return 0


def resident_bytes(name: str) -> int | None:
    """Memory of this process by its name in /proc, as VmRSS or VmHWM (its peak); None elsewhere.

    getrusage would do for neither: its peak is inherited from the process that started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return next(int(x.split()[1]) * 1024 for x in lines.splitlines() if x.startswith(name))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def middle(values: list[float]) -> float:
    """The median of an odd number of values, and one beside it of an even number."""
    return sorted(values)[len(values) // 2]


def text_in(path: Path) -> str:
    """The one line of a file of /sys; "" where it cannot be read."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def package_uj() -> dict[str, tuple[int, int]]:
    """The energy counter of each processor package, and where it begins again, in µJ.

    Intel's and AMD's RAPL as Linux has it; its files are often readable by root alone. A package
    that has two interfaces (`intel-rapl`, `intel-rapl-mmio`) counts once.
    """
    found: dict[str, tuple[int, int]] = {}
    for folder in sorted(_POWERCAP.glob("*:[0-9]*"), key=lambda f: ("mmio" in f.name, f.name)):
        name = text_in(folder / "name")
        texts = [text_in(folder / n) for n in ("energy_uj", "max_energy_range_uj")]
        if name.startswith("package") and all(t.isdecimal() for t in texts):
            found.setdefault(name, (int(texts[0]), int(texts[1])))
    return found


def battery_uw() -> float | None:
    """What the device draws from its batteries, in µW.

    None where none is discharging, one does not tell, or the power is none that a device takes:
    some tell their current in mA.
    """
    total = 0.0
    for folder in _SUPPLIES.glob("*"):
        if text_in(folder / "type") != "Battery" or text_in(folder / "scope") == "Device":
            continue  # or the battery of a mouse
        if text_in(folder / "status") == "Discharging":
            texts = [text_in(folder / f"{name}_now") for name in ("power", "current", "voltage")]
            power, current, voltage = (
                int(t) if t.removeprefix("-").isdecimal() else 0 for t in texts
            )
            if not (own := abs(power) or abs(current * voltage) / 1e6):
                return None
            total += own
    return total if _LEAST_UW <= total <= _MOST_UW else None


def energy_mj(run: Any, seconds: float) -> float | None:
    """Energy of one run, in mJ: of the processor's packages, else of the whole device.

    What the device takes when it is idle is part of it. None where the device does not tell.
    """
    clock, counters, drawn = time.perf_counter, package_uj(), []
    if not counters and battery_uw() is None:
        return None
    began = last = now = clock()
    runs = 0
    while now - began < seconds:
        run()
        runs, now = runs + 1, clock()
        # A battery tells the power of the last second or so: the first half is of before.
        if not counters and now - last >= _SUPPLY_S and now - began > seconds / 2:
            last, power = now, battery_uw()
            if power is None:  # it was plugged in
                return None
            drawn.append(power)
    elapsed_s = now - began
    if counters:
        after = package_uj()
        if after.keys() != counters.keys():
            return None
        used_uj = sum((after[n][0] - at) % (most + 1) for n, (at, most) in counters.items())
        return used_uj / 1e3 / runs or None
    return sum(drawn) / len(drawn) * elapsed_s / 1e3 / runs if drawn else None


class Bench:
    """Loads and times models; one a process."""

    def __init__(self, engine_path: str, hello: dict[str, Any]) -> None:
        self.cores = hello.get("cores")
        if self.cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.cores)
        # Libraries read it at their import.
        os.environ["OMP_NUM_THREADS"] = str(hello.get("threads", 1))
        spec = importlib.util.spec_from_file_location("engine", engine_path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{engine_path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.provider = hello["provider"]
        self.engine = module.Engine(hello)
        self.last_busy = 0.0
        self.load_since = 0.0
        self.sentinels: dict[str, Any] = {}

    def hello(self) -> dict[str, Any]:
        return {
            **self.engine.identity(),
            "python": sys.version.split()[0],
            "machine": os.uname().machine if hasattr(os, "uname") else "",
            "cores": self.cores,
        }

    def load(self, path: str) -> Any:
        model = self.engine.load(path)
        # Part of a model may run elsewhere; whether that is accepted is the other side's to say.
        if model.provider.split(",")[0] != self.provider:
            raise RuntimeError(f"asked for {self.provider}, and {model.provider} would run")
        return model

    def measure(self, path: str, runs: int, request: dict[str, Any]) -> dict[str, Any]:
        clock = time.perf_counter
        started = clock()
        if started - self.last_busy > _IDLE_S:
            self.load_since = started
        model = self.load(path)
        run = model.run
        deadline = started + float(request["limit_s"])
        computing = begin = clock()
        run()
        first_ms = (clock() - begin) * 1e3
        warm = 1
        while warm < request["warmup_runs"] or clock() - self.load_since < request["warmup_s"]:
            run()
            warm += 1
            if clock() > deadline or warm > _MAX_WARMUP_RUNS:
                break
        samples: list[float] = []
        beside: list[float] = []
        preempted = 0
        before = self.sentinel_ms(request["sentinel"])
        while len(samples) < runs and preempted < 3 * runs and clock() < deadline:
            block: list[float] = []
            block_began = clock()
            while clock() - block_began < _BLOCK_S and len(samples) + len(block) < runs:
                count = preemptions()
                begin = clock()
                run()
                end = clock()
                if preemptions() == count:
                    block.append((end - begin) * 1e3)
                else:
                    preempted += 1
            after = self.sentinel_ms(request["sentinel"])
            samples.extend(block)
            beside.extend([(before + after) / 2] * len(block))
            before = after
        busy_s = clock() - computing
        clock_mhz = self.clock_mhz()
        self.last_busy = clock()
        if not samples:
            why = f"no undisturbed run among {preempted}" if preempted else "no run in time"
            return {"error": why, "preempted": preempted}
        return {
            "samples_ms": samples,
            "sentinel_ms": beside,
            "preempted": preempted,
            "first_ms": first_ms,
            "clock_mhz": clock_mhz,
            "busy_s": busy_s,
            "provider": model.provider,
        }

    def startup(self, path: str, runs: int, energy_s: float = 0.0) -> dict[str, Any]:
        """What a process takes that brings up this one model; of a process that did nothing else.

        The peak is that of loading and of a few runs: later ones need no more. The energy is of
        runs for `energy_s` after them.
        """
        clock, before = time.perf_counter, resident_bytes("VmRSS")
        model = self.load(path)
        begin = clock()
        model.run()
        first_ms = (clock() - begin) * 1e3
        for _ in range(1, runs):
            model.run()
        peak = resident_bytes("VmHWM")
        return {
            "load_ms": model.load_ms,
            "first_ms": first_ms,
            "peak_bytes": peak,
            "model_bytes": None if peak is None or before is None else max(0, peak - before),
            "file_bytes": Path(path).stat().st_size,
            "energy_mj": energy_mj(model.run, energy_s) if energy_s > 0 else None,
        }

    def trace(self, path: str, warmup_runs: int, runs: int) -> dict[str, Any]:
        """A model under its runtime's profiler, after as many runs without it."""
        clock, model = time.perf_counter, self.load(path)
        plain = []
        for _ in range(warmup_runs + runs):
            begin = clock()
            model.run()
            plain.append((clock() - begin) * 1e6)
        found = self.engine.profile(path, warmup_runs, runs)
        whole = found["runs_us"]
        shown = sorted(range(len(whole)), key=whole.__getitem__)[len(whole) // 2]
        return {
            "plain_us": middle(plain[warmup_runs:]),
            "profiled_us": middle(whole),
            "shown_us": whole[shown],
            "nodes": [
                [*n["is"], middle(n["us"]), n["at_us"][shown], n["us"][shown]]
                for n in found["nodes"]
            ],
        }

    def clock_mhz(self) -> float:
        """The slowest clock of the cores in use, read right after a run, in MHz; 0 if unknown."""
        clocks = []
        for core in self.cores or ():
            try:
                with open(_CLOCK.format(core), encoding="ascii") as file:  # noqa: PTH123 - quick
                    clocks.append(int(file.read()) / 1e3)
            except (OSError, ValueError):
                return 0.0
        return min(clocks, default=0.0)

    def sentinel_ms(self, path: str) -> float:
        """Time of the sentinel now: its second run in a row, repeated while preempted."""
        if path not in self.sentinels:
            self.sentinels[path] = self.load(path)
            if self.sentinels[path].provider != self.provider:
                raise RuntimeError(f"the sentinel runs on {self.sentinels[path].provider}")
        run = self.sentinels[path].run
        run()
        for _ in range(_SENTINEL_TRIES):
            count = preemptions()
            begin = time.perf_counter()
            run()
            end = time.perf_counter()
            if preemptions() == count:
                break
        return (end - begin) * 1e3


class Watch:
    """Reads the requests of the other side, and ends the worker when that side is lost."""

    def __init__(self) -> None:
        self.requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.silence_s: float | None = None
        self.folder = ""
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        buffer = b""
        while True:
            if self.silence_s is not None and hasattr(select, "poll"):
                poll = select.poll()
                poll.register(0, select.POLLIN | select.POLLHUP)
                if not poll.poll(self.silence_s * 1e3):
                    break
            chunk = os.read(0, 1 << 16)
            if not chunk:
                break
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                if line.strip():
                    self.requests.put(line)
        # At once, whatever the main thread computes.
        if Path(self.folder).name.startswith("phonenas-"):
            import shutil  # only here: it counts as memory of a startup

            shutil.rmtree(self.folder, ignore_errors=True)
        os._exit(0)


def main() -> int:
    # What libraries print goes to stderr; stdout carries only the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    watch = Watch()  # before the cores are set: its thread may run on any

    def answer(document: dict[str, Any]) -> None:
        answers.write(json.dumps(document) + "\n")
        answers.flush()

    bench = None
    while True:
        line = watch.requests.get()
        try:
            request = json.loads(line)
            if request["op"] == "hello":
                watch.silence_s = request.get("silence_s")
                watch.folder = request.get("folder") or ""
                bench = Bench(sys.argv[1], request)
                answer(bench.hello())
                continue
            if request["op"] == "startup":
                watch.silence_s = request.get("silence_s")
                # Without its identity: reading the runtime's library would count as memory.
                asked = request["model"], int(request["runs"]), float(request.get("energy_s", 0))
                answer(Bench(sys.argv[1], request).startup(*asked))
                continue
            if request["op"] == "trace":
                watch.silence_s = request.get("silence_s")
                counts = int(request["warmup_runs"]), int(request["runs"])
                answer(Bench(sys.argv[1], request).trace(request["model"], *counts))
                continue
            if request["op"] == "stop":
                continue  # the batch has ended already
            if request["op"] == "leave":  # another process comes, to the same folder
                watch.folder = ""
                answer({"done": True})
                return 0
            if bench is None:
                raise RuntimeError("hello must come first")
            jobs = list(zip(request["models"], request["runs"], strict=True))
        except Exception as error:  # noqa: BLE001 - reported to the other side
            answer({"error": f"{type(error).__name__}: {error}"[:500]})
            continue
        bench.sentinels.clear()  # each loading has a level of its own
        for index, (path, runs) in enumerate(jobs):
            if not watch.requests.empty():  # "stop": nothing else is sent during a batch
                watch.requests.get()
                break
            try:
                result = bench.measure(path, int(runs), request)
            except Exception as error:  # noqa: BLE001 - a broken model must not end the batch
                result = {"error": f"{type(error).__name__}: {error}"[:500]}
            answer({"index": index, **result})
        if request.get("remove"):
            for path in {path for path, _ in jobs} - {request["sentinel"]}:
                Path(path).unlink(missing_ok=True)
                Path(path).with_suffix(".npz").unlink(missing_ok=True)
        answer({"done": True})


if __name__ == "__main__":
    sys.exit(main())
