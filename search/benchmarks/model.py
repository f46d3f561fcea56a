"""Strategies that see a model of a table, scored by the table: what a search is worth in use.

In use no strategy sees the truth. So a seed splits the rows. A model of both objectives
(`latency_model.tabular`) is fitted on one share. The strategies search the other rows by the
model's predictions, scaled to [0, 1]. The truth of these rows sets the limits of the cost, at
evenly spread quantiles (midway to the next greater cost), and scores the choices.

For a limit a strategy chooses, of the rows that it had evaluated, the one of the best expected
quality among those that keep the limit with a given chance (0.5 is the bare expectation); if none
does, the one most likely to keep it. *Regret* is how much more true quality the best row within
the limit has, or, where the chosen row truly oversteps it, the best that costs no more than it:
overstepping earns nothing, and no regret is below 0. *Tried* is how many rows must be measured, in
the order in which they would be chosen, until one truly keeps the limit.

Two others stand beside: `all rows`, the model's own choice among all rows, which a strategy reaches
at most, and in `limits` a row within the limit drawn at random. A truth with noise leaves some
regret everywhere, since the best row is the best by luck, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.latency_model.metrics import score
from phonenas.latency_model.tabular import MINIMUM, TabularRegressor, groups_of
from phonenas.space.errors import InvalidArgument, NotEnoughData

from ..strategies import get
from .table import Table, budgets_of, grouped, walk
from .table_space import TableSpace

__all__ = ["ALL_ROWS", "strategies_on_a_model"]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

ALL_ROWS = "all rows"  # the model's own choice, by the name under which it stands


@dataclass(frozen=True)
class _Half:
    """The rows that are searched, with their true values, and the model's predictions of both
    objectives, (n, 2), in their columns' units.
    """

    truth: Table
    expected: Floats
    deviation: Floats

    @property
    def observed(self) -> Table:
        """The rows as strategies see them."""
        return Table(self.truth.space, self.expected)

    def order(self, evaluated: Rows, limit: float, chance: float) -> Rows:
        """Rows evaluated, in the order in which they would be chosen."""
        from scipy.special import ndtri

        quality, cost = self.expected[evaluated, 0], self.expected[evaluated, 1]
        deviation = np.maximum(self.deviation[evaluated, 1], 1e-300)
        keeps = (limit - cost) / deviation
        within = keeps >= ndtri(chance)
        return evaluated[np.lexsort((np.where(within, -quality, -keeps), ~within))]

    def best(self, limit: float) -> float:
        """True quality of the best row within a limit."""
        quality, cost = self.truth.values.T
        return float(quality[cost <= limit].max())

    def scored(self, evaluated: Rows, limit: float, chance: float) -> dict[str, Any]:
        """The choice for a limit, by its true values."""
        order = self.order(evaluated, limit, chance)
        quality, cost = self.truth.values[order].T
        keeps = np.flatnonzero(cost <= limit)
        tried = int(keeps[0]) if len(keeps) else None
        return {
            "quality": float(quality[0]),
            "cost": float(cost[0]),
            "meets": bool(cost[0] <= limit),
            "overstep": max(float(cost[0]) - limit, 0.0),
            "regret": self.best(max(limit, float(cost[0]))) - float(quality[0]),
            "tried": None if tried is None else tried + 1,
            "tried_regret": None if tried is None else self.best(limit) - float(quality[tried]),
        }

    def fit(self) -> list[float]:
        """Rank correlation and root mean square error of the model, of each objective."""
        fit = []
        for expected, true in zip(self.expected.T, self.truth.values.T, strict=True):
            # Shifted: of these two figures neither changes, and the others want positive numbers.
            shift = 1.0 - float(true.min())
            figures = score(expected + shift, true + shift)
            fit += [figures.spearman, figures.rmse_ms]
        return fit


def strategies_on_a_model(
    table: Table,
    *,
    names: Sequence[str],
    evaluations: Sequence[int],
    share: float = 0.5,
    limits: int = 5,
    chances: Sequence[float] = (0.5,),
    seeds: int = 10,
    on_event: Callable[[str, int], None] | None = None,
) -> dict[str, Any]:
    """Let strategies search rows that a model was not fitted on, by the model's predictions.

    Args:
        table: See `benchmark.read`.
        names: Strategies by name.
        evaluations: Budgets of distinct rows, each 1 to the number of rows that are searched.
        share: Of the rows, those that the model is fitted on, in (0, 1); of more than 2,500 it
            takes so many by chance, since its cost grows with their cube.
        limits: How many, k ≥ 1: at the true cost's quantiles (i + 1/2) / k.
        chances: With which a limit is to be kept by the model, each in (0, 1).
        seeds: How many splits, from seed 0, each with one run of each strategy.
        on_event: Called with strategy and seed when a run begins.
    Returns:
        `model`: numbers of rows fitted on (`taught`) and `searched`, and means over seeds of rank
        correlation and root mean square error of each objective on the rows searched.
        `limits`: one for each, means over seeds. `rows`: one for each strategy, seed, budget, limit
        and chance, true values in the columns' units; `tried` and `tried_regret` are None where no
        row keeps the limit. `means`: of `rows` over seeds, with the number of seeds that
        overstepped (`misses`) and their mean `overstep`. `left_out`: rows of the file that lack a
        value or repeat genes.
    Raises:
        UnknownName, InvalidArgument, NotEnoughData: A strategy or a number is out of range.
    """
    fitted_on = _fitted_on(len(table), share)
    budgets = budgets_of(names, evaluations, seeds, len(table) - fitted_on)
    if limits < 1:
        raise InvalidArgument(f"limits: 1 or more, got {limits}")
    for chance in chances:
        if not 0 < chance < 1:
            raise InvalidArgument(f"a chance lies between 0 and 1, got {chance:g}")
    quantiles = (np.arange(limits) + 0.5) / limits
    rows, by_limit, fits = list[dict[str, Any]](), list[Floats](), list[list[float]]()
    for seed in range(seeds):
        half = _split(table, fitted_on, seed)
        quality, cost = half.truth.values.T
        bounds = _limits(cost, quantiles)
        within = [quality[cost <= limit] for limit in bounds]
        blind = [w.max() - w.mean() for w in within]
        by_limit.append(np.column_stack([bounds, [w.max() for w in within], blind]))
        fits.append(half.fit())
        evaluated = {ALL_ROWS: np.arange(len(half.truth))}
        for name in dict.fromkeys(names):
            if on_event is not None:
                on_event(name, seed)
            evaluated[name] = walk(get(name, seed), half.observed, budgets[-1]).rows
        rows += [
            {
                "strategy": name,
                "seed": seed,
                "evaluations": budget,
                "quantile": float(quantile),
                "limit": float(limit),
                "chance": float(chance),
                **half.scored(walked[:budget], float(limit), chance),
            }
            for name, walked in evaluated.items()
            for budget in ([len(walked)] if name == ALL_ROWS else budgets)
            for quantile, limit in zip(quantiles, bounds, strict=True)
            for chance in dict.fromkeys(chances)
        ]
    figures = ("quality_spearman", "quality_rmse", "cost_spearman", "cost_rmse")
    return {
        "model": {"taught": fitted_on, "searched": len(table) - fitted_on}
        | dict(zip(figures, map(float, np.mean(fits, axis=0)), strict=True)),
        "limits": [
            {"quantile": q, "limit": limit, "best_quality": best, "blind_regret": blind}
            for q, limit, best, blind in np.column_stack(
                [quantiles, np.mean(by_limit, axis=0)]
            ).tolist()
        ],
        "rows": rows,
        "means": [
            _means(which, group)
            for which, group in grouped(rows, ("strategy", "evaluations", "quantile", "chance"))
        ],
        "left_out": table.left_out,
    }


def _fitted_on(rows: int, share: float) -> int:
    if not 0 < share < 1:
        raise InvalidArgument(f"the share of rows to fit on lies between 0 and 1, got {share:g}")
    fitted_on = round(share * rows)
    if not MINIMUM <= fitted_on <= rows - 2:
        raise NotEnoughData(
            f"a share of {share:g} of {rows:,} rows leaves {fitted_on:,} to fit on and "
            f"{rows - fitted_on:,} to search; it takes {MINIMUM} and 2"
        )
    return fitted_on


def _limits(cost: Floats, quantiles: Floats) -> Floats:
    """Quantiles, each midway to the next greater cost: none lies on a row's edge, (k,)."""
    known = np.unique(cost)
    low = np.quantile(cost, quantiles, method="lower")
    following = np.minimum(np.searchsorted(known, low, side="right"), len(known) - 1)
    limits: Floats = (low + known[following]) / 2
    return limits


