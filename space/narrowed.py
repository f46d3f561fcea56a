"""Spaces made of another space: some options left out by hand, listed networks alone, or with one
decision more, what the whole network computes in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .architecture import Architecture
from .errors import InvalidArgument, NotInSpace, nearest
from .operator import Operator
from .precision import checked_precision, in_front
from .search_space import Genomes, Part, SearchSpace

__all__ = [
    "ConfinedSpace",
    "ListedSpace",
    "NarrowedSpace",
    "PrecisionChoice",
    "conditioned",
    "narrow",
    "parted",
]

_CONDITION = re.compile(r"(?P<gene>[^\s=!]+)(?P<other>!?)=(?P<values>[^\s=]+)")
_PRECISION = "precision"
_FEW = 4  # rows nearest to a mutant, of which it becomes one: the very nearest is a dead end


class _OfAnother(SearchSpace):
    """A space whose networks have the stem, the parts and the head of another's."""

    def __init__(self, base: SearchSpace, name: str) -> None:
        self.base, self.name, self.resolution_px = base, name, base.resolution_px
        self.stem_channels, self.stem_stride = base.stem_channels, base.stem_stride
        self.head_channels, self.hidden_channels = base.head_channels, base.hidden_channels
        self.classes, self.activation, self.mixer = base.classes, base.activation, base.mixer

    def __repr__(self) -> str:
        return f"{self.name!r} at {self.resolution_px} px"

    @property
    def whole(self) -> SearchSpace:
        return self.base.whole

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.base.parts

    @cached_property
    def stem(self) -> Operator:
        return self.base.stem


class NarrowedSpace(_OfAnother):
    """A space without some options of its decisions.

    Args:
        base: The space.
        decisions: Options that stay, by name of the decision; all of those that are not named.
        name: Of this space.
    """

    def __init__(
        self, base: SearchSpace, decisions: Mapping[str, tuple[Any, ...]], name: str
    ) -> None:
        super().__init__(base, name)
        self._decisions = {n: tuple(decisions.get(n, o)) for n, o in base.decisions.items()}
        # Option of the base by option of this space, for each gene.
        self._places = [
            np.array([options.index(o) for o in self._decisions[n]], np.int8)
            for n, options in base.decisions.items()
        ]

    @property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        return self._decisions

    def decode(self, genome: npt.ArrayLike) -> Architecture:
        rows = self.check(genome)
        if len(rows) != 1:
            raise InvalidArgument(f"one genome is decoded at a time, got {len(rows)}")
        return self.base.decode(self.in_base(rows)[0])

    def in_base(self, genomes: npt.ArrayLike) -> Genomes:
        """The genomes of the same networks in the base, (n, genes) to (n, genes)."""
        columns = zip(self._places, self.check(genomes).T, strict=True)
        return np.column_stack([places[column] for places, column in columns])


class ConfinedSpace(SearchSpace):
    """A space of listed genomes, each of another network; all others are outside.

    Uniform draws are draws of rows, and mutants are rows.

    Attributes:
        genomes: The rows, (n, genes) int8.
    """

    genomes: Genomes

    @cached_property
    def rows(self) -> dict[bytes, int]:
        """Row of each genome, by its bytes."""
        return {g.tobytes(): row for row, g in enumerate(self.genomes)}

    @property
    def size(self) -> int:
        return len(self.genomes)

    def example(self) -> Architecture:
        return self.decode(self.genomes[0])

    def sample(self, rng: np.random.Generator, n: int) -> Genomes:
        """Draw n of the rows, (n, genes) int8."""
        return self.genomes[rng.integers(0, len(self.genomes), n)]

    def mutate(
        self, genomes: Genomes, rng: np.random.Generator, rate: float | None = None
    ) -> Genomes:
        """Rows near the mutants, each another than it was; see `SearchSpace.mutate`."""
        if len(self.genomes) < 2:
            raise InvalidArgument(f"{self!r}: it holds one network, so that none can differ")
        mutants = super().mutate(genomes, rng, rate)
        for i, (genome, mutant) in enumerate(zip(genomes, mutants, strict=True)):
            if mutant.tobytes() not in self.rows:
                apart = self.apart(mutant)
                if (own := self.rows.get(genome.tobytes())) is not None:
                    apart[own] = np.inf
                few = min(_FEW, len(apart) - 1)
                nearest_rows = np.argpartition(apart, few - 1)[:few]
                mutants[i] = self.genomes[nearest_rows[rng.integers(few)]]
        return mutants

    def apart(self, genome: Genomes) -> npt.NDArray[np.float64]:
        """Genes between a genome and each row and, as a share below one, steps of options, (n,)."""
        steps = np.abs(genome.astype(np.int16) - self._wide)
        apart: npt.NDArray[np.float64] = np.count_nonzero(steps, axis=1) + steps @ self._step
        return apart

    def within(self, genomes: Genomes) -> Genomes:
        lacking = [i for i, g in enumerate(genomes) if g.tobytes() not in self.rows]
        if not lacking:
            return genomes
        settled = genomes.copy()
        for i in lacking:
            settled[i] = self.genomes[int(np.argmin(self.apart(genomes[i])))]
        return settled

    @cached_property
    def _wide(self) -> npt.NDArray[np.int16]:
        return self.genomes.astype(np.int16)

    @cached_property
    def _step(self) -> npt.NDArray[np.float64]:
        counts = np.maximum(self.option_counts - 1, 1)
        return 1 / (counts * (len(counts) + 1.0))


