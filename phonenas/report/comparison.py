"""compare(): several runs beside each other, as far as their numbers are comparable.

Runs share a *scale* where the same latency model of one device and the same accuracy estimator
evaluated them. Within a scale, hypervolume and joint front are compared; between scales only the
numbers that are still comparable, and the notes name the others.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from phonenas.search.evaluations import Evaluations
from phonenas.search.pareto import Candidate, hypervolume, non_dominated
from phonenas.search.run_folder import Loaded, load
from phonenas.space.errors import InvalidArgument, PhonenasError, UnsupportedFormat
from phonenas.space.naming import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "Course", "Mean", "Row", "Scale", "Setting", "Spot", "compare"]

Floats = npt.NDArray[np.float64]
_MARKS = 200  # points of a course; more show nothing new
_SAME = 1e-6  # of a course's end and its front, unless limits of an older run are not recorded
_NEEDED = ("device", "latency_model", "accuracy", "strategy", "space", "evaluations")


@dataclass(frozen=True)
class Row:
    """One run.

    Args:
        name: Its folder's name; the path where two share one.
        path: Of the folder, as it was given.
        group: Index of its mean; runs that differ in nothing but their seed share one.
        scale: Index of its scale.
        evaluations: Distinct networks evaluated.
        seconds: That the search took.
        hypervolume: Share of the scale's box that its front dominates, in [0, 1]; None where no
            other run shares the scale. The box: 0 ms to the scale's limit, top-1 from 1 to 0.
        of_joint: The same as a share of the joint front's hypervolume, in [0, 1].
        best_id, best_top1, best_ms: The most accurate candidate predicted within the run's own
            target; None where there is none.
        best_measured_ms: Its measured latency, ms; None where not measured.
        front: Candidates on its own front.
        joint_share: Share of the joint front's networks that it found, in [0, 1]; several runs may
            find the same network, so the shares add up to 1 or more.
        alone_share: Share that no other run found.
        validated, met: Candidates that a device measured, and those within the target; `met` is
            None without a target.
        origin: Where its latencies come from: "measured", "simulated", "emulated" or
            "imported".
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
    """Runs of one scale that differ in their seed alone.

    `label` is the strategy, with the settings that distinguish it from others of its name. Each
    quantity has its mean and its standard deviation over the runs (None for one run).
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
    """What some runs share, so that all their numbers are comparable.

    Args:
        runs: Indices of the rows.
        limit_ms: Far end of the hypervolume's box: the tightest target of the runs; without
            any, the slowest network that any of them evaluated.
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
    """A candidate in the plot of all fronts; `measured_ms` where it was measured."""

    run: int
    id: int
    latency_ms: float
    top1: float
    measured_ms: float | None


@dataclass(frozen=True)
class Course:
    """Share of the joint front's hypervolume, by the number of evaluations of one run.

    It is of the front by the run's own constraints, objectives and trust. A run has none where its
    checkpoint is missing, or where what it asked for is not recorded.
    """

    run: int
    evaluations: tuple[int, ...]
    of_joint: tuple[float, ...]


