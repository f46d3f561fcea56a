"""Documents about devices, their measurements and their latency models."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from phonenas.data import Conditions
from phonenas.devices.device import DeviceState
from phonenas.devices.measuring.protocol import Verdict
from phonenas.latency_model.ready import ReadyPhone

__all__ = [
    "Checked",
    "Devices",
    "Exported",
    "Figures",
    "Fitted",
    "Imported",
    "PredictedNetwork",
    "Profiled",
    "ProfiledDevices",
    "ReadyPhones",
    "Scored",
    "Traced",
    "Upkeep",
]

Devices = list[DeviceState]
ReadyPhones = list[ReadyPhone]


class Scored(msgspec.Struct, kw_only=True):
    """Predictions against measurements of n networks; null where a figure has no value.

    mape, bias, acc5, acc10 and coverage90 are shares: 0.1 is 10 %.
    """

    n: int
    mape: float | None
    bias: float | None
    acc5: float | None
    acc10: float | None
    rmse_ms: float | None
    rmspe: float | None
    spearman: float | None
    kendall_tau: float | None
    coverage90: float | None
    informative: bool
    reason: str


class Figures(msgspec.Struct, kw_only=True):
    """Single runs, the start of the model and its size; null where the device does not tell."""

    p50_ms: float | None
    p90_ms: float | None
    load_ms: float | None
    first_ms: float | None
    peak_bytes: int | None
    model_bytes: int | None
    file_bytes: int | None
    energy_mj: float | None


class Profiled(msgspec.Struct, kw_only=True):
    """What `profile` measured on one device; networks are those that were named."""

    networks: dict[str, float]
    precisions: dict[str, str]
    figures: dict[str, Figures]
    measured: int
    reused: int
    rejected: int
    unstable: dict[str, str]
    doubtful: dict[str, str]
    seconds: float
    busy_s: float
    conditions: Conditions
    verdict: Verdict
    store: str


class ProfiledDevices(msgspec.Struct, kw_only=True):
    """What `profile` measured on several devices, by name, and why some were not."""

    devices: dict[str, Profiled]
    failed: dict[str, str]


class _Moved(msgspec.Struct, kw_only=True):
    subject: str
    old_ms: float
    new_ms: float


class _Drift(msgspec.Struct, kw_only=True):
    """How subjects of one kind changed between two measurements: new over old."""

    kind: str
    subjects: int
    ratio: float
    low: float | None
    high: float | None
    scatter: float
    moved: list[_Moved]
    since: str
    until: str
    changed: bool


class Upkeep(msgspec.Struct, kw_only=True):
    """What newer measurements say of a latency model; `refit` by the reasons."""

    newer: int
    networks: int
    inside: int
    bias: float | None
    drift: _Drift | None
    reasons: list[str]
    measure_again: bool
    uncovered: list[str]
    refit: bool


class _Rejected(msgspec.Struct, kw_only=True):
    """Readings that were rejected for one reason."""

    count: int
    subjects: int
    example: str
    last: str


class Checked(Upkeep, kw_only=True):
    """What `check` measured again, and whether the model holds."""

    device: str
    measured: int
    measured_again: list[_Drift]
    slowdown: float | None
    rejections: list[_Rejected]
    verdict: Verdict


class _Outlier(msgspec.Struct, kw_only=True):
    kind: str
    subject: str
    ms: float
    expected_ms: float
    ratio: float


class _LeftOut(msgspec.Struct, kw_only=True):
    conditions: str
    drift: list[_Drift]


class _Relative(msgspec.Struct, kw_only=True):
    """The source device of a model that was adapted to few measurements."""

    device: str
    precision: str | None
    good_enough: bool
    expected_mape: float | None
    factor: float
    operators: int
    networks: int


class Fitted(msgspec.Struct, kw_only=True):
    """A latency model as `fit` wrote it, with its scores beside the baselines."""

    device: str
    operators: int
    networks: int
    score: Scored | None
    lookup_table: Scored | None
    macs: Scored | None
    families: dict[str, Scored]
    calibrated: bool
    relative: _Relative | None
    drift: list[_Drift]
    left_out: list[_LeftOut]
    conditions: Conditions
    outliers: list[_Outlier]
    of_a_former_speed: list[str]
    doubt: str
    model: str
    kernels: str | None
    networks_left_out: list[str]
    kernel_score: Scored | None
    kernel_outliers: list[_Outlier]


class _Part(msgspec.Struct, kw_only=True):
    """A part of a network in its predicted time; share in [0, 1]."""

    key: str
    ms: float
    alone_ms: float
    alone_low_ms: float | None
    alone_high_ms: float | None
    share: float
    measured: bool
    node: str | UnsetType = UNSET


class PredictedNetwork(msgspec.Struct, kw_only=True):
    """A predicted latency with its interval; operators with --explain, within_target with
    --target."""

    network: str
    latency_ms: float
    low_ms: float
    high_ms: float
    interval: float
    covered: bool
    precision: str
    calibrated: bool
    origin: str
    extrapolated: bool
    basis: str
    whole_networks: bool
    notes: list[str]
    within_target: float | UnsetType = UNSET
    operators: list[_Part] | UnsetType = UNSET


class _TracedNode(msgspec.Struct, kw_only=True):
    """A node as the runtime's profiler timed it; part is a place in parts."""

    name: str
    op: str
    provider: str
    ms: float
    start_ms: float
    shown_ms: float
    consists_of: list[str]
    part: int | None


class _TracedPart(msgspec.Struct, kw_only=True):
    """A part of the model's prediction, beside the time of its nodes."""

    key: str
    model_ms: float
    profiled_ms: float | None


class Traced(msgspec.Struct, kw_only=True):
    """A network under its runtime's profiler."""

    network: str
    runs: int
    statistic: Literal["median", "mean"]
    plain_ms: float
    profiled_ms: float
    nodes_ms: float
    nodes: list[_TracedNode]
    parts: list[_TracedPart]
    no_model: str
    conditions: Conditions
    trace: str | None
    run: str | None


class _Coverage(msgspec.Struct, kw_only=True):
    """Operators of a space that a table has."""

    space: str
    resolution_px: int
    operators: int
    covered: int
    missing: int
    examples: list[str]
    networks: list[str]


class _Skipped(msgspec.Struct, kw_only=True):
    reason: str
    count: int
    example: str


class _Table(msgspec.Struct, kw_only=True):
    file: str
    imported: int
    already: int
    rows: int
    skipped: int
    digest: str
    conditions: Conditions
    holes: _Coverage | None


class Imported(msgspec.Struct, kw_only=True):
    """What `import` read of published tables."""

    format: str
    device: str
    imported: int
    already: int
    skipped: int
    reasons: list[_Skipped]
    doubt: str
    tables: list[_Table]
    holes: _Coverage | None
    store: str


class Exported(msgspec.Struct, kw_only=True):
    """The table that `export` wrote, and the readings that were rejected."""

    file: str
    measurements: int
    rejections: list[_Rejected]
