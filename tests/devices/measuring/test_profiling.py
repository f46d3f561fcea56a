"""profile(): complete, once each, resumable; what contradicts is rejected and taken again."""

from __future__ import annotations

import itertools
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import SENTINEL_MS, FakeDevice, TinySpace
from patience import PATIENCE_S

from phonenas import data, devices, space
from phonenas.data.measurement import Startup, spread
from phonenas.devices.device import Reading
from phonenas.devices.measuring import profiling
from phonenas.devices.measuring.events import Measured, Planned, Rejected, Subject, Waiting, Warned
from phonenas.devices.measuring.protocol import Protocol
from phonenas.space.errors import DeviceError, InvalidArgument, UnstableDevice
from phonenas.space.lowering.onnx import to_onnx

pytestmark = pytest.mark.usefixtures("fast")


@pytest.fixture
def store(tmp_path: Path) -> data.MeasurementStore:
    return data.MeasurementStore(tmp_path / "p.db")


def test_every_operator_and_the_networks_are_measured(
    tiny: TinySpace, store: data.MeasurementStore
) -> None:
    named = [space.zoo.network("mnasnet-small", resolution=32)]
    with FakeDevice() as device:
        outcome = devices.profile(
            tiny, on=device, into=store, networks=7, more=profiling.Selection(named=named)
        )
    expected = {o.key for o in tiny.operators()} | {o.key for o in named[0].operators()}
    assert {m.subject for m in store.measurements(device.conditions, "operator")} == expected
    networks = store.measurements(device.conditions, "network")
    assert len(networks) == 8
    assert str(named[0]) in {m.subject for m in networks}
    assert outcome.measured == len(expected) + 8
    assert outcome.reused == 0
    assert outcome.verdict.stable, outcome.verdict.text
    protocol = Protocol()
    for m in networks:
        assert len(m.rounds) == protocol.network_rounds
        assert all(len(r.samples_ms) == protocol.network_runs for r in m.rounds)


def test_times_are_those_of_the_device(
    tiny: TinySpace, store: data.MeasurementStore, tmp_path: Path
) -> None:
    with FakeDevice() as device:
        outcome = devices.profile(tiny, on=device, into=store, networks=0)
    for operator in tiny.operators()[:10]:
        path = tmp_path / "o.onnx"
        path.write_bytes(to_onnx(operator).SerializeToString())
        assert outcome.results[operator.key].latency_ms == pytest.approx(
            FakeDevice.true_ms(path), rel=0.01
        )


@pytest.mark.fault(
    "Other programs take the core of a device from every run.",
    "`other programs take its core from every run of the sentinel, still so after 30 s`; exit "
    "code 1",
    "Close them; `top` shows which they are.",
)
def test_a_device_that_is_busy_is_waited_for_and_then_told(
    tiny: TinySpace, store: data.MeasurementStore
) -> None:
    one = Subject("operator", tiny.operators()[0])
    crowded = Reading(preempted=60, error="no undisturbed run among 60")
    waits: list[Waiting] = []

    def see(event: object) -> None:
        if isinstance(event, Waiting):
            waits.append(event)

    # Two looks of four readings are without an undisturbed run, and one reading of the third.
    with FakeDevice(trouble=dict.fromkeys(range(1, 10), crowded)) as device:
        assert devices.measure([one], on=device, into=store, on_event=see).measured == 1
    assert [w.seconds for w in waits] == [1.0, 2.0]
    assert all("other programs take its core from every run" in w.reason for w in waits)
    with FakeDevice(trouble=dict.fromkeys(range(1, 100), crowded)) as device:
        with pytest.raises(UnstableDevice) as caught:
            devices.measure([one], on=device, into=store, again=True)
        assert device.clock_s == 30.0
    assert "fake is busy: other programs take its core from every run" in str(caught.value)
    assert "still so after 30 s" in str(caught.value) and "provider" not in str(caught.value)


