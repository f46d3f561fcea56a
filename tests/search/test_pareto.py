"""Fronts and their hypervolume: exact values worked out by hand, edges, and what is refused."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from phonenas.search.exported_file import ExportedFile
from phonenas.search.pareto import Candidate, Interval, ParetoFront, hypervolume, non_dominated

A1 = (
    "r1_k3_s11_e1_i32_o16_noskip r2_k3_s22_e6_i16_o24 r3_k5_s22_e3_i24_o40_se0.25 "
    "r4_k3_s22_e6_i40_o80 r2_k3_s11_e6_i80_o112_se0.25 r3_k5_s22_e6_i112_o160_se0.25 "
    "r1_k3_s11_e6_i160_o320"
)


def candidate(id: int, latency_ms: float, top1: float, **more: object) -> Candidate:
    fields = {"reward": None, **more}
    return Candidate(
        id=id,
        block_args=f"{A1}",
        top1=top1,
        top1_error=0.01,
        outside=False,
        latency_ms=latency_ms,
        low_ms=latency_ms * 0.9,
        high_ms=latency_ms * 1.1,
        covered=True,
        macs=300,
        params=40,
        **fields,  # type: ignore[arg-type]
    )


# -- non-dominated ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ([[1, 1]], [0]),
        ([[2, 1], [1, 2]], [1, 0]),
        ([[1, 2], [1, 1], [2, 1]], [1]),
        ([[1, 1], [1, 1]], [0]),
        ([[3, 0], [0, 3], [1, 1], [2, 2]], [1, 2, 0]),
        ([[0, 5], [1, 5], [2, 4]], [0, 2]),
        ([[1, 0], [1, 0], [0, 1], [0, 1]], [2, 0]),
    ],
)
def test_two_losses(losses: list[list[float]], kept: list[int]) -> None:
    assert non_dominated(np.array(losses, float)).tolist() == kept


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ([[1, 1, 1]], [0]),
        ([[1, 1, 1], [1, 1, 1]], [0]),
        ([[2], [1], [3], [1]], [1]),
        ([[2, 1, 1], [1, 2, 1], [1, 1, 2], [2, 2, 2]], [2, 1, 0]),
        ([[1, 2, 3], [1, 2, 2], [0, 9, 9]], [2, 1]),
        ([[5, 0, 0], [0, 5, 0], [0, 0, 5], [5, 0, 0]], [2, 1, 0]),
        ([[2, 2, 2], [0, 5, 0], [2, 2, 2], [1, 1, 1], [0, 5, 0], [1, 1, 1], [1, 1, 1]], [1, 3]),
    ],
)
def test_three_losses_by_rising_first_loss(losses: list[list[float]], kept: list[int]) -> None:
    assert non_dominated(np.array(losses, float)).tolist() == kept


@pytest.mark.parametrize("losses", [2, 3])
def test_no_rows_no_front(losses: int) -> None:
    assert non_dominated(np.empty((0, losses))).tolist() == []


@pytest.mark.parametrize("second", [np.nan, np.inf])
def test_an_infinite_loss_is_a_loss_and_a_nan_is_none(second: float) -> None:
    rows = np.array([[0.0, second], [1.0, 1.0], [2.0, 2.0]])
    assert non_dominated(rows).tolist() == [1]
    wide = np.column_stack([rows, [0.0, 1.0, 2.0]])
    assert non_dominated(wide).tolist() == ([1] if np.isnan(second) else [0, 1])
    assert non_dominated(np.array([[np.nan, np.nan]])).tolist() == []


# -- hypervolume --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "share"),
    [
        ([[0, 0]], 1.0),
        ([[5, 10]], 0.5 * 0.5),
        ([[-5, 0]], 1.0),  # better than ideal counts as ideal
        ([[0, 20]], 0.0),  # at the reference nothing is dominated
        ([[10, 0]], 0.0),
        ([[2.5, 10], [5, 5]], 0.75 * 0.5 + 0.5 * 0.25),
        ([[2.5, 10], [5, 5], [7.5, 15]], 0.75 * 0.5 + 0.5 * 0.25),
        ([[2.5, 10], [11, 0]], 0.75 * 0.5),  # one beyond the box does not help
    ],
)
def test_two_losses_by_hand(losses: list[list[float]], share: float) -> None:
    assert hypervolume(np.array(losses, float), (0, 0), (10, 20)) == pytest.approx(share)


def test_the_ideal_moves_the_box() -> None:
    assert hypervolume(np.array([[3.0, 4.0]]), (1, 2), (5, 10)) == pytest.approx(0.5 * 0.75)


def test_three_losses_by_hand() -> None:
    rows = np.array([[0.5, 0.5, 0.5], [0.75, 0.25, 0.5]])
    #  the first box, and what the second adds below .5 of the second loss
    assert hypervolume(rows, (0, 0, 0), (1, 1, 1)) == pytest.approx(0.125 + 0.25 * 0.25 * 0.5)


def test_the_volume_of_many_networks_is_as_exact_as_of_few() -> None:
    # Five boxes like stairs, .1 wide each and the last .5: .1 (.5 + .6 + .7 + .8) + .5 · .9.
    stairs = np.array([[0.1, 0.5], [0.2, 0.4], [0.3, 0.3], [0.4, 0.2], [0.5, 0.1]])
    assert hypervolume(stairs, (0, 0), (1, 1)) == pytest.approx(0.71, abs=1e-12)
    for more in (1, 2):
        flat = np.column_stack([stairs, np.full((5, more), 1 / 3)])
        share = hypervolume(flat, [0] * (2 + more), [1] * (2 + more))
        assert share == pytest.approx(0.71 * (2 / 3) ** more, abs=1e-12)


def test_four_losses_are_exact() -> None:
    rows = np.full((1, 4), 1 / 3)
    assert hypervolume(rows, [0] * 4, [1] * 4) == pytest.approx((2 / 3) ** 4, abs=1e-12)


def test_five_losses_are_sampled_the_same_each_time() -> None:
    third = 1 / 3
    rows = np.array([[third] * 5, [0.1, 0.6, third, third, third]])
    share = hypervolume(rows, [0] * 5, [1] * 5)
    # Of the second network what the first leaves: the first loss from .1 to a third.
    exact = (2 / 3) ** 5 + (third - 0.1) * 0.4 * (2 / 3) ** 3
    assert abs(exact * 100_000 - round(exact * 100_000)) > 0.1
    assert share == pytest.approx(exact, abs=0.002)
    # a whole number of 100,000 points
    assert share * 100_000 == pytest.approx(round(share * 100_000), abs=1e-6)
    assert hypervolume(rows, [0] * 5, [1] * 5) == share


def test_sampled_points_are_those_that_some_network_beats_in_every_loss() -> None:
    rows = np.random.default_rng(3).random((40, 6))
    rows[:3, 0] = 0.0, 0.0, 0.999999  # below all points, and beyond almost all
    points = np.random.default_rng(0).random((100_000, 6))
    beaten = (rows[:, None, :] <= points[None, :, :]).all(axis=2).any(axis=0)
    assert hypervolume(rows, [0] * 6, [1] * 6) == beaten.mean()


# -- candidates and fronts ----------------------------------------------------------------------


def test_a_candidate_goes_through_json() -> None:
    one = candidate(3, 5.0, 0.7, reward=0.6, values={"params": 4.0})
    assert Candidate.from_dict(one.to_dict()) == one
    assert one.with_measured(6.0).measured_ms == 6.0
    assert one.measured_ms is None
    assert one.architecture.macs == pytest.approx(311.33e6, rel=1e-4)
    bare = candidate(0, 5.0, 0.7)
    assert bare.reward is None and bare.values == {}


@pytest.mark.parametrize(
    "name", ["top1", "top1_error", "latency_ms", "low_ms", "high_ms", "macs", "params"]
)
def test_a_text_is_no_number(name: str) -> None:
    fields = candidate(0, 5.0, 0.7).to_dict()
    with pytest.raises(ValueError, match=f"{name}: expected (whole )?number, got text"):
        Candidate.from_dict(fields | {name: "x"})


@pytest.mark.parametrize("values", [{"params": "x"}, [1.0], None])
def test_further_values_are_numbers_by_name(values: object) -> None:
    fields = candidate(0, 5.0, 0.7).to_dict()
    with pytest.raises(ValueError, match="values"):
        Candidate.from_dict(fields | {"values": values})


def test_a_front_says_its_range_in_one_line() -> None:
    front = ParetoFront((candidate(0, 4.0, 0.6), candidate(1, 8.126, 0.712)), 7.5, "7.5", 0.8)
    text = "ParetoFront(2 networks, 4.00 to 8.13 ms, top-1 up to 71.2%"
    assert repr(front) == f"{text}, target 7.50 ms)"
    assert len(front) == 2 and [c.id for c in front] == [0, 1]
    three = ParetoFront((*front, candidate(2, 9.0, 0.7)), None, "", 0.8, "simulated")
    assert repr(three) == (
        "ParetoFront(3 networks, 4.00 to 9.00 ms, top-1 up to 71.2%, SIMULATED: no device was "
        "measured)"
    )
    assert repr(ParetoFront(front.candidates, None, "", 0.8)) == f"{text})"
    assert repr(ParetoFront((), None, "", 0.0)) == "ParetoFront(0 networks)"
    left = ParetoFront(front.candidates, None, "", 0.8, left_out=12)
    assert repr(left) == f"{text}, 12 extrapolated networks left out)"


def test_what_is_extrapolated_and_what_is_left_out_for_that_are_a_sentence_each() -> None:
    known, unknown = candidate(0, 4.0, 0.6), replace(candidate(1, 8.0, 0.7), outside=True)
    on = "1 of 2 networks on the front are extrapolated"
    out = (
        "left out: more accurate than networks that are as fast, but by less than the error "
        "(--trust 0 keeps them)"
    )
    for candidates, left_out, sentences in (
        ((known, known), 0, []),
        ((known, unknown), 0, [on]),
        ((known, unknown), 3, [on, f"3 extrapolated networks {out}"]),
        ((known, known), 1, [f"1 extrapolated network {out}"]),
    ):
        front = ParetoFront(candidates, None, "", 0.8, left_out=left_out)
        assert front.extrapolated() == sentences


def test_a_front_as_a_frame_has_objectives_by_name() -> None:
    first = candidate(0, 4.0, 0.6, values={"peak": 1.0, "macs": 300.0})
    second = candidate(1, 8.0, 0.7, reward=0.5, values={"energy": 2.0})
    frame = ParetoFront((first, second), None, "", 0.8).to_frame()
    named = "id network latency_ms low_ms high_ms top1 top1_error outside macs params reward"
    assert list(frame.columns) == [*named.split(), "origin", "peak", "energy"]
    assert frame["network"].tolist() == [A1, A1]
    assert frame["latency_ms"].tolist() == [4.0, 8.0]
    assert frame["macs"].tolist() == [300, 300]
    assert frame["peak"].isna().tolist() == [False, True]
    assert frame["energy"].tolist()[1] == 2.0
    empty = ParetoFront((), None, "", 0.0).to_frame()
    assert list(empty.columns) == [*named.split(), "origin"] and len(empty) == 0


def test_of_several_devices_each_has_its_origin() -> None:
    values = {"latency:a": 4.0, "latency:b": 7.0}
    both = {"latency:a": "measured", "latency:b": "public"}
    first = candidate(0, 4.0, 0.6, values=values)
    front = ParetoFront((first,), None, "", 0.8, "measured", origins=both)
    (row,) = front.to_frame().to_dict("records")
    told = {n: row[n] for n in ("origin", "origin:a", "origin:b")}
    assert told == {"origin": "measured and public", "origin:a": "measured", "origin:b": "public"}
    same = ParetoFront((first,), None, "", 0.8, "public", origins=dict.fromkeys(both, "public"))
    assert set(same.to_frame()["origin"]) == {"public"}


def test_of_several_devices_each_has_its_latency_and_interval() -> None:
    near, far = Interval(3.0, 5.0, True), Interval(6.0, 9.0, False)
    values = {"latency:a": 4.0, "latency:b": 7.0}
    both = candidate(0, 4.0, 0.6, values=values, intervals={"latency:a": near, "latency:b": far})
    written = both.to_dict()
    assert written["intervals"]["latency:b"] == {"low_ms": 6.0, "high_ms": 9.0, "covered": False}
    assert Candidate.from_dict(written) == both
    one = candidate(0, 4.0, 0.6)
    fields = "id block_args top1 top1_error outside latency_ms low_ms high_ms covered macs params"
    assert [*one.to_dict()] == [*fields.split(), "reward", "measured_ms", "values"]
    assert one.intervals == {}
    frame = ParetoFront((both, replace(one, id=1)), None, "", 0.8).to_frame()
    further = ["latency:a", "latency:b", "low:a", "high:a", "low:b", "high:b"]
    assert list(frame.columns)[-7:] == ["origin", *further]
    assert frame.loc[0, further].tolist() == [4.0, 7.0, 3.0, 5.0, 6.0, 9.0]
    assert frame.loc[1, further].isna().all()


def test_fronts_do_not_change_and_are_told_apart_by_what_was_found() -> None:
    front = ParetoFront((), 7.5, "7.5", 0.8)
    of_two = replace(
        front,
        exported={"r1": ExportedFile(candidate(0, 4.0, 0.6).architecture, ())},
        targets={"latency:a": 7.5},
    )
    assert hash(front) == hash(of_two) and front != of_two
    assert front.exported == front.targets == {} and front.origin == "measured"
    for thing, name in (
        (front, "hypervolume"),
        (candidate(0, 4.0, 0.6), "id"),
        (Interval(1.0, 2.0, True), "low_ms"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, name, 0)
