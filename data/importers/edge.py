"""The mobile-ml-benchmark's tables (qed-usc, EdgeSys 2024, MIT): whole networks on phones, µs.

A row is a network by the name that the pytorchcv collection gives it, at 224 px; a column is
`phone|cores or gpu|float or quant|mean or std`. Networks are taken where we can say what they
are, layer by layer: `NETWORKS`, after the definitions in pytorchcv. A row whose own count of
FLOPs is more than 1 % off twice our MACs is another network of that name, and skipped. Of
MobileNetV2 it is `mobilenetv2b_*` that is the paper's; `mobilenetv2_*` has a 1×1 convolution more
ahead of its first depthwise layer. Its widths are cut to whole channels, not rounded to eights,
so they are none of the zoo's.

The tables of single operators list bare convolutions, poolings and additions, as the runtime
fused them. Our operators are whole layers, measured as one: none of those rows is one, and a sum of
them is not one either. All are skipped.

The TFLite table (2.10) writes FLOPS in its header, the PyTorch Mobile one (2.0) flops.
"""

from __future__ import annotations

import difflib
import re

from ...space import Architecture, zoo
from ...space.errors import InvalidArgument
from .rows import Row, rows
from .source import Source, shown
from .table import Reading, Skip, Table, conditions_of

__all__ = ["NETWORKS", "edge"]

_PHONES = {"pixel4": "Pixel 4", "s10": "Galaxy S10", "iphone7": "iPhone 7", "iphonexs": "iPhone XS"}
_COLUMN = re.compile(r"([a-z0-9]{1,20})\|((?:[0-9](?:large|med|small))+|gpu)\|(float|quant)\|mean")
_US_PER_MS = 1000.0


def _mobilenet_v2(width: float) -> Architecture:
    """pytorchcv's widths: cut to whole channels, the head as it was."""
    text = " ".join(
        f"r{r}_k3_s{s}{s}_e{e}_i{int(i * width)}_o{int(o * width)}"
        for r, s, e, i, o in (
            (1, 1, 1, 32, 16), (2, 2, 6, 16, 24), (3, 2, 6, 24, 32), (4, 2, 6, 32, 64),
            (3, 1, 6, 64, 96), (3, 2, 6, 96, 160), (1, 1, 6, 160, 320),
        )
    )  # fmt: skip
    return Architecture.parse(text)


def _layers(stem: int, head: int, layers: str) -> Architecture:
    """From one `out:kernel,expansion,stride` a layer; the skip is the identity where it can be."""
    blocks, channels = [], stem
    for layer in layers.split():
        out, rest = layer.split(":")
        kernel, expansion, stride = rest.split(",")
        blocks.append(f"r1_k{kernel}_s{stride}{stride}_e{expansion}_i{channels}_o{out}")
        channels = int(out)
    return Architecture.parse(" ".join([*blocks, f"head{head}"]))


