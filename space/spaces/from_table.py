"""The networks of a table as a search space: `table:FILE`.

Genes are those of the smallest space by name that holds all of them. Where none does, a gene is a
place in the network: the first block on a map of 112 pixels, the second one, and so on.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..architecture import Architecture
from ..block import Block
from ..errors import InvalidArgument, NotEnoughData, NotInSpace, SettingsChanged, UnsupportedFormat
from ..narrowed import ListedSpace
from ..network_table import networks_in, read_frame
from ..operator import Operator
from ..search_space import Genomes, Part, SearchSpace

__all__ = ["is_table", "table_space"]

_NAME = re.compile(r"table:(.+?)(?:@([0-9a-f]{12}))?", re.DOTALL)
_MAX_OPTIONS = 127  # a gene is an int8
_NONE = "none"
Known = Callable[[int | None], Iterable[SearchSpace]]


def is_table(name: str) -> bool:
    """Whether a name is that of a table (`table:top1.csv`, or with its digest after an `@`)."""
    return _NAME.fullmatch(name) is not None


def table_space(name: str, resolution: int | None, known: Known) -> ListedSpace:
    """The networks of a table.

    The name holds a digest of the networks (`table:top1.csv@1f0c...`), so that a run resumes only
    while the table has the same.

    Args:
        name: `table:FILE`, or the name of such a space.
        resolution: Side of the input in pixels; None for the networks' own.
        known: Gives the spaces by name at a resolution.
    Raises:
        InvalidArgument: The file cannot be read, or its networks are of another resolution.
        UnsupportedFormat: It is not a table, a row holds no network, or its networks differ in
            their input, head or classes.
        NotEnoughData: It has no rows.
        SettingsChanged: `name` has a digest, and the networks are others by now.
    """
    match = _NAME.fullmatch(name)
    assert match is not None
    file, digest = Path(match[1]), match[2]
    frame = read_frame(file)
    if not len(frame):
        raise NotEnoughData(f"{file} has no rows: it takes one for each network")
    rows = networks_in(frame, file, known=lambda: known(resolution))
    networks = list({network.operators(): network for network in reversed(rows)}.values())[::-1]
    _refuse_unlike(networks, file, resolution)
    own = hashlib.sha256("\n".join(sorted(map(str, networks))).encode()).hexdigest()[:12]
    if digest not in (None, own):
        raise SettingsChanged(
            f"{file} holds other networks than before (digest {own}, was {digest}). Restore it, or "
            f"search again:  phonenas search --space {shlex.quote(f'table:{file}')} --out NEW"
        )
    base, genomes = _base_of(networks, file, known)
    return ListedSpace(base, genomes, f"table:{file}@{own}")


def _refuse_unlike(networks: Sequence[Architecture], file: Path, resolution: int | None) -> None:
    first = networks[0]
    for network in networks:
        if _skeleton(network) != _skeleton(first):
            raise UnsupportedFormat(
                f"{file}: the networks of one space have one input, stem, head and number of "
                f"classes; '{first}' and '{network}' differ in these. Split the table."
            )
    if resolution not in (None, first.resolution_px):
        raise InvalidArgument(
            f"{file} holds networks at {first.resolution_px} px, not at {resolution} px: leave "
            "--resolution out"
        )


def _skeleton(network: Architecture) -> tuple[Any, ...]:
    """All of a network but its blocks."""
    return (
        network.operators()[0],
        network.head_channels,
        network.classes,
        network.resolution_px,
        network.activation,
        network.hidden_channels,
        network.mixer,
    )


def _base_of(
    networks: Sequence[Architecture], file: Path, known: Known
) -> tuple[SearchSpace, Genomes]:
    """The smallest space by name that holds all networks, else one of their blocks; with their
    genomes in it."""
    skeleton = _skeleton(networks[0])
    spaces = [s for s in known(networks[0].resolution_px) if _skeleton(s.example()) == skeleton]
    for space in sorted(spaces, key=lambda space: space.size):
        try:
            return space, np.array([space.encode(network) for network in networks])
        except NotInSpace:
            continue
    blockwise = _Blockwise(networks, file)
    return blockwise, blockwise.listed


class _Blockwise(SearchSpace):
    """All combinations of the blocks that networks have at each place.

    Most of them are no network: where a block does not take what the one before it gives.

    Attributes:
        listed: Genomes of the networks, (n, genes).
    """

    name = "blocks"

    def __init__(self, networks: Sequence[Architecture], file: Path) -> None:
        first = networks[0]
        self.resolution_px, self.stem_channels = first.resolution_px, first.stem_channels
        self.stem_stride, self.head_channels = first.stem_stride, first.head_channels
        self.classes, self.activation = first.classes, first.activation
        self.hidden_channels, self.mixer = first.hidden_channels, first.mixer
        placed = [self._placed(network) for network in networks]
        # Maps get smaller along a network, so that places by size are in its order.
        places = {place for blocks in placed for place in blocks}
        self._places = sorted(places, key=lambda place: (-place[0], place[1]))
        texts = [[str(blocks.get(place, _NONE)) for place in self._places] for blocks in placed]
        self._blocks = {str(b): b for blocks in placed for b in blocks.values()}
        heads = [f"{px}x{channels}" for px, channels in map(self._head_input, networks)]
        columns = [*map(list, zip(*texts, strict=True)), heads]
        names = [f"at{px}_{i + 1}" for px, i in self._places] + ["head"]
        options = [tuple(dict.fromkeys(column)) for column in columns]
        self._decisions = dict(zip(names, options, strict=True))
        for decision, given in self._decisions.items():
            if len(given) > _MAX_OPTIONS:
                raise UnsupportedFormat(
                    f"{file}: its networks have {len(given):,} different blocks at {decision}, a "
                    f"gene takes {_MAX_OPTIONS}. Describe their space as a .toml file."
                )
        self.listed: Genomes = np.array(
            [
                [option.index(text) for option, text in zip(options, row, strict=True)]
                for row in zip(*columns, strict=True)
            ],
            np.int8,
        )

    def _placed(self, network: Architecture) -> dict[tuple[int, int], Block]:
        """Blocks of a network by the side of their input in pixels and the count on such maps."""
        placed: dict[tuple[int, int], Block] = {}
        px, count = self.stem.out_px, 0
        for block in network.blocks:
            placed[px, count] = block.canonical()
            after = block.operators(px)[-1].out_px
            px, count = after, count + 1 if after == px else 0
        return placed

    def _head_input(self, network: Architecture) -> tuple[int, int]:
        head = network.operators()[-1]
        return head.in_px, head.in_channels

    @property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        return self._decisions

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        names = list(self._decisions)
        parts = [
            Part(name, (name,), px, self._block)
            for name, (px, _) in zip(names, self._places, strict=False)
        ]
        return (*parts, Part("head", ("head",), self._places[-1][0], self._head))

    def _block(self, text: str) -> tuple[Block, ...]:
        return () if text == _NONE else (self._blocks[text],)

    def _head(self, text: str) -> Operator:
        px, _, channels = text.partition("x")
        return self.head(int(px), int(channels))
