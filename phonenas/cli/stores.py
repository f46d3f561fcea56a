"""Stores and latency models by name, and what commands say of them."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonenas.space.errors import (
    InvalidArgument,
    NotEnoughData,
    PhonenasError,
    StoreError,
    UnknownName,
)
from phonenas.space.naming import counted, plain_name

from .output import table

if TYPE_CHECKING:
    from phonenas.data import MeasurementStore
    from phonenas.data.measurement import Conditions
    from phonenas.latency_model import LatencyModel
    from phonenas.latency_model.drift import Upkeep
    from phonenas.space import Operator

__all__ = [
    "command_line",
    "completed",
    "fitted_path",
    "find_model",
    "former_kernels",
    "known_device",
    "measurable",
    "model_path",
    "open_store",
    "predictor",
    "profile_words",
    "refit_lines",
    "refuse_ready",
    "rejection_table",
    "rejections",
    "shown_db",
]

_NEARBY = ("*.db", "*/*.db", "*/*/*.db")
_SHOWN = 40  # characters of a network's text
_MOST_FILES = 20  # of a folder full of databases
# The commands whose --device is this computer by default, and all that take --db.
_LOCAL = ("profile", "fit", "check", "predict", "compare", "search", "validate")
_STORED = (*_LOCAL, "promote", "import", "export")
# A message prints a command behind two spaces or `&&`; it is looked at up to the next one, or the
# end of the line.
_COMMAND = re.compile(
    rf"(?<=  |& )phonenas ({'|'.join(_STORED)})(?![\w-])(.*?)(?=&& phonenas |\n|\Z)"
)
_NUMBER = re.compile(r"[-+±]?\d[\d,.]*")


def open_store(db: str, *, create: bool = False) -> MeasurementStore:
    """The store of a command.

    Raises:
        StoreError: There is none; stores that lie nearby are named.
    """
    from phonenas.data import MeasurementStore

    if not create and "://" not in db and not Path(db).exists() and (near := _nearby()):
        raise StoreError(f"there is no store at {shown_db(db)}. {near}")
    return MeasurementStore(db, create=create)


def _nearby() -> str:
    """A sentence that names the stores in this folder and two levels below it; "" for none."""
    paths = islice((p for pattern in _NEARBY for p in Path().glob(pattern)), _MOST_FILES)
    found = [str(p) for p in paths if _is_sqlite(p)][:3]
    if not found:
        return ""
    return f"Stores nearby: {', '.join(found)}. Name one:  --db {shlex.quote(found[0])}"


def _is_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except OSError:
        return False


def shown_db(db: str) -> str:
    """A store's location without its password."""
    from phonenas.data.files import without_password

    return without_password(db)


def command_line(*words: str, db: str = "") -> str:
    """A command to copy, quoted for a shell: `phonenas` with these words and the store."""
    return shlex.join(["phonenas", *words, *(["--db", shown_db(db)] if db else [])])


def completed(text: str, db: str = "", device: str = "", model: Path | None = None) -> str:
    """A message whose printed commands act on the store, device and model of the user's command.

    The modules that raise errors know no store, and not always the device; this adds the options
    that a printed command takes and lacks. They go behind its name, because what follows a command
    in a message is not marked.

    >>> completed("Fit it again:  phonenas fit", "my lab.db", "pixel6")
    "Fit it again:  phonenas fit --db 'my lab.db' --device pixel6"

    Args:
        text: The message.
        db: The user's store; "" adds none.
        device: The user's device, which also replaces the word DEVICE; "" adds none.
        model: The user's model file, which `fit` then writes; None adds none.
    """

    def complete(match: re.Match[str]) -> str:
        name, rest = match[1], match[2]
        if device:
            rest = re.sub(r"(?<=--device )DEVICE\b", lambda _: shlex.quote(device), rest)
        try:
            there = shlex.split(rest)
        except ValueError:  # an apostrophe of the sentence behind the command
            there = rest.split()
        options = {
            "--db": shown_db(db) if db else "",
            "--device": device if name in _LOCAL and device != "local" else "",
            "--out": str(model) if name == "fit" and model else "",
        }
        lacking = [
            word
            for option, value in options.items()
            if value and not any(w == option or w.startswith(f"{option}=") for w in there)
            for word in (option, value)
        ]
        return shlex.join(["phonenas", name, *lacking]) + rest

    return _COMMAND.sub(complete, text)


def model_path(db: str, device: str) -> Path:
    """Where a store's latency model of a device lies: beside a file, or in this folder.

    Raises:
        InvalidArgument: The device's name is none, and could lead to another folder.
    """
    plain_name(device, "the device of a latency model")
    if "://" in db:
        return Path(f"phonenas.{device}.model.json")
    path = Path(db)
    return path.with_name(f"{path.stem}.{device}.model.json")


