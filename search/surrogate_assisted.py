"""A model of both objectives, fitted as results come in, that proposes what is worth an evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..latency_model.tabular import MINIMUM, TabularRegressor, groups_of
from ..space import Genomes, SearchSpace
from ..space.errors import NotEnoughData
from .pareto import non_dominated
from .strategy import ONE_GENE, Objectives, State, Strategy, unseen

__all__ = ["SurrogateAssisted", "chebyshev_improvement", "expected_improvement"]

_DRAWS = 20  # random networks for each one of the first, of which it is the most unlike
_BATCH, _LEAST = 20, 4  # one proposal a turn for so many networks told; at least so many
_RANDOM, _NEAR = 200, 300  # candidates drawn at random, and mutants of the front
_ROUNDS, _MUTANTS = 3, 100  # of further candidates, from the best so far
_MEMORY = 1000  # networks that a model rests on; its cost grows with their cube
_CHOOSING = 60  # networks that choose how genes are read
_ANEW = 3.0  # growth after which that is chosen anew, up to _CHOOSING
_SETTLED = 1.25  # growth after which strengths are settled further
_SAMPLES = 64  # of the losses' doubt, with three objectives and more
_STEPS, _SETTLING = 5, 200  # of settling, on so many networks

Floats = npt.NDArray[np.float64]


class SurrogateAssisted(Strategy):
    """For budgets of hundreds, when each evaluation is a training or a run on a phone.

    The first networks fill the space: as many as there are genes (20 at least), each the most
    unlike those before it. Then a Gaussian process of each objective is fitted to what was
    told, and a turn's proposals are those that promise the greatest expected gain of
    hypervolume, each given those before it. Candidates are random networks, mutants of the
    front, and mutants of the best of these. With a target, what lies beyond it gains nothing;
    where limits bind besides, they have a model of their own, and each gain is weighed by the
    chance to keep them. With three objectives or more the gain is that of a weighted greatest
    loss, with new weights for each proposal (ParEGO).

    A turn costs 0.1 to 3 s and grows with what was told; for many cheap evaluations take
    `nsga2`.

    Args:
        seed: Of all chance.
    Source: Emmerich et al., expected improvement of hypervolume, CEC 2011; Shahriari et al.,
        Taking the Human Out of the Loop, Proc. IEEE 104(1), 2016; Knowles, ParEGO, IEEE TEC
        10(1), 2006. Its model:
        `latency_model.tabular`.
    """

    name = "surrogate"

    def start(self, space: SearchSpace, target: float | None = None, objectives: int = 2) -> None:
        self.space, self.target = space, target
        self._genomes: Genomes = np.empty((0, len(space.option_counts)), np.int8)
        self._losses: Objectives = np.empty((0, objectives))
        self._violation: Floats = np.empty(0)
        self._limited = False
        self._seen: set[bytes] = set()
        self._first = max(MINIMUM, len(space.option_counts))
        groups = groups_of(list(space.decisions))
        # One an objective, and one of how far limits are overstepped.
        self._models = tuple(_Growing(groups) for _ in range(objectives + 1))
        self._values = [_numbers(options) for options in space.decisions.values()]

    def ask(self, n: int) -> Genomes:
        told = len(self._genomes)
        if told < self._first:
            return self._unlike(min(n, self._first - told))
        count = min(n, max(_LEAST, told // _BATCH))
        codes, rows = self._codes(self._genomes), slice(-_MEMORY, None)
        try:
            for model, losses in zip(self._models[:-1], self._losses.T, strict=True):
                model.learn(codes[rows], losses[rows], max(0, told - _MEMORY))
            if self._limited:
                self._models[-1].learn(codes[rows], self._violation[rows], max(0, told - _MEMORY))
        except NotEnoughData:  # an objective that never changed yet
            return self._fresh(self.space.sample(self.rng, 10 * count))[:count]
        front, corner = self._front()
        pool, expected, deviation, kept = self._candidates(front, corner)
        chosen: list[int] = []
        points = self._losses[front]
        for _ in range(min(count, len(pool))):
            gain = kept * self._gain(expected, deviation, points, corner)
            gain[chosen] = -1.0
            chosen.append(int(np.argmax(gain)))
            # What was chosen counts as told, at its expectation: the next lies elsewhere.
            points = np.concatenate([points, expected[[chosen[-1]]]])
        return pool[chosen]

    def tell(self, genomes: Genomes, losses: Objectives, violation: Objectives) -> None:
        self._genomes = np.concatenate([self._genomes, genomes])
        self._losses = np.concatenate([self._losses, losses])
        self._violation = np.concatenate([self._violation, violation])
        self._limited |= bool((violation > 0).any())
        self._seen.update(self.space.keys(genomes))

    def _codes(self, genomes: Genomes) -> Floats:
        """Genes as numbers where their options are numbers, (n, genes)."""
        return np.column_stack([v[g] for v, g in zip(self._values, genomes.T, strict=True)])

    def _fresh(self, genomes: Genomes) -> Genomes:
        """Those never told, each once."""
        return genomes[unseen(self.space, genomes, self._seen)]

    def _unlike(self, count: int) -> Genomes:
        """Networks that differ from each other, and from those told, in many genes."""
        drawn = self._fresh(self.space.sample(self.rng, _DRAWS * self._first))
        if len(drawn) <= count:
            return drawn if len(drawn) else self.space.sample(self.rng, count)
        near = np.full(len(drawn), drawn.shape[1] + 1)
        for genome in self._genomes:
            near = np.minimum(near, (drawn != genome).sum(axis=1))
        chosen: list[int] = []
        for _ in range(count):
            chosen.append(int(np.argmax(near)))
            near = np.minimum(near, (drawn != drawn[chosen[-1]]).sum(axis=1))
        return drawn[chosen]

    def _front(self) -> tuple[npt.NDArray[np.intp], Floats]:
        """Rows that none beats, within the target, and the corner that gains are taken to."""
        low, high = self._losses.min(axis=0), self._losses.max(axis=0)
        corner = high + 0.1 * (high - low)
        if self.target is not None:
            corner[1] = self.target
        within = np.flatnonzero((self._losses <= corner).all(axis=1) & (self._violation <= 0))
        return within[non_dominated(self._losses[within])], corner

    def _candidates(
        self, front: npt.NDArray[np.intp], corner: Floats
    ) -> tuple[Genomes, Floats, Floats, Floats]:
        """Networks never told, their expected losses and deviations, (n, k), and chance to keep limits, (n,)."""
        space, rng, points = self.space, self.rng, self._losses[front]
        wrong = self._violation if self._limited else self._losses[:, 1]
        parents = self._genomes[front if len(front) else wrong.argsort(kind="stable")[:10]]
        pool = np.concatenate(
            [
                space.sample(rng, _RANDOM),
                space.mutate(parents[rng.integers(0, len(parents), _NEAR)], rng, ONE_GENE),
            ]
        )
        k = self._losses.shape[1]
        expected, deviation, kept = np.empty((0, k)), np.empty((0, k)), np.empty(0)
        for turn in range(_ROUNDS + 1):
            if turn:
                gain = kept * self._gain(expected, deviation, points, corner)
                best = np.argsort(-gain, kind="stable")[: _MUTANTS // 4]
                parents = pool[best[rng.integers(0, max(len(best), 1), _MUTANTS)]]
                pool = np.concatenate([pool, space.mutate(parents, rng, ONE_GENE)])
            pool = self._fresh(pool)
            if not len(pool):
                return space.sample(rng, 1), np.zeros((1, k)), np.ones((1, k)), np.ones(1)
            new = self._codes(pool[len(expected) :])
            if len(new):
                told = [model.predict(new) for model in self._models[:-1]]
                expected = np.concatenate([expected, np.column_stack([e for e, _ in told])])
                deviation = np.concatenate([deviation, np.column_stack([d for _, d in told])])
                kept = np.concatenate([kept, self._kept(new)])
        return pool, expected, deviation, kept

    def _kept(self, codes: Floats) -> Floats:
        """Chance to keep the limits, (n,)."""
        from scipy.special import ndtr

        if not self._limited:
            return np.ones(len(codes))
        over, doubt = self._models[-1].predict(codes)
        found: Floats = ndtr(-over / np.maximum(doubt, 1e-9))
        return found

    def _gain(self, expected: Floats, deviation: Floats, points: Floats, corner: Floats) -> Floats:
        if len(corner) == 2:
            return expected_improvement(expected, deviation, points, corner)
        weights = self.rng.dirichlet(np.ones(len(corner)))
        noise = self.rng.standard_normal((_SAMPLES, len(corner)))
        return chebyshev_improvement(expected, deviation, points, corner, weights, noise)

    def state(self) -> State:
        found = {
            **super().state(), "genomes": self._genomes, "losses": self._losses,
            "violation": self._violation, "limited": self._limited,
        }  # fmt: skip
        for i, model in enumerate(self._models):
            found[f"model{i}"] = [model.chosen_at, model.settled_at, model.began]
            found[f"strengths{i}"] = model.strengths
        return found

    def restore(self, state: State, seen: Genomes) -> None:
        super().restore(state, seen)
        self._genomes = np.asarray(state["genomes"], np.int8)
        self._losses = np.asarray(state["losses"], np.float64)
        self._violation = np.asarray(state["violation"], np.float64)
        self._limited = bool(state["limited"])
        self._seen = set(self.space.keys(self._genomes)) if len(self._genomes) else set()
        codes = self._codes(self._genomes)
        for i, model in enumerate(self._models):
            chosen_at, settled_at, began = state[f"model{i}"]
            if chosen_at:
                told = self._violation if i == self._losses.shape[1] else self._losses[:, i]
                model.go_on(
                    codes[began : began + chosen_at], told[began : began + chosen_at], settled_at, began,
                    np.asarray(state[f"strengths{i}"], np.float64),
                )  # fmt: skip


def _numbers(options: tuple[Any, ...]) -> Floats:
    if all(isinstance(o, int | float) for o in options):
        return np.array(options, np.float64)
    return np.arange(len(options), dtype=np.float64)


class _Growing(TabularRegressor):
    """A model whose rows become more: what it settled on few serves for many, at little cost.

    How genes are read and the target is bent is chosen on the first rows, and once more when
    there are three times as many; the strengths go on being settled.
    """

    chosen_at = settled_at = began = 0
    strengths: Floats = np.empty(0)

    def learn(self, codes: Floats, target: Floats, forgotten: int = 0) -> None:
        """Rest on these rows; all but those forgotten were there before.

        Args:
            codes, target: (n, genes) and (n,).
            forgotten: Rows before these.
        Raises:
            NotEnoughData: The target never changes.
        """
        n = len(target)
        if not self.chosen_at or (self.chosen_at < _CHOOSING and n >= _ANEW * self.chosen_at):
            self._choose(codes, target, forgotten)
            self.strengths = self._strengths
        self._z = self._process.reading(codes)
        bent, _ = self._bend.forth(np.maximum(target, self._least))
        self._mean, self._scale = float(bent.mean()), max(float(bent.std()), 1e-12)
        t = (bent - self._mean) / self._scale
        if n >= _SETTLED * self.settled_at:
            some = np.random.default_rng(n).permutation(n)[:_SETTLING]
            _, self.strengths = self._process.settle(self._z[some], t[some], self.strengths, _STEPS)
            self.settled_at = n
        self._strengths = self.strengths
        self._solve(t)

    def _choose(self, codes: Floats, target: Floats, forgotten: int) -> None:
        some = np.arange(min(_CHOOSING, len(target)))
        if (target[some] == target[0]).all():  # then as many of the first that are not alike
            other = np.flatnonzero(target != target[0])
            some = np.concatenate([some[: _CHOOSING // 2], other[: _CHOOSING // 2]])
        self.fit(codes[some], target[some])
        # The target may be bent by its logarithm, and a later row be 0.
        least = float(target[some].min())
        self._least = least / 2 if least > 0 else float("-inf")
        self.chosen_at, self.settled_at = len(target), len(some)
        self.began = forgotten

    def go_on(
        self, codes: Floats, target: Floats, settled_at: int, began: int, strengths: Floats
    ) -> None:
        """What `learn` had come to, from the rows that it chose by, and the strengths."""
        self._choose(codes, target, began)
        self.settled_at, self.strengths = settled_at, strengths


def expected_improvement(
    expected: Floats, deviation: Floats, front: Floats, corner: Floats
) -> Floats:
    """Gain of hypervolume to be expected of networks whose losses are normal and independent.

    Args:
        expected, deviation: Of the losses, (n, 2), deviations ≥ 0.
        front: Losses told, (k, 2), k ≥ 0; those that others beat do not count.
        corner: Losses from which on nothing is gained, (2,).
    Returns:
        (n,), in the product of the losses' units.
    Source: Emmerich et al., CEC 2011: a sum over the strips between neighbours of the front.
    """
    inside = front[(front < corner).all(axis=1)]
    inside = inside[non_dominated(inside)]
    edges = np.concatenate([inside[:, 0], corner[:1]])  # right edges of the strips
    heights = np.concatenate([corner[1:], inside[:, 1]])  # what each strip is open below
    wide = _below(edges, expected[:, :1], deviation[:, :1])
    wide[:, 1:] -= wide[:, :-1].copy()
    found: Floats = (wide * _below(heights, expected[:, 1:], deviation[:, 1:])).sum(axis=1)
    return found


def chebyshev_improvement(
    expected: Floats,
    deviation: Floats,
    front: Floats,
    corner: Floats,
    weights: Floats,
    noise: Floats,
) -> Floats:
    """By how much a network's weighted greatest loss is expected to fall below the front's.

    Args:
        expected, deviation: Of the losses, (n, k), deviations ≥ 0.
        front: Losses told, (f, k), f ≥ 0.
        corner: Losses that are worth nothing, (k,); what lies beyond gains nothing.
        weights: Of the losses, (k,), ≥ 0, with sum 1.
        noise: Standard normal, (s, k): samples of the doubt.
    Returns:
        (n,), in shares of the range from the best told to the corner.
    Source: Knowles, ParEGO, IEEE TEC 10(1), 2006 (augmented Chebyshev, 0.05).
    """
    best = np.concatenate([front, corner[None]]).min(axis=0)
    wide = np.maximum(corner - best, 1e-12)

    def worst(losses: Floats) -> Floats:
        weighed = weights * (losses - best) / wide
        found: Floats = weighed.max(axis=-1) + 0.05 * weighed.sum(axis=-1)
        return found

    bar = float(worst(np.concatenate([front, corner[None]])).min())
    drawn = expected[:, None] + deviation[:, None] * noise
    gains = np.maximum(bar - worst(drawn), 0) * (drawn <= corner).all(axis=-1)
    gained: Floats = gains.mean(axis=1)
    return gained


def _below(edge: Floats, expected: Floats, deviation: Floats) -> Floats:
    """E[max(edge - Y, 0)] of normal Y."""
    from scipy.special import ndtr

    spread = np.maximum(deviation, 1e-12)
    z = (edge - expected) / spread
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    found: Floats = spread * (z * ndtr(z) + density)
    return found
