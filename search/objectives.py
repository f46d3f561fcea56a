"""Objective: what networks are evaluated by besides top-1 and latency.

A search always minimises latency and maximises top-1. `also` adds objectives to these; a `Limit`
bounds one of them, or any other objective.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.latency_model import LatencyModel
from phonenas.latency_model.peak_memory import PeakMemory as MemoryModel
from phonenas.space import AdditiveTable, Architecture, Genomes, SearchSpace
from phonenas.space.additive import PeakTable
from phonenas.space.errors import InvalidArgument, InvalidObjective, UnknownName, nearest

__all__ = [
    "NAME",
    "RATIO",
    "RESERVED",
    "FileSize",
    "Function",
    "Latency",
    "Macs",
    "Objective",
    "Params",
    "PeakActivation",
    "PeakMemory",
    "Recorded",
    "checked",
    "named",
]

Floats = npt.NDArray[np.float64]
_BYTES = 4  # of an activation in float32
NAME = r"[\w:.-]{1,64}"
RATIO = "latency_ratio"  # of several devices: the largest latency / target, or their mean
RESERVED: tuple[str, ...] = ("top1", "latency_ms", "top1_error", "outside")  # columns of runs
RESERVED += ("chance", "epochs", "source", "inherited")


class Objective(ABC):
    """A number that a network has, in `unit`; more is better where `maximise`.

    `name` is its column in a run: letters, digits, `_`, `-`, `:` and `.`.
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

    def to_dict(self) -> dict[str, Any]:
        """What it is, ready for JSON; `Recorded` takes it."""
        return {"name": self.name, "unit": self.unit, "maximise": self.maximise}


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


class FileSize(Objective):
    """Bytes of the ONNX file that `export-network` writes of a network, exactly.

    The files of `train` and `promote` hold metadata besides (preprocessing, names of classes), and
    a head of as many classes as the images have.
    """

    name, unit = "file_size", "bytes"

    def on(self, space: SearchSpace) -> Callable[[Genomes], Floats]:
        from phonenas.space.lowering.onnx_size import onnx_bytes

        def evaluate(genomes: Genomes) -> Floats:
            rows = space.check(genomes)
            return np.array([onnx_bytes(space.decode(row)) for row in rows], np.float64)

        return evaluate


_KINDS = (Macs, Params, PeakActivation, FileSize)
_COUNTED: dict[str, type[Objective]] = {kind.name: kind for kind in _KINDS}
_MEASURED = ("p50_ms", "p90_ms", "load_ms", "first_ms", "model_bytes")
_PEAK = "peak_memory"


class PeakMemory(Objective):
    """Predicted peak memory of a process that runs a network, in bytes, its runtime included."""

    name, unit = _PEAK, "bytes"

    def __init__(self, model: MemoryModel) -> None:
        self.model = model

    @property
    def digest(self) -> str:
        return self.model.digest

    def on(self, space: SearchSpace) -> Callable[[Genomes], Floats]:
        return self.model.on(space)


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


@dataclass(frozen=True)
class Recorded(Objective):
    """An objective whose numbers a finished run holds; it cannot be computed for other networks."""

    name: str
    unit: str = ""
    maximise: bool = False

    @property
    def cheap(self) -> bool:
        return False

    def on(self, space: SearchSpace) -> Callable[[Genomes], Floats]:
        """InvalidArgument: see the class."""
        raise InvalidArgument(f"{self.name} is known only for the networks of a finished run")


