"""Fit the surrogate to the Accel-NASBench table and write the file that is shipped.

::

    phonenas fit-accuracy accel_nasbench.csv --out FILE
    python -m phonenas.search.accuracy.fit_surrogate accel_nasbench.csv [--out FILE]

The rows are shuffled with a fixed seed, for the table comes in generations. A fifth is held
out; the other four fifths teach. What is written is that model, not one refitted to all rows,
so that the score in the file is true of the file. The file names the held-out rows.

Source of the table: afzalxo/Accel-NASBench (Apache-2.0).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...data.files import write_atomic
from ...space import AccelNASBench, SearchSpace
from ...space.errors import InvalidArgument, NotEnoughData
from .results import network_of
from .surrogate import FEATURES, FORMAT, VERSION, Surrogate, extent, features, raw_sums, table_path

__all__ = ["fit", "fit_results", "main", "network_of", "score", "write"]

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.longdouble]
_REFINEMENTS = 6

TARGET = "val_top1"
HELD_OUT = 5  # one row in five
SEED = 0
RIDGE = 1.0  # on the standardised shape features; MACs are not held back
CENTRES = 400
LENGTH = 2.0  # times the root of the number of features
DETAIL_RIDGE = 0.01
_ROUNDS = 20
_MIN_ROWS = 1000


def score(predicted: npt.ArrayLike, published: npt.ArrayLike) -> dict[str, float]:
    """Kendall's tau-b, Spearman's rho and the root mean square error, in the inputs' unit."""
    from scipy import stats

    p, t = np.asarray(predicted, np.float64), np.asarray(published, np.float64)
    return {
        "kendall_tau": round(float(stats.kendalltau(p, t)[0]), 4),
        "spearman": round(float(stats.spearmanr(p, t)[0]), 4),
        "rmse": round(float(np.sqrt(np.mean((p - t) ** 2))), 4),
    }


def fit(table: Path) -> dict[str, Any]:
    """The content of the surrogate's file, fitted to four fifths of a table.

    Args:
        table: CSV with `id`, the decisions of `AccelNASBench`, and `val_top1` in percent.
    Raises:
        InvalidArgument: A column is missing.
        NotEnoughData: Fewer rows than the model can be fitted and scored on.
    """
    import pandas as pd

    space = AccelNASBench()
    frame = pd.read_csv(table)
    missing = [c for c in ("id", TARGET, *space.decisions) if c not in frame.columns]
    if missing:
        raise InvalidArgument(
            f"{table} has no column {', '.join(missing)}. It takes accel_nasbench.csv, whose "
            f"columns are the decisions of the space {space.name}."
        )
    if len(frame) < _MIN_ROWS:
        raise NotEnoughData(f"{table} has {len(frame)} rows; a fit takes {_MIN_ROWS} or more.")
    networks = [network_of(row, space) for row in frame.to_dict("records")]
    raw = raw_sums(networks)
    top1 = frame[TARGET].to_numpy(np.float64)

    order = np.random.default_rng(SEED).permutation(len(frame))
    held, taught = order[: len(order) // HELD_OUT], order[len(order) // HELD_OUT :]
    model = _model(raw[taught], top1[taught])
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "source": {
            "table": "afzalxo/Accel-NASBench",
            "licence": "Apache-2.0",
            "target": "ImageNet top-1, 16-epoch schedule, one seed, noise 0.27 points",
            "resolution_px": space.resolution_px,
            "rows": len(frame),
            "sha256": hashlib.sha256(table.read_bytes()).hexdigest(),
        },
        "score": {"rmse_points": 0.0},
        "features": list(FEATURES),
        "model": model,
        "held_out": sorted(int(i) for i in frame["id"].to_numpy()[held]),
    }
    predicted = 100 * Surrogate.of(content).estimate([networks[i] for i in held]).top1
    found = score(predicted, top1[held])
    macs = score([networks[i].macs for i in held], top1[held])
    content["score"] = {
        "n": len(held),
        "kendall_tau": found["kendall_tau"],
        "spearman": found["spearman"],
        "rmse_points": found["rmse"],
        "macs": {k: macs[k] for k in ("kendall_tau", "spearman")},
    }
    return content


def fit_results(
    table: Path,
    *,
    target: str | None = None,
    space: SearchSpace | None = None,
    column: str | None = None,
    unit: str | None = None,
) -> dict[str, Any]:
    """The content of a surrogate's file, fitted to any trained networks.

    The published table gives the file that is shipped, to the byte on any x86 processor; other results correct it
    (see `refit`).

    Args:
        table: .csv or .parquet, as `read_results` takes it; a run's promoted.json; or a cache of
            accuracies.
        target, space, column, unit: As `read_results`.
    Raises:
        InvalidArgument, UnsupportedFormat: As `read_results`.
        NotEnoughData: Fewer than 50 networks.
    """
    from .refit import refit
    from .results import read_any

    if target in (None, TARGET) and column is None and _is_published(table):
        return fit(table)
    return refit(read_any(table, target=target, space=space, column=column, unit=unit))


def _is_published(table: Path) -> bool:
    """Whether this is the very table that taught the shipped surrogate."""
    try:
        found = hashlib.sha256(table.read_bytes()).hexdigest()
    except OSError:
        return False  # who reads it says so
    return bool(found == Surrogate().about["source"]["sha256"])


