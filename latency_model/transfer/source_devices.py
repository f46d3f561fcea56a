"""Which source device a model is made from, in a store; and what to measure on the new device."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from phonenas.data.measurement import Conditions, Measurement
from phonenas.data.store import MeasurementStore
from phonenas.space import Architecture, Operator, SearchSpace, spaces
from phonenas.space.errors import InvalidArgument, NotEnoughData

from .. import ready
from ..calibration import MINIMUM as MINIMUM_NETWORKS
from ..fitting import fit_measurements
from ..gaussian_process import one_thread
from ..model import LatencyModel
from ..units.selection import greedy
from .ready_source import choose_networks, fit_from_ready
from .relative import MINIMUM, PRIOR, SEED, TransferModel, Unknowns, drawn, fit_transfer

__all__ = ["choose_among", "choose_for", "choose_measurements", "fit_like", "source_of", "split"]

Subjects = tuple[Sequence[Operator], Sequence[Architecture]]

_SHARE = 0.5  # of the measurements that are whole networks
_POOL = 100  # random networks of which they are chosen
_FULL = 50  # operators from which a table may stand for a space
_OWN = 200  # operators from which a device's own tell more than a source device's
_TIMES = 3  # as many operators in another precision, from which that is a source


def split(count: int, networks: int | None = None) -> tuple[int, int]:
    """How many operators and how many whole networks a count of measurements is.

    >>> split(30), split(70, 10)
    ((15, 15), (60, 10))

    Args:
        count: Of both.
        networks: Of them; None for half.
    Raises:
        InvalidArgument: More networks than measurements, or fewer than 0.
    """
    networks = round(_SHARE * count) if networks is None else networks
    if not 0 <= networks <= count:
        raise InvalidArgument(f"{networks} networks are not among {count} measurements")
    return count - networks, networks


def choose_measurements(
    source: LatencyModel,
    space: SearchSpace,
    count: int,
    known: Subjects = ((), ()),
    networks: int | None = None,
) -> tuple[tuple[Operator, ...], tuple[Architecture, ...]]:
    """What to measure on a new device, the most informative first: operators and whole networks.

    Args:
        source: Model of the source device.
        space: Whose networks shall be predicted.
        count: Of measurements in all, ≥ 5; those known are among them.
        known: Operators and networks that are measured; they are not chosen again.
        networks: Of the measurements, so many whole networks; None for half.
    Raises:
        InvalidArgument: Fewer than 5, or more than the space has operators.
        UncoveredOperator: The source lacks operators of the space.
    """
    if not MINIMUM <= count <= len(space.operators()):
        raise InvalidArgument(
            f"measurements on a device like {source.device}: {MINIMUM} to "
            f"{len(space.operators())}, got {count}"
        )
    operators, wholes = split(count, networks)
    # A larger pool begins with the smaller one.
    rng, seen = np.random.default_rng(SEED), dict.fromkeys(known[1])
    pool = list(seen)
    for _ in range(_POOL * (1 + wholes // (_POOL // 2))):
        network = space.decode(space.sample(rng, 1)[0])
        if network not in seen:
            seen[network] = None
            pool.append(network)
    return choose_among(
        source,
        (space.operators(), pool),
        drawn(space, SEED + 2),
        (max(0, operators - len(known[0])), max(0, wholes - len(known[1]))),
        known,
    )


@one_thread
def choose_among(
    source: LatencyModel,
    candidates: Subjects,
    goals: Sequence[Architecture],
    count: tuple[int, int],
    known: Subjects = ((), ()),
) -> tuple[tuple[Operator, ...], tuple[Architecture, ...]]:
    """Choose among candidates what informs most about other networks.

    Args:
        source: Model of the source device.
        candidates: Operators that can be measured, all that the networks hold among them; and
            networks that can be measured.
        goals: Networks that shall be predicted.
        count: How many operators and how many networks to choose.
        known: What is measured in any case, of the candidates; others are passed over.
    """
    pool, (operators, networks) = candidates[1], count
    unknowns = Unknowns(source, candidates[0])
    every, _ = unknowns.rows([*pool, *goals])
    rows, of_goals = every[: len(pool)], every[len(pool) :]
    s = np.exp(PRIOR.mean)
    many, before = unknowns.many, unknowns.prior(PRIOR.mean)
    what = np.concatenate([np.eye(many, before.shape[0]), rows])
    noise = np.concatenate([np.full(many, s[3] ** 2), np.full(len(rows), s[4] ** 2)])
    column: dict[Operator | Architecture, int] = {o: i for i, o in enumerate(unknowns.operators)}
    column |= {a: many + i for i, a in enumerate(pool)}
    given = [column[k] for k in (*known[0], *known[1]) if k in column]
    # Networks first: they determine what all have in common, and operators then what differs.
    chosen = greedy(
        what @ before @ what.T,
        of_goals @ before @ what.T,
        noise,
        operators + networks,
        given,
        allowed=lambda i: slice(many, None) if i < networks else slice(0, many),
    )
    return (
        tuple(unknowns.operators[i] for i in chosen[networks:]),
        tuple(pool[i - many] for i in chosen[:networks]),
    )


def choose_for(
    store: MeasurementStore,
    conditions: Conditions,
    like: str,
    space: SearchSpace,
    count: int,
    networks: int | None = None,
) -> tuple[list[Operator], list[Architecture]]:
    """What to measure on a device that resembles another: operators, and networks whole.

    What was begun under these conditions comes first, and what is measured already counts among
    them, so a stopped job goes on, and a larger one adds to a smaller. The store remembers the
    source device.

    Args:
        store: With the source device's measurements.
        conditions: Of the new device.
        like: Name of the source device, of several conditions the latest measured in full, of the
            same precision if there are some; or that of the device itself, measured in another
            precision; or a ready phone, from which whole networks alone are chosen.
        space: Whose networks shall be predicted.
        count: Of measurements in all.
        networks: Of them, so many whole networks; None for half.
    Raises:
        InvalidArgument: A count out of range; nothing under that name was measured in full.
        NotEnoughData: Nothing was measured under that name.
    """
    source = ready.load(like) if like in ready.names() else _model_of(store, like, conditions)
    measured = store.measurements(conditions)
    operators = [m.subject for m in measured if m.kind == "operator"]
    wholes = [m.subject for m in measured if m.kind == "network"]
    open_operators, open_networks = (store.begun(conditions, k) for k in ("operator", "network"))
    known = (
        [Operator.parse(t) for t in dict.fromkeys([*operators, *open_operators])],
        [Architecture.parse(t) for t in dict.fromkeys([*wholes, *open_networks])],
    )
    if source.by_operators:
        chosen = choose_measurements(source, space, count, known, networks)
    elif networks is not None:
        raise InvalidArgument(
            f"from {like}, a model of whole networks, all measurements are networks: leave "
            "--networks out"
        )
    else:
        chosen = (), choose_networks(source, space, count, known[1])
    store.set_relative(conditions, like, source.conditions.digest)
    return (
        [*map(Operator.parse, open_operators), *chosen[0]],
        [*map(Architecture.parse, open_networks), *chosen[1]],
    )


def source_of(
    store: MeasurementStore,
    conditions: Conditions,
    measurements: Sequence[Measurement],
    like: str | None = None,
) -> LatencyModel | None:
    """The model of a device's source device, where one was named, now or at its profile.

    A source that was named at the profile is not used once the device has enough measurements of
    its own. Where none was named and the device has too few measurements for a model of its own,
    those under conditions that differ in the precision alone are the source, if they are far more.

    Raises:
        NotEnoughData, InvalidArgument: As `choose_for`.
    """
    noted = store.relative(conditions)
    name = like or (noted[0] if noted else None)
    kinds = Counter(m.kind for m in measurements)
    if name is None:
        return _in_another_precision(store, conditions, measurements)
    if like is None and kinds["operator"] >= _OWN and kinds["network"] >= MINIMUM_NETWORKS:
        return None
    if name in ready.names():
        return ready.load(name)
    return _model_of(store, name, conditions, noted[1] if noted and noted[0] == name else None)


def _in_another_precision(
    store: MeasurementStore, conditions: Conditions, measurements: Sequence[Measurement]
) -> LatencyModel | None:
    """The same device's model in another precision, where its own measurements are too few.

    From 50 operators and 10 networks on it has one of its own.
    """
    own = {m.subject for m in measurements if m.kind == "operator"}
    networks = [Architecture.parse(m.subject) for m in measurements if m.kind == "network"]
    enough = len(own) >= _FULL and len(networks) >= MINIMUM_NETWORKS
    if enough or not own or len(own) + len(networks) < MINIMUM:
        return None
    for other in reversed(store.conditions(conditions.device, "operator")):
        if other == conditions or replace(other, precision=conditions.precision) != conditions:
            continue
        measured = store.measurements(other)
        there = {m.subject for m in measured if m.kind == "operator"}
        wholes = sum(m.kind == "network" for m in measured)
        if len(there) >= max(_FULL, _TIMES * len(own)) and wholes >= MINIMUM_NETWORKS:
            known = there | own >= {o.key for a in networks for o in a.operators()}
            if own <= there and known:
                return fit_measurements(other, measured)
    return None


def fit_like(
    source: LatencyModel, conditions: Conditions, measurements: Sequence[Measurement]
) -> TransferModel:
    """A model of a new device from its source device's, of operators or of kernels.

    Raises:
        NotEnoughData, UncoveredOperator: As `fit_transfer` and `fit_from_ready`.
    """
    fitted = fit_transfer if source.by_operators else fit_from_ready
    return fitted(source, conditions, measurements)


def _model_of(
    store: MeasurementStore, device: str, other: Conditions, digest: str | None = None
) -> LatencyModel:
    """The model of a source device: of the conditions noted, or of the latest measured in full."""
    known = [c for c in store.conditions(device) if c.mode == "steady" and c != other]
    # The nearest relative is the device itself in another precision, then another in this one.
    known.sort(
        key=lambda c: (
            replace(c, precision=other.precision) == other,
            c.precision == other.precision,
        )
    )
    command = f"phonenas profile --device {shlex.quote(device)} --space"
    if not store.conditions(device):
        raise NotEnoughData(
            f"{store.location} holds no measurement of {device!r}. Measure it in full first:  "
            f"{command} mnasnet"
        )
    if not known:
        raise InvalidArgument(
            f"{device} is not its own source device: it is measured in {other.precision} alone. "
            "Measure it in another precision in full, or name another device with --like"
        )
    most, operators = Counter[str](), list[Operator]()
    noted = [c for c in known if c.digest == digest]
    for conditions in [*noted, *reversed(known)]:
        measured = store.measurements(conditions)
        kinds = Counter(str(m.kind) for m in measured)
        full = kinds["operator"] >= _FULL or not kinds["operator"]  # networks alone teach kernels
        if full and kinds["network"] + kinds["onnx"] >= MINIMUM_NETWORKS:
            return fit_measurements(conditions, measured)
        if kinds["operator"] >= most["operator"]:
            operators = [Operator.parse(m.subject) for m in measured if m.kind == "operator"]
        most = max(most, kinds, key=lambda k: k["operator"])
    space = spaces.space_of(operators)
    raise InvalidArgument(
        f"{device} has {most['operator']} operators and {most['network']} whole networks measured; "
        f"a source device takes {_FULL} and {MINIMUM_NETWORKS}. Measure it in full first:  "
        f"{command} {'mnasnet' if space is None else space.name}"
    )
