"""What a search that was stopped and went on is compared by."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from phonenas import search

__all__ = ["ends_alike"]


def ends_alike(some: Path, other: Path) -> None:
    """Whether two runs have the same front, evaluations and log, to the bit."""
    runs = [search.load(some), search.load(other)]
    assert runs[0].front == runs[1].front
    tables = [pd.read_parquet(path / "evaluations.parquet") for path in (some, other)]
    pd.testing.assert_frame_equal(tables[0], tables[1], check_exact=True)
    logs = [[row[:-1] for row in run.log()] for run in runs]  # without the seconds
    assert logs[0] == logs[1]