def test_what_is_there_is_reused(tiny: TinySpace, store: data.MeasurementStore) -> None:
    with FakeDevice() as device:
        first = devices.profile(tiny, on=device, into=store, networks=3)
        readings = device.readings
        second = devices.profile(tiny, on=device, into=store, networks=3)
        assert device.readings == readings
    assert (second.measured, second.reused) == (0, first.measured)
    assert {k: m.latency_ms for k, m in second.results.items()} == {
        k: m.latency_ms for k, m in first.results.items()
    }


def test_again_makes_a_new_series_and_keeps_the_old(
    tiny: TinySpace, store: data.MeasurementStore
) -> None:
    with FakeDevice() as device:
        first = devices.profile(tiny, on=device, into=store, networks=2)
        second = devices.profile(tiny, on=device, into=store, networks=2, again=True)
    assert second.measured == first.measured
    assert {m.series for m in second.results.values()} == {1}
    everything = store.measurements(device.conditions, all_series=True)
    assert len(everything) == 2 * first.measured


def test_times_are_what_the_clock_shows(tiny: TinySpace, tmp_path: Path) -> None:
    found = []
    for speeds in ([], [1.3] * 100_000):
        with (
            data.MeasurementStore(tmp_path / f"{len(found)}.db") as store,
            FakeDevice(speed=speeds) as device,
        ):
            found.append(devices.profile(tiny, on=device, into=store, networks=5))
    usual, slower = found
    for text, m in usual.results.items():
        assert slower.results[text].latency_ms / m.latency_ms == pytest.approx(1.3, rel=0.01)
    # Nor does a sentinel of its own level change a sample.
    one = data.Measurement("network", "a", device.conditions, (data.Round((2.0,), (0.9,)),))
    assert (one.latency_ms, one.medians_ms, one.sentinel_ms) == (2.0, (2.0,), 0.9)


def test_a_stall_is_rejected_with_the_reason_and_taken_again(
    tiny: TinySpace, store: data.MeasurementStore
) -> None:
    events: list[object] = []
    speeds = [1.0] * 30 + [3.0] * 7 + [1.0] * 10_000
    with FakeDevice(speed=speeds) as device:
        outcome = devices.profile(tiny, on=device, into=store, networks=3, on_event=events.append)
    refused = [e for e in events if isinstance(e, Rejected)]
    assert outcome.rejected == 7 == sum(len(e.subjects) for e in refused)
    assert "ms instead of 0.500 ms (+2" in refused[0].reason
    assert len(store.rejections(device.conditions)) == 7
    every = [s for m in outcome.results.values() for r in m.rounds for s in r.sentinel_ms]
    assert max(every) < SENTINEL_MS * 1.4
    assert not outcome.unstable


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        (Reading(error="out of memory"), "out of memory"),
        (Reading((1.0,), (0.5,), 0, "GPU"), "asked for CPU, and GPU ran"),
        (Reading((0.0,), (0.5,), 0, "CPU"), "not a positive finite number"),
        (Reading((math.nan,), (0.5,), 0, "CPU"), "not a positive finite number"),
        (Reading((1.0,), (1e308,), 0, "CPU"), "not a positive finite number"),
        *(
            pytest.param(reading, "not a positive finite number", marks=pytest.mark.slow)
            for reading in (
                Reading((-1.0,), (0.5,), 0, "CPU"),
                Reading((math.inf,), (0.5,), 0, "CPU"),
                Reading((1e308,), (0.5,), 0, "CPU"),
                Reading((1.0,), (math.nan,), 0, "CPU"),
            )
        ),
        (Reading((), (), 0, "CPU"), "it has no time"),
    ],
)
def test_what_is_no_time_is_never_recorded(
    tiny: TinySpace, store: data.MeasurementStore, reading: Reading, reason: str
) -> None:
    with FakeDevice(trouble={20: reading}) as device:
        outcome = devices.profile(tiny, on=device, into=store, networks=2)
    assert outcome.rejected == 1
    assert reason in store.rejections(device.conditions)[0][1]
    samples = [s for m in outcome.results.values() for r in m.rounds for s in r.samples_ms]
    assert all(s > 0 and math.isfinite(s) for s in samples)
    assert not outcome.unstable


