"""Inherited weights: real trainings on CIFAR-10 at 16 px. Printed, not asserted.

    python -m tools.bench.inheritance FOLDER [--part ranks] [--seeds 3] [--networks 20] [--begun 27]

Two questions, in a space of 4,096 small networks:

- Does a short training rank networks better if it inherits weights? Random networks are searched
  twice, with and without, after 1 and after 3 epochs; Kendall's tau with top-1 after 9 epochs from
  first weights and another seed, on the test images.
- Does a search find a better front? NSGA-II by halving (1, 3, 9 epochs) with and without
  inherited weights, and trainings in full of NSGA-II and of random networks, as many as come to
  the epochs of halving from first weights. The epochs of each are printed: halving with inherited
  weights begins as many networks as without, and takes more epochs where more go on.
  The front that each names is scored by trainings in full from first weights, with another seed,
  on the test images, of which no search sees any: share of the box from 0 to 100 % of top-1, and
  from 0 to the latency of the slowest network, on a ready Pixel 4.

Each search and each training is kept in FOLDER: a stopped benchmark goes on with the same command.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import pandas as pd  # noqa: E402

from phonenas import search, space  # noqa: E402
from phonenas.data.images import ImageSet, held_out  # noqa: E402
from phonenas.latency_model import ready  # noqa: E402
from phonenas.search.accuracy import (  # noqa: E402
    Accuracy,
    AccuracyEstimator,
    Cached,
    ShortTraining,
    SuccessiveHalving,
    short_training,
)
from phonenas.search.pareto import hypervolume, non_dominated  # noqa: E402
from phonenas.search.training.recipe import SMALL  # noqa: E402
from phonenas.search.training.resources import Resources  # noqa: E402
from phonenas.space import Architecture  # noqa: E402

__all__ = ["Benchmark", "Truth", "images_of", "test_images_of"]

Floats = npt.NDArray[np.float64]
SHARED = Path(__file__).parents[3] / "shared" / "data" / "cifar10_12k.npz"
PHONE = "pixel4/tflite/cpu-1large/float32"
EPOCHS, FACTOR = 9, 3
IMAGES, HELD, BATCH, RATE = 1500, 1 / 3, 32, 0.4
TRUTH_SEED = 1000
WAYS = ("nsga2, halving", "nsga2, halving, inherited", "nsga2, in full", "random, in full")
_BLOCK = """
[[blocks]]
op = "mbconv"
expansion = [2, 4]
kernel = [3, 5]
filters = {filters}
layers = [1, 2]
stride = 2
"""
SPACE = "resolution = 16\nclasses = 10\n[stem]\nfilters = 8\nstride = 1\n[head]\nfilters = 128\n"
SPACE += "".join(_BLOCK.format(filters=f) for f in ([8, 16], [16, 24], [24, 40]))


def images_of(path: Path) -> ImageSet:
    """The first images of every class at 16 px, each the mean of 2 × 2 pixels."""
    with np.load(path) as file:
        pixels, labels = file["x_train"], file["y_train"]
    each = IMAGES // 10
    rows = np.sort(np.concatenate([np.flatnonzero(labels == c)[:each] for c in range(10)]))
    return _small(pixels[rows], labels[rows])


def test_images_of(path: Path) -> ImageSet:
    """All test images at 16 px; none of them is among the training images."""
    with np.load(path) as file:
        return _small(file["x_test"], file["y_test"])


test_images_of.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's


def _small(pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> ImageSet:
    small = pixels.reshape(len(pixels), 16, 2, 16, 2, 3).mean((2, 4)).round()
    return ImageSet.of(small.astype(np.uint8), labels.astype(np.int64))


class Truth(AccuracyEstimator):
    """Top-1 on test images after a training in full from first weights.

    Args:
        training: How, with which seed, and on which images: those that it does not hold out.
        test: To evaluate on. Searches choose by the images that they hold out, so top-1 on any of
            these would favour what was chosen.
    """

    name, slow = "truth", True

    def __init__(self, training: ShortTraining, test: ImageSet) -> None:
        self.training, self.test = training, test

    @property
    def digest(self) -> str:
        text = f"truth 1 {self.training.digest} {self.test.digest}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def cost_s(self) -> float:
        return 60.0  # so that each answer is kept as soon as it is there

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        return Accuracy.joined([self._one(str(a)) for a in architectures])

    def _one(self, network: str) -> Accuracy:
        how = self.training
        images = held_out(how.images, how.hold_out, how.seed)[0]
        resources = Resources(device="cpu", threads=1)
        told = short_training.train_briefly(
            network,
            short_training.seed_of(how.seed, network, 0),
            how.recipe.settings,
            images,
            self.test,
            resources,
        )
        if told["failed"]:
            return Accuracy.failure(told["failed"], seconds=told["seconds"])
        error = short_training.binomial_error(told["top1"], len(self.test))
        top1, outside = np.array([told["top1"]]), np.array([False])
        return Accuracy(top1, np.array([error]), outside, seconds=(told["seconds"],))


class Benchmark:
    """Searches of one space, kept in a folder.

    Args:
        folder: Of all that is trained.
        path: cifar10_12k.npz.
    """

    def __init__(self, folder: Path, path: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        file = self.folder / "space.toml"
        if not file.exists():
            file.write_text(SPACE)
        self.space = space.get(str(file))
        self.latency, self.images = ready.load(PHONE), images_of(path)
        whole = Truth(self.training(EPOCHS, TRUTH_SEED), test_images_of(path))
        self.truth = Cached(whole, self.folder / "truth.db")
        drawn = self.space.sample(np.random.default_rng(0), 2000)
        self.slowest_ms = float(self.latency.on(self.space)(drawn).max())

    def training(self, epochs: int, seed: int = 0) -> ShortTraining:
        recipe = SMALL.changed(epochs=epochs, batch=BATCH, learning_rate=RATE)
        return ShortTraining(self.images, recipe=recipe, hold_out=HELD, seed=seed)

    def searched(
        self,
        name: str,
        strategy: str,
        accuracy: ShortTraining | SuccessiveHalving,
        networks: int,
        seed: int,
    ) -> search.Searched:
        return search.search(
            self.space,
            latency=self.latency,
            accuracy=accuracy,
            strategy=search.get(strategy, seed),
            evaluations=networks,
            into=self.folder / f"{name.replace(', ', '-')}-{seed}",
        )

    def ranks(self, epochs: int, inherit: bool, networks: int, seed: int) -> Floats:
        """Kendall's tau of all networks, and of those of the later half."""
        accuracy = self.training(epochs)
        accuracy = accuracy.inheriting() if inherit else accuracy
        name = f"ranks-{epochs}" + "-inherited" * inherit
        self.searched(name, "random", accuracy, networks, seed)
        known = search.load(self.folder / f"{name}-{seed}").evaluations()
        truth = self.truth.estimate([self.space.decode(g) for g in known.genomes]).top1
        table = pd.DataFrame({"short": known.top1, "full": truth})
        half = table.iloc[len(table) // 2 :]
        taus = [t["short"].corr(t["full"], method="kendall") for t in (table, half)]
        return np.array([*taus, known.top1.mean()])

    def front(self, way: str, begun: int, seed: int) -> Floats:
        """Hypervolume of a search's front, networks begun, epochs, and multiply-adds, 1e12.

        In full it has as many networks as come to the epochs of the halving, or a part of one
        training more.
        """
        strategy, how, *more = way.split(", ")
        training = self.training(EPOCHS, seed)
        halving = SuccessiveHalving(training.inheriting() if more else training, FACTOR)
        if how == "in full":
            epochs = self.front("nsga2, halving", begun, seed)[2]
            found = self.searched(way, strategy, training, int(-(-epochs // EPOCHS)), seed)
        else:
            found = self.searched(way, strategy, halving, begun, seed)
        known = search.load(self.folder / f"{way.replace(', ', '-')}-{seed}").evaluations()
        epochs = known.further.get("epochs", np.full(len(known), float(EPOCHS)))
        macs = np.array([self.space.decode(g).macs for g in known.genomes])
        work = float((epochs * macs).sum()) * len(self.images) * (1 - HELD) / 1e12
        best = [c.architecture for c in found.front]
        top1, ms = self.truth.estimate(best).top1, self.latency.latency_ms(best)
        losses = np.column_stack([1 - top1, ms / self.slowest_ms])
        box = np.zeros(2), np.ones(2)
        share = hypervolume(losses[non_dominated(losses)], *box)
        return np.array([share, len(known), epochs.sum(), work])


def _mean(values: Floats, digits: int = 3) -> str:
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"


def _say(what: str, figure: str, more: str = "") -> None:
    print(f"{what:<72} {figure:>18}  {more}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--part", action="append", choices=["fronts", "ranks"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--begun", type=int, default=27)
    given = parser.parse_args()
    if not SHARED.is_file():
        _say("inherited weights", "not measured", "the images are not there")
        return
    bench = Benchmark(given.folder, SHARED)
    fronts: dict[str, list[Floats]] = {way: [] for way in WAYS}
    ranks: dict[tuple[int, bool], list[Floats]] = {}
    for seed in range(given.seeds):
        parts = given.part or ["fronts", "ranks"]
        for way in WAYS if "fronts" in parts else ():
            fronts[way].append(bench.front(way, given.begun, seed))
            share, networks, epochs, work = np.array(fronts[way]).T
            cost = f"{networks.mean():.0f} networks, {epochs.mean():.0f} epochs, {work.mean():.2f}"
            _say(f"{way}: hypervolume, {seed + 1} seeds", _mean(share), f"{cost} T multiply-adds")
        for epochs_read in (1, 3) if "ranks" in parts else ():
            for inherit in (False, True):
                rows = ranks.setdefault((epochs_read, inherit), [])
                rows.append(bench.ranks(epochs_read, inherit, given.networks, seed))
                tau, late, top1 = np.array(rows).T
                words = "inherited" if inherit else "first"
                _say(
                    f"{epochs_read} epochs from {words} weights: tau, {seed + 1} seeds",
                    _mean(tau),
                    f"of the later half {_mean(late)}; mean top-1 {top1.mean():.3f}",
                )


if __name__ == "__main__":
    main()
