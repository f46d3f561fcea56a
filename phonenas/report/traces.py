"""Traces kept in a run's folder, `traces.json`, and the report's section on them.

A trace is what the runtime's own profiler says of the nodes of a network; see `node_trace`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Literal

from phonenas.data import Conditions
from phonenas.data.documents import Document, Ms, Text, strict
from phonenas.devices.node_times import Trace
from phonenas.search.checkpoint import of_this_run, run_digest
from phonenas.search.run_folder import Loaded, lock_run
from phonenas.space.errors import InvalidArgument, PhonenasError
from phonenas.space.naming import counted

from .node_trace import TracedNode, TracedPart
from .page import table, told

__all__ = ["FILE", "KeptTrace", "keep_trace", "read_traces", "refuse_device", "traces_section"]

FILE = "traces.json"
DOCUMENT = Document("phonenas-traces", 1, "file of traces")
_MOST = 50  # traces of a run; the oldest goes
_SHOWN = 12  # nodes of a table; the rest are summed


@dataclass(frozen=True)
class KeptTrace:
    """A network's trace as a run keeps it.

    Args:
        network: As the user named it.
        device, precision, origin: As in its `Conditions`.
        runs, statistic, plain_ms, profiled_ms: As of `Trace`.
        nodes, parts: As `node_trace.traced` gives them.
    """

    network: Text
    device: Text
    precision: Text
    origin: Text
    runs: int
    statistic: Literal["median", "mean"]
    plain_ms: Ms
    profiled_ms: Ms
    nodes: tuple[TracedNode, ...]
    parts: tuple[TracedPart, ...]

    def __post_init__(self) -> None:
        if not self.nodes or self.runs < 1:
            raise ValueError("a trace has nodes and runs")
        if any(n.part is not None and not 0 <= n.part < len(self.parts) for n in self.nodes):
            raise ValueError("a node belongs to a part that is not there")

    @classmethod
    def of(
        cls,
        network: str,
        conditions: Conditions,
        trace: Trace,
        nodes: Sequence[TracedNode],
        parts: Sequence[TracedPart],
    ) -> KeptTrace:
        """A trace, of a network on a device in a precision."""
        return cls(
            network,
            conditions.device,
            conditions.precision,
            conditions.origin,
            trace.runs,
            trace.statistic,
            trace.plain_ms,
            trace.profiled_ms,
            tuple(nodes),
            tuple(parts),
        )

    @property
    def about(self) -> tuple[str, str, str]:
        """What it is of: network, device and precision."""
        return self.network, self.device, self.precision


@dataclass(frozen=True)
class _File:
    format: Text
    version: int
    digest: Text
    run: Text
    traces: tuple[KeptTrace, ...]


def refuse_device(run: Loaded, device: str) -> None:
    """A run's report shows where the time goes on the run's own devices.

    Raises:
        InvalidArgument: The device is none of them.
    """
    if device not in run.devices:
        raise InvalidArgument(
            f"{run.path} is a run for {' and '.join(run.devices)}, and its report shows no trace "
            f"of {device}. Trace without a run:  phonenas trace ... --out trace.json"
        )


def keep_trace(run: Loaded, kept: KeptTrace) -> Path:
    """Add a trace to a run's folder, in place of an earlier one of the same; fifty at most.

    Raises:
        InvalidArgument: The device is none of the run's.
        UnsupportedFormat: The file there is damaged, or of another run or version.
        StoreError: The disk does not take it, or another process works in the folder.
    """
    refuse_device(run, kept.device)
    with lock_run(run.path):
        others = [t for t in read_traces(run) if t.about != kept.about]
        traces = [asdict(t) for t in [*others, kept][-_MOST:]]
        content = {"run": run_digest(run.settings), "traces": traces}
        return DOCUMENT.write(run.path / FILE, content)


def read_traces(run: Loaded) -> tuple[KeptTrace, ...]:
    """The traces that a run's folder keeps, in the order in which they were taken.

    Raises:
        UnsupportedFormat: The file is damaged, of another run or of another version.
        StoreError: It cannot be read.
    """
    path = run.path / FILE
    again = f"Remove it, then trace again:  phonenas trace ... --run {shlex.quote(str(run.path))}"
    values = DOCUMENT.read(path, again)
    if values is None:
        return ()
    with DOCUMENT.checking(path, again):
        file = strict(values, _File)
        of_this_run(path, file.run, run.settings, again)
    return file.traces


def traces_section(run: Loaded) -> str:
    """HTML of a run's traces: the runtime's share of each part or node, beside the model's.

    Empty without a trace, and where the file is damaged, which the report tells by itself.
    """
    try:
        traces = read_traces(run)
    except PhonenasError:
        return ""
    if not traces:
        return ""
    return (
        "<h2>Where the time goes</h2>"
        "<p>● is by the runtime's own profiler, which slows a run and does not see the time "
        "between nodes; ○ is the model's share. Nodes that the runtime made part of another one "
        "are counted there.</p>" + "".join(told(_shown(t), t.origin) for t in traces)
    )


def _shown(kept: KeptTrace) -> str:
    whole_ms = sum(n.time.ms for n in kept.nodes)
    between_ms = max(0.0, kept.profiled_ms - whole_ms)  # medians of nodes may add up to more
    facts = (
        f"● {kept.plain_ms:.3f} ms a run, ● {kept.profiled_ms:.3f} ms under the profiler: "
        f"● {whole_ms:.3f} ms in {counted(len(kept.nodes), 'node')}, {between_ms:.3f} ms between "
        f"them or taken by other programs ({kept.statistic}s of {counted(kept.runs, 'run')})."
    )
    on = f"on {kept.device}, {kept.precision}"
    nodes = _nodes(kept.nodes, whole_ms)
    if kept.parts:
        words = f"The {counted(len(kept.nodes), 'node')} as the runtime ran them"
        nodes = f"<details><summary>{words}</summary>{nodes}</details>"
    return (
        f"<h3><code>{escape(kept.network)}</code> {escape(on)}</h3><p>{facts}</p>"
        f"{_parts(kept, whole_ms)}{nodes}"
    )


def _share(ms: float, whole_ms: float) -> str:
    return f"{ms / whole_ms:.1%}" if whole_ms else "–"


def _parts(kept: KeptTrace, whole_ms: float) -> str:
    """The parts that take most, by the model and by the profiler."""
    model_ms = sum(p.model_ms for p in kept.parts)
    if not model_ms:
        return ""
    ranked = sorted(kept.parts, key=lambda p: -max(p.model_ms, p.profiled_ms or 0.0))
    rows = []
    for p in ranked[:_SHOWN]:
        mine = ("in another part", "–")
        if p.profiled_ms is not None:
            mine = (f"● {p.profiled_ms:.3f}", _share(p.profiled_ms, whole_ms))
        rows.append([p.key, f"○ {p.model_ms:.3f}", _share(p.model_ms, model_ms), *mine])
    rest = ranked[_SHOWN:]
    if rest:
        by_model, own = (sum(p.model_ms for p in rest), sum(p.profiled_ms or 0.0 for p in rest))
        shares = (_share(by_model, model_ms), f"● {own:.3f}", _share(own, whole_ms))
        rows.append([counted(len(rest), "further part"), f"○ {by_model:.3f}", *shares])
    if free := [n.time.ms for n in kept.nodes if n.part is None]:
        own = sum(free)
        name = f"{counted(len(free), 'node')} of no part"
        rows.append([name, "–", "–", f"● {own:.3f}", _share(own, whole_ms)])
    return table(["part", "model, ms", "its share", "profiler, ms", "its share"], rows)


def _nodes(nodes: Sequence[TracedNode], whole_ms: float) -> str:
    """The nodes that take most."""
    ranked = sorted(nodes, key=lambda n: -n.time.ms)
    rows = [
        [
            *(n.time.name, n.time.op, n.time.provider, f"● {n.time.ms:.3f}"),
            *(_share(n.time.ms, whole_ms), ", ".join(n.consists_of) or "–"),
        ]
        for n in ranked[:_SHOWN]
    ]
    rest = ranked[_SHOWN:]
    if rest:
        own = sum(n.time.ms for n in rest)
        name = counted(len(rest), "further node")
        rows.append([name, "–", "–", f"● {own:.3f}", _share(own, whole_ms), "–"])
    return table(["node", "operation", "provider", "ms", "share", "consists of"], rows)
