"""Refit: the shipped surrogate corrected by a user's own trained networks, few or many.

Networks trained elsewhere (another data set, schedule, resolution or space) have another scale and
another order. The correction is fitted on them::

    top-1 = a + b · shipped + linear in size and shape + a smooth function of shape

a and b are free; the rest is a Gaussian process, as weights with a normal prior. Its variance, its
length and the noise of a training maximise the restricted likelihood of the results, over a grid.
With few results the correction is small and the shipped surrogate's order stays.

The score is by cross-validation: each fifth is predicted by a model fitted and tuned on the others.

Source: Patterson and Thompson, Biometrika 58, 1971 (restricted likelihood); Rasmussen and Williams,
Gaussian Processes for Machine Learning, 2006, sections 2.7 (a mean of unknown weights) and 8.3.1
(smooth functions by their values at centres).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from phonenas.space import Architecture
from phonenas.space.errors import NotEnoughData

from ..results import Results
from .basis import SEED, Floats, centres_of, kernel, rounded, score
from .surrogate import CORRECTED, FEATURES, FORMAT, Surrogate, extent, features, raw_sums

__all__ = ["LEAST", "refit"]

LEAST = 50  # networks
_FOLDS = 5
_LENGTHS = (1.0, 2.0)  # times the root of the number of features
_DETAILS = (0.0, 0.3, 1.0, 3.0, 10.0)  # variance of the smooth part, of the linear one's
_NOISES = np.logspace(-4, 4, 25)  # variance of the noise, of the prior's


def refit(results: Results) -> dict[str, Any]:
    """The content of a surrogate's file, fitted to trained networks.

    Args:
        results: As `read_results` gives them; failed ones are left out, and equal networks are
            averaged.
    Raises:
        NotEnoughData: Fewer than 50 distinct networks, or all equally accurate.
    """
    networks, points = _averaged(results)
    left_out = results.left_out
    beside = f", beside {left_out:,} of inherited weights, which do not count" if left_out else ""
    if len(networks) < LEAST:
        raise NotEnoughData(
            f"{results.source} has {len(networks)} networks with an accuracy{beside}; a fit takes "
            f"{LEAST} or more. Fewer would change the shipped surrogate's order by their noise."
        )
    if np.ptp(points) == 0:
        raise NotEnoughData(
            f"all networks of {results.source} are equally accurate: nothing to learn"
        )
    shipped = Surrogate()
    raw = raw_sums(networks)
    base = 100 * shipped.extrapolated(networks).top1
    predicted = np.empty(len(points))
    fold_of = np.random.default_rng(SEED).permutation(len(points)) % _FOLDS
    for fold in range(_FOLDS):
        rest, held = fold_of != fold, fold_of == fold
        model, weight = _fitted(raw[rest], base[rest], points[rest])
        predicted[held] = _points(model, weight, raw[held], base[held])
    model, weight = _fitted(raw, base, points)
    own = score(predicted, points)
    layers = np.maximum(raw[:, -4:], 0).max(axis=0)
    return {
        "format": FORMAT,
        "version": CORRECTED,
        "source": {
            "table": results.source.name,
            "target": results.target,
            "rows": len(results),
            **({"left_out": results.left_out} if results.left_out else {}),
            "networks": len(networks),
            "sha256": results.sha256,
            "resolution_px": sorted({a.resolution_px for a in networks}),
            "classes": sorted({a.classes for a in networks}),
        },
        "score": {
            "n": len(networks),
            "how": f"{_FOLDS} folds: each network predicted by a model that was not fitted on it",
            "kendall_tau": own["kendall_tau"],
            "spearman": own["spearman"],
            "rmse_points": own["rmse"],
            "shipped": _ranks(base, points),
            "macs": _ranks(np.array([a.macs for a in networks], np.float64), points),
        },
        "features": list(FEATURES),
        "base": {"digest": shipped.digest, "weight": weight},
        "seen": {"refused": bool(layers[1]), "regular": bool(layers[2]), "unseen": bool(layers[3])},
        "model": model,
    }


def _ranks(predicted: Floats, points: Floats) -> dict[str, float]:
    scores = score(predicted, points)
    return {name: scores[name] for name in ("kendall_tau", "spearman")}


def _averaged(results: Results) -> tuple[list[Architecture], Floats]:
    """Distinct networks in their order, and their top-1 in points."""
    first: dict[Any, Architecture] = {}
    points: dict[Any, list[float]] = {}
    for network, top1, failed in zip(results.networks, results.top1, results.failed, strict=True):
        if not failed:
            layers = network.operators()
            first.setdefault(layers, network)
            points.setdefault(layers, []).append(100 * float(top1))
    return list(first.values()), np.array([np.mean(points[k]) for k in first], np.float64)


@dataclass(frozen=True)
class _Prior:
    """The correction under one prior, and how likely the results are under it.

    Attributes:
        cost: -2 log of the restricted likelihood.
        length, detail: Length of the smooth part, and its variance beside the linear one's 1.
        back: Columns that turn the smooth part's weights into those of the centres.
        weights: Of the linear columns and the smooth ones.
        fixed: a and b; a alone where b is left out.
    """

    cost: float
    length: float
    detail: float
    back: Floats
    weights: Floats
    fixed: Floats


def _fitted(raw: Floats, base: Floats, points: Floats) -> tuple[dict[str, Any], float]:
    """A model as the file has it, and the shipped surrogate's weight.

    Args:
        raw: Raw sums, (n, 60).
        base: What the shipped surrogate predicts, (n,), in points.
        points: Top-1 as it was trained, (n,), in points.
    """
    size, shape = features(raw)
    low, high, mean = (rounded(f(shape, axis=0)) for f in (np.min, np.max, np.mean))
    deviation = shape.std(axis=0)
    scale = rounded(np.where(deviation > 1e-6, deviation, 1.0))
    z = (np.clip(shape, low, high) - mean) / scale
    size_mean, size_scale = float(size.mean()), float(max(size.std(), 1e-6))
    linear = np.column_stack([(size - size_mean) / size_scale, z]) / np.sqrt(1 + z.shape[1])
    centres = np.unique(centres_of(z), axis=0)
    fixed = np.column_stack([np.ones(len(z)), base])
    best = _likeliest(fixed, linear, z, centres, points)
    if best.fixed[1] <= 0:
        # The shipped order upside down is not a starting point.
        best = _likeliest(fixed[:, :1], linear, z, centres, points)
    count = linear.shape[1]
    of_linear = best.weights[:count] / np.sqrt(count)
    smooth = best.back @ (np.sqrt(best.detail) * best.weights[count:]) if best.detail else [0.0]
    slope = float(of_linear[0] / size_scale)
    places = extent(raw)
    ends = [
        np.where(np.isnan(places), np.inf, places).min(axis=0),
        np.where(np.isnan(places), -np.inf, places).max(axis=0),
    ]
    model = {
        "intercept": rounded(best.fixed[0] - slope * size_mean),
        "slope": rounded(slope),
        "shape": {
            "low": low,
            "high": high,
            "mean": mean,
            "scale": scale,
            "weights": rounded(of_linear[1:]),
        },
        "detail": {
            "length": best.length,
            "weights": rounded(smooth),
            "centres": (centres if best.detail else np.zeros((1, z.shape[1]))).tolist(),
        },
        "range": [[rounded(v) if np.isfinite(v) else None for v in end] for end in ends],
    }
    return model, rounded(best.fixed[1]) if len(best.fixed) > 1 else 0.0


def _likeliest(fixed: Floats, linear: Floats, z: Floats, centres: Floats, points: Floats) -> _Prior:
    """The likeliest prior of the grid."""
    priors = []
    for length in _LENGTHS:
        reach = rounded(length * np.sqrt(z.shape[1]))
        smooth, back = _smooth(z, centres, reach)
        for detail in _DETAILS:
            if detail == 0 and length != _LENGTHS[0]:
                continue
            columns = linear if not detail else np.column_stack([linear, np.sqrt(detail) * smooth])
            cost, weights, of_fixed = _weighed(fixed, columns, points)
            priors.append(_Prior(cost, reach, detail, back, weights, of_fixed))
    return min(priors, key=lambda prior: prior.cost)


def _smooth(z: Floats, centres: Floats, length: float) -> tuple[Floats, Floats]:
    """Columns whose weights have a unit prior, and what brings these to the centres' weights."""
    values, vectors = np.linalg.eigh(kernel(centres, centres, length))
    kept = values > 1e-8 * values[-1]
    back = vectors[:, kept] / np.sqrt(values[kept])
    return kernel(z, centres, length) @ back, back


