"""A run's front as a page shows it: a table to sort and filter, drawings, all objectives."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from phonenas.latency_model import LatencyModel
from phonenas.search.candidate_selection import select_candidates
from phonenas.search.pareto import Candidate
from phonenas.search.run_folder import Loaded
from phonenas.space.drawing import drawing
from phonenas.space.errors import PhonenasError
from phonenas.space.naming import counted

from .page import Page, number, table
from .plots import OTHER, PREDICTED, figure_of, plain, scatter
from .several import OfDevice, latencies

__all__ = ["course_section", "drawings_section", "front_table", "objectives_plot"]

_DRAWN = 3
_LOGGED = 12  # generations shown of a log
_TOOLS = (
    '<p class="tools" hidden><label>Filter <input type="search" size="34" '
    'placeholder="k5  se  latency&lt;30  top1&gt;75" aria-describedby="filter-help"></label> '
    '<span role="status"></span> <button type="button" data-save="front.csv">Save these rows as '
    "CSV</button></p>"
    '<p class="soft" id="filter-help">The filter keeps the rows that hold each of its words; '
    "<code>latency&lt;30</code>, <code>top1&gt;75</code>, <code>macs</code>, <code>params</code> "
    "and <code>id</code> compare numbers. A click on a title sorts.</p>"
)


def front_table(devices: Sequence[OfDevice]) -> str:
    """The whole front, one row a network, with its block string; to sort and to filter."""
    run = devices[0].run
    front = list(run.front)
    if not front:
        return ""
    measured = [{v["id"]: v for v in (d.validation or {}).get("networks", ())} for d in devices]
    several = [f"latency:{d.device}" for d in devices if d.several]
    further = dict.fromkeys(name for c in front for name in c.values if name not in several)
    latency, shown = [], []
    for d, of in zip(devices, measured, strict=True):
        at, where = (f":{d.device}", f" on {d.device}") if d.several else ("", "")
        sign = "◌" if d.several and d.origin != "measured" else "●"
        latency.append((f"latency{at}", f"○ latency{where}, ms (90 %)"))
        shown += [(f"measured{at}", f"{sign} measured{where}, ms")] * bool(of)
    titles = [("id", "id"), *latency, ("top1", "○ top-1, %"), *shown]
    titles += [("macs", "MACs, M"), ("params", "params, M")]
    titles += [(name, name) for name in further] + [("network", "block string")]
    head = "".join(
        f'<th data-name="{escape(key)}"><button type="button">{escape(title)}</button></th>'
        for key, title in titles
    )
    # The block string is its own value: it stands once in a row.
    lines = "".join(
        "<tr>"
        + "".join(
            f'<td data-v="{"" if value is None else value}">{cell}</td>'
            for value, cell in _cells(c, measured, several, further)
        )
        + f'<td><code class="cut">{escape(c.block_args)}</code></td></tr>'
        for c in front
    )
    example = f"{run.path}:{front[0].id}"
    command = shlex.join(["phonenas", "export-network", example, "--out", "network.onnx"])
    return (
        f"<h2>All {counted(len(front), 'network')} of the front</h2>{_TOOLS}"
        '<div class="box tall" tabindex="0"><table class="sortable">'
        f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
        f'<p class="soft">A network as a file, here as ONNX; <code>network.tflite</code> gives '
        f"TFLite: <code>{escape(command)}</code></p>"
    )


def _cells(
    c: Candidate,
    measured: Sequence[Mapping[int, Mapping[str, Any]]],
    several: Sequence[str],
    further: Iterable[str],
) -> Iterator[tuple[Any, str]]:
    """Of each column the value to sort by, and the HTML of the cell."""
    yield c.id, str(c.id)
    on: list[tuple[float, Any]] = [(c.values[name], c.intervals[name]) for name in several]
    for ms, ends in on or [(c.latency_ms, c)]:
        yield ms, f"{ms:.2f} ({ends.low_ms:.2f} to {ends.high_ms:.2f})"
    top1 = f"{100 * c.top1:.1f} ± {100 * c.top1_error:.1f}"
    yield 100 * c.top1, top1 + (" extrapolated" if c.outside else "")
    for of in measured:
        if of:
            own = of.get(c.id, {}).get("measured_ms")
            yield own, number(own, "{:.2f}")
    yield c.macs / 1e6, f"{c.macs / 1e6:.0f}"
    yield c.params / 1e6, f"{c.params / 1e6:.2f}"
    for name in further:
        value = c.values.get(name)
        yield value, number(value, "{:,.4g}")


def drawings_section(devices: Sequence[OfDevice], model: LatencyModel | None) -> str:
    """The best networks of the front as blocks, with the share of time of each where it is known.

    Args:
        devices: A finished run, by device.
        model: That predicted on the first, where it can be read.
    """
    run = devices[0].run
    best = select_candidates(run.front, _DRAWN) if len(run.front) else []
    body = []
    for c in best:
        try:
            architecture = c.architecture
            times = None if model is None else _times(model, architecture)
            drawn = (
                f'<div class="box drawn" tabindex="0">{drawing(architecture.rows(), times)}</div>'
            )
        except PhonenasError as error:  # of a file that was changed: the rest of the page holds
            drawn = f'<p class="bad">It cannot be drawn: {escape(str(error))}</p>'
        body.append(
            f"<h3>Network {c.id}</h3><p>{latencies(c, devices)}, top-1 {c.top1:.1%}</p>{drawn}"
        )
    if not body:
        return ""
    first = devices[0]
    shares = f" The shares are of the time{first.heading}." if first.several else ""
    return (
        "<h2>What they look like</h2>"
        f"<p>{counted(len(body), 'network')} that validation would measure first. Each brick is a "
        f"layer: the wider, the more channels; the darker, the larger its kernel.{shares}</p>"
        + "".join(body)
    )


def _times(model: LatencyModel, architecture: Any) -> list[float] | None:
    """Predicted ms of each row of a drawing; None where the model's parts are no operators."""
    operators = architecture.operators()
    shares = [e for e in model.explain(architecture) if e.operator is not None]
    if [e.operator for e in shares] != list(operators):
        return None
    times = iter(e.ms for e in shares)
    return [sum(next(times) for _ in range(row.layers)) for row in architecture.rows()]


