"""Published tables: each row means one operator of ours or is skipped with its reason, and no
file, however made, does more than give numbers or an error that names its line."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phonenas import data, space
from phonenas.cli import tables
from phonenas.data import importers
from phonenas.data.importers.edge import edge, edge_networks
from phonenas.data.importers.layers import once_for_all, proxyless, single_path
from phonenas.data.importers.plain import plain
from phonenas.data.importers.source import Source
from phonenas.space import Operator, zoo
from phonenas.space.errors import (
    InvalidArgument,
    PhonenasError,
    StoreError,
    UnknownName,
    UnsupportedFormat,
)

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
published = pytest.mark.skipif(
    not SHARED.is_dir(), reason="shared/data does not lie beside the checkout"
)
COLUMN = "pixel4|1large|float|mean"

PROXYLESS = b"""\
Conv-input:224x224x3-output:112x112x32:
  count: 982
  mean: 4.0
  var: 0.25
Conv_1-input:7x7x320-output:7x7x1280:
  mean: 3.0
Logits-input:7x7x1280-output:1000:
  mean: 0.5
expanded_conv-input:14x14x80-output:14x14x80-expand:3-kernel:5-stride:1-idskip:1:
  count: 10
  mean: 1.5e+0
expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0:
  mean: 2
"""
OFA = b"""\
Conv-input:160x160x3-output:80x80x24:
  mean: 0.5
AvgPool2D-input:5x5x1152-output:1x1x1152:
  mean: 0.01
expanded_conv-input:80x80x24-output:40x40x32-expand:72-kernel:7-stride:2-idskip:0-se:0-hs:0:
  count: 54
  mean: 2.25
  std: 0.1
expanded_conv-input:80x80x24-output:80x80x24-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0:
  mean: 1.25
expanded_conv-input:20x20x48-output:20x20x48-expand:144-kernel:3-stride:1-idskip:1-se:1-hs:0:
  mean: 1
expanded_conv-input:20x20x48-output:10x10x96-expand:144-kernel:3-stride:2-idskip:0-se:0-hs:1:
  mean: 1
