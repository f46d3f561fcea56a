"""Top-1 of networks that others trained, looked up in a table."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from phonenas.space import Architecture, Operator, SearchSpace
from phonenas.space.errors import UncoveredNetwork

from .estimator import Accuracy, AccuracyEstimator, Request
from .results import Results, read_results

__all__ = ["NOISE", "AccuracyTable"]

NOISE = 0.003  # of one training; 0.27 points in Accel-NASBench, 0.2 in NAS-Bench-Macro


class AccuracyTable(AccuracyEstimator):
    """Top-1 from a table of trained networks; others are an error.

    Two texts with the same layers are the same network. Several rows of a network are averaged; a
    row that failed counts only where all of a network's rows failed.

    The standard error is the table's, where it has that column. Else it is the standard deviation
    of one training over the root of their number: that of all networks with several rows together,
    or 0.3 points where there are fewer than ten of these.

    Args:
        path: See `read_results`; so are `unit`, `space`, `column` and `target`.
    Raises:
        InvalidArgument, UnsupportedFormat, NotEnoughData: As `read_results`.
    """

    name, form = "table", "table:FILE"
    takes = ("unit",)

    def __init__(
        self,
        path: str | Path,
        *,
        unit: str | None = None,
        space: SearchSpace | None = None,
        column: str | None = None,
        target: str | None = None,
    ) -> None:
        results = read_results(path, unit=unit, space=space, column=column, target=target)
        self.source, self.rows, self.unit = results.source, len(results), results.unit
        self._known = _merged(results)
        lines = sorted(
            f"{layers!r} {one.top1[0]!r} {one.standard_error[0]!r} {one.failed!r}"
            for layers, one in self._known.items()
        )
        self._digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
        self.schedule = f"as in {self.source.name}"
        self.note = f"from {self.source.name}, trained elsewhere"

    @classmethod
    def make(cls, request: Request) -> AccuracyTable:
        return cls(request.argument, unit=request.unit, space=request.space and request.space.whole)

    def __len__(self) -> int:
        """How many networks it knows."""
        return len(self._known)

    @property
    def digest(self) -> str:
        return f"table-{self._digest}"

    @property
    def cost_s(self) -> float:
        return 1e-5

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        """Look up n networks.

        Raises:
            UncoveredNetwork: The table lacks some; the first is named.
        """
        lacking = [a for a in architectures if a.operators() not in self._known]
        if lacking:
            more = f" and {len(lacking) - 1:,} more of" if len(lacking) > 1 else ", one of"
            raise UncoveredNetwork(
                f"{self.source} has no accuracy of '{lacking[0]}'{more} {len(architectures):,} "
                f"networks to estimate. It holds {len(self):,}. Search these alone:  phonenas "
                f"search --space {shlex.quote(f'table:{self.source}')}  or fit a surrogate to "
                f"them:  phonenas fit-accuracy {shlex.quote(str(self.source))}"
            )
        return Accuracy.joined(self._known[a.operators()] for a in architectures)


def _merged(results: Results) -> dict[tuple[Operator, ...], Accuracy]:
    """One `Accuracy` a network, by its layers."""
    rows: dict[tuple[Operator, ...], list[int]] = {}
    for i, network in enumerate(results.networks):
        rows.setdefault(network.operators(), []).append(i)
    well = {k: [i for i in at if not results.failed[i]] for k, at in rows.items()}
    several = [results.top1[at] for at in well.values() if len(at) > 1]
    scatter = NOISE
    if len(several) >= 10:
        squares = sum(float(((t - t.mean()) ** 2).sum()) for t in several)
        scatter = max(float(np.sqrt(squares / sum(len(t) - 1 for t in several))), 1e-6)
    merged = {}
    for layers, at in rows.items():
        good = well[layers]
        if not good:
            merged[layers] = Accuracy.failure(results.failed[at[0]])
            continue
        errors = results.standard_error[good]
        errors = np.where(np.isnan(errors), scatter, errors)
        merged[layers] = Accuracy(
            results.top1[good].mean(keepdims=True),
            np.sqrt((errors**2).sum(keepdims=True)) / len(good),
            np.zeros(1, bool),
        )
    return merged
