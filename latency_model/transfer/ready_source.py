"""A model of a new device from a ready phone and a few whole networks.

The ready phone's rates carry over, times one factor, times deviations of each group of terms
(launches, maps, weights), of each term, and along what its own fit left open. The networks measured
are weighted sums of these (`averaging`), so the model stays one of kernels: it predicts any network
that the ready phone does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import numpy.typing as npt

from phonenas.data.measurement import Conditions, Measurement
from phonenas.space import Architecture, SearchSpace, zoo
from phonenas.space.errors import InvalidArgument, NotEnoughData

from ..additive.fitting import KnownNetwork, known_networks
from ..additive.process import GROUPS, Observed, Posterior
from ..additive.times import KernelTimes, calibration_of
from ..averaging import NOISE_VARIANCE, NOISES, OWN, SHARED, Averaged, Hypotheses
from ..gaussian_process import one_thread
from ..metrics import TO_MEAN, Z90, Score, noise_of, score
from ..model import Examined, LatencyModel
from ..outliers import contradicted
from ..tabular import line
from ..units.selection import greedy
from .relative import MINIMUM, SEED, TransferModel, drawn, profile_command

__all__ = ["choose_networks", "fit_from_ready"]

Floats = npt.NDArray[np.float64]

_LEAST = 0.05  # of its common factor a term costs at least
_LEVEL = 10.0  # standard deviation of the factor when networks are chosen
_MOST = 1000
_POOL = 150  # random networks of which they are chosen
_GOALS = 100  # random networks that stand for the space
_BELIEF = 5.0  # networks that the expected scatter counts for, beside those measured
_RANK = 56  # directions of the posterior that are kept


def _shares(times: KernelTimes, observed: Observed) -> tuple[list[Floats], Floats]:
    """Features of networks by kind of deviation, (n, any) each, and the source's ms, (n,).

    Of groups of terms, of single terms, and of what the source's fit left open.
    """
    p = times.posterior
    ms, slopes, by_weight = observed.at(np.exp(p.log_rates), p.weights)
    slopes, by_weight = slopes / ms[:, None], by_weight / ms[:, None]
    return [slopes @ GROUPS, slopes, np.column_stack([slopes, by_weight]) @ p.factor], ms


@one_thread
def choose_networks(
    source: LatencyModel, space: SearchSpace, count: int, known: Sequence[Architecture] = ()
) -> tuple[Architecture, ...]:
    """Networks of a space to measure on a new device, the most informative first.

    Args:
        source: Model of a ready phone.
        space: Whose networks shall be predicted.
        count: Of networks in all, those known among them.
        known: What is measured already; it is not chosen again.
    Raises:
        InvalidArgument: Fewer than 5, or more than 1,000.
    """
    if not MINIMUM <= count <= _MOST:
        raise InvalidArgument(
            f"measurements on a device like {source.device}: {MINIMUM} to {_MOST} networks, got "
            f"{count}"
        )
    assert isinstance(source.times, KernelTimes)
    rng = np.random.default_rng(SEED)
    pool = dict.fromkeys(known)
    pool |= dict.fromkeys(space.decode(g) for g in space.sample(rng, max(_POOL, 4 * count)))
    networks, goals = list(pool), drawn(space, SEED + 2)[:_GOALS]
    observed = Observed([zoo.kernels(n) for n in (*networks, *goals)], source.times.basis)
    features, _ = _shares(source.times, observed)
    level = np.full((len(networks) + len(goals), 1), _LEVEL)
    sizes = np.sqrt([SHARED[1], OWN[1], 1.0])
    every = np.hstack([level, *(s * f for s, f in zip(sizes, features, strict=True))])
    mine, theirs = every[: len(networks)], every[len(networks) :]
    noise = np.full(len(networks), source.times.profile.noise**2)
    more = max(0, count - len(known))
    chosen = greedy(mine @ mine.T, theirs @ mine.T, noise, more, range(len(known)))
    return tuple(networks[i] for i in chosen)


@one_thread
def fit_from_ready(
    source: LatencyModel,
    conditions: Conditions,
    measurements: Sequence[Measurement],
    space: SearchSpace | None = None,
) -> TransferModel:
    """A model of a new device from a ready phone's and from whole networks measured on it.

    Args:
        source: Model of the ready phone.
        conditions: What the new device was measured under.
        measurements: Of the new device; operators and kernels alone take no part.
        space: Whose networks `expected_mape` is about; by default those measured.
    Raises:
        NotEnoughData: Fewer than 5 networks whose kernels are known.
    """
    assert isinstance(source.times, KernelTimes)
    networks, _ = known_networks(measurements)
    if len(networks) < MINIMUM:
        raise NotEnoughData(
            f"{len(networks)} whole networks are too few to predict {conditions.device} from "
            f"{source.device}; it takes {MINIMUM}. Measure more:  "
            + profile_command(conditions, source.device, 20)
            + " --space mnasnet"
        )
    times = source.times
    observed = Observed([zoo.kernels(n.network) for n in networks], times.basis)
    features, by_source = _shares(times, observed)
    measured = np.array([n.measurement.latency_ms for n in networks])
    ratios = measured / by_source
    common = float(np.median(ratios))
    tried = np.array(list(product(SHARED, OWN, NOISES)))
    noise = tried[:, 2]
    hypotheses = Hypotheses(
        offsets=np.zeros((len(tried), len(measured))),
        features=features,
        variances=np.column_stack([tried[:, :2], np.full(len(tried), times.scale**2)]),
        noise=noise[:, None] * ratios / common,
        shares=np.exp(-(np.log(noise / times.profile.noise) ** 2) / 2),
    )
    averaged = Averaged.of(ratios / common, hypotheses)
    off, deviation = averaged.left_out()
    squares = (off / deviation) ** 2
    scale = float(np.sqrt((_BELIEF + squares.sum()) / (_BELIEF + len(squares))))
    scatter = np.sqrt(NOISE_VARIANCE * float(averaged.shares @ noise[averaged.at] ** 2))
    moved = replace(
        times,
        conditions=conditions,
        profile=replace(times.profile, noise=float(scatter)),
        posterior=_moved(times, averaged, features, common),
        scale=scale,
    )
    goals = [n.network for n in networks] if space is None else drawn(space, SEED + 1)
    expected = moved.whole(moved.rows(goals))
    mean_error = TO_MEAN * float(np.mean(expected.high_ms / expected.ms - 1)) / Z90
    left_out = common * (ratios / common - off) * by_source
    left_out = np.maximum(left_out, _LEAST * common * by_source)
    spread = deviation * common * by_source / left_out
    # The noise of one that stands apart is its own; the others' tells how far it may.
    usual = np.minimum(spread, 2 * np.median(spread))
    odd = contradicted([n.measurement for n in networks], left_out, usual, MINIMUM)
    if odd:
        names = {o.subject for o in odd}
        rest = [m for m in measurements if m.subject not in names]
        without = fit_from_ready(source, conditions, rest, space)
        outliers = (*odd, *without.model.outliers)
        return replace(without, model=replace(without.model, outliers=outliers))
    half = Z90 * scale * spread
    rows = np.stack([left_out, left_out / (1 + half), left_out * (1 + half), measured])
    last = max((n.measurement for n in networks), key=lambda m: m.entry)
    model = LatencyModel(
        times=moved,
        calibration=calibration_of(moved, measured),
        examined=tuple(
            Examined(n.measurement.subject, *map(float, row))
            for n, row in zip(networks, rows.T, strict=True)
        ),
        scores=_scores(networks, rows, by_source, observed.macs),
        measurements=len(networks),
        until=last.at,
        last=last.entry,
    )
    return TransferModel(model, source.device, mean_error, common, 0, len(networks))


def _moved(
    times: KernelTimes, averaged: Averaged, features: Sequence[Floats], common: float
) -> Posterior:
    """Rates and corrections of the new device, and what remains open of them."""
    p, many = times.posterior, len(times.posterior.log_rates)
    size = many + len(p.weights)
    # Deviations of each kind in the space of rates and corrections, (size, any).
    turns = [np.zeros((size, GROUPS.shape[1])), np.zeros((size, many)), p.factor]
    turns[0][:many], turns[1][:many] = GROUPS, np.eye(many)
    mean = np.zeros(size)
    spread = np.zeros((size, size))
    every = np.zeros((len(averaged.shares), size))
    priors = [t @ t.T for t in turns]
    across = [t @ f.T for t, f in zip(turns, features, strict=True)]
    for i, share in enumerate(averaged.shares):
        v, inverse = averaged.variances[i], averaged.inverses[i]
        reach = np.sum([w * a for w, a in zip(v, across, strict=True)], axis=0)
        summed = inverse.sum(axis=1)
        # The level is a factor of all rates: its error moves them against it.
        lever = -(reach @ summed)
        lever[:many] += 1.0
        every[i] = reach @ averaged.pulls[i]
        every[i, :many] += averaged.levels[i]
        prior = np.sum([w * c for w, c in zip(v, priors, strict=True)], axis=0)
        spread += share * (prior - reach @ inverse @ reach.T)
        spread += share * np.outer(lever, lever) / summed.sum()
        mean += share * every[i]
    spread += (averaged.shares[:, None] * (every - mean)).T @ (every - mean)
    factor = np.maximum(mean[:many], _LEAST)
    spread[:many] /= factor[:, None]
    spread[:, :many] /= factor
    values, vectors = np.linalg.eigh((spread + spread.T) / 2)
    kept = slice(-min(_RANK, len(values)), None)
    return Posterior(
        log_rates=p.log_rates + np.log(common * factor),
        weights=p.weights + mean[many:],
        factor=vectors[:, kept] * np.sqrt(np.maximum(values[kept], 0)),
    )


def _scores(
    networks: Sequence[KnownNetwork], rows: Floats, by_source: Floats, macs: Floats
) -> dict[str, Score]:
    """Of the model, of the ready phone's times one factor, of MACs; each network left out."""
    measured = rows[3]
    rest = [np.arange(len(measured)) != i for i in range(len(measured))]
    ratios = measured / by_source
    scaled = [ms * np.median(ratios[r]) for ms, r in zip(by_source, rest, strict=True)]
    by_macs = score([line(macs[r], measured[r], macs[~r])[0] for r in rest], measured)
    noise = noise_of([n.measurement for n in networks])
    return {
        "model": score(rows[0], measured, rows[1], rows[2], noise=noise, macs_mape=by_macs.mape),
        "relative": score(scaled, measured, noise=noise),
        "macs": by_macs,
    }
