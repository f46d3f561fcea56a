"""The ask/tell contract of strategies."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, get_type_hints

import numpy as np
import numpy.typing as npt

from phonenas.space import Genomes, SearchSpace
from phonenas.space.errors import InvalidArgument

__all__ = ["ONE_GENE", "Objectives", "State", "Strategy", "table_of", "unseen"]

ONE_GENE = 1e-9  # mutation rate at which the one gene that must change is the only one

Objectives = npt.NDArray[np.float64]
State = dict[str, Any]


class Strategy(ABC):
    """Proposes genomes, and learns from their evaluation.

    Lifetime: made with its settings and seed; `start` binds it to a space; then `ask` and `tell`
    alternate for as long as the loop likes. Between a `tell` and the next `ask` its `state` can
    be taken; a new strategy with the same settings, started and given that state, goes on to
    the very same genomes. All chance comes from the seed.

    Args:
        seed: Of all chance, ≥ 0.
    Raises:
        InvalidArgument: A seed below 0.
    """

    name: str
    given: Mapping[str, Any] = {}  # settings by name that differ from what the class would take

    def __init__(self, seed: int = 0) -> None:
        if seed < 0:
            raise InvalidArgument(f"a seed is 0 or more, got {seed}")
        self.seed = int(seed)
        self.rng = np.random.default_rng(self.seed)

    @classmethod
    def options(cls) -> dict[str, Any]:
        """Settings that `make` takes, each with its type: parameters of the class but the seed."""
        hints = get_type_hints(cls.__init__)
        taken = inspect.signature(cls).parameters
        return {n: t for n, t in hints.items() if n in taken and n not in ("seed", "exponents")}

    @classmethod
    def make(cls, seed: int, soft: bool, **settings: Any) -> Strategy:
        """One for a soft target where `soft`, if it can follow one; see `options` for settings."""
        return cls(seed, **settings)

    @property
    def settings(self) -> dict[str, Any]:
        """What a resumed run must share, ready for JSON."""
        return {**self.given, "strategy": self.name, "seed": self.seed}

    @property
    def soft_target(self) -> bool:
        """Whether it follows a soft target: `start` then gives it one. Others look for the whole
        front where the target is soft.

        Raises:
            InvalidArgument: It follows targets, but was made for a hard one.
        """
        return False

    @abstractmethod
    def start(self, space: SearchSpace, target: float | None = None, objectives: int = 2) -> None:
        """Bind to a space, before the first `ask`.

        Args:
            space: Where to look.
            target: What the second loss may be, in its unit, > 0. None for the whole front.
            objectives: How many losses `tell` gives, k ≥ 2.
        """

    @abstractmethod
    def ask(self, n: int) -> Genomes:
        """Genomes to evaluate, (m, genes), int8, 1 ≤ m ≤ n; (0, genes) ends the search.

        A smaller n only cuts off the rows beyond n; it does not change those before. A search gives
        the same n in each turn, whatever is left of its budget: so it can be given more later.
        """

    @abstractmethod
    def tell(self, genomes: Genomes, losses: Objectives, violation: Objectives) -> None:
        """Learn how proposals were evaluated.

        Args:
            genomes: (m, genes), int8: the first m rows that `ask` gave, or m others that were
                evaluated instead of them.
            losses: (m, k), float, finite, all minimised. Column 0 is 1 - quality, in [0, 1];
                column 1 is the cost, ≥ 0; further columns have any sign.
            violation: (m,), float, finite: by how much each oversteps the limit that it oversteps
                most, relative; ≤ 0 where it keeps all. The target is not one of the limits: the
                cost in column 1 shows it.
        """

    def state(self) -> State:
        """All that changes: JSON values and arrays."""
        return {"rng": self.rng.bit_generator.state}

    def restore(self, state: State, seen: Genomes) -> None:
        """Go on from a state.

        Args:
            state: As `state` gave it.
            seen: All genomes that were evaluated, (n, genes), in order.
        """
        self.rng.bit_generator.state = state["rng"]


def table_of(
    state: State, name: str, columns: int, kind: type[Any] = np.float64
) -> npt.NDArray[Any]:
    """An array of a state that is a table, (n, columns).

    Raises:
        KeyError, ValueError: There is none.
    """
    values = np.asarray(state[name], kind)
    if values.ndim != 2 or values.shape[1] != columns:
        raise ValueError(f"{name} is {values.shape}, not of {columns} columns")
    return values


def unseen(space: SearchSpace, genomes: Genomes, seen: set[bytes]) -> npt.NDArray[np.bool_]:
    """Which rows decode to networks neither among `seen` keys nor earlier in these rows, (n,)."""
    new = np.empty(len(genomes), bool)
    here: set[bytes] = set()
    for row, key in enumerate(space.keys(genomes)):
        new[row] = key not in seen and key not in here
        here.add(key)
    return new
