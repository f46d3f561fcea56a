"""One device in several precisions: stored, fitted, predicted, searched and validated apart."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import TinySpace, undigested

from phonenas import data, devices, latency_model, search
from phonenas.cli.accuracy import change_in_int8, measured_changes
from phonenas.cli.options import Output
from phonenas.devices.measuring import profiling
from phonenas.devices.simulated import SimulatedPhone
from phonenas.search.accuracy import Surrogate
from phonenas.search.promotion.result import Promoted, PromotedNetwork
from phonenas.search.run_folder import load
from phonenas.search.training.export.quantised import QuantisedModel
from phonenas.space import Architecture
from phonenas.space.errors import NotEnoughData
from phonenas.space.kernels.random_cnn import RandomCNN
from phonenas.space.onnx_file import OnnxFile
from tests.cli.test_app import Run, run

__all__ = ["run"]

pytestmark = pytest.mark.usefixtures("fast")


class OneBlock(TinySpace):
    """36 networks of 32 operators: the choices of one block."""

    @cached_property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        own = super().decisions
        return {n: o if n.startswith("block1") else o[:1] for n, o in own.items()}


SPACE = OneBlock(resolution=224)


def sim(precision: str) -> SimulatedPhone:
    phone = SimulatedPhone("sim")
    phone.precision = precision
    return phone


NETWORK = str(SPACE.decode(SPACE.sample(np.random.default_rng(0), 1)[0]))


def fill(store: data.MeasurementStore, phone: SimulatedPhone, subjects: list[Any]) -> None:
    """As a profile would: three rounds of each subject, whose times scatter by half a percent."""
    rng = np.random.default_rng(0)
    for kind in ("operator", "network"):
        models = {s.text: s.model for s in subjects if s.kind == kind}
        pending = store.pending(phone.conditions, kind, list(models))  # type: ignore[arg-type]
        store.add_rounds(
            [
                (p.id, n, data.Round((phone.truth_ms(models[text]) * rng.normal(1, 0.005),)))
                for text, p in pending.items()
                for n in range(3)
            ]
        )
        store.complete([p.id for p in pending.values()])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One phone in float32 and, later, in int8: a store, two models, a run in int8."""
    folder = tmp_path_factory.mktemp("precisions")
    subjects = profiling.Selection().subjects(SPACE, 20, seed=0)
    with data.MeasurementStore(folder / "s.db") as store:
        for precision in ("float32", "int8"):
            fill(store, sim(precision), subjects)
            model = latency_model.fit(store, "sim", precision=precision)
            model.save(latency_model.model_path(str(folder / "s.db"), "sim", precision))
    search.run(
        SPACE,
        latency=model,
        accuracy=Surrogate(),
        strategy=search.RandomSearch(seed=0),
        evaluations=36,
        into=folder / "r",
    )
    return folder


