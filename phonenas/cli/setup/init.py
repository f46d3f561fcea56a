"""The command init: writes a devices.toml, or a study, from a few answers."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from phonenas.space.errors import InvalidArgument, PhonenasError, StoreError, UnknownName, nearest
from phonenas.space.naming import counted, plain_name

from ..options import Output, command
from ..output import command_line

__all__ = ["init"]

_FEW = 200  # operators of a space; the demo shows that they are enough
_TRIES = 3  # of a question whose answers cannot be used
_PAD = "\0"  # between a value and its comment; no value of TOML holds it
_BARE = re.compile(r"[A-Za-z0-9_-]+")

_STUDY = """\
# A study: each table is a command, its keys are the options of that command.
# All steps:     {run}
# What they are: {run} --commands

out = {out}{pad}the study's folder: store, model, runs, pages
device = {device}{pad}a name of `phonenas devices [--ready]`
space = {space}{pad}{spaces}, ...; or a .toml file
{measure}
[search]                              # phonenas search --help
target = {target}{pad}ms, or a network; {several}
strategy = "nsga2"                    # or a list, for a run of each; seed, too
evaluations = 8000                    # with more, a finished run goes on
seed = 0
# accuracy = "imagenet"               # the default; "training:proxy" trains on your images
# limit = ["params<=5e6"]             # at most 5 million parameters

{validate}[report]                              # a page for each run; for several one more
"""
_MEASURE = """
[profile]                             # phonenas profile --help
{operators}networks = 20{pad}whole networks, to calibrate and to score the model
{network}
[fit]                                 # the latency model, and its score
"""
_VALIDATE = """\
[validate]                            # the best networks, measured
top = 5

# [promote]                           # trains them in full: phonenas promote --help
# data = "images"

