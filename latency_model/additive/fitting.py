"""A latency model from whole networks alone, scored with each family of networks left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from phonenas.data.measurement import WHOLE, Conditions, Measurement
from phonenas.space import Architecture, zoo
from phonenas.space.errors import PhonenasError
from phonenas.space.graph import NetworkGraph

from ..calibration import MINIMUM, folds
from ..gaussian_process import one_thread
from ..metrics import Z90, Score, half_widths, quantile90, score
from ..model import LatencyModel
from ..outliers import contradicted
from ..predicted import Examined
from ..tabular import relative_line
from .process import Basis, Observed, Profile, fit, profile_of
from .terms import TERMS
from .times import KernelTimes, calibration_of

__all__ = ["KnownNetwork", "fit_networks", "known_networks"]

Floats = npt.NDArray[np.float64]

_EARNED = 0.75  # ratio of products of errors from which the wide profile is taken
_LOOK = 0.82  # ratio of errors on single networks from which it is tried on families
_FOLDS = 40  # more families than these are left out in groups
_LEAST_MS = 1e-6  # of the line in MACs
_SCALES = (0.5, 4.0)  # of the interval, least and greatest
_FAMILY = re.compile(r"[a-z]+(?:-v\d)?")


@dataclass(frozen=True)
class KnownNetwork:
    """A measured network whose kernels are known.

    Args:
        network: Of blocks, or a graph of the zoo.
        family: Networks of one family are left out together.
        measurement: Its time.
    """

    network: Architecture | NetworkGraph
    family: str
    measurement: Measurement


def known_networks(
    measurements: Sequence[Measurement],
) -> tuple[list[KnownNetwork], list[Measurement]]:
    """Networks whose kernels are known from their text, and those that are known as files alone."""
    known, others = [], []
    for m in measurements:
        if m.kind not in WHOLE:
            continue
        try:
            network = zoo.parse(m.subject)
        except PhonenasError:  # an ONNX file's name and digest
            others.append(m)
            continue
        row = m.rounds[-1].telemetry.get("row")
        known.append(KnownNetwork(network, _family(network, str(row) if row else ""), m))
    return known, others


def _family(network: Architecture | NetworkGraph, row: str) -> str:
    """By the name that the table gave it; else networks that differ in widths alone are one."""
    if row in zoo.edge_names():
        return zoo.edge_family(row)
    if isinstance(network, NetworkGraph):
        match = _FAMILY.match(network.name)
        return match[0] if match else network.name
    mine = _skeleton(network)
    return next((n for n in zoo.names() if _skeleton(zoo.network(n)) == mine), mine)


def _skeleton(network: Architecture) -> str:
    """Its layers without their widths."""
    layers = (
        f"{o.kind}{o.expansion}_k{o.kernel}_s{o.stride}" + "_se" * (o.se_channels > 0)
        for o in network.operators()
    )
    return " ".join(layers)


@one_thread
def fit_networks(conditions: Conditions, networks: Sequence[KnownNetwork]) -> LatencyModel:
    """Fit on networks in hand, all measured under the same conditions, ≥ 10 of them.

    The interval is as wide as the errors on families left out show that it must be; that of each
    family follows from the other families.
    """
    profile = profile_of(conditions.provider, conditions.precision)
    kernels = [zoo.kernels(n.network) for n in networks]
    basis = Basis.of([k for each in kernels for k in each])
    observed = Observed(kernels, basis)
    ms = np.array([n.measurement.latency_ms for n in networks])
    families = [n.family for n in networks]
    fold = _folds(families)
    profiles = (profile, profile.wide())
    drawn = [_left_out(observed, ms, families, folds(len(ms)), p, rank=0) for p in profiles]
    # Whether the wide profile is worth a look; mostly it is not.
    looked = _mean_error(drawn[1], ms) < _LOOK * _mean_error(drawn[0], ms)
    every = [_left_out(observed, ms, families, fold, p) for p in profiles[: 1 + looked]]
    every += every[:1] if not looked else []
    odd = contradicted([n.measurement for n in networks], drawn[0][0], every[0][1], MINIMUM)
    if odd:
        names = {o.subject for o in odd}
        without = fit_networks(
            conditions, [n for n in networks if n.measurement.subject not in names]
        )
        return replace(without, outliers=(*odd, *without.outliers))
    # Of each profile, on families and on single networks left out, (2, 2, n).
    errors = np.abs(np.log(np.array([[one[0] for one in e] for e in (every, drawn)]) / ms))
    taken = [looked and _wide(errors[..., fold != k]) for k in range(fold.max() + 1)]
    chosen = np.array(taken, int)[fold]
    predicted, deviations = np.array(every)[chosen, :, np.arange(len(ms))].T
    by_macs = np.empty(len(ms))
    for k in range(fold.max() + 1):
        out, rest = fold == k, fold != k
        by_macs[out] = relative_line(observed.macs[rest], ms[rest], observed.macs[out])
    off = np.abs(np.log(predicted / ms)) / deviations
    half = np.empty(len(ms))
    for k in range(fold.max() + 1):
        out = fold == k
        half[out] = half_widths(Z90 * _scale(off[~out]) * deviations[out])
    left_out = np.stack([predicted, predicted / (1 + half), predicted * (1 + half), ms])
    if looked and _wide(errors):
        profile = profile.wide()
    times = KernelTimes(
        conditions=conditions,
        profile=profile,
        basis=basis,
        posterior=fit(observed, ms, families, profile),
        scale=_scale(off),
        taught=frozenset(TERMS[int(i)] for i in np.flatnonzero(observed.plain.any(axis=0))),
    )
    several = [f for f in sorted(set(families)) if families.count(f) > 1]
    last = max((n.measurement for n in networks), key=lambda m: m.entry)
    return LatencyModel(
        times=times,
        calibration=calibration_of(times, ms),
        examined=tuple(
            Examined(n.measurement.subject, *map(float, column))
            for n, column in zip(networks, left_out.T, strict=True)
        ),
        scores={"model": _score(left_out), "macs": score(np.maximum(by_macs, _LEAST_MS), ms)},
        by_family={f: _score(left_out[:, [g == f for g in families]]) for f in several},
        measurements=len(networks),
        until=last.at,
        last=last.entry,
    )


def _left_out(
    observed: Observed,
    ms: Floats,
    families: Sequence[str],
    fold: npt.NDArray[np.intp],
    profile: Profile,
    **options: int,
) -> Floats:
    """Each network predicted by a fit on the other folds: ms, and relative deviation, (2, n)."""
    found = np.empty((2, len(ms)))
    for k in range(fold.max() + 1):
        out, rest = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
        some = [families[int(i)] for i in rest]
        posterior = fit(observed.take(rest), ms[rest], some, profile, **options)
        found[0, out], found[1, out] = posterior.predict(observed.take(out), profile)
    return found


def _mean_error(found: Floats, ms: Floats) -> float:
    return float(np.abs(np.log(found[0] / ms)).mean())


def _wide(errors: Floats) -> int:
    """1 where the wide profile's errors are clearly the smaller, families and networks together."""
    usual, wide = errors.mean(axis=2).prod(axis=0)
    return int(wide < _EARNED * usual)


def _score(rows: Floats) -> Score:
    """Of predictions, low and high ends, and measurements, (4, n)."""
    return score(rows[0], rows[3], rows[1], rows[2])


def _folds(families: Sequence[str]) -> npt.NDArray[np.intp]:
    """Of each network, (n,): its family; groups of many families; ten folds of a single one."""
    known = {f: i % _FOLDS for i, f in enumerate(dict.fromkeys(families))}
    if len(known) == 1:
        return folds(len(families))
    return np.array([known[f] for f in families])


def _scale(off: Floats) -> float:
    """What the interval must be multiplied by, from errors in standard deviations, (n,)."""
    return float(np.clip(quantile90(off) / Z90, *_SCALES))
