"""The simulated phone: its truth, its clock, what goes wrong on it, and a whole profile there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from phonenas import data, devices, space
from phonenas.devices.device import Device, Job, Reading
from phonenas.devices.measuring.events import Event, Measured, Subject
from phonenas.devices.measuring.protocol import SENTINEL
from phonenas.devices.simulated import BackgroundLoad, Losses, SimulatedPhone, Throttle
from phonenas.space import Architecture, Operator
from phonenas.space.errors import DeviceUnavailable, InvalidArgument
from phonenas.testing import DeviceContract

# A depthwise-separable layer on a large map waits for memory; the sentinel computes.
WAITS = Operator("dsconv", 96, 16, 112, kernel=3, stride=2)
NETWORK = space.zoo.network("mnasnet-small")


def calm(**more: Any) -> SimulatedPhone:
    return SimulatedPhone(**{"throttle": None, "load": None, **more})


def read(
    phone: SimulatedPhone,
    models: Sequence[Operator | Architecture],
    folder: Path,
    runs: int = 10,
    warmup_s: float = 0.3,
) -> list[Reading]:
    sentinel = phone.lower(SENTINEL, folder / "sentinel")
    jobs = [Job(phone.lower(m, folder / str(i)), runs) for i, m in enumerate(models)]
    return list(phone.run_ms(jobs, sentinel=sentinel, warmup_runs=5, warmup_s=warmup_s))


class TestSimulatedPhone(DeviceContract):
    @pytest.fixture
    def device(self) -> Device:
        return SimulatedPhone()


def test_it_is_connected_by_devices_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "devices.toml"
    path.write_text('[practice]\ntransport = "simulated"\naddress = "7"\nthreads = 2\n')
    monkeypatch.setenv("PHONENAS_DEVICES", str(path))
    phone = devices.connect("practice")
    assert isinstance(phone, SimulatedPhone)
    assert (phone.name, phone.seed, phone.threads) == ("practice", 7, 2)


# -- the truth ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {"out_channels": 64},
        {"in_channels": 64},
        {"in_px": 56},
        {"kernel": 5},
        {"expansion": 6},
        {"se_channels": 10},
        {"skip": "pool"},
    ],
)
def test_more_work_takes_longer(more: dict[str, Any]) -> None:
    phone = SimulatedPhone()
    small = Operator("mbconv", 40, 48, 28, kernel=3, expansion=3)
    assert phone.truth_ms(replace(small, **more)) > phone.truth_ms(small)


def test_truth_is_the_roofline_that_is_documented() -> None:
    phone = calm(seed=3)
    own = phone.truth_ms(SENTINEL) / 1.7
    assert 0.9 < own < 1.1
    # By hand for a 1×1 convolution within the cache: 7.5 million multiply-adds at 60 % of
    # 22.4 GMAC/s, on 784 pixels of which as good as 12 are lost, and 8 µs.
    expand = 40 * 240 * 784 / 22.4e6 / (0.60 * 784 / 796) + 0.008
    with_ = phone.truth_ms(replace(SENTINEL, skip="none"))
    parts = phone.roofline.costs(SENTINEL)
    assert parts[0].core_ms + parts[0].dispatch_ms == pytest.approx(expand, rel=0.05)
    assert sum(c.core_ms + c.dispatch_ms for c in parts[:3]) == pytest.approx(with_, rel=1e-9)


def test_a_network_is_no_plain_sum_of_its_operators() -> None:
    phone = SimulatedPhone()
    for name in ("mnasnet-a1", "mobilenet-v2"):
        whole = space.zoo.network(name)
        total = sum(phone.truth_ms(o) for o in whole.operators())
        assert 0.88 < phone.truth_ms(whole) / total < 0.97


def test_threads_and_larger_cores_are_faster() -> None:
    times = [calm(threads=n).truth_ms(NETWORK) for n in (1, 2, 4)]
    assert times == sorted(times, reverse=True)
    assert times[0] / times[2] < 4
    assert calm(cores="little").truth_ms(NETWORK) > 2.5 * times[0]
    with pytest.raises(InvalidArgument, match="has 1 to 4 cores, got 5 threads"):
        SimulatedPhone(threads=5)


def test_a_slow_clock_hits_computing_in_full_and_memory_hardly() -> None:
    speed = SimulatedPhone().roofline

    def slower(model: Operator, clock: float, contention: float = 1.0) -> float:
        costs = speed.costs(model)
        return speed.time_ms(costs, clock, contention) / speed.time_ms(costs)

    assert slower(SENTINEL, 0.6) == pytest.approx(1 / 0.6, rel=0.01)
    assert slower(WAITS, 0.6) < 1.45
    assert slower(WAITS, 1.0, 1.3) > 1.12 > 1.06 > slower(SENTINEL, 1.0, 1.3)


def test_two_phones_of_one_model_differ_a_little() -> None:
    first, second = SimulatedPhone(seed=1), SimulatedPhone(seed=2)
    assert first.truth_ms(NETWORK) == SimulatedPhone(seed=1).truth_ms(NETWORK)
    assert 0.001 < abs(first.truth_ms(NETWORK) / second.truth_ms(NETWORK) - 1) < 0.11
    assert first.conditions.differences(second.conditions) == [
        f"fingerprint: {first.fingerprint} / {second.fingerprint}"
    ]


def test_it_says_that_it_is_simulated() -> None:
    phone = SimulatedPhone()
    assert phone.conditions.origin == "simulated"
    assert phone.state().kind == "simulated"
    assert "computed" in phone.state().detail


# -- readings -------------------------------------------------------------------------------------


def test_equal_seeds_and_calls_give_equal_readings(tmp_path: Path) -> None:
    told = []
    for seed in (5, 5, 6):
        with SimulatedPhone(seed=seed) as phone:
            told.append((read(phone, [WAITS, NETWORK] * 20, tmp_path), phone.now_s()))
    assert told[0] == told[1]
    assert told[0] != told[2]


def test_samples_scatter_around_the_truth(tmp_path: Path) -> None:
    with calm(load=BackgroundLoad(every_s=1e9, quiet=0.03)) as phone:
        readings = read(phone, [WAITS] * 200, tmp_path)
    medians = [median(r.samples_ms) / phone.truth_ms(WAITS) for r in readings]
    assert median(medians) == pytest.approx(1, abs=0.01)
    assert 0.005 < (sorted(medians)[160] - sorted(medians)[40]) / 2 < 0.02  # between rounds
    assert sum(r.preempted for r in readings) > 10
    # A few that lost the core were not noticed.
    assert max(max(r.samples_ms) for r in readings) > 1.5 * phone.truth_ms(WAITS)
    firsts = median(r.first_ms for r in readings) / phone.truth_ms(WAITS)
    assert firsts == pytest.approx(1.55, abs=0.03)


def test_the_governor_wants_load_before_it_gives_speed(tmp_path: Path) -> None:
    with calm(noise=0.0) as phone:
        (cold,) = read(phone, [SENTINEL], tmp_path, runs=1, warmup_s=0.0)
        (warm,) = read(phone, [SENTINEL], tmp_path, runs=1)
    assert cold.samples_ms[0] > 1.2 * warm.samples_ms[0]
    assert cold.clock_mhz < warm.clock_mhz == 2800


def test_time_is_virtual_and_counts_everything(tmp_path: Path) -> None:
    with calm() as phone:
        before = phone.now_s()
        (reading,) = read(phone, [NETWORK], tmp_path, runs=20)
        spent = phone.now_s() - before
        work_s = (sum(reading.samples_ms) + 40 * median(reading.sentinel_ms)) / 1e3
        assert work_s < reading.busy_s < spent < work_s + 1.0
        phone.pause(3600)
        assert phone.now_s() == pytest.approx(before + spent + 3600)


# -- what goes wrong ------------------------------------------------------------------------------


def test_throttling_shows_in_sentinel_and_clock(tmp_path: Path) -> None:
    phone = SimulatedPhone(throttle=Throttle(every_s=60, for_s=20, to=0.6), load=None)
    with phone:
        (free,) = read(phone, [WAITS], tmp_path)
        phone.pause(50 - phone.now_s())
        assert phone.telemetry()["thermal_status"] == 2
        (slow,) = read(phone, [WAITS], tmp_path)
        phone.pause(62 - phone.now_s())
        assert phone.telemetry()["thermal_status"] == 0
        (after,) = read(phone, [WAITS], tmp_path)
    assert (free.clock_mhz, slow.clock_mhz, after.clock_mhz) == (2800, 1680, 2800)
    usual = median(free.sentinel_ms)
    assert median(slow.sentinel_ms) / usual == pytest.approx(1 / 0.6, rel=0.03)
    assert median(after.sentinel_ms) / usual == pytest.approx(1, rel=0.03)
    # What waits for memory slows down by less: no sentinel corrects it.
    assert median(slow.samples_ms) < 1.35 * phone.truth_ms(WAITS)


def test_work_heats_pauses_cool_and_heat_throttles(tmp_path: Path) -> None:
    heat = Throttle(every_s=1e9, for_s=0, to=0.5, above_c=50, reported=False)
    with calm(throttle=heat) as phone:
        assert phone.telemetry()["temperature_c"] == 30
        clocks = [r.clock_mhz for r in read(phone, [NETWORK] * 200, tmp_path, runs=30)]
        assert set(clocks) == {2800, 1400}
        assert clocks[0] == 2800
        warm = phone.telemetry()
        assert 42 < warm["temperature_c"] < 51
        assert warm["thermal_status"] == 0  # this one does not tell
        phone.pause(600)
        assert phone.telemetry()["temperature_c"] < 31
        assert phone.telemetry()["clock_mhz"] == 2800


def test_neighbours_come_in_bursts(tmp_path: Path) -> None:
    busy = BackgroundLoad(every_s=5, for_s=2, preempted=0.4, quiet=0.0)
    with calm(load=busy) as phone:
        lost, loads = [], []
        for _ in range(150):
            loads.append(phone.telemetry()["load"])
            lost.append(read(phone, [NETWORK], tmp_path)[0].preempted)
    during = [n for n, load in zip(lost, loads, strict=True) if load > 1]
    between = [n for n, load in zip(lost, loads, strict=True) if load < 1]
    assert 15 < len(during) < len(between)
    assert median(during) > 3 > median(between) == 0


def test_a_loss_comes_in_mid_batch_and_it_is_entered_again_after_its_start(tmp_path: Path) -> None:
    phone = SimulatedPhone(losses=Losses(every=4, reboot_s=30))
    sentinel = phone.lower(SENTINEL, tmp_path / "sentinel")
    jobs = [Job(sentinel, 3)] * 6
    told: list[Reading] = []
    with phone:
        with pytest.raises(DeviceUnavailable, match="was lost"):
            for reading in phone.run_ms(jobs, sentinel=sentinel, warmup_runs=1, warmup_s=0.0):
                told.append(reading)
        assert len(told) == 4
        with pytest.raises(DeviceUnavailable, match="enter it again"):
            phone.run_ms(jobs, sentinel=sentinel, warmup_runs=1, warmup_s=0.0)
        with pytest.raises(DeviceUnavailable):
            phone.telemetry()
    with pytest.raises(DeviceUnavailable, match="starting again"):
        phone.__enter__()
    phone.pause(30)
    with phone:
        assert len(read(phone, [SENTINEL] * 4, tmp_path)) == 4
        with pytest.raises(DeviceUnavailable):
            read(phone, [SENTINEL], tmp_path)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="for_s < every_s"):
        Throttle(every_s=10, for_s=20)
    with pytest.raises(InvalidArgument, match="every ≥ 1 model"):
        Losses(every=0)


# -- a whole profile ------------------------------------------------------------------------------


def some_operators() -> list[Subject]:
    return [Subject("operator", o) for o in space.get("mnasnet", 224).operators()[::4][:600]]


def rough(seed: int = 0, reported: bool = True) -> SimulatedPhone:
    """It throttles every two minutes, has neighbours, and is lost every 50 models."""
    throttle = Throttle(every_s=120, for_s=30, to=0.6, reported=reported)
    return SimulatedPhone(seed=seed, throttle=throttle, losses=Losses(every=50))


@pytest.mark.slow
@pytest.mark.parametrize("reported", [True, False], ids=["reported", "unreported"])
def test_600_operators_on_a_rough_phone_end_complete_and_true(
    reported: bool, tmp_path: Path
) -> None:
    phone = rough(reported=reported)
    subjects = [*some_operators(), Subject("network", NETWORK)]
    with data.MeasurementStore(tmp_path / "p.db") as store, phone:
        outcome = devices.measure(subjects, on=phone, into=store)
    assert not outcome.unstable
    assert outcome.measured == len(outcome.results) == 601
    assert phone.now_s() > 600  # several times throttled
    off = {
        s.text: outcome.results[s.text].latency_ms / phone.truth_ms(s.model) - 1 for s in subjects
    }
    assert {text: share for text, share in off.items() if abs(share) > 0.05} == {}
    assert {m.conditions.origin for m in outcome.results.values()} == {"simulated"}


def test_a_profile_that_is_killed_and_gone_on_with_ends_with_the_same(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(event: Event) -> None:
        if isinstance(event, Measured) and event.done > 150:
            raise Killed

    subjects = some_operators()[:100]
    phone = rough(seed=1)
    with data.MeasurementStore(tmp_path / "p.db") as store:
        with phone, pytest.raises(Killed):
            devices.measure(subjects, on=phone, into=store, on_event=kill)
        assert store.count(phone.conditions) < 100
        phone.pause(60)
        with phone:
            outcome = devices.measure(subjects, on=phone, into=store)
        assert not outcome.unstable
        assert 0 < outcome.measured <= 100
        assert set(outcome.results) == {s.text for s in subjects}
        every = store.measurements(phone.conditions, all_series=True)
        assert {m.series for m in every} == {0}


def test_a_precision_changes_the_truth_as_it_is_documented(tmp_path: Path) -> None:
    """A pointwise convolution computes: three times as fast in int8, but for its dispatch."""
    wide, d = Operator("conv", 512, 512, 14, kernel=1), 0.008
    phones = {p: calm() for p in ("float32", "float16", "int8", "float16-weights")}
    for precision, phone in phones.items():
        phone.precision = precision
    ms = {p: phone.truth_ms(wide) - d for p, phone in phones.items()}
    assert ms["float32"] / ms["int8"] == pytest.approx(3)
    assert ms["float32"] / ms["float16"] == pytest.approx(2)
    assert ms["float16-weights"] == ms["float32"]
    phone = phones["int8"]
    assert phone.conditions.precision == "int8"
    with phone:
        sizes = {
            p: phone.startup(phone.lower(NETWORK, tmp_path / p, p)).file_bytes
            for p in ("float32", "int8")
        }
    assert sizes["float32"] == 4 * (sizes["int8"] or 0)
