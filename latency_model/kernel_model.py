"""The time of a kernel from its shapes: costs of what it does, and the factor that remains.

`kernel_features` makes numbers of a kernel, `kernel_process` learns from them; here they become
a model that is fitted, asked, examined and kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt

from ..space.errors import InvalidArgument, NotEnoughData, UnsupportedFormat
from ..space.kernel import Kernel
from .kernel_features import FAMILIES, FEATURES, WORK, Paths, View, family, features
from .kernel_process import COUNT, Process, per_output, settle

__all__ = ["FAMILIES", "FEATURES", "MINIMUM", "KernelRegressor", "family", "features"]

Floats = npt.NDArray[np.float64]

MINIMUM = 20  # kernels; fewer teach no curve
_FOLDS = 5
_ODD = 1.0  # logarithm of the factor up to which a kernel may stand off its likes, ...
_ODD_SPREADS = 6.0  # ... or so many median errors
_SIFTINGS = 3
_SIZES = 11  # of the features: the rest are proportions, and what is folded
_STRANGE = 0.35
_ALIKE = 4  # kernels of one window that tell its cost
_SHARED = 2 / 3  # between 4/9, for reads shared four to nine, and one
_MOSTLY = 0.8  # share of kernels below which it is the model that is wrong


class KernelRegressor:
    """Predicts a kernel's time from its shapes.

    Lifetime: made by `fit`, or by `from_dict` from what `to_dict` gives.

    Attributes:
        mape: Mean relative error on kernels that were held out, by 5-fold cross-validation.

    Example:
        >>> taught = [Kernel("conv", c, d, (p, p), (p, p), k)
        ...           for c in (8, 16, 32, 64) for d in (16, 64) for p in (7, 14, 28)
        ...           for k in ((1, 1), (3, 3))]
        >>> model = KernelRegressor.fit(taught, [0.01 + k.macs / 1e9 for k in taught])
        >>> new = Kernel("conv", 24, 64, (14, 14), (14, 14), (3, 3))
        >>> bool(abs(model.predict_ms([new])[0] / (0.01 + new.macs / 1e9) - 1) < 0.05)
        True
    """

    def __init__(
        self,
        kernels: Sequence[Kernel],
        ms: Floats,
        repeats: Floats,
        strengths: Floats,
        inflation: float,
        mape: float,
        paths: Paths,
        trees: str | None = None,
    ) -> None:
        self.kernels, self.ms, self.repeats = tuple(kernels), ms, repeats
        self.strengths, self.inflation, self.mape = strengths, inflation, mape
        self._paths, self._trees = paths, trees
        self._solved: Process | None = None
        self._windows: set[tuple[object, ...]] | None = None
        self._ranges: dict[str, tuple[Floats, Floats]] | None = None

    @classmethod
    def fit(
        cls,
        kernels: Sequence[Kernel],
        ms: npt.ArrayLike,
        variants: Sequence[str] | None = None,
        like: KernelRegressor | None = None,
    ) -> KernelRegressor:
        """Learn from measured kernels.

        Args:
            kernels: What was measured, (n,); the same may come repeatedly.
            ms: Time of each, (n,), ms, > 0.
            variants: Which code the runtime took for each, (n,), where it tells, as "winograd";
                for other kernels a tree over shapes predicts it.
            like: A model of the same device whose strengths and examination are taken over, to be
                quicker.
        Raises:
            InvalidArgument: Lengths differ, or a time is not positive and finite.
            NotEnoughData: Fewer than 20 different kernels.
        """
        times = np.asarray(ms, np.float64)
        if times.shape != (len(kernels),):
            raise InvalidArgument(f"{len(kernels)} kernels, but times of shape {times.shape}")
        if not (np.isfinite(times) & (times > 0)).all():
            raise InvalidArgument("a kernel's time must be positive and finite, in ms")
        logs: dict[Kernel, list[float]] = {}
        for kernel, value in zip(kernels, times, strict=True):
            logs.setdefault(kernel, []).append(log(value))
        if len(logs) < MINIMUM:
            raise NotEnoughData(f"{len(logs)} kernels teach no curve; it takes {MINIMUM}")
        known = list(logs)
        merged = np.exp([np.median(v) for v in logs.values()])
        repeats = np.array([len(v) for v in logs.values()], np.float64)
        paths = Paths.learn(kernels, variants) if variants is not None else Paths({})
        if variants is not None:
            paths.tiled = _tiled(known, merged) if like is None else like._paths.tiled
        view = View(known, paths)
        if like is not None:
            kept = like.strengths, like.inflation, like.mape
            return cls(known, merged, repeats, *kept, paths)
        many, dropped = len(known), [np.empty(0)]
        for _ in range(_SIFTINGS):
            strengths = settle(view, merged, repeats)
            off, spread = _examined(view, merged, repeats, strengths)
            sound = np.abs(off) <= max(_ODD, _ODD_SPREADS * float(np.median(np.abs(off))))
            if sound.all() or sound.sum() < many * _MOSTLY:
                break
            # A row that its likes contradict so far is another kernel's: tables have such swaps.
            known = [k for k, good in zip(known, sound, strict=True) if good]
            view, merged, repeats = view[sound], merged[sound], repeats[sound]
            dropped.append(off[~sound])
            off, spread = off[sound], spread[sound]
        # The tails of a few odd kernels must not widen every interval.
        inflation = float(np.sqrt(np.mean(np.minimum((off / spread) ** 2, 9.0))))
        mape = float(np.mean(np.abs(np.expm1(np.concatenate([off, *dropped])))))
        return cls(known, merged, repeats, strengths, max(inflation, 0.3), mape, paths)

    def predict_ms(self, kernels: Sequence[Kernel]) -> Floats:
        """Time of each kernel alone, (n,), in ms."""
        if not kernels:
            return np.empty(0)
        found: Floats = np.exp(self._load().predict(View(kernels, self._paths))[0])
        return found

    def doubt(self, kernels: Sequence[Kernel]) -> Floats:
        """Relative standard error of each prediction, (n,); larger far from what was taught.

        A window or stride that its family was never measured with may run code of its own, which
        no curve foresees: that adds 0.35, a winograd's or a special loop's usual share.
        """
        if not kernels:
            return np.empty(0)
        if self._windows is None:
            self._windows = {_window(k) for k in self.kernels}
        strange = np.array([_STRANGE * (_window(k) not in self._windows) for k in kernels])
        own = self._load().predict(View(kernels, self._paths))[1] * self.inflation
        found: Floats = np.hypot(own, strange)
        return found

    def unusual(self, kernels: Sequence[Kernel]) -> npt.NDArray[np.bool_]:
        """Whether the runtime takes another code for it than for most of its family, (n,).

        Predicted from shapes; never where `fit` was told no variants.
        """
        return np.array([self._paths.code(k) >= len(FAMILIES) for k in kernels], bool)

    def reaches(self, kernel: Kernel) -> bool:
        """Whether the kernel's sizes lie within those that were measured of its family."""
        if self._ranges is None:
            self._ranges = {}
            view = View(self.kernels, self._paths)
            named = np.array([family(k) for k in self.kernels])
            for name in dict.fromkeys(named):
                rows = view.rows[named == name][:, :_SIZES]
                self._ranges[name] = rows.min(axis=0), rows.max(axis=0)
        bounds = self._ranges.get(family(kernel))
        if bounds is None:
            return False
        row = np.asarray(features(kernel)[:_SIZES])
        return bool(((row >= bounds[0] - 1e-9) & (row <= bounds[1] + 1e-9)).all())

    def _load(self) -> Process:
        if self._solved is None:
            view = View(self.kernels, self._paths)
            self._solved = Process(view, self.ms, self.repeats, self.strengths, self._trees)
        return self._solved

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "families": list(FAMILIES),
            "work": list(WORK),
            "features": list(FEATURES),
            "kernels": [k.key for k in self.kernels],
            "ms": [float(f"{v:.6g}") for v in self.ms],
            "repeats": [int(v) for v in self.repeats],
            "strengths": [float(v) for v in self.strengths],
            "inflation": self.inflation,
            "mape": self.mape,
            "paths": self._paths.trees,
            "tiled": self._paths.tiled,
            "booster": self._load().trees,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> KernelRegressor:
        """Inverse of `to_dict`.

        Raises:
            UnsupportedFormat: It was written over other features.
            ValueError: It is damaged.
        """
        for name, known in (("families", FAMILIES), ("work", WORK), ("features", FEATURES)):
            if values[name] != list(known):
                raise UnsupportedFormat(f"the kernel model has other {name}; fit it anew")
        kernels = [Kernel.parse(key) for key in values["kernels"]]
        ms, repeats = (np.asarray(values[name], np.float64) for name in ("ms", "repeats"))
        strengths = np.asarray(values["strengths"], np.float64)
        if not len(kernels) == len(ms) == len(repeats) or len(strengths) != COUNT:
            raise ValueError(f"{len(kernels)} kernels, {len(ms)} times, {len(strengths)} strengths")
        if not (np.isfinite(ms).all() and ms.min() > 0 and np.isfinite(strengths).all()):
            raise ValueError("times and strengths must be finite")
        return cls(
            kernels,
            ms,
            repeats,
            strengths,
            float(values["inflation"]),
            float(values["mape"]),
            Paths.from_dict(values["paths"], bool(values.get("tiled", False))),
            str(values["booster"]),
        )


