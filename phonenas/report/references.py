"""Known networks beside a front: what a user would take, had he not searched.

They have the front's input and number of classes, a latency on its device (measured where the store
has it), and a top-1 on the scale of the run's estimator. `search` writes them into the run's
folder, as `references.json`; `show`, `validate` and the report read them.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from phonenas.data.documents import Count, Document, Ms, Number, Share, Text, strict
from phonenas.latency_model.metrics import Z90
from phonenas.search.checkpoint import of_this_run, run_digest
from phonenas.search.pareto import Candidate, ParetoFront
from phonenas.search.run_folder import Loaded, lock_run
from phonenas.space import zoo
from phonenas.space.errors import PhonenasError

from .networks import Timing, Top1
from .page import listed, number

__all__ = [
    "FILE",
    "Reference",
    "beside",
    "gain_sentence",
    "known_beside",
    "read_references",
    "reference_rows",
    "reference_titles",
    "reference_trace",
    "references_section",
    "write_references",
]

FILE = "references.json"
DOCUMENT = Document("phonenas-references", 1, "list of known networks")
_FASTER, _SLOWER = 0.7, 1.3  # of the fastest and the slowest of a front: of like size
_MOST = 10
_Error = Annotated[float, Meta(ge=0, le=1)]


@dataclass(frozen=True)
class Reference:
    """A known network, and the most accurate of the front at or below its latency.

    Args:
        name: Of the zoo.
        latency_ms, low_ms, high_ms: With its 90 % interval, ms.
        measured: Whether that is measured; else predicted.
        top1, top1_error: In [0, 1] on the run's scale, and the standard error.
        published: Top-1 as published, in [0, 1], after another training; None where it is not.
        macs, params: Counted.
        outside: Whether the top-1 is an extrapolation.
        candidate: Of the front; None where none is that fast.
        latencies: Of several devices the latency on each, ms, by `latency:DEVICE`; `latency_ms` is
            that on the first.
        measured_on: Those of them that are measured; the others are predicted.
        gain, gain_error: How much more accurate that candidate is, and the standard error; the two
            errors count as independent.
    """

    name: Text
    latency_ms: Ms
    low_ms: Ms
    high_ms: Ms
    measured: bool
    top1: Share
    top1_error: _Error
    macs: Count
    params: Count
    published: Share | None = None
    outside: bool = False
    candidate: Count | None = None
    gain: Number | None = None
    gain_error: _Error | None = None
    latencies: dict[str, Ms] = field(default_factory=dict)
    measured_on: tuple[Text, ...] = ()

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The 90 % interval of the gain, in points; None without one."""
        if self.gain is None or self.gain_error is None:
            return None
        half = Z90 * self.gain_error
        return 100 * (self.gain - half), 100 * (self.gain + half)


class _File(msgspec.Struct):
    run: Text
    references: tuple[Reference, ...]
    scale: Text = ""


def beside(
    front: ParetoFront,
    networks: Iterable[tuple[str, Any]],
    times: Callable[[Any], Timing],
    top1_of: Callable[[Any], Top1 | None],
    elsewhere: Mapping[str, Callable[[Any], Timing]] | None = None,
) -> tuple[Reference, ...]:
    """The known networks of like size beside a front, by rising latency; at most ten.

    Args:
        front: Of a search.
        networks: Names and networks of the front's resolution and classes.
        times, top1_of: What the device takes for one, and its top-1 on the run's scale, or None.
        elsewhere: What each further one of several devices takes, by `latency:DEVICE`.
    """
    if not front.candidates:
        return ()
    ms = [c.latency_ms for c in front]
    fastest, slowest = min(ms), max(ms)
    found = []
    for name, network in networks:
        top1 = top1_of(network)
        t = None if top1 is None else times(network)
        if top1 is None or t is None or t.ms is None:
            continue
        if not _FASTER * fastest <= t.ms <= _SLOWER * slowest:
            continue
        each = {name: of(network) for name, of in (elsewhere or {}).items()}
        each = {f"latency:{t.device}": t, **each} if each else {}
        others = {name: o.ms for name, o in each.items() if o.ms is not None}
        if len(others) < len(each):
            continue
        low, high = t.bounds_ms
        numbers = (t.ms, low, high, t.measured_ms is not None, top1.top1, top1.error)
        own = zoo.network(name) if name in zoo.names() else zoo.graph(name)
        figures = zoo.published(name) if network == own else None
        found.append(
            with_gain(
                Reference(
                    name,
                    *numbers,
                    network.macs,
                    network.params,
                    None if figures is None else figures.top1 / 100,
                    top1.outside,
                    latencies=others,
                    measured_on=tuple(n for n, o in each.items() if o.measured_ms is not None),
                ),
                front.candidates,
            )
        )
    middle = front.target_ms or slowest
    nearest = sorted(found, key=lambda r: abs(math.log(r.latency_ms / middle)))[:_MOST]
    return tuple(sorted(nearest, key=lambda r: (r.latency_ms, r.name)))


