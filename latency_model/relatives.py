"""Which relative a device is told from, in a store; and whether what comes of it is good enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..data.measurement import Conditions, Measurement
from ..data.store import MeasurementStore
from ..space import Architecture, Operator, SearchSpace
from ..space.errors import InvalidArgument, NotEnoughData
from .calibration import MINIMUM
from .fitting import fit_measurements
from .model import LatencyModel
from .relative import Like, choose_like, fit_like

__all__ = ["Told", "choose_for", "relative_of", "tell"]

_GOOD = 0.05  # expected error of whole networks up to which a model is called good enough
_FULL = 50  # operators from which a table may stand for a space
_OWN = 200  # operators from which a device's own tell more than a relative's


@dataclass(frozen=True)
class Told:
    """A model that a relative and a few measurements gave.

    Args:
        like: With its own estimate of its error.
        relative: Name of the relative.
    """

    like: Like
    relative: str

    @property
    def model(self) -> LatencyModel:
        """Ready for use."""
        return self.like.model

    @property
    def good(self) -> bool:
        """Whether it expects to be within 5 % of whole networks, in the mean."""
        return self.like.expected_mape <= _GOOD

    def __str__(self) -> str:
        found = self.like
        taught = f"{found.operators} operators and {found.networks} networks"
        first = (
            f"told from {self.relative} and {taught}: {found.factor:.2f} times {self.relative}'s "
            f"time in the middle; it expects to be {found.expected_mape:.1%} off on networks of the space"
        )
        if self.good:
            return first
        more = 2 * (found.operators + found.networks)
        return (
            f"{first}\nNOT GOOD ENOUGH for less than {_GOOD:.0%}. Measure more:  phonenas profile --device "
            f"{found.model.device} --like {self.relative} --measurements {more}, then fit again"
        )

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        found = self.like
        return {
            "device": self.relative,
            "expected_mape": found.expected_mape,
            "good_enough": self.good,
            "factor": found.factor,
            "operators": found.operators,
            "networks": found.networks,
        }


def choose_for(
    store: MeasurementStore, conditions: Conditions, like: str, space: SearchSpace, count: int
) -> tuple[list[Operator], list[Architecture]]:
    """What to measure on a device that resembles another: operators, and networks whole.

    What was begun under these conditions comes first, and what is measured already counts among
    them, so a stopped job goes on, and a larger one adds to a smaller. The store remembers whose
    relative the device is.

    Args:
        store: With the relative's measurements.
        conditions: Of the new device.
        like: Name of the relative; of several conditions the latest that were measured in full.
        space: Whose networks shall be told.
        count: Of measurements in all.
    Raises:
        InvalidArgument: A count out of range; nothing under that name was measured in full.
        NotEnoughData: Nothing was measured under that name.
    """
    relative = _model_of(store, like, conditions)
    held = store.measurements(conditions)
    operators = [m.subject for m in held if m.kind == "operator"]
    networks = [m.subject for m in held if m.kind == "network"]
    open_operators, open_networks = (store.begun(conditions, k) for k in ("operator", "network"))
    known = (
        [Operator.parse(t) for t in dict.fromkeys([*operators, *open_operators])],
        [Architecture.parse(t) for t in dict.fromkeys([*networks, *open_networks])],
    )
    chosen = choose_like(relative, space, count, known)
    store.set_relative(conditions, like, relative.conditions.digest)
    return (
        [*map(Operator.parse, open_operators), *chosen[0]],
        [*map(Architecture.parse, open_networks), *chosen[1]],
    )


def relative_of(
    store: MeasurementStore,
    conditions: Conditions,
    measurements: Sequence[Measurement],
    like: str | None = None,
) -> LatencyModel | None:
    """The relative's model that a device is to be told from, where one was named, now or at its profile.

    One that was named at the profile is left aside once the device has enough of its own.

    Raises:
        NotEnoughData, InvalidArgument: As `choose_for`.
    """
    noted = store.relative(conditions)
    if like is not None:
        digest = noted[1] if noted is not None and noted[0] == like else None
        return _model_of(store, like, conditions, digest)
    kinds = Counter(m.kind for m in measurements)
    if noted is None or (kinds["operator"] >= _OWN and kinds["network"] >= MINIMUM):
        return None
    return _model_of(store, noted[0], conditions, noted[1])


def tell(
    relative: LatencyModel, conditions: Conditions, measurements: Sequence[Measurement]
) -> Told:
    """The model of a device from its relative's and a few measurements; raises as `fit_like`."""
    return Told(fit_like(relative, conditions, measurements), relative.device)


def _model_of(
    store: MeasurementStore, device: str, other: Conditions, digest: str | None = None
) -> LatencyModel:
    """The model of a device that others may be told from: of the conditions noted, or the latest in full."""
    known = [c for c in store.conditions(device) if c.mode == "steady" and c != other]
    if not store.conditions(device):
        raise NotEnoughData(
            f"{store.location} holds no measurement of {device!r}. Measure it in full first:  "
            f"phonenas profile --device {device} --space mnasnet"
        )
    if not known:
        raise InvalidArgument(f"--like {device}: a device is not its own relative; name another")
    most: Counter[str] = Counter()
    noted = [c for c in known if c.digest == digest]
    for conditions in [*noted, *reversed(known)]:
        found = store.measurements(conditions)
        kinds = Counter(str(m.kind) for m in found)
        if kinds["operator"] >= _FULL and kinds["network"] >= MINIMUM:
            return fit_measurements(conditions, found)
        most = max(most, kinds, key=lambda k: k["operator"])
    raise InvalidArgument(
        f"{device} has {most['operator']} operators and {most['network']} whole networks measured; to tell "
        f"another device from it takes {_FULL} and {MINIMUM}. Measure it in full first:  phonenas "
        f"profile --device {device} --space SPACE"
    )
