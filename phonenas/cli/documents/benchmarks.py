"""Documents of the benchmarks on published tables."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from .measured import Scored

__all__ = [
    "AccuracyBenchmark",
    "NetworksBenchmark",
    "RegretBenchmark",
    "SearchBenchmark",
    "SurrogateBenchmark",
    "Top1Benchmark",
    "TransferBenchmark",
]


class _Figures(msgspec.Struct, kw_only=True):
    """Predictions of rows that were not fitted on; RMSE in the unit of the target."""

    spearman: float | None
    kendall_tau: float | None
    rmse: float | None
    mape: float | None
    acc10: float | None


class _Middle(_Figures, kw_only=True):
    train: int


class _Fit(_Middle, kw_only=True):
    seed: int
    test: int


class SurrogateBenchmark(msgspec.Struct, kw_only=True):
    """A column predicted from genes; median over seeds."""

    target: str
    genes: int
    left_out: int
    rows: list[_Fit]
    median: list[_Middle]
    baselines: dict[str, list[_Fit]]


class _Transferred(_Figures, kw_only=True):
    """A draw or, with draws, the mean of several; the rest is of the model alone."""

    samples: int
    draw: int | UnsetType = UNSET
    draws: int | UnsetType = UNSET
    coverage90: float | UnsetType | None = UNSET
    expected_mape: float | UnsetType | None = UNSET
    expected_spearman: float | UnsetType | None = UNSET


class TransferBenchmark(msgspec.Struct, kw_only=True):
    """A device predicted from a few of its measurements and other devices."""

    target: str
    method: str
    sources: list[str]
    left_out: int
    rows: list[_Transferred]
    mean: _Transferred
    baselines: dict[str, _Transferred]


class _Whole(msgspec.Struct, kw_only=True):
    network: str
    measured_ms: float
    predicted_ms: float
    low_ms: float
    high_ms: float


class NetworksBenchmark(msgspec.Struct, kw_only=True):
    """Whole networks predicted from others, beside baselines."""

    device: str
    method: str
    n_train: int
    n_test: int
    left_out: int
    left_out_networks: list[str]
    operator_mape: float
    score: Scored
    raw_sum: Scored
    macs: Scored
    booster: Scored
    measured_sum: Scored
    rows: list[_Whole]


class _Front(msgspec.Struct, kw_only=True):
    networks: int
    hypervolume: float


class _Share(msgspec.Struct, kw_only=True):
    """Share of the exact front's hypervolume; distinct networks may be fewer than evaluations."""

    strategy: str
    seed: int
    evaluations: int
    hypervolume_ratio: float
    distinct: int


class _MeanShare(msgspec.Struct, kw_only=True):
    strategy: str
    evaluations: int
    seeds: int
    hypervolume_ratio: float
    worst: float


class SearchBenchmark(msgspec.Struct, kw_only=True):
    """Strategies on a table, compared with its exact front."""

    exact_front: _Front
    rows: list[_Share]
    means: list[_MeanShare]
    left_out: int


class _OfModel(msgspec.Struct, kw_only=True):
    taught: int
    searched: int
    quality_spearman: float
    quality_rmse: float
    cost_spearman: float
    cost_rmse: float


class _Limit(msgspec.Struct, kw_only=True):
    quantile: float
    limit: float
    best_quality: float
    blind_regret: float


class _Regret(msgspec.Struct, kw_only=True):
    strategy: str
    seed: int
    evaluations: int
    quantile: float
    limit: float
    chance: float
    quality: float
    cost: float
    meets: bool
    overstep: float
    regret: float
    tried: int | None
    tried_regret: float | None


class _MeanRegret(msgspec.Struct, kw_only=True):
    strategy: str
    evaluations: int
    quantile: float
    chance: float
    seeds: int
    limit: float
    regret: float
    standard_error: float | None
    worst: float
    misses: int
    overstep: float | None
    tried: float | None
    tried_regret: float | None


class RegretBenchmark(msgspec.Struct, kw_only=True):
    """Strategies that search by a model of the table, with --model-share."""

    model: _OfModel
    limits: list[_Limit]
    rows: list[_Regret]
    means: list[_MeanRegret]
    left_out: int


class _Ranked(msgspec.Struct, kw_only=True):
    estimator: str
    draw: int
    failed: int
    n: int
    kendall_tau: float | None
    spearman: float | None
    seconds_per_network: float


class _MeanRank(msgspec.Struct, kw_only=True):
    kendall_tau: float | None
    lowest: float | None
    highest: float | None
    spearman: float | None
    seconds_per_network: float


class AccuracyBenchmark(msgspec.Struct, kw_only=True):
    """Networks of a table ranked by estimators; mean by estimator."""

    space: str
    target: str
    rows: list[_Ranked]
    mean: dict[str, _MeanRank]
    left_out: int


class _Points(msgspec.Struct, kw_only=True):
    """Errors in points of top-1; middle: of networks of 250 to 700 M MACs."""

    n: int
    mean_error_points: float
    bias_points: float
    coverage90: float | None
    middle_n: int
    middle_mean_error_points: float | None
    middle_spearman: float | None


class _OfEstimator(_Points, kw_only=True):
    estimator: str
    families: str


class _OfFamily(_Points, kw_only=True):
    family: str


class _Published(msgspec.Struct, kw_only=True):
    """Top-1 in per cent, as published and as estimated without its family."""

    network: str
    family: str
    recipe: str
    macs: int
    published: float
    estimated: float
    standard_error: float


class _Noise(msgspec.Struct, kw_only=True):
    """Of published figures about their network and recipe, in points; and the rank correlation,
    with its 90 % interval, that an exact estimate would reach in the middle."""

    figures: int
    networks: int
    points: float
    spearman: float
    low: float
    high: float


class Top1Benchmark(msgspec.Struct, kw_only=True):
    """Published ImageNet top-1, each family left out of the fit in turn."""

    scores: list[_OfEstimator]
    families: list[_OfFamily]
    networks: list[_Published]
    noise: _Noise
    middle_interval: list[float]
