"""Results of others: tables of trained networks, looked up, and surrogates fitted to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from fakes import TinySpace

from phonenas import search, space
from phonenas.cli import accuracy as accuracy_commands
from phonenas.cli import search as search_commands
from phonenas.cli import stores
from phonenas.latency_model import LatencyModel
from phonenas.search.accuracy import AccuracyTable, Cached, Request, Surrogate, estimator
from phonenas.search.accuracy.results import read_results
from phonenas.search.accuracy.surrogate.fit import fit_results, write
from phonenas.search.accuracy.surrogate.refit import refit
from phonenas.search.accuracy.surrogate.surrogate import table_path
from phonenas.space import Architecture, zoo
from phonenas.space.errors import (
    Incomplete,
    InvalidArgument,
    NotEnoughData,
    UncoveredNetwork,
    UnknownName,
    UnsupportedFormat,
)

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
published = pytest.mark.skipif(
    not SHARED.is_dir(), reason="shared/data does not lie beside the checkout"
)
SPACE = TinySpace(resolution=32)
GENOMES = SPACE.sample(np.random.default_rng(1), 90)
NETWORKS = [SPACE.decode(g) for g in GENOMES]
A = "r1_k3_s11_e1_i32_o16_noskip r2_k3_s22_e6_i16_o24"
B = "r1_k3_s11_e1_i32_o16 r2_k3_s22_e6_i16_o24"  # the same layers as A
C = "r1_k3_s11_e1_i32_o16 r2_k5_s22_e6_i16_o24"


def csv(path: Path, **columns: Any) -> Path:
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


# -- reading --------------------------------------------------------------------------------------


def test_networks_are_compared_by_their_layers_and_averaged(tmp_path: Path) -> None:
    path = csv(tmp_path / "t.csv", network=[A, B, C], top1=[0.70, 0.72, 0.80], more=[1, 2, 3])
    table = AccuracyTable(path)
    assert (len(table), table.rows) == (2, 3)
    told = table.estimate([Architecture.parse(t) for t in (C, A, B)])
    assert told.top1 == pytest.approx([0.80, 0.71, 0.71])
    assert told.standard_error[1] == pytest.approx(told.standard_error[0] / np.sqrt(2))
    assert not told.outside.any() and told.failed == ()


def test_the_scatter_of_repeats_is_everyones_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [str(a) for a in dict.fromkeys(NETWORKS)]
    rows = [n for n in names[:40] for _ in range(5)] + names[40:45]
    path = csv(
        tmp_path / "t.csv", block_args=rows, top1=0.5 + 0.02 * rng.standard_normal(len(rows))
    )
    told = AccuracyTable(path).estimate([Architecture.parse(n) for n in names[:45]])
    assert told.standard_error[-1] == pytest.approx(0.02, rel=0.2)
    assert told.standard_error[0] == pytest.approx(told.standard_error[-1] / np.sqrt(5))


def test_errors_of_the_table_are_taken(tmp_path: Path) -> None:
    path = csv(
        tmp_path / "t.csv", network=[A, B, C], top1=[70, 72, 80], standard_error=[0.3, 0.4, None]
    )
    told = AccuracyTable(path).estimate([Architecture.parse(A), Architecture.parse(C)])
    assert told.top1 == pytest.approx([0.71, 0.80])  # above 1: per cent
    assert told.standard_error == pytest.approx([np.hypot(0.003, 0.004) / 2, 0.003])


def test_failures_have_reasons(tmp_path: Path) -> None:
    path = csv(
        tmp_path / "t.csv",
        network=[A, B, C, C],
        top1=[0.7, None, None, None],
        failed=["", "diverged", "no memory", "diverged"],
    )
    told = AccuracyTable(path).estimate([Architecture.parse(A), Architecture.parse(C)])
    assert told.failed == ("", "no memory") and told.top1[0] == 0.7 and np.isnan(told.top1[1])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_decisions_of_a_space_name_networks(tmp_path: Path, suffix: str) -> None:
    rows = pd.DataFrame([SPACE.values(g) for g in GENOMES])
    rows["top1"] = Surrogate().estimate(NETWORKS).top1
    path = tmp_path / f"t.{suffix}"
    rows.to_csv(path, index=False) if suffix == "csv" else rows.to_parquet(path)
    table = AccuracyTable(path, space=SPACE)
    assert np.allclose(table.on(SPACE)(GENOMES).top1, rows["top1"], atol=1e-12)
    # Without a space the one whose decisions these are, at its own resolution.
    found = read_results(path).networks[0]
    assert (found.resolution_px, found.blocks) == (224, NETWORKS[0].blocks)
    mnas = space.get("mnasnet", 64)
    genomes = mnas.sample(np.random.default_rng(2), 20)
    rows = pd.DataFrame([mnas.values(g) for g in genomes])
    rows["top1"] = np.linspace(0.4, 0.6, 20)
    rows.to_csv(tmp_path / "m.csv", index=False)
    assert AccuracyTable(tmp_path / "m.csv", space=mnas).on(mnas)(genomes).top1 == pytest.approx(
        rows["top1"]
    )


def test_equal_tables_have_equal_digests(tmp_path: Path) -> None:
    one = AccuracyTable(csv(tmp_path / "a.csv", network=[A, C], top1=[0.5, 0.6]))
    same = AccuracyTable(csv(tmp_path / "b.csv", top1=[60.0, 50.0], x=[1, 2], block_args=[C, B]))
    other = AccuracyTable(csv(tmp_path / "c.csv", network=[A, C], top1=[0.5, 0.61]))
    assert one.digest == same.digest != other.digest


def test_a_network_that_is_not_there_is_named(tmp_path: Path) -> None:
    table = AccuracyTable(csv(tmp_path / "t.csv", network=[A], top1=[0.5]))
    asked = [Architecture.parse(A), zoo.network("mnasnet-a1"), zoo.network("mnasnet-b1")]
    with pytest.raises(
        UncoveredNetwork, match=r"no accuracy of 'r1_k3.* and 1 more of 3 .*holds 1\."
    ):
        table.estimate(asked)


@pytest.mark.parametrize(
    ("columns", "more", "error", "words"),
    [
        (
            {"network": [A, C], "acc": [0.5, 0.6]},
            {},
            InvalidArgument,
            "'top1' or 'val_top1' of top-1",
        ),
        ({"net": [A, C], "top1": [0.5, 0.6]}, {}, InvalidArgument, "neither a column of networks"),
        (
            {"net": [A], "top1": [0.5]},
            {"space": SPACE},
            InvalidArgument,
            "block0_e, .* are not there",
        ),
        ({"network": [A, C], "top1": [0.5, 93.0]}, {}, InvalidArgument, "share or per cent"),
        (
            {"network": [A, C], "top1": [0.5, 93.0]},
            {"unit": "share"},
            InvalidArgument,
            "row 2: top1 is 93",
        ),
        (
            {"network": [A, C], "top1": [50, 193]},
            {"unit": "percent"},
            InvalidArgument,
            "row 2: top1 is 193",
        ),
        (
            {"network": [A, C], "top1": [0.5, 0.6]},
            {"unit": "points"},
            InvalidArgument,
            "share or percent",
        ),
        (
            {"network": [A, C], "top1": [0.5, None]},
            {},
            InvalidArgument,
            "row 2: top1 is not a number.*'failed'",
        ),
        ({"network": [A, C], "top1": [0.5, "high"]}, {}, InvalidArgument, "row 2: top1 is 'high'"),
        ({"network": [A, C], "top1": [0.5, np.inf]}, {}, InvalidArgument, "row 2: top1 is"),
        ({"network": [A, "r9_q3"], "top1": [0.5, 0.6]}, {}, UnsupportedFormat, "row 2: no network"),
        ({"network": [A, None], "top1": [0.5, 0.6]}, {}, UnsupportedFormat, "row 2: no network"),
        ({"network": [A], "top1": [0.5]}, {"target": "top9"}, InvalidArgument, "no column 'top9'"),
        ({"network": [A], "top1": [0.5]}, {"column": "nets"}, InvalidArgument, "no column 'nets'"),
        ({"network": [A], "top1": [0.5], "standard_error": [0.0]}, {}, InvalidArgument, "above 0"),
        ({"network": [], "top1": []}, {}, NotEnoughData, "no rows"),
    ],
)
def test_bad_tables_are_refused(
    tmp_path: Path, columns: Any, more: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        AccuracyTable(csv(tmp_path / "t.csv", **columns), **more)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="none.csv cannot be read"):
        AccuracyTable(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(NotEnoughData, match="empty"):
        AccuracyTable(tmp_path / "empty.csv")
    for name in ("t.csv", "t.parquet"):
        (tmp_path / name).write_bytes(bytes(range(256)) * 9)
        with pytest.raises((UnsupportedFormat, InvalidArgument), match=name):
            AccuracyTable(tmp_path / name)


def test_a_search_in_a_table_that_covers_its_space(fitted: LatencyModel, tmp_path: Path) -> None:
    counts = SPACE.option_counts
    whole = np.stack(np.meshgrid(*[np.arange(c) for c in counts], indexing="ij"), -1)
    whole = whole.reshape(-1, len(counts)).astype(np.int8)
    rows = pd.DataFrame([SPACE.values(g) for g in whole])
    rows["top1"] = 100 * Surrogate().on(SPACE)(whole).top1
    rows.to_csv(tmp_path / "t.csv", index=False)
    table = estimator(f"table:{tmp_path / 't.csv'}", Request(space=SPACE))

    def go(accuracy: Any) -> Any:
        how = search.NSGA2(seed=3, population=20)
        return search.run(SPACE, latency=fitted, accuracy=accuracy, strategy=how, evaluations=150)

    one, other = go(table), go(Surrogate())
    assert [c.block_args for c in one] == [c.block_args for c in other]


# -- words ----------------------------------------------------------------------------------------


def test_estimators_by_their_words(tmp_path: Path) -> None:
    assert estimator().digest == estimator("imagenet:paper").digest != Surrogate().digest
    assert estimator("surrogate").digest == Surrogate().digest
    assert estimator(f"surrogate:{table_path()}").digest == Surrogate().digest
    assert estimator("additive").name == "additive"
    cached = estimator("surrogate", cache=tmp_path / "a.db", again=True)
    assert isinstance(cached, Cached) and cached.again and cached.digest == Surrogate().digest


@pytest.mark.parametrize(
    ("words", "more", "error", "told"),
    [
        (
            "surogate",
            {},
            UnknownName,
            r"Did you mean 'surrogate'\? Known: additive, imagenet, supernet, surrogate, table",
        ),
        ("", {}, UnknownName, "Known"),
        ("training", {}, InvalidArgument, "--data DIR"),
        ("supernet:x", {}, InvalidArgument, "--data DIR"),
        ("table", {}, InvalidArgument, "table:FILE: what to read is missing"),
        ("additive:x", {}, InvalidArgument, "nothing after a colon"),
        ("surrogate", {"unit": "share"}, InvalidArgument, "leave --unit out"),
        ("surrogate", {"hold_out": 0.2}, InvalidArgument, "leave --held-out out"),
        ("surrogate", {"images": object()}, InvalidArgument, "leave --data out"),
        ("surrogate:none.json", {}, InvalidArgument, "none.json cannot be read"),
    ],
)
def test_invalid_arguments(words: str, more: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        estimator(words, Request(**more))


# -- fitting --------------------------------------------------------------------------------------


@pytest.mark.slow
@published
def test_the_published_table_gives_the_shipped_file_by_one_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        capsys,
        "fit-accuracy",
        str(SHARED / "accel_nasbench.csv"),
        "--out",
        str(tmp_path / "s.json"),
    )
    made, shipped = (json.loads(p.read_text()) for p in (tmp_path / "s.json", table_path()))
    # To the byte on one and the same processor; others round the last digits otherwise.
    assert {k: v for k, v in made.items() if k not in ("model", "score")} == {
        k: v for k, v in shipped.items() if k not in ("model", "score")
    }
    assert made["score"]["kendall_tau"] == pytest.approx(shipped["score"]["kendall_tau"], abs=2e-4)
    assert made["score"]["kendall_tau"] >= 0.90 and made["score"]["rmse_points"] <= 0.6


def own_results(path: Path, n: int = 90) -> Path:
    """Trainings on another scale, in which wide kernels are worth more, with noise."""
    rng = np.random.default_rng(0)
    base = 100 * Surrogate().estimate(NETWORKS[:n]).top1
    wide = np.array([str(a).count("_k5") for a in NETWORKS[:n]])
    top1 = 20 + 0.9 * base + 2.0 * wide + 0.3 * rng.standard_normal(n)
    return csv(path, network=list(map(str, NETWORKS[:n])), top1=top1)


def test_a_refit_learns_the_users_scale_and_taste(tmp_path: Path) -> None:
    content = fit_results(own_results(tmp_path / "t.csv"))
    score = content["score"]
    assert content["version"] == 2 and content["source"]["resolution_px"] == [32]
    assert score["kendall_tau"] > score["shipped"]["kendall_tau"] + 0.1
    write(content, tmp_path / "s.json")
    refitted = Surrogate(tmp_path / "s.json")
    fresh = [SPACE.decode(g) for g in SPACE.sample(np.random.default_rng(9), 200)]
    truth = 20 + 90 * Surrogate().estimate(fresh).top1 + [2.0 * str(a).count("_k5") for a in fresh]
    told = refitted.estimate(fresh)
    assert np.sqrt(np.mean((100 * told.top1 - truth) ** 2)) < 2 * score["rmse_points"]
    assert np.corrcoef(told.top1, truth)[0, 1] > 0.97
    # Small images are what taught it: no guess any more. Others still are.
    assert told.outside.mean() < 0.1
    assert refitted.estimate([a.with_resolution(224) for a in fresh[:5]]).outside.all()
    assert refitted.digest.startswith("refitted-2-") and "t.csv" in refitted.note
    by_genome = refitted.on(SPACE)(GENOMES)
    assert np.allclose(by_genome.top1, refitted.estimate(NETWORKS).top1, atol=1e-12)
    assert Surrogate.of(content).estimate(fresh).top1 == pytest.approx(told.top1)


def test_a_refit_is_the_same_each_time(tmp_path: Path) -> None:
    path = own_results(tmp_path / "t.csv", 60)
    write(fit_results(path), tmp_path / "a.json")
    write(refit(read_results(path)), tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_refit_of_noise_stays_with_the_shipped_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    base = 100 * Surrogate().estimate(NETWORKS).top1
    path = csv(
        tmp_path / "t.csv",
        network=list(map(str, NETWORKS)),
        top1=base + 1.0 * rng.standard_normal(len(base)),
    )
    refitted = Surrogate.of(fit_results(path))
    fresh = SPACE.sample(np.random.default_rng(9), 300)
    told, shipped = refitted.on(SPACE)(fresh).top1, Surrogate().on(SPACE)(fresh).top1
    assert np.corrcoef(told, shipped)[0, 1] > 0.9


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.iloc[:49], "49 networks .* 50 or more"),
        (lambda t: t.assign(top1=55.0), "equally accurate"),
        (lambda t: pd.concat([t.iloc[:30]] * 3), "30 networks"),
        (
            lambda t: t.assign(failed=["" if i < 20 else "diverged" for i in range(len(t))]),
            "20 networks",
        ),
    ],
)
def test_too_little_to_fit(tmp_path: Path, change: Callable[[Any], Any], words: str) -> None:
    table = pd.read_csv(own_results(tmp_path / "t.csv"))
    table = table.drop_duplicates("network")
    change(table).to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(NotEnoughData, match=words):
        fit_results(tmp_path / "few.csv")


def test_a_refit_on_another_shipped_file_is_refused(tmp_path: Path) -> None:
    content = fit_results(own_results(tmp_path / "t.csv"))
    content["base"]["digest"] = "surrogate-1-older"
    write(content, tmp_path / "s.json")
    with pytest.raises(UnsupportedFormat, match=r"surrogate-1-older.*fit-accuracy"):
        Surrogate(tmp_path / "s.json")
    del content["seen"]
    write(content, tmp_path / "s.json")
    with pytest.raises(UnsupportedFormat, match=r"s\.json is damaged"):
        Surrogate(tmp_path / "s.json")


def test_a_cache_teaches_a_surrogate(tmp_path: Path) -> None:
    Cached(Surrogate(), tmp_path / "a.db").estimate(NETWORKS)
    content = fit_results(tmp_path / "a.db")
    assert content["score"]["kendall_tau"] > 0.95  # it is what the correction starts from
    with pytest.raises(InvalidArgument, match="needs no --unit"):
        fit_results(tmp_path / "a.db", unit="share")
    with pytest.raises(InvalidArgument, match="there is no file"):
        fit_results(tmp_path / "none.db")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InvalidArgument, match="not a promoted.json"):
        fit_results(tmp_path / "other.json")


# -- commands -------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    return heard(capsys, *words).out


def heard(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What a command writes to stdout and to stderr."""
    app = typer.Typer()
    for command in (
        accuracy_commands.accuracy,
        accuracy_commands.fit_accuracy,
        search_commands.search,
    ):
        app.command(command.__name__.replace("_", "-"))(command)
    app(list(words), prog_name="phonenas", standalone_mode=False)
    return capsys.readouterr()


