"""The measuring worker on arm64: the real one, in Python and runtimes for arm64, emulated by qemu.

Emulation is many times slower: what is asked here is whether it works, never how long it takes.
Set up by `bash tools/arm64.sh`, run by `pytest -m qemu`; otherwise all of it is skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import Sshd

from phonenas.devices import Job
from phonenas.devices.registry import assemble
from phonenas.devices.runtimes import get, worker
from phonenas.devices.settings import DeviceSettings
from phonenas.devices.transports.process import Process
from phonenas.space import Operator

pytest_plugins = ("servers",)
pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]

ARM64 = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "phonenas" / "arm64"
ENGINES = Path(worker.__file__).parent
AARCH64 = 183  # in the head of an ELF file
START_S, ANSWER_S, END_S = 60.0, 30.0, 20.0

SMALL = Operator("mbconv", 8, 8, 14, kernel=3, expansion=3, skip="identity")
TINY = Operator("conv", 4, 4, 7, kernel=3)
# Together they hold every kind of node: squeeze, strides, paddings, pooling, a classifier.
VARIED = (
    SMALL,
    Operator("stem", 3, 8, 14, kernel=3, stride=2),
    Operator("dsconv", 8, 12, 14, kernel=5, stride=1),
    Operator("mbconv", 8, 12, 14, kernel=5, stride=2, expansion=3, se_channels=2, skip="pool"),
    Operator("head", 8, 10, 7, features=16),
)

# Loads each file with an engine, runs it once, and prints what comes out.
OUTPUTS = """
import importlib, json, platform, sys
folder, engine, settings, *paths = sys.argv[1:]
sys.path.append(folder)
engine = importlib.import_module(engine).Engine(json.loads(settings))
found = []
for path in paths:
    model = engine.load(path)
    out = model.run()
    if out is None:  # LiteRT leaves them in its own memory
        kept = model._interpreter
        out = [kept.get_tensor(o["index"]) for o in kept.get_output_details()]
    found.append([float(v) for o in out for v in o.ravel()])
print(json.dumps({"machine": platform.machine(), "outputs": found}))
"""


@dataclass(frozen=True)
class Runtime:
    """A runtime as its workers are asked for it."""

    name: str
    package: str
    provider: str

    @property
    def engine(self) -> str:
        return f"engine_{self.name}.py"

    @property
    def settings(self) -> dict[str, Any]:
        return {"threads": 1, "optimisation": "all", "provider": self.provider}

    def lower(self, operator: Operator, stem: Path) -> Path:
        return get(self.name, DeviceSettings("arm64")).lower(operator, stem)


RUNTIMES = (
    Runtime("onnxruntime", "onnxruntime", "CPUExecutionProvider"),
    Runtime("litert", "ai_edge_litert", "XNNPACK"),
)


@pytest.fixture(scope="module")
def python(request: pytest.FixtureRequest) -> str:
    """Python on the emulated arm64; its process becomes qemu's."""
    if "qemu" not in request.config.option.markexpr:
        pytest.skip("an arm64 worker under emulation is left out unless asked for: pytest -m qemu")
    if not (ARM64 / "python3").exists():
        pytest.skip("no emulated arm64 is set up. Set it up:  bash tools/arm64.sh")
    return str(ARM64 / "python3")


@pytest.fixture(scope="module", params=RUNTIMES, ids=lambda r: r.name)
def runtime(request: pytest.FixtureRequest, python: str) -> Runtime:
    pytest.importorskip(request.param.package, reason="LiteRT is an extra: phonenas[litert]")
    return request.param  # type: ignore[no-any-return]


Spawn = Callable[..., tuple[Process, dict[str, Any]]]


@pytest.fixture(scope="module")
def spawn(python: str) -> Iterator[Spawn]:
    """Starts workers that say hello, and ends them all."""
    talks: list[Process] = []

    def start(runtime: Runtime, **more: Any) -> tuple[Process, dict[str, Any]]:
        command = [python, "-B", worker.__file__, str(ENGINES / runtime.engine)]
        talks.append(Process("arm64", command))
        talks[-1].ask({"op": "hello", "cores": None, **runtime.settings, **more})
        return talks[-1], talks[-1].answer(START_S)

    yield start
    for talk in talks:
        talk.close()


@pytest.fixture(scope="module")
def greeted(runtime: Runtime, spawn: Spawn) -> Iterator[tuple[Process, dict[str, Any]]]:
    """A worker that several tests may ask, with its answer to hello."""
    talk, hello = spawn(runtime)
    with closing(talk):
        yield talk, hello


def batch(models: list[Path], runs: list[int], sentinel: Path) -> dict[str, Any]:
    return {
        "op": "run",
        "models": [str(m) for m in models],
        "runs": runs,
        "sentinel": str(sentinel),
        "warmup_runs": 2,
        "warmup_s": 0.0,
        "limit_s": 20,
    }


