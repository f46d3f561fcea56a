"""MnasNet's search: a recurrent controller that writes networks gene by gene, taught by reward."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..space import Genomes, SearchSpace
from ..space.errors import InvalidArgument, MissingExtra
from .pareto import non_dominated
from .reward import HARD, aims_of, check_exponents, penalised, rewards_of, spans_of
from .strategy import ONE_GENE, Objectives, State, Strategy, unseen
from .training.evaluation import computing

__all__ = ["Controller"]

_FIRST, _BATCH = 10, 10  # networks of the first turns; later one for so many told, up to `batch`
_TRIES = 5  # further draws for a network that was told before
_FURTHER = 8  # steps that a network told before may take to one that was not
_LOUD = 10.0  # of the place among the tokens, so that it is heard from the first turns on
_INITIAL = 0.1  # weights start uniform in ± so much
_BETAS, _TINY = (0.9, 0.999), 1e-8  # Adam's defaults
_NORM = 1.0  # of the gradient at most

Floats = npt.NDArray[np.float64]


class Controller(Strategy):
    """A recurrent network that samples genomes, taught by proximal policy optimisation.

    A token for each option of each gene, embedded; a long short-term memory that reads the
    genes drawn so far; for each gene a softmax over its own options. The reward is the weighted
    product. What counts is how much better a network is than the last ones told, against the
    same target, in their standard deviations.

    Without a target each network has its own, evenly spread over the latencies of the front
    seen so far; the controller reads where in that range it lies, and so learns the whole front.
    See `WeightedProduct` for why the hard exponents are the default.

    Args:
        seed: Of all chance, weights included; torch's own generators are neither read nor moved.
        batch: Networks of a turn in the end; the first turns are smaller. ≥ 2.
        hidden, embedding: Units of the memory, and of a token.
        learning_rate: Of Adam.
        epochs: Passes over a turn's networks.
        clip: How far a choice's probability may move in a turn before it counts no more, as a
            share; None: as far as it likes (ablation).
        entropy: Weight of the entropy of the choices, in nats, summed over genes; 0: none (ablation).
        baseline: How many networks told last are the measure; 0: none, the bare reward counts
            (ablation).
        exponents: Of latency over target, at or below, and above it; ≤ 0.
    Raises:
        InvalidArgument: A number outside its range.
        MissingExtra: torch is not installed.
    Source: Tan et al., MnasNet, CVPR 2019 (recurrent controller, PPO); Zoph et al., NASNet, CVPR
        2018, appendix (100 units, weights uniform in ±0.1, moving-average baseline); Schulman et
        al., PPO, 2017 (clip 0.2). Rate, epochs, entropy and the first turns are ours: those of
        NASNet (0.00035, 0.00001) are for tens of thousands of networks.
    """

    name = "rl"

    def __init__(
        self,
        seed: int = 0,
        batch: int = 100,
        hidden: int = 100,
        embedding: int = 32,
        learning_rate: float = 0.003,
        epochs: int = 4,
        clip: float | None = 0.2,
        entropy: float = 0.05,
        baseline: int = 100,
        exponents: tuple[float, float] = HARD,
    ) -> None:
        super().__init__(seed)
        for what, value, least in (
            ("batch", batch, 2), ("hidden", hidden, 1), ("embedding", embedding, 1),
            ("epochs", epochs, 1), ("entropy", entropy, 0), ("baseline", baseline, 0),
        ):  # fmt: skip
            if not value >= least:
                raise InvalidArgument(f"{what} of the controller: {least} or more, got {value:g}")
        if not learning_rate > 0 or (clip is not None and not clip > 0):
            raise InvalidArgument("the controller's learning rate and clip are above 0")
        self.batch, self.hidden, self.embedding = int(batch), int(hidden), int(embedding)
        self.learning_rate, self.epochs, self.clip = float(learning_rate), int(epochs), clip
        self.entropy, self.baseline = float(entropy), int(baseline)
        self.exponents = check_exponents(exponents)
        self._torch = _torch()

    @property
    def settings(self) -> dict[str, Any]:
        own = (
            "batch", "hidden", "embedding", "learning_rate", "epochs", "clip", "entropy", "baseline",
        )  # fmt: skip
        return {
            **super().settings,
            **{name: getattr(self, name) for name in own},
            "exponents": list(self.exponents),
        }

    def start(self, space: SearchSpace, target: float | None = None, objectives: int = 2) -> None:
        torch = self._torch
        self.space, self.target = space, target
        counts = space.option_counts
        self._offsets = np.concatenate([[0], np.cumsum(counts)[:-1]])
        tokens, wide = int(counts.sum()), int(counts.max())
        # Logits of options that a gene does not have.
        self._none = torch.from_numpy(
            np.where(np.arange(wide) < counts[:, None], 0.0, -np.inf).astype(np.float32)
        )
        # Where each gene's options stand among all tokens; what it lacks points at the first.
        self._columns = torch.from_numpy(
            np.where(np.arange(wide) < counts[:, None], self._offsets[:, None] + np.arange(wide), 0)
        )
        shapes = {
            "tokens": (tokens + 1, self.embedding),  # the last one begins
            "place": (2 * (objectives - 1), self.embedding),
            "w_in": (4 * self.hidden, self.embedding),
            "w_own": (4 * self.hidden, self.hidden),
            "b_in": (4 * self.hidden,),
            "b_own": (4 * self.hidden,),
            "w_out": (tokens, self.hidden),
            "b_out": (tokens,),
        }
        self._weights = {
            name: torch.from_numpy(self.rng.uniform(-_INITIAL, _INITIAL, shape).astype(np.float32))
            for name, shape in shapes.items()
        }
        for weight in self._weights.values():
            weight.requires_grad_()
        self._moments = {
            name: (np.zeros(shape, np.float32), np.zeros(shape, np.float32))
            for name, shape in shapes.items()
        }
        self._moments_t = 0
        self._losses: Objectives = np.empty((0, objectives))
        self._front = self._losses
        self._told = self._aimed = 0
        self._seen: set[bytes] = set()
        self._aims = self._places = np.empty((0, objectives - 1))

    # -- sampling ---------------------------------------------------------------------------------

    def ask(self, n: int) -> Genomes:
        with computing(1):
            return self._ask(n)

    def _ask(self, n: int) -> Genomes:
        self._aim(min(self.batch, max(_FIRST, self._told // _BATCH)))
        genomes = self._draw(self._places)
        for _ in range(_TRIES):
            known = self._known(genomes)
            if not known.any():
                break
            genomes[known] = self._draw(self._places[known])
        # It says the same again and again: chance puts in a word, near what was said.
        for _ in range(_FURTHER):
            known = self._known(genomes)
            if not known.any():
                break
            genomes[known] = self.space.mutate(genomes[known], self.rng, ONE_GENE)
        return genomes[:n]

    def _known(self, genomes: Genomes) -> npt.NDArray[np.bool_]:
        """Which were told before, or stand earlier in these rows, (n,)."""
        return ~unseen(self.space, genomes, self._seen)

    def _draw(self, places: Floats) -> Genomes:
        """A genome for each place in the range of targets, (n, genes)."""
        torch, w = self._torch, self._weights
        count, genes = len(places), len(self._offsets)
        chance = self.rng.random((genes, count, 1)).astype(np.float32)
        genomes = np.empty((count, genes), np.int8)
        with torch.no_grad():
            place = self._read_places(places)
            token = torch.full((count,), len(w["tokens"]) - 1)
            h = torch.zeros(count, self.hidden)
            c = torch.zeros(count, self.hidden)
            for gene in range(genes):
                x = w["tokens"][token] + place
                h, c = torch.lstm_cell(x, (h, c), w["w_in"], w["w_own"], w["b_in"], w["b_own"])
                first, last = (
                    self._offsets[gene],
                    self._offsets[gene] + self.space.option_counts[gene],
                )
                logits = h @ w["w_out"][first:last].T + w["b_out"][first:last]
                share = torch.softmax(logits, dim=1).cumsum(dim=1)
                chosen = (torch.from_numpy(chance[gene]) > share[:, :-1]).sum(dim=1)
                genomes[:, gene] = chosen.numpy()
                token = chosen + int(first)
        return genomes

    def _aim(self, count: int) -> None:
        """Give each network of the turn its target."""
        if len(self._front):
            self._aims, self._places = aims_of(self._front, self.target, self._aimed, count)
        else:
            shape = (count, self._losses.shape[1] - 1)
            self._aims, self._places = np.ones(shape), np.full(shape, 0.5)
            if self.target is not None:
                self._aims[:, 0] = self.target
        self._aimed += count

    def _read_places(self, places: Floats) -> Any:
        """What each network's place in the range adds to its tokens, (n, embedding)."""
        powers = np.column_stack([_LOUD * (places - 0.5), 4 * _LOUD * (places - 0.5) ** 2])
        return self._torch.from_numpy(powers.astype(np.float32)) @ self._weights["place"]

    # -- learning ---------------------------------------------------------------------------------

    def tell(self, genomes: Genomes, losses: Objectives, violation: Objectives) -> None:
        count = len(genomes)
        aims, self._places = self._aims[:count], self._places[:count]
        self._told += count
        self._seen.update(self.space.keys(genomes))
        losses = penalised(losses, violation)
        self._losses = np.concatenate([self._losses, losses])
        advantage = self._advantage(losses, aims)
        self._losses = self._losses[-max(self.baseline, 100) :]
        # Of all, not of the last: aims over what it draws just now would draw together with it.
        front = np.concatenate([self._front, losses])
        self._front = front[non_dominated(front)]
        with computing(1):
            self._learn(genomes, advantage)

    def _advantage(self, losses: Objectives, aims: Floats) -> Floats:
        """Rewards less the mean of the networks told last, in their deviations, (n,)."""
        spans = spans_of(self._losses)
        rewards = rewards_of(losses, aims, self.exponents, spans)
        if not self.baseline:
            return rewards
        last = self._losses[-self.baseline :]
        beside = rewards_of(last[None], aims[:, None], self.exponents, spans)
        found: Floats = (rewards - beside.mean(axis=1)) / (beside.std(axis=1) + 1e-9)
        return found

    def _log_shares(self, genomes: Genomes) -> tuple[Any, Any]:
        """Logarithm of the probability of each choice, and its entropy, each (n, genes)."""
        torch, w = self._torch, self._weights
        tokens = torch.from_numpy(genomes.astype(np.int64) + self._offsets)
        begin = torch.full((len(genomes), 1), len(w["tokens"]) - 1)
        x = (
            w["tokens"][torch.cat([begin, tokens[:, :-1]], dim=1)]
            + self._read_places(self._places)[:, None]
        )
        zero = torch.zeros(1, len(genomes), self.hidden)
        h, _, _ = torch.lstm(
            x, (zero, zero), [w["w_in"], w["w_own"], w["b_in"], w["b_own"]],
            True, 1, 0.0, False, False, True,
        )  # fmt: skip
        logits = torch.einsum("ngh,gkh->ngk", h, w["w_out"][self._columns])
        logits = logits + w["b_out"][self._columns] + self._none
        logs = torch.log_softmax(logits, dim=2)
        drawn = logs.gather(2, torch.from_numpy(genomes.astype(np.int64))[:, :, None])
        safe = torch.where(torch.isinf(logs), torch.zeros_like(logs), logs)
        return drawn[:, :, 0], -(safe.exp() * safe * (self._none == 0)).sum(dim=2)

    def _learn(self, genomes: Genomes, advantage: Floats) -> None:
        torch = self._torch
        gain = torch.from_numpy(advantage.astype(np.float32))[:, None]
        before: Any = None
        for _ in range(self.epochs):
            logs, entropy = self._log_shares(genomes)
            if before is None:
                before = logs.detach()
            ratio = (logs - before).exp()
            won = ratio * gain
            if self.clip is not None:
                won = torch.minimum(won, ratio.clamp(1 - self.clip, 1 + self.clip) * gain)
            loss = -(won + self.entropy * entropy).sum(dim=1).mean()
            slopes = torch.autograd.grad(loss, list(self._weights.values()))
            self._step(slopes)

    def _step(self, slopes: Any) -> None:
        """One step of Adam."""
        torch = self._torch
        norm = float(sum(float((s * s).sum()) for s in slopes)) ** 0.5
        shrink = min(1.0, _NORM / (norm + 1e-12))
        self._moments_t += 1
        t, (b1, b2) = self._moments_t, _BETAS
        with torch.no_grad():
            for (name, weight), slope in zip(self._weights.items(), slopes, strict=True):
                g = slope.numpy() * np.float32(shrink)
                m, v = self._moments[name]
                m += np.float32(1 - b1) * (g - m)
                v += np.float32(1 - b2) * (g * g - v)
                step = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + _TINY)
                weight -= torch.from_numpy((self.learning_rate * step).astype(np.float32))

    # -- state ------------------------------------------------------------------------------------

    def state(self) -> State:
        found = {
            **super().state(), "losses": self._losses, "front": self._front, "told": self._told, "aimed": self._aimed,
            "steps": self._moments_t,
        }  # fmt: skip
        for name, weight in self._weights.items():
            first, second = self._moments[name]
            found[f"weight_{name}"] = weight.detach().numpy().copy()
            found[f"first_{name}"], found[f"second_{name}"] = first.copy(), second.copy()
        return found

    def restore(self, state: State, seen: Genomes) -> None:
        super().restore(state, seen)
        self._losses = np.asarray(state["losses"], np.float64)
        self._front = np.asarray(state["front"], np.float64)
        self._told, self._aimed = int(state["told"]), int(state["aimed"])
        self._moments_t = int(state["steps"])
        self._seen = set(self.space.keys(seen)) if len(seen) else set()
        for name in self._weights:
            weight = self._torch.from_numpy(np.array(state[f"weight_{name}"], np.float32))
            self._weights[name] = weight.requires_grad_()
            self._moments[name] = (
                np.array(state[f"first_{name}"], np.float32),
                np.array(state[f"second_{name}"], np.float32),
            )


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtra(
            "the strategy rl needs torch: pip install 'phonenas[torch]'. Or take another "
            "strategy: nsga2, weighted, surrogate."
        ) from error
    return torch
