"""compare(): several runs beside each other, as far as their numbers mean the same.

Runs share a *scale* where one latency model of one device and one accuracy estimator judged
them. Within a scale they have one hypervolume and one joint front; beyond it only what still
means the same is set side by side, and the notes say what is not.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .search.pareto import Candidate, hypervolume, non_dominated
from .search.run_folder import Loaded, load
from .space.errors import InvalidArgument, UnsupportedFormat

__all__ = ["Comparison", "Course", "Mean", "Row", "Scale", "Setting", "Spot", "compare"]

Floats = npt.NDArray[np.float64]
_MARKS = 200  # places of a course; more show nothing new
_SAME = (
    1e-6  # a course ends at its front's own hypervolume; else more than a target bound the front
)
_NEEDED = ("device", "latency_model", "accuracy", "strategy", "space", "evaluations")


@dataclass(frozen=True)
class Row:
    """One run.

    Args:
        name: Its folder's name; the path where two share one.
        path: Of the folder, as it was given.
        group: Index of its mean; runs that differ in nothing but their seed share one.
        scale: Index of its scale.
        evaluations: Distinct networks judged.
        seconds: That the search took.
        hypervolume: Share of the scale's box that its front dominates, in [0, 1]; None where no
            other run shares the scale. The box: 0 ms to the scale's limit, top-1 from 1 to 0.
        of_joint: The same as a share of the joint front's hypervolume, in [0, 1].
        best_id, best_top1, best_ms: The most accurate candidate predicted within the run's own
            target; None where there is none.
        best_measured_ms: What the device said of it, ms; None where not asked.
        front: Candidates on its own front.
        joint_share: Share of the joint front's networks that it found, in [0, 1]; runs may have
            found the same, so these add up to 1 or more.
        alone_share: Share that no other run found.
        validated, met: Candidates that a device measured, and those within the target; `met` is
            None without a target.
        origin: Where its latencies come from: "measured", "simulated" or "imported".
    """

    name: str
    path: str
    group: int
    scale: int
    strategy: str
    seed: int | None
    space: str
    resolution_px: int | None
    device: str
    target_ms: float | None
    evaluations: int
    seconds: float
    hypervolume: float | None
    of_joint: float | None
    best_id: int | None
    best_top1: float | None
    best_ms: float | None
    best_measured_ms: float | None
    front: int
    joint_share: float | None
    alone_share: float | None
    validated: int
    met: int | None
    origin: str


@dataclass(frozen=True)
class Mean:
    """Runs of one scale that differ in nothing but their seed.

    `label` is the strategy, with the settings that tell it from others of its name. Of each
    quantity the mean, and the standard deviation over the runs (None for one run).
    """

    label: str
    runs: tuple[str, ...]
    hypervolume: float | None
    hypervolume_sd: float | None
    of_joint: float | None
    of_joint_sd: float | None
    best_top1: float | None
    best_top1_sd: float | None
    joint_share: float | None
    seconds: float


@dataclass(frozen=True)
class Scale:
    """What some runs share, so that their numbers compare in full.

    Args:
        runs: Indices of the rows.
        limit_ms: Far end of the hypervolume's box: the tightest target of the runs; without
            any, the slowest network that any of them judged.
        joint: Networks on the joint front: those within the limit that no run's front beats.
        hypervolume: Of the joint front.
    """

    runs: tuple[int, ...]
    device: str
    latency_model: str
    accuracy: str
    limit_ms: float
    joint: int
    hypervolume: float


@dataclass(frozen=True)
class Spot:
    """A candidate in the plot of all fronts; `measured_ms` where a device was asked."""

    run: int
    id: int
    latency_ms: float
    top1: float
    measured_ms: float | None


@dataclass(frozen=True)
class Course:
    """Share of the joint front's hypervolume after so many evaluations of one run.

    There is none where a front was held to more than a target: the evaluations do not tell it.
    """

    run: int
    evaluations: tuple[int, ...]
    of_joint: tuple[float, ...]


@dataclass(frozen=True)
class Setting:
    """A setting over all runs; `kind`: it differs, only some strategies have it, or it is the same."""

    name: str
    values: tuple[Any, ...]
    kind: Literal["differs", "some", "same"]


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other, as points: `notes` and ink are in `report_comparison`."""

    rows: tuple[Row, ...]
    means: tuple[Mean, ...]
    scales: tuple[Scale, ...]
    settings: tuple[Setting, ...]
    spots: tuple[Spot, ...]
    courses: tuple[Course, ...]


