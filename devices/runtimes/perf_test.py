"""ONNX Runtime's `onnxruntime_perf_test`, which the user builds for Android."""

from __future__ import annotations

from pathlib import Path

from ...space import Architecture, Operator
from ...space.errors import DeviceError, InvalidArgument
from ..settings import DeviceSettings
from .command import CommandRuntime
from .printed import Printed, parse_perf_test, parse_perf_test_samples

__all__ = ["OnnxRuntimePerfTest"]

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

    def lower(self, model: Operator | Architecture, stem: Path) -> Path:
        from ...space.to_onnx import to_onnx

        path = stem.with_suffix(".onnx")
        path.write_bytes(to_onnx(model).SerializeToString())
        return path

    def command(
        self, program: str, model: str, runs: int, warmup_runs: int, warmup_s: float
    ) -> list[str]:
        # It has no flag for warm-up: the first runs are left out of what it tells.
        words = [
            program, "-I", "-m", "times", "-r", str(runs + warmup_runs),
            "-e", _NAMES[self.provider], "-x", str(self.settings.threads), "-y", "1", "-o", "99",
        ]  # fmt: skip
        if self.provider != "CPUExecutionProvider":
            # Android's build logs a fall-back where nobody reads it: forbid it instead.
            words += ["-C", "session.disable_cpu_ep_fallback|1"]
        return [*words, model, self.results]

    def read(self, text: str) -> Printed:
        return parse_perf_test(text)

    def samples_ms(self, printed: Printed, results: str, warmup_runs: int) -> tuple[float, ...]:
        found = parse_perf_test_samples(results)[warmup_runs:]
        if not found:
            raise DeviceError(f"it told of no more than the {warmup_runs} runs of warm-up")
        return found
