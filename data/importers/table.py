"""Table: the operators and networks of a published file, and the rows that were left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from phonenas.space import Operator
from phonenas.space.errors import InvalidArgument

from ..measurement import Conditions, SubjectKind
from .source import Source, quoted

__all__ = ["TEXTS", "UNKNOWN", "Reading", "Skip", "Table", "conditions_of", "within_limits"]

UNKNOWN = "unknown"
#: The conditions that a table states as text.
TEXTS = (
    *("model", "runtime", "runtime_version", "runtime_hash", "provider", "optimisation"),
    *("cores", "governor", "precision", "statistic", "clocks"),
)
_MAX_PX = 2048
_MAX_PARAMS = 10**9


@dataclass(frozen=True)
class Reading:
    """One published number.

    Args:
        kind: "operator" or "network".
        subject: `Operator.key` or `str(Architecture)`.
        latency_ms: Its time in ms, > 0.
        telemetry: The row that it comes from and further fields of it: `row`, `line`,
            `runs`, `std_ms`.
        at: When it was measured, ISO 8601 in UTC; "" if the source does not state it.
        purpose: "profile" or "validation".
    """

    kind: SubjectKind
    subject: str
    latency_ms: float
    telemetry: Mapping[str, Any] = field(default_factory=dict, hash=False)
    at: str = ""
    purpose: str = "profile"


@dataclass(frozen=True)
class Skip:
    """A row that was not imported: the reason, and its name in the source."""

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

    @property
    def rows(self) -> int:
        """How many of the file's rows its readings hold; some are the sum of several."""
        return sum(len(r.telemetry.get("rows", (1,))) for r in self.readings)


def conditions_of(source: Source, device: str, **known: Any) -> Conditions:
    """Conditions of an imported table: what is known, and "unknown" for the rest.

    The fingerprint is of the file's bytes: another version of a table is another condition, the
    same under another name is not. Unknown threads are 0.
    """
    fields: dict[str, Any] = dict.fromkeys(TEXTS, UNKNOWN)
    fields |= {"threads": 0, "mode": "steady", **known}
    return Conditions(
        device=device, fingerprint=f"table {source.digest}", origin="imported", **fields
    )


def within_limits(operator: Operator) -> Operator:
    """The operator, if a phone could hold it.

    Raises:
        InvalidArgument: A map above 2,048 px, or more than 10^9 parameters.
    """
    if operator.in_px > _MAX_PX or operator.params > _MAX_PARAMS:
        raise InvalidArgument(
            f"{quoted(operator.key)} is larger than {_MAX_PX} px or 1e9 parameters"
        )
    return operator
