"""Promotion: the best of a run are trained, measured, and the front is told again."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from fakes import FakeDevice, TinySpace, undigested
from patience import PATIENCE_S
from typer.testing import CliRunner

from phonenas import data, devices, search
from phonenas.cli.promote import _text as promote_text
from phonenas.cli.promote import began_words
from phonenas.cli.promote import promote as command
from phonenas.data.images import ImageSet
from phonenas.devices.simulated import SimulatedPhone
from phonenas.latency_model import LatencyModel
from phonenas.report import write_report
from phonenas.report.promoted import promoted_figure
from phonenas.search.accuracy import Surrogate
from phonenas.search.candidate_selection import select_candidates
from phonenas.search.constraints import Target
from phonenas.search.exported_file import FileLatency
from phonenas.search.pareto import Candidate
from phonenas.search.promotion import Promoted, PromotedNetwork, promote, read_promoted
from phonenas.search.promotion.promote import Began, Finished, LatencySource, Training
from phonenas.search.promotion.result import FILE
from phonenas.search.promotion.store import PromotionStore
from phonenas.search.spec import Spec
from phonenas.search.validation.file_latency import file_jobs
from phonenas.search.validation.validate import Validated
from phonenas.space.errors import InvalidArgument, SettingsChanged, StoreError, UnsupportedFormat
from phonenas.space.onnx_file import OnnxFile

pytest.importorskip("torch", reason="torch is an optional extra: phonenas[torch]")
pytest.importorskip("safetensors", reason="safetensors comes with phonenas[torch]")

from phonenas.search.training import trainer
from phonenas.search.training.export.export import ExportSettings, Quantisation
from phonenas.search.training.export.quantised import QuantisedModel
from phonenas.search.training.job import TrainingJob
from phonenas.search.training.recipe import recipe
from phonenas.search.training.resources import Resources
from phonenas.search.training.weights import load_weights

HOW = recipe("small", epochs=1, batch=10)


def coloured(n: int, seed: int) -> ImageSet:
    """Images of four classes by colour; 16 px, to be brought to the network's."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    hue = np.random.default_rng(9).integers(20, 236, (4, 3))
    pixels = hue[labels][:, None, None, :] + rng.normal(0, 20, (n, 16, 16, 3))
    return ImageSet.of(np.clip(pixels, 0, 255).astype(np.uint8), labels, list("abcd"))


IMAGES, TEST = coloured(40, 0), coloured(20, 1)
JOB, CPU = TrainingJob(IMAGES, TEST, HOW), Resources("cpu", threads=1)


@pytest.fixture(scope="module")
def searched(
    fitted: LatencyModel, surrogate: Surrogate, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    tiny = TinySpace(resolution=32)
    target = float(np.median(fitted.on(tiny)(tiny.sample(np.random.default_rng(0), 500))))
    folder = tmp_path_factory.mktemp("searched") / "r"
    search.search(
        tiny,
        latency=fitted,
        accuracy=surrogate,
        strategy=search.get("random", 0),
        spec=Spec(Target(target, f"{target:g}")),
        evaluations=300,
        into=folder,
    )
    return folder


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(searched, tmp_path / "r"))


@pytest.fixture(scope="module")
def promoted_once(
    searched: Path, profiled: Path, fitted: LatencyModel, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Promoted, list[Any]]:
    """A run of which three were promoted and measured, its store, the result, the events."""
    from phonenas.devices.measuring import profiling
    from phonenas.search.validation import validate

    folder = tmp_path_factory.mktemp("promoted")
    run, db = folder / "r", folder / "s.db"
    shutil.copytree(searched, run)
    shutil.copy(profiled, db)
    events: list[Any] = []
    quick = replace(profiling.Protocol(), apart_s=0.0)
    with pytest.MonkeyPatch.context() as patch, data.MeasurementStore(db) as store:
        patch.setattr(validate, "Protocol", lambda **more: replace(quick, **more))
        found = promote(
            run,
            JOB,
            top=3,
            latency=LatencySource(fitted, FakeDevice(), store),
            resources=CPU,
            on_event=events.append,
        )
    return run, db, found, events


def copied(promoted_once: tuple[Path, Path, Promoted, list[Any]], into: Path) -> tuple[Path, Path]:
    run, db = promoted_once[:2]
    shutil.copytree(run, into / "r")
    shutil.copy(db, into / "s.db")
    return into / "r", into / "s.db"


def plain(found: Promoted | None) -> dict[str, Any]:
    """Without what the clock says."""
    assert found is not None
    told = found.to_dict() | {"seconds": 0}
    told["networks"] = [n | {"seconds": 0} for n in told["networks"]]
    return told


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*args: Any, **more: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(trainer, "run_job", refuse)
    return