class ListedSpace(ConfinedSpace, NarrowedSpace):
    """Listed networks of a space. Options that none of them has are left out.

    Args:
        base: The space.
        genomes: Of the networks in the base, (n, genes) int8, n ≥ 1; each network counts once.
        name: Of this space.
    """

    def __init__(self, base: SearchSpace, genomes: Genomes, name: str) -> None:
        used = [np.unique(column) for column in genomes.T]
        decisions = {
            decision: tuple(options[i] for i in places)
            for (decision, options), places in zip(base.decisions.items(), used, strict=True)
        }
        NarrowedSpace.__init__(self, base, decisions, name)
        _, first = np.unique(np.array(base.keys(genomes)), return_index=True)
        columns = zip(used, genomes[np.sort(first)].T, strict=True)
        self.genomes = np.column_stack([np.searchsorted(u, c) for u, c in columns]).astype(np.int8)

    def encode(self, architecture: Architecture) -> Genomes:
        row = self._by_operators.get(architecture.operators())
        if row is None:
            raise NotInSpace(f"{self!r} does not list this network")
        genome: Genomes = self.genomes[row]
        return genome

    @cached_property
    def _by_operators(self) -> dict[tuple[Operator, ...], int]:
        return {self.decode(g).operators(): row for row, g in enumerate(self.genomes)}


class PrecisionChoice(_OfAnother):
    """A space with one decision more: what the whole network computes in.

    A genome is that of the base and, last, the place of its precision. Its network is that of the
    base, which no precision changes; `text` names both.

    Args:
        base: The space.
        precisions: To choose from, two or more, each once.
    Raises:
        InvalidArgument: Other precisions, or a base of listed networks or with such a decision.
    """

    def __init__(self, base: SearchSpace, precisions: Sequence[str]) -> None:
        for precision in precisions:
            checked_precision(precision, _PRECISION)
        if len(set(precisions)) < max(2, len(precisions)):
            raise InvalidArgument(f"precisions to choose from are two or more, got {precisions}")
        if isinstance(base, ConfinedSpace):
            raise InvalidArgument(
                f"{base.name} has no choice of a precision: search in one of them"
            )
        if _PRECISION in base.decisions:
            raise InvalidArgument(
                f"{base.name} has a decision {_PRECISION} of its own: search in one precision"
            )
        super().__init__(base, f"{base.name} {_PRECISION}={','.join(precisions)}")
        self.precisions = tuple(precisions)

    @cached_property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        return {**self.base.decisions, _PRECISION: self.precisions}

    def decode(self, genome: npt.ArrayLike) -> Architecture:
        rows = self.check(genome)
        return self.base.decode(rows[:, :-1])

    def encode(self, architecture: Architecture) -> Genomes:
        """A genome of the network, in the first of the precisions."""
        return np.append(self.base.encode(architecture), np.int8(0))

    def identities(self, genomes: npt.ArrayLike) -> npt.NDArray[np.int32]:
        rows = self.check(genomes)
        own = rows[:, -1:].astype(np.int32)
        return np.hstack([self.base.identities(rows[:, :-1]), own])

    def text(self, genome: npt.ArrayLike) -> str:
        """The network's block string, behind its precision where that is not float32."""
        (place,) = self.check(genome)[:, -1]
        return in_front(self.precisions[place], str(self.decode(genome)))

    def rows_in(self, precision: str, genomes: npt.ArrayLike) -> npt.NDArray[np.intp]:
        """Rows of genomes, (n, genes), that compute in a precision."""
        place = self.precisions.index(precision)
        return np.flatnonzero(self.check(genomes)[:, -1] == place)