def _split(table: Table, fitted_on: int, seed: int) -> _Half:
    """Rows to search, with the predictions of a model of the others."""
    space = table.space
    options = list(space.decisions.values())
    words = any(isinstance(o, str) for gene in options for o in gene)
    codes = space.genomes.astype(np.float64)
    if not words:
        values = [np.array(gene, np.float64) for gene in options]
        codes = np.column_stack([v[g] for v, g in zip(values, space.genomes.T, strict=True)])
    order = np.random.default_rng(seed).permutation(len(table))
    fitted, searched = order[:fitted_on], order[fitted_on:]
    groups, expected, deviation = groups_of(list(space.decisions)), [], []
    for column in table.values.T:
        model = TabularRegressor(groups, names=words).fit(codes[fitted], column[fitted], seed)
        mean, spread = model.predict(codes[searched])
        expected.append(mean)
        deviation.append(spread)
    return _Half(
        Table(TableSpace(space.decisions, space.genomes[searched]), table.values[searched]),
        np.column_stack(expected),
        np.column_stack(deviation),
    )


def _means(which: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    regrets = np.array([r["regret"] for r in rows])
    missed = [r["overstep"] for r in rows if not r["meets"]]
    tried = [r for r in rows if r["tried"] is not None]
    error = float(regrets.std(ddof=1) / np.sqrt(len(regrets))) if len(regrets) > 1 else None
    return which | {
        "seeds": len(rows),
        "limit": float(np.mean([r["limit"] for r in rows])),
        "regret": float(regrets.mean()),
        "standard_error": error,
        "worst": float(regrets.max()),
        "misses": len(missed),
        "overstep": float(np.mean(missed)) if missed else None,
        "tried": float(np.mean([r["tried"] for r in tried])) if tried else None,
        "tried_regret": float(np.mean([r["tried_regret"] for r in tried])) if tried else None,
    }
