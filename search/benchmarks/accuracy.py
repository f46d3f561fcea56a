"""Estimators of accuracy on a table of trained networks: how well each ranks them.

A row of the table is a network of a space: its gene columns bear the names of the space's
decisions. Each draw takes some rows by chance; the estimators evaluate these networks, and the
order of the estimates is compared with that of the trained accuracies. Two baselines that cost
nothing always stand beside: more multiply-adds are better, and more parameters are better.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from phonenas.latency_model.benchmarks.columns import columns, numbers
from phonenas.latency_model.metrics import kendall_tau, spearman
from phonenas.space import Architecture, Genomes, SearchSpace
from phonenas.space.errors import InvalidArgument, NotEnoughData, UnknownName

from ..accuracy.estimator import Accuracy, AccuracyEstimator
from ..accuracy.zero_cost.zero_cost import ZeroCost

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BASELINES", "Trained", "benchmark", "draw_rows", "genomes_of", "ranked", "read"]

Floats = npt.NDArray[np.float64]
BASELINES = ("macs", "params")
_FEWEST = 3  # networks: of two, every order is right or wrong altogether


def genomes_of(frame: pd.DataFrame, space: SearchSpace, genes: Sequence[str]) -> Genomes:
    """The genome of each row, (n, genes) int8.

    A column holds the option values of the decision whose name it bears or, where these are no
    such values, the options' numbers from 0. A row with neither is a row of -1.

    Args:
        frame: The table.
        space: Whose decisions the columns name.
        genes: Patterns of columns; together they must name every decision.
    Raises:
        UnknownName: A pattern matches no column, or a decision has none.
    """
    import pandas as pd

    named = set(columns(frame, genes, "--genes"))
    lacking = [d for d in space.decisions if d not in named]
    if lacking:
        raise UnknownName(
            f"space {space.name} decides {', '.join(space.decisions)}, and no gene column is "
            f"called {', '.join(lacking)}. Give its columns with --genes, or the table's own space."
        )
    genomes = np.full((len(frame), len(space.decisions)), -1, np.int8)
    for gene, (name, options) in enumerate(space.decisions.items()):
        cells = frame[name]
        by_value = pd.Series(range(len(options)), index=pd.Index(options))
        places = by_value.reindex(cells).to_numpy(np.float64)
        if np.isnan(places).all():
            places = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64)
        is_option = np.isin(places, np.arange(len(options)))
        genomes[is_option, gene] = places[is_option].astype(np.int8)
    genomes[(genomes < 0).any(axis=1)] = -1
    return genomes


@dataclass(frozen=True)
class Trained:
    """Trained networks of a space, from a table.

    Args:
        genomes: (n, genes), int8.
        accuracies: (n,), in any unit, more is better; `target` is their column.
        left_out: Rows that the space cannot express or that have no accuracy.
    """

    space: SearchSpace
    genomes: Genomes
    accuracies: Floats
    target: str
    left_out: int

    def others(
        self, rows: npt.NDArray[np.intp], networks: int, seed: int
    ) -> list[tuple[Architecture, float]]:
        """Further networks by chance, which none of these rows is, with their top-1 in (0, 1).

        Args:
            rows: (n,).
            networks: How many; those that are the same network as one before are left out.
            seed: Of the chance.
        """
        scale = 100.0 if self.accuracies.max(initial=0.0) > 1 else 1.0
        keys = self.space.keys(self.genomes)
        seen, found = {keys[row] for row in rows}, list[tuple[Architecture, float]]()
        for row in np.random.default_rng([seed, 1]).permutation(len(keys)):
            if len(found) == networks:
                break
            if keys[row] not in seen:
                seen.add(keys[row])
                top1 = float(self.accuracies[row]) / scale
                found.append((self.space.decode(self.genomes[row]), top1))
        return found


def read(frame: pd.DataFrame, space: SearchSpace, *, genes: Sequence[str], target: str) -> Trained:
    """A table's networks and their accuracies.

    Args:
        frame, space, genes: As for `genomes_of`.
        target: Column of trained accuracies.
    Raises:
        UnknownName: No such column.
    """
    genomes, trained = genomes_of(frame, space, genes), numbers(frame, target)
    usable = (genomes >= 0).all(axis=1) & ~np.isnan(trained)
    return Trained(space, genomes[usable], trained[usable], target, int((~usable).sum()))


def draw_rows(n: int, networks: int, seed: int) -> npt.NDArray[np.intp]:
    """Different rows of n, (networks,), by chance from the seed."""
    return np.random.default_rng(seed).choice(n, networks, replace=False)


def ranked(estimates: npt.ArrayLike, trained: npt.ArrayLike) -> dict[str, float | int | None]:
    """How well one order fits another.

    Args:
        estimates: (n,); NaN where a network failed.
        trained: Accuracies, (n,).
    Returns:
        `n` that did not fail, `kendall_tau` (tau-b) and `spearman`, both in [-1, 1], None where
        all estimates are equal or too few did not fail.
    """
    t, y = np.asarray(estimates, np.float64), np.asarray(trained, np.float64)
    t, y = t[~np.isnan(t)], y[~np.isnan(t)]
    tau, rho = (kendall_tau(t, y), spearman(t, y)) if len(t) >= _FEWEST else (np.nan, np.nan)
    return {
        "n": len(t),
        "kendall_tau": None if np.isnan(tau) else tau,
        "spearman": None if np.isnan(rho) else rho,
    }


def benchmark(
    table: Trained,
    estimators: Mapping[str, AccuracyEstimator],
    *,
    networks: int = 100,
    seed: int = 0,
    draws: int = 1,
    trained: int = 0,
    on_estimated: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Rank networks of a table by estimators, and by their size, beside their accuracies.

    Args:
        table: See `read`.
        estimators: By the name under which they are reported.
        networks: Rows a draw, without repeats within it.
        seed: Of the first draw; the others have the numbers after it.
        draws: How often other rows are drawn.
        trained: Of each draw, further rows whose accuracies are given to each `ZeroCost`.
        on_estimated: Called with an estimator's name, how many networks of the draw it has
            evaluated, and how many there are: before the first one, and after each.
    Returns:
        `rows`: one a draw and estimator; `mean`: by estimator over the draws, with `lowest` and
        `highest` tau; `left_out`. Seconds are those that the estimator states for each network or
        else all that it took, over the networks.
    Raises:
        InvalidArgument: Fewer than one draw or three networks, or trained ones for an estimator
            that takes none.
        NotEnoughData: The table has fewer networks of the space.
    """
    if networks < _FEWEST or draws < 1:
        raise InvalidArgument(f"at least {_FEWEST} networks and 1 draw, got {networks} and {draws}")
    space, usable = table.space, len(table.genomes)
    if usable < networks + trained:
        more = f" and {trained:,} trained ones" if trained else ""
        raise NotEnoughData(
            f"{usable:,} of {usable + table.left_out:,} rows are networks of {space.name} with a "
            f"{table.target}; {networks:,}{more} were asked for"
        )
    if trained and (others := [n for n, e in estimators.items() if not isinstance(e, ZeroCost)]):
        raise InvalidArgument(
            f"trained networks are given to zero_cost, and {others[0]} takes none: leave it or "
            "--trained out"
        )
    rows: list[dict[str, Any]] = []
    for draw in range(seed, seed + draws):
        drawn = draw_rows(usable, networks, draw)
        architectures = [space.decode(table.genomes[row]) for row in drawn]
        known = table.others(drawn, trained, draw)
        given = {
            name: e.knowing(known) if known and isinstance(e, ZeroCost) else e
            for name, e in estimators.items()
        }
        for name, estimates, seconds in _estimates(architectures, given, on_estimated):
            rows.append(
                {
                    "estimator": name,
                    "draw": draw,
                    "failed": int(np.isnan(estimates).sum()),
                    **ranked(estimates, table.accuracies[drawn]),
                    "seconds_per_network": seconds,
                }
            )
    return {
        "space": space.name,
        "target": table.target,
        "rows": rows,
        "mean": {name: _mean(rows, name) for name in dict.fromkeys(r["estimator"] for r in rows)},
        "left_out": table.left_out,
    }


