"""The report's section on rounds: what measuring, fitting and ranking again gave."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from .page import TARGET, listed, number

__all__ = ["rounds_section"]

_BEST: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("the best of all rounds", lambda v: f"<code>{escape(v['name'])}</code>"),
    ("round", lambda v: str(v["round"])),
    ("top-1 estimate", lambda v: f"○ {v['top1']:.1%}"),
    ("predicted, ms", lambda v: f"○ {v['predicted_ms']:.2f}"),
    ("measured, ms", lambda v: f"● {v['measured_ms']:.2f}"),
    ("target", lambda v: TARGET[v["verdict"]]),
)


def _ranking(row: Mapping[str, Any]) -> str:
    changed = row["changed"]
    if not changed:
        return "the search's own"
    return f"{changed.get('joined', '–')} joined, {changed.get('left', '–')} left"


def _meeting(row: Mapping[str, Any]) -> str:
    return "–" if row.get("meet") is None else f"{row['meet']} of {len(row['networks'])}"


_ROUNDS: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("", lambda row: f"round {row['round']}"),
    ("its front", lambda row: escape(_ranking(row))),
    ("model moved", lambda row: number(row["changed"].get("shift"), "{:+z.1%}")),
    ("measured", lambda row: str(len(row["networks"]))),
    ("expected to meet the target", lambda row: number(row.get("expected_to_meet"), "{:.1f}")),
    ("meet it", lambda row: escape(_meeting(row))),
    ("mean absolute error", lambda row: number(row["score"].get("mape"), "{:.1%}")),
)


def rounds_section(validation: Mapping[str, Any], path: Path) -> str:
    """What each round of measuring, fitting and ranking gave, and the best of all rounds."""
    stopped = str(validation.get("stopped") or "").rstrip(".")
    return (
        f"<h2>Rounds</h2>{listed(_ROUNDS, validation['rounds'])}"
        + (f"<p>No further round: {escape(stopped)}.</p>" if stopped else "")
        + (listed(_BEST, validation["best"]) if validation["best"] else "")
        + '<p class="soft">After each round the model is fitted again, on these measurements too, '
        "and all networks that the search evaluated are ranked again. The model moves by its mean "
        "error that remains on the measured networks. The table of validated networks holds those "
        "of the search's own front; each further round has a report of its own:  "
        f"<code>phonenas report {escape(shlex.quote(f'{path}/round2'))}</code></p>"
    )
