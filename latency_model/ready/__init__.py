"""Phones that everyone has: latency models fitted on public measurements, shipped with phonenas.

Each is a file of `models/`, named PHONE.RUNTIME.UNIT.PRECISION.json, that `tools/fit_ready.py`
wrote. It holds fitted rates and corrections, no measurement.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from phonenas.space.errors import UnknownName, nearest

from ..model import LatencyModel
from ..model_file import load as load_file

__all__ = ["ReadyPhone", "begun", "file_of", "known", "load", "names", "phones"]

_FOLDER = Path(__file__).parent / "models"


@dataclass(frozen=True)
class ReadyPhone:
    """A row of `phonenas devices --ready`.

    Args:
        name: PHONE/RUNTIME/UNIT/PRECISION.
        model: What the phone is.
        networks: How many its model was fitted on.
        mape, acc10, spearman: On these networks, each with its whole family left out; `acc10` is
            the share predicted within 10 %.
        source, licence, date: Of the measurements.
    """

    name: str
    model: str
    networks: int
    mape: float
    acc10: float
    spearman: float
    source: str
    licence: str
    date: str


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Of all ready phones, in alphabetic order."""
    return tuple(sorted(p.stem.replace(".", "/") for p in _FOLDER.glob("*.json")))


def file_of(name: str, folder: Path = _FOLDER) -> Path:
    """Where the model of a phone lies, or would."""
    return folder / f"{name.replace('/', '.')}.json"


def begun(text: str) -> str:
    """What to say of a text that names of ready phones begin with; "" where none does."""
    mine = [n for n in names() if n.startswith(text.rstrip("/") + "/")]
    if not mine:
        return ""
    return (
        f"{len(mine)} ready phones have names that begin so, as {mine[0]}. List them:  "
        "phonenas devices --ready"
    )


def known(name: str) -> str:
    """The name, if a ready phone has it.

    Raises:
        UnknownName: None has; the nearest is offered.
    """
    if name not in names() and (told := begun(name)):
        raise UnknownName(f"no ready phone is called {name!r}. {told}")
    if name not in names():
        raise UnknownName(
            f"no ready phone is called {name!r}. "
            + nearest(name, names(), "phonenas devices --ready")
        )
    return name


def load(name: str) -> LatencyModel:
    """The model of a ready phone. Raises as `known`."""
    return load_file(file_of(known(name)))


def phones() -> list[ReadyPhone]:
    """All ready phones with their scores."""
    return [_row(name, load(name)) for name in names()]


def _row(name: str, model: LatencyModel) -> ReadyPhone:
    score, source = model.scores["model"], model.source
    told: dict[str, Any] = {key: source.get(key, "") for key in ("source", "licence", "date")}
    return ReadyPhone(
        name,
        model.conditions.model,
        model.measurements,
        score.mape,
        score.acc10,
        score.spearman,
        **told,
    )
