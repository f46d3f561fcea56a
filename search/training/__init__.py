"""Training networks: images in, weights and their accuracy out."""

from __future__ import annotations

from .evaluation import evaluate
from .export import Exported, export
from .folder import load
from .recipe import PAPER, PROXY, SMALL, Recipe, recipe
from .trained import Trained
from .trainer import train
from .weights_file import load_weights

__all__ = [
    "PAPER",
    "PROXY",
    "SMALL",
    "Exported",
    "Recipe",
    "Trained",
    "evaluate",
    "export",
    "load",
    "load_weights",
    "recipe",
    "train",
]
