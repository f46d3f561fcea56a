"""Measure ONNX models with ONNX Runtime: one self-contained program, run where the models are.

It needs Python ≥ 3.10, numpy and onnxruntime, and nothing of phonenas. It reads requests from
standard input, a JSON document a line, answers in kind, and ends when that input closes.

    {"op": "hello", "cores": [1], "threads": 1, "optimisation": "all", "provider": "CPUExecutionProvider"}
    → {"runtime": ..., "version": ..., "sha256": ..., "python": ..., "cores": [1]}
    {"op": "run", "models": [path, ...], "runs": [15, ...], "warmup_runs": 5, "warmup_s": 0.3,
     "limit_s": 30, "sentinel": path}
    → one line a model, in order, {"index", "samples_ms", "sentinel_ms", "preempted", "first_ms",
      "provider"} or {"index", "error"}, then {"done": true}

Timing rules: at least `warmup_runs` runs of each model, and the core under unbroken load for at
least `warmup_s` before the first sample; runs in which the scheduler took the core away are
dropped and made up for, up to four times as many. Between the samples, every 2 ms or after each
longer one, the sentinel model is run twice and its second run timed: what slows it slows the
sample beside it too, and `sentinel_ms` holds, for each sample, the mean of its two neighbours.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import sys
import time
from pathlib import Path
from typing import Any

_IDLE_S = 0.05  # a longer pause lets the core clock down: the load clock starts again
_MAX_WARMUP_RUNS = 100_000
_BLOCK_S = 0.002  # of samples between two runs of the sentinel
_SENTINEL_TRIES = 5

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
    """Sessions and the clock; one a process."""

    def __init__(self, hello: dict[str, Any]) -> None:
        import numpy
        import onnxruntime

        self.numpy, self.ort = numpy, onnxruntime
        self.provider = hello.get("provider", "CPUExecutionProvider")
        self.cores = hello.get("cores")
        if self.cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.cores)
        levels = onnxruntime.GraphOptimizationLevel
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = int(hello.get("threads", 1))
        self.options.inter_op_num_threads = 1
        self.options.log_severity_level = 3
        self.options.graph_optimization_level = {
            "none": levels.ORT_DISABLE_ALL,
            "basic": levels.ORT_ENABLE_BASIC,
            "extended": levels.ORT_ENABLE_EXTENDED,
            "all": levels.ORT_ENABLE_ALL,
        }[hello.get("optimisation", "all")]
        self.last_busy = 0.0
        self.load_since = 0.0
        self.sentinels: dict[str, Any] = {}

    def hello(self) -> dict[str, Any]:
        from onnxruntime.capi import onnxruntime_pybind11_state as binary

        digest = hashlib.sha256()
        with Path(binary.__file__).open("rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
        return {
            "runtime": "onnxruntime",
            "version": self.ort.__version__,
            "sha256": digest.hexdigest(),
            "python": sys.version.split()[0],
            "cores": self.cores,
            "providers": self.ort.get_available_providers(),
        }

    def measure(self, path: str, runs: int, request: dict[str, Any]) -> dict[str, Any]:
        clock = time.perf_counter
        started = clock()
        if started - self.last_busy > _IDLE_S:
            self.load_since = started
        session = self.ort.InferenceSession(path, self.options, providers=[self.provider])
        ran = session.get_providers()[0]
        if ran != self.provider:
            return {"error": f"asked for {self.provider}, and {ran} would run"}
        feeds = self.feeds(session)
        deadline = started + float(request["limit_s"])
        begin = clock()
        session.run(None, feeds)
        first_ms = (clock() - begin) * 1e3
        warm = 1
        while warm < request["warmup_runs"] or clock() - self.load_since < request["warmup_s"]:
            session.run(None, feeds)
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
                session.run(None, feeds)
                end = clock()
                if preemptions() == taken:
                    block.append((end - begin) * 1e3)
                else:
                    preempted += 1
            after = self.sentinel_ms(request["sentinel"])
            samples.extend(block)
            beside.extend([(before + after) / 2] * len(block))
            before = after
        self.last_busy = clock()
        if not samples:
            return {"error": f"no undisturbed run among {preempted}, or none within the limit"}
        return {
            "samples_ms": samples,
            "sentinel_ms": beside,
            "preempted": preempted,
            "first_ms": first_ms,
            "provider": ran,
        }

    def sentinel_ms(self, path: str) -> float:
        """Time of the sentinel now: its second run in a row, repeated while preempted."""
        if path not in self.sentinels:
            session = self.ort.InferenceSession(path, self.options, providers=[self.provider])
            self.sentinels[path] = (session, self.feeds(session))
        session, feeds = self.sentinels[path]
        session.run(None, feeds)
        for _ in range(_SENTINEL_TRIES):
            taken = preemptions()
            begin = time.perf_counter()
            session.run(None, feeds)
            end = time.perf_counter()
            if preemptions() == taken:
                break
        return (end - begin) * 1e3

    def feeds(self, session: Any) -> dict[str, Any]:
        generator = self.numpy.random.default_rng(0)
        return {
            i.name: generator.standard_normal(i.shape, dtype=self.numpy.float32)
            for i in session.get_inputs()
        }


def main() -> int:
    # Whatever libraries print goes to stderr; stdout carries the answers alone.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(document: dict[str, Any]) -> None:
        answers.write(json.dumps(document) + "\n")
        answers.flush()

    bench = None
    for line in iter(sys.stdin.readline, ""):
        try:
            request = json.loads(line)
            if request["op"] == "hello":
                bench = Bench(request)
                answer(bench.hello())
                continue
            if bench is None:
                raise RuntimeError("say hello first")
        except Exception as error:  # noqa: BLE001 - told to the asking side, whatever it is
            answer({"error": f"{type(error).__name__}: {error}"})
            continue
        for index, (path, runs) in enumerate(zip(request["models"], request["runs"], strict=True)):
            if _hung_up():
                return 0
            try:
                result = bench.measure(path, int(runs), request)
            except Exception as error:  # noqa: BLE001 - a broken model must not end the batch
                result = {"error": f"{type(error).__name__}: {error}"[:500]}
            answer({"index": index, **result})
        answer({"done": True})
    return 0


def _hung_up() -> bool:
    """Whether the asking side is gone: nobody waits for the rest."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(0, select.POLLHUP)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


if __name__ == "__main__":
    sys.exit(main())