def with_gain(reference: Reference, candidates: Sequence[Candidate]) -> Reference:
    """The reference with the most accurate candidate that is predicted no slower, on any device."""
    further = reference.latencies.items()
    able = [
        c
        for c in candidates
        if c.latency_ms <= reference.latency_ms and all(c.values[n] <= ms for n, ms in further)
    ]
    best = max(able, key=lambda c: (c.top1, -c.id), default=None)
    if best is None:
        return reference
    error = math.hypot(best.top1_error, reference.top1_error)
    gain = best.top1 - reference.top1
    return replace(reference, candidate=best.id, gain=gain, gain_error=error)


def write_references(
    folder: Path, settings: dict[str, Any], references: Sequence[Reference], scale: str
) -> Path:
    """Write `references.json` into a run's folder, whole or not at all.

    Raises:
        StoreError: The disk does not take it, or another process works in the folder.
    """
    rows = [asdict(r) for r in references]
    content = {"run": run_digest(settings), "references": rows, "scale": scale}
    with lock_run(folder):
        return DOCUMENT.write(folder / FILE, content)


def read_references(run: Loaded) -> tuple[Reference, ...]:
    """The known networks beside a run's front; none where its search wrote none.

    Raises:
        UnsupportedFormat: The file is damaged, of another run or of another version.
        StoreError: It cannot be read.
    """
    path = run.path / FILE
    again = (
        f"Remove it, or give the search again:  phonenas search --out {shlex.quote(str(run.path))}"
    )
    values = DOCUMENT.read(path, again)
    if values is None:
        return ()
    with DOCUMENT.checking(path, again):
        file = strict(values, _File)
        of_this_run(path, file.run, run.settings, again)
    return file.references


def known_beside(run: Loaded) -> tuple[Reference, ...]:
    """`read_references`; none where the file is damaged, which the report tells by itself."""
    try:
        return read_references(run)
    except PhonenasError:
        return ()


def gain_sentence(
    front: ParetoFront,
    references: Sequence[Reference],
    validated: Mapping[str, Sequence[Any]] | None = None,
) -> str:
    """What the search gained, in one sentence; "" where no known network compares.

    It is about the network that the target was given as; else about the most accurate known network
    within the target.

    Args:
        front: Of the search.
        references: Known networks beside it.
        validated: Rows of validations with their `measured_ms`, as `validation.measured_in` gives
            them. They replace the predictions where the known network is measured too: of several
            devices it, and a network of the front that is no slower, on each of them.

    >>> gain_sentence(ParetoFront((), None, "", 0.0), ())
    ''
    """
    limit = front.target_ms or max((c.latency_ms for c in front), default=0.0)
    able = [r for r in references if r.gain is not None]
    named = [r for r in able if r.name == front.target]
    within = named or [r for r in able if _within(r, limit, front.targets)] or able
    if not within:
        return ""
    r = max(within, key=lambda r: r.top1)
    how, best = "predicted", next(c for c in front if c.id == r.candidate)
    outside = best.outside
    if ids := _no_slower(r, validated or {}):
        best = max((c for c in front if c.id in ids), key=lambda c: c.top1)
        error = math.hypot(best.top1_error, r.top1_error)
        r = replace(r, candidate=best.id, gain=best.top1 - r.top1, gain_error=error)
        how, outside = "measured", best.outside
    assert r.gain is not None and r.bounds is not None
    low, high = r.bounds
    unclear = ", so that it is not clear which is more accurate" if low <= 0 <= high else ""
    beyond = "; its top-1 is an extrapolation" if outside else ""
    over = "over" if r.gain >= 0 else "below"
    at = "its latency on each device" if r.latencies else "its latency"
    return (
        f"Network {r.candidate}: {abs(100 * r.gain):.1f} points {over} {r.name} at {at} "
        f"({how}; 90 %: {low:.1f} to {high:.1f}{unclear}{beyond})"
    )


def _no_slower(r: Reference, validated: Mapping[str, Sequence[Any]]) -> set[int]:
    """Ids of networks measured no slower than a known one, which is measured, too; of several
    devices on each."""
    known = dict(r.latencies)
    measured = known.keys() <= set(r.measured_on)
    if not known:
        known, measured = {"": r.latency_ms}, r.measured
    if not measured:
        return set()
    faster = [
        {int(v["id"]) for v in validated.get(name, ()) if v["measured_ms"] <= ms}
        for name, ms in known.items()
    ]
    return set.intersection(*faster)


