"""The time of a kernel from its shapes.

`kernel_features` makes numbers of a kernel, `kernel_process` is fitted on them; here is the
regressor: fitted, cross-validated, saved and loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import log
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from phonenas.data.documents import Ms, Text, strict
from phonenas.space.errors import InvalidArgument, NotEnoughData, UnsupportedFormat
from phonenas.space.kernels.kernel import Kernel

from .kernel_features import FAMILIES, FEATURES, WORK, Paths, View, family, features
from .kernel_process import COUNT, Process, hyperparameters_of, per_output

__all__ = ["FAMILIES", "FEATURES", "MINIMUM", "SIZES", "KernelRegressor", "family", "features"]

Floats = npt.NDArray[np.float64]

MINIMUM = 20  # kernels; fewer are not enough for a fit
_FOLDS = 5
_ODD = 1.5  # logarithm of the factor by which a kernel may differ from similar ones, ...
_ODD_SPREADS = 6.0  # ... or so many median errors
_SIMILAR = 8  # kernels of one code, below which none contradicts another
_PASSES = 3  # of leaving odd kernels out
SIZES = 11  # of the features: the rest are proportions, and what is folded
_UNLIKE = 1.0  # standard error of a kernel of a file's own, or of a family, that nothing measured
_STRANGE = 0.35  # standard error of a window that was never measured
_ENOUGH = 4  # kernels of one window that determine its cost
_SHARED = 2 / 3  # between 4/9, for reads shared four to nine, and one
_MOSTLY = 0.8  # share of kernels below which it is the model that is wrong


@dataclass(frozen=True, kw_only=True, eq=False)
class KernelRegressor:
    """Predicts a kernel's time from its shapes.

    Lifetime: made by `fit`, or by `from_dict` from what `to_dict` gives.

    Args:
        kernels: n distinct ones that were measured.
        ms, repeats: Median time of each, ms, and how often it was measured, (n,).
        hyperparameters: Of the process, (COUNT,).
        interval_scale: Factor of the process's own standard errors.
        mape: Mean relative error on kernels that were left out, by five-fold cross-validation.
        paths: Which code the runtime takes for a kernel.
        trees: The boosted trees as text; by default they are grown when first needed.

    Example:
        >>> measured = [Kernel("conv", c, d, (p, p), (p, p), k)
        ...             for c in (8, 16, 32, 64) for d in (16, 64) for p in (7, 14, 28)
        ...             for k in ((1, 1), (3, 3))]
        >>> model = KernelRegressor.fit(measured, [0.01 + k.macs / 1e9 for k in measured])
        >>> new = Kernel("conv", 24, 64, (14, 14), (14, 14), (3, 3))
        >>> bool(abs(model.predict_ms([new])[0] / (0.01 + new.macs / 1e9) - 1) < 0.05)
        True
    """

    kernels: tuple[Kernel, ...]
    ms: Floats
    repeats: Floats
    hyperparameters: Floats
    interval_scale: float
    mape: float
    paths: Paths
    trees: str | None = None

    @classmethod
    def fit(
        cls,
        kernels: Sequence[Kernel],
        ms: npt.ArrayLike,
        variants: Sequence[str] | None = None,
        settings: KernelRegressor | None = None,
    ) -> KernelRegressor:
        """Fit on measured kernels.

        Args:
            kernels: What was measured, (n,); the same may come repeatedly.
            ms: Time of each, (n,), ms, > 0.
            variants: Which code the runtime took for each, (n,), where it says so, as "winograd";
                for other kernels a tree over shapes predicts it.
            settings: A regressor of the same device whose hyperparameters, interval scale and
                error are taken over, which is quicker.
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
            raise NotEnoughData(f"{len(logs)} kernels are too few for a fit; it takes {MINIMUM}")
        known = list(logs)
        merged = np.exp([np.median(v) for v in logs.values()])
        repeats = np.array([len(v) for v in logs.values()], np.float64)
        paths = Paths({})
        if variants is not None:
            tiled = _tiled(known, merged) if settings is None else settings.paths.tiled
            paths = Paths.fit(kernels, variants, tiled)
        if settings is not None:
            return replace(
                settings, kernels=tuple(known), ms=merged, repeats=repeats, paths=paths, trees=None
            )
        # Kernels of files' own are known as they were measured, and teach nothing of others.
        teaches = _teaches(known)
        own = [i for i, t in enumerate(teaches) if not t]
        alone = [known[i] for i in own], merged[own], repeats[own]
        known = [k for k, t in zip(known, teaches, strict=True) if t]
        merged, repeats = merged[teaches], repeats[teaches]
        view = View(known, paths)
        many, dropped = len(known), [np.empty(0)]
        for _ in range(_PASSES):
            hyperparameters = hyperparameters_of(view, merged, repeats)
            error, spread = _cross_validated(view, merged, repeats, hyperparameters)
            sound = np.abs(error) <= max(_ODD, _ODD_SPREADS * float(np.median(np.abs(error))))
            sound |= np.sum(view.family[:, None] == view.family, axis=1) < _SIMILAR
            if sound.all() or sound.sum() < many * _MOSTLY:
                break
            # A row that similar ones contradict so far is another kernel's: tables have such swaps.
            known = [k for k, good in zip(known, sound, strict=True) if good]
            view, merged, repeats = view[sound], merged[sound], repeats[sound]
            dropped.append(error[~sound])
            error, spread = error[sound], spread[sound]
        # The tails of a few odd kernels must not widen every interval.
        scale = float(np.sqrt(np.mean(np.minimum((error / spread) ** 2, 9.0))))
        return cls(
            kernels=(*known, *alone[0]),
            ms=np.concatenate([merged, alone[1]]),
            repeats=np.concatenate([repeats, alone[2]]),
            hyperparameters=hyperparameters,
            interval_scale=max(scale, 0.3),
            mape=float(np.mean(np.abs(np.expm1(np.concatenate([error, *dropped]))))),
            paths=paths,
        )

    def predict_ms(self, kernels: Sequence[Kernel]) -> Floats:
        """Time of each kernel alone, (n,), in ms; of a file's own as it was measured, if it was."""
        if not kernels:
            return np.empty(0)
        ms: Floats = np.exp(self._process.predict(View(kernels, self.paths))[0])
        for at, kernel in enumerate(kernels):
            if kernel in self._own:
                ms[at] = self._own[kernel]
        return ms

    def standard_error(self, kernels: Sequence[Kernel]) -> Floats:
        """Relative standard error of each prediction, (n,); larger far from what was measured.

        A window or stride that its family was never measured with, or an activation of another
        name, may run code of its own, which the shapes do not show: that adds 0.35, the usual share
        of a winograd or a special loop. A kernel of a file's own that was not measured, or one of a
        family of which nothing was, is known by what it moves and multiplies alone: 1.0.
        """
        if not kernels:
            return np.empty(0)
        unlike = np.array([_UNLIKE * (not self._likened(k)) for k in kernels])
        strange = np.array(
            [_STRANGE * (not self.knows(k) or _window(k) not in self._windows) for k in kernels]
        )
        own = self._process.predict(View(kernels, self.paths))[1] * self.interval_scale
        error: Floats = np.hypot(np.hypot(own, strange), unlike)
        return error

    def _likened(self, kernel: Kernel) -> bool:
        return kernel in self._own if kernel.kind == "node" else family(kernel) in self._ranges

    @cached_property
    def _own(self) -> dict[Kernel, float]:
        """Times of kernels of files' own, ms."""
        pairs = zip(self.kernels, self.ms, strict=True)
        return {k: float(ms) for k, ms in pairs if k.kind == "node"}

    def unusual(self, kernels: Sequence[Kernel]) -> npt.NDArray[np.bool_]:
        """Whether the runtime takes another code for it than for most of its family, (n,).

        Predicted from shapes; never where `fit` was given no variants.
        """
        trees = self.paths.trees
        return np.array(
            [family(k) in trees and self.paths.code(k) >= len(FAMILIES) for k in kernels], bool
        )

    def reaches(self, kernel: Kernel) -> bool:
        """Whether the kernel's sizes lie within those that were measured of its family."""
        bounds = self._ranges.get(family(kernel))
        if bounds is None:
            return False
        row = np.asarray(features(kernel)[:SIZES])
        return bool(((row >= bounds[0] - 1e-9) & (row <= bounds[1] + 1e-9)).all())

    def knows(self, kernel: Kernel) -> bool:
        """Whether a kernel that stands alone computes what was measured, as an activation."""
        return kernel.kind == "conv" or _operation(kernel) in self._operations

    @cached_property
    def _operations(self) -> set[tuple[object, ...]]:
        return {_operation(k) for k in self.kernels}

    @cached_property
    def _windows(self) -> set[tuple[object, ...]]:
        return {_window(k) for k in self.kernels}

    @cached_property
    def _ranges(self) -> dict[str, tuple[Floats, Floats]]:
        rows: dict[str, list[list[float]]] = {}
        for kernel in self.kernels:
            rows.setdefault(family(kernel), []).append(features(kernel)[:SIZES])
        return {name: (np.min(r, axis=0), np.max(r, axis=0)) for name, r in rows.items()}

    @cached_property
    def _process(self) -> Process:
        teaches = _teaches(self.kernels)
        view = View([k for k, t in zip(self.kernels, teaches, strict=True) if t], self.paths)
        ms, repeats = self.ms[teaches], self.repeats[teaches]
        return Process(view, ms, repeats, self.hyperparameters, self.trees)

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "families": list(FAMILIES),
            "work": list(WORK),
            "features": list(FEATURES),
            "kernels": [k.key for k in self.kernels],
            "ms": [float(f"{v:.6g}") for v in self.ms],
            "repeats": [int(v) for v in self.repeats],
            "strengths": [float(v) for v in self.hyperparameters],
            "inflation": self.interval_scale,
            "mape": self.mape,
            "paths": self.paths.trees,
            "tiled": self.paths.tiled,
            "booster": self._process.trees,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> KernelRegressor:
        """Inverse of `to_dict`.

        Raises:
            UnsupportedFormat: It was written over other features.
            ValueError: It is damaged.
        """
        file = strict(values, _File)
        for name, known in (("families", FAMILIES), ("work", WORK), ("features", FEATURES)):
            if getattr(file, name) != list(known):
                raise UnsupportedFormat(
                    f"the kernel model has other {name}; fit it again:  phonenas fit"
                )
        kernels, p = [Kernel.parse(key) for key in file.kernels], file.strengths
        if not len(kernels) == len(file.ms) == len(file.repeats) or len(p) != COUNT:
            raise ValueError(
                f"{len(kernels)} kernels, {len(file.ms)} times, {len(p)} hyperparameters"
            )
        return cls(
            kernels=tuple(kernels),
            ms=np.array(file.ms),
            repeats=np.array(file.repeats, np.float64),
            hyperparameters=np.array(p),
            interval_scale=file.inflation,
            mape=file.mape,
            paths=Paths.from_dict(file.paths, file.tiled),
            trees=file.booster,
        )


