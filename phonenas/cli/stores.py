"""Stores and latency models by name, and what commands say of them."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from phonenas.space.errors import (
    InvalidArgument,
    NotEnoughData,
    PhonenasError,
    PrecisionDiffers,
    StoreError,
    UnknownName,
)
from phonenas.space.naming import counted
from phonenas.space.precision import FLOAT32, PRECISIONS, checked_precision

from .output import ANY, command_line, completed, shown_db

if TYPE_CHECKING:
    from collections.abc import Collection

    from phonenas.data import Conditions, MeasurementStore
    from phonenas.latency_model import LatencyModel
    from phonenas.latency_model.drift import Upkeep
    from phonenas.search.precisions import PrecisionModels
    from phonenas.space import Operator

__all__ = [
    "fitted_path",
    "device_of",
    "find_model",
    "find_models",
    "former_kernels",
    "known_device",
    "measurable",
    "models_of",
    "open_store",
    "precision_words",
    "profile_words",
    "refit_lines",
    "refuse_ready",
    "stored_model",
]

_NEARBY = ("*.db", "*/*.db", "*/*/*.db")
_SHOWN = 40  # characters of a network's text
_MOST_FILES = 20  # of a folder full of databases


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


def fitted_path(db: str, device: str, out: Path | None, precision: str = FLOAT32) -> Path:
    """Where `fit` writes a model of a precision.

    Raises:
        StoreError: A file that is no model lies there, a model of another precision, or the model
            that a run was made with.
    """
    from phonenas.data.files import refuse_other
    from phonenas.latency_model import load, model_path
    from phonenas.latency_model.model import DOCUMENT

    path = out or model_path(db, device, precision)
    refuse_other(path, DOCUMENT.format, alone=True)
    of_run = re.fullmatch(r"model([0-9]*|\.[a-z0-9-]+)\.json", path.name)
    if of_run and path.exists() and (path.parent / "run.json").exists():
        raise StoreError(
            f"{path} is the latency model of the run in this folder, and is not overwritten. "
            "Choose another --out."
        )
    there = precision
    with contextlib.suppress(PhonenasError):  # a damaged one is written again
        there = load(path).conditions.precision
    if there != precision:
        raise StoreError(
            f"{path} is a model in {there}, and is not overwritten by one in {precision}. Choose "
            "another --out, or move it away."
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


def find_model(
    db: str, device: str, model: Path | None, quiet: bool, precision: str | None = None
) -> LatencyModel:
    """A device's latency model, and a note if the store has more.

    Args:
        db, device: The store and the device.
        model: File of the model; None for the store's own.
        quiet: No note.
        precision: Of its conditions; None for the one that devices.toml names, else float32, else
            the only one that there is.
    Raises:
        NotEnoughData: There is none; the message says what to do first.
        InvalidArgument: The file is a model of another device; or models of several precisions
            are there, and it is open which is meant.
        PrecisionDiffers: The file, or the ready phone, is of another precision.
    """
    from phonenas.latency_model import load, model_path, precisions_there, ready

    if model is None and device in ready.names():
        own = device.rsplit("/", 1)[-1]
        if precision is not None and precision != own:
            raise PrecisionDiffers(
                f"{device} is a phone measured in {own}, not in {checked_precision(precision)}. "
                "Look for one whose name ends so:  phonenas devices --ready"
            )
        return ready.load(device)
    path = model or stored_model(db, device, precision)
    stored = "://" in db or Path(db).exists()
    if not path.exists():
        known_device(device)  # an unknown device is the likelier mistake
        in_it = [] if precision is None else ["--precision", checked_precision(precision)]
        fit = command_line("fit", "--device", device, *in_it, *_out(model), db=db)
        words = ["profile", "--device", device, "--space", "mnasnet", *in_it]
        others = [] if model else list(precisions_there(db, device))
        there = f"; there is one in {' and '.join(others)}" if others else ""
        if stored and not others:
            advice = f"Fit one:  {fit}"
        elif others:
            advice = f"Measure it, and fit one:  {command_line(*words, db=db)} && {fit}"
        else:
            advice = (
                _nearby() or f"Measure it, and fit one:  {command_line(*words, db=db)} && {fit}"
            )
        of = f" in {precision}" if precision else ""
        raise NotEnoughData(f"there is no latency model of {device}{of} at {path}{there}. {advice}")
    try:
        found = load(path)
    except PhonenasError as error:  # here, since `device` may be another than the command's
        error.args = (completed(str(error), db, device, model),)
        raise
    if found.device != device:
        raise InvalidArgument(f"{path} is a model of {found.device}, not of {device}")
    own = found.conditions.precision
    if precision is not None and precision != own:
        named = ["--precision", checked_precision(precision)]
        fit = command_line("fit", "--device", device, *named, db=db)
        raise PrecisionDiffers(f"{path} is a model in {own}, not in {precision}. Fit one:  {fit}")
    if not quiet and model is None and own != FLOAT32:
        other = model_path(db, device)
        if other.exists() and not _precision_in(other):
            print(f"{other} cannot be read, and {path} is used", file=sys.stderr)
    if not quiet and stored:
        _tell_newer(found, db, model)
    return found


def _models_begun(out: Path, device: str) -> PrecisionModels | None:
    """The models with which a run over precisions was begun, from its folder; None without them."""
    from phonenas.latency_model import load
    from phonenas.search.precisions import PrecisionModels
    from phonenas.search.run_document import settings_of

    begun = settings_of(out) or {}
    names = str(begun.get("precision", "")).split(" or ")
    paths = {p: out / f"model.{p}.json" for p in names}
    if (
        len(names) < 2
        or begun.get("device") != device
        or not all(p.exists() for p in paths.values())
    ):
        return None
    found = PrecisionModels({p: load(path) for p, path in paths.items()})
    return found if found.digest == begun.get("latency_model") else None


def find_models(db: str, device: str, quiet: bool, out: Path) -> PrecisionModels:
    """The latency models of a device in all precisions that have one, float32 first.

    Args:
        db, device, quiet: As for `find_model`.
        out: Folder of the run; one that was begun goes on with its own models, and that is told.
    Raises:
        NotEnoughData: There are fewer than two.
        InvalidArgument: They are of other conditions than each other.
    """
    from phonenas.latency_model import precisions_there, ready
    from phonenas.search.precisions import PrecisionModels

    if (begun := _models_begun(out, device)) is not None:
        if not quiet:
            print(f"{out} goes on with the latency models that it has", file=sys.stderr)
        return begun
    phone, _, own = device.rpartition("/")
    if device in ready.names():
        there = {n.rpartition("/")[2]: n for n in ready.names() if n.rpartition("/")[0] == phone}
    else:
        there = {p: device for p in precisions_there(db, device) if p in PRECISIONS}
    if len(there) < 2:
        if own not in there:
            known_device(device)
        has = f"there is one in {' and '.join(there)} alone" if there else "there is none"
        lacking = "float32" if there and FLOAT32 not in there else "int8"
        words = ("--device", device, "--precision", lacking)
        profile = command_line("profile", *words, "--space", "mnasnet", db=db)
        advice = f"Fit another:  {profile} && {command_line('fit', *words, db=db)}"
        if own in there:
            advice = "Phones that have two:  phonenas devices --ready"
        raise NotEnoughData(
            f"--precision {ANY} takes models of {device} in two precisions, and {has}. {advice}"
        )
    order = [p for p in PRECISIONS if p in there]
    return PrecisionModels({p: find_model(db, there[p], None, quiet, p) for p in order})


def models_of(
    db: str, devices: list[str], files: list[Path], quiet: bool, precision: str | None
) -> dict[str, LatencyModel]:
    """The latency model of each device, by its name: from the file of it, or the store's.

    Raises:
        InvalidArgument: Two files of one device, or one of another; and as `find_model`.
    """
    devices = list(dict.fromkeys(devices))
    if len(devices) == 1 and len(files) < 2:
        (device,), file = devices, files[0] if files else None
        return {device: find_model(db, device, file, quiet, precision)}
    own = {device_of(path): path for path in files}
    if len(own) < len(files) or not {*own} <= {*devices}:
        raise InvalidArgument(
            f"--model: one file for each of {' and '.join(devices)} at most, got models of "
            f"{', '.join(device_of(path) for path in files)}"
        )
    return {d: find_model(db, d, own.get(d), quiet, precision) for d in devices}


def device_of(path: Path) -> str:
    """The device of a latency model's file."""
    from phonenas.latency_model import load

    return load(path).device


