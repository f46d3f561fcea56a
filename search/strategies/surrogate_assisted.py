"""Models of all objectives, fitted as evaluations come in, propose what is worth one more."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from phonenas.latency_model.gaussian_process import one_thread
from phonenas.space import Genomes, SearchSpace

from ..pareto import non_dominated
from .base import ONE_GENE, Objectives, State, Strategy, table_of, unseen
from .gene_process import one_hot
from .portfolio import Mixture, Portfolio

__all__ = ["SurrogateAssisted", "chebyshev_improvement", "expected_improvement"]

_FIRST = 20  # random networks before the first model
_BATCH, _LEAST = 50, 2  # one proposal a turn for so many networks observed; at least so many
_RANDOM, _NEAR = 200, 300  # candidates drawn at random, and mutants of the front
_ROUNDS, _MUTANTS, _BEST = 3, 100, 25  # of further candidates, from the best so far
_GREEDY = 100  # candidates that a turn's later proposals are chosen from
_MEMORY = 1000  # networks that a model rests on; its cost grows with their cube
_SETTLED = 1.2  # growth after which hyperparameters are optimised further
# Places of proposals, of ten, that are random, or mutants of the front, whatever the models say.
_BLIND, _EVOLVED, _OF = (0, 5), (7,), 10
_SAMPLES = 64  # of the predicted losses, with three objectives and more

Floats = npt.NDArray[np.float64]


class SurrogateAssisted(Strategy):
    """For budgets of hundreds, when each evaluation is a training or a run on a phone.

    The first 20 networks are random. Then several models of each objective, which read genes as
    categories (`Portfolio`), are fitted to all evaluations, each trusted by its errors so far; a
    turn proposes the networks of greatest expected gain of hypervolume, each given those before it.
    Candidates are random networks, mutants of the front, and mutants of the best of these. One
    proposal in five is random and one in ten a mutant of the front, whatever the models say: models
    of what was flat so far would look nowhere else. With a target, what lies beyond it gains
    nothing; limits have a model of their own, and each gain is weighed by the chance to keep them.
    With three objectives or more the gain is that of a weighted greatest loss, with new weights for
    each proposal (ParEGO). A proposal costs 0.05 to 0.5 s; for many cheap evaluations take `nsga2`.

    Args:
        seed: Of all chance.
    Source: Emmerich et al., expected improvement of hypervolume, CEC 2011; Shahriari et al.,
        Taking the Human Out of the Loop, Proc. IEEE 104(1), 2016; Knowles, ParEGO, IEEE TEC
        10(1), 2006.
    """

    name = "surrogate"

    def start(self, space: SearchSpace, target: float | None = None, objectives: int = 2) -> None:
        self.space, self.target = space, target
        self._counts = np.asarray(space.option_counts, np.int64)
        self._genomes: Genomes = np.empty((0, len(self._counts)), np.int8)
        self._losses: Objectives = np.empty((0, objectives))
        self._violation: Floats = np.empty(0)
        self._limited = False
        self._seen: set[bytes] = set()
        # One an objective, and one of how far limits are overstepped.
        self._models = tuple(Portfolio(self._counts) for _ in range(objectives + 1))
        self._settled = [0, 0]  # networks when the models of objectives, of limits were optimised
        self._fitted = False

    @one_thread
    def ask(self, n: int) -> Genomes:
        observed = len(self._genomes)
        if observed < _FIRST:
            drawn = self.space.sample(self.rng, 10 * (_FIRST - observed))
            fresh = self._fresh(drawn)
            return (fresh if len(fresh) else drawn)[: min(n, _FIRST - observed)]
        count = max(_LEAST, observed // _BATCH)
        self._learn()
        front, corner = self._front()
        proposed = self._proposed(front, corner, count)
        for i in range(len(proposed)):  # whatever the models say
            place = (observed + i) % _OF
            if place in _BLIND:
                other = self.space.sample(self.rng, 10)
            elif place in _EVOLVED and len(front):
                parents = self._genomes[front[self.rng.integers(0, len(front), 10)]]
                other = self.space.mutate(parents, self.rng, ONE_GENE)
            else:
                continue
            new = other[unseen(self.space, other, self._seen | set(self.space.keys(proposed)))]
            proposed[i : i + 1] = new[:1] if len(new) else proposed[i]
        return proposed[:n]

    @one_thread
    def tell(self, genomes: Genomes, losses: Objectives, violation: Objectives) -> None:
        if self._fitted and len(genomes):
            hot = one_hot(genomes, self._counts)
            for model, y in zip(self._models[:-1], losses.T, strict=True):
                model.observe(hot, y)
        self._fitted = False
        self._genomes = np.concatenate([self._genomes, genomes])
        self._losses = np.concatenate([self._losses, losses])
        self._violation = np.concatenate([self._violation, violation])
        self._limited |= bool((violation > 0).any())
        self._seen.update(self.space.keys(genomes))

    def _learn(self) -> None:
        """Fit all models to the latest networks."""
        observed, rows = len(self._genomes), slice(-_MEMORY, None)
        hot, losses = one_hot(self._genomes[rows], self._counts), self._losses[rows]
        grown = [observed >= _SETTLED * settled for settled in self._settled]
        for model, y in zip(self._models[:-1], losses.T, strict=True):
            model.learn(hot, y, grown[0])
        if self._limited:
            self._models[-1].learn(hot, self._violation[rows], grown[1])
        for i, used in enumerate((True, self._limited)):
            if grown[i] and used:
                self._settled[i] = observed
        self._fitted = True

    def _fresh(self, genomes: Genomes) -> Genomes:
        """Those never observed, each once."""
        return genomes[unseen(self.space, genomes, self._seen)]

    def _front(self) -> tuple[npt.NDArray[np.intp], Floats]:
        """Rows that none beats, within the target, and the corner that gains are taken to."""
        low, high = self._losses.min(axis=0), self._losses.max(axis=0)
        corner = high + 0.1 * np.where(high > low, high - low, 1.0)
        if self.target is not None:
            corner[1] = self.target
        within = np.flatnonzero((self._losses <= corner).all(axis=1) & (self._violation <= 0))
        return within[non_dominated(self._losses[within])], corner

    def _proposed(self, front: npt.NDArray[np.intp], corner: Floats, count: int) -> Genomes:
        """New networks of the greatest expected gain, each given those before it."""
        space, rng, points = self.space, self.rng, self._losses[front]
        wrong = self._violation if self._limited else self._losses[:, 1]
        parents = self._genomes[front if len(front) else wrong.argsort(kind="stable")[:10]]
        near = space.mutate(parents[rng.integers(0, len(parents), _NEAR)], rng, ONE_GENE)
        pool = self._fresh(np.concatenate([space.sample(rng, _RANDOM), near]))
        if not len(pool):
            return space.sample(rng, 1)
        mixtures, worth = self._predicted(pool)
        for _ in range(_ROUNDS):
            gain = worth * self._gain(mixtures, points, corner)
            best = np.argsort(-gain, kind="stable")[:_BEST]
            more = space.mutate(pool[best[rng.integers(0, len(best), _MUTANTS)]], rng, ONE_GENE)
            more = self._fresh(np.concatenate([pool, more]))[len(pool) :]
            if not len(more):
                break
            found, chance = self._predicted(more)
            pool, worth = np.concatenate([pool, more]), np.concatenate([worth, chance])
            mixtures = [Mixture.concat(list(two)) for two in zip(mixtures, found, strict=True)]
        gain = worth * self._gain(mixtures, points, corner)
        best = np.argsort(-gain, kind="stable")[:_GREEDY]
        pool, worth, mixtures = pool[best], worth[best], [m.take(best) for m in mixtures]
        expected, chosen = np.column_stack([m.mean() for m in mixtures]), [0]
        while len(chosen) < min(count, len(pool)):
            # What was chosen counts as observed, at its expectation: the next lies elsewhere.
            points = np.concatenate([points, expected[chosen[-1:]]])
            gain = worth * self._gain(mixtures, points, corner)
            gain[chosen] = -1.0
            chosen.append(int(np.argmax(gain)))
        return pool[chosen]

    def _predicted(self, genomes: Genomes) -> tuple[list[Mixture], Floats]:
        """Losses that networks may have, and the chance to keep the limits, (n,)."""
        hot = one_hot(genomes, self._counts)
        worth = self._models[-1].at_most(hot, 0.0) if self._limited else np.ones(len(hot))
        return [m.predict(hot) for m in self._models[:-1]], worth

    def _gain(self, mixtures: list[Mixture], points: Floats, corner: Floats) -> Floats:
        if len(corner) == 2:
            return expected_improvement(mixtures[0], mixtures[1], points, corner)
        weights = self.rng.dirichlet(np.ones(len(corner)))
        drawn = [
            m.values[:, self.rng.choice(len(m.shares), _SAMPLES, p=m.shares)] for m in mixtures
        ]
        return chebyshev_improvement(np.stack(drawn, axis=-1), points, corner, weights)

    def state(self) -> State:
        state = {
            **super().state(),
            "genomes": self._genomes,
            "losses": self._losses,
            "violation": self._violation,
            "limited": self._limited,
            "settled": self._settled,
        }
        for i, model in enumerate(self._models):
            state[f"hyperparameters{i}"] = model.hyperparameters
            state[f"ahead{i}"] = model.ahead
        return state

    def restore(self, state: State, seen: Genomes) -> None:
        super().restore(state, seen)
        self._genomes = table_of(state, "genomes", len(self._counts), np.int8)
        self._losses = table_of(state, "losses", self._losses.shape[1])
        self._violation = np.asarray(state["violation"], np.float64)
        if not len(self._genomes) == len(self._losses) == self._violation.size:
            raise ValueError(f"{len(self._genomes)} networks, {len(self._losses)} losses")
        self._limited = bool(state["limited"])
        self._seen = set(self.space.keys(self._genomes)) if len(self._genomes) else set()
        self._settled = [int(n) for n in state["settled"]]
        if len(self._settled) != 2:
            raise ValueError(f"{len(self._settled)} numbers of networks, not 2")
        for i, model in enumerate(self._models):
            own = np.asarray(state[f"hyperparameters{i}"], np.float64)
            model.restore(own, np.asarray(state[f"ahead{i}"], np.float64))


def expected_improvement(first: Mixture, second: Mixture, front: Floats, corner: Floats) -> Floats:
    """Expected gain of hypervolume, (n,), of networks whose two losses are independent.

    Args:
        first, second: What the losses of n networks may be.
        front: Losses observed, (k, 2), k ≥ 0; those that others beat do not count.
        corner: Losses from which on nothing is gained, (2,).
    Source: Emmerich et al., CEC 2011: a sum over the strips between neighbours of the front.
    """
    inside = front[(front < corner).all(axis=1)]
    inside = inside[non_dominated(inside)]
    inside = inside[np.argsort(inside[:, 0], kind="stable")]
    edges = np.concatenate([inside[:, 0], corner[:1]])  # right edges of the strips
    heights = np.concatenate([corner[1:], inside[:, 1]])  # what each strip is open below
    wide = first.below(edges)
    wide[:, 1:] -= wide[:, :-1].copy()
    gain: Floats = (wide * second.below(heights)).sum(axis=1)
    return gain


def chebyshev_improvement(drawn: Floats, front: Floats, corner: Floats, weights: Floats) -> Floats:
    """By how much a network's weighted greatest loss is expected to fall below the front's, (n,),
    in shares of the range from the best observed to the corner.

    Args:
        drawn: Losses that networks may have, (n, samples, k).
        front: Losses observed, (f, k), f ≥ 0.
        corner: Losses that are worth nothing, (k,); what lies beyond gains nothing.
        weights: Of the losses, (k,), ≥ 0, with sum 1.
    Source: Knowles, ParEGO, IEEE TEC 10(1), 2006 (augmented Chebyshev, 0.05).
    """
    best = np.concatenate([front, corner[None]]).min(axis=0)
    wide = np.maximum(corner - best, 1e-12)

    def worst(losses: Floats) -> Floats:
        weighed = weights * (losses - best) / wide
        loss: Floats = weighed.max(axis=-1) + 0.05 * weighed.sum(axis=-1)
        return loss

    bar = float(worst(np.concatenate([front, corner[None]])).min())
    gains = np.maximum(bar - worst(drawn), 0) * (drawn <= corner).all(axis=-1)
    gained: Floats = gains.mean(axis=1)
    return gained
