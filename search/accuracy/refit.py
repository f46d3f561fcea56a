"""Refit: the surrogate brought to a user's own networks, with few or many of them.

What was trained elsewhere (another data set, schedule, resolution or space) has another scale, and
other tastes. The shipped surrogate is the starting point, and the user's networks teach what is
different::

    top-1 = a + b · shipped + linear in size and shape + a smooth function of shape

a and b are free; the rest is a Gaussian process, as weights of normal prior: how much of it there
is, how smooth, and how noisy a training is, are those under which the results are most likely
(restricted maximum likelihood, over a grid). With few results little of it is left, and the shipped
surrogate's order stands; with many it learns what they show.

The score is honest: a fifth at a time is held out, and all that is chosen is chosen by the others.

Source: Patterson and Thompson, Biometrika 58, 1971 (restricted likelihood); Rasmussen and Williams,
Gaussian Processes for Machine Learning, 2006, sections 2.7 (a mean of unknown weights) and 8.3.1
(smooth functions by their values at centres).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...space import Architecture
from ...space.errors import NotEnoughData
from .fit_surrogate import SEED, _kernel, _means, _rounded, score
from .results import Results
from .surrogate import CORRECTED, FEATURES, FORMAT, Surrogate, extent, features, raw_sums

__all__ = ["LEAST", "refit"]

Floats = npt.NDArray[np.float64]
LEAST = 50  # networks
_FOLDS = 5
_CENTRES = 400
_LENGTHS = (1.0, 2.0)  # times the root of the number of features
_DETAILS = (0.0, 0.3, 1.0, 3.0, 10.0)  # variance of the smooth part, of the linear one's
_HELD_BACK = np.logspace(-4, 4, 25)  # variance of the noise, of the prior's


def refit(found: Results) -> dict[str, Any]:
    """The content of a surrogate's file, fitted to trained networks.

    Args:
        found: As `read_results` gives them; those that failed teach nothing, and equal networks
            are averaged.
    Raises:
        NotEnoughData: Fewer than 50 distinct networks, or all equally accurate.
    """
    networks, points = _averaged(found)
    if len(networks) < LEAST:
        raise NotEnoughData(
            f"{found.source} has {len(networks)} networks with an accuracy; a fit takes {LEAST} or more. "
            "Fewer would change the shipped surrogate's order by their noise."
        )
    if np.ptp(points) == 0:
        raise NotEnoughData(
            f"all networks of {found.source} are equally accurate: nothing to learn"
        )
    shipped = Surrogate()
    raw = raw_sums(networks)
    base = 100 * shipped.estimate(networks).top1
    predicted = np.empty(len(points))
    fold_of = np.random.default_rng(SEED).permutation(len(points)) % _FOLDS
    for fold in range(_FOLDS):
        taught, held = fold_of != fold, fold_of == fold
        model, weight = _fitted(raw[taught], base[taught], points[taught])
        predicted[held] = _points(model, weight, raw[held], base[held])
    model, weight = _fitted(raw, base, points)
    own = score(predicted, points)
    layers = np.maximum(raw[:, -4:], 0).max(axis=0)
    return {
        "format": FORMAT,
        "version": CORRECTED,
        "source": {
            "table": found.source.name,
            "target": found.target,
            "rows": len(found),
            "networks": len(networks),
            "sha256": found.sha256,
            "resolution_px": sorted({a.resolution_px for a in networks}),
            "classes": sorted({a.classes for a in networks}),
        },
        "score": {
            "n": len(networks),
            "how": f"{_FOLDS} folds: each network predicted by a model that it did not teach",
            "kendall_tau": own["kendall_tau"],
            "spearman": own["spearman"],
            "rmse_points": own["rmse"],
            "shipped": _ranks(base, points),
            "macs": _ranks(np.array([a.macs for a in networks], np.float64), points),
        },
        "features": list(FEATURES),
        "base": {"digest": shipped.digest, "weight": weight},
        "seen": {
            "refused": bool(layers[1]), "regular": bool(layers[2]), "unseen": bool(layers[3]),
        },
        "model": model,
    }  # fmt: skip


def _ranks(told: Floats, points: Floats) -> dict[str, float]:
    found = score(told, points)
    return {name: found[name] for name in ("kendall_tau", "spearman")}


def _averaged(found: Results) -> tuple[list[Architecture], Floats]:
    """Distinct networks in their order, and their top-1 in points."""
    first: dict[Any, Architecture] = {}
    told: dict[Any, list[float]] = {}
    for network, top1, failed in zip(found.networks, found.top1, found.failed, strict=True):
        if not failed:
            layers = network.operators()
            first.setdefault(layers, network)
            told.setdefault(layers, []).append(100 * float(top1))
    return list(first.values()), np.array([np.mean(told[k]) for k in first], np.float64)


def _fitted(raw: Floats, base: Floats, points: Floats) -> tuple[dict[str, Any], float]:
    """A model as the file has it, and the shipped surrogate's weight."""
    size, shape = features(raw)
    low, high = _rounded(shape.min(axis=0)), _rounded(shape.max(axis=0))
    mean, spread = _rounded(shape.mean(axis=0)), shape.std(axis=0)
    scale = _rounded(np.where(spread > 1e-6, spread, 1.0))
    z = (np.clip(shape, low, high) - mean) / scale
    size_mean, size_scale = float(size.mean()), float(max(size.std(), 1e-6))
    linear = np.column_stack([(size - size_mean) / size_scale, z]) / np.sqrt(1 + z.shape[1])
    centres = np.round(z if len(z) <= _CENTRES else _means(z, _CENTRES), 3)
    centres = np.unique(centres, axis=0)

    fixed = np.column_stack([np.ones(len(z)), base])
    found = _chosen(fixed, linear, z, centres, points)
    if found[-1][1] <= 0:
        # The shipped order upside down is no starting point.
        found = _chosen(fixed[:, :1], linear, z, centres, points)
    reach, detail, back, weights, settled = found
    of_linear = weights[: linear.shape[1]] / np.sqrt(1 + z.shape[1])
    kernel = back @ (np.sqrt(detail) * weights[linear.shape[1] :]) if detail else np.zeros(1)
    slope = float(of_linear[0] / size_scale)
    places = extent(raw)
    with np.errstate(all="ignore"):
        ends = [
            np.nanmin(_filled(places, np.inf), axis=0),
            np.nanmax(_filled(places, -np.inf), axis=0),
        ]
    model = {
        "intercept": _plain(settled[0] - slope * size_mean),
        "slope": _plain(slope),
        "shape": {
            "low": low.tolist(),
            "high": high.tolist(),
            "mean": mean.tolist(),
            "scale": scale.tolist(),
            "weights": _rounded(of_linear[1:]).tolist(),
        },
        "detail": {
            "length": reach,
            "weights": _rounded(kernel).tolist(),
            "centres": (centres if detail else np.zeros((1, z.shape[1]))).tolist(),
        },
        "range": [[_plain(v) if np.isfinite(v) else None for v in end] for end in ends],
    }
    return model, _plain(settled[1]) if len(settled) > 1 else 0.0