def stored_model(db: str, device: str, precision: str | None) -> Path:
    """Where the model of a device lies, or would, of one precision or of the usual one.

    Raises:
        InvalidArgument: As `find_model`.
    """
    from phonenas.devices import usual_precision
    from phonenas.latency_model import model_path, precisions_there

    there = precisions_there(db, device)
    if len(there) > 1 and FLOAT32 in there:
        # An earlier phonenas wrote all precisions under one name. Of a file that cannot be read
        # the store says what it was: what `fit` would write now.
        inside = _precision_in(there[FLOAT32]) or _fitted_in(db, device)
        if inside in {*there} - {FLOAT32}:
            del there[FLOAT32]
    of = precision or usual_precision(device)
    if of in there or precision is not None or not there:
        older = of not in there and FLOAT32 in there and _precision_in(there[FLOAT32]) == of
        return there[FLOAT32] if older else model_path(db, device, of)
    if FLOAT32 in there or len(there) == 1:
        return there.get(FLOAT32) or next(iter(there.values()))
    raise InvalidArgument(
        f"{device} has models in {' and '.join(there)}: name one with --precision"
    )


def _precision_in(path: Path) -> str:
    """Precision of a model's file; "" of a damaged one, which is told when it is used."""
    from phonenas.latency_model import load

    with contextlib.suppress(PhonenasError):
        return load(path).conditions.precision
    return ""