def _model(raw: Floats, top1: Floats) -> dict[str, Any]:
    size, shape = features(raw)
    low, high = _rounded(shape.min(axis=0)), _rounded(shape.max(axis=0))
    mean = _rounded(shape.mean(axis=0))
    spread = shape.std(axis=0)
    scale = _rounded(np.where(spread > 1e-9, spread, 1.0))
    # Nine decimals: processors differ in the last digits of a logarithm, and the weights of the
    # detail would show it ten million times enlarged.
    size = np.round(size, 9)
    z = np.round((np.clip(shape, low, high) - mean) / scale, 9)

    design = np.column_stack([np.ones(len(z)), size, z]).astype(np.longdouble)
    penalty = np.diag([0.0, 0.0, *[RIDGE] * z.shape[1]])
    linear = _rounded(_solved(design.T @ design + penalty, design.T @ top1))
    if linear[1] <= 0:
        # Backwards, the model would pay a search for shrinking its networks.
        raise NotEnoughData(
            f"{len(raw)} networks do not show that top-1 rises with MACs at equal shape: their "
            "sizes are too alike, or the table is another one. Fit to the whole table."
        )

    # Means of like networks, not networks: smoother, and no row of the table is shipped.
    length = float(_rounded(np.array(LENGTH * np.sqrt(z.shape[1]))))
    centres = np.round(_means(z, CENTRES), 3)
    near = centres.astype(np.longdouble)
    to_rows, to_centres = _kernel(design[:, 2:], near, length), _kernel(near, near, length)
    normal = to_rows.T @ to_rows + DETAIL_RIDGE * (to_centres + 1e-8 * np.eye(len(centres)))
    detail = _solved(normal, to_rows.T @ (top1 - design @ linear))

    places = extent(raw)
    return {
        "intercept": float(linear[0]),
        "slope": float(linear[1]),
        "shape": {
            "low": low.tolist(),
            "high": high.tolist(),
            "mean": mean.tolist(),
            "scale": scale.tolist(),
            "weights": linear[2:].tolist(),
        },
        "detail": {
            "length": length,
            "weights": _rounded(detail).tolist(),
            "centres": centres.tolist(),
        },
        "range": [
            _rounded(np.nanmin(places, axis=0)).tolist(),
            _rounded(np.nanmax(places, axis=0)).tolist(),
        ],
    }


def _kernel(a: Any, b: Any, length: float) -> Any:
    """Likeness of each point of a to each of b, in the precision of theirs."""
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.exp(-squares / (2 * a.dtype.type(length) ** 2))


def _solved(matrix: Longs, right: Longs) -> Floats:
    """The solution to the last digit: LAPACK's, refined by what it leaves over, told exactly.

    Libraries of linear algebra round as each processor does best, and a matrix of this kind enlarges
    that a hundred billion times.
    """
    m, b = matrix.astype(np.float64), right.astype(np.float64)
    pieces: list[npt.NDArray[np.floating[Any]]] = []
    left = b
    for _ in range(_REFINEMENTS):
        pieces.append(np.linalg.solve(m, left))
        left = _left_over(m, pieces, b)
    return np.array([fsum(parts) for parts in zip(*pieces, strict=True)])


def _left_over(m: Floats, pieces: Sequence[npt.NDArray[Any]], b: Floats) -> Floats:
    """b - m · (sum of the pieces), rounded once: each product with its own error beside it.

    Source: Dekker, A floating-point technique for extending the available precision, 1971.
    """
    terms = [b[:, None]]
    high, low = _split(m)
    for x in pieces:
        x_high, x_low = _split(x)
        product = m * x
        error = ((high * x_high - product) + high * x_low + low * x_high) + low * x_low
        terms += [-product, -error]
    return np.array([fsum(row) for row in np.concatenate(terms, axis=1).tolist()])


def _split(values: Floats) -> tuple[Floats, Floats]:
    """Two halves of 26 digits that add up to each value."""
    wide = 134217729.0 * values
    high = wide - (wide - values)
    return high, values - high


def _means(points: Floats, count: int) -> Floats:
    """Centres of `count` clusters by Lloyd's rounds, from distinct random points."""
    centres = points[np.random.default_rng(SEED).permutation(len(points))[:count]]
    for _ in range(_ROUNDS):
        nearest = np.argmin((centres**2).sum(axis=1) - 2 * points @ centres.T, axis=1)
        members = np.bincount(nearest, minlength=count)
        totals = np.zeros_like(centres)
        np.add.at(totals, nearest, points)
        # A cluster that has lost all its points stays where it was.
        some = members > 0
        centres = np.where(some[:, None], totals / np.maximum(members, 1)[:, None], centres)
    return centres


def _rounded(values: npt.NDArray[np.floating[Any]]) -> Floats:
    """Eight significant digits, so that the file is short and equal on every run."""
    return np.array([float(f"{v:.8g}") for v in np.ravel(values)]).reshape(np.shape(values))


def write(content: Mapping[str, Any], path: Path) -> None:
    """Write a surrogate's file; it is there whole or as it was before."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    # One line per part, so that a diff shows which part changed.
    text = text.replace(',"', ',\n"') + "\n"
    write_atomic(path, text)


def main(words: Sequence[str] | None = None) -> int:
    """Read the words, fit, write, and print the scores."""
    parser = argparse.ArgumentParser(
        prog="python -m phonenas.search.accuracy.fit_surrogate", description=__doc__.split("\n")[0]
    )
    parser.add_argument("table", type=Path, help="accel_nasbench.csv")
    parser.add_argument("--out", type=Path, default=None, help="default: the package's own file")
    asked = parser.parse_args(words)
    content = fit(asked.table)
    path = asked.out or table_path()
    write(content, path)
    found = content["score"]
    print(f"held out: {found['n']} of {content['source']['rows']} networks, predicted top-1")
    print(
        f"  surrogate  Kendall tau {found['kendall_tau']:.4f}, Spearman {found['spearman']:.4f}, "
        f"RMSE {found['rmse_points']:.3f} points"
    )
    macs = found["macs"]
    print(f"  MACs       Kendall tau {macs['kendall_tau']:.4f}, Spearman {macs['spearman']:.4f}")
    print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