def _teaches(kernels: Sequence[Kernel]) -> npt.NDArray[np.bool_]:
    """Which kernels a fit learns from, (n,): not files' own, where there are enough others."""
    common = np.array([k.kind != "node" for k in kernels], bool)
    return common if common.sum() >= MINIMUM else np.ones(len(kernels), bool)


class _File(msgspec.Struct):
    families: list[Text]
    work: list[Text]
    features: list[Text]
    kernels: Annotated[list[Text], Meta(min_length=1)]
    ms: list[Ms]
    repeats: list[Annotated[int, Meta(ge=1, le=1 << 30)]]
    strengths: list[Annotated[float, Meta(ge=-100, le=100)]]
    inflation: Annotated[float, Meta(gt=0, le=1e6)]
    mape: Annotated[float, Meta(ge=0, le=1e6)]
    paths: dict[str, Any]
    booster: str
    tiled: bool = False


def _tiled(kernels: Sequence[Kernel], ms: Floats) -> bool:
    """Whether depthwise 3×3 kernels must share their reads: they are quicker than average pools.

    A depthwise kernel that reads every number of its window cannot be quicker than such a pool.
    """
    costs = []
    for name in ("depthwise", "average_pool"):
        at = [i for i, k in enumerate(kernels) if _window(k) == (name, (3, 3), (1, 1))]
        if len(at) < _ENOUGH:
            return False
        costs.append(per_output(View([kernels[i] for i in at]), ms[at]))
    return costs[0] < _SHARED * costs[1]


def _window(kernel: Kernel) -> tuple[object, ...]:
    return family(kernel), kernel.kernel, kernel.stride


def _operation(kernel: Kernel) -> tuple[object, ...]:
    if kernel.kind == "node":
        return kernel.kind, kernel.fused[:1]
    return kernel.kind, kernel.fused if kernel.kind in ("activation", "move") else ()


def _cross_validated(
    view: View, ms: Floats, repeats: Floats, hyperparameters: Floats
) -> tuple[Floats, Floats]:
    """Errors and deviations of the logarithm on kernels left out, each (n,)."""
    fold = np.random.default_rng(0).permutation(len(ms)) % _FOLDS
    error, spread = np.empty(len(ms)), np.empty(len(ms))
    for k in range(_FOLDS):
        out, rest = fold == k, fold != k
        process = Process(view[rest], ms[rest], repeats[rest], hyperparameters)
        mean, spread[out] = process.predict(view[out])
        error[out] = mean - np.log(ms[out])
    return error, spread