def _weighed(fixed: Floats, columns: Floats, points: Floats) -> tuple[float, Floats, Floats]:
    """-2 log of the restricted likelihood at its best, the weights, and those of `fixed`."""
    q, _ = np.linalg.qr(fixed)
    left, rest = columns - q @ (q.T @ columns), points - q @ (q.T @ points)
    u, d, vt = np.linalg.svd(left, full_matrices=False)
    along = u.T @ rest
    freedom = len(points) - fixed.shape[1]
    off = max(float(rest @ rest - along @ along), 0.0)
    best = (np.inf, 0.0)
    for noise_ratio in _NOISES:
        shrunk = 1 + d**2 / noise_ratio
        noise = (off + float((along**2 / shrunk).sum())) / freedom
        likely = freedom * np.log(max(noise, 1e-12)) + float(np.log(shrunk).sum())
        best = min(best, (likely, float(noise_ratio)))
    weights = vt.T @ (d / (d**2 + best[1]) * along)
    of_fixed = np.asarray(
        np.linalg.lstsq(fixed, points - columns @ weights, rcond=None)[0], np.float64
    )
    return best[0], weights, of_fixed


def _points(model: dict[str, Any], weight: float, raw: Floats, base: Floats) -> Floats:
    """Top-1 in points, as the file's reader computes it."""
    size, shape = features(raw)
    of, detail = model["shape"], model["detail"]
    z = (np.clip(shape, of["low"], of["high"]) - of["mean"]) / of["scale"]
    smooth = kernel(z, np.array(detail["centres"]), detail["length"]) @ np.array(detail["weights"])
    return np.asarray(
        model["intercept"]
        + model["slope"] * size
        + z @ np.array(of["weights"])
        + smooth
        + weight * base
    )
