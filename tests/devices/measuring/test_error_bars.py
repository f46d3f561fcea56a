"""When a subject gets a further round, and what is said of all subjects together."""

from __future__ import annotations

from pathlib import Path

import pytest

from phonenas import data, devices, space
from phonenas.data import Conditions, Measurement, MeasurementStore, Round
from phonenas.devices.device import Reading
from phonenas.devices.measuring.progress import JobProgress
from phonenas.devices.measuring.protocol import Protocol, Verdict, at_speed, verdict
from phonenas.space import Operator

HERE = Conditions("d", "m", "f", "r", "1", "h", "p", "all", 1, "c", "none")


def operators(count: int) -> list[devices.Subject]:
    return [
        devices.Subject("operator", Operator("mbconv", 8, 8 * (i + 1), 28, expansion=6))
        for i in range(count)
    ]


class Job:
    """A job whose readings are written down."""

    def __init__(self, store: MeasurementStore, protocol: Protocol, count: int) -> None:
        self.progress = JobProgress(store, HERE, protocol, "profile")
        self.subjects = operators(count)
        self.progress.begin(self.subjects, again=False, retry=False)

    def take(self, number: int, *medians_ms: float) -> bool:
        """Rounds of a subject, by its number; whether it is complete after them."""
        text = self.subjects[number].text
        for ms in medians_ms:
            self.progress.accept(text, Reading((ms,), (0.5,), 0, "p"), {})
        self.progress.commit()
        self.progress.close([text])
        return text not in self.progress.open


@pytest.fixture
def store(tmp_path: Path) -> MeasurementStore:
    return data.MeasurementStore(tmp_path / "s.db")


def test_a_round_that_stands_apart_asks_for_another(store: MeasurementStore) -> None:
    job = Job(store, Protocol(), 2)
    assert not job.take(0, 1.0, 1.001, 1.3)  # ±43 %
    assert job.take(0, 1.002)
    (found,) = store.measurements(HERE)
    assert found.latency_ms == pytest.approx(1.0, abs=0.003) and 0.15 < found.spread < 0.2
    assert job.take(1, 1.0, 1.02, 0.98)


def test_a_subject_gets_nine_further_rounds_and_no_more(store: MeasurementStore) -> None:
    job = Job(store, Protocol(), 2)
    assert not job.take(0, *[1.0, 2.0] * 5, 1.0)
    assert job.take(0, 2.0)  # the twelfth
    assert not job.progress.unstable
    (found,) = store.measurements(HERE)  # with its bar: a network without it would have no time
    assert len(found.rounds) == 12 and 0.25 < found.spread < 1.0
    # Two speeds that differ by less are kept, with their error bar.
    assert job.take(1, *[1.0, 1.15] * 4)
    assert job.subjects[1].text not in job.progress.unstable
    found = store.measurements(HERE)[-1]
    assert 0.05 < found.spread < 0.15


def test_a_network_that_stays_uncertain_is_given_up(store: MeasurementStore) -> None:
    job = Job(store, Protocol(network_rounds=3), 1)
    job.subjects = [devices.Subject("network", space.zoo.network("mnasnet-a1"))]
    job.progress.begin(job.subjects, again=False, retry=False)
    assert job.take(0, *[1.0, 2.0] * 6)
    (reason,) = job.progress.unstable.values()
    assert reason.endswith("; the limit is ±25%")


def test_further_rounds_have_an_end_where_most_subjects_disagree(store: MeasurementStore) -> None:
    job = Job(store, Protocol(), 160)  # 480 rounds are planned, so some 120 further ones
    for number in range(14):
        assert not job.take(number, *[1.0, 2.0] * 5, 1.0)
    assert sum(len(r) - 3 for r in job.progress.rounds.values() if r) == 14 * 8
    for number in range(14, 21):
        assert not job.take(number, *[1.0, 2.0] * 2)
    assert job.take(21, *[1.0, 2.0] * 2, 1.0)  # the fifth, not the twelfth
    (found,) = store.measurements(HERE)
    assert len(found.rounds) == 5 and found.spread > 0.25


