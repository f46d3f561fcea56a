"""How accurate a network will be: the estimators and their contract."""

from __future__ import annotations

from .additive import Additive
from .estimator import Accuracy, AccuracyEstimator
from .surrogate import Surrogate

__all__ = ["Accuracy", "AccuracyEstimator", "Additive", "Surrogate"]
