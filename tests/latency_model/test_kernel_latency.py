"""The model of kernels: fitted on kernels and whole networks; what it has not seen is an error."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx.backend.test
import pytest
from fakes import FakeDevice
from typer.testing import CliRunner

from phonenas import data, devices, space
from phonenas.cli import app
from phonenas.cli import networks as networks_by_name
from phonenas.cli.devices import profile_kernels
from phonenas.cli.networks import kernels_in
from phonenas.cli.timing import predictor
from phonenas.data import Measurement, Round
from phonenas.latency_model import LatencyModel, OperatorTimes, Predicted, kernel_fitting, load
from phonenas.latency_model.calibration import FEATURES, Calibration
from phonenas.latency_model.graphs.onnx_cut import OnnxNetwork, cut
from phonenas.latency_model.kernel_fitting import (
    finer,
    fit_kernels,
    fit_on,
    kernel_times,
    networks_left_out,
    small_kernels,
)
from phonenas.latency_model.kernel_terms import kernel_terms, shares_ms, solved
from phonenas.latency_model.lookup_table import LookupTable
from phonenas.latency_model.measured_kernels import MeasuredKernels
from phonenas.latency_model.units.kernel_regressor import KernelRegressor
from phonenas.space import Kernel
from phonenas.space.errors import (
    InvalidArgument,
    NotEnoughData,
    UncoveredOperator,
    UnsupportedFormat,
)
from phonenas.space.kernels.prior import sample
from phonenas.space.kernels.random_cnn import RandomCNN

LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"


def true_ms(kernel: Kernel) -> float:
    """A made-up phone: launch, arithmetic, traffic."""
    slow = 3.0 if kernel.depthwise else 1.0
    moved = (kernel.reads + kernel.writes) / 2e6 + kernel.params / 3e6
    return 0.008 + slow * kernel.macs / 4e7 + moved + (kernel.kind == "lrn") * kernel.writes / 4e4


def whole_ms(network: OnnxNetwork) -> float:
    """One run costs 6 µs, which each kernel alone pays; small maps stay in a cache."""
    total = 0.006
    for s in network.steps:
        work = (true_ms(s.kernel) - 0.008) * 0.3 if s.folded else true_ms(s.kernel) - 0.006
        if 4 * (s.kernel.reads + s.kernel.writes + s.kernel.params) < 1 << 18:
            work *= 0.9
        total += work - min(2e-7 * (s.direct_in + s.direct_out), 0.4 * work)
    return total


def fitted(
    kernel_ms: dict[Kernel, float], wholes: list[tuple[OnnxNetwork, float]] | None = None
) -> LatencyModel:
    return fit_on(FakeDevice().conditions, kernel_ms, wholes or [])


def of_kernels(model: LatencyModel) -> MeasuredKernels:
    assert isinstance(model.times, MeasuredKernels)
    return model.times


@dataclass(frozen=True)
class One:
    """A prediction of one network."""

    ms: float
    low_ms: float
    high_ms: float
    covered: bool
    within: Callable[[float], float]
    notes: tuple[str, ...]


def predicted(model: LatencyModel, network: OnnxNetwork) -> One:
    p: Predicted = model.predict([network])
    ends = float(p.ms[0]), float(p.low_ms[0]), float(p.high_ms[0])
    notes = model.notes(network, ends[0])
    return One(*ends, bool(p.covered[0]), lambda t: float(p.within(t)[0]), notes)


@pytest.fixture(scope="module")
def networks() -> list[OnnxNetwork]:
    return [cut(RandomCNN(i).to_onnx()) for i in range(26)]


def reached(model: LatencyModel, networks: list[OnnxNetwork]) -> list[OnnxNetwork]:
    """Those that the model predicts; a refused one names its kernel."""
    kept = []
    for network in networks:
        try:
            predicted(model, network)
            kept.append(network)
        except UncoveredOperator as error:
            assert "has nothing like" in str(error)
    assert len(kept) > len(networks) // 2
    return kept


@pytest.fixture(scope="module")
def small() -> list[OnnxNetwork]:
    return [cut(RandomCNN(i, small=True).to_onnx()) for i in range(30)]


@pytest.fixture(scope="module")
def model(networks: list[OnnxNetwork], small: list[OnnxNetwork]) -> LatencyModel:
    kernels = {k: true_ms(k) for k in [*sample(180), *small_kernels(40)]}
    return fitted(kernels, [(n, whole_ms(n)) for n in [*networks[:16], *small[:8]]])


@pytest.mark.slow
def test_networks_that_it_was_not_fitted_on_are_predicted(
    model: LatencyModel, networks: list[OnnxNetwork]
) -> None:
    off = [predicted(model, n).ms / whole_ms(n) - 1 for n in reached(model, networks[16:])]
    assert np.mean(np.abs(off)) < 0.08
    assert model.calibration.networks == 24
    score = model.scores["model"]
    assert score.informative and score.mape < 0.1


def test_the_shares_are_the_whole(model: LatencyModel, networks: list[OnnxNetwork]) -> None:
    told = predicted(model, networks[0])
    shares = model.explain(networks[0])
    assert len(shares) == len(networks[0].kernels)
    assert sum(s.ms for s in shares) == pytest.approx(told.ms)
    assert told.low_ms < told.ms < told.high_ms
    assert told.within(told.high_ms) == pytest.approx(0.95, abs=0.01)
    assert told.within(told.ms) == pytest.approx(0.5)


def test_it_is_saved_as_text(
    model: LatencyModel, networks: list[OnnxNetwork], tmp_path: Path
) -> None:
    path = model.save(tmp_path / "m.json")
    assert path.stat().st_size < 1_000_000
    again = load(path)
    for network in networks[:3]:
        assert predicted(again, network).ms == pytest.approx(predicted(model, network).ms, rel=1e-3)
    assert of_kernels(again).measured == of_kernels(model).measured
    assert again.scores["model"] == model.scores["model"] and not again.by_operators
    kept = of_kernels(model).to_dict()
    below = [*kept["coefficients"]]
    below[1] = -0.1  # a convolution that takes less than nothing
    for damage in (
        {"terms": ["run"]},
        {"coefficients": [1.0]},
        {"coefficients": below},
        {"regressor": {}},
        {"interval_scale": -1},
        {"run_ms": math.nan},
    ):
        with pytest.raises(ValueError):
            MeasuredKernels.from_dict(model.conditions, {**kept, **damage})


def test_one_file_holds_operators_and_kernels(
    model: LatencyModel, networks: list[OnnxNetwork], tmp_path: Path
) -> None:
    """A network of blocks is a sum of operators, any other one of kernels: by one model."""
    block = space.zoo.network("mnasnet-small")
    table = LookupTable(
        dict.fromkeys(block.operators(), 0.5), dict.fromkeys(block.operators(), 0.0), ""
    )
    times = OperatorTimes(conditions=model.conditions, table=table, regressor=None)
    line = Calibration((1.0, *[0.0] * (len(FEATURES) - 1)), 0.0, 0.1, 0.1, 100.0, 12)
    alone = LatencyModel(times=times, calibration=line)
    with pytest.raises(NotEnoughData, match="profile --device fake --kernels 400"):
        alone.predict([networks[0]])
    both = load(replace(alone, kernels=model).save(tmp_path / "m.json"))
    p = both.predict([block, networks[0], block])
    whole = 0.5 * len(block.operators())
    assert p.ms.tolist() == pytest.approx(
        [whole, predicted(model, networks[0]).ms, whole], rel=1e-3
    )
    assert p.covered.tolist()[::2] == [True, True]
    assert sum(e.ms for e in both.explain(networks[0])) == pytest.approx(p.ms[1])
    assert {type(e.operator) for e in both.explain(networks[0])} == {Kernel}
    # A search does not see the kernels: a run goes on where they were measured later.
    assert both.digest == alone.digest
    # Without operators, blocks are a sum of kernels too; a space needs operators.
    assert predicted(model, block).ms > 0
    with pytest.raises(NotEnoughData, match="profile --device fake --space mnasnet"):
        model.on(space.get("mnasnet"))


def test_trees_without_a_digest_are_refused(model: LatencyModel, tmp_path: Path) -> None:
    path = model.save(tmp_path / "m.json")
    content = json.loads(path.read_text())
    del content["digest"]
    path.write_text(json.dumps({**content, "version": 3}))
    with pytest.raises(UnsupportedFormat, match="no digest of its content"):
        load(path)


def test_what_lies_far_off_is_named_with_the_command(model: LatencyModel) -> None:
    here = replace(FakeDevice().conditions, device="pixel6")
    pixel6 = fit_on(here, {k: true_ms(k) for k in sample(120) if k.kind == "conv" and k.macs < 1e7})
    vgg = cut(LIGHT / "light_vgg19.onnx")
    with pytest.raises(UncoveredOperator) as told:
        pixel6.predict([replace(vgg, name="vgg.onnx")])
    words = str(told.value)
    assert "conv_k3x3_s1x1_g1_224x224x3_224x224x64+relu" in words
    assert "phonenas profile --device pixel6 --kernels-of vgg.onnx" in words


@pytest.mark.slow
def test_without_networks_the_whole_is_about_the_sum_and_unsure(
    networks: list[OnnxNetwork],
) -> None:
    model = fitted({k: true_ms(k) for k in sample(220)})
    assert model.calibration.networks == 0 and not model.scores and not model.calibrated
    for network in networks[:4]:
        told = predicted(model, network)
        alone = of_kernels(model).alone_ms(network.kernels)
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


def test_kernels_whose_fold_cannot_be_fitted_are_named_and_looked_at(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Their error is unknown, and not 0: they count as badly predicted."""
    kernels = sample(60)
    times, whole = {k: true_ms(k) for k in kernels}, KernelRegressor.fit
    failed: list[set[Kernel]] = []

    def fit(some: list[Kernel], ms: np.ndarray) -> KernelRegressor:
        if not failed:
            failed.append(set(kernels) - set(some))
            raise NotEnoughData("singular")
        return whole(some, ms)

    monkeypatch.setattr(KernelRegressor, "fit", fit)
    seen: list[Kernel] = []
    monkeypatch.setattr(kernel_fitting, "near", lambda k, rng: seen.append(k) or k)
    finer(times, 4)
    assert "15 of 60" in caplog.text and "singular" in caplog.text
    # A quarter of the kernels, at the largest error, is drawn far more than a quarter of times.
    assert np.mean([k in failed[0] for k in seen]) > 0.4


