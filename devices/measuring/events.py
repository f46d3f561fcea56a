"""The subjects of a measuring job, and the events that it reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from phonenas.data.measurement import SubjectKind
from phonenas.space import Architecture
from phonenas.space.lowering.write import Measurable

__all__ = [
    "Event",
    "Lost",
    "Measured",
    "OnEvent",
    "Planned",
    "Rejected",
    "Subject",
    "Waiting",
    "Warned",
]


@dataclass(frozen=True)
class Subject:
    """Something to measure: an operator, a kernel or a whole network.

    `again` measures it as a new series though the store holds it.
    """

    kind: SubjectKind
    model: Measurable
    again: bool = False

    @property
    def text(self) -> str:
        """Its name in the store."""
        return str(self.model) if isinstance(self.model, Architecture) else self.model.key


@dataclass(frozen=True)
class Planned:
    """Event: numbers of subjects to measure, of those in the store, of rounds; seconds, about."""

    subjects: int
    reused: int
    rounds: int
    seconds: float


@dataclass(frozen=True)
class Measured:
    """Event: rounds accepted so far, of all; seconds left, about."""

    done: int
    total: int
    seconds_left: float


@dataclass(frozen=True)
class Rejected:
    """Event: subjects whose readings were rejected and are repeated, and the first reason."""

    subjects: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Waiting:
    """Event: nothing is measured for some seconds, and why."""

    reason: str
    seconds: float


@dataclass(frozen=True)
class Lost:
    """Event: the device was lost, and is tried again after some seconds."""

    reason: str
    seconds: float


@dataclass(frozen=True)
class Warned:
    """Event: what may make the measurements wrong; the job continues."""

    reason: str


Event = Planned | Measured | Rejected | Waiting | Lost | Warned
OnEvent = Callable[[Event], None]