def test_the_front_is_told_again(promoted_once: tuple[Path, Path, Promoted, list[Any]]) -> None:
    run, db, found, events = promoted_once
    loaded = search.load(run)
    chosen = {c.id: c for c in select_candidates(loaded.front, 3)}
    assert [n.id for n in found.networks] == sorted(chosen) and len(chosen) == 3
    with data.MeasurementStore(db) as store, FakeDevice() as phone:
        stored = {m.subject: m for m in store.measurements(phone.conditions)}
    for n in found.networks:
        c = chosen[n.id]
        assert (n.candidate, n.top1_estimated) == (c.block_args, c.top1)
        assert n.architecture == replace(c.architecture, classes=4) and n.params < c.params
        # A head for four classes is beyond what the model saw: the run's promise stands.
        assert (n.predicted_ms, n.low_ms, n.high_ms) == (c.latency_ms, c.low_ms, c.high_ms)
        assert not n.predicted_as_trained
        assert n.top1 is not None and n.top1_error is not None and 0 <= n.top1 <= 1
        assert n.top1 * 20 == round(n.top1 * 20) and n.images == 20 and n.epochs == 1
        assert n.top1_error == pytest.approx((n.top1 * (1 - n.top1) / 20) ** 0.5)
        # The file that ships is the file that is measured, beside its architecture.
        shipped = hashlib.sha256((run / n.files["onnx"]).read_bytes()).hexdigest()
        file, whole = n.file, stored[f"network.onnx#{shipped[:12]}"]
        assert file is not None and file.sha256 == n.sha256["onnx"] == shipped
        assert n.measured_ms == file.measured_ms == whole.latency_ms
        assert n.spread == file.spread == whole.spread
        assert file.random_ms == stored[n.block_args].latency_ms
        assert (file.changed, file.differs, file.reason, str(file)) == (False, False, "", "")
        assert len(whole.rounds) >= 12 <= len(stored[n.block_args].rounds)
        assert n.meets_target == (n.measured_ms <= found.target_ms)
        network, _ = load_weights(run / n.files["weights"])
        assert network == n.architecture
        assert n.export_difference is not None and n.export_difference <= 1e-4
        assert all((run / file).exists() for file in n.files.values()) and not n.failed
    assert found.origin == "measured" and found.verdict is not None and found.score is not None
    assert found.score.n == 3 and found.conditions is not None
    inside = [n for n in found.trained if n.meets_target] or list(found.trained)
    for n in inside:
        beaten = any(
            m.latency_ms <= n.latency_ms
            and m.top1 >= n.top1
            and (m.latency_ms, m.top1) != (n.latency_ms, n.top1)
            for m in inside
        )
        assert n.on_front != beaten
    front = found.front
    assert len(front) == sum(n.on_front for n in found.networks) >= 1
    assert [c.latency_ms for c in front] == sorted(c.latency_ms for c in front)
    assert all(c.measured_ms == c.latency_ms and c.reward is not None for c in front)
    assert {r["top1_origin"] for r in found.rows()} == {"trained"}
    assert {r["latency_origin"] for r in found.rows()} == {"measured"}
    assert read_promoted(run) == found
    began = next(e for e in events if isinstance(e, Began))
    assert (began.networks, began.done) == (3, 0) and began.seconds is not None
    assert 0 < began.seconds < 3600
    ended = [e for e in events if isinstance(e, Finished)]
    assert [e.done for e in ended] == [1, 2, 3] and not any(e.failed for e in ended)
    assert {e.id for e in events if isinstance(e, Training)} == set(chosen)


@pytest.mark.usefixtures("fast", "no_training")
def test_what_is_done_is_not_done_again(
    promoted_once: tuple[Path, Path, Promoted, list[Any]], tmp_path: Path, fitted: LatencyModel
) -> None:
    run, db = copied(promoted_once, tmp_path)
    before = read_promoted(run)
    device = FakeDevice()
    with data.MeasurementStore(db) as store:
        found = promote(run, JOB, top=3, latency=LatencySource(fitted, device, store))
    # Nothing but the sentinel ran, to tell the speed of the device.
    assert device.readings == 12 and plain(found) == plain(before)
    # Without a device what was measured stays.
    unmeasured = LatencySource(fitted)
    assert plain(promote(run, JOB, top=3, latency=unmeasured)) == plain(before)
    # Fewer are asked for: what is trained stays among them.
    assert len(promote(run, JOB, top=1, latency=unmeasured).networks) == 3
    with pytest.raises(SettingsChanged, match=r"recipe epochs was 1 and is now 2.* or move"):
        promote(run, replace(JOB, recipe=HOW.changed(epochs=2)), top=3)
    with pytest.raises(SettingsChanged, match="test images was"):
        promote(run, replace(JOB, test=coloured(20, 2)), top=3)
    assert plain(read_promoted(run)) == plain(before)


class Denormals(FakeDevice):
    """A processor that takes ten times as long for a denormal weight."""

    @staticmethod
    def true_ms(model: Path) -> float:
        numbers = [
            onnx.numpy_helper.to_array(t).ravel()
            for t in onnx.load(model).graph.initializer
            if t.data_type == onnx.TensorProto.FLOAT
        ]
        weights = np.abs(np.concatenate(numbers))
        slow = np.count_nonzero((weights > 0) & (weights < 1.17e-38))
        return float((weights.size + 9 * slow) * 1e-5)