def fitted_path(db: str, device: str, out: Path | None) -> Path:
    """Where `fit` writes a model.

    Raises:
        StoreError: A file that is no model lies there, or the model that a run was made with.
    """
    from phonenas.data.files import refuse_other
    from phonenas.latency_model.model import DOCUMENT

    path = out or model_path(db, device)
    refuse_other(path, DOCUMENT.format, alone=True)
    if path.name == "model.json" and path.exists() and (path.parent / "run.json").exists():
        raise StoreError(
            f"{path} is the latency model of the run in this folder, and is not overwritten. "
            "Choose another --out."
        )
    return path


def known_device(device: str) -> None:
    """Refuse a device that nobody knows.

    Raises:
        UnknownName: So it is; ready phones whose names begin so are offered.
    """
    from phonenas.devices import connect
    from phonenas.latency_model import ready

    try:
        connect(device)
    except UnknownName as error:
        if told := ready.begun(device):
            raise UnknownName(f"no device is called {device!r}. {told}") from error
        raise


def find_model(db: str, device: str, model: Path | None, quiet: bool) -> LatencyModel:
    """A device's latency model, and a note if the store has more.

    Raises:
        NotEnoughData: There is none; the message says what to do first.
        InvalidArgument: The file is a model of another device.
    """
    from phonenas.latency_model import load, ready

    if model is None and device in ready.names():
        return ready.load(device)
    path = model or model_path(db, device)
    stored = "://" in db or Path(db).exists()
    if not path.exists():
        known_device(device)  # an unknown device is the likelier mistake
        fit = command_line("fit", "--device", device, *_out(model), db=db)
        profile = command_line("profile", "--device", device, "--space", "mnasnet", db=db)
        if stored:
            advice = f"Fit one:  {fit}"
        else:
            advice = _nearby() or f"Measure it, and fit one:  {profile} && {fit}"
        raise NotEnoughData(f"there is no latency model of {device} at {path}. {advice}")
    try:
        found = load(path)
    except PhonenasError as error:  # here, since `device` may be another than the command's
        error.args = (completed(str(error), db, device, model),)
        raise
    if found.device != device:
        raise InvalidArgument(f"{path} is a model of {found.device}, not of {device}")
    if not quiet and stored:
        _tell_newer(found, db, model)
    return found


def _tell_newer(found: LatencyModel, db: str, model: Path | None) -> None:
    from phonenas.data import MeasurementStore
    from phonenas.latency_model.drift import upkeep

    try:
        with MeasurementStore(db, create=False) as store:
            if store.latest(found.conditions, ("operator", "network")).after(found.last):
                state = upkeep(found, store.measurements(found.conditions))
                for line in refit_lines(state, found.device, db, model, found.table.ms):
                    print(line, file=sys.stderr)
    except StoreError as error:
        # The model predicts without its store.
        print(f"newer measurements are not looked at: {error}", file=sys.stderr)


def predictor(
    db: str,
    device: str,
    model: Path | None,
    quiet: bool,
    *,
    kernels: bool = True,
    refit: bool = True,
) -> LatencyModel:
    """A device's latency model to predict with; `kernels` says that these are needed.

    What it says of kernels is fitted where it is missing, with `refit` also where the store holds
    newer ones, and written.

    Raises:
        As `find_model`; NotEnoughData also where there is neither a model nor kernels.
    """
    from phonenas.latency_model import load, ready

    if not kernels or model is not None or device in ready.names():
        return find_model(db, device, model, quiet)
    path, found = model_path(db, device), None
    kept = load(path) if path.exists() else None
    if "://" in db or Path(db).exists():
        with open_store(db) as store:
            found = _with_newer_kernels(store, device, kept, refit)
            if found is not None and not store.read_only:
                # As read from the file, which holds fewer digits: each command prints the same.
                found = load(found.save(path))
    if found is not None:
        return found
    if kept is None or (kept.by_operators and kept.kernels is None):
        known_device(device)  # an unknown device is the likelier mistake
        former = former_kernels(path)
        raise NotEnoughData(
            f"too few kernels of {device} are measured to predict networks that are not of blocks"
            + (f" ({former})" if former else "")
            + ". Measure some:  "
            + command_line("profile", "--device", device, "--kernels", "400", db=db)
        )
    return find_model(db, device, model, quiet)


def _with_newer_kernels(
    store: MeasurementStore, device: str, kept: LatencyModel | None, refit: bool
) -> LatencyModel | None:
    """The model with its kernels fitted again; None where the store has none that are newer."""
    from phonenas.latency_model.kernel_fitting import FITTED_ON, fit_kernels
    from phonenas.latency_model.measured_kernels import MeasuredKernels

    part = kept.kernels if kept is not None and kept.by_operators else kept
    if part is None:
        known = [c for c in store.conditions(device, "kernel") if c.mode == "steady"]
        if not known:
            return None
        conditions = known[-1]
    elif isinstance(part.times, MeasuredKernels):
        conditions = part.conditions
        if not (refit and store.latest(conditions, FITTED_ON).after(part.last)):
            return None
    else:
        return None
    try:
        fitted = fit_kernels(conditions, store.measurements(conditions))
    except NotEnoughData:
        return None
    return replace(kept, kernels=fitted) if kept and kept.by_operators else fitted