def compare(run_dirs: Sequence[Path]) -> Comparison:
    """Hold finished runs against each other.

    Args:
        run_dirs: Their folders, two or more, each once.
    Raises:
        InvalidArgument: Fewer than two, one twice, or runs that share neither what their
            milliseconds nor what their top-1 mean.
        UnknownName: There is no run in a folder.
        UnsupportedFormat: A run is unfinished, damaged or of another version.
    """
    if len(run_dirs) < 2:
        raise InvalidArgument("a comparison takes two runs or more:  phonenas report RUN RUN ...")
    places = [p.resolve() for p in run_dirs]
    if twice := [str(p) for p, q in zip(run_dirs, places, strict=True) if places.count(q) > 1]:
        raise InvalidArgument(f"each run once, please; these are one run: {', '.join(twice)}")
    runs = [load(p) for p in run_dirs]
    for run in runs:
        if lacks := [name for name in _NEEDED if name not in run.settings]:
            raise UnsupportedFormat(f"{run.path / 'run.json'} is damaged: no {', '.join(lacks)}")
    short = [p.name for p in places]
    names = [s if short.count(s) == 1 else str(r.path) for s, r in zip(short, runs, strict=True)]
    _refuse_strangers(runs, names)
    tellers, groups = _shared(runs, _teller), _shared(runs, _group)
    rows: list[Row | None] = [None] * len(runs)
    scales, courses = [], []
    for place, of in enumerate(tellers):
        numbers = {i: runs[i].numbers()[:, :2] for i in of}
        scale, held = _scale(runs, of, numbers)
        scales.append(scale)
        for i in of:
            group = next(g for g, members in enumerate(groups) if i in members)
            rows[i] = _row(runs[i], names[i], group, place, len(numbers[i]), held.get(i))
            course = _course(i, numbers[i], scale) if i in held else None
            if course is not None and abs(course.of_joint[-1] - held[i][1]) <= _SAME:
                courses.append(course)
    found = tuple(r for r in rows if r is not None)
    settings = _settings(runs)
    spots = tuple(
        Spot(i, c.id, c.latency_ms, c.top1, c.measured_ms)
        for i, run in enumerate(runs) for c in run.front
    )  # fmt: skip
    means = tuple(_mean(_label(runs, of, groups), [found[i] for i in of]) for of in groups)
    return Comparison(found, means, tuple(scales), settings, spots, tuple(courses))


def _teller(run: Loaded) -> tuple[str, str, str]:
    s = run.settings
    return str(s["device"]), str(s["latency_model"]), str(s["accuracy"])


def _group(run: Loaded) -> Any:
    return sorted((k, str(v)) for k, v in run.settings.items() if k not in ("seed", "target"))


def _shared(runs: Sequence[Loaded], key: Callable[[Loaded], Any]) -> list[list[int]]:
    """Indices of runs with equal keys, in the order in which they were given."""
    found: list[tuple[Any, list[int]]] = []
    for i, run in enumerate(runs):
        of = next((members for k, members in found if k == key(run)), None)
        if of is None:
            found.append((key(run), [i]))
        else:
            of.append(i)
    return [members for _, members in found]


