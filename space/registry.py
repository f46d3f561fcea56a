"""Registry: objects of one kind by name, of phonenas and of other packages."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar

from .errors import UnknownName, nearest

__all__ = ["Registry"]

log = logging.getLogger("phonenas")

T = TypeVar("T")


class Registry(Generic[T]):
    """Objects of one kind by name.

    A name comes from our own table, from the entry points of an installed package, or is itself
    `module:Name`. Nothing is imported before its name is used.

    Args:
        kind: The kind in the singular, for messages: "strategy".
        group: Entry-point group of other packages: "phonenas.strategies".
        own: `module:Name` by name.
    """

    def __init__(self, kind: str, group: str, own: Mapping[str, str]) -> None:
        self.kind, self.group, self.own = kind, group, dict(own)

    @cached_property
    def _places(self) -> dict[str, str]:
        places = dict(self.own)
        for point in importlib.metadata.entry_points(group=self.group):
            used = places.setdefault(point.name, point.value)  # a package replaces none of ours
            if used != point.value:
                log.warning(
                    "the %s %r of another package, %s, is ignored: the name stands for %s",
                    self.kind,
                    point.name,
                    point.value,
                    used,
                )
        return places

    def names(self) -> list[str]:
        """Every name, sorted."""
        return sorted(self._places)

    def help(self) -> str:
        """Every name and `MODULE:NAME`, for help texts."""
        return f"{', '.join(self.names())}, or MODULE:NAME of your own"

    def get(self, name: str) -> T:
        """The object of a name, or of `module:Name`.

        Raises:
            UnknownName: No such name, module or object; the message offers the nearest name.
        """
        place = name if ":" in name else self._places.get(name)
        if place is None:
            raise UnknownName(
                f"no {self.kind} is called {name[:80]!r}. {nearest(name[:80], self._places)}"
            )
        module, _, attribute = place.partition(":")
        try:
            object_: Any = importlib.import_module(module)
            for part in attribute.split("."):
                object_ = getattr(object_, part)
        except (Exception, SystemExit) as error:  # another's module may raise any
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise UnknownName(
                f"the {self.kind} {name[:80]!r} is {place[:80]}, which cannot be imported: "
                f"{reason[:300]}"
            ) from error
        return object_  # type: ignore[no-any-return]