def parted(name: str) -> tuple[str, list[str]]:
    """The name of a space, and the conditions behind it, as `conditioned` takes them.

    >>> parted("mnasnet op!=conv block3_kernel=5")
    ('mnasnet', ['op!=conv', 'block3_kernel=5'])
    """
    words = name.split(" ")
    conditions: list[str] = []
    while len(words) > 1 and _CONDITION.fullmatch(words[-1]):
        conditions.insert(0, words.pop())
    return " ".join(words), conditions


def narrow(base: SearchSpace, fix: Sequence[str] = (), exclude: Sequence[str] = ()) -> SearchSpace:
    """A space narrowed by hand. Its name holds how, as conditions behind that of the base.

    Args:
        base: The space.
        fix: `GENE=VALUE`, or several values with commas: these options alone stay. A gene is a
            decision, or what the names of several end in after a `_`: `kernel` is the kernel of
            each block.
        exclude: The same; these options go.
    Raises:
        InvalidArgument: No such gene or value, the nearest is named; or a gene without options.

    >>> from phonenas.space import MnasNet
    >>> small = narrow(MnasNet(), ["block3_kernel=5"], ["op=conv"])
    >>> small.name, small.decisions["block3_kernel"], small.decisions["block1_op"]
    ('mnasnet block3_kernel=5 op!=conv', (5,), ('dsconv', 'mbconv3', 'mbconv6'))
    """
    for text in (*fix, *exclude):
        if (match := _CONDITION.fullmatch(text)) is None or match["other"]:
            raise InvalidArgument(
                f"what is fixed or excluded is GENE=VALUE, as block3_kernel=5, got {text!r}"
            )
    return conditioned(base, [*fix, *(text.replace("=", "!=", 1) for text in exclude)])


def conditioned(base: SearchSpace, conditions: Sequence[str]) -> SearchSpace:
    """A space under conditions, `GENE=VALUE` or `GENE!=VALUE`; its name holds them in this order.

    `precision=float32,int8`, the last of them, makes that a decision.

    Raises:
        InvalidArgument: As for `narrow`.
    """
    if not conditions:
        return base
    if _PRECISION not in base.decisions and conditions[-1].startswith(f"{_PRECISION}="):
        precisions = conditions[-1].partition("=")[2].split(",")
        return PrecisionChoice(conditioned(base, conditions[:-1]), precisions)
    left = {name: list(options) for name, options in base.decisions.items()}
    for condition in conditions:
        match = _CONDITION.fullmatch(condition)
        if match is None:
            raise InvalidArgument(
                f"a condition on a space is GENE=VALUE, as block3_kernel=5, got {condition!r}"
            )
        gene, values = match["gene"], match["values"].split(",")
        genes = [n for n in left if n == gene] or [n for n in left if n.endswith(f"_{gene}")]
        if not genes:
            known = {*left, *(n.partition("_")[2] for n in left if "_" in n)}
            listed = f"phonenas space {shlex.quote(base.name)} --genes"
            raise InvalidArgument(
                f"{base.name} has no gene {gene!r}. {nearest(gene, known, listed)}"
            )
        named = {n: [o for o in base.decisions[n] if _named(o, values)] for n in genes}
        for value in values:
            options = [o for n in genes for o in base.decisions[n]]
            if not any(_named(o, [value]) for o in options):
                raise InvalidArgument(
                    f"{gene} has no option {value!r} in {base.name}. "
                    f"{nearest(value, set(map(str, options)))}"
                )
        for n in genes:
            left[n] = [o for o in left[n] if (o in named[n]) != bool(match["other"])]
            if not left[n]:
                options_text = ", ".join(map(str, base.decisions[n]))
                raise InvalidArgument(
                    f"{' '.join(conditions)} leaves {n} of {base.name} none of its options: "
                    f"{options_text}"
                )
    name = " ".join([base.name, *conditions])
    decisions = {n: tuple(options) for n, options in left.items()}
    if not isinstance(base, ListedSpace):
        return NarrowedSpace(base, decisions, name)
    stays = np.ones(len(base.genomes), bool)
    for column, (n, every) in zip(base.genomes.T, base.decisions.items(), strict=True):
        stays &= np.array([o in decisions[n] for o in every])[column]
    if not stays.any():
        raise InvalidArgument(f"no network of {base.name} is left by {' '.join(conditions)}")
    return ListedSpace(base.base, base.in_base(base.genomes[stays]), name)


def _named(option: Any, values: Sequence[str]) -> bool:
    """Whether an option is one of the values that a user wrote."""
    if str(option) in values:
        return True
    if isinstance(option, bool) or not isinstance(option, int | float):
        return str(option).lower() in values
    for value in values:
        try:
            if float(value) == option:
                return True
        except ValueError:
            continue
    return False
