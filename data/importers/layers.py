"""Layer tables of ProxylessNAS, Once-for-all and Single-Path NAS, whose rows are operators.

ProxylessNAS and Once-for-all name a row by its shapes
(`expanded_conv-input:14x14x80-output:14x14x96-expand:3-kernel:5-stride:1-idskip:0`). What they
share: `expanded_conv` is an inverted bottleneck, without its first convolution where the middle
is as wide as the input (our dsconv); `idskip` is the identity skip; times are means in ms.

*ProxylessNAS* (Cai et al., ICLR 2019; han-cai/files, mobile_trim.yaml): `expand` is a ratio,
`Conv` the 3×3 stride-2 stem, and `Conv_1` (1×1) with `Logits` (pooling and classifier) together
our head, whose time is their sum. Its ReLU is clipped at 6, here it is not: as in `space.zoo`,
that is taken for the same layer.

*Once-for-all* (Cai et al., ICLR 2020; the code's latency_table.py and MobileNetV3 blocks):
`expand` is the number of middle channels, `hs` the h-swish activation, `se` squeeze-and-excite
with a hard sigmoid, its width a quarter of the middle, rounded to a multiple of 8. `Conv` is the
stem, and `Conv_1`, `AvgPool2D`, `Conv_2` and `Logits` together are the head, all with h-swish: 96
rows are the 93 operators of the space `ofa-mbv3`.

*Single-Path NAS* (Stamoulis et al., 2019; the code's supernet_macro.py): 22 layers by number and
four choices (0: k3 e3, 1: k3 e6, 2: k5 e3, 3: k5 e6), the layers those of `_SUPERNET` at 224 px.
Its first and last layer are fixed, so that their four numbers name no choices: skipped. Equal
layers occur several times: each is a round of the one measurement. Stem and head are missing.

All three were measured in TFLite on the phone; threads, cores and build are unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from phonenas.space import Architecture, Operator
from phonenas.space.architecture import round_channels
from phonenas.space.errors import InvalidArgument

from ..measurement import Conditions
from .source import NamedRow, Source, entries, quoted
from .table import Reading, Skip, Table, conditions_of, within_limits

__all__ = ["once_for_all", "proxyless", "single_path"]

_SHAPE = r"([0-9]{1,4})x([0-9]{1,4})x([0-9]{1,5})"
_ROW = re.compile(
    rf"(?P<kind>[A-Za-z0-9_]+)-input:{_SHAPE}-output:(?:{_SHAPE}|([0-9]{{1,6}}))(?P<rest>.*)"
)
_LAYER = re.compile(
    r"-expand:([0-9]{1,5})-kernel:([0-9]{1,2})-stride:([0-9])-idskip:([01])"
    r"(?:-se:([01])-hs:([01]))?"
)
_SUPERNET = Architecture.parse(
    "r1_k3_s11_e1_i32_o16_noskip r4_k5_s22_e6_i16_o24 r4_k5_s22_e6_i24_o40 r4_k5_s22_e6_i40_o80 "
    "r4_k5_s11_e6_i80_o96 r4_k5_s22_e6_i96_o192 r1_k3_s11_e6_i192_o320_noskip"
)
_CHOICES = {"0": (3, 3), "1": (3, 6), "2": (5, 3), "3": (5, 6)}  # kernel, expansion

_HEAD = ("Conv_1", "AvgPool2D", "Conv_2", "Logits")  # of Once-for-all, in order

_Part = tuple[str, NamedRow, tuple[int, ...], float]  # kind, row, shapes, ms


def proxyless(source: Source, device: str, model: str | None = None) -> Table:
    """The table of ProxylessNAS; the one that is published is of a Pixel 1.

    Raises:
        UnsupportedFormat: Not such a table; the message names the line.
    """
    readings: list[Reading] = []
    skipped: list[Skip] = []
    parts: list[_Part] = []
    resolution_px = None
    for entry in entries(source):
        row = _row(source, entry)
        mean_ms = _mean_ms(source, entry)
        shapes = tuple(int(g) for g in row.groups()[1:8] if g is not None)
        kind, rest = row["kind"], row["rest"]
        if kind == "expanded_conv":
            layer = _layer(source, entry, rest, squeeze=False)
            expand = int(layer[1])
            operator = _mbconv(shapes, expand, layer)
        elif kind == "Conv" and len(shapes) == 6 and not rest:
            resolution_px = _resolution(shapes[0])
            operator = _checked(shapes, "stem", kernel=3, stride=2)
        elif kind in ("Conv_1", "Logits") and not rest:
            parts.append((kind, entry, shapes, mean_ms))
            continue
        else:
            operator = f"{quoted(kind)} is not a layer type of phonenas"
        _keep(operator, entry, mean_ms, readings, skipped)
    _head(parts, readings, skipped)
    conditions = _conditions(source, device, model or "Pixel 1")
    return Table(source.name, conditions, tuple(readings), tuple(skipped), resolution_px)


def once_for_all(source: Source, device: str, model: str | None = None) -> Table:
    """A table of Once-for-all; they are published for several phones and resolutions.

    Raises:
        UnsupportedFormat: Not such a table; the message names the line.
    """
    readings: list[Reading] = []
    skipped: list[Skip] = []
    parts: list[_Part] = []
    resolution_px = None
    for entry in entries(source):
        row = _row(source, entry)
        mean_ms = _mean_ms(source, entry)
        shapes = tuple(int(g) for g in row.groups()[1:8] if g is not None)
        kind = row["kind"]
        operator: Operator | str = f"{quoted(kind)} is not a layer type of phonenas"
        if kind == "expanded_conv":
            layer = _layer(source, entry, row["rest"], squeeze=True)
            middle, channels = int(layer[1]), max(shapes[2], 1)
            fields: dict[str, Any] = {"activation": "hard_swish"} if layer[6] == "1" else {}
            if layer[5] == "1":
                fields |= {"gate": "hard_sigmoid", "se_channels": round_channels(middle / 4)}
            operator = _mbconv(shapes, middle / channels, layer, **fields)
        elif kind == "Conv" and len(shapes) == 6 and not row["rest"]:
            resolution_px = _resolution(shapes[0])
            swish = {"activation": "hard_swish"}
            operator = _checked(shapes, "stem", kernel=3, stride=2, **swish)
        elif kind in _HEAD and not row["rest"]:
            parts.append((kind, entry, shapes, mean_ms))
            continue
        _keep(operator, entry, mean_ms, readings, skipped)
    _mixing_head(parts, readings, skipped)
    conditions = _conditions(source, device, model)
    return Table(source.name, conditions, tuple(readings), tuple(skipped), resolution_px)


def single_path(source: Source, device: str, model: str | None = None) -> Table:
    """The table of Single-Path NAS, which is of a Pixel 1.

    Raises:
        UnsupportedFormat: Not such a table; the message names the line.
    """
    layers = _SUPERNET.operators()[1:-1]
    readings: list[Reading] = []
    skipped: list[Skip] = []
    for entry in entries(source):
        number = int(entry.name) if re.fullmatch("[0-9]{1,2}", entry.name) else len(layers)
        if number >= len(layers):
            raise source.error(
                entry.line,
                f"a layer's number from 0 to {len(layers) - 1} was expected, got "
                f"{quoted(entry.name)}",
            )
        for choice, (text, line) in entry.fields.items():
            if choice not in _CHOICES:
                raise source.error(line, f"a choice of 0 to 3 was expected, got {quoted(choice)}")
            name = f"layer {number}, choice {choice}"
            mean_ms = source.latency_ms(text, line, name)
            if number in (0, len(layers) - 1):
                reason = "a fixed layer of the supernet, whose four numbers name no choice"
                skipped.append(Skip(reason, name))
                continue
            kernel, expansion = _CHOICES[choice]
            operator = replace(layers[number], kernel=kernel, expansion=expansion)
            readings.append(Reading("operator", operator.key, mean_ms, {"row": name, "line": line}))
    conditions = _conditions(source, device, model or "Pixel 1")
    return Table(source.name, conditions, tuple(readings), tuple(skipped), 224)


def _conditions(source: Source, device: str, model: str | None) -> Conditions:
    known = {"model": model} if model else {}
    return conditions_of(source, device, runtime="tflite", statistic="mean of the runs", **known)


def _resolution(px: int) -> int | None:
    """The side of an input image in pixels, if the spaces' networks can take it."""
    return px if 32 <= px <= 2048 else None


