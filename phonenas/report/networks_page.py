"""networks_page(): networks side by side as one HTML page that opens offline."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from phonenas.space.naming import counted

from .networks import Compared, NetworkRow, Timing, Top1, against, alike, top1_gain
from .networks_text import reasons, sentences
from .page import YES, Page, boxed, number

__all__ = ["latency_figure", "networks_page", "top1_figure"]

_WIDE = 8.0  # from this ratio on an axis is logarithmic
_SIGNS = {-1: "good", 0: "", 1: "bad"}
_SCALES = (("published", "published top-1, %"), ("estimated", "○ estimated top-1, %"))


def networks_page(compared: Compared) -> str:
    """The page, whole; all text of files and users is escaped."""
    rows = compared.rows
    page = Page(f"phonenas: {counted(len(rows), 'network')} compared")
    body = [_headline(compared), _left_out(compared)]
    body += [
        "<noscript><p>The plots need JavaScript; the tables hold the numbers.</p></noscript>",
        "<h2>The networks</h2>",
        _table(_own_columns(compared), rows, [_name(r) for r in rows]),
        _explained(compared),
    ]
    for place in range(len(compared.devices)):
        body += _device(compared, place, page)
    origins = {t.origin for r in rows for t in r.timings if t.ms is not None}
    return page.html([b for b in body if b], origins.pop() if len(origins) == 1 else "measured")


def _headline(compared: Compared) -> str:
    rows, first = compared.rows, compared.rows[0]
    tiles = [(f"{len(rows)}", "network" + "s" * (len(rows) != 1))]
    known = [t for r in rows for t in r.timings]
    taken = [t.origin for t in known if t.measured_ms is not None]
    for origin in dict.fromkeys(taken):
        tiles.append((f"{taken.count(origin)}", f"times {escape(origin)}"))
    tiles.append((f"{sum(t.predicted_ms is not None for t in known)}", "times predicted"))
    lines = ""
    for place, device in enumerate(compared.devices):
        signs = [a.sign for r in rows if (a := against(compared, r, place)) is not None]
        if signs:
            lines += (
                f"<p>Against <b>{escape(first.name)}</b>, the first, on {escape(device)}: "
                f"{signs.count(-1)} faster, {signs.count(1)} slower, {signs.count(0)} not told "
                "apart.</p>"
            )
    shown = "".join(f"<li><b>{a}</b>{b}</li>" for a, b in tiles)
    return (
        f"<h1>{counted(len(rows), 'network')} compared</h1>"
        f'<p class="soft">{escape(", ".join(compared.devices))}</p>'
        f'<ul class="facts">{shown}</ul>{lines}'
    )


def _left_out(compared: Compared) -> str:
    """Where times come from, and what has none."""
    lines = [*filter(None, compared.notes), *reasons(compared)]
    paragraphs = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return f'<div class="notes">{paragraphs}</div>' if lines else ""


def _own_columns(compared: Compared) -> list[tuple[str, Callable[[NetworkRow], str]]]:
    """Titles and cells of what does not depend on a device; none without a value."""
    first = compared.rows[0]

    def top1(t: Top1 | None, form: str) -> str:
        if t is None:
            return "–"
        return form.format(t.top1, t.error) + (" extrapolated" if t.outside else "")

    def gain(row: NetworkRow) -> str:
        found = None if row is first else top1_gain(row, first)
        if found is None:
            return "–"
        points, error, scale = found
        half = 1.645 * error
        kind = "good" if points > half else "bad" if points < -half else ""
        said = (
            f"{100 * points:+z.1f} ({100 * (points - half):+z.1f} to {100 * (points + half):+z.1f})"
        )
        return f'<span class="{kind}">{said} {scale}</span>'

    columns: list[tuple[str, Callable[[NetworkRow], str]]] = [
        ("top-1 published", lambda r: top1(r.published, "{:.1%}")),
        ("○ top-1 estimated", lambda r: top1(r.estimated, "{:.1%} ± {:.1%}")),
        ("points over the first (90 %)", gain),
        ("MACs, M", lambda r: number(r.macs, "{:,.0f}", 1e6)),
        ("params, M", lambda r: number(r.params, "{:.2f}", 1e6)),
        (
            "size, MB",
            lambda r: (
                ("" if r.stored else "○ ") * bool(r.size_bytes)
                + number(r.size_bytes, "{:.1f}", 1e6)
            ),
        ),
        ("○ peak of activations, MB", lambda r: number(r.peak_activation_bytes, "{:.1f}", 1e6)),
        ("px", lambda r: number(r.resolution_px, "{:.0f}")),
    ]
    return [c for c in columns if any(c[1](r) != "–" for r in compared.rows)]


def _name(row: NetworkRow) -> str:
    return f"<code>{escape(row.name)}</code>"


def _table(
    columns: Sequence[tuple[str, Callable[[Any], str]]], rows: Sequence[Any], names: Sequence[str]
) -> str:
    """A table whose first column, the names, stays in view."""
    lines = "".join(
        f"<tr><th>{name}</th>{''.join(f'<td>{cell(row)}</td>' for _, cell in columns)}</tr>"
        for name, row in zip(names, rows, strict=True)
    )
    return boxed(["network", *(title for title, _ in columns)], lines)


def _explained(compared: Compared) -> str:
    sources = {r.name: r.published.source for r in compared.rows if r.published is not None}
    text = (
        "Published top-1 is after the full schedule of its source; recipes differ by points. "
        "Intervals are of 90 %. Size: of the file; ○ of the parameters alone where there is none."
    )
    if any(r.estimated for r in compared.rows) and compared.scale:
        text += f" Estimated top-1: {compared.scale}."
    lines = "".join(f"<li>{escape(n)}: {escape(s)}</li>" for n, s in sources.items())
    listing = f"<details><summary>Sources of published top-1</summary><ul>{lines}</ul></details>"
    return f'<p class="soft">{escape(text)}</p>' + (listing if sources else "")


# -- one device -------------------------------------------------------------------------------


def _device(compared: Compared, place: int, page: Page) -> list[str]:
    device = compared.devices[place]
    timings = [(r, r.timings[place]) for r in compared.rows]
    body = [f"<h2>On {escape(device)}</h2>"]
    if not any(t.ms is not None for _, t in timings):
        return [*body, "<p>No latency is known: the reasons stand above.</p>"]
    names = [_name(r) for r in compared.rows]
    body.append(_table(_timing_columns(compared, place), timings, names))
    if place == 0:
        body.append(f'<p class="soft">{escape(_than_explained(compared))}</p>')
    lines = sentences(compared, place)
    if lines:
        body.append(f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>")
    for scale, title in _SCALES:
        if sum(getattr(r, scale) is not None and t.ms is not None for r, t in timings) > 1:
            figure = top1_figure(compared, place, scale, title)
            body.append(page.draw(f"top1-{place}", figure))
            break
    if sum(bool(r.macs) and t.ms is not None for r, t in timings) > 1:
        body.append(page.draw(f"macs-{place}", latency_figure(compared, place)))
    return body


def _than_explained(compared: Compared) -> str:
    return (
        f"Than the first: the ratio to {compared.rows[0].name} with its 90 % interval; the two are "
        "told apart where it leaves 1 out. Both times of a ratio are of one kind where both "
        "networks have it. Two predictions of one model share part of their errors, so this is "
        "careful."
    )


_Timed = tuple[NetworkRow, Timing]


def _timing_columns(compared: Compared, place: int) -> list[tuple[str, Callable[[_Timed], str]]]:
    timings = [(r, r.timings[place]) for r in compared.rows]

    def measured(pair: _Timed) -> str:
        t = pair[1]
        if t.measured_ms is None:
            return "–"
        return f"{_mark(t)} {t.measured_ms:.2f} ± {number(t.spread, '{:.1%}')}"

    def predicted(pair: _Timed) -> str:
        t = pair[1]
        if t.predicted_ms is None:
            return "–"
        return f"○ {t.predicted_ms:.2f} ({t.low_ms:.2f} to {t.high_ms:.2f})"

    def than(pair: _Timed) -> str:
        ratio = against(compared, pair[0], place)
        if ratio is None:
            return "–"
        return (
            f'×{ratio.times:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) <span class="'
            f'{_SIGNS[ratio.sign]}">{ratio.verdict}</span>'
        )

    def per_macs(pair: _Timed) -> str:
        row, t = pair
        return f"{1e8 * t.ms / row.macs:.2f}" if row.macs and t.ms else "–"

    def rests_on(pair: _Timed) -> str:
        t = pair[1]
        beyond = "" if t.covered in (True, None) else ", extrapolated"
        return escape(t.basis + beyond) if t.basis else "–"

    columns: list[tuple[str, Callable[[_Timed], str]]] = [
        ("precision", lambda p: escape(p[1].precision) or "–"),
        (f"{_origin(timings)}, ms (± 90 %)", measured),
        ("predicted, ms (90 % interval)", predicted),
        ("error", lambda p: number(p[1].error, "{:+z.1%}") + " fitted on it" * p[1].fitted_on),
        ("inside", lambda p: YES[p[1].inside]),
        ("than the first (90 %)", than),
        ("ms / 100 M MACs", per_macs),
        ("predicted from", rests_on),
    ]
    return [c for c in columns if any(c[1](p) != "–" for p in timings)]


def _origin(timings: Sequence[_Timed]) -> str:
    """What the times of one device are that its store holds."""
    return next((t.origin for _, t in timings if t.measured_ms is not None), "measured")


def _mark(t: Timing) -> str:
    return "●" if t.origin == "measured" else "◌"


# -- figures ----------------------------------------------------------------------------------


def top1_figure(compared: Compared, place: int, scale: str, title: str) -> Any:
    """Top-1 on one scale against latency on one device, a `plotly.graph_objects.Figure`."""
    from . import plots

    rows = [(r, t) for r, t in _timed(compared, place) if getattr(r, scale) is not None]
    y = {r.name: 100 * getattr(r, scale).top1 for r, _ in rows}
    error = {r.name: 100 * getattr(r, scale).error for r, _ in rows}
    bars = scale == "estimated"  # a published figure's error is less than its point
    traces = _points(rows, [t.ms for _, t in rows], y, error if bars else None, "top-1 %{y:.1f} %")
    what = f"{counted(len(rows), 'network')}: {title.removesuffix(', %')} against latency"
    figure = plots.figure_of(
        traces, f"{what} on {plots.plain(compared.devices[place])}", "latency, ms", title, 460
    )
    return _log_axes(figure, x=[t.ms for _, t in rows])


def latency_figure(compared: Compared, place: int) -> Any:
    """Latency on one device against MACs; dashed lines join networks of equal MACs told apart."""
    from . import plots

    rows = [(r, t) for r, t in _timed(compared, place) if r.macs]
    y = {r.name: float(t.ms or 0.0) for r, t in rows}
    macs = {r.name: (r.macs or 0) / 1e6 for r, _ in rows}
    traces = [
        plots.scatter(
            "equal MACs, told apart",
            [macs[p.faster], macs[p.slower]],
            [y[p.faster], y[p.slower]],
            None,
            mode="lines",
            line={"color": plots.OTHER, "dash": "dash", "width": 1.2},
            legendgroup="alike",
            showlegend=i == 0,
        )
        for i, p in enumerate(alike(compared, place))
    ]
    traces += _points(rows, list(macs.values()), y, None, "%{x:,.0f} M MACs", on_x=False)
    device = plots.plain(compared.devices[place])
    title = f"{counted(len(rows), 'network')}: latency against MACs on {device}"
    figure = plots.figure_of(traces, title, "MACs, M", "latency, ms", 460)
    return _log_axes(figure, x=list(macs.values()), y=list(y.values()))


def _timed(compared: Compared, place: int) -> list[_Timed]:
    pairs = [(r, r.timings[place]) for r in compared.rows]
    return [(r, t) for r, t in pairs if t.ms is not None]


def _points(
    rows: Sequence[_Timed],
    x: Sequence[Any],
    y: dict[str, float],
    error: dict[str, float] | None,
    more: str,
    on_x: bool = True,
) -> list[Any]:
    """One trace of measured networks and one of predicted; `on_x` says where their latency is."""
    from . import plots

    traces = []
    for measured in (False, True):
        some = [
            (r, t, at)
            for (r, t), at in zip(rows, x, strict=True)
            if (t.measured_ms is not None) == measured
        ]
        if not some:
            continue
        colour, mark = plots.PREDICTED, "○"
        if measured:
            colour, mark = plots.MEASURED, _mark(some[0][1])
        ms = [float(t.ms or 0.0) for _, t, _ in some]
        bars = plots.error_bars([t.bounds_ms for _, t, _ in some], ms, colour)
        names = [r.name for r, _, _ in some]
        along = "x" if on_x else "y"
        options: dict[str, Any] = {f"error_{along}": bars}
        if error is not None:
            bar = {"type": "data", "thickness": 1, "width": 0, "color": colour}
            options["error_y"] = {**bar, "array": [error[n] for n in names]}
        spread = [_scaled(at, x) for at in x]
        own = [_scaled(at, x) for _, _, at in some]
        options = {**plots.names_beside(names, own, (min(spread), max(spread))), **options}
        traces.append(
            plots.scatter(
                plots.plain(_origin(rows)) if measured else "predicted with 90 % interval",
                [at for _, _, at in some],
                [y[n] for n in names],
                {"color": colour, "size": 9, "symbol": "circle" if measured else "circle-open"},
                f"%{{customdata}}<br>{mark} %{{{along}:.2f}} ms<br>{more}",
                [plots.plain(n) for n in names],
                **options,
            )
        )
    return traces


def _far(numbers: Sequence[Any]) -> bool:
    return bool(max(numbers) > _WIDE * min(numbers))


def _scaled(number: float, numbers: Sequence[Any]) -> float:
    """A place on the axis of some numbers, which is logarithmic where they lie far apart."""
    return math.log(number) if _far(numbers) else float(number)


def _log_axes(figure: Any, **values: Sequence[Any]) -> Any:
    """Logarithmic axes, ticks at 1, 2 and 5, where numbers lie far apart."""
    for axis, numbers in values.items():
        low, high = min(numbers), max(numbers)
        if _far(numbers):
            decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            ticks = [m * 10.0**d for d in decades for m in (1, 2, 5)]
            labels = [f"{t:,.10g}" for t in ticks]
            own = {"type": "log", "tickvals": ticks, "ticktext": labels}
            figure.update_layout({f"{axis}axis": own})
    return figure
