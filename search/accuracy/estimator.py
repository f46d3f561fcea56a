"""AccuracyEstimator: the contract of all that estimates how accurate networks will be.

A surrogate, a zero-cost score, a short training and a supernet all give top-1 in the same unit,
with its standard error.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from phonenas.space import Architecture, Genomes, SearchSpace
from phonenas.space.errors import InvalidArgument
from phonenas.space.naming import counted

from ..cluster.workers import Workers
from ..training.resources import Resources

if TYPE_CHECKING:
    import pandas as pd

    from phonenas.data.images import ImageSet

    from .inheritance.ancestry import Ancestry

__all__ = ["Accuracy", "AccuracyEstimator", "Request", "refuse_foreign"]

_CLASSES = 1000  # of ImageNet
_MOST_PX = 512
_PORTION_S = 10.0  # of work, after which `estimate_each` hands over its answers


def refuse_foreign(name: str, classes: int, resolution_px: int, least: int) -> None:
    """End where an estimator of ImageNet's top-1 is asked for a network of another data set.

    Args:
        name: Of the estimator.
        classes, resolution_px: Of the network.
        least: Side of the smallest image, in pixels, of which it can say anything.
    Raises:
        InvalidArgument: Not 1,000 classes, or an image far smaller or larger than ImageNet's.
    """
    if classes == _CLASSES and least <= resolution_px <= _MOST_PX:
        return
    raise InvalidArgument(
        f"{name} estimates top-1 on ImageNet ({_CLASSES:,} classes, images of {least} to "
        f"{_MOST_PX} px), and this network has {classes:,} classes at {resolution_px} px. "
        "Choose another estimator with --accuracy (zero_cost, training, table:FILE), or fit one "
        "to results of yours:  phonenas fit-accuracy results.csv --out mine.json"
    )


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Estimates for n networks, in the order of the request.

    A network may have failed: its training diverged, or it took more memory than there is. Then it
    has no accuracy: `top1` and `standard_error` are NaN, and `failed` gives the reason.

    Args:
        top1: Share of images classified correctly, (n,), in [0, 1]; the estimator's docstring says
            of which images and after which training. NaN where it failed.
        standard_error: Of `top1`, (n,), same unit, > 0. NaN where it failed.
        outside: The network is out of the distribution that the estimator was fitted on, (n,),
            bool; its `top1` is an extrapolation.
        failed: Empty where none failed; else a text for each network, "" or the reason.
        seconds: Time that each took, in seconds, ≥ 0; empty where it is not measured.
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
        for name, values in (("reasons of failure", failed), ("seconds", self.seconds)):
            if len(values) not in (0, len(top1)):
                raise InvalidArgument(f"{len(top1)} accuracies with {len(values)} {name}")
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
            why = (
                f"failed ({failed[i]}), so both are NaN"
                if broken[i]
                else ("top-1 lies in [0, 1] and its error above 0; one that failed needs a reason")
            )
            raise InvalidArgument(
                f"network {i} has a top-1 of {top1[i]:g} with a standard error of {error[i]:g}: "
                f"{why}"
            )
        for name, value in (
            ("top1", top1),
            ("standard_error", error),
            ("outside", outside),
            ("failed", failed),
            ("seconds", tuple(map(float, self.seconds))),
        ):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.top1)

    @property
    def well(self) -> npt.NDArray[np.bool_]:
        """Which networks have an accuracy, (n,)."""
        return ~np.isnan(self.top1)

    def __repr__(self) -> str:
        failed = f", {n} without one" if (n := int((~self.well).sum())) else ""
        known = self.top1[self.well]
        ends = f", {known.min():.1%} to {known.max():.1%}" if len(known) else ""
        return f"Accuracy({counted(len(self), 'network')}{ends}{failed})"

    def to_frame(self) -> pd.DataFrame:
        """One row a network: top1, standard_error, outside, failed (the reason, or ""), seconds
        (NaN where they are not measured)."""
        import pandas as pd

        columns = {name: getattr(self, name) for name in ("top1", "standard_error", "outside")}
        failed = list(self.failed or ("",) * len(self))
        seconds = list(self.seconds or (np.nan,) * len(self))
        return pd.DataFrame({**columns, "failed": failed, "seconds": seconds})

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

        Seconds are kept if all parts have them.
        """
        some = [part for part in parts if len(part)]
        if not some:
            return cls(np.empty(0), np.empty(0), np.empty(0, np.bool_))
        timed = all(part.seconds for part in some)
        return cls(
            np.concatenate([part.top1 for part in some]),
            np.concatenate([part.standard_error for part in some]),
            np.concatenate([part.outside for part in some]),
            tuple(reason for part in some for reason in (part.failed or ("",) * len(part))),
            tuple(s for part in some for s in part.seconds) if timed else (),
        )

    @classmethod
    def failure(
        cls, reason: str, *, outside: bool = False, seconds: float | None = None
    ) -> Accuracy:
        """The answer for one network that failed.

        Raises:
            InvalidArgument: No reason.
        """
        if not reason:
            raise InvalidArgument("a network that failed needs a reason")
        none, took = np.array([np.nan]), () if seconds is None else (seconds,)
        return cls(none, none, np.array([outside]), (reason,), took)