def _tiled(kernels: Sequence[Kernel], ms: Floats) -> bool:
    """Whether depthwise 3×3 kernels must share their reads, as average pools show, which do not.

    A depthwise kernel that reads every number of its window cannot be quicker than such a pool.
    """
    costs = []
    for name in ("depthwise", "average_pool"):
        at = [i for i, k in enumerate(kernels) if _window(k) == (name, (3, 3), (1, 1))]
        if len(at) < _ALIKE:
            return False
        costs.append(per_output(View([kernels[i] for i in at]), ms[at]))
    return costs[0] < _SHARED * costs[1]


def _window(kernel: Kernel) -> tuple[object, ...]:
    return family(kernel), kernel.kernel, kernel.stride


def _examined(view: View, ms: Floats, repeats: Floats, strengths: Floats) -> tuple[Floats, Floats]:
    """Errors and deviations of the logarithm on kernels held out, each (n,)."""
    fold = np.random.default_rng(0).permutation(len(ms)) % _FOLDS
    off, spread = np.empty(len(ms)), np.empty(len(ms))
    for held in range(_FOLDS):
        seen, asked = fold != held, fold == held
        process = Process(view[seen], ms[seen], repeats[seen], strengths)
        mean, deviation = process.predict(view[asked])
        off[asked], spread[asked] = mean - np.log(ms[asked]), deviation
    return off, spread
