"""Fit the surrogate to trained networks: to the Accel-NASBench table, or to a user's own results.

::

    phonenas fit-accuracy accel_nasbench.csv --out FILE

gives the file that is shipped; its predictions agree with the shipped file's within 1e-6. The rows
are shuffled with a fixed seed, for the table comes in generations. A fifth is held out, and the
model is fitted on the other four fifths. That model is written, not one refitted to all rows, so
that the score in the file is true of the file. The file names the held-out rows.

Source of the table: afzalxo/Accel-NASBench (Apache-2.0).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from phonenas.space import AccelNASBench, SearchSpace
from phonenas.space.errors import InvalidArgument, NotEnoughData

from ..results import network_of, read_any
from .basis import SEED, Floats, centres_of, kernel, rounded, score, write
from .refit import refit
from .surrogate import FEATURES, FORMAT, VERSION, Surrogate, extent, features, raw_sums

__all__ = ["fit", "fit_results", "network_of", "score", "write"]

TARGET = "val_top1"
HELD_OUT = 5  # one row in five
RIDGE = 1.0  # on the standardised shape features; MACs are not held back
LENGTH = 2.0  # times the root of the number of features
DETAIL_RIDGE = 0.01
_MIN_ROWS = 1000
_WEIGHT_DIGITS = 12  # the weights of the detail cancel each other to a large part


def fit(table: Path) -> dict[str, Any]:
    """The content of the surrogate's file, fitted on four fifths of a table.

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
    raw, top1 = raw_sums(networks), frame[TARGET].to_numpy(np.float64)
    order = np.random.default_rng(SEED).permutation(len(frame))
    held, rest = order[: len(order) // HELD_OUT], order[len(order) // HELD_OUT :]
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
        "model": _model(raw[rest], top1[rest]),
        "held_out": sorted(int(i) for i in frame["id"].to_numpy()[held]),
    }
    predicted = 100 * Surrogate.of(content).estimate([networks[i] for i in held]).top1
    own = score(predicted, top1[held])
    macs = score([networks[i].macs for i in held], top1[held])
    content["score"] = {
        "n": len(held),
        "kendall_tau": own["kendall_tau"],
        "spearman": own["spearman"],
        "rmse_points": own["rmse"],
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
    """The content of a surrogate's file, fitted on any trained networks.

    The published table gives the file that is shipped; other results correct it (see `refit`).

    Args:
        table: .csv or .parquet, as `read_results` takes it; a run's promoted.json; or a cache of
            accuracies.
        target, space, column, unit: As `read_results`.
    Raises:
        InvalidArgument, UnsupportedFormat: As `read_results`.
        NotEnoughData: Fewer than 50 networks.
    """
    if target in (None, TARGET) and column is None and _is_published(table):
        return fit(table)
    return refit(read_any(table, target=target, space=space, column=column, unit=unit))


def _is_published(table: Path) -> bool:
    """Whether this is the very table on which the shipped surrogate was fitted."""
    try:
        digest = hashlib.sha256(table.read_bytes()).hexdigest()
    except OSError:
        return False  # its reader says why
    return bool(digest == Surrogate().about["source"]["sha256"])


def _model(raw: Floats, top1: Floats) -> dict[str, Any]:
    """The model as the file has it, from raw sums (n, 60) and top-1 in points (n,)."""
    size, shape = features(raw)
    low, high, mean = (rounded(f(shape, axis=0)) for f in (np.min, np.max, np.mean))
    deviation = shape.std(axis=0)
    scale = rounded(np.where(deviation > 1e-9, deviation, 1.0))
    z = (np.clip(shape, low, high) - mean) / scale

    design = np.column_stack([np.ones(len(z)), size, z])
    penalty = np.diag(np.sqrt(np.array([0.0, 0.0, *[RIDGE] * z.shape[1]], np.float64)))
    linear = rounded(_ridge(design, top1, penalty))
    if linear[1] <= 0:
        # Backwards, the model would pay a search for shrinking its networks.
        raise NotEnoughData(
            f"{len(raw)} networks do not show that top-1 rises with MACs at equal shape: their "
            "sizes are too alike, or the table is another one. Fit to the whole table."
        )
    length = rounded(LENGTH * np.sqrt(z.shape[1]))
    centres = centres_of(z)
    among = kernel(centres, centres, length) + 1e-8 * np.eye(len(centres))
    root = np.asarray(np.linalg.cholesky(DETAIL_RIDGE * among).T, np.float64)
    detail = _ridge(kernel(z, centres, length), top1 - design @ linear, root)
    places = extent(raw)
    return {
        "intercept": linear[0],
        "slope": linear[1],
        "shape": {"low": low, "high": high, "mean": mean, "scale": scale, "weights": linear[2:]},
        "detail": {
            "length": length,
            "weights": rounded(detail, _WEIGHT_DIGITS),
            "centres": centres.tolist(),
        },
        "range": [rounded(np.nanmin(places, axis=0)), rounded(np.nanmax(places, axis=0))],
    }


def _ridge(columns: Floats, values: Floats, penalty: Floats) -> Floats:
    """Weights w, (k,), that minimise |columns @ w - values|² + |penalty @ w|².

    Solved as one least-squares problem: the normal equations would square the condition number.
    """
    below = np.concatenate([values, np.zeros(len(penalty))])
    return np.asarray(
        np.linalg.lstsq(np.concatenate([columns, penalty]), below, rcond=None)[0], np.float64
    )
