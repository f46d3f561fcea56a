"""The command run: does the steps of a study, each once.

`study.json` in the study's folder keeps what is done: a step is done again where its words changed,
or a file or device's table that it reads, where what it wrote is gone, or where a step that it
rests on was done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from phonenas.space.errors import Incomplete, NotEnoughData, PhonenasError, SettingsChanged

from ..options import Output, command
from ..output import ANY, command_line
from .step import Step
from .step import commands as step_commands
from .study import Study

__all__ = ["run"]

_LARGE_BYTES, _MOST_ENTRIES = 64 << 20, 10_000
_AGAIN = "Remove it: then each step is done again, and what its own files hold is used."


class _Record:
    """What is done of a study: study.json in its folder, which this process has locked.

    Each step that was done has its words, the time when it ended, the times of the steps that it
    rested on, and a digest of what it read.
    """

    def __init__(self, folder: Path) -> None:
        from phonenas.data.documents import Document, only, strict

        only(folder, "study.json")
        self.path = folder / "study.json"
        self._document = Document("phonenas-study", 1, "study's record")
        content = self._document.read(self.path, _AGAIN) or {"done": {}}
        with self._document.checking(self.path, _AGAIN):
            self.done = strict(content["done"], dict[str, _Done])

    def is_done(self, step: Step, read: str) -> bool:
        """Whether a step need not be done again."""
        before = self.done.get(step.name)
        there = all(file.exists() for file in step.makes)
        return before is not None and there and before == self._of(step, before.at, read)

    def _of(self, step: Step, at: str, read: str) -> _Done:
        rests = [self.done[name].at for name in step.after if name in self.done]
        return _Done(step.shown, rests, at, read)

    def begin(self, step: Step) -> None:
        """Forget a step: what it wrote before is not what it writes now."""
        if self.done.pop(step.name, None) is not None:
            self._write()

    def end(self, step: Step, read: str) -> None:
        """Keep that a step is done."""
        at = datetime.now(UTC).isoformat(timespec="microseconds")
        self.done[step.name] = self._of(step, at, read)
        self._write()

    def _write(self) -> None:
        done = {name: vars(d) for name, d in self.done.items()}
        self._document.write(self.path, {"done": done})


@dataclass
class _Done:
    """A step that is done."""

    words: list[str]
    after: list[str]
    at: str
    read: str = ""


def _digest(step: Step) -> str:
    """A digest of the files and folders among what a step reads, and of its devices' tables."""
    from phonenas.devices.settings import read_settings

    digest = hashlib.sha256()
    for device in step.devices:
        digest.update(repr(read_settings().get(device)).encode())
    for text in step.reads:
        for name in dict.fromkeys((text, text.partition(":")[2], text.rpartition(":")[0])):
            for part in _parts(name) if name else ():
                digest.update(f"{name}\0{part}\0".encode())
    return digest.hexdigest()


def _parts(name: str) -> list[str]:
    """What tells whether a file or folder changed; nothing where there is none.

    A file's content, or, of a large one, its size and time. Of a run its documents. Of another
    folder the names, sizes and times of its first entries.
    """
    path = Path(name)
    try:
        if path.is_file():
            about = path.stat()
            if about.st_size > _LARGE_BYTES:
                return [f"{about.st_size} {about.st_mtime_ns}"]
            with path.open("rb") as file:
                return [hashlib.file_digest(file, "sha256").hexdigest()]
        if (path / "run.json").is_file():
            return [p for n in ("run.json", "promoted.json") for p in _parts(str(path / n))]
        if path.is_dir():
            entries = sorted(islice(path.rglob("*"), _MOST_ENTRIES))
            stats = [(str(p.relative_to(path)), p.stat()) for p in entries]
            return [f"{n} {s.st_size} {s.st_mtime_ns}" for n, s in stats]
    except (OSError, ValueError):  # too long for a name, removed meanwhile, not to be read
        return ["unreadable"]
    return []


