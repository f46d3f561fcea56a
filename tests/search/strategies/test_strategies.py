"""Strategies beyond NSGA-II: each keeps the contract, learns, and does what its name says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import TinySpace

from phonenas import search
from phonenas.search.pareto import hypervolume
from phonenas.search.strategies import registry
from phonenas.search.strategies.base import Strategy
from phonenas.search.strategies.controller import Controller, Hyperparameters
from phonenas.search.strategies.reward import HARD, SOFT, rewards_of
from phonenas.space import SearchSpace, get
from phonenas.space.errors import InvalidArgument, MissingExtra, UnknownName
from phonenas.testing import StrategyContract


def judged(space: SearchSpace, genomes: Any) -> Any:
    """Quality grows with even genes, cost with all: losses in conflict, (n, 2)."""
    open_genes = np.flatnonzero(space.option_counts > 1)
    share = genomes[:, open_genes] / (space.option_counts[open_genes] - 1)
    return np.column_stack([0.5 - 0.3 * share[:, ::2].mean(axis=1), 0.05 + share.mean(axis=1)])


BOX = ((0.2, 0.05), (0.5, 1.05))  # best and worst


def told(strategy: Strategy, space: SearchSpace, networks: int, target: float | None) -> Any:
    """Genomes and losses of so many networks, in order."""
    strategy.start(space, target)
    genomes: list[Any] = []
    losses: list[Any] = []
    while sum(map(len, genomes)) < networks:
        asked = strategy.ask(networks - sum(map(len, genomes)))
        found = judged(space, asked)
        strategy.tell(asked, found, found[:, 1] / (target or 1e9) - 1)
        genomes.append(asked)
        losses.append(found)
    return np.concatenate(genomes), np.concatenate(losses)


class TestWeightedProduct(StrategyContract):
    def make(self, seed: int) -> Strategy:
        return search.WeightedProduct(seed=seed)

    def test_the_eldest_die_however_good(self, tiny: TinySpace) -> None:
        strategy = search.WeightedProduct(seed=0, population=12)
        genomes, _ = told(strategy, tiny, 100, target=0.3)
        assert np.array_equal(strategy.state()["alive"], genomes[-12:])

    def test_each_target_has_its_own_winner(self, space: SearchSpace) -> None:
        for target in (0.25, 0.4):
            _, losses = told(search.WeightedProduct(seed=0), space, 600, target)
            late = losses[-100:]
            assert np.median(late[:, 1]) == pytest.approx(target, abs=0.05)
            blind = judged(space, space.sample(np.random.default_rng(0), 600))
            assert (
                rewards_of(losses, target, HARD).max()
                > rewards_of(blind, target, HARD).max() + 0.03
            )

    def test_without_a_target_the_whole_front_is_found(self, space: SearchSpace) -> None:
        _, losses = told(search.WeightedProduct(seed=0), space, 1000, None)
        blind = judged(space, space.sample(np.random.default_rng(0), 1000))
        assert hypervolume(losses, *BOX) > hypervolume(blind, *BOX) + 0.1

    def test_soft_exponents_are_settings(self) -> None:
        settings = search.WeightedProduct(exponents=SOFT).settings
        assert settings["exponents"] == [-0.07, -0.07]
        assert settings != search.WeightedProduct().settings

    @pytest.mark.parametrize(
        "more", [{"population": 1}, {"tournament": 0}, {"exponents": (0.1, -1.0)}]
    )
    def test_bad_settings_are_refused(self, more: dict[str, Any]) -> None:
        with pytest.raises(InvalidArgument):
            search.WeightedProduct(**more)


class TestRegularisedEvolution(StrategyContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return TinySpace(resolution=32)

    def make(self, seed: int) -> Strategy:
        return search.RegularisedEvolution(seed=seed, population=30)

    def test_the_first_population_is_random_and_the_oldest_die(self) -> None:
        strategy = search.RegularisedEvolution(seed=5, population=40, tournament=10)
        space = get("mnasnet")
        genomes, _ = told(strategy, space, 90, 0.3)
        expected = space.sample(np.random.default_rng(5), 40)
        assert np.array_equal(genomes[:40], expected)
        assert np.array_equal(strategy.state()["alive"], genomes[-40:])
        for i, child in enumerate(
            genomes[40:44]
        ):  # of one turn: a parent of the first 40 with one gene changed
            assert ((expected != child).sum(axis=1) == 1).any(), i

    def test_a_child_is_of_the_best_of_its_tournament(self) -> None:
        """With a tournament of many draws, of the best alive by the reward."""
        space = get("mnasnet")
        strategy = search.RegularisedEvolution(seed=1, population=40, tournament=2000)
        strategy.start(space, 0.3)
        first = strategy.ask(50)
        losses = judged(space, first)
        strategy.tell(first, losses, np.zeros(len(first)))
        rewards = (1 - losses[:, 0]) * np.minimum(1, 0.3 / losses[:, 1])
        best = first[int(np.argmax(rewards))]
        children = strategy.ask(50)
        assert len(children) == 4 and ((children != best).sum(axis=1) == 1).all()

    def test_it_finds_more_than_chance(self) -> None:
        space = get("mnasnet")
        _, losses = told(search.RegularisedEvolution(seed=0), space, 800, None)
        blind = judged(space, space.sample(np.random.default_rng(0), 800))
        assert hypervolume(losses, *BOX) > hypervolume(blind, *BOX) + 0.05


class ControllerContract(StrategyContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        """Eight genes of one, two and three options: the controller's steps are its cost."""
        return get("nasbench-macro l0=mb3_k3 l1!=identity")


