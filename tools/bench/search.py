"""`make bench`, search: shares of exact fronts, rates, learning. Printed, never asserted.

    python -m tools.bench.search [--db STORE --device NAME] [--million] [--only rates ...]

With a store the latency model is fitted to what it holds; else it is a made-up roofline.
`--million` adds the million evaluations, of nsga2 and of pymoo alone (some minutes).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # rates are of one core

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from phonenas import data, latency_model, search, space  # noqa: E402
from phonenas.latency_model import LatencyModel  # noqa: E402
from phonenas.search.benchmarks import model, table  # noqa: E402
from phonenas.search.pareto import hypervolume  # noqa: E402
from phonenas.search.strategies.controller import Hyperparameters  # noqa: E402
from phonenas.search.strategies.reward import HARD, rewards_of  # noqa: E402

__all__ = [
    "bench_learning",
    "bench_million",
    "bench_on_a_model",
    "bench_rates",
    "bench_search",
    "bench_shares",
]

Say = Callable[..., None]
SHARED = Path(__file__).parents[3] / "shared" / "data"
TABLES = (
    ("nasbench_macro.csv", "l*", "mean_acc", "flops"),
    ("accel_nasbench.csv", "block*", "val_top1", "latency_zcu102_mean"),
    ("accel_nasbench.csv", "block*", "val_top1", "latency_vck190_mean"),
)
GOALS = {
    ("surrogate", 200): ">= 0.995",
    ("nsga2", 200): ">= 0.985",
    ("nsga2", 500): ">= 0.999",
    ("surrogate", 500): ">= 0.999",
    ("weighted", 500): ">= 0.97",
    ("rl", 200): "above random",
    ("rl", 500): "above random",
}


MILLION = 1_000_000
TARGET_PLACE = 0.2  # of the target among random networks' latencies: a fifth meets it


def _names() -> list[str]:
    return [n for n in search.names() if n != "rl" or importlib.util.find_spec("torch")]


def bench_search(say: Say, seeds: int = 10) -> None:
    """Share of the exact front's hypervolume after 200 and 500 distinct evaluations."""
    names = _names()
    for file, genes, quality, cost in TABLES:
        if not (SHARED / file).is_file():
            say(f"{file}, share of the exact front", "not measured", "the table is not there")
            continue
        found = table.strategies(
            table.read(pd.read_csv(SHARED / file), genes=[genes], maximize=quality, minimize=cost),
            names=names,
            evaluations=[200, 500],
            seeds=seeds,
        )
        for m in found["means"]:
            goal = GOALS.get((m["strategy"], m["evaluations"]), "")
            say(
                f"{file}, {cost}: {m['strategy']} after {m['evaluations']}, mean of {seeds}",
                f"{m['hypervolume_ratio']:.4f}",
                f"{goal if file.startswith('nasbench') else ''}  worst {m['worst']:.4f}",
            )


def bench_on_a_model(say: Say, seeds: int = 5) -> None:
    """Regret of what strategies hand in that see a model of half of the rows."""
    for file, genes, quality, cost in TABLES[1:]:
        if not (SHARED / file).is_file():
            say(f"{file}, regret by a model", "not measured", "the table is not there")
            continue
        found = model.strategies_on_a_model(
            table.read(pd.read_csv(SHARED / file), genes=[genes], maximize=quality, minimize=cost),
            names=[n for n in _names() if n != "surrogate"],
            evaluations=[100, 200, 500],
            seeds=seeds,
        )
        blind = [x["blind_regret"] for x in found["limits"]]
        lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for m in found["means"]:
            lines.setdefault((m["strategy"], f"{m['evaluations']:,}"), []).append(m)
        say(
            f"{file}, {cost}: a row drawn blindly within the limit, regret",
            f"{np.mean(blind):.3f}",
            "at 5 limits  " + " ".join(f"{r:.3f}" for r in blind),
        )
        for (name, judged), means in lines.items():
            missed = sum(m["misses"] for m in means)
            say(
                f"{file}, {cost}: {name}, {judged} judged by a model, regret",
                f"{np.mean([m['regret'] for m in means]):.3f}",
                "at 5 limits  "
                + " ".join(f"{m['regret']:.3f}" for m in means)
                + f"  {missed} of {5 * seeds} overstep",
            )