def test_an_operator_that_never_settles_is_kept_and_told_as_uncertain(
    tiny: TinySpace, store: data.MeasurementStore
) -> None:
    class Wild(FakeDevice):
        def run_ms(self, jobs, **more):  # type: ignore[no-untyped-def]
            for reading in super().run_ms(jobs, **more):
                factor = float(self.rng.choice([1.0, 40.0]))
                yield Reading(
                    tuple(t * factor for t in reading.samples_ms), reading.sentinel_ms, 0, "CPU"
                )

    with Wild() as device:
        outcome = devices.profile(tiny, on=device, into=store, networks=0)
    assert not outcome.unstable and not outcome.verdict.stable
    assert len(outcome.doubtful) > len(outcome.results) / 2
    # On a calmer device they are measured again.
    with FakeDevice() as device:
        again = devices.profile(tiny, on=device, into=store, networks=0, again=True)
    assert not again.doubtful and again.verdict.stable


def test_a_shaky_subject_gets_more_rounds_and_its_error_bar(
    tiny: TinySpace, store: data.MeasurementStore
) -> None:
    class Shaky(FakeDevice):
        def run_ms(self, jobs, **more):  # type: ignore[no-untyped-def]
            for reading in super().run_ms(jobs, **more):
                factor = float(self.rng.uniform(0.6, 1.5))
                yield Reading(
                    tuple(t * factor for t in reading.samples_ms), reading.sentinel_ms, 0, "CPU"
                )

    with Shaky() as device:
        outcome = devices.profile(tiny, on=device, into=store, networks=0)
    protocol = Protocol()
    found = outcome.results.values()
    more = [m for m in found if len(m.rounds) > protocol.operator_rounds]
    assert more
    # Most of them are shaky, so that further rounds come to an end; the bar stays with the value.
    few = protocol.operator_rounds + protocol.few_extra_rounds
    most = protocol.operator_rounds + protocol.extra_rounds
    assert all(len(m.rounds) <= most for m in found)
    for m in found:
        assert m.spread <= protocol.last_limit or len(m.rounds) >= few
    first = [spread(m.medians_ms[: protocol.operator_rounds]) for m in found]
    assert sum(s > protocol.last_limit for s in first) > len(first) / 2
    assert any(m.spread > protocol.spread_limit for m in found)
    assert max(m.spread for m in found) > protocol.last_limit
    assert not outcome.unstable and not outcome.verdict.stable


class FakePhone(FakeDevice):
    phone = True


def test_a_device_that_never_settles_ends_in_an_error_and_keeps_what_is_good(
    tiny: TinySpace, store: data.MeasurementStore
) -> None:
    # Calm for a while; then every reading is far slower than the one before.
    wild = [1.6 ** min(i, 40) * (1 + i % 7) for i in range(1, 600)]
    with (
        FakePhone(speed=[1.0] * 150 + wild) as device,
        pytest.raises(UnstableDevice, match="did not come back to its speed") as caught,
    ):
        devices.profile(tiny, on=device, into=store, networks=2)
    assert "the sentinel beside it took" in str(caught.value)
    with FakePhone() as device:
        outcome = devices.profile(tiny, on=device, into=store, networks=2)
    assert not outcome.unstable
    assert outcome.measured + outcome.reused == len(tiny.operators()) + 2


def test_what_the_device_cannot_run_is_given_up_soon_and_only_tried_again_on_request(
    tiny: TinySpace, store: data.MeasurementStore
) -> None:
    class Refuses(FakeDevice):
        tries = 0

        def run_ms(self, jobs, **more):  # type: ignore[no-untyped-def]
            for job, reading in zip(jobs, super().run_ms(jobs, **more), strict=True):
                if job.model.read_bytes().find(b"dsconv_k5") >= 0:
                    Refuses.tries += 1
                    yield Reading(error="no kernel for this")
                else:
                    yield reading

    refused = {o.key for o in tiny.operators() if o.label.startswith("dsconv_k5")}
    assert refused
    with Refuses() as device:
        outcome = devices.profile(tiny, on=device, into=store, networks=0)
        assert set(outcome.unstable) == refused
        assert Refuses.tries == 3 * len(refused)
        assert "no kernel for this" in outcome.unstable[min(refused)]
        again = devices.profile(tiny, on=device, into=store, networks=0)
        assert set(again.unstable) == refused  # said again, not tried again
        assert Refuses.tries == 3 * len(refused)
    with FakeDevice() as device:
        retried = devices.profile(tiny, on=device, into=store, networks=0, again=True)
    assert not retried.unstable