def _refuse_strangers(runs: Sequence[Loaded], names: Sequence[str]) -> None:
    told = [_teller(r) for r in runs]
    for i, (device, model, accuracy) in enumerate(told):
        for other in told[i + 1 :]:
            if (device, model) == other[:2] or accuracy == other[2]:
                return
    what = "; ".join(
        f"{n} was judged by latency model {m} of {d} and by accuracy estimator {a}"
        for n, (d, m, a) in zip(names, told, strict=True)
    )
    raise InvalidArgument(
        f"nothing in these runs can be compared, neither milliseconds nor top-1: {what}. Search again "
        "with one model (phonenas search --model FILE) and one estimator, or report each alone:  "
        "phonenas report RUN"
    )


def _scale(
    runs: Sequence[Loaded], of: Sequence[int], numbers: dict[int, Floats]
) -> tuple[Scale, dict[int, tuple[float, float, float, float]]]:
    """The scale, and by run its hypervolume (two runs or more), that as share, joint and alone share."""
    targets = [t for i in of if (t := runs[i].front.target_ms) is not None]
    judged = [float(np.max(numbers[i][:, 0], initial=0.0)) for i in of]
    limit_ms = min(
        targets, default=max([*judged, *(c.latency_ms for i in of for c in runs[i].front)])
    )
    # One network has one pair of numbers, even where batches rounded them differently.
    known: dict[str, tuple[float, float]] = {}
    holders: dict[str, set[int]] = {}
    for i in of:
        for c in _within(runs[i], limit_ms):
            known.setdefault(c.block_args, (c.latency_ms, 1 - c.top1))
            holders.setdefault(c.block_args, set()).add(i)
    networks = list(known)
    losses = np.array([known[n] for n in networks]).reshape(-1, 2)
    joint = [networks[i] for i in non_dominated(losses)] if networks else []
    whole = _volume(losses, limit_ms)
    told = _teller(runs[of[0]])
    scale = Scale(tuple(of), *told, limit_ms, len(joint), whole)
    if len(of) < 2:
        return scale, {}
    held = {}
    for i in of:
        own = np.array([known[n] for n in networks if i in holders[n]]).reshape(-1, 2)
        volume = _volume(own, limit_ms)
        shares = [sum(i in holders[n] for n in joint), sum(holders[n] == {i} for n in joint)]
        per = max(1, len(joint))
        held[i] = (volume, volume / whole if whole else 0.0, shares[0] / per, shares[1] / per)
    return scale, held


def _within(run: Loaded, limit_ms: float | None) -> list[Candidate]:
    return [c for c in run.front if limit_ms is None or c.latency_ms <= limit_ms]


def _volume(losses: Floats, limit_ms: float) -> float:
    """Share of the box that (n, 2) rows of latency in ms and 1 - top-1 dominate; see `Row`."""
    if not len(losses):
        return 0.0
    return float(hypervolume(losses, (0.0, 0.0), (limit_ms * (1 + 1e-9), 1.0)))


def _row(
    run: Loaded, name: str, group: int, scale: int, judged: int,
    held: tuple[float, float, float, float] | None,
) -> Row:  # fmt: skip
    s, target_ms = run.settings, run.front.target_ms
    best = max(_within(run, target_ms), key=lambda c: (c.top1, -c.latency_ms, -c.id), default=None)
    measured = [c.measured_ms for c in run.front if c.measured_ms is not None]
    hv, of_joint, joint, alone = held or (None, None, None, None)
    return Row(
        name=name, path=str(run.path), group=group, scale=scale, strategy=str(s["strategy"]),
        seed=s.get("seed"), space=str(s["space"]), resolution_px=s.get("resolution_px"),
        device=str(s["device"]), target_ms=target_ms,
        evaluations=judged or int(s["evaluations"]), seconds=run.seconds,
        hypervolume=hv, of_joint=of_joint,
        best_id=None if best is None else best.id,
        best_top1=None if best is None else best.top1,
        best_ms=None if best is None else best.latency_ms,
        best_measured_ms=None if best is None else best.measured_ms,
        front=len(run.front), joint_share=joint, alone_share=alone, validated=len(measured),
        met=None if target_ms is None else sum(ms <= target_ms for ms in measured),
        origin=str(run.model.get("conditions", {}).get("origin", "measured")),
    )  # fmt: skip