"""
SINGLE = b'{"3": {"0": 3.5, "1": 6.25}, "2": {"0": 3.25}, "0": {"0": 4.0}}'
SETTING = COLUMN.removesuffix("|mean")
EDGE = f"""\
model,FLOPS,size,{COLUMN},pixel4|1large|float|std,s10|2large1med|quant|mean
mnasnet_b1,628895464,17505832,150000.5,250,
mobilenetv2_w1,627301376,14006628,1000,2,3
mobilenetv9_w1,627301376,14006628,1,2,3
mnasnet_a1,1e12,1,9,9,9
""".encode()
PLAIN = b"""\
kind,subject,latency_ms,std_ms,runs,at,model,runtime,threads,mode
operator,mbconv6_k5_s2_se20_14x14x80_112,1.5,0.1,50,2026-03-02T10:00:00+02:00,Pixel 6,litert,1,
network,mnasnet-b1,30.25,,,2026-03-02,Pixel 6,litert,1,
network,mnasnet-b1,29,,,,Pixel 6,litert,1,first
"""
READERS = {
    "proxylessnas": lambda s: [proxyless(s, "phone")],
    "ofa": lambda s: [once_for_all(s, "phone")],
    "singlepathnas": lambda s: [single_path(s, "phone")],
    "edge": lambda s: [edge(s, "phone", None, COLUMN)],
    "csv": lambda s: plain(s, "phone"),
}
VALID = dict(zip(READERS, (PROXYLESS, OFA, SINGLE, EDGE, PLAIN), strict=True))


def parse(form: str, content: bytes) -> list[importers.Table]:
    return READERS[form](Source.of("table.txt", content))


def times(table: importers.Table) -> dict[str, float]:
    return {r.subject: r.latency_ms for r in table.readings}


def reasons(table: importers.Table) -> dict[str, int]:
    found: dict[str, int] = {}
    for skip in table.skipped:
        found[skip.reason] = found.get(skip.reason, 0) + 1
    return found


# -- what rows mean -----------------------------------------------------------------------------


def test_proxylessnas_rows() -> None:
    (table,) = parse("proxylessnas", PROXYLESS)
    assert times(table) == {
        "stem_k3_s2_224x224x3_32": 4.0,
        "mbconv3_k5_s1_skip_14x14x80_80": 1.5,
        "dsconv_k3_s1_112x112x32_16": 2.0,
        "head1280_7x7x320_1000": 3.5,  # Conv_1 and Logits
    }
    assert not table.skipped and table.resolution_px == 224
    first = table.readings[0].telemetry
    assert (first["line"], first["count"], first["var"]) == (1, "982", "0.25")


def test_half_a_head_is_none() -> None:
    (table,) = parse(
        "proxylessnas", PROXYLESS.replace(b"Logits-input:7x7x1280", b"Logits-input:7x7x1284")
    )
    assert len(table.readings) == 3
    assert reasons(table) == {"a part of a head whose other part is not there": 2}


def test_every_head_of_a_table_is_paired_or_told() -> None:
    more = (
        b"Conv_1-input:5x5x320-output:5x5x1280:\n  mean: 2.0\n"
        b"Logits-input:5x5x1280-output:1000:\n  mean: 0.25\n"
        b"Logits-input:6x6x1280-output:1000:\n  mean: 9\n"
        b"Conv_1-input:7x7x192-output:7x7x1280:\n  mean: 1.0\n"
    )
    (table,) = parse("proxylessnas", PROXYLESS + more)
    heads = {k: v for k, v in times(table).items() if k.startswith("head")}
    assert heads == {
        "head1280_7x7x320_1000": 3.5,
        "head1280_5x5x320_1000": 2.25,
        "head1280_7x7x192_1000": 1.5,
    }
    assert [s.row for s in table.skipped] == ["Logits-input:6x6x1280-output:1000"]


@pytest.mark.parametrize("px", [b"9999x9999x3-output:5000x5000", b"8x8x3-output:4x4"])
def test_an_odd_resolution_is_not_the_spaces(px: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_bytes(PROXYLESS.replace(b"224x224x3-output:112x112", px))
    tables.import_("proxylessnas", [path], device="p", db=str(tmp_path / "x.db"))
    (table,) = importers.read("proxylessnas", path, "p")
    assert table.resolution_px is None


def test_shapes_that_are_no_layer_of_ours_are_skipped_with_the_reason() -> None:
    for old, new in (
        (b"14x14x80-output:14x14x80-exp", b"14x14x80-output:13x13x80-exp"),
        (b"14x14x80-output:14x14x80-exp", b"14x15x80-output:14x14x80-exp"),
        (b"kernel:5", b"kernel:4"),
        (b"stride:1-idskip:1", b"stride:2-idskip:1"),
        (b"14x14x80-output:14x14x80-exp", b"14x14x80-output:14x14x96-exp"),
        (b"Conv-input:224x224x3", b"Conv-input:224x224x4"),
        (b"expand:3", b"expand:0"),
    ):
        (table,) = parse("proxylessnas", PROXYLESS.replace(old, new))
        assert reasons(table) == {"shapes that no layer of ours has": 1}, new
    (table,) = parse("proxylessnas", PROXYLESS.replace(b"Conv-input:224", b"MaxPool-input:224"))
    assert reasons(table) == {"'MaxPool' is not a layer type of phonenas": 1}


def test_once_for_all_rows() -> None:
    (table,) = parse("ofa", OFA)
    assert times(table) == {
        "stem_k3_s2_hswish_160x160x3_24": 0.5,
        "mbconv3_k7_s2_80x80x24_32": 2.25,
        "dsconv_k3_s1_skip_80x80x24_24": 1.25,
        "mbconv3_k3_s1_hse40_skip_20x20x48_48": 1.0,
        "mbconv3_k3_s2_hswish_20x20x48_96": 1.0,
    }
    assert reasons(table) == {"a part of a head whose other parts are not there": 1}
    assert table.resolution_px == 160 and table.rows == 5
    (other,) = parse("ofa", OFA.replace(b"expand:72", b"expand:73"))
    assert "mbconvm73_k7_s2_80x80x24_32" in times(other)


OFA_HEAD = b"""\
AvgPool2D-input:5x5x1152-output:1x1x1152:
  mean: 0.25
Conv_1-input:5x5x192-output:5x5x1152:
  mean: 0.5
Conv_2-input:1x1x1152-output:1x1x1536:
  mean: 1
Logits-input:1x1x1536-output:1000:
  mean: 2
