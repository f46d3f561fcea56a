"""SearchSpace: a table of decisions, and the parts of a network that they build.

A genome is a row of option indices, one per decision, int8; a population is an `(n, genes)`
array. A space says its `decisions` and its `parts`: each part names the few decisions that it
depends on and builds its blocks from their values. From these two alone follow `size`,
`sample`, `mutate`, `encode`, `decode`, the operators, and every quantity that is a sum over
operators as a table look-up for whole populations (`AdditiveTable`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from .architecture import (
    CLASSES,
    HEAD_CHANNELS,
    RESOLUTION_PX,
    STEM_STRIDE,
    Architecture,
    Block,
    stem_operator,
)
from .errors import InvalidArgument, NotInSpace
from .operator import Activation, Mixer, Operator

__all__ = ["Genomes", "Part", "SearchSpace"]

Genomes = npt.NDArray[np.int8]
_CODE_LIMIT = 1 << 24  # codes are computed in float32, exact up to here
_MUTATION_TRIES = 100


@dataclass(frozen=True)
class Part:
    """A stretch of the network that depends on the named decisions only.

    `build` takes their option values, in the order of `decisions`, and gives the blocks (none
    where the stretch is absent), or the head's operator for the last part.
    """

    name: str
    decisions: tuple[str, ...]
    in_px: int
    build: Callable[..., tuple[Block, ...] | Operator]


class SearchSpace(ABC):
    """A table of decisions over a skeleton of stem, parts and head.

    Lifetime: built once, then only read; equal arguments give equal spaces. All chance comes
    from the generator that is passed in.

    Args:
        resolution: Side of the square input in pixels.
    Raises:
        InvalidArgument: A resolution that its networks cannot take.
    """

    name: str
    stem_channels: int
    stem_stride: int = STEM_STRIDE
    head_channels: int = HEAD_CHANNELS
    classes: int = CLASSES
    activation: Activation = "relu"  # of stem and head
    hidden_channels: int = 0
    mixer: Mixer = "bias"

    def __init__(self, resolution: int = RESOLUTION_PX) -> None:
        if resolution != resolution // 1 or resolution < 1:
            raise InvalidArgument(
                f"a resolution of {resolution} px cannot be taken: it is a whole number from 1"
            )
        self.resolution_px = int(resolution)
        # The smallest network is built to learn whether the resolution can be taken.
        self.example()

    @property
    @abstractmethod
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        """Name of each decision → its options, in genome order."""

    @property
    @abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """In network order; the last one is the head."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(resolution={self.resolution_px})"

    @property
    def whole(self) -> SearchSpace:
        """The space itself, with all its options where this one has some of them."""
        return self

    def example(self) -> Architecture:
        """One of its networks: input, stem, head and classes are those of all."""
        return self.decode(np.zeros(len(self.decisions), np.int8))

    # -- genomes ------------------------------------------------------------------------------

    @cached_property
    def option_counts(self) -> npt.NDArray[np.int64]:
        """Options of each gene, (genes,)."""
        counts = np.array([len(o) for o in self.decisions.values()])
        if counts.max() > np.iinfo(np.int8).max:
            raise InvalidArgument("a decision takes at most 127 options")
        return counts

    @property
    def size(self) -> int:
        """Number of genomes, counted as in the paper (genomes of one network count separately)."""
        return prod(len(o) for o in self.decisions.values())

    def sample(self, rng: np.random.Generator, n: int) -> Genomes:
        """Draw n genomes uniformly over options, (n, genes) int8."""
        return rng.integers(0, self.option_counts, (n, len(self.option_counts))).astype(np.int8)

    def mutate(
        self, genomes: Genomes, rng: np.random.Generator, rate: float | None = None
    ) -> Genomes:
        """Change genes so that each row decodes to another network than before.

        Args:
            genomes: (n, genes) int8.
            rng: Source of all chance.
            rate: Chance of each gene to change, in (0, 1]; default 1 / genes. At least one
                gene changes in each row.
        Returns:
            New genomes, (n, genes) int8; the input is left as it was.
        Raises:
            InvalidArgument: The space holds a single network, so nothing can differ; or a rate
                outside (0, 1].
        """
        genomes = self.check(genomes)
        counts = self.option_counts
        open_genes = np.flatnonzero(counts > 1)
        rate = 1 / len(counts) if rate is None else rate
        if not 0 < rate <= 1:
            raise InvalidArgument(f"a mutation rate lies in (0, 1], got {rate:g}")
        mutants = genomes.copy()
        before = self.identities(genomes)
        rows = np.arange(len(genomes))
        for _ in range(_MUTATION_TRIES):
            if not len(rows) or not len(open_genes):
                break
            change = rng.random((len(rows), len(counts))) < rate
            change[np.arange(len(rows)), rng.choice(open_genes, len(rows))] = True
            shift = rng.integers(1, np.maximum(counts, 2), change.shape)
            # From the row as it is by now: where one change alone never shows (a skip in a
            # one-layer block), steps add up until the network differs.
            mutants[rows] = np.where(change, (mutants[rows] + shift) % counts, mutants[rows])
            same = (self.identities(mutants[rows]) == before[rows]).all(axis=1)
            rows = rows[same]
        if len(rows):
            raise InvalidArgument(f"{self!r}: no change of genes gives another network")
        return mutants

    def within(self, genomes: Genomes) -> Genomes:
        """For each genome, (n, genes), one of the space near to it: itself where all are."""
        return genomes

    def check(self, genomes: npt.ArrayLike) -> Genomes:
        """Genomes as an (n, genes) int8 array.

        Raises:
            InvalidArgument: Wrong shape, not integers, or an index without an option; the
                message names the row and the decision.
        """
        array = np.asarray(genomes)
        if array.ndim == 1:
            array = array[None]
        counts = self.option_counts
        if array.ndim != 2 or array.shape[1] != len(counts) or array.dtype.kind not in "iu":
            raise InvalidArgument(
                f"{self.name} takes integer genomes of shape (n, {len(counts)}), "
                f"got {array.dtype} {array.shape}"
            )
        if len(array) and ((array.max(axis=0) >= counts).any() or array.min() < 0):
            row, gene = np.argwhere((array < 0) | (array >= counts))[0]
            name = list(self.decisions)[gene]
            raise InvalidArgument(
                f"genome {row}: {name} is {array[row, gene]}, it has {counts[gene]} options (0 to "
                f"{counts[gene] - 1})"
            )
        return array.astype(np.int8, copy=False)

    def values(self, genome: npt.ArrayLike) -> dict[str, Any]:
        """Option values of one genome, (genes,) or (1, genes), by decision name."""
        rows = self.check(genome)
        if len(rows) != 1:
            raise InvalidArgument(f"one genome is decoded at a time, got {len(rows)}")
        row = rows[0]
        return {n: o[i] for (n, o), i in zip(self.decisions.items(), row, strict=True)}

    def decode(self, genome: npt.ArrayLike) -> Architecture:
        """The network of one genome, (genes,) or (1, genes); equal networks come out equal."""
        values = self.values(genome)
        blocks: list[Block] = []
        for part in self.parts:
            built = part.build(*(values[d] for d in part.decisions))
            if isinstance(built, tuple):
                blocks.extend(b.canonical() for b in built)
        return Architecture(
            tuple(blocks),
            self.stem_channels,
            self.head_channels,
            self.classes,
            self.resolution_px,
            self.stem_stride,
            self.activation,
            self.hidden_channels,
            self.mixer,
        )

    def text(self, genome: npt.ArrayLike) -> str:
        """What names the network of one genome, (genes,), in a run: its block string."""
        return str(self.decode(genome))

    def encode(self, architecture: Architecture) -> Genomes:
        """A genome that decodes to this network, (genes,) int8.

        Raises:
            NotInSpace: The space cannot express it; names the first part that does not fit.
        """
        layers = architecture.operators()
        if layers[0] != self.stem or architecture.resolution_px != self.resolution_px:
            raise NotInSpace(
                f"{self!r} starts with {self.stem}; this network starts with {layers[0]}"
            )
        furthest = 0
        # Depth first over parts: position in layers, genes settled so far.
        stack: list[tuple[int, int, dict[int, int]]] = [(0, 1, {})]
        # Choices with equal layers (144 of an unused layer slot) that leave later parts the same
        # choice end the same: without this, a network outside the space takes exponential time.
        seen: set[tuple[int, int, tuple[int, ...]]] = set()
        while stack:
            index, at, genes = stack.pop()
            furthest = max(furthest, index)
            if index == len(self.parts):
                if at == len(layers):
                    return np.array([genes.get(g, 0) for g in range(len(self.decisions))], np.int8)
                continue
            columns = self.part_columns[index]
            for length in self._lengths[index]:
                for combo in self._by_layers[index].get(layers[at : at + length], ()):
                    settled = dict(zip(columns, map(int, self.combos[index][combo]), strict=True))
                    if all(genes.get(g, i) == i for g, i in settled.items()):
                        both = {**genes, **settled}
                        bound = tuple(both[g] for g in self.open_after[index])
                        if (index, at + length, bound) not in seen:
                            seen.add((index, at + length, bound))
                            stack.append((index + 1, at + length, both))
        part = self.parts[min(furthest, len(self.parts) - 1)]
        raise NotInSpace(f"{self!r} has no choice for its {part.name} that gives this network")

    def __contains__(self, architecture: object) -> bool:
        if not isinstance(architecture, Architecture):
            return False
        try:
            self.encode(architecture)
        except NotInSpace:
            return False
        return True

    # -- parts and their operators ------------------------------------------------------------

    @cached_property
    def stem(self) -> Operator:
        """The stem, equal in all networks of the space."""
        return stem_operator(
            self.stem_channels, self.resolution_px, self.stem_stride, self.activation
        )

    def head(self, px: int, in_channels: int) -> Operator:
        """The head behind a map of `px` pixels a side and `in_channels`."""
        return Operator(
            "head",
            in_channels,
            self.classes,
            px,
            features=self.head_channels,
            activation=self.activation,
            hidden=self.hidden_channels,
            mixer=self.mixer,
        )

    @cached_property
    def part_columns(self) -> list[list[int]]:
        """For each part, the places of its decisions in a genome."""
        names = {name: i for i, name in enumerate(self.decisions)}
        return [[names[d] for d in part.decisions] for part in self.parts]

    @cached_property
    def open_after(self) -> list[list[int]]:
        """For each part, the decisions that it or an earlier one and a later one read."""
        parts = self.part_columns
        return [
            sorted({c for p in parts[: i + 1] for c in p} & {c for p in parts[i + 1 :] for c in p})
            for i in range(len(parts))
        ]

    @cached_property
    def combos(self) -> list[npt.NDArray[np.int8]]:
        """Option indices of every choice of each part, (choices, decisions of the part)."""
        tables = []
        for columns in self.part_columns:
            counts = self.option_counts[columns]
            if prod(counts.tolist()) >= _CODE_LIMIT:
                raise InvalidArgument("a part takes fewer than 2^24 choices; split it")
            rows = list(product(*map(range, counts)))
            tables.append(np.array(rows, np.int8).reshape(len(rows), len(columns)))
        return tables

    @cached_property
    def part_layers(self) -> list[list[tuple[Operator, ...]]]:
        """Operators of every choice of each part."""
        cache: dict[tuple[Block, int], tuple[Operator, ...]] = {}

        def layers(built: tuple[Block, ...] | Operator, px: int) -> Iterator[Operator]:
            if isinstance(built, Operator):
                yield built
                return
            for block in built:
                if (block, px) not in cache:
                    cache[block, px] = block.operators(px)
                yield from cache[block, px]
                px = cache[block, px][-1].out_px

        choices = []
        for part, combos in zip(self.parts, self.combos, strict=True):
            options = [self.decisions[d] for d in part.decisions]
            choices.append(
                [
                    tuple(
                        layers(
                            part.build(*(o[i] for o, i in zip(options, row, strict=True))),
                            part.in_px,
                        )
                    )
                    for row in combos.tolist()
                ]
            )
        return choices

    @cached_property
    def _by_layers(self) -> list[dict[tuple[Operator, ...], list[int]]]:
        tables: list[dict[tuple[Operator, ...], list[int]]] = []
        for choices in self.part_layers:
            table: dict[tuple[Operator, ...], list[int]] = {}
            for combo, layers in enumerate(choices):
                table.setdefault(layers, []).append(combo)
            tables.append(table)
        return tables

    @cached_property
    def _lengths(self) -> list[list[int]]:
        return [sorted({len(layers) for layers in table}) for table in self._by_layers]

    @cached_property
    def _distinct(self) -> dict[Operator, int]:
        """Every operator of the space → its number."""
        numbers = {self.stem: 0}
        for choices in self.part_layers:
            for layers in choices:
                for operator in layers:
                    numbers.setdefault(operator, len(numbers))
        return numbers

    def operators(self) -> tuple[Operator, ...]:
        """Every distinct operator that a network of this space can hold."""
        return tuple(self._distinct)

    # -- populations --------------------------------------------------------------------------

    @cached_property
    def _mixer(self) -> npt.NDArray[np.float32]:
        """(genes, parts): a genome times this is the number of its choice in each part."""
        matrix = np.zeros((len(self.option_counts), len(self.parts)), np.float32)
        for part, columns in enumerate(self.part_columns):
            radix = 1
            for column in reversed(columns):
                matrix[column, part] = radix
                radix *= int(self.option_counts[column])
        return matrix

    def codes(self, genomes: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Number of the choice that each genome, (n, genes), makes in each part, (n, parts)."""
        return (self.check(genomes).astype(np.float32) @ self._mixer).astype(np.int32)

    @cached_property
    def _alike(self) -> list[npt.NDArray[np.int32]]:
        """For each part, choice → the first choice with the same layers."""
        firsts = []
        for choices, table in zip(self.part_layers, self._by_layers, strict=True):
            first = np.empty(len(choices), np.int32)
            for combos in table.values():
                first[combos] = combos[0]
            firsts.append(first)
        return firsts

    def identities(self, genomes: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """The network of each genome, (n, genes), as (n, parts); equal rows are equal networks."""
        codes = self.codes(genomes)
        for part, first in enumerate(self._alike):
            codes[:, part] = first[codes[:, part]]
        return codes

    def keys(self, genomes: npt.ArrayLike) -> list[bytes]:
        """`identities` of (n, genes), each of the n rows as bytes, for sets and dictionaries."""
        rows = np.ascontiguousarray(self.identities(genomes))
        return [row.tobytes() for row in rows]

    @cached_property
    def expansions(self) -> list[npt.NDArray[np.int32]]:
        """For each part, its choices' operators, (choices, longest), padded with -1.

        Numbers are places in `operators()`.
        """
        tables = []
        for choices, lengths in zip(self.part_layers, self._lengths, strict=True):
            table = np.full((len(choices), max(lengths)), -1, np.int32)
            for row, layers in enumerate(choices):
                table[row, : len(layers)] = [self._distinct[o] for o in layers]
            tables.append(table)
        return tables
