"""A training on disk, so that it can be stopped at any moment.

    checkpoint.safetensors   while it runs: weights, average, optimizer, curve, settings
    curve.csv                the learning curve, a row an epoch
    weights.safetensors      at the end: the trained weights
    result.json              at the end, written last: settings, accuracy, curve

All are written atomically. Once result.json is there the training is over; the checkpoint goes.
One process at a time trains in a folder: two would write over each other (`data.files`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonenas.data.documents import Document, only
from phonenas.data.files import lock_folder, remove_unfinished, write_atomic
from phonenas.space import zoo
from phonenas.space.errors import SettingsChanged, UnknownName, UnsupportedFormat

from .result import Epoch, Trained
from .weights import load_checkpoint, load_weights, save_checkpoint, save_weights

if TYPE_CHECKING:
    from torch import Tensor


__all__ = ["Stopped", "TrainingFolder", "changed_settings", "finished_in", "load"]

log = logging.getLogger("phonenas")

_DOCUMENT = Document("phonenas-training-result", 2, "result of a training")
_REMEDY = "Choose another --out."
_SHARE = 20  # between two checkpoints at least so many times the time that one takes
_GUESS_S = 0.1  # how long the first one takes
_FILES = ("checkpoint.safetensors", "curve.csv", "weights.safetensors", "result.json")


@dataclass(frozen=True)
class Stopped:
    """Where a training stopped: tensors, updates, curve, seconds, loss of the present epoch."""

    tensors: dict[str, Tensor]
    step: int
    curve: tuple[Epoch, ...]
    seconds: float
    scaler: dict[str, Any]
    loss_sum: float
    loss_count: int


class TrainingFolder:
    """A training's folder. Lifetime: opened with the training's settings, saved to, then closed.

    Args:
        path: The folder; made if it is not there. It is this process's until `close`.
        settings: All that decides the weights, one value a name, as JSON takes them.
        each_s: Seconds from one checkpoint to the next within an epoch, ≥ 0.
    Raises:
        SettingsChanged: It holds a training with other settings; both values are named.
        UnsupportedFormat: It holds a damaged file, or one of another version.
        StoreError: It cannot be read, or another process works in it.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any], each_s: float = 60.0) -> None:
        self.path = Path(path)
        self.settings: dict[str, Any] = json.loads(json.dumps(dict(settings)))
        self.each_s = each_s
        self._saved_s, self._took_s = time.monotonic(), _GUESS_S
        only(self.path, "result.json")
        self._lock = lock_folder(self.path)
        try:
            only(self.path, "result.json")  # of what came while another process had the folder
            self._result = _read_result(self.path)
            if self._result is not None:
                _compare(self.path, self._result["settings"], self.settings)
            if self._lock.error is None:
                self._tidy()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the folder to others."""
        self._lock.close()

    def _tidy(self) -> None:
        remove_unfinished(self.path, _FILES)
        if self._result is not None:
            with contextlib.suppress(OSError):  # as where the folder is read-only
                self._checkpoint.unlink(missing_ok=True)

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    def finished(self) -> Trained | None:
        """The result, if the training is over."""
        return None if self._result is None else _trained(self.path, self._result)

    def stopped(self) -> Stopped | None:
        """Where it stopped; None for a new one.

        Raises:
            SettingsChanged, UnsupportedFormat, StoreError: As the class.
        """
        remedy = "Remove the file to train from the start."
        checkpoint = load_checkpoint(self._checkpoint, remedy)
        if checkpoint is None:
            return None
        try:
            document = checkpoint.document
            _compare(self.path, dict(document["settings"]), self.settings)
            return Stopped(
                checkpoint.tensors,
                int(document["step"]),
                tuple(Epoch.from_dict(row) for row in document["curve"]),
                float(document["seconds"]),
                dict(document["scaler"]),
                float.fromhex(document["loss_sum"]),
                int(document["loss_count"]),
            )
        except SettingsChanged:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise UnsupportedFormat(f"{self._checkpoint} is damaged: {error}. {remedy}") from error

    def due(self, *, epoch_over: bool = False) -> bool:
        """Whether it is time for a checkpoint: an epoch is over, or the last one is old enough.

        Between two there is at least twenty times the time that the last one took to write.
        """
        since = time.monotonic() - self._saved_s
        return since >= max(0.0 if epoch_over else self.each_s, _SHARE * self._took_s)

    def save(self, now: Stopped) -> None:
        """Write the checkpoint.

        Raises:
            StoreError: The disk does not take it; the older one stays whole.
        """
        began = time.monotonic()
        document = {
            "settings": self.settings,
            "step": now.step,
            "curve": [e.to_dict() for e in now.curve],
            "seconds": now.seconds,
            "scaler": now.scaler,
            "loss_sum": float(now.loss_sum).hex(),
            "loss_count": now.loss_count,
        }
        save_checkpoint(self._checkpoint, now.tensors, document)
        self._saved_s = time.monotonic()
        self._took_s = self._saved_s - began

    def write_curve(self, curve: Sequence[Epoch]) -> None:
        """Write curve.csv."""
        names = list(Epoch.__dataclass_fields__)
        rows = [
            ",".join(
                "" if v is None else f"{v:.6g}" if isinstance(v, float) else str(v)
                for v in e.to_dict().values()
            )
            for e in curve
        ]
        write_atomic(self.path / "curve.csv", "\n".join([",".join(names), *rows]) + "\n")

    def finish(self, trained: Trained) -> None:
        """Write weights and result, and drop the checkpoint."""
        self.write_curve(trained.curve)
        result = trained.to_dict()
        if not trained.diverged:
            about = {k: result[k] for k in ("classes", "top1", "top5", "images_held", "recipe")}
            save_weights(self.path / "weights.safetensors", trained.network, trained.weights, about)
        document = {"settings": self.settings, "result": result}
        _DOCUMENT.write(self.path / "result.json", document)
        self._checkpoint.unlink(missing_ok=True)


def finished_in(path: str | Path, settings: Mapping[str, Any]) -> Trained | None:
    """The training in a folder, if it is over; "auto" agrees with any precision.

    Raises:
        SettingsChanged: It has other settings; both values are named.
        UnsupportedFormat: It is damaged or of another version.
        StoreError: It cannot be read.
    """
    folder = Path(path)
    document = _read_result(folder)
    if document is None:
        return None
    now = dict(settings)
    if now["precision"] == "auto":
        now["precision"] = document["settings"].get("precision")
    _compare(folder, document["settings"], now)
    return _trained(folder, document)


def load(path: str | Path) -> Trained:
    """A finished training by its folder.

    Raises:
        UnknownName: There is none, or it is not finished.
        UnsupportedFormat: It is damaged or of another version.
    """
    folder = Path(path)
    document = _read_result(folder)
    if document is None:
        raise UnknownName(
            f"there is no finished training in {folder}. Make one, or go on with it:  "
            f"phonenas train NETWORK --data DIR --out {shlex.quote(str(folder))}"
        )
    return _trained(folder, document)


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings that differ, each with both values."""
    return [
        f"{name} was {before.get(name)!r} and is now {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _compare(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if changed := changed_settings(before, now):
        raise SettingsChanged(
            f"{path} holds a training with other settings: {'; '.join(changed)}. Give the "
            "same settings to go on with it, or another --out for a new training."
        )


def _read_result(folder: Path) -> dict[str, Any] | None:
    document = _DOCUMENT.read(folder / "result.json", _REMEDY)
    if document is None:
        return None
    if any(not isinstance(document.get(part), dict) for part in ("settings", "result")):
        raise UnsupportedFormat(
            f"{folder / 'result.json'} is damaged: settings or result are missing. {_REMEDY}"
        )
    return document


def _trained(folder: Path, document: Mapping[str, Any]) -> Trained:
    result = document["result"]
    with _DOCUMENT.checking(folder / "result.json", _REMEDY):
        trained = Trained(
            network=zoo.parse(result["network"]),
            weights={},
            top1=float("nan") if result["top1"] is None else float(result["top1"]),
            top5=float("nan") if result["top5"] is None else float(result["top5"]),
            images_held=int(result["images_held"]),
            curve=tuple(Epoch.from_dict(row) for row in result["curve"]),
            seconds=float(result["seconds"]),
            diverged=str(result["diverged"]),
            images=int(result["images"]),
            classes=tuple(map(str, result["classes"])),
            steps=int(result["steps"]),
            resumed_from=int(result["resumed_from"]),
            recipe=dict(result["recipe"]),
        )
    if trained.diverged:
        return trained
    try:
        network, weights = load_weights(folder / "weights.safetensors")
    except UnknownName as error:
        raise UnsupportedFormat(
            f"{folder} says that its training is over, and its weights.safetensors is gone. Remove "
            "its result.json to train again."
        ) from error
    if network != trained.network:
        raise UnsupportedFormat(f"{folder}: weights.safetensors are of another network: {network}")
    return replace(trained, weights=weights)
