"""A model of kernels from whole networks alone, on a phone whose kernels take a non-linear time."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phonenas import space
from phonenas.data import Conditions, Measurement, Round
from phonenas.data.measurement import Entry
from phonenas.latency_model import LatencyModel, load
from phonenas.latency_model.additive import process
from phonenas.latency_model.additive.fitting import fit_networks, known_networks
from phonenas.latency_model.fitting import fit_measurements
from phonenas.space import Kernel, zoo
from phonenas.space.errors import NotEnoughData, UnsupportedFormat

THERE = Conditions(
    "bench",
    "Phone",
    "table",
    "tflite",
    "2.10",
    "",
    "cpu",
    "all",
    1,
    "1large",
    "none",
    "float32",
    "steady",
    "imported",
)
SHARED = Path(__file__).parents[4] / "shared" / "data"
TAUGHT = [
    "mobilenet_w1",
    "mobilenet_wd2",
    "mobilenet_wd4",
    "fdmobilenet_w1",
    "fdmobilenet_wd2",
    "mobilenetv2b_w1",
    "mobilenetv2b_w3d4",
    "mobilenetv2b_wd2",
    "mobilenetv2b_wd4",
    "mnasnet_a1",
    "mnasnet_b1",
    "spnasnet",
    "fbnet_cb",
    "proxylessnas_mobile",
    "proxylessnas_cpu",
    "resnet10",
    "resnet18_wd2",
    "resnet18_wd4",
    "squeezenet_v1_1",
    "peleenet",
    "ghostnet",
    "seresnet10",
    "regnetx002",
]
UNSEEN = ("mobilenetv3_large_w1", "mobilenetv3_small_w1", "efficientnet_edge_small_b")


def kernel_ms(k: Kernel) -> float:
    """What no model here assumes: the slower of arithmetic and memory, blocks, and a cliff."""
    rate = 3e6 if k.depthwise else 1.5e7 * min(k.in_channels, 64) / (min(k.in_channels, 64) + 8)
    blocks = -(-k.out_channels // 8) * 8 / k.out_channels
    moved = k.reads + k.writes
    cliff = 1.3 if moved > 1_000_000 else 1.0
    return max(blocks * k.macs / rate, cliff * (moved + k.params) / 2e6) + 0.004


def network_ms(name: str) -> float:
    return 0.05 + sum(map(kernel_ms, zoo.kernels(zoo.edge_network(name))))


def measured(name: str, ms: float) -> Measurement:
    network = zoo.edge_network(name)
    kind = "network" if isinstance(network, space.Architecture) else "onnx"
    rounds = (Round((ms,), telemetry={"row": name}),)
    return Measurement(kind, str(network), THERE, rounds)  # type: ignore[arg-type]


def taken(names: list[str] = TAUGHT, factor: float = 1.0) -> list[Measurement]:
    rng = np.random.default_rng(0)
    noise = {n: rng.normal(1, 0.01) for n in TAUGHT}
    return [measured(n, factor * network_ms(n) * noise[n]) for n in names]


@pytest.fixture(scope="module")
def model() -> LatencyModel:
    return fit_measurements(THERE, taken())


def test_families_that_taught_nothing_are_predicted(model: LatencyModel) -> None:
    truth = np.array([network_ms(n) for n in UNSEEN])
    predicted = model.predict([zoo.edge_network(n) for n in UNSEEN])
    assert np.abs(predicted.ms / truth - 1).mean() < 0.12
    assert ((predicted.low_ms < truth) & (truth < predicted.high_ms)).mean() > 0.6


def test_each_network_is_scored_by_a_fit_without_its_family(model: LatencyModel) -> None:
    score, macs = model.scores["model"], model.scores["macs"]
    assert score.n == len(TAUGHT) and score.mape < 0.09 < 0.13 < macs.mape
    assert score.spearman > 0.98 and 0.75 <= score.coverage90 <= 1
    assert set(model.by_family) == {"mobilenet", "mobilenetv2", "mnasnet", "proxyless", "resnet"}
    assert model.by_family["mobilenetv2"].n == 4
    # The whole family is out: what is predicted does not move with its own times.
    slow = [
        replace(m, rounds=(replace(m.rounds[0], samples_ms=(9 * m.latency_ms,)),))
        if "mobilenetv2b" in m.rounds[0].telemetry["row"]
        else m
        for m in taken()
    ]
    places = [i for i, n in enumerate(TAUGHT) if n.startswith("mobilenetv2b")]
    again = fit_measurements(THERE, slow)
    for i in places:
        assert again.examined[i].predicted_ms == pytest.approx(model.examined[i].predicted_ms)


def test_ten_times_as_slow_is_predicted_ten_times_as_slow(model: LatencyModel) -> None:
    networks = [zoo.edge_network(n) for n in UNSEEN]
    slow = fit_measurements(THERE, taken(factor=10.0))
    assert slow.predict(networks).ms == pytest.approx(10 * model.predict(networks).ms, rel=0.02)


def test_one_wrong_time_moves_no_other_network(model: LatencyModel) -> None:
    wrong = [measured(n, network_ms(n) * (4 if n == "squeezenet_v1_1" else 1)) for n in TAUGHT]
    networks = [zoo.edge_network(n) for n in ("mobilenetv2b_w1", "mnasnet_a1", "resnet10")]
    moved = fit_measurements(THERE, wrong).predict(networks).ms / model.predict(networks).ms
    assert np.abs(moved - 1).max() < 0.08


def test_a_network_unlike_all_that_taught_says_so_and_has_a_wider_interval(
    model: LatencyModel,
) -> None:
    near, far = zoo.edge_network("mobilenetv2b_w1"), zoo.graph("resnet-50")
    predicted = model.predict([near, far])
    width = predicted.high_ms / predicted.low_ms
    assert predicted.covered.tolist() == [True, False] and width[1] > width[0]
    # The hard swish of MobileNetV3 is in no network of the fit.
    assert not model.predict([zoo.edge_network("mobilenetv3_small_w1")]).covered[0]


def test_a_space_is_summed_as_its_networks_are(model: LatencyModel) -> None:
    mnas = space.get("mnasnet")
    genomes = mnas.sample(np.random.default_rng(3), 20)
    networks = [mnas.decode(g) for g in genomes]
    predicted = model.predict(networks)
    assert model.on(mnas)(genomes) == pytest.approx(predicted.ms)
    low, high, covered = model.intervals(mnas)(genomes)
    assert low == pytest.approx(predicted.low_ms) and high == pytest.approx(predicted.high_ms)
    assert covered.tolist() == predicted.covered.tolist()
    assert sum(e.ms for e in model.explain(networks[0])) == pytest.approx(predicted.ms[0])


@pytest.mark.parametrize("name", ["mnasnet-a1", "mnasnet-b1", "mnasnet-small", "mobilenet-v2"])
def test_operators_have_the_kernels_of_their_network(name: str) -> None:
    network = zoo.network(name)
    mine = Counter(k for o in network.operators() for k in zoo.operator_kernels(o))
    assert mine == Counter(zoo.kernels(network))


def test_operators_of_a_whole_space_have_the_kernels_of_its_networks() -> None:
    mnas = space.get("mnasnet")
    for genome in mnas.sample(np.random.default_rng(0), 12):
        network = mnas.decode(genome)
        mine = Counter(k for o in network.operators() for k in zoo.operator_kernels(o))
        assert mine == Counter(zoo.kernels(network)), str(network)


def test_its_file_answers_as_it_does(model: LatencyModel, tmp_path: Path) -> None:
    path = model.save(tmp_path / "m.json")
    again = load(path)
    networks = [zoo.edge_network(n) for n in (*UNSEEN, "mnasnet_a1")]
    before, after = model.predict(networks), again.predict(networks)
    assert after.ms == pytest.approx(before.ms, rel=1e-3)
    assert after.high_ms == pytest.approx(before.high_ms, rel=1e-2)
    assert after.covered.tolist() == before.covered.tolist()
    assert again.by_family == model.by_family and again.calibrated
    assert path.stat().st_size < 100_000
    assert load(again.save(tmp_path / "n.json")).digest == again.digest


@pytest.mark.parametrize(
    "damage",
    [
        {"log_rates": [0.0]},
        {"factor": "AAAA"},
        {"factor": "not base64!"},
        {"scale": -1},
        {"inducing": {"dw": ["conv_k1x1_s1x1_g1_7x7x8_7x7x8"]}},
        {"terms": ["other"]},
        {"profile": {"costs": {}}},
    ],
)
def test_a_damaged_file_is_refused(
    model: LatencyModel, tmp_path: Path, damage: dict[str, object]
) -> None:
    document = json.loads(model.save(tmp_path / "m.json").read_text())
    document["kernels"] |= damage
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(UnsupportedFormat, match="phonenas fit"):
        load(tmp_path / "m.json")


def test_too_few_networks_are_no_model() -> None:
    with pytest.raises(NotEnoughData, match="phonenas profile"):
        fit_measurements(THERE, taken(TAUGHT[:9]))


def test_networks_of_one_family_are_left_out_in_folds() -> None:
    some = [n for n in zoo.edge_names() if n.startswith(("mobilenet_", "mobilenetb", "fdmobile"))]
    model = fit_measurements(THERE, [measured(n, network_ms(n)) for n in some])
    assert len(some) == 12 and np.isfinite(model.scores["model"].mape)


def test_a_file_that_is_known_by_its_digest_teaches_nothing() -> None:
    file = Measurement("onnx", "net.onnx#0123456789ab", THERE, (Round((5.0,)),))
    known, others = known_networks([*taken(), file])
    assert len(known) == len(TAUGHT) and others == [file]
    assert fit_networks(THERE, known).measurements == len(TAUGHT)


def test_widths_of_one_network_of_blocks_are_one_family() -> None:
    def bare(name: str, width: float) -> Measurement:
        return Measurement("network", str(zoo.find(name, width)), THERE, (Round((5.0,)),))

    known, _ = known_networks(
        [bare("mnasnet-a1", 1.0), bare("mnasnet-a1", 0.5), bare("mobilenet-v2", 1.0)]
    )
    assert [k.family for k in known] == ["mnasnet-a1", "mnasnet-a1", "mobilenet-v2"]


def test_which_unit_is_expected_follows_from_the_conditions() -> None:
    assert process.profile_of("cpu", "float32") == process.PROFILES["cpu-float"]
    assert process.profile_of("cpu", "int8") == process.PROFILES["cpu-int8"]
    assert process.profile_of("gpu", "float16") == process.PROFILES["gpu"]


def test_a_model_of_whole_networks_knows_the_last_that_it_was_fitted_on() -> None:
    entries = {n: 5 + (7 * i) % 23 for i, n in enumerate(TAUGHT)}
    rows = [replace(m, entry=Entry("s", entries[n])) for n, m in zip(TAUGHT, taken(), strict=True)]
    rows = [
        replace(m, rounds=(replace(m.rounds[0], at=f"2026-01-{m.entry.number:02}T00:00:00Z"),))
        for m in rows
    ]
    fitted = fit_measurements(THERE, rows)
    assert fitted.last == ("s", 27) and fitted.until == "2026-01-27T00:00:00Z"


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="no ../shared/data beside the checkout")
@pytest.mark.parametrize(
    ("setting", "most"), [("s10|1large|float", 0.06), ("iphonexs|1large|quant", 0.06)]
)
def test_published_phones(setting: str, most: float, tmp_path: Path) -> None:
    """On phones that no constant was chosen on: seven families of mobile networks left out."""
    from phonenas.data import MeasurementStore, importers
    from phonenas.latency_model import fit

    tables = importers.read(
        "edge-networks", SHARED / "edge_tflite_cnn_e2e.csv", "phone", setting=setting
    )
    with MeasurementStore(tmp_path / "s.db", create=True) as store:
        importers.import_tables(tables, store)
        model = fit(store, "phone")
    families = (
        "mobilenet",
        "mobilenetv2",
        "mobilenetv3",
        "proxyless",
        "mnasnet",
        "efficientnet_edge",
    )
    scores = [model.by_family[f] for f in families]
    assert sum(s.n for s in scores) == 41
    assert sum(s.n * s.mape for s in scores) / 41 < most