"""


def test_once_for_all_s_head_is_the_sum_of_its_parts() -> None:
    (table,) = parse("ofa", OFA_HEAD)
    assert times(table) == {"head1152_hiddenplain1536_hswish_5x5x192_1000": 3.75}
    assert table.rows == 4 and not table.skipped
    for wrong in (b"Conv_2-input:1x1x1151", b"AvgPool2D-input:5x5x1151", b"Pool-input:5x5x1152"):
        kind = wrong.split(b"-")[0]
        old = {b"Conv_2": b"Conv_2-input:1x1x1152", b"Pool": b"AvgPool2D-input:5x5x1152"}
        content = OFA_HEAD.replace(old.get(kind, b"AvgPool2D-input:5x5x1152"), wrong)
        (table,) = parse("ofa", content)
        assert not table.readings and len(table.skipped) == 4


def test_single_path_rows() -> None:
    (table,) = parse("singlepathnas", SINGLE)
    told = [(r.subject, r.latency_ms) for r in table.readings]
    assert told == [
        ("mbconv3_k3_s1_skip_56x56x24_24", 3.5),
        ("mbconv6_k3_s1_skip_56x56x24_24", 6.25),
        ("mbconv3_k3_s1_skip_56x56x24_24", 3.25),  # an equal layer, read again
    ]
    assert [s.row for s in table.skipped] == ["layer 0, choice 0"]


def test_edge_rows() -> None:
    (table,) = parse("edge", EDGE)
    assert times(table) == {
        str(zoo.network("mnasnet-b1")): pytest.approx(150.0005),
        "mobilenet-v2-plain": 1.0,
    }
    assert [r.kind for r in table.readings] == ["network", "onnx"]
    assert table.readings[0].telemetry["std_ms"] == 0.25
    assert reasons(table) == {
        "a network that the zoo does not know by this name": 1,
        "its count of FLOPS is another network's": 1,
    }
    c = table.conditions
    assert (c.model, c.runtime, c.runtime_version, c.provider) == (
        "Pixel 4",
        "tflite",
        "2.10",
        "cpu",
    )
    assert (c.threads, c.cores, c.precision, c.origin) == (1, "1large", "float32", "imported")


def test_edge_settings() -> None:
    source = Source.of("e2e.csv", EDGE)
    table = edge_networks(source, "phone", setting="pixel4|1large|float")
    assert times(table) == times(*parse("edge", EDGE))
    assert table.conditions == parse("edge", EDGE)[0].conditions
    quantised = edge_networks(source, "phone", setting="s10|2large1med|quant").conditions
    assert (quantised.precision, quantised.threads, quantised.cores) == ("int8", 3, "2large1med")
    gpu = Source.of("e2e.csv", EDGE.replace(b"pixel4|1large", b"pixel4|gpu"))
    at = edge_networks(gpu, "phone", setting="pixel4|gpu|float").conditions
    assert (at.provider, at.precision, at.threads) == ("gpu", "float16", 0)
    text = EDGE.replace(b"FLOPS,", b"count,")
    third = edge_networks(Source.of("edge_ncnn_cnn_e2e.csv", text), "p", setting=SETTING)
    assert (third.conditions.runtime, third.conditions.runtime_version) == ("ncnn", "unknown")
    assert len(third.readings) == 3  # without a count of FLOPS there is nothing to compare
    for wrong in (None, "pixel4|gpu|float", COLUMN, "model", "pixel4|1large|float|std"):
        with pytest.raises(InvalidArgument, match="--setting: one of the 2 of e2e.csv"):
            edge_networks(source, "phone", setting=wrong)


def test_edge_columns() -> None:
    source = Source.of("e2e.csv", EDGE)
    table = edge(source, "phone", column="s10|2large1med|quant|mean")
    assert (table.conditions.threads, table.conditions.model) == (3, "Galaxy S10")
    assert "not measured in this column" in reasons(table)
    for wrong in (None, "", "pixel4|gpu|float|mean", "pixel4|1large|float|std", "model"):
        with pytest.raises(InvalidArgument, match="one of the 2 of e2e.csv"):
            edge(source, "phone", column=wrong)


def test_bare_operations_are_none_of_our_operators() -> None:
    text = b"model,operation,feature,pixel4|gpu|float\nx,CONV_2D,\"{'Kernel': '1'}\",320.4\n"
    table = edge(Source.of("ops.csv", text), "phone")
    assert not table.readings and len(table.skipped) == 1
    # There is nothing to choose, so a choice is no slip to pass over.
    source = Source.of("ops.csv", text)
    for read, option in ((edge, "--column"), (edge_networks, "--setting")):
        with pytest.raises(InvalidArgument, match=f"^{option}: ops.csv is a table of single oper"):
            read(source, "phone", None, "pixel4|gpu|float|mean")


def test_plain_rows() -> None:
    tables = parse("csv", PLAIN)
    assert [t.conditions.mode for t in tables] == ["steady", "first"]
    steady = tables[0]
    assert times(steady) == {
        "mbconv6_k5_s2_se20_14x14x80_112": 1.5,
        str(zoo.network("mnasnet-b1")): 30.25,
    }
    assert steady.readings[0].at == "2026-03-02T08:00:00+00:00"
    assert steady.readings[0].telemetry == {"line": 2, "std_ms": 0.1, "runs": 50}
    c = steady.conditions
    assert (c.model, c.runtime, c.threads, c.governor) == ("Pixel 6", "litert", 1, "unknown")
    assert "" not in c.to_dict().values()


@pytest.mark.parametrize("form", READERS)
def test_conditions_have_no_empty_field_and_follow_the_bytes(form: str) -> None:
    one = parse(form, VALID[form])[0].conditions
    assert one.origin == "imported" and one.device == "phone"
    assert all(v != "" for v in one.to_dict().values())
    assert READERS[form](Source.of("another name", VALID[form]))[0].conditions == one
    assert parse(form, VALID[form] + b"\n")[0].conditions.digest != one.digest


# -- what is not a table ---------------------------------------------------------------------------

NAME = b"Conv-input:224x224x3-output:112x112x32"
WRONG = [
    ("proxylessnas", NAME + b":\n  mean: -1\n", 2, "a number of 0 or more"),
    ("proxylessnas", NAME + b":\n  mean: 0\n", 2, "above 0"),
    ("proxylessnas", NAME + b":\n  mean: .nan\n", 2, "a number"),
    ("proxylessnas", NAME + b":\n  mean: 1e999\n", 2, "a number"),
    ("proxylessnas", NAME + b":\n  mean: 1e-9\n", 2, "above 0"),
    ("proxylessnas", NAME + b":\n  mean: " + b"9" * 5000 + b"\n", 2, "a number"),
    ("proxylessnas", NAME + b":\n  mean: '4'\n", 2, "got the text"),
    ("proxylessnas", NAME + b":\n  mean: 0x10\n", 2, "a number"),
    ("proxylessnas", NAME + b":\n  count: 1\n", 1, "no field 'mean'"),
    ("proxylessnas", NAME + b":\n  mean: 1\n  mean: 2\n", 3, "stands twice"),
    ("proxylessnas", NAME + b":\n  mean: 1\n" + NAME + b":\n  mean: 2\n", 3, "twice, in line 1"),
    ("proxylessnas", NAME + b": !!python/object/apply:os.system ['x']\n", 1, "tag"),
    ("proxylessnas", NAME + b":\n  mean: !!float 1\n", 2, "tag"),
    ("proxylessnas", b"a: &a\n  mean: 1\nb: *a\n", 1, "anchors and aliases"),
    ("proxylessnas", b"<<: *a\n", 1, "aliases"),
    ("proxylessnas", NAME + b":\n  mean:\n    deep: 1\n", 3, "expected a mapping"),
    ("proxylessnas", b"- 1\n", 1, "expected a mapping"),
    ("proxylessnas", b"", 1, "expected a mapping"),
    ("proxylessnas", NAME + b":\n  mean: 1\n---\na: 1\n", 3, "expected a mapping"),
    ("proxylessnas", b"x: {\n", 2, "not valid YAML"),
    ("proxylessnas", NAME + b":\n  mean: \x00\n", 2, "does not allow"),
    ("proxylessnas", b'"\\UFFFFFFFF": 1\n', 1, "not valid YAML"),
    ("proxylessnas", b"a\xff", 1, "not UTF-8"),
    ("proxylessnas", b"hello:\n  mean: 1\n", 1, "a layer as"),
    ("proxylessnas", OFA, 5, "an expanded_conv ends"),
    ("ofa", PROXYLESS, 9, "an expanded_conv ends"),
    ("singlepathnas", b'{"22": {"0": 1}}', 1, "0 to 21"),
    ("singlepathnas", b'{"1": {"4": 1}}', 1, "a choice"),
    ("singlepathnas", b'{"1": {"1": NaN}}', 1, "a number"),
    ("singlepathnas", b'{"1":\n {"1": "4"}}', 2, "got the text"),
    ("singlepathnas", b"[" * 100_000, 1, "expected a mapping"),
    ("singlepathnas", b'{"1": ' * 100_000, 1, "expected a mapping"),
    ("edge", b"", 1, "lacks model"),
    ("edge", EDGE.replace(b"150000.5", b"-3"), 2, "a number of 0 or more"),
    ("edge", EDGE.replace(b"628895464", b"x"), 2, "FLOPS"),
    ("edge", EDGE.replace(b",9,9,9", b",9,9"), 5, "5 cells under 6"),
    ("edge", EDGE.replace(b",size", b",model"), 1, "'model' twice"),
    ("csv", b"kind,subject\n", 1, "lacks latency_ms"),
    ("csv", PLAIN.replace(b"threads", b"thread"), 1, "Did you mean 'threads'"),
    ("csv", PLAIN.replace(b"30.25", b"inf"), 3, "a number"),
    ("csv", PLAIN.replace(b"operator,", b"layer,"), 2, "operator or network"),
    ("csv", PLAIN.replace(b"mbconv6_k5_s2", b"mbconv6_k5_s3"), 2, "not an operator's key"),
    ("csv", PLAIN.replace(b"14x14x80", b"9999x9999x80"), 2, "larger than 2048 px"),
    ("csv", PLAIN.replace(b"14x14x80", b"14x14x" + b"9" * 5000), 2, "so long a name"),
    ("csv", PLAIN.replace(b"mnasnet-b1", b"mnasnet-b7"), 3, "Did you mean 'mnasnet-b1'"),
    ("csv", PLAIN.replace(b",first", b","), 4, "stands twice, in line 3"),
    ("csv", PLAIN.replace(b"2026-03-02,", b"02.03.26,"), 3, "a date"),
    ("csv", PLAIN.replace(b"2026-03-02,", b"0001-01-01T00:00+23:00,"), 3, "a date"),
    ("csv", PLAIN.replace(b",50,", b",5.5,"), 2, "a whole number"),
    ("csv", PLAIN.replace(b"litert,1,first", b"litert,1,last"), 4, "steady or first"),
    ("csv", PLAIN.replace(b"Pixel 6", b"Pixel \x1b[31m"), 2, "printable"),
    ("csv", PLAIN.replace(b"Pixel 6", b'"Pix'), 3, "not valid CSV"),
]


@pytest.mark.parametrize(("form", "content", "line", "words"), WRONG, ids=range(len(WRONG)))
def test_what_is_no_table_is_told_by_its_line(
    form: str, content: bytes, line: int, words: str
) -> None:
    started = time.process_time()
    with pytest.raises(UnsupportedFormat) as told:
        parse(form, content)
    assert time.process_time() - started < 5
    message = str(told.value)
    assert f"table.txt, line {line}: " in message and words in message, message
    assert message.isprintable() and len(message) < 1000


def test_files_that_are_none(tmp_path: Path) -> None:
    def read(path: Path, form: str = "proxylessnas", **more: Any) -> None:
        importers.read(form, path, **{"device": "phone", **more})

    for absent in (tmp_path, tmp_path / "absent", Path("a\0b")):
        with pytest.raises((InvalidArgument, StoreError)):
            read(absent)
    large = tmp_path / "large.yaml"
    with large.open("wb") as file:
        file.truncate(5 * 2**20)
    with pytest.raises(UnsupportedFormat, match="larger than 4 MiB"):
        read(large)
    with large.open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(UnsupportedFormat, match="larger than 64 MiB"):
        read(large, "csv")
    fine = tmp_path / "fine.yaml"
    fine.write_bytes(PROXYLESS)
    with pytest.raises(UnknownName, match="Did you mean 'proxylessnas'"):
        read(fine, "proxylesnas")
    for wrong in ({"device": ""}, {"device": "a\nb"}, {"model": "x" * 101}, {"column": "a"}):
        with pytest.raises(InvalidArgument):
            read(fine, **wrong)


def test_a_tag_is_never_acted_on(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for tag in (
        f"!!python/object/apply:os.mkdir ['{mark}']",
        f"!!python/object/new:os.mkdir ['{mark}']",
        f"!<tag:yaml.org,2002:python/object/apply:os.mkdir> ['{mark}']",
    ):
        for text in (tag, f"a: {tag}", f"a:\n  mean: {tag}", f"? {tag}\n: 1"):
            for form in ("proxylessnas", "ofa", "singlepathnas"):
                with pytest.raises(UnsupportedFormat, match="tag|expected"):
                    parse(form, text.encode())
    assert not mark.exists()


def test_long_files_take_bounded_time() -> None:
    started = time.process_time()
    for content in (
        b"a" * 10**6,
        b'"' + b"a" * 10**6,
        b"{" * 10**6,
        b"? " * 10**5,
        b"- " * 10**5,
        b"a: b: " * 10**5,
        b"# \n" * 10**5,
    ):
        with pytest.raises(UnsupportedFormat):
            parse("ofa", content)
    assert time.process_time() - started < 60


# -- into the store -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", READERS)
def test_what_is_imported_twice_stands_once(form: str, tmp_path: Path) -> None:
    tables = parse(form, VALID[form])
    with data.MeasurementStore(tmp_path / "store.db") as store:
        first = importers.import_tables(tables, store)
        counts = [store.count(t.conditions) for t in tables]
        assert [d.imported for d in first] == counts and not any(d.already for d in first)
        again = importers.import_tables(parse(form, VALID[form]), store)
        assert [d.already for d in again] == counts and not any(d.imported for d in again)
        assert [store.count(t.conditions) for t in tables] == counts
        for table in tables:
            for m in store.measurements(table.conditions):
                wanted = [r.latency_ms for r in table.readings if r.subject == m.subject]
                assert [r.samples_ms for r in m.rounds] == [(round(w, 6),) for w in wanted]
                assert m.sentinel_ms is None


def test_an_import_that_was_stopped_goes_on(tmp_path: Path) -> None:
    (table,) = parse("singlepathnas", SINGLE)
    with data.MeasurementStore(tmp_path / "store.db") as store:
        subjects = list(dict.fromkeys(r.subject for r in table.readings))
        store.pending(table.conditions, "operator", subjects)  # begun, and killed here
        (done,) = importers.import_tables([table], store)
        assert done.imported == len(subjects)
        assert [len(m.rounds) for m in store.measurements(table.conditions)] == [2, 1]


def test_two_tables_are_never_mixed(tmp_path: Path) -> None:
    with data.MeasurementStore(tmp_path / "store.db") as store:
        for content in (PROXYLESS, PROXYLESS.replace(b"mean: 4.0", b"mean: 5.0")):
            importers.import_tables(parse("proxylessnas", content), store)
        known = store.conditions("phone")
        assert len(known) == 2
        stems = [store.measurements(c)[0].latency_ms for c in known]
        assert sorted(stems) == [4.0, 5.0]


def test_what_is_exported_comes_back(profiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    with data.MeasurementStore(profiled) as store:
        data.export(store, out)
        (conditions,) = store.conditions("fake")
        before = {(m.kind, m.subject): m.latency_ms for m in store.measurements(conditions)}
    (table,) = importers.read("csv", out, "fake")
    assert not table.skipped
    assert table.conditions.model == conditions.model
    assert table.conditions.governor == "none" and table.conditions.origin == "imported"
    assert table.conditions.statistic == "value of the samples"
    after = {(r.kind, r.subject): r.latency_ms for r in table.readings}
    assert after == pytest.approx(before, abs=1e-6)
    (other,) = importers.read("csv", out, "pixel6")
    assert not other.readings and set(reasons(other)) == {"of the device 'fake'"}


def test_of_an_older_releases_export_the_clocks_time_is_taken() -> None:
    text = (
        b"kind,subject,latency_ms,raw_ms,reference_ms\n"
        b"network,mnasnet-b1,2,2.5,0.5\nnetwork,mnasnet-a1,3,3.25,\n"
    )
    (table,) = parse("csv", text)
    b1, a1 = (str(zoo.network(n)) for n in ("mnasnet-b1", "mnasnet-a1"))
    assert times(table) == {b1: 2.5, a1: 3.0}  # without a reference nothing was divided


def test_simulated_and_emulated_numbers_and_earlier_series_do_not_come_in() -> None:
    text = (
        b"kind,subject,latency_ms,series,origin\n"
        b"network,mnasnet-b1,2,1,measured\nnetwork,mnasnet-b1,1,0,measured\n"
        b"network,mnasnet-a1,1,0,simulated\nnetwork,mnasnet-small,1,0,emulated\n"
    )
    (table,) = parse("csv", text)
    assert times(table) == {str(zoo.network("mnasnet-b1")): 2.0}
    assert reasons(table) == {
        "an earlier series of its subject": 1,
        "simulated: no device was measured": 1,
        "emulated: no device was measured": 1,
    }


@pytest.mark.parametrize("origin", ["simulated", "emulated"])
def test_an_export_of_what_no_device_measured_does_not_come_back(
    tmp_path: Path, origin: str
) -> None:
    out = tmp_path / "out.csv"
    with data.MeasurementStore(tmp_path / "s.db") as store:
        made = data.Conditions(
            *("lab", "m", "f", "ort", "1.0", "abc", "CPU", "all", 1, "big", "none"),
            origin=origin,  # type: ignore[arg-type]
        )
        name = str(zoo.network("mnasnet-b1"))
        pending = store.pending(made, "network", [name])[name]
        store.add_rounds([(pending.id, 0, data.Round((1.0,), at="2026-01-01"))])
        store.complete([pending.id])
        data.export(store, out)
    (table,) = importers.read("csv", out, "lab")
    assert not table.readings
    assert reasons(table) == {f"{origin}: no device was measured": 1}


def test_a_table_imported_by_a_release_of_before_is_not_imported_twice(tmp_path: Path) -> None:
    text = b"kind,subject,latency_ms\nnetwork,mnasnet-b1,2.0\n"
    (table,) = parse("csv", text)
    said = table.conditions.statistic
    assert said != "samples"
    older = replace(table, conditions=replace(table.conditions, statistic="samples"))
    with data.MeasurementStore(tmp_path / "s.db") as store:
        # What the importer writes today, as a release that did not say the statistic wrote it.
        pending = store.pending(older.conditions, "network", [table.readings[0].subject])
        id = next(iter(pending.values())).id
        store.add_rounds([(id, 0, data.Round((2.0,), at="2026-01-01"))])
        store.complete([id])
        (done,) = importers.import_tables([table], store)
        assert (done.imported, done.already) == (0, 1)
        assert store.conditions(table.conditions.device) == [older.conditions]


def test_holes() -> None:
    mnas = space.get("mnasnet", 224)
    keys = [o.key for o in zoo.network("mnasnet-b1").operators()]
    found = importers.coverage(mnas, [*keys, "no operator"])
    assert found.covered + found.missing == len(mnas.operators())
    assert found.networks == ("mnasnet-b1",) and len(found.examples) == 5
    assert not set(found.examples) & set(keys)
    none = importers.coverage(mnas, [])
    assert none.covered == 0 and none.networks == ()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, db = tmp_path / "table.yaml", str(tmp_path / "store.db")
    path.write_bytes(OFA)
    other = tmp_path / "other.yaml"
    other.write_bytes(OFA + b"\n")
    tables.import_("ofa", [path, other], device="note10", db=db, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["imported"], told["already"], told["skipped"]) == (10, 0, 2)
    assert [r["count"] for r in told["reasons"]] == [2]
    assert [t["rows"] for t in told["tables"]] == [5, 5]
    assert told["holes"]["space"] == "mnasnet" and told["holes"]["resolution_px"] == 160
    assert told["tables"][0]["digest"] != told["tables"][1]["digest"]
    tables.import_("ofa", [path], device="note10", model="Note 10", db=db, quiet=True)
    assert "5 subjects imported" in capsys.readouterr().out
    tables.import_("ofa", [path], device="note10", db=db)
    out = capsys.readouterr().out
    assert "0 subjects imported for note10, 5 were in the store already, 1 row skipped" in out
    assert (
        "part of a head" in out
        and "5 of 6 rows" in out
        and "operators; missing, for example" in out
    )


def test_nothing_is_kept_where_one_of_several_files_is_wrong(tmp_path: Path) -> None:
    good, bad, db = tmp_path / "good.yaml", tmp_path / "bad.yaml", tmp_path / "store.db"
    good.write_bytes(OFA)
    bad.write_bytes(b"x: 1\n")
    with pytest.raises(UnsupportedFormat, match="bad.yaml, line 1"):
        tables.import_("ofa", [good, bad], device="note10", db=str(db))
    assert not db.exists()


# -- the published files ------------------------------------------------------------------------


@published
def test_the_pixel_1_table_of_proxylessnas() -> None:
    (table,) = importers.read("proxylessnas", SHARED / "proxylessnas_pixel1.yaml", "pixel1")
    ms = times(table)
    assert len(ms) == 71 and not table.skipped
    assert ms["stem_k3_s2_224x224x3_32"] == 4.083755600814664
    assert ms["mbconv3_k3_s2_112x112x16_24"] == 6.240567073170731
    assert ms["dsconv_k5_s1_112x112x32_16"] == 6.818763313609468
    assert ms["mbconv6_k7_s1_7x7x192_320"] == 5.8280783132530125
    assert ms["head1280_7x7x320_1000"] == pytest.approx(3.088623217922607 + 0.3096415478615071)
    # MnasNet-B1 is covered whole; its paper's authors measured 77 ms on this phone.
    b1 = zoo.network("mnasnet-b1")
    assert sum(ms[o.key] for o in b1.operators()) == pytest.approx(77, rel=0.1)
    assert importers.coverage(space.get("mnasnet", 224), ms).networks == (
        "mnasnet-b1",
        "single-path-nas",
    )
    assert (table.conditions.model, table.conditions.runtime) == ("Pixel 1", "tflite")


@published
@pytest.mark.parametrize("px", [160, 176, 192, 208, 224])
def test_the_note_10_tables_of_once_for_all(px: int) -> None:
    path = SHARED / "ofa_note10" / f"{px}_lookup_table.yaml"
    (table,) = importers.read("ofa", path, "note10")
    assert (table.rows, len(table.skipped), table.resolution_px) == (96, 0, px)
    found = importers.coverage(space.get("ofa-mbv3", px), times(table))
    assert (found.covered, found.missing, len(table.readings)) == (93, 0, 93)
    if px == 224:
        ms = times(table)
        assert ms["dsconv_k3_s1_skip_112x112x24_24"] == 1.7728020000000002
        assert ms["mbconv6_k3_s2_112x112x24_32"] == 4.812240740740741
        assert ms["stem_k3_s2_hswish_224x224x3_24"] == 0.994418
        head = 0.694356 + 0.015270707070707077 + 0.762458 + 0.669412
        assert ms["head1152_hiddenplain1536_hswish_7x7x192_1000"] == pytest.approx(head)
        assert "mbconv3_k5_s1_hse104_hswish_skip_14x14x136_136" in ms


@published
def test_the_pixel_1_table_of_single_path_nas() -> None:
    path = SHARED / "singlepathnas_pixel1.json"
    (table,) = importers.read("singlepathnas", path, "pixel1")
    assert (len(table.readings), len(times(table)), len(table.skipped)) == (80, 40, 8)
    of = [r.latency_ms for r in table.readings if r.subject == "mbconv6_k5_s2_14x14x96_192"]
    assert of == [3.5496999999999996]
    of = [r.latency_ms for r in table.readings if r.subject == "mbconv3_k3_s1_skip_56x56x24_24"]
    assert sorted(of) == [3.4111, 3.4216, 3.4223]


@published
@pytest.mark.parametrize("runtime", ["tflite", "torch"])
def test_the_networks_of_the_edge_benchmark_are_those_that_we_say(runtime: str) -> None:
    path = SHARED / f"edge_{runtime}_cnn_e2e.csv"
    (table,) = importers.read("edge-networks", path, "pixel4", setting=SETTING)
    assert len(table.readings) == {"tflite": 102, "torch": 100}[runtime] and not table.skipped
    assert table.conditions.runtime == {"tflite": "tflite", "torch": "pytorch-mobile"}[runtime]
    with path.open(newline="") as file:
        rows = {r["model"]: r for r in csv.DictReader(file)}
    for reading in table.readings:
        row = rows[reading.telemetry["row"]]
        network = zoo.parse(reading.subject)
        assert str(network) == reading.subject
        # Their sizes are of files, which hold some tables beside the weights.
        assert float(row["size"]) / 4 / network.params == pytest.approx(1, abs=0.03), row["model"]
        assert reading.latency_ms == pytest.approx(float(row[COLUMN]) / 1000)


@published
@pytest.mark.parametrize("runtime", ["tflite", "torch"])
def test_the_bare_operations_of_the_edge_benchmark_are_skipped(runtime: str) -> None:
    (table,) = importers.read("edge", SHARED / f"edge_{runtime}_cnn_ops_gpu.csv", "pixel4")
    assert not table.readings and len(table.skipped) > 5000 and len(reasons(table)) == 1


# -- anything at all ----------------------------------------------------------------------------

PIECES = [
    b"!!python/object/apply:os.system ['true']",
    b"!!python/name:os.system",
    b"!x",
    b"&a ",
    b"*a",
    b"<<: ",
    b".nan",
    b".inf",
    b"-1",
    b"0",
    b"1e999",
    b"9" * 5000,
    b"NaN",
    b"Infinity",
    b"null",
    b"../../etc/passwd",
    b"/dev/zero",
    b"{",
    b"}",
    b"[",
    b"]",
    b"[" * 60,
    b": ",
    b"? ",
    b"- ",
    b"\n",
    b"\r",
    b"\t",
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b'"',
    b"'",
    b'"\\UFFFFFFFF"',
    b'"\\uD800"',
    b"%YAML 9.9\n---\n",
    b"%TAG ! x\n",
    b"---\n",
    b"...\n",
    b"|\n",
    b">9\n",
    b"#",
    b",",
    b",,",
    b"=1+1",
    b"input:",
    b"-expand:99999",
    b"224x224x3",
    b"1" * 30,
    b"0x10",
    b"1_000",
    b"\xc2\xb2",
    b"\xd9\xa3",
]


@st.composite
def mutated(draw: st.DrawFn, valid: bytes) -> bytes:
    """A valid text with pieces put in, cut out and doubled."""
    text = valid
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        to = min(len(text), at + draw(st.integers(0, 30)))
        match draw(st.integers(0, 3)):
            case 0:
                text = text[:at] + draw(st.sampled_from(PIECES)) + text[at:]
            case 1:
                text = text[:at] + draw(st.sampled_from(PIECES)) + text[to:]
            case 2:
                text = text[:at] + text[to:]
            case _:
                text = text[:at] + text[at:to] + text[at:]
    return text


def data_or_a_house_error(form: str, content: bytes) -> bool:
    """Read it; whatever comes is sound. True if it was a table."""
    started = time.process_time()
    try:
        tables = parse(form, content)
    except PhonenasError as error:
        told = str(error)
        assert told.isprintable() and len(told) < 1500, told
        named = re.search(r"table\.txt, line [1-9]\d*: ", told)
        assert named or (form == "edge" and "--column" in told), told
        return False
    finally:
        assert time.process_time() - started < 5
    for table in tables:
        assert all(v != "" for v in table.conditions.to_dict().values())
        for reading in table.readings:
            assert 1e-6 <= reading.latency_ms <= 1e9
            if reading.kind == "operator":
                assert Operator.parse(reading.subject).key == reading.subject
            else:
                assert str(zoo.parse(reading.subject)) == reading.subject
            json.dumps(dict(reading.telemetry), allow_nan=False)
    return True


@pytest.mark.parametrize("form", READERS)
def test_arbitrary_bytes(form: str) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.one_of(
            st.binary(max_size=300),
            st.text(max_size=300).map(lambda t: t.encode("utf-8", "surrogatepass")),
        )
    )
    def check(content: bytes) -> None:
        data_or_a_house_error(form, content)

    check()


@pytest.mark.parametrize("form", READERS)
def test_mutated_tables(form: str) -> None:
    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(mutated(VALID[form]))
    def check(content: bytes) -> None:
        data_or_a_house_error(form, content)

    check()


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([o.key for o in zoo.network("mnasnet-a1").operators()]),
        st.floats(1e-3, 1e4),
        min_size=1,
    )
)
def test_a_plain_table_reads_as_it_was_written(ms: dict[str, float]) -> None:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["kind", "subject", "latency_ms"])
    writer.writerows(["operator", key, value] for key, value in ms.items())
    (table,) = parse("csv", out.getvalue().encode())
    assert times(table) == ms


def test_an_importer_by_module_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_importer.py").write_text(
        "from phonenas.data.importers import Reading, Table\n"
        "from phonenas.data.importers.table import conditions_of\n"
        "def one(source, device, model):\n"
        "    times = [Reading('network', 'r1', source.number(source.text.strip(), 1, 'it'))]\n"
        "    return Table(source.name, conditions_of(source, device), tuple(times))\n"
        "def wide(source, device, model, column=''):\n"
        "    return [one(source, device, model)] * len(column)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "t.txt").write_text("2.5\n")
    (table,) = importers.read("my_importer:one", tmp_path / "t.txt", "phone")
    assert [r.latency_ms for r in table.readings] == [2.5]
    assert table.conditions.device == "phone" and table.conditions.origin == "imported"
    assert len(importers.read("my_importer:wide", tmp_path / "t.txt", "p", column="ab")) == 2
    with pytest.raises(InvalidArgument, match="my_importer:one has none"):
        importers.read("my_importer:one", tmp_path / "t.txt", "p", column="ab")
    with pytest.raises(UnknownName, match="no format is called 'my_importer'. "):
        importers.read("my_importer", tmp_path / "t.txt", "p")
    assert importers.FORMATS.names() == [
        *("csv", "edge", "edge-networks", "ofa", "proxylessnas", "singlepathnas")
    ]
