"""Trace: what a runtime's own profiler says of each node of a whole network."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from phonenas.data.documents import Ms, Number, Text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NodeTime", "Trace"]


@dataclass(frozen=True)
class NodeTime:
    """A node as the runtime ran it, after its optimisation.

    Args:
        name: As the runtime calls it.
        op: Its operation.
        provider: The execution provider or delegate that took it.
        ms: Median or mean of its time over the runs, in ms, ≥ 0; ONNX Runtime has whole µs.
        start_ms, shown_ms: In the one run that is shown: since the run began, and its time, ms.
    """

    name: Text
    op: Text
    provider: Text
    ms: Number
    start_ms: Number
    shown_ms: Number

    def __post_init__(self) -> None:
        if not all(0 <= ms < math.inf for ms in (self.ms, self.start_ms, self.shown_ms)):
            raise ValueError(f"{self.name}: a time below 0, or none")


@dataclass(frozen=True)
class Trace:
    """Runs of a whole network under its runtime's profiler.

    Args:
        nodes: In the order in which they ran, ≥ 1.
        runs: How many runs the times are of.
        plain_ms: Of as many runs without the profiler, which slows a run, in ms.
        profiled_ms: Of the runs with it, in ms.
        shown_ms: The run that is shown, in ms: the one in the middle; of means a run of the means.
        statistic: Of all times over the runs: "median" or "mean".
    """

    nodes: tuple[NodeTime, ...]
    runs: int
    plain_ms: Ms
    profiled_ms: Ms
    shown_ms: Ms
    statistic: Literal["median", "mean"] = "median"

    def __post_init__(self) -> None:
        if not self.nodes or self.runs < 1:
            raise ValueError("a trace has nodes and runs")

    def __repr__(self) -> str:
        return f"Trace({len(self.nodes)} nodes, {self.plain_ms:.3f} ms a run of {self.runs})"

    def to_frame(self) -> pd.DataFrame:
        """One row a node, in the order in which they ran: the fields of `NodeTime`."""
        import pandas as pd

        return pd.DataFrame([asdict(n) for n in self.nodes])

    @property
    def nodes_ms(self) -> float:
        """Sum of the nodes' times, in ms; the rest of a run is the runtime's own."""
        return sum(n.ms for n in self.nodes)
