"""Search spaces, one a file, by name: ours, those of other packages, a user's TOML file, the
networks of a table; each whole or narrowed by hand."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from pathlib import Path

from .. import narrowed
from ..errors import InvalidArgument, PhonenasError
from ..narrowed import conditioned, narrow
from ..operator import Operator
from ..registry import Registry
from ..search_space import SearchSpace
from .from_file import FileSpace, is_space_file
from .from_table import is_table, table_space

__all__ = ["SPACES", "FileSpace", "each", "get", "names", "narrow", "parted", "space_of"]

_DIGEST = re.compile(r"@[0-9a-f]{12}\Z")  # behind the name of a file

#: Classes of search spaces, or functions that make one, each called with a resolution or nothing.
SPACES: Registry[Callable[..., SearchSpace]] = Registry(
    "search space",
    "phonenas.spaces",
    {
        "accel-nasbench": "phonenas.space.spaces.accel_nasbench:AccelNASBench",
        "efficientnet-edge": "phonenas.space.spaces.efficientnet_edge:EfficientNetEdge",
        "fbnet": "phonenas.space.spaces.fbnet:FBNet",
        "mobilenet-v4": "phonenas.space.spaces.mobilenet_v4:MobileNetV4",
        "ofa-mbv3": "phonenas.space.spaces.ofa:OnceForAll",
        "ofa-mbv3-w1.0": "phonenas.space.spaces.ofa:OnceForAllNarrow",
        "mnasnet": "phonenas.space.spaces.mnasnet:MnasNet",
        "mnasnet-flat": "phonenas.space.spaces.mnasnet_flat:MnasNetFlat",
        "nasbench-macro": "phonenas.space.spaces.nasbench_macro:NASBenchMacro",
        "proxylessnas": "phonenas.space.spaces.proxylessnas:ProxylessNAS",
    },
)


def names() -> list[str]:
    """Every search space by name, sorted; those of installed packages too."""
    return SPACES.names()


def each(resolution: int | None = None) -> Iterator[SearchSpace]:
    """Every search space by name that can take a resolution; another's that does not load is left
    out."""
    for name in names():
        with contextlib.suppress(PhonenasError):
            yield get(name, resolution)


def space_of(operators: Collection[Operator]) -> SearchSpace | None:
    """The space by name that holds most of some operators, as of a profile; None for none of them.

    A space that holds fewer than half is none of theirs.
    """
    resolution = max((o.in_px for o in operators), default=0)
    best: SearchSpace | None = None
    most = (len(operators) - 1) // 2
    for space in each(resolution):
        if (held := len(set(operators) & set(space.operators()))) > most:
            best, most = space, held
        if most == len(set(operators)):
            break  # no other holds more, and the tables of large spaces take seconds
    return best


def parted(name: str) -> tuple[str, list[str]]:
    """The name of a space, and the conditions behind it, as `narrow` takes them.

    Words in the name of a file that is there are none: `table:with k=3.csv`.
    """
    base, conditions = narrowed.parted(name)
    for count in range(len(conditions), 0, -1):
        longer = " ".join([base, *conditions[:count]])
        file = Path(_DIGEST.sub("", longer.removeprefix("table:")))
        if (is_table(longer) or is_space_file(longer)) and file.is_file():
            return longer, conditions[count:]
    return base, conditions


def get(name: str, resolution: int | None = None) -> SearchSpace:
    """A search space.

    Args:
        name: One of `names()`, a TOML file (`my_space.toml`, described in docs/extending.md),
            `table:FILE` for the networks of a table, or `module:Name` of a class or function that
            makes a space. Conditions may follow (`mnasnet block3_kernel=5 op!=conv`), see
            `narrow`.
        resolution: Side of the input in pixels; None for the space's own (224; 32 of CIFAR's).
    Returns:
        The space. `get(space.name)` gives an equal one, so a run that keeps `name` can reopen it.
        One of ours is the same object each time.
    Raises:
        UnknownName: No such space or file; the message offers the nearest name.
        InvalidArgument: A resolution that its networks cannot take; a file that describes no
            space; an object that makes none; an unknown gene or option.
        UnsupportedFormat, NotEnoughData, SettingsChanged: As `table_space`.
    """
    if is_space_file(name):
        return FileSpace(name, resolution)
    base, conditions = parted(name)
    if conditions:
        return conditioned(get(base, resolution), conditions)
    if is_table(name):
        return table_space(name, resolution, each)
    if name in SPACES.own:
        return _ours(name, resolution)
    return _made(name, resolution)


@lru_cache(maxsize=32)
def _ours(name: str, resolution: int | None) -> SearchSpace:
    # A space does not change, and the tables of its parts take a second to build.
    return _made(name, resolution)


def _made(name: str, resolution: int | None) -> SearchSpace:
    make = SPACES.get(name)
    if not callable(make):
        raise InvalidArgument(f"{name} is {type(make).__name__}, which makes no search space")
    try:
        space = make() if resolution is None else make(resolution)
    except PhonenasError:
        raise
    except Exception as error:  # another's function may raise any
        raise InvalidArgument(f"{name} makes no search space: {error!r}") from error
    if not isinstance(space, SearchSpace):
        raise InvalidArgument(
            f"{name} gives {type(space).__name__}, which is not a phonenas.space.SearchSpace"
        )
    if space.name != name:
        space.name = name
    return space
