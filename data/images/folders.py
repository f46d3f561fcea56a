"""Folders of images, one for each class, as of ImageNet: only names are kept in memory."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from phonenas.space.errors import InvalidArgument, InvalidImage, StoreError

from .decoding import ENDINGS, check, decode
from .image_set import ImageSet, Indices

__all__ = ["FileImages", "read_folders"]

log = logging.getLogger("phonenas")
MAX_THREADS = 8
SHOWN = 5
PIECE = 512


class FileImages(ImageSet):
    """Images in files. The names of a million of them take some 50 MB, as one run of bytes.

    Args:
        root: The folder of the part.
        names: Of the files, relative to it.
        sizes: Of the files, (n,), in bytes.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        sizes: npt.NDArray[np.int64],
        labels: npt.NDArray[np.int64],
        classes: tuple[str, ...],
        skipped: tuple[str, ...] = (),
    ) -> None:
        super().__init__(labels, classes, str(root), skipped)
        self.sizes = sizes
        raw = [os.fsencode(name) for name in names]
        self._names = b"".join(raw)
        self._ends = np.cumsum([len(name) for name in raw], dtype=np.int64)

    def name(self, index: int) -> str:
        """The file of an image, relative to `source`."""
        begin = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._names[begin : int(self._ends[index])])

    def path(self, index: int) -> Path:
        """The file of an image."""
        return Path(self.source) / self.name(index)

    def image(self, index: int) -> npt.NDArray[np.uint8]:
        return decode(self.path(int(self._places([index])[0])))

    def subset(self, indices: Indices) -> FileImages:
        places = self._places(indices)
        return FileImages(
            Path(self.source),
            [self.name(int(i)) for i in places],
            self.sizes[places],
            self.labels[places],
            self.classes,
            self.skipped,
        )

    def _content(self) -> bytes:
        # Lengths stand between the names, so that two lists never run into the same bytes.
        return self._names + self._ends.tobytes() + self.sizes.tobytes()


def read_folders(path: Path, part: str, broken: str) -> FileImages:
    """One part of a set of folders.

    Links are followed, and of what they lead to only the folders below one class are walked,
    through no further link. Names that begin with a dot, and files of other endings than
    `ENDINGS`, are passed over; a warning counts the latter.

    Raises:
        InvalidArgument, InvalidImage, StoreError: As `read_images`.
    """
    root, other = _parts(path, part)
    classes = _classes(root)
    if other is not None:
        _same(root, classes, other, _classes(other))
    names: list[str] = []
    sizes: list[int] = []
    labels: list[int] = []
    passed_over: Counter[str] = Counter()
    for label, name in enumerate(classes):
        files = sorted(_images(root, name, passed_over))
        if not files:
            raise InvalidArgument(
                f"class {name!r} is empty: {root / name} holds no image ({' '.join(ENDINGS)}). "
                "Fill the folder, or remove it from every part."
            )
        names += (name for name, _ in files)
        sizes += (size for _, size in files)
        labels += [label] * len(files)
    if passed_over:
        endings = ", ".join(f"{n:,} {e or 'without ending'}" for e, n in passed_over.most_common())
        log.warning(
            "%s: files left out because their names are not those of images: %s", root, endings
        )
    images = FileImages(
        root, names, np.array(sizes, np.int64), np.array(labels, np.int64), tuple(classes)
    )
    if broken == "skip":
        return _without_broken(images)
    if (images.sizes == 0).any():
        empty = [images.name(int(i)) for i in np.flatnonzero(images.sizes == 0)]
        raise InvalidImage(
            f"{root} has {len(empty)} files without a byte: {_list(empty)}. Replace or remove "
            "them, or leave broken images out:  --broken skip"
        )
    return images


def _parts(path: Path, part: str) -> tuple[Path, Path | None]:
    """The folder of a part, and the one that must have the same classes."""
    train = path / "train"
    test = next((path / n for n in ("test", "val") if (path / n).exists()), None)
    if part == "train":
        return train, test
    if test is None:
        raise InvalidArgument(
            f"{path} has a folder train, and neither test nor val. Make one of them, "
            "with a folder for each class."
        )
    return test, train


def _classes(root: Path) -> list[str]:
    """Names of the folders, sorted by code point."""
    with _listing(root) as entries:
        names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    if not names:
        raise InvalidArgument(f"{root} has no folder: each class has one of its own in it.")
    return names


def _same(root: Path, classes: list[str], other: Path, others: list[str]) -> None:
    only = [sorted(set(a) - set(b)) for a, b in ((classes, others), (others, classes))]
    differences = [
        f"only {where} has {_list(names)}"
        for where, names in zip((root, other), only, strict=True)
        if names
    ]
    if differences:
        raise InvalidArgument(
            f"{root} and {other} differ in their classes: {'; '.join(differences)}. "
            "Both parts have one folder a class, of the same names."
        )


def _images(root: Path, class_name: str, others: Counter[str]) -> Iterator[tuple[str, int]]:
    """(name relative to root, bytes) of each image below a class; a dangling link has 0 bytes.

    `others` counts the other files by ending.
    """
    waiting = [class_name]
    while waiting:
        inside = waiting.pop()
        with _listing(root / inside) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                name = f"{inside}{os.sep}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
                elif entry.is_dir():
                    continue
                elif not entry.name.lower().endswith(ENDINGS):
                    others[Path(entry.name).suffix.lower()] += 1
                else:
                    try:
                        yield name, entry.stat().st_size
                    except OSError:
                        yield name, 0


def _without_broken(images: FileImages) -> FileImages:
    threads = min(os.cpu_count() or 1, MAX_THREADS)
    reasons: list[str] = []
    with ThreadPoolExecutor(threads) as pool:
        # A piece at a time: a million futures would fill the memory, and Ctrl-C wait for them.
        for begin in range(0, len(images), PIECE):
            piece = range(begin, min(begin + PIECE, len(images)))
            reasons += pool.map(check, map(images.path, piece))
    broken = np.array([bool(reason) for reason in reasons])
    for reason in filter(None, reasons):
        log.warning("left out: %s", reason.split(". Replace")[0])
    if broken.any():
        log.warning("%d of %d images of %s are left out", broken.sum(), len(images), images.source)
    skipped = tuple(images.name(int(i)) for i in np.flatnonzero(broken))
    kept = images.subset(np.flatnonzero(~broken))
    kept.skipped = skipped
    sizes = np.bincount(kept.labels, minlength=len(images.classes))
    if not sizes.all():
        name = images.classes[int(np.argmin(sizes))]
        raise InvalidArgument(
            f"class {name!r} of {images.source} is empty: every one of its images is broken "
            f"({_list([s for s in skipped if s.startswith(name + os.sep)])})."
        )
    return kept


def _listing(root: Path) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    try:
        return os.scandir(root)
    except NotADirectoryError as error:
        raise InvalidArgument(
            f"{root} is a file; a folder with one folder a class is needed."
        ) from error
    except OSError as error:
        raise StoreError(f"{root} cannot be read: {error.strerror}") from error


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
