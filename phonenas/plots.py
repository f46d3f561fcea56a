"""Plots in two steps: points (plain rows of a run and its validation), then ink (Plotly figures).

○ is predicted and ● is measured, in one blue and one orange that colour-blind readers tell
apart. Figures of one run hold no text of the user's: what they show is numbers, ids and
operators' names. Those of several (their points are in `comparison`) name the runs, escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from .comparison import Comparison
from .search.run_folder import Loaded

__all__ = [
    "CalibrationPoint", "FrontPoint", "OperatorPoint", "colours",
    "calibration_figure", "calibration_points", "courses_figure", "front_figure", "front_points",
    "fronts_figure", "operator_figure", "operator_points",
]  # fmt: skip

# Okabe and Ito's blue and vermillion; the ramp is viridis, cut where it would drown in white
# or in black paper.
_PREDICTED, _MEASURED, _OTHER = "#0072B2", "#D55E00", "#8A9099"
_RAMP = ("#46327E", "#365C8D", "#277F8E", "#1FA187", "#4AC16D", "#A0DA39")
_STEM, _HEAD, _CONSTANT = "#5B616B", "#E69F00", "#B9BEC6"
_HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A6D3B", "#8A9099")
_MOST = 2000  # evaluated networks drawn; more would weigh down the page and show nothing new
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
        meets_target: As measured; None where not validated or without a target.
    """

    kind: Literal["evaluated", "front", "validated"]
    id: int | None
    latency_ms: float
    top1: float
    top1_error: float
    low_ms: float | None = None
    high_ms: float | None = None
    meets_target: bool | None = None


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
        group: Stage that it counts to: "stem", "block at 112 px", ..., "head", "constant share".
        operator: Its name.
        ms: Its share of the prediction, ms.
        measured: Whether it was measured alone; else a curve filled in.
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
    numbers = run.numbers()
    near = numbers[(numbers[:, 0] <= limit_ms) & ~np.isnan(numbers[:, 1])]  # some may have failed
    if len(near) > _MOST:
        near = near[np.linspace(0, len(near) - 1, _MOST).round().astype(int)]
    points = [FrontPoint("evaluated", None, *row[:3]) for row in near.tolist()]
    points += [
        FrontPoint("front", c.id, c.latency_ms, c.top1, c.top1_error, c.low_ms, c.high_ms)
        for c in front
    ]
    errors = {c.id: c.top1_error for c in front}
    for v in () if validation is None else validation["networks"]:
        error = v.get("top1_error", errors.get(v["id"], 0.0))
        points.append(
            FrontPoint(
                "validated", v["id"], v["measured_ms"], v["top1"], error,
                meets_target=v.get("meets_target"),
            )
        )  # fmt: skip
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
            group, name = ends[0] if ends else f"block {at}", f"{o['label']} {at}"
            points.append(OperatorPoint(v["id"], group, name, float(o["ms"]), bool(o["measured"])))
        if v.get("constant_ms") is not None:
            rest = "constant share"
            points.append(OperatorPoint(v["id"], rest, rest, float(v["constant_ms"]), True))
    return points


def _place(group: str) -> tuple[int, int]:
    """Stem, blocks from the largest map to the smallest, head, constant share."""
    ends = {"stem": 0, "head": 2, "constant share": 3}
    return (ends[group], 0) if group in ends else (1, -int(group.split()[2]))


def _figure(traces: Sequence[Any], title: str, x: str, y: str, height_px: int) -> Any:
    faint = "rgba(138,144,153,.3)"
    axis = {"zeroline": False, "gridcolor": faint, "tickcolor": faint, "ticks": "outside"}
    axis["automargin"] = True
    layout = {
        "template": "none", "height": height_px, "margin": {"l": 8, "r": 16, "t": 32, "b": 8},
        "title": {"text": title, "x": 0, "pad": {"l": 12}, "font_size": 15, "automargin": True},
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"bgcolor": "#fff", "font_color": "#1b1f24", "align": "left"},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
        "xaxis": {**axis, "title_text": x}, "yaxis": {**axis, "title_text": y},
    }  # fmt: skip
    return go.Figure(traces, layout)


