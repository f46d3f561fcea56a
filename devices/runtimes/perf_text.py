"""The text of ONNX Runtime's `onnxruntime_perf_test`, of 2020 to today, and its result file.

Source: onnxruntime/test/perftest/performance_runner.cc and main.cc; the placement lines of
onnxruntime/core/framework/session_state.cc.
"""

from __future__ import annotations

import re

from ..system.device_text import NUMBER, check_crash, lines_of, no_report, plain, unreadable
from .timings import COUNT, Printed, agree, first_match, ordered, time_ms

__all__ = ["parse_perf_test", "parse_perf_test_samples"]

_PROGRAM = "onnxruntime_perf_test"
_TIMES = {  # its names, their unit, and our names
    "Session creation time cost": ("s", "init"),
    "First inference time cost": ("ms", "first"),
    "Total inference time cost": ("s", "total"),
    "Average inference time cost total": ("ms", "mean"),
    "Average inference time cost": ("ms", "mean"),  # before 2025
    "Total inference run time": ("s", "wall"),
    "Min Latency": ("s", "low"),
    "Max Latency": ("s", "high"),
    "P50 Latency": ("s", "median"),
}
_PEAK = re.compile(r"Peak working set size: ?([0-9]{1,15})(?: bytes)?")
_RUNS = ("Total inference requests", "Runs")
_FAILED = re.compile(
    r"^Run failed:|^there is no test (?:input )?data for|^input path is not a valid model|"
    r"is not supported in this build|^See 'onnxruntime_perf_test --help'|^ERROR: |terminat\w+ |"
    r"\[ONNXRuntimeError\]|^Error |^Exception|^perf_test \[options|^Load model .*failed|"
    r"^\S{1,300}\.(?:cc|h):[0-9]+ |\[E:onnxruntime|^Non-zero status|Unknown command line flag|"
    r"has been explicitly disabled by the user"
)
_PLACED = re.compile(r"(?:All nodes|Node\(s\)) placed on \[(\w{1,80})\]\. Number of nodes: [0-9]+$")
_USING = re.compile(r"^using (\w{1,80}ExecutionProvider) *$")
_PARTLY = (
    re.compile(r"Some nodes were not assigned to the preferred execution providers"),
    re.compile(r"\b[Ff]all(?:s|ing)?[ -]?back\b"),
    re.compile(r"\[E:onnxruntime"),
)


def parse_perf_test(text: str) -> Printed:
    """Read all that `onnxruntime_perf_test` printed, on both streams.

    On Android its log, and with it all on nodes that run elsewhere than asked, goes to the system's
    log and not into this text: forbid the fall-back to the CPU provider instead
    (`-C "session.disable_cpu_ep_fallback|1"`).

    Raises:
        UnreadableOutput: The program could not be started, failed, was cut off or ended by the
            system; a time is not above 0; there are two reports, or another program's output.
    """
    lines = lines_of(text)
    check_crash(_PROGRAM, lines)
    times: dict[str, float] = {}
    runs: list[int] = []
    where = ""
    for line in lines:
        name, _, value = line.replace(" Latency is ", " Latency: ").partition(":")
        if name in _RUNS:
            if not re.fullmatch(f" ?{COUNT}", value) or int(value) == 0:
                raise unreadable(_PROGRAM, "at least one run", line)
            runs.append(int(value))
        if name not in _TIMES:
            continue
        unit, key = _TIMES[name]
        match = re.fullmatch(rf" ?({NUMBER}) ?{unit}(?:{'ec' if unit == 's' else ''})?", value)
        if match is None:
            raise unreadable(_PROGRAM, f"a number with a decimal point and the unit {unit}", line)
        if key in times:
            raise unreadable(_PROGRAM, "one report, not two in one text", line)
        # The first inference is rounded down to whole ms: 0 means less than one.
        if not (key == "first" and match[1] == "0"):
            times[key] = time_ms(_PROGRAM, line, match[1], unit)
        where = line if key == "mean" else where
    own = [x for x in lines if x.partition(":")[0] in (*_TIMES, *_RUNS)]
    failures = [x for x in lines if _FAILED.search(x)]
    failed = any(x.startswith(("Run failed:", "Non-zero status")) for x in lines)
    listed = [k for k in ("low", "high", "median") if k in times]
    whole = {"mean", "wall", "total"} <= set(times) and runs and len(listed) in (0, 3)
    if failed or not whole:
        raise no_report(_PROGRAM, lines, failures, own)
    if len(runs) > 2 or len(set(runs)) > 1:
        again = [x for x in lines if x.partition(":")[0] in _RUNS][-1]
        raise unreadable(_PROGRAM, f"one report of {runs[0]} runs", again)
    if not agree(times["total"], times["mean"] * runs[0]):
        raise unreadable(_PROGRAM, f"the mean of {runs[0]} runs of {times['total']:g} ms", where)
    ordered(
        _PROGRAM, where, times.get("low"), times.get("high"), (times["mean"], times.get("median"))
    )
    providers = [m[1] for x in lines if (m := _USING.match(x) or _PLACED.search(x))]
    shared = [x for x in lines if "Node(s) placed on [" in x]
    fallback = first_match(lines, _PARTLY) or (plain(shared[0]) if len(shared) > 1 else "")
    return Printed(
        runs=runs[0],
        mean_ms=times["mean"],
        median_ms=times.get("median"),
        min_ms=times.get("low"),
        max_ms=times.get("high"),
        std_ms=None,
        first_ms=times.get("first"),
        init_ms=times.get("init"),
        provider="+".join(dict.fromkeys(providers)),
        fallback=fallback,
        peak_bytes=next((int(m[1]) or None for x in lines if (m := _PEAK.fullmatch(x))), None),
    )


def parse_perf_test_samples(text: str) -> tuple[float, ...]:
    """Read the result file of `onnxruntime_perf_test MODEL FILE`: the time of every run, in ms.

    Its lines are `model,seconds,peak bytes,CPU percent,run from 0`; with `-s` statistics follow
    after an empty line. The program appends to an existing file: that gives two reports.

    Raises:
        UnreadableOutput: Another file, one with a gap, a time not above 0, or two reports.
    """
    samples: list[float] = []
    for line in lines_of(text):
        cells = line.split(",")  # a decimal comma makes one more
        if len(cells) != 5:
            if re.match(r"(?:Min|Max|P[0-9]+) Latency", line) and samples:
                continue
            raise unreadable(_PROGRAM, "model,seconds,bytes,percent,run", line)
        if cells[4] != str(len(samples)) or not re.fullmatch(NUMBER, cells[1]):
            raise unreadable(_PROGRAM, f"the time of run {len(samples)} in one report", line)
        samples.append(time_ms(_PROGRAM, line, cells[1], "s"))
    if not samples:
        raise unreadable(_PROGRAM, "the times of all runs", "")
    return tuple(samples)