def with_denormals(path: Path) -> int:
    """Make weights of a file denormal, as decay without end does; how many."""
    model = onnx.load(path)
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    tensor.raw_data = np.full(len(tensor.raw_data) // 4, 1e-40, np.float32).tobytes()
    onnx.save(model, path)
    return len(tensor.raw_data) // 4


@pytest.mark.usefixtures("fast", "no_training")
def test_a_file_that_takes_another_time_than_its_architecture_is_told(
    promoted_once: tuple[Path, Path, Promoted, list[Any]],
    tmp_path: Path,
    fitted: LatencyModel,
    profiled: Path,
) -> None:
    run, db = copied(promoted_once, tmp_path)[0], tmp_path / "new.db"
    shutil.copy(profiled, db)
    before = read_promoted(run)
    assert before is not None
    first, *others = before.trained
    assert first.file is not None
    count = with_denormals(run / first.files["onnx"])
    with data.MeasurementStore(db) as store:
        found = promote(run, JOB, top=3, latency=LatencySource(fitted, Denormals(), store))
    n, *rest = found.trained
    assert n.file is not None and n.file.random_ms is not None and n.measured_ms is not None
    assert n.file.changed and n.file.differs
    assert n.file.sha256 == hashlib.sha256((run / n.files["onnx"]).read_bytes()).hexdigest()
    assert n.file.sha256 != first.file.sha256 == n.sha256["onnx"]
    assert n.measured_ms == n.file.measured_ms > 1.5 * n.file.random_ms
    assert f"{count:,} of its" in n.file.reason and "denormal" in n.file.reason
    assert "nodes" not in n.file.reason and "are 0" not in n.file.reason
    told = str(n.file)
    assert "network.onnx was changed after it was exported; network.onnx takes" in told
    assert [m.file and (m.file.changed, m.file.differs) for m in rest] == [(False, False)] * len(
        others
    )
    # What ships decides on the target and on the front.
    assert found.target_ms is not None and n.meets_target == (n.measured_ms <= found.target_ms)
    assert found.score is not None
    assert found.score.bias == pytest.approx(
        float(np.mean([m.predicted_ms / (m.measured_ms or 0) - 1 for m in found.trained]))
    )
    page = write_report(run).read_text(encoding="utf-8")
    assert f"Network {n.id}: network.onnx was changed after it was exported" in page
    assert n.file.sha256[:12] in page


@pytest.mark.usefixtures("no_training")
def test_a_device_that_takes_no_file_measures_the_architecture(
    promoted_once: tuple[Path, Path, Promoted, list[Any]], tmp_path: Path
) -> None:
    """A simulated phone computes times by a network's name."""
    run, _ = copied(promoted_once, tmp_path)
    promoted = read_promoted(run)
    assert promoted is not None
    files = [file for n in promoted.trained if (file := n.exported(run))]
    job = file_jobs(files, SimulatedPhone())[0]
    assert job.file is None and job.path is None
    assert "simulated cannot be given network.onnx#" in job.unmeasured


@pytest.mark.usefixtures("no_training")
def test_a_network_with_other_classes_is_predicted_anew_where_that_can_be(
    promoted_once: tuple[Path, Path, Promoted, list[Any]], tmp_path: Path
) -> None:
    run, _ = copied(promoted_once, tmp_path)

    class Model:
        """Tells times by parameters."""

        def predict(self, networks: list[Any]) -> SimpleNamespace:
            ms = np.array([a.params / 1e6 for a in networks])
            return SimpleNamespace(ms=ms, low_ms=0.9 * ms, high_ms=1.1 * ms)

    model: Any = Model()
    found = promote(run, JOB, top=3, latency=LatencySource(model))
    for n in found.networks:
        assert n.predicted_as_trained and n.predicted_ms == n.params / 1e6 == n.high_ms / 1.1
        assert n.measured_ms is not None and n.meets_target == (n.measured_ms <= found.target_ms)


def test_without_a_device_latencies_stay_predicted(run: Path) -> None:
    found = promote(run, JOB, top=1, resources=CPU)
    (n,) = found.networks
    c = search.load(run).front.candidates[n.id]
    # Without a model it is the run's own promise, which was for other classes.
    assert (n.predicted_ms, n.low_ms, n.high_ms) == (c.latency_ms, c.low_ms, c.high_ms)
    assert not n.predicted_as_trained and n.measured_ms is None and n.on_front
    assert n.meets_target is True
    assert found.origin == "" and found.score is None and found.kendall_tau is None
    (row,) = found.rows()
    assert row["latency_origin"] == "predicted" and row["latency_ms"] == c.latency_ms
    assert read_promoted(run) == found


def test_one_that_diverges_or_fails_does_not_stop_the_others(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, asked = trainer.run_job, []

    def train(network: Any, job: TrainingJob, **more: Any) -> Any:
        asked.append(str(network))
        if len(asked) == 1:
            wild = HOW.changed(learning_rate=90.0, epochs=2)
            return honest(network, replace(job, recipe=wild), **more)
        if len(asked) == 2:
            raise RuntimeError("not enough memory: you tried to allocate")
        return honest(network, job, **more)

    monkeypatch.setattr(trainer, "run_job", train)
    how: dict[str, Any] = {"top": 3, "resources": CPU}
    found = promote(run, JOB, **how)
    first, second, third = found.networks
    assert first.top1 is None and first.failed and not first.on_front and first.files == {}
    assert second.failed == "RuntimeError: not enough memory: you tried to allocate"
    assert third.top1 is not None and third.on_front and found.trained == (third,)
    assert read_promoted(run) == found
    monkeypatch.setattr(trainer, "run_job", honest)
    events: list[Any] = []
    again = promote(run, JOB, **how, on_event=events.append)
    # What diverged would diverge again; what the computer could not do is tried again.
    assert [e.id for e in events if isinstance(e, Finished)] == [second.id]
    assert again.networks[0] == first and again.networks[1].top1 is not None
    # What hits all alike stops.
    shutil.rmtree(run / "promoted")

    def full(*args: Any, **more: Any) -> None:
        raise StoreError("no space left")

    monkeypatch.setattr(trainer, "run_job", full)
    with pytest.raises(StoreError, match="no space left"):
        promote(run, JOB, **how)


def test_a_form_that_differs_is_told_and_stops_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys.modules["phonenas.search.training.export.export"],  # its function bears the room's name
        "mismatch_reason",
        lambda model, *more: "onnx differs" if model.name == "onnx" else "",
    )
    (n,) = promote(run, JOB, top=1, resources=CPU).networks
    assert n.top1 is not None and n.export_failed.startswith("onnx differs")
    assert "weights" in n.files and "onnx" not in n.files


@pytest.mark.usefixtures("no_training")
def test_invalid_arguments_are_refused_before_anything_is_trained(
    run: Path, profiled: Path
) -> None:
    class Other(FakeDevice):
        name = "other"

    class Updated(FakeDevice):
        @property
        def conditions(self) -> data.Conditions:
            return replace(super().conditions, runtime_version="2")

    def on(device: FakeDevice) -> None:
        with data.MeasurementStore(profiled) as store:
            promote(run, JOB, latency=LatencySource(device=device, store=store))

    with pytest.raises(InvalidArgument, match="top: 1 or more"):
        promote(run, JOB, top=0)
    with pytest.raises(InvalidArgument, match="tested on images; none were given"):
        promote(run, replace(JOB, test=None))
    with pytest.raises(InvalidArgument, match="none was given"):
        LatencySource(device=FakeDevice())
    with pytest.raises(InvalidArgument, match="searched for fake, not for other"):
        on(Other())
    with pytest.raises(SettingsChanged, match="runtime_version: 1 / 2"):
        on(Updated())
    assert not (run / "promoted").exists() and not (run / FILE).exists()


def network(id_: int, estimated: float, top1: float | None) -> PromotedNetwork:
    return PromotedNetwork(
        id=id_,
        candidate="c",
        block_args="b",
        top1_estimated=estimated,
        estimated_error=0.01,
        top1=top1,
        top1_error=0.0,
        top5=None,
        images=1,
        epochs=1,
        predicted_ms=1.0,
        low_ms=0.9,
        high_ms=1.1,
        predicted_as_trained=True,
        macs=1,
        params=1,
    )


def test_the_time_of_a_file_in_another_precision_is_not_the_networks() -> None:
    c = Candidate(3, "b", 0.7, 0.01, False, 5.0, 4.5, 5.5, True, 1, 1)
    own = Validated(c, 5.0, 4.5, 5.5, 4.0, 0.01, 0.25, True, True, 12)
    file = FileLatency(file="network.onnx", measured_ms=13.0, spread=0.02)
    measured = network(3, 0.7, 0.6).measured(replace(own, file=file), 5.0)
    assert (measured.measured_ms, measured.meets_target) == (13.0, False)
    other = replace(own, file=replace(file, precision="float32"))
    measured = network(3, 0.7, 0.6).measured(other, 5.0)
    assert (measured.measured_ms, measured.meets_target) == (4.0, True)


@pytest.mark.slow
@pytest.mark.usefixtures("fast")
def test_what_was_trained_is_written_and_measured_in_int8_too(
    promoted_once: tuple[Path, Path, Promoted, list[Any]], tmp_path: Path, fitted: LatencyModel
) -> None:
    run, db = copied(promoted_once, tmp_path)
    before = {n.id: n for n in promoted_once[2].networks}
    exports = ExportSettings(("onnx",), Quantisation(IMAGES, most_images=8))
    phone = FakeDevice()
    with data.MeasurementStore(db) as store:
        latency = LatencySource(fitted, phone, store)
        found = promote(run, JOB, top=3, latency=latency, resources=CPU, exports=exports)
        small = replace(phone.conditions, precision="int8")
        stored = {m.subject: m.latency_ms for m in store.measurements(small, "onnx")}
        readings = phone.readings
        again = promote(run, JOB, top=3, latency=latency, resources=CPU, exports=exports)
    assert plain(again) == plain(found) == plain(read_promoted(run))
    assert phone.readings == readings + 2 * 12  # the sentinel alone, in each precision
    for n in found.trained:
        # It was trained before.
        assert (n.top1, n.epochs) == (before[n.id].top1, 1)
        assert n.files["onnx int8"] == f"promoted/{n.id}/network_int8.onnx"
        whole, path = run / n.files["onnx"], run / n.files["onnx int8"]
        assert OnnxFile.at(path).precision == "int8" and OnnxFile.at(whole).precision == "float32"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        (q,) = n.quantised
        assert n.sha256["onnx int8"] == q.sha256 == digest
        assert (q.images, q.calibrated_on, q.float_top1) == (20, 8, n.top1)
        assert q.size == path.stat().st_size < q.float_size == whole.stat().st_size
        # What was searched is float32: that file ships, and the other is beside it.
        assert n.file is not None and n.shipped == (n.top1, n.top1_error)
        assert (n.file.file, n.measured_ms) == ("network.onnx", n.file.measured_ms)
        (other,) = n.file.also
        assert (other.file, other.precision) == ("network_int8.onnx", "int8")
        assert other.measured_ms == stored[f"network_int8.onnx#{digest[:12]}"]
        assert f"network_int8.onnx takes {other.measured_ms:.2f} ms" in str(n.file)
        assert " times network.onnx" in str(n.file) and n.file.as_expected
    page = write_report(run).read_text(encoding="utf-8")
    assert "top-1 in int8" in page and "network_int8.onnx" in page


@pytest.mark.slow
def test_networks_are_fine_tuned_for_int8(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The better file ships; what is asked otherwise is done again, and nothing else."""
    from phonenas.search.training.finetuning import finetune
    from phonenas.search.training.finetuning.settings import FineTuning

    held = coloured(24, 2)

    def exports(**how: Any) -> ExportSettings:
        tuning = FineTuning(held, **{"epochs": 1, "when": "always", **how})
        return ExportSettings(("onnx",), Quantisation(IMAGES, most_images=8, finetune=tuning))

    answers = [0.5, 0.4, 0.45]
    asked: list[int] = []

    def counted(*args: Any) -> Any:
        asked.append(0)
        return np.arange(100) < round(100 * answers[len(asked) % 3 - 1])

    monkeypatch.setattr(finetune, "_right", counted)
    found = promote(run, JOB, top=1, resources=CPU, exports=exports())
    (n,) = found.networks
    assert n.finetuned is not None and n.finetuned.kept and len(asked) == 3
    (q,), (other,) = n.quantised, n.finetuned.not_kept
    path = run / n.files["onnx int8"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == q.sha256 != other.sha256
    assert (run / n.files["weights int8"]).exists()
    assert plain(read_promoted(run)) == plain(found)
    promote(run, JOB, top=1, resources=CPU, exports=exports())
    assert len(asked) == 3
    page = write_report(run).read_text(encoding="utf-8")
    assert "fine-tuned for 1 epoch: on 24 held-out images" in page
    text = promote_text(found, run, "test", "phonenas.db")
    assert f"network {n.id}: onnx on 20 images: float32 " in text
    again = promote(run, JOB, top=1, resources=CPU, exports=exports(when="auto"))
    assert len(asked) == 6 and again.networks[0].finetuned.kept
    without = promote(
        run, JOB, top=1, resources=CPU, exports=ExportSettings(("onnx",), Quantisation(IMAGES))
    )
    assert without.networks[0].finetuned is None and len(asked) == 6
    assert without.networks[0].quantised[0].top1 == other.top1


@pytest.mark.slow
@pytest.mark.usefixtures("fast")
def test_of_a_run_in_int8_the_int8_file_ships(run: Path, profiled: Path) -> None:
    document = undigested(json.loads((run / "run.json").read_text()))
    document["settings"]["precision"] = document["model"]["conditions"]["precision"] = "int8"
    (run / "run.json").write_text(json.dumps(document))
    phone = FakeDevice()
    phone.precision = "int8"
    exports = ExportSettings(("onnx",))
    with data.MeasurementStore(profiled) as store:
        latency = LatencySource(None, phone, store)
        found = promote(run, JOB, top=1, latency=latency, resources=CPU, exports=exports)
    (n,) = found.networks
    (q,) = n.quantised
    assert found.precision == n.precision == "int8" and n.file is not None
    assert q.calibrated_on == 40  # the training images
    assert (n.file.file, n.file.precision) == ("network_int8.onnx", "")
    assert n.measured_ms == n.file.measured_ms and n.file.differs is not None
    assert [(f.file, f.precision) for f in n.file.also] == [("network.onnx", "float32")]
    # The export has all the test images here, so that this is the file's own top-1.
    assert n.shipped == pytest.approx((q.top1, np.hypot(n.top1_error or 0, q.change_error)))
    (row,) = found.rows()
    assert (row["top1"], row["latency_ms"]) == (pytest.approx(q.top1), n.measured_ms)
    assert "● in int8" in write_report(run).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("fast")
def test_of_a_run_in_float16_the_float16_file_ships(run: Path, profiled: Path) -> None:
    document = undigested(json.loads((run / "run.json").read_text()))
    document["settings"]["precision"] = document["model"]["conditions"]["precision"] = "float16"
    (run / "run.json").write_text(json.dumps(document))
    phone = FakeDevice()
    phone.precision = "float16"
    with data.MeasurementStore(profiled) as store:
        latency = LatencySource(None, phone, store)
        exports = ExportSettings(("onnx",))
        found = promote(run, JOB, top=1, latency=latency, resources=CPU, exports=exports)
    (n,) = found.networks
    (q,) = n.quantised
    file = OnnxFile.at(run / n.files["onnx float16"])
    assert n.precision == file.precision == "float16" and n.file is not None
    assert (n.file.file, n.file.precision) == ("network_float16.onnx", "")
    assert n.measured_ms == n.file.measured_ms and (q.images, q.calibrated_on) == (20, 0)
    assert n.shipped[0] == pytest.approx(q.top1)
    page = write_report(run).read_text(encoding="utf-8")
    assert "● in float16" in page and "Quantised after training; each file" in page
    other = ExportSettings(("onnx",), Quantisation(IMAGES))
    with pytest.raises(InvalidArgument, match="in float16, and its files are written in that, not"):
        promote(run, JOB, top=1, resources=CPU, exports=other)


def in_int8(form: str, top1: float, images: int = 100, error: float = 0.01) -> QuantisedModel:
    file = f"network_int8.{form}"
    return QuantisedModel(form, file, "int8", top1, 0.6, error, 0.9, 1, 4, images, 8, "")


def test_what_ships_has_the_trained_top1_and_the_change_of_the_form_that_ran() -> None:
    """0.7 on all images; in ONNX 0.1, in TFLite 0.05 less on the 100 of the export."""
    files = (in_int8("onnx", 0.5), in_int8("tflite", 0.55))
    n = replace(network(0, 0.7, 0.7), top1_error=0.02, precision="int8", quantised=files)
    assert n.shipped == pytest.approx((0.6, (0.02**2 + 0.01**2) ** 0.5))
    ran = replace(n, file=FileLatency(file="network_int8.tflite"))
    assert ran.shipped[0] == pytest.approx(0.65) and ran.quantised_file == files[1]
    whole = replace(ran, precision="float32", file=FileLatency(file="network.tflite"))
    assert whole.shipped == (0.7, 0.02) and whole.quantised_file == files[1]
    # Of a file that no runtime here runs it is that of the training.
    not_run = replace(ran, quantised=(replace(files[1], not_run="no kernel"),))
    assert not_run.shipped == (0.7, 0.02) and not_run.in_precision
    assert replace(n, top1=None).shipped == (0.0, 0.0)


def test_no_float32_top1_is_on_the_front_of_a_run_in_int8() -> None:
    files = (in_int8("onnx", 0.5),)
    rows = [replace(network(i, 0.5 + i / 10, 0.7), precision="int8") for i in range(3)]
    mixed = [replace(rows[0], quantised=files), rows[1], replace(rows[2], quantised=files)]
    empty = Promoted((), None, "", "fake", {}, 0, {"test": {}}, precision="int8")
    found = empty.with_front(mixed)
    assert [n.id for n in found.shipping] == [0, 2]
    assert [n.on_front for n in found.networks] == [True, False, False]  # two are equal
    assert found.front.candidates[0].top1 == pytest.approx(0.6)
    text = promote_text(found, Path("r"), "test", "s.db")
    assert "on 100 test images" in text and "without a file in int8, and not on it: 1" in text
    assert "● 60.0% ±1.0%" in text and "not evaluated" not in text
    # On another computer one file was not run: its top-1 is that of float32.
    lacking = replace(rows[1], quantised=(replace(files[0], not_run="no kernel", images=0),))
    text = promote_text(empty.with_front([mixed[0], lacking]), Path("r"), "test", "s.db")
    assert "with its change in int8 on 100 test images (of float32, since not evaluated in " in text
    assert "not evaluated in int8: 1)" in text
    text = promote_text(empty.with_front([lacking]), Path("r"), "test", "s.db")
    assert "top-1 of float32, since no runtime of this computer runs int8" in text
    bare = empty.with_front(rows)
    assert bare.shipping == bare.trained == bare.networks and len(bare.front) == 1
    assert "no file is in int8: the front has the top-1 of float32" in promote_text(
        bare, Path("r"), "test", "s.db"
    )


def test_what_is_exported_again_is_not_announced_as_training() -> None:
    text = began_words(Began(5, 2, 3, 100, 7, None), 1)
    assert text == "5 networks, 5 trained already, 3 of them to export again"
    text = began_words(Began(5, 1, 1, 100, 7, 60.0), 1)
    assert "2 trained already, 1 of them to export again; 3 to train for 7 epochs" in text


@pytest.mark.usefixtures("no_training")
def test_in_int8_each_promoted_network_is_quantised_and_a_failed_one_again(
    promoted_once: tuple[Path, Path, Promoted, list[Any]], tmp_path: Path
) -> None:
    run, _ = copied(promoted_once, tmp_path)
    store = PromotionStore(run, JOB, Quantisation(IMAGES, most_images=8))
    n = promoted_once[2].networks[0]
    small = replace(n, precision="int8", quantised=())
    assert store.result(n, must_agree=False) is not None
    assert not store.again
    assert store.result(small, must_agree=False) is None and store.again == {n.id}
    # As after an export that differs: it has the weights alone.
    weights = {"weights": n.files["weights"]}
    failed = replace(small, export_failed="differs", files=weights)
    store.keep(failed)
    assert store.result(small, must_agree=True) is None
    store.keep(replace(small, quantised=(in_int8("onnx", 0.5),)))
    assert store.result(small, must_agree=True) is not None


def test_a_format_without_the_precision_is_exported_once(
    promoted_once: tuple[Path, Path, Promoted, list[Any]], tmp_path: Path
) -> None:
    run, _ = copied(promoted_once, tmp_path)
    # Of ONNX there is no such file.
    how = ExportSettings(("onnx",), Quantisation(IMAGES, "float16-weights"))
    told: list[Any] = []
    for again in (3, 0):
        told.clear()
        found = promote(run, JOB, top=3, resources=CPU, exports=how, on_event=told.append)
        assert told[0].again == again
        assert {n.export_failed for n in found.networks} == {
            "onnx float16-weights: onnx has no form in float16-weights"
        }


@pytest.mark.usefixtures("no_training")
def test_what_is_quantised_again_is_told_why(
    promoted_once: tuple[Path, Path, Promoted, list[Any]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run, _ = copied(promoted_once, tmp_path)
    n = promoted_once[2].networks[0]
    file = in_int8("onnx", 0.5)
    none = replace(file, not_run="no kernel", images=0)
    in_8, in_16 = Quantisation(IMAGES, most_images=8), Quantisation(IMAGES, "float16")
    others = Quantisation(IMAGES.subset(np.arange(4)))
    whole = replace(n, quantised=(file,))
    for kept, by, now, why in (
        (n, None, in_16, "in float16, too"),
        (whole, in_8, in_16, "in float16 instead of int8"),
        (whole, in_8, others, "in int8, calibrated on other images"),
        (whole, in_8, in_8, ""),
        (replace(n, quantised=(none,)), in_8, in_8, "network_int8.onnx was not evaluated: no ke"),
        (replace(n, quantised=(none,)), in_8, None, ""),
    ):
        caplog.clear()
        PromotionStore(run, JOB, by).keep(kept)
        store = PromotionStore(run, JOB, now)
        assert (store.result(n, must_agree=True) is None) == bool(why)
        assert f"exported again: {why}" in caplog.text if why else not caplog.text


def test_rank_correlation_is_kendalls() -> None:
    rows = [
        network(i, e, t)
        for i, (e, t) in enumerate([(0.1, 0.2), (0.2, 0.5), (0.3, 0.4), (0.9, None)])
    ]

    def tau(networks: list[PromotedNetwork]) -> float | None:
        return Promoted(tuple(networks), None, "", "fake", {}, 0, {}).kendall_tau

    assert tau(rows) == pytest.approx(1 / 3)
    assert tau(rows[:1]) is None and tau(rows[3:]) is None
    assert tau([network(0, 0.1, 0.5), network(1, 0.2, 0.5)]) is None


@pytest.mark.fault(
    "A run's promoted.json is damaged, newer, or another file.",
    "`is damaged`; `has version 3; this phonenas reads versions 1 to 2`; `no training and no "
    "measurement is lost`",
    "Move it away, and promote again.",
)
def test_damaged_and_foreign_files_are_refused(
    promoted_once: tuple[Path, Path, Promoted, list[Any]], tmp_path: Path
) -> None:
    run, _ = copied(promoted_once, tmp_path)
    whole = json.loads((run / FILE).read_text())
    old = undigested(whole)
    assert read_promoted(tmp_path) is None
    damages: list[tuple[Any, str]] = [
        ("{", "damaged"),
        ([], "not a file of promoted"),
        ({**whole, "format": "phonenas-run"}, "not a file of promoted"),
        ({**whole, "version": 3}, "version 3; this phonenas reads versions 1 to 2"),
        ({**whole, "seed": 99}, "its digest is another"),
        ({k: v for k, v in old.items() if k != "recipe"}, "missing required field recipe"),
        ({**old, "networks": [{"id": 1}]}, "damaged"),
        ({**old, "networks": [whole["networks"][0] | {"top1": "high"}]}, "top1: expected number"),
        ({**old, "networks": [whole["networks"][0] | {"on_front": 1}]}, "damaged"),
    ]
    for damage, words in damages:
        text = damage if isinstance(damage, str) else json.dumps(damage)
        (run / FILE).write_text(text)
        with pytest.raises(UnsupportedFormat, match=words):
            read_promoted(run)
        # It is never overwritten: what was measured may be in it alone.
        with pytest.raises(UnsupportedFormat, match=words) as refused:
            promote(run, JOB, top=3, resources=CPU)
        assert (run / FILE).read_text() == text
    # The command that the message names makes way for a new one.
    move = str(refused.value).rpartition(":  ")[2]
    subprocess.run(shlex.split(move), check=True)
    found = promote(run, JOB, top=3, resources=CPU)
    assert read_promoted(run) == found and len(found.trained) == 3
    assert (run / f"{FILE}.damaged").read_text() == text
    (run / FILE).unlink()
    first = next((run / "promoted").glob("*/promoted.json"))
    kept = first.read_text()
    for text in (
        "{",
        "[]",
        kept.replace('"version": 2', '"version": 3'),
        kept.replace('"top1": ', '"top1": "x'),
    ):
        first.write_text(text)
        with pytest.raises(UnsupportedFormat, match="Remove it"):
            promote(run, JOB, top=3)


def test_an_earlier_result_with_other_settings_is_left_out_with_a_warning(
    promoted_once: tuple[Path, Path, Promoted, list[Any]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run, _ = copied(promoted_once, tmp_path)
    best = select_candidates(search.load(run).front, 1)[0].id
    other = next(n.id for n in promoted_once[2].networks if n.id != best)
    kept = run / "promoted" / str(other) / "promoted.json"
    document = json.loads(kept.read_text())
    document["settings"]["recipe epochs"] = 7
    kept.write_text(json.dumps(undigested(document)))
    with caplog.at_level("WARNING", logger="phonenas"):
        found = promote(run, JOB, top=1, resources=CPU)
    assert other not in {n.id for n in found.networks} and len(found.networks) == 2
    assert f"network {other} of {run} is left out" in caplog.text
    assert "recipe epochs was 7 and is now 1" in caplog.text


def test_files_that_were_removed_are_exported_again(
    promoted_once: tuple[Path, Path, Promoted, list[Any]],
    tmp_path: Path,
    fitted: LatencyModel,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run, _ = copied(promoted_once, tmp_path)
    before = read_promoted(run)
    assert before is not None
    file = run / before.networks[1].files["onnx"]
    held = file.read_bytes()
    file.unlink()
    with caplog.at_level("WARNING", logger="phonenas"):
        found = promote(run, JOB, top=3, latency=LatencySource(fitted), resources=CPU)
    assert plain(found) == plain(before) and file.read_bytes() == held
    assert f"network {before.networks[1].id} is exported again: " in caplog.text


def test_the_report_shows_them(
    promoted_once: tuple[Path, Path, Promoted, list[Any]], tmp_path: Path
) -> None:
    run, _ = copied(promoted_once, tmp_path)
    found = promoted_once[2]
    bare = tmp_path / "bare.html"
    page = write_report(run).read_text(encoding="utf-8")
    assert (
        "3 of 3 networks were trained for 1 epoch (small) on 40 images and evaluated on 20" in page
    )
    for n in found.networks:
        assert n.top1 is not None and n.block_args in page
        assert f"{n.top1:.1%} ± {n.top1_error:.1%}" in page and f"● {n.measured_ms:.2f}" in page
    *traces, _ = promoted_figure(found).data
    assert {t.name for t in traces} <= {"front, measured latency", "beaten, measured latency"}
    drawn = sorted(x for t in traces for x in t.x)
    assert drawn == sorted(n.measured_ms or 0 for n in found.networks)
    front = [row[0] for t in traces if t.name.startswith("front") for row in t.customdata]
    assert set(front) == {c.id for c in found.front}
    assert all(x >= 0 for t in traces for x in (*t.error_x.array, *t.error_x.arrayminus))
    # Each precision has its table: one network was quantised by an earlier call.
    half = replace(in_int8("onnx", 0.5), file="network_float16.onnx", precision="float16")
    kinds = (replace(half, not_run="no kernel", images=0, calibrated_on=0), in_int8("onnx", 0.5))
    mixed = [replace(n, quantised=(q,)) for n, q in zip(found.networks, kinds, strict=False)]
    replace(found, networks=(*mixed, *found.networks[2:])).save(run)
    page = write_report(run).read_text(encoding="utf-8")
    of_16, of_8 = (t for t in page.split("<table")[1:] if "decisions equal" in t)
    assert "network_float16.onnx" in of_16 and "top-1 in float16" in of_16
    assert "top-1 in int8" not in of_16 and "Quantised after training.</p>" in of_16
    assert (
        "network_int8.onnx" in of_8 and "top-1 in int8" in of_8 and "top-1 in float16" not in of_8
    )
    assert "calibrated on 8 images; each file run by its runtime on 100 test images." in of_8
    rows = [replace(n, failed="<b>it</b> diverged") for n in found.networks]
    replace(found, networks=tuple(rows)).save(run)
    assert "&lt;b&gt;it&lt;/b&gt; diverged" in write_report(run).read_text(encoding="utf-8")
    (run / FILE).unlink()
    write_report(run, bare)
    assert "Trained in full" not in bare.read_text(encoding="utf-8")


@pytest.mark.usefixtures("fast")
def test_the_command_tells_it_in_words_and_as_json(
    searched: Path,
    profiled: Path,
    fitted: LatencyModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(searched, tmp_path / "r")
    shutil.copy(profiled, tmp_path / "s.db")
    fitted.save(tmp_path / "s.fake.model.json")
    np.savez(
        tmp_path / "d.npz",
        x_train=IMAGES.array(),
        y_train=IMAGES.labels,
        x_test=TEST.array(),
        y_test=TEST.labels,
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "connect", lambda name, **settings: FakeDevice())
    app = typer.Typer()
    app.command()(command)
    words = [
        "r",
        "--data",
        "d.npz",
        "--top",
        "2",
        "--recipe",
        "small",
        "--epochs",
        "1",
        "--batch",
        "10",
        "--threads",
        "1",
        "--torch-device",
        "cpu",
        "--db",
        "s.db",
    ]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.output
    assert (
        "2 networks, 0 trained already; 2 to train for 1 epoch on 40 images: about" in first.stderr
    )
    assert "no latency was measured" in first.stdout and "--device fake --db s.db" in first.stdout
    second = CliRunner().invoke(app, [*words, "--device", "fake"])
    assert second.exit_code == 0, second.output
    assert "2 networks, 2 trained already\n" in second.stderr
    found = read_promoted("r")
    assert found is not None
    for n in found.networks:
        line = next(x for x in second.stdout.splitlines() if x.split()[0] == str(n.id))
        assert f"○ {n.top1_estimated:.1%}" in line and f"● {n.top1:.1%} ±{n.top1_error:.1%}" in line
        assert f"○ {n.predicted_ms:.2f} ms" in line and f"● {n.measured_ms:.2f} ms" in line
        assert line.endswith("front") == n.on_front
    assert "one standard error of top-1 on 20 test images" in second.stdout
    assert ("; Kendall τ" in second.stdout) == (found.kendall_tau is not None)  # none of ties
    assert "verdict: " in second.stdout and "(n = 2)" in second.stdout
    third = CliRunner().invoke(app, [*words, "--device", "fake", "--json", "--quiet"])
    told = json.loads(third.stdout)
    assert set(told) >= {"networks", "front", "score", "kendall_tau"} and third.stderr == ""
    assert told["front"] == found.rows() and len(told["networks"]) == 2


_JOB = """
import sys
sys.path.insert(0, {tests!r})
import torch
from tests.search.promotion.test_promote import IMAGES, TEST
from phonenas.search.promotion import promote
from phonenas.search.training import Resources, TrainingJob, recipe
print("ready", flush=True)
job = TrainingJob(IMAGES, TEST, recipe("small", epochs=5, batch=4))
promote({run!r}, job, top=3, resources=Resources("cpu", threads=1),
    on_event=lambda event: print("event", flush=True))
print("done", flush=True)
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_the_same(
    searched: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    def job(run: Path) -> list[str]:
        return [
            sys.executable,
            "-c",
            _JOB.format(tests=str(Path(__file__).parents[2]), run=str(run)),
        ]

    def start(name: str) -> Path:
        return Path(shutil.copytree(searched, tmp_path / name))

    whole = start("whole")
    process = subprocess.Popen(job(whole), env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    began = time.monotonic()  # imports are over
    events = process.stdout.read().count(b"event")
    assert process.wait(timeout=PATIENCE_S) == 0
    process.stdout.close()
    took_s = time.monotonic() - began
    moment, run = random.Random(0), start("killed")
    killed, ended = 0, False
    for _ in range(8):
        process = subprocess.Popen(job(run), env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        if killed < 3:  # between two events, however fast this computer is now
            for _ in range(round(moment.uniform(0.05, 0.25) * events)):
                process.stdout.readline()
            time.sleep(moment.uniform(0.0, took_s / events))
            os.kill(process.pid, signal.SIGKILL)
        process.stdout.read()
        code = process.wait(timeout=PATIENCE_S)
        process.stdout.close()
        killed += code == -signal.SIGKILL
        if code == 0:
            ended = True
            break
    assert ended and killed >= 2
    assert plain(read_promoted(run)) == plain(read_promoted(whole))
    for folder in (whole / "promoted").iterdir():
        one, other = (x / "promoted" / folder.name / "network.onnx" for x in (whole, run))
        assert one.read_bytes() == other.read_bytes()
