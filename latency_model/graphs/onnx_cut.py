"""Any ONNX network as the kernels that a runtime launches.

What is folded is what ONNX Runtime folds on every computer (its level "extended"): BatchNorm,
factors and shifts into the convolution before them, then an activation; padding with zeros into the
convolution behind it; a bias into a product with a matrix. What more it folds where it lays maps
out in blocks of channels, additions above all, is written beside each kernel by `layout`, and
weighed by the calibration.

A node, or a group of quantised ones, that no kind of kernel stands for is a kernel of its own: its
name holds the digest of its small graph, and it is measured as it stands in the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from phonenas.space import Kernel
from phonenas.space.errors import InvalidArgument, reading
from phonenas.space.file_inputs import NOT_GIVEN, Given
from phonenas.space.kernels.lifted import LiftedKernel
from phonenas.space.onnx_file import OnnxFile, graph_bytes, without_weights

from .onnx_check import observed
from .onnx_fusion_rules import MAKERS
from .onnx_graph import Graph, Node, Shape, read_graph
from .onnx_kernel_builder import KernelBuilder, Refused
from .onnx_layout import Step, laid_out
from .onnx_lift import lift

__all__ = ["OnnxNetwork", "cut", "to_measure"]

_QUANTISE, _DEQUANTISE = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True)
class OnnxNetwork:
    """A network from a file, cut into kernels.

    Args:
        name: Of the file.
        digest: Of its graph; see `OnnxFile`.
        steps: Its kernels in order, with what the runtime's layout of maps makes of them.
        notes: What was assumed, as a batch of 1.
        precision: What it computes in.
        graph: That it was cut from.
        odd: Which of its layers compute in another precision than most, in words; "" for none.
    """

    name: str
    digest: str
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()
    precision: str = "float32"
    graph: Graph | None = field(default=None, repr=False, compare=False)
    odd: str = ""

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Launches in order."""
        return tuple(s.kernel for s in self.steps)

    @property
    def macs(self) -> int:
        """Multiply-adds of one image."""
        return sum(k.macs for k in self.kernels)

    def __str__(self) -> str:
        return f"{self.name}#{self.digest}"


def cut(model: Path | Any, given: Given = NOT_GIVEN, *, run_once: bool = True) -> OnnxNetwork:
    """Cut a network into its kernels.

    Args:
        model: Path of an ONNX file, or an `onnx.ModelProto`.
        given: What the user says of a file's inputs.
        run_once: Whether shapes that do not follow from the graph are found by running it.
    Raises:
        UnknownName, InvalidArgument: No such file; or a side of an input stays free.
        UnsupportedFormat: Not a valid ONNX model, or its shapes are not fixed.
        UncoveredOperator: A node does work that depends on the input values; it is named.
    """
    if isinstance(model, Path):
        data, path = graph_bytes(model), model
    else:
        data = without_weights(model.SerializeToString())
        path = Path(model.graph.name or "network")

    def observe(shapes: dict[str, Shape]) -> Any:
        return observed(model, shapes, given.file)

    file = OnnxFile.of(data, path)
    with reading(str(path), "Export the network again."):
        graph = read_graph(data, str(path), given, observe if run_once else None)
        steps = laid_out(graph, _steps(KernelBuilder(graph)))
    notes = (*graph.notes, *([file.odd] if file.odd else []))
    return OnnxNetwork(file.name, file.digest, steps, notes, file.precision, graph, file.odd)


def to_measure(network: OnnxNetwork) -> list[Kernel | LiftedKernel]:
    """The distinct kernels of a network as what is measured.

    Kernels of other numbers than float32, and those of a file's own, are lifted from it.
    """
    found: dict[str, Kernel | LiftedKernel] = {}
    for step in network.steps:
        kernel = step.kernel
        if kernel.key in found:
            continue
        if network.graph is None or (kernel.kind != "node" and network.precision == "float32"):
            found[kernel.key] = kernel
        else:
            content, _ = lift(network.graph, step.nodes)
            found[kernel.key] = LiftedKernel(kernel, content, network.precision)
    return list(found.values())


def _steps(c: KernelBuilder) -> list[Step]:
    """Goes through a graph in order and takes each node with what is folded into it."""
    steps: list[Step] = []
    grouped = _quantised(c)
    for node in c.graph.nodes:
        if node.outputs[0] in c.taken:
            continue
        if node.outputs[0] in grouped:
            steps.append(c.alone(grouped[node.outputs[0]], node))
            continue
        make = MAKERS.get(node.op)
        c.parts = [node]
        before = set(c.taken)
        try:
            if make is None or not c.floats(node):
                raise Refused
            step = make(c, node)
            if step is not None:
                steps.append(replace(step, nodes=tuple(c.parts)))
        except (Refused, InvalidArgument):
            c.taken = before
            steps.append(c.alone([node], node))
    return steps


def _quantised(c: KernelBuilder) -> dict[str, list[Node]]:
    """Nodes between numbers that are dequantised and quantised again, by the first output of each.

    A runtime makes one kernel of such a group; nodes that belong to one are taken.
    """
    groups: dict[str, list[Node]] = {}
    joined: set[str] = set()
    if not any(n.op == _DEQUANTISE for n in c.graph.nodes):
        return {}
    for node in c.graph.nodes:
        maps = c.maps(node)
        before = [c.maker[m] for m in maps if m in c.maker and c.maker[m].op == _DEQUANTISE]
        if node.op in (_QUANTISE, _DEQUANTISE) or not maps or len(before) != len(maps):
            continue
        group, out = [*{n.outputs[0]: n for n in before}.values(), node], node.outputs[0]
        while (user := c.graph.only_user(out)) is not None:
            if user.op not in ("Relu", "Clip", _QUANTISE) or user.inputs[0] != out:
                break
            group.append(user)
            out = user.outputs[0]
            if user.op == _QUANTISE:
                break
        groups[node.outputs[0]] = group
        c.taken.update(n.outputs[0] for n in group if n is not node and n.op != _DEQUANTISE)
        joined.update(n.outputs[0] for n in group if n.op == _DEQUANTISE)
    for name in joined:  # its other readers have it from their own groups
        if name not in c.graph.outputs and all(
            u.outputs[0] in groups for u in c.graph.users.get(name, ())
        ):
            c.taken.add(name)
    return groups
