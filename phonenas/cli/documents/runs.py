"""Documents about searches, and what is done with what they found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType

from phonenas.data import Conditions
from phonenas.devices.measuring.protocol import Verdict
from phonenas.search.exported_file import FileLatency
from phonenas.search.pareto import Interval
from phonenas.search.promotion.result import PromotedNetwork
from phonenas.search.validation.rounds import Ranked

from .measured import Figures, Scored, Upkeep
from .networks import Reference

if TYPE_CHECKING:
    from phonenas.search import Devices

__all__ = ["ComparedRuns", "PromotedNetworks", "Searched", "Validated", "searched_on"]


class _Candidate(msgspec.Struct, kw_only=True):
    """A network of the front; intervals of several devices, by the names in values."""

    id: int
    block_args: str
    top1: float
    top1_error: float
    outside: bool
    latency_ms: float
    low_ms: float
    high_ms: float
    covered: bool
    macs: int
    params: int
    reward: float | None
    values: dict[str, float]
    intervals: dict[str, Interval] | UnsetType = UNSET


class _Target(msgspec.Struct, kw_only=True):
    device: str
    latency_model: str
    target_ms: float | None
    target: str
    origin: str
    precision: str


class _Rung(msgspec.Struct, kw_only=True):
    epochs: int
    networks: int


class Searched(msgspec.Struct, kw_only=True):
    """What a search found. Of several devices with devices, across and perhaps device_weights;
    origin and precision are then those of all, joined by " and "."""

    strategy: str
    evaluations: int
    seconds: float
    hypervolume: float
    target_ms: float | None
    devices: list[_Target] | UnsetType = UNSET
    across: str | UnsetType = UNSET
    device_weights: list[float] | UnsetType = UNSET
    resumed_from: int
    ended: str | None
    rungs: list[_Rung]
    trained_s: float
    kept: str | None
    origin: str
    precision: str
    runs: dict[str, str]
    accuracy: str
    quantity: str
    schedule: str
    extrapolated: int
    left_out: int
    failed: dict[str, int]
    front: list[_Candidate]
    references: list[Reference]
    gain: str


def searched_on(devices: Devices | None, models: Sequence[Any]) -> dict[str, Any]:
    """Origin and precision of what predicted; of several devices of each, with its target.

    Args:
        devices: Of the search; None for one.
        models: That predicted, in the order of the devices.
    """
    names = ("origin", "precision")
    each = [{name: str(getattr(m.conditions, name)) for name in names} for m in models]
    of_all = {name: " and ".join(dict.fromkeys(of[name] for of in each)) for name in names}
    if devices is None:
        return of_all
    settings = devices.settings
    on = [{**d, **of} for d, of in zip(settings["devices"], each, strict=True)]
    return {**settings, "devices": on, **of_all}


class _Validated(Figures, kw_only=True):
    """A network, predicted and measured; spread and error are relative."""

    id: int
    block_args: str
    top1: float
    predicted_ms: float
    low_ms: float
    high_ms: float
    measured_ms: float
    spread: float | None
    error: float
    inside: bool
    meets_target: bool | None
    rounds: int
    verdict: str | None
    file: FileLatency | None
    round: int | UnsetType = UNSET
    name: str | UnsetType = UNSET
    reward: float | UnsetType = UNSET


class _Unmeasured(msgspec.Struct, kw_only=True):
    id: int
    block_args: str
    predicted_ms: float
    reason: str


class _Round(msgspec.Struct, kw_only=True):
    round: int
    folder: str
    networks: list[_Validated]
    unmeasured: list[_Unmeasured]
    score: Scored
    expected_to_meet: float | None
    meet: int | None
    front: int
    changed: Ranked | None
    reused: int


class _Limit(msgspec.Struct, kw_only=True):
    limit: str
    kept: int
    of: int


class Validated(msgspec.Struct, kw_only=True):
    """The best networks of a run, measured. Of several rounds with rounds and stopped: networks
    are then the best of all, each with its round, name and reward."""

    networks: list[_Validated]
    score: Scored
    target_ms: float | None
    reused: int
    unmeasured: list[_Unmeasured]
    verdict: Verdict
    upkeep: Upkeep
    origin: str
    gain: str
    references: list[Reference]
    rounds: list[_Round] | UnsetType = UNSET
    stopped: str | UnsetType = UNSET
    limits: list[_Limit]


class _OfFront(msgspec.Struct, kw_only=True):
    id: int
    block_args: str
    top1: float
    top1_error: float
    top1_origin: str
    latency_ms: float
    low_ms: float
    high_ms: float
    latency_origin: str
    meets_target: bool | None
    verdict: str | None


class PromotedNetworks(msgspec.Struct, kw_only=True):
    """The best networks of a run, trained in full and perhaps measured: promoted.json."""

    format: str
    version: int
    device: str
    precision: str
    target_ms: float | None
    target: str
    recipe: dict[str, Any]
    seed: int
    images: dict[str, Any]
    origin: str
    seconds: float
    run: str
    networks: list[PromotedNetwork]
    front: list[_OfFront]
    kendall_tau: float | None
    score: Scored | None
    verdict: Verdict | None
    conditions: Conditions | None


class _Row(msgspec.Struct, kw_only=True):
    """A run: group is a place in means, scale one in scales; null where no other run compares."""

    name: str
    path: str
    group: int
    scale: int
    strategy: str
    seed: int | None
    space: str
    resolution_px: int | None
    device: str
    target_ms: float | None
    evaluations: int
    seconds: float
    hypervolume: float | None
    of_joint: float | None
    best_id: int | None
    best_top1: float | None
    best_ms: float | None
    best_measured_ms: float | None
    front: int
    joint_share: float | None
    alone_share: float | None
    validated: int
    met: int | None
    origin: str


class _Mean(msgspec.Struct, kw_only=True):
    """Runs that differ in their seed alone: means and standard deviations."""

    label: str
    runs: list[str]
    hypervolume: float | None
    hypervolume_sd: float | None
    of_joint: float | None
    of_joint_sd: float | None
    best_top1: float | None
    best_top1_sd: float | None
    joint_share: float | None
    seconds: float


class _Scale(msgspec.Struct, kw_only=True):
    """Runs whose numbers are comparable."""

    runs: list[str]
    device: str
    latency_model: str
    accuracy: str
    limit_ms: float
    joint: int
    hypervolume: float


class ComparedRuns(msgspec.Struct, kw_only=True):
    """Several runs, compared: settings that differ by run, and those that are the same."""

    page: str
    notes: list[str]
    left_out: list[str]
    rows: list[_Row]
    means: list[_Mean]
    scales: list[_Scale]
    differs: dict[str, dict[str, Any]]
    same: dict[str, Any]
