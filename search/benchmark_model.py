"""Strategies that see a model of a table, scored by the table: what a search is worth in use.

In use no strategy sees the truth. So the rows are split by a seed. One share teaches a model of
both objectives (`latency_model.tabular`). The strategies search the other rows, and are told what
the model says of them, scaled to [0, 1] over these rows. The truth of these rows teaches nobody:
it sets the limits of the cost, at evenly spread quantiles (midway to the next greater cost), and
scores what is handed in.

For a limit a strategy hands in, of the rows that it had judged, the one of the best expected
quality among those that keep the limit with a given chance; 0.5 is the bare expectation. If none
does, the one that is the likeliest to keep it.

*Regret* is what the best row within the limit has more in true quality. If the row handed in
truly oversteps the limit, the best row may cost as much as it does: overstepping earns nothing,
and regrets are never below 0. How often and how far limits are overstepped is told beside it.

*Tried* is what measuring makes of it: the rows judged are measured in the order in which they
would be handed in, until one truly keeps the limit.

The regret of two others stands beside: `all rows`, the model's own choice among all rows, which
a strategy reaches at most; and in `limits` a row within the limit drawn blindly. A truth with
noise leaves some regret to everybody, for the best row is the best by luck, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..latency_model.metrics import score
from ..latency_model.tabular import MINIMUM, TabularRegressor, groups_of
from ..space.errors import InvalidArgument, NotEnoughData
from .benchmark import Table, budgets_of, read, walk
from .strategy import get
from .table_space import TableSpace

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ALL_ROWS", "strategies_on_a_model"]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

ALL_ROWS = "all rows"  # the model's own choice, by the name under which it stands


@dataclass(frozen=True)
class _Half:
    """The rows that are searched, and what the model says of them.

    Args:
        truth: The rows with their true values.
        expected, deviation: Of both objectives, (n, 2), in their columns' units.
    """

    truth: Table
    expected: Floats
    deviation: Floats

    @property
    def told(self) -> Table:
        """The rows as strategies see them."""
        return Table(self.truth.space, self.expected)

    def order(self, judged: Rows, limit: float, chance: float) -> Rows:
        """Rows judged, in the order in which they would be handed in."""
        from scipy.special import ndtri

        quality, cost = self.expected[judged, 0], self.expected[judged, 1]
        deviation = np.maximum(self.deviation[judged, 1], 1e-300)
        keeps = (limit - cost) / deviation
        within = keeps >= ndtri(chance)
        return judged[np.lexsort((np.where(within, -quality, -keeps), ~within))]

    def best(self, limit: float) -> float:
        """True quality of the best row within a limit."""
        quality, cost = self.truth.values.T
        return float(quality[cost <= limit].max())

    def scored(self, judged: Rows, limit: float, chance: float) -> dict[str, Any]:
        """What is handed in for a limit, by its true values."""
        order = self.order(judged, limit, chance)
        quality, cost = self.truth.values[order].T
        keeps = np.flatnonzero(cost <= limit)
        tried = int(keeps[0]) if len(keeps) else None
        return {
            "quality": float(quality[0]), "cost": float(cost[0]), "meets": bool(cost[0] <= limit),
            "overstep": max(float(cost[0]) - limit, 0.0),
            "regret": self.best(max(limit, float(cost[0]))) - float(quality[0]),
            "tried": None if tried is None else tried + 1,
            "tried_regret": None if tried is None else self.best(limit) - float(quality[tried]),
        }  # fmt: skip


def strategies_on_a_model(
    frame: pd.DataFrame,
    *,
    genes: Sequence[str],
    maximize: str,
    minimize: str,
    names: Sequence[str],
    evaluations: Sequence[int],
    share: float = 0.5,
    limits: int = 5,
    chances: Sequence[float] = (0.5,),
    seeds: int = 10,
    on_event: Callable[[str, int], None] | None = None,
) -> dict[str, Any]:
    """Let strategies search the rows that a model did not learn from, by what the model says.

    Args:
        frame: One network a row.
        genes, maximize, minimize: Columns; see `benchmark.read`.
        names: Strategies by name.
        evaluations: Budgets of distinct rows, each 1 to the number of rows that are searched.
        share: Of the rows, those that teach, in (0, 1); of more than 2,500 the model takes so
            many by chance, since its cost grows with their cube.
        limits: How many, k ≥ 1: at the true cost's quantiles (i + 1/2) / k.
        chances: With which a limit is to be kept by what the model says, each in (0, 1).
        seeds: How many splits, from seed 0, each with one run of each strategy.
        on_event: Called with strategy and seed when a run begins.
    Returns:
        `model`: `taught` and `searched`, numbers of rows, and means over seeds of Spearman's rank
        correlation and root mean square error of each objective on the rows searched.
        `limits`, one for each: `quantile`, and means over seeds of `limit`, `best_quality` within
        it, and `blind_regret`.
        `rows`, one for each strategy, seed, budget, limit and chance: `quality`, `cost`, `meets`,
        `overstep`, `regret`, true and in the columns' units; `tried`, how many rows are measured
        until one keeps the limit, and its `tried_regret`, None where none does.
        `means`, one for each strategy, budget, limit and chance, over seeds: `regret`, its
        `standard_error`, the `worst`, `tried`, `tried_regret` (where one was found); `misses`,
        the number of seeds that overstepped, and their mean `overstep` (None without one).
        `left_out`: rows of the file that lack a value or repeat genes.
        The strategy `all rows` is the model's choice among all rows searched.
    Raises:
        UnknownName, InvalidArgument, NotEnoughData: A column, a strategy or a number is amiss.
    """
    table = read(frame, genes=genes, maximize=maximize, minimize=minimize)
    taught = _taught(len(table), share)
    budgets = budgets_of(names, evaluations, seeds, len(table) - taught)
    if limits < 1:
        raise InvalidArgument(f"limits: 1 or more, got {limits}")
    for chance in chances:
        if not 0 < chance < 1:
            raise InvalidArgument(f"a chance lies between 0 and 1, got {chance:g}")
    quantiles = (np.arange(limits) + 0.5) / limits
    rows, about, told = list[dict[str, Any]](), list[Floats](), list[list[float]]()
    for seed in range(seeds):
        half = _split(table, taught, seed)
        quality, cost = half.truth.values.T
        at = _limits(cost, quantiles)
        within = [quality[cost <= limit] for limit in at]
        blind = [w.max() - w.mean() for w in within]
        about.append(np.column_stack([at, [w.max() for w in within], blind]))
        told.append(_fit_of(half))
        judged = {ALL_ROWS: np.arange(len(half.truth))}
        for name in dict.fromkeys(names):
            if on_event is not None:
                on_event(name, seed)
            judged[name] = walk(get(name, seed), half.told, budgets[-1]).rows
        rows += [
            {
                "strategy": name, "seed": seed, "evaluations": budget,
                "quantile": float(quantile), "limit": float(limit), "chance": float(chance),
                **half.scored(seen[:budget], float(limit), chance),
            }
            for name, seen in judged.items()
            for budget in ([len(seen)] if name == ALL_ROWS else budgets)
            for quantile, limit in zip(quantiles, at, strict=True)
            for chance in dict.fromkeys(chances)
        ]  # fmt: skip
    names_of = ("quality_spearman", "quality_rmse", "cost_spearman", "cost_rmse")
    return {
        "model": {"taught": taught, "searched": len(table) - taught}
        | dict(zip(names_of, map(float, np.mean(told, axis=0)), strict=True)),
        "limits": [
            {"quantile": q, "limit": limit, "best_quality": best, "blind_regret": blind}
            for q, limit, best, blind in np.column_stack(
                [quantiles, np.mean(about, axis=0)]
            ).tolist()
        ],
        "rows": rows,
        "means": _means(rows),
        "left_out": table.left_out,
    }


def _taught(rows: int, share: float) -> int:
    if not 0 < share < 1:
        raise InvalidArgument(f"the share of rows that teach lies between 0 and 1, got {share:g}")
    taught = round(share * rows)
    if not MINIMUM <= taught <= rows - 2:
        raise NotEnoughData(
            f"a share of {share:g} of {rows:,} rows leaves {taught:,} to teach and "
            f"{rows - taught:,} to search; it takes {MINIMUM} and 2"
        )
    return taught


def _limits(cost: Floats, quantiles: Floats) -> Floats:
    """Quantiles, each midway to the next greater cost: none lies on a row's edge, (k,)."""
    known = np.unique(cost)
    low = np.quantile(cost, quantiles, method="lower")
    following = np.minimum(np.searchsorted(known, low, side="right"), len(known) - 1)
    found: Floats = (low + known[following]) / 2
    return found


