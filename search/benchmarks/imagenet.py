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

__all__ = ["BASELINES", "benchmark", "figures_noise"]

Floats = npt.NDArray[np.float64]
MIDDLE_MACS = (250e6, 700e6)
_DRAWS = 2000
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
        all, over the families by which the method was chosen, and over the others; `noise` of the
        published figures, and `middle_interval`, 90 %, of the model's rank correlation.
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
    noise = figures_noise(rows.names, rows.recipe, rows.top1)
    middle = rows.top1[_middle(rows)]
    return {
        "scores": scores,
        "families": families,
        "networks": networks,
        "noise": {**noise, **_of_exact(middle, noise["points"])},
        "middle_interval": _interval(top1[_middle(rows)], middle),
    }


def figures_noise(
    names: Sequence[str], recipe: npt.NDArray[np.intp], top1: Floats
) -> dict[str, Any]:
    """How far figures lie from what their network and their recipe say, each added.

    Two trainings by what counts as one recipe differ in code, augmentation and seed; no estimate
    from a network and a recipe can know that.

    Args:
        names, recipe, top1: Of n figures, (n,) each; top-1 in %.
    Returns:
        `figures` and `networks` with two figures or more, and `points`, the standard deviation.
    """
    _, at, count = np.unique(np.array(names), return_inverse=True, return_counts=True)
    several = count[at] > 1
    columns = np.column_stack(
        [at[:, None] == np.flatnonzero(count > 1), recipe[:, None] == np.unique(recipe[several])]
    )[several].astype(np.float64)
    weights, _, rank, _ = np.linalg.lstsq(columns, top1[several])
    rest = np.square(top1[several] - columns @ weights).sum()
    return {
        "figures": int(several.sum()),
        "networks": int((count > 1).sum()),
        "points": float(np.sqrt(rest / max(int(several.sum()) - int(rank), 1))),
    }


def _middle(rows: Rows) -> npt.NDArray[np.bool_]:
    least, most = MIDDLE_MACS
    return np.asarray((rows.macs >= least) & (rows.macs <= most), np.bool_)


def _of_exact(published: Floats, noise: float) -> dict[str, float]:
    """Rank correlation of figures with the top-1 behind them: the mean and both ends of 90 %."""
    rng, middle = np.random.default_rng(0), published.mean()
    # The spread of figures is that of the networks and the noise together.
    share = np.sqrt(max(1 - noise**2 / max(float(published.var()), 1e-12), 0.0))
    exact = middle + share * (published - middle)
    drawn = exact + noise * rng.standard_normal((_DRAWS, len(exact)))
    orders = [spearman(exact, figures) for figures in drawn]
    low, high = np.quantile(orders, [0.05, 0.95])
    return {"spearman": float(np.mean(orders)), "low": float(low), "high": float(high)}


def _interval(estimated: Floats, published: Floats) -> list[float]:
    """Both ends of the 90 % interval of the rank correlation, by drawing networks again."""
    drawn = np.random.default_rng(0).integers(len(published), size=(_DRAWS, len(published)))
    orders = [spearman(estimated[rows], published[rows]) for rows in drawn]
    return [float(q) for q in np.quantile(orders, [0.05, 0.95])]


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
    middle = at & _middle(rows)
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