def test_a_quick_look_is_completed_by_a_full_profile(
    tiny: TinySpace, store: data.MeasurementStore
) -> None:
    with FakeDevice() as device:
        quick = devices.profile(tiny, on=device, into=store, networks=0, protocol=devices.QUICK)
        assert {len(m.rounds) for m in quick.results.values()} == {1}
        assert not quick.verdict.stable and "no error bar" in quick.verdict.text
        full = devices.profile(tiny, on=device, into=store, networks=0)
    assert {len(m.rounds) for m in full.results.values()} == {Protocol().operator_rounds}
    assert full.measured == len(tiny.operators())
    assert {m.series for m in full.results.values()} == {0}


def test_again_goes_on_with_the_series_that_it_began(
    tiny: TinySpace, store: data.MeasurementStore
) -> None:
    class Stop(Exception):
        pass

    def stop(event: object) -> None:
        if isinstance(event, Measured) and event.done > 100:
            raise Stop

    with FakeDevice() as device:
        devices.profile(tiny, on=device, into=store, networks=2)
        with pytest.raises(Stop):
            devices.profile(tiny, on=device, into=store, networks=2, again=True, on_event=stop)
        devices.profile(tiny, on=device, into=store, networks=2, again=True)
    series = [m.series for m in store.measurements(device.conditions, all_series=True)]
    assert series.count(0) == series.count(1) == len(tiny.operators()) + 2
    assert max(series) == 1


def test_the_plan_is_told_before_and_progress_after(
    tiny: TinySpace, store: data.MeasurementStore
) -> None:
    events: list[object] = []
    with FakeDevice() as device:
        devices.profile(tiny, on=device, into=store, networks=2, on_event=events.append)
    assert isinstance(events[0], Planned)
    assert events[0].subjects == len(tiny.operators()) + 2
    assert events[0].seconds > 0
    last = [e for e in events if isinstance(e, Measured)][-1]
    assert last.done == last.total


def test_rounds_lie_seconds_apart(tiny: TinySpace, store: data.MeasurementStore) -> None:
    moments: dict[int, list[float]] = {}

    class Slow(FakeDevice):
        def run_ms(self, jobs, **more):  # type: ignore[no-untyped-def]
            for job in jobs:
                moments.setdefault(job.model.stat().st_size, []).append(self.clock_s)
                yield from super().run_ms([job], **more)
                self.clock_s += 0.1

    subjects = profiling.Selection().subjects(tiny, 3, seed=0)[-20:]
    with Slow() as device:
        outcome = devices.measure(subjects, on=device, into=store, protocol=Protocol())
    assert outcome.measured == 20
    watched = max(moments, key=lambda size: len(moments[size]))  # the sentinel, before the first
    gaps = [
        after - before
        for size, when in moments.items()
        if size != watched
        for before, after in itertools.pairwise(when)
    ]
    assert len(gaps) >= 17 * 2 + 3 * 9
    assert min(gaps) >= Protocol().apart_s


