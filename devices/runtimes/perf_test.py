"""ONNX Runtime's `onnxruntime_perf_test`, which the user builds for Android."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from statistics import median

from phonenas.data.documents import parsed
from phonenas.space.errors import DeviceError, DeviceUnavailable, InvalidArgument
from phonenas.space.lowering.write import Measurable
from phonenas.space.precision import FLOAT32

from ..node_times import NodeTime, Trace
from ..settings import DeviceSettings
from ..system.device_text import plain
from .command import CommandRuntime
from .engine_onnxruntime import profiled
from .perf_text import parse_perf_test, parse_perf_test_samples
from .runtime import WARMUP_RUNS, onnxruntime_precisions
from .timings import Printed

__all__ = ["OnnxRuntimePerfTest"]

_READ_S = 30.0
_LEAST_FIRST_MS = 50.0  # above it, the error of whole milliseconds is below 2 %
_SENTINEL_MS = 1.0  # about; for the number of its runs that warm up by time
_NAMES = {
    "CPUExecutionProvider": "cpu",
    "NnapiExecutionProvider": "nnapi",
    "XnnpackExecutionProvider": "xnnpack",
    "QNNExecutionProvider": "qnn",
}


class OnnxRuntimePerfTest(CommandRuntime):
    """Providers by ONNX Runtime's names; CPUExecutionProvider is the default."""

    name = "onnxruntime_perf_test"
    provider = "CPUExecutionProvider"
    reports_samples = True
    unreported = frozenset(_NAMES)  # it prints none; what does not run as asked is an error
    package = "Build it from ONNX Runtime's source with --android; see docs/phones.md."

    def __init__(self, settings: DeviceSettings) -> None:
        super().__init__(settings)
        if self.provider not in _NAMES:
            raise InvalidArgument(
                f"device {settings.name}: onnxruntime_perf_test has the providers "
                f"{', '.join(_NAMES)}, not {self.provider!r}"
            )

    @property
    def precisions(self) -> tuple[str, ...]:
        return onnxruntime_precisions(self.provider)

    def lower(self, model: Measurable, stem: Path, precision: str = FLOAT32) -> Path:
        from phonenas.space.lowering.write import write_onnx

        if getattr(model, "inputs", None) is not None:
            raise InvalidArgument(
                "--input does not apply: onnxruntime_perf_test makes its own inputs"
            )
        return write_onnx(model, stem.with_suffix(".onnx"), precision)

    def command(
        self, program: str, model: str, runs: int, warmup_runs: int, warmup_s: float
    ) -> list[str]:
        # It has no flag for warm-up: the first runs are dropped from its results.
        more = math.ceil(warmup_s * 1e3 / _SENTINEL_MS)
        command = [
            program,
            "-I",
            "-m",
            "times",
            "-r",
            str(runs + warmup_runs + more),
            "-e",
            _NAMES[self.provider],
            "-x",
            str(self.settings.threads),
            "-y",
            "1",
            "-o",
            "99",
        ]
        if self.provider != "CPUExecutionProvider":
            # Android's build reports a fall-back in the system's log only: forbid it instead.
            command += ["-C", "session.disable_cpu_ep_fallback|1"]
        return [*command, model, self.results]

    def read(self, text: str) -> Printed:
        printed = parse_perf_test(text)
        # It rounds the first inference down to whole milliseconds.
        if printed.first_ms is not None and printed.first_ms < _LEAST_FIRST_MS:
            return replace(printed, first_ms=None)
        return printed

    def samples_ms(self, printed: Printed, results: str, warmup_runs: int) -> tuple[float, ...]:
        samples = parse_perf_test_samples(results)[warmup_runs:]
        if not samples:
            raise DeviceError(f"it reported no run after the {warmup_runs} warm-up runs")
        return samples

    def trace(self, model: Path, runs: int) -> Trace:
        """As `Device.trace`; the profile is a file that the program writes; it is removed."""
        transport = self._transport
        if transport is None:
            raise DeviceUnavailable("the runtime is not started")
        prefix = f"{transport.folder}/profile"
        _, plain_runs = self.once(model, runs, WARMUP_RUNS)
        # It adds the time to the name.
        read = 'cat "$1"_*.json; code=$?; rm -f "$1"_*.json; exit $code'
        try:
            self.once(model, runs + WARMUP_RUNS, 0, "-p", prefix)
        finally:
            answer = transport.run(["sh", "-c", read, "sh", prefix], limit_s=_READ_S)
        try:
            if answer.code:
                raise ValueError(plain(answer.errors, 200) or "there is none")
            found = profiled(parsed(answer.output), runs)
            whole = found["runs_us"]
            shown = sorted(range(len(whole)), key=whole.__getitem__)[len(whole) // 2]
            nodes = []
            for n in found["nodes"]:
                name, op, provider = (plain(str(word)) for word in n["is"])
                spans = (median(n["us"]), n["at_us"][shown], n["us"][shown])
                nodes.append(NodeTime(name, op, provider, *(us / 1e3 for us in spans)))
            times = (
                plain_runs.median_ms or plain_runs.mean_ms,
                median(whole) / 1e3,
                whole[shown] / 1e3,
            )
            return Trace(tuple(nodes), len(whole), *times)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise DeviceError(
                f"{transport.name}: the profile of onnxruntime_perf_test cannot be read: {error}"
            ) from error
