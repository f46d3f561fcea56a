"""The text of TensorFlow Lite's and LiteRT's `benchmark_model`, of 2018 to today.

Source: `OutputToStream` of tensorflow/core/util/stats_calculator.h and its successor
xla/tsl/util/stats_calculator.h, whose .cc prints the table of nodes; benchmark_model.cc and
benchmark_tflite_model.cc of tensorflow/lite/tools/benchmark; profile_summarizer.cc and
profile_summary_formatter.cc of tensorflow/lite/profiling; litert/tools/benchmark_litert_model.h of
LiteRT.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from phonenas.data.measurement import MOST_MS

from ..system.device_text import NUMBER, check_crash, lines_of, no_report, plain, unreadable
from .timings import COUNT, Printed, agree, first_match, ordered, time_ms

__all__ = ["ProfiledNode", "parse_benchmark_model", "parse_profile"]

_PROGRAM = "benchmark_model"
_PREFIX = re.compile(
    r"(?:[0-9-]{5,10} [0-9:.]{8,18} +[0-9]{1,9} +[0-9]{1,9} )?"  # logcat: time, process, thread
    r"(?:(?P<letter>[VDIWEF])[ /](?:tflite|litert)[^:]{0,20}: )?"
    r"(?:(?P<level>VERBOSE|INFO|WARN|WARNING|ERROR|FATAL): )?"
    r"(?:\[[^\]]{0,200}:[0-9]{1,6}\] ?)?"  # LiteRT: source file and line
)
_SUMMARY = re.compile(
    rf"Inference timings in us: Init: (?P<init>{NUMBER}), First inference: (?P<first>{NUMBER}), "
    rf"Warmup \(avg\): {NUMBER}, Inference \(avg\): (?P<mean>{NUMBER})"
)
_OLD_SUMMARY = re.compile(  # before 2020
    rf"Average inference timings in us: Warmup: {NUMBER}, Init: (?P<init>{NUMBER}), "
    rf"(?:no stats|Inference): (?P<mean>{NUMBER})(?P<first>)"
)
_LITERT_NAME = re.compile(r"Model initialization|Warmup \(first\)|Inference \((?:avg|min|max)\)")
_LITERT = re.compile(rf"[^:]+: +({NUMBER}) ms(?: \(({COUNT}) runs\))?")
_MODEL_MB = re.compile(  # MiB; "Peak" of old ones is a difference, too
    r"(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\): "
    rf"init={NUMBER} overall=({NUMBER})|Overall footprint: +({NUMBER}) MB"
)
_PEAK_MB = re.compile(rf"Overall peak memory footprint \(MB\) via periodic monitoring: ({NUMBER})")
_LITERT_MS = 0.005 + 1e-9  # it rounds to 0.01 ms
_SESSION = re.compile(rf"Initialized session in ({NUMBER})ms\.?")
_OWN = re.compile(r"STARTING!|Log parameter values|Loaded model |count=|Running benchmark for")
_FAILED = re.compile(
    r"^Failed to |^Benchmarking failed|^Disallowed CPU fallback|^Please specify the name of|"
    r"^No inference runs|failed to prepare\.|[Uu]nresolved custom op"
)
_APPLIED = re.compile(
    r"^(?:Explicitly a|A)pplied (\S{1,80}) delegate, and the model graph will be (complet|partial)"
)
_DECLINED = re.compile(r"^Though (\S{1,80}) delegate is explicitly applied, ")
_REPLACED = re.compile(
    r"Replacing ([0-9]{1,9})(?: out of ([0-9]{1,9}))? node\(s\) with delegate \(([^()]{1,80})\)"
)
_PARTLY = re.compile(
    r"^Though \S+ delegate is explicitly applied|graph will be partially|^Failed to apply|"
    r"\bis unsupported on this platform|\b[Ff]all(?:s|ing)?[ -]?back\b|"
    r"the remaining [1-9][0-9]* (?:operations will run )?on the CPU|"
    r"Failed to create a dispatch delegate kernel"
)
_OF_RUNS = re.compile(r"Operator-wise Profiling Info for Regular Benchmark Runs:")
_IN_ORDER = re.compile(r"=+ Run Order =+")
_OTHER_TABLE = re.compile(r"=+ [^=]{1,60} =+")
_COLUMNS = {"type": "[node type]", "ms": "[avg ms]", "calls": "[times called]", "name": "[Name]"}
_NODE = re.compile(r"\[.{0,100000}\]:(?P<number>[0-9]{1,9})")  # [its outputs]:number
_INTERNAL = "Delegate/"
_DELEGATE_NODE = re.compile(r"(?i)delegate")
_KINDS = (  # our names of delegates, and how they print theirs
    ("XNNPACK", re.compile(r"xnnpack", re.I)),
    ("GPU", re.compile(r"gpu|litert_(?:cl|opengl|webgpu|metal|vulkan)", re.I)),
    ("NNAPI", re.compile(r"nnapi", re.I)),
    ("NPU", re.compile(r"dispatch|npu", re.I)),
)


class ProfiledNode(NamedTuple):
    """One row of the program's profile.

    Args:
        name: The node's number in the file and its operation; of a delegate's own node the
            delegate's word for it.
        op: Its operation.
        provider: What ran it: "CPU" for TFLite's own kernels, else the delegate.
        ms: Mean of its time in a run, ≥ 0.
    """

    name: str
    op: str
    provider: str
    ms: float


class _Stat(NamedTuple):
    """One `count=` line, in ms."""

    line: str
    runs: int
    first: float
    low: float
    high: float
    mean: float
    std: float
    median: float | None


@dataclass
class _Lines:
    """The lines, sorted by what they report."""

    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stats: list[_Stat] = field(default_factory=list)
    summaries: list[re.Match[str]] = field(default_factory=list)
    litert: dict[str, re.Match[str]] = field(default_factory=dict)


def _stat(line: str) -> _Stat:
    """`count=50 first=… curr=… min=… max=… avg=… std=… p5=… median=… p95=…`, in µs.

    If all runs took the same time only `count=3 curr=69(all same)`; for no run `count=0`.
    """
    fields: dict[str, str] = {}
    for word in line.replace("(all same)", "").split(" "):
        key, mark, value = word.partition("=")
        if key in fields or not mark or not re.fullmatch(NUMBER, value):
            raise unreadable(_PROGRAM, "statistics in µs, each once, as name=number", line)
        fields[key] = value
    if not re.fullmatch(COUNT, fields.get("count", "")):
        raise unreadable(_PROGRAM, "a whole number of runs", line)
    count = int(fields["count"])
    if count == 0:
        return _Stat(line, 0, 0, 0, 0, 0, 0, None)
    names = ["first", "curr", "min", "max", "avg", "std"]
    if not any(n in fields for n in names if n != "curr"):
        fields |= dict.fromkeys(names[:-1], fields.get("curr", "nan")) | {"std": "0"}
    if lacking := [n for n in names if n not in fields]:
        raise unreadable(_PROGRAM, f"statistics with {lacking[0]}=", line)
    first, last, low, high, mean = (time_ms(_PROGRAM, line, fields[n], "us") for n in names[:-1])
    median = time_ms(_PROGRAM, line, fields["median"], "us") if "median" in fields else None
    std = float(fields["std"]) / 1e3
    if not (math.isfinite(std) and std >= 0):
        raise unreadable(_PROGRAM, "a finite deviation of at least 0", line)
    ordered(_PROGRAM, line, low, high, (first, last, mean, median))
    return _Stat(line, count, first, low, high, mean, std, median)


def _sort(raw: Sequence[str]) -> _Lines:
    report = _Lines()
    for whole in raw:
        prefix = _PREFIX.match(whole)
        assert prefix is not None  # it also matches ""
        line = whole[prefix.end() :]
        report.lines.append(line)
        error = prefix["level"] in ("ERROR", "FATAL") or prefix["letter"] in ("E", "F")
        if error:
            report.errors.append(line)
        if error or _FAILED.search(line):
            report.failures.append(line)
        if line.startswith("count="):
            report.stats.append(_stat(line))
        elif line.startswith(("Inference timings in", "Average inference timings in")):
            match = _SUMMARY.fullmatch(line) or _OLD_SUMMARY.fullmatch(line)
            if match is None:
                raise unreadable(_PROGRAM, "timings in us, with Init and Inference", line)
            report.summaries.append(match)
        elif name := _LITERT_NAME.match(line):
            match = _LITERT.fullmatch(line)
            if match is None or name[0] in report.litert:
                raise unreadable(_PROGRAM, f"one line '{name[0]}: … ms'", line)
            report.litert[name[0]] = match
    return report


def parse_benchmark_model(text: str) -> Printed:
    """Read all that TensorFlow Lite's or LiteRT's `benchmark_model` printed, on both streams.

    The statistics are those of the last line that starts with `count=`; the one before it is the
    warm-up's. (The operator profile's `Timings (microseconds): count=…` is neither.) The summary
    after it must repeat the mean: a text that ends before that is not a report.

    Raises:
        UnreadableOutput: The program could not be started, failed, was cut off or ended by the
            system; a time is not above 0; there are two reports, or another program's output.
    """
    raw = lines_of(text)
    check_crash(_PROGRAM, raw)
    report = _sort(raw)
    # It prints its report even if an inference failed, and the failure after it.
    failed = any(x.startswith(("Benchmarking failed", "No inference runs")) for x in report.lines)
    if failed or not (report.summaries or "Inference (avg)" in report.litert):
        own = [x for x in report.lines if _OWN.match(x) or _LITERT_NAME.match(x)]
        raise no_report(_PROGRAM, report.lines, report.failures, own)
    if len(report.stats) > 2 or len(report.summaries) > 1 or report.lines.count("STARTING!") > 1:
        again = report.summaries[-1][0] if len(report.summaries) > 1 else report.lines[-1]
        raise unreadable(_PROGRAM, "one report, not two in one text", again)
    timed = report.stats[-1] if report.stats else _from_litert(report)
    _confirm(timed, report)
    provider, fallback = _delegates(report)
    flags = [
        x.partition(":")[2].split()
        for x in report.lines
        if x.startswith("Unconsumed cmdline flags:")
    ]
    return Printed(
        runs=timed.runs,
        mean_ms=timed.mean,
        median_ms=timed.median,
        min_ms=timed.low,
        max_ms=timed.high,
        std_ms=timed.std if report.stats else None,
        first_ms=_first_ms(timed, report),
        init_ms=_init_ms(report),
        provider=provider,
        fallback=fallback,
        ignored_flags=tuple(plain(flag) for words in flags for flag in words),
        peak_bytes=_memory_bytes(report, _PEAK_MB),
        model_bytes=_memory_bytes(report, _MODEL_MB),
    )


def parse_profile(text: str) -> tuple[ProfiledNode, ...]:
    """The nodes of the runs with `--enable_op_profiling=true`, in the order in which they ran.

    Where a delegate tells its own nodes, they stand in place of the delegate's. Older programs
    print none of XNNPACK, and none print any of a GPU: the delegate is then one node.

    Raises:
        UnreadableOutput: There is no profile of the runs, or a row of it cannot be read.
    """
    lines = lines_of(text)
    for number, line in enumerate(lines):
        if _OF_RUNS.search(line):  # what is before it is a profile of the loading
            lines = lines[number + 1 :]
            break
    graph: list[ProfiledNode] = []
    internal: list[ProfiledNode] = []
    into: list[ProfiledNode] | None = None
    columns: list[str] = []
    nested = False
    for whole in lines:
        line = whole.strip()
        if line.startswith("Subgraph (index:"):  # its time is that of a node of the main graph
            nested = True
        elif line.startswith("Delegate internal:"):
            nested = False
        elif _OTHER_TABLE.fullmatch(line):
            into, columns = (None if nested or not _IN_ORDER.fullmatch(line) else graph), []
        elif into is not None and "\t" in whole:
            cells = [c.strip() for c in whole.strip().split("\t")]
            if not columns:
                columns = cells
                if lacking := [c for c in _COLUMNS.values() if c not in columns]:
                    raise unreadable(_PROGRAM, f"a profile with a column {lacking[0]}", line)
                continue
            node = _profiled(cells, columns, line)
            (internal if node.provider == _INTERNAL else graph).append(node)
    if not graph and not internal:
        raise unreadable(_PROGRAM, "a profile of the runs", lines[-1] if lines else "")
    return _in_place(graph, internal)


def _profiled(cells: Sequence[str], columns: Sequence[str], line: str) -> ProfiledNode:
    """One row; the provider "Delegate/" marks a delegate's own node."""
    if len(cells) < len(columns):
        raise unreadable(_PROGRAM, f"a row of {len(columns)} columns", line)
    kind, ms, calls, name = (cells[columns.index(c)] for c in _COLUMNS.values())
    if not (re.fullmatch(NUMBER, ms) and re.fullmatch(NUMBER, calls)):
        raise unreadable(_PROGRAM, "a time in ms and a number of calls", line)
    a_run = float(ms) * float(calls)
    if not 0 <= a_run <= MOST_MS:
        raise unreadable(_PROGRAM, "a finite time of at least 0", line)
    if name.startswith(_INTERNAL):
        name = plain(name.removeprefix(_INTERNAL))
        return ProfiledNode(name, name.rpartition(":")[0] or name, _INTERNAL, a_run)
    op = plain(kind.partition("/")[0])
    provider = _kind(op) if _DELEGATE_NODE.search(op) else "CPU"
    numbered = _NODE.fullmatch(name)
    return ProfiledNode(
        f"{numbered['number']} {op}" if numbered else plain(name), op, provider, a_run
    )


