"""What measuring programs print, read into milliseconds: text in, values out, nothing else.

`benchmark_model` counts µs, LiteRT's summary ms, `onnxruntime_perf_test` mixes s and ms. A number
without its unit, or in a line that is not as the program prints it, is an error, never a number.
"""

from __future__ import annotations

from ..words import UnreadableOutput
from .benchmark_text import parse_benchmark_model
from .perf_text import parse_perf_test, parse_perf_test_samples
from .timings import Printed

__all__ = [
    "Printed",
    "UnreadableOutput",
    "parse_benchmark_model",
    "parse_perf_test",
    "parse_perf_test_samples",
]
