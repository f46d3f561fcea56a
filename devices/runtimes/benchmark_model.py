"""TFLite / LiteRT's `benchmark_model`: Google publishes it built for Android."""

from __future__ import annotations

from pathlib import Path

from ...space.errors import InvalidArgument
from ...space.lowering import Measurable
from ..settings import DeviceSettings
from .command import CommandRuntime
from .printed import Printed, parse_benchmark_model

__all__ = ["BenchmarkModel"]

# What each provider is asked for with; every delegate that is not wanted is switched off by name.
_FLAGS = {
    "XNNPACK": ("--use_xnnpack=true",),
    "CPU": ("--use_xnnpack=false",),
    "GPU": ("--use_gpu=true", "--use_xnnpack=false"),
    "NNAPI": ("--use_nnapi=true", "--use_xnnpack=false"),
}
_FLOAT16 = {
    "XNNPACK": "--xnnpack_force_fp16=true",
    "GPU": "--gpu_precision_loss_allowed=true",
    "NNAPI": "--nnapi_allow_fp16=true",
}


class BenchmarkModel(CommandRuntime):
    """Providers XNNPACK (the default), CPU (TFLite's own kernels), GPU, NNAPI."""

    name = "benchmark_model"
    provider = "XNNPACK"
    unspoken = frozenset({"CPU"})  # every delegate speaks up
    package = (
        "Google publishes it for Android as android_aarch64_benchmark_model; see docs/phones.md."
    )

    def __init__(self, settings: DeviceSettings) -> None:
        super().__init__(settings)
        if self.provider not in _FLAGS:
            raise InvalidArgument(
                f"device {settings.name}: benchmark_model has the providers {', '.join(_FLAGS)}, "
                f"not {self.provider!r}"
            )
        if settings.precision == "float16" and self.provider not in _FLOAT16:
            raise InvalidArgument(f"device {settings.name}: {self.provider} has no float16")

    def lower(self, model: Measurable, stem: Path) -> Path:
        from ...space.lowering import write_tflite

        return write_tflite(model, stem.with_suffix(".tflite"), self.name)

    def command(
        self, program: str, model: str, runs: int, warmup_runs: int, warmup_s: float
    ) -> list[str]:
        words = [
            program,
            f"--graph={model}",
            f"--num_threads={self.settings.threads}",
            f"--num_runs={runs}",
            # Otherwise it goes on until a second is over.
            "--min_secs=0",
            f"--warmup_runs={warmup_runs}",
            f"--warmup_min_secs={warmup_s:g}",
            *_FLAGS[self.provider],
        ]
        if self.settings.precision == "float16":
            words.append(_FLOAT16[self.provider])
        elif self.provider == "GPU":
            words.append("--gpu_precision_loss_allowed=false")
        return words

    def read(self, text: str) -> Printed:
        return parse_benchmark_model(text)
