"""Image files as pixels, by Pillow: every colour mode as RGB, every damage as InvalidImage.

Only formats that Pillow decodes itself are opened, whatever a file's name says. Orientation tags
(EXIF) are not applied: neither the official MnasNet code nor the usual ImageNet pipelines apply
them. Transparency is dropped. 16-bit grey is
divided by 257; other wide types are refused. CMYK is converted.
"""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from phonenas.space.errors import InvalidImage, MissingExtra, install

from .image_set import DAMAGE, reason

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ENDINGS", "check", "decode", "open_image", "to_rgb"]

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF")
_DAMAGE: tuple[type[BaseException], ...] = (OSError, *DAMAGE)
# The filters of warnings belong to the whole process.
_FILTERS = threading.Lock()


def open_image(path: Path) -> Image:
    """Open a file and read its header: mode and size are known, no pixel is decoded.

    Raises:
        InvalidImage: It is not an image, cannot be read, or has far too many pixels.
        MissingExtra: Pillow is not installed.
    """
    pillow = _pillow()
    try:
        with _FILTERS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            opened: Image = pillow.open(path, formats=FORMATS)
            return opened
    except (pillow.DecompressionBombWarning, pillow.DecompressionBombError) as error:
        raise InvalidImage(
            f"{path} says that it has more than {pillow.MAX_IMAGE_PIXELS or 0:,} pixels. "
            "Make it smaller, or take it out of the set."
        ) from error
    except pillow.UnidentifiedImageError as error:
        raise _broken(path, "no known image format") from error
    except _DAMAGE as error:
        raise _broken(path, error) from error


def to_rgb(image: Image, path: Path) -> Image:
    """Decode an opened image, whatever its mode, as RGB.

    Raises:
        InvalidImage: It is cut short or damaged, or of a mode without a known range.
    """
    try:
        if image.mode == "RGB":
            image.load()
            return image
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
            grey = (np.asarray(image).astype(np.float64) / 257).round().clip(0, 255)
            image = _pillow().fromarray(grey.astype(np.uint8))
        if image.mode in ("I", "F"):
            raise _broken(path, f"its mode {image.mode!r} does not say how bright white is")
        if image.mode == "P" and "transparency" in image.info:
            # Else Pillow warns.
            image = image.convert("RGBA")
        return image.convert("RGB")
    except InvalidImage:
        raise
    except _DAMAGE as error:
        raise _broken(path, error) from error


def decode(path: Path) -> npt.NDArray[np.uint8]:
    """A whole file as (h, w, 3), uint8."""
    with open_image(path) as image:
        return np.array(to_rgb(image, path))


def check(path: Path) -> str:
    """Why a file is not a whole image, or "": every byte is decoded, at low resolution."""
    try:
        with open_image(path) as image:
            # A JPEG is then transformed at an eighth of its sides; all its codes are still read.
            image.draft(None, (1, 1))
            to_rgb(image, path)
    except InvalidImage as error:
        return str(error)
    return ""


def _broken(path: Path, error: BaseException | str) -> InvalidImage:
    why = error if isinstance(error, str) else reason(error)
    return InvalidImage(
        f"{path} cannot be read as an image: {why}. Replace or remove it, "
        "or leave broken images out:  --broken skip"
    )


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra(
            "image files were asked for, and Pillow cannot be imported here. "
            f"Install it:  {install('torch')}"
        ) from error
    return Image