def test_networks_whose_file_nobody_has_are_named() -> None:
    mine = Measurement("onnx", "own.onnx#0123456789ab", FakeDevice().conditions, (Round((1.0,)),))
    drawn = replace(mine, subject="random-cnn-3")
    assert networks_left_out([mine, drawn, replace(mine, kind="kernel")]) == [mine.subject]


def test_an_interval_holds_the_four_percent_of_a_later_job(
    model: LatencyModel, networks: list[OnnxNetwork]
) -> None:
    exact = replace(model, times=replace(of_kernels(model), error=0.0, interval_scale=0.0))
    assert predicted(exact, networks[0]).high_ms / predicted(
        exact, networks[0]
    ).ms == pytest.approx(1.04)
    assert all(
        p.high_ms / p.ms > 1.04 for p in (predicted(model, n) for n in reached(model, networks))
    )


def test_small_networks_are_predicted_and_none_takes_nothing(
    model: LatencyModel, small: list[OnnxNetwork]
) -> None:
    off, inside = [], []
    for network in reached(model, small[8:]):
        p, truth = predicted(model, network), whole_ms(network)
        assert 0.006 < p.low_ms < p.ms < p.high_ms  # more than an empty run takes
        assert all(share.ms > 0 for share in model.explain(network))
        off.append(p.ms / truth - 1)
        inside.append(p.low_ms <= truth <= p.high_ms)
    assert np.mean(np.abs(off)) < 0.1
    assert np.mean(inside) >= 0.7


