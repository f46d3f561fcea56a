"""From measurements to the latency of networks that were never run."""

from __future__ import annotations

from .fitting import fit
from .metrics import Score, score
from .model import Examined, LatencyModel, Predicted
from .model_file import load

__all__ = ["Examined", "LatencyModel", "Predicted", "Score", "fit", "load", "score"]