def _target(mnas: space.MnasNet, model: LatencyModel) -> float:
    drawn = mnas.sample(np.random.default_rng(0), 10_000)
    return float(np.quantile(model.on(mnas)(drawn), TARGET_PLACE))


def bench_rates(say: Say, mnas: space.MnasNet, model: LatencyModel) -> None:
    """Seconds of whole searches, models included; of pymoo alone on the same objectives."""
    accuracy, target_ms = search.accuracy.Surrogate(), _target(mnas, model)
    genomes = mnas.sample(np.random.default_rng(0), 10)
    accuracy.on(mnas)(genomes), model.on(mnas)(genomes)  # tables of the space, made once

    def run(name: str, evaluations: int, into: Path | None = None) -> None:
        search.run(
            mnas,
            latency=model,
            accuracy=accuracy,
            strategy=search.get(name),
            target_ms=target_ms,
            evaluations=evaluations,
            into=into,
        )

    alone = _taken(lambda: pymoo_alone(mnas, model, 8000), 3)
    say("8,000 evaluations, pymoo's NSGA-II alone", _seconds(alone), "on the same two models")
    jobs = [
        ("nsga2", 8000, 3, "<= 1.5 s"),
        ("weighted", 8000, 3, "<= 1.5 s"),
        ("random", 8000, 3, ""),
        ("rl", 8000, 1, "<= 30 s"),
        ("surrogate", 300, 1, ""),
    ]
    for name, evaluations, times, goal in jobs:
        if name not in _names():
            continue
        taken = _taken(lambda n=name, e=evaluations: run(n, e), times)  # type: ignore[misc]
        ratio = f"{taken[1] / alone[1]:.2f} times pymoo alone" if evaluations == 8000 else ""
        say(f"{evaluations:,} evaluations, {name}", _seconds(taken), f"{goal}  {ratio}")
    with tempfile.TemporaryDirectory() as folder:
        taken = _taken(lambda: run("nsga2", 8000, Path(folder) / "run"), 1)
    say("8,000 evaluations, nsga2, into a run folder", _seconds(taken))


