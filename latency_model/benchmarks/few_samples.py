"""A table of genes: a new device from a few measurements and from devices that measured more.

Source devices measured some networks of a space; a new device measures about ten. Four steps:

- *denoise*: each source's latency becomes a profile, known for every network (`denoising`);
- *choose*: the networks to measure are those that most lower the expected variance over all
  networks, if the new device is drawn from the sources' covariance and from deviations by value and
  by gene, its level unknown, its noise that of the noisier sources. No time of the new device is
  used;
- *adapt*: each source in turn is taken as the nearest one. The new device is that source times a
  factor, plus a level, plus deviations along the sources' principal components, of each value that
  genes take (an operation: alike wherever it stands), and of each gene's values; plus a noise with
  heavy tails, about as strong as that source's. Hypotheses of how large these are, are averaged as
  those of `phonenas fit --like` with a ready phone are (`averaging`); highly correlated
  sources count as one;
- the same average gives the intervals, and the expected error.

Times are compared as they are, not by their logarithms: networks are sums. Source: Cohn, Ghahramani
and Jordan, Active Learning with Statistical Models, JAIR 1996 (expected variance).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from phonenas.space.errors import InvalidArgument, NotEnoughData

from ..averaging import NOISE_ABSOLUTE, NOISE_VARIANCE, NOISES, OWN, SHARED, Averaged, Hypotheses
from ..metrics import Z90, spearman
from ..tabular import one_hot
from .denoising import denoise_together

__all__ = ["METHOD", "MINIMUM", "Adapted", "SourceDevices"]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

#: What the commands say of it.
METHOD = (
    "a table of genes: other devices' times of all networks, deviations by value and by gene, and "
    "noise, averaged by their evidence as `phonenas fit --like` averages those of a ready phone"
)
MINIMUM = 3  # measurements of the new device
_MINIMUM_SOURCE = 20  # measurements of each source
_LEVEL = 10.0  # standard deviation of the level when samples are chosen, in a device's own
_SAME = 8  # power of the correlation at which sources count as one
_LEAST = 1e-4  # scatter of the quietest device, in its profile's variance
_POWER = 0.1  # variance of the factor of the nearest source, about 1
_DEVIATIONS = (0.03, 0.1, 0.3, 1.0)  # variance along the sources' components, in the nearest's
_CHOOSING = (0.01, 0.003)  # variances by value and by gene when samples are chosen
_NOISE_DEVIATION = 1.0  # of a device's noise from the nearest source's, in its logarithm
_FLOOR = 0.05  # of the mean measurement, the least that is predicted


@dataclass(frozen=True)
class Adapted:
    """Predictions for every network of a table.

    Args:
        latency_ms: Expected, (n,), ms.
        low_ms, high_ms: Bounds of the 90 % interval of a measurement, (n,), ms.
        shares: Probability of each source to be the nearest one, (sources,); sums to 1.
        expected_mape: Mean relative error to expect against single measurements, noise included.
        expected_spearman: Rank correlation to expect with single measurements, 0 to 1.
    """

    latency_ms: Floats
    low_ms: Floats
    high_ms: Floats
    shares: Floats
    expected_mape: float
    expected_spearman: float


class SourceDevices:
    """Source devices that measured networks of a space, and the predictions for a new device.

    Args:
        codes: Genes of every network, (n, genes), small numbers or codes of names.
        sources_ms: Latency of each network on each source, (n, sources), ms; NaN: not measured.
    Raises:
        InvalidArgument: Shapes differ, or a latency is not positive.
        NotEnoughData: A source has fewer than 20 measurements, or there is no source.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> genomes = rng.integers(0, 3, (200, 4)).astype(float)
        >>> slow, other = 2 + genomes @ [0.1, 0.2, 0.1, 0.3], 1 + genomes @ [0.2, 0.1, 0.1, 0.1]
        >>> sources = SourceDevices(genomes, np.column_stack([slow, other]))
        >>> rows = sources.choose(5)
        >>> adapted = sources.adapt(rows, 3 * slow[rows])
        >>> bool(np.max(np.abs(adapted.latency_ms / (3 * slow) - 1)) < 0.05)
        True
    """

    def __init__(self, codes: npt.ArrayLike, sources_ms: npt.ArrayLike) -> None:
        x, ms = np.asarray(codes, np.float64), np.asarray(sources_ms, np.float64)
        if x.ndim != 2 or ms.ndim != 2 or len(x) != len(ms) or not np.isfinite(x).all():
            raise InvalidArgument(
                f"genes must be finite, (n, genes), and sources (n, sources): got shapes {x.shape} "
                f"and {ms.shape}"
            )
        if not ms.shape[1]:
            raise NotEnoughData("no source device is left")
        known, values = [], []
        for one in ms.T:
            rows = np.flatnonzero(~np.isnan(one))
            if len(rows) < _MINIMUM_SOURCE:
                raise NotEnoughData(
                    f"a source device has {len(rows)} measurements; it takes {_MINIMUM_SOURCE}"
                )
            if not (np.isfinite(one[rows]).all() and (one[rows] > 0).all()):
                raise InvalidArgument("a latency must be positive and finite")
            known.append(rows)
            values.append(one[rows] / one[rows].mean())
        # Of each source, in units of its mean time.
        self.profiles: Floats = denoise_together(one_hot(x), known, values)
        self._centred: Floats = self.profiles - self.profiles.mean(axis=0)
        self._variances: Floats = np.mean(self._centred**2, axis=0)
        moving = self._variances > 1e-12
        if not moving.any():
            raise NotEnoughData("the sources take the same time for every network")
        scaled = self._centred / np.sqrt(np.where(moving, self._variances, 1.0))
        # Highly correlated sources count as one: a kind measured often is no likelier the nearest.
        near = np.maximum(scaled.T @ scaled / len(scaled), 0) ** _SAME
        near[np.diag_indices_from(near)] = 1
        self._likely: Floats = moving / near.sum(axis=1)
        self._likely /= self._likely.sum()
        self._measured = ~np.isnan(ms).all(axis=1)
        off = [
            y / np.maximum(self.profiles[rows, i], _FLOOR) - 1
            for i, (rows, y) in enumerate(zip(known, values, strict=True))
        ]
        self._noises: Floats = np.array([max(float(np.abs(o).mean()), NOISES[0]) for o in off])
        # Of measurements about their profile, in the profile's variance. The choice of samples
        # matters more to a device with more scatter: it weighs by that.
        scatter = np.array([np.mean(o**2) for o in off]) / np.maximum(self._variances, 1e-12)
        scatter *= moving
        weigh = self._likely * scatter
        self._scatter = float(weigh @ scatter / max(weigh.sum(), 1e-12))
        by_value, by_gene = _deviations(x, scaled, self._likely)
        self._chosen_by: Floats = np.hstack(
            [
                scaled * np.sqrt(self._likely),
                by_value * np.sqrt(_CHOOSING[0]),
                by_gene * np.sqrt(_CHOOSING[1]),
            ]
        )
        left, sizes, _ = np.linalg.svd(self._centred, full_matrices=False)
        keep = sizes > 1e-3 * sizes[0]
        # Principal components, then what deviates; the columns' mean squares sum to 1 in each.
        components = left[:, keep] * sizes[keep]
        self._features = [
            components / np.sqrt(np.mean(np.sum(components**2, axis=1))),
            by_value,
            by_gene,
        ]

    def choose(self, count: int) -> Rows:
        """Rows to measure on the new device, (count,), the most informative first.

        As long as there are any, networks that a source measured: there sources are most exact.

        Raises:
            InvalidArgument: Fewer than 3 rows, or more than there are.
        """
        n = len(self.profiles)
        if not MINIMUM <= count <= n:
            raise InvalidArgument(f"samples: {MINIMUM} to {n}, got {count}")
        f = self._chosen_by
        mean = np.zeros((f.shape[1] + 1, f.shape[1] + 1))
        mean[1:, 1:] = f.T @ f / n  # without the level, which changes no rank
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
            raise InvalidArgument(
                f"rows (k,) and positive latencies (k,) must pair, got shapes {at.shape} and "
                f"{ms.shape}"
            )
        if len(at) < MINIMUM:
            raise NotEnoughData(
                f"{len(at)} measurements are too few to adapt to; it takes {MINIMUM}"
            )
        count = len(self._variances)
        tried = np.array(list(product(range(count), _DEVIATIONS, SHARED, OWN, NOISES)))
        source, noise = tried[:, 0].astype(np.intp), tried[:, 4]
        unit = float(ms.mean())
        apart = np.log(noise / self._noises[source]) / _NOISE_DEVIATION
        lines = self._centred[at]
        # The factor of the nearest source is one more deviation: a feature of each source.
        variances = np.zeros((len(tried), count + 3))
        variances[np.arange(len(tried)), source] = _POWER
        variances[:, count:] = tried[:, 1:4] * self._variances[source][:, None]
        everywhere = [*np.split(self._centred, count, axis=1), *self._features]
        measured = [f[at] for f in everywhere]
        y = ms / unit
        averaged = Averaged.of(
            y,
            Hypotheses(
                offsets=lines[:, source].T,
                features=measured,
                variances=variances,
                noise=noise[:, None] * y,
                shares=self._likely[source] * np.exp(-(apart**2) / 2),
            ),
        )
        nearest = source[averaged.at]
        shares: Floats = np.zeros(count)
        np.add.at(shares, nearest, averaged.shares)
        offsets = self._centred[:, nearest].T
        expected = averaged.shares @ (averaged.levels[:, None] + offsets)
        for f, c in zip(everywhere, averaged.coefficients(measured), strict=True):
            expected = expected + f @ c
        variance = averaged.variance(
            [f @ m.T for f, m in zip(everywhere, measured, strict=True)],
            [np.sum(f**2, axis=1) for f in everywhere],
            offsets,
        )
        expected = np.maximum(expected, _FLOOR)
        squares = noise[averaged.at] ** 2
        scatter = NOISE_VARIANCE * float(averaged.shares @ squares) * expected**2
        half = Z90 * np.sqrt(variance + scatter)
        levels = [(v, float(averaged.shares[squares == v].sum())) for v in np.unique(squares)]
        errors = [
            np.sqrt(2 / np.pi * (variance / expected**2 + NOISE_ABSOLUTE * v)).mean() * p
            for v, p in levels
        ]
        # Of what a measurement varies by, what is predicted.
        unknown, known = float(np.mean(variance)), float(np.var(expected))
        noisy = NOISE_ABSOLUTE * float(np.mean(expected**2))
        ranks = [p * np.sqrt(known / (known + unknown + noisy * v)) for v, p in levels]
        return Adapted(
            unit * expected,
            unit * np.maximum(expected - half, _FLOOR / 2),
            unit * (expected + half),
            shares,
            float(np.sum(errors)),
            float(6 / np.pi * np.arcsin(min(float(np.sum(ranks)), 1.0) / 2)),
        )

    def nearest(self, rows: Rows, measured_ms: Floats) -> Floats:
        """Baseline: the source that ranks the measurements best, at their level, (n,) ms."""
        ranks = [spearman(profile, measured_ms) for profile in self.profiles[rows].T]
        profile = np.maximum(
            self.profiles[:, int(np.argmax(np.nan_to_num(ranks, nan=-1.0)))], _FLOOR
        )
        ms: Floats = profile * np.median(measured_ms / profile[rows])
        return ms

    def ridge(self, rows: Rows, measured_ms: Floats) -> Floats:
        """Baseline: a ridge on the sources' principal components, leave-one-out, (n,) ms."""
        from sklearn.linear_model import RidgeCV

        parts = self._features[0] / self._features[0].std()
        fitted = RidgeCV(np.logspace(-3, 2, 11)).fit(parts[rows], measured_ms)
        ms: Floats = np.maximum(fitted.predict(parts), _FLOOR * measured_ms.mean())
        return ms


