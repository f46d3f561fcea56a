"""KernelTimes: times of kernels on a device of which whole networks alone were measured."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from phonenas.data.documents import Number, Text, strict
from phonenas.data.measurement import Conditions
from phonenas.space import Architecture, Kernel, Operator, zoo
from phonenas.space.errors import UnsupportedFormat
from phonenas.space.graph import NetworkGraph

from ..calibration import UNCALIBRATED, Calibration
from ..lookup_table import LookupTable
from ..metrics import Z90, half_widths
from ..predicted import Explained, Predicted
from .process import Basis, Posterior, Profile
from .terms import LENGTHS, SORTS, TERMS, sort_of, terms

__all__ = ["KernelTimes", "Network", "calibration_of", "parts_of_network"]

Floats = npt.NDArray[np.float64]
#: What it predicts: a network of blocks, a graph of the zoo, or a file that was cut into kernels.
Network = Any
Item = Operator | Kernel

_FAR = 0.1  # share of variance, beyond that of the kernels observed, from which one is unlike them
_LEAST = 0.2  # of its terms' time a kernel takes at least
_RUN = TERMS.index("run")


def parts_of_network(network: Network) -> tuple[Item, ...]:
    """Operators of a network of blocks; kernels of any other."""
    if isinstance(network, Architecture):
        return network.operators()
    return zoo.kernels(network) if isinstance(network, NetworkGraph) else network.kernels


@dataclass(frozen=True, kw_only=True, eq=False)
class KernelTimes:
    """Time of each operator within a network, as the sum of its kernels.

    Args:
        conditions: What the networks were measured under.
        profile: What was expected.
        basis: Of the correction by shape.
        posterior: Rates and corrections.
        scale: Of the interval: what networks left out showed it must be.
        taught: Terms that the networks of the fit have.
    """

    conditions: Conditions
    profile: Profile
    basis: Basis
    posterior: Posterior
    scale: float
    taught: frozenset[str]

    table = LookupTable({}, {}, "")

    @cached_property
    def _rows(self) -> dict[Item, Floats]:
        return {}

    @cached_property
    def run(self) -> Floats:
        """`row` of what each run costs beside its kernels."""
        ms = float(np.exp(self.posterior.log_rates[_RUN]))
        return np.array([ms, *(ms * self.posterior.factor[_RUN]), 0.0, 0.0])

    def row(self, item: Item) -> list[float]:
        """Of an operator or kernel, all additive over a network.

        Its time in ms; its error in ms along each direction of the posterior; the variance that
        no kernel of its sort tells of, in ms²; how many of its kernels are unlike all of the fit.
        """
        if item not in self._rows:
            self._fill([item])
        values: list[float] = self._rows[item].tolist()
        return values

    def rows(self, networks: Sequence[Network]) -> Floats:
        """`row`, summed over each network, (n, columns)."""
        each = [parts_of_network(n) for n in networks]
        self._fill([item for items in each for item in items])
        columns = len(self.run)
        sums = [np.sum([self._rows[i] for i in items], axis=0) for items in each]
        return np.array(sums, float).reshape(len(sums), columns)

    def _fill(self, items: Sequence[Item]) -> None:
        new = [i for i in dict.fromkeys(items) if i not in self._rows]
        if not new:
            return
        kernels = [zoo.operator_kernels(i) if isinstance(i, Operator) else (i,) for i in new]
        flat = [k for each in kernels for k in each]
        rates = np.exp(self.posterior.log_rates)
        plain = terms(flat) * rates
        values, missed = self.basis.rows(flat)
        factor = np.maximum(1 + values @ self.posterior.weights, _LEAST)
        bare = plain.sum(axis=1)
        slopes = np.column_stack([plain * factor[:, None], values * bare[:, None]])
        unknown = self.profile.amplitude**2 * missed * bare**2
        lacking = np.array([t not in self.taught for t in TERMS])
        reach = np.array([self.basis.reach.get(sort_of(k), 1.0) for k in flat])
        strange = (missed > reach + _FAR) | (plain[:, lacking] > 0).any(axis=1)
        rows = np.column_stack(
            [bare * factor, slopes @ self.posterior.factor, unknown, strange.astype(float)]
        )
        ends = np.cumsum([len(each) for each in kernels])[:-1]
        for item, its in zip(new, np.split(rows, ends), strict=True):
            self._rows[item] = its.sum(axis=0)

    def check(self, networks: Sequence[Network]) -> None:
        """No network is refused: the interval is as wide as its kernels are unlike the known."""

    def shares(self, network: Network, calibration: Calibration) -> list[Explained]:
        """Each part in a network's predicted time, and last what each run costs."""
        items = parts_of_network(network)
        alone = self.predict(items)
        ends = zip(alone.ms.tolist(), alone.low_ms.tolist(), alone.high_ms.tolist(), strict=True)
        parts = [
            Explained(o, ms, ms, low, high, False)
            for o, (ms, low, high) in zip(items, ends, strict=True)
        ]
        return [*parts, Explained(None, calibration.constant, 0.0, 0.0, 0.0, False)]

    def ms(self, operators: Sequence[Item], remedy: str = "") -> Floats:
        """Time of each operator or kernel within a network, (n,), ms."""
        self._fill(operators)
        return np.array([self._rows[o][0] for o in operators])

    def predict(self, operators: Sequence[Item]) -> Predicted:
        """Time of each alone, with its 90 % interval."""
        self._fill(operators)
        return self._predicted(np.array([self._rows[o] for o in operators]))

    def whole(self, rows: Floats, calibration: Calibration | None = None) -> Predicted:
        """Networks from their `rows`, (n, columns).

        A calibration tells in which range networks were measured: beyond, the interval is wider.
        """
        return self._predicted(rows + self.run, calibration)

    def _predicted(self, rows: Floats, calibration: Calibration | None = None) -> Predicted:
        profile, ms = self.profile, rows[:, 0]
        own = profile.noise**2 + profile.family**2
        variance = (np.sum(rows[:, 1:-2] ** 2, axis=1) + rows[:, -2]) / ms**2 + own
        half = half_widths(Z90 * self.scale * np.sqrt(variance))
        if calibration is not None and calibration.networks:
            half = half * (1 + np.log(calibration.beyond(ms)))
        return Predicted(ms, ms / (1 + half), ms * (1 + half), rows[:, -1] == 0)

    def scaled(self, factor: float) -> KernelTimes:
        """The same with every time `factor` times as long, > 0; relative errors stay."""
        rates = self.posterior.log_rates + np.log(factor)
        return replace(self, posterior=replace(self.posterior, log_rates=rates))

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; the factor of the covariance as base64 of float16, by rows."""
        p = self.posterior
        return {
            "profile": asdict(self.profile),
            "terms": list(TERMS),
            "lengths": list(LENGTHS),
            "inducing": {s: [k.key for k in ks] for s, ks in self.basis.inducing.items()},
            "reach": {s: round(share, 3) for s, share in self.basis.reach.items()},
            "log_rates": [round(float(v), 4) for v in p.log_rates],
            "weights": [round(float(v), 4) for v in p.weights],
            "rank": p.factor.shape[1],
            "factor": base64.b64encode(p.factor.astype("<f2").tobytes()).decode(),
            "scale": round(self.scale, 4),
            "taught": sorted(self.taught),
        }

    @classmethod
    def from_dict(cls, conditions: Conditions, values: dict[str, Any]) -> KernelTimes:
        """Inverse of `to_dict`.

        Raises:
            UnsupportedFormat: It was fitted over other terms.
            ValueError: It is damaged.
        """
        file = strict(values, _File)
        if file.terms != list(TERMS) or file.lengths != list(LENGTHS):
            raise UnsupportedFormat(
                "the model is fitted over other terms than this phonenas has. Fit it again:  "
                "phonenas fit"
            )
        basis = Basis(
            {s: tuple(map(Kernel.parse, file.inducing.get(s, ()))) for s in SORTS}, file.reach
        )
        if any(sort_of(k) != sort for sort, ks in basis.inducing.items() for k in ks):
            raise ValueError("an inducing kernel is of another sort")
        rates, weights = np.array(file.log_rates), np.array(file.weights)
        data = np.frombuffer(base64.b64decode(file.factor, validate=True), "<f2")
        factor = data.astype(np.float64).reshape(len(TERMS) + basis.size, file.rank)
        if rates.shape != (len(TERMS),) or weights.shape != (basis.size,):
            raise ValueError(f"{rates.shape} rates and {weights.shape} weights")
        if not np.isfinite(factor).all():
            raise ValueError("a number is not finite")
        return cls(
            conditions=conditions,
            profile=file.profile,
            basis=basis,
            posterior=Posterior(rates, weights, factor),
            scale=file.scale,
            taught=frozenset(file.taught),
        )


class _File(msgspec.Struct):
    profile: Profile
    terms: list[Text]
    lengths: list[float]
    inducing: dict[Text, list[Text]]
    reach: dict[Text, Number]
    log_rates: list[Annotated[float, Meta(ge=-1e3, le=1e3)]]
    weights: list[Number]
    rank: Annotated[int, Meta(ge=0, le=100_000)]
    factor: str
    scale: Annotated[float, Meta(gt=0, lt=1e3)]
    taught: list[Text]


def calibration_of(times: KernelTimes, ms: Floats) -> Calibration:
    """From summed operators to the whole: the sum, and what each run costs.

    Args:
        times: Of kernels.
        ms: Networks that it was fitted on, (n,), ms.
    """
    return replace(
        UNCALIBRATED,
        constant=float(times.run[0]),
        half_width=0.0,
        low_ms=float(ms.min()),
        high_ms=float(ms.max()),
        networks=len(ms),
    )
