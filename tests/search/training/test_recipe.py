"""Recipes, the schedule, the optimizer and the average, held against values computed by hand."""

from __future__ import annotations

import itertools
from decimal import Decimal, getcontext
from fractions import Fraction

import numpy as np
import pytest

from phonenas.search.training.recipe import PAPER, PROXY, SMALL, Recipe, recipe
from phonenas.search.training.schedule import Schedule
from phonenas.space.errors import InvalidArgument, UnknownName

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from phonenas.search.training.average import WeightAverage, averaged_tensors  # noqa: E402
from phonenas.search.training.optimizer import RMSProp, make_optimizer  # noqa: E402
from phonenas.space import Architecture  # noqa: E402
from phonenas.space.lowering.torch import to_torch  # noqa: E402

TINY = Architecture.parse("r1_k3_s11_e1_i8_o8 r1_k3_s22_e3_i8_o8_se0.25 head16 classes3 res16")

# -- recipes --------------------------------------------------------------------------------------


def test_the_paper_recipe_is_that_of_the_paper() -> None:
    assert (PAPER.optimizer, PAPER.rms_decay, PAPER.momentum, PAPER.epsilon) == (
        "rmsprop",
        0.9,
        0.9,
        1e-3,
    )
    assert (PAPER.weight_decay, PAPER.dropout, PAPER.label_smoothing) == (1e-5, 0.2, 0.1)
    assert (PAPER.average, PAPER.learning_rate, PAPER.batch) == (0.9999, 0.016, 4096)
    assert (PAPER.epochs, PAPER.warmup_epochs, PAPER.decay_epochs) == (350, 5, 2.4)
    assert (PAPER.decay_factor, PAPER.schedule, PAPER.norm_momentum) == (0.97, "steps", 0.01)
    assert Schedule(PAPER, 312).peak == pytest.approx(0.256, rel=1e-15)


def test_recipes_by_name_and_changed() -> None:
    assert recipe("proxy") is not SMALL and recipe("proxy") == PROXY
    found = recipe("paper", epochs=70, batch=512, learning_rate=None)
    assert (found.epochs, found.batch, found.learning_rate) == (70, 512, 0.016)
    assert (found.warmup_epochs, found.decay_epochs) == (1.0, 0.48)  # the same course
    assert recipe("paper", epochs=70, warmup_epochs=2.0).warmup_epochs == 2.0
    with pytest.raises(UnknownName, match="Did you mean 'proxy'"):
        recipe("prox")
    with pytest.raises(InvalidArgument, match="a recipe has no lerning_rate. Did you mean"):
        recipe("paper", lerning_rate=1.0)


