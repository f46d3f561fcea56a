"""A search space written as a TOML file: a skeleton of blocks, and lists of choices.

docs/extending.md describes the format with a complete example. In short::

    resolution = 224
    [stem]
    filters = 32
    [[blocks]]                                        # one table a block, in network order
    op = ["dsconv", "mbconv"]                         # conv, dsconv or mbconv
    expansion = [3, 6]                                # of mbconv
    kernel = [3, 5]
    filters = { base = 24, factors = [0.75, 1, 1.25] }  # or absolute: [16, 24]
    layers = [1, 2, 3]                                # or { base = 2, offsets = [-1, 0, 1] }
    stride = 2

A key with a list of two or more options is a decision, named as in `mnasnet` (`block1_kernel`);
`op` and `expansion` together are one (`conv`, `dsconv`, `mbconv3`, `mbconv6`).
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..architecture import CLASSES, HEAD_CHANNELS, RESOLUTION_PX, Block, round_channels
from ..errors import InvalidArgument, SettingsChanged, StoreError, UnknownName, nearest
from ..operator import Operator
from ..search_space import Part, SearchSpace

__all__ = ["FileSpace", "is_space_file"]

_NAME = re.compile(r"(.+\.toml)(?:@([0-9a-f]{12}))?", re.DOTALL)
_MAX_BYTES = 1 << 20
_MAX_BLOCKS = 100
_MAX_OPTIONS = 127  # a gene is an int8
_MAX_CHOICES = 20_000  # of one block: each is built once, in about a second for this many
_MAX_PARAMS = 10**9  # as block strings have it
_BLOCK_KEYS = ("op", "expansion", "kernel", "se_ratio", "skip", "filters", "layers", "stride")
_Rule = Callable[[Any], str]  # what is wrong with a value, or ""


def is_space_file(name: str) -> bool:
    """Whether a name is that of a TOML file (`my_space.toml`, or with its digest after an `@`)."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class _FileBlock:
    """One `[[blocks]]` table: its stride and the options of op, kernel, se, skip, filters, layers.

    Filters are factors where there are `base_filters`, layers offsets where `base_layers`.
    """

    stride: int
    options: Mapping[str, tuple[Any, ...]]
    base_filters: int | None
    base_layers: int | None

    @property
    def decided(self) -> list[str]:
        """Keys that have two options or more."""
        return [key for key, options in self.options.items() if len(options) > 1]

    def width(self, filters: float) -> int:
        if self.base_filters is None:
            return int(filters)
        return round_channels(self.base_filters * filters)

    def layer_count(self, layers: int) -> int:
        return layers if self.base_layers is None else max(1, self.base_layers + layers)

    def build(self, before: _FileBlock | int, *values: Any) -> tuple[Block, ...]:
        """The block for the values of its part's decisions.

        Args:
            before: The block before it, or the channels of the stem.
            values: The filters of the block before where they are decided, then its own values.
        """
        rest = list(values)
        if isinstance(before, _FileBlock):
            decided = len(before.options["filters"]) > 1
            channels = before.width(rest.pop(0) if decided else before.options["filters"][0])
        else:
            channels = before
        chosen = {key: options[0] for key, options in self.options.items()}
        chosen |= zip(self.decided, rest, strict=True)
        return (
            Block(
                repeats=self.layer_count(chosen["layers"]),
                kernel=chosen["kernel"],
                stride=self.stride,
                expansion=_expansion(chosen["op"]),
                in_channels=channels,
                out_channels=self.width(chosen["filters"]),
                se_ratio=float(chosen["se"]),
                skip=chosen["skip"],
            ),
        )


def _expansion(op: str) -> int:
    return 0 if op == "conv" else 1 if op == "dsconv" else int(op.removeprefix("mbconv"))