class Function(Objective):
    """What a user's own function returns, network by network; several at once where it is slow.

    Args:
        name, unit, maximise: See `Objective`.
        function: Of an `Architecture`, or of n of them where `batched`: a finite number, or (n,),
            always the same for the same network.
        batched: Whether it takes a sequence of networks at once.
        workers: How many run side by side, ≥ 1.
        processes: In processes instead of threads; the function must be importable there. For pure
            Python; threads serve what waits for other programs.
        version: Changed with the function, so that a run is not resumed with another.
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
        taken = (*RESERVED, *_COUNTED, _PEAK)
        if name in taken or not re.fullmatch(NAME, name):
            raise InvalidArgument(
                f"{name!r} cannot be the name of an objective: letters, digits, _ - : and . are "
                f"allowed, and the names {', '.join(taken)} are reserved"
            )
        if workers < 1:
            raise InvalidArgument(f"workers of the objective {name}: 1 or more, got {workers}")
        if (batched and workers > 1) or (processes and workers == 1):
            raise InvalidArgument(
                f"the objective {name}: workers take networks one by one, so not `batched` with "
                "several workers, nor `processes` with one"
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
        def evaluate(genomes: Genomes) -> Floats:
            networks = [space.decode(row) for row in space.check(genomes)]
            values: Any
            if self.batched:
                values = self._guarded(networks, self.function, networks)
            elif self.workers == 1 or len(networks) < 2:
                values = [self._guarded([n], self.function, n) for n in networks]
            else:
                values = self._side_by_side(networks)
            return checked(self.name, values, len(networks), networks.__getitem__)

        return evaluate

    def _side_by_side(self, networks: list[Architecture]) -> list[Any]:
        pool: type[Executor] = ProcessPoolExecutor if self.processes else ThreadPoolExecutor
        executor = pool(min(self.workers, len(networks)))  # type: ignore[call-arg]
        try:
            futures = [executor.submit(self.function, n) for n in networks]
            return [self._guarded([n], f.result) for n, f in zip(networks, futures, strict=True)]
        finally:  # what has not begun when one fails need not begin
            executor.shutdown(wait=True, cancel_futures=True)

    def _guarded(self, networks: list[Architecture], call: Callable[..., Any], *given: Any) -> Any:
        """What a call for some networks returns; an exception of it names them."""
        try:
            return call(*given)
        except Exception as error:
            raise InvalidObjective(
                f"the objective {self.name} failed with {type(error).__name__}: {error}, asked for "
                f"{_names(len(networks), networks.__getitem__)}"
            ) from error


def checked(name: str, given: Any, n: int, network: Callable[[int], Any]) -> Floats:
    """What an objective gave for n networks as numbers, (n,); `network` gives one by its row.

    Raises:
        InvalidObjective: No finite number for each; the network is named.
    """
    try:
        values = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidObjective(
            f"the objective {name} gave values that are not numbers for "
            f"{_names(n, network)}: {error}"
        ) from error
    if values.shape != (n,):
        raise InvalidObjective(
            f"the objective {name} gave values of shape {values.shape} for {n} networks, from "
            f"{_names(n, network)}: one number a network is needed"
        )
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise InvalidObjective(
            f"the objective {name} gave {values[wrong[0]]} for {network(wrong[0])}; a finite "
            "number is needed. Return a large one for a network that the search must avoid"
        )
    return values


def _names(n: int, network: Callable[[int], Any]) -> str:
    more = f" and {n - 1} more" if n > 1 else ""
    return f"{network(0)}{more}" if n else "no network"


def named(
    name: str,
    model_of: Callable[[str], LatencyModel] | None = None,
    memory_of: Callable[[], MemoryModel] | None = None,
) -> Objective:
    """An objective by name: macs, params, peak_activation, file_size, peak_memory, latency:DEVICE.

    Args:
        name: As above.
        model_of: Gives the fitted latency model of a device.
        memory_of: Gives the model of memory of the device that is searched for.
    Raises:
        UnknownName: No such objective; the message offers the nearest.
        InvalidArgument: A quantity that is measured, and that nothing predicts.
    """
    if name == _PEAK and memory_of is not None:
        return PeakMemory(memory_of())
    if name == _PEAK:
        raise InvalidArgument(
            f"{name} is predicted from the measurements of a device: give the search one that has "
            "them, or use PeakMemory with a fitted model"
        )
    if name in _MEASURED:
        raise InvalidArgument(
            f"{name} is measured and never predicted, so a search can neither minimise nor limit "
            f"it: it is told of each network that is validated. {_offered(name)}"
        )
    if name.startswith("latency:") and model_of is not None:
        return Latency(model_of(name.removeprefix("latency:")))
    if name not in _COUNTED:
        raise UnknownName(f"no objective is called {name!r}. {_offered(name)}")
    return _COUNTED[name]()


def _offered(name: str) -> str:
    """The objectives nearest to a name, in a sentence."""
    return nearest(name, [*_COUNTED, _PEAK, "latency:DEVICE"])
