"""A supernet's folder: its files, and whether images and a space are those of its training.

| file | content |
|---|---|
| `supernet.json` | version 1: settings, curve, seconds, results of some networks; at the end |
| `weights.safetensors` | the shared weights, with the settings |
| `checkpoint.safetensors` | the state of a training that is under way |
"""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonenas.data.documents import Document
from phonenas.space import SearchSpace
from phonenas.space.errors import SettingsChanged, UnknownName

if TYPE_CHECKING:
    from phonenas.data.images import ImageSet

__all__ = [
    "DOCUMENT",
    "VERSION",
    "check",
    "document_of",
    "parts_of",
    "same_settings",
    "space_digest",
    "top1_of",
]

VERSION = 1  # of its tensors
DOCUMENT = Document("phonenas-supernet", 2, "supernet")
_CALIBRATION = 512  # training images that set the statistics of an evaluation


def space_digest(space: SearchSpace) -> str:
    """Twelve hex digits of a space's decisions and of all operators that they lead to."""
    parts = repr((dict(space.decisions), sorted(o.key for o in space.operators())))
    return hashlib.sha256(parts.encode()).hexdigest()[:12]


def parts_of(images: ImageSet, settings: dict[str, Any]) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Images to train on, to calibrate with (some of these), and to evaluate on."""
    from phonenas.data.images import held_out

    train, held = held_out(images, float(settings["hold_out"]), int(settings["seed"]))
    n = min(_CALIBRATION, len(train))
    chosen = np.random.default_rng(int(settings["seed"])).permutation(len(train))[:n]
    return train, train.subset(np.sort(chosen)), held


def document_of(folder: Path) -> dict[str, Any]:
    """The content of a folder's `supernet.json`.

    Raises:
        UnknownName: There is no supernet.
        UnsupportedFormat: The file is damaged, or of another version.
    """
    path, remedy = folder / "supernet.json", "Train another in another folder."
    document = DOCUMENT.read(path, remedy)
    if document is None:
        begun = (folder / "checkpoint.safetensors").exists()
        raise UnknownName(
            f"{folder} holds no supernet"
            + (
                " yet: its training is not done; give its command again"
                if begun
                else ". Train one:  phonenas supernet --space SPACE --data DIR --out FOLDER"
            )
        )
    with DOCUMENT.checking(path, remedy):
        for name in ("settings", "spread", "offset", "read_s", "largest", "smallest", "random"):
            document[name]
    return document


def top1_of(probability: float, offset: float) -> float:
    """A supernet's estimate of top-1, in [0, 1]: see `Supernet`."""
    return min(max(probability + offset, 0.0), 1.0)


def check(folder: Path, settings: dict[str, Any], space: SearchSpace, images: ImageSet) -> None:
    """Refuse other images or another space than a supernet was trained on.

    Raises:
        SettingsChanged: They are; both are named.
    """
    if images.digest != settings["images"]:
        raise SettingsChanged(
            f"{folder} was trained on images with digest {settings['images']}, and {images.source} "
            f"has {images.digest}. Give the images it was trained on, or train another:  phonenas "
            f"supernet --space {shlex.quote(space.name)} --data DIR --out FOLDER"
        )
    if list(images.classes) != settings["classes"]:
        raise SettingsChanged(f"{folder} was trained for other classes than {images.source} has")
    if space.resolution_px != settings["resolution_px"]:
        raise SettingsChanged(
            f"{folder} was trained at {settings['resolution_px']} px, and a space at "
            f"{space.resolution_px} px was given"
        )
    if space_digest(space) != settings["space_digest"]:
        raise SettingsChanged(
            f"{folder} was trained for a {settings['space']} of other choices or layers than "
            f"{space!r} has. Train another:  phonenas supernet --space {shlex.quote(space.name)} "
            "--data DIR --out FOLDER"
        )


def same_settings(folder: Path, there: dict[str, Any], asked: dict[str, Any]) -> None:
    """Refuse to go on with other settings than a folder's.

    Raises:
        SettingsChanged: One differs; both values are named.
    """
    for name, value in _flat(json.loads(json.dumps(asked))).items():
        if (present := _flat(there).get(name)) != value:
            raise SettingsChanged(
                f"{folder} holds a supernet with {name} {_short(present)}, and {_short(value)} was "
                "given. Give another folder, or the same settings."
            )


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with those of the recipe among them."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
