"""A kernel as numbers: its work, the features of its time, and which code a runtime takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.data.documents import Number, strict
from phonenas.space.errors import InvalidArgument
from phonenas.space.kernels.kernel import Kernel

__all__ = ["FAMILIES", "FEATURES", "WORK", "Paths", "View", "family", "features", "work"]

Floats = npt.NDArray[np.float64]

FAMILIES = (
    "conv",
    "grouped",
    "depthwise",
    "linear",
    "max_pool",
    "average_pool",
    "global_pool",
    "add",
    "mul",
    "activation",
    "batch_norm",
    "lrn",
    "softmax",
    "concat",
    "move",
    "resize",
    "node",
)
WORK = ("launch", "macs", "reads", "writes", "weights")
FEATURES = (
    "log_macs",
    "log_reads",
    "log_writes",
    "log_params",
    "log_in_channels",
    "log_out_channels",
    "log_out_area",
    "log_window",
    "log_stride",
    "log_per_group",
    "operands",
    "waste_in",
    "waste_out",
    "added",
    "bent",
    "rectified",
    "three_by_three",
    "late",
)
_BLOCK = 4  # channels that most runtimes compute at once
_CURVED = ("hard_swish", "swish", "sigmoid", "tanh", "gelu", "erf", "hard_sigmoid")
_SLOPED = ("prelu",)  # each number is compared, and multiplied by its channel's slope
_TILED = 4 / 9
_DEPTH = 6  # of the trees that choose variants


def family(kernel: Kernel) -> str:
    """Name of the family that it is fitted with: its kind, convolutions by groups and maps."""
    if kernel.kind != "conv":
        return kernel.kind
    if kernel.in_px == kernel.out_px == (1, 1) and kernel.groups == 1:
        return "linear"
    if kernel.depthwise:
        return "depthwise"
    return "grouped" if kernel.groups > 1 else "conv"


def work(kernel: Kernel, tiled: bool = False) -> list[float]:
    """What the baseline counts, in the order of `WORK`: one launch, the rest in millions.

    `tiled` says that the runtime has special code for a depthwise 3×3, which makes 2×2 outputs of
    one 4×4 input, so that each costs four reads and not nine. Source: the GPU delegate of
    TensorFlow Lite, tasks/depthwise_conv_3x3.cc.
    """
    operations: float = kernel.macs or _window(kernel) * kernel.writes
    if tiled and kernel.depthwise and kernel.kernel == (3, 3) and kernel.stride == (1, 1):
        operations *= _TILED
    return [1.0, operations / 1e6, kernel.reads / 1e6, kernel.writes / 1e6, kernel.params / 1e6]


def features(kernel: Kernel) -> list[float]:
    """Numbers of a kernel for the process, in the order of `FEATURES`."""
    area = kernel.out_px[0] * kernel.out_px[1]
    cin, cout = kernel.in_channels // kernel.groups, kernel.out_channels
    return [
        log(kernel.macs or _window(kernel) * kernel.writes),
        log(kernel.reads),
        log(kernel.writes),
        log(kernel.params + 1.0),
        log(kernel.in_channels),
        log(cout),
        log(area),
        log(_window(kernel)),
        log(kernel.stride[0] * kernel.stride[1]),
        log(cin),
        float(kernel.operands),
        log(-(-cin // _BLOCK) * _BLOCK / cin),
        log(-(-cout // _BLOCK) * _BLOCK / cout),
        float(sum(f in ("add", "mul") for f in kernel.fused)),
        float(any(f in _CURVED for f in kernel.fused)),
        float(any(f.startswith("relu") for f in kernel.fused)),
        float(kernel.kernel == (3, 3) and kernel.stride == (1, 1)),
        log(kernel.params + 1.0) - log(kernel.writes + kernel.reads),
    ]


def _window(kernel: Kernel) -> int:
    if kernel.kind == "global_pool":
        return kernel.in_px[0] * kernel.in_px[1]
    return kernel.kernel[0] * kernel.kernel[1]


Tree = list[list[float]]  # rows of: shape, threshold, row if at most, row if above; or -1, variant


def _shape(kernel: Kernel) -> list[float]:
    """Shapes by which runtimes choose their code, (6,)."""
    return [
        float(kernel.in_channels // kernel.groups),
        float(kernel.out_channels),
        float(kernel.out_px[0] * kernel.out_px[1]),
        float(kernel.kernel[0]),
        float(kernel.kernel[1]),
        float(kernel.stride[0]),
    ]


class Paths:
    """Which code the runtime takes for a kernel: one tree over shapes a family.

    Args:
        trees: By family; without one it has one code.
        tiled: Whether depthwise 3×3 kernels read as `work` says of tiled ones.
    """

    def __init__(self, trees: dict[str, Tree], tiled: bool = False) -> None:
        self.trees, self.tiled = trees, tiled

    @classmethod
    def fit(cls, kernels: Sequence[Kernel], variants: Sequence[str], tiled: bool) -> Paths:
        """Trees over shapes that predict the variants, (n,), of kernels, (n,).

        Raises:
            InvalidArgument: Lengths differ.
        """
        from sklearn.tree import DecisionTreeClassifier

        if len(kernels) != len(variants):
            raise InvalidArgument(f"{len(kernels)} kernels, but {len(variants)} variants")
        named = np.array([family(k) for k in kernels])
        trees: dict[str, Tree] = {}
        for name in dict.fromkeys(named.tolist()):
            at = np.flatnonzero(named == name)
            labels = np.array([variants[int(i)] for i in at])
            if len(set(labels.tolist())) < 2:
                continue
            shapes = np.array([_shape(kernels[int(i)]) for i in at])
            grown = DecisionTreeClassifier(max_depth=_DEPTH, min_samples_leaf=3, random_state=0)
            tree = grown.fit(shapes, labels).tree_
            # Number 0 is what the runtime does as a rule.
            often = [int(np.sum(labels == c)) for c in grown.classes_]
            rank = np.argsort(np.argsort([-n for n in often], kind="stable"))
            trees[name] = [
                [float(f), float(t), float(low), float(high)]
                if low >= 0
                else [-1.0, float(rank[np.argmax(v[0])]), 0.0, 0.0]
                for f, t, low, high, v in zip(
                    tree.feature,
                    tree.threshold,
                    tree.children_left,
                    tree.children_right,
                    tree.value,
                    strict=True,
                )
            ]
        return cls(trees, tiled)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], tiled: bool = False) -> Paths:
        """From `trees` as JSON keeps them.

        Raises:
            ValueError: A tree is damaged.
        """
        trees: dict[str, Tree] = strict(values, dict[str, list[list[Number]]])
        for tree in trees.values():
            if any(len(row) != 4 for row in tree):
                raise ValueError("a tree of other rows")
            for at, (shape, _, low, high) in enumerate(tree):
                # Onward only, so that a damaged file cannot make an endless loop.
                if shape >= 0 and not (
                    shape < 6 and at < low < len(tree) and at < high < len(tree)
                ):
                    raise ValueError("a tree that leads nowhere")
        return cls(trees, tiled)

    def code(self, kernel: Kernel) -> int:
        """Number of its family and variant."""
        name = family(kernel)
        variant, tree = 0, self.trees.get(name)
        if name == "activation":  # these differ by a factor of ten, whatever their shape
            variant = 1 if kernel.fused[0] in _CURVED else 2 if kernel.fused[0] in _SLOPED else 0
        if tree:
            shape, at = _shape(kernel), 0
            while tree[at][0] >= 0:
                which, threshold, low, high = tree[at]
                at = int(low if shape[int(which)] <= threshold else high)
            variant = int(tree[at][1])
        return variant * len(FAMILIES) + FAMILIES.index(name)


class View:
    """Kernels as numbers.

    Args:
        kernels: n of them.
        paths: By which they are coded.
    Attributes:
        work, rows: `work` and `features` of each, (n, 5) and (n, features).
        family: Code of each, (n,).
    """

    def __init__(self, kernels: Sequence[Kernel] = (), paths: Paths | None = None) -> None:
        tiled = paths is not None and paths.tiled
        self.work = np.array([work(k, tiled) for k in kernels])
        self.rows = np.array([features(k) for k in kernels])
        self.family = np.array([paths.code(k) for k in kernels] if paths else [], int)

    def __getitem__(self, which: npt.NDArray[Any]) -> View:
        part = View()
        part.work, part.rows = self.work[which], self.rows[which]
        part.family = self.family[which]
        return part
