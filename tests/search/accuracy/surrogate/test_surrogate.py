"""The accuracy surrogate: against its table, against published networks, and its floors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phonenas.search.accuracy import Accuracy, AccuracyEstimator, Additive, Surrogate
from phonenas.search.accuracy.surrogate.surrogate import FEATURES, table_path
from phonenas.space import Architecture, get, zoo
from phonenas.space.errors import InvalidArgument, NotEnoughData, PhonenasError, UnsupportedFormat

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"
published = pytest.mark.skipif(
    not SHARED.is_dir(), reason="shared/data does not lie beside the checkout"
)
ZOO_FAMILIES = {
    "MnasNet-A1": "mnasnet-a1",
    "MobileNetV2": "mobilenet-v2",
    "TFLite hosted: AutoML mobile models": "mnasnet-b1",
}
# Of FACTS.md: the widths of A1, and the small network, that the table of figures has not.
A1_WIDTHS = {1.4: 77.2, 1.0: 75.2, 0.75: 73.3, 0.5: 68.9, 0.35: 64.1}
SMALL = 66.0


@pytest.fixture(scope="module")
def surrogate() -> Surrogate:
    return Surrogate()


def one(surrogate: Surrogate, text: str) -> float:
    return float(surrogate.estimate([Architecture.parse(text)]).top1[0])


# -- published data -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def refitted():
    from phonenas.search.accuracy.surrogate.fit import fit

    return fit(SHARED / "accel_nasbench.csv")


@published
def test_ranks_the_rows_that_were_held_out(surrogate):
    import pandas as pd

    from phonenas.search.accuracy.surrogate.fit import network_of, score

    table = pd.read_csv(SHARED / "accel_nasbench.csv")
    held = table[table["id"].isin(surrogate.about["held_out"])]
    assert len(held) == len(table) // 5
    networks = [network_of(row, get("accel-nasbench")) for row in held.to_dict("records")]
    found = surrogate.estimate(networks)
    got = score(100 * found.top1, held["val_top1"])
    assert got["kendall_tau"] >= 0.90
    assert got["rmse"] <= 0.6
    told = surrogate.about["score"]
    assert got["kendall_tau"] == pytest.approx(told["kendall_tau"], abs=2e-4)
    assert got["rmse"] == pytest.approx(told["rmse_points"], abs=1e-3)
    assert told["macs"]["kendall_tau"] < 0.5
    # Drawn from the same table, hardly any of them lies outside, and the error stays narrow.
    assert found.outside.mean() < 0.02
    assert np.median(found.standard_error) < 0.006


@pytest.mark.slow
@published
def test_the_same_table_gives_the_same_file(refitted, tmp_path):
    from phonenas.search.accuracy.surrogate.fit import fit_results, write

    write(refitted, tmp_path / "first.json")
    write(fit_results(SHARED / "accel_nasbench.csv"), tmp_path / "second.json")
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()
    assert (tmp_path / "first.json").stat().st_size < 400_000


@published
def test_the_shipped_file_is_this_fit(refitted, surrogate):
    assert refitted["held_out"] == surrogate.about["held_out"]
    assert refitted["source"] == surrogate.about["source"]
    assert refitted["score"] == surrogate.about["score"]
    for space in (get("mnasnet"), get("accel-nasbench")):
        genomes = space.sample(np.random.default_rng(1), 500)
        fitted, shipped = (s.on(space)(genomes) for s in (Surrogate.of(refitted), surrogate))
        np.testing.assert_allclose(fitted.top1, shipped.top1, rtol=0, atol=1e-6)
        np.testing.assert_allclose(fitted.standard_error, shipped.standard_error, rtol=0, atol=1e-6)


def published_networks() -> dict[tuple[str, float], float]:
    import pandas as pd

    table = pd.read_csv(SHARED / "published_networks.csv")
    table = table[(table["resolution"] == 224) & (table["precision"] == "fp32")]
    found = {
        (ZOO_FAMILIES[row["family"]], float(row["width"])): float(row["top1"])
        for row in table.to_dict("records")
        if row["family"] in ZOO_FAMILIES and row["top1"] == row["top1"]
    }
    found |= {("mnasnet-a1", width): top1 for width, top1 in A1_WIDTHS.items()}
    return found | {("mnasnet-small", 1.0): SMALL}


@published
@pytest.mark.parametrize("family", ["all", "mnasnet-a1", "mnasnet-b1", "mobilenet-v2"])
def test_carries_over_to_published_networks_at_other_widths(surrogate, family):
    from phonenas.search.accuracy.surrogate.fit import score

    known = published_networks()
    chosen = [k for k in known if family in ("all", k[0])]
    assert len(chosen) >= (16 if family == "all" else 4)
    found = surrogate.estimate([zoo.network(name, width) for name, width in chosen]).top1
    assert score(found, [known[k] for k in chosen])["spearman"] >= 0.95


# -- the contract ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "space",
    [
        *(get("mnasnet"), get("accel-nasbench")),
        *(
            pytest.param(s, marks=pytest.mark.slow)
            for s in (get("mnasnet", 160), get("mnasnet-flat"))
        ),
    ],
    ids=repr,
)
def test_by_genome_equals_by_network(surrogate, space):
    genomes = space.sample(np.random.default_rng(2), 60)
    fast, direct = (
        surrogate.on(space)(genomes),
        surrogate.estimate([space.decode(g) for g in genomes]),
    )
    slow = AccuracyEstimator.on(surrogate, space)(genomes)
    for other in (direct, slow):
        np.testing.assert_allclose(fast.top1, other.top1, rtol=0, atol=1e-12)
        np.testing.assert_allclose(fast.standard_error, other.standard_error, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(fast.outside, other.outside)


def test_an_answer_does_not_depend_on_its_company(surrogate):
    space = get("mnasnet")
    genomes = space.sample(np.random.default_rng(3), 1200)
    judge = surrogate.on(space)
    together = judge(genomes).top1
    alone = np.concatenate([judge(genomes[i : i + 7]).top1 for i in range(0, 1200, 7)])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12)


def test_shapes_ranges_and_no_network_at_all(surrogate):
    found = surrogate.on(get("mnasnet"))(get("mnasnet").sample(np.random.default_rng(4), 2000))
    assert isinstance(found, Accuracy)
    assert found.top1.shape == found.standard_error.shape == found.outside.shape == (len(found),)
    assert found.outside.dtype == np.bool_
    # Nothing absurd in a space of which the table holds but a corner.
    assert 0.35 < found.top1.min() and found.top1.max() < 0.70
    assert 0.004 < found.standard_error.min() and found.standard_error.max() < 0.10
    assert len(surrogate.estimate([])) == 0
    assert len(surrogate.on(get("mnasnet"))(np.empty((0, 42), np.int8))) == 0


def test_names_itself(surrogate):
    assert surrogate.name == "surrogate"
    assert surrogate.digest == Surrogate().digest
    assert "-1-" in surrogate.digest
    assert surrogate.cost_s < 1e-3
    assert surrogate.shipped and not Additive().shipped


# -- what goes with accuracy ----------------------------------------------------------------------

A1 = str(zoo.network("mnasnet-a1"))


def test_wider_and_sharper_is_better_and_less_sure(surrogate):
    found = surrogate.estimate([zoo.network("mobilenet-v2", w) for w in (0.35, 0.5, 0.75, 1, 1.4)])
    assert (np.diff(found.top1) > 0).all()
    assert found.outside[[0, 1, 2, 4]].all() and not found.outside[3]
    assert (np.diff(found.standard_error[:4]) < 0).all()
    sizes = surrogate.estimate([zoo.network("mnasnet-b1", 1, r) for r in (96, 128, 192, 224)])
    assert (np.diff(sizes.top1) > 0).all()
    assert sizes.outside.tolist() == [True, True, True, False]
    assert (np.diff(sizes.standard_error) < 0).all()


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (A1, A1.replace("_se0.25", "")),
        (A1.replace("k3", "k5"), A1),
        (A1, A1.replace("e6", "e3")),
        (A1, A1.replace("e6", "e1").replace("e3", "e1")),
        (A1, A1.replace("r4", "r2")),
    ],
    ids=["squeeze", "kernel", "expansion", "separable", "depth"],
)
def test_directions_that_the_field_agrees_on(surrogate, better, worse):
    assert one(surrogate, better) > one(surrogate, worse)


# -- floors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["noskip", "pool"])
def test_a_missing_identity_costs_its_share_of_three_and_a_half_points(surrogate, word):
    # An identity fits each layer of A1 but the first of every block.
    blocks = A1.split()
    every = " ".join(b if b.endswith("noskip") else f"{b}_{word}" for b in blocks)
    assert one(surrogate, A1) - one(surrogate, every) == pytest.approx(0.035, abs=1e-9)
    fits = [int(b[1]) - 1 for b in blocks]
    some = " ".join([*blocks[:3], f"{blocks[3]}_{word}", *blocks[4:]])
    share = fits[3] / sum(fits)
    assert one(surrogate, A1) - one(surrogate, some) == pytest.approx(0.035 * share, abs=1e-9)
    judged = surrogate.estimate([Architecture.parse(A1), Architecture.parse(some)])
    assert judged.outside.tolist() == [False, True]
    assert judged.standard_error[1] > judged.standard_error[0]


def test_a_skip_where_no_identity_fits_costs_nothing(surrogate):
    assert one(surrogate, A1.replace("_o320", "_o320_pool")) == one(surrogate, A1)


def test_a_regular_convolution_earns_no_more_than_its_separable_twin(surrogate):
    space = get("mnasnet")
    genomes = space.sample(np.random.default_rng(5), 300)
    ops = [i for i, n in enumerate(space.decisions) if n.endswith("_op")]
    genomes[:, ops] = np.minimum(genomes[:, ops], 1)  # regular or separable
    genomes[:, ops[0]] = 0
    twins = genomes.copy()
    twins[:, ops] = 1
    regular, separable = (surrogate.on(space)(g) for g in (genomes, twins))
    np.testing.assert_allclose(regular.top1, separable.top1, rtol=0, atol=1e-12)
    assert regular.outside.all()
    assert (regular.standard_error > separable.standard_error).all()


def test_says_where_it_has_not_been(surrogate):
    a1 = Architecture.parse(A1)
    strange = [
        Architecture.parse(A1.replace("k5", "k7")),
        Architecture.parse(A1.replace("e6", "e8")),
        Architecture.parse(A1.replace("r4", "r20")),
        Architecture.parse("r1_k3_s22_e1_i32_o16"),
    ]
    found = surrogate.estimate([a1, *strange])
    assert found.outside.tolist() == [False] + [True] * len(strange)
    assert np.isfinite(found.top1).all() and np.isfinite(found.standard_error).all()
    with pytest.raises(InvalidArgument, match="10 classes"):
        surrogate.estimate([replace(a1, classes=10)])


# -- the file -------------------------------------------------------------------------------------


def test_the_shipped_file_is_small_and_tells_its_source(surrogate):
    assert table_path().stat().st_size < 400_000
    about = json.loads(table_path().read_text(encoding="utf-8"))
    assert about["source"]["table"] == "afzalxo/Accel-NASBench"
    assert about["source"]["licence"] == "Apache-2.0"
    assert len(about["source"]["sha256"]) == 64
    assert about["features"] == list(FEATURES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 3}, ["version 3", "and 2", "Update"]),
        ({"version": 0}, ["version 0", "versions 1", "fit-accuracy"]),
        ({"version": 2}, ["damaged", "fit-accuracy"]),
        ({"format": "phonenas lookup table"}, ["'phonenas lookup table'", "accuracy surrogate"]),
        ({"features": ["macs"]}, ["features"]),
        ({"model": {}}, ["damaged"]),
        ({"model": None}, ["damaged"]),
    ],
    ids=["newer", "older", "no correction", "foreign", "features", "no model", "null model"],
)
def test_refuses_a_file_that_it_cannot_read(tmp_path, change, words):
    path = tmp_path / "other.json"
    path.write_text(json.dumps(json.loads(table_path().read_text("utf-8")) | change), "utf-8")
    with pytest.raises(UnsupportedFormat) as caught:
        Surrogate(path)
    assert all(w in str(caught.value) for w in [*words, "other.json"])


@pytest.mark.parametrize("text", ["", "[]", '{"format":', "\xff"])
def test_refuses_a_damaged_file(tmp_path, text):
    path = tmp_path / "torn.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UnsupportedFormat, match=r"torn\.json"):
        Surrogate(path)


def test_no_file_at_all(tmp_path):
    with pytest.raises(InvalidArgument, match="none.json"):
        Surrogate(tmp_path / "none.json")


def test_a_fit_refuses_a_table_that_is_none(tmp_path):
    from phonenas.search.accuracy.surrogate.fit import fit

    path = tmp_path / "table.csv"
    path.write_text("id,val_top1\n1,60\n")
    with pytest.raises(InvalidArgument, match="block0_e"):
        fit(path)
    names = list(get("accel-nasbench").decisions)
    path.write_text(",".join(["id", "val_top1", *names]) + "\n1,60" + ",1" * len(names) + "\n")
    with pytest.raises(NotEnoughData, match="1 rows"):
        fit(path)
    assert issubclass(NotEnoughData, PhonenasError)
