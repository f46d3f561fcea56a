"""PeakMemory: the memory of a process that runs a network, for networks that never ran there.

A process holds its runtime, the weights once or several times over (as the file has them, and as
they are laid out to compute), and the activations that are needed at once. So its peak is

    runtime + a · bytes of weights + b · bytes of activations at once, at most

with three numbers ≥ 0 that follow from whole networks whose memory was measured. It is trusted
where networks that were left out of the fit are predicted well; elsewhere there is no model.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phonenas.data.measurement import Conditions, Measurement
from phonenas.space import AdditiveTable, Architecture, Genomes, SearchSpace, zoo
from phonenas.space.additive import PeakTable
from phonenas.space.errors import NotEnoughData, PhonenasError

__all__ = ["PeakMemory", "fit_peak_memory"]

Array = npt.NDArray[np.float64]
_BYTES = 4  # of a weight or an activation in float32
_FEWEST = 10  # networks
_MAPE, _WITHIN, _SHARE = 0.05, 0.10, 0.9  # of networks left out: mean error; this share within it


@dataclass(frozen=True)
class PeakMemory:
    """Peak memory of networks of blocks on one device; see the module.

    Args:
        conditions: Under which memory was measured.
        runtime_bytes: Of a process with the runtime alone, ≥ 0.
        per_weight, per_activation: Bytes of memory for each byte of them, ≥ 0.
        networks: How many it was fitted on.
        mape: Mean |predicted - measured| / measured of these, each left out of the fit.
        worst: The greatest of these errors.
    """

    conditions: Conditions
    runtime_bytes: float
    per_weight: float
    per_activation: float
    networks: int
    mape: float
    worst: float

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that stand for all that it predicts."""
        numbers = (self.runtime_bytes, self.per_weight, self.per_activation)
        text = f"{self.conditions.digest} {' '.join(f'{x:.9g}' for x in numbers)}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def predict(self, networks: Sequence[Architecture]) -> Array:
        """Peak memory of networks, (n,), in bytes."""
        return _features(networks) @ self._coefficients

    def on(self, space: SearchSpace) -> Callable[[Genomes], Array]:
        """Peak memory by genome: (n, genes) to (n,), in bytes."""
        weights = AdditiveTable(space, lambda o: _BYTES * o.params)
        activations = PeakTable(space, lambda o: _BYTES * o.peak_activations)
        return lambda genomes: (
            self.runtime_bytes
            + self.per_weight * weights(genomes)
            + self.per_activation * activations(genomes)
        )

    @property
    def _coefficients(self) -> Array:
        return np.array([self.runtime_bytes, self.per_weight, self.per_activation])

    def __str__(self) -> str:
        return (
            f"peak memory from {self.networks} networks, each predicted by the others to "
            f"{self.mape:.1%} (worst {self.worst:.0%})"
        )


def fit_peak_memory(conditions: Conditions, measurements: Sequence[Measurement]) -> PeakMemory:
    """The model of one device.

    Args:
        conditions: Of these measurements.
        measurements: Of any subjects; networks of blocks whose memory was measured count.
    Raises:
        NotEnoughData: Fewer than 10 of these; or, of networks left out of the fit, the mean error
            is above 5 %, fewer than nine in ten are predicted within 10 %, or one number for all
            errs less.
    """
    known: list[tuple[Architecture, float]] = []
    for m in measurements:
        peak = m.startup.peak_bytes if m.kind == "network" else None
        if peak:
            try:
                network = zoo.parse(m.subject)
            except PhonenasError:
                continue  # of a space that is not installed here any more
            if isinstance(network, Architecture):
                known.append((network, float(peak)))
    lacking = f"peak_memory cannot be predicted on {conditions.device}"
    if len(known) < _FEWEST:
        raise NotEnoughData(
            f"{lacking}: the memory of {len(known)} of its networks is known, and {_FEWEST} are "
            "needed. Measure some, then fit again:  phonenas profile --device "
            f"{shlex.quote(conditions.device)} --networks 20 --again"
        )
    x, y = _features([n for n, _ in known]), np.array([peak for _, peak in known])
    each = np.arange(len(y))
    left_out = np.array([x[i] @ _fitted(x[each != i], y[each != i]) for i in each])
    constant = np.array([np.median(y[each != i]) for i in each])
    off, plain = np.abs(left_out / y - 1), np.abs(constant / y - 1)
    mape, within = float(off.mean()), float(np.mean(off <= _WITHIN))
    if mape > _MAPE or within < _SHARE or mape > plain.mean():
        raise NotEnoughData(
            f"{lacking}: of {len(y)} measured networks, each left out of the fit, {within:.0%} are "
            f"predicted within {_WITHIN:.0%}, and the mean error is {mape:.1%} (one number for all "
            f"has {plain.mean():.1%}). Limit peak_activation or params instead; validate measures "
            "the memory"
        )
    runtime, weights, activations = map(float, _fitted(x, y))
    worst = float(off.max())
    return PeakMemory(conditions, runtime, weights, activations, len(y), mape, worst)


def _features(networks: Sequence[Architecture]) -> Array:
    """(n, 3): 1, bytes of weights, bytes of activations at once."""
    return np.array(
        [
            (1, _BYTES * n.params, _BYTES * max(o.peak_activations for o in n.operators()))
            for n in networks
        ],
        np.float64,
    ).reshape(-1, 3)


def _fitted(x: Array, y: Array) -> Array:
    """Three numbers ≥ 0 with the least sum of squared relative errors."""
    from scipy.optimize import nnls

    scale = x.max(axis=0)
    coefficients, _ = nnls(x / scale / y[:, None], np.ones(len(y)))
    found: Array = coefficients / scale
    return found
