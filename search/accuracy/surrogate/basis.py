"""What both fits of the surrogate share: kernel, centres, rounding, scores and the file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.data.files import write_atomic

__all__ = ["CENTRES", "SEED", "Floats", "centres_of", "kernel", "rounded", "score", "write"]

Floats = npt.NDArray[np.float64]
SEED = 0
CENTRES = 400
_ROUNDS = 20
_DIGITS = 8


def kernel(a: Floats, b: Floats, length: float) -> Floats:
    """Squared-exponential kernel of each row of a (n, d) and each row of b (m, d), (n, m)."""
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.asarray(np.exp(-squares / (2 * length**2)), np.float64)


def centres_of(points: Floats) -> Floats:
    """Means of at most 400 clusters of points (n, d), to three decimals.

    Means of several networks are smoother than networks, and no row of a table is shipped.
    """
    from scipy.cluster.vq import kmeans2

    if len(points) > CENTRES:
        chosen = np.random.default_rng(SEED).permutation(len(points))[:CENTRES]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a cluster without points stays
            points, _ = kmeans2(points, points[chosen], iter=_ROUNDS, minit="matrix")
    return np.round(points, 3)


def rounded(values: npt.ArrayLike, digits: int = _DIGITS) -> Any:
    """To so many significant digits, so that the file is short, as plain lists or a number."""
    array = np.asarray(values, np.float64)
    plain = np.array([float(f"{v:.{digits}g}") for v in array.ravel()]).reshape(array.shape)
    return plain.tolist()


def score(predicted: npt.ArrayLike, published: npt.ArrayLike) -> dict[str, float]:
    """Kendall's tau-b, Spearman's rho and the root mean square error of two arrays, (n,) each."""
    from scipy import stats

    p, t = np.asarray(predicted, np.float64), np.asarray(published, np.float64)
    return {
        "kendall_tau": round(float(stats.kendalltau(p, t)[0]), 4),
        "spearman": round(float(stats.spearmanr(p, t)[0]), 4),
        "rmse": round(float(np.sqrt(np.mean((p - t) ** 2))), 4),
    }


def write(content: Mapping[str, Any], path: Path) -> None:
    """Write a surrogate's file; it is there whole or as it was before."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    # One line per part, so that a diff shows which part changed.
    write_atomic(path, text.replace(',"', ',\n"') + "\n")
