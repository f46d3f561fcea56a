"""The fit of a model of any network on kernels, and which kernels to measure next."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.data.measurement import Conditions, Measurement, SubjectKind
from phonenas.space import Architecture, Kernel, zoo
from phonenas.space.errors import InvalidArgument, NotEnoughData, PhonenasError
from phonenas.space.kernels.prior import near, sample
from phonenas.space.kernels.random_cnn import RandomCNN

from .calibration import UNCALIBRATED, folds
from .gaussian_process import one_thread
from .graphs.onnx_cut import OnnxNetwork, cut
from .graphs.onnx_layout import code, padded
from .kernel_terms import TERMS, solved
from .measured_kernels import MeasuredKernels, cut_network
from .metrics import Z90, half_widths, quantile90, score
from .model import LatencyModel
from .outliers import Outlier, by_speed, odd_networks
from .predicted import Examined
from .tabular import relative_line
from .units.kernel_regressor import MINIMUM, KernelRegressor

__all__ = [
    "FITTED_ON",
    "finer",
    "fit_kernels",
    "fit_on",
    "kernel_times",
    "network_of",
    "networks_left_out",
    "small_kernels",
]

log = logging.getLogger("phonenas")
FITTED_ON: tuple[SubjectKind, ...] = ("kernel", "onnx", "network")  # kinds of subjects
Floats = npt.NDArray[np.float64]
Whole = tuple[OnnxNetwork, float]
_UNKNOWN = 0.5  # error bar of a network that was measured in one round
_FOLDS = 4
_MOST_NETWORKS = 60  # of each sort
_FEW_NETWORKS = 16
_OWN_NUMBERS = 1_000_000  # small networks whose kernels are measured, and which are not themselves
_FEWEST = 8  # networks: with fewer the coefficients are the usual ones, and the interval is wide
_RUN_SHARE, _RUN_QUANTILE = 0.9, 0.02  # the fixed cost, by the fastest kernels


@one_thread
def fit_kernels(
    conditions: Conditions, measurements: Sequence[Measurement], leave_out: Container[str] = ()
) -> LatencyModel:
    """Fit a model of any network on what one device's store holds under its conditions.

    The regressor is fitted on kernels; the step to the whole on random networks, and on networks
    of the spaces.

    Args:
        conditions: Of the measurements.
        measurements: Of any kind; those of no use are passed over.
        leave_out: Subjects of networks that it must not be fitted on, as those of a test.
    Raises:
        NotEnoughData: Fewer than 20 kernels.
    """
    measurements, _ = by_speed(measurements)
    times = kernel_times(measurements)
    if len(times) < MINIMUM:
        raise NotEnoughData(
            f"{len(times)} kernels are measured; a model by kernels needs {MINIMUM}, and some 300 "
            "to be accurate. Measure them:  phonenas profile --device DEVICE --kernels 400"
        )
    wholes: dict[str, list[tuple[OnnxNetwork, float, float]]] = {"onnx": [], "network": []}
    subjects: dict[str, dict[str, Any]] = {}
    for m in measurements:
        same = wholes.get(m.kind)
        if same is None or m.subject in leave_out or len(same) >= _MOST_NETWORKS:
            continue
        if (network := network_of(m)) is not None:
            spread = _UNKNOWN if m.spread != m.spread else m.spread
            same.append((network, m.latency_ms, spread / Z90))
            subjects[str(network)] = {"kind": m.kind, "subject": m.subject}
    # Random networks are of many styles, a space's of one: it must not outnumber them.
    of_spaces = wholes["network"][: max(len(wholes["onnx"]), _FEW_NETWORKS)]
    chosen = [*wholes["onnx"], *of_spaces]
    model = fit_on(conditions, times, [c[:2] for c in chosen], [noise for *_, noise in chosen])
    used = [m for m in measurements if m.kind in FITTED_ON]
    last = max(used, key=lambda m: m.entry)
    return replace(
        model,
        outliers=tuple(replace(o, **subjects.get(o.subject, {})) for o in model.outliers),
        examined=tuple(replace(e, network=subjects[e.network]["subject"]) for e in model.examined),
        measurements=len(used),
        until=last.at,
        last=last.entry,
    )


def fit_on(
    conditions: Conditions,
    kernel_ms: Mapping[Kernel, float],
    networks: Sequence[Whole] = (),
    noise: Sequence[float] = (),
) -> LatencyModel:
    """Fit on kernels measured alone, ms, and networks measured whole, ms.

    The score is by ten-fold cross-validation over the networks.

    Args:
        conditions: What they were measured under.
        kernel_ms: Of each kernel.
        networks: n of them, each with its time.
        noise: Standard error of each of these times, (n,), relative; by default 0.
    Raises:
        NotEnoughData: Fewer than 20 kernels.
    """
    kernels = list(kernel_ms)
    ms = np.array([kernel_ms[k] for k in kernels], float)
    plain = KernelRegressor.fit(kernels, ms)
    in_blocks = KernelRegressor.fit([padded(k) for k in kernels], ms, [code(k) for k in kernels])
    blocks = in_blocks.mape < plain.mape
    times = MeasuredKernels(
        conditions=conditions,
        regressor=in_blocks if blocks else plain,
        blocks=blocks,
        measured=frozenset(k.key for k in kernels),
        run_ms=_RUN_SHARE * float(np.quantile(ms, _RUN_QUANTILE)),
        coefficients=tuple(expected for expected, *_ in TERMS.values()),
        spread=np.diag([deviation**2 for _, deviation, *_ in TERMS.values()]),
    )
    odd = _odd_kernels(times, kernel_ms)
    if len(networks) >= _FEWEST:
        wrong = odd_networks(
            [str(n) for n, _ in networks],
            np.array([whole for _, whole in networks], float),
            np.array([times.shares_ms(n).sum() for n, _ in networks]),
            "onnx",
        )
        odd += wrong
        names = {o.subject for o in wrong}
        kept = [i for i, (n, _) in enumerate(networks) if str(n) not in names]
        networks, noise = [networks[i] for i in kept], [noise[i] for i in kept] if noise else []
    bare = LatencyModel(times=times, calibration=UNCALIBRATED, outliers=tuple(odd))
    if len(networks) < _FEWEST:
        return bare
    own = np.array(noise, float) if noise else np.zeros(len(networks))
    return _calibrated(bare, times, networks, own)


def _calibrated(
    bare: LatencyModel, times: MeasuredKernels, networks: Sequence[Whole], noise: Floats
) -> LatencyModel:
    """With coefficients fitted on whole networks, and its score, each left out once."""
    whole = np.array([ms for _, ms in networks], float)
    terms = [times.terms(n) for n, _ in networks]
    fold, macs = folds(len(whole)), np.array([n.macs for n, _ in networks], float)
    predicted, deviation, line = np.empty((3, len(whole)))

    def fitted(rows: npt.NDArray[np.intp]) -> MeasuredKernels:
        solution, spread, error = solved(
            [terms[i] for i in rows.tolist()], whole[rows], noise[rows]
        )
        return replace(times, coefficients=tuple(map(float, solution)), spread=spread, error=error)

    for k in range(fold.max() + 1):
        out, rest = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
        part = fitted(rest)
        rows = part.rows([networks[i][0] for i in out.tolist()])
        predicted[out] = rows[:, 0]
        deviation[out] = part.deviations(rows, whole[rest].min(), whole[rest].max())
        line[out] = relative_line(macs[rest], whole[rest], macs[out])
    # What a network's own noise explains is not the model's error.
    scale = quantile90(np.abs(np.log(whole / predicted)) / np.hypot(deviation, noise))
    half = half_widths(scale * deviation)
    columns = np.stack([predicted, predicted / (1 + half), predicted * (1 + half), whole])
    by_macs = score(line, whole)
    own = score(predicted, whole, columns[1], columns[2], macs_mape=by_macs.mape)
    return replace(
        bare,
        times=replace(fitted(np.arange(len(whole))), interval_scale=scale),
        calibration=replace(
            UNCALIBRATED,
            half_width=0.0,
            low_ms=float(whole.min()),
            high_ms=float(whole.max()),
            networks=len(whole),
        ),
        examined=tuple(
            Examined(str(n), *map(float, column))
            for (n, _), column in zip(networks, columns.T, strict=True)
        ),
        scores={"model": own, "macs": by_macs},
    )


def _odd_kernels(times: MeasuredKernels, kernel_ms: Mapping[Kernel, float]) -> list[Outlier]:
    """The kernels that the regressor left out: similar ones contradict them."""
    known = set(times.regressor.kernels)
    odd = [k for k in kernel_ms if times.seen(k) not in known]
    expected = times.alone_ms(odd) if odd else ()
    pairs = zip(odd, expected, strict=True)
    return [Outlier("kernel", k.key, kernel_ms[k], float(ms)) for k, ms in pairs]


def networks_left_out(measurements: Iterable[Measurement]) -> list[str]:
    """Whole networks that `fit_kernels` cannot use: their files are not in the store."""
    left_out = []
    for m in (m for m in measurements if m.kind == "onnx"):
        try:
            if zoo.named(m.subject) is None:
                RandomCNN.parse(m.subject)
        except InvalidArgument:
            left_out.append(m.subject)
    return left_out


def kernel_times(measurements: Sequence[Measurement]) -> dict[Kernel, float]:
    """Kernels measured alone, ms."""
    return {Kernel.parse(m.subject): m.latency_ms for m in measurements if m.kind == "kernel"}


def network_of(measurement: Measurement) -> OnnxNetwork | None:
    """A measured network, cut; None for other subjects and for files that only their owner has."""
    m = measurement
    try:
        if m.kind == "network":
            return cut_network(Architecture.parse(m.subject))
        if m.kind == "onnx":
            named = zoo.named(m.subject)
            return (
                cut(RandomCNN.parse(m.subject).to_onnx()) if named is None else cut_network(named)
            )
    except InvalidArgument:
        return None
    return None


def small_kernels(n: int, seed: int = 0) -> list[Kernel]:
    """Draw n distinct kernels of small random networks, which `sample` hardly reaches.

    A longer draw with the same seed begins with the shorter one.
    """
    rng, chosen = np.random.default_rng([seed, 6]), dict[Kernel, None]()
    for number in range(2 * n):
        if len(chosen) >= n:
            break
        network = RandomCNN(_OWN_NUMBERS * (1 + seed % 900) + number, small=True)
        kernels = [k for k in dict.fromkeys(cut(network.to_onnx()).kernels) if k not in chosen]
        for i in rng.permutation(len(kernels))[:2]:
            chosen[kernels[int(i)]] = None
    return list(chosen)[:n]


@one_thread
def finer(kernel_ms: Mapping[Kernel, float], n: int, seed: int = 0) -> list[Kernel]:
    """Kernels to measure next: similar to those that a fit on the others predicts worst.

    A kernel whose fold cannot be fitted counts as one that is predicted as badly as any.

    Args:
        kernel_ms: What was measured, ms.
        n: How many to choose, ≥ 0.
        seed: Of all random choices.
    Source of the idea: Zhang et al., nn-Meter, MobiSys 2021, adaptive data sampling.
    """
    kernels = [k for k in kernel_ms if k.kind != "node"]  # those are of files
    if len(kernels) < 2 * MINIMUM:
        return [k for k in sample(n + len(kernels), seed + 1) if k not in kernel_ms][:n]
    times = np.array([kernel_ms[k] for k in kernels])
    rng = np.random.default_rng([seed, 5])
    fold = rng.permutation(len(kernels)) % _FOLDS
    errors = np.ones(len(kernels))
    for k in range(_FOLDS):
        rest, out = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        try:
            regressor = KernelRegressor.fit([kernels[i] for i in rest], times[rest])
        except PhonenasError as error:
            log.warning(
                "kernels %d of %d could not be examined, and count as badly predicted: %s",
                len(out),
                len(kernels),
                error,
            )
            continue
        predicted = regressor.predict_ms([kernels[i] for i in out])
        errors[out] = np.abs(np.log(predicted / times[out]))
    # A large error matters, and more so where the kernel takes long; one odd kernel never takes
    # all.
    weight = np.minimum(errors, 1.0) * np.sqrt(np.minimum(times, 20.0)) + 1e-6
    chosen: dict[str, Kernel] = {}
    for _ in range(50 * n):
        if len(chosen) >= n:
            break
        kernel = near(kernels[int(rng.choice(len(kernels), p=weight / weight.sum()))], rng)
        if kernel not in kernel_ms:
            chosen.setdefault(kernel.key, kernel)
    return list(chosen.values())