class TestController(ControllerContract):
    def make(self, seed: int) -> Strategy:
        pytest.importorskip("torch")
        return search.Controller(seed=seed, hyperparameters=Hyperparameters(hidden=30, epochs=2))

    @staticmethod
    def late_rewards(**more: Any) -> tuple[float, Any]:
        """Mean reward of the last 100 of 600 samples, and rewards of random ones."""
        space = get("mnasnet")
        _, losses = told(Controller(0, Hyperparameters(**more)), space, 600, target=0.3)
        blind = judged(space, space.sample(np.random.default_rng(0), 2000))
        late = float(rewards_of(losses[-100:], 0.3, HARD).mean())
        return late, rewards_of(blind, 0.3, HARD)

    @pytest.mark.slow
    def test_it_learns(self) -> None:
        late, blind = self.late_rewards()
        assert late > np.quantile(blind, 0.95)

    @pytest.mark.slow
    def test_each_part_can_be_turned_off(self) -> None:
        whole = self.late_rewards()[0]
        parts: list[dict[str, Any]] = [{"clip": None}, {"entropy": 0.0}, {"baseline": 0}]
        others = [self.late_rewards(**part)[0] for part in parts]
        assert len({whole, *others}) == 4  # each is at work
        assert others[2] < whole  # without a baseline every network is praised

    def test_clipping_clips(self) -> None:
        """How far the choices of a much praised network move in one turn."""
        torch, space = pytest.importorskip("torch"), get("mnasnet")

        def moved(clip: float | None) -> float:
            strategy = Controller(0, Hyperparameters(clip=clip, epochs=20, entropy=0.0))
            strategy.start(space, 0.3)
            genomes = np.repeat(strategy.ask(10)[:1], 10, axis=0)
            with torch.no_grad():
                before = strategy._log_shares(genomes)[0]
            strategy._learn(genomes, np.ones(10))
            with torch.no_grad():
                return float((strategy._log_shares(genomes)[0] - before).exp().median())

        assert 1.1 < moved(0.1) < moved(0.4) < moved(None)

    @pytest.mark.slow
    def test_entropy_keeps_choices_open(self) -> None:
        torch, space = pytest.importorskip("torch"), get("mnasnet")

        def left(entropy: float) -> float:
            strategy = Controller(0, Hyperparameters(entropy=entropy))
            told(strategy, space, 400, 0.3)
            strategy._places = np.full(20, 0.5)
            with torch.no_grad():
                genomes = strategy._draw(strategy._places)
                return float(strategy._log_shares(genomes)[1].sum(dim=1).mean())

        assert left(0.3) > left(0.0)

    def test_probabilities_are_of_what_is_drawn(self) -> None:
        torch, space = pytest.importorskip("torch"), get("mnasnet")
        strategy = Controller(seed=0)
        told(strategy, space, 100, 0.3)
        strategy._places = np.full(4000, 0.5)
        drawn = strategy._draw(strategy._places)
        # The first gene depends on nothing: its frequencies are its probabilities.
        counts = space.option_counts
        asked = np.repeat(drawn[:1], counts[0], axis=0)
        asked[:, 0] = np.arange(counts[0])
        strategy._places = np.full(len(asked), 0.5)
        with torch.no_grad():
            w = strategy._weights
            place = strategy._read_places(strategy._places[:1])
            h, _ = torch.lstm_cell(
                w["tokens"][-1:] + place,
                (torch.zeros(1, 100), torch.zeros(1, 100)),
                w["w_in"],
                w["w_own"],
                w["b_in"],
                w["b_own"],
            )
            shares = torch.softmax((h @ w["w_out"].T + w["b_out"])[0, : counts[0]], 0).numpy()
        seen = np.bincount(drawn[:, 0], minlength=counts[0]) / len(drawn)
        assert seen == pytest.approx(shares, abs=0.04)

    def test_torch_s_own_chance_is_neither_read_nor_moved(self, space: SearchSpace) -> None:
        torch = pytest.importorskip("torch")
        asked = []
        for state in (1, 2):
            torch.manual_seed(state)
            before = torch.get_rng_state()
            asked.append(told(self.make(0), space, 60, None)[0])
            assert torch.equal(torch.get_rng_state(), before)
        assert np.array_equal(*asked)

    def test_without_torch_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(MissingExtra, match=r"pip install torch"):
            search.get("rl")

    @pytest.mark.parametrize(
        "more",
        [{"batch": 1}, {"epochs": 0}, {"clip": 0.0}, {"learning_rate": 0.0}, {"entropy": -1.0}],
    )
    def test_bad_settings_are_refused(self, more: dict[str, Any]) -> None:
        with pytest.raises(InvalidArgument):
            Hyperparameters(**more)

    def test_exponents_above_0_are_refused(self) -> None:
        with pytest.raises(InvalidArgument):
            Controller(exponents=(0.0, 1.0))

    def test_equal_seeds_give_equal_networks_on_any_number_of_threads(self) -> None:
        torch, space = pytest.importorskip("torch"), get("mnasnet")
        before, asked = torch.get_num_threads(), []
        try:
            for threads in (1, 2):
                torch.set_num_threads(threads)
                asked.append(told(search.Controller(seed=0), space, 100, 0.3)[0])
        finally:
            torch.set_num_threads(before)
        assert np.array_equal(*asked)


