"""Constraints: targets of latency, limits on anything, and how far a network is beyond them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.latency_model import LatencyModel
from phonenas.latency_model.peak_memory import PeakMemory
from phonenas.space.errors import InvalidArgument

from .evaluations import CHANCE, Evaluations
from .objectives import Objective, Recorded, named
from .strategies.reward import SOFT, check_target

__all__ = [
    "ACROSS",
    "Constraints",
    "Devices",
    "Limit",
    "OnDevice",
    "Target",
    "devices_named",
    "parse_limit",
    "split_limit",
]

Floats = npt.NDArray[np.float64]
ACROSS = ("worst", "mean", "each")  # how the latencies of several devices become objectives
_LIMIT = re.compile(r"\s*(?P<name>[^<>=~]+?)\s*(?P<sign><=|>=)\s*(?P<soft>~?)\s*(?P<bound>\S+)\s*")


@dataclass(frozen=True)
class Target:
    """The latency that a network may have.

    Args:
        ms: On the device, > 0.
        given: As it was asked for ("25", or a network whose measured latency it is).
        soft: It only weighs, by the paper's exponents: networks beyond it stay in the front.
        chance: Least probability that a measurement meets it, in (0, 1), by the model's
            interval; None: the prediction must meet it.
    Raises:
        InvalidArgument: A number outside its range, or a chance for a soft target.
    """

    ms: float
    given: str = ""
    soft: bool = False
    chance: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ms", check_target(self.ms))
        object.__setattr__(self, "given", self.given or f"{self.ms:g}")
        if self.chance is not None and not 0 < self.chance < 1:
            raise InvalidArgument(
                f"a chance to meet the target lies between 0 and 1, got {self.chance:g}"
            )
        if self.chance is not None and self.soft:
            raise InvalidArgument("a chance to meet the target needs a hard target")

    def __str__(self) -> str:
        chance = "" if self.chance is None else f" with a chance of {self.chance:.0%}"
        return f"{self.ms:g} ms{chance}"


@dataclass(frozen=True)
class OnDevice:
    """One of several devices that a network is for.

    Args:
        latency: Predicted latency there, in ms: a `Latency`.
        target: What it may be there; None for none.
    """

    latency: Objective
    target: Target | None = None

    @property
    def device(self) -> str:
        """Name of the device."""
        return self.latency.name.removeprefix("latency:")


@dataclass(frozen=True)
class Devices:
    """Several devices that one search is for, and how their latencies become objectives.

    Args:
        on: The devices, two or more: with a target each, or none with one. The targets are all
            soft or all hard, with one chance.
        across: "worst": the one cost is the largest latency / target of all devices. "mean": it is
            the weighted geometric mean of these ratios; every hard target holds all the same.
            "each": every latency is an objective of its own. "" is "worst" with targets, else
            "each".
        weights: Of the devices in the mean, (devices,), > 0; equal by default.
        own: Place in `on` of the device whose latency the column `latency_ms` is.
    Raises:
        InvalidArgument: Fewer than two devices, one twice, or what does not go together as above.
    """

    on: Sequence[OnDevice]
    across: str = ""
    weights: Sequence[float] = ()
    own: int = 0

    def __post_init__(self) -> None:
        on, names = tuple(self.on), [d.device for d in self.on]
        object.__setattr__(self, "on", on)
        if len(on) < 2 or len(set(names)) < len(names):
            raise InvalidArgument(f"two devices or more, each once, got {', '.join(names)}")
        lacking = [d.device for d in on if d.target is None]
        if lacking and len(lacking) < len(on):
            raise InvalidArgument(
                f"{' and '.join(lacking)}: no target, but the other devices have one. Give each "
                "device one:  --target DEVICE=MS"
            )
        across = self.across or ("each" if lacking else "worst")
        object.__setattr__(self, "across", across)
        if across not in ACROSS:
            raise InvalidArgument(f"across devices: {', '.join(ACROSS)}, got {across!r}")
        if across != "each" and lacking:
            raise InvalidArgument(
                f"--across {across} compares latencies with targets: give a --target"
            )
        kinds = {(d.target.soft, d.target.chance) for d in on if d.target is not None}
        if len(kinds) > 1:
            raise InvalidArgument("the targets of several devices are all soft or all hard")
        if across == "each" and (True, None) in kinds:
            raise InvalidArgument(
                "a soft target weighs one cost: give --across worst or --across mean, too"
            )
        weights = tuple(float(w) for w in self.weights)
        if weights and across != "mean":
            raise InvalidArgument(f"weights of devices act only with across mean, not {across}")
        if across == "mean":
            weights = weights or (1.0,) * len(on)
            if len(weights) != len(on) or not all(0 < w < np.inf for w in weights):
                raise InvalidArgument(f"a weight above 0 for each of {len(on)} devices: {weights}")
        object.__setattr__(self, "weights", weights)

    @property
    def names(self) -> str:
        """The devices in a phrase: "pixel6 and iphone"."""
        return " and ".join(d.device for d in self.on)

    @property
    def targets_ms(self) -> dict[str, float | None]:
        """The target of each, in ms, by the column of its latency."""
        return {d.latency.name: None if d.target is None else d.target.ms for d in self.on}

    @property
    def origins(self) -> dict[str, str]:
        """Of the latencies that each one's model was fitted on, by the column of its latency."""
        each = {d.latency.name: getattr(d.latency, "model", None) for d in self.on}
        return {n: str(m.conditions.origin) for n, m in each.items() if m is not None}

    @property
    def others(self) -> tuple[OnDevice, ...]:
        """All but the one whose latency `latency_ms` is."""
        return tuple(d for i, d in enumerate(self.on) if i != self.own)

    def latencies(self, evaluated: Evaluations) -> Floats:
        """Of each network on each device, (n, devices), ms."""
        return np.column_stack([evaluated.further[d.latency.name] for d in self.on])

    def ratios(self, evaluated: Evaluations) -> Floats:
        """Latency / target of each network on each device, (n, devices); there are targets."""
        targets = [d.target.ms for d in self.on if d.target is not None]
        ratios: Floats = self.latencies(evaluated) / np.array(targets)
        return ratios

    def ratio(self, evaluated: Evaluations) -> Floats:
        """The one number of all ratios, (n,): their weighted geometric mean, else the largest."""
        ratios = self.ratios(evaluated)
        if self.across != "mean":
            largest: Floats = ratios.max(axis=1)
            return largest
        mean: Floats = np.exp(np.average(np.log(ratios), axis=1, weights=self.weights))
        return mean

    @property
    def settings(self) -> dict[str, Any]:
        """What a resumed run must share, ready for JSON; `recorded` reads it."""
        devices = [
            {
                "device": d.device,
                "latency_model": d.latency.digest,
                "target_ms": None if d.target is None else d.target.ms,
                "target": "" if d.target is None else d.target.given,
            }
            for d in self.on
        ]
        settings: dict[str, Any] = {"devices": devices, "across": self.across}
        return settings | ({"device_weights": list(self.weights)} if self.weights else {})

    @classmethod
    def recorded(
        cls, settings: Mapping[str, Any], soft: bool, chance: float | None
    ) -> Devices | None:
        """Those of a finished run by its settings; None for a run of one device."""
        if "devices" not in settings:
            return None
        on = [
            OnDevice(
                Recorded(f"latency:{d['device']}", "ms"),
                None
                if d["target_ms"] is None
                else Target(d["target_ms"], d["target"], soft, chance),
            )
            for d in settings["devices"]
        ]
        own = [d.device for d in on].index(settings["device"])
        return cls(on, settings["across"], settings.get("device_weights", ()), own)