def former_kernels(path: Path) -> str:
    """A sentence where a model's kernels lie in a file of their own, as before; "" elsewhere."""
    stem = path.name.removesuffix(".json").removesuffix(".model")
    former = path.with_name(f"{stem}.kernels.json")
    if not former.exists():
        return ""
    return f"{former} is of an earlier phonenas and is not read: kernels are part of {path.name}"


def refuse_ready(device: str) -> None:
    """Refuse to measure a phone that is a shipped model alone.

    Raises:
        InvalidArgument: The device is a ready phone.
    """
    from phonenas.latency_model import ready

    if device in ready.names():
        raise InvalidArgument(
            f"{device} is a ready phone, fitted on public measurements: there is no device to "
            f"measure or fit. Predict with it:  phonenas predict NETWORK --device {device}"
        )


def measurable(model: LatencyModel) -> None:
    """Refuse a model whose device nobody here can measure.

    Raises:
        InvalidArgument: Its table was imported, or it is a ready phone.
    """
    refuse_ready(model.device)
    if model.conditions.origin == "imported":
        raise InvalidArgument(
            f"{model.device} is an imported table: there is no device to measure. Measure a device "
            "of your own, or predict it from another one:  phonenas profile --device NEW --space "
            "mnasnet --like MEASURED"
        )


def profile_words(device: str, operators: Collection[Operator]) -> list[str]:
    """The words of a command that measures operators' space on a device; none for no known space.

    Args:
        device: Its name.
        operators: Measured before, all of the space or most.
    """
    from phonenas.space import spaces

    space = spaces.space_of(operators)
    if space is None:
        return []
    own = spaces.get(space.name).resolution_px == space.resolution_px
    words = ["profile", "--device", device, "--space", space.name]
    return [*words, *([] if own else ["--resolution", str(space.resolution_px)])]


def refit_lines(
    state: Upkeep,
    device: str,
    db: str,
    model: Path | None = None,
    operators: Collection[Operator] = (),
) -> list[str]:
    """What newer measurements say of a model, a line each; none where there are none.

    Args:
        state: The model beside what was measured after it.
        device: Its device.
        db: The store.
        model: File of the model, where it is not the store's own.
        operators: That it was fitted on.
    """
    if not state.newer:
        return []
    fit = command_line("fit", "--device", device, *_out(model), db=db)
    lines = [f"the model should be fitted again: {reason}" for reason in state.reasons]
    if state.uncovered:
        lines.insert(
            0,
            f"{len(state.uncovered)} newer networks hold operators that the model cannot predict, "
            f"and are left out, such as {state.uncovered[0][:_SHOWN]}…",
        )
    if not state.reasons:
        holds = f"{counted(state.newer, 'measurement')} newer than the model, which holds"
        return [*lines, f"{holds}. To use them:  {fit}"]
    if state.outdated:
        # A fit on a few new operators among many old ones would mix two speeds.
        words = profile_words(device, operators)
        lines.append(
            "first measure everything again, with the options of its profile:  "
            + command_line(*words, "--again", db=db)
            if words
            else "first measure everything again: give the command of its profile, with --again"
        )
    return [*lines, f"{'then' if state.outdated else 'do so'}:  {fit}"]


def _out(model: Path | None) -> list[str]:
    return [] if model is None else ["--out", str(model)]


def rejections(store: MeasurementStore, conditions: Sequence[Conditions]) -> list[dict[str, Any]]:
    """Why readings were rejected: a row a reason, the most frequent first.

    Reasons that differ in their numbers alone count as one; `example` is the latest of them.
    """
    rows: dict[str, dict[str, Any]] = {}
    for one in conditions:
        for subject, reason, at in store.rejections(one):
            row = rows.setdefault(_NUMBER.sub("N", reason), {"count": 0, "subjects": set()})
            row["count"] += 1
            row["subjects"].add(subject)
            row |= {"example": reason, "last": at}
    counted = [{**row, "subjects": len(row["subjects"])} for row in rows.values()]
    return sorted(counted, key=lambda row: -row["count"])


def rejection_table(rows: list[dict[str, Any]]) -> str:
    """The rows of `rejections` as a table below a result; "" for none."""
    if not rows:
        return ""
    texts = [[str(r["count"]), str(r["subjects"]), r["last"][:10], r["example"]] for r in rows]
    return "\n\nrejected readings of all jobs:\n" + table(
        ["readings", "subjects", "last", "reason of the last one"], texts
    )
