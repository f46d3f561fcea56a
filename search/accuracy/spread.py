"""Spread: networks judged on workers by an estimator that computes in one process.

Each worker process builds the estimator once and keeps it. Who judges makes no difference, by the
contract of estimators; that the worker's has the same digest is looked at, since it may be another
computer, with a folder or a GPU of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...space import Architecture
from ...space.errors import SettingsChanged
from ..workers import Needs, Workers
from .estimator import Accuracy, AccuracyEstimator

__all__ = ["Spread", "judge_on"]

_kept: list[AccuracyEstimator] = []  # of this process: the last one that it was asked for


class Spread(AccuracyEstimator):
    """The same answers, from several processes.

    Args:
        estimator: Built here, for its digest, its note and its cost; it judges nothing here.
        make: Its class, or a function of the package, by which a worker builds it.
        given: The keyword arguments of `make`; plain values, arrays and image sets.
        workers: Who judges.
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
        """One call a network: they cost seconds, a call a few milliseconds."""

        def take(place: int, told: dict[str, Any]) -> None:
            self._seconds.append(told["seconds"])
            on_result(
                place,
                Accuracy(
                    np.array([told["top1"]]), np.array([told["standard_error"]]),
                    np.array([told["outside"]]), (told["failed"],) if told["failed"] else (),
                    (told["seconds"],),
                ),
            )  # fmt: skip

        # The heavy arguments first and alike in every call, so that they travel once a node.
        calls = [(self._make, self._given, self.digest, str(a)) for a in architectures]
        self._workers.map(judge_on, calls, needs=Needs(cpus=1.0), on_result=take)


def judge_on(
    make: Callable[..., AccuracyEstimator], given: dict[str, Any], digest: str, network: str
) -> dict[str, Any]:
    """The task: one network's answer, as plain values.

    Raises:
        SettingsChanged: What was built here is another estimator than the asker's.
        PhonenasError: As the estimator's own.
    """
    if not _kept or _kept[0].digest != digest:
        _kept[:] = [make(**given)]
        if _kept[0].digest != digest:
            found = _kept.pop().digest
            raise SettingsChanged(
                f"a worker's estimator is {found}, the asker's {digest}: another file, another device "
                "or other libraries there. Let every node see the same, or leave --workers and --ray out."
            )
    began = time.monotonic()
    told = _kept[0].estimate([Architecture.parse(network)])
    return {
        "top1": float(told.top1[0]),
        "standard_error": float(told.standard_error[0]),
        "outside": bool(told.outside[0]),
        "failed": told.failed[0] if told.failed else "",
        "seconds": told.seconds[0] if told.seconds else time.monotonic() - began,
    }
