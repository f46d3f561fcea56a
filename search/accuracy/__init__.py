"""How accurate a network will be: the estimators and their contract."""

from __future__ import annotations

from .cache import Cached
from .estimator import Accuracy, AccuracyEstimator, Request
from .imagenet.imagenet import ImageNet
from .registry import ESTIMATORS, estimator
from .short_training import ShortTraining
from .successive_halving import SuccessiveHalving
from .supernet.supernet import Supernet
from .supernet.train import Sharing, train_supernet
from .surrogate.additive import Additive
from .surrogate.surrogate import Surrogate
from .table import AccuracyTable
from .zero_cost.zero_cost import Scoring, ZeroCost

Imported = AccuracyTable  #: Its name in version 0.1.

__all__ = [
    "ESTIMATORS",
    "Accuracy",
    "AccuracyEstimator",
    "AccuracyTable",
    "Additive",
    "Cached",
    "ImageNet",
    "Imported",
    "Request",
    "Scoring",
    "Sharing",
    "ShortTraining",
    "SuccessiveHalving",
    "Supernet",
    "Surrogate",
    "ZeroCost",
    "estimator",
    "train_supernet",
]