@dataclass(frozen=True)
class Request:
    """What an estimator by name is made from; it uses what its class says that it `takes`.

    Networks are estimated with as many classes as the images have, whatever their own text says: a
    search space's networks end in 1,000. Their latency stays that of the space's classes.

    Args:
        argument: The text behind the name and its colon: a file, a folder, a recipe; or "".
        space: Whose networks will be estimated; a table's columns may be its decisions.
        images: To train on or to score networks with: the training part of a data set.
        trained: A table of a few trained networks, to correct scores by.
        workers: Who does slow work; None for this process.
        resources: Of each training or evaluation. On workers it sees no GPU but the share of it.
        hold_out: Share of the images by which trained networks are evaluated, in (0, 1).
        epochs: Of each short training, instead of its recipe's.
        unit: Of a table's top-1, "share" or "percent".
        seed: Of all chance in it.
        inherit: Whether trainings begin from the weights of the nearest network trained before.
    """

    argument: str = ""
    space: SearchSpace | None = None
    images: ImageSet | None = None
    trained: Path | None = None
    workers: Workers | None = None
    resources: Resources = field(default_factory=Resources)
    hold_out: float | None = None
    epochs: int | None = None
    unit: str | None = None
    seed: int = 0
    inherit: bool = False


class AccuracyEstimator(ABC):
    """Top-1 of networks, with its standard error.

    Lifetime: built once, before a search; called once per generation, by one thread. Between
    calls it may keep tables, weights or a process. Its answers are constant: equal estimators give
    the same network the same answer, whatever the order and the other networks. What is random in
    it comes from the seed it was built with. `on` is called once per search, and the function that
    it gives is called for each generation.

    A network that gets no accuracy though others can (its training diverged, it does not fit into
    the memory) comes back `failed` with a reason, and the others go on. What stops all of them (no
    images, a lost cluster) is an error.

    Attributes:
        quantity: What its numbers are, for the heads of tables.
        schedule: After which training; "" where they are no accuracy after a training.
        note: A line for people: on what scale its numbers are; "" where top-1 says it all.
        slow: Whether its answers are worth a file: a search then keeps them in its run folder.
        shipped: Whether it is the surrogate that is shipped, the only estimator that the settings
            of a run do not name: it was the default before `imagenet` was.
        form: How it is written on the command line, "table:FILE": the name, and the text behind a
            colon, in brackets where it may be left out. The name alone where it is "".
        takes: The fields of `Request` that it uses besides `argument`, `space` and `seed`; "gpus"
            and "loaders" are those of its resources.
        needs_images: Whether it cannot be made without images.
        options: Options of the command line that made it, by name; a run keeps them for its report.
        epochs: Of the training that each answer takes; 0 where there is none that could pause.
        ancestry: Where trainings begin from the weights of others: which of whose, as the search
            says. Else None. Answers depend on it, by `digest_of`.
    """

    name: str
    quantity: str = "top-1"
    schedule: str = ""
    note: str = ""
    slow: bool = False
    shipped: bool = False
    form: ClassVar[str] = ""
    takes: ClassVar[tuple[str, ...]] = ()
    needs_images: ClassVar[bool] = False
    options: Mapping[str, str] = {}  # never changed, only replaced
    epochs: int = 0
    ancestry: Ancestry | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What the settings of a run say of it besides its digest, ready for JSON."""
        named = {} if self.shipped else {"estimator": self.name, "scale": self.note}
        if not self.shipped:
            named |= {"quantity": self.quantity, "schedule": self.schedule}
        return {**named, **({"asked": dict(self.options)} if self.options else {})}

    @classmethod
    def make(cls, request: Request) -> AccuracyEstimator:
        """One by its name on the command line.

        Raises:
            PhonenasError: As its constructor.
        """
        return cls()

    @property
    @abstractmethod
    def digest(self) -> str:
        """A short hash of all that its answers depend on; a run's settings keep it.

        Estimators with equal digests give equal answers; with an `ancestry`, for equal sources.
        """

    def digest_of(self, network: str) -> str:
        """What the answer for one network depends on: `digest`, and its source behind a "+"."""
        return self.digest

    @property
    @abstractmethod
    def cost_s(self) -> float:
        """About how long one network takes, in seconds on one core or accelerator, ≥ 0."""

    @abstractmethod
    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        """Estimate n networks; n may be 0.

        Raises:
            PhonenasError: A network is of a kind that it cannot estimate at all. An extrapolation
                is not an error: it comes back `outside`, with a wide `standard_error`. A network
                whose estimate broke off comes back `failed`.
        """

    def estimate_each(
        self, architectures: Sequence[Architecture], on_result: Callable[[int, Accuracy], None]
    ) -> None:
        """Estimate n networks, and hand over each answer as soon as it is there.

        So a cache keeps what is done when the rest is stopped. Here `estimate` is called for
        portions of ten seconds by `cost_s`, at least one network each. An estimator that works on
        several networks side by side overrides this (`Workers.map` has a similar `on_result`) and
        makes its `estimate` of it with `gathered`.

        Args:
            architectures: In any order, without repeats.
            on_result: Called once a network, with its row in `architectures` and an `Accuracy`
                of that one, `seconds` included, in any order, in the calling thread.
        Raises:
            PhonenasError: As `estimate`; what was handed over by then counts.
        """
        portion = max(1, int(_PORTION_S / max(self.cost_s, 1e-9)))
        for start in range(0, len(architectures), portion):
            began = time.monotonic()
            answer = self.estimate(architectures[start : start + portion])
            if not answer.seconds and len(answer):
                mean_s = (time.monotonic() - began) / len(answer)
                answer = replace(answer, seconds=(mean_s,) * len(answer))
            for row in range(len(answer)):
                on_result(start + row, answer.take([row]))

    def gathered(self, architectures: Sequence[Architecture]) -> Accuracy:
        """The answers of `estimate_each`, in order; for estimators that override that."""
        answers: dict[int, Accuracy] = {}
        self.estimate_each(architectures, answers.__setitem__)
        return Accuracy.joined(answers[i] for i in range(len(architectures)))

    def after(self, epochs: int, folder: Path | None = None) -> AccuracyEstimator:
        """An estimator of the accuracy after the first epochs of the same trainings.

        Its answers cost these epochs, or those since an earlier answer for the same network: a
        training goes on where it paused. After all epochs the answers, and the digest, are those
        of this estimator.

        Args:
            epochs: 1 to `epochs`.
            folder: Where paused trainings are kept; None: each begins from nothing.
        Raises:
            InvalidArgument: Its answers take no training that could pause, or one of fewer epochs.
        """
        raise InvalidArgument(
            f"{self.name} trains no network epoch by epoch, so none can pause. Successive halving "
            "goes with --accuracy training"
        )

    def epoch_s(self, architectures: Sequence[Architecture]) -> float:
        """About how long one epoch of one of these networks will take, in seconds; 0 where that
        is not known before."""
        return 0.0

    def on(self, space: SearchSpace) -> Callable[[Genomes], Accuracy]:
        """The same estimate by genome, for populations of one space.

        Args:
            space: Whose genomes they are.
        Returns:
            A function from genomes, (n, genes), to `Accuracy` of n networks; equal to `estimate`
            of the decoded networks. Here it decodes; an estimator that knows a faster way
            overrides it.
        """

        return lambda genomes: self.estimate([space.decode(row) for row in space.check(genomes)])
