"""Programs in .pt2 files: read without torch's own loader, run as torch runs them."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from phonenas.latency_model.graphs.onnx_cut import cut  # noqa: E402
from phonenas.latency_model.graphs.torch_module import exported  # noqa: E402
from phonenas.latency_model.graphs.torch_program import TorchProgram  # noqa: E402
from phonenas.space.errors import InvalidArgument, UnknownName, UnsupportedFormat  # noqa: E402
from phonenas.space.file_inputs import Given, GivenArray  # noqa: E402

nn = torch.nn
pytestmark = pytest.mark.slow  # torch.export takes seconds to be imported


class TwoInputs(nn.Module):
    """Inputs of two types, several outputs of one node, a constant, and a tensor kept twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 4)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.again = self.conv

    def forward(self, ids: Any, image: Any) -> Any:
        maps = self.again(self.conv(image)[:, :3]).sigmoid()
        left, right = maps.chunk(2, dim=1)
        words = self.embedding(ids).mean(1)[:, :, None, None]
        mixed = torch.cat([left, right], 1) * words + torch.tensor([1.0, 2.0]).sum()
        return mixed.flatten(1).max(1).values, mixed.mean((2, 3))


class Masked(nn.Module):
    """Infinite numbers, changes of type (each checked by a node of its own), a repeated one."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.tensor([2.0]).expand(3)

    def forward(self, x: Any) -> Any:
        small = x.to(torch.float64).masked_fill(x < 0, float("-inf")).to(torch.float32)
        return torch.softmax(small, 1).clamp(max=float("inf")) * self.gain[0]


def convolutions() -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.Hardswish(),
        nn.Conv2d(8, 8, 5, padding=2, groups=8),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(8, 10),
    )


def saved(module: Any, path: Path, *inputs: Any) -> Path:
    torch.manual_seed(0)
    torch.export.save(torch.export.export(module.eval(), inputs), path)
    return path


@pytest.fixture(scope="module")
def image() -> Any:
    return torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, image: Any) -> tuple[Path, Any]:
    module = convolutions()
    for buffer in module.buffers():  # statistics as training leaves them
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return saved(module, tmp_path_factory.mktemp("pt2") / "net.pt2", image), module


def test_it_gives_what_the_module_gives(whole: tuple[Path, Any], image: Any) -> None:
    path, module = whole
    program = TorchProgram.at(path)
    assert program.inputs == (("input", "float32", (1, 3, 16, 16)),)
    with torch.no_grad():
        assert torch.equal(program.module(image), module(image))


def test_inputs_of_other_types_and_several_outputs(tmp_path: Path, image: Any) -> None:
    module, ids = TwoInputs(), torch.tensor([[1, 5, 7]])
    program = TorchProgram.at(saved(module, tmp_path / "two.pt2", ids, image))
    assert program.inputs == (("ids", "int64", (1, 3)), ("image", "float32", (1, 3, 16, 16)))
    with torch.no_grad():
        for mine, its in zip(program.module(ids, image), module(ids, image), strict=True):
            assert torch.equal(mine, its)


@pytest.mark.filterwarnings("ignore:No complete tensor found:UserWarning")  # a repeated one
def test_infinite_numbers_and_checks_of_types(tmp_path: Path, image: Any) -> None:
    module = Masked()
    path = saved(module, tmp_path / "masked.pt2", image)
    with torch.no_grad():
        mine, its = TorchProgram.at(path).module(image), module(image)
    assert its.isnan().any() and not its.isnan().all()
    torch.testing.assert_close(mine, its, rtol=0.0, atol=0.0, equal_nan=True)
    assert exported(str(path))[0].exists()


def test_as_onnx_it_has_the_programs_weights(whole: tuple[Path, Any], image: Any) -> None:
    import onnxruntime

    path, module = whole
    file, left = exported(str(path))
    assert left == Given() and file.suffix == ".onnx"
    session = onnxruntime.InferenceSession(str(file))
    (logits,) = session.run(None, {"input": image.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, module(image).numpy(), atol=1e-5)
    kinds = [s.kernel.key.partition("_")[0] for s in cut(file).steps]
    # Normalisation and activations are part of their convolution, dropout and flatten of none.
    assert kinds == ["conv", "conv", "global", "linear"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (Given(shapes=(("input", (1, 3, 32, 32)),)), r"exported with input=1,3,16,16"),
        (Given(shapes=(("x", (1, 3, 16, 16)),)), "has no input x; its inputs: input"),
        (Given(resolution_px=32), "--resolution does not apply"),
        (
            Given(arrays=(("input", GivenArray("uint8", (1, 3, 16, 16))),)),
            "input is float32, and --input gives uint8",
        ),
    ],
)
def test_other_shapes_are_refused(whole: tuple[Path, Any], given: Given, told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        exported(str(whole[0]), given)


def test_its_own_shape_may_be_said(whole: tuple[Path, Any]) -> None:
    given = Given(shapes=(("input", (1, 3, 16, 16)),), resolution_px=16)
    assert exported(str(whole[0]), given)[0].exists()


def test_free_sides_are_refused(tmp_path: Path, image: Any) -> None:
    side = torch.export.Dim("side", min=8, max=64)
    program = torch.export.export(
        convolutions().eval(), (image,), dynamic_shapes={"input": {2: 2 * side}}
    )
    torch.export.save(program, tmp_path / "free.pt2")
    with pytest.raises(UnsupportedFormat, match="fixed shapes"):
        TorchProgram.at(tmp_path / "free.pt2")


def changed(path: Path, out: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """A copy of an archive, each entry changed."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return out