def _in_place(
    graph: Sequence[ProfiledNode], internal: Sequence[ProfiledNode]
) -> tuple[ProfiledNode, ...]:
    """A delegate's own nodes at the place of the first node of a delegate, in place of all."""
    if not internal:
        return tuple(graph)
    delegates = [number for number, node in enumerate(graph) if node.provider != "CPU"]
    names = dict.fromkeys(graph[number].provider for number in delegates)
    provider = "+".join(names) or "delegate"
    own = [node._replace(provider=provider) for node in internal]
    at = delegates[0] if delegates else len(graph)
    rest = [node for node in graph[at:] if node.provider == "CPU"]
    return (*graph[:at], *own, *rest)


def _memory_bytes(report: _Lines, pattern: re.Pattern[str]) -> int | None:
    """Memory that it printed in MiB; None where it printed none, or 0: it could not tell."""
    for line in report.lines:
        if match := pattern.fullmatch(line):
            return round(float(match[match.lastindex or 0]) * (1 << 20)) or None
    return None


def _litert_ms(report: _Lines, name: str) -> float | None:
    match = report.litert.get(name)
    return None if match is None else time_ms(_PROGRAM, match[0], match[1], "ms")


def _from_litert(report: _Lines) -> _Stat:
    """LiteRT's own block, to 0.01 ms, if a log's filter removed the `count=` lines."""
    match = report.litert.get("Inference (avg)")
    if match is None or match[2] is None or int(match[2]) == 0:
        line = match[0] if match else report.summaries[0][0]
        raise unreadable(_PROGRAM, "a line count=… of at least one timed run", line)
    mean = time_ms(_PROGRAM, match[0], match[1], "ms")
    low, high = (_litert_ms(report, f"Inference ({x})") for x in ("min", "max"))
    if low is None or high is None:
        raise unreadable(_PROGRAM, "also Inference (min) and Inference (max)", match[0])
    ordered(_PROGRAM, match[0], low - _LITERT_MS, high + _LITERT_MS, (mean,))
    return _Stat(match[0], int(match[2]), mean, low, high, mean, 0.0, None)