@pytest.mark.slow
class TestControllerOfSums(ControllerContract):
    def make(self, seed: int) -> Strategy:
        pytest.importorskip("torch")
        return search.get("rl reward=sum", seed)


@pytest.mark.slow
class TestControllerUnderLimits(ControllerContract):
    def make(self, seed: int) -> Strategy:
        pytest.importorskip("torch")
        return search.get("rl reward=limit", seed)


@pytest.mark.slow
def test_the_weight_of_a_sum_is_what_the_controller_follows() -> None:
    pytest.importorskip("torch")
    space = get("mnasnet")
    late = [
        told(search.get(f"rl reward=sum weight={w}", 0), space, 600, None)[1][-100:].mean(axis=0)
        for w in (0.1, 0.9)
    ]
    assert late[1][0] < late[0][0] - 0.01  # the loss of quality
    assert late[0][1] < late[1][1] - 0.05  # the cost


@pytest.mark.slow
def test_under_a_limit_the_controller_stays_within_it() -> None:
    pytest.importorskip("torch")
    space = get("mnasnet")
    strategy = search.get("rl reward=limit", 0)
    strategy.start(space, 0.4)
    losses = np.empty((0, 2))
    while len(losses) < 3000:
        genomes = strategy.ask(100)
        strategy.tell(genomes, judged(space, genomes), np.zeros(len(genomes)))
        losses = np.concatenate([losses, judged(space, genomes)])
    blind = judged(space, space.sample(np.random.default_rng(0), 20_000))
    blind, late = blind[blind[:, 1] <= 0.4], losses[-200:]
    assert len(blind) < 0.02 * 20_000 and (late[:, 1] <= 0.4).mean() > 0.8
    # First it finds what is within the limit, then what is good there.
    assert np.median(late[:, 0]) < np.median(blind[:, 0])