@dataclass(frozen=True)
class Limit:
    """What an objective may be.

    Args:
        objective: Of any kind; it need not be minimised or maximised besides.
        at_most, at_least: The bound, one of both, in the objective's unit, > 0.
        soft: None for a hard bound, which no network of the front oversteps; else top-1 is weighed
            by (1 + how far the bound is overstepped, relative) to this power, ≤ 0.
    Raises:
        InvalidArgument: Neither or both bounds, or one outside its range.
    """

    objective: Objective
    at_most: float | None = None
    at_least: float | None = None
    soft: float | None = None

    def __post_init__(self) -> None:
        bounds = [b for b in (self.at_most, self.at_least) if b is not None]
        if len(bounds) != 1 or not (np.isfinite(bounds[0]) and bounds[0] > 0):
            raise InvalidArgument(
                f"a limit of {self.objective.name} is one finite number above 0, at_most or "
                "at_least"
            )
        if self.soft is not None and not -np.inf < self.soft <= 0:
            raise InvalidArgument(f"a soft limit's exponent is 0 or below, got {self.soft:g}")

    def __str__(self) -> str:
        sign, bound = ("<=", self.at_most) if self.at_most is not None else (">=", self.at_least)
        return f"{self.objective.name}{sign}{'~' if self.soft is not None else ''}{bound:.15g}"

    def overstepped(self, values: Floats) -> Floats:
        """How far each value oversteps the bound, relative, (n,); ≤ 0 where it does not."""
        if self.at_most is not None:
            return values / self.at_most - 1
        assert self.at_least is not None
        return 1 - values / self.at_least

    def weight(self, values: Floats) -> Floats:
        """What a soft limit weighs top-1 by, (n,), in (0, 1]; 1 for a hard one."""
        if self.soft is None:
            return np.ones(len(values))
        weighed: Floats = (1 + np.maximum(self.overstepped(values), 0)) ** self.soft
        return weighed

    def describe(self) -> str:
        """All of it in one line, for a run's settings."""
        digest = hashlib.sha256(self.objective.digest.encode()).hexdigest()[:8]
        return f"{self} ({digest})" + ("" if self.soft is None else f" exponent {self.soft!r}")

    def to_dict(self) -> dict[str, Any]:
        """Its fields, ready for JSON."""
        return {
            "objective": self.objective.to_dict(),
            "at_most": self.at_most,
            "at_least": self.at_least,
            "soft": self.soft,
        }


