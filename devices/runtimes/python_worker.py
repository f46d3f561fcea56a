"""Runtimes with a Python interface: a worker and its engine run on the device."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from phonenas.data.documents import Ms, Number, Text, strict
from phonenas.data.measurement import MOST_MS, Startup
from phonenas.space.errors import DeviceError, DeviceUnavailable, InvalidArgument
from phonenas.space.lowering.write import Measurable
from phonenas.space.precision import FLOAT32

from ..device import Job, LostInRun, Reading
from ..node_times import NodeTime, Trace
from ..settings import DeviceSettings
from ..system.device_text import plain
from ..transports.base import Transport
from ..transports.process import Process
from . import worker
from .runtime import (
    ENERGY_S,
    MODEL_S,
    STARTUP_RUNS,
    WARMUP_RUNS,
    Identity,
    Runtime,
    onnxruntime_precisions,
)

__all__ = ["LiteRT", "OnnxRuntime", "PythonWorker"]

_START_S = 60.0
_GRACE_S = 30.0  # beyond a model's own limit: for loading it, for a busy device
_SILENCE_S = 4.0  # of this side, before a worker on a device ends itself

T = TypeVar("T")

_AGAIN = "It is started again; if this recurs, check its Python."


@dataclass(frozen=True)
class _Traced:
    """A worker's answer to `trace`, in µs."""

    plain_us: Ms
    profiled_us: Ms
    shown_us: Ms
    nodes: list[tuple[Text, Text, Text, Number, Number, Number]]


