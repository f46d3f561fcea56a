"""How accurate a network will be: the estimators and their contract."""

from __future__ import annotations

from .additive import Additive
from .cache import Cached
from .choose import estimator
from .estimator import Accuracy, AccuracyEstimator
from .supernet import Supernet
from .supernet_training import train_supernet
from .surrogate import Surrogate
from .table import Imported
from .training import ShortTraining
from .zero_cost import ZeroCost

__all__ = [
    "Accuracy",
    "AccuracyEstimator",
    "Additive",
    "Cached",
    "Imported",
    "ShortTraining",
    "Supernet",
    "Surrogate",
    "ZeroCost",
    "estimator",
    "train_supernet",
]