@command
def run(
    output: Output,
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="The file; `phonenas init study` writes one.")
    ] = Path("study.toml"),
    out: Annotated[
        Path | None, typer.Option(help="The study's folder, instead of the one in the file.")
    ] = None,
    commands: Annotated[
        bool, typer.Option("--commands", help="Print the command of each step, and do nothing.")
    ] = False,
) -> None:
    """Do each step of a study file: profile, fit, search, validate, promote, report.

    A stopped study continues with the same command. What is done and whose keys are unchanged is
    not done again.
    """
    from phonenas.data.files import lock_folder

    asked = Study(study, out)
    if commands:
        lines = [str(step) for step in asked.steps]
        first = [] if asked.out.exists() else [shlex.join(["mkdir", "-p", str(asked.out)])]
        output.print(lines, lambda: "\n".join([*first, *lines]))
        return
    told: list[dict[str, Any]] = []
    with lock_folder(asked.out):
        record = _Record(asked.out)
        for number, step in enumerate(asked.steps, 1):
            read = _digest(step)  # as it is before: what changes meanwhile may not have been read
            before = record.is_done(step, read)
            if not output.as_json:
                print(f"# done before: {step}" if before else f"$ {step}", flush=True)
            result = None
            if not before:
                record.begin(step)
                try:
                    result = _do(step, output, f"step {number} of {len(asked.steps)}, {step.name}")
                except NotEnoughData as error:
                    _measure_again(record, [s for s in asked.steps if s.name in step.after], error)
                    raise
                record.end(step, read)
            made = str(step.makes[0]) if step.makes else None
            told.append({"step": step.name, "command": str(step), "before": before})
            told[-1] |= {"at": record.done[step.name].at, "made": made, "result": result}
    done = {"study": str(study), "out": str(asked.out), "steps": told}
    lines = [f"all {len(told)} steps of {study} are done, in {asked.out}"]
    lines += [f"open in a browser:  {s['made']}" for s in told if s["step"].startswith("report")]
    lines += _predicting(asked)
    output.print(done, lambda: "\n".join(lines))


def _measure_again(record: _Record, before: list[Step], error: NotEnoughData) -> None:
    """Have the profile that a step rests on done again: it may have given up most networks."""
    profiles = [step for step in before if step.words[0] == "profile"]
    for profile in profiles:
        record.begin(profile)
    if profiles:
        said = str(error).partition(" Measure more:")[0]  # another profile than that of the study
        error.args = (
            f"{said} Close other programs, then give the same command again: it measures what was "
            "given up. Or set more networks in [profile].",
        )


def _predicting(study: Study) -> list[str]:
    """A line with the command that predicts by the study's model; none where it has no model, or
    no network in one precision."""
    of = {step.words[0]: step for step in reversed(study.steps)}
    if not {"fit", "search"} <= of.keys() or ANY in of["search"].words:
        return []
    (model,), run = of["fit"].makes, of["search"].makes[0].parent
    words = ("predict", f"{run}:0", "--device", of["fit"].devices[0], "--model", str(model))
    return [f"predict with its model:  {command_line(*words, db=study.shared['db'])}"]


def _do(step: Step, output: Output, where: str) -> Any:
    """Run the command of a step; with --json its document.

    Raises:
        PhonenasError: As the command; the message says which step it is.
    """
    flags = {"--json": output.as_json, "--verbose": output.verbose, "--quiet": output.quiet}
    words = [*step.words[1:], *(word for word, given in flags.items() if given)]
    printed = io.StringIO()
    catch = contextlib.redirect_stdout(printed) if output.as_json else contextlib.nullcontext()
    found: Any = step_commands()[step.words[0]]
    try:
        with catch, found.make_context(step.words[0], words) as context:
            found.invoke(context)
    except SettingsChanged as error:
        error.args = (
            f"{where}: {error} In a study: move that folder away, or give the study another --out.",
        )
        raise
    except PhonenasError as error:
        error.args = (f"{where}: {error}",)
        raise
    except (typer.Exit, SystemExit) as stop:
        code = stop.exit_code if isinstance(stop, typer.Exit) else stop.code
        if code:
            raise Incomplete(f"{where}: {step} ended with exit code {code}") from stop
    if not output.as_json:
        print(flush=True)
        return None
    return json.loads(printed.getvalue())
