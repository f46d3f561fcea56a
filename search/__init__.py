"""Search offline, and validate the best networks on the device."""

from __future__ import annotations

from . import accuracy, objectives, training
from .benchmarks import table as benchmark
from .benchmarks.exact_front import ExactFront, exact_front
from .budget import Budget
from .constraints import Devices, Limit, OnDevice, Target, parse_limit
from .evaluations import Evaluations
from .loop import Searched, run, search
from .objectives import Function, Latency, Macs, Objective, Params, PeakActivation
from .pareto import Candidate, ParetoFront, hypervolume
from .promotion.promote import LatencySource, promote
from .promotion.result import Promoted, read_promoted
from .run_folder import load
from .spec import Spec
from .strategies import RandomSearch, Strategy, get, names
from .strategies.controller import Controller
from .strategies.nsga2 import NSGA2
from .strategies.nsga3 import NSGA3
from .strategies.regularised import RegularisedEvolution
from .strategies.reward import HARD, SOFT, check_target, reward
from .strategies.start_from import StartFrom
from .strategies.surrogate_assisted import SurrogateAssisted
from .strategies.weighted_product import WeightedProduct
from .validation.rounds import Rounds, validate_rounds
from .validation.validate import Validation, validate

__all__ = [
    "HARD",
    "NSGA2",
    "NSGA3",
    "SOFT",
    "Budget",
    "Candidate",
    "Controller",
    "Devices",
    "Evaluations",
    "ExactFront",
    "Function",
    "Latency",
    "LatencySource",
    "Limit",
    "Macs",
    "Objective",
    "OnDevice",
    "Params",
    "ParetoFront",
    "PeakActivation",
    "Promoted",
    "RandomSearch",
    "RegularisedEvolution",
    "Rounds",
    "Searched",
    "Spec",
    "StartFrom",
    "Strategy",
    "SurrogateAssisted",
    "Target",
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
