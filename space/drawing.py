"""A network as a drawing: one row a block, in SVG that stands in a page or a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import sqrt

from .errors import InvalidArgument

__all__ = ["Row", "drawing"]

_ROW, _TOP = 24, 26  # heights in pixels
_LEFT, _BRICKS, _BAR, _PERCENT = 82, 190, 120, 46
_LETTER = 7.0  # most of a letter in pixels, on average over a row
_WIDEST, _NARROWEST, _GAP = 52.0, 5.0, 2.0
# Light to dark with the kernel; readable on white and on black, and to the colour-blind. The text
# beside each row says the same.
_FILL = {1: "#9aa5b1", 3: "#8cc1e8", 5: "#3f8fc9", 7: "#1f5f99"}


@dataclass(frozen=True)
class Row:
    """One row of a drawing.

    Args:
        text: What it is, in words.
        layers: How many, >= 1.
        kernel: Side of the greatest kernel; 1 for none.
        in_px: Side of its input map, in pixels.
        channels: That it gives.
        macs: Multiply-adds of one image.
    """

    text: str
    layers: int
    kernel: int
    in_px: int
    channels: int
    macs: int


def drawing(rows: Sequence[Row], times_ms: Sequence[float] | None = None) -> str:
    """A network as SVG: a brick a layer, wider with its channels and darker with its kernel.

    Args:
        rows: Of a network, as `Architecture.rows` or `NetworkGraph.rows` gives them.
        times_ms: Of each row, in ms, >= 0; None draws the shares of the
            multiply-adds instead.
    Returns:
        An `<svg>` element that takes the text's colour; nothing in it is loaded from elsewhere.
    Raises:
        InvalidArgument: Another number of times than rows.
    """
    values: Sequence[float] = [r.macs for r in rows] if times_ms is None else times_ms
    if not rows:
        return ""
    if len(values) != len(rows):
        raise InvalidArgument(f"{len(values)} times for {len(rows)} rows")
    whole, greatest = sum(values) or 1.0, max(values) or 1.0
    widest = sqrt(max(r.channels for r in rows))
    bricks = [max(_NARROWEST, _WIDEST * sqrt(r.channels) / widest) for r in rows]
    longest = max(r.layers * (b + _GAP) for r, b in zip(rows, bricks, strict=True))
    scale = min(1.0, _BRICKS / longest)
    label = _LEFT + min(longest, _BRICKS) + 14
    bars = round(label + max(len(r.text) for r in rows) * _LETTER + 14)
    width = bars + _BAR + _PERCENT
    shown = "MACs" if times_ms is None else "time"
    parts = [
        _text(_LEFT - 12, 16, "input", "end"),
        _text(label, 16, "block"),
        _text(bars, 16, f"share of the {shown}"),
    ]
    for n, (row, brick, value) in enumerate(zip(rows, bricks, values, strict=True)):
        y = _TOP + n * _ROW
        parts.append(_text(_LEFT - 12, y + 15, f"{row.in_px}×{row.in_px}", "end"))
        for layer in range(row.layers):
            x, wide = _LEFT + layer * (brick + _GAP) * scale, brick * scale
            fill = _FILL[max(k for k in _FILL if k <= max(row.kernel, 1))]
            parts.append(
                f'<rect x="{x:.1f}" y="{y + 2}" width="{wide:.1f}" height="{_ROW - 6}" rx="2" '
                f'fill="{fill}"/>'
            )
        parts.append(_text(label, y + 15, row.text))
        bar = _BAR * value / greatest
        parts.append(
            f'<rect x="{bars}" y="{y + 5}" width="{bar:.1f}" height="{_ROW - 12}" '
            'fill="currentColor" opacity="0.45"/>'
        )
        parts.append(_text(bars + bar + 6, y + 15, f"{value / whole:.0%}"))
    height = _TOP + len(rows) * _ROW + 4
    said = f"{len(rows)} parts from {rows[0].in_px}×{rows[0].in_px} pixels"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{escape(said)}" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="currentColor">'
        f"{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(text)}</text>'
