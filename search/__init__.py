"""Search offline, and have the device say the last word."""

from __future__ import annotations

from . import accuracy, benchmark
from .controller import Controller
from .exact_front import ExactFront, exact_front
from .loop import Searched, run, search
from .nsga2 import NSGA2
from .pareto import Candidate, ParetoFront, hypervolume
from .reward import HARD, SOFT, check_target, reward
from .run_folder import load
from .strategy import RandomSearch, Strategy, get, names
from .surrogate_assisted import SurrogateAssisted
from .validation import Validation, validate
from .weighted_product import WeightedProduct

__all__ = [
    "HARD",
    "NSGA2",
    "SOFT",
    "Candidate",
    "Controller",
    "ExactFront",
    "ParetoFront",
    "RandomSearch",
    "Searched",
    "Strategy",
    "SurrogateAssisted",
    "Validation",
    "WeightedProduct",
    "accuracy",
    "benchmark",
    "check_target",
    "exact_front",
    "get",
    "hypervolume",
    "load",
    "names",
    "reward",
    "run",
    "search",
    "validate",
]