class FileSpace(SearchSpace):
    """The space that a TOML file describes.

    Its `name` is the file and a digest of what the file says (`my_space.toml@1f0c...`, comments
    and layout aside). A run keeps it, so that it resumes only while the file says the same, and
    `get(name)` reads the file again.

    Args:
        name: Path of the file, or the `name` of such a space.
        resolution: Side of the input in pixels; None for the file's own.
    Raises:
        UnknownName: There is no such file.
        StoreError: It cannot be read.
        InvalidArgument: It describes no space; the message names the key. Or its networks cannot
            take the resolution.
        SettingsChanged: `name` has a digest, and the file says something else by now.
    """

    def __init__(self, name: str, resolution: int | None = None) -> None:
        match = _NAME.fullmatch(name)
        if match is None:
            raise InvalidArgument(f"a search space's file ends in .toml, got {name!r}")
        path = Path(match[1])
        content = _read(path)
        text = json.dumps(content, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        if match[2] not in (None, digest):
            raise SettingsChanged(
                f"{path} has changed since the run began: its digest was {match[2]} and is "
                f"{digest} now. Restore the file, or start a new run."
            )
        self.name = f"{path}@{digest}"
        top = _Keys(str(path), "", content, ("resolution", "classes", "stem", "head", "blocks"))
        own = top.number("resolution", RESOLUTION_PX, _whole(1, 2048))
        self.classes = top.number("classes", CLASSES, _whole(1, 100_000))
        stem = top.table("stem", ("filters", "stride"))
        self.stem_channels = stem.number("filters", 32, _FILTERS)
        self.stem_stride = stem.number("stride", 2, _STRIDE)
        self.head_channels = top.table("head", ("filters",)).number(
            "filters", HEAD_CHANNELS, _FILTERS
        )
        self._blocks = _blocks(top)
        if not self.decisions:
            raise top.error(
                "blocks", "leaves nothing to choose: write a list of two or more options at a key"
            )
        super().__init__(own if resolution is None else resolution)
        largest = self.decode([_largest(o) for o in self.decisions.values()])
        if largest.params > _MAX_PARAMS:
            raise top.error(
                "blocks",
                f"its largest network has {largest.params:.2g} parameters, and {_MAX_PARAMS:.0e} "
                "is the limit",
            )

    def __repr__(self) -> str:
        return f"{self.name} (resolution={self.resolution_px})"

    @cached_property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        return {
            f"block{number}_{key}": block.options[key]
            for number, block in enumerate(self._blocks, 1)
            for key in block.decided
        }

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        parts, px = [], self.stem.out_px
        before: _FileBlock | int = self.stem_channels
        shared: tuple[str, ...] = ()  # the decision on the filters of the block before
        for number, block in enumerate(self._blocks, 1):
            own = tuple(f"block{number}_{key}" for key in block.decided)
            parts.append(Part(f"block {number}", shared + own, px, partial(block.build, before)))
            px, before = -(-px // block.stride), block
            shared = tuple(name for name in own if name.endswith("_filters"))
        parts.append(Part("head", shared, px, partial(self._head, px)))
        return tuple(parts)

    def _head(self, px: int, *filters: float) -> Operator:
        last = self._blocks[-1]
        return self.head(px, last.width(filters[0] if filters else last.options["filters"][0]))


def _largest(options: tuple[Any, ...]) -> int:
    """The place of the option that gives the most parameters."""
    sizes = [_expansion(o) if isinstance(o, str) and o[-1].isdigit() else o for o in options]
    return int(np.argmax([s if isinstance(s, int | float) else 0 for s in sizes]))


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise UnknownName(f"there is no search space file {path}") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    if len(content) > _MAX_BYTES:
        raise InvalidArgument(f"{path} is larger than 1 MiB, so it describes no search space")
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # not UTF-8, or no TOML: the line is named
        raise InvalidArgument(f"{path} is not a TOML file: {error}") from error


# -- keys ---------------------------------------------------------------------------------------


def _whole(low: int, high: int) -> _Rule:
    what = f"is not a whole number from {low} to {high:,}"
    return lambda value: "" if type(value) is int and low <= value <= high else what


def _one_of(*known: Any) -> _Rule:
    what = f"is none of {', '.join(map(str, known))}"
    return lambda value: "" if type(value) is type(known[0]) and value in known else what


def _number(low: float, high: float, also: float | None = None) -> _Rule:
    what = f"is not a number from {low:g} to {high:g}" + (f", and not {also}" if also == 0 else "")

    def rule(value: Any) -> str:
        fits = type(value) in (int, float) and (low <= value <= high or value == also)
        return "" if fits else what

    return rule


def _kernel(value: Any) -> str:
    return _whole(1, 31)(value) or ("" if value % 2 else "is not odd")


_FILTERS, _STRIDE = _whole(1, 10_000), _one_of(1, 2)


class _Keys:
    """The keys of one table of the file; errors name the file and the key.

    Args:
        file: The file, for messages.
        path: Its place: "" for the file, "blocks[2]" for its second block.
        content: The table.
        known: Keys that it may have.
    Raises:
        InvalidArgument: It is not a table, or has another key.
    """

    def __init__(self, file: str, path: str, content: Any, known: Iterable[str]) -> None:
        self.file, self.path, self.content = file, path, content
        if not isinstance(content, dict):
            raise InvalidArgument(f"{file}: {path}: {content!r} is not a table")
        for key in content:
            if key not in known:
                raise self.error(key, f"unknown key. {nearest(key, known)}")

    def error(self, key: str, why: str) -> InvalidArgument:
        where = f"{self.path}.{key}" if self.path else key
        counted = " (blocks are counted from 1)" if where.startswith("blocks[") else ""
        return InvalidArgument(f"{self.file}: {where}: {why}{counted}")

    def table(self, key: str, known: Iterable[str]) -> _Keys:
        path = f"{self.path}.{key}" if self.path else key
        return _Keys(self.file, path, self.content.get(key, {}), known)

    def options(self, key: str, default: Any, rule: _Rule) -> tuple[Any, ...]:
        """The options of a key: one value, or a list of them; None as default: it is needed."""
        value = self.content.get(key, default)
        if value is None:
            raise self.error(key, "is missing")
        options = value if isinstance(value, list) else [value]
        if not 1 <= len(options) <= _MAX_OPTIONS:
            raise self.error(key, f"a list has 1 to {_MAX_OPTIONS} options, got {len(options)}")
        for place, option in enumerate(options):
            if why := rule(option):
                raise self.error(key, f"{option!r} {why}")
            if option in options[:place]:
                raise self.error(key, f"{option!r} stands twice")
        return tuple(options)

    def number(self, key: str, default: Any, rule: _Rule) -> int:
        """A value that all networks share."""
        if isinstance(self.content.get(key), list):
            raise self.error(key, "is one value for all networks, not a list")
        return int(self.options(key, default, rule)[0])

    def relative(
        self, key: str, default: Any, absolute: _Rule, factor: tuple[str, _Rule]
    ) -> tuple[int | None, tuple[Any, ...]]:
        """Absolute options, or a base and what changes it: (base or None, options)."""
        if not isinstance(self.content.get(key), dict):
            return None, self.options(key, default, absolute)
        name, rule = factor
        table = self.table(key, ("base", name))
        return table.number("base", None, absolute), table.options(name, None, rule)


def _blocks(top: _Keys) -> tuple[_FileBlock, ...]:
    tables = top.content.get("blocks")
    if not isinstance(tables, list) or not 1 <= len(tables) <= _MAX_BLOCKS:
        raise top.error("blocks", f"needs 1 to {_MAX_BLOCKS} tables, each headed [[blocks]]")
    blocks: list[_FileBlock] = []
    for number, content in enumerate(tables, 1):
        keys = _Keys(top.file, f"blocks[{number}]", content, _BLOCK_KEYS)
        block = _block(keys)
        choices = prod(map(len, block.options.values()))
        choices *= len(blocks[-1].options["filters"]) if blocks else 1
        if choices > _MAX_CHOICES:
            raise top.error(
                f"blocks[{number}]",
                f"its lists, with the filters of the block before it, make {choices:,} choices; "
                f"{_MAX_CHOICES:,} is the most. Shorten a list",
            )
        blocks.append(block)
    return tuple(blocks)


def _block(keys: _Keys) -> _FileBlock:
    names = keys.options("op", None, _one_of("conv", "dsconv", "mbconv"))
    if "mbconv" not in names and "expansion" in keys.content:
        raise keys.error("expansion", f"is of mbconv only, and op is {', '.join(names)}")
    expansions = keys.options("expansion", None, _whole(2, 99)) if "mbconv" in names else ()
    ops: list[str] = []
    for name in names:
        ops += [f"mbconv{e}" for e in expansions] if name == "mbconv" else [name]
    factors = ("factors", _number(0.01, 100))
    offsets = ("offsets", _whole(-100, 100))
    base_filters, filters = keys.relative("filters", None, _FILTERS, factors)
    base_layers, layers = keys.relative("layers", 1, _whole(1, 100), offsets)
    options = {
        "op": tuple(ops),
        "kernel": keys.options("kernel", 3, _kernel),
        "se": keys.options("se_ratio", 0, _number(1e-4, 1, also=0)),
        "skip": keys.options("skip", "identity", _one_of("identity", "pool", "none")),
        "filters": filters,
        "layers": layers,
    }
    stride = keys.number("stride", 1, _STRIDE)
    return _FileBlock(stride, options, base_filters, base_layers)
