"""ImageSet: labelled images, in memory or in files, that every estimator and training reads."""

from __future__ import annotations

import hashlib
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.space.errors import InvalidArgument

__all__ = ["ArrayImages", "ImageSet", "numbered_classes"]

# What Pillow, zipfile and numpy raise on bytes that are not an image or array; Warning where
# warnings are errors. LookupError: a missing key or index; ArithmeticError: sizes that overflow.
DAMAGE: tuple[type[BaseException], ...] = (ArithmeticError, AttributeError, EOFError, LookupError)
DAMAGE += (MemoryError, RuntimeError, SyntaxError, TypeError, ValueError, Warning)
DAMAGE += (struct.error, zlib.error)

Indices = Sequence[int] | npt.NDArray[np.integer[Any]]


class ImageSet(ABC):
    """Images with one label each; a value that never changes, and cheap to send to another process.

    `data.read_images` opens one; `ImageSet.of` makes one of arrays. Arrays go along when the set
    is sent, files go as their paths: the other process must see them under the same path.

    Args:
        labels: (n,), int64, each in [0, number of classes).
        classes: Names, by label.
        source: Where the images came from, for people.
        skipped: Files that were left out because they are damaged, relative to `source`.
    """

    def __init__(
        self,
        labels: npt.NDArray[np.int64],
        classes: tuple[str, ...],
        source: str,
        skipped: tuple[str, ...] = (),
    ) -> None:
        self.labels = labels
        self.classes = classes
        self.source = source
        self.skipped = skipped
        self.labels.setflags(write=False)

    @staticmethod
    def of(
        images: npt.NDArray[np.uint8],
        labels: npt.ArrayLike,
        classes: Sequence[str] | None = None,
        source: str = "arrays",
    ) -> ImageSet:
        """A set of images in memory.

        Args:
            images: (n, h, w, 3) RGB, or (n, h, w) or (n, h, w, 1) grey, uint8.
            labels: (n,) or (n, 1), whole numbers from 0.
            classes: Names, by label; "0", "1", ... up to the largest label if None.
            source: What messages call it.
        Raises:
            InvalidArgument: A shape or a type that is none of these, lengths that differ, labels
                out of range.
        """
        pixels = checked_pixels(np.asarray(images), source)
        numbers = checked_labels(np.asarray(labels), len(pixels), source)
        names = numbered_classes(numbers, source) if classes is None else tuple(map(str, classes))
        check_range(numbers, len(names), source)
        return ArrayImages(pixels, numbers, names, source)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"{len(self):,} images of {len(self.classes):,} classes ({self.source})"

    @abstractmethod
    def image(self, index: int) -> npt.NDArray[np.uint8]:
        """One image as (h, w, 3) RGB, uint8.

        Raises:
            InvalidImage: The file is broken; the message names it.
        """

    @abstractmethod
    def subset(self, indices: Indices) -> ImageSet:
        """The images at these places, in this order, with the same classes.

        Raises:
            InvalidArgument: A place outside [0, n).
        """

    @abstractmethod
    def _content(self) -> bytes:
        """What the digest covers beside the labels and classes."""

    def array(self) -> npt.NDArray[np.uint8] | None:
        """All images as (n, h, w, 3), uint8, read-only, or None if they lie in files.

        Grey ones are a view that shows one plane three times; it takes no memory of its own.
        """
        return None

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of what is in the set: equal sets have equal digests.

        In memory it covers every pixel as kept (grey or RGB); in files the relative names and the
        sizes in bytes, so that opening a large set does not read it. Labels and class names
        belong to both, where the set lies to neither.
        """
        return sha256(self._content(), self.labels.tobytes(), *encoded(self.classes))

    def _places(self, indices: Indices) -> npt.NDArray[np.int64]:
        places = np.asarray(indices)
        if places.size == 0:
            places = places.astype(np.int64)
        if places.ndim != 1 or places.dtype.kind not in "iu":
            raise InvalidArgument("a subset is named by a row of whole numbers")
        if places.size and not 0 <= int(places.min()) <= int(places.max()) < len(self):
            raise InvalidArgument(
                f"{self.source} has {len(self):,} images, numbered from 0; "
                f"{int(places.min())} to {int(places.max())} were asked for"
            )
        return places.astype(np.int64)


class ArrayImages(ImageSet):
    """Images of one size, in memory. `pixels` is (n, h, w, 3), or (n, h, w) where they are grey."""

    def __init__(
        self,
        pixels: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        classes: tuple[str, ...],
        source: str,
    ) -> None:
        super().__init__(labels, classes, source)
        # A view of its own, so that the array of whoever gave it stays writable.
        self.pixels = pixels.view()
        self.pixels.setflags(write=False)

    def image(self, index: int) -> npt.NDArray[np.uint8]:
        pixels: npt.NDArray[np.uint8] = self.rows(self._places([index]))[0]
        return pixels

    def rows(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """The images at these places, (b, h, w, 3): one copy, without a look at the others."""
        return _coloured(self.pixels[places])

    def array(self) -> npt.NDArray[np.uint8]:
        return _coloured(self.pixels)

    def subset(self, indices: Indices) -> ArrayImages:
        places = self._places(indices)
        return ArrayImages(self.pixels[places], self.labels[places], self.classes, self.source)

    def _content(self) -> bytes:
        # Hashed here, so that no second copy of the pixels is made.
        pixels = np.ascontiguousarray(self.pixels)
        return sha256(repr(pixels.shape).encode(), pixels.data).encode()


def _coloured(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if pixels.ndim == 4:
        return pixels
    return np.broadcast_to(pixels[..., None], (*pixels.shape, 3))


def reason(error: BaseException) -> str:
    """What an error says, on one line; its kind where it says nothing."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())[:200] or type(error).__name__