def _confirm(timed: _Stat, report: _Lines) -> None:
    """Check the mean against the summary: if it differs, lines are lost or reports are mixed."""
    if timed.runs == 0:
        raise unreadable(_PROGRAM, "at least one timed run", timed.line)
    for summary in report.summaries:
        mean = time_ms(_PROGRAM, summary[0], summary["mean"], "us")
        if not agree(mean, timed.mean):
            raise unreadable(_PROGRAM, f"the mean of '{timed.line[:60]}…' again", summary[0])
    mean_again = _litert_ms(report, "Inference (avg)")
    if mean_again is not None and not agree(mean_again, timed.mean, _LITERT_MS):
        line = report.litert["Inference (avg)"][0]
        raise unreadable(_PROGRAM, f"the mean of '{timed.line[:60]}…' again", line)


def _first_ms(timed: _Stat, report: _Lines) -> float | None:
    warmup = report.stats[0] if len(report.stats) == 2 else None
    if warmup is not None:
        return warmup.first if warmup.runs else timed.first
    for summary in report.summaries:
        if summary["first"]:
            return time_ms(_PROGRAM, summary[0], summary["first"], "us")
    return _litert_ms(report, "Warmup (first)")


def _init_ms(report: _Lines) -> float | None:
    for summary in report.summaries:
        return time_ms(_PROGRAM, summary[0], summary["init"], "us")
    for line in report.lines:
        if match := _SESSION.fullmatch(line):
            return time_ms(_PROGRAM, line, match[1], "ms")
    return _litert_ms(report, "Model initialization")