def test_the_time_left_counts_on_further_rounds(store: MeasurementStore) -> None:
    job = Job(store, Protocol(), 60)
    text = job.subjects[59].text
    before = job.progress.expected(text)
    assert 3.5 < before < 5.5
    for number in range(50):
        assert not job.take(number, 1.0, 2.0, 1.0)
    assert job.progress.expected(text) > before + 0.5
    assert job.progress.expected(job.subjects[0].text) == 1
    with data.MeasurementStore(Path(store.location).with_name("t.db")) as other:
        calm = Job(other, Protocol(), 60)
        for number in range(50):
            assert calm.take(number, 1.0, 1.001, 0.999)
        assert 3 < calm.progress.expected(text) < before - 0.3


def test_of_many_subjects_one_needs_more_rounds_than_most(store: MeasurementStore) -> None:
    most = [Job(store, Protocol(), count).progress.expected_most() for count in (1, 4, 40, 4000)]
    assert most == sorted(most)
    alone = Job(store, Protocol(), 1)
    assert most[0] == alone.progress.expected(alone.subjects[0].text) > 3
    assert most[2] > Job(store, Protocol(), 40).progress.expected(operators(1)[0].text) + 2
    assert most[3] == 3 + Protocol().extra_rounds
    assert Job(store, Protocol(), 0).progress.expected_most() == 1


def test_a_later_job_counts_on_as_many_further_rounds_as_an_earlier_one(
    store: MeasurementStore,
) -> None:
    expected: dict[str, float] = {}
    for name, medians in (("calm", (1.0, 1.001, 0.999)), ("noisy", (1.0, 1.0, 1.3, 1.0, 1.0))):
        with data.MeasurementStore(Path(store.location).with_name(f"{name}.db")) as own:
            first = Job(own, Protocol(), 40)
            assert all(first.take(number, *medians) for number in range(40))
            later = Job(own, Protocol(), 41)
            assert list(later.progress.open) == [later.subjects[40].text]
            expected[name] = later.progress.expected(later.subjects[40].text)
    assert expected["noisy"] > expected["calm"] + 1


def test_a_network_is_measured_until_it_is_known_to_a_tenth(store: MeasurementStore) -> None:
    job = Job(store, Protocol(network_rounds=3), 1)
    job.subjects = [devices.Subject("network", space.zoo.network("mnasnet-a1"))]
    job.progress.begin(job.subjects, again=False, retry=False)
    assert not job.take(0, 1.0, 1.05, 1.15)  # ±14 %, enough for an operator
    assert job.take(0, 1.06, 1.07, 1.05)


def test_a_difference_of_some_microseconds_asks_for_nothing(store: MeasurementStore) -> None:
    job = Job(store, Protocol(), 1)
    assert job.take(0, 0.010, 0.011, 0.014)  # ±39 %, which is 4 µs


def test_rounds_that_agree_are_not_believed_where_many_stand_apart(store: MeasurementStore) -> None:
    calm = Job(store, Protocol(), 12)
    for number in range(11):
        assert calm.take(number, 1.0, 1.001, 0.999)
    assert calm.take(11, 2.0, 2.001, 1.999)
    with data.MeasurementStore(Path(store.location).with_name("t.db")) as other:
        job = Job(other, Protocol(), 12)
        for number in range(6):
            assert not job.take(number, 1.0, 1.001, 2.0)
        for number in range(6, 11):
            job.take(number, 1.0, 1.001, 0.999)
        # 6 of 33 rounds stood apart: log 2000 / log (33 / 6) = 4.5, so five rounds.
        assert not job.take(11, 2.0, 2.001, 1.999)
        assert not job.take(11, 1.0)
        assert not job.take(11, 1.001)  # now nobody knows
        assert job.take(11, 1.002, 0.999, 1.003, 1.0, 0.998)
        (found,) = [m for m in other.measurements(HERE) if m.subject == job.subjects[11].text]
    assert found.latency_ms < 1.1 and found.spread < 0.25


# -- all together -------------------------------------------------------------------------------


def network(name: str, *medians_ms: float, **telemetry: float) -> Measurement:
    rounds = tuple(Round((t,), telemetry=telemetry) for t in medians_ms)
    return Measurement("network", name, HERE, rounds)


