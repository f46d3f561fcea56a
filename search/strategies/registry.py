"""Strategies by name: ours, those of installed packages, and `module:Name`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, get_args

import msgspec

from phonenas.space.errors import InvalidArgument, PhonenasError, nearest
from phonenas.space.registry import Registry

from .base import Strategy

__all__ = ["STRATEGIES", "get", "names", "options_given"]

_KINDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false"}
_KINDS[float | None] = "a number or none"
_ROOM = "phonenas.search.strategies"
STRATEGIES: Registry[Any] = Registry(
    "strategy",
    "phonenas.strategies",
    {
        "nsga2": f"{_ROOM}.nsga2:NSGA2",
        "nsga3": f"{_ROOM}.nsga3:NSGA3",
        "random": f"{_ROOM}.random:RandomSearch",
        "regularised": f"{_ROOM}.regularised:RegularisedEvolution",
        "rl": f"{_ROOM}.controller:Controller",
        "surrogate": f"{_ROOM}.surrogate_assisted:SurrogateAssisted",
        "weighted": f"{_ROOM}.weighted_product:WeightedProduct",
    },
)


def names() -> list[str]:
    """Every strategy by name, those of installed packages among them."""
    return STRATEGIES.names()


def options_given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's settings those of its strategy that are not the defaults, as `--set` takes them.

    None where the strategy is not installed, or is no longer as it was.
    """
    strategy = str(settings.get("strategy", ""))
    if strategy not in names():
        return {}
    usual: Mapping[str, Any] = {}
    own: Mapping[str, Any] = {}
    with suppress(PhonenasError, AttributeError, NameError, TypeError):  # another's class
        own = STRATEGIES.get(strategy).options()
    with suppress(PhonenasError):
        usual = get(strategy).settings
    changed = [n for n in own if n in settings and settings[n] != usual.get(n, "")]
    return {n: "none" if settings[n] is None else settings[n] for n in changed}


def get(
    name: str, seed: int = 0, soft: bool = False, given: Mapping[str, Any] | None = None
) -> Strategy:
    """A strategy by name.

    Args:
        name: See `names`; or `module:Name` of a class. Settings may follow it, as NAME=VALUE.
        seed: Of all chance.
        soft: For a soft target, where the strategy can follow one.
        given: Settings by name, as values or as a user wrote them; the others are the defaults.
    Raises:
        UnknownName: No such strategy; the message offers the nearest.
        InvalidArgument: What bears the name is not a subclass of `Strategy`; a setting that it
            does not have, or a value of another type or range.

    >>> get("nsga2", given={"population": "40"}).settings["population"]
    40
    >>> get("nsga2 population=40").settings["population"]
    40
    """
    name, *words = name.split() or [name]
    given = {**dict(_setting(word) for word in words), **(given or {})}
    kind = STRATEGIES.get(name)
    if not (isinstance(kind, type) and issubclass(kind, Strategy)):
        raise InvalidArgument(f"the strategy {name!r} is {kind!r}, which is not a Strategy class")
    if not given:
        return kind.make(seed, soft)
    settings = _settings(name, kind.options(), given)
    made = kind.make(seed, soft, **settings)
    made.given = settings
    return made


def _setting(text: str) -> tuple[str, str]:
    """NAME=VALUE in two."""
    name, separator, value = text.partition("=")
    if not (name and separator and value):
        raise InvalidArgument(f"a setting of a strategy is NAME=VALUE, got {text!r}")
    return name, value


def _settings(name: str, types: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the types that a strategy takes."""
    settings = {}
    for setting, value in given.items():
        if setting not in types:
            known = nearest(setting, types) if types else "It has none."
            raise InvalidArgument(f"the strategy {name} has no setting {setting!r}. {known}")
        try:
            text = "null" if value == "none" else value
            settings[setting] = msgspec.convert(text, types[setting], strict=False)
        except msgspec.ValidationError as error:
            choices = ", ".join(map(str, get_args(types[setting])))
            kind = _KINDS.get(types[setting]) or f"one of {choices}"
            raise InvalidArgument(
                f"{setting} of the strategy {name} is {kind}, got {value!r}"
            ) from error
    return settings