def test_the_library_that_computes_is_one_for_arm64(
    runtime: Runtime, greeted: tuple[Process, dict[str, Any]]
) -> None:
    _, hello = greeted
    libraries = [p.read_bytes() for p in (ARM64 / "site" / runtime.package).rglob("*.so")]
    of_hash = {hashlib.sha256(content).hexdigest(): content for content in libraries}
    head = of_hash[hello["sha256"]][:20]
    assert head[:4] == b"\x7fELF"
    assert int.from_bytes(head[18:], "little") == AARCH64
    assert hello["runtime"] == runtime.name
    assert runtime.provider in hello["providers"]
    (dist,) = (ARM64 / "site").glob(f"{runtime.package}-*.dist-info")
    assert hello["version"] == dist.name.removesuffix(".dist-info").split("-")[1]


def test_readings_come_in_order_and_a_broken_file_is_an_error(
    runtime: Runtime, greeted: tuple[Process, dict[str, Any]], tmp_path: Path
) -> None:
    talk, _ = greeted
    small, tiny = (runtime.lower(o, tmp_path / n) for o, n in ((SMALL, "small"), (TINY, "tiny")))
    broken = small.with_stem("broken")
    broken.write_bytes(b"no model")
    for _ in range(2):  # a batch leaves the worker ready for the next
        talk.ask(batch([small, broken, tiny, small], [4, 4, 7, 3], tiny))
        found = [talk.answer(ANSWER_S) for _ in range(5)]
        assert found.pop() == {"done": True}
        assert [f["index"] for f in found] == [0, 1, 2, 3]
        assert set(found[1]) == {"index", "error"}
        assert found[1]["error"]
        for reading, runs in ((found[0], 4), (found[2], 7), (found[3], 3)):
            assert reading["provider"] == runtime.provider
            assert 1 <= len(reading["samples_ms"]) <= runs  # a busy computer may take some away
            assert len(reading["sentinel_ms"]) == len(reading["samples_ms"])
            assert min(*reading["samples_ms"], *reading["sentinel_ms"], reading["first_ms"]) > 0


def test_outputs_are_those_of_this_computer(
    runtime: Runtime, python: str, environment: dict[str, str], tmp_path: Path
) -> None:
    paths = [str(runtime.lower(o, tmp_path / f"model{i}")) for i, o in enumerate(VARIED)]
    settings = json.dumps(runtime.settings)
    words = ["-B", "-c", OUTPUTS, str(ENGINES), Path(runtime.engine).stem, settings, *paths]
    here, there = (
        json.loads(
            subprocess.run(
                [program, *words],
                env=environment,
                capture_output=True,
                text=True,
                timeout=START_S,
                check=True,
            ).stdout
        )
        for program in (sys.executable, python)
    )
    assert there["machine"] == "aarch64"
    assert len(there["outputs"]) == len(VARIED)
    for operator, expected, found in zip(VARIED, here["outputs"], there["outputs"], strict=True):
        scale = np.abs(expected).max()
        assert scale > 1e-3, operator
        np.testing.assert_allclose(
            found, expected, atol=1e-4 * scale, rtol=0, err_msg=str(operator)
        )


def test_it_ends_in_the_middle_of_a_run_when_its_input_closes(
    runtime: Runtime, spawn: Spawn, tmp_path: Path
) -> None:
    folder = tmp_path / "phonenas-arm64"
    folder.mkdir()
    small = runtime.lower(SMALL, folder / "small")
    talk, _ = spawn(runtime, folder=str(folder))
    talk.ask(batch([small, small], [1, 1_000_000], small))
    assert talk.answer(ANSWER_S)["index"] == 0
    assert talk.process.stdin is not None
    talk.process.stdin.close()
    assert talk.process.wait(END_S) == 0
    assert talk.process.stdout is not None
    assert talk.process.stdout.read() == b""  # the second model was not done
    assert not folder.exists()


def test_it_ends_when_nobody_speaks_to_it(python: str, spawn: Spawn) -> None:
    talk, _ = spawn(RUNTIMES[0], silence_s=3)
    for _ in range(10):
        talk._write(b"\n")
        time.sleep(0.5)
    assert talk.process.poll() is None
    assert talk.process.wait(END_S) == 0


@pytest.mark.sshd
def test_a_board_is_measured_over_ssh(
    runtime: Runtime, python: str, sshd: Sshd, tmp_path: Path
) -> None:
    """All of a device: files sent, cores pinned, a worker talked with, all removed."""
    board = assemble(
        DeviceSettings(
            "board", "ssh", sshd.host, config=str(sshd.config), runtime=runtime.name, python=python
        )
    )
    small, tiny = (board.lower(o, tmp_path / n) for o, n in ((SMALL, "small"), (TINY, "tiny")))
    with board:
        jobs = [Job(small, 3), Job(tiny, 2)]
        readings = list(board.run_ms(jobs, sentinel=tiny, warmup_runs=2, warmup_s=0.0))
        conditions = board.conditions
        folder = Path(board.transport.folder)  # type: ignore[attr-defined]
        assert folder.is_dir()  # sshd runs on this computer
    assert not folder.exists()
    assert [r.error for r in readings] == ["", ""]
    assert all(r.samples_ms and r.provider == runtime.provider for r in readings)
    assert conditions.origin == "emulated"
    assert conditions.runtime == runtime.name
    assert re.fullmatch(r"\d+(\.\d+)+", conditions.runtime_version)