def _split(table: Table, taught: int, seed: int) -> _Half:
    """Rows that did not teach, with what a model of the others says of them."""
    space = table.space
    options = list(space.decisions.values())
    words = any(isinstance(o, str) for gene in options for o in gene)
    codes = space.genomes.astype(np.float64)
    if not words:
        values = [np.array(gene, np.float64) for gene in options]
        codes = np.column_stack([v[g] for v, g in zip(values, space.genomes.T, strict=True)])
    order = np.random.default_rng(seed).permutation(len(table))
    seen, held = order[:taught], order[taught:]
    groups, expected, deviation = groups_of(list(space.decisions)), [], []
    for column in table.values.T:
        model = TabularRegressor(groups, names=words).fit(codes[seen], column[seen], seed)
        mean, spread = model.predict(codes[held])
        expected.append(mean)
        deviation.append(spread)
    searched = TableSpace(space.decisions, space.genomes[held])
    return _Half(
        Table(searched, table.values[held]), np.column_stack(expected), np.column_stack(deviation)
    )


def _fit_of(half: _Half) -> list[float]:
    """Rank correlation and root mean square error of each objective."""
    found = []
    for expected, true in zip(half.expected.T, half.truth.values.T, strict=True):
        # Shifted: of these two figures neither changes, and the others want positive numbers.
        shift = 1.0 - float(true.min())
        told = score(expected + shift, true + shift)
        found += [told.spearman, told.rmse_ms]
    return found


def _means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = ("strategy", "evaluations", "quantile", "chance")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in keys), []).append(row)
    means = []
    for key, found in groups.items():
        regrets = np.array([r["regret"] for r in found])
        missed = [r["overstep"] for r in found if not r["meets"]]
        tried = [r for r in found if r["tried"] is not None]
        error = float(regrets.std(ddof=1) / np.sqrt(len(regrets))) if len(regrets) > 1 else None
        means.append(
            dict(zip(keys, key, strict=True))
            | {
                "seeds": len(found), "limit": float(np.mean([r["limit"] for r in found])),
                "regret": float(regrets.mean()), "standard_error": error,
                "worst": float(regrets.max()), "misses": len(missed),
                "overstep": float(np.mean(missed)) if missed else None,
                "tried": _mean([r["tried"] for r in tried]),
                "tried_regret": _mean([r["tried_regret"] for r in tried]),
            }
        )  # fmt: skip
    return means


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
