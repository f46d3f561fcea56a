"""A new device from a few measurements and its relatives.

Other devices measured some networks of a space; a new one shall measure ten. Four steps:

- *denoise*: each source's log latency becomes a sum over genes (a ridge on one-hot genes, its
  strength by generalised cross-validation, outliers pulled in), known for every network;
- *choose*: the networks to measure are those that most lower the expected variance over all
  networks, were the new device drawn from the sources' covariance. The target is never looked at;
- *adapt*: each source in turn is taken as the nearest relative. The new device is that source
  times a power near one, plus a small deviation along the sources' principal components, and a
  noise with heavy tails. The sources are averaged, each as likely as it makes the measurements;
- the same average gives the intervals.

Everything is in log latency. Source: Cohn, Ghahramani and Jordan, Active Learning with
Statistical Models, JAIR 1996 (expected variance); Hoeting et al., Bayesian Model Averaging, 1999.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from ..space.errors import InvalidArgument, NotEnoughData
from .tabular import one_hot

__all__ = ["MINIMUM", "Adapted", "Relatives", "denoise"]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

MINIMUM = 3  # measurements of the new device
_MINIMUM_SOURCE = 20  # measurements of each source
_RIDGES = 10.0 ** np.arange(-1, 3.1, 0.5)
_OUTLIER = 1.5  # robust standard deviations at which a source's residual is pulled in
_CHOICE_NOISE = 0.05  # of a measurement, relative, when samples are chosen
_POWER = 0.1  # variance of the power to which the nearest source is raised, about 1
_DEVIATIONS = (0.03, 0.1, 0.3)  # variance along the other sources, in the sources' mean variance
_NOISES = (0.01, 0.02, 0.04, 0.08, 0.16)  # relative standard deviations of a measurement
_FREEDOM = 4  # degrees of freedom of the noise
_ROUNDS = 3  # of reweighting
_Z90 = 1.6449
_SMALL = 1e-4  # share below which a source's predictions are left out of the average


@dataclass(frozen=True)
class Adapted:
    """Predictions for every network of a table.

    Args:
        latency_ms: Expected, (n,), ms.
        low_ms, high_ms: Bounds of the 90 % interval of a measurement, (n,), ms.
        shares: How likely each source is the nearest relative, (sources,); sums to 1.
    """

    latency_ms: Floats
    low_ms: Floats
    high_ms: Floats
    shares: Floats


def denoise(genes: Floats, known: Rows, log_ms: Floats) -> Floats:
    """Log latency of every network as a sum over genes, (n,), learned from some.

    Args:
        genes: One-hot, (n, values), columns of mean 0.
        known: Rows that were measured, (k,).
        log_ms: Their logarithms of ms, (k,).
    """
    here = genes[known]
    middle = here.mean(axis=0)
    left, sizes, right = np.linalg.svd(here - middle, full_matrices=False)
    keep = sizes > 1e-8 * max(float(sizes[0]), 1e-300)
    left, sizes, right = left[:, keep], sizes[keep], right[keep]
    y = log_ms
    for _ in range(3):
        mean = float(y.mean())
        turned = left.T @ (y - mean)
        best = (np.inf, np.zeros(len(sizes)), y)
        for ridge in _RIDGES:
            shrunk = sizes**2 / (sizes**2 + ridge)
            residual = y - mean - left @ (shrunk * turned)
            freedom = max(1 - (float(shrunk.sum()) + 1) / len(known), 1e-3)
            loss = float(np.mean(residual**2)) / freedom**2
            if loss < best[0]:
                best = (loss, shrunk / sizes * turned, y - residual)
        fitted, limit = best[2], _OUTLIER * 1.4826 * float(np.median(np.abs(y - best[2])))
        y = fitted + np.clip(log_ms - fitted, -limit, limit)
    found: Floats = mean + (genes - middle) @ (right.T @ best[1])
    return found


class Relatives:
    """What other devices tell of a space, and what follows for a new one.

    Args:
        codes: Genes of every network, (n, genes), small numbers or codes of names.
        sources_ms: Latency of each network on each source, (n, sources), ms; NaN: not measured.
    Raises:
        InvalidArgument: Shapes differ, or a latency is not positive.
        NotEnoughData: A source has fewer than 20 measurements, or there is no source.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> genomes = rng.integers(0, 3, (200, 4)).astype(float)
        >>> slow = np.exp(genomes @ [0.1, 0.2, 0.1, 0.3])
        >>> relatives = Relatives(genomes, np.column_stack([slow, slow**0.5]))
        >>> rows = relatives.choose(5)
        >>> found = relatives.adapt(rows, 3 * slow[rows])
        >>> bool(np.max(np.abs(found.latency_ms / (3 * slow) - 1)) < 0.05)
        True
    """

    def __init__(self, codes: npt.ArrayLike, sources_ms: npt.ArrayLike) -> None:
        x, ms = np.asarray(codes, np.float64), np.asarray(sources_ms, np.float64)
        if x.ndim != 2 or ms.ndim != 2 or len(x) != len(ms) or not np.isfinite(x).all():
            raise InvalidArgument(f"genes and sources fit not: {x.shape} and {ms.shape}")
        if not ms.shape[1]:
            raise NotEnoughData("there is no source device left to learn from")
        genes, columns = one_hot(x), []
        for one in ms.T:
            known = np.flatnonzero(~np.isnan(one))
            if len(known) < _MINIMUM_SOURCE:
                raise NotEnoughData(
                    f"a source with {len(known)} measurements teaches nothing; it takes "
                    f"{_MINIMUM_SOURCE}"
                )
            if not (np.isfinite(one[known]).all() and (one[known] > 0).all()):
                raise InvalidArgument("a latency must be positive and finite")
            columns.append(denoise(genes, known, np.log(one[known])))
        self.log_ms: Floats = np.column_stack(columns)
        centred = self.log_ms - self.log_ms.mean(axis=0)
        left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
        keep = sizes > 1e-3 * max(float(sizes[0]), 1e-300)
        if not sizes[0] > 1e-9:
            raise NotEnoughData("the sources take the same time for every network")
        self._centred = centred
        # Rows' coordinates along the principal components, at the mean source's variance.
        self._components: Floats = left[:, keep] * sizes[keep] / np.sqrt(ms.shape[1])

    def choose(self, count: int) -> Rows:
        """Rows to measure on the new device, (count,), the most telling first.

        Raises:
            InvalidArgument: Fewer than 3 rows, or more than there are.
        """
        f = self._components
        if not MINIMUM <= count <= len(f):
            raise InvalidArgument(f"samples: {MINIMUM} to {len(f)}, got {count}")
        spread, mean = np.eye(f.shape[1]), f.T @ f / len(f)
        chosen: list[int] = []
        for _ in range(count):
            seen = f @ spread
            variance = np.einsum("ij,ij->i", seen, f) + _CHOICE_NOISE**2
            gain = np.einsum("ij,jk,ik->i", seen, mean, seen) / variance
            gain[chosen] = -1
            best = int(np.argmax(gain))
            chosen.append(best)
            spread = spread - np.outer(seen[best], seen[best]) / variance[best]
        return np.array(chosen, np.intp)

    def adapt(self, rows: npt.ArrayLike, measured_ms: npt.ArrayLike) -> Adapted:
        """Predict every network from measurements of a few.

        Args:
            rows: Which were measured, (k,).
            measured_ms: Their latency on the new device, (k,), ms.
        Raises:
            InvalidArgument: Shapes differ, or a latency is not positive.
            NotEnoughData: Fewer than 3 measurements.
        """
        at, ms = np.asarray(rows, np.intp), np.asarray(measured_ms, np.float64)
        if at.shape != ms.shape or at.ndim != 1 or not (np.isfinite(ms).all() and (ms > 0).all()):
            raise InvalidArgument(f"{at.shape} rows and {ms.shape} positive latencies must pair")
        if len(at) < MINIMUM:
            raise NotEnoughData(f"{len(at)} measurements do not adapt a model; it takes {MINIMUM}")
        f = self._components
        # Deviations are relative to what the sources vary by; components, to their own size.
        small = f / np.sqrt(np.mean(np.sum(f**2, axis=1)))
        inner, outer = small[at] @ small[at].T, small @ small[at].T
        y, found = np.log(ms), []
        tried = list(product(range(self._centred.shape[1]), _DEVIATIONS, _NOISES))
        for source, deviation, noise in tried:
            line = self._centred[:, source]
            size = deviation * float(np.mean(line**2))
            covariance = _POWER * np.outer(line[at], line[at]) + size * inner
            found.append(_explained(covariance, y - line[at], noise))
        evidence = np.array([e for e, *_ in found])
        share = np.exp(evidence - evidence.max())
        share /= share.sum()
        mean, square, total = np.zeros(len(f)), np.zeros(len(f)), 0.0
        own = np.sum(small**2, axis=1)
        for (source, deviation, noise), (_, level, pull, inverse), p in zip(
            tried, found, share, strict=True
        ):
            if p < _SMALL:
                continue
            line = self._centred[:, source]
            size = deviation * float(np.mean(line**2))
            across = _POWER * np.outer(line, line[at]) + size * outer
            expected = level + line + across @ pull
            known = np.einsum("ij,jk,ik->i", across, inverse, across)
            doubt = np.maximum(_POWER * line**2 + size * own - known, 0) + 2 * noise**2
            mean, square = mean + p * expected, square + p * (expected**2 + doubt)
            total += p
        mean, square = mean / total, square / total
        half = _Z90 * np.sqrt(np.maximum(square - mean**2, 0))
        shares = np.zeros(self._centred.shape[1])
        np.add.at(shares, [s for s, _, _ in tried], share)
        return Adapted(np.exp(mean), np.exp(mean - half), np.exp(mean + half), shares)

    def nearest(self, rows: Rows, measured_ms: Floats) -> Floats:
        """Baseline: the source that ranks the measurements best, brought to their level, (n,) ms."""
        from scipy import stats

        if np.ptp(measured_ms) == 0:
            ranks = [0.0]
        else:
            tried = self.log_ms[rows].T
            ranks = [
                float(stats.spearmanr(one, measured_ms).statistic) if np.ptp(one) else -1.0
                for one in tried
            ]
        one = self.log_ms[:, int(np.argmax(ranks))]
        found: Floats = np.exp(one + np.median(np.log(measured_ms) - one[rows]))
        return found

    def ridge(self, rows: Rows, measured_ms: Floats) -> Floats:
        """Baseline: a ridge on the sources' principal components, leave-one-out, (n,) ms."""
        from sklearn.linear_model import RidgeCV

        parts = self._components / self._components.std()
        fitted = RidgeCV(np.logspace(-3, 2, 11)).fit(parts[rows], np.log(measured_ms))
        found: Floats = np.exp(fitted.predict(parts))
        return found


def _explained(covariance: Floats, y: Floats, noise: float) -> tuple[float, float, Floats, Floats]:
    """Evidence, level, pull (k,) and inverse (k, k) of a process with a free level.

    The noise is Student's: measurements far off are given less weight, in rounds.
    """
    ones: Floats = np.ones(len(y))
    weights: Floats = ones
    for again in range(_ROUNDS):
        noisy = covariance + np.diag(noise**2 / weights)
        inverse: Floats = np.asarray(np.linalg.inv(noisy), np.float64)
        free = float(ones @ inverse @ ones)
        level = float(ones @ inverse @ y) / free
        pull: Floats = inverse @ (y - level)
        if again < _ROUNDS - 1:
            off = noise / weights * pull
            weights = np.asarray((_FREEDOM + 1) / (_FREEDOM + off**2), np.float64)
    value = -(y - level) @ pull + np.linalg.slogdet(inverse)[1] - np.log(free)
    return float(value) / 2, level, pull, inverse