"""


class _Asker:
    """Questions on stderr, answers from stdin.

    Args:
        silent: Take each default, and ask nothing.
    """

    def __init__(self, silent: bool) -> None:
        self.silent = silent

    def ask(
        self,
        question: str,
        default: str,
        check: Callable[[str], Any] = str,
        at_end: str | None = None,
    ) -> str:
        """The answer to a question; the default where it is empty; `at_end`, if given, where the
        input has ended.

        Raises:
            InvalidArgument: No answer, or none that `check` takes, three times.
        """
        last: PhonenasError | None = None
        for _ in range(1 if self.silent else _TRIES):
            answer = "" if self.silent else self._answer(question, default)
            if answer is None and at_end is not None:
                return at_end
            if answer is None:
                raise InvalidArgument(
                    "the input ended before the answer. To be asked nothing, give --yes"
                )
            try:
                check(answer or default)
            except PhonenasError as error:
                last = error
                if not self.silent:
                    print(error, file=sys.stderr)
                continue
            return answer or default
        assert last is not None
        raise last

    def agree(self, question: str, default: bool) -> bool:
        """Whether the answer is yes."""

        def check(answer: str) -> None:
            if answer.lower() not in ("y", "yes", "n", "no"):
                raise InvalidArgument(f"yes or no, got {answer!r}")

        return self.ask(question, "yes" if default else "no", check).lower().startswith("y")

    @staticmethod
    def _answer(question: str, default: str) -> str | None:
        shown = f" [{default}]" if default else ""
        print(f"{question}{shown}: ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            print(file=sys.stderr)
            return None
        return line.strip()


@dataclass(frozen=True)
class _Table:
    """A table of devices.toml: its name, and its keys with what they hold."""

    name: str
    keys: dict[str, str | int]

    def __str__(self) -> str:
        head = self.name if _BARE.fullmatch(self.name) else _toml(self.name)
        return "\n".join([f"[{head}]", *(f"{k} = {_toml(v)}" for k, v in self.keys.items())])


def _toml(value: str | int | float | list[str]) -> str:
    """A value in TOML, whose texts in quotes are those of JSON."""
    return json.dumps(value, ensure_ascii=False)


@command
def init(
    output: Output,
    what: Annotated[
        str, typer.Argument(metavar="[devices|study]", help="devices.toml, or a study file.")
    ] = "devices",
    out: Annotated[
        Path | None, typer.Option(help="The file; default: devices.toml, or study.toml.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Ask nothing: take what is found and the defaults.")
    ] = False,
    ssh: Annotated[
        list[str] | None,
        typer.Option(help="Of devices: a computer or board reached over ssh; repeatable."),
    ] = None,
    program: Annotated[
        Path | None,
        typer.Option(help="Of devices: benchmark_model or onnxruntime_perf_test for Android."),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a study: its device, local by default, or a ready phone; repeatable."
        ),
    ] = None,
    space: Annotated[str, typer.Option(help="Of a study: its search space.")] = "mnasnet",
    target: Annotated[
        str, typer.Option(help="Of a study: milliseconds, or a network.")
    ] = "mobilenet-v2",
) -> None:
    """Write a devices.toml, or a study file, by asking; nothing is overwritten unasked."""
    asker = _Asker(yes)
    if what == "study":
        output.refuse("ssh program", "is of devices, not of a study")
        path = out or Path("study.toml")
        values = {"space": space, "target": target}
        _write_study(output, asker, path, device or ["local"], values)
    elif what == "devices":
        output.refuse("device space target", "is of a study: phonenas init study")
        _write_devices(output, asker, out, ssh or [], program)
    else:
        known = nearest(what, ("devices", "study"))
        raise UnknownName(f"init writes devices or a study, not {what!r}. {known}")


def _write_study(
    output: Output, asker: _Asker, path: Path, devices: list[str], values: dict[str, str]
) -> None:
    from phonenas import space as spaces
    from phonenas.data.files import TemporaryFolder, write_atomic
    from phonenas.latency_model import ready
    from phonenas.search import Target

    from ..networks import find
    from ..search import milliseconds
    from .study import Study, refuse_unknown

    if path.exists():
        question = f"{path} is there already. Replace it?"
        if asker.silent or not asker.agree(question, default=False):
            raise StoreError(f"{path} is there already, and is left. Name another file: --out")

    def reachable(text: str) -> None:
        if (ms := milliseconds(text)) is None:
            find(text)
        else:
            Target(ms)

    def known(text: str) -> None:
        for name in _listed(text):
            refuse_unknown(name)

    question = "Device (several: with commas between them)"
    devices = _listed(asker.ask(question, ", ".join(devices), known))
    space = asker.ask("Search space", values["space"], lambda s: spaces.get(s))
    target = asker.ask("Target, in ms or as a network", values["target"], reachable)
    ms = milliseconds(target)
    every = (
        len(spaces.get(space).operators()) if any(d not in ready.names() for d in devices) else 0
    )
    few = f"operators = {_FEW}{_PAD}of the space's {every:,}, the most informative; without: all\n"
    there = any(d not in ready.names() for d in devices)
    several = len(devices) > 1
    network = "" if ms is not None else f"network = [{_toml(target)}]{_PAD}the target\n"
    text = _STUDY.format(
        run=command_line("run", str(path)),
        out=_toml(f"runs/{path.stem}"),
        device=_toml(devices if several else devices[0]),
        space=_toml(space),
        target=_toml(target if ms is None else ms),
        several="{NAME = 8, ...} sets each" if several else "a list gives a run for each",
        spaces=", ".join(spaces.names()[:2]),
        measure=_MEASURE.format(operators=few * (every > _FEW), network=network, pad=_PAD)
        if there
        else "",
        validate=_VALIDATE if there else "",
        pad=_PAD,
    )
    with TemporaryFolder() as folder:  # a file is replaced by one that can be done, or by none
        file = write_atomic(folder / "study.toml", _aligned(text))
        try:
            steps = Study(file).steps
        except PhonenasError as error:
            error.args = (str(error).replace(str(file), str(path)),)
            raise
    write_atomic(path, _aligned(text))
    result = {"file": str(path), "steps": [str(s) for s in steps]}
    shown = f"written to {path}: {counted(len(steps), 'step')}\ndo them:  "
    output.print(result, lambda: shown + command_line("run", str(path)))


def _listed(text: str) -> list[str]:
    """The names in an answer, each once."""
    return [*dict.fromkeys(name.strip() for name in text.split(",") if name.strip())] or [text]


def _aligned(text: str) -> str:
    """The text, its comments behind values in one column."""
    lines = []
    for line in text.split("\n"):
        value, mark, comment = line.partition(_PAD)
        lines.append(f"{value:<36}  # {comment}" if mark else line)
    return "\n".join(lines)


def _write_devices(
    output: Output, asker: _Asker, out: Path | None, hosts: list[str], program: Path | None
) -> None:
    from phonenas.data.files import write_atomic
    from phonenas.devices.settings import devices_file, read_settings

    path = out or devices_file()
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    known = read_settings(path) if before else {"local": None}
    output.note("This computer is the device local, and needs no table.")
    found = [*_phones(output, asker, {*known}, program)]
    found += _computers(asker, {*known, *(t.name for t in found)}, hosts)
    if not found:
        raise InvalidArgument(
            f"no device is to be written to {path}. Connect a phone and allow USB debugging, or "
            "name a computer:  phonenas init --ssh HOST"
        )
    if before:
        question = f"{path} has {counted(len(known) - 1, 'device')}. Add {len(found)} more?"
        if not asker.agree(question, default=True):
            raise StoreError(f"{path} is left as it is. Name another file: --out")
    head = before.rstrip("\n") + "\n\n" if before else "# Devices of phonenas: docs/phones.md\n\n"
    text = head + "\n\n".join(map(str, found)) + "\n"
    _read_back(text, [t.name for t in found])
    write_atomic(path, text)
    names = [t.name for t in found]
    result = {"file": str(path), "devices": names, "kept": sorted({*known} - {"local"})}
    own = "" if path == devices_file() else f"PHONENAS_DEVICES={shlex.quote(str(path))} "
    output.print(
        result, lambda: f"written to {path}: {', '.join(names)}\nlook:  {own}phonenas devices"
    )


def _read_back(text: str, names: list[str]) -> None:
    """Refuse a text that would not give these devices."""
    from phonenas.data.files import TemporaryFolder
    from phonenas.devices.settings import Refused, read_settings

    with TemporaryFolder() as folder:
        file = folder / "devices.toml"
        file.write_text(text, encoding="utf-8")
        settings = read_settings(file)
    for name in names:
        if isinstance(refused := settings[name], Refused):
            raise refused.error


def _phones(
    output: Output, asker: _Asker, taken: set[str], program: Path | None
) -> Iterator[_Table]:
    """A table for each phone that adb sees and no table names."""
    from phonenas.devices import listing

    for state in listing():
        if state.kind != "adb" or state.state != "not in devices.toml":
            if state.kind == "adb" and state.name.startswith("("):
                output.note(f"adb: {state.name}: {state.state}: {state.detail}")
            continue
        serial = state.name[1:-1]
        if not asker.agree(f"Add the phone {state.model or serial} ({serial})?", default=True):
            continue
        if program is None and asker.silent:
            output.note(
                f"{serial} is left out: a phone needs a benchmark program, see docs/phones.md. "
                "Name it:  phonenas init --yes --program FILE"
            )
            continue
        file = asker.ask("Benchmark program for Android", str(program or ""), _is_file)
        name = _name(asker, state.model or "phone", taken)
        perf = "perf_test" in Path(file).name
        keys: dict[str, str | int] = {"transport": "adb", "address": serial}
        keys["runtime"] = "onnxruntime_perf_test" if perf else "benchmark_model"
        keys["binary"] = str(Path(file).expanduser().resolve())
        yield _Table(name, keys)


def _computers(asker: _Asker, taken: set[str], hosts: list[str]) -> Iterator[_Table]:
    """A table for each computer or board that is reached over ssh."""
    for host in hosts:
        yield _computer(asker, taken, host)
    while not asker.silent:  # ends with an empty answer, or with the input
        host = asker.ask("A computer reached over ssh (USER@HOST; empty: no more)", "", at_end="")
        if not host:
            return
        yield _computer(asker, taken, host)


def _computer(asker: _Asker, taken: set[str], host: str) -> _Table:
    name = _name(asker, host.rpartition("@")[2].partition(".")[0] or "computer", taken)
    runtime = asker.ask("What runs models there, onnxruntime or litert?", "onnxruntime", _runtime)
    return _Table(name, {"transport": "ssh", "address": host, "runtime": runtime})


def _name(asker: _Asker, like: str, taken: set[str]) -> str:
    """A name that no other device has, like that of a model or host."""
    base = re.sub(r"[^a-z0-9]+", "-", like.lower()).strip("-") or "device"
    base = (
        base
        if base not in taken
        else next(f"{base}-{n}" for n in range(2, len(taken) + 3) if f"{base}-{n}" not in taken)
    )

    def free(name: str) -> None:
        plain_name(name, "a device")
        if name in taken:
            raise InvalidArgument(f"{name} is the name of another device")

    chosen = asker.ask("Its name", base, free)
    taken.add(chosen)
    return chosen


def _is_file(text: str) -> None:
    if not text or not Path(text).expanduser().is_file():
        raise UnknownName(f"there is no file {text!r}; docs/phones.md says where to get one")


def _runtime(text: str) -> None:
    if text not in ("onnxruntime", "litert"):
        raise UnknownName(f"no such runtime. {nearest(text, ('onnxruntime', 'litert'))}")
