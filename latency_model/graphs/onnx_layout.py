"""Layout: which maps pass from kernel to kernel as the runtime lays them out, and what that saves.

At full optimisation ONNX Runtime computes convolutions and pools on maps in blocks of channels.
A kernel measured alone pays for bringing its maps into that order and back; in a network most
maps stay in it, and an addition is then folded into the convolution before it. The rules are
those of its NchwcTransformer with blocks of 16. How much is saved is not assumed here but fitted:
on a runtime without blocks it comes out as about nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from phonenas.space import Kernel

from .onnx_graph import Graph, Node

__all__ = ["Step", "code", "laid_out", "padded"]

_BLOCK, _ALIGNED = 16, 4
_NAMES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Transpose")
_FREE_OF_ORDER = {"relu", "relu6", "clip", "sigmoid", "tanh", "swish", "leaky_relu", "hard_sigmoid"}


@dataclass(frozen=True)
class Step:
    """One kernel in its network.

    Args:
        kernel: What is launched.
        node: Name of the node that it begins with.
        inputs: Maps that it reads, by name.
        output: The map that it gives.
        more: Further maps that it gives.
        direct_in, direct_out: Numbers that come, and go, in blocks: alone it would reorder them.
        folded: Whether the runtime makes it part of the kernel before it.
        nodes: That it consists of.
    """

    kernel: Kernel
    node: str
    inputs: tuple[str, ...]
    output: str
    more: tuple[str, ...] = ()
    direct_in: int = 0
    direct_out: int = 0
    folded: bool = False
    nodes: tuple[Node, ...] = field(default=(), repr=False, compare=False)


def laid_out(graph: Graph, steps: Sequence[Step]) -> tuple[Step, ...]:
    """Steps with `direct_in`, `direct_out` and `folded` filled in."""
    root = _roots(graph, steps)

    def of(name: str) -> str:
        return root.get(name, name)

    readers: dict[str, list[int]] = {}
    for i, step in enumerate(steps):
        for name in dict.fromkeys(step.inputs):
            readers.setdefault(of(name), []).append(i)
    maker = {step.output: i for i, step in enumerate(steps)}
    sizes = {name: math.prod(shape) for name, shape in graph.shapes.items()}
    # A reshape needs plain numbers, unless the map is one pixel.
    reshaped = {of(n) for n in root if n != root[n] and not _pixel(graph, of(n))}
    blocked: dict[str, bool] = {}
    wants: list[bool] = []
    folded = [False] * len(steps)
    for i, step in enumerate(steps):
        reads = [of(n) for n in step.inputs]
        wants.append(_wants(step.kernel, [blocked.get(n, False) for n in reads]))
        blocked[step.output] = wants[i]
        if wants[i] and step.kernel.kind == "add":
            folded[i] = any(_takes(steps, maker.get(n), readers.get(n, [])) for n in reads)
        elif wants[i] and step.kernel.kind == "activation" and len(reads) == 1:
            before = maker.get(reads[0])
            folded[i] = before is not None and folded[before] and readers[reads[0]] == [i]
    outputs = {of(n) for n in graph.outputs}
    brought: set[str] = set()
    placed = []
    for i, step in enumerate(steps):
        direct_in = direct_out = 0
        kernel = step.kernel
        reorders = kernel.kind in ("conv", "max_pool", "average_pool", "global_pool") and wants[i]
        if reorders:
            name = of(step.inputs[0])
            if not (kernel.kind == "conv" and kernel.groups == 1 and kernel.in_channels < _BLOCK):
                if blocked.get(name) or name in brought:
                    direct_in = sizes.get(name, 0)
                brought.add(name)
            users = readers.get(step.output, [])
            plain = step.output in outputs or step.output in reshaped or not users
            if not plain and all(wants[u] for u in users):
                direct_out = sizes.get(step.output, 0)
        placed.append(replace(step, direct_in=direct_in, direct_out=direct_out, folded=folded[i]))
    return tuple(placed)


def padded(kernel: Kernel) -> Kernel:
    """The kernel with the channels that the runtime computes: whole blocks where it uses blocks."""
    if (
        kernel.kind != "conv"
        or not _wants(kernel, [])
        or (kernel.groups > 1 and not kernel.depthwise)
    ):
        return kernel
    out = -(-kernel.out_channels // _BLOCK) * _BLOCK
    if kernel.depthwise:
        return replace(kernel, in_channels=out, out_channels=out, groups=out)
    into = kernel.in_channels
    if into >= _BLOCK:
        into = -(-into // _BLOCK) * _BLOCK
    return replace(kernel, in_channels=into, out_channels=out)


def code(kernel: Kernel) -> str:
    """Which code the runtime takes for a kernel alone: on blocks, on an image, or plain."""
    if kernel.kind == "conv" and kernel.groups == 1 and kernel.in_channels < _BLOCK:
        return "image"
    return "blocks" if _wants(kernel, []) and kernel.kind == "conv" else "plain"


def _wants(kernel: Kernel, came: list[bool]) -> bool:
    """Whether the runtime computes this kernel on blocks, given how its maps come."""
    into, out = kernel.in_channels, kernel.out_channels
    if kernel.kind == "conv":
        if kernel.depthwise and into == out:
            return out % _ALIGNED == 0
        if kernel.groups > 1:
            group = (into // kernel.groups, out // kernel.groups)
            return group[0] % _BLOCK == 0 and group[1] % _BLOCK == 0
        return into < _BLOCK or into % _ALIGNED == 0
    if kernel.kind in ("max_pool", "average_pool", "global_pool"):
        return out % _ALIGNED == 0
    if kernel.kind in ("add", "mul"):
        return kernel.operands >= 2 and len(came) >= 2 and all(came)
    if kernel.kind == "activation":
        return all(came) and kernel.fused[0] in _FREE_OF_ORDER
    if kernel.kind in ("batch_norm", "resize"):
        return all(came)
    if kernel.kind == "concat":
        return all(came) and into % _BLOCK == 0
    return False


def _takes(steps: Sequence[Step], maker: int | None, readers: list[int]) -> bool:
    """Whether a convolution can take the addition behind it."""
    if maker is None or len(readers) != 1:
        return False
    kernel = steps[maker].kernel
    return kernel.kind == "conv" and not kernel.fused


def _pixel(graph: Graph, name: str) -> bool:
    shape = graph.shapes.get(name, ())
    return len(shape) == 4 and shape[2:] == (1, 1)


def _roots(graph: Graph, steps: Sequence[Step]) -> dict[str, str]:
    """Tensors that are only other names or shapes of what a step gives."""
    made = {name for s in steps for name in (s.output, *s.more)}
    root: dict[str, str] = {}
    for node in graph.nodes:
        if node.outputs[0] in made or node.op not in _NAMES:
            continue
        source = node.inputs[0]
        root[node.outputs[0]] = root.get(source, source)
    return root