def _row(source: Source, entry: NamedRow) -> re.Match[str]:
    match = _ROW.fullmatch(entry.name)
    if match is None:
        raise source.error(
            entry.line,
            f"a layer as Conv-input:224x224x3-output:112x112x32 was expected, got "
            f"{quoted(entry.name)}",
        )
    return match


def _layer(source: Source, entry: NamedRow, rest: str, *, squeeze: bool) -> re.Match[str]:
    match = _LAYER.fullmatch(rest)
    if match is None or (match[5] is not None) != squeeze:
        form = "-expand:3-kernel:3-stride:1-idskip:0" + ("-se:0-hs:0" if squeeze else "")
        raise source.error(
            entry.line, f"an expanded_conv ends here as in {form}, got {quoted(rest, 80)}"
        )
    return match


def _mean_ms(source: Source, entry: NamedRow) -> float:
    if "mean" not in entry.fields:
        raise source.error(entry.line, f"{quoted(entry.name, 120)} has no field 'mean'")
    text, line = entry.fields["mean"]
    return source.latency_ms(text, line, "mean")


def _mbconv(
    shapes: tuple[int, ...], expand: float, layer: re.Match[str], **fields: Any
) -> Operator | str:
    return _checked(
        shapes,
        "dsconv" if expand == 1 else "mbconv",
        kernel=int(layer[2]),
        stride=int(layer[3]),
        expansion=expand,
        skip="identity" if layer[4] == "1" else "none",
        **fields,
    )