def test_rounds_are_shuffled_and_strewn(tiny: TinySpace, store: data.MeasurementStore) -> None:
    order: list[int] = []

    class Watching(FakeDevice):
        def run_ms(self, jobs, **more):  # type: ignore[no-untyped-def]
            order.extend(j.model.stat().st_size for j in jobs)
            yield from super().run_ms(jobs, **more)

    with Watching() as device:
        devices.profile(tiny, on=device, into=store, networks=3)
    places: dict[int, list[int]] = {}
    for place, size in enumerate(order[10:]):  # after the watch of the sentinel
        places.setdefault(size, []).append(place)
    counts = Protocol()
    networks = [p for p in places.values() if len(p) == counts.network_rounds]
    operators = [p for p in places.values() if len(p) == counts.operator_rounds]
    assert len(networks) == 3 and len(operators) > 30
    total = len(order) - 10
    for found in (*networks, *operators):
        # Strewn over the whole job, few rounds or many.
        gaps = [after - before for before, after in itertools.pairwise(found)]
        assert max(gaps) < 2.2 * total / len(found)
        assert found[0] < 1.1 * total / len(found)
        assert found[-1] > total - 1.1 * total / len(found)
    firsts = sorted(places, key=lambda size: places[size][0])
    assert firsts != sorted(firsts)


def test_negative_networks_are_refused(tiny: TinySpace, store: data.MeasurementStore) -> None:
    with FakeDevice() as device, pytest.raises(InvalidArgument, match="networks: 0 or more"):
        devices.profile(tiny, on=device, into=store, networks=-1)
    with pytest.raises(InvalidArgument, match="seed of a measuring job is 0 or more, got -1"):
        Protocol(seed=-1)


