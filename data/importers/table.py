"""Table: what a published file says in our words, and what of it could not be said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...space import Operator
from ...space.errors import InvalidArgument
from ..measurement import Conditions, SubjectKind
from .source import Source, shown

__all__ = ["UNKNOWN", "Reading", "Skip", "Table", "check_name", "conditions_of", "sane"]

UNKNOWN = "unknown"
_MAX_PX = 2048
_MAX_PARAMS = 10**9


@dataclass(frozen=True)
class Reading:
    """One published number.

    Args:
        kind: "operator" or "network".
        subject: `Operator.key` or `str(Architecture)`.
        latency_ms: Its time in ms, > 0.
        circumstances: The row that it stands in and what the row tells beside: `row`, `line`,
            `runs`, `std_ms`.
        at: When it was measured, ISO 8601 in UTC; "" where the source does not tell.
        purpose: "profile" or "validation".
    """

    kind: SubjectKind
    subject: str
    latency_ms: float
    circumstances: Mapping[str, Any] = field(default_factory=dict, hash=False)
    at: str = ""
    purpose: str = "profile"


@dataclass(frozen=True)
class Skip:
    """A row that was not taken: why, and its name as the source writes it."""

    reason: str
    row: str


@dataclass(frozen=True)
class Table:
    """The readings of one file under one set of conditions.

    Args:
        file: The file's name.
        conditions: What is known of their making; `origin` is "imported".
        readings: In the file's order; several of one subject become rounds of one measurement.
        skipped: The rows that are not among them.
        resolution_px: Side of the input image, where the table has one.
    """

    file: str
    conditions: Conditions
    readings: tuple[Reading, ...]
    skipped: tuple[Skip, ...] = ()
    resolution_px: int | None = None


def conditions_of(source: Source, device: str, **known: Any) -> Conditions:
    """Conditions of an imported table: what is known, and "unknown" for the rest.

    The fingerprint is of the file's bytes: another version of a table is another condition, the
    same under another name is not. Threads that nobody told are 0.
    """
    fields: dict[str, Any] = dict.fromkeys(
        ("model", "runtime", "runtime_version", "runtime_hash", "provider", "optimisation",
         "cores", "governor", "precision", "clocks"),
        UNKNOWN,
    )  # fmt: skip
    fields |= {"threads": 0, "mode": "steady", "statistic": UNKNOWN, **known}
    return Conditions(
        device=device, fingerprint=f"table {source.digest}", origin="imported", **fields
    )


def check_name(text: str, what: str) -> str:
    """A device's or model's name as it may be kept.

    Raises:
        InvalidArgument: Empty, longer than 100 characters, or with some that do not print.
    """
    if not text.strip() or len(text) > 100 or not text.isprintable():
        raise InvalidArgument(f"{what} is a name of 1 to 100 printable characters: {shown(text)}")
    return text


def sane(operator: Operator) -> Operator:
    """The operator, if a phone could hold it.

    Raises:
        InvalidArgument: A map above 2,048 px, or more than 10^9 parameters.
    """
    if operator.in_px > _MAX_PX or operator.params > _MAX_PARAMS:
        raise InvalidArgument(
            f"{shown(operator.key)} is larger than {_MAX_PX} px or 1e9 parameters"
        )
    return operator
