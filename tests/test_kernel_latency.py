"""KernelLatencyModel: learned from kernels and whole networks, honest about what it has not seen."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx.backend.test
import pytest
from conftest import FakeDevice
from typer.testing import CliRunner

from phonenas import data, devices, space
from phonenas.cli import app
from phonenas.commands_kernels import (
    kernel_model,
    kernels_of,
    predict_file,
    profile_kernels,
    save_kernel_model,
)
from phonenas.data import Measurement, Round
from phonenas.latency_model.kernel_fitting import finer, fit_kernels, kernel_times
from phonenas.latency_model.kernel_latency import KernelLatencyModel
from phonenas.latency_model.onnx_kernels import OnnxNetwork, cut
from phonenas.space import Kernel
from phonenas.space.errors import (
    InvalidArgument,
    NotEnoughData,
    UncoveredOperator,
    UnsupportedFormat,
)
from phonenas.space.kernel_prior import sample
from phonenas.space.random_cnn import RandomCNN

LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"


def true_ms(kernel: Kernel) -> float:
    """A made-up phone: launch, arithmetic, traffic."""
    slow = 3.0 if kernel.depthwise else 1.0
    moved = (kernel.reads + kernel.writes) / 2e6 + kernel.params / 3e6
    return 0.008 + slow * kernel.macs / 4e7 + moved + (kernel.kind == "lrn") * kernel.writes / 4e4


def whole_ms(network: OnnxNetwork) -> float:
    return sum(
        true_ms(s.kernel) * (0.3 if s.folded else 0.95) - 2e-7 * (s.direct_in + s.direct_out)
        for s in network.steps
    )


@pytest.fixture(scope="module")
def networks() -> list[OnnxNetwork]:
    return [cut(RandomCNN(i).to_onnx()) for i in range(26)]


@pytest.fixture(scope="module")
def model(networks: list[OnnxNetwork]) -> KernelLatencyModel:
    kernels = {k: true_ms(k) for k in sample(220)}
    return KernelLatencyModel.fit(kernels, [(n, whole_ms(n)) for n in networks[:20]])


@pytest.mark.slow
def test_networks_that_taught_nothing_are_met(
    model: KernelLatencyModel, networks: list[OnnxNetwork]
) -> None:
    off = [model.predict(n).ms / whole_ms(n) - 1 for n in networks[20:]]
    assert np.mean(np.abs(off)) < 0.08
    assert model.networks == 20
    assert model.mape < 0.1


def test_the_shares_are_the_whole(model: KernelLatencyModel, networks: list[OnnxNetwork]) -> None:
    told = model.predict(networks[0])
    shares = model.explain(networks[0])
    assert len(shares) == len(networks[0].kernels)
    assert sum(s.ms for s in shares) == pytest.approx(told.ms)
    assert told.low_ms < told.ms < told.high_ms
    assert told.within(told.high_ms) == pytest.approx(0.95, abs=0.01)
    assert told.within(told.ms) == pytest.approx(0.5)


def test_it_is_kept_as_text(model: KernelLatencyModel, networks: list[OnnxNetwork]) -> None:
    text = json.dumps(model.to_dict(), allow_nan=False)
    assert len(text) < 1_000_000
    again = KernelLatencyModel.from_dict(json.loads(text))
    for network in networks[:3]:
        assert again.predict(network).ms == pytest.approx(model.predict(network).ms, rel=1e-3)
        assert again.missing(network) == model.missing(network)
    for damage in ({"version": 2}, {"coefficients": [1.0]}, {"regressor": {}}, {"half_width": -1}):
        with pytest.raises(UnsupportedFormat):
            KernelLatencyModel.from_dict({**json.loads(text), **damage})


def test_what_lies_far_off_is_named_with_the_command(model: KernelLatencyModel) -> None:
    only_small = KernelLatencyModel.fit(
        {k: true_ms(k) for k in sample(120) if k.kind == "conv" and k.macs < 1e7}
    )
    vgg = cut(LIGHT / "light_vgg19.onnx")
    with pytest.raises(UncoveredOperator) as told:
        only_small.predict(vgg, "pixel6", "vgg.onnx")
    words = str(told.value)
    assert "conv_k3x3_s1x1_g1_224x224x3_224x224x64+relu" in words
    assert "phonenas profile --device pixel6 --kernels-of vgg.onnx" in words


@pytest.mark.slow
def test_without_networks_the_whole_is_about_the_sum_and_unsure(
    networks: list[OnnxNetwork],
) -> None:
    model = KernelLatencyModel.fit({k: true_ms(k) for k in sample(220)})
    assert model.networks == 0 and math.isnan(model.mape)
    for network in networks[:4]:
        told = model.predict(network)
        alone = model.alone_ms(network.kernels)
        # Most of the sum; what is folded or stays in its layout costs less.
        assert 0.5 * alone.sum() < told.ms < 1.1 * alone.sum()
        assert told.high_ms > 1.9 * told.ms
        assert any("UNCALIBRATED" in note for note in told.notes)


@pytest.mark.slow
def test_finer_looks_where_the_error_is() -> None:
    kernels = sample(90)

    def odd(k: Kernel) -> float:  # depthwise kernels follow no rule
        return true_ms(k) * (1 + 3 * (zlib.crc32(k.key.encode()) % 7 == 0) if k.depthwise else 1)

    times = {k: odd(k) for k in kernels}
    chosen = finer(times, 40)
    assert len({k.key for k in chosen}) == 40
    assert not set(chosen) & set(kernels)
    assert chosen == finer(times, 40)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with kernels and random networks of the fake device."""
    path = tmp_path_factory.mktemp("kernels") / "k.db"
    with pytest.MonkeyPatch.context() as patch:
        from dataclasses import replace

        from phonenas.devices import profiling

        quick = replace(profiling.Protocol(), apart_s=0.0)
        patch.setattr(profiling, "Protocol", lambda **more: replace(quick, **more))
        with data.MeasurementStore(path) as store, FakeDevice() as device:
            first = profile_kernels(device, store, 60, 9)
            assert first.measured == 60 + 9
            again = profile_kernels(device, store, 60, 9)
            assert (again.measured, again.reused) == (0, 30 + 9)
            assert len(kernel_times(store.measurements(device.conditions))) == 60
    return path


