"""Strategies on a table whose exact front is known: what share of it each finds with how little.

Both objectives are scaled to [0, 1] over the table, 0 the best; hypervolumes are taken to the
corner (1, 1) and stated as shares of the exact front's. Only distinct rows count as evaluations.
A strategy does not learn the budget, so that one run serves several budgets.

A table may hold few of the genomes that its genes could form. A mutant is then one of the four
rows nearest to it, by chance; any other proposal that is not in the table is answered by the
nearest row not evaluated yet. Nearest is: fewest genes apart; of those the least apart in steps of
their options; of those the first. A row that was evaluated before costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from phonenas.latency_model.benchmarks.columns import columns, genes_of
from phonenas.space.errors import InvalidArgument, NotEnoughData, UnknownName, nearest

from ..pareto import hypervolume, non_dominated
from ..strategies import Objectives, Strategy, get
from .table_space import TableSpace

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Table", "Walked", "budgets_of", "grouped", "read", "strategies", "walk"]

_STALE_ASKS = 200  # asks in a row that bring nothing new: the strategy has converged


@dataclass(frozen=True)
class Table:
    """A table of genomes with two numbers each.

    Args:
        space: Its genes.
        values: (n, 2), what is maximised and what is minimised, in their columns' units.
        left_out: Rows of the file that lack a value or repeat the genes of an earlier one.
    """

    space: TableSpace
    values: Objectives
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def losses(self) -> Objectives:
        """(n, 2), scaled to [0, 1] over the table, 0 the best."""
        signed = self.values * (-1.0, 1.0)
        low, high = signed.min(axis=0), signed.max(axis=0)
        scaled: Objectives = (signed - low) / np.where(high > low, high - low, 1.0)
        return scaled

    @property
    def front(self) -> npt.NDArray[np.intp]:
        """Rows that no other row beats."""
        return non_dominated(self.losses)

    def hypervolume(self, rows: npt.ArrayLike | None = None) -> float:
        """Of some rows, or of all, to the corner (1, 1)."""
        losses = self.losses if rows is None else self.losses[np.asarray(rows, np.intp)]
        return hypervolume(losses, (0.0, 0.0), (1.0, 1.0))


def read(frame: pd.DataFrame, *, genes: Sequence[str], maximize: str, minimize: str) -> Table:
    """A table's genes and two of its columns.

    Args:
        frame: One network a row.
        genes: Shell patterns of the gene columns; the objectives are never among them.
        maximize, minimize: The objectives' columns, numbers of any sign.
    Raises:
        UnknownName: No column of that name or pattern.
        InvalidArgument: A column of no numbers, or one that never changes.
        NotEnoughData: Fewer than two different rows.
    """
    first, second = _numbers(frame, maximize), _numbers(frame, minimize)
    names = [n for n in columns(frame, genes, "genes") if n not in (maximize, minimize)]
    if not names or maximize == minimize:
        raise InvalidArgument(
            f"genes {', '.join(genes)}, to maximise {maximize}, to minimise {minimize}: three "
            "different things are needed"
        )
    here = np.isfinite(first) & np.isfinite(second)
    codes, words = genes_of(frame[here], names)
    indices, decisions = [], {}
    for column, name in enumerate(names):
        options, index = np.unique(codes[:, column], return_inverse=True)
        indices.append(index.astype(np.int8))
        decisions[name] = tuple(map(str, options)) if words else tuple(options.tolist())
    genomes = np.column_stack(indices)
    _, kept = np.unique(genomes, axis=0, return_index=True)
    kept = np.sort(kept)
    values = np.column_stack([first[here], second[here]])[kept]
    if len(values) < 2:
        raise NotEnoughData(f"{len(values)} rows of different genes with both objectives: no front")
    for name, column in zip((maximize, minimize), values.T, strict=True):
        if np.ptp(column) == 0:
            raise InvalidArgument(f"column {name!r} never changes: there is nothing to choose by")
    return Table(TableSpace(decisions, genomes[kept]), values, len(frame) - len(kept))


def _numbers(frame: pd.DataFrame, name: str) -> npt.NDArray[np.float64]:
    import pandas as pd

    if name not in frame.columns:
        raise UnknownName(f"no column {name!r}. {nearest(name, map(str, frame.columns))}")
    cells = frame[name]
    if cells.dtype == bool or not pd.api.types.is_numeric_dtype(cells):
        raise InvalidArgument(f"column {name!r} must hold numbers; it holds {str(cells.iloc[0])!r}")
    return cells.to_numpy(np.float64)


@dataclass(frozen=True)
class Walked:
    """The distinct rows that a strategy had evaluated, in order, and its repeated proposals."""

    rows: npt.NDArray[np.intp]
    repeats: int


def walk(strategy: Strategy, table: Table, evaluations: int) -> Walked:
    """Run a new strategy until so many distinct rows are evaluated."""
    space, fresh = table.space, np.ones(len(table), bool)
    order: list[int] = []
    repeats = stale = 0
    strategy.start(space)
    while len(order) < evaluations and stale < _STALE_ASKS:
        genomes = strategy.ask(evaluations - len(order))
        if not len(genomes):
            break
        before, rows = len(order), list[int]()
        for genome in genomes:
            row = space.rows.get(genome.tobytes())
            if row is not None and not fresh[row]:
                repeats += 1
            elif len(order) == evaluations:
                break  # it would be one new row too many
            else:
                if row is None:
                    row = int(np.argmin(np.where(fresh, space.apart(genome), np.inf)))
                fresh[row] = False
                order.append(row)
            rows.append(row)
        strategy.tell(space.genomes[rows], table.losses[rows], np.zeros(len(rows)))
        stale = 0 if len(order) > before else stale + 1
    return Walked(np.array(order, np.intp), repeats)


def budgets_of(
    names: Sequence[str], evaluations: Sequence[int], seeds: int, rows: int
) -> list[int]:
    """Each budget once, rising, for so many rows; UnknownName for a strategy that is not known,
    InvalidArgument for a number out of range."""
    if not names or not evaluations or seeds < 1:
        raise InvalidArgument("at least one strategy, one number of evaluations and one seed")
    for budget in evaluations:
        if not 1 <= budget <= rows:
            raise InvalidArgument(
                f"evaluations {budget:,}: the table holds {rows:,} rows to evaluate"
            )
    for name in names:
        get(name)
    return sorted(set(evaluations))


def grouped(
    rows: Sequence[dict[str, Any]], keys: Sequence[str]
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Rows with equal values of `keys`, in order of the first, each group with these values."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in keys), []).append(row)
    return [(dict(zip(keys, values, strict=True)), group) for values, group in groups.items()]


def strategies(
    table: Table,
    *,
    names: Sequence[str],
    evaluations: Sequence[int],
    seeds: int = 10,
    on_event: Callable[[str, int], None] | None = None,
) -> dict[str, Any]:
    """Compare strategies with a table's exact front.

    Args:
        table: See `read`.
        names: Strategies by name.
        evaluations: Budgets of distinct rows, each 1 to the number of rows.
        seeds: How many runs of each strategy, from seed 0.
        on_event: Called with strategy and seed when a run begins.
    Returns:
        `exact_front`: its `networks` and `hypervolume`; `rows`, one for each strategy, seed and
        budget: `hypervolume_ratio`, the share of the exact front's, and `distinct`, the rows
        evaluated; `means` of these over seeds, with the `worst`; `left_out`, rows of the file that
        lack a value or repeat genes.
    Raises:
        UnknownName, InvalidArgument: As `budgets_of`.
    """
    budgets = budgets_of(names, evaluations, seeds, len(table))
    whole, rows = table.hypervolume(), list[dict[str, Any]]()
    for name in dict.fromkeys(names):
        for seed in range(seeds):
            if on_event is not None:
                on_event(name, seed)
            walked = walk(get(name, seed), table, budgets[-1])
            rows += [
                {
                    "strategy": name,
                    "seed": seed,
                    "evaluations": budget,
                    "hypervolume_ratio": table.hypervolume(walked.rows[:budget]) / whole,
                    "distinct": min(budget, len(walked.rows)),
                }
                for budget in budgets
            ]
    means = []
    for which, group in grouped(rows, ("strategy", "evaluations")):
        ratios = [r["hypervolume_ratio"] for r in group]
        means.append(
            which
            | {"seeds": seeds, "hypervolume_ratio": float(np.mean(ratios)), "worst": min(ratios)}
        )
    front = {"networks": len(table.front), "hypervolume": whole}
    return {"exact_front": front, "rows": rows, "means": means, "left_out": table.left_out}
