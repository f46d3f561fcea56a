"""Runtimes with a Python interface: a worker and its engine, sent there and talked with."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

from ...space.errors import DeviceError, DeviceUnavailable, InvalidArgument
from ...space.lowering import Measurable
from ..conversation import Conversation
from ..device import Job, LostInRun, Reading
from ..settings import DeviceSettings
from ..transport import Transport
from ..words import plain
from . import worker
from .runtime import MODEL_S, Identity, Runtime

__all__ = ["LiteRT", "OnnxRuntime", "PythonWorker"]

_START_S = 60.0
_GRACE_S = 30.0  # beyond a model's own limit: loading it, a busy device
_SILENCE_S = 4.0  # of the asking side, before a worker at the far end of a cable ends itself


_AGAIN = "It is started anew; if it does so again, look at its Python."


class PythonWorker(Runtime):
    """One pinned process that takes many models in one go, and tells every sample."""

    engine: ClassVar[str]
    package: ClassVar[str]
    optimisation: ClassVar[str] = "all"

    def __init__(self, settings: DeviceSettings) -> None:
        super().__init__(settings)
        if settings.precision != "float32":
            raise InvalidArgument(
                f"{settings.name}: {self.name} measures float32, not {settings.precision}"
            )
        self._transport: Transport | None = None
        self._worker: Conversation | None = None
        self._there: tuple[Path, int, str] | None = None  # the sentinel: file, written when, path

    def described(self, transport: Transport) -> str:
        if transport.kind != "local" or self.settings.python:
            return self.name
        try:
            return f"{self.name} {version(self.package)}"
        except PackageNotFoundError:
            return f"{self.name} is not installed: pip install {self.package}"

    def start(self, transport: Transport, cores: Sequence[int], sentinel: Path) -> Identity:
        here = Path(worker.__file__)
        files = [here, here.with_name(self.engine)]
        local = transport.kind == "local"
        self._transport = transport
        paths = transport.push(files, limit_s=_START_S)
        python = self.settings.python or (sys.executable if local else "python3")
        talk = self._worker = transport.spawn([python, "-B", *paths])
        usual, talk.advice = (
            talk.advice,
            (
                f"Is Python with {self.package} there? Try  {python} -c "
                f"'import {self.package.replace('-', '_')}'  on it."
            ),
        )
        talk.ask(
            {
                "op": "hello",
                "cores": list(cores) or None,
                "threads": self.settings.threads,
                "optimisation": self.optimisation,
                "provider": self.provider,
                # Here the pipe's end is certain; over a cable it may never be told.
                "silence_s": None if local else _SILENCE_S,
                "folder": "" if local else transport.folder,
            }
        )
        hello = talk.answer(_START_S)
        talk.advice = usual
        if "error" in hello:
            raise DeviceUnavailable(
                f"{transport.name} cannot start {self.name}: {plain(str(hello['error']))}. Install "
                f"it there:  pip install {self.package}"
            )
        told = [plain(str(hello.get(k, ""))) for k in ("runtime", "version", "sha256")]
        if not all(told):
            raise DeviceError(
                f"{transport.name}'s worker does not say what it is: {plain(str(hello), 120)}. "
                "Look at its Python."
            )
        runtime, version_, digest = told
        return Identity(runtime, version_, digest, self.provider, self.optimisation)

    def run_ms(
        self, jobs: Sequence[Job], *, sentinel: Path, warmup_runs: int, warmup_s: float
    ) -> Iterator[Reading]:
        talk, transport = self._worker, self._transport
        if talk is None or transport is None:
            raise DeviceUnavailable("the runtime is not started")
        paths = self._bring(transport, sentinel, [j.model for j in jobs])
        talk.ask(
            {
                "op": "run",
                "models": [paths[j.model] for j in jobs],
                "runs": [j.runs for j in jobs],
                "sentinel": paths[sentinel],
                "warmup_runs": warmup_runs,
                "warmup_s": warmup_s,
                "limit_s": MODEL_S,
                # Here they are the very files that the job keeps; there they would pile up.
                "remove": transport.kind != "local",
            }
        )
        try:
            for index in range(len(jobs)):
                try:
                    found = talk.answer(MODEL_S + _GRACE_S)
                except DeviceUnavailable as error:
                    raise LostInRun(str(error)) from error
                if found.get("index") != index:
                    raise DeviceError(
                        f"{talk.name}'s worker answered out of turn: {plain(str(found), 80)}. {_AGAIN}"
                    )
                yield _reading(found, talk.name)
        except GeneratorExit:
            self._break_off(talk, len(jobs))
            raise
        if not talk.answer(_GRACE_S).get("done"):
            raise DeviceError(f"{talk.name}'s worker did not end its answer. {_AGAIN}")

    def _break_off(self, talk: Conversation, most: int) -> None:
        """The rest of a batch is not wanted: let the worker end it after the model at hand."""
        if talk is not self._worker:  # it was ended in the meantime
            return
        with contextlib.suppress(DeviceUnavailable, DeviceError):
            talk.ask({"op": "stop"})
            for _ in range(most + 1):
                if talk.answer(MODEL_S + _GRACE_S).get("done"):
                    return
        self.stop()  # the next request finds it gone, instead of what is left of this one

    def _bring(
        self, transport: Transport, sentinel: Path, models: Sequence[Path]
    ) -> dict[Path, str]:
        """Push what is not there; the sentinel stays from batch to batch."""
        written = sentinel.stat().st_mtime_ns
        there = self._there
        files = list(dict.fromkeys(m for m in models if m != sentinel))
        if there is None or there[:2] != (sentinel, written):
            files.append(sentinel)
        paths = dict(zip(files, transport.push(files, limit_s=_limit_s(files)), strict=True))
        if sentinel in paths:
            self._there = (sentinel, written, paths[sentinel])
        assert self._there is not None
        return {**paths, sentinel: self._there[2]}

    def stop(self) -> None:
        talk, self._worker = self._worker, None
        self._there = None
        if talk is not None:
            talk.close()


def _limit_s(files: Sequence[Path]) -> float:
    """Time to bring files over: a slow wireless network still moves a megabyte a second."""
    return 30.0 + sum(f.stat().st_size for f in files) / 1e6


def _reading(found: dict[str, Any], name: str) -> Reading:
    if "error" in found:
        return Reading(error=plain(str(found["error"]), 500))
    try:
        samples, beside = _numbers(found["samples_ms"]), _numbers(found["sentinel_ms"])
        preempted, first_ms, clock_mhz, busy_s = rest = _numbers(
            [found[k] for k in ("preempted", "first_ms", "clock_mhz", "busy_s")]
        )
        if len(samples) != len(beside) or not all(0 <= x < math.inf for x in rest):
            raise ValueError
        return Reading(
            samples,
            beside,
            int(preempted),
            str(found["provider"]),
            first_ms=first_ms,
            clock_mhz=clock_mhz,
            busy_s=busy_s,
        )
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise DeviceError(
            f"{name}'s worker answered amiss: {plain(str(found), 120)}. {_AGAIN}"
        ) from error


def _numbers(found: object) -> tuple[float, ...]:
    """A list of JSON numbers; whether they are times is judged where all readings are."""
    if not isinstance(found, list) or not all(type(x) in (int, float) for x in found):
        raise TypeError
    return tuple(map(float, found))


class OnnxRuntime(PythonWorker):
    """ONNX Runtime by its Python interface: Termux, boards, computers."""

    name = "onnxruntime"
    provider = "CPUExecutionProvider"
    engine = "engine_onnxruntime.py"
    package = "onnxruntime"

    def lower(self, model: Measurable, stem: Path) -> Path:
        from ...space.lowering import write_onnx

        return write_onnx(model, stem.with_suffix(".onnx"))


class LiteRT(PythonWorker):
    """LiteRT's interpreter (TFLite) by its Python interface: boards, computers."""

    name = "litert"
    provider = "XNNPACK"
    engine = "engine_litert.py"
    package = "ai-edge-litert"

    def lower(self, model: Measurable, stem: Path) -> Path:
        from ...space.lowering import write_tflite

        return write_tflite(model, stem.with_suffix(".tflite"), self.name)