@dataclass(frozen=True)
class Constraints:
    """What a network must keep.

    Args:
        target: Of latency on the device; None for none, or that of `devices`.
        limits: Bounds on anything, hard or soft.
        devices: Several devices, each with its target; None for the one that is searched for.
    Raises:
        InvalidArgument: A target beside those of several devices.
    """

    target: Target | None = None
    limits: Sequence[Limit] = ()
    devices: Devices | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "limits", tuple(self.limits))
        if self.devices is not None:
            own = self.devices.on[self.devices.own].target
            if self.target not in (None, own):
                raise InvalidArgument(
                    f"a target of {self.target} beside those of {self.devices.names}: give each "
                    "device its own"
                )
            object.__setattr__(self, "target", own)

    @property
    def hard_ms(self) -> float | None:
        """The target that no network of the front exceeds, in ms; None for a soft one or none."""
        return None if self.target is None or self.target.soft else self.target.ms

    @property
    def chance(self) -> float | None:
        """Least probability to meet the target, in (0, 1), or None."""
        return None if self.target is None else self.target.chance

    @property
    def hard_limits(self) -> tuple[Limit, ...]:
        """Those that no network of the front oversteps."""
        return tuple(q for q in self.limits if q.soft is None)

    def beyond_target(self, evaluated: Evaluations) -> Floats:
        """How far each network oversteps a hard target, relative, (n,); ≤ 0 where it does not.

        Of several devices' targets it is the one that is overstepped most.
        """
        if self.hard_ms is None:
            return np.full(len(evaluated), -1.0)
        if self.devices is not None:
            most: Floats = self.devices.ratios(evaluated).max(axis=1) - 1
            return most
        beyond: Floats = evaluated.latency_ms / self.hard_ms - 1
        return beyond

    def beyond_limits(self, evaluated: Evaluations, cheap: bool = False) -> Floats:
        """How far each network oversteps the chance and each hard limit, (n, limits), ≤ 0 where it
        does not; `cheap` leaves out limits on objectives that cost more than a look-up."""
        beyond = []
        if self.chance is not None:
            lacks = self.chance - evaluated.further[CHANCE]
            # Far beyond the target the chance is 0 everywhere and shows no way.
            far = np.maximum(self.beyond_target(evaluated), 0)
            beyond.append(np.where(lacks > 0, lacks + far, lacks))
        beyond += [
            limit.overstepped(evaluated.further[limit.objective.name])
            for limit in self.hard_limits
            if limit.objective.cheap or not cheap
        ]
        return np.column_stack(beyond) if beyond else np.empty((len(evaluated), 0))

    def violation(self, evaluated: Evaluations) -> Floats:
        """How far the limit overstepped most is, (n,), without the target; ≤ 0 where all hold.

        Where the cost does not show the targets of several devices, they count as limits here.
        """
        over = self.beyond_limits(evaluated)
        if self.devices is not None and self.hard_ms is not None:
            ratios = self.devices.ratios(evaluated)
            if self.devices.across == "each":  # the cost is the latency on one of them
                over = np.column_stack([over, np.delete(ratios, self.devices.own, axis=1) - 1])
            elif self.devices.across == "mean":
                over = np.column_stack([over, ratios - 1])
        return over.max(axis=1) if over.shape[1] else np.full(len(evaluated), -1.0)

    def overstepped(self, evaluated: Evaluations, cheap: bool = False) -> Floats:
        """All constraints together, (n,), ≥ 0; 0 where all are met; `cheap` as above."""
        limits = np.maximum(self.beyond_limits(evaluated, cheap), 0).sum(axis=1)
        over: Floats = limits + np.maximum(self.beyond_target(evaluated), 0)
        return over

    def met(self, evaluated: Evaluations) -> npt.NDArray[np.bool_]:
        """Which networks keep the target and all limits, (n,)."""
        met: npt.NDArray[np.bool_] = (self.beyond_target(evaluated) <= 0) & (
            self.violation(evaluated) <= 0
        )
        return met

    def constraints(self) -> str:
        """All hard constraints, for people; "" where there are none."""
        target = [str(self.target)] if self.hard_ms is not None else []
        if target and self.devices is not None:
            target = [f"{d.target} on {d.device}" for d in self.devices.on]
        return " and ".join([*target, *(str(limit) for limit in self.hard_limits)])

    def describe(self, evaluated: Evaluations, row: int) -> str:
        """What one network has of all that is constrained, for people."""
        parts = [f"{evaluated.latency_ms[row]:.2f} ms"]
        if self.devices is not None:
            ms = self.devices.latencies(evaluated.take([row]))[0]
            parts = [f"{n:.2f} ms on {d.device}" for n, d in zip(ms, self.devices.on, strict=True)]
        for limit in self.hard_limits:
            name, unit = limit.objective.name, limit.objective.unit
            parts.append(f"{name} {evaluated.further[name][row]:,.4g} {unit}".rstrip())
        if self.chance is not None:
            parts.append(f"a chance of {evaluated.further[CHANCE][row]:.0%}")
        return ", ".join(parts)