def _kind(name: str) -> str:
    return next((kind for kind, pattern in _KINDS if pattern.search(name)), plain(name))


def _delegates(report: _Lines) -> tuple[str, str]:
    """The provider that ran the graph, and the line that says that a part ran elsewhere."""
    ran: dict[str, None] = {}  # in the order printed
    whole, partial = "", ""
    for line in report.lines:
        if match := _APPLIED.match(line):
            ran[_kind(match[1])] = None
            whole = whole or (_kind(match[1]) if match[2] == "complet" else "")
        elif match := _REPLACED.search(line):
            ran[_kind(match[3])] = None
            if match[2] is not None and int(match[1]) < int(match[2]):
                partial = partial or plain(line)
    # A delegate may replace nodes, then decline the graph: the CPU runs it.
    declined = {_kind(m[1]) for line in report.lines if (m := _DECLINED.match(line))}
    replaced = [x for x in ran if x not in declined or x == whole]
    xnnpack = any(x.startswith("Created TensorFlow Lite XNNPACK delegate") for x in report.lines)
    if not whole and xnnpack and "XNNPACK" not in declined and "XNNPACK" not in replaced:
        replaced.append("XNNPACK")
    kernels = declined or any(re.fullmatch(r"Use xnnpack ?: \[0\]", x) for x in report.lines)
    provider = whole or "+".join(replaced) or ("CPU" if kernels else "")
    fallback = first_match(report.lines, [_PARTLY]) or partial
    return provider, fallback or first_match(report.errors, [re.compile("")])
