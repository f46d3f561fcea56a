"""Objective: what networks are judged by besides top-1 and latency.

A search always minimises latency and maximises top-1. `also` adds objectives to these; a `Limit`
holds one of them, or anything else that can be told of a network, to a bound.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ..latency_model import LatencyModel
from ..space import AdditiveTable, Architecture, Genomes, SearchSpace
from ..space.additive import PeakTable
from ..space.errors import InvalidArgument, InvalidObjective, UnknownName, nearest

__all__ = [
    "NAME", "RESERVED", "Function", "Latency", "Macs", "Objective", "Params", "PeakActivation", "checked", "named",
]  # fmt: skip

Floats = npt.NDArray[np.float64]
_BYTES = 4  # of an activation in float32
NAME = r"[\w:.-]{1,64}"
RESERVED = ("top1", "latency_ms", "top1_error", "outside", "chance")  # columns of every run


class Objective(ABC):
    """A number that a network has.

    Args:
        name: Its column in a run: letters, digits, `_`, `-`, `:` and `.`.
        unit: Of the number, for people.
        maximise: Whether more is better.
    """

    name: str
    unit: str = ""
    maximise: bool = False

    @property
    def digest(self) -> str:
        """Of all that its numbers depend on; a run's settings keep it."""
        return self.name

    @property
    def cheap(self) -> bool:
        """Whether thousands of networks cost next to nothing, as sums over operators do."""
        return True

    @abstractmethod
    def on(self, space: SearchSpace) -> Callable[[Genomes], Floats]:
        """Its numbers for populations of a space: genomes (n, genes) to (n,)."""


class Macs(Objective):
    """Multiply-adds of one image."""

    name = "macs"

    def on(self, space: SearchSpace) -> Callable[[Genomes], Floats]:
        return AdditiveTable(space, lambda o: o.macs)


class Params(Objective):
    """Trainable parameters."""

    name = "params"

    def on(self, space: SearchSpace) -> Callable[[Genomes], Floats]:
        return AdditiveTable(space, lambda o: o.params)


class PeakActivation(Objective):
    """Bytes of activations held at once, at most, for one image in float32.

    Of a runtime that runs one convolution after another and frees what it needs no more; what
    it fuses or plans otherwise takes less.
    """

    name, unit = "peak_activation", "bytes"

    def on(self, space: SearchSpace) -> Callable[[Genomes], Floats]:
        table = PeakTable(space, lambda o: o.peak_activations)
        return lambda genomes: _BYTES * table(genomes)


class Latency(Objective):
    """Predicted latency on a further device, in ms."""

    unit = "ms"

    def __init__(self, model: LatencyModel) -> None:
        self.model, self.name = model, f"latency:{model.device}"

    @property
    def digest(self) -> str:
        return self.model.digest

    def on(self, space: SearchSpace) -> Callable[[Genomes], Floats]:
        return self.model.on(space)