class TestSurrogateAssisted(StrategyContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return TinySpace(resolution=32)

    def make(self, seed: int) -> Strategy:
        return search.SurrogateAssisted(seed=seed)

    @pytest.mark.parametrize(
        ("target", "objectives", "bound"),
        [
            *((None, 2, 0.8), (0.6, 3, 0.5)),
            *(
                pytest.param(*case, marks=pytest.mark.slow)
                for case in ((0.6, 2, 0.8), (None, 2, 0.5), (0.6, 2, 0.5), (None, 3, 0.5))
            ),
        ],
    )
    def test_state_resumes_to_the_bit(
        self, space: SearchSpace, target: float | None, objectives: int, bound: float
    ) -> None:
        super().test_state_resumes_to_the_bit(space, target, objectives, bound)

    def test_few_evaluations_do(self, tiny: TinySpace) -> None:
        def volume(strategy: Strategy) -> float:
            _, losses = told(strategy, tiny, 60, None)
            return hypervolume(losses, *BOX)

        assert volume(self.make(0)) > volume(search.RandomSearch(seed=0)) + 0.05

    def test_beyond_the_target_nothing_is_gained(self, tiny: TinySpace) -> None:
        beyond = []
        for target in (0.4, None):
            _, losses = told(self.make(0), tiny, 50, target)
            beyond.append(int((losses[20:, 1] > 0.4).sum()))
        assert 3 * beyond[0] < beyond[1]

    def test_an_objective_that_never_changes_is_borne(self, tiny: TinySpace) -> None:
        strategy = self.make(0)
        strategy.start(tiny)
        for _ in range(4):
            genomes = strategy.ask(50)
            losses = judged(tiny, genomes)
            losses[:, 0] = 0.5
            strategy.tell(genomes, losses, np.zeros(len(genomes)))
        assert len(genomes) >= 1


@pytest.mark.parametrize(
    "names",
    [
        ["weighted", "nsga2", "nsga3"],
        *(pytest.param([n], marks=pytest.mark.slow) for n in ("rl", "surrogate")),
    ],
    ids=" ".join,
)
def test_equal_seeds_are_equal_across_processes(
    names: list[str], environment: dict[str, str]
) -> None:
    many = 600 if "rl" in names else 70  # sums of several threads show in large batches alone
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from fakes import TinySpace\nfrom tests.search.strategies.test_strategies import told\n"
        "from phonenas import search\nimport hashlib\n"
        f"for name in {names!r}:\n"
        f"    g, _ = told(search.get(name, 3), TinySpace(resolution=32), {many}, None)\n"
        "    print(hashlib.sha256(g.tobytes()).hexdigest())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**environment, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": str(seed)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    assert len(said) == 1 and len(said.pop()) == 65 * len(names)


class Greedy(search.RandomSearch):
    """Another package's strategy, which follows a soft target."""

    name = "greedy"
    soft_target = True  # type: ignore[assignment]


def test_a_strategy_of_ones_own_is_there_by_module_and_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from phonenas.search.strategies import STRATEGIES

    made = search.get("tests.search.strategies.test_strategies:Greedy", 7)
    assert (made.name, made.seed) == ("greedy", 7)
    with pytest.raises(InvalidArgument, match="not a Strategy class"):
        search.get("phonenas.search.pareto:hypervolume")
    assert set(search.names()) >= {"nsga2", "random", "rl", "surrogate", "weighted"}
    assert STRATEGIES.group == "phonenas.strategies"


@pytest.mark.parametrize(
    "name", ["nsga2", "nsga3", "random", "surrogate", "weighted", "regularised", "rl"]
)
def test_each_strategy_says_whether_it_follows_a_soft_target(name: str) -> None:
    if name == "rl":
        pytest.importorskip("torch")
    following = ("weighted", "regularised", "rl")
    assert search.get(name, 0, soft=True).soft_target == (name in following)
    if name in following:
        with pytest.raises(InvalidArgument, match="exponents=SOFT"):
            search.get(name).soft_target  # noqa: B018  # it raises


@pytest.mark.fault(
    "A search is given a setting that its strategy does not have, or a value of another kind.",
    "`has no setting '…'. …`; `is a whole number, got '…'`",
    "Take one of the names that the message lists.",
)
@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("nsga2", {"populaton": "3"}, "Did you mean 'population'? Known: crossover, population."),
        (
            "nsga2",
            {"population": "x"},
            "population of the strategy nsga2 is a whole number, got 'x'",
        ),
        ("weighted", {"population": "4.5"}, "is a whole number, got '4.5'"),
        ("weighted", {"exponents": "1"}, "no setting 'exponents'"),
    ],
)
def test_settings_are_checked_by_name_and_kind(name: str, given: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidArgument) as told:
        search.get(name, given=given)
    assert says in str(told.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("reward=much", "reward of the strategy rl is one of product, sum, limit, got 'much'"),
        ("weight=0.5", "weight: of the quality in the reward sum, 0 to 1, got 0.5 with the reward"),
        ("reward=sum weight=1.5", "weight: of the quality in the reward sum, 0 to 1, got 1.5"),
    ],
)
def test_rewards_of_the_controller_are_checked(given: str, says: str) -> None:
    pytest.importorskip("torch")
    with pytest.raises(InvalidArgument, match=says):
        search.get(f"rl {given}")


