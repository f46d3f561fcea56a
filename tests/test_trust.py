"""What is believed, what is waited for, what is recorded apart, and what comes back after a loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SENTINEL_MS, FakeDevice, TinySpace

from phonenas import data, devices
from phonenas.data.measurement import Conditions
from phonenas.devices import keeper
from phonenas.devices.device import Job, LostInRun, Reading
from phonenas.devices.fitness import doubts, reason_to_wait
from phonenas.devices.gate import Gate
from phonenas.devices.plan import Doubted, Event, Lost, Waiting
from phonenas.devices.profiling import subjects_of
from phonenas.devices.shelf import Shelf
from phonenas.devices.timing import Protocol, verdict_of
from phonenas.latency_model.fitting import choose_conditions
from phonenas.space.errors import DeviceError, DeviceUnavailable, InvalidArgument, UnstableDevice

QUICK = Protocol(apart_s=0.0)


def few(count: int = 12, networks: int = 2) -> list[Any]:
    subjects = subjects_of(TinySpace(resolution=32), networks, seed=0)
    operators = [s for s in subjects if s.kind == "operator"][:count]
    return operators + [s for s in subjects if s.kind == "network"]


# -- the gate -----------------------------------------------------------------------------------


def test_a_quiet_device_is_held_to_six_percent_and_a_noisy_one_to_more() -> None:
    rng = np.random.default_rng(0)
    quiet, noisy = Gate(0.35), Gate(0.35)
    for _ in range(100):
        quiet.objection(float(rng.normal(1, 0.003)))
        noisy.objection(float(rng.choice([0.46, 0.58]) * rng.normal(1, 0.02)))
    assert quiet.limit == pytest.approx(0.06)
    assert 0.2 < noisy.limit <= 0.35
    assert "limit ±6%" in quiet.objection(1.1)
    assert quiet.objection(1.03) == ""
    assert noisy.objection(0.58) == noisy.objection(0.46) == ""


def test_a_spell_of_throttling_never_becomes_the_usual() -> None:
    gate = Gate(0.35)
    for _ in range(300):
        gate.objection(1.0)
    refused = sum(bool(gate.objection(1.4)) for _ in range(200))
    assert refused == 200
    assert gate.usual_ms == 1.0


def test_a_slow_ramp_does_not_take_its_own_measure_along() -> None:
    gate = Gate(0.10)
    for _ in range(20):
        gate.objection(1.0, weight=5)
    gate.anchor()
    believed = [ms for ms in np.linspace(1.0, 1.6, 3000) if not gate.objection(float(ms))]
    assert max(believed) <= 1.10
    assert not gate.widen(1.2)


def test_a_speed_that_is_widened_to_stands_beside_the_old_one() -> None:
    gate = Gate(0.35)
    for _ in range(700):  # more than it remembers
        gate.objection(1.0)
    gate.anchor()
    assert gate.objection(1.3)
    assert gate.widen(1.3)
    assert gate.objection(1.3) == gate.objection(1.0) == ""


def test_of_the_two_speeds_of_several_threads_the_usual_one_is_kept() -> None:
    gate = Gate(0.35, threads=2)
    for ms in [0.5] * 60 + [0.3] * 40:
        gate.objection(ms)
    gate.anchor()
    assert gate.usual_ms == 0.5
    assert gate.objection(0.54) == gate.objection(0.47) == ""
    # A minute of the other speed is refused, and takes nothing along.
    assert all(gate.objection(0.3) for _ in range(20))
    assert not gate.sped_up
    assert gate.objection(0.5) == ""
    # Only what lasts is believed.
    assert all(gate.objection(0.3) for _ in range(24))
    assert gate.sped_up
    assert gate.usual_ms == 0.3
    assert gate.objection(0.3) == ""
    # A speed at which earlier numbers are stated is the one to wait for.
    gate.anchor(0.5)
    assert gate.objection(0.3) != ""


class TwoSpeeds(FakeDevice):
    """Two threads: for a third of the time faster, the sentinel by more than the models."""

    @property
    def conditions(self) -> Conditions:
        return replace(super().conditions, threads=2)

    def run_ms(
        self, jobs: Sequence[Job], *, sentinel: Path, warmup_runs: int, warmup_s: float
    ) -> Iterator[Reading]:
        for reading in super().run_ms(
            jobs, sentinel=sentinel, warmup_runs=warmup_runs, warmup_s=warmup_s
        ):
            self.clock_s += 0.1
            if self.clock_s % 21 < 7:
                reading = replace(
                    reading,
                    samples_ms=tuple(s * 0.75 for s in reading.samples_ms),
                    sentinel_ms=tuple(s * 0.6 for s in reading.sentinel_ms),
                )
            yield reading


def test_a_device_of_two_speeds_is_measured_at_the_usual_one(tmp_path: Path) -> None:
    told: list[Event] = []
    with data.MeasurementStore(tmp_path / "x.db") as store:
        with TwoSpeeds() as device:
            first = devices.measure(
                few(40), on=device, into=store, protocol=QUICK, on_event=told.append
            )
            assert store.reference_ms(device.conditions) == pytest.approx(SENTINEL_MS)
        # A later job that begins at the other speed waits for the one of the first.
        with TwoSpeeds() as device:
            later = devices.measure(few(50), on=device, into=store, protocol=QUICK, again=True)
    assert first.rejected > 5
    assert any("two speeds" in e.reason for e in told if isinstance(e, Waiting))
    assert first.unstable == later.unstable == {}
    for outcome in (first, later):
        for m in outcome.results.values():
            # No round of the other speed among them: each would stand 25 % off.
            assert max(m.medians_ms) / min(m.medians_ms) < 1.02


def test_a_phone_that_sinks_slowly_is_unstable_and_no_number_is_wrong(tmp_path: Path) -> None:
    class Sinking(FakeDevice):
        def circumstances(self) -> dict[str, Any]:
            return {"thermal_status": 0}

        def run_ms(self, jobs: Sequence[Job], **how: Any) -> Iterator[Reading]:
            for reading in super().run_ms(jobs, **how):
                self.clock_s += 0.3
                slow = 1 + min(0.6, self.clock_s / 100)
                yield replace(
                    reading,
                    samples_ms=tuple(s * slow**0.5 for s in reading.samples_ms),
                    sentinel_ms=tuple(s * slow for s in reading.sentinel_ms),
                )

    with data.MeasurementStore(tmp_path / "x.db") as store, Sinking() as device:
        with pytest.raises(UnstableDevice, match="at the start"):
            devices.measure(few(40), on=device, into=store, protocol=QUICK)
        texts = [s.text for s in few(40) if s.kind == "operator"]
        found = store.pending(device.conditions, "operator", texts).values()
        sentinels = [r.sentinel_ms[0] for p in found for r in p.rounds]
        assert sentinels
        assert max(sentinels) / min(sentinels) < 1.12


def test_sustained_speed_is_not_cooled_away(tmp_path: Path) -> None:
    class Recovering(FakeDevice):
        """Slower and slower while warm; a pause makes it fast again."""

        warm_s = 0.0

        def circumstances(self) -> dict[str, Any]:
            return {"thermal_status": 0}

        def pause(self, seconds: float) -> None:
            super().pause(seconds)
            self.warm_s = 0.0

        def run_ms(self, jobs: Sequence[Job], **how: Any) -> Iterator[Reading]:
            for reading in super().run_ms(jobs, **how):
                self.clock_s += 1.0
                self.warm_s += 1.0
                slow = 1 + min(1.5, self.warm_s / 100)
                yield replace(
                    reading,
                    samples_ms=tuple(slow * s for s in reading.samples_ms),
                    sentinel_ms=tuple(slow * s for s in reading.sentinel_ms),
                )

    with data.MeasurementStore(tmp_path / "x.db") as store, Recovering() as device:
        outcome = devices.profile(
            TinySpace(resolution=32), on=device, into=store, networks=2, mode="sustained",
            sustain_s=120,
        )  # fmt: skip
        assert outcome.conditions.load_s == 120
        for text, m in outcome.results.items():
            true_ms = FakeDevice.true_ms(device.lower(_network(text), tmp_path / "n"))
            assert 2.1 * true_ms < min(m.medians_ms) <= max(m.medians_ms) < 2.6 * true_ms
        for bad in (-3.0, 0.0, float("nan"), float("inf")):
            with pytest.raises(InvalidArgument, match="10 to 3600 s"):
                devices.profile(None, on=device, into=store, mode="sustained", sustain_s=bad)


def test_first_inferences_of_a_discarded_measurement_go_with_it(tmp_path: Path) -> None:
    network = few()[-1]

    class Wild(WithFirst):
        factor, moves = 1.0, True

        def run_ms(self, jobs: Sequence[Job], **how: Any) -> Iterator[Reading]:
            for reading in super().run_ms(jobs, **how):
                spread = float(self.rng.uniform(0.2, 3.0)) if self.moves else 1.0
                yield replace(
                    reading,
                    samples_ms=tuple(spread * s for s in reading.samples_ms),
                    first_ms=reading.first_ms * self.factor,
                )

    with data.MeasurementStore(tmp_path / "x.db") as store, Wild() as device:
        lost = devices.measure([network], on=device, into=store, protocol=QUICK)
        assert list(lost.unstable) == [network.text]
        device.moves, device.factor = False, 6.0
        kept = devices.measure([network], on=device, into=store, protocol=QUICK, again=True)
        (first,) = store.measurements(replace(device.conditions, mode="first"))
        assert len(first.rounds) == len(kept.results[network.text].rounds) == 10
        ratio = first.latency_ms / kept.results[network.text].latency_ms
        assert ratio == pytest.approx(9.0, rel=0.03)


def test_a_fallen_clock_speaks_only_together_with_the_time() -> None:
    gate = Gate(0.35)
    rng = np.random.default_rng(0)
    for _ in range(100):
        gate.objection(float(rng.normal(1.0, 0.05)), 2800.0)
    assert gate.objection(1.0, 1500.0) == ""
    assert "2800 MHz" in gate.objection(1.14, 1500.0)


# -- before a batch -----------------------------------------------------------------------------


def test_reasons_to_wait_and_doubts() -> None:
    assert "severe" in reason_to_wait({"thermal_status": 3}, None)
    assert reason_to_wait({"thermal_status": 0, "temperature_c": 60.0}, None) == ""
    assert "60.0 °C" in reason_to_wait({"temperature_c": 60.0}, 45.0)
    assert reason_to_wait({"temperature_c": 44.9}, 45.0) == ""
    assert reason_to_wait({}, 45.0) == ""
    assert "9 %" in doubts({"battery_percent": 9, "charging": False})[0]
    assert doubts({"battery_percent": 9, "charging": True}) == []
    assert "load 6.0" in doubts({"load": 6.0, "online": 8})[0]
    assert doubts({"load": 1.0, "online": 8}) == []


class Hot(FakeDevice):
    """Hot until it has rested for a minute."""

    def circumstances(self) -> dict[str, Any]:
        hot = self.clock_s < 60
        return {"temperature_c": 50.0 if hot else 30.0, "thermal_status": int(hot), "load": 9.0,
                "online": 8}  # fmt: skip


def test_a_hot_device_is_waited_for_and_doubts_are_told_once(tmp_path: Path) -> None:
    told: list[Event] = []
    device = Hot()
    with data.MeasurementStore(tmp_path / "x.db") as store, device:
        outcome = devices.measure(
            few(), on=device, into=store, protocol=QUICK, on_event=told.append
        )
    waits = [e for e in told if isinstance(e, Waiting)]
    assert sum(e.seconds for e in waits) >= 55
    assert "thermal status 1, light" in waits[0].reason
    assert len([e for e in told if isinstance(e, Doubted)]) == 1
    assert outcome.measured == 14
    # No round was taken while it was hot.
    temperatures = {
        r.circumstances["temperature_c"] for m in outcome.results.values() for r in m.rounds
    }
    assert temperatures == {30.0}


def test_a_device_that_stays_hot_is_unstable(tmp_path: Path) -> None:
    class Oven(FakeDevice):
        def circumstances(self) -> dict[str, Any]:
            return {"temperature_c": 50.0}

    protocol = replace(QUICK, wait_below_c=45.0)
    with data.MeasurementStore(tmp_path / "x.db") as store, Oven() as device:
        with pytest.raises(
            UnstableDevice, match="50.0 °C; measured is below 45 °C, and did so for 15 min"
        ):
            devices.measure(few(), on=device, into=store, protocol=protocol)
        assert device.clock_s < 1000


# -- during -------------------------------------------------------------------------------------


class Throttling(FakeDevice):
    """Slower by a part for half a minute of every two; its operators and its sentinel unequally."""

    def circumstances(self) -> dict[str, Any]:
        return {"thermal_status": 0}  # a phone that does not own up to it

    def run_ms(
        self, jobs: Sequence[Job], *, sentinel: Path, warmup_runs: int, warmup_s: float
    ) -> Iterator[Reading]:
        for reading in super().run_ms(
            jobs, sentinel=sentinel, warmup_runs=warmup_runs, warmup_s=warmup_s
        ):
            self.clock_s += 0.3
            slow = 20 < self.clock_s % 120 < 50
            if slow:
                reading = replace(
                    reading,
                    samples_ms=tuple(s * 1.15 for s in reading.samples_ms),
                    sentinel_ms=tuple(s * 1.3 for s in reading.sentinel_ms),
                )
            yield reading


def test_throttling_is_noticed_waited_out_and_repeated(tmp_path: Path) -> None:
    told: list[Event] = []
    with data.MeasurementStore(tmp_path / "x.db") as store, Throttling() as device:
        outcome = devices.measure(
            few(40), on=device, into=store, protocol=QUICK, on_event=told.append
        )
    assert outcome.rejected > 10
    assert any("throttles" in e.reason for e in told if isinstance(e, Waiting))
    for m in outcome.results.values():
        # No throttled round among them: each would stand 12 % off.
        assert max(m.medians_ms) / min(m.medians_ms) < 1.02
    assert outcome.unstable == {}


def test_a_device_that_never_comes_back_to_speed_is_unstable(tmp_path: Path) -> None:
    device = FakeDevice(speed=[1.0] * 60 + [1.5] * 100_000)
    with data.MeasurementStore(tmp_path / "x.db") as store, device:
        with pytest.raises(
            UnstableDevice, match="did not come back to its speed within 1[5-9] min"
        ):
            devices.measure(few(40), on=device, into=store, protocol=QUICK)


def test_numbers_are_never_stated_at_a_speed_far_from_the_reference(tmp_path: Path) -> None:
    with data.MeasurementStore(tmp_path / "x.db") as store:
        with FakeDevice() as device:
            devices.measure(few(), on=device, into=store, protocol=QUICK)
        with FakeDevice(speed=[1.6] * 100_000) as device:
            with pytest.raises(UnstableDevice, match=r"stated at 0.500 ms \(\+60%, limit ±35%\)"):
                devices.measure(few(20), on=device, into=store, protocol=QUICK)


# -- modes --------------------------------------------------------------------------------------


class WithFirst(FakeDevice):
    def run_ms(self, jobs: Sequence[Job], **how: Any) -> Iterator[Reading]:
        for reading in super().run_ms(jobs, **how):
            yield replace(reading, first_ms=1.5 * reading.samples_ms[0])


def test_first_inferences_of_networks_are_recorded_apart(tmp_path: Path) -> None:
    with data.MeasurementStore(tmp_path / "x.db") as store, WithFirst() as device:
        steady = devices.measure(few(), on=device, into=store, protocol=QUICK)
        first = replace(device.conditions, mode="first")
        found = store.measurements(first)
        assert len(found) == 2
        assert {m.kind for m in found} == {"network"}
        for m in found:
            assert len(m.rounds) == len(steady.results[m.subject].rounds) == 10
            assert m.latency_ms / steady.results[m.subject].latency_ms == pytest.approx(
                1.5, rel=0.02
            )
        chosen, left_out = choose_conditions(store, "fake")
        assert chosen.mode == "steady"
        assert left_out == []


def test_sustained_speed_comes_after_minutes_of_load_and_stands_apart(tmp_path: Path) -> None:
    class Tiring(FakeDevice):
        """Half as fast after two minutes of load."""

        def run_ms(self, jobs: Sequence[Job], **how: Any) -> Iterator[Reading]:
            for reading in super().run_ms(jobs, **how):
                self.clock_s += 1.0
                slow = 2.0 if self.clock_s > 120 else 1.0
                yield replace(
                    reading,
                    samples_ms=tuple(slow * s for s in reading.samples_ms),
                    sentinel_ms=tuple(slow * s for s in reading.sentinel_ms),
                )

    space = TinySpace(resolution=32)
    with data.MeasurementStore(tmp_path / "x.db") as store, Tiring() as device:
        outcome = devices.profile(
            space, on=device, into=store, networks=3, mode="sustained", sustain_s=150
        )
        assert outcome.conditions.mode == "sustained"
        assert {m.kind for m in outcome.results.values()} == {"network"}
        for text, m in outcome.results.items():
            # As it came: at no reference speed, that would hide what is asked for.
            true_ms = FakeDevice.true_ms(device.lower(_network(text), tmp_path / "n"))
            assert m.latency_ms == pytest.approx(2 * true_ms, rel=0.02)
        assert store.reference_ms(outcome.conditions) is None


def _network(text: str) -> Any:
    from phonenas.space import Architecture

    return Architecture.parse(text)


# -- after a loss -------------------------------------------------------------------------------


class Shaky(FakeDevice):
    """Lost after every so many readings; back after a few tries."""

    def __init__(self, every: int, tries: int = 2, **more: Any) -> None:
        super().__init__(**more)
        self.every, self.tries, self.missing, self.losses = every, tries, 0, 0
        self.build = "1"

    def __enter__(self) -> Shaky:
        if self.missing:
            self.missing -= 1
            raise DeviceUnavailable("fake is unplugged")
        super().__enter__()
        return self

    @property
    def conditions(self) -> Conditions:
        return replace(super().conditions, runtime_version=self.build)

    def run_ms(self, jobs: Sequence[Job], **how: Any) -> Iterator[Reading]:
        for reading in super().run_ms(jobs, **how):
            if self.readings % self.every == 0:
                self.losses += 1
                self.missing = self.tries
                self.entered = False
                raise DeviceUnavailable("fake was lost in mid-command")
            yield reading


def test_a_lost_device_is_entered_again_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    told: list[Event] = []
    with data.MeasurementStore(tmp_path / "x.db") as store, Shaky(25) as device:
        outcome = devices.measure(
            few(), on=device, into=store, protocol=QUICK, on_event=told.append
        )
    assert device.losses >= 2
    assert len([e for e in told if isinstance(e, Lost)]) == 3 * device.losses
    assert outcome.measured == 14
    assert outcome.unstable == {}
    for m in outcome.results.values():
        assert len(m.rounds) == (10 if m.kind == "network" else 3)
    with data.MeasurementStore(tmp_path / "y.db") as store, FakeDevice() as whole:
        calm = devices.measure(few(), on=whole, into=store, protocol=QUICK)
    for text, m in outcome.results.items():
        assert m.latency_ms == pytest.approx(calm.results[text].latency_ms, rel=0.01)


def test_a_device_that_stays_away_ends_the_job_in_bounded_time(tmp_path: Path) -> None:
    with data.MeasurementStore(tmp_path / "x.db") as store, Shaky(40, tries=1000) as device:
        with pytest.raises(DeviceUnavailable, match="unplugged"):
            devices.measure(few(), on=device, into=store, protocol=QUICK)
        kept = sum(len(r) for r in _rounds(store, device))
    assert device.clock_s < 200
    assert kept > 0


def _rounds(store: data.MeasurementStore, device: FakeDevice) -> list[Any]:
    texts = [s.text for s in few() if s.kind == "operator"]
    return [p.rounds for p in store.pending(device.conditions, "operator", texts).values()]


def test_a_device_that_loses_itself_without_end_is_given_up(tmp_path: Path) -> None:
    with data.MeasurementStore(tmp_path / "x.db") as store, Shaky(1, tries=0) as device:
        with pytest.raises(DeviceUnavailable, match="lost"):
            devices.measure(few(), on=device, into=store, protocol=QUICK)
        assert device.losses == keeper._FRUITLESS + 1


def test_a_model_that_takes_the_device_down_is_given_up_and_the_rest_measured(
    tmp_path: Path,
) -> None:
    subjects = few()
    poison = subjects[3].model

    class Fragile(FakeDevice):
        def lower(self, model: Any, stem: Path) -> Path:
            path = super().lower(model, stem)
            if model == poison:
                path.write_bytes(b"poison")
            return path

        def run_ms(self, jobs: Sequence[Job], **how: Any) -> Iterator[Reading]:
            for job in jobs:
                if job.model.read_bytes() == b"poison":
                    raise LostInRun("fake: its worker process ended with code -11")
                yield from super().run_ms([job], **how)

    with data.MeasurementStore(tmp_path / "x.db") as store, Fragile() as device:
        outcome = devices.measure(subjects, on=device, into=store, protocol=QUICK)
    assert list(outcome.unstable) == [poison.key]
    assert "code -11" in outcome.unstable[poison.key]
    assert outcome.measured == len(subjects) - 1


def test_a_device_that_comes_back_as_another_is_refused(tmp_path: Path) -> None:
    device = Shaky(40, tries=0)

    def tell(event: Event) -> None:
        if isinstance(event, Lost):
            device.build = "2"

    with data.MeasurementStore(tmp_path / "x.db") as store, device:
        with pytest.raises(DeviceError, match="runtime_version: 1 / 2"):
            devices.measure(few(), on=device, into=store, protocol=QUICK, on_event=tell)


# -- verdicts -----------------------------------------------------------------------------------


def test_a_verdict_of_each_measurement(tmp_path: Path) -> None:
    subjects = few()
    wild = subjects[-1].model

    class Restless(FakeDevice):
        turn = False

        def lower(self, model: Any, stem: Path) -> Path:
            path = super().lower(model, stem)
            return path.rename(path.with_name(f"wild-{path.name}")) if model == wild else path

        def run_ms(self, jobs: Sequence[Job], **how: Any) -> Iterator[Reading]:
            for job, reading in zip(jobs, super().run_ms(jobs, **how), strict=True):
                self.turn = not self.turn if "wild" in job.model.name else self.turn
                moves = 1.0 if "wild" not in job.model.name else 1.2 if self.turn else 0.85
                yield replace(reading, samples_ms=tuple(moves * s for s in reading.samples_ms))

    with data.MeasurementStore(tmp_path / "x.db") as store, Restless() as device:
        outcome = devices.measure(subjects, on=device, into=store, protocol=QUICK)
    assert list(outcome.doubtful) == [str(wild)]
    assert "rounds around" in outcome.doubtful[str(wild)]
    calm = outcome.results[subjects[0].text]
    assert verdict_of(calm, QUICK).stable
    once = replace(
        next(iter(outcome.results.values())), rounds=outcome.results[few()[0].text].rounds[:1]
    )
    assert "--quick" in verdict_of(once, QUICK).text


# -- a shelf ------------------------------------------------------------------------------------


def named(name: str, base: type[FakeDevice] = FakeDevice, **more: Any) -> FakeDevice:
    kind = type(name, (base,), {"name": name})
    return kind(**more)


def measured_by(path: Path, shelf: list[FakeDevice]) -> tuple[Any, data.MeasurementStore]:
    store = data.MeasurementStore(path)

    def work(device: Any, tell: Any) -> Any:
        return devices.measure(few(), on=device, into=store, protocol=QUICK, on_event=tell)

    return Shelf(shelf, pause_s=0.01).run(work), store


def test_a_shelf_gives_what_each_device_gives_alone(tmp_path: Path) -> None:
    def shelf() -> list[FakeDevice]:
        return [named(n, seed=i) for i, n in enumerate(("ann", "bob", "cid"))]

    together, store = measured_by(tmp_path / "together.db", shelf())
    store.close()
    assert set(together.outcomes) == {"ann", "bob", "cid"}
    for device in shelf():
        alone, store = measured_by(tmp_path / f"{device.name}.db", [device])
        store.close()
        for text, m in alone.outcomes[device.name].results.items():
            other = together.outcomes[device.name].results[text]
            assert [r.samples_ms for r in other.rounds] == [r.samples_ms for r in m.rounds]


def test_one_lost_device_does_not_hold_up_the_others_and_its_work_goes_on(tmp_path: Path) -> None:
    lost = named("lost", Shaky, every=40, tries=9)  # longer than its job waits: a second try
    gone = named("gone", Shaky, every=40, tries=10_000)
    found, store = measured_by(tmp_path / "x.db", [named("ann"), lost, gone])
    with store:
        assert set(found.outcomes) == {"ann", "lost"}
        assert set(found.failures) == {"gone"}
        assert "unplugged" in str(found.failures["gone"])
        assert found.outcomes["lost"].measured + found.outcomes["lost"].reused == 14
        for m in store.measurements(lost.conditions):
            assert len(m.rounds) == (10 if m.kind == "network" else 3)


def test_two_names_of_one_place_take_turns(tmp_path: Path) -> None:
    inside: list[str] = []

    class Shared(FakeDevice):
        place = "usb 1"

        def __enter__(self) -> Shared:
            assert inside == []
            inside.append(self.name)
            super().__enter__()
            return self

        def __exit__(self, *error: object) -> None:
            super().__exit__(*error)
            inside.remove(self.name)

    found, store = measured_by(tmp_path / "x.db", [named("ann", Shared), named("bob", Shared)])
    store.close()
    assert set(found.outcomes) == {"ann", "bob"}


def test_trouble_that_is_not_a_devices_stops_the_shelf(tmp_path: Path) -> None:
    def work(device: Any, tell: Any) -> Any:
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="ours"):
        Shelf([named("ann"), named("bob")]).run(work)


def test_a_shelf_needs_different_names() -> None:
    with pytest.raises(InvalidArgument, match="different names"):
        Shelf([named("ann"), named("ann")])


def test_the_sentinel_of_the_fake_is_as_stated() -> None:
    assert SENTINEL_MS == 0.5
