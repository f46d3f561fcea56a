"""The model of full-schedule top-1: the logit of top-1 as a weighted sum of columns of features.

Columns: a constant; each feature; size (MACs and parameters) once more with a wider prior; smooth
functions of all features by their values at centres; the recipe, and how its effect changes with
MACs. The weights have a normal posterior, so each estimate has a standard error. To it belong what
the centres cannot express far from them, the effect of a family that was not seen, and a training's
noise.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, sections 2.1 (weights
with a normal prior), 5.1 (a length for each feature) and 8.3 (smooth functions by their values at
centres).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from phonenas.data.documents import Number, Text

from .features import FEATURES

__all__ = [
    "Estimates",
    "Model",
    "ModelFile",
    "Prior",
    "Smooth",
    "columns",
    "described",
    "logit",
    "percent",
]

Floats = npt.NDArray[np.float64]
SIZE = 2  # the first features: MACs and parameters
WIDE = 10.0  # prior standard deviation of a constant, in logits
_D = len(FEATURES)
_Row = Annotated[list[Number], Meta(min_length=_D, max_length=_D)]
_Positive = Annotated[float, Meta(gt=0, le=1e9)]
_Scales = Annotated[list[_Positive], Meta(min_length=_D, max_length=_D)]
_CHUNK = 1024  # rows whose columns stay in the cache


class Prior(msgspec.Struct, forbid_unknown_fields=True):
    """Prior standard deviations in logits, and how far a smooth function reaches.

    `short` are of the 16-epoch table: the scale of its differences, a smooth deviation, its noise.
    `weights` are the features' inverse lengths.
    """

    linear: _Positive
    smooth: _Positive
    recipe: _Positive
    recipe_slope: _Positive
    family: _Positive
    noise: _Positive
    size: _Positive
    short_scale: _Positive
    short_smooth: _Positive
    short_noise: _Positive
    weights: _Scales


class _Score(msgspec.Struct):
    n: int
    mean_error_points: Number
    coverage90: Number


class ModelFile(msgspec.Struct):
    """The file of the model.

    Attributes:
        mean, scale: Of the features, by which they are standardised.
        low, high: Least and greatest of each feature among the networks of the fit.
        centres: Of the smooth columns, standardised; means of several networks.
        coefficients: Means of the weights, by column.
        factor: Rows of the lower triangle whose product with its transpose is their covariance.
        score: With each family left out.
    """

    format: Text
    version: int
    sources: list[Text]
    recipes: list[Text]
    features: list[Text]
    prior: Prior
    mean: _Row
    scale: _Scales
    low: _Row
    high: _Row
    centres: Annotated[list[_Row], Meta(min_length=1)]
    offset: Number
    coefficients: list[Number]
    factor: list[list[Number]]
    score: _Score


def logit(percent: npt.ArrayLike) -> Floats:
    """log(p / (100 - p)) of top-1 in %."""
    p = np.asarray(percent, np.float64)
    return np.log(p / (100 - p))


def percent(logits: npt.ArrayLike) -> Floats:
    """Inverse of `logit`."""
    return 100 / (1 + np.exp(-np.asarray(logits, np.float64)))


def _kernel(a: Floats, b: Floats) -> Floats:
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.asarray(np.exp(-0.5 * np.maximum(squares, 0)), np.float64)


class Smooth:
    """Columns whose weights with a unit prior give smooth functions of unit variance.

    Args:
        centres: Standardised features, (c, 13).
        weights: Inverse lengths, (13,).
    """

    def __init__(self, centres: Floats, weights: Sequence[float]) -> None:
        self._weights = np.array(weights)
        self._at = centres * self._weights
        root = np.linalg.cholesky(_kernel(self._at, self._at) + 1e-6 * np.eye(len(centres)))
        self._back = np.linalg.inv(root).T

    def __call__(self, z: Floats) -> Floats:
        """The columns, (n, c), of standardised features, (n, 13)."""
        return np.asarray(_kernel(z * self._weights, self._at) @ self._back, np.float64)


@dataclass(frozen=True)
class Estimates:
    """Top-1 in %, its standard error in points, and the part of it that grows with distance."""

    top1: Floats
    error: Floats
    unknown: Floats


class Model:
    """What the file says, ready to estimate.

    Raises:
        ValueError: Its parts do not fit each other.
    """

    def __init__(self, file: ModelFile) -> None:
        self.prior, self.recipes = file.prior, tuple(file.recipes)
        self._mean, self._scale = np.array(file.mean), np.array(file.scale)
        self.low, self.high = np.array(file.low), np.array(file.high)
        self.centres = np.array(file.centres, np.float64)
        self._smooth = Smooth(self.centres, file.prior.weights)
        self._offset, self._coefficients = file.offset, np.array(file.coefficients)
        n = len(self._coefficients)
        if [len(row) for row in file.factor] != list(range(1, n + 1)):
            raise ValueError(f"factor: not the lower triangle of {n} columns")
        self._factor = np.zeros((n, n))
        for i, row in enumerate(file.factor):
            self._factor[i, : i + 1] = row
        if n != self.columns(np.zeros((1, _D)), 0).shape[1]:
            raise ValueError(f"coefficients: {n} do not fit {len(self.centres)} centres")

    def standardised(self, features: Floats) -> Floats:
        """Features (n, 13) over their spread among the networks of the fit."""
        return np.asarray((features - self._mean) / self._scale, np.float64)

    def columns(self, z: Floats, recipe: int | Sequence[int] | npt.NDArray[Any]) -> Floats:
        """The columns of standardised features (n, 13), trained by a recipe, by number."""
        return columns(z, recipe, self.prior, self._smooth, len(self.recipes))

    def estimate(self, features: Floats, recipe: int) -> Estimates:
        """Estimates for n networks, features (n, 13), after a recipe, by number."""
        parts = [
            self._some(features[i : i + _CHUNK], recipe)
            for i in range(0, max(len(features), 1), _CHUNK)
        ]
        return Estimates(*(np.concatenate(p) for p in zip(*parts, strict=True)))

    def _some(self, features: Floats, recipe: int) -> tuple[Floats, Floats, Floats]:
        p, z = self.prior, self.standardised(features)
        x = self.columns(z, recipe)
        smooth = x[:, 1 + _D + SIZE :][:, : len(self.centres)]
        beyond = np.maximum(p.smooth**2 - (smooth**2).sum(axis=1), 0)
        known = ((x @ self._factor) ** 2).sum(axis=1)
        top1 = percent(self._offset + x @ self._coefficients)
        slope = top1 * (100 - top1) / 100  # points a logit
        unknown = np.sqrt(beyond + known)
        error = np.sqrt(beyond + known + p.family**2 + p.noise**2)
        return top1, slope * error, slope * unknown


def columns(
    z: Floats,
    recipe: int | Sequence[int] | npt.NDArray[Any],
    prior: Prior,
    smooth: Smooth,
    recipes: int,
) -> Floats:
    """The columns, (n, 1 + 13 + 2 + centres + 2 · recipes), each with a unit prior of its weight.

    Args:
        z: Standardised features, (n, 13).
        recipe: Number of the recipe, of all or of each, (n,); -1 for none.
        prior, smooth: Of the model.
        recipes: How many there are.
    """
    trained = np.zeros((len(z), recipes))
    at = np.broadcast_to(np.asarray(recipe, np.intp), len(z))
    rows = np.flatnonzero(at >= 0)
    trained[rows, at[rows]] = 1.0
    return np.column_stack(
        [
            np.full(len(z), WIDE),
            prior.linear * z,
            prior.size * z[:, :SIZE],
            prior.smooth * smooth(z),
            prior.recipe * trained,
            prior.recipe_slope * trained * z[:, :1],
        ]
    )


def described(content: dict[str, Any]) -> ModelFile:
    """A file's content as its strict form."""
    return msgspec.convert(content, ModelFile)
