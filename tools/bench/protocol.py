"""What a measuring protocol gives: `python -m tools.bench.protocol STORE... [--device NAME]`.

For each store: readings refused, wall time, scatter of rounds, and the model's error by
cross-validation and on networks of later jobs (purpose "validation"), with every sample as the
clock showed it and divided by the sentinel's time to a power: one that is learned from the rounds,
kind by kind, and 1. `--simulate calm loaded throttled` makes stores with the simulated phone first:
a profile of 24 networks and their operators, and a later job of 14 other networks.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from statistics import median

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402

from phonenas import devices  # noqa: E402
from phonenas.data import Measurement, MeasurementStore, Round  # noqa: E402
from phonenas.data.measurement import WHOLE, SubjectKind  # noqa: E402
from phonenas.devices.measuring.events import Subject  # noqa: E402
from phonenas.devices.measuring.protocol import Protocol  # noqa: E402
from phonenas.devices.simulated import BackgroundLoad, SimulatedPhone, Throttle  # noqa: E402
from phonenas.latency_model.fitting import choose_conditions, fit_measurements  # noqa: E402
from phonenas.space import Architecture, MnasNet  # noqa: E402

SITUATIONS: dict[str, tuple[Throttle | None, BackgroundLoad | None]] = {
    "calm": (None, None),
    "loaded": (None, BackgroundLoad(every_s=8, for_s=8, preempted=0.05, contention=1.4)),
    "throttled": (Throttle(every_s=90, for_s=20, to=0.6, reported=False), None),
}
LATER_S = 900.0  # a longer pause begins another job


def simulated(folder: Path, situation: str) -> Path:
    """A store of the simulated phone: a profile, and two hours later a validation."""
    throttle, load = SITUATIONS[situation]
    space = MnasNet(resolution=224)
    networks = [space.decode(g) for g in space.sample(np.random.default_rng(0), 38)]
    path = folder / f"simulated_{situation}.db"
    with (
        MeasurementStore(path) as store,
        SimulatedPhone("simulated", seed=3, throttle=throttle, load=load) as phone,
    ):
        named = devices.Selection(named=networks[:24])
        first = devices.profile(None, on=phone, into=store, networks=0, more=named)
        phone.pause(7200)
        later = devices.measure(
            [Subject("network", a) for a in networks[24:]],
            on=phone,
            into=store,
            protocol=Protocol(network_rounds=12),
            purpose="validation",
        )
    print(
        f"{path.name}: {first.seconds:.0f} s of the phone's time for the profile, "
        f"{later.seconds:.0f} s for the later job"
    )
    return path


def divided(m: Measurement, powers: Mapping[SubjectKind, float]) -> Measurement:
    """A measurement whose samples are divided by (sentinel / its median in the rounds) ^ power."""
    usual, power = m.sentinel_ms, powers.get(m.kind, 0.0)
    if usual is None or not power:
        return m
    rounds = tuple(
        replace(
            r,
            samples_ms=tuple(
                s * (REFERENCE_MS / z) ** power
                for s, z in zip(r.samples_ms, r.sentinel_ms, strict=True)
            ),
        )
        for r in m.rounds
    )
    return replace(m, rounds=rounds)


REFERENCE_MS = 0.5  # any one: it only sets the scale


def _logs(m: Measurement) -> list[tuple[float, float]]:
    rounds: Sequence[Round] = m.rounds
    return [(np.log(r.median_ms()), np.log(median(r.sentinel_ms))) for r in rounds]


def slopes(measurements: Sequence[Measurement]) -> dict[SubjectKind, float]:
    """How far log time follows log sentinel from round to round of a subject, by kind."""
    pairs: dict[SubjectKind, list[np.ndarray]] = defaultdict(list)
    for m in measurements:
        if len(m.rounds) > 2 and all(r.sentinel_ms for r in m.rounds):
            logs = np.array(_logs(m))
            pairs[m.kind].append(logs - logs.mean(axis=0))
    found = {kind: np.concatenate(each).T for kind, each in pairs.items()}
    return {k: float((a * b).sum() / max((b * b).sum(), 1e-12)) for k, (a, b) in found.items()}


def examine(path: Path, device: str) -> None:
    """Print everything of one store."""
    with MeasurementStore(path, read_only=True) as store:
        chosen, _ = choose_conditions(store, device)
        known = [m for m in store.measurements(chosen) if m.kind in ("operator", "network")]
        refused = store.rejections(chosen)
    rounds = [r for m in known for r in m.rounds]
    first = [m for m in known if m.purpose == "profile"]
    times = sorted(datetime.fromisoformat(r.at).timestamp() for m in first for r in m.rounds)
    share = len(refused) / (len(refused) + len(rounds))
    print(f"\n{path.name}: {chosen}")
    print(
        f"  {len(rounds):,} rounds, {len(refused):,} readings refused ({share:.1%}); profile "
        f"{times[-1] - times[0]:.0f} s by the dates of its rounds"
    )
    learned = slopes(known)
    print("  slope of log time on log sentinel: ", end="")
    print(", ".join(f"{k} {v:.2f}" for k, v in learned.items()))
    powers: dict[str, dict[SubjectKind, float]] = {
        "the clock": {},
        "learned": learned,
        "power 1": dict.fromkeys(learned, 1.0),
    }
    for name, by_kind in powers.items():
        taken = [divided(m, by_kind) for m in known]
        scatter = {
            kind: median(
                float(np.std(np.log(m.medians_ms), ddof=1))
                for m in taken
                if m.kind == kind and len(m.rounds) > 2
            )
            for kind in learned
        }
        line = ", ".join(f"{k}s {v:.2%}" for k, v in scatter.items())
        model = fit_measurements(chosen, [m for m in taken if m.purpose == "profile"])
        score = model.scores["model"]
        print(
            f"  {name:<10} rounds scatter: {line}; cross-validated MAPE {score.mape:.2%}, bias "
            f"{score.bias:+.2%}, interval covers {score.coverage90:.0%}"
        )
        fitted_on = {m.subject for m in first}
        later = [
            m
            for m in taken
            if m.purpose == "validation" and m.kind in WHOLE and m.subject not in fitted_on
        ]
        for job in _jobs(later):
            predicted = model.predict([Architecture.parse(m.subject) for m in job])
            measured = np.array([m.latency_ms for m in job])
            errors = predicted.ms / measured - 1
            inside = (predicted.low_ms <= measured) & (measured <= predicted.high_ms)
            print(
                f"             later job of {job[0].at[:16]}, {len(job)} networks: MAPE "
                f"{np.abs(errors).mean():.2%}, bias {errors.mean():+.2%}, {inside.mean():.0%} in "
                "their interval"
            )


def _jobs(later: Sequence[Measurement]) -> list[list[Measurement]]:
    jobs: list[list[Measurement]] = []
    last_s = -np.inf
    for m in sorted(later, key=lambda m: m.at):
        at_s = datetime.fromisoformat(m.at).timestamp()
        if at_s - last_s > LATER_S:
            jobs.append([])
        jobs[-1].append(m)
        last_s = at_s
    return jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="*", type=Path)
    parser.add_argument("--device", default="local")
    parser.add_argument("--simulate", nargs="*", default=[], choices=sorted(SITUATIONS))
    given = parser.parse_args()
    for path in given.stores:
        examine(path, given.device)
    with tempfile.TemporaryDirectory() as folder:
        for situation in given.simulate:
            examine(simulated(Path(folder), situation), "simulated")


if __name__ == "__main__":
    main()
