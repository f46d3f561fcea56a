"""The mobile-ml-benchmark's tables (qed-usc, EdgeSys 2024, MIT): whole networks on phones, µs.

A row is a network by the name that the pytorchcv collection gives it, at 224 px; a column is
`phone|cores or gpu|float or quant|mean or std`. All networks that `phonenas.space.zoo` knows by
these names are taken, others are listed. A row whose own count of FLOPs is more than 4 % off twice
our MACs (a gate's included) is another network of that name, and skipped.

A network of blocks is kept by its block string; another one by its text in the zoo, under the kind
"onnx" of whole networks. Precision: `float` is float32 on cores and float16 on GPUs, `quant` int8.

The tables of single operators list bare convolutions, poolings and additions, as the runtime
fused them. Our operators are whole layers, measured as one: none of those rows is one, and a sum of
them is not one either. All are skipped.

The TFLite table (2.10) writes FLOPS in its header, the PyTorch Mobile one (2.0) flops. A file named
`edge_RUNTIME_cnn_...` of another runtime is that runtime's, of unknown version.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from phonenas.space import Architecture, zoo
from phonenas.space.errors import InvalidArgument, UnknownName

from ..measurement import SubjectKind
from .source import Row, Source, quoted, rows
from .table import Reading, Skip, Table, conditions_of

__all__ = ["edge", "edge_networks"]

_PHONES = {"pixel4": "Pixel 4", "s10": "Galaxy S10", "iphone7": "iPhone 7", "iphonexs": "iPhone XS"}
_SETTING = re.compile(r"([a-z0-9]{1,20})\|((?:[0-9](?:large|med|small))+|gpu)\|(float|quant)")
_RUNTIMES = {"tflite": ("tflite", "2.10"), "torch": ("pytorch-mobile", "2.0")}
_MEAN = "|mean"
_US_PER_MS = 1000.0
_FLOPS_TOLERANCE = 0.04  # they count activations and poolings, too


def edge_networks(
    source: Source, device: str, model: str | None = None, setting: str | None = None
) -> Table:
    """The networks of a table under one setting, as `pixel4|1large|float`.

    Raises:
        UnsupportedFormat: Not such a table; the message names the line.
        InvalidArgument: No setting, or none that the table has.
    """
    return _read(source, device, model, setting, "", "--setting")


def edge(source: Source, device: str, model: str | None = None, column: str | None = None) -> Table:
    """`edge_networks` by the name of a column, as `pixel4|1large|float|mean`.

    Raises:
        UnsupportedFormat, InvalidArgument: As `edge_networks`.
    """
    return _read(source, device, model, column, _MEAN, "--column")


def _read(
    source: Source, device: str, model: str | None, given: str | None, ending: str, option: str
) -> Table:
    header, body = rows(source, required=("model",))
    runtime, version = _runtime(source.name, header)
    if "operation" in header:
        if given:
            raise InvalidArgument(
                f"{option}: {source.name} is a table of single operations, of which none is taken. "
                f"Omit {option}"
            )
        reason = "bare operations as the runtime fused them; ours are whole layers"
        runtime, version = "unknown", "unknown"
        skips = tuple(Skip(reason, row["model"]) for row in body)
        return Table(source.name, conditions_of(source, device), (), skips)
    settings = [c.removesuffix(_MEAN) for c in header if c.endswith(_MEAN)]
    known = [s + ending for s in settings if _SETTING.fullmatch(s)]
    setting = (given or "").removesuffix(_MEAN) if ending else given or ""
    match = _SETTING.fullmatch(setting)
    if match is None or given not in known:
        close = difflib.get_close_matches((given or "")[:80], known, n=3, cutoff=0.0)
        raise InvalidArgument(
            f"{option}: one of the {len(known)} of {source.name}"
            + (f", as {', '.join(close)}" if close else "")
            + f"; got {quoted(given) if given else 'none'}"
        )
    phone, cores, precision = match.groups()
    counts = [int(n) for n in re.findall("[0-9]", cores)]
    gpu = cores == "gpu"
    conditions = conditions_of(
        source,
        device,
        model=model or _PHONES.get(phone, phone),
        runtime=runtime,
        runtime_version=version,
        provider="gpu" if gpu else "cpu",
        threads=sum(counts),
        cores="unknown" if gpu else cores,
        precision="int8" if precision == "quant" else "float16" if gpu else "float32",
        statistic="mean of the runs",
    )
    taken = [_reading(source, row, setting) for row in body]
    readings = tuple(t for t in taken if isinstance(t, Reading))
    skipped = tuple(t for t in taken if isinstance(t, Skip))
    return Table(source.name, conditions, readings, skipped, 224)


def _runtime(file: str, header: Sequence[str]) -> tuple[str, str]:
    """Name and version: by the file's name where it is that of another runtime, else the header."""
    named = re.match(r"edge_([a-z0-9-]{1,30})_cnn_", file)
    if named and named[1] not in _RUNTIMES:
        return named[1], "unknown"
    return _RUNTIMES["tflite" if "FLOPS" in header else "torch"]


def _reading(source: Source, row: Row, setting: str) -> Reading | Skip:
    name = row["model"]
    try:
        network = zoo.edge_network(name)
    except UnknownName:
        return Skip("a network that the zoo does not know by this name", name)
    flops = row["FLOPS"] if "FLOPS" in row.cells else row.cells.get("flops", "")
    macs = sum(k.macs for k in zoo.kernels(network))
    counted = source.number(flops, row.line, "FLOPS") if flops else 2 * macs
    if abs(counted - 2 * macs) > _FLOPS_TOLERANCE * 2 * macs:
        return Skip("its count of FLOPS is another network's", name)
    column = setting + _MEAN
    if not row[column]:
        return Skip("not measured in this column", name)
    latency_ms = source.latency_ms(row[column], row.line, column, _US_PER_MS)
    telemetry: dict[str, object] = {"row": name, "line": row.line}
    if std := row.cells.get(f"{setting}|std"):
        telemetry["std_ms"] = source.number(std, row.line, "std") / _US_PER_MS
    kind: SubjectKind = "network" if isinstance(network, Architecture) else "onnx"
    return Reading(kind, str(network), latency_ms, telemetry)
