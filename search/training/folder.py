"""A training on disk, so that it can be stopped at any moment.

    checkpoint.safetensors   while it runs: weights, average, optimizer, curve, settings (`checkpoint`)
    curve.csv                the learning curve, a row an epoch
    weights.safetensors      at the end: the trained weights (`weights_file`)
    result.json              at the end, written last: settings, accuracy, curve

All are written atomically. Once result.json is there the training is over; the checkpoint goes.
One process at a time trains in a folder (`hold`).
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data.documents import Document, only
from ...data.files import write_atomic
from ...space import Architecture
from ...space.errors import (
    SettingsChanged,
    UnknownName,
    UnsupportedFormat,
)
from .hold import hold, tidy
from .trained import Epoch, Trained
from .weights_file import load_weights, save_weights

if TYPE_CHECKING:
    from torch import Tensor

    from ...data.image_set import ImageSet
    from .recipe import Recipe

__all__ = ["Stopped", "TrainingFolder", "finished_in", "load", "settings_of"]

FORMAT, VERSION = "phonenas-training-result", 1
_DOCUMENT = Document(FORMAT, VERSION, "result of a training")
_AGAIN = "Choose another --out."
_SHARE = 20  # times as long as a checkpoint takes, none is written again
_GUESS_S = 0.1  # how long the first one takes
_FILES = ("checkpoint.safetensors", "curve.csv", "weights.safetensors", "result.json")


@dataclass(frozen=True)
class Stopped:
    """Where a training stopped: its tensors, the update it is at, its curve, and more."""

    tensors: dict[str, Tensor]
    step: int
    curve: tuple[Epoch, ...]
    seconds: float
    scaler: dict[str, Any]
    loss_sum: float
    loss_count: int


class TrainingFolder:
    """Lifetime: opened at the start of a training with its settings, saved to, then closed.

    Args:
        path: The folder; made if it is not there. It is this process's until `close`.
        settings: All that decides the weights, one value a name, as JSON takes them.
        each_s: Seconds from one checkpoint to the next within an epoch, ≥ 0.
    Raises:
        SettingsChanged: It holds a training with other settings; both values are named.
        UnsupportedFormat: It holds a damaged file, or one of another version.
        StoreError: It cannot be read, or another process trains in it.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any], each_s: float = 60.0) -> None:
        self.path = Path(path)
        self.settings: dict[str, Any] = json.loads(json.dumps(dict(settings)))
        self.each_s = each_s
        self._saved_s, self._took_s = time.monotonic(), _GUESS_S
        only(self.path, "result.json")
        self._held = hold(self.path)
        try:
            self._result = _read_result(self.path)
            if self._result is not None:
                _compare(self.path, self._result["settings"], self.settings)
            if self._held is not None:
                self._tidy()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the folder to others."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _tidy(self) -> None:
        tidy(self.path, _FILES)
        if self._result is not None:
            with contextlib.suppress(OSError):  # as where the folder is read-only
                self._checkpoint.unlink(missing_ok=True)

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    def finished(self) -> Trained | None:
        """What the training gave, if it is over."""
        return None if self._result is None else _trained(self.path, self._result)

    def stopped(self) -> Stopped | None:
        """Where it stopped; None for a new one.

        Raises:
            SettingsChanged, UnsupportedFormat, StoreError: As the class.
        """
        from . import checkpoint

        remedy = "Remove the file to train from the start."
        found = checkpoint.read(self._checkpoint, remedy)
        if found is None:
            return None
        try:
            document = found.document
            _compare(self.path, dict(document["settings"]), self.settings)
            return Stopped(
                found.tensors,
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

        None is written before twenty times as long has passed as the last one took to write.
        """
        since = time.monotonic() - self._saved_s
        return since >= max(0.0 if epoch_over else self.each_s, _SHARE * self._took_s)

    def save(self, now: Stopped) -> None:
        """Write the checkpoint.

        Raises:
            StoreError: The disk does not take it; the older one stays whole.
        """
        from . import checkpoint

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
        checkpoint.write(self._checkpoint, now.tensors, document)
        self._saved_s = time.monotonic()
        self._took_s = self._saved_s - began

    def write_curve(self, curve: Sequence[Epoch]) -> None:
        """Write curve.csv."""
        names = list(Epoch.__dataclass_fields__)
        rows = [
            ",".join("" if v is None else f"{v:.6g}" if isinstance(v, float) else str(v)
                     for v in e.to_dict().values())
            for e in curve
        ]  # fmt: skip
        write_atomic(self.path / "curve.csv", "\n".join([",".join(names), *rows]) + "\n")

    def finish(self, trained: Trained) -> None:
        """Write weights and result, and drop the checkpoint."""
        self.write_curve(trained.curve)
        told = trained.to_dict()
        if not trained.diverged:
            about = {k: told[k] for k in ("classes", "top1", "top5", "images_held", "recipe")}
            save_weights(self.path / "weights.safetensors", trained.network, trained.weights, about)
        document = {
            "format": FORMAT, "version": VERSION, "settings": self.settings, "result": told,
        }  # fmt: skip
        write_atomic(
            self.path / "result.json", json.dumps(document, indent=1, allow_nan=False) + "\n"
        )
        self._checkpoint.unlink(missing_ok=True)


def settings_of(
    network: Architecture, images: ImageSet, held: ImageSet | None, recipe: Recipe, seed: int
) -> dict[str, Any]:
    """All that decides a training's weights; the precision as the recipe has it, "auto" maybe."""
    return {
        "network": str(network),
        "images": images.digest,
        "held": None if held is None else held.digest,
        "seed": seed,
        **recipe.settings,
    }


def finished_in(path: str | Path, settings: Mapping[str, Any]) -> Trained | None:
    """The training in a folder, if it is over; whatever precision "auto" came to be.

    Raises:
        SettingsChanged: It has other settings; both values are named.
        UnsupportedFormat: It is damaged or of another version.
        StoreError: It cannot be read.
    """
    folder = Path(path)
    found = _read_result(folder)
    if found is None:
        return None
    now = dict(settings)
    if now["precision"] == "auto":
        now["precision"] = found["settings"].get("precision")
    _compare(folder, found["settings"], now)
    return _trained(folder, found)


def load(path: str | Path) -> Trained:
    """A finished training by its folder.

    Raises:
        UnknownName: There is none, or it is not finished.
        UnsupportedFormat: It is damaged or of another version.
    """
    folder = Path(path)
    found = _read_result(folder)
    if found is None:
        raise UnknownName(
            f"there is no finished training in {folder}. Make one, or go on with it:  "
            f"phonenas train NETWORK --data DIR --out {folder}"
        )
    return _trained(folder, found)


def _compare(path: Path, found: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [
        f"{name} was {found.get(name)!r} and is now {now.get(name)!r}"
        for name in sorted({*found, *now})
        if found.get(name) != now.get(name)
    ]
    if changed:
        raise SettingsChanged(
            f"{path} holds a training with other settings: {'; '.join(changed)}. Give the "
            "same settings to go on with it, or another --out for a new training."
        )


def _read_result(folder: Path) -> dict[str, Any] | None:
    found = _DOCUMENT.read(folder / "result.json", _AGAIN)
    if found is None:
        return None
    if not isinstance(found.get("settings"), dict) or not isinstance(found.get("result"), dict):
        raise UnsupportedFormat(
            f"{folder / 'result.json'} is damaged: settings or result are missing. {_AGAIN}"
        )
    return found


def _trained(folder: Path, found: Mapping[str, Any]) -> Trained:
    told = found["result"]
    with _DOCUMENT.checking(folder / "result.json", _AGAIN):
        result = Trained(
            network=Architecture.parse(told["network"]),
            weights={},
            top1=float("nan") if told["top1"] is None else float(told["top1"]),
            top5=float("nan") if told["top5"] is None else float(told["top5"]),
            images_held=int(told["images_held"]),
            curve=tuple(Epoch.from_dict(row) for row in told["curve"]),
            seconds=float(told["seconds"]),
            diverged=str(told["diverged"]),
            images=int(told["images"]),
            classes=tuple(map(str, told["classes"])),
            steps=int(told["steps"]),
            resumed_from=int(told["resumed_from"]),
            recipe=dict(told["recipe"]),
        )
    if result.diverged:
        return result
    try:
        network, weights = load_weights(folder / "weights.safetensors")
    except UnknownName as error:
        raise UnsupportedFormat(
            f"{folder} says that its training is over, and its weights.safetensors is gone. Remove "
            "its result.json to train anew."
        ) from error
    if network != result.network:
        raise UnsupportedFormat(f"{folder}: weights.safetensors are of another network: {network}")
    return replace(result, weights=weights)