@dataclass(frozen=True)
class Setting:
    """A setting of all runs: it differs, only some strategies have it, or it is the same."""

    name: str
    values: tuple[Any, ...]
    kind: Literal["differs", "some", "same"]


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other, as plain rows."""

    rows: tuple[Row, ...]
    means: tuple[Mean, ...]
    scales: tuple[Scale, ...]
    settings: tuple[Setting, ...]
    spots: tuple[Spot, ...]
    courses: tuple[Course, ...]
    left_out: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Comparison({counted(len(self.rows), 'run')}, {counted(len(self.scales), 'scale')})"

    def to_frame(self) -> pd.DataFrame:
        """One row a run: the fields of `Row`."""
        import pandas as pd

        return pd.DataFrame([asdict(r) for r in self.rows], columns=[f.name for f in fields(Row)])


def compare(run_dirs: Sequence[Path]) -> Comparison:
    """Compare finished runs; one that cannot be read is in `left_out`, with the reason.

    Args:
        run_dirs: Their folders, two or more, each once.
    Raises:
        InvalidArgument: Fewer than two, one twice, or neither latencies nor top-1 are comparable.
        UnknownName, UnsupportedFormat, StoreError: As for `load`, where fewer than two can be read.
    """
    if len(run_dirs) < 2:
        raise InvalidArgument("a comparison takes two runs or more:  phonenas report RUN RUN ...")
    places = [p.resolve() for p in run_dirs]
    if twice := [str(p) for p, q in zip(run_dirs, places, strict=True) if places.count(q) > 1]:
        raise InvalidArgument(f"each run once, please; these are one run: {', '.join(twice)}")
    pairs: list[tuple[Loaded, Evaluations]] = []
    failures: list[PhonenasError] = []
    for path in run_dirs:
        try:
            pairs.append(_read(path))
        except PhonenasError as error:
            failures.append(error)
    runs, evaluated = [run for run, _ in pairs], [of_run for _, of_run in pairs]
    if len(runs) < 2:
        raise failures[0]
    short = [r.path.resolve().name for r in runs]
    names = [s if short.count(s) == 1 else str(r.path) for s, r in zip(short, runs, strict=True)]
    _refuse_incomparable(runs, names)
    by_scale, groups = _grouped(runs, _scale_key), _grouped(runs, _seed_key)
    group_of = {i: g for g, members in enumerate(groups) for i in members}
    rows: dict[int, Row] = {}
    scales, courses = [], []
    for place, members in enumerate(by_scale):
        numbers = {
            i: np.column_stack([evaluated[i].latency_ms, evaluated[i].top1]) for i in members
        }
        scale, shares = _scale(runs, members, numbers)
        scales.append(scale)
        for i in members:
            rows[i] = _row(
                runs[i], (names[i], group_of[i], place), len(numbers[i]), shares.get(i, _ALONE)
            )
            course = _course(i, runs[i], evaluated[i], scale) if i in shares else None
            if course and abs(course.of_joint[-1] - (shares[i].of_joint or 0.0)) <= _SAME:
                courses.append(course)
    spots = tuple(
        Spot(i, c.id, c.latency_ms, c.top1, c.measured_ms)
        for i, run in enumerate(runs)
        for c in run.front
    )
    means = [_mean(_label(runs, members, groups), [rows[i] for i in members]) for members in groups]
    ordered, told = tuple(rows[i] for i in range(len(runs))), tuple(map(str, failures))
    return Comparison(
        ordered, tuple(means), tuple(scales), _settings(runs), spots, tuple(courses), told
    )


def _read(path: Path) -> tuple[Loaded, Evaluations]:
    """A run and what it evaluated; the errors are those of `load`."""
    run = load(path)
    if lacks := [name for name in _NEEDED if name not in run.settings]:
        raise UnsupportedFormat(f"{run.path / 'run.json'} is damaged: no {', '.join(lacks)}")
    return run, run.evaluations()


@dataclass(frozen=True)
class _Shares:
    """A run's part of its scale, as in `Row`; all None where no other run shares the scale."""

    hypervolume: float | None = None
    of_joint: float | None = None
    joint_share: float | None = None
    alone_share: float | None = None


_ALONE = _Shares()


def _scale_key(run: Loaded) -> tuple[str, str, str]:
    s = run.settings
    return str(s["device"]), str(s["latency_model"]), str(s["accuracy"])


def _seed_key(run: Loaded) -> Any:
    return sorted((k, str(v)) for k, v in run.settings.items() if k not in ("seed", "target"))


def _grouped(runs: Sequence[Loaded], key: Callable[[Loaded], Any]) -> list[list[int]]:
    """Indices of runs with equal keys, in the order in which they were given."""
    groups: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        groups.setdefault(repr(key(run)), []).append(i)
    return list(groups.values())


