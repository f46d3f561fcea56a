"""A study: one file that names all steps from a device to a report.

A table of the file is a command, and its keys are the command's options; what stands above the
first table is of all steps::

    device = "local"
    space = "mnasnet"
    [profile]
    networks = 30
    [fit]
    [search]
    target = [6, "mobilenet-v2"]      # a run for each
    [validate]
    [report]
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from phonenas.space.errors import InvalidArgument, PhonenasError, StoreError, UnknownName, nearest

from ..devices import profile
from ..groups import group
from ..latency import fit
from ..options import refuse_unusable, settings_of
from ..output import ANY, command_line
from ..promote import promote
from ..report import report
from ..search import milliseconds, search, targets_of
from ..stores import known_device, refuse_ready
from ..validate import validate

if TYPE_CHECKING:
    from phonenas.space import SearchSpace

__all__ = ["Step", "Study", "commands", "refuse_unknown"]

#: The options of a whole study, and the steps that take each.
_SHARED: dict[str, tuple[str, ...]] = {
    "db": ("profile", "fit", "search", "validate", "promote"),
    "device": ("profile", "fit", "search", "validate", "promote"),
    "space": ("profile", "search"),
    "resolution": ("profile", "search"),
    "precision": ("profile", "fit", "search", "validate", "promote"),
    "threads": ("profile", "validate"),
    "model": ("search", "validate", "promote"),
}
_TABLES = ("profile", "fit", "search", "validate", "promote", "report")
_OF_ALL = ("json", "verbose", "quiet", "help")  # options of every command, given to `run`
_SEVERAL = ("strategy", "target", "seed")  # of search: each value of a list is a run
_MOST_BYTES, _MOST_STEPS = 1 << 20, 1_000
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,39}")


@cache
def commands() -> dict[str, Any]:
    """The commands of the steps, by name, as the command line has them."""
    functions = [profile, fit, search, validate, promote, report]
    found: Any = typer.main.get_command(group("The steps of a study.", functions))
    return dict(found.commands)


@cache
def _options(name: str) -> dict[str, Any]:
    """The options of a step's command that a study may give, by name."""
    return {
        word.removeprefix("--"): param
        for param in commands()[name].params
        for word in param.opts
        if word.startswith("--") and word.removeprefix("--") not in _OF_ALL
    }


@dataclass(frozen=True)
class Step:
    """One command of a study.

    Args:
        name: Of the step: "search nsga2-6-seed0".
        words: Of the command, without `phonenas`.
        after: Names of the earlier steps that it rests on.
        makes: The files that are there when it is done.
        reads: Values of its options that may be files or folders which it reads.
        device: On which device it is, by name; "" of none.
    """

    name: str
    words: tuple[str, ...]
    after: tuple[str, ...]
    makes: tuple[Path, ...]
    reads: tuple[str, ...] = ()
    device: str = ""

    def __str__(self) -> str:
        return command_line(*self.shown)

    @property
    def shown(self) -> list[str]:
        """The words, without a password."""
        from phonenas.data.files import without_password

        return [without_password(word) for word in self.words]


class _Measured(Exception):
    """What is asked for depends on measurements, so it is not checked."""


