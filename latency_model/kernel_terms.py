"""How the kernels of a network add up: terms, their coefficients, and the fit of these.

Each kernel has a share of its network's time: what it takes alone beyond the fixed cost of a run,
by sort, less what a network saves, which is never all of it. The coefficients come from networks
measured whole, each within bounds that its meaning sets, by least squares of the relative error
with what is expected of each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .graphs.onnx_cut import OnnxNetwork

__all__ = ["TERMS", "kernel_terms", "shares_ms", "slopes_of", "solved"]

Floats = npt.NDArray[np.float64]

# Coefficients, each with what is expected of it, the deviation of that, and its bounds. Alone, a
# kernel pays for a run of the runtime, which a network pays once: its work is what it takes beyond.
TERMS: dict[str, tuple[float, float, float, float]] = {
    "run": (1.0, 0.2, 0.0, 5.0),  # in the fixed cost of a run that the kernels show
    "conv": (1.0, 0.2, 0.3, 3.0),  # of the work of convolutions,
    "depthwise": (1.0, 0.3, 0.3, 3.0),  # of depthwise ones,
    "other": (1.0, 0.3, 0.3, 3.0),  # of all else,
    "folded": (0.5, 0.3, 0.0, 2.0),  # and of what becomes part of the kernel before it
    "launches": (0.2, 0.2, 0.0, 2.0),  # in the fixed cost of a run
    "weights": (0.02, 0.05, 0.0, 0.2),  # ms a million: alone, a kernel finds them warm
    # Saved where maps stay in the runtime's order; alone they are brought into it and back:
    "edges": (0.2, 0.2, 0.0, 1.0),  # a map, in the fixed cost of a run
    "numbers": (0.2, 0.2, 0.0, 2.0),  # ms a million
}
_WORKS = slice(1, 5)  # of the terms: work
_SAVED = slice(7, 9)  # of the terms: what is saved
_MOST_SAVED = 0.85  # of a kernel's work: each keeps a share above 0
_LEAST_WORK = 0.1  # of a kernel's time alone: the regressor may fall below the fixed cost
_BELIEF = 0.15  # relative error of networks at which the expectations count as one of them
_HUBER, _LEAST_ERROR = 0.1, 0.01  # errors beyond the first count linearly
_USUAL = 0.1  # relative error of a sum: a network that is known less surely counts for less


def kernel_terms(network: OnnxNetwork, alone_ms: npt.ArrayLike, run_ms: float) -> Floats:
    """What `TERMS` are multiplied with, (kernels, terms); the first kernel also brings the run.

    Args:
        network: Cut.
        alone_ms: Time of each of its kernels alone, (kernels,), ms.
        run_ms: Fixed cost of a run.
    """
    column = {name: i for i, name in enumerate(TERMS)}
    rows = np.zeros((len(network.steps), len(TERMS)))
    rows[0, column["run"]] = run_ms
    for row, step, ms in zip(rows, network.steps, np.asarray(alone_ms, float), strict=True):
        kernel = step.kernel
        sort = "depthwise" if kernel.depthwise else "conv" if kernel.kind == "conv" else "other"
        row[column["folded" if step.folded else sort]] = max(ms - run_ms, _LEAST_WORK * ms)
        row[column["weights"]] = kernel.params / 1e6
        if not step.folded:
            row[column["launches"]] = run_ms
            row[column["edges"]] = run_ms * ((step.direct_in > 0) + (step.direct_out > 0))
            row[column["numbers"]] = (step.direct_in + step.direct_out) / 1e6
    return rows


def shares_ms(terms: Floats, coefficients: Floats) -> Floats:
    """Each kernel's part of its network, (kernels,), ms, > 0.

    Args:
        terms: Of `kernel_terms`, (kernels, terms).
        coefficients: Of `TERMS`, (terms,).
    """
    work = terms[:, _WORKS] @ coefficients[_WORKS]
    saved = np.minimum(terms[:, _SAVED] @ coefficients[_SAVED], _MOST_SAVED * work)
    shares: Floats = terms[:, : _SAVED.start] @ coefficients[: _SAVED.start] - saved
    return shares


def slopes_of(terms: Floats, coefficients: Floats) -> Floats:
    """How a network's time changes with each coefficient, (terms,), ms."""
    work = terms[:, _WORKS] @ coefficients[_WORKS]
    held = terms[:, _SAVED] @ coefficients[_SAVED] > _MOST_SAVED * work
    slopes: Floats = terms.sum(axis=0)
    slopes[_WORKS] -= _MOST_SAVED * terms[held, _WORKS].sum(axis=0)
    slopes[_SAVED] = -terms[~held, _SAVED].sum(axis=0)
    return slopes


def solved(
    terms: Sequence[Floats], whole_ms: Floats, noise: Floats
) -> tuple[Floats, Floats, float]:
    """Coefficients, (terms,), their covariance, (terms, terms), and the usual relative error.

    By least squares of the relative error within bounds, with what is expected as observations.
    Networks of an unusual kind, such as grouped convolutions alone, miss by a quarter; a loss that
    grows linearly keeps them from moving all others.

    Args:
        terms: Of each of n networks, (kernels, terms).
        whole_ms: Networks, (n,), ms.
        noise: Standard error of each of these, (n,), relative.
    """
    from scipy.optimize import least_squares

    expected, deviation, low, high = (np.array(c) for c in zip(*TERMS.values(), strict=True))
    every, starts = np.concatenate(terms), np.cumsum([0, *(len(t) for t in terms[:-1])])
    sure = _USUAL / np.hypot(_USUAL, noise)

    def errors(c: Floats) -> Floats:
        off = sure * (np.add.reduceat(shares_ms(every, c), starts) / whole_ms - 1)
        # Huber's loss, for the networks alone.
        size = np.abs(off)
        bent = np.sqrt(np.maximum(2 * _HUBER * size - _HUBER**2, 0))
        off = np.where(size > _HUBER, np.sign(off) * bent, off)
        return np.concatenate([off, _BELIEF * (c - expected) / deviation])

    def slopes(c: Floats) -> Floats:
        ms = np.add.reduceat(shares_ms(every, c), starts)
        rows = np.array([slopes_of(t, c) for t in terms]) * (sure / whole_ms)[:, None]
        size = sure * np.abs(ms / whole_ms - 1)
        bent = np.sqrt(np.maximum(2 * _HUBER * size - _HUBER**2, _HUBER**2))
        rows *= np.where(size > _HUBER, _HUBER / bent, 1.0)[:, None]
        return np.concatenate([rows, np.diag(_BELIEF / deviation)])

    done = least_squares(errors, expected, slopes, bounds=(low - 1e-9, high + 1e-9), max_nfev=200)
    off = np.abs(np.log(np.add.reduceat(shares_ms(every, done.x), starts) / whole_ms))
    error = max(float(np.median(sure * off)), _LEAST_ERROR)
    rows = done.jac[: len(terms)] / error
    covariance = np.linalg.inv(rows.T @ rows + np.diag(deviation**-2.0))
    return np.clip(done.x, low, high), covariance, error
