"""Networks of cells that a search found: NASNet-A and AmoebaNet-A, each with two inputs a cell."""

from __future__ import annotations

from ..graph import IMAGE
from .graph_builder import GraphBuilder as Builder

__all__ = ["amoebanet_mobile", "nasnet_mobile"]


def nasnet_mobile(g: Builder, width: float, classes: int) -> None:
    """NASNet-A mobile, 4 @ 1056 (Zoph et al., 2018): cells of two inputs, without drop-path.

    Strided paths are padded evenly here, and both halves of a reduced shortcut see the same pixels.
    """

    done: dict[tuple[str, int], int] = {}  # what several paths of a cell read

    def active(x: int) -> int:
        if ("relu", x) not in done:
            done["relu", x] = g.act(x, "relu")
        return done["relu", x]

    def unit(x: int, out: int, kernel: int = 1, stride: int = 1, depthwise: bool = False) -> int:
        if depthwise:
            inside = g.channels(x)
            x = g.conv(
                x, inside, kernel, stride, act="none", groups=0, normalised=False, bias=False
            )
            return g.conv(x, out, act="none")
        return g.conv(x, out, kernel, stride, act="none")

    def twice(x: int, out: int, kernel: int, stride: int = 1, stem: bool = False) -> int:
        inside = out if stem else g.channels(x)
        x = unit(active(x), inside, kernel, stride, True)
        return unit(active(x), out, kernel, 1, True)

    def squeezed(x: int, out: int) -> int:
        return unit(active(x), out)

    def halved(x: int, out: int) -> int:
        x = g.pool(active(x), 1, 2, 0, kind="average_pool")
        halves = [g.conv(x, out // 2, act="none", normalised=False, bias=False) for _ in range(2)]
        return g.norm(g.concat(halves), "none")

    def mean3(x: int, stride: int = 1) -> int:
        return g.pool(x, 3, stride, kind="average_pool")

    def normal(x: int, before: int, out: int) -> int:
        c = out // 6
        left = squeezed(x, c)
        right = halved(before, c) if g.px(before) != g.px(x) else squeezed(before, c)
        parts = [
            g.add(twice(left, c, 5), twice(right, c, 3)),
            g.add(twice(right, c, 5), twice(right, c, 3)),
            g.add(mean3(left), right),
            g.add(*[mean3(right)] * 2),
            g.add(twice(left, c, 3), left),
        ]
        return g.concat([right, *parts])

    def reduction(x: int, before: int, out: int, stem: bool = False) -> int:
        c = out // 4
        left = squeezed(x, c)
        if stem:
            right = before
        elif g.px(before) != g.px(x):
            right = halved(before, c)
        else:
            right = squeezed(before, c)
        first = g.add(twice(left, c, 5, 2), twice(right, c, 7, 2, stem))
        pooled = g.pool(left)
        second = g.add(pooled, twice(right, c, 7, 2, stem))
        third = g.add(mean3(left, 2), twice(right, c, 5, 2, stem))
        fourth = g.add(second, mean3(first))
        return g.concat([second, third, fourth, g.add(twice(first, c, 3), pooled)])

    image = g.conv(IMAGE, 32, 3, 2, pad=0, act="none")
    before, x = image, reduction(image, image, 44, stem=True)
    before, x = x, reduction(x, before, 88)
    for stage, out in enumerate((264, 528, 1056)):
        if stage:
            # The first cell behind a reduction reads what came two cells before it.
            before, x = before, reduction(x, before, 2 * out // 3)
        for _ in range(4):
            before, x = x, normal(x, before, out)
    g.linear(g.mean(active(x)), classes)


# Pairs of `operation:state`, each pair summed to the next state, and the states that are joined.
# States 0 and 1 are what the cell before gave and what the one before that gave.
_NORMAL = ("avg:0 max:0 3:1 none:1 none:0 avg:1 3:0 5:2 avg:5 3:0", (1, 3, 4, 6))
_REDUCTION = ("3:1 avg:0 max:0 7:2 max:1 max:0 3:4 wide:0 avg:1 7:0", (2, 3, 4, 5, 6))


def amoebanet_mobile(g: Builder, width: float, classes: int) -> None:
    """AmoebaNet-A with N = 4 and F = 50 (Real et al., 2019), cells as in the official TPU code.

    Strided paths are padded evenly here, and both halves of a reduced shortcut see the same pixels.
    """
    done: dict[tuple[str, int], int] = {}  # what several paths read

    def active(x: int) -> int:
        if ("relu", x) not in done:
            done["relu", x] = g.act(x, "relu")
        return done["relu", x]

    def fitted(x: int, out: int, stride: int = 1) -> int:
        same = stride == 1 and g.channels(x) == out
        return x if same else g.conv(active(x), out, 1, stride, act="none")

    def separable(x: int, out: int, kernel: int, stride: int) -> int:
        for step in (stride, 1):
            inside = g.channels(x)
            flags = {"normalised": False, "bias": False}
            y = g.conv(active(x), inside, kernel, step, act="none", groups=0, **flags)
            x = g.conv(y, out, act="none")
        return x

    def applied(operation: str, x: int, out: int, stride: int) -> int:
        if operation == "none":
            return fitted(x, out, stride)
        if operation in ("avg", "max"):
            kind = "average_pool" if operation == "avg" else "max_pool"
            if (f"{kind} {stride}", x) not in done:
                pool = g.pool(x, 3, stride, kind=kind)  # type: ignore[arg-type]
                done[f"{kind} {stride}", x] = pool
            return done[f"{kind} {stride}", x]
        if operation == "wide":  # 1×7 and 7×1, a quarter as wide inside
            y = g.conv(g.conv(active(x), out // 4), out // 4, (1, 7), stride)
            return g.conv(g.conv(y, out // 4, (7, 1)), out, act="none")
        return separable(x, out, int(operation), stride)

    def halved(x: int, out: int) -> int:
        x = g.pool(active(x), 1, 2, 0, kind="average_pool")
        sizes, flags = (out // 2, out - out // 2), {"normalised": False, "bias": False}
        return g.norm(g.concat([g.conv(x, n, act="none", **flags) for n in sizes]), "none")

    def cell(x: int, before: int, out: int, reduces: bool) -> int:
        pairs, joined = _REDUCTION if reduces else _NORMAL
        # The first cell has one input, which it reads twice.
        right = halved(before, out) if g.px(before) != g.px(x) else fitted(before, out)
        states = [g.conv(active(x), out, act="none"), right]
        words = [word.split(":") for word in pairs.split()]
        for pair in zip(words[::2], words[1::2], strict=True):
            parts = []
            for operation, state in pair:
                stride = 2 if reduces and int(state) < 2 else 1
                parts.append(applied(operation, states[int(state)], out, stride))
            states.append(g.add(*parts))
        return g.concat([states[i] for i in joined])

    before = x = g.conv(IMAGE, 32, 3, 2, act="none")
    for stage, out in enumerate((12, 25, 50, 100, 200)):
        if stage != 2:
            before, x = x, cell(x, before, out, True)
        for _ in range(4 if stage >= 2 else 0):
            before, x = x, cell(x, before, out, False)
    g.linear(g.mean(active(x)), classes)
