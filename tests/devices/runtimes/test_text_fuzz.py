"""Whatever a device prints, each parser gives sound values or says which line it cannot read."""

from __future__ import annotations

import ast
import math
import re
import time
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phonenas.devices.runtimes.benchmark_text import parse_benchmark_model
from phonenas.devices.runtimes.perf_text import parse_perf_test, parse_perf_test_samples
from phonenas.devices.runtimes.timings import Printed
from phonenas.devices.system.android_text import (
    parse_battery,
    parse_devices,
    parse_getprop,
    parse_taskset,
    parse_thermalservice,
    plain,
)
from phonenas.devices.system.device_text import UnreadableOutput, lines_of, shown
from phonenas.devices.system.snapshot import Snapshot, parse_snapshot
from phonenas.devices.system.sysfs_text import (
    parse_capacities,
    parse_cores,
    parse_cpufreq,
    parse_cpuinfo,
    parse_loadavg,
    parse_stat,
    parse_zones,
)

RECORDED = {
    p.stem: p.read_bytes().decode("utf-8", errors="replace")
    for p in sorted((Path(__file__).parents[2] / "recorded").glob("*.txt"))
}
PROGRAMS: tuple[Callable[[str], Any], ...] = (
    parse_benchmark_model,
    parse_perf_test,
    parse_perf_test_samples,
)
PARSERS = (
    *PROGRAMS,
    parse_battery,
    parse_devices,
    parse_getprop,
    parse_taskset,
    parse_thermalservice,
    parse_capacities,
    parse_cores,
    parse_cpufreq,
    parse_cpuinfo,
    parse_loadavg,
    parse_stat,
    parse_zones,
    parse_snapshot,
)
# Equal on every run: a test that fails by chance tells nothing of the change that it is run for.
FUZZ = settings(max_examples=80, deadline=None, derandomize=True)

ODD = (
    "0",
    "-1",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "1e-400",
    "12,5",
    "",
    "0x1F",
    "1_000",
    "٣",
    "9" * 400,
)
CODES = (
    "\x00",
    "\x07",
    "\x1b[31m",
    "\x1b]0;",
    "\r",
    "\x0b",
    "\x85",
    "\u2028",
    "\u202e",
    "\ufffd",
    "\ud800",
)


def check_numbers(value: Any) -> None:
    """All numbers in a result are finite, whatever holds them."""
    if isinstance(value, float):
        assert math.isfinite(value)
    elif isinstance(value, dict):
        for key, held in value.items():
            check_numbers(key)
            check_numbers(held)
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            check_numbers(getattr(value, entry.name))
    elif isinstance(value, tuple | list):
        for held in value:
            check_numbers(held)


def check_printed(found: Printed) -> None:
    given_ms = [v for k, v in vars(found).items() if k.endswith("_ms") and v is not None]
    assert all(math.isfinite(ms) for ms in given_ms)
    assert all(ms > 0 for ms in given_ms if ms is not found.std_ms)
    assert found.std_ms is None or found.std_ms >= 0
    assert found.runs >= 1
    low, high = found.min_ms or 0.0, found.max_ms or math.inf
    for ms in (found.mean_ms, found.median_ms or found.mean_ms):
        assert low * 0.9999 <= ms <= high * 1.0001
    for word in (found.provider, found.fallback, *found.ignored_flags):
        assert word.isprintable()
        assert len(word) <= 400


def look_at(snapshot: Snapshot) -> None:
    """Everything that a snapshot can be asked."""
    assert snapshot.model
    assert snapshot.model.isprintable()
    assert re.fullmatch("[0-9a-f]{12}", snapshot.fingerprint)
    assert snapshot.governor.isprintable()
    assert snapshot.summary.isprintable()
    check_numbers(snapshot.telemetry())
    if snapshot.capacities:
        cores = snapshot.strongest(1)
        assert set(cores) <= set(snapshot.capacities)
        assert "core" in snapshot.core_class(cores)


def read(parse: Callable[[str], Any], text: str) -> Any:
    """The result, checked, or the error's message, checked; any other exception fails the test."""
    try:
        found = parse(text)
    except UnreadableOutput as error:
        message = str(error)
        assert message.isprintable()
        assert len(message) < 900
        assert ": expected " in message
        assert ", found " in message
        return message
    check_numbers(found)
    if isinstance(found, Printed):
        check_printed(found)
    if isinstance(found, Snapshot):
        look_at(found)
    return found