def _estimates(
    architectures: Sequence[Architecture],
    estimators: Mapping[str, AccuracyEstimator],
    on_estimated: Callable[[str, int, int], None] | None,
) -> list[tuple[str, Floats, float]]:
    """Name, estimates and seconds a network, of the baselines and of each estimator."""
    answers = []
    show = on_estimated or (lambda name, done, networks: None)
    for name in BASELINES:
        began = time.perf_counter()
        sizes = np.array([getattr(a, name) for a in architectures], np.float64)
        answers.append((name, sizes, (time.perf_counter() - began) / len(architectures)))
    for name, estimator in estimators.items():
        began = time.perf_counter()
        one: dict[int, Accuracy] = {}

        def take(i: int, answer: Accuracy, name: str = name, one: Any = one) -> None:
            one[i] = answer
            show(name, len(one), len(architectures))

        show(name, 0, len(architectures))
        estimator.estimate_each(architectures, take)
        accuracy = Accuracy.joined(one[i] for i in range(len(architectures)))
        mean_s = (time.perf_counter() - began) / len(architectures)
        mean_s = fmean(accuracy.seconds) if accuracy.seconds else mean_s
        answers.append((name, accuracy.top1, mean_s))
    return answers


def _mean(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    own = [r for r in rows if r["estimator"] == name]
    taus = [r["kendall_tau"] for r in own if r["kendall_tau"] is not None]
    rhos = [r["spearman"] for r in own if r["spearman"] is not None]
    return {
        "kendall_tau": fmean(taus) if taus else None,
        "lowest": min(taus, default=None),
        "highest": max(taus, default=None),
        "spearman": fmean(rhos) if rhos else None,
        "seconds_per_network": fmean(r["seconds_per_network"] for r in own),
    }
