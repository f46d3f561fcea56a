"""From measurements to the latency of networks that were never run."""

from __future__ import annotations

from .fitting import fit
from .metrics import Score, chance_within, kendall_tau, score, spearman
from .model import Examined, LatencyModel, OperatorTimes, Predicted
from .model_file import load, model_path, precisions_there

__all__ = [
    "Examined",
    "LatencyModel",
    "OperatorTimes",
    "Predicted",
    "Score",
    "chance_within",
    "fit",
    "kendall_tau",
    "load",
    "model_path",
    "precisions_there",
    "score",
    "spearman",
]
