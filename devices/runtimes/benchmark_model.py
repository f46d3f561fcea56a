"""TFLite's and LiteRT's `benchmark_model`, which Google publishes for Android."""

from __future__ import annotations

from pathlib import Path

from phonenas.space.errors import InvalidArgument
from phonenas.space.lowering.write import Measurable
from phonenas.space.precision import FLOAT32

from ..node_times import NodeTime, Trace
from ..settings import DeviceSettings
from .benchmark_text import parse_benchmark_model, parse_profile
from .command import CommandRuntime
from .runtime import WARMUP_RUNS
from .timings import Printed

__all__ = ["BenchmarkModel"]

# Flags of each provider; delegates that are not wanted are switched off by name.
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


# As the delegates' documents have it; what one leaves to other kernels is an error of its reading.
_PRECISIONS = {
    "XNNPACK": (FLOAT32, "float16", "int8", "float16-weights"),
    "CPU": (FLOAT32, "int8", "float16-weights"),
    "GPU": (FLOAT32, "float16", "int8", "float16-weights"),
    "NNAPI": (FLOAT32, "float16", "int8", "float16-weights"),
}


class BenchmarkModel(CommandRuntime):
    """Providers XNNPACK (the default), CPU (TFLite's own kernels), GPU, NNAPI."""

    name = "benchmark_model"
    provider = "XNNPACK"
    unreported = frozenset({"CPU"})  # it prints the name of every delegate
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

    @property
    def precisions(self) -> tuple[str, ...]:
        return _PRECISIONS[self.provider]

    def lower(self, model: Measurable, stem: Path, precision: str = FLOAT32) -> Path:
        from phonenas.space.lowering.write import write_tflite

        if getattr(model, "inputs", None) is not None:
            raise InvalidArgument("--input does not apply: benchmark_model makes its own inputs")
        if getattr(model, "shapes", ()):
            raise InvalidArgument(
                "--shape does not apply: benchmark_model takes the shapes of the file"
            )
        # Floats of 16 bits are its own arithmetic on a file of 32 bits.
        stored = FLOAT32 if precision == "float16" else precision
        return write_tflite(model, stem.with_suffix(".tflite"), self.name, stored)

    def command(
        self, program: str, model: str, runs: int, warmup_runs: int, warmup_s: float
    ) -> list[str]:
        command = [
            program,
            f"--graph={model}",
            f"--num_threads={self.settings.threads}",
            f"--num_runs={runs}",
            # Without it, it runs for at least a second.
            "--min_secs=0",
            f"--warmup_runs={warmup_runs}",
            f"--warmup_min_secs={warmup_s:g}",
            *_FLAGS[self.provider],
        ]
        if self.settings.precision == "float16":
            command.append(_FLOAT16[self.provider])
        elif self.provider == "GPU":
            command.append("--gpu_precision_loss_allowed=false")
        return command

    def read(self, text: str) -> Printed:
        return parse_benchmark_model(text)

    def trace(self, model: Path, runs: int) -> Trace:
        """As `Device.trace`: its profile has means over the runs, and no single run."""
        _, plain = self.once(model, runs, WARMUP_RUNS)
        text, profiled = self.once(model, runs, WARMUP_RUNS, "--enable_op_profiling=true")
        nodes, at_ms = [], 0.0
        for name, op, provider, ms in parse_profile(text):
            nodes.append(NodeTime(name, op, provider, ms, at_ms, ms))
            at_ms += ms
        means = plain.mean_ms, profiled.mean_ms, max(profiled.mean_ms, at_ms)
        return Trace(tuple(nodes), profiled.runs, *means, statistic="mean")
