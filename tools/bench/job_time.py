"""The time that a job is told to take beforehand, over the time that it takes.

    python -m tools.bench.job_time [--jobs 10] [--operators 30] [--networks 6] [--device local]

profiles that many operators and networks of the mnasnet space in a new store for each job; every
second job has a process beside it that only computes. Printed for each job: seconds told and taken,
their ratio, rounds planned and taken, readings rejected, and the error of its operators against
the median over all jobs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from phonenas import data, devices, space
from phonenas.data.files import TemporaryFolder
from phonenas.devices.measuring.events import Event, Planned, Rejected
from phonenas.devices.measuring.profiling import Selection
from phonenas.latency_model.units.selection import choose_operators

_GOAL = (0.67, 1.5)


def _spin() -> None:
    while True:
        pass


@contextmanager
def _beside(spinning: bool) -> Iterator[None]:
    """With a process that only computes, where `spinning`."""
    process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    if spinning:
        process.start()
    try:
        yield
    finally:
        if spinning:
            process.kill()
            process.join()


def bench_job_time(jobs: int, operators: int, networks: int, device: str) -> list[float]:
    """Print a line a job; the ratios told over taken."""
    ratios, times_ms, spinning = [], [], [number % 2 == 1 for number in range(jobs)]
    mnas = space.get("mnasnet")
    chosen = choose_operators(mnas, operators)
    print("job  beside it   told  taken  ratio  rounds planned, taken  rejected", flush=True)
    with TemporaryFolder() as folder:
        for number, beside in enumerate(spinning):
            planned: list[Planned] = []
            rejected = 0
            began = [time.monotonic()]

            def hear(event: Event, heard: list[Planned] = planned, at: list[float] = began) -> None:
                nonlocal rejected
                if isinstance(event, Planned):
                    heard.append(event)
                    at[0] = time.monotonic()
                elif isinstance(event, Rejected):
                    rejected += len(event.subjects)

            with (
                _beside(beside),
                data.MeasurementStore(Path(folder, f"{number}.db")) as store,
                devices.connect(device) as here,
            ):
                more = Selection(only=chosen)
                devices.profile(
                    mnas, on=here, into=store, networks=networks, more=more, on_event=hear
                )
                taken_s = time.monotonic() - began[0]
                measured = store.measurements(here.conditions)
            told_s, rounds = planned[0].seconds, sum(len(m.rounds) for m in measured)
            ratios.append(told_s / taken_s)
            times_ms.append({m.subject: m.latency_ms for m in measured})
            print(
                f"{number + 1:3}  {'a spinner' if beside else 'nothing':9} {told_s:5.0f} s "
                f"{taken_s:4.0f} s  {ratios[-1]:5.2f}  {planned[0].rounds:14}, {rounds:5}  "
                f"{rejected:8}",
                flush=True,
            )
    usual = {
        subject: float(np.median([t[subject] for t in times_ms if subject in t]))
        for subject in set().union(*times_ms)
    }
    for beside in (False, True):
        own = [t for t, s in zip(times_ms, spinning, strict=True) if s == beside]
        off = [abs(t[s] / usual[s] - 1) for t in own for s in t]
        name = "a spinner" if beside else "nothing"
        if off:
            print(f"beside it {name}: mean distance from the median of all jobs {np.mean(off):.2%}")
    within = sum(_GOAL[0] <= r <= _GOAL[1] for r in ratios)
    print(f"{within} of {jobs} jobs within {_GOAL[0]} to {_GOAL[1]}")
    return ratios


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--operators", type=int, default=30)
    parser.add_argument("--networks", type=int, default=6)
    parser.add_argument("--device", default="local")
    given = parser.parse_args()
    bench_job_time(given.jobs, given.operators, given.networks, given.device)


if __name__ == "__main__":
    main()
