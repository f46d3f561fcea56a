"""KernelLatencyModel: any ONNX network on one device, from its kernels.

Kernels of a prior, measured one by one, teach a curve (`kernel_model`); a network is cut
(`onnx_kernels`), and its time is linear in a few sums over its kernels (`SUMS`): their times alone, by
sort, and what a network saves or adds. Networks measured whole settle the coefficients, each
within the bounds that its meaning sets, by least squares of the relative error with a ridge
towards "the whole is the sum".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..space import Kernel
from ..space.errors import NotEnoughData, UncoveredOperator, UnsupportedFormat
from .calibration import LATER_JOB
from .interval import chance_within
from .kernel_features import FEATURES, family, features
from .kernel_model import KernelRegressor
from .onnx_kernels import OnnxNetwork
from .onnx_layout import Step, code, padded

__all__ = ["SUMS", "KernelLatencyModel", "KernelPrediction", "KernelShare", "kernel_sums"]

Floats = npt.NDArray[np.float64]

# Each with where the ridge pulls it, and its bounds.
SUMS: dict[str, tuple[float, float, float]] = {
    "conv": (1.0, 0.3, 3.0),  # ms alone of convolutions,
    "depthwise": (1.0, 0.0, 3.0),  # of depthwise ones, mostly bringing maps into order and back,
    "other": (1.0, 0.0, 3.0),  # of all else,
    "folded": (0.5, 0.0, 2.0),  # and of what becomes part of the kernel before it
    "direct": (-0.1, -3.0, 0.0),  # millions of numbers of large maps that need no reordering
    "launches": (0.0, -0.03, 0.03),
    "weights": (0.02, 0.0, 0.2),  # millions: alone, a kernel finds them warm
}
MINIMUM = 8  # networks
_LARGE = 200_000  # numbers of a map, beyond the near caches
_RIDGE = 1e-2
_REWEIGHTED, _HUBER, _LEAST_OFF = 20, 2.0, 0.01  # 1.345 deviations are 2 medians of a normal
_LEVEL = 0.90
_FOLDS = 10
# How far beyond what was measured, in any one feature, still counts as within, and is believed.
_WITHIN, _REACH, _REACH_MOVED = math.log(1.5), math.log(4.0), math.log(32.0)
_SLIGHT_MACS, _SLIGHT_NUMBERS = 200_000, 20_000  # of a kernel that no network's time shows
_MODEST = 0.05
_MOVED = [FEATURES.index("log_reads"), FEATURES.index("log_writes")]


@dataclass(frozen=True)
class KernelPrediction:
    """One network's predicted time.

    Args:
        ms: Milliseconds of one image.
        low_ms, high_ms: 90 % interval.
        covered: Whether every kernel lies within what was measured.
        notes: What was assumed, and what lies outside.
    """

    ms: float
    low_ms: float
    high_ms: float
    covered: bool
    notes: tuple[str, ...] = ()

    def within(self, target_ms: float) -> float:
        """Probability to be at or below a target when measured; see `chance_within`."""
        return float(chance_within(self.ms, self.low_ms, self.high_ms, target_ms))


@dataclass(frozen=True)
class KernelShare:
    """One kernel's part in a predicted network.

    Args:
        step: The kernel in its place.
        ms: Its part of the whole.
        alone_ms: Its time alone, as the curve has it: near what was measured, where it was.
        measured: Whether the kernel itself was measured.
    """

    step: Step
    ms: float
    alone_ms: float
    measured: bool


def kernel_sums(network: OnnxNetwork, alone_ms: npt.ArrayLike) -> Floats:
    """What each kernel adds to the sums, (kernels, sums).

    Args:
        network: Cut.
        alone_ms: Time of each of its kernels alone, (kernels,), ms.
    """
    names = list(SUMS)
    rows = np.zeros((len(network.steps), len(names)))
    for row, step, ms in zip(rows, network.steps, np.asarray(alone_ms, float), strict=True):
        kernel = step.kernel
        if step.folded:
            row[names.index("folded")] = ms
        else:
            sort = "depthwise" if kernel.depthwise else "conv" if kernel.kind == "conv" else "other"
            row[names.index(sort)] = ms
            row[names.index("launches")] = 1
        large = [n for n in (step.direct_in, step.direct_out) if n > _LARGE]
        row[names.index("direct")] = sum(large) / 1e6
        row[names.index("weights")] = kernel.params / 1e6
    return rows


@dataclass(frozen=True)
class KernelLatencyModel:
    """One device's model of any ONNX network.

    Lifetime: made by `fit`, or by `from_dict` from what `to_dict` gives.

    Args:
        regressor: Time of a kernel alone.
        blocks: Whether the regressor sees kernels as `padded`, which suits this device better.
        measured: Keys of the kernels that were measured.
        coefficients: Of `SUMS`, (sums,).
        half_width: h of the 90 % interval, from prediction / (1 + h) to prediction · (1 + h).
        networks: How many taught the coefficients; 0 where they are what is mostly so.
        mape: Mean relative error on networks held out; NaN for none.
    """

    regressor: KernelRegressor
    blocks: bool
    measured: frozenset[str]
    coefficients: tuple[float, ...]
    half_width: float
    networks: int
    mape: float

    @classmethod
    def fit(
        cls, kernel_ms: Mapping[Kernel, float], networks: Sequence[tuple[OnnxNetwork, float]] = ()
    ) -> KernelLatencyModel:
        """Learn from measurements made under the same conditions.

        Args:
            kernel_ms: Kernels measured alone, ms.
            networks: Networks measured whole, ms; 8 or more, else coefficients are what is mostly
                so, and the interval is wide.
        Raises:
            NotEnoughData: Fewer than 20 kernels.
        """
        kernels = list(kernel_ms)
        times = np.array([kernel_ms[k] for k in kernels], float)
        plain = KernelRegressor.fit(kernels, times)
        in_blocks = KernelRegressor.fit(
            [padded(k) for k in kernels], times, [code(k) for k in kernels]
        )
        blocks = in_blocks.mape < plain.mape
        regressor = in_blocks if blocks else plain
        keys = frozenset(k.key for k in kernels)
        prior = tuple(start for start, *_ in SUMS.values())
        bare = cls(regressor, blocks, keys, prior, 1.0, 0, math.nan)
        if len(networks) < MINIMUM:
            return bare
        rows = np.array([bare.sums(n).sum(axis=0) for n, _ in networks])
        whole = np.array([ms for _, ms in networks], float)
        fold = np.random.default_rng(0).permutation(len(whole)) % min(_FOLDS, len(whole))
        told = np.empty(len(whole))
        for held in range(fold.max() + 1):
            told[fold == held] = rows[fold == held] @ _solved(
                rows[fold != held], whole[fold != held]
            )
        told = np.maximum(told, 1e-6)
        off = np.sort(np.maximum(whole / told, told / whole) - 1)
        rank = min(len(off), math.ceil((len(off) + 1) * _LEVEL))
        return cls(
            regressor,
            blocks,
            keys,
            tuple(map(float, _solved(rows, whole))),
            float(off[rank - 1]),
            len(whole),
            float(np.mean(np.abs(told / whole - 1))),
        )

    def alone_ms(self, kernels: Sequence[Kernel]) -> Floats:
        """Time of each kernel alone, (n,), ms, from the curve.

        It passes near what was measured, as near as the scatter of measurements allows.
        """
        seen = [self._seen(k) for k in kernels]
        distinct = list(dict.fromkeys(seen))
        curve = dict(zip(distinct, self.regressor.predict_ms(distinct), strict=True))
        found: Floats = np.array([curve[k] for k in seen])
        return found

    def _seen(self, kernel: Kernel) -> Kernel:
        return padded(kernel) if self.blocks else kernel

    def sums(self, network: OnnxNetwork) -> Floats:
        """`kernel_sums` of a network, (kernels, sums)."""
        return kernel_sums(network, self.alone_ms(network.kernels))

    def predict(self, network: OnnxNetwork, device: str = "", path: str = "") -> KernelPrediction:
        """Predict one network.

        Args:
            network: As `cut` gives it.
            device, path: What the advice names where a kernel is not covered.
        Raises:
            UncoveredOperator: A kernel lies far from all that was measured; it is named, with the
                command that measures it.
        """
        outside = [k for k in dict.fromkeys(network.kernels) if not self._within(k, _WITHIN)]
        far = [k for k in outside if not self._within(k, _REACH)]
        if far:
            raise UncoveredOperator(
                f"{device or 'the model'} has nothing like {far[0]} ({far[0].key})"
                + (f" and {len(far) - 1} more kernels" if far[1:] else "")
                + f". Measure what {network.name} needs:  phonenas profile --device {device or 'D'} "
                f"--kernels-of {path or network.name}"
            )
        rows = self.sums(network)
        ms = float(max(rows.sum(axis=0) @ np.array(self.coefficients), 1e-6))
        width = math.hypot(self.half_width, LATER_JOB)
        if outside:
            each = self.alone_ms(network.kernels)
            inside = set(outside)
            part = np.array([k in inside for k in network.kernels]) @ each / each.sum()
            width = (1 + width) * (1 + 0.5 * float(part) + _MODEST) - 1
        notes = network.notes
        if not self.networks:
            notes += ("UNCALIBRATED: fewer than 8 whole networks taught how kernels add up",)
        if outside:
            notes += (f"{len(outside)} kernels lie beyond what was measured, as {outside[0]}",)
        return KernelPrediction(ms, ms / (1 + width), ms * (1 + width), not outside, notes)

    def explain(self, network: OnnxNetwork) -> list[KernelShare]:
        """Each kernel's part in the predicted time; together they are the whole."""
        alone = self.alone_ms(network.kernels)
        parts = kernel_sums(network, alone) @ np.array(self.coefficients)
        return [
            KernelShare(s, float(p), float(a), s.kernel.key in self.measured)
            for s, p, a in zip(network.steps, parts, alone, strict=True)
        ]

    def missing(self, network: OnnxNetwork) -> list[Kernel]:
        """Kernels of a network that were not measured themselves."""
        return [k for k in dict.fromkeys(network.kernels) if k.key not in self.measured]

    @cached_property
    def _ranges(self) -> dict[str, tuple[Floats, Floats]]:
        rows: dict[str, list[list[float]]] = {}
        for kernel in map(self._seen, map(Kernel.parse, sorted(self.measured))):
            rows.setdefault(family(kernel), []).append(features(kernel))
        return {k: (np.min(v, axis=0), np.max(v, axis=0)) for k, v in rows.items()}

    def _within(self, kernel: Kernel, slack: float) -> bool:
        moved = kernel.reads + kernel.writes
        if kernel.macs < _SLIGHT_MACS and moved < _SLIGHT_NUMBERS and kernel.kind != "lrn":
            return True
        bounds = self._ranges.get(family(kernel))
        if bounds is None:
            return False
        row = np.asarray(features(self._seen(kernel)))
        if not kernel.macs:  # what it moves is what it costs, whatever the map's shape
            row, bounds = row[_MOVED], (bounds[0][_MOVED], bounds[1][_MOVED])
            slack = _REACH_MOVED if slack == _REACH else slack
        return bool(((row >= bounds[0] - slack) & (row <= bounds[1] + slack)).all())

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "version": 1,
            "sums": list(SUMS),
            "regressor": self.regressor.to_dict(),
            "blocks": self.blocks,
            "measured": sorted(self.measured),
            "coefficients": list(self.coefficients),
            "half_width": self.half_width,
            "networks": self.networks,
            "mape": None if math.isnan(self.mape) else self.mape,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> KernelLatencyModel:
        """Inverse of `to_dict`.

        Raises:
            UnsupportedFormat: Of another version, over other sums, or damaged.
        """
        try:
            if values["version"] != 1 or values["sums"] != list(SUMS):
                raise UnsupportedFormat(
                    f"a kernel model of version {values['version']!r} over {values['sums']!r}; this "
                    "phonenas reads version 1. Fit it anew:  phonenas fit"
                )
            coefficients = tuple(map(float, values["coefficients"]))
            if len(coefficients) != len(SUMS) or not np.isfinite(coefficients).all():
                raise ValueError(f"{len(coefficients)} coefficients")
            half_width = float(values["half_width"])
            if not 0 <= half_width < math.inf:
                raise ValueError(f"half width {half_width}")
            mape = values["mape"]
            return cls(
                KernelRegressor.from_dict(values["regressor"]),
                bool(values["blocks"]),
                frozenset(Kernel.parse(key).key for key in values["measured"]),
                coefficients,
                half_width,
                int(values["networks"]),
                math.nan if mape is None else float(mape),
            )
        except (KeyError, TypeError, ValueError, NotEnoughData) as error:
            if isinstance(error, UnsupportedFormat):
                raise
            raise UnsupportedFormat(f"the kernel model is damaged: {error}") from error


def _solved(rows: Floats, whole_ms: Floats) -> Floats:
    """Coefficients by relative least squares, within bounds, with a ridge towards their priors.

    Networks of an unusual make, as of grouped convolutions alone, miss by a quarter; Huber's weights
    keep them from moving all others.
    """
    from scipy.optimize import lsq_linear

    prior, low, high = (np.array(column) for column in zip(*SUMS.values(), strict=True))
    relative = rows / whole_ms[:, None]
    # Each column at unit size, so that one strength fits all.
    scale = np.sqrt(np.mean(relative**2, axis=0)) + 1e-9
    pull = math.sqrt(_RIDGE * len(rows))
    weights = np.ones(len(rows))
    for _ in range(_REWEIGHTED):
        system = np.vstack([weights[:, None] * relative / scale, pull * np.eye(len(prior))])
        aim = np.concatenate([weights, pull * prior * scale])
        found: Floats = lsq_linear(system, aim, bounds=(low * scale, high * scale)).x / scale
        off = np.abs(relative @ found - 1)
        bend = _HUBER * max(float(np.median(off)), _LEAST_OFF)
        weights = np.sqrt(np.minimum(1.0, bend / np.maximum(off, 1e-9)))
    return found
