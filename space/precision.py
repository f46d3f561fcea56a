"""What a network computes in, by name: the precisions that networks are written and searched in.

A precision is read from the file that is measured (`onnx_file`, `ort_file`, `tflite_file`), never
taken from a setting. It is part of all conditions: times, models and runs of unlike precisions
never merge, and never lie under one name.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from .errors import InvalidArgument, UnknownName, nearest

__all__ = [
    "FLOAT32",
    "OF_FILES",
    "PRECISIONS",
    "Precision",
    "checked_precision",
    "mixed",
    "weight_bytes",
]

FLOAT32 = "float32"


@dataclass(frozen=True)
class Precision:
    """A precision that networks are written in.

    Args:
        name: As it stands in conditions, in file names and after `--precision`.
        weight_bytes: Of one weight in the file, in bytes, > 0.
        weights: Type of the weights in the file.
        activations: Type of the feature maps that are computed with.
        about: What it is, for help and documents.
    """

    name: str
    weight_bytes: int
    weights: str
    activations: str
    about: str


#: Those that phonenas writes, by name.
PRECISIONS = {
    p.name: p
    for p in (
        Precision(FLOAT32, 4, FLOAT32, FLOAT32, "floats of 32 bits"),
        Precision("float16", 2, "float16", "float16", "floats of 16 bits, computed as such"),
        Precision(
            "int8",
            1,
            "int8",
            "int8",
            "weights and feature maps of 8 bits: one scale for each output channel's weights, "
            "calibrated ranges of the feature maps",
        ),
        Precision(
            "int8-dynamic",
            1,
            "int8",
            FLOAT32,
            "weights of 8 bits; the range of a feature map is found as it is computed",
        ),
        Precision(
            "float16-weights",
            2,
            "float16",
            FLOAT32,
            "weights of 16 bits, made 32 bits as they are loaded",
        ),
    )
}
#: Further ones that somebody else's file may have; such a file is measured whole, as it is.
OF_FILES = ("bfloat16", "float64", "int16", "int4", "int8-weights")
_JOINT = "+"


def checked_precision(
    name: str, what: str = "--precision", among: Collection[str] = tuple(PRECISIONS)
) -> str:
    """A precision's name, as it was given.

    >>> checked_precision("int8")
    'int8'

    Args:
        name: The name.
        what: Where it was given, for the message.
        among: Those that are possible there.
    Raises:
        UnknownName: No precision is called so; the message offers the nearest.
        InvalidArgument: There is one, which is not possible there.
    """
    if name in among:
        return name
    if name in PRECISIONS or name in OF_FILES or _JOINT in name:
        raise InvalidArgument(f"{what} {name} is not possible here; it is {' or '.join(among)}")
    raise UnknownName(f"{what}: no precision is called {name!r}. {nearest(name, among)}")


def mixed(precisions: Collection[str]) -> str:
    """The name of what a file computes in, whose layers compute in these; of one its own.

    >>> mixed(["int8", "float32", "int8"])
    'float32+int8'
    """
    return _JOINT.join(sorted(set(precisions)))


def weight_bytes(precision: str) -> int:
    """Bytes of one weight in a file, > 0; 4 of a precision that phonenas does not write.

    >>> weight_bytes("int8-dynamic"), weight_bytes("float16-weights")
    (1, 2)
    """
    known = PRECISIONS.get(precision)
    return 4 if known is None else known.weight_bytes
