"""What a measurement store must do on every database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phonenas.data import Conditions, MeasurementStore, Round
from phonenas.data.measurement import Startup
from phonenas.space.errors import InvalidArgument

__all__ = ["HERE", "StoreContract", "fill"]

HERE = Conditions("phone", "m", "f", "ort", "1.0", "abc", "CPU", "all", 1, "big", "none")


def fill(store: MeasurementStore, conditions: Conditions, subject: str, ms: float) -> None:
    """Store three rounds of an operator, each of `ms` and 1 % more, as one measurement."""
    pending = store.pending(conditions, "operator", [subject])[subject]
    rounds = [(pending.id, n, Round((ms, ms * 1.01), (0.5, 0.5))) for n in range(3)]
    store.add_rounds(rounds)
    store.complete([pending.id])


class StoreContract:
    """A store keeps rounds, series and rejections; `location` is a new one's."""

    @pytest.fixture
    def location(self) -> str:
        raise NotImplementedError

    def test_a_measurement_is_read_back_as_it_was_stored(self, location: str) -> None:
        with MeasurementStore(location) as store:
            pending = store.pending(HERE, "network", ["r1"])["r1"]
            rounds = [
                Round((1.5, 1.25), (0.5, 0.625), 3, "2026-01-01T00:00:00+00:00", {"load": 0.5}),
                Round(
                    (1.0, 2.0),
                    (0.5, 0.5),
                    0,
                    "2026-01-01T00:01:00+00:00",
                    startup=Startup(30.5, 2.25, 90_000_000, file_bytes=4_000_000, energy_mj=6.5),
                ),
            ]
            store.add_rounds([(pending.id, n, r) for n, r in enumerate(rounds)])
            assert store.measurements(HERE) == []  # not before it is complete
            assert store.conditions() == []
            assert store.count(HERE) == 0
            store.complete([pending.id])
        with MeasurementStore(location, create=False) as store:
            (measurement,) = store.measurements(HERE)
            assert measurement.rounds == tuple(rounds)
            assert measurement.startup == rounds[1].startup
            assert measurement.conditions == HERE
            assert store.measurements(HERE, "operator") == []
            assert store.conditions() == [HERE]
            assert store.conditions("other") == []
            assert store.count(HERE) == 1
            # 1.375 and 1.5: what the clock showed, whatever the sentinel took.
            assert measurement.medians_ms == (1.375, 1.5)
            assert measurement.latency_ms == pytest.approx(1.4375)
            assert measurement.sentinel_ms == pytest.approx(0.53125)

    @pytest.mark.parametrize(
        "change",
        [
            {"runtime_version": "1.1"},
            {"runtime_hash": "abd"},
            {"threads": 2},
            {"provider": "GPU"},
            {"optimisation": "extended"},
            {"governor": "powersave"},
            {"precision": "int8"},
            {"cores": "little"},
            {"fingerprint": "g"},
            {"origin": "simulated"},
            {"mode": "sustained"},
        ],
    )
    def test_unlike_conditions_never_merge(self, location: str, change: dict[str, object]) -> None:
        other = replace(HERE, **change)  # type: ignore[arg-type]
        with MeasurementStore(location) as store:
            fill(store, HERE, "a", 1.0)
            fill(store, other, "a", 2.0)
            assert [m.latency_ms for m in store.measurements(HERE)] == [pytest.approx(1.005)]
            assert [m.latency_ms for m in store.measurements(other)] == [pytest.approx(2.01)]
            assert len(store.conditions("phone")) == 2
        ((name, value),) = change.items()
        assert HERE.differences(other) == [f"{name}: {HERE.to_dict()[name]} / {value}"]

    def test_conditions_are_sorted_as_they_were_stored_whatever_the_clock_said(
        self, location: str
    ) -> None:
        others = [replace(HERE, runtime_version=str(n)) for n in range(4)]
        days = [3, 1, 4, 1]
        with MeasurementStore(location) as store:
            for conditions, day in zip(others, days, strict=True):
                id = store.pending(conditions, "operator", ["a"])["a"].id
                at = f"2026-01-0{day}T00:00:00+00:00"
                store.add_rounds([(id, 0, Round((1.0,), at=at))])
                store.complete([id])
            versions = [c.runtime_version for c in store.conditions()]
        assert versions == ["0", "1", "2", "3"]

    def test_a_round_is_stored_once(self, location: str) -> None:
        with MeasurementStore(location) as store:
            pending = store.pending(HERE, "operator", ["a"])["a"]
            store.add_rounds([])
            store.add_rounds([(pending.id, 0, Round((1.0,)))])
            store.add_rounds([(pending.id, 0, Round((9.0,))), (pending.id, 1, Round((2.0,)))])
            store.complete([pending.id])
            (measurement,) = store.measurements(HERE)
            assert [r.samples_ms for r in measurement.rounds] == [(1.0,), (2.0,)]

    def test_an_incomplete_series_is_continued_before_another_begins(self, location: str) -> None:
        with MeasurementStore(location) as store:
            fill(store, HERE, "a", 1.0)
            fill(store, HERE, "b", 1.0)
            begun = store.pending(HERE, "operator", ["a", "b"], again=True)
            assert not any(p.complete or p.rounds for p in begun.values())
            store.add_rounds([(begun["a"].id, 0, Round((2.0,)))])
            store.complete([begun["a"].id])
            again = store.pending(HERE, "operator", ["a", "b"], again=True)
            assert {s: p.id for s, p in again.items()} == {s: p.id for s, p in begun.items()}
            assert again["a"].complete
            latest = {m.subject: m.series for m in store.measurements(HERE)}
            assert latest == {"a": 1, "b": 0}
            assert len(store.measurements(HERE, all_series=True)) == 3
            assert store.count(HERE) == 2

    def test_discarded_and_rejected_subjects_keep_their_reason(self, location: str) -> None:
        with MeasurementStore(location) as store:
            fill(store, HERE, "a", 1.0)
            id = store.pending(HERE, "operator", ["a"])["a"].id
            store.discard(id, HERE, "a", "it never settled")
            store.reject(HERE, [("b", "too hot"), ("c", "a percent sign: 5 % :x")])
            store.reject(HERE, [])
            pending = store.pending(HERE, "operator", ["a"])["a"]
            assert (pending.id, pending.rounds, pending.complete) == (id, (), False)
            assert pending.given_up == "it never settled"
            assert store.measurements(HERE) == []
            assert [r[:2] for r in store.rejections(HERE)] == [
                ("a", "it never settled"),
                ("b", "too hot"),
                ("c", "a percent sign: 5 % :x"),
            ]

    def test_what_is_asked_of_some_conditions_is_of_these_alone(self, location: str) -> None:
        other = replace(HERE, device="other")
        with MeasurementStore(location) as store:
            for conditions, subject in ((HERE, "a"), (other, "b"), (other, "c")):
                fill(store, conditions, subject, 1.0)
                store.reject(conditions, [(subject, "too hot")])
                store.pending(conditions, "operator", [f"begun {subject}"])
            store.set_relative(other, "source", "0123456789ab")
            found = store.measurements(HERE) + store.measurements(other)
            assert [m.subject for m in found] == ["a", "b", "c"]
            assert (store.count(HERE), store.count(other)) == (1, 2)
            assert store.begun(HERE, "operator") == ["begun a"]
            assert store.begun(other, "operator") == ["begun b", "begun c"]
            assert store.begun(HERE, "network") == []
            assert [r[0] for r in store.rejections(HERE)] == ["a"]
            assert [r[0] for r in store.rejections(other)] == ["b", "c"]
            assert store.latest(HERE, ("operator", "network")) == found[0].entry
            assert store.latest(other, ("operator",)) == found[2].entry
            assert store.latest(HERE, ("network",)).number == 0
            assert store.relative(HERE) is None
            assert store.relative(other) == ("source", "0123456789ab")

    def test_what_is_done_to_one_measurement_leaves_the_others(self, location: str) -> None:
        with MeasurementStore(location) as store:
            for subject in "abcde":
                fill(store, HERE, subject, 1.0)
            ids = {s: p.id for s, p in store.pending(HERE, "operator", list("abcde")).items()}
            store.reopen([(ids["c"], 1)])
            assert [m.subject for m in store.measurements(HERE)] == ["a", "b", "d", "e"]
            assert [len(m.rounds) for m in store.measurements(HERE)] == [3] * 4
            store.discard(ids["d"], HERE, "d", "it never settled")
            assert [m.subject for m in store.measurements(HERE)] == ["a", "b", "e"]
            store.reopen([(ids["b"], 2), (ids["a"], 0)])
            assert store.begun(HERE, "operator") == ["a", "b", "c"]
            store.complete([ids["b"]])
            assert [m.subject for m in store.measurements(HERE)] == ["b", "e"]
            left = store.pending(HERE, "operator", list("abcde"))
            assert [len(p.rounds) for p in left.values()] == [0, 2, 1, 0, 3]
            assert [p.given_up for p in left.values()] == ["", "", "", "it never settled", ""]

    def test_conditions_follow_their_own_last_rounds(self, location: str) -> None:
        made = [replace(HERE, runtime_version=str(n)) for n in range(4)]
        with MeasurementStore(location) as store:
            ids = [store.pending(c, "operator", ["a"])["a"].id for c in made]
            for n in (1, 3, 0, 2):
                store.add_rounds([(ids[n], 0, Round((1.0,)))])
            store.complete(ids)
            assert [c.runtime_version for c in store.conditions()] == ["1", "3", "0", "2"]
            numbers = [store.latest(c, ("operator",)).number for c in made]
            assert sorted(range(4), key=numbers.__getitem__) == [1, 3, 0, 2]
            assert len(set(numbers)) == 4

    def test_a_subject_has_one_kind(self, location: str) -> None:
        with MeasurementStore(location) as store:
            fill(store, HERE, "a", 1.0)
            with pytest.raises(InvalidArgument, match="'a' stands .* not as .* 'network'"):
                store.pending(HERE, "network", ["a", "b"])
            assert store.pending(HERE, "network", ["b", "b"]).keys() == {"b"}

    def test_the_sentinels_usual_time_is_the_median_of_all_measurements(
        self, location: str
    ) -> None:
        with MeasurementStore(location) as store:
            assert store.sentinel_ms(HERE) is None
            for subject, ms in (("a", 0.4), ("b", 0.5), ("c", 0.9)):
                id = store.pending(HERE, "operator", [subject])[subject].id
                store.add_rounds([(id, 0, Round((1.0,), (ms,)))])
                store.complete([id])
            assert store.sentinel_ms(HERE) == 0.5

    def test_what_was_begun_is_listed_until_it_is_complete_or_given_up(self, location: str) -> None:
        with MeasurementStore(location) as store:
            fill(store, HERE, "done", 1.0)
            begun = store.pending(HERE, "operator", ["b", "a", "bad"])
            store.pending(HERE, "network", ["whole"])
            store.pending(replace(HERE, threads=2), "operator", ["elsewhere"])
            assert store.begun(HERE, "operator") == ["b", "a", "bad"]
            store.discard(begun["bad"].id, HERE, "bad", "it never settled")
            store.complete([begun["a"].id])
            assert store.begun(HERE, "operator") == ["b"]
            assert store.begun(HERE, "network") == ["whole"]
            # What is complete now was given up before.
            store.complete([begun["bad"].id])
            assert store.pending(HERE, "operator", ["bad"])["bad"].given_up == ""

    def test_progress_is_told_by_conditions_the_latest_first(self, location: str) -> None:
        """What is whole, given up and open, and when the last round was taken."""
        with MeasurementStore(location) as store:
            assert store.progress() == []
            fill(store, HERE, "a", 1.0)
            rows = store.pending(HERE, "operator", ["a", "b", "c"])
            store.discard(rows["b"].id, HERE, "b", "no")
            other = replace(HERE, device="other")
            store.pending(other, "operator", ["d"])
            first, second = store.progress()
            assert (first.device, first.conditions) == (HERE.device, HERE.digest)
            assert (first.complete, first.given_up, first.open) == (1, 1, 1)
            assert (second.device, second.last) == ("other", "")
            assert (second.complete, second.given_up, second.open) == (0, 0, 1)

    def test_the_latest_entry_is_that_of_what_counts(self, location: str) -> None:
        with MeasurementStore(location) as store:
            assert store.latest(HERE, ("operator",)) == (store.identity, 0)
            assert len(store.identity) == 12
            fill(store, HERE, "a", 1.0)
            (first,) = store.measurements(HERE)
            assert store.latest(HERE, ("operator", "network")) == first.entry
            assert first.entry == (store.identity, 3)
            id = store.pending(HERE, "network", ["n"])["n"].id
            store.add_rounds([(id, 0, Round((1.0,)))])
            assert store.latest(HERE, ("network",)).number == 0  # it is not complete
            store.complete([id])
            assert store.latest(HERE, ("network",)).number == 4
            assert store.latest(HERE, ("operator",)).number == 3
            assert store.latest(replace(HERE, threads=2), ("operator",)).number == 0

    def test_rounds_from_a_number_on_are_taken_again(self, location: str) -> None:
        with MeasurementStore(location) as store:
            for subject in ("a", "b", "c"):
                fill(store, HERE, subject, 1.0)
            store.reopen([])
            found = store.pending(HERE, "operator", ["a", "b", "c"])
            store.reopen([(found["b"].id, 1), (found["a"].id, 0)])
            again = store.pending(HERE, "operator", ["a", "b", "c"])
            assert {s: len(p.rounds) for s, p in again.items()} == {"a": 0, "b": 1, "c": 3}
            assert {s: p.complete for s, p in again.items()} == {"a": False, "b": False, "c": True}
            assert [m.subject for m in store.measurements(HERE)] == ["c"]

    def test_the_source_device_of_some_conditions_is_remembered(self, location: str) -> None:
        with MeasurementStore(location) as store:
            assert store.relative(HERE) is None
            store.set_relative(HERE, "pixel 6", "0123456789ab")
            store.set_relative(replace(HERE, threads=2), "other", "ba9876543210")
            assert store.relative(HERE) == ("pixel 6", "0123456789ab")
            store.set_relative(HERE, "pixel 7", "0123456789ac")
        with MeasurementStore(location) as store:
            assert store.relative(HERE) == ("pixel 7", "0123456789ac")
            assert len(store.identity) == 12

    def test_series_follow_each_other(self, location: str) -> None:
        with MeasurementStore(location) as store:
            for ms in (1.0, 2.0, 3.0):
                found = store.pending(HERE, "operator", ["a"], again=True, purpose="validation")[
                    "a"
                ]
                assert not found.rounds
                store.add_rounds([(found.id, 0, Round((ms,)))])
                store.complete([found.id])
            fill(store, HERE, "a", 9.0)  # without `again` the last one is complete already
            every = store.measurements(HERE, all_series=True)
            assert [(m.series, m.rounds[0].samples_ms[0]) for m in every] == [
                (0, 1.0),
                (1, 2.0),
                (2, 3.0),
            ]
            (latest,) = store.measurements(HERE)
            assert (latest.series, latest.purpose, latest.kind) == (2, "validation", "operator")
            assert latest.entry.number > every[1].entry.number > every[0].entry.number
            # A subject that is new beside one that is measured again begins at 0.
            both = store.pending(HERE, "operator", ["a", "b"], again=True)
            store.add_rounds([(p.id, 0, Round((4.0,))) for p in both.values()])
            store.complete([p.id for p in both.values()])
            assert {m.subject: m.series for m in store.measurements(HERE)} == {"a": 3, "b": 0}

    def test_conditions_of_one_kind_or_device(self, location: str) -> None:
        other = replace(HERE, device="tablet")
        with MeasurementStore(location) as store:
            fill(store, HERE, "a", 1.0)
            id = store.pending(other, "network", ["n"])["n"].id
            store.add_rounds([(id, 0, Round((1.0,)))])
            store.complete([id])
            assert store.conditions() == [HERE, other]
            assert store.conditions("phone") == store.conditions(kind="operator") == [HERE]
            assert store.conditions("tablet") == store.conditions(kind="network") == [other]
            assert store.conditions("tablet", "operator") == []
            # The latest are those of the last round, not of the last conditions.
            fill(store, HERE, "b", 1.0)
            assert store.conditions() == [other, HERE]

    def test_times_are_kept_to_a_millionth_and_no_time_is_0(self, location: str) -> None:
        kept = {"level": 0.5, "gone": float("nan"), "list": [1.0, float("inf")], "name": "a\udcff"}
        with MeasurementStore(location) as store:
            id = store.pending(HERE, "operator", ["a"])["a"].id
            times = (1.23456789, 3e-7, 2.0)
            store.add_rounds([(id, 0, Round(times, times, telemetry=kept))])
            store.complete([id])
            (found,) = store.measurements(HERE)
        assert found.rounds[0].samples_ms == found.rounds[0].sentinel_ms == (1.234568, 3e-7, 2.0)
        assert found.rounds[0].telemetry == {"level": 0.5, "list": [1.0, None], "name": "a?"}
