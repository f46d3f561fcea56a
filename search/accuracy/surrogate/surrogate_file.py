"""The strict form of a surrogate's file."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from phonenas.data.documents import Number, Text

__all__ = ["SurrogateFile"]

_FEATURES, _EXTENT = 45, 8  # columns of `surrogate.features` and of `surrogate.extent`
_Row = Annotated[list[Number], Meta(min_length=_FEATURES, max_length=_FEATURES)]
_Scales = Annotated[
    list[Annotated[float, Meta(gt=0, le=1e9)]], Meta(min_length=_FEATURES, max_length=_FEATURES)
]
_Ends = Annotated[list[Number | None], Meta(min_length=_EXTENT, max_length=_EXTENT)]
_Px = Annotated[int, Meta(ge=1, le=100_000)]


class _Shape(msgspec.Struct):
    low: _Row
    high: _Row
    mean: _Row
    scale: _Scales
    weights: _Row


class _Detail(msgspec.Struct):
    length: Annotated[float, Meta(gt=0, le=1e9)]
    weights: list[Number]
    centres: list[_Row]


class _Model(msgspec.Struct):
    intercept: Number
    slope: Number
    shape: _Shape
    detail: _Detail
    range: Annotated[list[_Ends], Meta(min_length=2, max_length=2)]


class _Score(msgspec.Struct):
    rmse_points: Annotated[float, Meta(ge=0, le=100)]


class _Source(msgspec.Struct):
    table: Text
    resolution_px: _Px | Annotated[list[_Px], Meta(min_length=1)]


class _Base(msgspec.Struct):
    digest: Text
    weight: Number


class _Seen(msgspec.Struct):
    refused: bool
    regular: bool
    unseen: bool


class SurrogateFile(msgspec.Struct):
    """A surrogate's file; `base` and `seen` are of one that corrects the shipped surrogate."""

    version: int
    source: _Source
    score: _Score
    model: _Model
    base: _Base | None = None
    seen: _Seen | None = None
