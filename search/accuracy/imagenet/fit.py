"""Fit the model of full-schedule top-1 to public tables.

Figures after full schedules give the scale, and the effects of width, resolution, activation and
recipe. Some hundred networks of the Accel-NASBench table, after 16 epochs, join with differences of
their own scale, an offset and a smooth deviation: they tell how depth, kernels, expansion and gates
act. Hyperparameters maximise the likelihood of half of the families and of the 16-epoch networks.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, section 5.4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from phonenas.space import AccelNASBench, Architecture
from phonenas.space.errors import NotEnoughData
from phonenas.space.graph import NetworkGraph

from ..results import network_of
from ..surrogate.basis import rounded
from .features import FEATURES, SUMS, features, graph_sums, sums
from .model import SIZE, WIDE, Model, ModelFile, Prior, Smooth, columns, described, logit
from .published import RECIPES, PublishedTop1, read_published

__all__ = [
    "CHOSEN_ON",
    "FORMAT",
    "VERSION",
    "Rows",
    "features_of",
    "fit",
    "fitted",
    "left_out",
    "rows_of",
]

Floats = npt.NDArray[np.float64]
FORMAT, VERSION = "phonenas ImageNet top-1", 1
#: Families by whose likelihood, and by whose errors when left out, the method was chosen.
CHOSEN_ON = frozenset(
    [
        "efficientnet",
        "efficientnet-edge",
        "mnasnet",
        "mobilenet-v2",
        "mobilenet-v3",
        "proxylessnas",
        "regnet-x",
        "shufflenet-v2",
    ]
)
SHORT = "16 epochs"  # the family of the 16-epoch table
SHORT_ROWS = 300
CENTRES = 128
REACH = 1.645  # standard errors of a 90 % interval
_FEWEST = 40
_SEED = 0
_STEPS = 60  # of the optimiser, at most
_DIGITS = 7


@dataclass(frozen=True)
class Rows:
    """What a fit learns from, n networks.

    Args:
        features: (n, 13).
        top1: In %, (n,).
        family: Of each; `SHORT` for a network of the 16-epoch table.
        recipe: Number of the recipe, (n,); -1 after 16 epochs.
        names, macs: Of the networks.
    """

    features: Floats
    top1: Floats
    family: npt.NDArray[np.str_]
    recipe: npt.NDArray[np.intp]
    names: tuple[str, ...]
    macs: Floats

    @property
    def short(self) -> npt.NDArray[np.bool_]:
        return self.recipe < 0

    def take(self, rows: npt.ArrayLike) -> Rows:
        at = np.arange(len(self.top1))[np.asarray(rows)]
        return replace(
            self,
            features=self.features[at],
            top1=self.top1[at],
            family=self.family[at],
            recipe=self.recipe[at],
            names=tuple(self.names[i] for i in at),
            macs=self.macs[at],
        )


def features_of(networks: Sequence[Architecture | NetworkGraph]) -> tuple[Floats, Floats]:
    """Features, (n, 13), and sums, (n, 17)."""
    raw = np.array(
        [
            graph_sums(n)
            if isinstance(n, NetworkGraph)
            else np.sum([sums(o) for o in n.operators()], axis=0)
            for n in networks
        ]
    ).reshape(len(networks), len(SUMS))
    return features(raw, np.array([n.resolution_px for n in networks], np.float64)), raw


def rows_of(published: Sequence[PublishedTop1], short: Path) -> Rows:
    """Published figures, and some rows of the 16-epoch table, drawn with a fixed seed."""
    import pandas as pd

    frame = pd.read_csv(short).sample(SHORT_ROWS, random_state=_SEED)
    space = AccelNASBench()
    networks = [
        *(p.network for p in published),
        *(network_of(row, space) for row in frame.to_dict("records")),
    ]
    table, raw = features_of(networks)
    n, recipes = len(frame), list(RECIPES)
    return Rows(
        table,
        np.array([*(p.top1 for p in published), *frame["val_top1"]], np.float64),
        np.array([*(p.family for p in published), *[SHORT] * n]),
        np.array([*(recipes.index(p.recipe) for p in published), *[-1] * n], np.intp),
        tuple(map(str, networks)),
        raw[:, 0],
    )


def fit(tables: Sequence[Path], short: Path, sources: Sequence[str]) -> dict[str, Any]:
    """The content of the model's file.

    Args:
        tables: As `read_published` takes them.
        short: The Accel-NASBench table.
        sources: Names of all tables, for the file.
    Raises:
        InvalidArgument: A table is of another kind.
        NotEnoughData: Fewer than 40 published figures.
    """
    rows = rows_of(read_published(tables), short)
    if (~rows.short).sum() < _FEWEST:
        raise NotEnoughData(f"the tables have {(~rows.short).sum()} figures; a fit takes {_FEWEST}")
    chosen = rows.short | np.isin(rows.family, list(CHOSEN_ON))
    mean, scale = _spread(rows)
    prior = _likeliest(rows.take(chosen), (rows.features[chosen] - mean) / scale)
    centres = _centres((rows.features - mean) / scale)
    return fitted(rows, prior, centres, (mean, scale), sources)


def fitted(
    rows: Rows,
    prior: Prior,
    centres: Floats,
    spread: tuple[Floats, Floats],
    sources: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of the model's file under a prior: the posterior of the weights.

    Args:
        rows: To learn from.
        prior, centres: Of the model.
        spread: Mean and scale of the features.
    """
    z = (rows.features - spread[0]) / spread[1]
    short, whole = rows.short, ~rows.short
    smooth_of = Smooth(centres, prior.weights)
    own = columns(z, rows.recipe, prior, smooth_of, len(RECIPES))
    own[short, 1:] *= prior.short_scale
    families = sorted({*rows.family[whole]})
    smooth = smooth_of(z)
    x = np.column_stack(
        [
            own,
            WIDE * short,
            prior.short_smooth * smooth * short[:, None],
            prior.family * (rows.family[:, None] == np.array(families)),
        ]
    )
    noise = np.where(short, prior.short_noise, prior.noise)
    # What the centres cannot express of a network adds to its noise.
    beyond = np.maximum(1 - (smooth**2).sum(axis=1), 0) * prior.smooth**2
    noise = np.sqrt(noise**2 + beyond)
    target, offset = logit(rows.top1), float(logit(rows.top1[whole]).mean())
    weighed = x / noise[:, None]
    covariance = np.linalg.inv(np.eye(x.shape[1]) + weighed.T @ weighed)
    coefficients = covariance @ weighed.T @ ((target - offset) / noise)
    n = own.shape[1]
    factor = np.linalg.cholesky(covariance[:n, :n])
    return {
        "format": FORMAT,
        "version": VERSION,
        "sources": list(sources),
        "recipes": list(RECIPES),
        "features": list(FEATURES),
        "prior": msgspec.to_builtins(prior),
        "mean": rounded(spread[0], _DIGITS),
        "scale": rounded(spread[1], _DIGITS),
        "low": rounded(rows.features.min(axis=0), _DIGITS),
        "high": rounded(rows.features.max(axis=0), _DIGITS),
        "centres": centres.tolist(),
        "offset": rounded(offset, _DIGITS),
        "coefficients": rounded(coefficients[:n], _DIGITS),
        "factor": [rounded(factor[i, : i + 1], 5) for i in range(n)],
        "score": {"n": 0, "mean_error_points": 0.0, "coverage90": 0.0},
    }


