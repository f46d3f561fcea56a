"""A new device from a few measurements and its relatives.

Other devices measured some networks of a space; a new one shall measure ten. Four steps:

- *denoise*: each source's log latency becomes a profile, known for every network
  (`denoising`);
- *choose*: the networks to measure are those that most lower the expected variance over all
  networks, were the new device drawn from the sources' covariance, its level unknown, its noise
  that of the noisier sources. The target is never looked at;
- *adapt*: each source in turn is taken as the nearest relative. The new device is that source
  times a power near one, plus a deviation along the sources' principal components, and a noise
  with heavy tails, about as strong as that source's. The sources are averaged, each as likely as
  it makes the measurements; those much alike count as one;
- the same average gives the intervals, and what error is to be expected.

Everything is in log latency. Source: Cohn, Ghahramani and Jordan, Active Learning with
Statistical Models, JAIR 1996 (expected variance); Hoeting et al., Bayesian Model Averaging, 1999.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from ..space.errors import InvalidArgument, NotEnoughData
from .denoising import denoise_together
from .guesses import NOISE_ABSOLUTE, NOISE_VARIANCE, guesses
from .interval import Z90
from .tabular import one_hot

__all__ = ["MINIMUM", "Adapted", "Relatives"]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

MINIMUM = 3  # measurements of the new device
_MINIMUM_SOURCE = 20  # measurements of each source
_LEVEL = 10.0  # standard deviation of the level when samples are chosen, in a device's own
_ALIKE = 8  # power of the correlation that counts sources as one
_LEAST = 1e-4  # scatter of the quietest device, in its profile's variance
_POWER = 0.1  # variance of the power to which the nearest source is raised, about 1
_DEVIATIONS = (0.03, 0.1, 0.3, 1.0)  # variance along the sources' components, in the nearest's
_NOISES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)  # scale of a measurement's relative noise
_NOISE_UNLIKE = 1.0  # how far a device's noise is from its relative's, in its logarithm
_SMALL = 1e-6  # share below which a guess is left out of the average


@dataclass(frozen=True)
class Adapted:
    """Predictions for every network of a table.

    Args:
        latency_ms: Expected, (n,), ms.
        low_ms, high_ms: Bounds of the 90 % interval of a measurement, (n,), ms.
        shares: How likely each source is the nearest relative, (sources,); sums to 1.
        expected_mape: Mean relative error to expect against single measurements, noise included.
        expected_spearman: Rank correlation to expect with single measurements, 0 to 1.
    """

    latency_ms: Floats
    low_ms: Floats
    high_ms: Floats
    shares: Floats
    expected_mape: float
    expected_spearman: float


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
        known, logs = [], []
        for one in ms.T:
            rows = np.flatnonzero(~np.isnan(one))
            if len(rows) < _MINIMUM_SOURCE:
                raise NotEnoughData(
                    f"a source with {len(rows)} measurements teaches nothing; it takes "
                    f"{_MINIMUM_SOURCE}"
                )
            if not (np.isfinite(one[rows]).all() and (one[rows] > 0).all()):
                raise InvalidArgument("a latency must be positive and finite")
            known.append(rows)
            logs.append(np.log(one[rows]))
        self.log_ms: Floats = denoise_together(one_hot(x), known, logs)
        centred = self.log_ms - self.log_ms.mean(axis=0)
        self._variances: Floats = np.mean(centred**2, axis=0)
        moving = self._variances > 1e-12
        if not moving.any():
            raise NotEnoughData("the sources take the same time for every network")
        alike = centred / np.sqrt(np.where(moving, self._variances, 1.0))
        # Sources much alike count as one: a kind measured often is no likelier a relative.
        near = np.maximum(alike.T @ alike / len(alike), 0) ** _ALIKE
        near[np.diag_indices_from(near)] = 1
        self._likely: Floats = moving / near.sum(axis=1)
        self._likely /= self._likely.sum()
        self._measured = ~np.isnan(ms).all(axis=1)
        off = [
            y - self.log_ms[rows, i] for i, (rows, y) in enumerate(zip(known, logs, strict=True))
        ]
        self._noises: Floats = np.array([max(float(np.abs(o).mean()), _NOISES[0]) for o in off])
        # Of measurements about their profile, in the profile's variance. The more a device
        # scatters, the more the choice of samples matters to it: it weighs by that.
        scatter = np.array([np.mean(o**2) for o in off]) / np.maximum(self._variances, 1e-12)
        scatter *= moving
        weigh = self._likely * scatter
        self._scatter = float(weigh @ scatter / max(weigh.sum(), 1e-12))
        self._alike: Floats = alike * np.sqrt(self._likely)
        left, sizes, right = np.linalg.svd(centred, full_matrices=False)
        keep = sizes > 1e-3 * sizes[0]
        scale = np.sqrt(np.sum(sizes[keep] ** 2) / len(centred))
        # Rows' coordinates along the principal components, of mean square one in all, and the
        # sources' coefficients along them.
        self._components: Floats = left[:, keep] * (sizes[keep] / scale)
        self._sources: Floats = right[keep].T * scale

    def choose(self, count: int) -> Rows:
        """Rows to measure on the new device, (count,), the most telling first.

        As long as there are any, networks that a source measured: there the sources are surest.

        Raises:
            InvalidArgument: Fewer than 3 rows, or more than there are.
        """
        n = len(self._alike)
        if not MINIMUM <= count <= n:
            raise InvalidArgument(f"samples: {MINIMUM} to {n}, got {count}")
        values, vectors = np.linalg.eigh(self._alike.T @ self._alike)
        f = self._alike @ vectors[:, values > 1e-6 * values[-1]]
        mean = np.zeros((f.shape[1] + 1, f.shape[1] + 1))
        mean[1:, 1:] = f.T @ f / n  # the level is not asked for: it moves no rank
        f = np.hstack([np.full((n, 1), _LEVEL), f])
        spread, unmeasured = np.eye(f.shape[1]), ~self._measured
        chosen: list[int] = []
        for _ in range(count):
            seen = f @ spread
            variance = np.einsum("ij,ij->i", seen, f) + self._scatter + _LEAST
            gain = np.einsum("ij,ij->i", seen @ mean, seen) / variance
            gain[unmeasured] = -1
            gain[chosen] = -2
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
        tried = np.array(list(product(range(len(self._sources)), _DEVIATIONS, _NOISES)))
        source, noise = tried[:, 0].astype(np.intp), tried[:, 2]
        lines = self._sources[source]
        size = tried[:, 1] * self._variances[source]
        prior = _POWER * lines[:, :, None] * lines[:, None, :]
        prior += size[:, None, None] * np.eye(lines.shape[1])
        unlike = np.log(noise / self._noises[source]) / _NOISE_UNLIKE
        likely = self._likely[source] * np.exp(-(unlike**2) / 2)
        guess = guesses(self._components[at], np.log(ms), lines, prior, noise, likely)
        shares: Floats = np.zeros(len(self._sources))
        np.add.at(shares, source, guess.share)
        keep = guess.share > _SMALL
        share = guess.share[keep] / guess.share[keep].sum()
        middles, each = guess.middles[keep], guess.spreads[keep]
        middle = share @ middles
        off = middles - middle
        spread = np.einsum("c,ci,cj->ij", share, off, off) + np.einsum("c,cij->ij", share, each)
        f = np.hstack([np.ones((len(self._components), 1)), self._components])
        expected = f @ middle
        doubt = np.maximum(np.einsum("ij,ij->i", f @ spread, f), 0)
        squares = noise[keep] ** 2
        half = Z90 * np.sqrt(doubt + NOISE_VARIANCE * float(share @ squares))
        levels = [(v, float(share[squares == v].sum())) for v in np.unique(squares)]
        off_by = [np.sqrt(2 / np.pi * (doubt + NOISE_ABSOLUTE * v)).mean() * p for v, p in levels]
        # Of what a measurement varies by, what is predicted; a common level moves no rank.
        unknown = float(np.mean(np.einsum("ij,ij->i", f[:, 1:] @ spread[1:, 1:], f[:, 1:])))
        told = float(np.var(expected))
        ranks = [p * np.sqrt(told / (told + unknown + NOISE_ABSOLUTE * v)) for v, p in levels]
        return Adapted(
            np.exp(expected),
            np.exp(expected - half),
            np.exp(expected + half),
            shares,
            float(np.sum(off_by)),
            float(6 / np.pi * np.arcsin(min(float(np.sum(ranks)), 1.0) / 2)),
        )

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