NETWORKS: dict[str, Architecture] = {
    "mnasnet_a1": zoo.network("mnasnet-a1"),
    "mnasnet_b1": zoo.network("mnasnet-b1"),
    "mobilenetv2b_w1": _mobilenet_v2(1.0),
    "mobilenetv2b_w3d4": _mobilenet_v2(0.75),
    "mobilenetv2b_wd2": _mobilenet_v2(0.5),
    "mobilenetv2b_wd4": _mobilenet_v2(0.25),
    "spnasnet": Architecture.parse(
        "r1_k3_s11_e1_i32_o16 r3_k3_s22_e3_i16_o24 r1_k5_s22_e6_i24_o40 r3_k3_s11_e3_i40_o40 "
        "r1_k5_s22_e6_i40_o80 r3_k3_s11_e3_i80_o80 r1_k5_s11_e6_i80_o96 r3_k5_s11_e3_i96_o96 "
        "r4_k5_s22_e6_i96_o192 r1_k3_s11_e6_i192_o320"
    ),
    "proxylessnas_mobile": _layers(
        32, 1280,
        "16:3,1,1 32:5,3,2 32:3,3,1 40:7,3,2 40:3,3,1 40:5,3,1 40:5,3,1 80:7,6,2 80:5,3,1 80:5,3,1 "
        "80:5,3,1 96:5,6,1 96:5,3,1 96:5,3,1 96:5,3,1 192:7,6,2 192:7,6,1 192:7,3,1 192:7,3,1 320:7,6,1",
    ),
    "proxylessnas_mobile14": _layers(
        48, 1792,
        "24:3,1,1 40:5,3,2 40:3,3,1 56:7,3,2 56:3,3,1 56:5,3,1 56:5,3,1 112:7,6,2 112:5,3,1 112:5,3,1 "
        "112:5,3,1 136:5,6,1 136:5,3,1 136:5,3,1 136:5,3,1 256:7,6,2 256:7,6,1 256:7,3,1 256:7,3,1 448:7,6,1",
    ),
    "proxylessnas_cpu": _layers(
        40, 1432,
        "24:3,1,1 32:3,6,2 32:3,3,1 32:3,3,1 32:3,3,1 48:3,6,2 48:3,3,1 48:3,3,1 48:5,3,1 88:3,6,2 88:3,3,1 "
        "104:5,6,1 104:3,3,1 104:3,3,1 104:3,3,1 216:5,6,2 216:5,3,1 216:5,3,1 216:3,3,1 360:5,6,1",
    ),
    "proxylessnas_gpu": _layers(
        40, 1728,
        "24:3,1,1 32:5,3,2 56:7,3,2 56:3,3,1 112:7,6,2 112:5,3,1 128:5,6,1 128:3,3,1 128:5,3,1 "
        "256:7,6,2 256:7,6,1 256:7,6,1 256:5,6,1 432:7,6,1",
    ),
}  # fmt: skip


def edge(source: Source, device: str, column: str | None, model: str | None = None) -> Table:
    """One column of a table of whole networks.

    Raises:
        UnsupportedFormat: Not such a table; the message names the line.
        InvalidArgument: No column, or none that the table has.
    """
    header, body = rows(source, required=("model",))
    runtime, version = ("tflite", "2.10") if "FLOPS" in header else ("pytorch-mobile", "2.0")
    if "operation" in header:
        reason = "bare operations as the runtime fused them; ours are whole layers"
        runtime, version = "unknown", "unknown"
        skips = tuple(Skip(reason, row["model"]) for row in body)
        return Table(source.name, conditions_of(source, device), (), skips)
    known = [c for c in header if _COLUMN.fullmatch(c)]
    match = _COLUMN.fullmatch(column or "")
    if match is None or column not in known:
        close = difflib.get_close_matches((column or "")[:80], known, n=3, cutoff=0.0)
        raise InvalidArgument(
            f"--column: one of the {len(known)} of {source.name}"
            + (f", as {', '.join(close)}" if close else "")
            + f"; got {shown(column) if column else 'none'}"
        )
    phone, cores, precision = match.groups()
    counts = [int(n) for n in re.findall("[0-9]", cores)]
    conditions = conditions_of(
        source,
        device,
        model=model or _PHONES.get(phone, phone),
        runtime=runtime,
        runtime_version=version,
        provider="gpu" if cores == "gpu" else "cpu",
        threads=sum(counts),
        cores="unknown" if cores == "gpu" else cores,
        precision=precision,
        statistic="mean of the runs",
    )
    taken = [_reading(source, row, column) for row in body]
    readings = tuple(t for t in taken if isinstance(t, Reading))
    skipped = tuple(t for t in taken if isinstance(t, Skip))
    return Table(source.name, conditions, readings, skipped, 224)


def _reading(source: Source, row: Row, column: str) -> Reading | Skip:
    name = row["model"]
    network = NETWORKS.get(name)
    if network is None:
        return Skip("a network that we cannot say layer by layer", name)
    flops = row["FLOPS"] if "FLOPS" in row.cells else row.cells.get("flops", "")
    counted = source.number(flops, row.line, "FLOPS")
    if abs(counted - 2 * network.macs) > 0.01 * 2 * network.macs:
        return Skip("its count of FLOPS is another network's", name)
    if not row[column]:
        return Skip("not measured in this column", name)
    found = source.latency_ms(row[column], row.line, column, _US_PER_MS)
    told: dict[str, object] = {"row": name, "line": row.line}
    if std := row.cells.get(column.removesuffix("mean") + "std"):
        told["std_ms"] = source.number(std, row.line, "std") / _US_PER_MS
    return Reading("network", str(network), found, told)
