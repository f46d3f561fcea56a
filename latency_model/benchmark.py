"""Examinations of the models on any table with named columns, beside their baselines.

*surrogate*: n rows, shuffled by the seed, teach; all others examine.

*transfer*: of each source device some rows are known, the same for all, drawn by the draw's
number; of the target device only the few that are chosen from what the sources tell. All other
rows examine, those among them that the sources know too. The target is never a source.

No model sees a value that it is examined on, and no choice in the code depends on one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..space.errors import InvalidArgument, NotEnoughData, UnknownName, nearest
from . import tabular
from .adaptation import MINIMUM, Relatives
from .metrics import Score, score

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["columns", "genes_of", "numbers", "surrogate", "transfer"]

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]

_TEST = 10  # rows; fewer rank nothing
_VALUES = 64  # distinct values of a gene; more is a measurement


def columns(frame: pd.DataFrame, patterns: Iterable[str], what: str) -> list[str]:
    """Columns that match any of some shell patterns, in the table's order.

    Raises:
        UnknownName: A pattern matches no column.
    """
    names, wanted = [str(c) for c in frame.columns], list(patterns)
    for pattern in wanted:
        if not any(fnmatchcase(n, pattern) for n in names):
            raise UnknownName(f"{what}: no column matches {pattern!r}. {nearest(pattern, names)}")
    return [n for n in names if any(fnmatchcase(n, p) for p in wanted)]


def numbers(frame: pd.DataFrame, name: str) -> Floats:
    """A column of positive numbers, (n,); NaN where a cell is empty.

    Raises:
        UnknownName: No such column.
        InvalidArgument: A cell holds something else.
    """
    import pandas as pd

    if name not in frame.columns:
        raise UnknownName(f"no column {name!r}. {nearest(name, map(str, frame.columns))}")
    cells = frame[name]
    if cells.dtype == bool or not pd.api.types.is_numeric_dtype(cells):
        odd = next((c for c in cells if not _is_number(c)), cells.iloc[0])
        raise InvalidArgument(f"column {name!r} must hold numbers; it holds {str(odd)!r}")
    found: Floats = cells.to_numpy(np.float64)
    wrong = found[~np.isnan(found) & ~(np.isfinite(found) & (found > 0))]
    if len(wrong):
        raise InvalidArgument(
            f"column {name!r} must be positive and finite, for errors are relative; it holds "
            f"{wrong[0]:g}"
        )
    return found


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def genes_of(frame: pd.DataFrame, names: Sequence[str]) -> tuple[Floats, bool]:
    """Codes of the genes, (n, genes), and whether they are mere names.

    Numbers and truth values stand for themselves; a table with a gene of words is one of names.

    Raises:
        InvalidArgument: An empty cell, or a gene of more than 64 distinct values.
    """
    import pandas as pd

    words = any(not pd.api.types.is_numeric_dtype(frame[n]) for n in names)
    found = []
    for name in names:
        cells = frame[name]
        if cells.isna().any():
            row = int(np.flatnonzero(cells.isna())[0])
            raise InvalidArgument(f"gene {name!r} is empty in row {row + 1}")
        if cells.nunique() > _VALUES:
            raise InvalidArgument(
                f"gene {name!r} takes {cells.nunique():,} values; a gene takes {_VALUES} at most"
            )
        found.append(pd.factorize(cells, sort=True)[0] if words else cells.to_numpy(np.float64))
    codes = np.column_stack(found).astype(np.float64)
    if not np.isfinite(codes).all():
        raise InvalidArgument("genes must be finite numbers or words")
    return codes, words


def surrogate(
    frame: pd.DataFrame,
    *,
    genes: Sequence[str],
    target: str,
    train: Sequence[int],
    seeds: int = 3,
    baseline: str | None = None,
) -> Row:
    """Learn a column from genes; train on n rows, test on all others.

    Args:
        frame: The table. Rows without a target are left out, and counted.
        genes: Shell patterns of the gene columns; the target is never among them.
        target: Column to learn, > 0.
        train: Numbers of rows to learn from.
        seeds: How many shuffles, from 0.
        baseline: Column in which a straight line is drawn as a baseline, > 0.
    Returns:
        `rows`, one for each n and seed; `median` of them over seeds, one for each n; `baselines`,
        the same rows by name; `left_out`, rows without a target. RMSE in the target's unit.
    Raises:
        UnknownName, InvalidArgument, NotEnoughData: A column or a number is amiss.
    """
    if not train or seeds < 1:
        raise InvalidArgument("at least one number of training rows and one seed, please")
    measured = numbers(frame, target)
    given = None if baseline is None else numbers(frame, baseline)
    here = ~np.isnan(measured) if given is None else ~np.isnan(measured) & ~np.isnan(given)
    names = _genes(frame, genes, [target, baseline])
    codes, words = genes_of(frame[here], names)
    y, line = measured[here], None if given is None else given[here]
    for n in train:
        if not tabular.MINIMUM <= n <= len(y) - _TEST:
            raise NotEnoughData(
                f"train {n}: of {len(y)} rows, {tabular.MINIMUM} to {len(y) - _TEST} can teach"
            )
    hot, groups, rows = tabular.one_hot(codes), tabular.groups_of(names), []
    beside: dict[str, list[Row]] = {}
    for n in train:
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(len(y))
            seen, held = order[:n], order[n:]
            about = {"train": n, "seed": seed, "test": len(held)}
            model = tabular.TabularRegressor(groups, names=words).fit(codes[seen], y[seen], seed)
            rows.append(about | _scores(score(model.predict(codes[held])[0], y[held])))
            others = {
                "ridge": tabular.ridge(hot[seen], y[seen], hot[held]),
                "lightgbm": tabular.booster(codes[seen], y[seen], codes[held], seed),
            }
            if line is not None:
                others[str(baseline)] = tabular.line(line[seen], y[seen], line[held])
            for name, predicted in others.items():
                found = _scores(score(predicted, y[held]))
                beside.setdefault(name, []).append(about | found)
    middle = [_middle([r for r in rows if r["train"] == n], n) for n in train]
    return {
        "target": target,
        "genes": len(names),
        "left_out": len(measured) - len(y),
        "rows": rows,
        "median": middle,
        "baselines": beside,
    }


def transfer(
    frame: pd.DataFrame,
    *,
    genes: Sequence[str],
    sources: Sequence[str],
    target: str,
    samples: int = 10,
    source_samples: int = 900,
    draws: int = 20,
    exclude: Sequence[str] = (),
    family: Sequence[str] = (),
    baseline: str | None = None,
) -> Row:
    """Predict a device from a few of its measurements and from other devices.

    Args:
        frame: The table. Rows without a target are left out, and counted.
        genes: Shell patterns of the gene columns.
        sources: Shell patterns of the source devices' columns, ms; the target is never one.
        target: Column of the new device, ms.
        samples: Rows of the target that may be measured.
        source_samples: Rows of each source that are known.
        draws: How often it is repeated, with other known rows.
        exclude: Patterns of columns that are no sources.
        family: Patterns of devices that are one family: of each that the target is in, no other
            member is a source.
        baseline: Column in which a straight line is drawn as a baseline, > 0.
    Returns:
        `rows`, one for each draw; their `mean`; `baselines`, by name, means over the same draws;
        `sources`, their names; `left_out`, rows without a target. `expected_mape` and
        `expected_spearman` are what the model itself expected of the rows that it was scored on.
    Raises:
        UnknownName, InvalidArgument, NotEnoughData: A column or a number is amiss.
    """
    if draws < 1:
        raise InvalidArgument(f"draws: at least 1, got {draws}")
    measured = numbers(frame, target)
    given = None if baseline is None else numbers(frame, baseline)
    here = ~np.isnan(measured) if given is None else ~np.isnan(measured) & ~np.isnan(given)
    gone = [*exclude, *(f for f in family if fnmatchcase(target, f))]
    devices = [
        c
        for c in columns(frame, sources, "source")
        if c not in (target, baseline) and not any(fnmatchcase(c, p) for p in gone)
    ]
    if not devices:
        raise NotEnoughData(f"no source device is left to teach {target!r}")
    names = _genes(frame, genes, [target, baseline, *devices])
    codes, _ = genes_of(frame[here], names)
    known_ms = np.column_stack([numbers(frame, d)[here] for d in devices])
    y, line = measured[here], None if given is None else given[here]
    if not MINIMUM <= samples <= len(y) - _TEST:
        raise NotEnoughData(f"samples {samples}: {MINIMUM} to {len(y) - _TEST} of {len(y)} rows")
    if not tabular.MINIMUM <= source_samples <= len(y):
        raise NotEnoughData(
            f"source samples {source_samples}: {tabular.MINIMUM} to {len(y)} of {len(y)} rows"
        )
    rows: list[Row] = []
    beside: dict[str, list[Row]] = {}
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        shown = np.full(known_ms.shape, np.nan)
        some = rng.permutation(len(y))[:source_samples]
        shown[some] = known_ms[some]
        relatives = Relatives(codes, shown)
        chosen = relatives.choose(samples)
        found = relatives.adapt(chosen, y[chosen])
        held = np.setdiff1d(np.arange(len(y)), chosen)
        about = {"draw": draw, "samples": samples}
        took = score(found.latency_ms[held], y[held], found.low_ms[held], found.high_ms[held])
        told = {
            "coverage90": took.coverage90,
            "expected_mape": found.expected_mape,
            "expected_spearman": found.expected_spearman,
        }
        rows.append(about | _scores(took) | told)
        others = {"nearest device": (relatives.nearest(chosen, y[chosen]), held)}
        drawn = rng.permutation(len(y))[:samples]
        rest = np.setdiff1d(np.arange(len(y)), drawn)
        others["ridge, random samples"] = (relatives.ridge(drawn, y[drawn]), rest)
        if line is not None:
            others[str(baseline)] = (tabular.line(line[chosen], y[chosen], line), held)
        for name, (predicted, at) in others.items():
            beside.setdefault(name, []).append(about | _scores(score(predicted[at], y[at])))
    return {
        "target": target,
        "sources": devices,
        "left_out": len(measured) - len(y),
        "rows": rows,
        "mean": _mean(rows),
        "baselines": {name: _mean(found) for name, found in beside.items()},
    }


def _genes(frame: pd.DataFrame, patterns: Sequence[str], other: Sequence[str | None]) -> list[str]:
    found = [n for n in columns(frame, patterns, "genes") if n not in other]
    if not found:
        raise InvalidArgument("genes: the patterns match no column beside the target and sources")
    return found


def _scores(found: Score) -> Row:
    values = found.to_dict()
    kept = {k: values[k] for k in ("spearman", "kendall_tau")}
    return kept | {"rmse": found.rmse_ms, "mape": found.mape, "acc10": found.acc10}


def _middle(rows: Sequence[Row], train: int) -> Row:
    names = ("spearman", "kendall_tau", "rmse", "mape", "acc10")
    return {"train": train} | {k: _reduced(np.median, [r[k] for r in rows]) for k in names}


def _mean(rows: Sequence[Row]) -> Row:
    names = [k for k in rows[0] if k not in ("draw", "samples")]
    reduced = {k: _reduced(np.mean, [r[k] for r in rows]) for k in names}
    return {"samples": rows[0]["samples"], "draws": len(rows)} | reduced


def _reduced(how: Any, values: Sequence[float | None]) -> float | None:
    """Of what could be computed; None where nothing could."""
    known = [v for v in values if v is not None]
    return float(how(known)) if known else None