class PythonWorker(Runtime):
    """One pinned process that takes many models in one request and reports every sample."""

    engine: ClassVar[str]
    package: ClassVar[str]
    optimisation: ClassVar[str] = "all"

    def __init__(self, settings: DeviceSettings) -> None:
        super().__init__(settings)
        self._transport: Transport | None = None
        self._process: Process | None = None
        self._command: list[str] = []
        self._started: tuple[Transport, tuple[int, ...], Path] | None = None
        self._pushed: tuple[Path, int, str] | None = (
            None  # the sentinel: file, time of writing, path
        )

    def described(self, transport: Transport) -> str:
        if transport.kind != "local" or self.settings.python:
            return self.name
        try:
            return f"{self.name} {version(self.package)}"
        except PackageNotFoundError:
            return f"{self.name} is not installed: pip install {self.package}"

    def start(self, transport: Transport, cores: Sequence[int], sentinel: Path) -> Identity:
        self._started = (transport, tuple(cores), sentinel)
        here = Path(worker.__file__)
        files = [here, here.with_name(self.engine)]
        local = transport.kind == "local"
        self._transport = transport
        paths = transport.push(files, limit_s=_START_S)
        python = self.settings.python or (sys.executable if local else "python3")
        self._command = [python, "-B", *paths]
        process = self._process = transport.spawn(self._command)
        usual = process.advice
        process.advice = (
            f"Install Python with {self.package} on it, and test that with  {python} -c "
            f"'import {self.package.replace('-', '_')}'."
        )
        folder = "" if local else transport.folder
        process.ask({"op": "hello", **self._settings(transport, cores), "folder": folder})
        hello = process.answer(_START_S)
        process.advice = usual
        if "error" in hello:
            raise DeviceUnavailable(
                f"{transport.name} cannot start {self.name}: {plain(str(hello['error']))}. Install "
                f"it there:  pip install {self.package}"
            )
        runtime, version_, digest, machine = (
            plain(str(hello.get(k, ""))) for k in ("runtime", "version", "sha256", "machine")
        )
        if not (runtime and version_ and digest):
            raise DeviceError(
                f"{transport.name}'s worker does not report its runtime: {plain(str(hello), 120)}. "
                "Check its Python."
            )
        identity = Identity(runtime, version_, digest, self.provider, self.optimisation)
        return replace(identity, machine=machine)

    def _settings(self, transport: Transport, cores: Sequence[int]) -> dict[str, Any]:
        """What a worker is told of how to run models."""
        return {
            "cores": list(cores) or None,
            "threads": self.settings.threads,
            "optimisation": self.optimisation,
            "provider": self.provider,
            # On this computer a pipe's end is always seen; over a cable it may not be.
            "silence_s": None if transport.kind == "local" else _SILENCE_S,
        }

    def startup(self, model: Path) -> Startup | None:
        asked = {"op": "startup", "runs": STARTUP_RUNS}
        if self.settings.energy:
            asked |= {"energy_s": ENERGY_S}
        return self._alone(model, Startup, asked)

    def trace(self, model: Path, runs: int) -> Trace:
        asked = {"op": "trace", "warmup_runs": WARMUP_RUNS, "runs": runs}
        found = self._alone(model, _Traced, asked)
        whole_ms = (found.plain_us / 1e3, found.profiled_us / 1e3, found.shown_us / 1e3)
        try:
            nodes = [
                NodeTime(plain(name), plain(op), plain(provider), us / 1e3, at / 1e3, shown / 1e3)
                for name, op, provider, us, at, shown in found.nodes
            ]
            return Trace(tuple(nodes), runs, *whole_ms)
        except ValueError as error:
            raise DeviceError(f"the worker gave an invalid trace: {error}. {_AGAIN}") from error

    def _alone(self, model: Path, kind: type[T], asked: dict[str, Any]) -> T:
        """The answer to a request for one model by a process of its own, which ends then."""
        if self._started is None or self._process is None:
            raise DeviceUnavailable("the runtime is not started")
        transport, cores, sentinel = self._started
        # A model's own inputs lie beside it.
        files = [model, *(i for i in [model.with_suffix(".npz")] if i.exists())]
        paths = transport.push(files, limit_s=_limit_s(files))
        process = transport.spawn(self._command)
        try:
            process.ask({**asked, "model": paths[0], **self._settings(transport, cores)})
            answer = process.answer(_START_S + MODEL_S)
        finally:
            process.close()
            if transport.kind != "local" and model != sentinel:  # on it they would accumulate
                transport.run(["rm", "-f", *paths], limit_s=_GRACE_S)
        if "error" in answer:
            raise DeviceError(f"{transport.name}: {plain(str(answer['error']), 500)}")
        try:
            return strict(answer, kind)
        except ValueError as error:
            raise DeviceError(
                f"{transport.name}'s worker gave an invalid answer: {plain(str(answer), 120)}. "
                f"{_AGAIN}"
            ) from error

    def run_ms(
        self, jobs: Sequence[Job], *, sentinel: Path, warmup_runs: int, warmup_s: float
    ) -> Iterator[Reading]:
        process, transport = self._process, self._transport
        if process is None or transport is None:
            raise DeviceUnavailable("the runtime is not started")
        paths = self._push(transport, sentinel, [j.model for j in jobs])
        process.ask(
            {
                "op": "run",
                "models": [paths[j.model] for j in jobs],
                "runs": [j.runs for j in jobs],
                "sentinel": paths[sentinel],
                "warmup_runs": warmup_runs,
                "warmup_s": warmup_s,
                "limit_s": MODEL_S,
                # On this computer they are the job's own files; on a device they would accumulate.
                "remove": transport.kind != "local",
            }
        )
        try:
            for index in range(len(jobs)):
                try:
                    answer = process.answer(MODEL_S + _GRACE_S)
                except DeviceUnavailable as error:
                    raise LostInRun(str(error)) from error
                if answer.get("index") != index:
                    raise DeviceError(
                        f"{process.name}'s worker answered for another model: "
                        f"{plain(str(answer), 80)}. {_AGAIN}"
                    )
                yield _reading(answer, process.name)
        except GeneratorExit:
            self._break_off(process, len(jobs))
            raise
        if not process.answer(_GRACE_S).get("done"):
            raise DeviceError(f"{process.name}'s worker did not end its answer. {_AGAIN}")

    def _break_off(self, process: Process, most: int) -> None:
        """The rest of a batch is not wanted: let the worker stop after the present model."""
        if process is not self._process:  # it has ended meanwhile
            return
        with contextlib.suppress(DeviceUnavailable, DeviceError):
            process.ask({"op": "stop"})
            for _ in range(most + 1):
                if process.answer(MODEL_S + _GRACE_S).get("done"):
                    return
        self.stop()  # the next request must not read what is left of this one

    def _push(
        self, transport: Transport, sentinel: Path, models: Sequence[Path]
    ) -> dict[Path, str]:
        """Push what the device lacks; the sentinel stays from batch to batch."""
        written = sentinel.stat().st_mtime_ns
        pushed = self._pushed
        files = list(dict.fromkeys(m for m in models if m != sentinel))
        # A model's own inputs lie beside it.
        files += [i for m in files if (i := m.with_suffix(".npz")).exists()]
        if pushed is None or pushed[:2] != (sentinel, written):
            files.append(sentinel)
        paths = dict(zip(files, transport.push(files, limit_s=_limit_s(files)), strict=True))
        if sentinel in paths:
            self._pushed = (sentinel, written, paths[sentinel])
        assert self._pushed is not None
        return {**paths, sentinel: self._pushed[2]}

    def refresh(self) -> None:
        if self._started is None or self._process is None:
            return
        self._process.ask({"op": "leave"})
        self._process.answer(_GRACE_S)
        self.stop()
        self.start(*self._started)

    def stop(self) -> None:
        process, self._process = self._process, None
        self._pushed = None
        if process is not None:
            process.close()