def _dots(
    name: str, x: Any, y: Any, marker: Any, hover: str = "", rows: Any = None, **more: Any
) -> Any:
    more |= {"hovertemplate": hover + "<extra></extra>"} if hover else {"hoverinfo": "skip"}
    return go.Scatter(x=x, y=y, name=name, mode="markers", marker=marker, customdata=rows, **more)


def _line(name: str, x: Sequence[float], y: Sequence[float]) -> Any:
    line = {"color": _OTHER, "dash": "dash", "width": 1.5}
    return go.Scatter(x=x, y=y, name=name, mode="lines", hoverinfo="skip", line=line)


def _interval(points: Sequence[Any], at: Sequence[float], colour: str) -> dict[str, Any]:
    up = [p.high_ms - a for p, a in zip(points, at, strict=True)]
    down = [a - p.low_ms for p, a in zip(points, at, strict=True)]
    bar = {"type": "data", "symmetric": False, "thickness": 1, "width": 0, "color": colour}
    return {**bar, "array": up, "arrayminus": down}


def front_figure(points: Sequence[FrontPoint], target_ms: float | None, evaluated: int) -> Any:
    """Ink of `front_points`: top-1 against latency, a `plotly.graph_objects.Figure`.

    `target_ms` draws a line there; `evaluated` networks were judged, drawn or not.
    """
    shown, front, measured = (
        [p for p in points if p.kind == kind] for kind in ("evaluated", "front", "validated")
    )
    at = [p.latency_ms for p in front]
    traces = [
        _dots(
            "evaluated, predicted", [round(p.latency_ms, 3) for p in shown],
            [round(100 * p.top1, 2) for p in shown],
            {"color": _OTHER, "size": 4, "symbol": "circle-open", "opacity": 0.45},
        ),
        _dots(
            "front, predicted with 90 % interval", at, [100 * p.top1 for p in front],
            {"color": _PREDICTED, "size": 8, "symbol": "circle-open", "line": {"width": 1.6}},
            "network %{customdata[0]}<br>○ %{x:.2f} ms (%{customdata[1]:.2f} to "
            "%{customdata[2]:.2f})<br>○ top-1 %{y:.1f} ± %{customdata[3]:.1f} %",
            [[p.id, p.low_ms, p.high_ms, 100 * p.top1_error] for p in front],
            error_x=_interval(front, at, "rgba(0,114,178,.35)"),
        ),
    ]  # fmt: skip
    if measured:
        words = {True: ", meets the target", False: ", misses the target", None: ""}
        traces.append(
            _dots(
                "validated, measured", [p.latency_ms for p in measured],
                [100 * p.top1 for p in measured], {"color": _MEASURED, "size": 10},
                "network %{customdata[0]}<br>● %{x:.2f} ms%{customdata[1]}<br>○ top-1 %{y:.1f} %",
                [[p.id, words[p.meets_target]] for p in measured],
            )
        )  # fmt: skip
    if target_ms is not None and points:
        tops = [100 * p.top1 for p in points]
        ends = [min(tops), max(tops)]
        traces.append(_line(f"target, {target_ms:.2f} ms", [target_ms, target_ms], ends))
    title = f"{len(front)} {'network' if len(front) == 1 else 'networks'} on the front, "
    title += f"{len(measured)} of them measured; " if measured else "none of them validated yet; "
    title += f"{len(shown):,} of {evaluated:,} evaluated are drawn"
    return _figure(traces, title, "latency, ms", "○ top-1 estimate, %", 460)


def calibration_figure(points: Sequence[CalibrationPoint]) -> Any:
    """Ink of `calibration_points`: predicted against measured, with the line of equality."""
    values = [x for p in points for x in (p.low_ms, p.high_ms, p.measured_ms)]
    ends = [min(values), max(values)]
    traces, counts = [_line("predicted = measured", ends, ends)], []
    for kind, colour, size, words in (
        ("examined", _PREDICTED, 7, "examined the model"),
        ("validated", _MEASURED, 10, "validated"),
    ):
        of = [p for p in points if p.kind == kind]
        if not of:
            continue
        counts.append(f"{len(of)} {words}")
        at = [p.predicted_ms for p in of]
        traces.append(
            _dots(
                words, [p.measured_ms for p in of], at, {"color": colour, "size": size},
                "● %{x:.2f} ms measured<br>○ %{y:.2f} ms predicted (%{customdata[0]:.2f} to "
                "%{customdata[1]:.2f}), %{customdata[2]}",
                [[p.low_ms, p.high_ms, "inside" if p.inside else "outside"] for p in of],
                error_y=_interval(of, at, colour),
            )
        )  # fmt: skip
    title = f"{len(points)} whole networks: {', '.join(counts)}"
    return _figure(traces, title, "● measured, ms", "○ predicted with 90 % interval, ms", 460)


