"""The report's section on promoted networks: what was trained in full, and the front of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

from .page import Page, number
from .search.promoted import Promoted, PromotedNetwork, read_promoted

__all__ = ["PromotedPoint", "promoted_figure", "promoted_points", "promoted_section"]

_YES = {True: '<span class="good">yes</span>', False: '<b class="bad">no</b>', None: "–"}


@dataclass(frozen=True)
class PromotedPoint:
    """A trained network by latency and top-1.

    Args:
        kind: "trained", or "front" where no other trained one beats it.
        id: Of the candidate.
        latency_ms, low_ms, high_ms: Measured, between its rounds' spread; else predicted, with
            its 90 % interval; ms.
        measured: Which of the two.
        top1, top1_error: Trained, in [0, 1], and its standard error.
    """

    kind: Literal["trained", "front"]
    id: int
    latency_ms: float
    low_ms: float
    high_ms: float
    measured: bool
    top1: float
    top1_error: float


def promoted_points(found: Promoted) -> list[PromotedPoint]:
    """The trained networks by rising latency."""
    points = [
        PromotedPoint(
            "front" if n.on_front else "trained", n.id, n.latency_ms, *n.bounds_ms,
            n.measured_ms is not None, n.top1 or 0.0, n.top1_error or 0.0,
        )
        for n in found.trained
    ]  # fmt: skip
    return sorted(points, key=lambda p: p.latency_ms)


def promoted_figure(points: Sequence[PromotedPoint], target_ms: float | None) -> Any:
    """Ink of `promoted_points`: trained top-1 against latency."""
    from . import plots as ink

    traces = []
    for measured in (False, True):
        for kind in ("trained", "front"):
            some = [p for p in points if (p.kind, p.measured) == (kind, measured)]
            if not some:
                continue
            at = [p.latency_ms for p in some]
            colour = ink._MEASURED if measured else ink._PREDICTED
            mark = "●" if measured else "○"
            symbol = ("diamond" if kind == "front" else "circle") + ("" if measured else "-open")
            error = {"type": "data", "array": [100 * p.top1_error for p in some], "thickness": 1,
                     "width": 0, "color": colour}  # fmt: skip
            traces.append(
                ink._dots(
                    f"{'front' if kind == 'front' else 'beaten'}, "
                    f"{'measured' if measured else 'predicted'} latency",
                    at, [100 * p.top1 for p in some],
                    {"color": colour, "size": 11 if kind == "front" else 8, "symbol": symbol},
                    f"network %{{customdata[0]}}<br>{mark} %{{x:.2f}} ms<br>● top-1 %{{y:.1f}} "
                    "± %{customdata[1]:.1f} %",
                    [[p.id, 100 * p.top1_error] for p in some],
                    error_x=ink._interval(some, at, colour), error_y=error,
                )
            )  # fmt: skip
    if target_ms is not None and points:
        tops = [100 * p.top1 for p in points]
        traces.append(
            ink._line(f"target, {target_ms:.2f} ms", [target_ms] * 2, [min(tops), max(tops)])
        )
    front = sum(p.kind == "front" for p in points)
    title = f"{len(points)} networks trained in full, {front} of them beaten by none"
    return ink._figure(traces, title, "latency, ms", "● top-1 after training, %", 420)


def promoted_section(run_dir: Path, page: Page) -> str:
    """HTML of the section; "" for a run of which nothing was promoted.

    Raises:
        UnsupportedFormat, StoreError: As `read_promoted`.
    """
    found = read_promoted(run_dir)
    if found is None or not found.networks:
        return ""
    body = ["<h2>Trained in full</h2>", _lead(found)]
    points = promoted_points(found)
    if points:
        body.append(page.draw("promoted", promoted_figure(points, found.target_ms)))
    return "".join([*body, _table(found), _notes(found)])


def _lead(found: Promoted) -> str:
    train, test = found.images.get("train", {}), found.images.get("test", {})
    recipe = found.recipe
    words = (
        f"{len(found.trained)} of {len(found.networks)} networks were trained for "
        f"{recipe.get('epochs', '–')} epoch{'' if recipe.get('epochs') == 1 else 's'} ({escape(str(recipe.get('name', '')))}) on "
        f"{number(train.get('images'), '{:,.0f}')} images and judged by "
        f"{number(test.get('images'), '{:,.0f}')}."
    )
    if found.kendall_tau is not None:
        words += (
            f" Kendall's τ between estimated and trained top-1 is <b>{found.kendall_tau:.2f}</b> "
            f"(n = {len(found.trained)})."
        )
    if found.score is not None:
        words += (
            f" The latency model's mean error on them is {found.score.mape:.1%} "
            f"(n = {found.score.n})."
        )
    return f"<p>{words}</p>"


def _table(found: Promoted) -> str:
    titles = ("id", "○ top-1 estimate", "● top-1 trained", "● top-5", "predicted, ms",
              "measured, ms", "meets target", "front", "MACs, M", "params, M")  # fmt: skip
    lines = "".join(_row(n, len(titles)) for n in found.networks)
    top = "".join(f"<th>{t}</th>" for t in titles)
    return (
        f'<div class="box"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'
    )


def _row(n: PromotedNetwork, columns: int) -> str:
    trained = "–" if n.top1 is None else f"{n.top1:.1%} ± {n.top1_error or 0:.1%}"
    measured = (
        "–" if n.measured_ms is None else f"● {n.measured_ms:.2f} ± {number(n.spread, '{:.1%}')}"
    )
    cells = (
        str(n.id), f"{n.top1_estimated:.1%} ± {n.estimated_error:.1%}", trained,
        number(n.top5, "{:.1%}"), f"○ {n.predicted_ms:.2f} ({n.low_ms:.2f} to {n.high_ms:.2f})",
        measured, _YES[n.meets_target], "front" if n.on_front else "–",
        number(n.macs, "{:.0f}", 1e6), number(n.params, "{:.2f}", 1e6),
    )  # fmt: skip
    row = "".join(f"<td>{c}</td>" for c in cells)
    why = n.failed or n.export_failed
    note = f' <span class="bad">{escape(why)}</span>' if why else ""
    code = f'<td class="code" colspan="{columns}"><code>{escape(n.block_args)}</code>{note}</td>'
    return f'<tr class="open">{row}</tr><tr>{code}</tr>'


def _notes(found: Promoted) -> str:
    words = [
        "± after a top-1 is one standard error: of the estimator, and of a share of as many images. "
        "An estimate and a trained top-1 are on two scales; their order is what compares."
    ]
    if any(not n.predicted_as_trained for n in found.trained):
        words.append("Predicted latencies are of the networks with the classes of the search.")
    if found.verdict is not None:
        words.append(escape(found.verdict.text.rstrip(".")) + ".")
    return f'<p class="soft">{" ".join(words)}</p>'
