"""Runtimes that are a program: one command a model, a batch of commands in one script.

The program measures and prints; nothing can run between its samples. So the sentinel is a command,
too: before the first model, after every few, and at the end. Each model gets the mean of the two
sentinels around it.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import secrets
import shlex
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import ClassVar

from phonenas.data.files import TemporaryFolder
from phonenas.data.measurement import Startup
from phonenas.space.errors import DeviceError, DeviceUnavailable, InvalidArgument

from ..device import Job, LostInRun, Reading
from ..settings import DeviceSettings
from ..system.android_text import mask
from ..system.device_text import BY_HAND, shown
from ..transports.base import Transport, ending, watched
from ..transports.process import Process
from .energy import POWERED, power_uw
from .runtime import ENERGY_S, MODEL_S, STARTUP_RUNS, Identity, Runtime, runs_natively
from .timings import Printed

__all__ = ["CommandRuntime"]

_PUSH_S = 60.0
_GRACE_S = 30.0
_SENTINEL_RUNS = 20
_APART = 4  # models between two sentinels
_LONGEST_OUTPUT = 1 << 20
# Without a median, a mean is accepted only if the runs scatter little: with another program on the
# core it is off by up to 171 %.
_MEAN_SPREAD = 0.10
_ELSE = "Set another provider in devices.toml, or use a build that has it"
# Runs a program with its text in a file, and prints that, a marker, and the last that /proc told of
# its memory: the greatest that was resident. A program that has ended has no such line.
_WATCHED = """
marker=$1 output=$2; shift 2
"$@" >"$output" 2>&1 </dev/null & program=$!
while peak=$(grep VmHWM "/proc/$program/status" 2>/dev/null); do
  last=$peak
  sleep 0.01
