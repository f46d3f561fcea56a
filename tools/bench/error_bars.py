"""How often error bars hold: by simulated rounds, and on a simulated phone that is disturbed.

    python -m tools.bench.error_bars             the coverage of a 90 % error bar, a table
    python -m tools.bench.error_bars --phone     every fifth reading doubled, on a simulated phone

A round is the true value times noise. "A third slower" and their like disturb a share of rounds;
the true value is that of the undisturbed ones. The ranks of `phonenas.data.measurement.spread` were
chosen on the first four kinds of noise; the others show them. Beside it stands the baseline, the
mean with Student's t, which holds for Gaussian noise alone.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from phonenas import data, devices, space
from phonenas.data.measurement import centre, spread
from phonenas.devices import Job, Reading, Subject
from phonenas.devices.simulated import SimulatedPhone

Rounds = np.ndarray
ROUNDS = (2, 3, 5, 10, 12)
SCATTER = 0.01  # of undisturbed rounds; the coverage hardly follows it
DRAWS = 4000
CHOSEN_ON = 4  # of the kinds of noise


def gaussian(chance: np.random.Generator, shape: tuple[int, int]) -> Rounds:
    return np.exp(SCATTER * chance.standard_normal(shape))


def laplace(chance: np.random.Generator, shape: tuple[int, int]) -> Rounds:
    return np.exp(SCATTER * chance.laplace(size=shape))


def skewed(chance: np.random.Generator, shape: tuple[int, int]) -> Rounds:
    # Exponential, around its median: rounds are late, seldom early.
    return 1 + SCATTER * (chance.exponential(size=shape) - math.log(2))


def student(chance: np.random.Generator, shape: tuple[int, int]) -> Rounds:
    return np.exp(SCATTER * chance.standard_t(3, shape))


def disturbed(share: float, times: float) -> Callable[..., Rounds]:
    def noise(chance: np.random.Generator, shape: tuple[int, int]) -> Rounds:
        return gaussian(chance, shape) * np.where(chance.random(shape) < share, times, 1.0)

    return noise


def delayed(chance: np.random.Generator, shape: tuple[int, int]) -> Rounds:
    # A quarter is late, by 20 % in the mean: not all by the same.
    late = np.where(chance.random(shape) < 0.25, chance.exponential(0.2, shape), 0.0)
    return gaussian(chance, shape) * (1 + late)


NOISE: dict[str, Callable[..., Rounds]] = {
    "Gaussian": gaussian,
    "Laplace": laplace,
    "skewed (exponential)": skewed,
    "20 % of rounds 1.3 times": disturbed(0.2, 1.3),
    "Student's t, 3 degrees of freedom": student,
    "10 % of rounds 1.3 times": disturbed(0.1, 1.3),
    "30 % of rounds 1.3 times": disturbed(0.3, 1.3),
    "20 % of rounds doubled": disturbed(0.2, 2.0),
    "25 % of rounds late, by 20 % in the mean": delayed,
}


def student_bar(rounds: Rounds) -> tuple[Rounds, Rounds]:
    """The baseline: means and half-widths of their 90 % intervals, of rows of rounds."""
    n = rounds.shape[1]
    half = stats.t.ppf(0.95, n - 1) * rounds.std(axis=1, ddof=1) / math.sqrt(n)
    return rounds.mean(axis=1), half


def coverage(
    noise: Callable[..., Rounds], n: int, draws: int, seed: int
) -> tuple[float, float, float]:
    """How often the bar holds the true value 1, the baseline's holds it, and its median width."""
    rounds = noise(np.random.default_rng(seed), (draws, n))
    values = np.array([centre(row) for row in rounds.tolist()])
    half = values * [spread(row) for row in rounds.tolist()]
    mean, t_half = student_bar(rounds)
    return (
        float(np.mean(np.abs(values - 1) <= half)),
        float(np.mean(np.abs(mean - 1) <= t_half)),
        float(np.median(half)),
    )


def coverage_table(draws: int, seed: int) -> str:
    """Rows by noise; in each cell the coverage of the bar, and of the baseline in brackets."""
    lines = [
        "| noise | " + " | ".join(f"{n} rounds" for n in ROUNDS) + " |",
        "|---|" + "---|" * len(ROUNDS),
    ]
    worst = [1.0, 0.0]
    widths = []
    for i, (name, noise) in enumerate(NOISE.items()):
        cells = []
        for n in ROUNDS:
            held, baseline, half = coverage(noise, n, draws, seed)
            cells.append(f"{held:.1%} ({baseline:.0%})")
            if n > 2:
                worst = [min(worst[0], held), max(worst[1], held)]
            if name == "Gaussian":
                widths.append(f"{half / SCATTER:.2f}")
        lines.append(f"| {name}{' *' if i < CHOSEN_ON else ''} | " + " | ".join(cells) + " |")
    lines += [
        "| half-width, Gaussian, in σ (median) | " + " | ".join(widths) + " |",
        "",
        f"In brackets mean and Student's t. * the ranks were chosen on these. From 3 rounds on: "
        f"{worst[0]:.1%} to {worst[1]:.1%}. {draws:,} draws a cell, seed {seed}, σ {SCATTER:.0%}.",
    ]
    return "\n".join(lines)


class Doubled(SimulatedPhone):
    """Every fifth reading takes twice as long, and its sentinel does not show it."""

    readings = 0

    def run_ms(self, jobs: Sequence[Job], **how: object) -> Iterator[Reading]:
        for reading in super().run_ms(jobs, **how):  # type: ignore[arg-type]
            self.readings += 1
            if self.readings % 5 == 0:
                object.__setattr__(reading, "samples_ms", tuple(2 * t for t in reading.samples_ms))
            yield reading


def on_a_phone(operators: int, seed: int) -> tuple[int, ...]:
    """Of one phone: operators measured, more than 10 % off, these with a bar that admits it, given
    up, and rounds taken."""
    chosen = space.MnasNet().operators()
    step = len(chosen) // operators
    subjects = [Subject("operator", o) for o in chosen[::step][:operators]]
    with (
        tempfile.TemporaryDirectory() as folder,
        data.MeasurementStore(Path(folder) / "s.db") as store,
        Doubled("sim", seed=seed) as phone,
    ):
        found = devices.measure(subjects, on=phone, into=store)
        truth = {s.text: phone.truth_ms(s.model) for s in subjects}
    off = admitted = 0
    for text, m in found.results.items():
        if abs(m.latency_ms / truth[text] - 1) > 0.1:
            off += 1
            admitted += abs(m.latency_ms - truth[text]) <= m.spread * m.latency_ms
    rounds = sum(len(m.rounds) for m in found.results.values())
    return len(found.results), off, admitted, len(found.unstable), rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--phone", action="store_true", help="on a simulated phone")
    parser.add_argument("--operators", type=int, default=120)
    parser.add_argument("--phones", type=int, default=3, help="phones, of seeds 0, 1, ...")
    given = parser.parse_args()
    if not given.phone:
        print(coverage_table(given.draws, given.seed))
        return
    for seed in range(given.phones):
        held, off, admitted, given_up, rounds = on_a_phone(given.operators, seed)
        print(
            f"phone {seed}, every fifth reading doubled: {held} operators, {rounds} rounds; {off} "
            f"more than 10 % off, {admitted} of these with an error bar that admits it; "
            f"{given_up} given up",
            flush=True,
        )


if __name__ == "__main__":
    main()
