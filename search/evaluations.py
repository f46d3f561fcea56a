"""Evaluations: what a search knows of networks, as named columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from phonenas.space import Genomes
from phonenas.space.errors import InvalidArgument
from phonenas.space.naming import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CHANCE", "COLUMNS", "EPOCHS", "INHERITED", "SOURCE", "Evaluations", "Generation"]

Floats = npt.NDArray[np.float64]
COLUMNS = ("latency_ms", "top1", "top1_error", "outside")  # of every network, in a file's order
CHANCE = "chance"  # among the further columns: probability to meet the target
EPOCHS = "epochs"  # among the further columns: after how many of them top1 was read
# Among the further columns: the row of the network whose weights this one began with, -1 for none;
# and the share of its parameters that they gave a value.
SOURCE, INHERITED = "source", "inherited"


class Generation(NamedTuple):
    """One row of a search's log: the state after a generation.

    `hypervolume` is NaN with more than three objectives; `seconds` leave stops out.
    """

    evaluations: int
    repeats: int
    hypervolume: float
    fastest_ms: float
    best_top1: float
    seconds: float


@dataclass(frozen=True)
class Evaluations:
    """n networks with their numbers, in the order of evaluation.

    Args:
        genomes: (n, genes), int8.
        latency_ms: Predicted latency of one image, (n,), in ms.
        top1, top1_error: Estimated accuracy and its standard error, (n,), in [0, 1]; NaN where a
            network has none.
        outside: Whether top1 is an extrapolation, (n,), bool.
        further: Further objectives and limits by name, each (n,), in the unit of the objective;
            `chance` is the probability to meet the target; `epochs` is after how many epochs top1
            was read, where networks are not all trained as long; `source` and `inherited` whose
            weights a training began with.
        units: Of `further`, by name, where there is one.
        failed: Why a network has no accuracy, by row.
    Raises:
        InvalidArgument: Columns of unlike lengths, or reasons that do not belong to a NaN.
    """

    genomes: Genomes
    latency_ms: Floats
    top1: Floats
    top1_error: Floats
    outside: npt.NDArray[np.bool_]
    further: Mapping[str, Floats] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "outside", np.asarray(self.outside, np.bool_))
        columns = {**{name: getattr(self, name) for name in COLUMNS}, **self.further}
        wrong = [name for name, values in columns.items() if values.shape != (len(self),)]
        if wrong:
            raise InvalidArgument(f"{len(self)} genomes with {', '.join(wrong)} of another length")
        if sorted(self.failed) != np.flatnonzero(~self.has_top1).tolist():
            raise InvalidArgument(
                f"{len(self.failed)} reasons for {(~self.has_top1).sum()} networks without an "
                "accuracy"
            )

    def __len__(self) -> int:
        return len(self.genomes)

    def __repr__(self) -> str:
        failed = f", {len(self.failed)} without an accuracy" if self.failed else ""
        return f"Evaluations({counted(len(self), 'network')}: {', '.join(self.columns)}{failed})"

    def to_frame(self) -> pd.DataFrame:
        """One row a network, without its genes: `columns`, then failed (the reason, or "")."""
        import pandas as pd

        columns = {**{name: getattr(self, name) for name in COLUMNS}, **self.further}
        return pd.DataFrame(
            {**columns, "failed": [self.failed.get(i, "") for i in range(len(self))]}
        )

    @property
    def has_top1(self) -> npt.NDArray[np.bool_]:
        """Which networks have an accuracy, (n,)."""
        return ~np.isnan(self.top1)

    @property
    def comparable(self) -> npt.NDArray[np.bool_]:
        """Which networks have an accuracy after the most epochs that any has one after, (n,)."""
        known = self.has_top1
        epochs = self.further.get(EPOCHS)
        if epochs is None or not known.any():
            return known
        longest: npt.NDArray[np.bool_] = known & (epochs == epochs[known].max())
        return longest

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all numbers, in a file's order."""
        return (*COLUMNS, *self.further)

    def take(self, rows: Sequence[int] | npt.NDArray[np.intp]) -> Evaluations:
        """Some of the networks, (m,), in the order of `rows`; a row may come twice."""
        at = np.asarray(rows, np.intp)
        failed = dict[int, str]()
        if self.failed:
            failed = {i: self.failed[r] for i, r in enumerate(at.tolist()) if r in self.failed}
        latency_ms, top1, top1_error = self.latency_ms[at], self.top1[at], self.top1_error[at]
        further = {name: values[at] for name, values in self.further.items()}
        outside, units = self.outside[at], self.units
        return Evaluations(
            self.genomes[at], latency_ms, top1, top1_error, outside, further, units, failed
        )

    @classmethod
    def concat(cls, parts: Sequence[Evaluations]) -> Evaluations:
        """Several after each other, one at least, with the same further columns."""
        failed, start = dict[int, str](), 0
        for part in parts:
            failed |= {start + row: why for row, why in part.failed.items()}
            start += len(part)
        genomes = np.concatenate([part.genomes for part in parts])
        numbers = np.concatenate([part.to_array() for part in parts])
        return cls.of_array(genomes, numbers, parts[0].columns, failed, parts[0].units)

    @classmethod
    def of_array(
        cls,
        genomes: Genomes,
        numbers: Floats,
        columns: Sequence[str] = COLUMNS,
        failed: Mapping[int, str] | None = None,
        units: Mapping[str, str] | None = None,
    ) -> Evaluations:
        """Inverse of `to_array`: numbers, (n, columns), by the names of the columns.

        Raises:
            InvalidArgument: Another number of columns, or what the class raises.
        """
        if numbers.ndim != 2 or numbers.shape[1] != len(columns):
            raise InvalidArgument(f"numbers {numbers.shape} for columns {', '.join(columns)}")
        named = {name: numbers[:, i] for i, name in enumerate(columns)}
        latency_ms, top1, top1_error, outside = (named.pop(name) for name in COLUMNS)
        known = (genomes, latency_ms, top1, top1_error, outside.astype(np.bool_))
        return cls(*known, named, units or {}, failed or {})

    def to_array(self) -> Floats:
        """All numbers, (n, columns); `outside` is 0 or 1."""
        return np.column_stack(
            [*(getattr(self, name) for name in COLUMNS), *self.further.values()]
        ).astype(np.float64)
