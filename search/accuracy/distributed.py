"""Distributed: networks estimated on workers, by an estimator that computes in one process.

Each worker process builds the estimator once and keeps it. By the contract of estimators its
answers do not depend on where it computes. Its digest is compared, since the worker may be another
computer, with a folder or a GPU of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from phonenas.space import Architecture
from phonenas.space.errors import SettingsChanged

from ..cluster.workers import Needs, Workers
from .estimator import Accuracy, AccuracyEstimator

__all__ = ["Distributed", "distributed", "estimate_on"]

_kept: list[AccuracyEstimator] = []  # of this process: the latest one


class Distributed(AccuracyEstimator):
    """The same answers, from several processes.

    Args:
        estimator: Built here, for its digest, its note and its cost; it estimates nothing here.
        make: Its class, or a function of a module, by which a worker builds it.
        given: The keyword arguments of `make`; plain values, arrays and image sets.
        workers: Who estimates.
    """

    def __init__(
        self,
        estimator: AccuracyEstimator,
        make: Callable[..., AccuracyEstimator],
        given: dict[str, Any],
        workers: Workers,
    ) -> None:
        self._within, self._make, self._given, self._workers = estimator, make, given, workers
        self.name, self.note, self.slow = estimator.name, estimator.note, True
        self.quantity, self.schedule = estimator.quantity, estimator.schedule
        self._seconds: list[float] = []

    @property
    def digest(self) -> str:
        return self._within.digest

    @property
    def cost_s(self) -> float:
        return float(np.mean(self._seconds)) if self._seconds else self._within.cost_s

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        return self.gathered(architectures)

    def estimate_each(
        self, architectures: Sequence[Architecture], on_result: Callable[[int, Accuracy], None]
    ) -> None:
        """One call a network: a network costs seconds, a call a few milliseconds."""

        def take(row: int, answer: Accuracy) -> None:
            self._seconds.append(answer.seconds[0])
            on_result(row, answer)

        # The large arguments are the same objects in every call, so that they travel once.
        calls = [(self._make, self._given, self.digest, str(a)) for a in architectures]
        self._workers.map(estimate_on, calls, needs=Needs(cpus=1.0), on_result=take)


def distributed(
    make: Callable[..., AccuracyEstimator], given: dict[str, Any], workers: Workers | None
) -> AccuracyEstimator:
    """An estimator of this process, or a `Distributed` where there are workers.

    Args:
        make, given, workers: As for `Distributed`.
    """
    local = make(**given)
    return local if workers is None else Distributed(local, make, given, workers)


def estimate_on(
    make: Callable[..., AccuracyEstimator], given: dict[str, Any], digest: str, network: str
) -> Accuracy:
    """The task: the answer for one network, `seconds` included.

    Raises:
        SettingsChanged: The estimator that was built here differs from the caller's.
        PhonenasError: As the estimator's own.
    """
    if not _kept or _kept[0].digest != digest:
        _kept[:] = [make(**given)]
        if _kept[0].digest != digest:
            here = _kept.pop().digest
            raise SettingsChanged(
                f"a worker's estimator is {here}, that of the command {digest}: it has another "
                "file, another device or other libraries. Give every node the same, or leave "
                "--workers and --ray out."
            )
    answers: list[Accuracy] = []
    _kept[0].estimate_each([Architecture.parse(network)], lambda row, one: answers.append(one))
    return answers[0]
