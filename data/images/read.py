"""Image sets in folders, npz files and idx files; and a share of one held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from phonenas.space.errors import InvalidArgument, PhonenasError, StoreError

from .image_set import ImageSet

__all__ = ["held_out", "read_images"]


def read_images(path: str | Path, part: str = "train", *, broken: str = "stop") -> ImageSet:
    """Open one part of an image set.

    | format | files |
    |---|---|
    | folders | `DIR/train/CLASS/*.jpg`, and `DIR/test/...` or `DIR/val/...` |
    | npz | `x_train`, `y_train`, `x_test`, `y_test` (or `x_val`, `y_val`), and `classes` if named;
    a file, or a folder that holds one |
    | idx | `DIR/train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-...`, each also as .gz |

    If a folder holds several of these, the first of the table is taken.

    Args:
        path: The folder or file.
        part: "train", or "test", which falls back to what is called "val".
        broken: What to do about files that are not whole images. "stop": reading one raises, and
            opening the set decodes none. "skip": all files are decoded once while the set is
            opened, on as many threads as there are cores (8 at most), and broken ones are left
            out, each with a warning, and listed in `skipped`. npz and idx files are always read
            whole.
    Returns:
        The images in a fixed order: by class, then by name; arrays as they stand.
    Raises:
        InvalidArgument: Nothing like it there, a part or class that is missing, labels or images
            that are out of range or of another type or shape.
        InvalidImage: A file is empty (with broken="stop").
        UnsupportedFormat: An npz or idx file is damaged or of another kind.
        StoreError: It cannot be read (permission, disk).
    """
    if part not in ("train", "test"):
        raise InvalidArgument(f"a set has a part 'train' and a part 'test', not {part!r}")
    if broken not in ("stop", "skip"):
        raise InvalidArgument(f"--broken: stop or skip, got {broken!r}")
    path = Path(path)
    try:
        return _read(path, part, broken)
    except PhonenasError:
        raise
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a name with a null byte
        raise InvalidArgument(f"{str(path)!r} is not a path: {error}") from error


def _read(path: Path, part: str, broken: str) -> ImageSet:
    from .folders import read_folders
    from .idx import find_idx, read_idx
    from .npz import read_npz

    if not path.exists():
        raise InvalidArgument(f"there is no {path}. Give the folder or .npz file of the images.")
    if not path.is_dir():
        if path.suffix != ".npz":
            raise InvalidArgument(
                f"{path} is a file, and no .npz. Images are a .npz file or a folder; "
                "of idx files give the folder that they lie in."
            )
        return read_npz(path, part)
    if (path / "train").exists():
        return read_folders(path, part, broken)
    if find_idx(path, "train") or find_idx(path, "test"):
        return read_idx(path, part)
    archives = sorted(p for p in path.glob("*.npz") if not p.name.startswith("."))
    if len(archives) == 1:
        return read_npz(archives[0], part)
    if archives:
        names = ", ".join(a.name for a in archives[:5])
        raise InvalidArgument(f"{path} holds {len(archives)} .npz files ({names}): name one.")
    raise InvalidArgument(
        f"{path} holds no images in a known layout: train/CLASS/*.jpg, train-images-idx3-ubyte, or "
        "a .npz file with x_train and y_train."
    )


def held_out(images: ImageSet, share: float, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """Divide a set in two, each class by the same share; equal seeds give equal parts.

    Args:
        images: The set.
        share: Of the images to hold out, in (0, 1).
        seed: Of the choice, at least 0.
    Returns:
        (the rest, the images held out): `round(share * n)` images are held out, as far as every
        class keeps one; both in the order of `images`.
    Raises:
        InvalidArgument: A share or seed out of range, or one part would be empty.
    """
    if not 0 < share < 1:
        raise InvalidArgument(f"the share to hold out is between 0 and 1, not {share}")
    if seed < 0:
        raise InvalidArgument(f"a seed is at least 0, not {seed}")
    sizes = np.bincount(images.labels, minlength=len(images.classes))
    wanted = round(share * len(images))
    counts = np.floor(share * sizes).astype(np.int64)
    # What rounding down left goes to the classes that lost most by it, each one image at most.
    fractions = share * sizes - counts
    for label in np.argsort(-fractions, kind="stable")[: max(0, wanted - int(counts.sum()))]:
        counts[label] += 1
    counts = np.minimum(counts, np.maximum(sizes - 1, 0))
    if counts.sum() == 0:
        raise InvalidArgument(
            f"{share:g} of {len(images):,} images in {len(images.classes):,} classes holds out "
            "none, since each class keeps one for training. Raise the share or bring more images."
        )
    draws = np.random.default_rng(seed).random(len(images))
    # Within each class the images of the smallest numbers are held out.
    order = np.lexsort((draws, images.labels))
    ranks = np.arange(len(images)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = np.zeros(len(images), bool)
    chosen[order] = ranks < np.repeat(counts, sizes)
    return images.subset(np.flatnonzero(~chosen)), images.subset(np.flatnonzero(chosen))