def _within(r: Reference, limit_ms: float, targets: Mapping[str, float | None]) -> bool:
    """Whether a known network keeps the target; of several devices that of each."""
    known = {"": r.latency_ms, **r.latencies}
    limits = {**targets, "": limit_ms}
    return all(ms <= (limits.get(n) or math.inf) * (1 + 1e-9) for n, ms in known.items())


def reference_titles(references: Sequence[Reference]) -> list[str]:
    """The titles above `reference_rows`."""
    devices = [n.removeprefix("latency:") for n in (references[0].latencies if references else ())]
    first, *further = devices or ["latency"]
    return [
        *("known network", first, "90 % interval", *further, "top-1", "", "MACs"),
        *("parameters", "published", "points gained at its latency (90 %)"),
    ]


def reference_rows(references: Sequence[Reference], sign: str = "●") -> list[list[str]]:
    """The known networks for a terminal, a row each, under `reference_titles`.

    Args:
        references: They.
        sign: Of a measured latency.
    """
    return [
        [
            r.name,
            f"{sign if r.measured else '○'} {r.latency_ms:.2f} ms",
            f"{r.low_ms:.2f} to {r.high_ms:.2f}",
            *(f"{_sign(r, n, sign)} {r.latencies[n]:.2f} ms" for n in [*r.latencies][1:]),
            _top1(r),
            "extrapolated" if r.outside else "",
            f"{r.macs / 1e6:.0f} M",
            f"{r.params / 1e6:.2f} M",
            "" if r.published is None else f"{r.published:.1%}",
            _gain(r),
        ]
        for r in references
    ]


def _sign(r: Reference, device: str, measured: str) -> str:
    return measured if device in r.measured_on else "○"


def _top1(r: Reference) -> str:
    return f"○ {r.top1:.1%} ±{r.top1_error:.1%}"


def _gain(r: Reference) -> str:
    if r.gain is None or r.bounds is None:
        return "none that fast"
    low, high = r.bounds
    return f"{100 * r.gain:+z.1f} ({low:+z.1f} to {high:+z.1f}), network {r.candidate}"


def reference_trace(references: Sequence[Reference], ends: tuple[float, float]) -> Any:
    """The known networks in the plot of a front, whose latencies reach from end to end."""
    from . import plots

    at = [r.latency_ms for r in references]
    bounds = [(r.low_ms, r.high_ms) for r in references]
    return plots.scatter(
        "known networks",
        at,
        [100 * r.top1 for r in references],
        {
            "color": plots.KNOWN,
            "size": 9,
            "symbol": ["diamond" if r.measured else "diamond-open" for r in references],
        },
        "%{customdata[0]}<br>%{customdata[1]} %{x:.2f} ms<br>top-1 %{customdata[2]}",
        [[plots.plain(r.name), "●" if r.measured else "○", _top1(r)] for r in references],
        **plots.names_beside([r.name for r in references], at, ends),
        error_x=plots.error_bars(bounds, at, plots.KNOWN),
    )


def _on_device(name: str) -> Callable[[Reference], str]:
    return lambda r: f"{_sign(r, name, '●')} {number(r.latencies.get(name), '{:.2f}')}"


def references_section(references: Sequence[Reference]) -> str:
    """The report's table of them, HTML; "" for none."""
    if not references:
        return ""
    names = [*references[0].latencies]
    first = f"{names[0].removeprefix('latency:')}, ms" if names else "latency, ms"
    further = tuple(
        (f"{name.removeprefix('latency:')}, ms", _on_device(name)) for name in names[1:]
    )
    columns = (
        ("known network", lambda r: f"<code>{escape(r.name)}</code>"),
        (
            f"{first} (90 % interval)",
            lambda r: (
                f"{'●' if r.measured else '○'} {r.latency_ms:.2f} ({r.low_ms:.2f} to "
                f"{r.high_ms:.2f})"
            ),
        ),
        *further,
        ("top-1", lambda r: escape(_top1(r)) + " extrapolated" * r.outside),
        ("points gained at its latency (90 %)", lambda r: escape(_gain(r))),
        ("published top-1", lambda r: number(r.published, "{:.1%}")),
        ("MACs, M", lambda r: f"{r.macs / 1e6:.0f}"),
        ("params, M", lambda r: f"{r.params / 1e6:.2f}"),
    )
    return (
        f"<h2>Known networks beside it</h2>{listed(columns, references)}"
        '<p class="soft">Networks of like size and the same input on this device, their top-1 by '
        "the estimator of this run; published top-1 is after another training. Gained: the most "
        "accurate network of the front that is predicted no slower, with the 90 % interval of the "
        "difference of the two top-1.</p>"
    )
