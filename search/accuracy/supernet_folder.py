"""A supernet's folder: what its files say, and whether images and a space are those it was trained on.

| file | what |
|---|---|
| `supernet.json` | version 1: settings, curve, seconds, and what was read of some networks; there when the training is done |
| `weights.safetensors` | the shared weights, with the settings |
| `checkpoint.safetensors` | where a training stands that is not done |
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...data.documents import Document
from ...space import SearchSpace
from ...space.errors import SettingsChanged, UnknownName

if TYPE_CHECKING:
    from ...data.images import ImageSet

__all__ = [
    "FORMAT",
    "VERSION",
    "check",
    "document_of",
    "parts_of",
    "same_settings",
    "space_digest",
    "told",
]

FORMAT, VERSION = "phonenas-supernet", 1
_DOCUMENT = Document(FORMAT, VERSION, "supernet")
_CALIBRATION = 512  # training images that set the statistics of a reading


def space_digest(space: SearchSpace) -> str:
    """Twelve hex digits of a space's decisions and of all operators that they lead to."""
    told = repr((dict(space.decisions), sorted(o.key for o in space.operators())))
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def parts_of(images: ImageSet, settings: dict[str, Any]) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Images to train on, to calibrate by (some of these), and to read on."""
    from ...data.images import held_out

    train, held = held_out(images, float(settings["hold_out"]), int(settings["seed"]))
    n = min(_CALIBRATION, len(train))
    chosen = np.random.default_rng(int(settings["seed"])).permutation(len(train))[:n]
    return train, train.subset(np.sort(chosen)), held


def document_of(folder: Path) -> dict[str, Any]:
    """What a supernet's folder says of it.

    Raises:
        UnknownName: There is no supernet.
        UnsupportedFormat: The file is damaged, or of another version.
    """
    path, again = folder / "supernet.json", "Train it anew in another folder."
    found = _DOCUMENT.read(path, again)
    if found is None:
        going = (folder / "checkpoint.safetensors").exists()
        raise UnknownName(
            f"{folder} holds no supernet" + (" yet: its training is not done; give its command again"
            if going else ". Train one:  phonenas supernet --space SPACE --data DIR --out FOLDER")
        )  # fmt: skip
    with _DOCUMENT.checking(path, again):
        for name in ("settings", "spread", "offset", "read_s", "largest", "smallest", "random"):
            found[name]
    return found


def told(probability: float, offset: float) -> float:
    """Top-1 as a supernet tells it, in [0, 1]: see `Supernet`."""
    return min(max(probability + offset, 0.0), 1.0)


def check(folder: Path, settings: dict[str, Any], space: SearchSpace, images: ImageSet) -> None:
    """Refuse other images or another space than a supernet was trained on.

    Raises:
        SettingsChanged: They are; both are named.
    """
    if images.digest != settings["images"]:
        raise SettingsChanged(
            f"{folder} was trained on images with digest {settings['images']}, and {images.source} has "
            f"{images.digest}. Give the images it was trained on, or train another:  "
            f"phonenas supernet --space {space.name} --data DIR --out FOLDER"
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
            f"{space!r} has. Train another:  phonenas supernet --space {space.name} --data DIR "
            "--out FOLDER"
        )


def same_settings(folder: Path, there: dict[str, Any], asked: dict[str, Any]) -> None:
    """Refuse to go on with other settings than a folder's.

    Raises:
        SettingsChanged: One differs; both values are named.
    """
    for name, value in _flat(json.loads(json.dumps(asked))).items():
        if (stands := _flat(there).get(name)) != value:
            raise SettingsChanged(
                f"{folder} holds a supernet with {name} {_short(stands)}, and {_short(value)} was asked "
                "for. Give another folder, or the same settings."
            )


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with those of the recipe among them."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= value if isinstance(value, dict) else {name: value}
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