def left_out(rows: Rows, file: ModelFile) -> tuple[Floats, Floats]:
    """Top-1 in % of each published network and its standard error, its family left out, (n,) each.

    Those of 16-epoch networks are NaN. Hyperparameters and centres are the file's.
    """
    top1, error = np.full(len(rows.top1), np.nan), np.full(len(rows.top1), np.nan)
    spread = np.array(file.mean), np.array(file.scale)
    centres = np.array(file.centres)
    for family in sorted({*rows.family[~rows.short]}):
        own = rows.family == family
        model = Model(described(fitted(rows.take(~own), file.prior, centres, spread)))
        for recipe in sorted({*rows.recipe[own].tolist()}):
            at = np.flatnonzero(own & (rows.recipe == recipe))
            estimates = model.estimate(rows.features[at], recipe)
            top1[at], error[at] = estimates.top1, estimates.error
    return top1, error


def _spread(rows: Rows) -> tuple[Floats, Floats]:
    seen = rows.features[~rows.short]
    scale = np.maximum(np.maximum(seen.std(axis=0), rows.features[rows.short].std(axis=0)), 1e-6)
    return np.array(rounded(seen.mean(axis=0), _DIGITS)), np.array(rounded(scale, _DIGITS))


def _centres(z: Floats) -> Floats:
    """Means of clusters of networks, so that the file holds no network's row."""
    from scipy.cluster.vq import kmeans2

    distinct = np.unique(np.round(z, 3), axis=0)
    start = np.random.default_rng(_SEED).permutation(len(distinct))[:CENTRES]
    centres, _ = kmeans2(distinct, distinct[start], iter=20, minit="matrix", missing="warn")
    return np.round(np.unique(centres, axis=0), 3)