def pymoo_alone(mnas: space.MnasNet, model: LatencyModel, evaluations: int) -> None:
    """Plain NSGA-II on integers with the same two models: no memory of networks, no target."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.ux import UniformCrossover
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    top1, latency = search.accuracy.Surrogate().on(mnas), model.on(mnas)

    class Two(Problem):  # type: ignore[misc]
        def _evaluate(self, x: np.ndarray, out: dict[str, object], *a: object, **k: object) -> None:
            genomes = x.astype(np.int8)
            out["F"] = np.column_stack([1 - top1(genomes).top1, latency(genomes)])

    minimize(
        Two(n_var=len(mnas.option_counts), n_obj=2, xl=0, xu=mnas.option_counts - 1, vtype=int),
        NSGA2(
            100,
            sampling=IntegerRandomSampling(),
            crossover=UniformCrossover(),
            mutation=PM(repair=RoundingRepair()),
            eliminate_duplicates=False,
        ),
        ("n_eval", evaluations),
        seed=0,
    )


def _taken(work: Callable[[], object], times: int) -> tuple[float, float]:
    """Wall and processor seconds of the quickest of several."""
    taken = []
    for _ in range(times):
        began, busy = time.perf_counter(), time.process_time()
        work()
        taken.append((time.perf_counter() - began, time.process_time() - busy))
    return min(taken)


def _seconds(taken: tuple[float, float]) -> str:
    return f"{taken[0]:.2f} s ({taken[1]:.2f} busy)"


def bench_million(say: Say, model: LatencyModel) -> None:
    """A million evaluations, each in a process of its own, whose memory is told."""
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        path = model.save(Path(folder) / "model.json")
        for name in ("pymoo", "nsga2"):
            words = [sys.executable, __file__, "--alone", name, "--model", str(path)]
            told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
            wall, seconds[name], peak = map(float, told.split())
            goal = f"<= 90 s, 2 GB  {seconds[name] / seconds['pymoo']:.2f} times pymoo alone"
            say(
                f"{MILLION:,} evaluations, {name}" + " alone" * (name == "pymoo"),
                _seconds((wall, seconds[name])),
                f"{goal if name == 'nsga2' else ''}  peak {peak:.2f} GB",
            )


def _alone(name: str, path: Path) -> None:
    """Wall and processor seconds of a million evaluations, and peak memory in GB, printed."""
    mnas, model = space.MnasNet(), latency_model.load(path)
    accuracy = search.accuracy.Surrogate()
    genomes = mnas.sample(np.random.default_rng(0), 10)
    accuracy.on(mnas)(genomes), model.on(mnas)(genomes)
    if name == "pymoo":
        taken = _taken(lambda: pymoo_alone(mnas, model, MILLION), 1)
    else:
        target_ms = _target(mnas, model)
        taken = _taken(
            lambda: search.run(
                mnas,
                latency=model,
                accuracy=accuracy,
                strategy=search.get(name),
                target_ms=target_ms,
                evaluations=MILLION,
            ),
            1,
        )
    print(*taken, _peak_gb())


def _peak_gb() -> float:
    status = Path("/proc/self/status")
    if status.is_file():  # a program's own: the other figure begins with its parent's
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def bench_shares(say: Say, mnas: space.MnasNet, model: LatencyModel, seeds: int = 3) -> None:
    """Hypervolume of each strategy's front as a share of the exact front of the whole space.

    Both objectives are sums, so that the exact front is known: table latency, and `Additive`.
    The corner is that of the exact front itself: the cost of its most accurate network, the
    accuracy of its fastest.
    """
    cost, gain = model.on(mnas), search.accuracy.Additive().table(mnas)
    began = time.perf_counter()
    exact = search.exact_front(mnas, cost, gain)
    say(
        "exact front of mnasnet, table latency and additive accuracy",
        f"{time.perf_counter() - began:.2f} s",
        f"{len(exact):,} of {mnas.size:.0e} networks",
    )
    front = np.column_stack([exact.cost, -exact.gain])
    low, high = front.min(axis=0), front.max(axis=0)
    high = low + (high - low) * (1 + 1e-9)
    whole = hypervolume(front, low, high)
    budgets = (8000, 20_000)
    for name in _names():
        if name == "surrogate":
            continue  # for hundreds of evaluations
        shares = []
        for seed in range(1 if name == "rl" else seeds):
            losses = _searched(search.get(name, seed), mnas, cost, gain, budgets[-1])
            shares.append(
                [hypervolume(losses[:n, ::-1] - (0, 1), low, high) / whole for n in budgets]
            )
        for n, share in zip(budgets, np.transpose(shares), strict=True):
            goal = ">= 0.98" if (name, n) == ("nsga2", 20_000) else ""
            say(
                f"mnasnet, share of the exact front: {name} after {n:,}, mean of {len(shares)}",
                f"{share.mean():.4f}",
                f"{goal}  worst {share.min():.4f}",
            )


def _searched(
    strategy: search.Strategy,
    mnas: space.MnasNet,
    cost: Callable[[Any], Any],
    gain: Callable[[Any], Any],
    evaluations: int,
    target: float | None = None,
) -> np.ndarray:
    """Losses, (n, 2), of the distinct networks that a strategy asked for, in order."""
    strategy.start(mnas, target)
    seen: set[bytes] = set()
    found = []
    while len(seen) < evaluations:
        genomes = strategy.ask(evaluations - len(seen))
        losses = np.column_stack([1 - gain(genomes), cost(genomes)])
        over = np.zeros(len(genomes)) if target is None else losses[:, 1] / target - 1
        strategy.tell(genomes, losses, over)
        for key, loss in zip(mnas.keys(genomes), losses, strict=True):
            if key not in seen:
                seen.add(key)
                found.append(loss)
    return np.array(found)


def bench_learning(
    say: Say, mnas: space.MnasNet, model: LatencyModel, networks: int = 2000, seeds: int = 2
) -> None:
    """The controller's reward, whole and with each of its parts turned off.

    No network is asked twice. A controller that says the same again has random ones judged
    instead, and its mean falls, however good the network is that it settled on.
    """
    if not importlib.util.find_spec("torch"):
        say("what the controller learns", "not measured", "torch is not installed")
        return
    cost, judge, target = model.on(mnas), search.accuracy.Surrogate().on(mnas), _target(mnas, model)

    def gain(genomes: Any) -> Any:
        return judge(genomes).top1

    drawn = mnas.sample(np.random.default_rng(9), 20_000)
    blind = rewards_of(np.column_stack([1 - gain(drawn), cost(drawn)]), target, HARD)
    say(
        "hard reward of random networks, 95th percentile",
        f"{np.quantile(blind, 0.95):.4f}",
        f"mean {blind.mean():.4f}, best of {len(blind):,} {blind.max():.4f}",
    )
    parts: list[tuple[str, dict[str, Any]]] = [
        ("rl", {}),
        ("rl without clipping", {"clip": None}),
        ("rl without entropy", {"entropy": 0.0}),
        ("rl without baseline", {"baseline": 0}),
    ]
    for name, part in parts:
        late, best = [], []
        for seed in range(seeds):
            strategy = search.Controller(seed, Hyperparameters(**part))
            losses = _searched(strategy, mnas, cost, gain, networks, target)
            rewards = rewards_of(losses, target, HARD)
            late.append(float(rewards[-500:].mean()))
            best.append(float(rewards.max()))
        say(
            f"mean reward of the last 500 of {networks:,}, {name}, mean of {seeds}",
            f"{np.mean(late):.4f}",
            f"{'above the 95th percentile' * (not part)}  worst {min(late):.4f}, best network "
            f"{np.mean(best):.4f}",
        )


def _fitted(db: str, device: str) -> LatencyModel:
    with data.MeasurementStore(db) as store:
        return latency_model.fit(store, device)


def main() -> None:
    from tools.bench.__main__ import made_up_model, say

    words = argparse.ArgumentParser(description="what strategies find, and how fast")
    words.add_argument("--db", help="a store of measurements; else the model is made up")
    words.add_argument("--device", default="local", help="whose, in the store")
    words.add_argument("--million", action="store_true", help="also a million evaluations")
    parts = ("rates", "shares", "learning", "tables", "models")
    words.add_argument("--only", choices=parts, action="append", help="some parts alone")
    words.add_argument("--alone", help=argparse.SUPPRESS)  # a process of its own
    words.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.alone:
        _alone(asked.alone, asked.model)
        return
    mnas = space.MnasNet()
    model = _fitted(asked.db, asked.device) if asked.db else made_up_model(mnas)
    wanted = asked.only or ([] if asked.million else parts)
    if asked.million:
        bench_million(say, model)
    if "rates" in wanted:
        bench_rates(say, mnas, model)
    if "shares" in wanted:
        bench_shares(say, mnas, model)
    if "learning" in wanted:
        bench_learning(say, mnas, model)
    if "tables" in wanted:
        bench_search(say)
    if "models" in wanted:
        bench_on_a_model(say)


if __name__ == "__main__":
    main()
