"""The claims of the MnasNet paper, tried with this project on a device at hand; writes
docs/paper.md.

    python tools/paper.py --db runs/demo/phonenas.db --device local --out docs/paper.md [--measure]

The latency model is the store's; where there is none yet it is fitted and written, as `phonenas
fit` does. Accuracy is the shipped surrogate's. `--measure` first measures the networks that the
claims compare, into the store: minutes, on a quiet device; without it they bear a measured latency
where the store has one. `--table` writes the section with the paper's networks alone, into the
page that is there; without a store it has the Pixel 1's columns. Equal arguments and an equal store
give an equal page.

Source: Tan et al., MnasNet: Platform-Aware Neural Architecture Search for Mobile, CVPR 2019.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from phonenas import data, devices, latency_model, search, space
from phonenas.cli.progress import Bars
from phonenas.cli.stores import find_model, measurable, stored_model
from phonenas.cli.timing import DeviceTimes, named
from phonenas.data.files import write_atomic
from phonenas.latency_model import model_path
from phonenas.latency_model.ready import load as load_ready
from phonenas.search.accuracy import Accuracy, AccuracyEstimator, Additive, Surrogate
from phonenas.search.strategies.controller import Hyperparameters
from phonenas.space import AdditiveTable, Architecture, Block, Genomes, Operator, SearchSpace
from phonenas.space.errors import (
    Infeasible,
    InvalidArgument,
    NotEnoughData,
    PhonenasError,
    SettingsChanged,
)

__all__ = [
    "CLAIMS",
    "Claim",
    "Compared",
    "Ground",
    "Sampled",
    "Skeleton",
    "diversity",
    "evolution",
    "flat",
    "macs",
    "main",
    "page",
    "rewards",
    "throughout",
]

Floats = npt.NDArray[np.float64]
AGREES, DISAGREES, OPEN = "agrees", "disagrees", "undecided with this evidence"
TARGET = "mobilenet-v2"  # whose latency on a Pixel 1 is the paper's target, 75 ms
NEAR = 0.2  # of the target: "around" it
ALIKE = 0.02  # MACs that are "nearly equal"
ENTROPY = 0.2  # see `STRATEGIES`
LEARNING = Hyperparameters(entropy=ENTROPY)
SHARES = (0.125, 0.25, 0.5, 1.0)  # of the evaluations, at which budgets are compared
_MARGIN = 0.005  # of top-1: what is not worse by more counts as well
AT = (1.0, 1.5, 2.0)  # multiples of the target at which layer diversity is held

# With its default entropy the controller settles on the soft reward within a thousand networks, and
# the rest of the budget is filled at random: the sampled networks would show that alone.
STRATEGIES: dict[str, Callable[[int], search.Strategy]] = {
    "random": lambda seed: search.RandomSearch(seed=seed),
    "evolution, soft": lambda seed: search.WeightedProduct(seed=seed, exponents=search.SOFT),
    "evolution, hard": lambda seed: search.WeightedProduct(seed=seed, exponents=search.HARD),
    "RL, soft": lambda seed: search.Controller(seed, LEARNING, search.SOFT),
    "RL, hard": lambda seed: search.Controller(seed, LEARNING, search.HARD),
    "RL, hard, default entropy": lambda seed: search.Controller(seed=seed, exponents=search.HARD),
    "NSGA-II": lambda seed: search.NSGA2(seed=seed),
}
TYPES = {(e, k): f"MBConv{e} {k}×{k}" for e in (3, 6) for k in (3, 5)}
VARIED: dict[str, tuple[Any, ...]] = {"op": ("dsconv", "mbconv3", "mbconv6"), "skip": ("identity",)}
# Top-1 in % and ms on a Pixel 1: MnasNet-A1, and one type throughout its layers and filters.
PUBLISHED = {(3, 3): (71.8, 63), (3, 5): (72.5, 78), (6, 3): (74.9, 116), (6, 5): (75.6, 146)}
PUBLISHED_A1 = (75.2, 78)
# The paper's tables 1 and 3 and its figure of widths: name in the zoo, width, top-1 in %, ms on a
# Pixel 1. MnasNet-A2 and A3 (75.6 % at 84 ms, 76.7 % at 103 ms) have no published blocks.
PIXEL1 = "pixel1/tflite/cpu-1big/float32"
TABLE = (
    *(("mobilenet-v1", 1.0, 70.6, 113.0), ("mobilenet-v2", 1.0, 72.0, 75.0)),
    *(("mobilenet-v2", 1.4, 74.7, 143.0), ("nasnet-a-mobile", 1.0, 74.0, 183.0)),
    *(("mnasnet-b1", 1.0, 74.5, 77.0), ("mnasnet-small", 1.0, 66.0, 23.2)),
    *(("mnasnet-a1", 0.35, 64.1, 22.8), ("mnasnet-a1", 0.5, 68.9, 32.0)),
    *(("mnasnet-a1", 0.75, 73.3, 61.0), ("mnasnet-a1", 1.0, 75.2, 78.0)),
    ("mnasnet-a1", 1.4, 77.2, 135.0),
)


# -- what the experiments stand on ----------------------------------------------------------------


@dataclass(frozen=True)
class Sampled:
    """Distinct networks in the order in which a search came to them.

    Args:
        genomes: (n, genes).
        latency_ms, top1, top1_error: Predicted and estimated, (n,); ms, and shares in [0, 1].
        outside: Whether the estimate extrapolates, (n,).
    """

    space: SearchSpace
    genomes: Genomes
    latency_ms: Floats
    top1: Floats
    top1_error: Floats
    outside: npt.NDArray[np.bool_]

    def first(self, n: int) -> Sampled:
        """The first n of them: what the same search with a budget of n would have seen."""
        cut = (self.latency_ms[:n], self.top1[:n], self.top1_error[:n], self.outside[:n])
        return Sampled(self.space, self.genomes[:n], *cut)

    def best(self, limit_ms: float, inside: bool = False) -> int | None:
        """Row of the greatest top-1 at or below a latency, or None; `inside` alone if asked."""
        rows = np.flatnonzero((self.latency_ms <= limit_ms) & ~(self.outside & inside))
        return int(rows[self.top1[rows].argmax()]) if len(rows) else None


@dataclass(frozen=True)
class Compared:
    """A network that a claim compares, by its name in the page."""

    name: str
    network: Architecture


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and what is seen of it here.

    Args:
        title: Of the section.
        says: What the paper says, with the section.
        tables: Each a caption, a header and rows, as printed.
        evidence: What it rests on, and what could mislead.
        verdicts: Each what is claimed, the verdict, and why.
        figures: The numbers behind the tables, by name.
        networks: Worth measuring.
    """

    title: str
    says: str
    tables: tuple[tuple[str, list[str], list[list[str]]], ...]
    evidence: tuple[str, ...]
    verdicts: tuple[tuple[str, str, str], ...]
    figures: dict[str, float]
    networks: tuple[Compared, ...] = ()


