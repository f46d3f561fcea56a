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

Each step is that command, read as from a shell. `device` may be a list: the search is then for all
of them, and those that can be measured are profiled, fitted and validated on, each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from phonenas.space.errors import InvalidArgument, PhonenasError, UnknownName, nearest

from ..options import refuse_unusable, settings_of
from ..output import ANY
from ..search import milliseconds, targets_of
from ..stores import device_of, known_device, refuse_ready
from .step import Step, commands, options_of, plain, read_study, written

if TYPE_CHECKING:
    from phonenas.space import SearchSpace

__all__ = ["Study", "refuse_unknown"]

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
_SEVERAL = ("strategy", "target", "seed")  # of search: each value of a list is a run
_MOST_STEPS = 1_000


class _Measured(Exception):
    """What is asked for depends on measurements, so it is not checked."""


class Study:
    """A study file, checked, and its steps in order.

    Args:
        file: The file; its paths are read as a command reads them, from the working folder.
        out: The study's folder, instead of the one that the file names.
    Attributes:
        devices: By name, in the order of the file.
        out: The study's folder; `runs/` and the file's name without a suffix where none is named.
        steps: In the order in which they are done.
    Raises:
        UnknownName: There is no such file, or it names an unknown key, device, space, ...
        StoreError: It cannot be read.
        InvalidArgument: A value that its option does not take; the message names the key.
    """

    def __init__(self, file: Path, out: Path | None = None) -> None:
        self.file, self.content = file, read_study(file)
        self._check_keys()
        named = self._text("out", str(Path("runs") / file.stem))
        self.out = out or Path(named)
        self.devices = self._devices()
        self.shared = {k: v for k, v in self.content.items() if k in _SHARED}
        self.shared |= {
            "device": [*self.devices],
            "db": self._text("db", str(self.out / "phonenas.db")),
        }
        self.shared.setdefault("space", "mnasnet")
        self.measured = self._measured()
        self.models: dict[str, Path] = {}  # that [fit] makes, by device
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
                if key not in options_of(table):
                    own = [o for o in options_of(table) if o != "out" and table not in _of(o)]
                    known = nearest(key, own, f"phonenas {table} --help")
                    raise UnknownName(f"{self.file}: {table}.{key[:80]}: unknown key. {known}")
        if not any(t in self.content for t in _TABLES):
            known = "], [".join(_TABLES)
            raise InvalidArgument(f"{self.file} names no step; write one or more of [{known}]")
        for table in ("validate", "promote", "report"):
            if table in self.content and "search" not in self.content:
                raise self._error(table, "is about the run of a search: add  [search]")

    def _devices(self) -> tuple[str, ...]:
        """The devices that the file names: one, or a list of several."""
        given = self.content.get("device", "local")
        if not isinstance(given, list):
            return (self._text("device", "local"),)
        if not given or not all(isinstance(d, str) and d.strip() for d in given):
            raise self._error("device", f"is {given!r:.80}; it must be a text, or a list of texts")
        if twice := sorted({d for d in given if given.count(d) > 1}):
            raise self._error("device", f"each device once; given twice: {', '.join(twice)}")
        return tuple(given)

    def _text(self, key: str, default: str) -> str:
        value = self.content.get(key, default)
        if not isinstance(value, str) or not value.strip():
            raise self._error(key, f"is {value!r:.80}; it must be a text")
        return value

    def _measured(self) -> tuple[str, ...]:
        """Those of the devices that can be measured: a ready phone is predicted alone."""
        from phonenas.latency_model import ready

        for device in self.devices:
            with self._at("device"):
                refuse_unknown(device)
        there = tuple(d for d in self.devices if d not in ready.names())
        for table in ("profile", "fit", "validate"):
            if table in self.content and not there:
                with self._at(table):
                    refuse_ready(self.devices[0])
        return there

    def _of_device(self, device: str) -> str:
        """What a step's name ends in: the device, where there are several."""
        return f" {device}" if len(self.devices) > 1 else ""

    def _steps(self) -> Iterator[Step]:
        names, db = [t for t in _TABLES if t in self.content], self.shared["db"]
        before: tuple[str, ...] = ()
        if "profile" in names:
            yield Step("profile", self._words("profile"), (), () if "://" in db else (Path(db),))
            before = ("profile",)
        if "fit" in names:
            if "model" in self.content:
                raise self._error("model", "is a finished model, and [fit] makes one: remove one")
            profiled = before
            self.models = {d: self._model(d) for d in self.measured}
            for device, model in self.models.items():
                words = (*self._words("fit", on=device), "--out", str(model))
                step = Step(f"fit{self._of_device(device)}", words, profiled, (model,))
                yield step
                before = (*before, step.name)
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
            for step in self._of_run(folder, names):
                yield replace(step, after=rests)
                rests = (*rests, step.name)
            ends += rests
            runs.append(folder)
        if "report" in names and len(runs) > 1:
            page = self.out / "comparison.html"
            words = ("report", *map(str, runs), "--out", str(page))
            yield Step("report", words, tuple(ends), (page,))

    def _model(self, device: str) -> Path:
        """The file of the model that [fit] makes of a device."""
        from phonenas.devices import usual_precision
        from phonenas.latency_model import model_path

        db, several = self.shared["db"], len(self.devices) > 1
        if Path(db).parent == self.out:  # the study's own store: where commands look for it
            own = self.content["fit"].get("precision", self.content.get("precision"))
            return model_path(db, device, own or usual_precision(device))
        return self.out / (f"model.{plain(device)}.json" if several else "model.json")

    def _of_run(self, folder: Path, names: list[str]) -> Iterator[Step]:
        """The steps behind a search: each device is measured, one of them is trained for."""
        for device in self.measured if "validate" in names else ():
            words = ("validate", str(folder), *self._words("validate", on=device)[1:])
            place = self.devices.index(device)
            made = (folder / f"device{place + 1}" if place else folder) / "validation.json"
            yield Step(f"validate {folder.name}{self._of_device(device)}", words, (), (made,))
        if "promote" in names:
            # The run's latencies are of its first device.
            on = self.devices[0] if self.devices[0] in self.measured else None
            words = ("promote", str(folder), *self._words("promote", on=on)[1:])
            yield Step(f"promote {folder.name}", words, (), (folder / "promoted.json",))
        if "report" in names:
            words = ("report", str(folder), *self._words("report")[1:])
            yield Step(f"report {folder.name}", words, (), (folder / "report.html",))

    def _runs(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """The folder and the table of each run of the study."""
        table = self.content["search"]
        values: list[list[Any]] = []
        for key in _SEVERAL:
            given = table.get(key, options_of("search")[key].default)
            values.append([*map(self._ordered, given if isinstance(given, list) else [given])])
            if not values[-1] or len({*map(written, values[-1])}) < len(values[-1]):
                raise self._error(f"search.{key}", "a list has one value or more, each once")
        count = len(values[0]) * len(values[1]) * len(values[2])
        if count * 4 > _MOST_STEPS:
            raise self._error("search", f"{count:,} runs; {_MOST_STEPS // 4} is the most")
        folders: set[str] = set()
        for chosen in product(*values):
            strategy, target, seed = chosen
            aim = "no-target" if target is None else plain(target)
            own = {k: v for k, v in zip(_SEVERAL, chosen, strict=True) if v is not None}
            folder = self.out / f"{plain(strategy)}-{aim}-seed{plain(seed)}"
            if str(folder).casefold() in folders:
                raise self._error("search", f"two of its runs would be in {folder}")
            folders.add(str(folder).casefold())
            yield folder, {**table, **own}

    def _ordered(self, value: Any) -> Any:
        """A value; a table with a value for each device in the order of the study's devices."""
        if not isinstance(value, dict):
            return value
        return {d: value[d] for d in self.devices if d in value} | value

    def _words(
        self, name: str, table: dict[str, Any] | None = None, on: str | None = None
    ) -> tuple[str, ...]:
        """The words of a command: its name, what the study shares, and its table's keys.

        Args:
            name: Of the command.
            table: Its table; None for that of the file.
            on: Of a command of one device, that device; None for those of several or of none.
        """
        words = [name]
        shared = {k: v for k, v in self.shared.items() if name in _SHARED[k]}
        if name in ("fit", "validate", "promote"):
            shared["device"] = on
        if name == "profile":
            shared["device"] = [*self.measured]
        if name in _of("model"):
            shared["model"] = self._models_for(name, on)
        shared = {k: v for k, v in shared.items() if v is not None}
        own = self.content.get(name, {}) if table is None else table
        if "precision" in own:
            shared.pop("precision", None)
            fitted = self.content.get("fit", {}).get("precision", self.content.get("precision"))
            if "fit" in self.content and own["precision"] != fitted:
                shared.pop("model", None)  # it is of another precision: the store's is used
        for key, value in shared.items():
            words += self._option(key, options_of(name)[key], value)
        for key, value in own.items():
            words += self._option(f"{name}.{key}", options_of(name)[key], value)
        return tuple(words)

    def _models_for(self, name: str, on: str | None) -> Any:
        """What `--model` of a step is: the files of a search, else that of the step's device."""
        files = self.models
        if not files and len(self.devices) == 1:
            return self.shared.get("model")
        if not files and "model" in self.shared:
            given = self.shared["model"]
            if not isinstance(given, list) or not all(isinstance(m, str) for m in given):
                raise self._error("model", "is a list of files, one for each of several devices")
            with self._at("model"):
                files = {device_of(Path(m)): Path(m) for m in given}
        if name == "search":
            return [*map(str, files.values())] or None
        of = on or self.devices[0]
        return str(files[of]) if of in files else None

    def _option(self, key: str, option: Any, value: Any) -> list[str]:
        """The words of one option."""
        word = next(o for o in option.opts if o.startswith("--"))
        if option.is_flag:
            if not isinstance(value, bool):
                raise self._error(key, f"is {value!r:.80}; it must be true or false")
            return [word] if value else []
        values = value if isinstance(value, list) and option.multiple else [value]
        named = self._ordered(value) if isinstance(value, dict) and option.multiple else {}
        values = [*named.values()] if named else values
        for one in values:
            if isinstance(one, bool) or not isinstance(one, str | int | float):
                several = ", or a list of them" if option.multiple else ""
                what = f"it must be a number or a text{several}"
                raise self._error(key, f"is {one!r:.80}; {what}")
            if not written(one).strip():
                raise self._error(key, "is empty")
        texts = [f"{k}={written(v)}" for k, v in named.items()] or map(written, values)
        return [w for t in texts for w in ([f"{word}={t}"] if t.startswith("-") else [word, t])]

    def _given(self, step: Step) -> dict[str, Any]:
        """The values of a step's parameters, as its command reads them."""
        name = step.words[0]
        try:
            return dict(commands()[name].make_context(name, [*step.words[1:]]).params)
        except typer.BadParameter as error:
            known = {id(p): key for key, p in options_of(name).items()}
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
        on = given.get("device") or ()
        return replace(step, reads=reads, devices=(on,) if isinstance(on, str) else tuple(on))

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
        for key in ("data", "calibrate", "model", "start_from", "quantised", "trained"):
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
            devices = [*self.devices]
            targets = targets_of(given["target"], devices, given["soft"], given["chance"])
            if targets and (without := [d for d in devices if d not in targets]):
                every = ", ".join(f"{d} = 8" for d in devices)
                raise InvalidArgument(f"{without[0]} has none. Write  target = {{ {every} }}")
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
        if given["precision"] == ANY and len(self.devices) > 1:
            raise self._error("search.precision", f"{ANY} is of one device: name one alone")
        if given["precision"] == ANY and given["model"]:
            raise self._error("search.precision", f"{ANY} takes several models: remove  model")


def _of(option: str) -> tuple[str, ...]:
    """The steps that take an option from the whole study."""
    return _SHARED.get(option, ())


def refuse_unknown(device: str) -> None:
    """Refuse the name of no device and of no ready phone."""
    from phonenas.latency_model import ready

    if device not in ready.names():
        known_device(device)