def _refuse_incomparable(runs: Sequence[Loaded], names: Sequence[str]) -> None:
    keys = [_scale_key(r) for r in runs]
    for i, (device, model, accuracy) in enumerate(keys):
        for other in keys[i + 1 :]:
            if (device, model) == other[:2] or accuracy == other[2]:
                return
    models = "; ".join(
        f"{n} was evaluated by latency model {m} of {d} and by accuracy estimator {a}"
        for n, (d, m, a) in zip(names, keys, strict=True)
    )
    raise InvalidArgument(
        f"nothing in these runs can be compared, neither milliseconds nor top-1: {models}. Search "
        "again with one model (phonenas search --model FILE) and one estimator, or report each "
        "alone:  phonenas report RUN"
    )


def _scale(
    runs: Sequence[Loaded], members: Sequence[int], numbers: dict[int, Floats]
) -> tuple[Scale, dict[int, _Shares]]:
    """The scale of some runs, and the shares of each where there are two or more."""
    targets = [t for i in members if (t := runs[i].front.target_ms) is not None]
    slowest = [float(np.max(numbers[i][:, 0], initial=0.0)) for i in members]
    slowest += [c.latency_ms for i in members for c in runs[i].front]
    limit_ms = min(targets, default=max(slowest))
    # One network has one pair of numbers, even where batches rounded them differently.
    known: dict[str, tuple[float, float]] = {}
    holders: dict[str, set[int]] = {}
    for i in members:
        for c in _within(runs[i], limit_ms):
            known.setdefault(c.block_args, (c.latency_ms, 1 - c.top1))
            holders.setdefault(c.block_args, set()).add(i)
    networks = list(known)
    losses = np.array([known[n] for n in networks]).reshape(-1, 2)
    joint = [networks[i] for i in non_dominated(losses)] if networks else []
    whole = _volume(losses, limit_ms)
    scale = Scale(tuple(members), *_scale_key(runs[members[0]]), limit_ms, len(joint), whole)
    shares = {}
    for i in members if len(members) > 1 else ():
        own = np.array([known[n] for n in networks if i in holders[n]]).reshape(-1, 2)
        volume, per = _volume(own, limit_ms), max(1, len(joint))
        shares[i] = _Shares(
            volume,
            volume / whole if whole else 0.0,
            sum(i in holders[n] for n in joint) / per,
            sum(holders[n] == {i} for n in joint) / per,
        )
    return scale, shares


def _within(run: Loaded, limit_ms: float | None) -> list[Candidate]:
    return [c for c in run.front if limit_ms is None or c.latency_ms <= limit_ms]


def _volume(losses: Floats, limit_ms: float) -> float:
    """Share of the box that (n, 2) rows of latency in ms and 1 - top-1 dominate; see `Row`."""
    if not len(losses):
        return 0.0
    return float(hypervolume(losses, (0.0, 0.0), (limit_ms * (1 + 1e-9), 1.0)))


def _row(run: Loaded, place: tuple[str, int, int], evaluated: int, shares: _Shares) -> Row:
    """The row of a run; `place`: its name, and the indices of its mean and of its scale."""
    s, target_ms = run.settings, run.front.target_ms
    best = max(_within(run, target_ms), key=lambda c: (c.top1, -c.latency_ms, -c.id), default=None)
    measured = [c.measured_ms for c in run.front if c.measured_ms is not None]
    name, group, scale = place
    return Row(
        name=name,
        path=str(run.path),
        group=group,
        scale=scale,
        strategy=str(s["strategy"]),
        seed=s.get("seed"),
        space=str(s["space"]),
        resolution_px=s.get("resolution_px"),
        device=str(s["device"]),
        target_ms=target_ms,
        evaluations=evaluated or int(s["evaluations"]),
        seconds=run.seconds,
        best_id=None if best is None else best.id,
        best_top1=None if best is None else best.top1,
        best_ms=None if best is None else best.latency_ms,
        best_measured_ms=None if best is None else best.measured_ms,
        front=len(run.front),
        validated=len(measured),
        met=None if target_ms is None else sum(ms <= target_ms for ms in measured),
        origin=str(run.model.get("conditions", {}).get("origin", "measured")),
        **vars(shares),
    )