def _checked(shapes: tuple[int, ...], kind: str, **fields: Any) -> Operator | str:
    """The operator with these shapes, or why there is none."""
    if len(shapes) != 6:
        return "no map of pixels as output"
    in_px, in_px2, in_channels, out_px, out_px2, out_channels = shapes
    try:
        operator = Operator(kind, in_channels, out_channels, in_px, **fields)  # type: ignore
        within_limits(operator)
    except InvalidArgument:
        return "shapes that no layer of ours has"
    square = in_px == in_px2 and out_px == out_px2 == operator.out_px
    if not square or (kind == "stem" and in_channels != 3):
        return "shapes that no layer of ours has"
    return operator


def _keep(
    operator: Operator | str,
    entry: NamedRow,
    mean_ms: float,
    readings: list[Reading],
    skipped: list[Skip],
) -> None:
    if isinstance(operator, str):
        skipped.append(Skip(operator, entry.name))
    else:
        telemetry = {"row": entry.name, "line": entry.line, **_beside(entry)}
        readings.append(Reading("operator", operator.key, mean_ms, telemetry))


def _beside(entry: NamedRow) -> Mapping[str, str]:
    """The other fields of the row, as text: their unit is unknown."""
    return {n: entry.fields[n][0][:60] for n in ("count", "var", "std") if n in entry.fields}


def _mixing_head(parts: list[_Part], readings: list[Reading], skipped: list[Skip]) -> None:
    """The four parts of Once-for-all's head as one, if each takes what the one before gives."""
    by_kind = {kind: (entry, shapes, ms) for kind, entry, shapes, ms in parts}
    reason = "a part of a head whose other parts are not there"
    if len(parts) == len(_HEAD) == len(by_kind):
        (_, first, _), (_, pool, _), (_, mix, _), (_, last, _) = (by_kind[k] for k in _HEAD)
        # From and to each part: sides and channels.
        joined = first[3:] == pool[:3] and pool[3:] == mix[:3] and mix[3:] == last[:3]
        if joined and mix[:2] == (1, 1) and first[0] == first[1] and len(last) == 4:
            try:
                head = Operator(
                    "head",
                    first[2],
                    last[3],
                    first[0],
                    features=first[5],
                    activation="hard_swish",
                    hidden=mix[5],
                    mixer="plain",
                )
                total = sum(ms for _, _, ms in by_kind.values())
                names = [by_kind[k][0].name for k in _HEAD]
                key = within_limits(head).key
                readings.append(Reading("operator", key, total, {"rows": names, "sum": True}))
            except InvalidArgument:
                reason = "shapes that no layer of ours has"
            else:
                return
    skipped.extend(Skip(reason, entry.name) for _, entry, _, _ in parts)


def _head(parts: list[_Part], readings: list[Reading], skipped: list[Skip]) -> None:
    """Each Conv_1 and the Logits that takes what it gives, as one head."""
    logits = {
        shapes[:3]: (entry, shapes, ms) for kind, entry, shapes, ms in parts if kind == "Logits"
    }
    taken: set[str] = set()
    for kind, entry, shapes, ms in parts:
        if kind != "Conv_1" or shapes[3:] not in logits or shapes[:2] != shapes[3:5]:
            continue
        other, out, other_ms = logits[shapes[3:]]
        try:
            head = within_limits(
                Operator("head", shapes[2], out[-1], shapes[0], features=shapes[5])
            )
        except InvalidArgument:
            continue
        if shapes[0] != shapes[1] or len(out) != 4:
            continue
        rows = {"rows": [entry.name, other.name], "sum": True}
        readings.append(Reading("operator", head.key, ms + other_ms, rows))
        taken |= {entry.name, other.name}
    for _, entry, _, _ in parts:
        if entry.name not in taken:
            skipped.append(Skip("a part of a head whose other part is not there", entry.name))
