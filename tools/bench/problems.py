"""Search problems whose exact front is known: tables of others, spaces, and made-up traps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas import search, space
from phonenas.latency_model import ready
from phonenas.search.benchmarks import table
from phonenas.search.benchmarks.table_space import TableSpace
from phonenas.search.pareto import hypervolume

__all__ = ["PROBLEMS", "AdditiveProblem", "permuted", "problem", "shares"]

SHARED = Path(__file__).parents[3] / "shared" / "data"
Floats = npt.NDArray[np.float64]
_STALE_ASKS = 200  # asks in a row that bring nothing new
_SAMPLED = 10_000  # networks whose worst losses are the corner of a space


@dataclass(frozen=True)
class AdditiveProblem:
    """A whole space of ours, with the latency of a ready phone and the additive accuracy.

    Both are sums, so that the exact front is computed. Losses are scaled to the box between the
    front's best and the worst of 10,000 random networks; what lies beyond gains nothing.

    Args:
        space: Which.
        phone: A ready phone by name.
    """

    space: space.SearchSpace
    phone: str

    @cached_property
    def _sums(self) -> tuple[Any, Any]:
        latency = ready.load(self.phone).on(self.space)
        return latency, search.accuracy.Additive().table(self.space)

    @cached_property
    def _box(self) -> tuple[Floats, Floats, Floats]:
        """Best and worst losses, and those of the exact front."""
        latency, gain = self._sums
        exact = search.exact_front(self.space, latency, gain)
        front = np.column_stack([1 - exact.gain, exact.cost])
        drawn = self.space.sample(np.random.default_rng(0), _SAMPLED)
        worst = np.column_stack([1 - gain(drawn), latency(drawn)]).max(axis=0)
        return front.min(axis=0), worst, front

    def losses(self, genomes: space.Genomes) -> Floats:
        """(n, 2), scaled; in [0, 1] but for the few that are worse than all that were drawn."""
        latency, gain = self._sums
        low, worst, _ = self._box
        raw = np.column_stack([1 - gain(genomes), latency(genomes)])
        return np.asarray((raw - low) / (worst - low), np.float64)

    def hypervolume(self, losses: Floats | None = None) -> float:
        """Of some losses, or of the exact front."""
        if losses is None:
            low, worst, front = self._box
            losses = (front - low) / (worst - low)
        return hypervolume(losses, (0.0, 0.0), (1.0, 1.0))

    def walk(self, strategy: search.Strategy, evaluations: int) -> Floats:
        """Losses of the distinct networks that a new strategy asks for, in order."""
        strategy.start(self.space)
        seen, found, stale = set[bytes](), list[Floats](), 0
        while len(seen) < evaluations and stale < _STALE_ASKS:
            genomes = strategy.ask(evaluations - len(seen))
            if not len(genomes):
                break
            told, before = self.losses(genomes), len(seen)
            strategy.tell(genomes, told, np.zeros(len(genomes)))
            for key, loss in zip(self.space.keys(genomes), told, strict=True):
                if key not in seen:
                    seen.add(key)
                    found.append(loss)
            stale = 0 if len(seen) > before else stale + 1
        return np.array(found[:evaluations])


def shares(
    problem: table.Table | AdditiveProblem, strategy: search.Strategy, budgets: list[int]
) -> list[float]:
    """Share of the exact front's hypervolume that a new strategy finds with each budget."""
    whole = problem.hypervolume()
    if isinstance(problem, AdditiveProblem):
        losses = problem.walk(strategy, max(budgets))
        return [problem.hypervolume(losses[:b]) / whole for b in budgets]
    rows = table.walk(strategy, problem, max(budgets)).rows
    return [problem.hypervolume(rows[:b]) / whole for b in budgets]


def permuted(problem: table.Table, seed: int) -> table.Table:
    """The same table, its options named by words and numbered anew by chance."""
    rng = np.random.default_rng(seed)
    genomes, decisions = problem.space.genomes.copy(), {}
    for i, (name, options) in enumerate(problem.space.decisions.items()):
        order = rng.permutation(len(options)).astype(np.int8)
        genomes[:, i] = order[genomes[:, i]]
        decisions[name] = tuple(f"option{int(rng.integers(1000))}-{j}" for j in range(len(options)))
    return table.Table(TableSpace(decisions, genomes), problem.values)


def _published(file: str, genes: str, quality: str, cost: str) -> table.Table:
    """A table of others; a cost that is a throughput, per second, becomes ms."""
    import pandas as pd

    frame = pd.read_csv(SHARED / file)
    if cost.startswith("throughput"):
        frame[cost] = 1000 / frame[cost]
    return table.read(frame, genes=[genes], maximize=quality, minimize=cost)


