"""The kernel model of a device, from its measurements; and which kernels to measure next."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import numpy as np

from ..data.measurement import Measurement
from ..space import Architecture, Kernel
from ..space.errors import InvalidArgument, NotEnoughData, PhonenasError
from ..space.kernel_prior import near, sample
from ..space.random_cnn import RandomCNN
from .kernel_latency import KernelLatencyModel
from .kernel_model import MINIMUM, KernelRegressor
from .onnx_kernels import OnnxNetwork, cut
from .threads import one_thread

__all__ = ["finer", "fit_kernels", "kernel_times", "network_of"]

_FOLDS = 4
_MOST_NETWORKS = 60  # of each sort
_FEW_NETWORKS = 16


@one_thread
def fit_kernels(
    measurements: Sequence[Measurement], leave_out: Container[str] = ()
) -> KernelLatencyModel:
    """Fit a kernel model on what one device's store holds under one set of conditions.

    Kernels teach the curve; random networks, and networks of the spaces, the step to the whole.

    Args:
        measurements: Of any kind; those of no use are passed over.
        leave_out: Subjects of networks that must not teach, as those of an examination.
    Raises:
        NotEnoughData: Fewer than 20 kernels.
    """
    times = kernel_times(measurements)
    if len(times) < MINIMUM:
        raise NotEnoughData(
            f"{len(times)} kernels are measured; a model of any network takes {MINIMUM}, and is good "
            "from some 300 on. Measure them:  phonenas profile --device DEVICE --kernels 400"
        )
    wholes: dict[str, list[tuple[OnnxNetwork, float]]] = {"onnx": [], "network": []}
    for m in measurements:
        found = wholes.get(m.kind)
        if found is None or m.subject in leave_out or len(found) >= _MOST_NETWORKS:
            continue
        if (network := network_of(m)) is not None:
            found.append((network, m.latency_ms))
    # Random networks are of many styles, a space's of one: it must not outnumber them.
    of_spaces = wholes["network"][: max(len(wholes["onnx"]), _FEW_NETWORKS)]
    return KernelLatencyModel.fit(times, [*wholes["onnx"], *of_spaces])


def kernel_times(measurements: Sequence[Measurement]) -> dict[Kernel, float]:
    """Kernels measured alone, ms."""
    return {Kernel.parse(m.subject): m.latency_ms for m in measurements if m.kind == "kernel"}


def network_of(measurement: Measurement) -> OnnxNetwork | None:
    """A measured network, cut; None for other subjects and for files that only their owner has."""
    from ..space.to_onnx import to_onnx

    try:
        if measurement.kind == "network":
            return cut(to_onnx(Architecture.parse(measurement.subject)))
        if measurement.kind == "onnx":
            return cut(RandomCNN.parse(measurement.subject).to_onnx())
    except InvalidArgument:
        return None
    return None


@one_thread
def finer(kernel_ms: Mapping[Kernel, float], n: int, seed: int = 0) -> list[Kernel]:
    """Kernels to measure next: relatives of those that a curve over the others predicts worst.

    Args:
        kernel_ms: What was measured, ms.
        n: How many to choose, ≥ 0.
        seed: Of all chance.
    Source of the idea: Zhang et al., nn-Meter, MobiSys 2021, adaptive data sampling.
    """
    kernels = list(kernel_ms)
    if len(kernels) < 2 * MINIMUM:
        return [k for k in sample(n + len(kernels), seed + 1) if k not in kernel_ms][:n]
    times = np.array([kernel_ms[k] for k in kernels])
    rng = np.random.default_rng([seed, 5])
    fold = rng.permutation(len(kernels)) % _FOLDS
    off = np.zeros(len(kernels))
    for held in range(_FOLDS):
        seen, asked = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
        try:
            curve = KernelRegressor.fit([kernels[i] for i in seen], times[seen])
        except PhonenasError:
            continue
        off[asked] = np.abs(np.log(curve.predict_ms([kernels[i] for i in asked]) / times[asked]))
    # What is wrong by much matters, and more so where it takes long; one odd kernel never takes all.
    weight = np.minimum(off, 1.0) * np.sqrt(np.minimum(times, 20.0)) + 1e-6
    found: dict[str, Kernel] = {}
    for _ in range(50 * n):
        if len(found) >= n:
            break
        kernel = near(kernels[int(rng.choice(len(kernels), p=weight / weight.sum()))], rng)
        if kernel not in kernel_ms:
            found.setdefault(kernel.key, kernel)
    return list(found.values())
