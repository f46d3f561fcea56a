"""A network's trace: the runtime's own profile of its nodes beside the model's shares.

As rows, and as a file that ui.perfetto.dev and chrome://tracing open.

Source: the Trace Event Format of Chromium: a JSON object with `traceEvents`. Complete events
(`"ph": "X"`) have `ts` and `dur` in µs, metadata events (`"ph": "M"`) the names of tracks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from phonenas.devices.node_times import NodeTime, Trace
from phonenas.latency_model.graphs.onnx_layout import Step
from phonenas.latency_model.predicted import Explained

__all__ = ["TracedNode", "TracedPart", "chrome_document", "traced"]

# What ONNX Runtime puts around a name where it fuses or lays out a node.
_AROUND = re.compile(r"^fused |_nchwc$|_token_\d+$")
_RUNTIME, _MODEL = 1, 2  # tracks


@dataclass(frozen=True)
class TracedNode:
    """A node that the runtime ran.

    Args:
        time: As its profiler has it.
        consists_of: The file's nodes that were fused into it, as "operation name"; none for a node
            that the runtime added, or that only changes a shape.
        part: Number of the model's part that it belongs to; None where none is known.
    """

    time: NodeTime
    consists_of: tuple[str, ...]
    part: int | None


@dataclass(frozen=True)
class TracedPart:
    """An operator or a kernel of the model: predicted, and as the runtime's profiler has it.

    Args:
        key: As in a lookup table; "(constant)" for what belongs to no part.
        model_ms: Its share of the predicted time, in ms.
        profiled_ms: Sum of its nodes, in ms; None where no node is its own: the runtime made it
            part of another's.
    """

    key: str
    model_ms: float
    profiled_ms: float | None


def traced(
    trace: Trace, steps: Sequence[Step], shares: Sequence[Explained]
) -> tuple[list[TracedNode], list[TracedPart]]:
    """The nodes of a trace by what they consist of, and the model's parts beside them.

    Args:
        trace: Of a file.
        steps: The kernels of the same file; none where it cannot be cut.
        shares: What the model says of the network; none without a model.
    """
    step_of = _step_of(steps)
    part_of = {e.node: number for number, e in enumerate(shares) if e.node}
    own = [_found(n, step_of) for n in trace.nodes]
    fused = _fused(steps, {step for step in own if step is not None})
    nodes = []
    for node, step in zip(trace.nodes, own, strict=True):
        held = [] if step is None else [step, *fused.get(step, ())]
        named = tuple(f"{n.op} {n.name}" for s in held for n in steps[s].nodes)
        part = None if step is None else part_of.get(steps[step].node)
        if part is None and shares and not part_of:  # a network of blocks: N.expand, N.depthwise
            number = re.match(r"(\d+)\.", _AROUND.sub("", node.name))
            part = int(number[1]) if number and int(number[1]) < len(shares) else None
        nodes.append(TracedNode(node, named, part))
    sums: dict[int, float] = {}
    for n in nodes:
        if n.part is not None:
            sums[n.part] = sums.get(n.part, 0.0) + n.time.ms
    parts = [
        TracedPart("(constant)" if e.operator is None else e.operator.key, e.ms, sums.get(number))
        for number, e in enumerate(shares)
    ]
    return nodes, parts


def _step_of(steps: Sequence[Step]) -> dict[str, int]:
    """The step of each name that the runtime may give a node: of a file's node, or of its output.

    The nodes that a step begins with count before those that are folded into it.
    """
    found: dict[str, int] = {}
    for number, step in enumerate(steps):
        for name in (step.node, step.output, *step.more):
            found.setdefault(name, number)
    for number, step in enumerate(steps):
        for node in step.nodes:
            for name in (node.name, *node.outputs):
                found.setdefault(name, number)
    return found


def _found(node: NodeTime, step_of: dict[str, int]) -> int | None:
    return step_of.get(node.name, step_of.get(_AROUND.sub("", node.name)))


def _fused(steps: Sequence[Step], seen: set[int]) -> dict[int, list[int]]:
    """Steps without a node of their own, by the step before them that has one."""
    makes: dict[str, int] = {}
    fused: dict[int, list[int]] = {}
    for number, step in enumerate(steps):
        runs_as = number
        if number not in seen:
            before = [makes[name] for name in step.inputs if name in makes]
            if not before:
                continue
            runs_as = max(before)
            fused.setdefault(runs_as, []).append(number)
        makes |= dict.fromkeys((step.output, *step.more), runs_as)
    return fused


def chrome_document(
    trace: Trace, nodes: Sequence[TracedNode], parts: Sequence[TracedPart], title: str
) -> dict[str, Any]:
    """The run that is shown, one track for the runtime's nodes and one for the model's parts.

    Args:
        trace: Of a network.
        nodes, parts: As `traced` gives them.
        title: Of the whole.
    """
    of_runs = f"{trace.statistic}_ms"
    events: list[dict[str, Any]] = [
        _name("process_name", title, 0),
        _name("thread_name", "runtime, one run under its profiler", _RUNTIME),
        _event("run", "run", 0.0, trace.shown_ms, _RUNTIME, {of_runs: trace.profiled_ms}),
    ]
    for n in nodes:
        told = {"op": n.time.op, "provider": n.time.provider, of_runs: n.time.ms}
        if n.consists_of:
            told["consists of"] = ", ".join(n.consists_of)
        events.append(
            _event(n.time.name, n.time.op, n.time.start_ms, n.time.shown_ms, _RUNTIME, told)
        )
    if parts:
        events.append(_name("thread_name", "model, shares of the predicted time", _MODEL))
    at_ms = 0.0
    for part in parts:
        if part.model_ms > 0:
            told = {k: v for k, v in asdict(part).items() if v is not None}
            events.append(_event(part.key, "model", at_ms, part.model_ms, _MODEL, told))
            at_ms += part.model_ms
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _name(kind: str, name: str, track: int) -> dict[str, Any]:
    return {"ph": "M", "pid": 1, "tid": track, "name": kind, "args": {"name": name}}


def _event(
    name: str, kind: str, at_ms: float, ms: float, track: int, told: dict[str, Any]
) -> dict[str, Any]:
    times = {"ts": at_ms * 1e3, "dur": ms * 1e3}
    return {"ph": "X", "pid": 1, "tid": track, "name": name, "cat": kind, **times, "args": told}
