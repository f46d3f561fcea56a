"""MnasNet's search: a recurrent controller samples networks gene by gene and learns by reward."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_type_hints

import numpy as np
import numpy.typing as npt

from phonenas.space import Genomes, SearchSpace
from phonenas.space.errors import InvalidArgument, MissingExtra, install

from ..pareto import non_dominated
from ..training.resources import computing
from .base import ONE_GENE, Objectives, State, table_of, unseen
from .reward import (
    HARD,
    SOFT,
    RewardStrategy,
    limited_of,
    penalised,
    rewards_of,
    spans_of,
    sums_of,
    targets_of,
)

__all__ = ["Controller", "Hyperparameters"]

_FIRST, _BATCH = 10, 10  # networks of the first turns; later one for so many seen, up to `batch`
_TRIES = 5  # further draws for a network that was evaluated before
_FURTHER = 8  # mutations that such a network may take to become a new one
_LOUD = 10.0  # factor of the place in the range of targets, so that it counts from the start
_INITIAL = 0.1  # weights start uniform in ± so much
_NORM = 1.0  # of the gradient at most
_MOMENTS = {"first": "exp_avg", "second": "exp_avg_sq"}  # Adam's, by their names in a checkpoint

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Hyperparameters:
    """How the controller is built and learns.

    Args:
        batch: Networks of a turn in the end, ≥ 2; the first turns are smaller.
        hidden, embedding: Units of the memory, and of a token, ≥ 1.
        learning_rate: Of Adam, > 0.
        epochs: Passes over a turn's networks, ≥ 1.
        clip: How far a choice's probability may move in a turn before it counts no more, as a
            share, > 0; None: without limit (ablation).
        entropy: Weight of the entropy of the choices, in nats, summed over genes, ≥ 0; 0: none
            (ablation).
        baseline: How many of the latest networks rewards are compared with, ≥ 0; 0: none, the bare
            reward counts (ablation).
        reward: What is maximised: the weighted `product` of MnasNet; `sum`, MONAS's weighted sum of
            quality and costs, each in shares of its range on the front so far; `limit`, the
            quality of what keeps its target, and a penalty for the rest, as RNAS.
        weight: Of the quality in the sum, in [0, 1]; None: evenly spread, for the whole front, or
            0.5 with a target, of which the cost is then a share.
    Raises:
        InvalidArgument: A number outside its range.
    """

    batch: int = 100
    hidden: int = 100
    embedding: int = 32
    learning_rate: float = 0.003
    epochs: int = 4
    clip: float | None = 0.2
    entropy: float = 0.05
    baseline: int = 100
    reward: Literal["product", "sum", "limit"] = "product"
    weight: float | None = None

    def __post_init__(self) -> None:
        least = {"batch": 2, "hidden": 1, "embedding": 1, "epochs": 1, "entropy": 0, "baseline": 0}
        for name, value in least.items():
            if not getattr(self, name) >= value:
                raise InvalidArgument(
                    f"{name} of the controller: {value} or more, got {getattr(self, name):g}"
                )
        if not self.learning_rate > 0 or (self.clip is not None and not self.clip > 0):
            raise InvalidArgument("the controller's learning rate and clip are above 0")
        if self.reward not in ("product", "sum", "limit"):
            raise InvalidArgument(f"a reward is product, sum or limit, got {self.reward!r}")
        if self.weight is not None and (self.reward != "sum" or not 0 <= self.weight <= 1):
            raise InvalidArgument(
                f"weight: of the quality in the reward sum, 0 to 1, got {self.weight:g} with the "
                f"reward {self.reward}"
            )


class Controller(RewardStrategy):
    """A recurrent network that samples genomes and learns by proximal policy optimisation.

    A token for each option of each gene, embedded; a long short-term memory that reads the
    genes drawn so far; for each gene a softmax over its own options. The reward is the weighted
    product, or another of `Hyperparameters`. The advantage of a network is how much its reward
    exceeds the mean reward of the latest networks, against the same target, in their standard
    deviations.

    Without a target each network has its own, evenly spaced over the latencies of the front
    seen so far; the controller reads where in that range it lies, and so learns the whole front.
    See `WeightedProduct` for why the hard exponents are the default.

    Args:
        seed: Of all chance, weights included; torch's own generators are neither read nor moved.
        hyperparameters: How it is built and learns.
        exponents: Of latency over target, at or below, and above it; ≤ 0.
    Raises:
        InvalidArgument: An exponent above 0.
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
        hyperparameters: Hyperparameters | None = None,
        exponents: tuple[float, float] = HARD,
    ) -> None:
        super().__init__(seed, exponents=exponents)
        self.hyperparameters = hyperparameters or Hyperparameters()
        self._torch = _torch()

    @classmethod
    def options(cls) -> dict[str, Any]:
        return get_type_hints(Hyperparameters)

    @classmethod
    def make(cls, seed: int, soft: bool, **settings: Any) -> Controller:
        return cls(seed, Hyperparameters(**settings), exponents=SOFT if soft else HARD)

    @property
    def settings(self) -> dict[str, Any]:
        own = asdict(self.hyperparameters)
        # Runs of before there were other rewards have neither.
        for name, value in (("reward", "product"), ("weight", None)):
            if own[name] == value:
                del own[name]
        return {**super().settings, **own, "exponents": list(self.exponents)}

    @property
    def soft_target(self) -> bool:
        return self.hyperparameters.reward == "product" and super().soft_target

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
        given = self.hyperparameters
        # Without values of its own, which torch's own generator would draw.
        made = torch.nn.LSTM(given.embedding, given.hidden, batch_first=True, device="meta")
        self._memory = made.to_empty(device="cpu")
        memory, empty = self._memory, torch.nn.Parameter
        self._weights = {
            "tokens": empty(torch.empty(tokens + 1, given.embedding)),  # the last one begins
            "place": empty(torch.empty(2 * (objectives - 1), given.embedding)),
            "w_in": memory.weight_ih_l0,
            "w_own": memory.weight_hh_l0,
            "b_in": memory.bias_ih_l0,
            "b_own": memory.bias_hh_l0,
            "w_out": empty(torch.empty(tokens, given.hidden)),
            "b_out": empty(torch.empty(tokens)),
        }
        with torch.no_grad():
            for weight in self._weights.values():
                first = self.rng.uniform(-_INITIAL, _INITIAL, tuple(weight.shape))
                weight.copy_(torch.from_numpy(first.astype(np.float32)))
        self._adam = torch.optim.Adam(self._weights.values(), lr=given.learning_rate)
        self._losses: Objectives = np.empty((0, objectives))
        self._front = self._losses
        self._observed = self._targets_drawn = 0
        self._seen: set[bytes] = set()
        self._targets = self._places = np.empty((0, objectives - 1))

    # -- sampling ---------------------------------------------------------------------------------

    def ask(self, n: int) -> Genomes:
        with computing(1):
            return self._ask(n)

    def _ask(self, n: int) -> Genomes:
        self._set_targets(min(self.hyperparameters.batch, max(_FIRST, self._observed // _BATCH)))
        genomes = self._draw(self._places)
        for _ in range(_TRIES):
            known = self._known(genomes)
            if not known.any():
                break
            genomes[known] = self._draw(self._places[known])
        # It draws the same networks each time: mutations of them are evaluated instead.
        for _ in range(_FURTHER):
            known = self._known(genomes)
            if not known.any():
                break
            genomes[known] = self.space.mutate(genomes[known], self.rng, ONE_GENE)
        return genomes[:n]

    def _known(self, genomes: Genomes) -> npt.NDArray[np.bool_]:
        """Which were evaluated before, or stand earlier in these rows, (n,)."""
        return ~unseen(self.space, genomes, self._seen)

    def _draw(self, places: Floats) -> Genomes:
        """A genome of the space for each place in the range of targets, (n, genes)."""
        torch, w = self._torch, self._weights
        count, genes = len(places), len(self._offsets)
        chance = self.rng.random((genes, count, 1)).astype(np.float32)
        genomes = np.empty((count, genes), np.int8)
        with torch.no_grad():
            place = self._read_places(places)
            token, state = torch.full((count,), len(w["tokens"]) - 1), None
            for gene in range(genes):
                h, state = self._memory((w["tokens"][token] + place)[:, None], state)
                first = int(self._offsets[gene])
                last = first + int(self.space.option_counts[gene])
                logits = h[:, 0] @ w["w_out"][first:last].T + w["b_out"][first:last]
                share = torch.softmax(logits, dim=1).cumsum(dim=1)
                chosen = (torch.from_numpy(chance[gene]) > share[:, :-1]).sum(dim=1)
                genomes[:, gene] = chosen.numpy()
                token = chosen + first
        return self.space.within(genomes)

    def _set_targets(self, count: int) -> None:
        """Give each network of the turn its target."""
        if len(self._front):
            self._targets, self._places = targets_of(
                self._front, self.target, self._targets_drawn, count
            )
        else:
            shape = (count, self._losses.shape[1] - 1)
            self._targets, self._places = np.ones(shape), np.full(shape, 0.5)
            if self.target is not None:
                self._targets[:, 0] = self.target
        self._targets_drawn += count

    def _read_places(self, places: Floats) -> Any:
        """What each network's place in the range adds to its tokens, (n, embedding)."""
        powers = np.column_stack([_LOUD * (places - 0.5), 4 * _LOUD * (places - 0.5) ** 2])
        return self._torch.from_numpy(powers.astype(np.float32)) @ self._weights["place"]

    # -- learning ---------------------------------------------------------------------------------

    def tell(self, genomes: Genomes, losses: Objectives, violation: Objectives) -> None:
        count = len(genomes)
        targets, self._places = self._targets[:count], self._places[:count]
        self._observed += count
        self._seen.update(self.space.keys(genomes))
        losses = penalised(losses, violation)
        self._losses = np.concatenate([self._losses, losses])
        advantage = self._advantage(losses, targets)
        self._losses = self._losses[-max(self.hyperparameters.baseline, 100) :]
        # Of all, not of the last: targets over what it draws just now would draw together with it.
        front = np.concatenate([self._front, losses])
        self._front = front[non_dominated(front)]
        with computing(1):
            self._learn(genomes, advantage)

    def _advantage(self, losses: Objectives, targets: Floats) -> Floats:
        """Rewards less the mean reward of the latest networks, in their deviations, (n,)."""
        rewards = self._rewards(losses, targets, self._places)
        if not self.hyperparameters.baseline:
            return rewards
        last = self._losses[-self.hyperparameters.baseline :]
        beside = self._rewards(last[None], targets[:, None], self._places[:, None])
        return np.asarray((rewards - beside.mean(axis=1)) / (beside.std(axis=1) + 1e-9))

    def _rewards(self, losses: Objectives, targets: Floats, places: Floats) -> Floats:
        """Rewards of losses, (..., k), by the target of each and its place, (..., k - 1)."""
        kind, weight = self.hyperparameters.reward, self.hyperparameters.weight
        if kind == "sum":
            front = np.concatenate([self._front, self._losses])
            front = front[non_dominated(front)]
            best, worst = front.min(axis=0), front.max(axis=0)
            if self.target is not None:
                best[1], worst[1] = 0.0, self.target
            share = places.mean(axis=-1) if weight is None else np.float64(weight)
            return sums_of(losses, share, best, worst)
        spans = spans_of(self._losses)
        if kind == "limit":
            return limited_of(losses, targets, spans)
        return rewards_of(losses, targets, self.exponents, spans)

    def _log_shares(self, genomes: Genomes) -> tuple[Any, Any]:
        """Logarithm of the probability of each choice, and its entropy, each (n, genes)."""
        torch, w = self._torch, self._weights
        tokens = torch.from_numpy(genomes.astype(np.int64) + self._offsets)
        begin = torch.full((len(genomes), 1), len(w["tokens"]) - 1)
        x = (
            w["tokens"][torch.cat([begin, tokens[:, :-1]], dim=1)]
            + self._read_places(self._places)[:, None]
        )
        h, _ = self._memory(x)
        logits = torch.einsum("ngh,gkh->ngk", h, w["w_out"][self._columns])
        logits = logits + w["b_out"][self._columns] + self._none
        logs = torch.log_softmax(logits, dim=2)
        drawn = logs.gather(2, torch.from_numpy(genomes.astype(np.int64))[:, :, None])
        safe = torch.where(torch.isinf(logs), torch.zeros_like(logs), logs)
        return drawn[:, :, 0], -(safe.exp() * safe * (self._none == 0)).sum(dim=2)

    def _learn(self, genomes: Genomes, advantage: Floats) -> None:
        torch, given = self._torch, self.hyperparameters
        gain = torch.from_numpy(advantage.astype(np.float32))[:, None]
        before: Any = None
        for _ in range(given.epochs):
            logs, entropy = self._log_shares(genomes)
            if before is None:
                before = logs.detach()
            ratio = (logs - before).exp()
            won = ratio * gain
            if given.clip is not None:
                won = torch.minimum(won, ratio.clamp(1 - given.clip, 1 + given.clip) * gain)
            loss = -(won + given.entropy * entropy).sum(dim=1).mean()
            self._adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._weights.values(), _NORM)
            self._adam.step()

    # -- state ------------------------------------------------------------------------------------

    def state(self) -> State:
        moments = {name: self._adam.state.get(w, {}) for name, w in self._weights.items()}
        arrays: State = {}
        for name, weight in self._weights.items():
            zero = self._torch.zeros_like(weight)
            arrays[f"weight_{name}"] = weight.detach().numpy().copy()
            for key, kind in _MOMENTS.items():
                arrays[f"{key}_{name}"] = moments[name].get(kind, zero).detach().numpy().copy()
        return {
            **super().state(),
            "losses": self._losses,
            "front": self._front,
            "told": self._observed,
            "aimed": self._targets_drawn,
            "steps": int(moments["tokens"].get("step", 0)),
            **arrays,
        }

    def restore(self, state: State, seen: Genomes) -> None:
        super().restore(state, seen)
        torch = self._torch
        self._losses = table_of(state, "losses", self._losses.shape[1])
        self._front = table_of(state, "front", self._losses.shape[1])
        self._observed, self._targets_drawn = int(state["told"]), int(state["aimed"])
        self._seen = set(self.space.keys(seen)) if len(seen) else set()

        def tensor(name: str) -> Any:
            return torch.from_numpy(np.array(state[name], np.float32))

        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(tensor(f"weight_{name}"))
                self._adam.state[weight] = {
                    "step": torch.tensor(float(state["steps"])),
                    **{kind: tensor(f"{key}_{name}") for key, kind in _MOMENTS.items()},
                }


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtra(
            f"the strategy rl needs torch: {install('torch')}. Or take another "
            "strategy: nsga2, weighted, surrogate."
        ) from error
    return torch
