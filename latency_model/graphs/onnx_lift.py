"""Some nodes of a network as a small graph of their own, as they stand in the file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from phonenas.space.errors import UnsupportedFormat

from .onnx_graph import Graph, Node, Shape

__all__ = ["lift"]

_DIGEST = 12
_MOST_DEEP = 400  # nodes that compute the constants of one kernel


def lift(graph: Graph, nodes: Sequence[Node]) -> tuple[bytes, str]:
    """A serialised model of some nodes, large constants without their numbers; and its digest.

    Names are replaced by numbers, so that equal graphs are equal whatever they are called.

    Args:
        graph: That they are of.
        nodes: In order.
    Raises:
        UnsupportedFormat: Their constants take too many nodes to compute.
    """
    return _Lift(graph, nodes).model()


class _Lift:
    def __init__(self, graph: Graph, nodes: Sequence[Node]) -> None:
        import onnx

        self.onnx, self.graph, self.parts = onnx, graph, nodes
        self.names: dict[str, str] = {"": ""}
        self.inputs: list[Any] = []
        self.tensors: list[Any] = []
        self.nodes: list[Any] = []
        self.inside = {o for n in nodes for o in n.outputs if o}

    def model(self) -> tuple[bytes, str]:
        onnx, graph = self.onnx, self.graph
        for node in self.parts:
            self.append(node)
        used = {
            o
            for o in self.inside
            if o in graph.outputs or any(u not in self.parts for u in graph.users.get(o, ()))
        }
        outs = [o for n in self.parts for o in n.outputs if o in used]
        outs = outs or [o for o in self.parts[-1].outputs if o][:1]
        source = graph.model
        made = onnx.helper.make_model(
            onnx.helper.make_graph(
                self.nodes, "kernel", self.inputs, [self.info(o) for o in outs], self.tensors
            ),
            opset_imports=list(source.opset_import),
            producer_name="phonenas",
        )
        made.ir_version = source.ir_version
        content = made.SerializeToString(deterministic=True)
        return content, hashlib.sha256(content).hexdigest()[:_DIGEST]

    def info(self, name: str) -> Any:
        return self.onnx.helper.make_tensor_value_info(
            self.name(name), self.graph.types.get(name, 1), self.graph.shapes.get(name)
        )

    def name(self, old: str) -> str:
        return self.names.setdefault(old, f"t{len(self.names)}")

    def append(self, node: Node) -> None:
        raw = self.onnx.NodeProto.FromString(node.raw.SerializeToString())
        for name in node.inputs:
            self.bring(name)
        for attribute in raw.attribute:
            for body in (attribute.g, *attribute.graphs):
                self.rename_captured(body)
        del raw.input[:], raw.output[:]
        raw.input.extend(self.name(i) for i in node.inputs)
        raw.output.extend(self.name(o) for o in node.outputs)
        raw.name = f"n{len(self.nodes)}"
        raw.doc_string = ""
        del raw.metadata_props[:]
        self.nodes.append(raw)

    def rename_captured(self, body: Any) -> None:
        """What the body of a node reads from around it becomes an input, too."""
        own = {i.name for i in body.input} | {t.name for t in body.initializer}
        for node in body.node:
            for at, name in enumerate(node.input):
                if name and name not in own:
                    self.bring(name)
                    node.input[at] = self.name(name)
            own.update(node.output)

    def bring(self, name: str) -> None:
        """Make a tensor known: a constant with all that computes it, else an input."""
        graph = self.graph
        if name in self.names or name in self.inside:
            return
        if name not in graph.constants:
            self.inputs.append(self.info(name))
            return
        if len(self.nodes) > _MOST_DEEP:
            raise UnsupportedFormat(f"{graph.name}: {name} takes too many nodes to compute")
        if name in graph.stored:
            self.store(name, graph.stored[name])
            return
        node = graph.computed.get(name)
        if node is None:
            raise UnsupportedFormat(f"{graph.name}: constant {name} has no value")
        shape = graph.shapes.get(node.inputs[0]) if node.inputs else None
        if node.op == "Shape" and shape is not None:
            self.store(name, self.onnx.numpy_helper.from_array(_sides(node, shape)))
        elif node.op == "Size" and shape is not None:
            size = np.array(int(np.prod(shape)), np.int64)
            self.store(name, self.onnx.numpy_helper.from_array(size))
        else:
            self.append(node)

    def store(self, name: str, tensor: Any) -> None:
        kept = self.onnx.TensorProto.FromString(tensor.SerializeToString())
        kept.name, kept.doc_string = self.name(name), ""
        del kept.metadata_props[:]
        self.tensors.append(kept)


def _sides(node: Node, shape: Shape) -> Any:
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return np.array(shape[start:end], np.int64)
