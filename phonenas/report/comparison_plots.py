"""The figures of a comparison: its fronts, and how each run came to its own.

Runs are named by the user, so their names are escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from .comparison import Comparison, Course
from .plots import HUES, figure_of, plain, scatter, target_line

__all__ = ["colours", "courses_figure", "fronts_figure"]


def colours(result: Comparison) -> list[str]:
    """A colour for each run: one for all that differ in their seed alone, if there are others."""
    hues: dict[int, str] = {}
    for place in range(len(result.scales)):
        known: dict[str, str] = {}
        for i, (key, _, _) in _legend(result, place).items():
            hues[i] = known.setdefault(key, HUES[len(known) % len(HUES)])
    return [hues[i] for i in range(len(result.rows))]


def _legend(result: Comparison, place: int) -> dict[int, tuple[str, str, bool]]:
    """By run: its legend group, its name there, and whether it is the first of the group."""
    entries: dict[int, tuple[str, str, bool]] = {}
    runs = result.scales[place].runs
    by_group = len({result.rows[i].group for i in runs}) > 1
    for i in runs:
        row = result.rows[i]
        key = f"group {row.group}" if by_group else f"run {i}"
        name = result.means[row.group].label if by_group else row.name
        entries[i] = (key, plain(name), key not in {k for k, _, _ in entries.values()})
    return entries


def _where(result: Comparison, place: int) -> str:
    """The scale, with what distinguishes it from the others."""
    scale = result.scales[place]
    same = [s for s in result.scales if s.device == scale.device]
    text = f"on {scale.device}"
    if len({s.latency_model for s in same}) > 1:
        text += f", latency model {scale.latency_model}"
    if len({s.accuracy for s in same}) > 1:
        text += f", accuracy {scale.accuracy}"
    return text


def fronts_figure(result: Comparison, place: int) -> Any:
    """The figure of `Comparison.spots`: the fronts of one scale, predicted and measured."""
    scale, hues, legend = result.scales[place], colours(result), _legend(result, place)
    traces: list[Any] = []
    for i in scale.runs:
        spots = sorted((s for s in result.spots if s.run == i), key=lambda s: s.latency_ms)
        key, name, first = legend[i]
        run = plain(result.rows[i].name)
        # A front of top-1 and latency rises; one of more objectives is not a line.
        rises = bool(np.all(np.diff([-1.0, *(s.top1 for s in spots)]) > 0))
        traces.append(
            scatter(
                name,
                [s.latency_ms for s in spots],
                [100 * s.top1 for s in spots],
                {"color": hues[i], "size": 7, "symbol": "circle-open", "line": {"width": 1.4}},
                f"{run}, network %{{customdata}}<br>○ %{{x:.2f}} ms<br>○ top-1 %{{y:.2f}} %",
                [s.id for s in spots],
                legendgroup=key,
                showlegend=first,
                mode="lines+markers" if rises else "markers",
                line={"shape": "hv", "width": 0.8},
            )
        )
    for i in scale.runs:
        row, spots = result.rows[i], [s for s in result.spots if s.run == i and s.measured_ms]
        if not spots:
            continue
        mark, origin = "●" if row.origin == "measured" else "◌", plain(row.origin)
        traces.append(
            scatter(
                f"{plain(row.name)}, {origin}",
                [s.measured_ms for s in spots],
                [100 * s.top1 for s in spots],
                {"color": hues[i], "size": 11, "line": {"width": 1.5, "color": "#fff"}},
                f"{plain(row.name)}, network %{{customdata}}<br>{mark} %{{x:.2f}} ms {origin}",
                [s.id for s in spots],
            )
        )
    if any(result.rows[i].target_ms is not None for i in scale.runs):
        tops = [100 * s.top1 for s in result.spots if s.run in scale.runs]
        traces += target_line(scale.limit_ms, tops)
    title = f"Front of 1 run {_where(result, place)}"
    if len(scale.runs) > 1:
        title = f"Fronts of {len(scale.runs)} runs {_where(result, place)}; "
        title += f"{scale.joint} networks are beaten by none of them"
    return figure_of(traces, title, "latency, ms", "○ top-1 estimate, %", 480)


def courses_figure(result: Comparison, place: int) -> Any:
    """The figure of `Comparison.courses`: a thin line a run, a thick one the mean over seeds."""
    hues, legend = colours(result), _legend(result, place)
    courses = [c for c in result.courses if c.run in result.scales[place].runs]
    groups: dict[str, list[Course]] = {}
    for c in courses:
        groups.setdefault(legend[c.run][0], []).append(c)
    traces = []
    for c in courses:
        key, name, first = legend[c.run]
        several = len(groups[key]) > 1
        traces.append(
            _steps(c.evaluations, c.of_joint, name, hues[c.run], 1 if several else 2.4).update(
                opacity=0.55 if several else 1,
                legendgroup=key,
                showlegend=first and not several,
                hovertemplate=_COURSE_HOVER.format(plain(result.rows[c.run].name)),
            )
        )
    for key, members in groups.items():
        if len(members) < 2:
            continue
        # To the end of the shortest; between its marks a course keeps its last value.
        last = min(c.evaluations[-1] for c in members)
        marks = sorted({m for c in members for m in c.evaluations if m <= last})
        at = [np.searchsorted(c.evaluations, marks, side="right") - 1 for c in members]
        held = [np.array(c.of_joint)[k.clip(0)] for c, k in zip(members, at, strict=True)]
        name = f"{legend[members[0].run][1]}, mean of {len(members)} seeds"
        traces.append(
            _steps(marks, np.mean(held, axis=0), name, hues[members[0].run], 3).update(
                legendgroup=key, hovertemplate=_COURSE_HOVER.format(name)
            )
        )
    title = f"Front so far as a share of what all fronts together reach, {_where(result, place)}"
    return figure_of(traces, title, "networks evaluated", "of the joint hypervolume, %", 440)


_COURSE_HOVER = "{}<br>after %{{x:,}}: %{{y:.2f}} %<extra></extra>"


def _steps(x: Sequence[int], shares: Any, name: str, colour: str, width: float) -> Any:
    line = {"color": colour, "width": width, "shape": "hv"}
    return go.Scatter(x=x, y=100 * np.asarray(shares), name=name, mode="lines", line=line)