def _made(
    top1_of: Callable[[Any, Any], Floats], steps: int = 0, cost_steps: int = 0
) -> table.Table:
    """Every genome of six genes with five options: 15,625.

    The cost is a sum over genes; the quality is given by codes (n, 6) and a generator, and rests
    in part on the cost, so that both are in conflict. Steps round them, for ties.
    """
    rng = np.random.default_rng(2026)
    codes = np.stack(np.meshgrid(*[range(5)] * 6, indexing="ij"), -1).reshape(-1, 6)
    cost = rng.uniform(0.2, 2.0, (6, 5))[range(6), codes].sum(axis=1)
    cost = 5 * np.exp(0.15 * (cost - cost.mean()))
    top1 = top1_of(codes, rng) + 0.04 * np.log(cost)
    top1 = np.clip(top1, 0.1, 0.99)
    if steps:
        top1 = np.round(top1 * steps) / steps
    if cost_steps:
        cost = np.round(cost * cost_steps) / cost_steps
    decisions = {f"g{i}": tuple("vwxyz") for i in range(6)}
    return table.Table(TableSpace(decisions, codes.astype(np.int8)), np.column_stack([top1, cost]))


def _additive(codes: Any, rng: np.random.Generator) -> Floats:
    """A sum over genes, with noise of its own for each network."""
    worth = rng.normal(0, 0.02, (6, 5))[range(6), codes].sum(axis=1)
    return np.asarray(0.7 + worth + rng.normal(0, 0.005, len(codes)), np.float64)


def _fatal(codes: Any, rng: np.random.Generator) -> Floats:
    """Three options of one gene leave an accuracy of chance; they are cheap besides."""
    return np.where(np.isin(codes[:, 2], [0, 2, 3]), 0.1, _additive(codes, rng))


def _epistasis(codes: Any, rng: np.random.Generator) -> Floats:
    """Kauffman's NK landscape: the worth of each gene's option rests on two other genes."""
    total = np.zeros(len(codes))
    for i in range(6):
        worth = rng.normal(0, 0.03, (5, 5, 5))
        total += worth[codes[:, i], codes[:, (i + 1) % 6], codes[:, (i + 3) % 6]]
    return np.asarray(0.7 + total, np.float64)


def _valley(codes: Any, rng: np.random.Generator) -> Floats:
    """Flat but for noise, until four genes or more agree with a hidden genome."""
    agree = (codes == rng.integers(0, 5, 6)).sum(axis=1)
    rise = np.array([0, 0, 0, 0, 0.1, 0.2, 0.3])[agree]
    return np.asarray(0.5 + rise + rng.normal(0, 0.003, len(codes)), np.float64)


def _on(made: Callable[[], space.SearchSpace], phone: str) -> AdditiveProblem:
    return AdditiveProblem(made(), phone)


_NB201 = partial(_published, "nb201_pi5_ninapro.csv", "edge*", "acc_ninapro")
_MACRO = partial(_published, "nasbench_macro.csv", "l*", "mean_acc")
_ACCEL = partial(_published, "accel_nasbench.csv", "block*", "val_top1")
PROBLEMS: dict[str, Callable[[], table.Table | AdditiveProblem]] = {
    "nb201-pi5 onnx": partial(_NB201, "ms_onnx"),
    "nb201-pi5 litert": partial(_NB201, "ms_litert"),
    "nb201-pi5 torch": partial(_NB201, "ms_torchmobile"),
    "macro params": partial(_MACRO, "params"),
    "macro flops": partial(_MACRO, "flops"),
    "accel zcu102": partial(_ACCEL, "latency_zcu102_mean"),
    "accel vck190": partial(_ACCEL, "latency_vck190_mean"),
    "accel a100": partial(_ACCEL, "throughput_a100_mean"),
    "accel 3090": partial(_ACCEL, "throughput_3090_mean"),
    "accel tpuv2": partial(_ACCEL, "throughput_tpuv2_mean"),
    "accel tpuv3": partial(_ACCEL, "throughput_tpuv3_mean"),
    "mnasnet pixel4": partial(_on, space.MnasNet, "pixel4/tflite/cpu-1large/float32"),
    "mnasnet s10 int8": partial(_on, space.MnasNet, "s10/tflite/cpu-1large/int8"),
    "mnasnet iphonexs gpu": partial(_on, space.MnasNet, "iphonexs/tflite/gpu/float32"),
    "made additive": partial(_made, _additive),
    "made fatal": partial(_made, _fatal),
    "made epistasis": partial(_made, _epistasis),
    "made ties": partial(_made, _additive, 50, 2),
    "made valley": partial(_made, _valley),
}


def problem(name: str) -> table.Table | AdditiveProblem:
    """A problem by name."""
    return PROBLEMS[name]()
