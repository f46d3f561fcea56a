"""Arrays in an .npz file, read strictly: no pickles, nothing compressed, sizes as they stand there.

What a header promises is compared with what the file holds before anything is made of it, so that
a damaged header asks for no memory.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

__all__ = ["arrays_digest", "read_arrays"]

_KINDS = "biufU"  # bools, numbers, text
_MOST = 200  # arrays in a file


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays that `numpy.savez` wrote, by name.

    Raises:
        ValueError: It is damaged: no such file, one cut short, or an array of another kind.
        OSError: It cannot be read.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as file:
            members = file.infolist()
            if len(members) > _MOST or len({m.filename for m in members}) != len(members):
                raise ValueError(f"{len(members)} arrays, or one twice")
            return {m.filename.removesuffix(".npy"): _array(file, m) for m in members}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(str(error) or "no such file") from error


def _array(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    name = member.filename[:60]
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise ValueError(f"{name} is compressed")
    content = io.BytesIO(file.read(member))
    try:
        version = npy.read_magic(content)
        if version != (1, 0):
            raise ValueError(f"version {version}")
        shape, fortran, dtype = npy.read_array_header_1_0(content)
    except (SyntaxError, TokenError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"{name}: {error}") from error
    start = content.tell()
    held = content.getbuffer().nbytes - start
    if dtype.kind not in _KINDS or math.prod(shape) * dtype.itemsize != held:
        raise ValueError(f"{name}: {held} bytes do not hold {shape} of {dtype}")
    if dtype.kind == "U" and dtype.itemsize == 0:
        return np.zeros(shape, dtype)
    flat = np.frombuffer(content.getvalue(), dtype, offset=start)
    return (flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)).copy()


def arrays_digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Sixteen hexadecimal digits, a hash of arrays, their names, types and shapes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