def test_a_digest_is_of_what_decides_and_settings_make_the_recipe_again() -> None:
    assert Recipe(**PROXY.settings) == PROXY
    assert PAPER.changed(name="other").digest == PAPER.digest
    assert recipe("paper", weight_decay=1e-6).digest != PAPER.digest
    assert len({r.digest for r in (PAPER, PROXY, SMALL)}) == 3


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("epochs", 0, "a whole number from 1"),
        ("epochs", 2.5, "a whole number"),
        ("batch", -1, "batch is a whole number from 1"),
        ("learning_rate", 0.0, "learning_rate is from above 0 to 100, got 0.0"),
        ("learning_rate", float("nan"), "learning_rate"),
        ("momentum", 1.0, "momentum"),
        ("average", 1.0, "average"),
        ("dropout", 1, "dropout"),
        ("optimizer", "adam", "optimizer is one of rmsprop, sgd, got 'adam'"),
        ("precision", "int8", "precision is one of auto"),
        ("warmup_epochs", 400.0, "400 epochs of warm-up are more than its 350 epochs"),
    ],
)
def test_values_out_of_range_are_refused_by_name(name: str, value: object, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        PAPER.changed(**{name: value})


# -- schedule -------------------------------------------------------------------------------------


def test_the_schedule_equals_an_independent_formula_over_all_350_epochs() -> None:
    # In whole numbers: floor(s / (2.4 · 312)) = 10 s // (24 · 312), and 5 · 312 steps of warm-up.
    schedule = Schedule(PAPER, 312)
    assert schedule.steps == 350 * 312
    powers = np.array([float(Fraction(97, 100) ** n) for n in range(160)])
    s = np.arange(350 * 312)
    wanted = 0.256 * np.where(s < 1560, s / 1560, powers[10 * s // (24 * 312)])
    np.testing.assert_allclose([schedule(int(i)) for i in s], wanted, rtol=1e-12)


GOLDEN_RATES = {
    0: 0.0,
    1: 0.0001641025641025641,
    312: 0.0512,
    1559: 0.25583589743589746,
    1560: 0.2408704,  # two falls of 2.4 epochs lie within the warm-up of 5
    2246: 0.2408704,
    2247: 0.233644288,  # 3 · 2.4 · 312 = 2246.4
    2995: 0.233644288,
    2996: 0.22663495936,
    31200: 0.07343127520695265,  # 41 falls
    54600: 0.02856306659782217,  # 72
    109199: 0.0030913019932323274,  # 145
}


def test_the_schedule_at_chosen_steps() -> None:
    schedule = Schedule(PAPER, 312)
    assert {s: schedule(s) for s in GOLDEN_RATES} == pytest.approx(GOLDEN_RATES, rel=1e-12)


def test_a_fall_comes_at_its_step_where_the_product_is_whole() -> None:
    schedule = Schedule(PAPER, 625)  # 2.4 · 625 = 1500
    for falls in range(3, 140):
        before, after = schedule(1500 * falls - 1), schedule(1500 * falls)
        assert after == pytest.approx(0.97 * before, rel=1e-12)


def test_a_cosine_ends_at_zero_and_the_rate_follows_the_batch() -> None:
    small = Schedule(SMALL, 10)
    rates = [small(s) for s in range(small.steps + 1)]
    assert small.steps == 300
    assert rates[:3] == pytest.approx([0.0, 0.005, 0.01])
    assert rates[150] == pytest.approx(0.025)
    assert rates[300] == pytest.approx(0.0, abs=1e-15)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert Schedule(SMALL, 10, batch=32).peak == pytest.approx(0.0125)
    with pytest.raises(InvalidArgument, match="steps_per_epoch"):
        Schedule(SMALL, 0)


def test_the_proxy_rises_and_then_falls_low() -> None:
    proxy = Schedule(PROXY, 100)
    rates = [proxy(s) for s in range(proxy.steps)]
    assert max(rates) == rates[49] and rates[0] == 0
    assert rates[-1] < 0.03 * proxy.peak


# -- optimizer ------------------------------------------------------------------------------------

# Gradients of 20 steps for two weights, and the paper's schedule with 2 steps an epoch, so that
# warm-up and falls are both in it. Weight decay is larger than the paper's, to be seen.
GRADIENTS = [((7 * t) % 11 - 5, (3 * t) % 7 - 2) for t in range(20)]
DECAY = "0.01"
# w after steps 1, 2, 5, 10, 20: by Decimal with 50 digits.
GOLDEN_WEIGHTS = {
    1: (1.0, -2.0),  # the first rate is 0
    2: (0.9941238672054555, -2.0022671796638023),
    5: (0.9075724200211224, -2.1016264659862878),
    10: (0.7361336319989498, -2.3792261900689105),
    20: (0.612538302196033, -4.464808910462243),
}


def by_hand(steps: int, decays: bool) -> list[list[float]]:
    """TensorFlow's RMSProp in decimals: one line a formula."""
    getcontext().prec = 50
    found = []
    weights, squares, moments = [Decimal(1), Decimal(-2)], [Decimal(1)] * 2, [Decimal(0)] * 2
    for t in range(steps):
        # 10 steps of warm-up, then falls of 2.4 · 2 steps, counted from the start.
        fallen = Decimal("0.97") ** (10 * t // 48)
        rate = Decimal("0.256") * (Decimal(t) / 10 if t < 10 else fallen)
        for i in range(2):
            g = Decimal(GRADIENTS[t][i]) / 10 + (Decimal(DECAY) * weights[i] if decays else 0)
            squares[i] = squares[i] * Decimal("0.9") + g * g * Decimal("0.1")
            root = (squares[i] + Decimal("0.001")).sqrt()
            moments[i] = moments[i] * Decimal("0.9") + rate * g / root
            weights[i] -= moments[i]
        found.append([float(w) for w in weights])
    return found


@pytest.mark.parametrize("decays", [True, False])
def test_the_optimizer_equals_hand_computed_values_over_20_steps(decays: bool) -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = RMSProp([weight], 0.0, weight_decay=float(DECAY) if decays else 0.0)
    schedule = Schedule(PAPER, 2)
    wanted = by_hand(20, decays)
    for t in range(20):
        weight.grad = torch.tensor(GRADIENTS[t], dtype=torch.float64) / 10
        optimizer.param_groups[0]["lr"] = schedule(t)
        optimizer.step()
        assert weight.tolist() == pytest.approx(wanted[t], rel=1e-13)
        if decays and t + 1 in GOLDEN_WEIGHTS:
            assert weight.tolist() == pytest.approx(GOLDEN_WEIGHTS[t + 1], rel=1e-12)


def test_the_first_step_by_hand_and_not_as_torch_has_it() -> None:
    # g = 1: s = 0.9 + 0.1, so the step is lr / √1.001.
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    weight.grad = torch.ones(1, dtype=torch.float64)
    RMSProp([weight], 0.1).step()
    assert weight.item() == pytest.approx(-0.1 / 1.001**0.5, rel=1e-14)
    other = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    other.grad = torch.ones(1, dtype=torch.float64)
    torch.optim.RMSprop([other], 0.1, alpha=0.9, eps=1e-3, momentum=0.9).step()
    assert abs(other.item()) > 3 * abs(weight.item())


def test_weights_and_biases_decay_and_batchnorm_does_not() -> None:
    module = to_torch(TINY, seed=0)
    optimizer = make_optimizer(PAPER, module)
    decay, free = optimizer.param_groups
    assert (decay["weight_decay"], free["weight_decay"]) == (1e-5, 0.0)
    names_of = {id(p): name for name, p in module.named_parameters()}
    normed = {names_of[id(p)] for p in free["params"]}
    assert normed == {n for n in names_of.values() if "_bn." in n}
    others = {names_of[id(p)] for p in decay["params"]}
    assert any(n.endswith("se_reduce.bias") for n in others) and any(
        n.endswith("classifier.bias") for n in others
    )
    assert len(normed) + len(others) == len(names_of)


@pytest.mark.parametrize("changes", [{}, {"momentum": 0.0}])
def test_sgd_of_a_recipe_equals_torchs_own(changes: dict[str, float]) -> None:
    mine, theirs = (nn.Linear(3, 2) for _ in range(2))
    theirs.load_state_dict(mine.state_dict())
    found = make_optimizer(SMALL.changed(**changes), mine)
    momentum = SMALL.changed(**changes).momentum
    plain = torch.optim.SGD(
        theirs.parameters(), 0.1, momentum=momentum, nesterov=momentum > 0, weight_decay=5e-4
    )
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        for module, optimizer in ((mine, found), (theirs, plain)):
            for group in optimizer.param_groups:
                group["lr"] = 0.1
            optimizer.zero_grad()
            module(x).square().mean().backward()
            optimizer.step()
    assert torch.allclose(mine.weight, theirs.weight, rtol=1e-6)


# -- average --------------------------------------------------------------------------------------


def test_the_average_begins_fast_and_takes_statistics_along() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double()
    with torch.no_grad():
        for t in averaged_tensors(module):
            t.fill_(0.0)
    average = WeightAverage(module, 0.9999)
    assert [average.rate(n) for n in (1, 2, 90, 10**6)] == [2 / 11, 3 / 12, 0.91, 0.9999]
    wanted = Fraction(0)
    for n in range(1, 21):
        with torch.no_grad():
            for t in averaged_tensors(module):
                t.fill_(float(n * n))
        average.update(n)
        d = Fraction(1 + n, 10 + n)
        wanted = d * wanted + (1 - d) * n * n
        for t in averaged_tensors(average.module):
            assert torch.allclose(t, torch.full_like(t, float(wanted)), rtol=1e-12)
    assert len(averaged_tensors(module)) == 6  # weight, bias, and four of BatchNorm
    assert not average.module.training
