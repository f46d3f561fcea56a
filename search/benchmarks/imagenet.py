"""Top-1 after full schedules, each family of published networks left out in turn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.latency_model.metrics import spearman
from phonenas.space import Architecture
from phonenas.space.errors import PhonenasError

from ..accuracy.imagenet.fit import CHOSEN_ON, REACH, Rows, left_out, rows_of
from ..accuracy.imagenet.imagenet import file_path, read
from ..accuracy.imagenet.published import RECIPES, PublishedTop1, read_published
from ..accuracy.surrogate.surrogate import Surrogate

__all__ = ["BASELINES", "benchmark"]

Floats = npt.NDArray[np.float64]
MIDDLE_MACS = (250e6, 700e6)
#: Name of each baseline, and what it is a line in; each recipe has its own height.
BASELINES = {
    "log macs": "logarithm of MACs",
    "log params": "logarithm of parameters",
    "16 epochs": "16-epoch surrogate's value, where that is no extrapolation",
}


def benchmark(tables: Sequence[Path], short: Path) -> dict[str, Any]:
    """Estimate every published network by a model whose fit lacks its family.

    Args:
        tables: As `read_published` takes them.
        short: The Accel-NASBench table.
    Returns:
        `networks`: a row each; `families` by name; `scores` of the model and of the baselines, over
        all, over the families by which the method was chosen, and over the others.
    Raises:
        InvalidArgument: A table of another kind.
    """
    published = read_published(tables)
    rows = rows_of(published, short)
    top1, error = left_out(rows, read(file_path())[0])
    full = np.flatnonzero(~rows.short)
    rows, top1, error = rows.take(full), top1[full], error[full]
    others = {
        "log macs": _line(rows, np.log(rows.macs)),
        "log params": _line(rows, rows.features[:, 1]),
        "16 epochs": _line(rows, _after_16_epochs(published)),
    }
    chosen = np.isin(rows.family, sorted(CHOSEN_ON))
    parts = {"all": np.ones(len(chosen), bool), "chosen on": chosen, "shown on": ~chosen}
    scores = [
        {"estimator": "imagenet", "families": part, **_score(rows, top1, error, at)}
        for part, at in parts.items()
    ]
    scores += [
        {"estimator": name, "families": "all", **_score(rows, estimates, None, parts["all"])}
        for name, estimates in others.items()
    ]
    families = [
        {"family": family, **_score(rows, top1, error, rows.family == family)}
        for family in sorted({*rows.family.tolist()})
    ]
    networks = [
        {
            "network": rows.names[i],
            "family": str(rows.family[i]),
            "recipe": list(RECIPES)[rows.recipe[i]],
            "macs": int(rows.macs[i]),
            "published": float(rows.top1[i]),
            "estimated": float(top1[i]),
            "standard_error": float(error[i]),
        }
        for i in range(len(full))
    ]
    return {"scores": scores, "families": families, "networks": networks}


def _line(rows: Rows, x: Floats) -> Floats:
    """A line in x with a height for each recipe, fitted without the network's family, (n,)."""
    recipes = (rows.recipe[:, None] == np.arange(len(RECIPES))).astype(np.float64)
    columns = np.column_stack([x, recipes])
    estimates, known = np.full(len(x), np.nan), ~np.isnan(x)
    for family in {*rows.family.tolist()}:
        own = rows.family == family
        fitted = known & ~own
        if not fitted.any():
            continue
        # A recipe that no other family has takes the mean height, by the ridge.
        ridge = np.diag([0.0, *[1e-3] * len(RECIPES)])
        middle = rows.top1[fitted].mean()
        weights = np.linalg.solve(
            columns[fitted].T @ columns[fitted] + ridge,
            columns[fitted].T @ (rows.top1[fitted] - middle),
        )
        estimates[own] = middle + columns[own] @ weights
    estimates[~known] = np.nan
    return estimates


def _after_16_epochs(published: Sequence[PublishedTop1]) -> Floats:
    """Top-1 in % by the 16-epoch surrogate; NaN where it extrapolates or refuses."""
    surrogate, found = Surrogate(), np.full(len(published), np.nan)
    for i, row in enumerate(published):
        if isinstance(row.network, Architecture):
            try:
                answer = surrogate.estimate([row.network])
            except PhonenasError:
                continue
            if not answer.outside[0]:
                found[i] = 100 * answer.top1[0]
    return found


def _score(
    rows: Rows, top1: Floats, error: Floats | None, at: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """Mean error in points, bias, share inside the 90 % interval; order at 250 to 700 M MACs."""
    at = at & ~np.isnan(top1)
    off = top1 - rows.top1
    least, most = MIDDLE_MACS
    middle = at & (rows.macs >= least) & (rows.macs <= most)
    order = spearman(top1[middle], rows.top1[middle]) if middle.sum() > 2 else float("nan")
    inside = None if error is None else float((np.abs(off[at]) <= REACH * error[at]).mean())
    return {
        "n": int(at.sum()),
        "mean_error_points": float(np.abs(off[at]).mean()),
        "bias_points": float(off[at].mean()),
        "coverage90": inside,
        "middle_n": int(middle.sum()),
        "middle_mean_error_points": float(np.abs(off[middle]).mean()) if middle.any() else None,
        "middle_spearman": None if np.isnan(order) else order,
    }
