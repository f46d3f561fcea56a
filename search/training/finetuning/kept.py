"""Kept: what a fine-tuning came to, in `finetuned.json` of the training's folder.

The images held out are many, and to run three files on each takes minutes. Where nothing changed
that decides the result, it is read.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from phonenas.data.documents import Count, Document, Number, Text, strict
from phonenas.space.lowering.calibration import Ranges

from .tuned import FineTuned

__all__ = ["Kept", "keep", "kept_in"]

_DOCUMENT = Document("phonenas-fine-tuning", 1, "result of a fine-tuning")
_NAME = "finetuned.json"
_REMEDY = "Remove it: the trainings are beside it, so none is done again."


@dataclass(frozen=True)
class Kept:
    """The result of a fine-tuning.

    Args:
        key: Of all settings that decide it, known before its ranges are.
        result: What it came to.
        ranges: Of the network's values.
        calibrated_on: Images that these are of.
    """

    key: str
    result: FineTuned
    ranges: Ranges
    calibrated_on: int


@dataclass(frozen=True)
class _Content:
    """As the file has it."""

    key: Text
    result: FineTuned
    ranges: dict[str, tuple[Number, Number]]
    calibrated_on: Count


def keep(into: str | Path | None, kept: Kept) -> None:
    """Write it, whole or not at all; nothing without a folder.

    Raises:
        StoreError: The disk does not take it.
    """
    if into is None:
        return
    Path(into).mkdir(parents=True, exist_ok=True)
    ranges = {name: [float(end) for end in ends] for name, ends in kept.ranges.items()}
    _DOCUMENT.write(Path(into) / _NAME, {**asdict(kept), "ranges": ranges})


def kept_in(folder: Path, key: str) -> Kept | None:
    """The result in a folder; None where there is none, or one of other settings.

    Raises:
        UnsupportedFormat: Damaged or of another version.
        StoreError: It cannot be read.
    """
    path = folder / _NAME
    document = _DOCUMENT.read(path, _REMEDY)
    if document is None:
        return None
    with _DOCUMENT.checking(path, _REMEDY):
        own = strict(document, _Content)
    if own.key != key:
        return None
    return Kept(own.key, own.result, own.ranges, own.calibrated_on)
