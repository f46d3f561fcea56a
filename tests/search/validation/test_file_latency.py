"""Exported files on a device: which form is measured, with what beside it, and what is told."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from phonenas.data import MeasurementStore
from phonenas.search.exported_file import ExportedFile, FileLatency, refuse_unstable
from phonenas.search.pareto import Candidate, ParetoFront
from phonenas.search.validation.validate import measure_file, validate
from phonenas.space import Architecture
from phonenas.space.errors import UnstableDevice
from phonenas.space.lowering.write import write_network
from phonenas.testing import FakeDevice

pytestmark = pytest.mark.usefixtures("fast")
TEXT = "r1_k3_s11_e1_i16_o8 r1_k3_s22_e6_i8_o8 classes4 res32"


class ByZeros(FakeDevice):
    """Takes the longer the fewer weights are 0; nodes cost nothing."""

    @staticmethod
    def true_ms(model: Path) -> float:
        tensors = onnx.load(model).graph.initializer
        return 1e-4 * sum(int(np.count_nonzero(onnx.numpy_helper.to_array(t))) for t in tensors)


@pytest.fixture
def network() -> Architecture:
    return Architecture.parse(TEXT)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MeasurementStore]:
    with MeasurementStore(tmp_path / "s.db", create=True) as opened:
        yield opened


def exported(network: Architecture, folder: Path, change: Callable[[Any], None]) -> ExportedFile:
    """A file with weights of its own, changed before it counts as exported."""
    path = write_network(network, "onnx", folder / "network.onnx", seed=7)
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, path)
    return ExportedFile(network, (path,), {path.name: sha256(path)})


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def as_it_is(graph: Any) -> None:
    pass


def half_of_it_zero(graph: Any) -> None:
    tensor = max(graph.initializer, key=lambda t: len(t.raw_data))
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.ravel()[::2] = 0
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def a_node_more(graph: Any) -> None:
    """An Identity at the end; and a value that the fake device takes for slow."""
    half_of_it_zero(graph)
    last = graph.output[0].name
    graph.node[-1].output[0] = "before"
    graph.node.add(op_type="Identity", input=["before"], output=[last], name="more")


def test_the_file_is_measured_beside_its_architecture_and_once(
    network: Architecture, tmp_path: Path, store: MeasurementStore
) -> None:
    file = exported(network, tmp_path, as_it_is)
    with FakeDevice() as phone:
        first = measure_file(file, on=phone, into=store)
        readings = phone.readings
        stored = {m.subject: m for m in store.measurements(phone.conditions)}
        assert measure_file(file, on=phone, into=store) == first
        assert phone.readings - readings == 12  # the sentinel alone
        again = measure_file(file, on=phone, into=store, again=True)
    digest = sha256(file.paths[0])
    assert set(stored) == {TEXT, f"network.onnx#{digest[:12]}"}
    whole, random = stored[f"network.onnx#{digest[:12]}"], stored[TEXT]
    assert (len(whole.rounds), len(random.rounds)) == (12, 12)
    assert first == FileLatency(
        file="network.onnx",
        sha256=digest,
        measured_ms=whole.latency_ms,
        spread=whole.spread,
        random_ms=random.latency_ms,
        random_spread=random.spread,
        differs=False,
    )
    assert again.measured_ms != first.measured_ms and str(first) == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (half_of_it_zero, r"^\d\d\.\d% of its weights are 0, and 0\.\d% of the random ones$"),
        (a_node_more, r"of the random ones; it has \d+ nodes, and the .* here \d+: nodes were "),
    ],
)
def test_why_a_file_differs_is_told(
    change: Callable[[Any], None],
    reason: str,
    network: Architecture,
    tmp_path: Path,
    store: MeasurementStore,
) -> None:
    file = exported(network, tmp_path, change)
    with ByZeros() as phone:
        found = measure_file(file, on=phone, into=store)
    assert found.differs and not found.changed and found.random_ms and found.measured_ms
    assert found.measured_ms < 0.8 * found.random_ms
    assert re.search(reason, found.reason), found.reason
    assert "beside the architecture with random weights" in str(found)


def test_an_architecture_of_another_day_is_measured_again_beside_a_new_file(
    network: Architecture, tmp_path: Path, store: MeasurementStore
) -> None:
    front = ParetoFront((candidate_of(network),), None, "", 0.0)
    with FakeDevice() as phone:
        first = validate(front, on=phone, into=store, top=1)
        assert first.networks[0].file is None and first.reused == 0
        assert validate(front, on=phone, into=store, top=1).reused == 1
        file = exported(network, tmp_path, as_it_is)
        with_file = replace(front, exported={TEXT: file})
        second = validate(with_file, on=phone, into=store, top=1)
        (m,) = store.measurements(phone.conditions, "network")
        third = validate(with_file, on=phone, into=store, top=1)
    assert (m.series, second.reused, third.reused) == (1, 0, 1)
    v = second.networks[0]
    assert v.file is not None and v.file.random_ms == v.measured_ms == m.latency_ms
    assert v.measured_ms != first.networks[0].measured_ms
    assert third.networks[0].file == v.file
    row = v.to_dict()
    assert row["file"]["sha256"] == file.sha256["network.onnx"]


def test_a_network_with_other_classes_is_measured_too(
    network: Architecture, tmp_path: Path, store: MeasurementStore
) -> None:
    """The candidate has the classes of the search, and its file those of the images."""
    searched = replace(network, classes=1000)
    file = exported(network, tmp_path, as_it_is)
    front = ParetoFront((candidate_of(searched),), None, "", 0.0, exported={str(searched): file})
    with FakeDevice() as phone:
        (v,) = validate(front, on=phone, into=store, top=1).networks
        measured = {m.subject: m.latency_ms for m in store.measurements(phone.conditions)}
    assert v.measured_ms == measured[str(searched)]
    assert v.file is not None and v.file.random_ms == measured[TEXT] < v.measured_ms


def candidate_of(network: Architecture) -> Candidate:
    return Candidate(
        id=0,
        block_args=str(network),
        top1=0.5,
        top1_error=0.01,
        outside=False,
        latency_ms=1.0,
        low_ms=0.9,
        high_ms=1.1,
        covered=True,
        macs=network.macs,
        params=network.params,
    )


def test_the_first_form_that_a_device_takes_is_measured(
    network: Architecture, tmp_path: Path, store: MeasurementStore
) -> None:
    good = exported(network, tmp_path, as_it_is).paths[0]
    broken, gone = tmp_path / "broken.onnx", tmp_path / "gone.onnx"
    broken.write_bytes(b"no model")
    with FakeDevice() as phone:
        found = measure_file(ExportedFile(network, (gone, broken, good)), on=phone, into=store)
        none = measure_file(ExportedFile(network, (gone, broken)), on=phone, into=store)
        nothing = measure_file(ExportedFile(network, ()), on=phone, into=store)
    assert found.file == "network.onnx" and found.measured_ms and not found.changed
    assert (none.measured_ms, none.sha256, none.differs) == (None, "", None)
    assert "gone.onnx" in none.unmeasured and "broken.onnx" in none.unmeasured
    assert str(nothing) == "the exported file is not measured: no file was exported"


class Refusing(FakeDevice):
    """Does not run the file."""

    @staticmethod
    def _is_no_model(path: Path) -> bool:
        return path.resolve().name == "network.onnx"


def test_a_file_that_gives_no_time_is_told(
    network: Architecture, tmp_path: Path, store: MeasurementStore
) -> None:
    class Unsteady(FakeDevice):
        """Takes the file at ever another speed."""

        @staticmethod
        def true_ms(model: Path) -> float:
            if model.resolve().name != "network.onnx":
                return 1.0
            Unsteady.count += 1
            return float(np.random.default_rng(Unsteady.count).uniform(1, 80))

        count = 0

    file = exported(network, tmp_path, as_it_is)
    with Unsteady() as phone:
        found = measure_file(file, on=phone, into=store)
    assert found.measured_ms is None and found.differs is None
    assert "the limit is ±25%" in found.unmeasured and found.file == "network.onnx"
    # A command that asked for it ends with an error; not for a file in a form that is not taken.
    refuse_unstable([("network 1", FileLatency(file="network.tflite", unmeasured="no form"))])
    refuse_unstable([("network 1", None), ("network 2", replace(found, unmeasured=""))])
    good = FileLatency(file="network.tflite", sha256="0", measured_ms=1.0, also=(found,))
    # Nor for one that fails there, whose own error says why.
    with Refusing() as phone:
        refused = measure_file(file, on=phone, into=store, again=True)
    assert refused.unmeasured == "3 times: no model" and refused.sha256
    refuse_unstable([("network 1", refused), ("network 2", replace(good, also=(refused,)))])
    with pytest.raises(UnstableDevice) as caught:
        refuse_unstable([("network 1", good), ("network 2", found)], "1 of 3 networks gave none")
    assert str(caught.value).startswith(
        "1 of 3 networks gave none; 2 of 3 exported files gave no stable measurement (network 1, "
        "network.onnx: "
    )
    with pytest.raises(UnstableDevice, match="^1 of 3 networks gave none. What was measured is"):
        refuse_unstable([], "1 of 3 networks gave none")


def test_a_file_of_another_precision_is_not_compared(
    network: Architecture, tmp_path: Path, store: MeasurementStore
) -> None:
    file = exported(network, tmp_path, as_it_is)
    phone = FakeDevice()
    phone.precision = "int8"
    with phone:
        found = measure_file(file, on=phone, into=store)
        readings = phone.readings
        assert measure_file(file, on=phone, into=store) == found
        assert phone.readings - readings == 2 * 12  # the sentinel alone, in each precision
    assert (found.precision, found.random_ms, found.differs) == ("float32", None, None)
    assert found.measured_ms is not None
    assert str(found).startswith("network.onnx computes in float32, unlike what was searched")
