"""AccuracyEstimator: what a search asks how accurate a network will be.

A surrogate, a zero-cost score, a short training and a supernet all answer the same question, in
the same unit, with their doubt beside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...space import Architecture, Genomes, SearchSpace

__all__ = ["Accuracy", "AccuracyEstimator"]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Estimates for n networks, in the order in which they were asked for.

    Args:
        top1: Share of images named rightly at the first guess, (n,), in [0, 1]. Of which images
            and after which training, the estimator's docstring says.
        standard_error: One standard deviation of the doubt about `top1`, (n,), same unit, > 0.
        outside: The network lies beyond what the estimator has learned from, (n,), bool; its
            `top1` is an extrapolation.
    """

    top1: npt.NDArray[np.float64]
    standard_error: npt.NDArray[np.float64]
    outside: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.top1)


class AccuracyEstimator(ABC):
    """Top-1 of networks, with its doubt.

    Lifetime: built once, before a search; asked once per generation, by one thread. Between
    calls it may keep tables, weights or a process, and it never changes its mind: the same
    network gets the same answer from equal estimators, in any order and in any company. What is
    random in it comes from the seed it was built with. `on` is called once per search, and what
    it gives is called for each generation.
    """

    name: str

    @property
    @abstractmethod
    def digest(self) -> str:
        """A short hash of all that its answers depend on; a run's settings keep it.

        Estimators with equal digests give equal answers.
        """

    @property
    @abstractmethod
    def cost_s(self) -> float:
        """About how long one network takes, in seconds on one core or accelerator, ≥ 0."""

    @abstractmethod
    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        """Judge n networks; n may be 0.

        Raises:
            PhonenasError: A network that it cannot judge at all. One that it judges badly is
                no error: it comes back `outside`, with a wide `standard_error`.
        """

    def on(self, space: SearchSpace) -> Callable[[Genomes], Accuracy]:
        """The same judgement by genome, for populations of one space.

        Args:
            space: Whose genomes will be asked for.
        Returns:
            A function from genomes, (n, genes), to `Accuracy` of n networks; equal to `estimate`
            of the decoded networks. Here it decodes; an estimator that knows a faster way
            overrides it.
        """

        def judge(genomes: Genomes) -> Accuracy:
            return self.estimate([space.decode(row) for row in space.check(genomes)])

        return judge
