"""LiteRT's engine: it loads a file, runs it, and says what really ran."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patience import PATIENCE_S

from phonenas.devices.runtimes import engine_litert
from phonenas.devices.runtimes.engine_litert import Engine
from phonenas.space import Operator
from phonenas.space.lowering.tflite import to_tflite

pytest.importorskip("ai_edge_litert", reason="LiteRT is an optional extra: phonenas[litert]")

import ai_edge_litert
import flatbuffers
from ai_edge_litert import schema_py_generated as schema

OPERATOR = Operator("mbconv", 8, 12, 8, 3, 2, 3, 2, "pool")
SETTINGS = {"threads": 1, "provider": "XNNPACK", "optimisation": "all"}
SHAPE = [1, 8, 8, 4]


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "operator.tflite"
    file.write_bytes(to_tflite(OPERATOR))
    return str(file)


def chain(*kinds: str, dead: str = "", dtype: str = "FLOAT32") -> bytes:
    """A model of these nodes, one after the other: ADD of a map to itself, REVERSE_V2 of its
    rows, or a custom kind of that name. `dead` is a further node whose output nobody reads."""
    number = getattr(schema.TensorType, dtype)
    tensors = [schema.TensorT(shape=SHAPE, type=number, name="t0")]
    tensors.append(schema.TensorT(shape=[1], type=schema.TensorType.INT32, name="axis", buffer=1))
    nodes, codes, value = [], [], 0
    for kind in (*kinds, *([dead] if dead else [])):
        tensors.append(schema.TensorT(shape=SHAPE, type=number, name=f"t{len(tensors)}"))
        code = getattr(schema.BuiltinOperator, kind, schema.BuiltinOperator.CUSTOM)
        custom = kind if code == schema.BuiltinOperator.CUSTOM else None
        codes.append(
            schema.OperatorCodeT(
                deprecatedBuiltinCode=min(code, 127), builtinCode=code, customCode=custom
            )
        )
        inputs = [value, 1] if kind == "REVERSE_V2" else [value, value]
        node = schema.OperatorT(
            opcodeIndex=len(codes) - 1, inputs=inputs, outputs=[len(tensors) - 1]
        )
        if kind == "ADD":
            node.builtinOptionsType = schema.BuiltinOptions.AddOptions
            node.builtinOptions = schema.AddOptionsT()
        nodes.append(node)
        if kind != dead:
            value = len(tensors) - 1
    graph = schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[value], operators=nodes)
    axis = np.frombuffer(np.array([1], np.int32).tobytes(), np.uint8)
    model = schema.ModelT(
        version=3,
        operatorCodes=codes,
        subgraphs=[graph],
        buffers=[schema.BufferT(), schema.BufferT(data=axis)],
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def output(model: Any) -> Any:
    interpreter = model._interpreter
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


# -- running -----------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("provider", ["XNNPACK", "builtin", "reference"])
def test_a_model_runs_where_it_was_asked_to(path: str, provider: str, threads: int) -> None:
    model = Engine({**SETTINGS, "provider": provider, "threads": threads}).load(path)
    assert model.provider == provider
    for _ in range(3):
        model.run()
    found = output(model)
    assert found.shape == (1, 4, 4, 12)
    assert np.abs(found).max() > 1e-3


def test_settings_reach_the_interpreter(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ai_edge_litert import interpreter

    real, seen = interpreter.Interpreter, []

    def recording(**given: Any) -> Any:
        seen.append((given["num_threads"], given["experimental_op_resolver_type"].name))
        return real(**given)

    monkeypatch.setattr(interpreter, "Interpreter", recording)
    for provider, threads in (("XNNPACK", 3), ("builtin", 2), ("reference", 1)):
        Engine({**SETTINGS, "provider": provider, "threads": threads}).load(path)
    assert seen == [(3, "BUILTIN"), (2, "BUILTIN_WITHOUT_DEFAULT_DELEGATES"), (1, "BUILTIN_REF")]


def test_inputs_are_normal_and_the_same_each_time(path: str) -> None:
    found = []
    for _ in range(2):
        model = Engine(SETTINGS).load(path)
        (given,) = model._interpreter.get_input_details()
        expected = np.random.default_rng(0).standard_normal((1, 8, 8, 8), np.float32)
        np.testing.assert_array_equal(model._interpreter.get_tensor(given["index"]), expected)
        model.run()
        found.append(output(model))
    np.testing.assert_array_equal(*found)


def test_providers_compute_alike(path: str) -> None:
    found = []
    for provider in ("XNNPACK", "builtin", "reference"):
        model = Engine({**SETTINGS, "provider": provider}).load(path)
        model.run()
        found.append(output(model))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-5 * np.abs(found[0]).max())


def test_a_run_is_the_runtimes_own_function(path: str) -> None:
    """Any Python around it would be measured too: some operators take 2 µs."""
    run = Engine(SETTINGS).load(path).run
    assert not isinstance(getattr(run, "__func__", run), types.FunctionType)
    assert run() is None


def test_models_live_side_by_side(path: str, tmp_path: Path) -> None:
    engine = Engine(SETTINGS)
    other = tmp_path / "other.tflite"
    other.write_bytes(to_tflite(Operator("head", 8, 10, 4, features=16)))
    one, two = engine.load(path), engine.load(str(other))
    run = one.run
    run()
    expected = output(one)
    for _ in range(3):
        two.run()
        run()
    np.testing.assert_array_equal(output(one), expected)
    assert output(two).shape == (1, 10)


# -- what really runs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (chain("ADD", "ADD"), "XNNPACK"),
        (chain("REVERSE_V2"), "XNNPACK, 1 of 1 nodes on built-in kernels"),
        (chain("ADD", "REVERSE_V2"), "XNNPACK, 1 of 2 nodes on built-in kernels"),
        (chain("REVERSE_V2", "ADD"), "XNNPACK, 1 of 2 nodes on built-in kernels"),
        (
            chain("ADD", "ADD", "REVERSE_V2", "ADD", "ADD", "REVERSE_V2", "ADD", "ADD"),
            "XNNPACK, 2 of 8 nodes on built-in kernels",
        ),
        # Nobody reads its output, and it takes time all the same.
        (chain("ADD", "ADD", dead="REVERSE_V2"), "XNNPACK, 1 of 3 nodes on built-in kernels"),
    ],
    ids=["all", "none", "end", "start", "islands", "dead"],
)
def test_nodes_that_xnnpack_left_are_counted(tmp_path: Path, model: bytes, expected: str) -> None:
    file = tmp_path / "chain.tflite"
    file.write_bytes(model)
    found = Engine(SETTINGS).load(str(file))
    assert found.provider == expected
    found.run()
    for provider in ("builtin", "reference"):
        assert Engine({**SETTINGS, "provider": provider}).load(str(file)).provider == provider


def test_a_delegate_that_never_came_is_noticed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a build without XNNPACK: asked for, and not there."""
    without = engine_litert._RESOLVERS["builtin"]
    monkeypatch.setitem(engine_litert._RESOLVERS, "XNNPACK", without)
    found = Engine(SETTINGS).load(path).provider
    assert found == "XNNPACK, 14 of 14 nodes on built-in kernels"