done
wait $program; code=$?
cat "$output"; echo; echo "$marker $last"
exit $code
"""
_LEAST_RUN_MS = 0.05
_PEAK = re.compile(r"VmHWM:\s+([0-9]{1,12}) kB")
_MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}


@dataclass(frozen=True)
class _Command:
    """One run of the program: of the sentinel (index -1) or of a model."""

    index: int
    arguments: tuple[str, ...]
    partly: bool = False


class CommandRuntime(Runtime):
    """A benchmark program, which the user supplies as a file for the device's processor."""

    optimisation: ClassVar[str] = "all"
    package: ClassVar[str]
    #: Whether it writes every sample into the file `self.results`.
    reports_samples: ClassVar[bool] = False
    #: Providers that it uses without printing their names.
    unreported: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: DeviceSettings) -> None:
        super().__init__(settings)
        if not settings.binary:
            raise InvalidArgument(
                f"device {settings.name}: {self.name} needs  binary = ...  in devices.toml: the "
                f"program, built for the device. {self.package}"
            )
        self.binary = Path(settings.binary)
        self._transport: Transport | None = None
        self._process: Process | None = None
        self._program = ""
        self.results = ""
        self._pin: tuple[str, ...] = ()
        self.statistic = ""

    @abstractmethod
    def command(
        self, program: str, model: str, runs: int, warmup_runs: int, warmup_s: float
    ) -> list[str]:
        """The command that measures a model on the device."""

    @abstractmethod
    def read(self, text: str) -> Printed:
        """Parse what the program printed.

        Raises:
            DeviceError: It is not a report.
        """

    def samples_ms(self, printed: Printed, results: str, warmup_runs: int) -> tuple[float, ...]:
        """The times of a reading, in ms: by default the median, else the mean."""
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
            "samples"
            if self.reports_samples
            else "median of the runs"
            if printed.median_ms is not None
            else "mean of the runs"
        )
        return Identity(
            self.name,
            f"binary {hashlib.sha256(content).hexdigest()[:8]}",
            hashlib.sha256(content).hexdigest(),
            self.provider,
            self.optimisation,
            self.statistic,
        )

    def _check_machine(self, transport: Transport, content: bytes) -> None:
        """Reject what is not a program, or one for another processor, before it is sent."""
        if content[:2] == b"#!":
            return  # a script: it may run anywhere
        if content[:4] != b"\x7fELF" or len(content) < 20:
            raise DeviceUnavailable(
                f"{transport.name}: {self.binary.name} is not a program: it begins with "
                f"{shown(content[:40].decode('utf-8', 'replace'))}. {self.package}"
            )
        built_for = _MACHINES.get(int.from_bytes(content[18:20], "little"), "another processor")
        machine = transport.check(["uname", "-m"], "asking for its processor").output.strip()
        if not runs_natively(built_for, machine):
            raise DeviceUnavailable(
                f"{transport.name}: {self.binary.name} is built for {built_for}, the device is "
                f"{machine}. {self.package}"
            )

    def _try(self, sentinel: Path) -> Printed:
        """Test with one run of the sentinel that the program runs, and as asked."""
        assert self._transport is not None
        (model,) = self._transport.push([sentinel], limit_s=_PUSH_S)
        command = self.command(self._program, model, _SENTINEL_RUNS, 1, 0.0)
        answer = self._transport.run([*self._pin, *command], limit_s=MODEL_S + _GRACE_S)
        try:
            return self._read(answer.code, f"{answer.output}\n{answer.errors}")
        except DeviceError as error:
            raise DeviceUnavailable(
                f"{self._transport.name} cannot run {self.binary.name} as asked: {error}"
            ) from error

    def startup(self, model: Path) -> Startup | None:
        """Of one run of the program: its text, and its peak of memory in /proc while it runs."""
        transport = self._transport
        if transport is None or not self._program:
            raise DeviceUnavailable("the runtime is not started")
        (pushed,) = transport.push([model], limit_s=_push_s([model]))
        try:
            printed, peak = self._watched(_WATCHED, pushed, STARTUP_RUNS)
            energy_mj = self._energy_mj(pushed, printed.mean_ms) if self.settings.energy else None
        finally:
            if transport.kind != "local":  # on the device they would accumulate
                transport.run(["rm", "-f", pushed], limit_s=_GRACE_S)
        match = _PEAK.fullmatch(peak.strip())
        return Startup(
            printed.init_ms,
            printed.first_ms,
            int(match[1]) * 1024 if match else printed.peak_bytes,
            printed.model_bytes,
            model.stat().st_size,
            energy_mj,
        )

    def _energy_mj(self, pushed: str, usual_ms: float) -> float | None:
        """Of some seconds of runs, by the battery; None where it does not tell, or they failed."""
        # A program that is asked for too many runs would be ended before it prints.
        runs = max(1, math.ceil(ENERGY_S * 1e3 / max(usual_ms, _LEAST_RUN_MS)))
        try:
            timed, readings = self._watched(POWERED, pushed, runs)
        except DeviceError:  # what the first run told is not lost with it
            return None
        power = power_uw(readings)
        return None if power is None else power * timed.mean_ms / 1e6

    def _watched(self, script: str, pushed: str, runs: int) -> tuple[Printed, str]:
        """What the program reports of so many runs, and what a script prints beside it."""
        transport = self._transport
        assert transport is not None
        command = self.command(self._program, pushed, runs, 1, 0.0)
        marker = f"phonenas-{secrets.token_hex(8)}"
        output = f"{transport.folder}/startup.txt"
        watching = ["sh", "-c", script, "sh", marker, output, *self._pin, *command]
        try:
            answer = transport.run(watching, limit_s=MODEL_S + _GRACE_S)
        finally:
            transport.run(["rm", "-f", output, f"{output}.power"], limit_s=_GRACE_S)
        text, _, beside = answer.output.rpartition(marker)
        return self._read(answer.code, text, partly=True), beside

    def once(self, model: Path, runs: int, warmup_runs: int, *flags: str) -> tuple[str, Printed]:
        """Its text of one command of its own, with further flags, and what it reports there.

        Raises:
            DeviceError: It failed; or it does not know a flag.
            DeviceUnavailable: The device was lost.
        """
        transport = self._transport
        if transport is None or not self._program:
            raise DeviceUnavailable("the runtime is not started")
        (pushed,) = transport.push([model], limit_s=_push_s([model]))
        program, *words = self.command(self._program, pushed, runs, warmup_runs, 0.0)
        command = [program, *flags, *words]
        try:
            answer = transport.run([*self._pin, *command], limit_s=MODEL_S + _GRACE_S)
        finally:
            if transport.kind != "local":  # on the device they would accumulate
                transport.run(["rm", "-f", pushed], limit_s=_GRACE_S)
        text = f"{answer.output}\n{answer.errors}"
        return text, self._read(answer.code, text, partly=True)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.stop()  # without effect if the batch has ended
            process.close()

    # -- measuring ----------------------------------------------------------------------------

    def run_ms(
        self, jobs: Sequence[Job], *, sentinel: Path, warmup_runs: int, warmup_s: float
    ) -> Iterator[Reading]:
        transport = self._transport
        if transport is None or not self._program:
            raise DeviceUnavailable("the runtime is not started")
        marker = f"phonenas-{secrets.token_hex(8)}"
        files = list(dict.fromkeys([sentinel, *(j.model for j in jobs)]))
        with TemporaryFolder() as folder:
            paths = dict(zip(files, transport.push(files, limit_s=_push_s(files)), strict=True))
            commands = self._commands(jobs, paths, paths[sentinel], warmup_runs, warmup_s)
            script = folder / "batch.sh"
            first, last = watched(transport.folder, beats=transport.kind != "local")
            lines = [self._line(c.arguments, marker) for c in commands]
            done = {paths[j.model] for j in jobs} - {paths[sentinel]}
            if done and transport.kind != "local":  # on the device they would accumulate
                lines.append(shlex.join(["rm", "-f", *sorted(done)]))
            script.write_text("\n".join([first, *lines, last]), encoding="utf-8", newline="\n")
            (pushed,) = transport.push([script], limit_s=_PUSH_S)
            process = self._process = transport.spawn(["sh", pushed])
            try:
                yield from self._readings(process, commands, marker, len(jobs), warmup_runs)
                process.await_end(_GRACE_S)
            finally:
                self.stop()

    def _line(self, arguments: Sequence[str], marker: str) -> str:
        """The shell line of one command, its results and its marker."""
        line = f"{shlex.join([*self._pin, *arguments])} 2>&1 </dev/null; "
        if not self.reports_samples:
            return line + ending(marker)
        # The program appends to an existing file.
        results = shlex.quote(self.results)
        return (
            f"rm -f {results}; {line}phonenas_code=$?; echo; echo {marker}-results; "
            f"cat {results}; (exit $phonenas_code); {ending(marker)}"
        )

    def _commands(
        self,
        jobs: Sequence[Job],
        paths: dict[Path, str],
        sentinel: str,
        warmup_runs: int,
        warmup_s: float,
    ) -> list[_Command]:
        """Sentinel, some models, sentinel, ..., sentinel; the first one warms up by time."""

        def command(
            index: int, path: str, runs: int, seconds: float, partly: bool = False
        ) -> _Command:
            arguments = self.command(self._program, path, runs, warmup_runs, seconds)
            return _Command(index, tuple(arguments), partly)

        commands = [command(-1, sentinel, _SENTINEL_RUNS, warmup_s)]
        for index, job in enumerate(jobs):
            commands.append(command(index, paths[job.model], job.runs, 0.0, job.partly))
            if index % _APART == _APART - 1 or index == len(jobs) - 1:
                commands.append(command(-1, sentinel, _SENTINEL_RUNS, 0.0))
        return commands

    def _readings(
        self,
        process: Process,
        commands: Sequence[_Command],
        marker: str,
        count: int,
        warmup_runs: int,
    ) -> Iterator[Reading]:
        before_ms: float | None = None
        waiting: list[Reading] = []
        count_read = 0
        for command in commands:
            try:
                output = _output(process, marker)
                reading = self._reading(*output, warmup_runs, command.partly)
            except DeviceUnavailable as error:
                if command.index < 0:
                    raise
                raise LostInRun(str(error)) from error
            if command.index >= 0:
                waiting.append(reading)
                continue
            # Without one of the two sentinels the other one counts alone.
            now_ms = None if reading.error else median(reading.samples_ms)
            around = [ms for ms in (before_ms, now_ms) if ms is not None]
            if not around:
                raise DeviceError(f"{process.name}: the sentinel has no time: {reading.error}")
            between_ms = fmean(around)
            before_ms = now_ms
            for model in waiting:
                count_read += 1
                yield replace(model, sentinel_ms=(between_ms,) * len(model.samples_ms))
            waiting = []
        if count_read != count:
            raise DeviceError(f"{process.name}: {count_read} of {count} models were measured")

    def _reading(
        self, code: int, text: str, results: str, warmup_runs: int, partly: bool = False
    ) -> Reading:
        """The reading of one command: its times, or why there is none."""
        try:
            printed = self._read(code, text, partly)
            samples = self.samples_ms(printed, results, warmup_runs)
        except DeviceError as error:
            return Reading(error=str(error))
        rest = f", {printed.fallback}" if printed.fallback else ""
        return Reading(samples, (), 0, self.provider + rest, first_ms=printed.first_ms or 0.0)

    def _read(self, code: int, text: str, partly: bool = False) -> Printed:
        """Parse what the program printed, if it ended well and ran what was asked.

        Raises:
            DeviceError: It did not; says why.
        """
        try:
            printed = self.read(text)
        except DeviceError as error:
            if code:
                raise DeviceError(f"it ended with code {code}. {error}") from error
            raise
        if code:
            raise DeviceError(f"it ended with code {code} after its report. {BY_HAND}")
        self._check(printed, partly)
        return printed

    def _check(self, printed: Printed, partly: bool) -> None:
        """Check that what ran is what was asked; a file of somebody else's may run partly so.

        Raises:
            DeviceError: A flag was ignored, a delegate fell back, or a mean was disturbed.
        """
        if printed.ignored_flags:
            raise DeviceError(
                f"this build does not know {', '.join(printed.ignored_flags)}; use a newer one"
            )
        ran_partly = partly and self.provider in printed.provider.split("+")
        if printed.fallback and not ran_partly:
            line = printed.fallback.rstrip(".")
            raise DeviceError(f"asked for {self.provider}, and it printed: {line}. {_ELSE}")
        assumed = not printed.provider and self.provider in self.unreported
        if printed.provider != self.provider and not assumed and not ran_partly:
            ran = f"{printed.provider} ran" if printed.provider else "its report does not name it"
            raise DeviceError(f"asked for {self.provider}, and {ran}. {_ELSE}")
        only_mean = not self.reports_samples and printed.median_ms is None
        if only_mean and (printed.std_ms or 0.0) > _MEAN_SPREAD * printed.mean_ms:
            raise DeviceError(
                f"the runs scatter by {printed.std_ms:.3f} ms around {printed.mean_ms:.3f} ms "
                "and this build prints no median: another program disturbed it"
            )


def _push_s(files: Sequence[Path]) -> float:
    return _PUSH_S + sum(f.stat().st_size for f in files) / 1e6


def _output(process: Process, marker: str) -> tuple[int, str, str]:
    """Exit code, text and results of the next command."""
    lines: list[str] = []
    text: list[str] | None = None
    size = 0
    while True:
        line = process.line(MODEL_S + _GRACE_S)
        if line == f"{marker}-results":
            text, lines = lines, []
            continue
        if line.startswith(f"{marker} "):
            digits = line[len(marker) :].strip()
            code = int(digits) if digits.isdigit() else 1
            last = "\n".join(lines)
            return (code, last, "") if text is None else (code, "\n".join(text), last.strip())
        size += len(line)
        if size > _LONGEST_OUTPUT:
            raise DeviceError(f"{process.name}: a program prints without end")
        lines.append(line)