def operator(*medians_ms: float) -> Measurement:
    return Measurement("operator", "o", HERE, tuple(Round((t,)) for t in medians_ms))


CALM, WIDE = (1.0, 1.001, 1.002, 0.999, 0.998), (1.0, 1.6, 1.0, 1.6, 1.2)


@pytest.mark.parametrize(
    ("measurements", "stable", "text"),
    [
        ([network("a", *CALM)] * 9, True, "stable: 9 networks known to ±0.2% (median"),
        ([network("a", *CALM), operator(*CALM)], True, "stable: 1 network known to ±0.2% (m"),
        ([operator(*CALM)] * 3, True, "stable: 3 operators known to ±0.2% (median"),
        # Each within a tenth, but the middle one beyond half of that.
        ([network("a", 0.94, 1.0, 1.0, 1.06, 1.12)] * 3, False, "unstable: 3 networks known to ±"),
        ([network("a", *WIDE)] * 3, False, "unstable: 3 networks known to ±"),
        # One of four is wide, though the middle one is not.
        ([network("a", *CALM)] * 3 + [network("b", *WIDE)], False, "1 of 4 subjects with a wide"),
        ([network("a", *CALM)] * 9 + [operator(*WIDE)], True, "1 of 10 subjects with a wide"),
        ([operator(*CALM)] * 9 + [operator(*WIDE)], True, "1 of 10 subjects with a wide"),
        ([operator(*CALM)] * 8 + [operator(*WIDE)], False, "unstable: 9 operators known"),
        ([network("a", *CALM), operator(1.0)], False, "a first look: 1 subject has one round"),
        ([operator(1.0), operator(2.0)], False, "a first look: 2 subjects have one round each"),
        ([network("a", 1.0, others=1.0)], False, "; other programs ran (they take 1.0 cores"),
        ([network("a", *CALM, others=1.0)] * 9, False, "loaded: 9 networks known to ±0.2%"),
        ([network("a", *WIDE, others=1.0)] * 9, False, "; other programs ran (they take 1.0 cores"),
        ([network("a", *CALM, others=0.1)] * 9, True, "stable: "),
        ([], False, "nothing was measured"),
    ],
)
def test_the_verdict_on_all(measurements: list[Measurement], stable: bool, text: str) -> None:
    found = verdict(measurements, 2, Protocol())
    assert found.stable is stable, found.text
    assert text in found.text
    if measurements:
        assert "2 readings rejected" in found.text
    if not stable and measurements:
        assert "--again" in found.text or "without --quick" in found.text


def test_a_verdict_of_another_speed_does_not_begin_with_stable() -> None:
    calm = Verdict(True, "stable: 3 networks known to ±0.9%")
    told = at_speed(calm, 1.3, limit=0.1)
    assert not told.stable
    assert told.text.startswith("another speed: 3 networks known to ±0.9%. The device is slower")
    assert at_speed(calm, 1.04, limit=0.1) == calm
    assert at_speed(calm, 0.7, limit=None).stable


def test_two_jobs_are_stable_where_both_are(tmp_path: Path) -> None:
    from dataclasses import replace

    from phonenas.devices.measuring.profiling import Outcome, joined

    one = network("a", *CALM)
    calm = Verdict(True, "stable: 1 network known to ±0.2%")
    wild = Verdict(False, "unstable: 1 network known to ±30%")
    fields = {"measured": 1, "reused": 0, "rejected": 0, "unstable": {}, "doubtful": {}}
    first = Outcome(
        **fields,  # type: ignore[arg-type]
        seconds=1.0,
        busy_s=1.0,
        conditions=one.conditions,
        verdict=wild,
        results={"a": one},
    )
    second = replace(first, verdict=calm, results={"b": one})
    assert joined(first, second).verdict == Verdict(False, f"{wild.text}; {calm.text}")
    assert joined(second, replace(second, results={"c": one})).verdict == calm
    nothing = replace(first, results={}, verdict=Verdict(False, "nothing was measured"))
    assert joined(nothing, second).verdict == calm