class Function(Objective):
    """What a user's own function returns, network by network; several at once where it is slow.

    Args:
        name: See `Objective`.
        function: Of an `Architecture`, or of n of them where `batched`: a finite number, or (n,).
            It must give the same number for the same network.
        unit, maximise: See `Objective`.
        batched: Whether it takes a sequence of networks at once.
        workers: How many run side by side, ≥ 1.
        processes: In processes of their own instead of threads; the function must then be
            importable there. For pure Python; threads serve what waits for other programs.
        version: Changed by the user when the function changes, so that a run is not resumed
            with another.
    Raises:
        InvalidArgument: A name that is reserved or no name, or fewer than one worker.
    """

    def __init__(
        self,
        name: str,
        function: Callable[[Any], Any],
        *,
        unit: str = "",
        maximise: bool = False,
        batched: bool = False,
        workers: int = 1,
        processes: bool = False,
        version: str = "1",
    ) -> None:
        taken = (*RESERVED, *_counted())
        if name in taken or not re.fullmatch(NAME, name):
            raise InvalidArgument(
                f"{name!r} names no objective of yours: letters, digits, _ - : and . are allowed, and "
                f"{', '.join(taken)} are taken"
            )
        if workers < 1:
            raise InvalidArgument(f"workers of the objective {name}: 1 or more, got {workers}")
        if (batched and workers > 1) or (processes and workers == 1):
            raise InvalidArgument(
                f"the objective {name}: workers take networks one by one, so not `batched` with several "
                "workers, nor `processes` with one"
            )
        self.name, self.function, self.unit, self.maximise = name, function, unit, maximise
        self.batched, self.workers, self.processes = batched, int(workers), processes
        self.version = version

    @property
    def digest(self) -> str:
        return f"{self.name}/{self.version}"

    @property
    def cheap(self) -> bool:
        return False

    def on(self, space: SearchSpace) -> Callable[[Genomes], Floats]:
        def judge(genomes: Genomes) -> Floats:
            networks = [space.decode(row) for row in space.check(genomes)]
            if self.batched:
                return self._checked(self._told(self.function, networks, networks), networks)
            if self.workers == 1 or len(networks) < 2:
                told: list[Any] = [self._told(self.function, n, [n]) for n in networks]
                return self._checked(told, networks)
            pool: type[Executor] = ProcessPoolExecutor if self.processes else ThreadPoolExecutor
            executor = pool(min(self.workers, len(networks)))  # type: ignore[call-arg]
            try:
                futures = [executor.submit(self.function, n) for n in networks]
                told = [
                    self._told(_result, future, [network])
                    for future, network in zip(futures, networks, strict=True)
                ]
            finally:  # what has not begun when one fails need not begin
                executor.shutdown(wait=True, cancel_futures=True)
            return self._checked(told, networks)

        return judge

    def _told(self, function: Callable[[Any], Any], asked: Any, of: Sequence[Architecture]) -> Any:
        try:
            return function(asked)
        except Exception as error:
            raise InvalidObjective(
                f"the objective {self.name} failed with {type(error).__name__}: {error}, asked for "
                f"{_names(of)}"
            ) from error

    def _checked(self, told: Any, networks: list[Architecture]) -> Floats:
        return checked(self.name, told, networks)


def checked(name: str, told: Any, networks: Sequence[Any]) -> Floats:
    """What an objective told of n networks as numbers, (n,).

    Raises:
        InvalidObjective: No finite number for each; the network is named.
    """
    try:
        values = np.asarray(told, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidObjective(
            f"the objective {name} gave what are no numbers for {_names(networks)}: {error}"
        ) from error
    if values.shape != (len(networks),):
        raise InvalidObjective(
            f"the objective {name} gave values of shape {values.shape} for {len(networks)} "
            f"networks, from {_names(networks)}: one number a network is needed"
        )
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise InvalidObjective(
            f"the objective {name} gave {values[wrong[0]]} for {networks[wrong[0]]}; a finite "
            "number is needed. Give a large one for a network that must not be"
        )
    return values


def _names(networks: Sequence[Any]) -> str:
    more = f" and {len(networks) - 1} more" if len(networks) > 1 else ""
    return f"{networks[0]}{more}" if len(networks) else "no network"


def _result(future: Future[Any]) -> Any:
    return future.result()


def named(name: str, model_of: Callable[[str], LatencyModel] | None = None) -> Objective:
    """An objective by name: macs, params, peak_activation, or latency:DEVICE.

    Args:
        name: As the command line has it.
        model_of: Gives the fitted model of a device; None where there are none.
    Raises:
        UnknownName: No such objective; the message offers the nearest.
    """
    kinds = _counted()
    if name.startswith("latency:") and model_of is not None:
        return Latency(model_of(name.removeprefix("latency:")))
    if name not in kinds:
        raise UnknownName(
            f"no objective is called {name!r}. {nearest(name, [*kinds, 'latency:DEVICE'])}"
        )
    return kinds[name]()


def _counted() -> dict[str, type[Objective]]:
    kinds: tuple[type[Objective], ...] = (Macs, Params, PeakActivation)
    return {kind.name: kind for kind in kinds}