def test_the_accuracy_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run(
        capsys,
        *("accuracy", "mnasnet-a1", "mobilenet-v2", "--width", "0.5"),
        "--accuracy=surrogate",
    )
    assert "extrapolated" in text and "16-epoch" in text
    text = run(capsys, "accuracy", "mnasnet-a1", "resnet-50")
    assert "350 epochs" in text and text.count("extrapolated") == 1
    (row,) = json.loads(run(capsys, "accuracy", "mnasnet-a1", "--json"))
    assert (row["quantity"], row["estimator"]) == ("top-1", "imagenet")
    assert row["schedule"].startswith("350 epochs")
    path = csv(
        tmp_path / "t.csv", network=[A, C], top1=[70, None], failed=[None, "diverged at epoch 2"]
    )
    with pytest.raises(
        Incomplete, match="1 of 2 networks have no accuracy: .*: diverged at epoch 2"
    ):
        run(capsys, "accuracy", B, C, "--accuracy", f"table:{path}", "--json")
    found = json.loads(capsys.readouterr().out)  # what was estimated is printed all the same
    keys = {
        "asked",
        "estimator",
        "scale",
        "quantity",
        "schedule",
        "network",
        "top1",
        "standard_error",
        "outside",
        "failed",
        "cost_s",
    }
    assert [set(row) for row in found] == [keys, keys]
    assert found[0]["top1"] == pytest.approx(0.7) and found[0]["failed"] == ""
    assert found[1]["top1"] is None and found[1]["failed"] == "diverged at epoch 2"
    assert found[1]["standard_error"] is None and found[1]["cost_s"] >= 0
    with pytest.raises(Incomplete):
        run(capsys, "accuracy", C, "--accuracy", f"table:{path}")
    assert "diverged at epoch 2" in capsys.readouterr().out
    cache = tmp_path / "a.db"
    words = ["accuracy", A, "--accuracy-cache", str(cache), "--json"]
    first = run(capsys, *words)
    assert first == run(capsys, *words)  # its cost too: it is of when it was judged
    with pytest.raises(InvalidArgument, match="leave --data out"):
        run(capsys, "accuracy", A, "--data", str(tmp_path))


