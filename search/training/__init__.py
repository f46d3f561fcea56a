"""Training networks: images in, weights and their accuracy out."""

from __future__ import annotations

from .evaluation import evaluate
from .export.export import Check, Exported, export
from .folder import load
from .job import TrainingJob
from .recipe import PAPER, PROXY, SMALL, Recipe, recipe
from .resources import Resources
from .result import Trained
from .trainer import run_job, train
from .weights import load_weights

__all__ = [
    "PAPER",
    "PROXY",
    "SMALL",
    "Check",
    "Exported",
    "Recipe",
    "Resources",
    "Trained",
    "TrainingJob",
    "evaluate",
    "export",
    "load",
    "load_weights",
    "recipe",
    "run_job",
    "train",
]