def _chosen(
    fixed: Floats, linear: Floats, z: Floats, centres: Floats, points: Floats
) -> tuple[float, float, Floats, Floats, Floats]:
    """Length and variance of the smooth part as they are likeliest, and the weights with them."""
    best: tuple[float, Any] = (np.inf, None)
    for length in _LENGTHS:
        reach = float(_rounded(np.array(length * np.sqrt(z.shape[1]))))
        smooth, back = _smooth(z, centres, reach)
        for detail in _DETAILS:
            if detail == 0 and length != _LENGTHS[0]:
                continue
            columns = linear if not detail else np.column_stack([linear, np.sqrt(detail) * smooth])
            likely, weights, settled = _likeliest(fixed, columns, points)
            if likely < best[0]:
                best = (likely, (reach, detail, back, weights, settled))
    found: tuple[float, float, Floats, Floats, Floats] = best[1]
    return found


def _filled(places: Floats, value: float) -> Floats:
    return np.where(np.isnan(places), value, places)


def _plain(value: float) -> float:
    return float(f"{float(value):.8g}")


def _smooth(z: Floats, centres: Floats, length: float) -> tuple[Floats, Floats]:
    """Columns whose weights have a unit prior, and what brings these to the centres' weights."""
    values, vectors = np.linalg.eigh(_kernel(centres, centres, length))
    kept = values > 1e-8 * values[-1]
    back = vectors[:, kept] / np.sqrt(values[kept])
    return _kernel(z, centres, length) @ back, back


def _likeliest(fixed: Floats, columns: Floats, points: Floats) -> tuple[float, Floats, Floats]:
    """-2 log of the restricted likelihood at its best, the weights, and those of `fixed`."""
    q, _ = np.linalg.qr(fixed)
    left, rest = columns - q @ (q.T @ columns), points - q @ (q.T @ points)
    u, d, vt = np.linalg.svd(left, full_matrices=False)
    along = u.T @ rest
    freedom = len(points) - fixed.shape[1]
    off = max(float(rest @ rest - along @ along), 0.0)
    best = (np.inf, 0.0)
    for held_back in _HELD_BACK:
        shrunk = 1 + d**2 / held_back
        noise = (off + float((along**2 / shrunk).sum())) / freedom
        likely = freedom * np.log(max(noise, 1e-12)) + float(np.log(shrunk).sum())
        best = min(best, (likely, float(held_back)))
    weights = vt.T @ (d / (d**2 + best[1]) * along)
    settled = np.asarray(
        np.linalg.lstsq(fixed, points - columns @ weights, rcond=None)[0], np.float64
    )
    return best[0], weights, settled


def _points(model: dict[str, Any], weight: float, raw: Floats, base: Floats) -> Floats:
    """Top-1 in points, as the file's reader computes it."""
    size, shape = features(raw)
    of, detail = model["shape"], model["detail"]
    z = (np.clip(shape, of["low"], of["high"]) - of["mean"]) / of["scale"]
    smooth = _kernel(z, np.array(detail["centres"]), detail["length"]) @ np.array(detail["weights"])
    found: Floats = (
        model["intercept"]
        + model["slope"] * size
        + z @ np.array(of["weights"])
        + smooth
        + weight * base
    )
    return found