def quoted_line(message: str) -> str:
    """The line that a message shows, as it was; its beginning where it was cut."""
    match = re.search(r", found ('.*?[^\\]'|\".*?[^\\]\"|nothing)\. ", message)
    assert match is not None, message
    if match[1] == "nothing":
        return ""
    cut = re.sub(r"(\\(x.?|u.{0,3}|U.{0,7})?)?…(.)$", r"\3", match[1])
    return str(ast.literal_eval(cut))


WORDS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(ODD + CODES),
    st.sampled_from(
        [
            "count=",
            "avg=",
            "Inference timings in us: ",
            "INFO: ",
            "Runs:",
            "P50 Latency: ",
            " s",
            "\n",
            "List of devices attached",
            "\tdevice",
            "Thermal Status: ",
            "Temperature{mValue=",
            "}",
            "[a]: [",
            "]",
            "level: ",
            "policy0 ",
            "|",
            "cpu0 ",
            "== uname",
            "== end",
            "processor : ",
        ]
    ),
)


@FUZZ
@given(text=st.lists(WORDS, max_size=15).map("".join))
def test_arbitrary_text(text: str) -> None:
    for parse in PARSERS:
        read(parse, text)
    assert plain(text).isprintable()
    assert shown(text).isprintable()


@st.composite
def mutated(draw: st.DrawFn, names: list[str]) -> str:
    """A recorded text with lines lost, doubled or mixed, numbers replaced, control codes put in."""
    lines = RECORDED[draw(st.sampled_from(names))].split("\n")
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(lines) - 1, 0)))
        line = lines[at] if lines else ""
        how = draw(st.sampled_from(["lose", "double", "cut", "number", "number", "code", "mix"]))
        if how == "lose":
            del lines[at : at + 1]
        elif how == "double":
            lines.insert(at, line)
        elif how == "cut":
            lines = [*lines[:at], line[: draw(st.integers(0, 80))]]
        elif how == "number":
            found = list(re.finditer(r"[0-9][0-9.e+]*", line))
            if found:
                hit = found[draw(st.integers(0, len(found) - 1))]
                odd = draw(st.sampled_from(ODD))
                lines[at] = line[: hit.start()] + odd + line[hit.end() :]
        elif how == "code":
            place = draw(st.integers(0, len(line)))
            lines[at : at + 1] = [line[:place] + draw(st.sampled_from(CODES)) + line[place:]]
        else:
            other = RECORDED[draw(st.sampled_from(names))].split("\n")
            lines.insert(at, draw(st.sampled_from(other)))
    return "\n".join(lines)


REPORTS = [
    n for n in RECORDED if n.startswith(("tflite", "litert", "ort", "bad_tflite", "bad_ort"))
]


@settings(FUZZ, max_examples=300)
@given(text=mutated(REPORTS))
def test_mutated_reports_are_sound_or_show_their_line(text: str) -> None:
    for parse in PROGRAMS:
        told = read(parse, text)
        if isinstance(told, str):
            line = quoted_line(told)
            assert line in text or any(line in x for x in lines_of(text))


@pytest.mark.parametrize(
    ("name", "parse", "told"),
    [
        (
            "tflite_2025_termux_xnnpack",
            parse_benchmark_model,
            r"(?:first|curr|min|max|avg|median)=%s",
        ),
        ("tflite_2025_termux_xnnpack", parse_benchmark_model, r"(?:Init|Inference \(avg\)): %s"),
        ("tflite_2019_am57xx", parse_benchmark_model, r"(?:avg=|Init: |no stats: )%s"),
        (
            "litert_2025_block_only",
            parse_benchmark_model,
            r"(?:ation|\(first\)|Inference \(\w+\)): +%s ms",
        ),
        ("ort_2025_phone_sme2", parse_perf_test, r"(?:(?:cost|cost total|Latency|time): )%s m?s"),
        ("ort_2020_windows", parse_perf_test, r"(?:cost|time):%s m?s"),
        ("ort_samples_file", parse_perf_test_samples, r"tmp,%s,"),
    ],
)
def test_no_time_that_is_read_may_be_odd(name: str, parse: Callable[[str], Any], told: str) -> None:
    text = RECORDED[name]
    found = list(re.finditer(told.replace("%s", r"([0-9][0-9.e+]*)"), text))
    assert found
    for match in found:
        line = text[: match.start(1)].split("\n")[-1]
        for odd in ODD:
            if line.startswith(("P9", "First")) and (odd == "0" or line[0] == "P"):
                continue  # not read; in whole ms, rounded down
            with pytest.raises(UnreadableOutput):
                parse(text[: match.start(1)] + odd + text[match.end(1) :])


@settings(FUZZ, max_examples=200)
@given(text=mutated([n for n in RECORDED if n not in REPORTS]))
def test_mutated_texts_of_other_tools(text: str) -> None:
    for parse in PARSERS:
        read(parse, text)