def test_a_network_that_is_known_less_surely_counts_for_less(
    networks: list[OnnxNetwork], small: list[OnnxNetwork]
) -> None:
    """Every second took 1.5 times as long as it should, and its error bar says so."""
    some = [*networks[:10], *small[:10]]
    terms = [kernel_terms(n, [*map(true_ms, n.kernels)], 0.006) for n in some]
    truth, second = np.array([*map(whole_ms, some)]), np.arange(20) % 2 == 0
    measured, noise = truth * np.where(second, 1.5, 1.0), np.where(second, 0.5, 0.0)

    def off(noise: np.ndarray) -> float:
        coefficients, *_ = solved(terms, measured, noise)
        ms = np.array([shares_ms(t, coefficients).sum() for t in terms])
        return float(np.mean(np.abs(ms / truth - 1)))

    assert off(noise) < 0.6 * off(np.zeros(20))


@pytest.mark.slow
def test_beyond_the_networks_that_it_was_fitted_on_the_interval_widens_by_how_far(
    networks: list[OnnxNetwork], small: list[OnnxNetwork]
) -> None:
    """Fitted on large networks alone, as a store of before has them."""
    kernels = {k: true_ms(k) for k in sample(120)}
    large = fitted(kernels, [(n, whole_ms(n)) for n in networks[:16]])
    assert 0 < large.calibration.low_ms < large.calibration.high_ms
    widths = []
    for network in reached(large, sorted(small, key=whole_ms))[::4]:
        p = predicted(large, network)
        assert 0 < p.low_ms < p.ms < p.high_ms
        assert any(note.startswith("EXTRAPOLATED") for note in p.notes)
        widths.append(p.high_ms / p.ms)
    known = [predicted(large, n) for n in reached(large, networks[:8])]
    within = max(p.high_ms / p.ms for p in known)
    assert min(widths) > within
    assert widths[0] > 2 * widths[-1] - 1  # the smallest network is the farthest
    # A model of small networks says the same of large ones.
    few = fitted(kernels, [(n, whole_ms(n)) for n in small[:16]])
    p, near = predicted(few, reached(few, networks)[0]), predicted(few, small[0])
    assert any("EXTRAPOLATED" in note for note in p.notes)
    assert not any("EXTRAPOLATED" in note for note in near.notes)
    unbounded = replace(few.calibration, low_ms=1e-3, high_ms=1e3)
    wide = predicted(replace(few, calibration=unbounded), reached(few, networks)[0])
    assert p.high_ms / p.ms - 1 > 1.5 * (wide.high_ms / wide.ms - 1)