def _limit_s(files: Sequence[Path]) -> float:
    """Time to copy files: a slow wireless network still moves a megabyte a second."""
    return 30.0 + sum(f.stat().st_size for f in files) / 1e6


def _reading(answer: dict[str, Any], name: str) -> Reading:
    if "error" in answer:
        lost = answer.get("preempted")
        count = lost if type(lost) is int and 0 <= lost <= MOST_MS else 0
        return Reading(preempted=count, error=plain(str(answer["error"]), 500))
    try:
        samples, beside = _numbers(answer["samples_ms"]), _numbers(answer["sentinel_ms"])
        preempted, first_ms, clock_mhz, busy_s = rest = _numbers(
            [answer[k] for k in ("preempted", "first_ms", "clock_mhz", "busy_s")]
        )
        if len(samples) != len(beside) or not all(0 <= x <= MOST_MS for x in rest):
            raise ValueError
        return Reading(
            samples,
            beside,
            int(preempted),
            str(answer["provider"]),
            first_ms=first_ms,
            clock_mhz=clock_mhz,
            busy_s=busy_s,
        )
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise DeviceError(
            f"{name}'s worker gave an invalid answer: {plain(str(answer), 120)}. {_AGAIN}"
        ) from error


def _numbers(values: object) -> tuple[float, ...]:
    """A list of JSON numbers; `rejection_reason` checks that they are times."""
    if not isinstance(values, list) or not all(type(x) in (int, float) for x in values):
        raise TypeError
    return tuple(map(float, values))


class OnnxRuntime(PythonWorker):
    """ONNX Runtime by its Python interface: Termux, boards, computers."""

    name = "onnxruntime"
    provider = "CPUExecutionProvider"
    engine = "engine_onnxruntime.py"
    package = "onnxruntime"

    @property
    def precisions(self) -> tuple[str, ...]:
        return onnxruntime_precisions(self.provider)

    def lower(self, model: Measurable, stem: Path, precision: str = FLOAT32) -> Path:
        from phonenas.space.lowering.write import write_onnx

        return write_onnx(model, stem.with_suffix(".onnx"), precision)


class LiteRT(PythonWorker):
    """LiteRT's interpreter (TFLite) by its Python interface: boards, computers."""

    name = "litert"
    provider = "XNNPACK"
    engine = "engine_litert.py"
    package = "ai-edge-litert"

    def trace(self, model: Path, runs: int) -> Trace:
        raise InvalidArgument(
            f"{self.settings.name}: LiteRT's Python interface has no profiler of single nodes"
        )

    @property
    def precisions(self) -> tuple[str, ...]:
        # Its Python interface cannot force XNNPACK's arithmetic of 16 bits: a file that asks for it
        # is computed in 32 bits on most processors, and nothing says so.
        return (FLOAT32, "int8", "float16-weights")

    def lower(self, model: Measurable, stem: Path, precision: str = FLOAT32) -> Path:
        from phonenas.space.lowering.write import write_tflite

        return write_tflite(model, stem.with_suffix(".tflite"), self.name, precision)
