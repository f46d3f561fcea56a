"""A new device told from a relative: which one, and whether what comes of it is good enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .space.errors import InvalidArgument

if TYPE_CHECKING:
    from .data import Conditions, Measurement, MeasurementStore
    from .devices import Device
    from .latency_model import LatencyModel
    from .latency_model.relative import Like
    from .space import Architecture, Operator, SearchSpace

__all__ = ["Told", "chosen_like", "few_of", "model_of", "relative_of"]

_GOOD = 0.05  # expected error of whole networks up to which a model is called good enough
# From here on a device's own operators and networks tell more than a relative's.
_OWN_OPERATORS, _OWN_NETWORKS = 200, 10


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

    @property
    def text(self) -> str:
        """For people, with what to do next if it is not good enough."""
        found = self.like
        taught = f"{found.operators} operators and {found.networks} networks"
        first = (
            f"told from {self.relative} and {taught}: {found.factor:.2f} times {self.relative}'s "
            f"time in the middle; it expects to be {found.expected_mape:.1%} off on networks of the space"
        )
        if self.good:
            return first
        more = 2 * (found.operators + found.networks)
        device = found.model.device
        return (
            f"{first}\nNOT GOOD ENOUGH for less than {_GOOD:.0%}. Measure more:  phonenas profile --device "
            f"{device} --like {self.relative} --measurements {more}, then fit again"
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


def few_of(
    space: SearchSpace | None, count: int | None, like: str | None
) -> Sequence[Operator] | None:
    """The operators of a space that tell most, where a user asked for so many; None for all.

    Raises:
        InvalidArgument: A count without a space, out of range, or beside a relative.
    """
    if count is None:
        return None
    if space is None or like is not None:
        raise InvalidArgument(
            "--operators chooses among a space's: give --space, and with --like give --measurements instead"
        )
    from .latency_model.selection import choose_operators

    return choose_operators(space, count)


def chosen_like(
    store: MeasurementStore, phone: Device, like: str, space: SearchSpace, count: int
) -> tuple[Sequence[Operator], Sequence[Architecture]]:
    """What to measure on a device that resembles another; the store remembers whose relative it is.

    Raises:
        InvalidArgument: A count out of range, a device that is its own relative, or one that has
            no calibrated model.
    """
    from .latency_model.fitting import choose_conditions
    from .latency_model.relative import choose_like

    if choose_conditions(store, like)[0] == phone.conditions:
        raise InvalidArgument(f"--like {like}: a device is not its own relative; name another")
    relative = model_of(store, like)
    found = choose_like(relative, space, count)
    store.set_relative(phone.conditions, like, relative.conditions.digest)
    return found


def model_of(store: MeasurementStore, device: str, digest: str | None = None) -> LatencyModel:
    """The model of a device in a store that others may be told from.

    Raises:
        NotEnoughData: It was not measured.
        InvalidArgument: It was not measured in full, or has no whole networks to be calibrated by.
    """
    from .latency_model.fitting import choose_conditions, fit_measurements

    conditions, _ = choose_conditions(store, device, digest)
    found = store.measurements(conditions)
    if not _enough(found):
        kinds = Counter(m.kind for m in found)
        raise InvalidArgument(
            f"{device} has {kinds['operator']} operators and {kinds['network']} whole networks measured; "
            f"to tell another device from it takes {_OWN_OPERATORS} and {_OWN_NETWORKS}. Measure it "
            f"in full first:  phonenas profile --device {device} --space mnasnet"
        )
    return fit_measurements(conditions, found)


def _enough(measurements: Sequence[Measurement]) -> bool:
    kinds = Counter(m.kind for m in measurements)
    return kinds["operator"] >= _OWN_OPERATORS and kinds["network"] >= _OWN_NETWORKS


def relative_of(
    store: MeasurementStore,
    conditions: Conditions,
    measurements: Sequence[Measurement],
    like: str | None,
) -> Told | None:
    """The model that a relative gives of a device, where one was named now or at its profile.

    One that was named at the profile is left aside once the device has enough of its own.

    Raises:
        InvalidArgument: A device is its own relative, or the relative has no calibrated model.
    """
    from .latency_model.relative import fit_like

    noted = store.relative(conditions)
    if like is None and (noted is None or _enough(measurements)):
        return None
    device, digest = (like, None) if like is not None else noted or ("", None)
    if like is not None and noted is not None and noted[0] == like:
        digest = noted[1]
    if device == conditions.device and digest is None:
        raise InvalidArgument(f"--like {device}: a device is not its own relative; name another")
    relative = model_of(store, device, digest)
    return Told(fit_like(relative, conditions, measurements), device)
