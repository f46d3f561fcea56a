"""Where a device is fast: time per multiply-add of each kind of operator, by its map's size.

A table with coloured cells: it holds its numbers, needs no script, and prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import log
from statistics import median

from phonenas.latency_model import LatencyModel
from phonenas.search.run_folder import Loaded
from phonenas.space import Operator
from phonenas.space.errors import PhonenasError
from phonenas.space.naming import counted

__all__ = ["Cell", "cells_of", "heat_map_section"]

# Cividis, which colour-blind readers see as others do: blue is fast, yellow is slow.
_SCALE: tuple[str, ...] = (
    "#00224e",
    "#123570",
    "#3b496c",
    "#575d6d",
    "#707173",
    "#8a8678",
    "#a59c74",
    "#c3b369",
)
_SCALE += ("#e1cc55", "#fee838")
_LIGHT = 5  # from this colour on the ink is dark: 4.5 to 1 at least
_NAMES = {
    "conv": "convolution",
    "proj": "projection",
    "dsconv": "separable",
    "mbconv": "MBConv",
    "fused": "fused MBConv",
    "edge": "edge MBConv",
}


@dataclass(frozen=True)
class Cell:
    """Operators of one kind on maps of one size.

    Args:
        kind: In words: "MBConv6 5×5, squeeze".
        px: Side of the input map, pixels.
        ps: Time alone over multiply-adds, picoseconds: the median, the least and the most.
        operators: How many.
        measured: How many of them were measured alone; the others are predicted.
    """

    kind: str
    px: int
    ps: tuple[float, float, float]
    operators: int
    measured: int


def kind_of(o: Operator) -> str:
    """What an operator is, its size and its stride aside.

    >>> kind_of(Operator.parse("mbconv6_k5_s2_se20_14x14x80_112"))
    'MBConv6 5×5, squeeze'
    """
    if o.kind in ("stem", "head"):
        return o.kind
    expansion = f"{o.expansion:.2g}" if o.kind in ("mbconv", "fused", "edge") else ""
    ahead = f"{o.ahead}×{o.ahead} and " * bool(o.ahead)
    kernel = f" {ahead}{o.kernel}×{o.kernel}" if o.kernel else f" {ahead.removesuffix(' and ')}"
    return f"{_NAMES[o.kind]}{expansion}{kernel.rstrip()}" + ", squeeze" * bool(o.se_channels)


def cells_of(times_ms: Mapping[Operator, float], measured: Iterable[Operator]) -> list[Cell]:
    """The cells of a heat map.

    Args:
        times_ms: Of each operator alone, ms.
        measured: Those of them whose times were measured.
    """
    known = frozenset(measured)
    groups: dict[tuple[str, int], list[Operator]] = {}
    for o in times_ms:
        groups.setdefault((kind_of(o), o.in_px), []).append(o)
    cells = []
    for (kind, px), own in groups.items():
        ps = [times_ms[o] * 1e9 / o.macs for o in own]
        among = sum(o in known for o in own)
        cells.append(Cell(kind, px, (median(ps), min(ps), max(ps)), len(own), among))
    return cells


def heat_map_section(run: Loaded, model: LatencyModel | None, heading: str = "") -> str:
    """A run's operators as a heat map, HTML; "" where the model's times cannot be read.

    Args:
        run: Whose space's operators are shown.
        model: That predicted for it.
        heading: Behind the title: " on pixel6", escaped.
    """
    if model is None:
        return ""
    try:
        operators: Sequence[Operator] = run.space.operators()
    except PhonenasError:  # a space of one's own that is not installed here
        operators = list(model.table.ms)
    try:
        ms = model.operators(operators).ms.tolist() if operators else []
    except PhonenasError:  # the page tells of a model that does not fit elsewhere
        return ""
    cells = cells_of(dict(zip(operators, ms, strict=True)), model.table.ms)
    return _html(cells, heading) if cells else ""


def _html(cells: Sequence[Cell], heading: str) -> str:
    by = {(c.kind, c.px): c for c in cells}
    sizes = sorted({c.px for c in cells}, reverse=True)
    rows = sorted(
        {c.kind for c in cells}, key=lambda k: median(c.ps[0] for c in cells if c.kind == k)
    )
    ends = min(c.ps[0] for c in cells), max(c.ps[0] for c in cells)
    head = "".join(f'<th scope="col">{px} px</th>' for px in sizes)
    measured, whole = sum(c.measured for c in cells), sum(c.operators for c in cells)
    mixed = 0 < measured < whole
    of = f"● {measured:,} of {counted(whole, 'operator')} measured alone"
    if not measured:
        of = f"{counted(whole, 'operator')}, ○ predicted"
    lines = "".join(
        f'<tr><th scope="row">{escape(kind)}</th>'
        + "".join(_cell(by.get((kind, px)), ends, mixed) for px in sizes)
        + "</tr>"
        for kind in rows
    )
    steps = "".join(f'<i style="background:{colour}"></i>' for colour in _SCALE)
    fastest = min(cells, key=lambda c: c.ps[0])
    slowest = max(cells, key=lambda c: c.ps[0])
    times = _ps(slowest.ps[0] / fastest.ps[0])
    said = (
        f" The fastest is {escape(fastest.kind)} at {fastest.px} px, the slowest "
        f"{escape(slowest.kind)} at {slowest.px} px: {times} times as long for a MAC."
    )
    return (
        f"<h2>How long a multiply-add takes{heading}</h2>"
        f"<p>Picoseconds for each multiply-add (MAC) of an operator alone: the median of a kind of "
        f"operator on maps of one size, by the side of the input; {of}.{said * (times != '1')}</p>"
        f'<p class="soft scale">{_ps(ends[0])} (fast) <span aria-hidden="true">{steps}</span> '
        f"{_ps(ends[1])} (slow)</p>"
        '<div class="box" tabindex="0"><table class="heat"><thead><tr><th scope="col">operator</th>'
        f"{head}</tr></thead><tbody>{lines}</tbody></table></div>"
        '<p class="soft">The fastest kinds stand above. A network is fast where it spends its '
        "MACs in fast cells. In a network an operator takes another time than alone; the latency "
        "model is calibrated for that.</p>"
    )


def _cell(cell: Cell | None, ends: tuple[float, float], mixed: bool) -> str:
    """A cell; with its mark where some of the map are measured and others predicted."""
    if cell is None:
        return '<td class="none">–</td>'
    middle, least, most = cell.ps
    span = log(ends[1] / ends[0])
    place = round((len(_SCALE) - 1) * log(middle / ends[0]) / span) if span else 0
    ink = "#000" if place >= _LIGHT else "#fff"
    mark = ("● " if cell.measured == cell.operators else "○ ") * mixed
    known = f"{cell.measured} of them measured alone"
    if cell.measured in (0, cell.operators):
        known = "measured alone" if cell.measured else "predicted"
    told = (
        f"{cell.kind} at {cell.px} px: {counted(cell.operators, 'operator')}, {known}; "
        f"{_ps(least)} to {_ps(most)} ps for a MAC"
    )
    style = f"background:{_SCALE[place]};color:{ink}"
    return f'<td style="{style}" title="{escape(told)}">{mark}{_ps(middle)}</td>'


def _ps(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