def _course(place: int, run: Loaded, evaluated: Evaluations, scale: Scale) -> Course | None:
    """Hypervolume after each of some 200 evaluations, over the front of all evaluated so far."""
    if not (n := len(evaluated)) or not scale.hypervolume:
        return None
    try:
        able, ranked = run.spec.met(evaluated) & evaluated.comparable, run.spec.losses(evaluated)
    except (UnsupportedFormat, KeyError):
        return None  # a limit whose values the evaluations do not have
    plain = np.column_stack([evaluated.latency_ms, 1 - evaluated.top1])
    even, early = np.linspace(1, n, _MARKS * 3 // 4), np.geomspace(1, n, _MARKS // 4)
    marks: list[int] = np.unique(np.append(even, early).round().astype(int)).tolist()
    seen, start, shares = np.empty(0, int), 0, []
    for mark in marks:
        seen = np.concatenate([seen, start + np.flatnonzero(able[start:mark])])
        # Both, as a known network beaten by an extrapolated one is back where that one is left out.
        kinds = (seen[evaluated.outside[seen] == outside] for outside in (False, True))
        seen = np.concatenate([rows[non_dominated(ranked[rows])] for rows in kinds])
        front, start = seen[run.spec.front(evaluated.take(seen))[0]], mark
        shares.append(_volume(plain[front], scale.limit_ms) / scale.hypervolume)
    return Course(place, tuple(marks), tuple(shares))


def _mean(label: str, rows: Sequence[Row]) -> Mean:
    def over(name: str) -> tuple[float | None, float | None]:
        values = [v for r in rows if (v := getattr(r, name)) is not None]
        if len(values) < len(rows):
            return None, None
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None

    volume, joint, top1 = map(over, ("hypervolume", "of_joint", "best_top1"))
    names, seconds = tuple(r.name for r in rows), statistics.fmean(r.seconds for r in rows)
    return Mean(label, names, *volume, *joint, *top1, over("joint_share")[0], seconds)


def _label(runs: Sequence[Loaded], members: Sequence[int], groups: Sequence[list[int]]) -> str:
    """The strategy, and what distinguishes it from other groups of that strategy and scale."""
    first = runs[members[0]]
    own, key = first.settings, _scale_key(first)
    others = [
        s.settings
        for s in (runs[g[0]] for g in groups)
        if _scale_key(s) == key and s.settings["strategy"] == own["strategy"]
    ]
    parts = [str(own["strategy"])]
    for name in dict.fromkeys(k for s in others for k in s):
        if name in ("seed", "target", "columns") or len({str(s.get(name)) for s in others}) < 2:
            continue
        value, unit = own.get(name), name[-3:] if name.endswith(("_ms", "_px")) else ""
        plain, shown = name.removesuffix(unit).replace("_", " "), value
        if isinstance(value, float):
            shown = f"{value:.6g}"
        parts.append(f"no {plain}" if value is None else f"{plain} {shown}{unit.replace('_', ' ')}")
    if len({_scale_key(r)[:2] for r in runs}) > 1:
        parts.append(f"on {key[0]}")
    return ", ".join(parts)


def _settings(runs: Sequence[Loaded]) -> tuple[Setting, ...]:
    listed = [
        {**_plain(r.settings), **{f"version of {name}": v for name, v in r.libraries.items()}}
        for r in runs
    ]
    settings = []
    # "columns" follow from other settings.
    for name in dict.fromkeys(k for own in listed for k in own if k != "columns"):
        different = {str(own[name]) for own in listed if name in own}
        kind: Literal["differs", "some", "same"] = "differs" if len(different) > 1 else "same"
        if kind == "same" and any(name not in own for own in listed):
            kind = "some"
        settings.append(Setting(name, tuple(own.get(name) for own in listed), kind))
    return tuple(settings)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for people: an estimator by its name and its options."""
    options = " ".join(f"--{k} {v}" for k, v in settings.get("asked", {}).items())
    plain = {k: v for k, v in settings.items() if k != "asked"}
    if "estimator" in plain:
        plain["accuracy"] = f"{options or plain.pop('estimator')} ({plain['accuracy']})"
    return plain