def test_a_delegate_that_was_not_asked_for_is_noticed(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engine_litert._RESOLVERS, "builtin", "BUILTIN")
    found = Engine({**SETTINGS, "provider": "builtin"}).load(path).provider
    assert found == "builtin, 14 of 14 nodes delegated"


# -- what cannot be run ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage" * 100, b"\0" * 4096, to_tflite(OPERATOR)[:-100], to_tflite(OPERATOR)[:1000]],
    ids=["empty", "garbage", "zeros", "cut", "cut short"],
)
def test_files_that_are_no_models(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.tflite"
    file.write_bytes(content)
    with pytest.raises((ValueError, RuntimeError)):
        Engine(SETTINGS).load(str(file))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises((ValueError, RuntimeError)):
        Engine(SETTINGS).load(str(tmp_path / "none.tflite"))


def test_a_node_that_the_runtime_does_not_know(tmp_path: Path) -> None:
    file = tmp_path / "custom.tflite"
    file.write_bytes(chain("ADD", "Sprachlos"))
    with pytest.raises((ValueError, RuntimeError), match="Sprachlos"):
        Engine(SETTINGS).load(str(file))


def test_an_input_that_is_not_float32(tmp_path: Path) -> None:
    file = tmp_path / "int.tflite"
    file.write_bytes(chain("ADD", dtype="INT32"))
    model = Engine({**SETTINGS, "provider": "builtin"}).load(str(file))
    model.run()
    assert {d["dtype"] for d in model._interpreter.get_input_details()} == {np.int32}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"provider": "NNAPI"}, "no provider 'NNAPI'. Known: XNNPACK, builtin, reference"),
        ({"optimisation": "basic"}, "one level of optimisation, 'all', and 'basic'"),
        ({"threads": 0}, "threads are 1 or more, got 0"),
    ],
)
def test_settings_that_cannot_be_met(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Engine({**SETTINGS, **setting})


# -- what it is --------------------------------------------------------------------------------


def test_identity_hashes_the_library_that_computes() -> None:
    found = Engine(SETTINGS).identity()
    assert set(found) == {"runtime", "version", "sha256", "providers"}
    assert found["runtime"] == "litert"
    assert found["version"] == ai_edge_litert.__version__
    assert found["providers"] == ["XNNPACK", "builtin", "reference"]
    folder = Path(ai_edge_litert.__file__).parent
    by_hash = {hashlib.sha256(f.read_bytes()).hexdigest(): f for f in folder.glob("*.so")}
    library = by_hash[found["sha256"]]
    # The wrappers of a few kilobytes hold no kernels.
    assert library.stat().st_size > 1e6
    assert b"BuiltinOpResolver" in library.read_bytes()
    json.dumps(found)


def test_the_forerunner_serves_where_litert_is_not(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ai_edge_litert import interpreter

    forerunner = types.ModuleType("tflite_runtime")
    forerunner.__version__ = "2.14.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tflite_runtime", forerunner)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", interpreter)
    assert Engine(SETTINGS).identity()["runtime"] == "litert"
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    engine = Engine(SETTINGS)
    found = engine.identity()
    assert (found["runtime"], found["version"]) == ("tflite-runtime", "2.14.0")
    engine.load(path).run()


def test_without_either_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("ai_edge_litert", "tflite_runtime"):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setitem(sys.modules, f"{package}.interpreter", None)
    with pytest.raises(ImportError, match="pip install ai-edge-litert"):
        Engine(SETTINGS)


def test_it_needs_nothing_of_phonenas(path: str, tmp_path: Path) -> None:
    shutil.copy(engine_litert.__file__, tmp_path / "engine.py")
    code = (
        "import sys; sys.path.insert(0, '.'); import engine; "
        f"model = engine.Engine({SETTINGS}).load({path!r}); model.run(); "
        "assert not any(m.startswith('phonenas') for m in sys.modules); print(model.provider)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout) == (0, "XNNPACK\n"), done.stderr