def split_limit(text: str) -> tuple[str, dict[str, float | None]]:
    """Name of the objective, and `at_most` or `at_least` and `soft` of `Limit`.

    Raises:
        InvalidArgument: Not of the form of `parse_limit`.
    """
    match = _LIMIT.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        bound = float(match["bound"])
    except ValueError as error:
        raise InvalidArgument(
            f"{text!r} is not a limit: an objective, <= or >=, and a number, as macs<=300e6 (soft: "
            "macs<=~300e6)"
        ) from error
    which = "at_most" if match["sign"] == "<=" else "at_least"
    return match["name"], {which: bound, "soft": SOFT[1] if match["soft"] else None}


def parse_limit(
    text: str,
    model_of: Callable[[str], LatencyModel] | None = None,
    memory_of: Callable[[], PeakMemory] | None = None,
) -> Limit:
    """A limit as the command line has it: `macs<=300e6`; `params<=~4e6` is soft (exponent -0.07).

    Raises:
        InvalidArgument: Not of that form.
        UnknownName: No such objective.
    """
    name, bound = split_limit(text)
    return Limit(named(name, model_of, memory_of), **bound)


def devices_named(also: Sequence[str], limits: Sequence[str]) -> list[str]:
    """The devices of objectives and limits that are a latency, `latency:DEVICE`, each once.

    Raises:
        InvalidArgument: As `split_limit`.

    >>> devices_named(["macs", "latency:a"], ["latency:b<=12", "latency:a<=9"])
    ['a', 'b']
    """
    names = [*also, *(split_limit(text)[0] for text in limits)]
    of = [n.removeprefix("latency:") for n in names if n.startswith("latency:")]
    return list(dict.fromkeys(of))
