"""Successive halving: shares of an exact front at an equal number of epochs. Printed, not asserted.

    python -m tools.bench.fidelity [--first 100 300 1000] [--seeds 5] [--strategy nsga2 ...]

Networks of NAS-Bench-Macro, with their published accuracies and the latency that the model of a
ready phone predicts. Learning curves to these accuracies are simulated
(`testing.SimulatedTraining`, 9 epochs, noise of 1,000 images and of seeds). Each strategy searches
twice: each network trained in full, and by halving. What is found is scored by the published
accuracies. The searches are those of the product, from loop to front. Each is given as many
networks as keep its trainings within the same number of epochs: in full these come to all of
them, by halving to a few less.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import pandas as pd  # noqa: E402

from phonenas import search, space  # noqa: E402
from phonenas.latency_model import ready  # noqa: E402
from phonenas.search.accuracy import AccuracyEstimator, SuccessiveHalving  # noqa: E402
from phonenas.search.learning_curve import expected_top1  # noqa: E402
from phonenas.search.pareto import hypervolume, non_dominated  # noqa: E402
from phonenas.search.rungs import promotable  # noqa: E402
from phonenas.testing import SimulatedTraining  # noqa: E402

__all__ = ["bench_fidelity", "table_of"]

Say = Callable[..., None]
Floats = npt.NDArray[np.float64]
SHARED = Path(__file__).parents[3] / "shared" / "data" / "nasbench_macro.csv"
PHONE = "pixel4/tflite/cpu-1large/float32"
EPOCHS, FACTOR = 9, 3
STRATEGIES = ("random", "nsga2", "surrogate")


def table_of(path: Path) -> dict[str, float]:
    """Published top-1, in [0, 1], by block string; the mean of rows that are one network."""
    frame, macro = pd.read_csv(path), space.spaces.get("nasbench-macro")
    rows: dict[str, list[float]] = {}
    for genes, top1 in zip(
        frame[list(macro.decisions)].to_numpy(np.int8), frame["mean_acc"], strict=True
    ):
        rows.setdefault(str(macro.decode(genes)), []).append(top1 / 100)
    return {network: float(np.mean(values)) for network, values in rows.items()}


class Benchmark:
    """The table, the phone, and the front that is exact.

    Args:
        path: nasbench_macro.csv.
        phone: A ready phone.
    """

    def __init__(self, path: Path, phone: str) -> None:
        self.known, self.space = table_of(path), space.spaces.get("nasbench-macro")
        self.latency = ready.load(phone)
        self.networks = [space.Architecture.parse(text) for text in self.known]
        ms = self.latency.latency_ms(self.networks)
        self.losses: Floats = np.column_stack([1 - np.array([*self.known.values()]), ms])
        self.row = {text: i for i, text in enumerate(self.known)}
        self.whole = self.volume(np.arange(len(self.networks)))

    def volume(self, rows: npt.ArrayLike) -> float:
        """Hypervolume of rows, in the box from the best of both to the worst of both."""
        box = self.losses.min(axis=0), self.losses.max(axis=0) * (1 + 1e-9)
        losses = self.losses[np.asarray(rows, np.intp)]
        return hypervolume(losses[non_dominated(losses)], *box)

    def training(self, seed: int) -> SimulatedTraining:
        return SimulatedTraining(lambda a: self.known[str(a)], EPOCHS, seed)

    def halved(self, seed: int) -> SuccessiveHalving:
        return SuccessiveHalving(self.training(seed), FACTOR)

    def found(
        self, name: str, accuracy: Callable[[], AccuracyEstimator], epochs: int, seed: int
    ) -> Floats:
        """Share of the exact front's hypervolume, epochs trained and networks begun, of a search.

        Args:
            accuracy: Makes an estimator that has trained nothing.
            epochs: The search begins as many networks as keep its trainings within so many.
        """
        ends: list[int] = []

        def searched(budget: search.Budget) -> search.Searched:
            ends.clear()
            return search.search(
                self.space,
                latency=self.latency,
                accuracy=accuracy(),
                strategy=search.get(name, seed),
                evaluations=budget,
                on_event=lambda event: ends.append(event.evaluations),  # type: ignore[union-attr]
            )

        # Of the last generation, which passes the epochs, as much as fits.
        over = searched(search.Budget(10**6, training_s=epochs))
        passed = over.trained_s > epochs
        end = searched(search.Budget([1, *ends][-2])) if passed else over
        while passed and over.evaluations - end.evaluations > 1:
            way = (epochs - end.trained_s) / (over.trained_s - end.trained_s)
            networks = end.evaluations + int(way * (over.evaluations - end.evaluations))
            networks = min(max(networks, end.evaluations + 1), over.evaluations - 1)
            one = searched(search.Budget(networks))
            end, over = (one, over) if one.trained_s <= epochs else (end, one)
        assert end.trained_s <= epochs
        share = self.volume([self.row[c.block_args] for c in end.front]) / self.whole
        return np.array([share, end.trained_s, end.evaluations])

    def coverage(self, first: int, seed: int) -> Floats:
        """Of predicted last readings: share within 1.645 errors, and root of the mean square."""
        halving = self.halved(seed)
        rng = np.random.default_rng(seed)
        networks = [self.networks[i] for i in rng.choice(len(self.networks), first, replace=False)]
        read = np.column_stack([step.estimate(networks).top1 for step in halving.steps])
        seen, ms = read.copy(), self.latency.latency_ms(networks)
        for rung in range(1, read.shape[1]):
            here = np.flatnonzero(~np.isnan(seen[:, rung - 1]))
            losses = np.column_stack([1 - seen[here, rung - 1], ms[here]])
            gone = promotable(losses, np.zeros(len(here), bool), FACTOR)
            seen[np.setdiff1d(np.arange(first), here[gone]), rung] = np.nan
        expected, error = expected_top1(seen, ms)
        open_ = error > 0
        off = expected[open_] - read[open_, -1]
        within = np.abs(off) <= 1.645 * error[open_]
        return np.array([within.mean(), np.sqrt((off**2).mean()), error[open_].mean()])


def _mean(values: Floats) -> str:
    return f"{values.mean():.4f} ± {values.std(ddof=1) / np.sqrt(len(values)):.4f}"


def bench_fidelity(
    say: Say, first: list[int], seeds: int, names: tuple[str, ...], path: Path = SHARED
) -> None:
    """Shares of the exact front, and how honest the expected accuracies are."""
    if not path.is_file():
        say("successive halving", "not measured", "the table is not there")
        return
    bench = Benchmark(path, PHONE)
    one = bench.halved(0)
    firsts, last = one.steps[0].estimate(bench.networks), one.steps[-1].estimate(bench.networks)
    tau = pd.Series(firsts.top1).corr(pd.Series(last.top1), method="kendall")
    say(f"order after 1 epoch and after {EPOCHS}: Kendall's tau, all networks", f"{tau:.3f}")
    for count in first:
        epochs = one.epochs_in_all(count) // EPOCHS * EPOCHS  # of trainings in full
        for name in names:
            for how in ("in full", "halving"):
                rows = []
                for seed in range(seeds):
                    made: Callable[[], AccuracyEstimator] = partial(bench.training, seed)
                    if how == "halving":
                        made = partial(bench.halved, seed)
                    rows.append(bench.found(name, made, epochs, seed))
                shares, trained, networks = np.array(rows).T
                say(
                    f"{name}, {how}: share of the exact front, {epochs:,} epochs",
                    _mean(shares),
                    f"{trained.mean():,.0f} epochs, {networks.mean():,.0f} networks",
                )
        covered = np.array([bench.coverage(count, seed) for seed in range(seeds)])
        say(
            f"last top-1 expected, of those of {count:,} that did not go on: 90 % intervals hold",
            f"{covered[:, 0].mean():.1%}",
            f"error {covered[:, 1].mean():.4f}, expected {covered[:, 2].mean():.4f}",
        )


def _say(what: str, figure: str, more: str = "") -> None:
    print(f"{what:<84} {figure:>20}  {more}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--strategy", nargs="+", default=list(STRATEGIES))
    given = parser.parse_args()
    partial(bench_fidelity, _say)(given.first, given.seeds, tuple(given.strategy))


if __name__ == "__main__":
    main()