def test_a_search_by_a_surrogate_of_ones_own(
    fitted: LatencyModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(space, "get", lambda name, resolution: SPACE)
    monkeypatch.setattr(stores, "find_model", lambda *args, **more: fitted)
    own, out = tmp_path / "s.json", tmp_path / "r"
    text = run(capsys, "fit-accuracy", str(own_results(tmp_path / "t.csv")), "--out", str(own))
    assert "this fit" in text and "as shipped" in text and f"surrogate:{own}" in text
    words = ["search", "--out", str(out), "--device", "fake", "--evaluations", "60", "--quiet"]
    words += ["--accuracy", f"surrogate:{own}"]
    found = json.loads(run(capsys, *words, "--json"))
    assert found["accuracy"] == "surrogate" and found["failed"] == {}
    assert search.load(out).settings["accuracy"] == Surrogate(own).digest
    assert "on the scale of t.csv" in run(capsys, *words)


def test_a_run_of_before_goes_on_with_its_own_estimator(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fitted: LatencyModel,
) -> None:
    monkeypatch.setattr(space, "get", lambda name, resolution: SPACE)
    monkeypatch.setattr("phonenas.search.accuracy.imagenet.imagenet._LEAST_PX", 32)
    monkeypatch.setattr(stores, "find_model", lambda *args, **more: fitted)
    words = ["search", "--device", "fake", "--evaluations", "60", "--quiet", "--json"]
    before, new = tmp_path / "before", tmp_path / "new"
    begun = json.loads(
        run(capsys, *words, "--out", str(before), "--accuracy", "surrogate", "--trust", "0")
    )
    settings = search.load(before).settings
    assert settings["accuracy"] == Surrogate().digest
    assert not {"estimator", "trust", "schedule", "asked"} & set(settings)  # as runs of before
    again = json.loads(run(capsys, *words, "--out", str(before)))
    assert again["accuracy"] == "surrogate" and again["resumed_from"] == 60
    assert again["front"] == begun["front"]
    loud = [word for word in words if word not in ("--quiet", "--json")]
    told = heard(capsys, *loud, "--out", str(before)).err
    assert "was begun with --accuracy surrogate" in told and "give another --out" in told

    found = json.loads(run(capsys, *words, "--out", str(new)))
    assert found["accuracy"] == "imagenet" and found["schedule"].startswith("350 epochs")
    assert found["extrapolated"] == sum(c["outside"] for c in found["front"])
    assert search.load(new).settings["trust"] == 1.645
    assert search.load(new).front.left_out == found["left_out"]
    words.remove("--json")
    text = run(capsys, *words, "--out", str(new))
    assert ("extrapolated networks left out" in text) == (found["left_out"] > 1)
    assert "on the front are extrapolated" in text or not found["extrapolated"]
    assert "top-1 on ImageNet after a full schedule: 350 epochs" in text