def operator_figure(points: Sequence[OperatorPoint], measured_ms: Mapping[int, float]) -> Any:
    """Ink of `operator_points`: one bar a network, one colour a stage, ● its measured whole.

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
        of = [p for p in points if p.group == group]
        hover = f"%{{customdata[0]}}<br>○ %{{x:.3f}} ms%{{customdata[1]}}<extra>{group}</extra>"
        marker = {"color": colours[group], "line": {"color": "rgba(255,255,255,.7)", "width": 1}}
        shapes = ["" if p.measured else "/" for p in of]
        marker["pattern"] = {"shape": shapes, "fillmode": "overlay", "fgcolor": "#fff"}
        rows = [[p.operator, "" if p.measured else ", not measured alone"] for p in of]
        traces.append(
            go.Bar(
                x=[p.ms for p in of], y=[f"network {p.id}" for p in of], orientation="h",
                name=group, marker=marker, customdata=rows, hovertemplate=hover,
            )
        )  # fmt: skip
    traces.append(
        _dots(
            "whole, measured", [measured_ms[i] for i in ids], [f"network {i}" for i in ids],
            {"color": _MEASURED, "size": 11, "line_color": "#fff", "line_width": 1.5},
            "● %{x:.2f} ms measured",
        )
    )  # fmt: skip
    plural = "" if len(ids) == 1 else "s"
    title = f"○ shares of the predicted latency, ● measured whole; {len(ids)} network{plural}"
    figure = _figure(traces, title, "ms", "", 150 + 44 * len(ids))
    return figure.update_layout(
        barmode="relative", bargap=0.35, yaxis={"autorange": "reversed", "showgrid": False}
    )


# -- several runs -----------------------------------------------------------------------------


def _by_group(found: Comparison, place: int) -> bool:
    """Whether colours tell strategies apart; runs, where all of a scale share one."""
    return len({found.rows[i].group for i in found.scales[place].runs}) > 1


def colours(found: Comparison) -> list[str]:
    """A colour for each run: one for all that differ in nothing but their seed, if there are others."""
    hues = [""] * len(found.rows)
    for place, scale in enumerate(found.scales):
        known: dict[int, str] = {}
        for i in scale.runs:
            key = found.rows[i].group if _by_group(found, place) else i
            hues[i] = known.setdefault(key, _HUES[len(known) % len(_HUES)])
    return hues


def _legend(found: Comparison, place: int) -> dict[int, tuple[str, str, bool]]:
    """By run: what is switched on and off with it, its name there, and whether it is the first so."""
    told: dict[int, tuple[str, str, bool]] = {}
    for i in found.scales[place].runs:
        row = found.rows[i]
        key = f"group {row.group}" if _by_group(found, place) else f"run {i}"
        name = found.means[row.group].label if _by_group(found, place) else row.name
        told[i] = (key, escape(name), key not in {known for known, _, _ in told.values()})
    return told


def _where(found: Comparison, place: int) -> str:
    """The scale, as far as it must be told from the others."""
    scale = found.scales[place]
    alike = [s for s in found.scales if s.device == scale.device]
    words = f"on {scale.device}"
    if len({s.latency_model for s in alike}) > 1:
        words += f", latency model {scale.latency_model}"
    if len({s.accuracy for s in alike}) > 1:
        words += f", accuracy {scale.accuracy}"
    return words


def fronts_figure(found: Comparison, place: int) -> Any:
    """Ink of `Comparison.spots`: the fronts of one scale, predicted and measured."""
    scale, hues, legend = found.scales[place], colours(found), _legend(found, place)
    traces: list[Any] = []
    for i in scale.runs:
        of = [s for s in found.spots if s.run == i]
        key, name, first = legend[i]
        run = escape(found.rows[i].name)
        traces.append(
            _dots(
                name, [s.latency_ms for s in of], [100 * s.top1 for s in of],
                {"color": hues[i], "size": 7, "symbol": "circle-open", "line": {"width": 1.4}},
                f"{run}, network %{{customdata}}<br>○ %{{x:.2f}} ms<br>○ top-1 %{{y:.2f}} %",
                [s.id for s in of], legendgroup=key, showlegend=first,
            )
        )  # fmt: skip
        best = -1.0
        rising = [
            best < s.top1 and (best := s.top1) > 0 for s in sorted(of, key=lambda s: s.latency_ms)
        ]
        if all(rising):  # a front of these two; one of more objectives is no line
            traces[-1].update(mode="lines+markers", line={"shape": "hv", "width": 0.8})
    for i in scale.runs:
        measured = [s for s in found.spots if s.run == i and s.measured_ms is not None]
        if not measured:
            continue
        origin = found.rows[i].origin
        mark = "●" if origin == "measured" else "◌"
        traces.append(
            _dots(
                f"{escape(found.rows[i].name)}, {origin}", [s.measured_ms for s in measured],
                [100 * s.top1 for s in measured],
                {"color": hues[i], "size": 11, "line": {"width": 1.5, "color": "#fff"}},
                f"{escape(found.rows[i].name)}, network %{{customdata}}<br>{mark} %{{x:.2f}} ms {origin}",
                [s.id for s in measured],
            )
        )  # fmt: skip
    tops = [100 * s.top1 for s in found.spots if s.run in scale.runs]
    if tops and any(found.rows[i].target_ms is not None for i in scale.runs):
        at = scale.limit_ms
        traces.append(_line(f"target, {at:.2f} ms", [at, at], [min(tops), max(tops)]))
    n = len(scale.runs)
    title = f"Fronts of {n} run{'' if n == 1 else 's'} {_where(found, place)}"
    if n > 1:
        title += f"; {scale.joint} networks are beaten by none of them"
    return _figure(traces, title, "latency, ms", "○ top-1 estimate, %", 480)


def courses_figure(found: Comparison, place: int) -> Any:
    """Ink of `Comparison.courses`: thin a run, thick the mean of those that differ in seed alone."""
    scale, hues, legend = found.scales[place], colours(found), _legend(found, place)
    held = [c for c in found.courses if c.run in scale.runs]
    grouped, traces = _by_group(found, place), []
    for c in held:
        key, name, first = legend[c.run]
        several = grouped and sum(legend[o.run][0] == key for o in held) > 1
        traces.append(
            go.Scatter(
                x=c.evaluations, y=[100 * v for v in c.of_joint], name=name, mode="lines",
                line={"color": hues[c.run], "width": 1 if several else 2.4, "shape": "hv"},
                opacity=0.55 if several else 1, legendgroup=key, showlegend=first and not several,
                hovertemplate=f"{escape(found.rows[c.run].name)}<br>after %{{x:,}}: %{{y:.2f}} %"
                "<extra></extra>",
            )
        )  # fmt: skip
    for group in dict.fromkeys(found.rows[c.run].group for c in held) if grouped else ():
        of = [c for c in held if found.rows[c.run].group == group]
        if len(of) < 2:
            continue
        # Up to where the shortest ends; between its marks a course stays where it was.
        last = min(c.evaluations[-1] for c in of)
        marks = sorted({m for c in of for m in c.evaluations if m <= last})
        at = [
            np.array(c.of_joint)[
                np.maximum(np.searchsorted(c.evaluations, marks, side="right") - 1, 0)
            ]
            for c in of
        ]
        key, name, _ = legend[of[0].run]
        words = f"{name}, mean of {len(of)} seeds"
        traces.append(
            go.Scatter(
                x=marks, y=100 * np.mean(at, axis=0), name=words, mode="lines", legendgroup=key,
                line={"color": hues[of[0].run], "width": 3, "shape": "hv"},
                hovertemplate=f"{words}<br>after %{{x:,}}: %{{y:.2f}} %<extra></extra>",
            )
        )  # fmt: skip
    title = f"Front so far as a share of what all fronts together reach, {_where(found, place)}"
    return _figure(traces, title, "networks evaluated", "of the joint hypervolume, %", 440)
