"""More than one number of ten networks, beside a bare loop of the same runtime and GNU time.

    python -m tools.bench.startup --db runs/startup.db [--times 5]

measures ten networks on this computer as `phonenas validate` does, and each of them by a script of
its own that knows nothing of phonenas: ONNX Runtime loads the same file, runs it once, then in a
loop, under `/usr/bin/time -v` (Debian's package `time`). Its runs are timed one by one, whatever
disturbs them; what the kernel counts of the process is its memory. The script is started several
times, and the median of each number stands beside phonenas's. It needs a quiet computer:
where other programs interrupt every run, a network has no p50 and no p90, and is only brought up.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from phonenas import data, devices
from phonenas.cli.progress import Bars
from phonenas.data.files import TemporaryFolder
from phonenas.data.measurement import Startup
from phonenas.devices.measuring.events import Subject
from phonenas.devices.measuring.protocol import Protocol
from phonenas.space import Architecture, NetworkGraph, zoo

NETWORKS = (
    "mnasnet-small",
    "mnasnet-a1",
    "mnasnet-b1",
    "mobilenet-v1",
    "mobilenet-v2",
    "mobilenet-v3-small",
    "mobilenet-v3-large",
    "efficientnet-b0",
    "squeezenet-1.1",
    "resnet-18",
)
FIGURES = ("p50_ms", "p90_ms", "load_ms", "first_ms", "peak_bytes")
ROUNDS, STARTUPS = 12, 3  # as a validation takes
_GNU_TIME = "/usr/bin/time"
_LIMIT_S = 300.0
_RESIDENT = re.compile(r"Maximum resident set size \(kbytes\): ([0-9]+)")
_BARE = """
import json, sys, time
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
begin = time.perf_counter()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
load = time.perf_counter() - begin
random = numpy.random.default_rng(0)
feeds = {i.name: random.standard_normal(i.shape, numpy.float32) for i in session.get_inputs()}
times = []
for _ in range(int(sys.argv[2]) + 6):
    begin = time.perf_counter()
    session.run(None, feeds)
    times.append(time.perf_counter() - begin)
steady = numpy.array(times[6:]) * 1e3
print(json.dumps({"load_ms": load * 1e3, "first_ms": times[0] * 1e3,
    "p50_ms": float(numpy.quantile(steady, 0.5)), "p90_ms": float(numpy.quantile(steady, 0.9))}))
"""


def named(name: str) -> Architecture | NetworkGraph:
    """A network of the zoo, of blocks or not."""
    return zoo.find_graph(name) or zoo.network(name)


def bare(file: Path, runs: int, cores: Sequence[int]) -> dict[str, float]:
    """One start of the bare loop on these cores: its figures.

    Raises:
        RuntimeError: The script or GNU time failed; with its last line.
    """
    command = [_GNU_TIME, "-v", sys.executable, "-c", _BARE, str(file), str(runs)]
    if cores:
        command = ["taskset", "-c", ",".join(map(str, cores)), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    match = _RESIDENT.search(done.stderr)
    if done.returncode or match is None:
        raise RuntimeError((done.stderr.strip() or "nothing was printed").splitlines()[-1])
    return {**json.loads(done.stdout), "peak_bytes": int(match[1]) * 1024}


def beside(ours: Mapping[str, float | int | None], loop: Mapping[str, float]) -> list[float]:
    """phonenas's figures over the bare loop's, minus 1; NaN where ours is not known."""
    return [(ours.get(k) or math.nan) / loop[k] - 1 for k in FIGURES]


def bench_startup(db: Path, times: int, runs: int) -> list[list[float]]:
    """Measure both, print a row a network, and give the differences of each.

    Args:
        db: The store; what it holds is not measured again.
        times: Starts of the bare loop for each network.
        runs: Of the loop in each.
    """
    networks = {name: named(name) for name in NETWORKS}
    kinds = {True: "network", False: "onnx"}
    subjects = {
        name: Subject(kinds[isinstance(n, Architecture)], n)  # type: ignore[arg-type]
        for name, n in networks.items()
    }
    with (
        data.MeasurementStore(db) as store,
        devices.connect("local") as here,
        TemporaryFolder() as folder,
        Bars(quiet=True) as bars,
    ):
        loops: dict[str, list[dict[str, float]]] = {name: [] for name in NETWORKS}
        files = {name: here.lower(n, folder / name) for name, n in networks.items()}
        cores = here.telemetry()["cores"]

        def loop_all(starts: int) -> None:
            for _ in range(starts):
                for name, file in files.items():
                    loops[name].append(bare(file, runs, cores))

        loop_all(times - times // 2)  # the rest afterwards: the computer's speed may drift
        outcome = devices.measure(
            list(subjects.values()),
            on=here,
            into=store,
            protocol=Protocol(network_rounds=ROUNDS, startups=STARTUPS),
            on_event=bars.profiling,
        )
        loop_all(times // 2)
        figures = {}
        for name, subject in subjects.items():
            if subject.text in outcome.results:
                figures[name] = outcome.results[subject.text].figures
            else:
                startups = [here.startup(files[name]) or Startup() for _ in range(STARTUPS)]
                figures[name] = asdict(Startup.middle(startups))
    print(f"{outcome.conditions}\n{outcome.verdict.text}\n")
    print(f"{'network':<20}" + "".join(f"{k:>26}" for k in FIGURES))
    rows = []
    for name in NETWORKS:
        ours = figures[name]
        loop = {k: median(x[k] for x in loops[name]) for k in FIGURES}
        rows.append(beside(ours, loop))
        cells = [
            f"{(ours.get(k) or math.nan) / unit:.1f} / {loop[k] / unit:.1f} ({off:+.1%})"
            for k, off in zip(FIGURES, rows[-1], strict=True)
            for unit in [1e6 if k == "peak_bytes" else 1]
        ]
        print(f"{name:<20}" + "".join(f"{c:>26}" for c in cells))
    for what, choose in (("median |difference|", median), ("greatest |difference|", max)):
        known = [[abs(r[i]) for r in rows if r[i] == r[i]] for i in range(len(FIGURES))]
        ends = [f"{choose(each):.1%}, n = {len(each)}" if each else "n = 0" for each in known]
        print(f"{what:<20}" + "".join(f"{e:>26}" for e in ends))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--db", type=Path, required=True)
    parser.add_argument("--times", type=int, default=5, help="starts of the bare loop")
    parser.add_argument("--runs", type=int, default=60, help="of the loop in each")
    given = parser.parse_args()
    if shutil.which(_GNU_TIME) is None:
        parser.error(f"{_GNU_TIME} is not there. Install it:  apt install time")
    bench_startup(given.db, given.times, given.runs)


if __name__ == "__main__":
    main()