def course_section(run: Loaded, page: Page) -> str:
    """How the search went: hypervolume over evaluations, and some generations of its log."""
    kept = run.log()
    if not len(kept):
        return ""
    step = max(1, -(-len(kept) // _LOGGED))
    rows = [
        (
            f"{n:,.0f}",
            f"{repeats:,.0f}",
            "–" if hv != hv else f"{hv:#.4g}",
            f"○ {ms:.2f}",
            f"○ {top1:.1%}",
            f"{seconds:.1f}",
        )
        for n, repeats, hv, ms, top1, seconds in [*kept[:-1:step], kept[-1]]
    ]
    titles = ("evaluations", "known already", "hypervolume", "fastest, ms", "best top-1", "seconds")
    known = [(float(g[0]), float(g[2])) for g in kept if g[2] == g[2]]
    plot = ""
    if len(known) > 1:
        x, y = zip(*known, strict=True)
        hover = "%{x:,.0f} evaluations<br>hypervolume %{y:.4f}"
        line = scatter(
            plain(str(run.settings.get("strategy", ""))),
            x,
            y,
            {"color": PREDICTED, "size": 5},
            hover,
            mode="lines+markers",
            line={"color": PREDICTED},
        )
        title = f"Hypervolume over {known[-1][0]:,.0f} evaluations"
        plot = page.draw("course", figure_of([line], title, "evaluations", "hypervolume", 320))
    return (
        f'<h2>How it went</h2>{plot}{table(titles, rows)}<p class="soft">{len(rows)} of '
        f"{len(kept):,} generations; <code>log.csv</code> in the run's folder holds all. Fastest "
        "and best are of all networks evaluated, whether they meet the target or not.</p>"
    )


def objectives_plot(run: Loaded, page: Page) -> str:
    """The front in parallel coordinates, where it has more than two numbers a network."""
    import plotly.graph_objects as go

    front = list(run.front)
    names = list(dict.fromkeys(n for c in front for n in c.values))
    axes = {"latency, ms": [c.latency_ms for c in front]} if not run.front.targets else {}
    axes["top-1, %"] = [100 * c.top1 for c in front]
    for name in names:
        if all(name in c.values for c in front):
            axes[plain(name)] = [c.values[name] for c in front]
    if len(axes) < 3 or len(front) < 2:
        return ""
    lines = go.Parcoords(
        line={"color": axes["top-1, %"], "colorscale": [[0, OTHER], [1, PREDICTED]]},
        dimensions=[{"label": label, "values": values} for label, values in axes.items()],
    )
    title = f"{counted(len(front), 'network')} by {len(axes)} numbers; drag along an axis to choose"
    figure = figure_of([lines], title, "", "", 380)
    figure.update_layout(margin={"l": 60, "r": 60, "t": 60, "b": 24})
    return page.draw("objectives", figure)