class _Noted(AccuracyEstimator):
    """Another estimator, which notes the genomes that it is asked about.

    Those outside may count nothing.
    """

    name = "noted"

    def __init__(self, of: AccuracyEstimator, inside: bool) -> None:
        self.of, self.inside, self.asked = of, inside, list[Genomes]()

    @property
    def digest(self) -> str:
        return f"{self.of.digest}{' inside' if self.inside else ''}"

    @property
    def cost_s(self) -> float:
        return self.of.cost_s

    def estimate(self, architectures: Sequence[Architecture]) -> Accuracy:
        return self._kept(self.of.estimate(architectures))

    def on(self, space: SearchSpace) -> Callable[[Genomes], Accuracy]:
        judge = self.of.on(space)

        def noting(genomes: Genomes) -> Accuracy:
            self.asked.append(genomes.copy())
            return self._kept(judge(genomes))

        return noting

    def _kept(self, accuracy: Accuracy) -> Accuracy:
        return (
            replace(accuracy, top1=np.where(accuracy.outside, 0.0, accuracy.top1))
            if self.inside
            else accuracy
        )


@dataclass
class Ground:
    """A device's model, the estimator, and how much is tried; remembers the searches made.

    Args:
        model: Of the device.
        measurements: Whole networks measured under its conditions.
        target_ms: Of the searches; None for the latency of MobileNetV2, as in the paper.
        seeds: Of each search, from 0; ≥ 2.
        evaluations: Distinct networks of each search, ≥ 100.
    Raises:
        InvalidArgument: A number out of range.
    """

    model: latency_model.LatencyModel
    measurements: Sequence[data.Measurement] = ()
    target_ms: float | None = None
    seeds: int = 5
    evaluations: int = 4000
    accuracy: Surrogate = field(default_factory=Surrogate)
    mnas: SearchSpace = field(default_factory=space.MnasNet)
    flat: SearchSpace = field(default_factory=space.MnasNetFlat)
    searched: dict[tuple[Any, ...], Sampled] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.seeds < 2 or self.evaluations < 100:
            raise InvalidArgument(
                f"a spread needs 2 seeds, and a search 100 evaluations; got {self.seeds} and "
                f"{self.evaluations}"
            )

    @cached_property
    def target(self) -> float:
        """In ms."""
        if self.target_ms is not None:
            return search.check_target(self.target_ms)
        network = space.zoo.network(TARGET)
        known_ms = self.measured_ms(network)
        return float(self.model.latency_ms([network])[0]) if known_ms is None else known_ms

    @cached_property
    def varied(self) -> SearchSpace:
        """Of the MnasNet space what the surrogate may know.

        No regular convolution, identity skips.
        """
        return Restricted("mixed, squeezed or not", **VARIED)

    @property
    def mark(self) -> str:
        """Of a measured number, or of a simulated one."""
        return "●" if self.model.conditions.origin == "measured" else "◌"

    @cached_property
    def _by_name(self) -> dict[str, float]:
        return {m.subject: m.latency_ms for m in self.measurements}

    def measured_ms(self, network: Architecture) -> float | None:
        """What the store has, or None."""
        return self._by_name.get(str(network))

    def ms(self, network: Architecture) -> str:
        """A network's latency for a table: predicted, and measured where it was."""
        measured = self.measured_ms(network)
        shown = f"○ {self.model.latency_ms([network])[0]:.2f}"
        return shown if measured is None else f"{shown} {self.mark} {measured:.2f}"

    def run(
        self,
        name: str,
        seed: int,
        *,
        on: SearchSpace | None = None,
        evaluations: int = 0,
        target_ms: float | None = None,
    ) -> Sampled:
        """A search for the target with the surrogate, by the name of `STRATEGIES`."""
        where, budget = on or self.mnas, evaluations or self.evaluations
        aim = target_ms or self.target
        return self._search(where, (name, seed, aim), STRATEGIES[name](seed), budget, aim, False)

    def front(self, on: SearchSpace, seed: int, evaluations: int) -> Sampled:
        """A search for the whole front; what the surrogate calls outside counts nothing."""
        how = search.NSGA2(seed=seed)
        return self._search(on, ("front", seed), how, evaluations, None, True)

    def fronts(self, on: SearchSpace) -> list[Sampled]:
        """`front` for every seed, each with half of the evaluations."""
        budget = max(self.evaluations // 2, 100)
        return [self.front(on, seed, budget) for seed in range(self.seeds)]

    def _search(
        self,
        on: SearchSpace,
        key: tuple[Any, ...],
        how: search.Strategy,
        evaluations: int,
        target_ms: float | None,
        inside: bool,
    ) -> Sampled:
        key = (on.name, *key)
        if key not in self.searched or len(self.searched[key].top1) < evaluations:
            noted = _Noted(self.accuracy, inside)
            search.search(
                on,
                latency=self.model,
                accuracy=noted,
                strategy=how,
                spec=search.Spec(None if target_ms is None else search.Target(target_ms)),
                evaluations=evaluations,
            )
            genomes = np.concatenate(noted.asked)
            self.searched[key] = self.evaluated(on, genomes)
        return self.searched[key].first(evaluations)

    def evaluated(self, on: SearchSpace, genomes: Genomes) -> Sampled:
        """Genomes of a space with what model and estimator say of them."""
        estimates = self.accuracy.on(on)(genomes)
        numbers = (estimates.top1, estimates.standard_error, estimates.outside)
        return Sampled(on, genomes, self.model.on(on)(genomes), *numbers)

    def every(self, on: Skeleton) -> Sampled:
        """All networks of a small space."""
        if (key := ("every", on.name)) not in self.searched:
            self.searched[key] = self.evaluated(on, on.every())
        return self.searched[key]

    def best_of(self, runs: Sequence[Sampled]) -> tuple[Sampled, int]:
        """The run with the best network within the target, and its row."""
        rows = [_row(r, self.target) for r in runs]
        chosen = max(range(len(runs)), key=lambda i: runs[i].top1[rows[i]])
        return runs[chosen], rows[chosen]

    def rests_on(self) -> str:
        """What every section has in common."""
        scored = self.accuracy.about["score"]
        model_score = self.model.scores.get("model")
        fit = (
            ""
            if model_score is None
            else f" (mean error {model_score.mape:.1%} on {model_score.n} held-out networks)"
        )
        return (
            "Top-1 is the surrogate's, on the scale of 16 epochs: RMSE "
            f"{scored['rmse_points']:.2f} points on {scored['n']} held-out networks of its table. "
            "It ranks networks; none of them was trained here. Latency is the model's of "
            f"{self.model.device}{fit}, ○ predicted, {self.mark} {self.model.conditions.origin}."
        )


def _row(run: Sampled, limit_ms: float) -> int:
    row = run.best(limit_ms)
    if row is None:
        raise Infeasible(
            f"none of {len(run.top1):,} networks of {run.space.name} reaches {limit_ms:g} ms; the "
            f"fastest takes {run.latency_ms.min():.2f} ms. Give more --evaluations or a larger "
            "--target."
        )
    return row


def _spread(values: Sequence[float] | Floats, form: str = "{:.2f}") -> str:
    """Mean and standard deviation over seeds."""
    return f"{form.format(np.mean(values))} ± {np.std(values, ddof=1):.2f}"


def _sign(differences: Sequence[float] | Floats) -> int:
    """1 or -1 where Student's 95 % interval of a mean over seeds leaves 0 out, else 0."""
    off = np.asarray(differences, float)
    return int(np.sign(off.mean())) if abs(off.mean()) > _half_interval(off) else 0


def _half_interval(off: Floats) -> float:
    """Half of Student's 95 % interval of a mean over seeds."""
    return float(stats.t.ppf(0.975, len(off) - 1) * off.std(ddof=1) / np.sqrt(len(off)))


def _no_worse(differences: Floats) -> bool:
    """Whether that interval lies above a loss of half a point.

    Then it is as good; the difference is not merely undecided.
    """
    return bool(differences.mean() - _half_interval(differences) > -_MARGIN)


def _verdict(sign: int) -> str:
    return {1: AGREES, -1: DISAGREES, 0: OPEN}[sign]


# -- soft against hard ----------------------------------------------------------------------------


def rewards(ground: Ground) -> Claim:
    """Soft against hard reward, and where the sampled networks lie."""
    target, count = ground.target, max(ground.evaluations * 3 // 4, 1)
    figures: dict[str, float] = {}
    rows, quantities, kept = [], {}, []
    for name in ("RL, soft", "RL, hard", "evolution, soft", "evolution, hard", "random"):
        runs = [ground.run(name, s).first(count) for s in range(ground.seeds)]
        quantiles = np.array([np.quantile(r.latency_ms, (0.05, 0.5, 0.95)) for r in runs])
        late = [np.quantile(r.latency_ms[-count // 3 :], (0.05, 0.5, 0.95)) for r in runs]
        beyond = np.array([(r.latency_ms > target).mean() for r in runs])
        near = np.array([(abs(r.latency_ms / target - 1) <= NEAR).mean() for r in runs])
        best = np.array([r.top1[_row(r, target)] for r in runs])
        outside = np.mean([r.outside[_row(r, target)] for r in runs])
        quantities[name] = (quantiles, beyond, near, best)
        numbers = {
            "p5_ms": quantiles[:, 0].mean(),
            "median_ms": quantiles[:, 1].mean(),
            "p95_ms": quantiles[:, 2].mean(),
            "beyond": beyond.mean(),
            "near": near.mean(),
            "top1": best.mean(),
        }
        figures |= {f"{name}: {what}": float(number) for what, number in numbers.items()}
        whole, third = (
            "○ " + " · ".join(f"{q:.1f}" for q in np.mean(of, axis=0)) for of in (quantiles, late)
        )
        rows.append(
            [
                name,
                whole,
                third,
                f"{beyond.mean():.0%}",
                f"{near.mean():.0%}",
                _spread(100 * best),
                f"{outside:.0%}",
            ]
        )
        if name != "random":
            run, row = ground.best_of(runs)
            kept.append(Compared(f"best by {name}", run.space.decode(run.genomes[row])))
    faster = _sign(quantities["RL, soft"][1] - quantities["RL, hard"][1])
    width = {n: np.log2(q[:, 2] / q[:, 0]) for n, (q, *_) in quantities.items()}
    wider = _sign(width["RL, soft"] - width["RL, hard"])
    better = _sign(quantities["RL, soft"][3] - quantities["RL, hard"][3])
    early = min(count, 1000)
    same = {
        how: float(
            (
                ground.run(how, 0).first(early).genomes
                == ground.run(how, 0, evaluations=early, target_ms=2 * target).genomes
            )
            .all(axis=1)
            .mean()
        )
        for how in ("RL, soft", "evolution, soft")
    }
    figures |= {f"{how}: same at twice the target": share for how, share in same.items()}
    figures |= {f"{n}: octaves": float(w.mean()) for n, w in width.items()}
    both = min(same.values())
    at = [_best_inside(ground.fronts(ground.varied), t * target) for t in (1, 2)]
    rule = (
        "The rule cannot be compared with a front here: no network like those of the surrogate's "
        "fit is that fast."
    )
    if at[0] is not None and at[1] is not None:
        figures["gain of doubling"] = gained = at[1].top1 / at[0].top1 - 1
        rule = (
            "The paper sets the exponent so that twice the latency is worth 5 % more accuracy, "
            f"relative. From {target:.2f} to {2 * target:.2f} ms the best network inside what the "
            f"surrogate saw gains {gained:.1%} here, on the scale of 16 epochs; the same rule "
            f"would set {-np.log2(1 + gained):.3f}."
        )
    return Claim(
        "Soft against hard reward",
        "With a hard constraint (α = 0, β = -1) the controller turns to faster models, to avoid "
        "the penalty; with the soft one (α = β = -0.07) it samples most around the target of 75 "
        "ms, and also well below 40 and above 110 ms (sections 3 and 6.1, figure 7; 3,000 sampled "
        "models each).",
        (
            (
                f"The first {count:,} distinct networks of each search for {target:.2f} ms; mean "
                f"of {ground.seeds} seeds.",
                [
                    "search",
                    "latency in ms, 5 · 50 · 95 %",
                    "of the last third",
                    "beyond the target",
                    f"within ±{NEAR:.0%} of it",
                    "best top-1 within the target, %",
                    "of these outside",
                ],
                rows,
            ),
            (
                f"The same first {early:,} networks, seed 0, when the target is doubled to "
                f"{2 * target:.2f} ms:",
                ["search", "share that is the same, in the same order"],
                [[how, f"{share:.1%}"] for how, share in same.items()],
            ),
        ),
        (
            f"{ground.seeds} seeds of {count:,} networks a row. The paper's histogram shows what "
            "its controller samples while it learns, and so does this table: early networks are "
            "random, and a slower or quicker learner has another histogram.",
            f"The controller's weight of entropy is {ENTROPY:g} in both rows of RL, more than its "
            "default, so that it does not converge early and fill the rest of the budget "
            "at random.",
            "With α = β the reward is top-1 · latency^α times a number that depends on the target "
            "alone: the order of networks is the same at any target. Where a soft search lies "
            "follows from how steeply this estimator rewards latency, and not from the target.",
            rule,
        ),
        (
            (
                "A hard constraint turns the search to faster models",
                _verdict(faster),
                f"{figures['RL, hard: beyond']:.0%} of what RL samples lies beyond the target, "
                f"{figures['RL, soft: beyond']:.0%} with the soft reward; for evolution "
                f"{figures['evolution, hard: beyond']:.0%} and "
                f"{figures['evolution, soft: beyond']:.0%}",
            ),
            (
                "The soft reward samples a wider range",
                _verdict(wider),
                f"from its 5 to its 95 % point RL spans {figures['RL, soft: octaves']:.2f} octaves "
                f"with the soft reward, {figures['RL, hard: octaves']:.2f} with the hard one",
            ),
            (
                "It is the target that the soft reward samples around",
                DISAGREES if both > 0.99 else OPEN,
                f"{both:.0%} of the networks are the same, in the same order, when the target is "
                f"doubled"
                + (": the target does not change what is sampled" if both > 0.99 else ""),
            ),
            (
                "Not in the paper: the soft reward finds the better network within the target",
                {1: "seen", -1: "the reverse is seen", 0: OPEN}[better],
                f"RL {figures['RL, soft: top1']:.2%} against {figures['RL, hard: top1']:.2%}, "
                f"evolution {figures['evolution, soft: top1']:.2%} against "
                f"{figures['evolution, hard: top1']:.2%}",
            ),
        ),
        figures,
        tuple(kept),
    )


# -- RL against evolution -------------------------------------------------------------------------


def evolution(ground: Ground) -> Claim:
    """Reinforcement learning against evolution at equal budgets."""
    budgets = [int(ground.evaluations * share) for share in SHARES]
    figures: dict[str, float] = {}
    best: dict[str, Floats] = {}
    rows, outside = [], []
    for name in STRATEGIES:
        runs = [ground.run(name, s) for s in range(ground.seeds)]
        best[name] = np.array([[_capped(r.first(b), ground.target) for b in budgets] for r in runs])
        means = best[name].mean(axis=0)
        figures |= {f"{name}: {b}": float(m) for b, m in zip(budgets, means, strict=True)}
        rows.append([name, *(_spread(100 * column) for column in best[name].T)])
        outside += [bool(r.outside[_row(r, ground.target)]) for r in runs]
    # Against the controller with the settings that served it better.
    rl = {
        reward: max(
            (n for n in best if n.startswith(f"RL, {reward}")), key=lambda n: best[n][:, -1].mean()
        )
        for reward in ("soft", "hard")
    }
    apart = {r: best[f"evolution, {r}"][:, -1] - best[name][:, -1] for r, name in rl.items()}
    signs = {reward: _sign(off) for reward, off in apart.items()}
    over = min(_sign(best[f"evolution, {r}"][:, -1] - best["random"][:, -1]) for r in apart)
    figures |= {f"evolution less RL, {r}": float(off.mean()) for r, off in apart.items()}
    words = {1: "evolution ahead", -1: "RL ahead", 0: "no difference that counts"}
    if over > 0 and all(_no_worse(off) for off in apart.values()):
        verdict = AGREES
    elif over < 0 or max(signs.values()) < 0:
        verdict = DISAGREES
    else:
        verdict = OPEN
    return Claim(
        "RL against evolution",
        "Reinforcement learning was taken because it is convenient and its reward easy to change; "
        "other methods such as evolution are expected to work as well (section 4.2). No "
        "comparison is printed.",
        (
            (
                f"Best top-1 in % within {ground.target:.2f} ms after so many distinct networks; "
                f"mean and standard deviation of {ground.seeds} seeds.",
                ["search", *(f"{b:,}" for b in budgets)],
                rows,
            ),
        ),
        (
            f"{len(STRATEGIES)} strategies, {ground.seeds} seeds, {ground.evaluations:,} networks "
            "each; budgets count distinct networks, since a network evaluated before costs "
            "nothing. All see the same estimator and the same latency model.",
            '"As well" means that Student\'s 95 % interval of the difference lies above '
            f"-{100 * _MARGIN:g} points, for both rewards.",
            f"{sum(outside)} of the {len(outside)} winners are outside what the surrogate was "
            "fitted on: their true accuracy is uncertain, but the comparison of the searches by "
            "this estimator holds.",
            f"The controller's settings are this project's, its weight of entropy {ENTROPY:g} "
            "where not the default; the paper prints none of its own. Evolution is compared with "
            "the better row of RL. The paper's 8,000 networks, each trained, leave room for a "
            "slower learner. NSGA-II looks for a whole front and spends only a part of its budget "
            "near the target.",
        ),
        (
            (
                "Evolution works as well as RL",
                verdict,
                "; ".join(
                    f"{reward} reward: {words[s]} ({100 * apart[reward].mean():+.2f} points)"
                    for reward, s in signs.items()
                )
                + f", after {ground.evaluations:,}",
            ),
        ),
        figures,
    )


def _capped(run: Sampled, limit_ms: float) -> float:
    """Top-1 of the best within a limit; 0 where none is."""
    row = run.best(limit_ms)
    return 0.0 if row is None else float(run.top1[row])


# -- factorised against flat ----------------------------------------------------------------------


def flat(ground: Ground) -> Claim:
    """The factorised space against the flat one at equal budgets."""
    names = ("random", "evolution, soft", "evolution, hard", "NSGA-II")
    budgets = dict.fromkeys(names, ground.evaluations)
    budgets["RL, soft"] = ground.evaluations // 2  # three times the genes: slow
    figures: dict[str, float] = {}
    rows, winners = [], {}
    signs: dict[str, list[int]] = {}
    kept: dict[str, list[Sampled]] = {ground.mnas.name: [], ground.flat.name: []}
    for name, budget in budgets.items():
        early, best, outside = [], [], []
        for where in (ground.mnas, ground.flat):
            runs = [ground.run(name, s, on=where, evaluations=budget) for s in range(ground.seeds)]
            kept[where.name] += runs
            early.append([_capped(r.first(budget // 8), ground.target) for r in runs])
            best.append([_capped(r, ground.target) for r in runs])
            outside.append(sum(bool(r.outside[_row(r, ground.target)]) for r in runs))
            figures[f"{name}: {where.name}"] = float(np.mean(best[-1]))
        off = [np.array(a) - np.array(b) for a, b in (early, best)]
        signs[name] = [_sign(one) for one in off]
        figures |= {f"{name}: early": float(off[0].mean()), f"{name}: late": float(off[1].mean())}
        rows.append(
            [
                name,
                f"{budget:,}",
                *(_spread(100 * np.array(b)) for b in best),
                *(_spread(100 * one, "{:+.2f}") for one in off[::-1]),
                f"{outside[0]} · {outside[1]} of {ground.seeds}",
            ]
        )
    for name, runs in kept.items():
        run, row = ground.best_of(runs)
        winners[name] = Compared(f"best of {name}", run.space.decode(run.genomes[row]))
    known = [
        sum(o in ground.model.table for o in s.operators()) for s in (ground.mnas, ground.flat)
    ]
    verdicts = []
    for at, when in enumerate(("an eighth of the budget", "the whole budget")):
        by = {n: s[at] for n, s in signs.items() if n != "random"}
        sign = 1 if min(by.values()) > 0 else -1 if max(by.values()) < 0 else 0
        ahead = "; ".join(n for n, s in by.items() if s > 0) or "none"
        behind = "; ".join(n for n, s in by.items() if s < 0) or "none"
        verdicts.append(
            (
                f"After {when} the factorised space gives the better network",
                _verdict(sign),
                f"significantly ahead with: {ahead}; behind with: {behind}",
            )
        )
    return Claim(
        "Factorised against flat space",
        "Choosing a sub-space once a block and repeating it keeps the space small (S^B against "
        "S^(B·N): for S = 432, B = 5, N = 3 about 10^13 against 10^39) and yet lets layers "
        "differ; the ablation finds better trade-offs in it than in a cell-based space: 75.2 % at "
        "78 ms against 72.0 % at 100 ms with the same reward (sections 4.1 and 6.2). A flat space "
        "was not searched.",
        (
            (
                f"Best top-1 in % within {ground.target:.2f} ms; mean and standard deviation of "
                f"{ground.seeds} seeds. Factorised: {len(ground.mnas.decisions)} genes, "
                f"{ground.mnas.size:.1e} genomes; flat: {len(ground.flat.decisions)} genes, "
                f"{ground.flat.size:.1e}.",
                [
                    "search",
                    "evaluations",
                    "factorised",
                    "flat",
                    "difference",
                    "after an eighth of them",
                    "winners outside",
                ],
                rows,
            ),
        ),
        (
            f"{ground.seeds} seeds a cell, budgets in distinct networks. The flat space here has "
            "the same choices for each layer, with the depth of a block as one gene; it holds the "
            "factorised one, so with an unlimited budget it cannot lose.",
            f"{known[1]:,} of the flat space's {len(ground.flat.operators()):,} operators are "
            f"measured, and {known[0]:,} of the factorised one's {len(ground.mnas.operators()):,}; "
            "the regressor predicts the others, with larger errors.",
            "The surrogate sees means over the layers of a stage. It can hardly tell a mixed "
            "stage from a uniform one of the same mean, and so cannot reward what a flat space is "
            "for.",
        ),
        tuple(verdicts),
        figures,
        tuple(winners.values()),
    )


# -- layer diversity ------------------------------------------------------------------------------


class Restricted(space.MnasNet):
    """The MnasNet space with fewer options of some of a block's decisions, in each block."""

    def __init__(self, name: str, **only: tuple[Any, ...]) -> None:
        self.name, self.only = name, only
        super().__init__()

    @cached_property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        whole = space.MnasNet().decisions
        return {n: self.only.get(n.split("_")[1], o) for n, o in whole.items()}


class Skeleton(SearchSpace):
    """A network's own layers and filters, each block of any expansion and kernel, none squeezed."""

    kinds = tuple((e, k) for e in (1, 3, 6) for k in (3, 5))

    def __init__(self, name: str, network: Architecture) -> None:
        self.name, self.network = name, network
        self.stem_channels, self.head_channels = network.stem_channels, network.head_channels
        super().__init__(network.resolution_px)

    @cached_property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        return {f"block{b + 1}_kind": self.kinds for b in range(len(self.network.blocks))}

    @cached_property
    def parts(self) -> tuple[space.Part, ...]:
        members, px = [], self.stem.out_px
        for b, block in enumerate(self.network.blocks):
            build = partial(_of_kind, block)
            members.append(space.Part(f"block {b + 1}", (f"block{b + 1}_kind",), px, build))
            px = -(-px // block.stride)
        last = (f"block{len(self.network.blocks)}_kind",)
        return (*members, space.Part("head", last, px, partial(self._head, px)))

    def _head(self, px: int, _: Any) -> Operator:
        channels = self.network.blocks[-1].out_channels
        return Operator("head", channels, self.classes, px, features=self.head_channels)

    def every(self) -> Genomes:
        """All its genomes, (6^blocks, blocks)."""
        counts = tuple(map(int, self.option_counts))
        every: Genomes = np.indices(counts).reshape(len(counts), -1).T.astype(np.int8)
        return every


def _of_kind(block: Block, kind: tuple[int, int]) -> tuple[Block, ...]:
    return (replace(block, expansion=kind[0], kernel=kind[1], se_ratio=0.0).canonical(),)


def throughout(network: Architecture, expansion: int, kernel: int) -> Architecture:
    """The same layers and filters, each an MBConv of one expansion and kernel, none squeezed."""
    blocks = [b for block in network.blocks for b in _of_kind(block, (expansion, kernel))]
    return replace(network, blocks=tuple(blocks))


def diversity(ground: Ground) -> Claim:
    """One block type throughout against a mixed network at equal latency."""
    budget = max(ground.evaluations // 2, 100)
    one_type = {
        name: Restricted(name, **VARIED | {"op": (f"mbconv{e}",), "kernel": (k,), "se": (0.0,)})
        for (e, k), name in TYPES.items()
    }
    mixed = Restricted("mixed, no squeeze", **VARIED | {"se": (0.0,)})
    spaces: list[SearchSpace] = [*one_type.values(), mixed, ground.varied]
    figures: dict[str, float] = {}
    top: dict[tuple[str, float], _Best] = {}
    rows = []
    for where in spaces:
        runs = ground.fronts(where)
        cells = []
        for times in AT:
            fastest = _best_inside(runs, times * ground.target)
            if fastest is None:
                cells.append("none")
                continue
            top[where.name, times] = fastest
            figures[f"{where.name}: {times:g}"] = fastest.top1
            cells.append(
                (
                    _spread(100 * fastest.tops)
                    if len(fastest.tops) > 1
                    else f"{100 * fastest.top1:.2f}"
                )
                + (
                    f" ({len(fastest.tops)} of {len(runs)} seeds)"
                    if len(fastest.tops) < len(runs)
                    else ""
                )
            )
        rows.append([where.name, *cells])
    verdicts, kept = [], []
    for times in AT:
        limit = times * ground.target
        what = f"At {limit:.2f} ms a mixed network is more accurate than one type throughout"
        reached = [n for n in one_type if (n, times) in top]
        if not reached or (mixed.name, times) not in top:
            verdicts.append(
                (what, OPEN, "no network like those of the surrogate's fit is that fast")
            )
            continue
        rival = max(reached, key=lambda n: top[n, times].top1)
        ours, theirs = top[mixed.name, times], top[rival, times]
        off, error = ours.top1 - theirs.top1, float(np.hypot(ours.error, theirs.error))
        figures |= {f"gain: {times:g}": off, f"standard error: {times:g}": error}
        times_ms = f"{ground.ms(ours.network)} against {ground.ms(theirs.network)} ms"
        verdicts.append(
            (
                what,
                AGREES if off > 2 * error else OPEN,
                f"{100 * off:+.2f} points over {rival}, the best of the single types, neither "
                "squeezed; the surrogate's standard error of such a difference is "
                f"{100 * error:.2f} ({times_ms})",
            )
        )
        kept += [
            Compared(f"{name}, {limit:.2f} ms", best.network)
            for name, best in ((mixed.name, ours), (rival, theirs))
        ]
    a1 = space.zoo.network("mnasnet-a1")
    bases = [("MnasNet-A1", a1)]
    if (mixed.name, 1.0) in top:
        bases.append(("the best mixed network", top[mixed.name, 1.0].network))
    of_bases = [_Variants.of(ground, base, network) for base, network in bases]
    for one in of_bases:
        figures |= one.figures
        kept += one.compared
        gains = ", ".join(f"{100 * g:+.2f}" for g in one.gains)
        signs = [g > 2 * d for g, d in zip(one.gains, one.errors, strict=True)]
        verdicts.append(
            (
                f"In the layers and filters of {one.base} a mixed network is more accurate than "
                f"one type throughout",
                AGREES
                if signs and all(signs)
                else DISAGREES
                if max(one.gains, default=0) < 0
                else OPEN,
                f"with the same layers and filters a mixed network predicted no slower is {gains} "
                f"points more accurate than the four types; {sum(signs)} of {len(signs)} gains are "
                "two standard errors or more",
            )
        )
    published = [PUBLISHED_A1[0], *(PUBLISHED[kind][0] for kind in TYPES)]
    tau = float(stats.kendalltau(of_bases[0].tops, published).statistic)
    figures["A1: kendall"] = tau
    return Claim(
        "Layer diversity",
        "MnasNet-A1 mixes kernels and kinds of layer. One kind throughout, with the same number "
        "of layers and the same filters, gives worse trade-offs: 71.8 % at 63 ms (MBConv3 3×3), "
        "72.5 % at 78, 74.9 % at 116 and 75.6 % at 146 ms (MBConv6 5×5) against its 75.2 % at 78 "
        "ms (section 6.3, table 6).",
        (
            (
                "Best top-1 in % at three limits, filters and layers free, by NSGA-II with "
                f"{budget:,} networks in each space; mean and standard deviation of {ground.seeds} "
                "seeds. All resemble the networks that the surrogate was fitted on: others were "
                "not counted.",
                ["space", *(f"○ {t * ground.target:.2f} ms" for t in AT)],
                rows,
            ),
            (
                "The paper's own test: the same layers and filters. Beside each the best of all "
                f"networks of these layers and filters ({len(Skeleton.kinds)} kinds of layer a "
                "block, none squeezed) that is predicted no slower.",
                [
                    "network",
                    "ms here",
                    "top-1, 16 epochs, %",
                    "best mixed, no slower",
                    "published, 350 epochs, Pixel 1",
                ],
                [row for one in of_bases for row in one.rows],
            ),
        ),
        (
            f"{len(spaces)} spaces, {ground.seeds} seeds, {budget:,} networks each. The mixed "
            "spaces hold every single type: they can lose only by a poor search, and the best "
            "of many more networks profits more from the surrogate's errors. So a gain counts "
            "from two standard errors, and only uniform variants ahead of all mixed networks found "
            "count against the claim.",
            "Squeeze-and-excite is not a layer type of the paper's variants, though A1 has it: so "
            "the verdicts compare with networks without it.",
            "Of MnasNet-A1 and its four variants the surrogate's order agrees with the published "
            f"one by Kendall τ {tau:.2f} (5 networks). It was fitted on networks whose seven "
            "blocks differ from each other; uniform ones are rare among them, and none was "
            "trained here.",
        ),
        tuple(verdicts),
        figures,
        tuple(kept),
    )


@dataclass(frozen=True)
class _Best:
    """The best networks of several seeds under a limit: each one's top-1, and the best of all."""

    tops: Floats
    error: float
    network: Architecture

    @property
    def top1(self) -> float:
        return float(self.tops.mean())


def _best_inside(runs: Sequence[Sampled], limit_ms: float) -> _Best | None:
    inside_rows = [(r, row) for r in runs if (row := r.best(limit_ms, inside=True)) is not None]
    if not inside_rows:
        return None
    run, row = max(inside_rows, key=lambda f: f[0].top1[f[1]])
    tops = np.array([r.top1[i] for r, i in inside_rows])
    return _Best(tops, float(run.top1_error[row]), run.space.decode(run.genomes[row]))


@dataclass(frozen=True)
class _Variants:
    """A network and one type throughout its layers and filters, each beside mixed ones no slower.

    `gains` and `errors` are those of the four types: how much more accurate the best mixed network
    is, and the standard error of that.
    """

    base: str
    tops: list[float]
    gains: list[float]
    errors: list[float]
    rows: list[list[str]]
    compared: list[Compared]
    figures: dict[str, float]

    @classmethod
    def of(cls, ground: Ground, base: str, network: Architecture) -> _Variants:
        """Judge them beside all networks of the same layers and filters."""
        mixed = [ground.every(Skeleton(base, network))]
        shown = [Compared(base, network)] + [
            Compared(f"{base}: {name} throughout", throughout(network, *kind))
            for kind, name in TYPES.items()
        ]
        printed = [PUBLISHED_A1, *(PUBLISHED[kind] for kind in TYPES)]
        estimates = ground.accuracy.estimate([c.network for c in shown])
        limits = ground.model.latency_ms([c.network for c in shown])
        variants = cls(base, estimates.top1.tolist(), [], [], [], shown, {})
        for i, (one, (published, pixel_ms)) in enumerate(zip(shown, printed, strict=True)):
            rival = _best_inside(mixed, float(limits[i]))
            top1, error = float(estimates.top1[i]), float(estimates.standard_error[i])
            variants.figures.update(
                {f"{one.name}: top1": top1, f"{one.name}: ms": float(limits[i])}
            )
            best = float(rival.tops.max()) if rival is not None else 0.0
            if i and rival is not None:
                variants.gains.append(best - top1)
                variants.errors.append(float(np.hypot(error, rival.error)))
            variants.rows.append(
                [
                    one.name,
                    ground.ms(one.network),
                    f"{100 * top1:.2f} ± {100 * error:.2f}"
                    + (" outside" if estimates.outside[i] else ""),
                    f"{100 * best:.2f}" if best else "none",
                    f"{published:.1f} % · {pixel_ms} ms" if base == "MnasNet-A1" else "",
                ]
            )
        return variants


# -- MACs against latency -------------------------------------------------------------------------


def macs(ground: Ground) -> Claim:
    """MACs against latency, measured; and what a search for MACs costs.

    Raises:
        NotEnoughData: Fewer than 10 networks of a profile are measured.
    """
    taken = [m for m in ground.measurements if m.purpose == "profile"]
    if len(taken) < 10:
        raise NotEnoughData(
            f"{len(taken)} whole networks of a profile are measured on {ground.model.device}, and "
            "the comparison with MACs needs 10 or more. Measure some:  phonenas profile --device "
            f"{ground.model.device} --space mnasnet --networks 30"
        )
    networks = [Architecture.parse(m.subject) for m in taken]
    counted = np.array([a.macs for a in networks], float)
    measured = np.array([m.latency_ms for m in taken])
    spearman = float(stats.spearmanr(counted, measured).statistic)
    kendall = float(stats.kendalltau(counted, measured).statistic)
    pairs = [
        (max(measured[i], measured[j]) / min(measured[i], measured[j]), i, j)
        for i, j in combinations(range(len(taken)), 2)
        if max(counted[i], counted[j]) <= (1 + ALIKE) * min(counted[i], counted[j])
    ]
    ratios = np.array([p[0] for p in pairs]) if pairs else np.array([np.nan])
    scatter = float(np.nanmedian([m.spread for m in taken]))
    figures = {
        "networks": float(len(taken)),
        "spearman": spearman,
        "kendall": kendall,
        "pairs": float(len(pairs)),
        "median ratio": float(np.median(ratios)),
        "greatest ratio": float(ratios.max()),
        "scatter": scatter,
    }
    mark = ground.mark
    rows = [
        ["rank correlation of MACs and latency, Spearman", f"{mark} {spearman:.3f}"],
        ["the same, Kendall τ", f"{mark} {kendall:.3f}"],
        [f"pairs of networks whose MACs differ by at most {ALIKE:.0%}", f"{len(pairs)}"],
        [
            "the slower of such a pair takes, median",
            f"{mark} {figures['median ratio']:.2f} times as long",
        ],
        ["at most", f"{mark} {figures['greatest ratio']:.2f} times as long"],
    ]
    for key, name in (("macs", "a straight line in MACs"), ("model", "the latency model")):
        if key in ground.model.scores:
            s = ground.model.scores[key]
            figures |= {f"{key}: mape": s.mape, f"{key}: spearman": s.spearman}
            rows.append(
                [
                    f"mean error of {name} on held-out networks",
                    f"{s.mape:.1%} (Spearman {s.spearman:.3f})",
                ]
            )
    shown = []
    for ratio, i, j in sorted(pairs, reverse=True)[:3]:
        slow, fast = (i, j) if measured[i] > measured[j] else (j, i)
        shown.append(
            [
                f"{counted[fast] / 1e6:.0f} M, {mark} {measured[fast]:.2f} ms",
                f"{counted[slow] / 1e6:.0f} M, {mark} {measured[slow]:.2f} ms",
                f"{ratio:.2f}",
            ]
        )
    longer, outside = _steered(ground)
    score = ground.model.scores.get("model")
    least_factor = 1 + 2 * (0.05 if score is None else score.mape)
    figures |= {"steered by MACs": float(np.median(longer)), "steered, most": float(longer.max())}
    rows.append(
        [
            "networks of the exact front in MACs against those of the exact front in latency, at "
            "equal top-1: latency, median",
            f"○ {figures['steered by MACs']:.2f} times",
        ]
    )
    apart = figures["median ratio"] - 1 > 2 * scatter and figures["greatest ratio"] > 1.2
    return Claim(
        "MACs against latency",
        "FLOPS are a poor stand-in for latency: MobileNet and NASNet count 575 and 564 M and take "
        "113 and 183 ms on a Pixel 1; so latency is measured on the phone and put into the "
        "objective (section 1).",
        (
            (
                f"{len(taken)} random networks of the {ground.mnas.name} space, measured whole.",
                ["", ""],
                rows,
            ),
            ("The pairs that lie furthest apart:", ["faster", "slower", "ratio"], shown),
        ),
        (
            f"{len(taken)} networks, {len(pairs)} pairs, on one device: {ground.model.conditions}. "
            f"Rounds of one network stand ±{scatter:.1%} apart (median), which the ratios must be "
            "compared with.",
            "Random networks differ more than those that a search compares, in MACs as in kinds "
            "of layer: more MACs raise the rank correlation, more kinds lower it.",
            "The last line of the table needs sums: it takes an additive accuracy fitted to the "
            "surrogate, and dynamic programming over the whole space, between half and twice "
            f"{ground.target:.2f} ms. It is predicted, not measured, so a difference counts from "
            f"twice the model's mean error on, {least_factor:.2f} times. {outside:.0%} of these "
            "networks "
            "are outside what the surrogate saw.",
        ),
        (
            (
                "Networks of equal MACs differ in latency",
                _verdict(1 if apart else 0 if len(pairs) < 10 else -1),
                f"up to {figures['greatest ratio']:.2f} times, {figures['median ratio']:.2f} times "
                "in the median pair",
            ),
            (
                "A search must see latency instead of MACs",
                _verdict(
                    1 if np.median(longer) > least_factor else -1 if np.median(longer) < 1.01 else 0
                ),
                "searched by MACs, networks of the same additive top-1 take "
                f"{np.median(longer):.2f} times as long in the median (predicted), at most "
                f"{longer.max():.2f} times",
            ),
        ),
        figures,
    )


def _steered(ground: Ground) -> tuple[Floats, float]:
    """How much longer networks take that were searched by MACs, (k,).

    And the share outside of both.
    """
    latency = AdditiveTable(ground.mnas, lambda o: float(o.macs)), ground.model.on(ground.mnas)
    gain = Additive(ground.accuracy).table(ground.mnas)
    by_macs = search.exact_front(ground.mnas, latency[0], gain)
    by_ms = search.exact_front(ground.mnas, latency[1], gain)
    near = (by_ms.cost >= ground.target / 2) & (by_ms.cost <= 2 * ground.target)
    if not near.any():
        raise NotEnoughData(f"no network of the exact front lies near {ground.target:.2f} ms")
    # The cheapest in MACs that is at least as accurate.
    beside = np.searchsorted(by_macs.gain, by_ms.gain[near] - 1e-12)
    beside = beside[beside < len(by_macs)]
    genomes = np.concatenate([by_ms.genomes[near], by_macs.genomes[beside]])
    longer: Floats = latency[1](by_macs.genomes[beside]) / by_ms.cost[near][: len(beside)]
    return longer, float(ground.accuracy.on(ground.mnas)(genomes).outside.mean())


CLAIMS: tuple[Callable[[Ground], Claim], ...] = (rewards, evolution, flat, diversity, macs)


# -- the paper's own table ------------------------------------------------------------------------


def table(times: DeviceTimes) -> list[str]:
    """The section with the paper's networks: published, on a ready Pixel 1, and on this device.

    Args:
        times: Of this device: its models, and what its store has measured.
    """
    ready = load_ready(PIXEL1)
    pixel1 = DeviceTimes(PIXEL1, ready, {})
    rows, off, here_off = [], [], []
    for name, width, top1, ms in TABLE:
        one = named(name, width)
        there, here = pixel1.timing(one), times.timing(one)
        assert there.predicted_ms is not None and one.macs and one.params
        off.append(there.predicted_ms / ms - 1)
        if here.error is not None and not here.fitted_on:
            here_off.append(here.error)
        rows.append(
            [
                name + ("" if width == 1 else f" ×{width:g}"),
                f"{one.macs / 1e6:.0f} M",
                f"{one.params / 1e6:.2f} M",
                f"{top1:.1f}",
                f"{ms:g}",
                _predicted(there),
                f"{off[-1]:+.1%}",
                _predicted(here),
                "" if here.measured_ms is None else f"{_mark(here)} {here.measured_ms:.2f}",
            ]
        )
    score = ready.scores["model"]
    here_known = any(row[7] or row[8] for row in rows)
    rows = rows if here_known else [row[:7] for row in rows]
    header = [
        "network",
        "MACs",
        "parameters",
        "top-1, %",
        "Pixel 1, ms",
        "ready model, ms",
        "error",
    ]
    header += [f"{times.device}, predicted, ms", "in the store, ms"] * here_known
    lines = [
        "",
        f"## {TABLE_TITLE}",
        "",
        "Top-1 in % after the paper's full schedule and milliseconds on a Pixel 1, as published; "
        f"the Pixel 1 as the ready model `{PIXEL1}` predicts it (○, with its 90 % interval)"
        + (f"; and {times.device}" * here_known)
        + ". `phonenas compare` prints such a table of any networks.",
        "",
        *_table(header, rows),
        "",
        f"- The ready model was fitted on {ready.measurements} published figures of a Pixel 1, "
        f"most of these among them: here its mean error is {np.mean(np.abs(off)):.1%}. With each "
        f"family left out it is {score.mape:.1%} (Spearman {score.spearman:.3f}).",
        "- MnasNet-A2 (75.6 % at 84 ms) and A3 (76.7 % at 103 ms) are in the paper's table, and "
        "their blocks are not published.",
    ]
    if here_off:
        lines.append(
            f"- {len(here_off)} of them were measured on {times.device} after the fit: mean error "
            f"{np.mean(np.abs(here_off)):.1%}."
        )
    if times.note:
        lines.append(f"- {times.note}")
    return lines


TABLE_TITLE = "The paper's networks"


def _mark(timing: Any) -> str:
    return "●" if timing.origin == "measured" else "◌"


def _predicted(timing: Any) -> str:
    if timing.predicted_ms is None:
        return ""
    return f"○ {timing.predicted_ms:.2f} ({timing.low_ms:.2f} to {timing.high_ms:.2f})"


def with_table(text: str, section: Sequence[str]) -> str:
    """A page with this section in the place of its own of that title, or at its end."""
    before, title, after = text.partition(f"\n## {TABLE_TITLE}\n")
    rest = after.partition("\n## ") if title else ("", "", "")
    return before.rstrip("\n") + "\n" + "\n".join(section) + "\n" + "".join(rest[1:])


# -- the page -------------------------------------------------------------------------------------


def compared(claims: Sequence[Claim]) -> list[Compared]:
    """The target's network and all that the claims compare, each once."""
    by_text = {str(space.zoo.network(TARGET)): Compared("MobileNetV2", space.zoo.network(TARGET))}
    for claim in claims:
        for one in claim.networks:
            by_text.setdefault(str(one.network), one)
    return list(by_text.values())


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def page(ground: Ground, claims: Sequence[Claim]) -> str:
    """The whole of docs/paper.md."""
    aim = (
        "given"
        if ground.target_ms is not None
        else "MobileNetV2's latency, as the paper's 75 ms is"
    )
    origin = ground.model.conditions.origin
    lines = [
        "# The paper's claims, tested",
        "",
        "Tan et al., *MnasNet: Platform-Aware Neural Architecture Search for Mobile*, CVPR 2019, "
        "compared with what this project observes on one device. Made by `tools/paper.py` from a "
        f"store of {ground.model.device}; not written by hand.",
        "",
        f"Device: {ground.model.conditions}. The model is of {ground.model.until[:10]}, from "
        f"{len(ground.model.table):,} operators and {ground.model.calibration.networks} whole "
        f"networks. Target: {ground.target:.2f} ms ({aim}). {ground.seeds} seeds, "
        f"{ground.evaluations:,} distinct networks a search unless said otherwise.",
        "",
        ground.rests_on(),
        "",
        "A difference between searches counts where Student's 95 % interval of its mean over "
        "seeds leaves 0 out. Verdicts follow from the figures by rules in the script; *outside* "
        "means that the surrogate extrapolates from the networks that it was fitted on.",
        "",
    ]
    if origin != "measured":
        lines += [f"**{origin.upper()}: no device was measured for these numbers.**", ""]
    lines += _table(
        ["claim", "verdict"],
        [[what, f"**{verdict}**"] for claim in claims for what, verdict, _ in claim.verdicts],
    )
    for claim in claims:
        lines += [
            "",
            f"## {claim.title}",
            "",
            f"**The paper says.** {claim.says}",
            "",
            "**Seen here.**",
        ]
        for caption, header, rows in claim.tables:
            lines += ["", caption, "", *_table(header, rows)]
        lines += ["", "**Evidence.**", "", *(f"- {one}" for one in claim.evidence)]
        lines += ["", "**Verdict.**", ""]
        lines += [f"- {what}: **{verdict}**; {why}." for what, verdict, why in claim.verdicts]
    return "\n".join([*lines, *_measured(ground, compared(claims))]) + "\n"


def _measured(ground: Ground, networks: Sequence[Compared]) -> list[str]:
    """The networks that the claims compare: predicted, and measured where they were."""
    architectures = [one.network for one in networks]
    by_model, top1 = ground.model.predict(architectures), ground.accuracy.estimate(architectures)
    rows, inside, off = [], 0, []
    for i, one in enumerate(networks):
        measured = ground.measured_ms(one.network)
        if measured is not None:
            inside += bool(by_model.low_ms[i] <= measured <= by_model.high_ms[i])
            off.append(by_model.ms[i] / measured - 1)
        rows.append(
            [
                one.name,
                f"○ {by_model.ms[i]:.2f} ({by_model.low_ms[i]:.2f} to {by_model.high_ms[i]:.2f})",
                "" if measured is None else f"{ground.mark} {measured:.2f}",
                f"{100 * top1.top1[i]:.2f}",
                "outside" if top1.outside[i] else "",
                f"{one.network.macs / 1e6:.0f} M",
            ]
        )
    lines = ["", "## The networks compared", ""]
    if off:
        lines.append(
            f"{len(off)} of {len(networks)} are measured: {inside} lie in their 90 % interval, "
            f"mean error {np.mean(np.abs(off)):.1%}, bias {np.mean(off):+.1%}."
        )
    else:
        lines.append(
            f"None of these {len(networks)} is measured: their latencies are predicted alone."
        )
    header = [
        "network",
        "predicted, ms (90 %)",
        ground.model.conditions.origin,
        "top-1, %",
        "",
        "MACs",
    ]
    lines += ["", *_table(header, rows), "", "<details><summary>Their blocks</summary>", ""]
    lines += [f"- {one.name}: `{one.network}`" for one in networks]
    return [*lines, "", "</details>"]


# -- the command ----------------------------------------------------------------------------------


def _model(db: str, device: str, path: Path | None, quiet: bool) -> latency_model.LatencyModel:
    """The store's latency model; fitted and written where there is none, as `phonenas fit` does."""
    if path is None and not stored_model(db, device, None).exists():
        with data.MeasurementStore(db, create=False) as store:
            fitted = latency_model.fit(store, device)
            fitted.save(model_path(db, device, fitted.conditions.precision))
    return find_model(db, device, path, quiet)


def _measure(
    model: latency_model.LatencyModel, networks: Sequence[Compared], db: str, quiet: bool
) -> None:
    """Measure those of the networks that the store lacks, under the model's conditions."""
    measurable(model)
    conditions = model.conditions
    with (
        devices.connect(
            conditions.device, threads=conditions.threads, precision=conditions.precision
        ) as phone,
        data.MeasurementStore(db, create=False) as store,
        Bars(quiet) as bars,
    ):
        if phone.conditions != conditions:
            raise SettingsChanged(
                f"{phone.name} is not as it was when its model was measured: "
                f"{'; '.join(conditions.differences(phone.conditions))} (then / now). Profile and "
                f"fit again:  phonenas profile --device {phone.name}"
            )
        # A search chose them: they teach the next model, and do not examine it.
        done = devices.measure(
            [devices.Subject("network", one.network) for one in networks],
            on=phone,
            into=store,
            purpose="validation",
            on_event=bars.profiling,
        )
    for network, reason in done.unstable.items():
        print(f"not measured: {network}: {reason}", file=sys.stderr)


def main(words: Sequence[str] | None = None) -> None:
    """Read the words, try the claims, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--db", default="phonenas.db", help="measurement store")
    parser.add_argument("--device", default="local")
    parser.add_argument("--model", type=Path, help="latency model file; default: the store's")
    parser.add_argument("--target", type=float, help="ms; default: MobileNetV2's latency there")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--evaluations", type=int, default=4000)
    parser.add_argument("--measure", action="store_true", help="the networks compared, at most 25")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument(
        "--table", action="store_true", help="write the section with the paper's networks alone"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/paper.md"))
    given = parser.parse_args(words)
    try:
        if given.table and not Path(given.db).exists():
            model, times = None, DeviceTimes(given.device, None, {})
        else:
            model = _model(given.db, given.device, given.model, given.quiet)
            times = DeviceTimes.around(model, given.db)
        if given.table:
            section = table(times)
            text = given.out.read_text(encoding="utf-8") if given.out.exists() else ""
            print(write_atomic(given.out, with_table(text, section)))
            return
        assert model is not None
        if given.measure and given.target is None:
            _measure(model, compared(()), given.db, given.quiet)
        ground = _ground(given, model)
        claims = [_tried(claim, ground, given.quiet) for claim in CLAIMS]
        if given.measure:
            _measure(model, compared(claims), given.db, given.quiet)
            ground = _ground(given, model, ground)
            claims = [claim(ground) for claim in CLAIMS]
        section = table(DeviceTimes.around(model, given.db))  # measured by now
        write_atomic(given.out, with_table(page(ground, claims), section))
    except PhonenasError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(given.out)


def _ground(
    given: argparse.Namespace, model: latency_model.LatencyModel, before: Ground | None = None
) -> Ground:
    """What the store holds by now; the searches of an earlier one are kept."""
    with data.MeasurementStore(given.db, create=False) as store:
        taken = store.measurements(model.conditions, "network")
    made = Ground(model, taken, given.target, given.seeds, given.evaluations)
    if before is not None:
        made.searched = before.searched
    return made


def _tried(claim: Callable[[Ground], Claim], ground: Ground, quiet: bool) -> Claim:
    outcome = claim(ground)
    if not quiet:
        print(f"tried: {outcome.title}", file=sys.stderr, flush=True)
    return outcome


if __name__ == "__main__":
    main()
