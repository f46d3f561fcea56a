"""Measure models: one self-contained program, run where the models are.

    python worker.py ENGINE.py

It needs Python ≥ 3.10 and what its engine needs, and nothing of phonenas. An engine is a file
beside it with a class `Engine(settings)`: `identity()`, and `load(path)` that gives a model with
`run()` and `provider`. The worker reads requests from standard input, a JSON document a line,
answers in kind, and ends when that input closes; empty lines only say that somebody is there.

    {"op": "hello", "cores": [1], "threads": 1, "optimisation": "all", "provider": "CPUExecutionProvider",
     "silence_s": 4, "folder": "/data/local/tmp/phonenas-x"}
    → {"runtime": ..., "version": ..., "sha256": ..., "python": ..., "cores": [1]}
    {"op": "run", "models": [path, ...], "runs": [15, ...], "warmup_runs": 5, "warmup_s": 0.3,
     "limit_s": 30, "sentinel": path, "remove": true}
    → one line a model, in order, {"index", "samples_ms", "sentinel_ms", "preempted", "first_ms",
      "clock_mhz", "busy_s", "provider"} or {"index", "error"}, then {"done": true}
    with `remove` the models' files go after the batch, and only the sentinel's stays
    {"op": "stop"} during a batch ends it after the model at hand, with {"done": true}

Timing rules: at least `warmup_runs` runs of each model, and the core under unbroken load for at
least `warmup_s` before the first sample; runs in which the scheduler took the core away are
dropped and made up for, up to four times as many. Between the samples, every 2 ms or after each
longer one, the sentinel model is run twice and its second run timed: what slows it slows the
sample beside it too, and `sentinel_ms` holds, for each sample, the mean of its two neighbours.

Nobody may be left waiting on a phone: a thread watches the input. When it closes, or brings
nothing for `silence_s` seconds (a cable was pulled, and no one said goodbye), the worker removes
`folder` and ends at once, in the middle of a run if need be.
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import select
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

_IDLE_S = 0.05  # a longer pause lets the core clock down: the load clock starts again
_MAX_WARMUP_RUNS = 100_000
_BLOCK_S = 0.002  # of samples between two runs of the sentinel
_SENTINEL_TRIES = 5
_CLOCK = "/sys/devices/system/cpu/cpu{}/cpufreq/scaling_cur_freq"

try:
    from resource import RUSAGE_THREAD, getrusage

    def preemptions() -> int:
        """Times that the scheduler took the core from this thread."""
        return getrusage(RUSAGE_THREAD).ru_nivcsw

except ImportError:  # not Linux: nothing to filter by

    def preemptions() -> int:
        """Unknown here."""
        return 0


class Bench:
    """Models and the clock; one a process."""

    def __init__(self, engine_path: str, hello: dict[str, Any]) -> None:
        self.cores = hello.get("cores")
        if self.cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.cores)
        # Libraries read it once, at their import.
        os.environ["OMP_NUM_THREADS"] = str(hello.get("threads", 1))
        spec = importlib.util.spec_from_file_location("engine", engine_path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{engine_path} is no Python file")
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
            "cores": self.cores,
        }

    def load(self, path: str) -> Any:
        model = self.engine.load(path)
        if model.provider != self.provider:
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
                taken = preemptions()
                begin = clock()
                run()
                end = clock()
                if preemptions() == taken:
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
            return {"error": f"no undisturbed run among {preempted}, or none within the limit"}
        return {
            "samples_ms": samples,
            "sentinel_ms": beside,
            "preempted": preempted,
            "first_ms": first_ms,
            "clock_mhz": clock_mhz,
            "busy_s": busy_s,
            "provider": model.provider,
        }

    def clock_mhz(self) -> float:
        """The slowest clock of the cores at work, read while they still are; 0 if unknown."""
        found = []
        for core in self.cores or ():
            try:
                with open(_CLOCK.format(core), encoding="ascii") as file:  # noqa: PTH123 - quick
                    found.append(int(file.read()) / 1e3)
            except (OSError, ValueError):
                return 0.0
        return min(found, default=0.0)

    def sentinel_ms(self, path: str) -> float:
        """Time of the sentinel now: its second run in a row, repeated while preempted."""
        if path not in self.sentinels:
            self.sentinels[path] = self.load(path)
        run = self.sentinels[path].run
        run()
        for _ in range(_SENTINEL_TRIES):
            taken = preemptions()
            begin = time.perf_counter()
            run()
            end = time.perf_counter()
            if preemptions() == taken:
                break
        return (end - begin) * 1e3


class Watch:
    """The asking side: its requests, and whether it is still there."""

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
            shutil.rmtree(self.folder, ignore_errors=True)
        os._exit(0)


def main() -> int:
    # Whatever libraries print goes to stderr; stdout carries the answers alone.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    watch = Watch()  # before the cores are chosen: its thread may run on any

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
            if request["op"] == "stop":
                continue  # it came when all was done
            if bench is None:
                raise RuntimeError("say hello first")
            jobs = list(zip(request["models"], request["runs"], strict=True))
        except Exception as error:  # noqa: BLE001 - told to the asking side, whatever it is
            answer({"error": f"{type(error).__name__}: {error}"[:500]})
            continue
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
        answer({"done": True})


if __name__ == "__main__":
    sys.exit(main())
