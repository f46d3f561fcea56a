"""LatencyModel: what a device takes for a network that never ran on it.

Operators give the times of the parts (a lookup table, and a regressor for what it lacks), whole
networks calibrate their sum, and each whole network is predicted once by a model that was not
fitted on it: these predictions are scored. Networks that are not of a space's operators are summed
over kernels, which were measured alone, or follow from whole networks.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.data.documents import Document
from phonenas.data.measurement import NO_ENTRY, Conditions, Entry
from phonenas.space import AdditiveTable, Architecture, Genomes, Operator, SearchSpace, zoo
from phonenas.space.errors import NotEnoughData, UncoveredOperator

from .additive.times import KernelTimes, Network
from .calibration import DIVIDED, Calibration, beyond_range, operator_features
from .graphs.onnx_cut import OnnxNetwork
from .lookup_table import LookupTable, evenly
from .measured_kernels import MeasuredKernels
from .metrics import Score, score
from .operator_times import OperatorTimes
from .outliers import Outlier
from .predicted import Examined, Explained, Predicted
from .units.regressor import Regressor

__all__ = ["Examined", "Explained", "LatencyModel", "OperatorTimes", "Predicted"]

VERSION = 3  # of what a model predicts: before, times were divided by the sentinel's
DOCUMENT = Document("phonenas-latency-model", 4, "latency model", oldest=3, changed=DIVIDED)
BESIDE = "beside"  # key of the model of kernels in the file
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class LatencyModel:
    """Latency of whole networks on one device, under one set of conditions.

    Lifetime: made complete by `fit` or `load`; then only read.

    Args:
        times: Of operators alone; where none is measured, of kernels, from kernels measured alone
            or from whole networks.
        calibration: From their sum to the whole.
        examined: Each whole network, predicted by a model that was not fitted on it.
        scores: "model", "lookup_table" (raw sum of operators) and "macs" (a straight line in
            MACs, fitted on the same networks), each on networks not used to fit it.
        measurements: How many it was fitted on, the sentinel's not counted.
        until: When the last of these was made, ISO 8601.
        last: The store's entry of that.
        outliers: Measurements that the others contradict, left out of the fit.
        by_family: Score of each family of networks, left out whole, where families are known.
        source: Of a model that is shipped: where its measurements were published, their licence
            and date.
        kernels: By kernels measured alone, for networks that are not of a space's operators; None
            where `times` are of kernels, or too few were measured.
    """

    times: OperatorTimes | MeasuredKernels | KernelTimes
    calibration: Calibration
    examined: tuple[Examined, ...] = ()
    scores: Mapping[str, Score] = field(default_factory=dict)
    measurements: int = 0
    until: str = ""
    last: Entry = NO_ENTRY
    outliers: tuple[Outlier, ...] = ()
    by_family: Mapping[str, Score] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)
    kernels: LatencyModel | None = None

    def __repr__(self) -> str:
        parts = f"{len(self.table)} operators, " if self.by_operators else ""
        mape = f", MAPE {s.mape:.1%}" if (s := self.scores.get("model")) else ""
        return (
            f"LatencyModel({self.device}, {self.conditions.precision}, {parts}"
            f"{self.calibration.networks} networks{mape})"
        )

    @property
    def conditions(self) -> Conditions:
        """What it was measured under; it predicts for nothing else."""
        return self.times.conditions

    @property
    def table(self) -> LookupTable:
        """Operators measured."""
        return self.times.table

    @property
    def regressor(self) -> Regressor | None:
        """For operators that were not measured; None if too few were."""
        return self.times.regressor if isinstance(self.times, OperatorTimes) else None

    @property
    def device(self) -> str:
        """Name of the device."""
        return self.conditions.device

    @property
    def calibrated(self) -> bool:
        """Whether it was fitted on whole networks too."""
        return self.calibration.networks > 0

    @property
    def by_operators(self) -> bool:
        """Whether it sums operators measured alone; else it predicts any network's kernels."""
        return isinstance(self.times, OperatorTimes)

    # -- predictions --------------------------------------------------------------------------

    def operators(self, operators: Sequence[Operator]) -> Predicted:
        """Time of each operator alone; see `OperatorTimes.predict`."""
        return self.times.predict(operators)

    def part(self, network: Network) -> LatencyModel:
        """The part that predicts a network: by operators where it is of blocks, else by kernels.

        By kernels also where it holds an operator that cannot be predicted.

        Raises:
            NotEnoughData: It is not of blocks, and no kernels were measured.
        """
        of_blocks = isinstance(network, Architecture)
        if not self.by_operators or (of_blocks and self.kernels is None):
            return self
        if self.kernels is None:
            raise NotEnoughData(
                f"too few kernels of {self.device} are measured to predict networks that are not "
                "of blocks. Measure some:  phonenas profile --device "
                f"{shlex.quote(self.device)} --kernels 400"
            )
        try:
            if of_blocks:
                self.times.check([network])
                return self
        except UncoveredOperator:
            pass
        return self.kernels

    @property
    def part_of_kernels(self) -> LatencyModel | None:
        """The part that was fitted on kernels measured alone: this, the one beside it, or none."""
        return self if isinstance(self.times, MeasuredKernels) else self.kernels

    def predict(self, networks: Sequence[Network]) -> Predicted:
        """Latency of networks, with 90 % intervals.

        Args:
            networks: Of blocks, graphs of the zoo, and files that were cut into kernels.
        Raises:
            UncoveredOperator: A network holds an operator or kernel that it cannot predict.
            NotEnoughData: As `part`.
        """
        parts = [self.part(n) for n in networks]
        if all(part is self for part in parts):
            self.times.check(networks)
            return self.times.whole(self.times.rows(networks), self.calibration)
        each = [part.predict([n]) for part, n in zip(parts, networks, strict=True)]
        columns = ((p.ms, p.low_ms, p.high_ms, p.covered) for p in each)
        return Predicted(*map(np.concatenate, zip(*columns, strict=True)))

    def notes(self, network: Network, ms: float) -> tuple[str, ...]:
        """What was assumed of a network that is predicted to take so many ms."""
        part = self.part(network)
        if part is not self:
            return part.notes(network, ms)
        notes = network.notes if isinstance(network, OnnxNetwork) else ()
        if isinstance(self.times, MeasuredKernels):
            notes += self.times.notes(network)
        if self.extrapolated(ms):
            low, high = self.calibration.low_ms, self.calibration.high_ms
            fitted_on = f"the model was fitted on networks of {low:.3g} to {high:.3g} ms"
            notes += (f"EXTRAPOLATED: {fitted_on}",)
        if not (self.calibrated or self.by_operators):
            notes += ("UNCALIBRATED: fitted on too few whole networks",)
        return notes

    def extrapolated(self, ms: float) -> bool:
        """Whether a time lies outside those of the networks that it was fitted on."""
        return beyond_range(ms, self.calibration.low_ms, self.calibration.high_ms)

    def latency_ms(self, architectures: Sequence[Architecture]) -> Array:
        """Latency of networks, (n,), ms. Raises as `predict`."""
        return self.predict(architectures).ms

    def on(self, space: SearchSpace) -> AdditiveTable:
        """Latency, (n,) ms, by genome, (n, genes), for a space: one table look-up a part.

        Raises:
            UncoveredOperator: The space holds an operator that the model cannot predict.
        """
        times = self.times.ms(space.operators(), _profile(space))
        coefficients = np.asarray(self.calibration.coefficients)
        ms = dict(zip(space.operators(), times, strict=True))
        return AdditiveTable(
            space,
            lambda o: float(np.dot(operator_features(o, ms[o]), coefficients)),
            self.calibration.constant,
            self.calibration.above_zero,
        )

    def intervals(
        self, space: SearchSpace
    ) -> Callable[[Genomes], tuple[Array, Array, npt.NDArray[np.bool_]]]:
        """Low and high end of the 90 % interval in ms and `covered`, each (n,), by genome.

        Raises:
            UncoveredOperator: As `on`.
        """
        self.times.ms(space.operators(), _profile(space))
        table = AdditiveTable(space, self.times.row)

        def ends(genomes: Genomes) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
            predicted = self.times.whole(table(genomes), self.calibration)
            return predicted.low_ms, predicted.high_ms, predicted.covered

        return ends

    def explain(self, network: Network) -> list[Explained]:
        """Where a network's predicted milliseconds go; the shares add up to the prediction."""
        part = self.part(network)
        return part.times.shares(network, part.calibration)

    # -- models from a model ------------------------------------------------------------------

    def scored(
        self, architectures: Sequence[Architecture], measured_ms: Array, noise: float = 0.0
    ) -> LatencyModel:
        """The same model, with its score on whole networks that it was not fitted on, (n,) ms.

        `noise` is the relative scatter of their rounds.
        """
        if not architectures:
            return self
        p = self.predict(architectures)
        rows = zip(architectures, p.ms, p.low_ms, p.high_ms, measured_ms, strict=True)
        examined = tuple(Examined(str(a), *map(float, numbers)) for a, *numbers in rows)
        scores = {"model": score(p.ms, measured_ms, p.low_ms, p.high_ms, noise=noise)}
        return replace(self, examined=examined, scores=scores)

    def scaled(self, factor: float) -> LatencyModel:
        """The same model with every whole network of blocks `factor` times as slow; its score too.

        Other networks, which the part of kernels predicts, keep their time.
        """
        examined = tuple(
            replace(
                e,
                predicted_ms=factor * e.predicted_ms,
                low_ms=factor * e.low_ms,
                high_ms=factor * e.high_ms,
            )
            for e in self.examined
        )
        scores = dict(self.scores)
        if examined:
            columns = ("predicted_ms", "measured_ms", "low_ms", "high_ms")
            new = score(*([getattr(e, name) for e in examined] for name in columns))
            old = scores["model"]
            scores["model"] = replace(new, informative=old.informative, reason=old.reason)
        times, calibration = self.times, self.calibration.scaled(factor)
        if isinstance(times, KernelTimes):  # its own rates predict, and the calibration adds none
            times = times.scaled(factor)
            calibration = replace(calibration, coefficients=self.calibration.coefficients)
        return replace(self, times=times, calibration=calibration, examined=examined, scores=scores)

    def spread_out(self, count: int) -> list[Architecture]:
        """Up to `count` of the networks of its score, evenly from fast to slow."""
        ordered = sorted(self.examined, key=lambda e: (e.measured_ms, e.network))
        parsed = [zoo.parse(e.network) for e in ordered]
        return evenly([a for a in parsed if isinstance(a, Architecture)], count)

    # -- files --------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; `model_file.load` reads it."""
        times, more = self.times, dict[str, Any]()
        if self.outliers:
            more["outliers"] = [asdict(o) for o in self.outliers]
        if isinstance(times, KernelTimes):
            more["source"] = dict(self.source)
            more["by_family"] = {name: s.to_dict() for name, s in self.by_family.items()}
            more["kernels"] = times.to_dict()
        if isinstance(times, MeasuredKernels):
            more["measured_kernels"] = times.to_dict()
        if self.kernels is not None:
            more[BESIDE] = self.kernels.to_dict()
        return {
            "format": DOCUMENT.format,
            "version": DOCUMENT.version,
            "conditions": self.conditions.to_dict(),
            "date": self.table.date,
            "until": self.until,
            "last": list(self.last),
            "measurements": self.measurements,
            "alike": times.error_correlation if isinstance(times, OperatorTimes) else 0.0,
            "operators": {
                o.key: [round(ms, 6), _rounded(self.table.spread[o])]
                for o, ms in self.table.ms.items()
            },
            "calibration": self.calibration.to_dict(),
            "scores": {name: s.to_dict() for name, s in self.scores.items()},
            "examined": self._examined_rows(),
            "regressor": None if self.regressor is None else self.regressor.to_dict(),
            **more,
        }

    def _examined_rows(self) -> list[list[Any]]:
        return [list(vars(e).values()) for e in self.examined]

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that stand for all that it predicts of a space's networks."""
        values = self.to_dict()
        values = {name: value for name, value in values.items() if name not in ("last", BESIDE)}
        # Models of version 3, which had no digest in their files, keep their own.
        text = json.dumps({**values, "version": VERSION}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def save(self, path: str | Path) -> Path:
        """Write it as versioned JSON, atomically; `load` reads it."""
        return DOCUMENT.write(Path(path), self.to_dict(), indent=None)

    def summary(self) -> dict[str, Any]:
        """What a run keeps of the model that predicted for it, ready for JSON.

        Its digest, version and conditions, how much it was fitted on, its scores, and the networks
        of its score as [network, predicted_ms, low_ms, high_ms, measured_ms].
        """
        return {
            "digest": self.digest,
            "version": VERSION,
            "conditions": self.conditions.to_dict(),
            "operators": len(self.table),
            "networks": self.calibration.networks,
            "date": self.table.date,
            "scores": {name: s.to_dict() for name, s in self.scores.items()},
            "examined": self._examined_rows(),
        }


def _rounded(spread: float) -> float | None:
    return None if spread != spread else round(spread, 4)


def _profile(space: SearchSpace) -> str:
    return f"--space {shlex.quote(space.name)} --resolution {space.resolution_px}"
