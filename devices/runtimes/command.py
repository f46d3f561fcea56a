"""Runtimes that are a program of their own: one command a model, a whole batch in one go.

The program measures and prints; nothing can be run between its samples. So the sentinel is a
command too, before the first model, after every few, and at the end, and each model gets the
mean of the two sentinels around it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import ClassVar

from ...space.errors import DeviceError, DeviceUnavailable, InvalidArgument
from ..android import mask
from ..conversation import Conversation
from ..device import Job, LostInRun, Reading
from ..settings import DeviceSettings
from ..transport import Transport, ending, watched
from ..words import BY_HAND, shown
from .printed import Printed
from .runtime import MODEL_S, Identity, Runtime

__all__ = ["CommandRuntime"]

_PUSH_S = 60.0
_GRACE_S = 30.0
_SENTINEL_RUNS = 20
_APART = 4  # models between two sentinels
_LONGEST_OUTPUT = 1 << 20
# Without a median, a mean is believed only where nothing stood out: it is off by up to 171 %
# with another program on the core.
_MEAN_SPREAD = 0.10
_ELSE = "Set another provider in devices.toml, or take a build that has it"
_MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
_ALIKE = {"armv8l": "armv7l", "i386": "i686", "i586": "i686", "arm64": "aarch64"}
# 64-bit systems that run 32-bit programs too.
_ALSO = {("aarch64", "armv7l"), ("x86_64", "i686")}


@dataclass(frozen=True)
class _Command:
    """One run of the program: the sentinel's (index -1) or a model's."""

    index: int
    words: tuple[str, ...]


class CommandRuntime(Runtime):
    """A benchmark program that the user brings as a file for the device's processor."""

    optimisation: ClassVar[str] = "all"
    package: ClassVar[str]
    #: Whether it writes every time into a file, that `command` names as `self.results`.
    tells_samples: ClassVar[bool] = False
    #: Providers of which it may say nothing and be believed.
    unspoken: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: DeviceSettings) -> None:
        super().__init__(settings)
        if not settings.binary:
            raise InvalidArgument(
                f"device {settings.name}: {self.name} needs  binary = ...  in devices.toml: the "
                f"program, built for the device. {self.package}"
            )
        self.binary = Path(settings.binary)
        self._transport: Transport | None = None
        self._talk: Conversation | None = None
        self._program = ""
        self.results = ""
        self._pin: tuple[str, ...] = ()
        self.statistic = ""

    @abstractmethod
    def command(
        self, program: str, model: str, runs: int, warmup_runs: int, warmup_s: float
    ) -> list[str]:
        """The words that measure a model on the device."""

    @abstractmethod
    def read(self, text: str) -> Printed:
        """What the program printed.

        Raises:
            DeviceError: No number with its unit is in it.
        """

    def samples_ms(self, printed: Printed, results: str, warmup_runs: int) -> tuple[float, ...]:
        """The times that a reading holds: by default the median, or else the mean."""
        return (printed.mean_ms if printed.median_ms is None else printed.median_ms,)

    # -- lifetime -----------------------------------------------------------------------------

    def start(self, transport: Transport, cores: Sequence[int], sentinel: Path) -> Identity:
        try:
            content = self.binary.read_bytes()
        except OSError as error:
            raise InvalidArgument(
                f"device {transport.name}: its binary {self.binary} cannot be read: "
                f"{error.strerror}. {self.package}"
            ) from error
        self._check_machine(transport, content)
        self._transport = transport
        (pushed,) = transport.push([self.binary], limit_s=_PUSH_S)
        self._program = pushed
        self.results = f"{transport.folder}/results.csv"
        if transport.kind == "local":
            if not os.access(pushed, os.X_OK):
                raise DeviceUnavailable(
                    f"{transport.name}: {pushed} is not executable. Allow it:  chmod +x {pushed}"
                )
        else:
            transport.check(["chmod", "700", pushed], "making the binary executable")
        self._pin = ("taskset", mask(cores)) if cores else ()
        printed = self._try(sentinel)
        self.statistic = (
            "samples" if self.tells_samples
            else "median of the runs" if printed.median_ms is not None
            else "mean of the runs"
        )  # fmt: skip
        return Identity(
            self.name,
            printed.version or f"binary {hashlib.sha256(content).hexdigest()[:8]}",
            hashlib.sha256(content).hexdigest(),
            self.provider,
            self.optimisation,
            self.statistic,
        )

    def _check_machine(self, transport: Transport, content: bytes) -> None:
        """Refuse what is no program, or one for another processor, before it is sent."""
        if content[:2] == b"#!":
            return  # a script: the device will tell
        if content[:4] != b"\x7fELF" or len(content) < 20:
            raise DeviceUnavailable(
                f"{transport.name}: {self.binary.name} is no program: it begins with "
                f"{shown(content[:40].decode('utf-8', 'replace'))}. {self.package}"
            )
        built_for = _MACHINES.get(int.from_bytes(content[18:20], "little"), "another processor")
        said = transport.check(["uname", "-m"], "asking for its processor").output.strip()
        there = _ALIKE.get(said, said)
        if built_for != there and (there, built_for) not in _ALSO:
            raise DeviceUnavailable(
                f"{transport.name}: {self.binary.name} is built for {built_for}, the device is "
                f"{said}. {self.package}"
            )

    def _try(self, sentinel: Path) -> Printed:
        """One run of the sentinel: does it run at all, and as asked?"""
        assert self._transport is not None
        (model,) = self._transport.push([sentinel], limit_s=_PUSH_S)
        words = self.command(self._program, model, _SENTINEL_RUNS, 1, 0.0)
        answer = self._transport.run([*self._pin, *words], limit_s=MODEL_S + _GRACE_S)
        text = f"{answer.output}\n{answer.errors}"
        try:
            printed = self._read(answer.code, text)
        except DeviceError as error:
            raise DeviceUnavailable(
                f"{self._transport.name} cannot run {self.binary.name} as asked: {error}"
            ) from error
        return printed

    def stop(self) -> None:
        talk, self._talk = self._talk, None
        if talk is not None:
            talk.stop()  # of no use where the batch has ended
            talk.close()

    # -- measuring ----------------------------------------------------------------------------

    def run_ms(
        self, jobs: Sequence[Job], *, sentinel: Path, warmup_runs: int, warmup_s: float
    ) -> Iterator[Reading]:
        transport = self._transport
        if transport is None or not self._program:
            raise DeviceUnavailable("the runtime is not started")
        marker = f"phonenas-{secrets.token_hex(8)}"
        files = list(dict.fromkeys([sentinel, *(j.model for j in jobs)]))
        with tempfile.TemporaryDirectory(prefix="phonenas-") as folder:
            paths = dict(zip(files, transport.push(files, limit_s=_push_s(files)), strict=True))
            commands = self._commands(jobs, paths, paths[sentinel], warmup_runs, warmup_s)
            script = Path(folder) / "batch.sh"
            first, last = watched(transport.folder, beats=transport.kind != "local")
            lines = [self._line(c.words, marker) for c in commands]
            done = {paths[j.model] for j in jobs} - {paths[sentinel]}
            if done and transport.kind != "local":  # there they would pile up
                lines.append(shlex.join(["rm", "-f", *sorted(done)]))
            script.write_text("\n".join([first, *lines, last]), encoding="utf-8")
            (pushed,) = transport.push([script], limit_s=_PUSH_S)
            talk = self._talk = transport.spawn(["sh", pushed])
            try:
                yield from self._readings(talk, commands, marker, len(jobs), warmup_runs)
                talk.await_end(_GRACE_S)
            finally:
                self.stop()

    def _line(self, words: Sequence[str], marker: str) -> str:
        """Shell words of one command, its results and its marker."""
        line = f"{shlex.join([*self._pin, *words])} 2>&1 </dev/null; "
        if not self.tells_samples:
            return line + ending(marker)
        # It appends to a file that exists.
        results = shlex.quote(self.results)
        return (
            f"rm -f {results}; {line}phonenas_code=$?; echo; echo {marker}-results; "
            f"cat {results}; (exit $phonenas_code); {ending(marker)}"
        )

    def _commands(
        self, jobs: Sequence[Job], paths: dict[Path, str], sentinel: str, warmup_runs: int,
        warmup_s: float,
    ) -> list[_Command]:  # fmt: skip
        """Sentinel, some models, sentinel, ..., sentinel; the first one brings the load up."""

        def beside(seconds: float) -> _Command:
            words = self.command(self._program, sentinel, _SENTINEL_RUNS, warmup_runs, seconds)
            return _Command(-1, tuple(words))

        found = [beside(warmup_s)]
        for index, job in enumerate(jobs):
            words = self.command(self._program, paths[job.model], job.runs, warmup_runs, 0.0)
            found.append(_Command(index, tuple(words)))
            if index % _APART == _APART - 1 or index == len(jobs) - 1:
                found.append(beside(0.0))
        return found

    def _readings(
        self,
        talk: Conversation,
        commands: Sequence[_Command],
        marker: str,
        count: int,
        warmup_runs: int,
    ) -> Iterator[Reading]:
        before_ms: float | None = None
        waiting: list[Reading] = []
        given = 0
        for command in commands:
            try:
                reading = self._reading(*_output(talk, marker), warmup_runs)
            except DeviceUnavailable as error:
                if command.index < 0:
                    raise
                raise LostInRun(str(error)) from error
            if command.index >= 0:
                waiting.append(reading)
                continue
            # A disturbed sentinel leaves the word to its neighbour.
            now_ms = None if reading.error else median(reading.samples_ms)
            around = [ms for ms in (before_ms, now_ms) if ms is not None]
            if not around:
                raise DeviceError(f"{talk.name}: the sentinel gave no time: {reading.error}")
            between_ms = fmean(around)
            before_ms = now_ms
            for r in waiting:
                given += 1
                yield r if r.error else Reading(
                    r.samples_ms, (between_ms,) * len(r.samples_ms), 0, r.provider,
                    first_ms=r.first_ms,
                )  # fmt: skip
            waiting = []
        if given != count:
            raise DeviceError(f"{talk.name}: {given} of {count} models were told of")

    def _reading(self, code: int, text: str, results: str, warmup_runs: int) -> Reading:
        """What the program's end and its text make: a time, or why there is none."""
        try:
            printed = self._read(code, text)
            samples = self.samples_ms(printed, results, warmup_runs)
        except DeviceError as error:
            return Reading(error=str(error))
        return Reading(samples, (), 0, self.provider, first_ms=printed.first_ms or 0.0)

    def _read(self, code: int, text: str) -> Printed:
        """What it printed, where it ended well and ran what was asked.

        Raises:
            DeviceError: It did not; says why, by its own words where they tell.
        """
        try:
            printed = self.read(text)
        except DeviceError as error:
            if code:
                raise DeviceError(f"it ended with code {code}. {error}") from error
            raise
        if code:
            raise DeviceError(f"it ended with code {code}, whatever it printed. {BY_HAND}")
        self._accept(printed)
        return printed

    def _accept(self, printed: Printed) -> None:
        """That what ran is what was asked.

        Raises:
            DeviceError: A flag was ignored, a delegate fell back, or a mean was disturbed.
        """
        if printed.ignored_flags:
            raise DeviceError(
                f"this build does not know {', '.join(printed.ignored_flags)}; take a newer one"
            )
        if printed.fallback:
            said = printed.fallback.rstrip(".")
            raise DeviceError(f"asked for {self.provider}, and it says: {said}. {_ELSE}")
        believed = not printed.provider and self.provider in self.unspoken
        if printed.provider != self.provider and not believed:
            ran = f"{printed.provider} ran" if printed.provider else "it says nothing of it"
            raise DeviceError(f"asked for {self.provider}, and {ran}. {_ELSE}")
        only_mean = not self.tells_samples and printed.median_ms is None
        if only_mean and (printed.std_ms or 0.0) > _MEAN_SPREAD * printed.mean_ms:
            raise DeviceError(
                f"the runs scatter by {printed.std_ms:.3f} ms around {printed.mean_ms:.3f} ms "
                "and this build prints no median: it was disturbed"
            )


def _push_s(files: Sequence[Path]) -> float:
    return _PUSH_S + sum(f.stat().st_size for f in files) / 1e6


def _output(talk: Conversation, marker: str) -> tuple[int, str, str]:
    """Exit code, text and results of the next command."""
    lines: list[str] = []
    text: list[str] | None = None
    size = 0
    while True:
        line = talk.line(MODEL_S + _GRACE_S)
        if line == f"{marker}-results":
            text, lines = lines, []
            continue
        if line.startswith(f"{marker} "):
            told = line[len(marker) :].strip()
            code = int(told) if told.isdigit() else 1
            shown = "\n".join(lines)
            return (code, shown, "") if text is None else (code, "\n".join(text), shown.strip())
        size += len(line)
        if size > _LONGEST_OUTPUT:
            raise DeviceError(f"{talk.name}: a program prints without end")
        lines.append(line)