def graph_changed(path: Path, out: Path, change: Callable[[Any], None]) -> Path:
    def with_graph(name: str, content: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return content
        found = json.loads(content)
        change(found["graph_module"]["graph"])
        return json.dumps(found).encode()

    return changed(path, out, with_graph)


class Payload:
    """Writes a file as it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "ran")


def test_nothing_in_it_is_unpickled_or_evaluated(whole: tuple[Path, Any], tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    held = io.BytesIO()
    pickle.dump(Payload(ran), held)
    word = f"__import__('pathlib').Path({str(ran)!r}).write_text('ran')"

    def hostile(name: str, content: bytes) -> bytes:
        if name.endswith("sample_inputs/net.pt") or "sample_inputs" in name:
            return held.getvalue()
        if name.endswith("models/model.json"):
            found = json.loads(content)
            found["guards_code"] = [word]
            found["range_constraints"] = {word: {"min_val": 0, "max_val": 9}}
            found["graph_module"]["metadata"] = {"custom": word}
            return json.dumps(found).encode()
        return content

    program = TorchProgram.at(changed(whole[0], tmp_path / "hostile.pt2", hostile))
    assert program.inputs[0][0] == "input" and not ran.exists()

    def pickled(name: str, content: bytes) -> bytes:
        if name.endswith("weights_config.json"):
            found = json.loads(content)
            first = next(iter(found["config"].values()))
            first["use_pickle"] = True
            return json.dumps(found).encode()
        return held.getvalue() if name.endswith("weight_0") else content

    with pytest.raises(UnsupportedFormat, match="a pickle is not read"):
        TorchProgram.at(changed(whole[0], tmp_path / "pickled.pt2", pickled))
    assert not ran.exists()


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "torch.ops.aten.__class__.__init__",
        "torch.ops.aten.conv2d.__call__",
        "torch.ops.aten.conv2d",
        "torch.ops.aten.no_such_thing.default",
        "torch.ops.prims.add.default",
        "_operator.add",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default",
        "torch.ops.aten.manual_seed.default",
        "torch.ops.aten.set_grad_enabled.default",
    ],
)
def test_only_operations_of_aten_run(whole: tuple[Path, Any], tmp_path: Path, target: str) -> None:
    def other(graph: Any) -> None:
        graph["nodes"][0]["target"] = target

    with pytest.raises(UnsupportedFormat, match="not an operation of aten"):
        TorchProgram.at(graph_changed(whole[0], tmp_path / "other.pt2", other))


@pytest.mark.parametrize("sides", [(1, 3, 1 << 20, 1 << 20), (1 << 31,) * 4])
def test_sizes_that_no_memory_holds_are_refused(
    whole: tuple[Path, Any], tmp_path: Path, sides: tuple[int, ...]
) -> None:
    said = [{"as_int": n} for n in sides]

    def huge_input(graph: Any) -> None:
        graph["tensor_values"]["input"]["sizes"] = said

    with pytest.raises(UnsupportedFormat, match="takes more than"):
        exported(str(graph_changed(whole[0], tmp_path / "input.pt2", huge_input)))

    def repeated(name: str, content: bytes) -> bytes:
        if not name.endswith("weights_config.json"):
            return content
        found = json.loads(content)
        meta = next(iter(found["config"].values()))["tensor_meta"]
        meta["sizes"], meta["strides"] = said, [{"as_int": 0}] * 4
        return json.dumps(found).encode()

    with pytest.raises(UnsupportedFormat, match="takes more than"):
        TorchProgram.at(changed(whole[0], tmp_path / "weight.pt2", repeated))


def test_a_small_archive_of_large_contents_is_refused(
    whole: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each entry is below the limit, all of them are not.
    with zipfile.ZipFile(whole[0]) as held:
        sizes = [i.file_size for i in held.infolist() if "/sample_inputs/" not in i.filename]
    most = sum(sizes) - 100
    assert max(sizes) < most
    monkeypatch.setattr("phonenas.latency_model.graphs.torch_program._MOST_BYTES", most)
    path = tmp_path / "packed.pt2"
    with zipfile.ZipFile(whole[0]) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert path.stat().st_size < most
    with pytest.raises(UnsupportedFormat, match="takes more than"):
        TorchProgram.at(path)


def test_a_pipe_and_a_damaged_name_are_refused(whole: tuple[Path, Any], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt2")
    with pytest.raises(InvalidArgument, match="no regular file"):
        TorchProgram.at(tmp_path / "pipe.pt2")
    content = bytearray(whole[0].read_bytes())
    with zipfile.ZipFile(whole[0]) as archive:
        entry = archive.start_dir  # of its list of files; what it holds has lists of its own
    content[entry + 8 : entry + 10] = b"\0\x08"  # its name is UTF-8, and so it is not
    content[entry + 46] = 0xFF
    (tmp_path / "name.pt2").write_bytes(content)
    with pytest.raises(UnsupportedFormat, match="cannot be taken apart"):
        TorchProgram.at(tmp_path / "name.pt2")


def test_damaged_archives_are_refused(whole: tuple[Path, Any], tmp_path: Path) -> None:
    with pytest.raises(UnknownName):
        TorchProgram.at(tmp_path / "none.pt2")
    content = whole[0].read_bytes()
    for part in (b"", b"no archive", content[: len(content) // 2]):
        (tmp_path / "part.pt2").write_bytes(part)
        with pytest.raises(UnsupportedFormat):
            TorchProgram.at(tmp_path / "part.pt2")
    for ending, put in [
        ("models/model.json", b"{}"),
        ("models/model.json", b"[1"),
        ("weights_config.json", b'{"config": {}}'),
        ("weight_0", b"12"),
        ("weight_0", b"\0" * 8),
    ]:

        def damaged(name: str, held: bytes, ending: str = ending, put: bytes = put) -> bytes:
            return put if name.endswith(ending) else held

        with pytest.raises(UnsupportedFormat):
            TorchProgram.at(changed(whole[0], tmp_path / "damaged.pt2", damaged))
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as old:
        old.writestr("serialized_exported_program.json", "{}")
    with pytest.raises(UnsupportedFormat, match="older PyTorch"):
        TorchProgram.at(tmp_path / "old.pt2")