def test_the_controller_has_other_rewards_among_its_settings() -> None:
    pytest.importorskip("torch")
    plain, summed = search.get("rl").settings, search.get("rl reward=sum weight=0.25").settings
    assert plain.keys().isdisjoint({"reward", "weight"})  # as in runs of before there were others
    assert (summed["reward"], summed["weight"]) == ("sum", 0.25)
    assert not search.get("rl reward=limit", soft=True).soft_target


def test_settings_are_what_a_user_wrote() -> None:
    made = search.get("nsga2", seed=3, given={"population": "40", "crossover": 0.5})
    assert isinstance(made, search.NSGA2) and (made.population, made.crossover) == (40, 0.5)
    assert made.settings == {"strategy": "nsga2", "seed": 3, "population": 40, "crossover": 0.5}
    soft = search.get("weighted", soft=True, given={"tournament": "10"})
    assert soft.soft_target and soft.settings["tournament"] == 10
    with pytest.raises(InvalidArgument, match="4 or more, got 2"):
        search.get("nsga2", given={"population": "2"})
    for name, settings in (("random", "seed"), ("surrogate", "population")):
        with pytest.raises(InvalidArgument, match=rf"{name} has no setting '{settings}'. It has"):
            search.get(name, given={settings: "1"})


def test_the_controller_takes_its_hyperparameters_as_settings() -> None:
    pytest.importorskip("torch")
    made = search.get("rl", given={"clip": "none", "batch": "20", "learning_rate": "0.01"})
    assert isinstance(made, search.Controller)
    own = made.hyperparameters
    assert (own.clip, own.batch, own.learning_rate, own.hidden) == (None, 20, 0.01, 100)


def test_a_strategy_of_another_package_that_changed_has_no_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(*_: Any) -> Any:
        raise UnknownName("it is gone")

    monkeypatch.setattr(registry, "names", lambda: ["theirs"])
    for broken in (missing, lambda _: 3):
        monkeypatch.setattr(registry, "STRATEGIES", SimpleNamespace(get=broken))
        assert registry.options_given({"strategy": "theirs", "population": 40}) == {}
