"""RungEvaluator: an evaluator that trains each network a little, and the best for longer.

A rung is the networks that were trained for so many epochs. After each generation the best third
(of a factor of 3) of a rung goes on to the next, from its own checkpoint: those of the best
non-dominated rank in all losses, among those of one rank the loneliest. No rung waits to be full,
as in ASHA. So who goes on follows from the generations so far alone, not from the order in which
workers give their answers, and a run that stopped goes on to the same end.

Strategies learn what each network is expected to have after all epochs (`learning_curve`); the
record keeps what was read, with the number of epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from phonenas.latency_model import LatencyModel
from phonenas.space import Genomes, SearchSpace

from .accuracy.successive_halving import SuccessiveHalving
from .evaluations import EPOCHS, Evaluations, Generation
from .evaluator import Evaluator
from .learning_curve import expected_top1
from .precisions import PrecisionModels
from .spec import Spec

__all__ = ["RungEvaluator", "promotable"]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]


class RungEvaluator(Evaluator):
    """Evaluates networks by successive halving.

    Args:
        space, latency, spec: As for `search`.
        accuracy: Its steps are the rungs.
    """

    def __init__(
        self,
        space: SearchSpace,
        latency: LatencyModel | PrecisionModels,
        accuracy: SuccessiveHalving,
        spec: Spec,
    ) -> None:
        super().__init__(space, latency, accuracy.steps[0], spec)
        self._rungs, self._factor = np.array(accuracy.rungs), accuracy.factor
        self._steps = [step.on(space) for step in accuracy.steps]
        self._top1: Floats = np.empty((0, len(self._rungs)))
        self._error: Floats = np.empty((0, len(self._rungs)))

    def evaluate(self, genomes: Genomes, cheap: bool = False) -> Evaluations:
        evaluated = super().evaluate(genomes, cheap)
        if cheap:
            return evaluated
        epochs = np.full(len(genomes), float(self._rungs[0]))
        return replace(evaluated, further={**evaluated.further, EPOCHS: epochs})

    def resume(self, evaluated: Evaluations, log: Sequence[Generation], timed: bool) -> None:
        """Evaluate again what was evaluated, generation by generation: the answers are kept."""
        self._evaluate_again(evaluated, log)

    def _end_generation(self) -> bool:
        self._go_on()
        super()._end_generation()
        return True

    def _go_on(self) -> None:
        """Train on, rung by rung, all that are due; and put their numbers in the record."""
        known = self.evaluations()
        if known is None:
            return
        old, failed = len(self._top1), dict(known.failed)
        new = np.full((len(known) - old, len(self._rungs)), np.nan)
        self._top1, self._error = (np.concatenate([v, new]) for v in (self._top1, self._error))
        self._top1[old:, 0], self._error[old:, 0] = known.top1[old:], known.top1_error[old:]
        reached = np.searchsorted(self._rungs, known.further[EPOCHS])
        for rung in range(len(self._rungs) - 1):
            rows = self._due(known, reached, rung)
            if len(rows):
                answer = self._steps[rung + 1](known.genomes[rows])
                self.trained_s += sum(answer.seconds)
                self._top1[rows, rung + 1] = answer.top1
                self._error[rows, rung + 1] = answer.standard_error
                reached[rows] = rung + 1
                reasons = answer.failed or ("",) * len(rows)
                failed |= {int(r): why for r, why in zip(rows, reasons, strict=True) if why}
        at = (np.arange(len(known)), reached)
        further = {**known.further, EPOCHS: self._rungs[reached].astype(np.float64)}
        top1, error = self._top1[at], self._error[at]
        self.update(replace(known, top1=top1, top1_error=error, further=further, failed=failed))

    def _due(self, known: Evaluations, reached: npt.NDArray[np.intp], rung: int) -> Rows:
        """Networks of a rung that go on to the next now."""
        here = np.flatnonzero(~np.isnan(self._top1[:, rung]) & self.spec.met(known))
        if not len(here):
            return here
        top1, error = (np.nan_to_num(v[:, rung]) for v in (self._top1, self._error))
        losses = self.spec.losses(replace(known, top1=top1, top1_error=error, failed={}))
        return here[promotable(losses[here], reached[here] > rung, self._factor)]

    def _observed(self, evaluated: Evaluations) -> tuple[Floats, Floats]:
        known = self.evaluations()
        assert known is not None
        expected, further = expected_top1(self._top1, known.latency_ms)
        rows = [self.rows[key] for key in self.space.keys(evaluated.genomes)]
        top1 = np.where(evaluated.has_top1, expected[rows], np.nan)
        error = np.hypot(evaluated.top1_error, further[rows])
        return super()._observed(replace(evaluated, top1=top1, top1_error=error))


def promotable(losses: Floats, gone: npt.NDArray[np.bool_], factor: int) -> Rows:
    """Rows of a rung that are among the best one in `factor`, and did not go on yet.

    Args:
        losses: Of all networks of the rung, (n, k), finite, all minimised.
        gone: Which went on before, (n,).
        factor: ≥ 2.
    Returns:
        Rows, best first: by non-dominated rank, then by crowding distance, then in order.
    Source: Deb et al., IEEE TEC 6(2), 2002 (rank and distance, by pymoo); Li et al., MLSys 2020.
    """
    from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    quota = len(losses) // factor
    if not quota:
        return np.empty(0, np.intp)
    best: list[int] = []
    for front in NonDominatedSorting().do(losses, n_stop_if_ranked=quota):
        rows = np.sort(np.asarray(front, np.intp))
        lonely = calc_crowding_distance(losses[rows])
        best += rows[np.lexsort((rows, -lonely))].tolist()
    rows = np.array(best[:quota], np.intp)
    return rows[~gone[rows]]