# Medians of the hyperparameters' log-normal priors, as in `Prior`; the last is of each weight.
_USUAL = (0.05, 0.2, 0.1, 0.05, 0.05, 0.03, 0.3, 1.0, 0.05, 0.02)
_WEIGHT = 0.19
_WIDTHS = (*[2.0] * 7, 0.3, 1.0, 0.3)
_WEIGHT_WIDTH = 0.7


def _likeliest(rows: Rows, z: Floats) -> Prior:
    """The hyperparameters of the greatest posterior density, by the exact process."""
    from scipy.optimize import minimize

    d = z.shape[1]
    short = rows.short.astype(np.float64)
    squares = np.moveaxis((z[:, None] - z[None]) ** 2, 2, 0).copy()
    same_recipe = (rows.recipe[:, None] == rows.recipe).astype(np.float64)
    same_family = (rows.family[:, None] == rows.family).astype(np.float64)
    linear, size = z @ z.T, z[:, :SIZE] @ z[:, :SIZE].T
    slopes = same_recipe * np.outer(z[:, 0], z[:, 0])
    both, either = np.outer(short, short), short[:, None] + short
    flat = WIDE**2 * (1 + both)
    target = logit(rows.top1)
    target = target - target.mean()
    usual = np.log([*_USUAL, *[_WEIGHT] * d])
    width = np.array([*_WIDTHS, *[_WEIGHT_WIDTH] * d])
    k = len(_USUAL)

    def cost(values: Floats) -> tuple[float, Floats]:
        squared = np.exp(2 * values)
        near = np.exp(-0.5 * np.tensordot(squared[k:], squares, 1))
        scale = np.exp(values[7] * either)
        shared = squared[0] * linear + squared[6] * size + squared[1] * near
        diagonal = squared[5] * (1 - short) + squared[9] * short
        covariance = flat + scale * shared + squared[2] * same_recipe + squared[3] * slopes
        covariance += squared[4] * same_family + squared[8] * both * near + np.diag(diagonal)
        try:
            root = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            return 1e6, np.zeros(len(values))
        inverse = np.linalg.inv(covariance)
        along = inverse @ target
        w = 0.5 * (inverse - np.outer(along, along))  # derivative of the cost by the covariance
        by_part = (
            (w * scale * linear).sum(),
            (w * scale * near).sum(),
            (w * same_recipe).sum(),
            (w * slopes).sum(),
            (w * same_family).sum(),
            (np.diag(w) * (1 - short)).sum(),
            (w * scale * size).sum(),
            0.0,
            (w * both * near).sum(),
            (np.diag(w) * short).sum(),
        )
        slope = np.empty(len(values))
        slope[:k] = 2 * squared[:k] * by_part
        slope[7] = (w * scale * shared * either).sum()
        moved = w * near * (scale * squared[1] + squared[8] * both)
        slope[k:] = -squared[k:] * np.tensordot(squares, moved, 2)
        off = (values - usual) / width
        likely = 0.5 * along @ target + np.log(np.diag(root)).sum() + 0.5 * (off**2).sum()
        return float(likely), slope + off / width

    best = minimize(cost, usual, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}).x
    values = rounded(np.exp(best), 4)
    names = Prior.__struct_fields__[:-1]
    return Prior(**dict(zip(names, values[:k], strict=True)), weights=values[k:])
