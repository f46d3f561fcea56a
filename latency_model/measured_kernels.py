"""MeasuredKernels: any network on a device whose kernels were measured one by one.

A regressor is fitted on the kernels (`units.kernel_regressor`). A network is cut into kernels
(`graphs.onnx_cut`), and each has a share of its time: what it takes alone beyond the fixed cost
of a run, by sort, less what a network saves (`kernel_terms`).
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Annotated, Any, NoReturn

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from phonenas.data.documents import Number, Text, strict
from phonenas.data.measurement import Conditions
from phonenas.space import Architecture, Kernel, Operator
from phonenas.space.errors import NotEnoughData, UncoveredOperator, UnsupportedFormat
from phonenas.space.graph import NetworkGraph

from .calibration import LATER_JOB, Calibration
from .graphs.onnx_cut import OnnxNetwork, cut
from .graphs.onnx_layout import padded
from .kernel_terms import TERMS, kernel_terms, shares_ms, slopes_of
from .lookup_table import LookupTable
from .metrics import Z90, half_widths
from .predicted import Explained, Predicted
from .units.kernel_features import FEATURES, family, features
from .units.kernel_regressor import SIZES, KernelRegressor

__all__ = ["MeasuredKernels", "cut_network"]

Floats = npt.NDArray[np.float64]

# How far beyond what was measured, in any one feature, a kernel is covered, and is predicted.
_WITHIN, _REACH, _REACH_MOVED = math.log(1.5), math.log(4.0), math.log(32.0)
_SLIGHT = 0.02  # of a network's time, that all kernels beyond what was measured may take
_MOVED = [FEATURES.index("log_reads"), FEATURES.index("log_writes")]
_CORRELATION = 0.3  # of the errors of a network's kernels: the share that adds up linearly
_UNFITTED = 1.0  # half-width without networks


def cut_network(network: Any) -> OnnxNetwork:
    """A network of blocks or a graph of the zoo, cut; one that is cut already as it is."""
    if isinstance(network, Architecture | NetworkGraph):
        return _cut(network)
    assert isinstance(network, OnnxNetwork)
    return network


@lru_cache(maxsize=64)
def _cut(network: Architecture | NetworkGraph) -> OnnxNetwork:
    from phonenas.space.lowering.onnx import to_onnx

    return replace(cut(to_onnx(network)), name=str(network))


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredKernels:
    """Time of each kernel within a network, from kernels measured alone.

    Args:
        conditions: What was measured under.
        regressor: Time of a kernel alone.
        blocks: Whether the regressor sees kernels as `padded`, which suits this device better.
        measured: Keys of the kernels that were measured.
        run_ms: Fixed cost of a run, which each kernel alone pays too.
        coefficients: Of `TERMS`, (terms,).
        spread: Covariance of the coefficients, (terms, terms).
        error: Usual relative error of the sums themselves, that of their kernels aside.
        interval_scale: Factor of a network's standard error for its 90 % interval.
    """

    conditions: Conditions
    regressor: KernelRegressor
    blocks: bool
    measured: frozenset[str]
    run_ms: float
    coefficients: tuple[float, ...]
    spread: Floats
    error: float = 0.0
    interval_scale: float = _UNFITTED

    table = LookupTable({}, {}, "")

    def alone_ms(self, kernels: Sequence[Kernel]) -> Floats:
        """Time of each kernel alone, (n,), ms, by the regressor.

        It is as near to what was measured as the scatter of measurements allows.
        """
        seen = [self.seen(k) for k in kernels]
        distinct = list(dict.fromkeys(seen))
        ms = dict(zip(distinct, self.regressor.predict_ms(distinct), strict=True))
        return np.array([ms[k] for k in seen])

    def seen(self, kernel: Kernel) -> Kernel:
        """A kernel as the regressor sees it."""
        return padded(kernel) if self.blocks else kernel

    def _errors(self, kernels: Sequence[Kernel]) -> Floats:
        """Standard error of each of `alone_ms`, (n,), relative."""
        distinct = list(dict.fromkeys(self.seen(k) for k in kernels))
        error = dict(zip(distinct, self.regressor.standard_error(distinct), strict=True))
        return np.array([error[self.seen(k)] for k in kernels])

    def terms(self, network: OnnxNetwork) -> Floats:
        """`kernel_terms` of a network, (kernels, terms)."""
        return kernel_terms(network, self.alone_ms(network.kernels), self.run_ms)

    def shares_ms(self, network: OnnxNetwork) -> Floats:
        """Each kernel's part of a network, (kernels,), ms."""
        return shares_ms(self.terms(network), np.array(self.coefficients))

    def ms(self, operators: Sequence[Operator], remedy: str = "") -> NoReturn:
        """A kernel's share depends on its neighbours: operators have no time of their own.

        Raises:
            NotEnoughData: Always; the message says what to measure.
        """
        device = shlex.quote(self.conditions.device)
        raise NotEnoughData(
            f"of {self.conditions.device} kernels are measured, which predict one network at a "
            "time. A search needs operators:  phonenas profile --device "
            f"{device} {remedy or '--space mnasnet'} && phonenas fit --device {device}"
        )

    def predict(self, operators: Sequence[Operator]) -> NoReturn:
        """Raises as `ms`."""
        self.ms(operators)

    def row(self, operator: Operator) -> NoReturn:
        """Raises as `ms`."""
        self.ms([operator])

    def check(self, networks: Sequence[Any]) -> None:
        """Refuse networks with kernels far from all that was measured.

        Raises:
            UncoveredOperator: Such a kernel is named, with the command that measures it.
        """
        for network in map(cut_network, networks):
            if far := self.beyond(network, _REACH):
                device = self.conditions.device
                raise UncoveredOperator(
                    f"{device} has nothing like {far[0]} ({far[0].key})"
                    + (f" and {len(far) - 1} more kernels" if far[1:] else "")
                    + f". Measure what {network.name} needs:  phonenas profile --device "
                    f"{shlex.quote(device)} --kernels-of {shlex.quote(network.name)}"
                )

    def rows(self, networks: Sequence[Any]) -> Floats:
        """Of each network its time in ms, its slopes, its kernels' errors, (n, terms + 4).

        Slopes are in ms for each coefficient; errors are the sum of standard errors, in ms, and of
        their squares. Last, the time in ms of kernels beyond what was measured.
        """
        rows, coefficients = np.empty((len(networks), len(TERMS) + 4)), np.array(self.coefficients)
        for row, network in zip(rows, map(cut_network, networks), strict=True):
            terms, kernels = self.terms(network), network.kernels
            shares = shares_ms(terms, coefficients)
            d = self._errors(kernels) * shares
            within = {k: self._within(k, _WITHIN) for k in dict.fromkeys(kernels)}
            outside = shares[[not within[k] for k in kernels]].sum()
            slopes = slopes_of(terms, coefficients)
            row[:] = [shares.sum(), *slopes, d.sum(), d @ d, outside]
        return rows

    def deviations(self, rows: Floats, low_ms: float, high_ms: float) -> Floats:
        """Standard error of the logarithm of each network's time, (n,), up to the scale.

        Args:
            rows: Of the networks, (n, columns).
            low_ms, high_ms: Range of the networks that the coefficients were fitted on.
        """
        ms, relative = rows[:, 0], rows[:, 1:] / rows[:, :1]
        slopes, linear, squares = relative[:, :-3], relative[:, -3], relative[:, -2] / ms
        far = np.einsum("ij,jk,ik->i", slopes, self.spread, slopes)
        kernels = _CORRELATION * linear**2 + (1 - _CORRELATION) * squares
        beyond = np.maximum(1.0, np.maximum(low_ms / ms, ms / high_ms))
        deviations: Floats = np.sqrt(self.error**2 + far + kernels) * (1 + np.log(beyond))
        return deviations

    def whole(self, rows: Floats, calibration: Calibration) -> Predicted:
        """Networks from their `rows`, (n, columns); the calibration tells the range fitted on."""
        ms, half = rows[:, 0], np.full(len(rows), _UNFITTED)
        if calibration.networks:
            deviations = self.deviations(rows, calibration.low_ms, calibration.high_ms)
            half = half_widths(self.interval_scale * deviations)
        half = np.hypot(half, LATER_JOB)
        return Predicted(ms, ms / (1 + half), ms * (1 + half), rows[:, -1] <= _SLIGHT * ms)

    def shares(self, network: Any, calibration: Calibration) -> list[Explained]:
        """Each kernel's part in the predicted time; together they are the whole."""
        steps = cut_network(network)
        alone, error = self.alone_ms(steps.kernels), Z90 * self._errors(steps.kernels)
        parts = shares_ms(kernel_terms(steps, alone, self.run_ms), np.array(self.coefficients))
        columns = np.stack([parts, alone, alone / (1 + error), alone * (1 + error)], axis=1)
        return [
            Explained(s.kernel, ms, one, low, high, s.kernel.key in self.measured, s.node)
            for s, (ms, one, low, high) in zip(steps.steps, columns.tolist(), strict=True)
        ]

    def notes(self, network: Any) -> tuple[str, ...]:
        """What of a network lies outside what was measured."""
        outside = self.beyond(cut_network(network), _WITHIN)
        text = f"{len(outside)} kernels lie beyond what was measured, such as "
        return (text + str(outside[0]),) if outside else ()

    def beyond(self, network: OnnxNetwork, slack: float) -> list[Kernel]:
        """Kernels beyond what was measured by more than `slack`; none where they take little."""
        within = {k: self._within(k, slack) for k in dict.fromkeys(network.kernels)}
        if all(within.values()):
            return []
        shares = self.shares_ms(network)
        part = shares[[not within[k] for k in network.kernels]].sum()
        return [k for k in within if not within[k]] if part > _SLIGHT * shares.sum() else []

    @cached_property
    def _ranges(self) -> dict[str, tuple[Floats, Floats]]:
        rows: dict[str, list[list[float]]] = {}
        for kernel in map(self.seen, map(Kernel.parse, sorted(self.measured))):
            rows.setdefault(family(kernel), []).append(features(kernel))
        return {k: (np.min(v, axis=0), np.max(v, axis=0)) for k, v in rows.items()}

    def _within(self, kernel: Kernel, slack: float) -> bool:
        """Whether a kernel lies within what was measured of its family, or `slack` beyond.

        At `_REACH` only more work than was measured counts: less costs a launch, which is known.
        """
        if kernel.kind == "node":  # never refused: its interval is wide
            return slack == _REACH or kernel.key in self.measured
        bounds = self._ranges.get(family(kernel))
        if bounds is None or not self.regressor.knows(kernel):
            return slack == _REACH and (bounds is not None or not kernel.macs)
        row, (low, high) = np.asarray(features(self.seen(kernel))), bounds
        if not kernel.macs:  # what it moves is what it costs, whatever the map's shape
            row, low, high = row[_MOVED], low[_MOVED], high[_MOVED]
            slack = _REACH_MOVED if slack == _REACH else slack
        if slack >= _REACH:
            return bool((row <= high + slack)[:SIZES].all())
        return bool(((row >= low - slack) & (row <= high + slack)).all())

    def to_dict(self) -> dict[str, Any]:
        """Everything but the conditions, ready for JSON."""
        return {
            "terms": list(TERMS),
            "regressor": self.regressor.to_dict(),
            "blocks": self.blocks,
            "measured": sorted(self.measured),
            "run_ms": self.run_ms,
            "coefficients": list(self.coefficients),
            "spread": self.spread.tolist(),
            "error": self.error,
            "interval_scale": self.interval_scale,
        }

    @classmethod
    def from_dict(cls, conditions: Conditions, values: dict[str, Any]) -> MeasuredKernels:
        """Inverse of `to_dict`.

        Raises:
            UnsupportedFormat: It was fitted over other sums.
            ValueError: It is damaged.
        """
        file = strict(values, _File)
        if file.terms != list(TERMS):
            raise UnsupportedFormat(
                f"its kernels are summed over {', '.join(file.terms)[:200]}; this phonenas does it "
                f"over {', '.join(TERMS)}. Fit it again:  phonenas fit"
            )
        spread, shape = np.array(file.spread, float), (len(TERMS), len(TERMS))
        if len(file.coefficients) != len(TERMS) or spread.shape != shape:
            raise ValueError(f"{len(file.coefficients)} coefficients, spread {spread.shape}")
        for (name, (*_, low, high)), c in zip(TERMS.items(), file.coefficients, strict=True):
            if not low - 1e-6 <= c <= high + 1e-6:
                raise ValueError(f"the coefficient of {name} is {c}")
        return cls(
            conditions=conditions,
            regressor=KernelRegressor.from_dict(file.regressor),
            blocks=file.blocks,
            measured=frozenset(Kernel.parse(key).key for key in file.measured),
            run_ms=file.run_ms,
            coefficients=tuple(file.coefficients),
            spread=spread,
            error=file.error,
            interval_scale=file.interval_scale,
        )


_AtLeast0 = Annotated[float, Meta(ge=0, le=1e9)]


class _File(msgspec.Struct):
    terms: list[Text]
    regressor: dict[str, Any]
    blocks: bool
    measured: list[Text]
    run_ms: _AtLeast0
    coefficients: list[Number]
    spread: list[list[Number]]
    error: _AtLeast0
    interval_scale: _AtLeast0