@pytest.fixture
def at(made: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """A copy of the folder as the working one; the options that name its store and device."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.undo()  # the devices are those of devices.toml
    monkeypatch.chdir(tmp_path)
    run.monkeypatch = monkeypatch
    monkeypatch.setenv("PHONENAS_DEVICES", str(tmp_path / "devices.toml"))
    toml()
    return ("--db", "s.db", "--device", "sim")


def toml(more: str = "") -> None:
    Path("devices.toml").write_text(f'[sim]\ntransport = "simulated"\n{more}')


def truth_ms(network: str, precision: str) -> float:
    return sim(precision).truth_ms(Architecture.parse(network))


@pytest.mark.slow
def test_each_precision_has_a_model_of_its_own(run: Run, at: tuple[str, ...]) -> None:
    for path in Path().glob("*.model*"):
        path.unlink()
    code, _, err = run("fit", *at)
    assert code == 0 and "precision: float32 / int8" in err  # left out
    told = run.json("fit", *at, "--precision", "int8")
    assert told["model"] == "s.sim.model.int8.json" and told["conditions"]["precision"] == "int8"
    (other,) = told["left_out"]
    assert other["drift"] == []  # other times in another precision are none

    for more, precision in (((), "float32"), (("--precision", "int8"), "int8")):
        (row,) = run.json("predict", NETWORK, *at, *more)
        assert row["precision"] == precision
        assert row["latency_ms"] == pytest.approx(truth_ms(NETWORK, precision), rel=0.05)
    assert truth_ms(NETWORK, "float32") > 1.5 * truth_ms(NETWORK, "int8")
    # The two lie in one store and one export, each under its own conditions.
    run.json("export", "m.csv", "--db", "s.db")
    rows = list(csv.DictReader(Path("m.csv").read_text().splitlines()))
    found = {r["precision"]: float(r["latency_ms"]) for r in rows if r["subject"] == NETWORK}
    assert found["float32"] == pytest.approx(truth_ms(NETWORK, "float32"), rel=0.05)
    assert found["int8"] == pytest.approx(truth_ms(NETWORK, "int8"), rel=0.05)


@pytest.mark.slow
def test_what_is_not_there_is_told_in_a_line(run: Run, at: tuple[str, ...]) -> None:
    code, _, err = run("fit", *at, "--precision", "float16")
    assert code == 1 and "holds no measurement of 'sim' in float16; it holds float32, int8" in err
    assert "phonenas profile" in err and "--precision float16" in err
    for command in (("fit",), ("predict", NETWORK), ("search", "--out", "x"), ("profile",)):
        code, _, err = run(*command, *at, "--precision", "int9")
        assert code == 2 and "no precision is called 'int9'. Did you mean 'int8'" in err
    # A float model asked for an answer in int8, and the reverse.
    asked = ("predict", NETWORK, *at, "--precision")
    code, _, err = run(*asked, "int8", "--model", "s.sim.model.json")
    assert code == 1 and "s.sim.model.json is a model in float32, not in int8" in err
    Path("s.sim.model.int8.json").rename("own.json")
    code, _, err = run(*asked, "int8")
    assert code == 1 and "no latency model of sim in int8 at s.sim.model.int8.json" in err
    assert "there is one in float32" in err and err.count("\n") == 1
    code, _, err = run(*asked, "float32", "--model", "own.json")
    assert code == 1 and "own.json is a model in int8, not in float32" in err
    code, _, err = run("fit", *at, "--out", "own.json")
    assert code == 1 and "is a model in int8, and is not overwritten by one in float32" in err
    ready = "pixel4/tflite/cpu-1large/float32"
    code, _, err = run("predict", NETWORK, "--device", ready, "--precision", "int8")
    assert code == 1 and "a phone measured in float32, not in int8" in err


@pytest.mark.slow
def test_where_several_are_possible_one_is_named(run: Run, at: tuple[str, ...]) -> None:
    subjects = [devices.Subject("operator", o) for o in SPACE.operators()[:2]]
    model = latency_model.load("s.sim.model.json")
    with data.MeasurementStore("two.db") as store:
        for precision in ("float16", "int8"):
            fill(store, sim(precision), subjects)
            model.save(latency_model.model_path("two.db", "sim", precision))
    two = ("--db", "two.db", "--device", "sim")
    code, _, err = run("fit", *two)
    assert code == 2 and "measured in float16 and int8, and a model is of one precision" in err
    code, _, err = run("predict", NETWORK, *two)
    assert code == 2 and "sim has models in float16 and int8: name one with --precision" in err


@pytest.mark.slow
def test_devices_toml_names_the_usual_one(run: Run, at: tuple[str, ...]) -> None:
    toml('precision = "int8"\n')
    assert run.json("predict", NETWORK, *at)[0]["precision"] == "int8"
    small = str(SPACE.operators()[0].key)
    told = run.json("profile", *at, "--operator", small, "--quick")
    assert told["conditions"]["precision"] == "int8" and told["reused"] == 1
    told = run.json("profile", *at, "--operator", small, "--quick", "--precision", "float32")
    assert told["conditions"]["precision"] == "float32" and told["reused"] == 1


@pytest.mark.slow
def test_a_run_is_of_one_precision(
    run: Run, at: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads(Path("r/run.json").read_text())["settings"]["precision"] == "int8"
    for command in (("validate", "r"), ("promote", "r", "--data", "nowhere")):
        code, _, err = run(*command, *at, "--precision", "float32")
        assert code == 1 and "r was searched in int8, not in float32" in err
    # What is measured is measured in it.
    (row,) = run.json("validate", "r", *at, "--top", "1")["networks"]
    assert row["measured_ms"] == pytest.approx(truth_ms(row["block_args"], "int8"), rel=0.04)
    monkeypatch.setattr(SimulatedPhone, "precisions", ("float32", "float16"))
    code, _, err = run("validate", "r", *at)
    assert code == 2 and "device sim runs float32, float16, not int8" in err


@pytest.mark.slow
def test_a_search_takes_the_model_of_its_precision(run: Run, at: tuple[str, ...]) -> None:
    settled = {n: options[0] for n, options in SPACE.decisions.items() if len(options) == 1}
    fixed = [w for n, value in settled.items() for w in ("--fix", f"{n}={value}")]
    words = ("--space", "accel-nasbench", *fixed, "--accuracy", "surrogate", "--evaluations", "9")
    told = run.json("search", *at, *words, "--precision", "int8", "--out", "s")
    assert told["precision"] == "int8" and load("s").precision == "int8"
    assert load("s").settings["quantisation"]["growth"] == pytest.approx(0.0388, abs=1e-4)
    assert (
        "in int8 the errors grow by 3.9% ± 2.1%"
        in run("search", *at, *words, "--precision", "int8", "--out", "s")[1]
    )
    code, _, err = run("search", *at, *words, "--quantised", "s", "--out", "x")
    assert code == 2 and "--quantised is of int8, and the search is in float32" in err
    own = ("--precision", "int8", "--quantised", "s")
    code, _, err = run("search", *at, *words, *own, "--out", "x")
    assert code == 1 and "no network of s is quantised" in err
    assert "phonenas promote" in err and " s --quantise int8 --data IMAGES" in err
    # One of before top-1 in int8 was another goes on as it was, and says so.
    whole = undigested(json.loads(Path("r/run.json").read_text()))["settings"]
    assert "quantisation" not in whole  # of a library's call
    code, _, err = run("search", *at, *words, *own[:2], "--out", "r")
    assert "r was begun with float32's top-1, and goes on with it" in err
    promoted(Path("s"), {"a": (0.6, 0.58)})
    other = [w if w != "surrogate" else "zero_cost" for w in words]
    code, _, err = run("search", *at, *other, *own, "--out", "x")
    assert code == 2 and "--quantised corrects a top-1, and zero_cost gives none" in err
    code, _, err = run("search", *at, *words, *own, "--out", "r")
    assert code == 2 and "--quantised corrects top-1 in int8, and r was begun with float32's" in err
    code, _, err = run("search", *at, *words, "--out", "s")
    assert code == 2 and "latency_model was" in err


def promoted(
    folder: Path, top1: Mapping[str, tuple[float, float]], precision: str = "int8"
) -> None:
    """A run's promoted networks, each with its top-1 in float32 and of a file in a precision."""

    def network(name: str, whole: float, small: float) -> PromotedNetwork:
        own = (precision, small, whole, 0.01, 0.9, 1, 4, 100, 8, name)
        q = QuantisedModel("onnx", "network_int8.onnx", *own)
        of = {"id": 0, "candidate": NETWORK, "block_args": NETWORK, "macs": 1, "params": 1}
        ms = {"predicted_ms": 1.0, "low_ms": 0.9, "high_ms": 1.1, "predicted_as_trained": True}
        estimated = {"top1_estimated": 0.5, "estimated_error": 0.01, "top1": whole}
        return PromotedNetwork(**of, **ms, **estimated, quantised=(q,))  # type: ignore[arg-type]

    networks = tuple(network(name, *pair) for name, pair in top1.items())
    Promoted(networks, None, "", "sim", {}, 0, {}).save(folder)


@pytest.mark.slow
def test_what_int8_changed_in_earlier_runs(
    run: Run, at: tuple[str, ...], made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Output()
    promoted(Path("r"), {"a": (0.6, 0.58), "b": (1.0, 0.9)})
    (change,) = measured_changes(out, ["../" + Path.cwd().name + "/r", "r"])
    assert change == pytest.approx((0.6, -0.02, 0.01))
    assert "1 network of r without an error in float32: left out" in capsys.readouterr().err
    promoted(Path("r"), {"b": (1.0, 0.9)})
    with pytest.raises(NotEnoughData, match="no network of r is quantised to int8 that makes"):
        measured_changes(out, ["r"])
    promoted(Path("r"), {"a": (0.6, 0.3)}, "int8-dynamic")
    with pytest.raises(NotEnoughData, match="is quantised to int8 that .* --quantise int8 "):
        change_in_int8(out, ["int8"], ["r"])
    assert change_in_int8(out, ["int8-dynamic"], ["r"]).measured == 1


@pytest.mark.slow
def test_a_stopped_search_over_precisions_goes_on_after_a_fit(
    run: Run, at: tuple[str, ...]
) -> None:
    settled = {n: options[0] for n, options in SPACE.decisions.items() if len(options) == 1}
    fixed = [w for n, value in settled.items() for w in ("--fix", f"{n}={value}")]
    words = ("--space", "accel-nasbench", *fixed, "--accuracy", "surrogate", "--precision", "any")
    run.json("search", *at, *words, "--evaluations", "30", "--out", "s")
    path = Path("s.sim.model.int8.json")
    model = latency_model.load(path)
    replace(model, calibration=model.calibration.scaled(1.2)).save(path)
    code, _, err = run("search", *at, *words, "--evaluations", "60", "--out", "s")
    assert code == 0 and "s goes on with the latency models that it has" in err
    own = load("s/int8").latency_model
    assert own is not None and own.digest == model.digest
    assert Path("s/first30/model.int8.json").exists()
    to = ("--precision", "int8", "--out", "s/model.int8.json")
    code, _, err = run("fit", *at, *to)
    assert code == 1 and "is the latency model of the run in this folder" in err


@pytest.mark.slow
def test_a_search_over_precisions_is_measured_in_each(run: Run, at: tuple[str, ...]) -> None:
    settled = {n: options[0] for n, options in SPACE.decisions.items() if len(options) == 1}
    fixed = [w for n, value in settled.items() for w in ("--fix", f"{n}={value}")]
    words = ("--space", "accel-nasbench", *fixed, "--accuracy", "surrogate", "--evaluations", "60")
    any_ = (*at, *words, "--precision", "any")
    told = run.json("search", *any_, "--out", "s")
    assert told["precision"] == "float32 or int8"
    assert told["runs"] == {p: str(Path("s") / p) for p in ("float32", "int8")}
    shutil.copytree("s", "t")
    page = Path(run.json("report", "t")).read_text(encoding="utf-8")
    for precision in ("float32", "int8"):
        assert page.count(f"<h2>How long a multiply-add takes in {precision}</h2>") == 1
    assert page.count("How long a multiply-add takes") == 2
    int8 = [c for c in told["front"] if c["block_args"].startswith("int8 ")]
    assert int8 and told["references"] == []
    text = run("search", *any_, "--out", "s")[1]
    assert "precision" in text and "phonenas validate s/int8" in text
    code, _, err = run("validate", "s", *at)
    assert code == 1 and "s was searched over float32 or int8" in err
    assert "--precision float32 or int8" in err and err.count("\n") == 1
    (row,) = run.json("validate", "s", *at, "--top", "1", "--precision", "int8")["networks"]
    assert row["measured_ms"] == pytest.approx(truth_ms(row["block_args"], "int8"), rel=0.04)
    assert Path("s/int8/validation.json").exists()
    c = int8[0]
    code, _, err = run("predict", f"s:{c['id']}", *at)
    assert code == 2 and f"s:{c['id']} is in int8" in err and "give --precision int8" in err
    name = err.partition("Name it ")[2].partition(",")[0]
    (row,) = run.json("predict", name, *at, "--precision", "int8")
    assert row["latency_ms"] == pytest.approx(c["latency_ms"])
    code, _, err = run(
        "search", *at, *words, "--precision", "int8", "--quantised", "s", "--out", "x"
    )
    assert code == 1 and "phonenas promote" in err and " s/int8 --quantise int8" in err
    promoted(Path("s/int8"), {"a": (0.6, 0.58)})
    (change,) = measured_changes(Output(quiet=True), ["s", "s/int8"])
    assert change.change == pytest.approx(-0.02)
    shutil.rmtree("s/int8")
    code, _, err = run("validate", "s", *at, "--precision", "int8")
    assert (
        code == 1 and "no network of s in int8 met the constraints. It has some in float32" in err
    )
    for text in ("precision=int8", "precision=float32,int8"):
        for more in ((), ("--precision", "any")):
            code, _, err = run("search", *at, *words, *more, "--fix", text, "--out", "x")
            assert code == 2 and f"{text} is no condition on the space" in err
            assert "give --precision any" in err
    for more, words_ in (
        (("--also", "file_size"), "file_size is of one precision"),
        (("--limit", "latency:x<=3"), "latency:x is of one precision"),
        (("--model", "m.json"), "--model is of one precision"),
        (("--budget", "8h"), "--budget counts trainings, which precisions share"),
    ):
        code, _, err = run("search", *any_, *more, "--out", "x")
        assert code == 2 and words_ in err
    Path("s.sim.model.int8.json").unlink()
    code, _, err = run("search", *any_, "--out", "x")
    assert code == 1 and "sim in two precisions, and there is one in float32 alone" in err
    assert "phonenas profile --device sim --precision int8" in err


@pytest.mark.slow
def test_a_run_of_before_is_of_float32(at: tuple[str, ...]) -> None:
    document = undigested(json.loads(Path("r/run.json").read_text()))
    del document["settings"]["precision"], document["model"]["conditions"]["precision"]
    Path("r/run.json").write_text(json.dumps(document))
    assert load("r").precision == "float32"


@pytest.mark.slow
def test_compare_takes_measurements_of_one_precision(run: Run, at: tuple[str, ...]) -> None:
    for precision in ("float32", "int8"):
        told = run.json("compare", NETWORK, *at, "--precision", precision)
        (timing,) = told["networks"][0]["timings"]
        assert timing["precision"] == precision
        assert timing["measured_ms"] == pytest.approx(truth_ms(NETWORK, precision), rel=0.04)
        assert timing["predicted_ms"] == pytest.approx(truth_ms(NETWORK, precision), rel=0.04)


@pytest.mark.slow
def test_an_earlier_model_of_another_precision_is_found(run: Run, at: tuple[str, ...]) -> None:
    """An earlier phonenas wrote each model under one name, whatever its precision."""
    Path("s.sim.model.int8.json").rename("s.sim.model.json")
    for more in ((), ("--precision", "int8")):
        (row,) = run.json("predict", NETWORK, *at, *more)
        assert row["precision"] == "int8"
    code, _, err = run("fit", *at)
    assert code == 1 and "s.sim.model.json is a model in int8, and is not overwritten" in err
    # Fitted again it has its own file, which is the one that counts.
    assert run.json("fit", *at, "--precision", "int8")["model"] == "s.sim.model.int8.json"
    assert run.json("predict", NETWORK, *at)[0]["precision"] == "int8"


@pytest.mark.slow
def test_a_file_that_cannot_be_read_hides_no_model_of_another_precision(
    run: Run, at: tuple[str, ...]
) -> None:
    """An earlier phonenas wrote the model of int8 under the name of float32, in another form."""
    with data.MeasurementStore("small.db") as store:
        fill(store, sim("int8"), [devices.Subject("operator", o) for o in SPACE.operators()])
    small = ("--db", "small.db", "--device", "sim")
    Path("s.sim.model.int8.json").rename("small.sim.model.int8.json")
    Path("small.sim.model.json").write_text('{"format": "phonenas-latency-model", "version": 1}')
    code, out, err = run("predict", NETWORK, *small, "--json")
    assert code == 0 and json.loads(out)[0]["precision"] == "int8"
    assert "small.sim.model.json cannot be read, and small.sim.model.int8.json is used" in err
    # Where floats are measured, too, the file is theirs, and `fit` writes it again.
    Path("s.sim.model.json").write_text("{}")
    Path("small.sim.model.int8.json").rename("s.sim.model.int8.json")
    code, _, err = run("predict", NETWORK, *at)
    assert code == 1 and "s.sim.model.json is not a latency model" in err and "phonenas fit" in err


def saved(path: str) -> str:
    Path(path).write_bytes(RandomCNN(0, small=True).to_onnx().SerializeToString())
    return path


def test_a_file_is_measured_in_its_own_precision_alone(run: Run) -> None:
    words = ("profile", "--device", "fake", "--quick", "--precision", "int8")
    to = ("--out", "d.onnx")
    code, _, err = run(*words, "--network", saved("float.onnx"))
    assert code == 1 and "computes in float32, and --precision int8 was given" in err
    assert "Leave --precision out" in err and err.count("\n") == 1
    code, _, err = run(*words, "--network", "ssdlite:mnasnet-small")  # detectors have float32 alone
    assert code == 1 and "computes in float32, and --precision int8 was given" in err
    code, _, err = run("export-network", "ssdlite:mnasnet-small", "--precision", "int8", *to)
    assert code == 2 and "precision of a detector: int8 is not possible here; it is float32" in err
    assert err.count("\n") == 1 and not Path("d.onnx").exists()
    code, _, err = run(*words, "--kernels", "20")
    assert code == 2 and "--kernels draws kernels in float32" in err
    code, _, err = run(*words[:-1], "fp8")
    assert code == 2 and "no precision is called 'fp8'" in err


SMALL = "r1_k3_s11_e1_i16_o8 r1_k3_s22_e3_i8_o16 classes4 res32"


def test_a_network_is_written_in_a_precision(run: Run, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3)).astype(np.uint8)
    labels = np.arange(12) % 4
    np.savez("set.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    words = ("export-network", SMALL, "--precision")
    sizes = {}
    for precision in ("float32", "float16", "int8", "int8-dynamic"):
        told = run.json(*words, precision, "--out", f"{precision}.onnx")
        assert OnnxFile.at(Path(f"{precision}.onnx")).precision == told["precision"] == precision
        assert told["calibrated_on"] == 0
        sizes[precision] = told["bytes"]
    assert sizes["float16"] < 0.7 * sizes["float32"]
    told = run.json(*words, "int8", "--calibrate", "set.npz", "--out", "own.onnx")
    assert told["calibrated_on"] == 12
    assert Path("own.onnx").read_bytes() != Path("int8.onnx").read_bytes()
    for more, said in (
        (("int9", "--out", "x.onnx"), "no precision is called 'int9'"),
        (("float16", "--calibrate", "set.npz", "--out", "x.onnx"), "--calibrate is of --precision"),
        (("int8", "--weights", "w.pth", "--out", "x.onnx"), "need images to calibrate on"),
        (("int8", "--calibrate", "none", "--out", "x.onnx"), "none"),
        (("int8", "--out", "x.safetensors"), "int8 is not possible here; it is float32"),
        (("int8-dynamic", "--out", "x.tflite"), "int8-dynamic"),
    ):
        code, _, err = run(*words, *more)
        assert code in (1, 2) and said in err and err.count("\n") == 1, err
    assert not list(Path().glob("x.*"))


def test_operators_and_networks_are_written_and_stored_in_int8(run: Run) -> None:
    key = "conv_k3_s1_8x8x8_8"
    words = ("profile", "--device", "fake", "--quick", "--operator", key)
    told = {p: run.json(*words, "--precision", p) for p in ("float32", "int8")}
    assert {p: t["conditions"]["precision"] for p, t in told.items()} == {
        "float32": "float32",
        "int8": "int8",
    }
    assert all(t["measured"] == 1 and t["reused"] == 0 for t in told.values())
    run.json("export", "m.csv")
    rows = list(csv.DictReader(Path("m.csv").read_text().splitlines()))
    assert {r["precision"]: r["subject"] for r in rows} == dict.fromkeys(("float32", "int8"), key)