def _deviations(codes: Floats, scaled: Floats, likely: Floats) -> tuple[Floats, Floats]:
    """What a device may deviate by, (n, any) each, the columns' mean squares summing to 1.

    By value: how often each occurs, over the genes that take the same values. By gene: each value
    of each gene. Genes count as much as they move the sources.

    Args:
        codes: (n, genes).
        scaled: The sources' profiles, of mean 0 and variance 1, (n, sources).
        likely: What each source counts for, (sources,).
    """
    hot = one_hot(codes)
    values = [np.unique(gene) for gene in codes.T]
    ends = np.cumsum([len(v) for v in values])[:-1]
    slopes = np.linalg.lstsq(hot, scaled, rcond=None)[0]
    parts = zip(np.split(hot, ends, axis=1), np.split(slopes, ends), strict=True)
    moves = np.sqrt(np.array([np.var(h @ s, axis=0) for h, s in parts]) @ likely)
    alike: dict[tuple[float, ...], list[int]] = {}
    for gene, its in enumerate(values):
        alike.setdefault(tuple(its), []).append(gene)
    by_value = np.column_stack(
        [
            np.sum([moves[g] * (codes[:, g] == value) for g in genes], axis=0)
            for its, genes in alike.items()
            for value in its
        ]
    )
    by_value = by_value - by_value.mean(axis=0)
    by_gene = hot * np.repeat(moves, [len(v) for v in values])
    return _of_size_one(by_value), _of_size_one(by_gene)


def _of_size_one(columns: Floats) -> Floats:
    scaled: Floats = columns / np.sqrt(max(float(np.mean(np.sum(columns**2, axis=1))), 1e-12))
    return scaled