class Study:
    """A study file, checked, and its steps in order.

    Args:
        file: The file; its paths are read as a command reads them, from the working folder.
        out: The study's folder, instead of the one that the file names.
    Attributes:
        out: The study's folder; `runs/` and the file's name without a suffix where none is named.
        steps: In the order in which they are done.
    Raises:
        UnknownName: There is no such file, or it names an unknown key, device, space, ...
        StoreError: It cannot be read.
        InvalidArgument: A value that its option does not take; the message names the key.
    """

    def __init__(self, file: Path, out: Path | None = None) -> None:
        self.file, self.content = file, _read(file)
        self._check_keys()
        named = self._text("out", str(Path("runs") / file.stem))
        self.out = out or Path(named)
        self.device = self._text("device", "local")
        self.shared = {k: v for k, v in self.content.items() if k in _SHARED}
        self.shared |= {
            "device": self.device,
            "db": self._text("db", str(self.out / "phonenas.db")),
        }
        self.shared.setdefault("space", "mnasnet")
        self._check_device()
        self.steps = tuple(map(self._read_by, self._steps()))
        for step in self.steps:
            self._check(step)

    def _error(self, key: str, why: str) -> InvalidArgument:
        return InvalidArgument(f"{self.file}: {key}: {why}")

    @contextlib.contextmanager
    def _at(self, key: str) -> Iterator[None]:
        """A context whose errors name the file and a key."""
        try:
            yield
        except PhonenasError as error:
            error.args = (f"{self.file}: {key}: {error}",)
            raise
        except typer.BadParameter as error:
            raise self._error(key, str(error.format_message())) from error

    def _check_keys(self) -> None:
        top = ("out", *_SHARED)
        for key, value in self.content.items():
            if key not in (*top, *_TABLES):
                known = nearest(key, [*top, *_TABLES])
                raise UnknownName(f"{self.file}: {key[:80]}: unknown key. {known}")
            if (key in _TABLES) != isinstance(value, dict):
                table = f"is a table: write  [{key}]  and its keys below"
                raise self._error(key, table if key in _TABLES else "is a value, not a table")
        for table in _TABLES:
            for key in self.content.get(table, {}):
                if key == "out" or (table in _of(key) and key != "precision"):
                    words = "is of the whole study: write it above the first table"
                    raise self._error(f"{table}.{key}", words)
                if key not in _options(table):
                    own = [o for o in _options(table) if o != "out" and table not in _of(o)]
                    known = nearest(key, own, f"phonenas {table} --help")
                    raise UnknownName(f"{self.file}: {table}.{key[:80]}: unknown key. {known}")
        if not any(t in self.content for t in _TABLES):
            known = "], [".join(_TABLES)
            raise InvalidArgument(f"{self.file} names no step; write one or more of [{known}]")
        for table in ("validate", "promote", "report"):
            if table in self.content and "search" not in self.content:
                raise self._error(table, "is about the run of a search: add  [search]")

    def _text(self, key: str, default: str) -> str:
        value = self.content.get(key, default)
        if not isinstance(value, str) or not value.strip():
            raise self._error(key, f"is {value!r:.80}; it must be a text")
        return value

    def _check_device(self) -> None:
        from phonenas.latency_model import ready

        with self._at("device"):
            refuse_unknown(self.device)
        if self.device not in ready.names():
            return
        for table in ("profile", "fit", "validate"):
            if table in self.content:
                with self._at(table):
                    refuse_ready(self.device)

    def _steps(self) -> Iterator[Step]:
        from phonenas.devices import usual_precision
        from phonenas.latency_model import model_path

        names, db = [t for t in _TABLES if t in self.content], self.shared["db"]
        before: tuple[str, ...] = ()
        if "profile" in names:
            yield Step("profile", self._words("profile"), (), () if "://" in db else (Path(db),))
            before = ("profile",)
        if "fit" in names:
            if "model" in self.content:
                raise self._error("model", "is a finished model, and [fit] makes one: remove one")
            words, model = self._words("fit"), self.out / "model.json"
            if Path(db).parent == self.out:  # the study's own store: where commands look for it
                own = self.content["fit"].get("precision", self.content.get("precision"))
                model = model_path(db, self.device, own or usual_precision(self.device))
            yield Step("fit", (*words, "--out", str(model)), before, (model,))
            self.shared["model"], before = str(model), (*before, "fit")
        if "search" not in names:
            return
        ends: list[str] = []
        runs: list[Path] = []
        for folder, table in self._runs():
            words = (*self._words("search", table), "--out", str(folder))
            made_there = (folder / "run.json", folder / "checkpoint.npz")
            searched = Step(f"search {folder.name}", words, before, made_there)
            yield searched
            rests: tuple[str, ...] = (searched.name,)
            for name in ("validate", "promote", "report"):
                if name in names:
                    words = (name, str(folder), *self._words(name)[1:])
                    made = {"validate": "validation", "promote": "promoted"}
                    file = f"{made[name]}.json" if name in made else "report.html"
                    step = Step(f"{name} {folder.name}", words, rests, (folder / file,))
                    yield step
                    rests = (*rests, step.name)
            ends += rests
            runs.append(folder)
        if "report" in names and len(runs) > 1:
            page = self.out / "comparison.html"
            words = ("report", *map(str, runs), "--out", str(page))
            yield Step("report", words, tuple(ends), (page,))

    def _runs(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """The folder and the table of each run of the study."""
        table = self.content["search"]
        values: list[list[Any]] = []
        for key in _SEVERAL:
            given = table.get(key, _options("search")[key].default)
            values.append(given if isinstance(given, list) else [given])
            if not values[-1] or len({*map(_written, values[-1])}) < len(values[-1]):
                raise self._error(f"search.{key}", "a list has one value or more, each once")
        count = len(values[0]) * len(values[1]) * len(values[2])
        if count * 4 > _MOST_STEPS:
            raise self._error("search", f"{count:,} runs; {_MOST_STEPS // 4} is the most")
        folders: set[str] = set()
        for chosen in product(*values):
            strategy, target, seed = chosen
            aim = "no-target" if target is None else _plain(target)
            own = {k: v for k, v in zip(_SEVERAL, chosen, strict=True) if v is not None}
            folder = self.out / f"{_plain(strategy)}-{aim}-seed{_plain(seed)}"
            if str(folder).casefold() in folders:
                raise self._error("search", f"two of its runs would be in {folder}")
            folders.add(str(folder).casefold())
            yield folder, {**table, **own}

    def _words(self, name: str, table: dict[str, Any] | None = None) -> tuple[str, ...]:
        """The words of a command: its name, what the study shares, and its table's keys."""
        words = [name]
        shared = {k: v for k, v in self.shared.items() if name in _SHARED[k]}
        if name == "promote" and self.device.count("/"):
            del shared["device"]  # a ready phone is not measured
        own = self.content.get(name, {}) if table is None else table
        if "precision" in own:
            shared.pop("precision", None)
            fitted = self.content.get("fit", {}).get("precision", self.content.get("precision"))
            if "fit" in self.content and own["precision"] != fitted:
                shared.pop("model", None)  # it is of another precision: the store's is used
        for key, value in shared.items():
            words += self._option(key, _options(name)[key], value)
        for key, value in own.items():
            words += self._option(f"{name}.{key}", _options(name)[key], value)
        return tuple(words)

    def _option(self, key: str, option: Any, value: Any) -> list[str]:
        """The words of one option."""
        word = next(o for o in option.opts if o.startswith("--"))
        if option.is_flag:
            if not isinstance(value, bool):
                raise self._error(key, f"is {value!r:.80}; it must be true or false")
            return [word] if value else []
        values = value if isinstance(value, list) and option.multiple else [value]
        for one in values:
            if isinstance(one, bool) or not isinstance(one, str | int | float):
                several = ", or a list of them" if option.multiple else ""
                what = f"it must be a number or a text{several}"
                raise self._error(key, f"is {one!r:.80}; {what}")
            if not _written(one).strip():
                raise self._error(key, "is empty")
        texts = map(_written, values)
        return [w for t in texts for w in ([f"{word}={t}"] if t.startswith("-") else [word, t])]

    def _given(self, step: Step) -> dict[str, Any]:
        """The values of a step's parameters, as its command reads them."""
        name = step.words[0]
        try:
            return dict(commands()[name].make_context(name, [*step.words[1:]]).params)
        except typer.BadParameter as error:
            known = {id(p): key for key, p in _options(name).items()}
            key = self._key(name, known.get(id(error.param), ""))
            raise self._error(key, str(error.format_message())) from error

    def _key(self, name: str, option: str) -> str:
        """Where the file has an option of a step; the step's table where it has none."""
        shared = name in _of(option) and option not in self.content.get(name, {})
        return option if shared or not option else f"{name}.{option}"

    def _read_by(self, step: Step) -> Step:
        """The step, with what it reads."""
        given = self._given(step)
        written = ("db", "out", "accuracy_cache", "run", "runs")
        values = [v for key, v in given.items() if key not in written]
        each = [v for value in values for v in (value if isinstance(value, list) else [value])]
        reads = tuple(str(v) for v in each if isinstance(v, str | Path))
        return replace(step, reads=reads, device=self.device if given.get("device") else "")

    def _check(self, step: Step) -> None:
        """Refuse what a step would refuse, before the first one is begun.

        Names and paths are looked at; what depends on measurements is not.
        """
        from phonenas import space as spaces

        from ..networks import find, is_file, other

        name, given = step.words[0], self._given(step)
        with self._at(name):
            refuse_unusable(given)
        made = {p for s in self.steps for file in s.makes for p in (file, file.parent)}
        for key in ("data", "calibrate", "model", "start_from", "quantised"):
            value = given.get(key)
            for path in map(Path, value if isinstance(value, list) else [value or "."]):
                if path not in made and not path.exists():
                    raise self._error(self._key(name, key.replace("_", "-")), f"there is no {path}")
        resolution = given.get("resolution")
        if name in _of("space"):
            with self._at("space"):
                searched = spaces.get(given["space"], resolution)
        if name == "profile":
            for network in given["network"] or ():
                with self._at("profile.network"):
                    if is_file(network) and not Path(network).exists():
                        raise UnknownName(f"there is no file {network}")
                    if not is_file(network):
                        other(network, 1.0, resolution) or find(network, 1.0, resolution)
        if name == "search":
            self._check_search(given, searched)

    def _check_search(self, given: dict[str, Any], searched: SearchSpace) -> None:
        from phonenas import search as s
        from phonenas import space as spaces
        from phonenas.search.accuracy import ESTIMATORS

        from ..networks import find
        from ..progress import seconds_of

        def model_of(device: str) -> Any:
            refuse_unknown(device)
            raise _Measured

        def memory_of() -> Any:
            raise _Measured

        with self._at("search.fix and search.exclude"):
            spaces.narrow(searched, given["fix"] or (), given["exclude"] or ())
        with self._at("search.strategy and search.set"):
            settings = settings_of(given["set_"])
            s.get(given["strategy"], given["seed"], soft=given["soft"], given=settings)
        with self._at("search.accuracy"):
            if given["accuracy"].partition(":")[0] not in ESTIMATORS.names():
                ESTIMATORS.get(given["accuracy"])
        with self._at("search.target"):
            targets = targets_of(given["target"], [self.device], given["soft"], given["chance"])
            for target in targets.values():
                if milliseconds(target) is None:
                    find(target, 1.0, searched.resolution_px)
        with self._at("search"):
            times = [given[k] and seconds_of(given[k], f"--{k}") for k in ("time", "budget")]
            s.Budget(given["evaluations"], given["patience"], *times)
        parsers: dict[str, Any] = {"also": s.objectives.named, "limit": s.parse_limit}
        for key, parse in parsers.items():
            for text in given[key] or ():
                with self._at(f"search.{key}"), contextlib.suppress(_Measured):
                    parse(text, model_of, memory_of)
        if given["precision"] == ANY and given["model"]:
            raise self._error("search.precision", f"{ANY} takes several models: remove  model")


def _of(option: str) -> tuple[str, ...]:
    """The steps that take an option from the whole study."""
    return _SHARED.get(option, ())


def _written(value: Any) -> str:
    """A value as a word: a number in all its digits, 8.0 as 8.

    >>> _written(8.0), _written(1234567.5), _written("a")
    ('8', '1234567.5', 'a')
    """
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def refuse_unknown(device: str) -> None:
    """Refuse the name of no device and of no ready phone."""
    from phonenas.latency_model import ready

    if device not in ready.names():
        known_device(device)


def _plain(value: Any) -> str:
    """A value as part of a folder's name; its hash where it is none."""
    text = _written(value)
    return text if _PLAIN.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()[:8]


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError as error:
        words = f"there is no study file {path}. Write one:  phonenas init study"
        raise UnknownName(words) from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    if len(content) > _MOST_BYTES:
        raise InvalidArgument(f"{path} is larger than 1 MiB, so it describes no study")
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # not UTF-8, or no TOML: the line is named
        raise InvalidArgument(f"{path} is not a TOML file: {error}") from error
