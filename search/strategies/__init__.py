"""Strategies, one a file; `registry` has them by name."""

from __future__ import annotations

from .base import ONE_GENE, Objectives, State, Strategy, unseen
from .random import RandomSearch
from .registry import STRATEGIES, get, names, options_given

__all__ = [
    "ONE_GENE",
    "STRATEGIES",
    "Objectives",
    "RandomSearch",
    "State",
    "Strategy",
    "get",
    "names",
    "options_given",
    "unseen",
]
