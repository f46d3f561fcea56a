"""Operators chosen before anything is measured: better than by chance."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import TinySpace

from phonenas import space
from phonenas.devices.simulated.roofline import Roofline
from phonenas.latency_model.units.parts import counts
from phonenas.latency_model.units.regressor import OperatorRegressor
from phonenas.latency_model.units.selection import choose_operators, greedy, networks_of
from phonenas.space.errors import InvalidArgument


def test_choice_is_the_same_each_time_and_nested() -> None:
    tiny = TinySpace(resolution=64)
    ten = choose_operators(tiny, 10)
    assert choose_operators(TinySpace(resolution=64), 10) == ten
    assert choose_operators(tiny, 4) == ten[:4]
    assert len(set(ten)) == 10 and set(ten) <= set(tiny.operators())


def test_what_is_known_is_not_chosen_again() -> None:
    tiny = TinySpace(resolution=64)
    known = choose_operators(tiny, 5)
    more = choose_operators(tiny, 5, known)
    assert not set(more) & set(known)
    # Greedy: with the first five measured, the next are those that would have come anyway.
    assert (*known, *more) == choose_operators(tiny, 10)
    free = len(tiny.operators()) - 5
    assert len(choose_operators(tiny, free, known)) == free
    for count in (0, free + 1):
        with pytest.raises(InvalidArgument, match=f"1 to {free} are not yet"):
            choose_operators(tiny, count, known)


def test_greedy_takes_what_lowers_the_goal_most() -> None:
    # Two alike and one apart; the goal hangs on all three.
    prior = np.array([[1.0, 0.99, 0.0], [0.99, 1.0, 0.0], [0.0, 0.0, 0.8]])
    goals = np.ones((1, 3)) @ prior
    assert greedy(prior, goals, np.full(3, 0.01), 2) in ([0, 2], [1, 2])
    assert greedy(prior, goals, np.full(3, 0.01), 1, given=[0]) == [2]
    only_first = greedy(prior, goals, np.full(3, 0.01), 2, allowed=lambda i: slice(1, None))
    assert only_first == [1, 2]


def test_counts_are_those_of_the_networks() -> None:
    tiny = TinySpace(resolution=64)
    networks = networks_of(tiny, 6)
    number = counts(networks, tiny.operators())
    assert number.sum(axis=1).tolist() == [len(n) for n in networks]
    assert counts(networks, networks[0][:1])[0, 0] == networks[0].count(networks[0][0])


@pytest.mark.slow
def test_chosen_operators_predict_networks_better_than_random_ones() -> None:
    mnas = space.get("mnasnet", 224)
    phone = Roofline(seed=1)
    ms = {o: phone.time_ms(phone.costs(o)) for o in mnas.operators()}
    number = counts(networks_of(mnas, 100, seed=77), mnas.operators())
    whole = number @ np.array(list(ms.values()))

    def error(some: tuple[space.Operator, ...]) -> float:
        predicted = OperatorRegressor.fit({o: ms[o] for o in some}).predict_ms(mnas.operators())
        return float(np.mean(np.abs(number @ predicted / whole - 1)))

    rng = np.random.default_rng(0)
    drawn = tuple(mnas.operators()[i] for i in rng.permutation(len(ms))[:40])
    chosen = choose_operators(mnas, 40)
    assert error(chosen) < 0.04
    assert error(chosen) < error(drawn)
    regressor = OperatorRegressor.fit({o: ms[o] for o in chosen})
    assert all(regressor.reaches(o) for o in mnas.operators())