@FUZZ
@given(
    base=st.lists(st.integers(10, 10**7), min_size=3, max_size=3).map(sorted),
    factor=st.integers(1, 10**5),
    summary=st.sampled_from(["new", "old", "litert"]),
)
def test_benchmark_model_counts_microseconds(base: list[int], factor: int, summary: str) -> None:
    def text(k: int) -> str:
        low, mean, high = (x * k for x in base)
        end = {
            "new": f"Inference timings in us: Init: {7 * k}, First inference: {high}, "
            f"Warmup (avg): {mean}, Inference (avg): {mean}",
            "old": f"Average inference timings in us: Warmup: {mean}, Init: {7 * k}, "
            f"no stats: {mean}",
            "litert": f"INFO: [a.h:1] Model initialization: {7 * k / 1000:.2f} ms\n"
            f"INFO: [a.h:2] Inference (avg):      {mean / 1000:.2f} ms (9 runs)",
        }[summary]
        warm = f"count=2 first={high} curr={low} min={low} max={high} avg={mean} std={k}"
        return (
            f"STARTING!\nInitialized session in {7 * k / 1000}ms.\n{warm}\n\ncount=9 first={mean} "
            f"curr={mean} min={low} max={high} avg={mean} std={k} p5={low} median={mean} "
            f"p95={high}\n\n{end}\n"
        )

    one, many = parse_benchmark_model(text(1)), parse_benchmark_model(text(factor))
    assert one.mean_ms == base[1] / 1000
    for name in ("mean_ms", "median_ms", "min_ms", "max_ms", "std_ms", "first_ms", "init_ms"):
        assert getattr(many, name) == pytest.approx(getattr(one, name) * factor, rel=1e-12)
    assert many.runs == one.runs == 9


@FUZZ
@given(
    base=st.lists(st.integers(1, 10**6), min_size=3, max_size=3).map(sorted),
    factor=st.integers(1, 10**4),
    total=st.sampled_from(["", " total"]),
)
def test_perf_test_mixes_seconds_and_milliseconds(base: list[int], factor: int, total: str) -> None:
    def text(k: int) -> str:
        low, mean, high = (x * k for x in base)  # µs
        return (
            f"Session creation time cost: {mean / 1e6} s\nFirst inference time cost: {5 * k} ms\n"
            f"Total inference time cost: {4 * mean / 1e6} s\nTotal inference requests: 4\n"
            f"Average inference time cost{total}: {mean / 1e3} ms\n"
            f"Total inference run time: {5 * mean / 1e6} s\nRuns:4\nMin Latency: {low / 1e6} s\n"
            f"Max Latency: {high / 1e6} s\nP50 Latency: {mean / 1e6} s\n"
        )

    one, many = parse_perf_test(text(1)), parse_perf_test(text(factor))
    assert one.mean_ms == base[1] / 1e3
    assert one.median_ms == pytest.approx(one.mean_ms, rel=1e-12)
    assert one.min_ms == pytest.approx(base[0] / 1e3, rel=1e-12)
    assert one.first_ms == 5
    for name in ("mean_ms", "median_ms", "min_ms", "max_ms", "first_ms", "init_ms"):
        assert getattr(many, name) == pytest.approx(getattr(one, name) * factor, rel=1e-9)


@pytest.mark.parametrize(
    "text",
    [
        "count=" + "1" * 100_000,
        "count=1 " + "a=1 " * 50_000,
        "Inference timings in us: Init: " + "1" * 100_000,
        "Average inference time cost: " + "9" * 100_000 + " ms",
        "List of devices attached\nserial" + " " * 100_000 + "x" * 100_000,
        "List of devices attached\n" + "a " * 50_000,
        "Thermal Status: 0\nTemperature{mValue=1, mType=1, mName=" + ", mStatus=" * 30_000,
        "[a]: [" * 50_000 + "\n" * 50_000,
        "\x1b[" * 50_000 + "\x1b]" + "0" * 100_000,
        "level: " + " " * 100_000 + "5",
        "policy0 " + "0 " * 50_000 + "||||",
        "0-1023,0-1023," * 20_000,
        "a" * 100_000 + ": line 1: 1 Killed",
        "Though " + "x" * 100_000,
        "processor : 0\n" * 5_000,
        "the remaining " * 30_000,
        "== uname\n" + "== " * 30_000,
    ],
    ids=lambda text: re.sub(r"\W+", "-", text[:24]).strip("-"),
)
def test_long_lines_take_no_long_time(text: str) -> None:
    begin = time.process_time()
    for parse in PARSERS:
        read(parse, text)
    plain(text)
    assert time.process_time() - begin < 5.0
