"""AccuracyEstimator: what a search asks how accurate a network will be.

A surrogate, a zero-cost score, a short training and a supernet all answer the same question, in
the same unit, with their doubt beside it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ...space import Architecture, Genomes, SearchSpace
from ...space.errors import InvalidArgument

__all__ = ["Accuracy", "AccuracyEstimator"]

_PORTION_S = 10.0  # of work, after which `estimate_each` hands over what it has


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Estimates for n networks, in the order in which they were asked for.

    A network may have failed: its training diverged, or it took more memory than there is. That
    is no low accuracy but none: `top1` and `standard_error` are NaN, and `failed` says why.

    Args:
        top1: Share of images named rightly at the first guess, (n,), in [0, 1]. Of which images
            and after which training, the estimator's docstring says. NaN where it failed.
        standard_error: One standard deviation of the doubt about `top1`, (n,), same unit, > 0.
            NaN where it failed.
        outside: The network lies beyond what the estimator has learned from, (n,), bool; its
            `top1` is an extrapolation.
        failed: Empty where all is well; else a text a network, "" for each that is well and the
            reason for each that failed.
        seconds: What each took, in seconds, ≥ 0; empty where the estimator does not tell.
    Raises:
        InvalidArgument: Shapes that do not agree, a number outside its range, or one that is
            NaN without a reason; the message says which.
    """

    top1: npt.NDArray[np.float64]
    standard_error: npt.NDArray[np.float64]
    outside: npt.NDArray[np.bool_]
    failed: tuple[str, ...] = ()
    seconds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        top1, error = np.asarray(self.top1, np.float64), np.asarray(self.standard_error, np.float64)
        outside, failed = np.asarray(self.outside, np.bool_), tuple(self.failed)
        if top1.ndim != 1 or not top1.shape == error.shape == outside.shape:
            raise InvalidArgument(
                f"accuracies have one shape (n,), got top1 {top1.shape}, standard_error "
                f"{error.shape} and outside {outside.shape}"
            )
        for name, told in (("reasons of failure", failed), ("seconds", self.seconds)):
            if len(told) not in (0, len(top1)):
                raise InvalidArgument(f"{len(top1)} accuracies with {len(told)} {name}")
        broken = np.array([bool(reason) for reason in failed], bool)
        if not broken.any():
            failed, broken = (), np.zeros(len(top1), bool)
        wrong = np.where(
            broken,
            ~(np.isnan(top1) & np.isnan(error)),
            ~((top1 >= 0) & (top1 <= 1) & (error > 0) & (error < np.inf)),
        )
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            why = f"failed ({failed[i]}), so both are NaN" if broken[i] else (
                "top-1 lies in [0, 1] and its error above 0; one that failed needs a reason"
            )  # fmt: skip
            raise InvalidArgument(
                f"network {i} has a top-1 of {top1[i]:g} with a standard error of {error[i]:g}: {why}"
            )
        for name, value in (
            ("top1", top1), ("standard_error", error), ("outside", outside), ("failed", failed),
            ("seconds", tuple(map(float, self.seconds))),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.top1)

    @property
    def well(self) -> npt.NDArray[np.bool_]:
        """Which networks have an accuracy, (n,)."""
        return ~np.isnan(self.top1)

    def take(self, rows: Sequence[int] | npt.NDArray[np.intp]) -> Accuracy:
        """Some of the networks, in the order of their numbers."""
        at = np.asarray(rows, np.intp)
        return Accuracy(
            self.top1[at],
            self.standard_error[at],
            self.outside[at],
            tuple(self.failed[i] for i in at) if self.failed else (),
            tuple(self.seconds[i] for i in at) if self.seconds else (),
        )

    @classmethod
    def joined(cls, parts: Iterable[Accuracy]) -> Accuracy:
        """Several after each other; of none at all, an `Accuracy` of no networks.

        Seconds are kept if all parts tell them.
        """
        found = [part for part in parts if len(part)]
        if not found:
            return cls(np.empty(0), np.empty(0), np.empty(0, np.bool_))
        told = all(part.seconds for part in found)
        return cls(
            np.concatenate([part.top1 for part in found]),
            np.concatenate([part.standard_error for part in found]),
            np.concatenate([part.outside for part in found]),
            tuple(reason for part in found for reason in (part.failed or ("",) * len(part))),
            tuple(s for part in found for s in part.seconds) if told else (),
        )

    @classmethod
    def failure(
        cls, reason: str, *, outside: bool = False, seconds: float | None = None
    ) -> Accuracy:
        """Of one network that failed.

        Raises:
            InvalidArgument: No reason.
        """
        if not reason:
            raise InvalidArgument("a network that failed needs a reason")
        none, took = np.array([np.nan]), () if seconds is None else (seconds,)
        return cls(none, none, np.array([outside]), (reason,), took)


class AccuracyEstimator(ABC):
    """Top-1 of networks, with its doubt.

    Lifetime: built once, before a search; asked once per generation, by one thread. Between
    calls it may keep tables, weights or a process, and it never changes its mind: the same
    network gets the same answer from equal estimators, in any order and in any company. What is
    random in it comes from the seed it was built with. `on` is called once per search, and what
    it gives is called for each generation.

    A network that cannot be given an accuracy, though another could (its training diverged, it
    does not fit into the memory), comes back `failed` with a reason, and the others go on. What
    stops all of them (no images, a lost cluster) is an error.

    Attributes:
        note: A line for people: on what scale its numbers are; "" where top-1 says it all.
        slow: Whether its answers are worth a file: a search then keeps them in its run folder.
    """

    name: str
    note: str = ""
    slow: bool = False

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
                no error: it comes back `outside`, with a wide `standard_error`. One whose
                judgement broke off is none either: it comes back `failed`.
        """

    def estimate_each(
        self, architectures: Sequence[Architecture], on_result: Callable[[int, Accuracy], None]
    ) -> None:
        """Judge n networks, and hand over each as soon as it is known.

        So a cache keeps what is done when the rest is stopped. Here the networks are judged by
        `estimate`, in portions of ten seconds by `cost_s`, at least one each. An estimator that
        judges several side by side overrides this (`Workers.map` has a like `on_result`) and
        gathers its `estimate` from it, as `gathered` does.

        Args:
            architectures: In any order, without repeats.
            on_result: Called once a network, with its place in `architectures` and an `Accuracy`
                of that one, its `seconds` told, in any order, in the thread that asked.
        Raises:
            PhonenasError: As `estimate`; what was handed over by then counts.
        """
        portion = max(1, int(_PORTION_S / max(self.cost_s, 1e-9)))
        for start in range(0, len(architectures), portion):
            began = time.monotonic()
            told = self.estimate(architectures[start : start + portion])
            if not told.seconds and len(told):
                mean_s = (time.monotonic() - began) / len(told)
                told = replace(told, seconds=(mean_s,) * len(told))
            for row in range(len(told)):
                on_result(start + row, told.take([row]))

    def gathered(self, architectures: Sequence[Architecture]) -> Accuracy:
        """What `estimate_each` tells, in order; for estimators that override that."""
        told: dict[int, Accuracy] = {}
        self.estimate_each(architectures, told.__setitem__)
        return Accuracy.joined(told[i] for i in range(len(architectures)))

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