def sha256(*parts: Any) -> str:
    """Sixteen hexadecimal digits over parts of bytes; the length of each part counts, too."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(memoryview(part).nbytes.to_bytes(8, "big"))
        hashed.update(part)
    return hashed.hexdigest()[:16]


def encoded(names: Sequence[str]) -> list[bytes]:
    """Names as bytes; those of files that are not valid Unicode are kept, too."""
    return [name.encode("utf-8", "surrogateescape") for name in names]


def checked_pixels(pixels: npt.NDArray[Any], source: str) -> npt.NDArray[np.uint8]:
    """The array as (n, h, w, 3) or (n, h, w), or an error that says what it is instead."""
    if pixels.dtype != np.uint8:
        scale = ". If they lie in [0, 1]:  (x * 255).round().astype('uint8')"
        raise InvalidArgument(
            f"{source}: images are uint8, 0 to 255; these are {pixels.dtype}"
            + scale * (pixels.dtype.kind == "f")
        )
    if pixels.ndim == 4 and pixels.shape[3] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] != 3):
        hint = ""
        if pixels.ndim == 4 and pixels.shape[1] in (1, 3):
            hint = "; the colours come last:  x.transpose(0, 2, 3, 1)"
        raise InvalidArgument(
            f"{source}: images are (n, h, w, 3) or, in grey, (n, h, w); "
            f"these are {pixels.shape}{hint}"
        )
    if 0 in pixels.shape:
        raise InvalidArgument(f"{source} holds no image: its shape is {pixels.shape}")
    return pixels


def checked_labels(labels: npt.NDArray[Any], images: int, source: str) -> npt.NDArray[np.int64]:
    """Labels (n,) or (n, 1) as (n,) int64, not yet compared with the number of classes."""
    if labels.dtype.kind not in "iu":
        raise InvalidArgument(
            f"{source}: labels are whole numbers from 0; these are {labels.dtype}"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (images,):
        raise InvalidArgument(
            f"{source}: {images:,} images need labels of shape ({images},); "
            f"these have {labels.shape}"
        )
    if labels.size and int(labels.max()) > np.iinfo(np.int64).max:
        raise InvalidArgument(f"{source}: label {labels.max()} is not a class number")
    return labels.astype(np.int64)


def numbered_classes(labels: npt.NDArray[np.int64], source: str) -> tuple[str, ...]:
    """Classes "0", "1", ... of labels (n,) without names; each must have an image."""
    check_range(labels, None, source)
    count = int(labels.max()) + 1
    used = np.zeros(min(count, len(labels) + 1), bool)
    used[labels[labels < len(used)]] = True
    if not used.all():
        raise InvalidArgument(
            f"{source}: labels run from 0 to {count - 1}, and class {int(np.argmin(used))} has no "
            "image. Number the classes from 0 without a gap, or give their names as `classes`."
        )
    return tuple(map(str, range(count)))


def check_range(labels: npt.NDArray[np.int64], classes: int | None, source: str) -> None:
    """Raise unless each of the labels (n,) is in [0, classes)."""
    if classes == 0:
        raise InvalidArgument(f"{source} has no class")
    wrong = labels < 0 if classes is None else (labels < 0) | (labels >= classes)
    if wrong.any():
        at = int(np.argmax(wrong))
        upper = "" if classes is None else f" and below {classes}, the number of classes"
        raise InvalidArgument(
            f"{source}: labels are at least 0{upper}; image {at} has {int(labels[at])} "
            f"({int(wrong.sum()):,} of {len(labels):,} labels are out of range)"
        )
