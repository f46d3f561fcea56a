"""Groups of commands: how their options are read, and how their help shows what is registered."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any, cast

import typer
from typer.core import TyperCommand

__all__ = ["group"]

# What a help text names in braces, and the registry that lists it.
_REGISTRIES = {
    "{spaces}": "phonenas.space.spaces:SPACES",
    "{strategies}": "phonenas.search.strategies:STRATEGIES",
    "{formats}": "phonenas.data.importers:FORMATS",
    "{estimators}": "phonenas.search.accuracy:ESTIMATORS",
}
_NO_NUMBER = re.compile(r"[^\x00-\x7f]|nan|inf|_", re.IGNORECASE)


class _Command(TyperCommand):
    """A command that refuses an option given twice, and names what is registered in its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for param in order:
            if param.param_type_name == "option" and not param.multiple and order.count(param) > 1:
                raise typer.BadParameter(
                    "it takes one value and is given twice", ctx, cast(Any, param)
                )
            # What typer calls the type has changed between its releases.
            bare: Any = getattr(param, "bare_type", None)
            kind: Any = bare() if callable(bare) else getattr(param, "type", None)
            if str(getattr(kind, "name", kind)).startswith(("int", "float")):
                self._check_digits(ctx, param, given[param.name])
        return super().parse_args(ctx, args)

    @staticmethod
    def _check_digits(ctx: Any, param: Any, given: Any) -> None:
        """Refuse what Python takes for a number: digits of other scripts, nan and inf."""
        for text in given if isinstance(given, list) else [given]:
            if isinstance(text, str) and (_NO_NUMBER.search(text) or len(text) > 40):
                raise typer.BadParameter(f"{text[:40]!r} is not a number", ctx, param)

    def name_registered(self) -> None:
        """Put the names that are registered into the options' help."""
        for param in self.params:
            for name, place in _REGISTRIES.items():
                if name in (getattr(param, "help", None) or ""):
                    module, _, attribute = place.partition(":")
                    known = getattr(importlib.import_module(module), attribute).help()
                    param.help = param.help.replace(name, known)  # type: ignore[attr-defined]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.name_registered()
        super().format_help(ctx, formatter)


def group(help: str, commands: list[Callable[..., None]], name: str | None = None) -> typer.Typer:
    """Commands under one name.

    Args:
        help: What the group is for, in a sentence.
        commands: Functions that `options.command` made commands.
        name: Of the program, if the group is the whole command line; it then has completion.
    """
    found = typer.Typer(
        name=name,
        help=help,
        no_args_is_help=True,
        add_completion=name is not None,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    for function in commands:
        named = function.__name__.rstrip("_").replace("_", "-")
        # The list of commands would cut the help text off.
        summary = (function.__doc__ or "").partition("\n")[0]
        found.command(name=named, cls=_Command, short_help=summary)(function)
    return found