def test_a_family_measured_only_at_large_sizes_costs_a_launch_at_small_ones() -> None:
    """The launch is that of all kernels: one that joins two small maps does not take 0.2 ms."""
    kernels = {k: true_ms(k) for k in [*sample(120), *small_kernels(60)] if k.kind != "concat"}
    joins = [
        Kernel("concat", c, c, (p, p), (p, p), operands=2)
        for c, p in ((256, 56), (512, 56), (480, 40))
    ]
    model = fitted(kernels | {k: true_ms(k) for k in joins})
    tiny = Kernel("concat", 24, 24, (10, 10), (10, 10), operands=2)
    assert of_kernels(model).alone_ms([tiny])[0] == pytest.approx(true_ms(tiny), rel=0.6)


def test_an_activation_that_was_never_measured_is_not_covered(model: LatencyModel) -> None:
    times = of_kernels(model)
    known = Kernel("activation", 32, 32, (28, 28), (28, 28), fused=("relu",))
    other = replace(known, fused=("elu",))
    assert times._within(known, 0.4) and not times._within(other, 0.4)
    (sure, unsure) = times.regressor.standard_error([known, other])
    assert unsure > sure + 0.2


@pytest.mark.slow
def test_a_wrong_kernel_and_a_wrong_network_are_named_and_left_out(
    networks: list[OnnxNetwork], small: list[OnnxNetwork]
) -> None:
    times = {k: true_ms(k) for k in [*sample(100), *small_kernels(40)]}
    bad = next(k for k in times if k.kind == "conv" and k.groups == 1 and k.kernel == (3, 3))
    wholes = [(n, whole_ms(n)) for n in [*networks[:10], *small[:6]]]
    clean = fitted(times, wholes)
    before = {o.subject for o in clean.outliers}
    assert bad.key not in before and str(wholes[3][0]) not in before
    times[bad] *= 100
    wholes[3] = (wholes[3][0], wholes[3][1] * 100)
    model = fitted(times, wholes)
    named = {(o.kind, o.subject): o.ratio for o in model.outliers if o.subject not in before}
    assert set(named) == {("kernel", bad.key), ("onnx", str(wholes[3][0]))}
    assert all(20 < ratio < 500 for ratio in named.values())
    assert model.calibration.networks == 15
    for network in reached(model, networks[16:])[:3]:
        assert predicted(model, network).ms == pytest.approx(predicted(clean, network).ms, rel=0.1)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with kernels and random networks of the fake device."""
    path = tmp_path_factory.mktemp("kernels") / "k.db"
    with pytest.MonkeyPatch.context() as patch:
        from phonenas.devices.measuring import profiling

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
        with pytest.raises(NotEnoughData, match="--kernels 400"):
            fit_kernels(conditions, [m for m in measurements if m.kind != "kernel"])
    found = predictor(str(measured), "fake", None, True, kernels=True)
    assert measured.with_name("k.fake.model.json").exists()
    assert found.conditions == conditions and found.until
    assert found.calibration.networks == 9


@pytest.mark.slow
def test_networks_are_left_out_of_a_fit_and_a_file_holds_the_same_model(measured: Path) -> None:
    with data.MeasurementStore(measured) as store:
        conditions = store.conditions("fake")[-1]
        measurements = store.measurements(conditions)
    model = fit_kernels(conditions, measurements)
    assert model.calibration.networks == 9
    fewer = fit_kernels(conditions, measurements, leave_out={"random-cnn-0"})
    assert fewer.calibration.networks == 8
    found = predictor(str(measured), "fake", None, True, kernels=True)
    assert of_kernels(found).coefficients == pytest.approx(of_kernels(model).coefficients)


@pytest.mark.slow
def test_fit_writes_kernels_into_the_models_file(measured: Path, tmp_path: Path) -> None:
    db, former = tmp_path / "k.db", tmp_path / "k.fake.kernels.json"
    db.write_bytes(measured.read_bytes())
    former.write_text(json.dumps({"format": "phonenas-kernel-model", "version": 3}))
    done = CliRunner().invoke(app, ["fit", "--device", "fake", "--db", str(db)])
    assert done.exception is None, done.exception
    assert "a model of its kernels, 9 whole networks" in done.stdout
    assert f"{former} is of an earlier phonenas and is not read" in " ".join(done.stdout.split())
    assert load(tmp_path / "k.fake.model.json").scores["model"].n == 9
    with pytest.raises(UnsupportedFormat, match="Kernels are part of the latency model's file"):
        load(former)
    words = ["search", "--device", "fake", "--db", str(db), "--space", "mnasnet", "--out", "x"]
    done = CliRunner().invoke(app, [*words, "--target", "5"])
    assert isinstance(done.exception, NotEnoughData), done.exception
    assert "A search needs operators:  phonenas profile" in str(done.exception)
    done = CliRunner().invoke(app, ["check", "--device", "fake", "--db", str(db)])
    assert isinstance(done.exception, NotEnoughData), done.exception
    assert "--kernels 400 --again" in str(done.exception)
    subjects = {e.network for e in load(tmp_path / "k.fake.model.json").examined}
    assert "small-cnn-0" in subjects and "random-cnn-0" in subjects


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
                None,
                on=device,
                into=store,
                networks=0,
                more=devices.Selection(kernels=kernels_in([str(path)])),
                protocol=devices.QUICK,
            )
        done = CliRunner().invoke(app, words)
    assert done.exception is None, done.exception
    (row,) = json.loads(done.stdout)
    assert row["network"] == str(path)
    assert 0 < row["low_ms"] < row["latency_ms"] < row["high_ms"]
    assert row["interval"] == 0.9
    assert sum(o["share"] for o in row["operators"]) == pytest.approx(1)
    assert (row["basis"], row["extrapolated"]) == ("kernels", False)
    assert row["calibrated"] is True
    for target in ("-1", "0"):
        done = CliRunner().invoke(app, [*words, "--target", target])
        assert isinstance(done.exception, InvalidArgument), target
    assert CliRunner().invoke(app, [*words, "--target", "nan"]).exit_code == 2


def test_one_refused_file_leaves_the_others_predicted(
    measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(text: str, *more: Any) -> Any:
        if "bad" in text:
            raise UncoveredOperator(f"{text} is refused")
        return space.zoo.network("mnasnet-small")

    monkeypatch.setattr(networks_by_name, "any_network", cut)
    files = [str(tmp_path / f"{n}.onnx") for n in ("bad1", "good", "bad2")]
    words = ["predict", *files, "--device", "fake", "--db", str(measured), "--json"]
    done = CliRunner().invoke(app, words)
    assert [r["network"] for r in json.loads(done.stdout)] == [files[1]]
    assert isinstance(done.exception, UncoveredOperator) and "bad1" in str(done.exception)
    assert "bad2.onnx is refused" in done.stderr


@pytest.mark.slow
def test_random_networks_are_not_outnumbered_by_a_space(measured: Path) -> None:
    with data.MeasurementStore(measured) as store:
        conditions = store.conditions("fake")[-1]
        held = store.measurements(conditions)
    mnas = space.get("mnasnet", 64)
    drawn = {str(mnas.decode(g)) for g in mnas.sample(np.random.default_rng(0), 60)}
    wholes = [
        Measurement("network", text, conditions, (Round((1.0 + i / 50,)),))
        for i, text in enumerate(sorted(drawn))
    ]
    # Measured before the kernels or after them, all random networks teach, and as many of a space.
    for measurements in ([*wholes, *held], [*held, *wholes]):
        assert fit_kernels(conditions, measurements).calibration.networks == 9 + 16


@pytest.mark.slow
def test_a_kernel_measured_again_makes_the_model_anew(measured: Path, tmp_path: Path) -> None:
    db = tmp_path / "k.db"
    db.write_bytes(measured.read_bytes())
    before = predictor(str(db), "fake", None, True, kernels=True)
    assert predictor(str(db), "fake", None, True, kernels=True).until == before.until
    with data.MeasurementStore(db) as store:
        conditions = before.conditions
        subject = next(m.subject for m in store.measurements(conditions, "kernel"))
        p = store.pending(conditions, "kernel", [subject], again=True)[subject]
        store.add_rounds([(p.id, 0, Round((1.0,), at="2031-01-01T00:00:00+00:00"))])
        store.complete([p.id])
    assert predictor(str(db), "fake", None, True, kernels=True).until == "2031-01-01T00:00:00+00:00"


def test_a_kernel_without_a_form_is_given_up_and_the_others_measured(
    tmp_path: Path, fast: None
) -> None:
    odd = Kernel("conv", 16, 16, (28, 28), (16, 16), (3, 3))  # no padding leads from 28 to 16
    good = sample(5)
    with data.MeasurementStore(tmp_path / "s.db") as store, FakeDevice() as device:
        more = devices.Selection(kernels=[good[0], odd, *good[1:]])
        found = devices.profile(None, on=device, into=store, networks=0, more=more)
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
    (tmp_path / "phonenas.fake.model.json").write_text("{]")
    with pytest.raises(UnsupportedFormat, match="not a latency model"):
        predictor(str(tmp_path / "phonenas.db"), "fake", None, True, kernels=True)