_JOB = """
import sys, time
sys.path.insert(0, {tests!r})
from fakes import FakeDevice, TinySpace
from phonenas import data, devices
from phonenas.devices.measuring import job, profiling
from dataclasses import replace

class Slow(FakeDevice):
    def run_ms(self, jobs, **more):
        for reading in super().run_ms(jobs, **more):
            time.sleep(0.0005)
            yield reading

job._BATCH_S = 0.05
subjects = profiling.Selection().subjects(TinySpace(resolution=32), 10, seed=0)
print("ready", flush=True)
with data.MeasurementStore({path!r}) as store, Slow() as device:
    quick = replace(profiling.Protocol(), apart_s=0.0)
    devices.measure(subjects, on=device, into=store, protocol=quick)
print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_at_twenty_random_moments_nothing_is_lost_or_doubled(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    path = tmp_path / "p.db"
    job = _JOB.format(tests=str(Path(__file__).parents[2]), path=str(path))
    moment = random.Random(7)
    killed = 0
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", job], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(moment.uniform(0.0, 0.25))
        os.kill(process.pid, signal.SIGKILL)
        killed += process.wait(timeout=PATIENCE_S) == -signal.SIGKILL
        process.stdout.close()
    assert killed >= 15  # most runs were really cut off
    last = subprocess.run(
        [sys.executable, "-c", job],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert last.stdout == "ready\ndone\n", last.stderr
    with data.MeasurementStore(path) as store:
        measurements = store.measurements(FakeDevice().conditions, all_series=True)
    tiny = TinySpace(resolution=32)
    operators = [m for m in measurements if m.kind == "operator"]
    assert sorted(m.subject for m in operators) == sorted(o.key for o in tiny.operators())
    assert len([m for m in measurements if m.kind == "network"]) == 10
    protocol = Protocol()
    for m in measurements:
        assert len(m.rounds) == protocol.rounds(m.kind)
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        doubles = raw.execute(
            "SELECT count(*) FROM round GROUP BY measurement, number HAVING count(*) > 1"
        ).fetchall()
    raw.close()
    assert doubles == []


def test_whole_networks_are_brought_up_alone_too(
    tiny: TinySpace, store: data.MeasurementStore
) -> None:
    with FakeDevice() as device:
        protocol = Protocol(network_rounds=4, startups=3)
        devices.profile(tiny, on=device, into=store, networks=3, protocol=protocol)
        operators = store.measurements(device.conditions, "operator")
        assert not any(r.startup for m in operators for r in m.rounds)
        networks = store.measurements(device.conditions, "network")
        for m in networks:
            assert [r.startup is not None for r in m.rounds] == [True, True, True, False]
            size = m.startup.file_bytes
            assert size and size > 10_000
            assert m.startup.peak_bytes == 30_000_000 + 2 * size
            assert m.figures["load_ms"] == pytest.approx(5 * m.latency_ms, rel=0.01)
        # What the store holds is not brought up again.
        device.startup = None  # type: ignore[method-assign, assignment]
        devices.profile(tiny, on=device, into=store, networks=3, protocol=protocol)


def test_a_startup_that_fails_is_told_and_costs_no_round(
    tiny: TinySpace, store: data.MeasurementStore
) -> None:
    class Short(FakeDevice):
        def startup(self, model: Path) -> Startup | None:
            raise DeviceError("fake: out of memory")

    told: list[str] = []
    with Short() as device:
        outcome = devices.profile(
            tiny,
            on=device,
            into=store,
            networks=2,
            protocol=Protocol(network_rounds=3),
            on_event=lambda e: told.append(e.reason) if isinstance(e, Warned) else None,
        )
    assert not outcome.unstable
    assert len([t for t in told if "fake: out of memory" in t]) == 2
    assert all("no memory and no time to load is known of r1_" in t for t in told)
    for m in store.measurements(device.conditions, "network"):
        assert m.startup == Startup() and len(m.rounds) == 3


def test_a_job_is_told_to_take_longer_where_programs_wait_for_a_core(
    tiny: TinySpace, tmp_path: Path
) -> None:
    class Pressed(FakeDevice):
        pressure = 0.0

        def telemetry(self) -> dict[str, Any]:
            return {**super().telemetry(), "pressure": self.pressure}

    told: list[float] = []
    for number, pressure in enumerate((0.0, 50.0, 100.0)):
        with data.MeasurementStore(tmp_path / f"{number}.db") as store, Pressed() as device:
            device.pressure = pressure
            devices.profile(
                tiny,
                on=device,
                into=store,
                networks=3,
                protocol=Protocol(apart_s=0.0),
                on_event=lambda e: told.append(e.seconds) if isinstance(e, Planned) else None,
            )
    assert told[0] < told[1] < told[2] and 1.5 < told[2] / told[0] < 2


@pytest.mark.parametrize("given", [None, 7.5])
def test_energy_that_was_asked_for_and_is_not_known_is_told_once(
    tiny: TinySpace, store: data.MeasurementStore, given: float | None
) -> None:
    class Metered(FakeDevice):
        energy = True

        def startup(self, model: Path) -> Startup:
            return replace(super().startup(model), energy_mj=given)

    told: list[str] = []
    with Metered() as device:
        devices.profile(
            tiny,
            on=device,
            into=store,
            networks=3,
            protocol=Protocol(network_rounds=3),
            on_event=lambda e: told.append(e.reason) if isinstance(e, Warned) else None,
        )
    assert len([t for t in told if "no energy is known of an inference" in t]) == (given is None)
    found = store.measurements(device.conditions, "network")
    assert [m.figures["energy_mj"] for m in found] == [given] * 3


def test_a_startup_that_is_interrupted_costs_no_round(tmp_path: Path) -> None:
    class Interrupted(FakeDevice):
        def startup(self, model: Path) -> Startup | None:
            raise KeyboardInterrupt

    network = space.zoo.network("mnasnet-small", resolution=32)
    with data.MeasurementStore(tmp_path / "s.db") as own:
        with Interrupted() as device, pytest.raises(KeyboardInterrupt):
            devices.measure(
                [Subject("network", network)],
                on=device,
                into=own,
                protocol=Protocol(network_rounds=3),
            )
    with sqlite3.connect(tmp_path / "s.db") as connection:
        assert connection.execute("select count(*) from round").fetchone() == (1,)
    connection.close()


def test_under_lasting_load_nothing_is_brought_up_alone(store: data.MeasurementStore) -> None:
    subjects = [Subject("network", space.zoo.network("mnasnet-small", resolution=32))]
    with FakeDevice() as device:
        protocol = Protocol(network_rounds=2, mode="sustained", sustain_s=10)
        outcome = devices.measure(subjects, on=device, into=store, protocol=protocol)
    (m,) = outcome.results.values()
    assert m.startup == Startup()