def test_a_store_makes_a_model(measured: Path) -> None:
    with data.MeasurementStore(measured) as store:
        conditions = store.conditions("fake")[-1]
        measurements = store.measurements(conditions)
        model = fit_kernels(measurements)
        assert model.networks == 9
        assert fit_kernels(measurements, leave_out={"random-cnn-0"}).networks == 8
        path = save_kernel_model(store, conditions, str(measured))
    assert path == measured.with_name("k.fake.kernels.json")
    found = kernel_model(str(measured), "fake")
    assert found.conditions == conditions and found.until
    assert found.model.coefficients == pytest.approx(model.coefficients)
    with pytest.raises(NotEnoughData, match="--kernels 400"):
        fit_kernels([m for m in measurements if m.kind != "kernel"])


def test_the_command_predicts_a_file(measured: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"
    path.write_bytes(RandomCNN(8).to_onnx().SerializeToString())
    words = ["predict", str(path), "--device", "fake", "--db", str(measured), "--json", "--explain"]
    done = CliRunner().invoke(app, words)
    if done.exception is not None:  # sixty kernels do not reach everywhere: measure its own
        assert isinstance(done.exception, UncoveredOperator)
        assert f"--kernels-of {path}" in str(done.exception)
        with data.MeasurementStore(measured) as store, FakeDevice() as device:
            devices.profile(
                None, on=device, into=store, networks=0, kernels=kernels_of([str(path)]), quick=True
            )
        done = CliRunner().invoke(app, words)
    assert done.exception is None, done.exception
    (row,) = json.loads(done.stdout)
    assert row["network"] == str(path)
    assert 0 < row["low_ms"] < row["latency_ms"] < row["high_ms"]
    assert row["interval"] == 0.9
    assert sum(o["share"] for o in row["operators"]) == pytest.approx(1)
    held = kernel_model(str(measured), "fake")
    assert predict_file(str(path), held)["latency_ms"] == row["latency_ms"]
    assert row["calibrated"] is True
    for target in ("nan", "-1", "0"):
        done = CliRunner().invoke(app, [*words, "--target", target])
        assert isinstance(done.exception, InvalidArgument), target


@pytest.mark.slow
def test_random_networks_are_not_outnumbered_by_a_space(measured: Path) -> None:
    with data.MeasurementStore(measured) as store:
        conditions = store.conditions("fake")[-1]
        held = store.measurements(conditions)
    mnas = space.MnasNet(resolution=64)
    drawn = {str(mnas.decode(g)) for g in mnas.sample(np.random.default_rng(0), 60)}
    wholes = [
        Measurement("network", text, conditions, (Round((1.0 + i / 50,)),))
        for i, text in enumerate(sorted(drawn))
    ]
    # Measured before the kernels or after them, all random networks teach, and as many of a space.
    assert (
        fit_kernels([*wholes, *held]).networks == fit_kernels([*held, *wholes]).networks == 9 + 16
    )


def test_a_kernel_measured_again_makes_the_model_anew(measured: Path, tmp_path: Path) -> None:
    db = tmp_path / "k.db"
    db.write_bytes(measured.read_bytes())
    before = kernel_model(str(db), "fake")
    assert kernel_model(str(db), "fake").until == before.until
    with data.MeasurementStore(db) as store:
        conditions = before.conditions
        subject = next(m.subject for m in store.measurements(conditions, "kernel"))
        p = store.pending(conditions, "kernel", [subject], again=True)[subject]
        store.add_rounds([(p.id, 0, Round((1.0,), at="2031-01-01T00:00:00+00:00"))])
        store.complete([p.id])
    assert kernel_model(str(db), "fake").until == "2031-01-01T00:00:00+00:00"


def test_a_kernel_without_a_form_is_given_up_and_the_others_measured(
    tmp_path: Path, fast: None
) -> None:
    odd = Kernel("conv", 16, 16, (28, 28), (16, 16), (3, 3))  # no padding leads from 28 to 16
    good = sample(5)
    with data.MeasurementStore(tmp_path / "s.db") as store, FakeDevice() as device:
        found = devices.profile(
            None, on=device, into=store, networks=0, kernels=[good[0], odd, *good[1:]]
        )
    assert found.measured == 5
    assert "cannot be built" in found.unstable[odd.key]


def test_a_stopped_job_finishes_what_it_began(tmp_path: Path, fast: None) -> None:
    class Stops(FakeDevice):
        """Unplugged for good after so many readings."""

        left = 130

        def run_ms(self, jobs: Any, **more: Any) -> Any:
            for reading in super().run_ms(jobs, **more):
                self.left -= 1
                if self.left < 0:
                    raise KeyboardInterrupt
                yield reading

    with data.MeasurementStore(tmp_path / "s.db") as store:
        with Stops() as device, pytest.raises(KeyboardInterrupt):
            profile_kernels(device, store, 60, 0)
        conditions = FakeDevice().conditions
        begun = store.begun(conditions, "kernel")
        assert begun and len(kernel_times(store.measurements(conditions, "kernel"))) < 60
        with FakeDevice() as device:
            profile_kernels(device, store, 60, 0)
        done = kernel_times(store.measurements(conditions, "kernel"))
        assert len(done) == 60 and {Kernel.parse(t) for t in begun} <= set(done)
        assert store.begun(conditions, "kernel") == []


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "phonenas.fake.model.json"
    path.with_name("phonenas.fake.kernels.json").write_text("{]")
    with pytest.raises(UnsupportedFormat, match="no kernel model"):
        kernel_model(str(tmp_path / "phonenas.db"), "fake", path)
