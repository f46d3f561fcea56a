"""Search offline, and have the device say the last word."""

from __future__ import annotations

from . import accuracy, benchmark, objectives, training
from .controller import Controller
from .exact_front import ExactFront, exact_front
from .limits import Limit, parse_limit
from .loop import Searched, run, search
from .nsga2 import NSGA2
from .objectives import Function, Latency, Macs, Objective, Params, PeakActivation
from .pareto import Candidate, ParetoFront, hypervolume
from .promoted import Promoted, read_promoted
from .promotion import promote
from .reward import HARD, SOFT, check_target, reward
from .rounds import Rounds, validate_rounds
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
    "Function",
    "Latency",
    "Limit",
    "Macs",
    "Objective",
    "Params",
    "ParetoFront",
    "PeakActivation",
    "Promoted",
    "RandomSearch",
    "Rounds",
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
    "objectives",
    "parse_limit",
    "promote",
    "read_promoted",
    "reward",
    "run",
    "search",
    "training",
    "validate",
    "validate_rounds",
]
