"""Plots in two steps: points (plain rows of a run and its validation), then Plotly figures.

○ is predicted and ● is measured, in a blue and an orange that colour-blind readers distinguish.
They hold no text of the user's but operators' names, which are escaped: in a text a plot draws
links.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from phonenas.search.run_folder import Loaded
from phonenas.search.validation.validate import SAID
from phonenas.space.naming import counted

__all__ = [
    "CalibrationPoint",
    "FrontPoint",
    "OperatorPoint",
    "calibration_figure",
    "calibration_points",
    "front_figure",
    "front_points",
    "operator_figure",
    "operator_points",
]

# Okabe and Ito's blue and vermillion; the ramp is viridis, cut where it would drown in white
# or in black paper.
PREDICTED, MEASURED, OTHER, KNOWN = "#0072B2", "#D55E00", "#8A9099", "#009E73"
_RAMP = ("#46327E", "#365C8D", "#277F8E", "#1FA187", "#4AC16D", "#A0DA39")
_STEM, _HEAD, _CONSTANT = "#5B616B", "#E69F00", "#B9BEC6"
HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A6D3B", "#8A9099")
_MOST = 2000  # evaluated networks drawn; more would weigh down the page and show nothing new
_NAME_WIDTH, _LONGEST = 0.16, 20  # of the axis, that a name takes; and its characters
_FAR = 3.0  # and none slower than this many targets


@dataclass(frozen=True)
class FrontPoint:
    """A network by latency and top-1.

    Args:
        kind: "evaluated" or "front" (both ○ predicted), or "validated" (● measured).
        id: Of the candidate; None for the other evaluated.
        latency_ms: Predicted, or measured where validated, ms.
        low_ms, high_ms: 90 % interval of a front's prediction; None elsewhere.
        top1, top1_error: Estimate in [0, 1] and its standard error.
        meets_target: By the measured value; None where not validated or without a target.
        verdict: The same with its error bar, as `target_verdict`.
    """

    kind: Literal["evaluated", "front", "validated"]
    id: int | None
    latency_ms: float
    top1: float
    top1_error: float
    low_ms: float | None = None
    high_ms: float | None = None
    meets_target: bool | None = None
    verdict: str | None = None


@dataclass(frozen=True)
class CalibrationPoint:
    """A whole network: predicted by a model that had not seen it, and measured; in ms."""

    kind: Literal["examined", "validated"]
    network: str
    predicted_ms: float
    low_ms: float
    high_ms: float
    measured_ms: float

    @property
    def inside(self) -> bool:
        """Whether the measurement lies in the 90 % interval."""
        return self.low_ms <= self.measured_ms <= self.high_ms


@dataclass(frozen=True)
class OperatorPoint:
    """What one operator adds to a network's predicted latency.

    Args:
        id: Of the candidate.
        group: Its stage: "stem", "block at 112 px", ..., "head", "constant share".
        operator: Its name.
        ms: Its share of the prediction, ms.
        measured: Whether it was measured alone; else the regressor predicted it.
    """

    id: int
    group: str
    operator: str
    ms: float
    measured: bool


def front_points(run: Loaded, validation: Mapping[str, Any] | None = None) -> list[FrontPoint]:
    """Every network of a run's plot: evaluated, then front, then validated.

    At most 2,000 of the evaluated, evenly spaced in the order of the search, none slower than
    three times the target (without one, than three times the front's slowest).
    """
    front = run.front
    limit_ms = _FAR * (front.target_ms or max((c.latency_ms for c in front), default=np.inf))
    evaluated = run.evaluations()
    near = np.flatnonzero((evaluated.latency_ms <= limit_ms) & evaluated.comparable)
    if len(near) > _MOST:
        near = near[np.linspace(0, len(near) - 1, _MOST).round().astype(int)]
    shown = evaluated.take(near)
    rows = np.column_stack([shown.latency_ms, shown.top1, shown.top1_error])
    points = [FrontPoint("evaluated", None, *row) for row in rows.tolist()]
    points += [
        FrontPoint("front", c.id, c.latency_ms, c.top1, c.top1_error, c.low_ms, c.high_ms)
        for c in front
    ]
    errors = {c.id: c.top1_error for c in front}
    for v in () if validation is None else validation["networks"]:
        error = v.get("top1_error", errors.get(v["id"], 0.0))
        numbers = (v["id"], v["measured_ms"], v["top1"], error)
        said = {"meets_target": v.get("meets_target"), "verdict": v.get("verdict")}
        points.append(FrontPoint("validated", *numbers, **said))
    return points


def calibration_points(validation: Mapping[str, Any]) -> list[CalibrationPoint]:
    """The whole networks that examined the model, then the validated ones."""
    model = validation.get("model") or {}
    points = [
        CalibrationPoint("examined", str(row[0]), *(float(x) for x in row[1:5]))
        for row in model.get("examined", ())
    ]
    for v in validation["networks"]:
        numbers = [v[k] for k in ("predicted_ms", "low_ms", "high_ms", "measured_ms")]
        points.append(CalibrationPoint("validated", v["block_args"], *numbers))
    return points


def operator_points(validation: Mapping[str, Any]) -> list[OperatorPoint]:
    """Where the predicted milliseconds of each validated network go; they add up to it."""
    points = []
    for v in validation["networks"]:
        for o in v.get("operators", ()):
            at = f"at {int(o['in_px'])} px"
            ends = [end for end in ("stem", "head") if o["label"].startswith(end)]
            group, name = ends[0] if ends else f"block {at}", plain(f"{o['label']} {at}")
            points.append(OperatorPoint(v["id"], group, name, float(o["ms"]), bool(o["measured"])))
        if v.get("constant_ms") is not None:
            rest = "constant share"
            points.append(OperatorPoint(v["id"], rest, rest, float(v["constant_ms"]), True))
    return points


def plain(text: str) -> str:
    """Text of a user in a plot, which draws links and knows no entity of a quotation mark."""
    return escape(text, quote=False)


def _place(group: str) -> tuple[int, int]:
    """Stem, blocks from the largest map to the smallest, head, constant share."""
    ends = {"stem": 0, "head": 2, "constant share": 3}
    return (ends[group], 0) if group in ends else (1, -int(group.split()[2]))


def figure_of(traces: Sequence[Any], title: str, x: str, y: str, height_px: int) -> Any:
    faint = "rgba(138,144,153,.3)"
    axis = {"zeroline": False, "gridcolor": faint, "tickcolor": faint, "ticks": "outside"}
    axis["automargin"] = True
    layout = {
        "template": "none",
        "height": height_px,
        "margin": {"l": 8, "r": 16, "t": 32, "b": 8},
        "title": {"text": title, "x": 0, "pad": {"l": 12}, "font_size": 15, "automargin": True},
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"bgcolor": "#fff", "font_color": "#1b1f24", "align": "left"},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
        "xaxis": {**axis, "title_text": x},
        "yaxis": {**axis, "title_text": y},
    }
    return go.Figure(traces, layout)


def scatter(
    name: str, x: Any, y: Any, marker: Any, hover: str = "", rows: Any = None, **more: Any
) -> Any:
    more |= {"hovertemplate": hover + "<extra></extra>"} if hover else {"hoverinfo": "skip"}
    more = {"mode": "markers", **more}
    return go.Scatter(x=x, y=y, name=name, marker=marker, customdata=rows, **more)


def _line(name: str, x: Sequence[float], y: Sequence[float]) -> Any:
    line = {"color": OTHER, "dash": "dash", "width": 1.5}
    return scatter(name, x, y, None, mode="lines", line=line)


def target_line(target_ms: float | None, tops: Sequence[float]) -> list[Any]:
    """A line at the target over the range of `tops`; none without a target or networks."""
    if target_ms is None or not tops:
        return []
    return [_line(f"target, {target_ms:.2f} ms", [target_ms] * 2, [min(tops), max(tops)])]


def names_beside(
    names: Sequence[str], x: Sequence[Any], ends: tuple[float, float]
) -> dict[str, Any]:
    """Of a trace: names above or below their points, where none other is near; the rest on hover.

    Args:
        names: Of n points; escaped here.
        x: Their places, (n,).
        ends: Of the axis.
    """
    last = dict.fromkeys(("top center", "bottom center"), -math.inf)
    texts, places = [""] * len(x), ["top center"] * len(x)
    for i in sorted(range(len(x)), key=lambda i: float(x[i])):
        for place, at in last.items():
            if x[i] - at >= _NAME_WIDTH * (ends[1] - ends[0]):
                short = names[i] if len(names[i]) <= _LONGEST else f"{names[i][: _LONGEST - 1]}…"
                texts[i], places[i], last[place] = plain(short), place, x[i]
                break
    font = {"size": 10.5}
    return {"mode": "markers+text", "text": texts, "textposition": places, "textfont": font}


def error_bars(bounds: Sequence[Any], at: Sequence[float], colour: str) -> dict[str, Any]:
    """Bars about the values `at` to the (low, high) of each."""
    up = [high - a for (_, high), a in zip(bounds, at, strict=True)]
    down = [a - low for (low, _), a in zip(bounds, at, strict=True)]
    bar = {"type": "data", "symmetric": False, "thickness": 1, "width": 0, "color": colour}
    return {**bar, "array": up, "arrayminus": down}


def front_figure(
    points: Sequence[FrontPoint], target_ms: float | None, evaluated: int, device: str = ""
) -> Any:
    """The figure of `front_points`: top-1 against latency, a `plotly.graph_objects.Figure`.

    `target_ms` draws a line there; `evaluated` is how many networks were, drawn or not; `device`
    is named where there are several.
    """
    shown, front, measured = (
        [p for p in points if p.kind == kind] for kind in ("evaluated", "front", "validated")
    )
    at = [p.latency_ms for p in front]
    traces = [
        scatter(
            "evaluated, predicted",
            [round(p.latency_ms, 3) for p in shown],
            [round(100 * p.top1, 2) for p in shown],
            {"color": OTHER, "size": 4, "symbol": "circle-open", "opacity": 0.45},
        ),
        scatter(
            "front, predicted with 90 % interval",
            at,
            [100 * p.top1 for p in front],
            {"color": PREDICTED, "size": 8, "symbol": "circle-open", "line": {"width": 1.6}},
            "network %{customdata[0]}<br>○ %{x:.2f} ms (%{customdata[1]:.2f} to "
            "%{customdata[2]:.2f})<br>○ top-1 %{y:.1f} ± %{customdata[3]:.1f} %<br>"
            "%{customdata[4]}",
            # page.js puts the block string here, from the table of the front.
            [[p.id, p.low_ms, p.high_ms, 100 * p.top1_error, ""] for p in front],
            error_x=error_bars([(p.low_ms, p.high_ms) for p in front], at, "rgba(0,114,178,.35)"),
        ),
    ]
    if measured:
        traces.append(
            scatter(
                "validated, measured",
                [p.latency_ms for p in measured],
                [100 * p.top1 for p in measured],
                {"color": MEASURED, "size": 10},
                "network %{customdata[0]}<br>● %{x:.2f} ms%{customdata[1]}<br>○ top-1 %{y:.1f} %",
                [[p.id, f", target: {SAID[p.verdict]}" if p.verdict else ""] for p in measured],
            )
        )
    traces += target_line(target_ms, [100 * p.top1 for p in points])
    title = (
        f"{counted(len(front), 'network')} on the front, {len(measured) or 'none'} of them "
        f"{'measured' if measured else 'validated yet'}; {len(shown):,} of {evaluated:,} evaluated "
        "are drawn"
    )
    x = f"latency on {plain(device)}, ms" if device else "latency, ms"
    return figure_of(traces, title, x, "○ top-1 estimate, %", 460)


def calibration_figure(points: Sequence[CalibrationPoint]) -> Any:
    """The figure of `calibration_points`: predicted against measured, with the line of equality."""
    values = [x for p in points for x in (p.low_ms, p.high_ms, p.measured_ms)]
    ends = [min(values), max(values)]
    traces, counts = [_line("predicted = measured", ends, ends)], []
    for kind, colour, size, name, told in (
        ("examined", PREDICTED, 7, "of the score", "of the model's score"),
        ("validated", MEASURED, 10, "validated", "validated"),
    ):
        networks = [p for p in points if p.kind == kind]
        if not networks:
            continue
        counts.append(f"{len(networks)} {told}")
        at = [p.predicted_ms for p in networks]
        traces.append(
            scatter(
                name,
                [p.measured_ms for p in networks],
                at,
                {"color": colour, "size": size},
                "● %{x:.2f} ms measured<br>○ %{y:.2f} ms predicted (%{customdata[0]:.2f} to "
                "%{customdata[1]:.2f}), %{customdata[2]}",
                [[p.low_ms, p.high_ms, "inside" if p.inside else "outside"] for p in networks],
                error_y=error_bars([(p.low_ms, p.high_ms) for p in networks], at, colour),
            )
        )
    title = f"{counted(len(points), 'whole network')}: {', '.join(counts)}"
    return figure_of(traces, title, "● measured, ms", "○ predicted with 90 % interval, ms", 460)


def operator_figure(points: Sequence[OperatorPoint], measured_ms: Mapping[int, float]) -> Any:
    """The figure of `operator_points`: one bar a network, one colour a stage, ● its measured whole.

    `measured_ms` is the whole latency by candidate id, ms.
    """
    ids = list(dict.fromkeys(p.id for p in points))
    groups = sorted({p.group for p in points}, key=_place)
    blocks = [g for g in groups if g.startswith("block")]
    step = (len(_RAMP) - 1) / max(1, len(blocks) - 1)
    colours = {g: _RAMP[min(round(i * step), len(_RAMP) - 1)] for i, g in enumerate(blocks)}
    colours |= {"stem": _STEM, "head": _HEAD, "constant share": _CONSTANT}
    traces: list[Any] = []
    for group in groups:
        operators = [p for p in points if p.group == group]
        hover = f"%{{customdata[0]}}<br>○ %{{x:.3f}} ms%{{customdata[1]}}<extra>{group}</extra>"
        marker = {"color": colours[group], "line": {"color": "rgba(255,255,255,.7)", "width": 1}}
        shapes = ["" if p.measured else "/" for p in operators]
        marker["pattern"] = {"shape": shapes, "fillmode": "overlay", "fgcolor": "#fff"}
        rows = [[p.operator, "" if p.measured else ", not measured alone"] for p in operators]
        x, y = [p.ms for p in operators], [f"network {p.id}" for p in operators]
        bars = go.Bar(x=x, y=y, orientation="h", name=group, marker=marker)
        traces.append(bars.update(customdata=rows, hovertemplate=hover))
    traces.append(
        scatter(
            "whole, measured",
            [measured_ms[i] for i in ids],
            [f"network {i}" for i in ids],
            {"color": MEASURED, "size": 11, "line_color": "#fff", "line_width": 1.5},
            "● %{x:.2f} ms measured",
        )
    )
    title = f"○ shares of the predicted latency, ● measured whole; {counted(len(ids), 'network')}"
    figure = figure_of(traces, title, "ms", "", 150 + 44 * len(ids))
    return figure.update_layout(
        barmode="relative", bargap=0.35, yaxis={"autorange": "reversed", "showgrid": False}
    )
