"""Quantised: any estimator of float32's top-1, for networks that are written in int8."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from phonenas.space import Architecture, Genomes, SearchSpace
from phonenas.space.errors import InvalidArgument
from phonenas.space.narrowed import PrecisionChoice

from ..cache import kept
from ..estimator import Accuracy, AccuracyEstimator
from .change import AccuracyChange, published_change

__all__ = ["INTEGERS", "InPrecisions", "Quantised", "in_precision"]

#: Precisions whose weights have 8 bits. Of `int8-dynamic` no pairs are published: it is taken to
#: lose what `int8` does, whose feature maps have 8 bits, too.
INTEGERS = ("int8", "int8-dynamic")


def in_precision(
    estimator: AccuracyEstimator, precision: str, change: AccuracyChange | None = None
) -> AccuracyEstimator:
    """An estimator for networks in a precision: itself for floats, of 16 bits as of 32, and where
    its numbers are no top-1 but ranks."""
    if precision not in INTEGERS or estimator.quantity != AccuracyEstimator.quantity:
        return estimator
    return Quantised(estimator, change)


class Quantised(AccuracyEstimator):
    """Top-1 of networks in int8: what an estimator says of float32, and the change.

    Args:
        base: Of networks in float32.
        change: What int8 changes; by default as published.
    """

    def __init__(self, base: AccuracyEstimator, change: AccuracyChange | None = None) -> None:
        self.base, self.change = base, change or published_change()
        self.name, self.quantity, self.schedule = base.name, base.quantity, base.schedule
        self.slow, self.options, self.epochs = base.slow, base.options, base.epochs
        self.ancestry = base.ancestry
        self.note = f"{base.note}; {self.change}" if base.note else str(self.change)

    @property
    def settings(self) -> dict[str, Any]:
        change = self.change
        said = {"growth": change.growth, "standard_error": change.standard_error}
        return {**super().settings, "quantisation": {**said, "measured": change.measured}}

    @property
    def digest(self) -> str:
        both = f"{self.base.digest} int8 {self.change.digest}"
        return hashlib.sha256(both.encode()).hexdigest()[:12]

    @property
    def cost_s(self) -> float:
        return self.base.cost_s

    def after(self, epochs: int, folder: Path | None = None) -> Quantised:
        """What int8 makes of the base's accuracy then."""
        return Quantised(self.base.after(epochs, folder), self.change)

    def epoch_s(self, architectures: Sequence[Architecture]) -> float:
        return self.base.epoch_s(architectures)

    def cached(self, path: Path) -> Quantised:
        """The same; the answers of a slow base, which are of float32, are kept in a file."""
        same = Quantised(kept(self.base, path), self.change)
        same.options = self.options
        return same

    def _changed(self, accuracy: Accuracy) -> Accuracy:
        top1, error = self.change.of(accuracy.top1, accuracy.standard_error)
        return replace(accuracy, top1=top1, standard_error=error)

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        return self._changed(self.base.estimate(architectures))

    def estimate_each(
        self, architectures: Sequence[Architecture], on_result: Callable[[int, Accuracy], None]
    ) -> None:
        self.base.estimate_each(
            architectures, lambda row, answer: on_result(row, self._changed(answer))
        )

    def on(self, space: SearchSpace) -> Callable[[Genomes], Accuracy]:
        of_base = self.base.on(space)
        return lambda genomes: self._changed(of_base(genomes))


class InPrecisions(AccuracyEstimator):
    """Top-1 of a space's networks in the precision of each genome.

    The base is asked once for each genome, whatever its precision. By a network's text alone, which
    names no precision, it is that of the base.

    Args:
        base: Of networks in float32.
        change: What int8 changes; by default as published.
    Raises:
        InvalidArgument: The base ranks networks without a top-1, so that precisions cannot be
            compared.
    """

    def __init__(self, base: AccuracyEstimator, change: AccuracyChange | None = None) -> None:
        if base.quantity != AccuracyEstimator.quantity:
            raise InvalidArgument(
                f"{base.name} gives no top-1 ({base.quantity}), so what int8 changes of it is not "
                "known: search in one precision, or by another --accuracy"
            )
        self.base, self._small = base, Quantised(base, change)
        self.name, self.quantity, self.schedule = base.name, base.quantity, base.schedule
        self.note, self.options, self.epochs = self._small.note, base.options, base.epochs
        self.ancestry = base.ancestry

    @property
    def settings(self) -> dict[str, Any]:
        return {**self._small.settings, **super().settings}

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self._small.digest} or float32".encode()).hexdigest()[:12]

    @property
    def cost_s(self) -> float:
        return self.base.cost_s

    def after(self, epochs: int, folder: Path | None = None) -> InPrecisions:
        """By the base's accuracy then."""
        return InPrecisions(self.base.after(epochs, folder), self._small.change)

    def epoch_s(self, architectures: Sequence[Architecture]) -> float:
        return self.base.epoch_s(architectures)

    def of(self, precision: str) -> AccuracyEstimator:
        """The estimator of one precision."""
        return in_precision(self.base, precision, self._small.change)

    def cached(self, path: Path) -> InPrecisions:
        """The same; the answers of a slow base are kept in a file."""
        same = InPrecisions(kept(self.base, path), self._small.change)
        same.options = self.options
        return same

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        return self.base.estimate(architectures)

    def on(self, space: SearchSpace) -> Callable[[Genomes], Accuracy]:
        if not isinstance(space, PrecisionChoice):
            return self.base.on(space)
        of_base, change = self.base.on(space.base), self._small.change
        precisions = [precision for precision in space.precisions if precision in INTEGERS]

        def of(genomes: Genomes) -> Accuracy:
            found = of_base(genomes[:, :-1])
            top1, error = change.of(found.top1, found.standard_error)
            rows = [space.rows_in(precision, genomes) for precision in precisions]
            small = np.zeros(len(genomes), bool)
            small[np.concatenate([np.empty(0, np.intp), *rows])] = True
            return replace(
                found,
                top1=np.where(small, top1, found.top1),
                standard_error=np.where(small, error, found.standard_error),
            )

        return of
