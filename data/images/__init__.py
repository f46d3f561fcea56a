"""Image sets as users have them: folders, npz files, idx files."""

from __future__ import annotations

from .image_set import ImageSet
from .read import held_out, read_images

__all__ = ["ImageSet", "held_out", "read_images"]
