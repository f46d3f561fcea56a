"""Documents about spaces and networks."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from phonenas.space.zoo import Published

from .measured import Scored

__all__ = [
    "Cell",
    "ComparedNetworks",
    "EstimatedNetwork",
    "FileShown",
    "NetworkShown",
    "NetworkWritten",
    "Reference",
    "RunShown",
    "SpaceShown",
]

Cell = str | float | int | bool | None


class SpaceShown(msgspec.Struct, kw_only=True):
    """A search space: its size, and the options of each gene."""

    name: str
    blocks: int
    choices_per_block: list[int]
    size: int
    operators: int
    resolution_px: int
    genes: dict[str, list[Cell]]


class _Layer(msgspec.Struct, kw_only=True):
    key: str
    macs: int
    params: int


class NetworkShown(msgspec.Struct, kw_only=True):
    """A network: counted whole and by operator; what others published of it."""

    name: str
    params: int
    macs: int
    resolution_px: int
    operators: list[_Layer]
    block_args: str
    published: Published | UnsetType = UNSET


class FileShown(msgspec.Struct, kw_only=True):
    """A file of a network, cut into the kernels that its runtime launches."""

    name: str
    params: int
    macs: int
    precision: str
    operators: list[_Layer]
    notes: list[str]


class Reference(msgspec.Struct, kw_only=True):
    """A known network beside a front; gain: of top-1 of the front's best that is no slower."""

    name: str
    latency_ms: float
    low_ms: float
    high_ms: float
    measured: bool
    top1: float
    top1_error: float
    macs: int
    params: int
    published: float | None
    outside: bool
    candidate: int | None
    gain: float | None
    gain_error: float | None
    latencies: dict[str, float]
    measured_on: list[str]


class RunShown(msgspec.Struct, kw_only=True):
    """Networks of a run as rows: `csv` has the same columns. Of several devices with targets_ms,
    null where one has none, and with --parquet with the file."""

    run: str
    target_ms: float | None
    targets_ms: dict[str, float | None] | UnsetType = UNSET
    hypervolume: float
    front: int
    extrapolated: int
    left_out: int
    quantity: str
    schedule: str
    scale: str
    networks: list[dict[str, Cell]]
    references: list[Reference]
    gain: str
    origin: str
    csv: str | None
    parquet: str | UnsetType = UNSET


class NetworkWritten(msgspec.Struct, kw_only=True):
    """The file that `export-network` wrote."""

    network: str
    format: str
    file: str
    bytes: int
    seed: int
    trained: bool
    precision: str
    calibrated_on: int


class _Ratio(msgspec.Struct, kw_only=True):
    """One latency over another, with its 90 % interval."""

    times: float
    low: float
    high: float
    basis: str
    verdict: str


class _Timing(msgspec.Struct, kw_only=True):
    """A network on a device: measured, predicted, both or neither."""

    device: str
    precision: str
    origin: str
    measured_ms: float | None
    spread: float | None
    at: str
    predicted_ms: float | None
    low_ms: float | None
    high_ms: float | None
    basis: str
    covered: bool | None
    fitted_on: bool
    notes: list[str]
    reason: str
    p50_ms: float | None
    p90_ms: float | None
    load_ms: float | None
    first_ms: float | None
    peak_bytes: int | None
    model_bytes: int | None
    file_bytes: int | None
    energy_mj: float | None
    error: float | None
    inside: bool | None
    against_the_first: _Ratio | None


class _Top1(msgspec.Struct, kw_only=True):
    """Top-1 in [0, 1], published or estimated, with its standard error."""

    top1: float
    error: float
    schedule: str
    source: str
    outside: bool
    estimated: bool


class _Gain(msgspec.Struct, kw_only=True):
    """Points of top-1 above the first network, with the 90 % interval."""

    points: float
    low: float
    high: float
    scale: str


class _Row(msgspec.Struct, kw_only=True):
    name: str
    text: str
    macs: int | None
    params: int | None
    resolution_px: int | None
    classes: int | None
    size_bytes: int | None
    stored: bool
    peak_activation_bytes: int | None
    published: _Top1 | None
    estimated: _Top1 | None
    no_estimate: str
    timings: list[_Timing]
    failed: bool
    top1_against_the_first: _Gain | None


class _Pair(msgspec.Struct, kw_only=True):
    """Two networks with like MACs, one of them faster."""

    device: str
    faster: str
    slower: str
    macs: tuple[int, int]
    ratio: _Ratio


class _Device(msgspec.Struct, kw_only=True):
    device: str
    note: str
    score: Scored | None
    alike: list[_Pair]


class ComparedNetworks(msgspec.Struct, kw_only=True):
    """Networks side by side, as `compare` prints them."""

    networks: list[_Row]
    devices: list[_Device]
    scale: str
    page: str | None
    csv: str | None


class EstimatedNetwork(msgspec.Struct, kw_only=True):
    """An estimated accuracy, in [0, 1]; null where there is none, and why."""

    asked: str
    network: str
    estimator: str
    scale: str
    quantity: str
    schedule: str
    top1: float | None
    standard_error: float | None
    outside: bool
    failed: str
    cost_s: float | None
