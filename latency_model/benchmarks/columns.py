"""Benchmarks of the models on any table with named columns, beside their baselines.

*surrogate*: a model is fitted on n rows, shuffled by the seed, and tested on all others.

*transfer*: of each source device some rows are known, the same for all, drawn by the draw's number;
of the target device only the few that are chosen with the sources' numbers. It is tested on all
other rows of the target, those that the sources know among them. The target is never a source.

No model is fitted on a value that it is tested on, and no choice in the code depends on one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from phonenas.space.errors import InvalidArgument, NotEnoughData, UnknownName, nearest

from .. import tabular
from ..metrics import Score, score
from .few_samples import METHOD, MINIMUM, SourceDevices

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DeviceColumns", "columns", "genes_of", "numbers", "surrogate", "transfer"]

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]

_TEST = 10  # rows; a rank correlation of fewer says nothing
_VALUES = 64  # distinct values of a gene; a column with more is a measurement


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
        odd = next(iter(cells[pd.to_numeric(cells, errors="coerce").isna()]), cells.iloc[0])
        raise InvalidArgument(f"column {name!r} must hold numbers; it holds {str(odd)!r}")
    values: Floats = cells.to_numpy(np.float64)
    wrong = values[~np.isnan(values) & ~(np.isfinite(values) & (values > 0))]
    if len(wrong):
        raise InvalidArgument(
            f"column {name!r} must be positive and finite, since errors are relative; it holds "
            f"{wrong[0]:g}"
        )
    return values


def genes_of(frame: pd.DataFrame, names: Sequence[str]) -> tuple[Floats, bool]:
    """Codes of the genes, (n, genes), and whether they are mere names.

    Numbers and truth values stay as they are; with one gene of words all genes are names.

    Raises:
        InvalidArgument: An empty cell, or a gene of more than 64 distinct values.
    """
    import pandas as pd

    as_names = any(not pd.api.types.is_numeric_dtype(frame[n]) for n in names)
    genes = []
    for name in names:
        cells = frame[name]
        if cells.isna().any():
            row = int(np.flatnonzero(cells.isna())[0])
            raise InvalidArgument(f"gene {name!r} is empty in row {row + 1}")
        if cells.nunique() > _VALUES:
            raise InvalidArgument(
                f"gene {name!r} takes {cells.nunique():,} values; a gene takes {_VALUES} at most"
            )
        genes.append(pd.factorize(cells, sort=True)[0] if as_names else cells.to_numpy(np.float64))
    codes = np.column_stack(genes).astype(np.float64)
    if not np.isfinite(codes).all():
        raise InvalidArgument("genes must be finite numbers or words")
    return codes, as_names


def surrogate(
    frame: pd.DataFrame,
    *,
    genes: Sequence[str],
    target: str,
    train: Sequence[int],
    seeds: int = 3,
    baseline: str | None = None,
) -> Row:
    """Fit a column on genes; train on n rows, test on all others.

    Args:
        frame: The table. Rows without a target are left out, and counted.
        genes: Shell patterns of the gene columns; the target is never among them.
        target: Column to predict, > 0.
        train: Numbers of rows to fit on.
        seeds: How many shuffles, ≥ 1.
        baseline: Column in which a straight line is drawn as a baseline, > 0.
    Returns:
        `rows`, one for each n and seed; `median` of them over seeds, one for each n; `baselines`,
        the same rows by name; `left_out`, rows without a target. RMSE in the target's unit.
    Raises:
        UnknownName, InvalidArgument: A column or a number is not there, or not of its kind.
        NotEnoughData: Too few rows.
    """
    if not train or seeds < 1:
        raise InvalidArgument(
            f"it takes at least one number of training rows and one seed, got {list(train)} and "
            f"{seeds}"
        )
    here, y, line = _complete(frame, target, baseline)
    names = _genes(frame, genes, [target, baseline])
    codes, as_names = genes_of(frame[here], names)
    for n in train:
        if not tabular.MINIMUM <= n <= len(y) - _TEST:
            raise NotEnoughData(
                f"train {n}: of {len(y)} rows, {tabular.MINIMUM} to {len(y) - _TEST} can be "
                "fitted on"
            )
    hot, groups, rows = tabular.one_hot(codes), tabular.groups_of(names), []
    beside: dict[str, list[Row]] = {}
    for n in train:
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(len(y))
            fit, test = order[:n], order[n:]
            about = {"train": n, "seed": seed, "test": len(test)}
            model = tabular.TabularRegressor(groups, names=as_names).fit(codes[fit], y[fit], seed)
            rows.append(about | _scores(score(model.predict(codes[test])[0], y[test])))
            others = {
                "ridge": tabular.ridge(hot[fit], y[fit], hot[test]),
                "lightgbm": tabular.booster(codes[fit], y[fit], codes[test], seed),
            }
            if line is not None:
                others[str(baseline)] = tabular.line(line[fit], y[fit], line[test])
            for name, predicted in others.items():
                row = about | _scores(score(predicted, y[test]))
                beside.setdefault(name, []).append(row)
    middle = [_middle([r for r in rows if r["train"] == n], n) for n in train]
    return {
        "target": target,
        "genes": len(names),
        "left_out": len(frame) - len(y),
        "rows": rows,
        "median": middle,
        "baselines": beside,
    }


@dataclass(frozen=True)
class DeviceColumns:
    """Columns of a table that are devices' times in ms.

    Args:
        target: Column of the new device.
        sources: Shell patterns of the source devices' columns; the target is never one.
        exclude: Patterns of columns that are not sources.
        family: Patterns of devices that are one family: of each that the target is in, no other
            member is a source.
    """

    target: str
    sources: Sequence[str]
    exclude: Sequence[str] = ()
    family: Sequence[str] = ()

    def of(self, frame: pd.DataFrame, baseline: str | None) -> list[str]:
        """Columns of the source devices.

        Raises:
            NotEnoughData: None is left.
        """
        gone = [*self.exclude, *(f for f in self.family if fnmatchcase(self.target, f))]
        devices = [
            c
            for c in columns(frame, self.sources, "source")
            if c not in (self.target, baseline) and not any(fnmatchcase(c, p) for p in gone)
        ]
        if not devices:
            raise NotEnoughData(f"no source device is left from which to predict {self.target!r}")
        return devices


def transfer(
    frame: pd.DataFrame,
    devices: DeviceColumns,
    *,
    genes: Sequence[str],
    samples: int = 10,
    source_samples: int = 900,
    draws: int = 20,
    baseline: str | None = None,
) -> Row:
    """Predict a device from a few of its measurements and from other devices.

    Args:
        frame: The table. Rows without a target are left out, and counted.
        devices: Columns of the new device and of the source devices.
        genes: Shell patterns of the gene columns.
        samples: Rows of the target that may be measured.
        source_samples: Rows of each source that are known.
        draws: How often it is repeated, with other known rows.
        baseline: Column in which a straight line is drawn as a baseline, > 0.
    Returns:
        `rows`, one for each draw; their `mean`; `baselines`, by name, means over the same draws;
        `method`, in words; `sources`, their names; `left_out`, rows without a target.
        `expected_mape` and `expected_spearman` are what the model itself expected of the rows that
        it was scored on.
    Raises:
        UnknownName, InvalidArgument: A column or a number is not there, or not of its kind.
        NotEnoughData: Too few rows, or no source.
    """
    if draws < 1:
        raise InvalidArgument(f"draws: at least 1, got {draws}")
    here, y, line = _complete(frame, devices.target, baseline)
    names = devices.of(frame, baseline)
    codes, _ = genes_of(frame[here], _genes(frame, genes, [devices.target, baseline, *names]))
    known_ms = np.column_stack([numbers(frame, d)[here] for d in names])
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
        given = np.full(known_ms.shape, np.nan)
        some = rng.permutation(len(y))[:source_samples]
        given[some] = known_ms[some]
        sources = SourceDevices(codes, given)
        chosen = sources.choose(samples)
        adapted = sources.adapt(chosen, y[chosen])
        test = np.setdiff1d(np.arange(len(y)), chosen)
        about = {"draw": draw, "samples": samples}
        ends = adapted.latency_ms[test], y[test], adapted.low_ms[test], adapted.high_ms[test]
        scored = score(*ends)
        expected = {
            "coverage90": scored.coverage90,
            "expected_mape": adapted.expected_mape,
            "expected_spearman": adapted.expected_spearman,
        }
        rows.append(about | _scores(scored) | expected)
        others = {"nearest device": (sources.nearest(chosen, y[chosen]), test)}
        drawn = rng.permutation(len(y))[:samples]
        rest = np.setdiff1d(np.arange(len(y)), drawn)
        others["ridge, random samples"] = (sources.ridge(drawn, y[drawn]), rest)
        if line is not None:
            others[str(baseline)] = (tabular.line(line[chosen], y[chosen], line), test)
        for name, (predicted, at) in others.items():
            beside.setdefault(name, []).append(about | _scores(score(predicted[at], y[at])))
    return {
        "target": devices.target,
        "method": METHOD,
        "sources": names,
        "left_out": len(frame) - len(y),
        "rows": rows,
        "mean": _mean(rows),
        "baselines": {name: _mean(each) for name, each in beside.items()},
    }


def _complete(
    frame: pd.DataFrame, target: str, baseline: str | None
) -> tuple[npt.NDArray[np.bool_], Floats, Floats | None]:
    """Which rows have a target and a baseline, (rows,); and the values of both there."""
    measured = numbers(frame, target)
    if baseline is None:
        here = ~np.isnan(measured)
        return here, measured[here], None
    column = numbers(frame, baseline)
    here = ~np.isnan(measured) & ~np.isnan(column)
    return here, measured[here], column[here]


def _genes(frame: pd.DataFrame, patterns: Sequence[str], other: Sequence[str | None]) -> list[str]:
    names = [n for n in columns(frame, patterns, "genes") if n not in other]
    if not names:
        raise InvalidArgument("genes: the patterns match no column beside the target and sources")
    return names


def _scores(scored: Score) -> Row:
    values = scored.to_dict()
    kept = {k: values[k] for k in ("spearman", "kendall_tau")}
    return kept | {"rmse": scored.rmse_ms, "mape": scored.mape, "acc10": scored.acc10}


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
