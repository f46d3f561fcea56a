"""Estimators of accuracy against a table of trained networks: how well each ranks them.

A row of the table is a network of a space: its gene columns bear the names of the space's
decisions. Each draw takes some rows by chance, the networks are built and judged, and the order
of the answers is held against that of the trained accuracies. Two baselines that cost nothing
always stand beside: more multiply-adds are better, and more parameters are better.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...latency_model.benchmark import columns, numbers
from ...space import Architecture, Genomes, SearchSpace
from ...space.errors import InvalidArgument, NotEnoughData, UnknownName
from .estimator import Accuracy, AccuracyEstimator

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BASELINES", "benchmark", "draw_rows", "genomes_of", "ranked"]

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
            f"space {space.name} decides {', '.join(space.decisions)}, and no gene column is called "
            f"{', '.join(lacking)}. Give its columns with --genes, or the table's own space."
        )
    found = np.full((len(frame), len(space.decisions)), -1, np.int8)
    for gene, (name, options) in enumerate(space.decisions.items()):
        cells = frame[name]
        by_value = pd.Series(range(len(options)), index=pd.Index(options))
        places = by_value.reindex(cells).to_numpy(np.float64)
        if np.isnan(places).all():
            places = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64)
        is_option = np.isin(places, np.arange(len(options)))
        found[is_option, gene] = places[is_option].astype(np.int8)
    found[(found < 0).any(axis=1)] = -1
    return found


def draw_rows(n: int, networks: int, seed: int) -> npt.NDArray[np.intp]:
    """Different rows of n, (networks,), by chance from the seed."""
    return np.random.default_rng(seed).choice(n, networks, replace=False)


def ranked(told: npt.ArrayLike, trained: npt.ArrayLike) -> dict[str, float | int | None]:
    """How well one order fits another.

    Args:
        told: Answers, (n,); NaN where a network failed.
        trained: Accuracies, (n,).
    Returns:
        `n` that did not fail, `kendall_tau` (tau-b) and `spearman`, both in [-1, 1], None where
        all answers are alike or too few did not fail.
    """
    from scipy import stats

    t, y = np.asarray(told, np.float64), np.asarray(trained, np.float64)
    well = ~np.isnan(t)
    t, y = t[well], y[well]
    if len(t) < _FEWEST or np.ptp(t) == 0 or np.ptp(y) == 0:
        return {"n": len(t), "kendall_tau": None, "spearman": None}
    return {
        "n": len(t),
        "kendall_tau": float(stats.kendalltau(t, y)[0]),
        "spearman": float(stats.spearmanr(t, y)[0]),
    }


def benchmark(
    frame: pd.DataFrame,
    space: SearchSpace,
    *,
    genes: Sequence[str],
    target: str,
    estimators: Mapping[str, AccuracyEstimator],
    networks: int = 100,
    seed: int = 0,
    draws: int = 1,
    on_judged: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Rank networks of a table by estimators, and by their size, beside their accuracies.

    Args:
        frame: One network a row.
        space: Which networks; its decisions are columns.
        genes: Patterns of the gene columns.
        target: Column of trained accuracies, in any unit, more is better.
        estimators: By the name under which they are reported.
        networks: Rows a draw, without repeats within it.
        seed: Of the first draw; the others have the numbers after it.
        draws: How often other rows are drawn.
        on_judged: Called with an estimator's name, how many networks of the draw it has judged, and
            how many there are: before the first one, and after each.
    Returns:
        `rows`: one a draw and estimator, `{estimator, draw, n, failed, kendall_tau, spearman,
        seconds_per_network}`; `mean`: by estimator over the draws, with `lowest` and `highest`
        tau; `left_out`: rows that the space cannot express or that have no accuracy. Seconds are
        those that the estimator tells of each network or else all that it took, over the networks.
    Raises:
        UnknownName: No such column.
        InvalidArgument: Fewer than one draw or three networks.
        NotEnoughData: The table has fewer networks of the space.
    """
    if networks < _FEWEST or draws < 1:
        raise InvalidArgument(f"at least {_FEWEST} networks and 1 draw, got {networks} and {draws}")
    genomes, trained = genomes_of(frame, space, genes), numbers(frame, target)
    usable = np.flatnonzero((genomes >= 0).all(axis=1) & ~np.isnan(trained))
    if len(usable) < networks:
        raise NotEnoughData(
            f"{len(usable):,} of {len(frame):,} rows are networks of {space.name} with a {target}; "
            f"{networks:,} were asked for"
        )
    rows: list[dict[str, Any]] = []
    for draw in range(seed, seed + draws):
        drawn = usable[draw_rows(len(usable), networks, draw)]
        asked = [space.decode(genomes[row]) for row in drawn]
        for name, answers, seconds in _answers(asked, estimators, on_judged):
            found = ranked(answers, trained[drawn])
            rows.append(
                {
                    "estimator": name,
                    "draw": draw,
                    "n": found["n"],
                    "failed": int(np.isnan(answers).sum()),
                    "kendall_tau": found["kendall_tau"],
                    "spearman": found["spearman"],
                    "seconds_per_network": seconds,
                }
            )
    return {
        "space": space.name,
        "target": target,
        "rows": rows,
        "mean": {name: _mean(rows, name) for name in dict.fromkeys(r["estimator"] for r in rows)},
        "left_out": len(frame) - len(usable),
    }


def _answers(
    asked: Sequence[Architecture],
    estimators: Mapping[str, AccuracyEstimator],
    on_judged: Callable[[str, int, int], None] | None,
) -> list[tuple[str, Floats, float]]:
    """Name, answers and seconds a network, of the baselines and of each estimator."""
    found = []
    for name in BASELINES:
        began = time.perf_counter()
        sizes = np.array([getattr(a, name) for a in asked], np.float64)
        found.append((name, sizes, (time.perf_counter() - began) / len(asked)))
    for name, estimator in estimators.items():
        began = time.perf_counter()
        one: dict[int, Accuracy] = {}

        def take(i: int, answer: Accuracy, name: str = name, one: Any = one) -> None:
            one[i] = answer
            if on_judged is not None:
                on_judged(name, len(one), len(asked))

        if on_judged is not None:
            on_judged(name, 0, len(asked))
        estimator.estimate_each(asked, take)
        told = Accuracy.joined(one[i] for i in range(len(asked)))
        seconds = (time.perf_counter() - began) / len(asked)
        found.append((name, told.top1, fmean(told.seconds) if told.seconds else seconds))
    return found


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
