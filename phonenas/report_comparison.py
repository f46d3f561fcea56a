"""write_comparison(): several runs beside each other as one HTML page that opens offline.

The ink of `comparison`: its notes in words, its figures, its tables, on paper and on a terminal.
One colour tells runs that differ in nothing but their seed; ○ and ● tell predicted from measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from .comparison import Comparison, Row, compare
from .console import table as aligned
from .data.files import write_atomic
from .page import Page, table

__all__ = ["as_json", "as_text", "notes", "write_comparison"]

_AIMS = {"also": "further objectives", "limits": "limits", "soft": "soft targets",
         "chance": "chances to meet the target"}  # fmt: skip


def write_comparison(run_dirs: Sequence[Path], out: Path | None = None) -> tuple[Path, Comparison]:
    """Compare runs, and write it as one HTML page.

    Args:
        run_dirs: Folders of finished runs, two or more.
        out: The file; `comparison.html` in the first run by default.
    Returns:
        The file, written whole or not at all, and what it shows.
    Raises:
        InvalidArgument, UnknownName, UnsupportedFormat: As for `comparison.compare`.
        StoreError: The file cannot be written.
    """
    found = compare(run_dirs)
    page = Page(f"phonenas: {len(found.rows)} runs compared")
    origins = {r.origin for r in found.rows}
    text = page.html(_sections(found, page), origins.pop() if len(origins) == 1 else "measured")
    # In a run, not beside it: `phonenas report runs/*` given again finds runs alone.
    path = run_dirs[0] / "comparison.html" if out is None else out
    return write_atomic(path, text), found


def as_json(found: Comparison, page: Path) -> dict[str, Any]:
    """What `phonenas report RUN RUN --json` prints: all but the points of the plots."""
    names = [r.name for r in found.rows]
    return {
        "page": str(page),
        "notes": list(notes(found)),
        "rows": [asdict(r) for r in found.rows],
        "means": [asdict(m) for m in found.means if len(m.runs) > 1],
        "scales": [{**asdict(s), "runs": [names[i] for i in s.runs]} for s in found.scales],
        "differs": {
            s.name: dict(zip(names, s.values, strict=True))
            for s in found.settings if s.kind == "differs"
        },
        "same": {s.name: s.values[0] for s in found.settings if s.kind == "same"},
    }  # fmt: skip


def as_text(found: Comparison, page: Path) -> str:
    """The same for people: what stands against comparing, then the tables, then the page."""
    columns = _columns(found)
    rows = [[r.name, *(of(r) for _, of in columns)] for r in found.rows]
    parts = [*notes(found), aligned(["run", *(title for title, _ in columns)], rows)]
    if means := _means(found):
        parts.append(aligned(list(_MEANS), means))
    return "\n\n".join([*parts, f"written to {page}"])


def notes(found: Comparison) -> Iterator[str]:
    """What stands against holding the runs against each other, in words, the gravest first."""
    values = {s.name: s.values for s in found.settings}
    everyone = range(len(found.rows))

    def by(name: str, of: Sequence[int]) -> dict[str, list[str]]:
        told: dict[str, list[str]] = {}
        for i in of:
            value = values[name][i] if name in values else None
            told.setdefault("–" if value is None else str(value), []).append(found.rows[i].name)
        return told

    def listed(told: dict[str, list[str]]) -> str:
        return "; ".join(f"{value}: {', '.join(who)}" for value, who in told.items())

    origins: dict[str, list[str]] = {}
    for r in found.rows:
        origins.setdefault(r.origin, []).append(r.name)
    for origin, who in origins.items():
        if origin != "measured":
            yield f"{origin.upper()}: no device was measured for the times of {', '.join(who)}."
    if len(devices := by("device", everyone)) > 1:
        yield (f"The runs are for different devices ({listed(devices)}). Milliseconds of one say nothing of "
               "another's: hypervolume and fronts are compared only among runs for one device.")  # fmt: skip
    for device, who in devices.items():
        models = by("latency_model", [i for i in everyone if found.rows[i].name in who])
        if len(models) > 1:
            yield (f"Different latency models of {device} judged ({listed(models)}). They may give one network "
                   "different milliseconds, so hypervolume and fronts are compared only among runs of one "
                   "model. To compare them all, search again with one of the models (--model).")  # fmt: skip
    if len(accuracies := by("accuracy", everyone)) > 1:
        yield (f"Top-1 comes from different estimators ({listed(accuracies)}): it stands on different scales "
               "and does not compare between them.")  # fmt: skip
    for scale in found.scales:
        if len(scale.runs) < 2:
            continue
        rows, on = [found.rows[i] for i in scale.runs], ""
        if len(found.scales) > 1:
            on = f" of {', '.join(r.name for r in rows)}"
        if len({r.target_ms for r in rows}) > 1:
            given = ", ".join(f"{r.name}: {_target(r)}" for r in rows)
            yield (f"The targets{on} differ ({given}). Hypervolume and joint front count what lies within the "
                   f"tightest, {scale.limit_ms:.2f} ms, where all were free to look; a run with a looser one "
                   "spent part of its time elsewhere. The most accurate is within each run's own.")  # fmt: skip
        if len(budgets := by("evaluations", scale.runs)) > 1:
            yield (f"The budgets{on} differ (evaluations {listed(budgets)}): compare at equal evaluations, in "
                   "the plot of the hypervolume.")  # fmt: skip
        for name, words in _AIMS.items():
            aims = by(name, scale.runs)
            if len(aims) > 1:
                yield (f"The {words}{on} differ ({listed(aims)}), so the runs looked for different networks. "
                       "What is compared is top-1 and latency alone.")  # fmt: skip
            elif name == "also" and "–" not in aims:
                yield f"There were {words}{on}; what is compared is top-1 and latency alone."
        drawn = {c.run for c in found.courses}
        if lost := [found.rows[i].name for i in scale.runs if i not in drawn]:
            yield (f"How the hypervolume rose is not drawn for {', '.join(lost)}: more than a target bound the "
                   "front, or the checkpoint is gone.")  # fmt: skip


# -- words and tables -------------------------------------------------------------------------


def _target(row: Row) -> str:
    return "none" if row.target_ms is None else f"{row.target_ms:.2f} ms"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _best_ms(row: Row) -> str:
    if row.best_ms is None:
        return "–"
    mark = "●" if row.origin == "measured" else "◌"
    said = "" if row.best_measured_ms is None else f", {mark} {row.best_measured_ms:.2f} ms"
    return f"○ {row.best_ms:.2f} ms{said}"


def _volume(row: Row) -> str:
    if row.hypervolume is None:
        return "–"
    return f"{row.hypervolume:#.4g} ({_share(row.of_joint)})"


def _found(row: Row) -> str:
    return "–" if row.joint_share is None else f"{row.joint_share:.0%} ({row.alone_share:.0%})"


def _validated(row: Row) -> str:
    if not row.validated:
        return "–"
    told = f"{row.validated}" if row.met is None else f"{row.met} of {row.validated}"
    return told if row.origin == "measured" else f"{told}, {row.origin}"


def _columns(found: Comparison) -> list[tuple[str, Callable[[Row], str]]]:
    """Titles and cells of the table of runs, behind the name; what is equal for all is left out."""
    always: list[tuple[str, Callable[[Row], str]]] = [
        ("evaluations", lambda r: f"{r.evaluations:,}"),
        ("seconds", lambda r: f"{r.seconds:.1f}"),
        ("hypervolume (of the joint)", _volume),
        ("best top-1", lambda r: "–" if r.best_top1 is None else f"○ {r.best_top1:.2%}"),
        ("its latency", _best_ms),
        ("front", lambda r: f"{r.front}"),
        ("found of joint front (alone)", _found),
    ]
    told: list[tuple[str, Callable[[Row], str]]] = [
        ("device", lambda r: r.device),
        ("space", lambda r: r.space),
        ("target", _target),
    ]
    differ = [(title, of) for title, of in told if len({of(r) for r in found.rows}) > 1]
    if any(r.validated for r in found.rows):
        always.append(("measured, meet target", _validated))
    return [
        ("strategy", lambda r: r.strategy),
        ("seed", lambda r: "–" if r.seed is None else str(r.seed)),
        *differ,
        *always,
    ]


_MEANS = ("mean over seeds", "runs", "hypervolume", "of the joint", "best top-1", "found of joint front",
          "seconds")  # fmt: skip


def _means(found: Comparison) -> list[list[str]]:
    rows = []
    for m in found.means:
        if len(m.runs) < 2:
            continue
        cells = []
        for mean, sd, form, part in (
            (m.hypervolume, m.hypervolume_sd, "{:#.4g}", "{:.2g}"),
            (m.of_joint, m.of_joint_sd, "{:.1%}", "{:.1%}"),
            (m.best_top1, m.best_top1_sd, "○ {:.2%}", "{:.2%}"),
        ):
            spread = "" if sd is None else f" ± {part.format(sd)}"
            cells.append("–" if mean is None else form.format(mean) + spread)
        rows.append([m.label, str(len(m.runs)), *cells, _share(m.joint_share), f"{m.seconds:.1f}"])
    return rows


# -- the page ---------------------------------------------------------------------------------


def _sections(found: Comparison, page: Page) -> list[str]:
    from . import plots as ink

    hues = ink.colours(found)
    body = [_headline(found)]
    told = list(notes(found))
    if len({r.origin for r in found.rows}) == 1 and found.rows[0].origin != "measured":
        told = told[1:]  # the page says it at its top
    if told:
        body.append('<div class="notes">' + "".join(f"<p>{escape(n)}</p>" for n in told) + "</div>")
    body.append(
        "<noscript><p>The plots need JavaScript; the tables hold the numbers.</p></noscript>"
    )
    body += ["<h2>The runs</h2>", _runs(found, hues)]
    if means := _means(found):
        body.append(table(_MEANS, means))
        body.append('<p class="soft">± is the standard deviation over the runs.</p>')
    body.append("<h2>The fronts</h2><p>○ is predicted, ● is measured.</p>")
    for place in range(len(found.scales)):
        body.append(page.draw(f"fronts{place}", ink.fronts_figure(found, place)))
    if found.courses:
        body.append("<h2>Hypervolume over evaluations</h2>")
    for place, scale in enumerate(found.scales):
        if {c.run for c in found.courses} & set(scale.runs):
            body.append(page.draw(f"courses{place}", ink.courses_figure(found, place)))
    return [*body, _settings(found)]


def _headline(found: Comparison) -> str:
    rows, lead, alone = found.rows, "", len(found.scales) == 1
    for scale in found.scales:
        held = [rows[i] for i in scale.runs]
        of = "" if alone else f"Of {', '.join(escape(r.name) for r in held)}: "
        said = []
        if len(held) > 1:
            r = max(held, key=lambda r: r.hypervolume or 0.0)
            said.append(f"the highest hypervolume has <b>{escape(r.name)}</b>, {_share(r.of_joint)} of what "
                        "all fronts together reach")  # fmt: skip
        able = [r for r in held if r.best_top1 is not None]
        if able and len({r.target_ms for r in held}) == 1:
            r = max(able, key=lambda r: r.best_top1 or 0.0)
            within = "" if r.target_ms is None else f" within {_target(r)}"
            said.append(f"the most accurate network{within} is of <b>{escape(r.name)}</b>, top-1 estimate "
                        f"○ {r.best_top1:.1%} at {_best_ms(r)}")  # fmt: skip
        seeds = [m for m in found.means if len(m.runs) > 1 and m.of_joint is not None]
        if alone and len(seeds) > 1:
            order = sorted(seeds, key=lambda m: -(m.of_joint or 0.0))
            told = ", ".join(f"{escape(m.label)} {_share(m.of_joint)}" for m in order)
            said.append(f"by hypervolume, mean over seeds: {told}")
        words = of + "; ".join(said)
        if not said:
            continue
        lead += f'<p class="{"lead" if alone else ""}">{words[:1].upper()}{words[1:]}.</p>'
    tiles = [
        (f"{len(rows)}", "runs"),
        (f"{sum(r.evaluations for r in rows):,}", "networks evaluated"),
    ]
    if alone:
        tiles.append((f"{found.scales[0].joint}", "networks on the joint front"))
        tiles.append((f"{found.scales[0].limit_ms:.2f} ms", "up to here the hypervolume counts"))
    equal = [
        f"{title} {escape(values.pop())}"
        for title, values in (
            ("device", {r.device for r in rows}), ("space", {r.space for r in rows}),
            ("target", {_target(r) for r in rows}),
        ) if len(values) == 1
    ]  # fmt: skip
    shown = "".join(f"<li><b>{a}</b>{b}</li>" for a, b in tiles)
    return (
        f'<h1>{len(rows)} runs compared</h1><p class="soft">{", ".join(equal)}</p>'
        f'{lead}<ul class="facts">{shown}</ul>'
    )


def _runs(found: Comparison, hues: Sequence[str]) -> str:
    columns = _columns(found)
    lines = ""
    for scale in found.scales:
        held = [found.rows[i] for i in scale.runs]
        most = {
            "hypervolume (of the joint)": max((r.of_joint or 0.0 for r in held), default=0.0),
            "best top-1": max((r.best_top1 or 0.0 for r in held), default=0.0),
        }
        if len(found.scales) > 1:
            what = f"{scale.device}, latency model {scale.latency_model}, accuracy {scale.accuracy}"
            lines += f'<tr><th colspan="{len(columns) + 1}">{escape(what)}</th></tr>'
        for i, row in zip(scale.runs, held, strict=True):
            cells = ""
            for title, of in columns:
                own = row.of_joint if title.startswith("hypervolume") else row.best_top1
                best = len(held) > 1 and title in most and own == most[title]
                # A looser target is no merit.
                best &= title != "best top-1" or len({r.target_ms for r in held}) == 1
                cells += f"<td{' class=best' if best else ''}>{escape(of(row))}</td>"
            key = f'<span class="key" style="color:{hues[i]}">■</span>'
            lines += f'<tr><th class="nobr">{key} {escape(row.name)}</th>{cells}</tr>'
    top = "".join(f"<th>{escape(t)}</th>" for t in ("run", *(title for title, _ in columns)))
    return (
        f'<div class="box"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'
        f'<p class="soft">{escape(_EXPLAINED)}</p>'
    )


_EXPLAINED = (
    "Hypervolume: share of the box from 0 ms to its far end and from top-1 of 1 to 0 that a front "
    "dominates; the box is one for all runs that compare. Of the joint: that, as a share of what all their "
    "fronts together dominate. A strategy that aims at one point of the front, as the weighted product does, "
    "covers little of it. Found of joint front: the share of its networks that a run found, and in "
    "brackets of those that no other run did. Best top-1: predicted within the run's own target."
)


def _settings(found: Comparison) -> str:
    titles = ("", *(r.name for r in found.rows))

    def lines(kind: str) -> list[tuple[str, ...]]:
        return [
            (s.name.replace("_", " "), *("–" if v is None or v == "" else str(v) for v in s.values))
            for s in found.settings if s.kind == kind
        ]  # fmt: skip

    body = "<h2>Settings</h2>"
    if differ := lines("differs"):
        drawn = table(titles, differ, "differs")
        body += f"<p>These differ:</p>{drawn}"
    if some := lines("some"):
        body += (f"<details><summary>{len(some)} that only some of the strategies have</summary>"
                 f"{table(titles, some)}</details>")  # fmt: skip
    if same := [row[:2] for row in lines("same")]:
        body += (f"<details><summary>{len(same)} that are the same for all</summary>"
                 f"{table((), same, 'words')}</details>")  # fmt: skip
    return body