def _fitted_in(db: str, device: str) -> str:
    """The precision in which `fit` fits a device's model; "" where it has to be named."""
    from phonenas.devices import usual_precision
    from phonenas.latency_model.fitting import choose_conditions

    if "://" not in db and not Path(db).exists():
        return ""
    with contextlib.suppress(PhonenasError), open_store(db) as store:
        usual = usual_precision(device)
        return choose_conditions(store, device, None, None, usual=usual)[0].precision
    return ""


def precision_words(conditions: Conditions) -> list[str]:
    """The words of a command that names the precision of a model, where it has to."""
    return [] if conditions.precision == FLOAT32 else ["--precision", conditions.precision]


def _tell_newer(found: LatencyModel, db: str, model: Path | None) -> None:
    from phonenas.data import MeasurementStore
    from phonenas.latency_model.drift import upkeep

    try:
        with MeasurementStore(db, create=False) as store:
            if store.latest(found.conditions, ("operator", "network")).after(found.last):
                state = upkeep(found, store.measurements(found.conditions))
                for line in refit_lines(state, found, db, model):
                    print(line, file=sys.stderr)
    except StoreError as error:
        # The model predicts without its store.
        print(f"newer measurements are not looked at: {error}", file=sys.stderr)


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


def profile_words(
    device: str, operators: Collection[Operator], conditions: Conditions
) -> list[str]:
    """The words of a command that measures so many operators of their space; none of an unknown."""
    from phonenas.space import spaces

    space = spaces.space_of(operators)
    if space is None:
        return []
    own = spaces.get(space.name).resolution_px == space.resolution_px
    words = ["profile", "--device", device, "--space", space.name]
    words += [] if own else ["--resolution", str(space.resolution_px)]
    few = len({*operators} & {*space.operators()})
    words += ["--operators", str(few)] if few < len(space.operators()) else []
    return [*words, *precision_words(conditions)]


def refit_lines(
    state: Upkeep, fitted: LatencyModel, db: str, model: Path | None = None
) -> list[str]:
    """What newer measurements say of a model, a line each; none where there are none.

    Args:
        state: The model beside what was measured after it.
        fitted: The model.
        db: The store.
        model: File of the model, where it is not the store's own.
    """
    if not state.newer:
        return []
    words = ["--device", fitted.device, *precision_words(fitted.conditions), *_out(model)]
    fit = command_line("fit", *words, db=db)
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
        words = profile_words(fitted.device, fitted.table.ms, fitted.conditions)
        lines.append(
            "first measure everything again, with the other options of its profile:  "
            + command_line(*words, "--again", db=db)
            if words
            else "first measure everything again: give the command of its profile, with --again"
        )
    return [*lines, f"{'then' if state.outdated else 'do so'}:  {fit}"]


def _out(model: Path | None) -> list[str]:
    return [] if model is None else ["--out", str(model)]
