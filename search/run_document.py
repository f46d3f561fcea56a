"""run.json: its strict form, and how it is read and written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from phonenas.data.documents import Count, Document, Ms, Number, Share, Text, strict
from phonenas.space.errors import StoreError
from phonenas.space.precision import FLOAT32

from .checkpoint import run_digests
from .evaluations import COLUMNS, EPOCHS
from .pareto import Candidate

__all__ = [
    "DOCUMENT",
    "VALIDATION",
    "Estimate",
    "estimate_of",
    "model_file",
    "named_in",
    "read_run",
    "settings_of",
]

DOCUMENT = Document("phonenas-run", 2, "run")
VALIDATION = Document("phonenas-validation", 2, "validation")
_AGAIN = "Search again, with another --out."


class _OnDevice(msgspec.Struct):
    """One of several devices."""

    device: Text
    latency_model: Text
    target_ms: Ms | None
    target: Text


class _Settings(msgspec.Struct):
    """Of a run, what its readers use; a strategy and an estimator have more of their own."""

    space: Text
    resolution_px: Annotated[int, Meta(ge=1, le=100_000)]
    device: Text
    latency_model: Text
    target_ms: Ms | None
    target: Text
    precision: Text = FLOAT32  # which runs of before others were possible do not say
    accuracy: Text = ""
    strategy: Text = ""
    evaluations: Count = 0
    patience: Annotated[int, Meta(ge=1)] | None = None
    time_s: Annotated[float, Meta(gt=0, le=1e12)] | None = None
    training_s: Annotated[float, Meta(gt=0, le=1e12)] | None = None
    soft: bool = False
    chance: Share | None = None
    also: list[Text] = []
    limits: list[Text] = []
    columns: tuple[Text, ...] = COLUMNS
    asked: dict[str, Any] = {}
    estimator: Text = ""
    scale: Text = ""
    quantity: Text = ""
    schedule: Text = ""
    trust: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    devices: list[_OnDevice] = []
    across: Literal["", "worst", "mean", "each"] = ""
    device_weights: list[Annotated[float, Meta(gt=0, le=1e300)]] = []


class _Begun(msgspec.Struct):
    """run.json of a run under way."""

    settings: _Settings
    model: dict[str, Any]
    complete: bool
    objectives: dict[str, Any] | None = None


class _Model(msgspec.Struct):
    """Summary of the latency model."""

    version: Count = 2
    digest: Text = ""
    conditions: dict[str, bool | Number | Text] = {}
    operators: Count = 0
    networks: Count = 0
    date: Text = ""
    scores: dict[str, dict[str, bool | Number | Text | None]] = {}
    examined: list[tuple[Text, Ms, Ms, Ms, Ms]] = []


class _Objectives(msgspec.Struct):
    """Of the objectives what no `Spec` reads: the models of several devices."""

    devices: dict[str, _Model] = {}


class _Ended(msgspec.Struct):
    """The rule that ended a run before it had evaluated all networks, and after how many."""

    rule: Literal["patience", "time", "training"]
    evaluations: Annotated[int, Meta(ge=1)]


class _Done(_Begun, kw_only=True):
    """run.json of a finished run."""

    model: _Model  # type: ignore[assignment]
    front: list[Candidate]
    seconds: Number
    hypervolume: Number
    libraries: dict[str, Text]
    failed: dict[str, Count] = {}
    left_out: Count = 0
    ended: _Ended | None = None
    objectives: _Objectives | None = None  # type: ignore[assignment]


def read_run(folder: Path) -> dict[str, Any]:
    """The content of a folder's run.json, each value checked.

    Raises:
        UnsupportedFormat: Damaged, of another kind or version.
        StoreError: It is gone, or cannot be read.
    """
    path = folder / "run.json"
    document = DOCUMENT.read(path, _AGAIN)
    if document is None:
        raise StoreError(f"{path} is gone")
    with DOCUMENT.checking(path, _AGAIN):
        run = strict(document, _Done if document.get("complete") is True else _Begun)
        settings = document["settings"]
        if document.get("run") not in (None, *run_digests(settings)):
            raise ValueError("its settings are not those that it was begun with")
        if run.settings.columns[: len(COLUMNS)] != COLUMNS:
            raise ValueError(f"settings.columns: {', '.join(run.settings.columns)[:80]}")
        if isinstance(run, _Done):
            if [c.id for c in run.front] != [*range(len(run.front))]:
                raise ValueError("front: its ids are not 0, 1, 2, ...")
            ends = [(c.low_ms, c.high_ms) for c in run.front]
            ends += [(i.low_ms, i.high_ms) for c in run.front for i in c.intervals.values()]
            if any(low > high for low, high in ends):
                raise ValueError("front: an interval ends before it begins")
            _check_devices(run)
    return document


def _check_devices(run: _Done) -> None:
    """Refuse several devices that do not go together with each other, or with the front."""
    devices = [d.device for d in run.settings.devices]
    if not devices:
        return
    known = {} if run.objectives is None else run.objectives.devices
    if run.settings.device not in devices or len({*devices}) < len(devices):
        raise ValueError(f"settings.devices: {', '.join(devices)[:80]}")
    columns = [f"latency:{device}" for device in devices]
    if missing := sorted({*devices} - {*known}):
        raise ValueError(f"objectives.devices lacks {missing[0][:80]}")
    for c in run.front:
        if lacking := [n for n in columns if n not in c.values or n not in c.intervals]:
            raise ValueError(f"front: network {c.id} lacks {lacking[0][:80]}")
        if not all(0 < c.values[n] <= 1e9 for n in columns):
            raise ValueError(f"front: network {c.id} has a latency out of range")


def model_file(settings: Mapping[str, Any], device: str) -> str:
    """Name of the file in a run's folder that holds the latency model of a device.

    >>> of = {"device": "a", "devices": [{"device": "a"}, {"device": "b"}]}
    >>> model_file(of, "a"), model_file(of, "b")
    ('model.json', 'model2.json')
    """
    devices = [d["device"] for d in settings.get("devices", ())]
    own = settings["device"] == device or device not in devices
    return "model.json" if own else f"model{1 + devices.index(device)}.json"


def settings_of(folder: Path) -> dict[str, Any] | None:
    """Settings of the run that a folder holds, finished or stopped; None where there is none.

    Raises:
        UnsupportedFormat: It is damaged.
    """
    return dict(read_run(folder)["settings"]) if (folder / "run.json").exists() else None


def named_in(folder: Path, validation: Mapping[str, Any]) -> dict[str, Any]:
    """A validation with the names that its networks have in the folder of its run: `FOLDER:ID` of
    the best, and the folder of each round. The folder may have been moved since it was written.
    """

    def place(row: Mapping[str, Any]) -> str:
        return str(folder if row["round"] == 1 else folder / f"round{row['round']}")

    named = dict(validation)
    if "rounds" in validation:
        named["rounds"] = [{**row, "folder": place(row)} for row in validation["rounds"]]
    if "best" in validation:
        named["best"] = [{**v, "name": f"{place(v)}:{v['id']}"} for v in validation["best"]]
    return named


@dataclass(frozen=True)
class Estimate:
    """What the estimates of a run are: "top-1", after which training, and on what scale."""

    quantity: str
    schedule: str
    scale: str

    def __str__(self) -> str:
        after = self.schedule.partition(":")[0]
        return f"{self.quantity} estimate" + (f" (after {after})" if after else "")


def trained_for(schedule: str, front: Iterable[Candidate]) -> str:
    """The schedule of a front's networks: "3 of 9 epochs" where none was trained in full."""
    epochs = max((c.values.get(EPOCHS, np.inf) for c in front), default=np.inf)
    whole = schedule.partition(" ")[0]
    return f"{epochs:.0f} of {schedule}" if whole.isdigit() and epochs < int(whole) else schedule


def estimate_of(settings: Mapping[str, Any], front: Iterable[Candidate] = ()) -> Estimate:
    """What a run's estimates are; runs of before there were other schedules name none.

    Args:
        settings: Of the run.
        front: Its networks, if it is known.
    """
    accuracy, scale = str(settings.get("accuracy", "")), str(settings.get("scale", ""))
    quantity, schedule = settings.get("quantity", "top-1"), settings.get("schedule", "")
    schedule = trained_for(schedule, front)
    if accuracy.startswith("surrogate-"):
        schedule = "16 epochs of ImageNet"
        scale = scale or (
            "Top-1 after the 16-epoch schedule of Accel-NASBench, not full training; it ranks "
            "networks, and does not predict ImageNet accuracy."
        )
    return Estimate(quantity, schedule, scale or f"Top-1 on the scale of {accuracy}.")
