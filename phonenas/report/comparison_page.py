"""write_comparison(): several runs beside each other as one HTML page that opens offline.

Runs that differ in their seed alone have one colour; ○ is predicted and ● is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from phonenas.data.files import refuse_other, write_atomic
from phonenas.search.run_folder import lock_run

from .comparison import Comparison, Row, compare
from .page import Page, boxed, table

__all__ = ["as_json", "notes", "tables", "write_comparison"]

_CONSTRAINTS = {
    "also": "further objectives",
    "limits": "limits",
    "soft": "soft targets",
    "chance": "chances to meet the target",
}


def write_comparison(run_dirs: Sequence[Path], out: Path | None = None) -> tuple[Path, Comparison]:
    """Compare runs, and write it as one HTML page.

    Args:
        run_dirs: Folders of finished runs, two or more.
        out: The file; `comparison.html` in the first run that can be read by default.
    Returns:
        The file, written whole or not at all, and what it shows.
    Raises:
        InvalidArgument, UnknownName, UnsupportedFormat: As for `comparison.compare`.
        StoreError: The file cannot be written.
    """
    result = compare(run_dirs)
    page = Page(f"phonenas: {len(result.rows)} runs compared")
    origins = {r.origin for r in result.rows}
    text = page.html(_sections(result, page), origins.pop() if len(origins) == 1 else "measured")
    # In a run, not beside it: `phonenas report runs/*` given again finds runs alone.
    first = Path(result.rows[0].path)
    path = first / "comparison.html" if out is None else out
    refuse_other(path)
    with lock_run(first) if out is None else nullcontext():
        return write_atomic(path, text), result


def as_json(result: Comparison, page: Path) -> dict[str, Any]:
    """What `phonenas report RUN RUN --json` prints: all but the points of the plots."""
    names = [r.name for r in result.rows]
    return {
        "page": str(page),
        "notes": list(notes(result)),
        "left_out": list(result.left_out),
        "rows": [asdict(r) for r in result.rows],
        "means": [asdict(m) for m in result.means if len(m.runs) > 1],
        "scales": [{**asdict(s), "runs": [names[i] for i in s.runs]} for s in result.scales],
        "differs": {
            s.name: dict(zip(names, s.values, strict=True))
            for s in result.settings
            if s.kind == "differs"
        },
        "same": {s.name: s.values[0] for s in result.settings if s.kind == "same"},
    }


def tables(result: Comparison) -> list[tuple[list[str], list[list[str]]]]:
    """The tables for a terminal, each as titles and rows: the runs, then the means over seeds."""
    columns = _columns(result)
    rows = [[r.name, *(cell(r) for _, cell in columns)] for r in result.rows]
    means = _means(result)
    return [(["run", *(title for title, _ in columns)], rows)] + (
        [(list(_MEANS), means)] if means else []
    )


def notes(result: Comparison) -> Iterator[str]:
    """What limits the comparison, in sentences, the most important first."""
    values = {s.name: s.values for s in result.settings}

    def by(name: str, runs: Iterable[int]) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for i in runs:
            value = values[name][i] if name in values else None
            names.setdefault("–" if value is None else str(value), []).append(result.rows[i].name)
        return names

    def listed(names: dict[str, list[str]]) -> str:
        return "; ".join(f"{value}: {', '.join(runs)}" for value, runs in names.items())

    for reason in result.left_out:
        yield f"One run is left out: {reason}"
    everyone = range(len(result.rows))
    for origin in dict.fromkeys(r.origin for r in result.rows if r.origin != "measured"):
        runs = ", ".join(r.name for r in result.rows if r.origin == origin)
        yield f"{origin.upper()}: no device was measured for the times of {runs}."
    if len(devices := by("device", everyone)) > 1:
        yield (
            f"The runs are for different devices ({listed(devices)}). Latencies of different "
            "devices are not comparable: hypervolume and fronts are compared among runs for one "
            "device."
        )
    for device, names in devices.items():
        models = by("latency_model", (i for i in everyone if result.rows[i].name in names))
        if len(models) > 1:
            yield (
                f"The runs for {device} have different latency models ({listed(models)}), which "
                "may predict different latencies for one network. Hypervolume and fronts are "
                "compared among runs of one model. To compare them all, search again with one of "
                "the models (--model)."
            )
    if len(accuracies := by("accuracy", everyone)) > 1:
        yield (
            f"Top-1 comes from different estimators ({listed(accuracies)}). Their scales differ, "
            "so their top-1 is not comparable."
        )
    for scale in result.scales:
        if len(scale.runs) < 2:
            continue
        rows = [result.rows[i] for i in scale.runs]
        names_of = f" of {', '.join(r.name for r in rows)}" if len(result.scales) > 1 else ""
        if len({r.target_ms for r in rows}) > 1:
            given = ", ".join(f"{r.name}: {_target(r)}" for r in rows)
            yield (
                f"The targets{names_of} differ ({given}). Hypervolume and joint front count the "
                f"networks within the tightest, {scale.limit_ms:.2f} ms; a run with a looser "
                "target spent part of its evaluations beyond it. The most accurate network is "
                "within each run's own target."
            )
        if len(budgets := by("evaluations", scale.runs)) > 1:
            yield (
                f"The budgets{names_of} differ (evaluations {listed(budgets)}): compare at equal "
                "evaluations, in the plot of the hypervolume."
            )
        for name, words in _CONSTRAINTS.items():
            constraints = by(name, scale.runs)
            if len(constraints) > 1:
                yield (
                    f"The {words}{names_of} differ ({listed(constraints)}), so the runs searched "
                    "for different networks. Top-1 and latency alone are compared."
                )
            elif name == "also" and "–" not in constraints:
                yield f"There were {words}{names_of}; top-1 and latency alone are compared."
        drawn = {c.run for c in result.courses}
        if missing := [result.rows[i].name for i in scale.runs if i not in drawn]:
            yield (
                f"The course of the hypervolume is not drawn for {', '.join(missing)}: the "
                "checkpoint is missing, or what was asked for is not recorded."
            )


# -- tables -----------------------------------------------------------------------------------


def _target(row: Row) -> str:
    return "none" if row.target_ms is None else f"{row.target_ms:.2f} ms"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _best_ms(row: Row) -> str:
    if row.best_ms is None:
        return "–"
    mark = "●" if row.origin == "measured" else "◌"
    measured = "" if row.best_measured_ms is None else f", {mark} {row.best_measured_ms:.2f} ms"
    return f"○ {row.best_ms:.2f} ms{measured}"


def _volume(row: Row) -> str:
    if row.hypervolume is None:
        return "–"
    return f"{row.hypervolume:#.4g} ({_share(row.of_joint)})"


def _joint(row: Row) -> str:
    return "–" if row.joint_share is None else f"{row.joint_share:.0%} ({row.alone_share:.0%})"


def _validated(row: Row) -> str:
    if not row.validated:
        return "–"
    met = f"{row.validated}" if row.met is None else f"{row.met} of {row.validated}"
    return met if row.origin == "measured" else f"{met}, {row.origin}"


_VOLUME, _BEST = "hypervolume (of the joint)", "best top-1"
_Columns = list[tuple[str, Callable[[Row], str]]]
_SETTINGS: _Columns = [
    ("device", lambda r: r.device),
    ("space", lambda r: r.space),
    ("target", _target),
]
_RESULTS: _Columns = [
    ("evaluations", lambda r: f"{r.evaluations:,}"),
    ("seconds", lambda r: f"{r.seconds:.1f}"),
    (_VOLUME, _volume),
    (_BEST, lambda r: "–" if r.best_top1 is None else f"○ {r.best_top1:.2%}"),
    ("its latency", _best_ms),
    ("front", lambda r: f"{r.front}"),
    ("found of joint front (alone)", _joint),
]


def _columns(result: Comparison) -> _Columns:
    """Titles and cells of the table of runs, after the name; equal settings are left out."""
    return [
        ("strategy", lambda r: r.strategy),
        ("seed", lambda r: "–" if r.seed is None else str(r.seed)),
        *((t, cell) for t, cell in _SETTINGS if len({cell(r) for r in result.rows}) > 1),
        *_RESULTS,
        *([("measured, meet target", _validated)] if any(r.validated for r in result.rows) else []),
    ]


_MEANS = (
    *("mean over seeds", "runs", "hypervolume", "of the joint"),
    *("best top-1", "found of joint front", "seconds"),
)


def _means(result: Comparison) -> list[list[str]]:
    def cell(mean: float | None, sd: float | None, form: str, part: str) -> str:
        if mean is None:
            return "–"
        return form.format(mean) + ("" if sd is None else f" ± {part.format(sd)}")

    return [
        [
            m.label,
            str(len(m.runs)),
            cell(m.hypervolume, m.hypervolume_sd, "{:#.4g}", "{:.2g}"),
            cell(m.of_joint, m.of_joint_sd, "{:.1%}", "{:.1%}"),
            cell(m.best_top1, m.best_top1_sd, "○ {:.2%}", "{:.2%}"),
            _share(m.joint_share),
            f"{m.seconds:.1f}",
        ]
        for m in result.means
        if len(m.runs) > 1
    ]


# -- the page ---------------------------------------------------------------------------------


def _sections(result: Comparison, page: Page) -> list[str]:
    from . import comparison_plots as plots

    hues = plots.colours(result)
    origins = {r.origin for r in result.rows}
    sentences = list(notes(result))
    if len(origins) == 1 and origins != {"measured"}:
        # The page says it at its top.
        sentences = [s for s in sentences if "no device was measured" not in s]
    body = [_headline(result)]
    if sentences:
        paragraphs = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
        body.append(f'<div class="notes">{paragraphs}</div>')
    body += [
        "<noscript><p>The plots need JavaScript; the tables hold the numbers.</p></noscript>",
        "<h2>The runs</h2>",
        _runs(result, hues),
    ]
    if means := _means(result):
        body.append(table(_MEANS, means))
        body.append('<p class="soft">± is the standard deviation over the runs.</p>')
    body.append("<h2>The fronts</h2><p>○ is predicted, ● is measured.</p>")
    for place in range(len(result.scales)):
        body.append(page.draw(f"fronts{place}", plots.fronts_figure(result, place)))
    if result.courses:
        body.append("<h2>Hypervolume over evaluations</h2>")
    for place, scale in enumerate(result.scales):
        if {c.run for c in result.courses} & set(scale.runs):
            body.append(page.draw(f"courses{place}", plots.courses_figure(result, place)))
    return [*body, _settings(result)]


def _headline(result: Comparison) -> str:
    rows, single = result.rows, len(result.scales) == 1
    lead = ""
    for scale in result.scales:
        members = [rows[i] for i in scale.runs]
        best = []
        if len(members) > 1:
            r = max(members, key=lambda r: r.hypervolume or 0.0)
            best.append(
                f"the highest hypervolume has <b>{escape(r.name)}</b>, {_share(r.of_joint)} of "
                "what all fronts together reach"
            )
        able = [r for r in members if r.best_top1 is not None]
        if able and len({r.target_ms for r in members}) == 1:
            r = max(able, key=lambda r: r.best_top1 or 0.0)
            within = "" if r.target_ms is None else f" within {_target(r)}"
            best.append(
                f"the most accurate network{within} is of <b>{escape(r.name)}</b>, top-1 estimate "
                f"○ {r.best_top1:.1%} at {_best_ms(r)}"
            )
        seeds = [m for m in result.means if len(m.runs) > 1 and m.of_joint is not None]
        if single and len(seeds) > 1:
            order = sorted(seeds, key=lambda m: -(m.of_joint or 0.0))
            means = ", ".join(f"{escape(m.label)} {_share(m.of_joint)}" for m in order)
            best.append(f"by hypervolume, mean over seeds: {means}")
        if best:
            names = "" if single else f"Of {', '.join(escape(r.name) for r in members)}: "
            text = names + "; ".join(best)
            lead += f'<p class="{"lead" if single else ""}">{text[:1].upper()}{text[1:]}.</p>'
    tiles = [
        (f"{len(rows)}", "runs"),
        (f"{sum(r.evaluations for r in rows):,}", "networks evaluated"),
    ]
    if single:
        tiles.append((f"{result.scales[0].joint}", "networks on the joint front"))
        tiles.append((f"{result.scales[0].limit_ms:.2f} ms", "is the limit of the hypervolume"))
    equal = ", ".join(
        f"{title} {escape(cell(rows[0]))}"
        for title, cell in _SETTINGS
        if len({cell(r) for r in rows}) == 1
    )
    shown = "".join(f"<li><b>{a}</b>{b}</li>" for a, b in tiles)
    return (
        f'<h1>{len(rows)} runs compared</h1><p class="soft">{equal}</p>'
        f'{lead}<ul class="facts">{shown}</ul>'
    )


def _runs(result: Comparison, hues: Sequence[str]) -> str:
    columns = _columns(result)
    lines = ""
    for scale in result.scales:
        members = [result.rows[i] for i in scale.runs]
        best = {}
        if len(members) > 1:
            best[_VOLUME] = max(r.of_joint or 0.0 for r in members)
            if len({r.target_ms for r in members}) == 1:  # a looser target is not better
                best[_BEST] = max(r.best_top1 or 0.0 for r in members)
        if len(result.scales) > 1:
            what = f"{scale.device}, latency model {scale.latency_model}, accuracy {scale.accuracy}"
            lines += f'<tr><th colspan="{len(columns) + 1}">{escape(what)}</th></tr>'
        for i, row in zip(scale.runs, members, strict=True):
            own = {_VOLUME: row.of_joint, _BEST: row.best_top1}
            cells = "".join(
                f"<td{' class=best' if t in best and own[t] == best[t] else ''}>"
                f"{escape(cell(row))}</td>"
                for t, cell in columns
            )
            key = f'<span class="key" style="color:{hues[i]}">■</span>'
            lines += f'<tr><th class="nobr">{key} {escape(row.name)}</th>{cells}</tr>'
    titles = ["run", *(title for title, _ in columns)]
    return boxed(titles, lines) + f'<p class="soft">{escape(_EXPLAINED)}</p>'


_EXPLAINED = (
    "Hypervolume: the share of a box that a front dominates, from 0 ms to the limit and from top-1 "
    "of 1 to 0; the box is one for all runs that are comparable. Of the joint: the same as a share "
    "of what all their fronts together dominate. A strategy that searches for one point of the "
    "front, such as the weighted product, covers little of it. Found of joint front: the share of "
    "its networks that a run found, in brackets the share that no other run found. Best top-1: "
    "predicted within the run's own target."
)


def _settings(result: Comparison) -> str:
    titles = ("", *(r.name for r in result.rows))

    def lines(kind: str) -> list[tuple[str, ...]]:
        return [
            (s.name.replace("_", " "), *("–" if v is None or v == "" else str(v) for v in s.values))
            for s in result.settings
            if s.kind == kind
        ]

    body = "<h2>Settings</h2>"
    if differ := lines("differs"):
        body += f"<p>These differ:</p>{table(titles, differ, 'differs')}"
    if some := lines("some"):
        body += _folded(f"{len(some)} that only some of the strategies have", table(titles, some))
    if same := [row[:2] for row in lines("same")]:
        body += _folded(f"{len(same)} that are the same for all", table((), same, "words"))
    return body


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>{body}</details>"
