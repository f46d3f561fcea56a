"""What a measuring job is about: its subjects, and the events that it hands out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..data.measurement import SubjectKind
from ..space import Architecture
from ..space.lowering import Measurable

__all__ = [
    "Doubted",
    "Event",
    "Lost",
    "Measured",
    "OnEvent",
    "Planned",
    "Rejected",
    "Subject",
    "Waiting",
]


@dataclass(frozen=True)
class Subject:
    """Something to measure: an operator, a kernel or a whole network."""

    kind: SubjectKind
    model: Measurable

    @property
    def text(self) -> str:
        """Its name in the store."""
        return str(self.model) if isinstance(self.model, Architecture) else self.model.key


@dataclass(frozen=True)
class Planned:
    """Event: what will be measured, and about how long it takes."""

    subjects: int
    reused: int
    rounds: int
    seconds: float


@dataclass(frozen=True)
class Measured:
    """Event: rounds accepted so far, of all; about how many seconds are left."""

    done: int
    total: int
    seconds_left: float


@dataclass(frozen=True)
class Rejected:
    """Event: readings that were not recorded and are taken again, and why."""

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
class Doubted:
    """Event: what speaks against measuring now; it goes on all the same."""

    reason: str


Event = Planned | Measured | Rejected | Waiting | Lost | Doubted
OnEvent = Callable[[Event], None]