def _course(run: int, numbers: Floats, scale: Scale) -> Course | None:
    """Hypervolume after each of some 200 evaluations, from all that was judged, in order."""
    n = len(numbers)
    if not n or not scale.hypervolume:
        return None
    early = np.geomspace(1, n, _MARKS // 4)
    marks = np.unique(np.append(np.linspace(1, n, _MARKS - len(early)), early).round().astype(int))
    losses = np.column_stack([numbers[:, 0], 1 - numbers[:, 1]])
    front, start, found = losses[:0], 0, []
    for mark in marks.tolist():
        new = losses[start:mark]
        seen = np.concatenate([front, new[new[:, 0] <= scale.limit_ms]])
        front, start = seen[non_dominated(seen)], mark
        found.append(_volume(front, scale.limit_ms) / scale.hypervolume)
    return Course(run, tuple(marks.tolist()), tuple(found))


def _mean(label: str, rows: Sequence[Row]) -> Mean:
    def over(name: str) -> tuple[float | None, float | None]:
        values = [v for r in rows if (v := getattr(r, name)) is not None]
        if len(values) < len(rows):
            return None, None
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None

    return Mean(
        label, tuple(r.name for r in rows), *over("hypervolume"), *over("of_joint"),
        *over("best_top1"), over("joint_share")[0], statistics.fmean(r.seconds for r in rows),
    )  # fmt: skip


def _label(runs: Sequence[Loaded], of: Sequence[int], groups: Sequence[Sequence[int]]) -> str:
    """The strategy, and what tells it from other groups of the same strategy and scale."""
    mine, teller = runs[of[0]].settings, _teller(runs[of[0]])
    alike = [
        runs[g[0]].settings
        for g in groups
        if _teller(runs[g[0]]) == teller and runs[g[0]].settings["strategy"] == mine["strategy"]
    ]
    told = [str(mine["strategy"])]
    for name in dict.fromkeys(
        k for s in alike for k in s if k not in ("seed", "target", "columns")
    ):
        if len({str(s.get(name)) for s in alike}) > 1:
            value, unit = mine.get(name), name[-3:] if name.endswith(("_ms", "_px")) else ""
            shown = f"{value:.6g}" if isinstance(value, float) else value
            words = name.removesuffix(unit).replace("_", " ")
            told.append(
                f"no {words}" if value is None else f"{words} {shown}{unit.replace('_', ' ')}"
            )
    if len({_teller(r)[:2] for r in runs}) > 1:
        told.append(f"on {teller[0]}")
    return ", ".join(told)


def _settings(runs: Sequence[Loaded]) -> tuple[Setting, ...]:
    told = [
        {**_plain(r.settings), **{f"version of {name}": v for name, v in r.libraries.items()}}
        for r in runs
    ]
    found = []
    for name in dict.fromkeys(
        k for t in told for k in t if k != "columns"
    ):  # they follow from others
        values = tuple(t.get(name) for t in told)
        having = {str(t[name]) for t in told if name in t}
        kind: Literal["differs", "some", "same"] = "differs" if len(having) > 1 else "same"
        if kind == "same" and any(name not in t for t in told):
            kind = "some"
        found.append(Setting(name, values, kind))
    return tuple(found)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as one reads them: an estimator by its name and what was asked of it."""
    found = dict(settings)
    words = " ".join(f"--{k} {v}" for k, v in found.pop("asked", {}).items())
    if "estimator" in found:
        found["accuracy"] = f"{words or found.pop('estimator')} ({found['accuracy']})"
    return found
