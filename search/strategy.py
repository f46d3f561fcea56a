"""The ask/tell contract, and RandomSearch, its smallest member and the baseline."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from ..space import Genomes, SearchSpace
from ..space.errors import InvalidArgument, UnknownName, nearest
from .reward import SOFT

__all__ = ["ONE_GENE", "Objectives", "RandomSearch", "State", "Strategy", "get", "names", "unseen"]

ONE_GENE = 1e-9  # mutation rate at which the one gene that must change is the only one

Objectives = npt.NDArray[np.float64]
State = dict[str, Any]


class Strategy(ABC):
    """Proposes genomes, and learns how they were judged.

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

    def __init__(self, seed: int = 0) -> None:
        if seed < 0:
            raise InvalidArgument(f"a seed is 0 or more, got {seed}")
        self.seed = int(seed)
        self.rng = np.random.default_rng(self.seed)

    @property
    def settings(self) -> dict[str, Any]:
        """What a resumed run must share, ready for JSON."""
        return {"strategy": self.name, "seed": self.seed}

    @abstractmethod
    def start(self, space: SearchSpace, target: float | None = None, objectives: int = 2) -> None:
        """Bind to a space, before the first `ask`.

        Args:
            space: Where to look.
            target: What the second loss may be, in its unit, > 0. None where the whole front is
                asked for.
            objectives: How many losses will be told, k ≥ 2.
        """

    @abstractmethod
    def ask(self, n: int) -> Genomes:
        """At most n genomes to judge, (m, genes), 1 ≤ m ≤ n.

        n does but cut off: what is asked first does not depend on how much may be.
        """

    @abstractmethod
    def tell(self, genomes: Genomes, losses: Objectives, violation: Objectives) -> None:
        """Take back what was asked, judged.

        Args:
            genomes: (m, genes), the first m that `ask` gave, or what was judged in their stead.
            losses: (m, k), each minimised: 1 - quality, quality in [0, 1]; cost, ≥ 0; and
                further ones of any sign.
            violation: (m,), how far each oversteps the limit that it oversteps most, relative;
                ≤ 0 where it keeps all. The target is not among them: the second loss tells it.
        """

    def state(self) -> State:
        """All that changes: JSON values and arrays."""
        return {"rng": self.rng.bit_generator.state}

    def restore(self, state: State, seen: Genomes) -> None:
        """Go on from a state; `seen` are all genomes told so far, (n, genes), in order."""
        self.rng.bit_generator.state = state["rng"]


def unseen(space: SearchSpace, genomes: Genomes, seen: set[bytes]) -> npt.NDArray[np.bool_]:
    """Which rows decode to networks neither among `seen` keys nor earlier in these rows, (n,)."""
    fresh = np.empty(len(genomes), bool)
    now: set[bytes] = set()
    for row, key in enumerate(space.keys(genomes)):
        fresh[row] = key not in seen and key not in now
        now.add(key)
    return fresh


class RandomSearch(Strategy):
    """Uniform over options: the baseline that any strategy must beat."""

    name = "random"

    def start(self, space: SearchSpace, target: float | None = None, objectives: int = 2) -> None:
        self.space = space

    def ask(self, n: int) -> Genomes:
        return self.space.sample(self.rng, min(n, 1000))

    def tell(self, genomes: Genomes, losses: Objectives, violation: Objectives) -> None:
        pass


def _known() -> dict[str, type[Strategy]]:
    from .controller import Controller
    from .nsga2 import NSGA2
    from .surrogate_assisted import SurrogateAssisted
    from .weighted_product import WeightedProduct

    known = (RandomSearch, NSGA2, WeightedProduct, Controller, SurrogateAssisted)
    return {s.name: s for s in known}


def names() -> list[str]:
    """Every strategy by name."""
    return sorted(_known())


def get(name: str, seed: int = 0, soft: bool = False) -> Strategy:
    """A strategy by name, with its default settings.

    Args:
        name: See `names`.
        seed: Of all chance.
        soft: Those that follow the weighted product take the paper's soft exponents.
    Raises:
        UnknownName: No such strategy; the message offers the nearest.
    """
    known = _known()
    if name not in known:
        raise UnknownName(f"no strategy is called {name!r}. {nearest(name, known)}")
    kind: Any = known[name]
    if soft and name in ("weighted", "rl"):
        return kind(seed=seed, exponents=SOFT)  # type: ignore[no-any-return]
    return kind(seed=seed)  # type: ignore[no-any-return]
