"""Documents about trained networks, supernets and accuracy surrogates."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from phonenas.search.exported_file import FileLatency
from phonenas.search.training.finetuning.tuned import FineTuned

__all__ = ["FittedAccuracy", "TrainedNetwork", "TrainedSupernet"]


class _Epoch(msgspec.Struct, kw_only=True):
    epoch: int
    step: int
    learning_rate: float
    loss: float | None
    top1: float | None
    top5: float | None
    seconds: float


class _Form(msgspec.Struct, kw_only=True):
    """An exported file beside torch: difference and allowed are of logits."""

    format: str
    difference: float
    allowed: float
    differing: int
    top1: float
    sha256: str


class _Quantised(msgspec.Struct, kw_only=True):
    """A quantised file beside the float32 one; size and float_size in bytes. not_run says why this
    computer does not run it; then its top1 is that of the float32 file."""

    name: str
    file: str
    path: str
    precision: str
    top1: float
    float_top1: float
    change_error: float
    agreeing: float
    size: int
    float_size: int
    images: int
    calibrated_on: int
    sha256: str
    not_run: str


class TrainedNetwork(msgspec.Struct, kw_only=True):
    """A trained network: top-1 in [0, 1], null where the training diverged; with --export what was
    written, with --measure-on the time of the file."""

    network: str
    top1: float | None
    top5: float | None
    images_held: int
    images: int
    classes: list[str]
    steps: int
    seconds: float
    diverged: str
    resumed_from: int
    recipe: dict[str, Any]
    curve: list[_Epoch]
    part: str
    epochs: int
    out: str | None
    files: dict[str, str]
    export: list[_Form] | UnsetType = UNSET
    quantised: list[_Quantised] | UnsetType = UNSET
    finetuned: FineTuned | UnsetType = UNSET
    file: FileLatency | UnsetType = UNSET


class _Evaluated(msgspec.Struct, kw_only=True):
    """A network with shared weights; top1 as evaluated, estimate as a search would take it."""

    network: str
    macs: int
    top1: float
    estimate: float
    probability: float | UnsetType = UNSET
    name: str | UnsetType = UNSET
    standard_error: float | UnsetType = UNSET


class TrainedSupernet(msgspec.Struct, kw_only=True):
    """A supernet, as its supernet.json has it; networks are those that were evaluated."""

    folder: str
    format: str
    version: int
    digest: str | UnsetType = UNSET
    settings: dict[str, Any]
    source: str
    images: int
    images_held: int
    parameters: int
    steps: int
    seconds: float
    curve: list[dict[str, float]]
    read_s: float
    offset: float
    spread: float
    largest: _Evaluated
    smallest: _Evaluated
    networks: list[_Evaluated]


class _Ranks(msgspec.Struct, kw_only=True):
    kendall_tau: float
    spearman: float


class _Fit(_Ranks, kw_only=True):
    """Of networks that the surrogate was not fitted on; shipped and macs are baselines."""

    n: int
    rmse_points: float
    macs: _Ranks
    shipped: _Ranks | UnsetType = UNSET
    how: str | UnsetType = UNSET


class FittedAccuracy(msgspec.Struct, kw_only=True):
    """The surrogate that `fit-accuracy` wrote, with its score."""

    path: str
    rows: int
    networks: int
    version: int
    score: _Fit
