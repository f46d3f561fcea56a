"""ONNX Runtime's `onnxruntime_perf_test`, which the user builds for Android."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from ...space.errors import DeviceError, InvalidArgument
from ...space.lowering import Measurable
from ..settings import DeviceSettings
from .command import CommandRuntime
from .printed import Printed, parse_perf_test, parse_perf_test_samples

__all__ = ["OnnxRuntimePerfTest"]

_LEAST_FIRST_MS = 50.0  # from there on a cut millisecond is 2 % at most
_SENTINEL_MS = 1.0  # about; so many runs of it bring the load up for as long as is asked
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
    tells_samples = True
    unspoken = frozenset(_NAMES)  # it never says; what does not run as asked is an error
    package = "Build it from ONNX Runtime's source with --android; see docs/phones.md."

    def __init__(self, settings: DeviceSettings) -> None:
        super().__init__(settings)
        if self.provider not in _NAMES:
            raise InvalidArgument(
                f"device {settings.name}: onnxruntime_perf_test has the providers "
                f"{', '.join(_NAMES)}, not {self.provider!r}"
            )
        if settings.precision != "float32":
            raise InvalidArgument(f"device {settings.name}: onnxruntime_perf_test runs float32")

    def lower(self, model: Measurable, stem: Path) -> Path:
        from ...space.lowering import write_onnx

        return write_onnx(model, stem.with_suffix(".onnx"))

    def command(
        self, program: str, model: str, runs: int, warmup_runs: int, warmup_s: float
    ) -> list[str]:
        # It has no flag for warm-up: the first runs are left out of what it tells.
        more = math.ceil(warmup_s * 1e3 / _SENTINEL_MS)
        words = [
            program, "-I", "-m", "times", "-r", str(runs + warmup_runs + more),
            "-e", _NAMES[self.provider], "-x", str(self.settings.threads), "-y", "1", "-o", "99",
        ]  # fmt: skip
        if self.provider != "CPUExecutionProvider":
            # Android's build logs a fall-back where nobody reads it: forbid it instead.
            words += ["-C", "session.disable_cpu_ep_fallback|1"]
        return [*words, model, self.results]

    def read(self, text: str) -> Printed:
        found = parse_perf_test(text)
        # It cuts the first inference to whole milliseconds.
        if found.first_ms is not None and found.first_ms < _LEAST_FIRST_MS:
            found = replace(found, first_ms=None)
        return found

    def samples_ms(self, printed: Printed, results: str, warmup_runs: int) -> tuple[float, ...]:
        found = parse_perf_test_samples(results)[warmup_runs:]
        if not found:
            raise DeviceError(f"it told of no more than the {warmup_runs} runs of warm-up")
        return found
