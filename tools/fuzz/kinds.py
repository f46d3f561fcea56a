"""The kinds of input: how each small real file is made, and what reads it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np

from phonenas import data, devices, latency_model, search, space
from phonenas.cli.networks import any_network, cut_file, find, is_run, network_file
from phonenas.cli.output import predicted_row
from phonenas.devices.settings import Refused, read_settings
from phonenas.devices.simulated import SimulatedPhone
from phonenas.latency_model.calibration import FEATURES, Calibration
from phonenas.latency_model.graphs import onnx_check
from phonenas.latency_model.graphs.onnx_cut import cut
from phonenas.latency_model.kernel_fitting import fit_on
from phonenas.latency_model.lookup_table import LookupTable
from phonenas.latency_model.units.regressor import OperatorRegressor
from phonenas.report import read_validation, write_report
from phonenas.search import run_folder
from phonenas.search.accuracy.registry import estimator
from phonenas.search.accuracy.surrogate.surrogate import table_path
from phonenas.search.checkpoint import Checkpoint, read_checkpoint
from phonenas.search.loop import Evaluated
from phonenas.search.promotion.result import read_promoted
from phonenas.search.run_document import read_run
from phonenas.search.run_folder import RunFolder
from phonenas.space import zoo
from phonenas.space.kernels.prior import sample
from phonenas.space.kernels.random_cnn import RandomCNN
from phonenas.space.lowering.onnx import to_onnx

from . import mutation

__all__ = ["KINDS", "Kind", "Other"]


class _Small(space.AccelNASBench):
    """Some dozens of operators: the last blocks are settled."""

    name = "small"

    @cached_property
    def decisions(self) -> Mapping[str, tuple[Any, ...]]:
        return {
            name: options if name.startswith(("block1", "block2", "block3")) else options[:1]
            for name, options in super().decisions.items()
        }


SPACE = _Small(resolution=64)
_NETWORK = "r1_k3_s22_e1_i8_o8 r2_k3_s22_e3_i8_o16_se0.25 head32 classes10 res32"


class Other(Exception):
    """A file was accepted, and holds something else than was written."""


class Kind:
    """One kind of input. Lifetime: made once with a folder, then `attempt` for each input."""

    name: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def attempt(self, rng: random.Random, here: Path) -> None:
        """Change a file, put it into `here` and read it.

        Raises:
            PhonenasError: It is refused.
            Other: See there.
        """
        raise NotImplementedError


class _Modelled(Kind):
    """With a latency model of the simulated phone, its numbers made up."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with SimulatedPhone("sim", throttle=None, load=None) as phone:
            self.conditions = phone.conditions
        ms = {o: 0.01 + 1e-8 * o.macs for o in SPACE.operators()}
        table = LookupTable(ms, dict.fromkeys(ms, 0.01), "2026-01-01T00:00:00+00:00")
        coefficients = (1.0, *[0.0] * (len(FEATURES) - 1))
        calibration = Calibration(coefficients, 0.1, 0.05, 0.1, 100.0, networks=12)
        times = latency_model.OperatorTimes(conditions=self.conditions, table=table, regressor=None)
        self.model = latency_model.LatencyModel(
            times=times, calibration=calibration, until="2026-01-01T00:00:00+00:00"
        )

    def with_kernels(self) -> latency_model.LatencyModel:
        """The model with one of kernels beside it, its numbers made up too."""
        kernels = fit_on(self.conditions, {k: 0.01 + 1e-8 * k.macs for k in sample(40, 0)})
        return replace(self.model, kernels=kernels)


def _undigested(content: bytes, version: int) -> bytes:
    """A document as phonenas 0.1 wrote it: no digest."""
    document = json.loads(content)
    del document["digest"]
    return json.dumps({**document, "version": version}).encode()


class Runs(_Modelled):
    """Folders of runs, one of their files changed."""

    name = "runs"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.run = folder / "run"
        rng = np.random.default_rng(1)
        target = float(np.quantile(self.model.on(SPACE)(SPACE.sample(rng, 200)), 0.5))
        self.settings: dict[str, Any] = {
            "latency": self.model,
            "accuracy": search.accuracy.Surrogate(),
            "evaluations": 60,
            "spec": search.Spec(
                search.Target(target, chance=0.5), [search.parse_limit("macs<=500e6")]
            ),
        }
        search.search(
            SPACE, strategy=search.NSGA2(seed=0, population=20), into=self.run, **self.settings
        )
        phone = SimulatedPhone("sim", throttle=None, load=None)
        with data.MeasurementStore(folder / "s.db") as store, phone:
            search.validate_rounds(
                search.load(self.run, SPACE),
                latency=self.model,
                on=phone,
                into=store,
                top=2,
                rounds=1,
            )
        self.files = {
            name: (self.run / name).read_bytes()
            for name in ("run.json", "checkpoint.npz", "validation.json")
        }
        self.old = {
            name: _undigested(content, 1)
            for name, content in self.files.items()
            if name.endswith(".json")
        }
        self.true = self._read(self.run)

    def attempt(self, rng: random.Random, here: Path) -> None:
        folder = here / "r"
        folder.mkdir(exist_ok=True)
        name = rng.choice(("run.json", "run.json", "checkpoint.npz", "validation.json"))
        old = name in self.old and rng.random() < 0.3
        for other, content in self.files.items():
            (folder / other).write_bytes(content)
        change = mutation.of_arrays if name.endswith(".npz") else mutation.of_json
        (folder / name).write_bytes(change((self.old if old else self.files)[name], rng))
        found = self._read(folder)
        if not old and found != self.true:
            raise Other(f"{name} changed, and the run with it")
        if rng.random() < 0.02:
            write_report(folder, here / "report.html")

    @staticmethod
    def _read(folder: Path) -> tuple[Any, ...]:
        run = search.load(folder, SPACE)
        evaluated = run.evaluations()
        network = find(f"{folder}:0")
        if not is_run(str(folder)) or read_promoted(folder) is not None:
            raise Other("it is no run any more")
        return (
            json.dumps([c.to_dict() for c in run.front]),
            run.front.target_ms,
            run.front.hypervolume,
            str(run.spec),
            str(network),
            repr(run.front.to_frame()),
            evaluated.genomes.tobytes(),
            evaluated.to_array().tobytes(),
            dict(evaluated.failed),
            repr(run.log()),
            json.dumps(read_validation(folder)),
            repr(run.settings),
            run.space.name,
        )


class _Stop(Exception):
    """A search is stopped here."""


class Checkpoints(_Modelled):
    """Checkpoints of searches under way, with which the search is taken up."""

    name = "checkpoints"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.runs: list[tuple[bytes, bytes, bytes, Callable[[], Any], Checkpoint, str]] = []
        strategies: list[Callable[[], Any]] = [
            lambda: search.NSGA2(seed=0, population=10),
            lambda: search.get("random", seed=0),
            lambda: search.get("weighted", seed=0),
        ]
        for number, made in enumerate(strategies):
            path = folder / f"u{number}"
            with contextlib.suppress(_Stop):
                self._search(made(), path, stop=True)
            begun = (path / "run.json").read_bytes()
            content = (path / "checkpoint.npz").read_bytes()
            kept = self._checkpoint(path, begun)
            front = self._search(made(), path)
            self.runs.append((begun, content, self._old(content), made, kept, front))

    def _search(self, strategy: Any, path: Path, *, stop: bool = False) -> str:
        events = 0

        def count(event: Any) -> None:
            nonlocal events
            events += isinstance(event, Evaluated)
            if stop and events > 2:
                raise _Stop

        with mock.patch.multiple(run_folder, _INTERVAL_S=-1.0, _SHARE=0):
            found = search.search(
                SPACE,
                latency=self.model,
                accuracy=search.accuracy.Surrogate(),
                strategy=strategy,
                evaluations=45,
                into=path,
                on_event=count,
            )
        return json.dumps([c.to_dict() for c in found.front])

    @staticmethod
    def _checkpoint(path: Path, begun: bytes) -> Checkpoint:
        with RunFolder(path, json.loads(begun)["settings"]) as folder:
            kept = folder.checkpoint()
        assert kept is not None
        return kept

    @staticmethod
    def _old(content: bytes) -> bytes:
        """The same without digests, as phonenas 0.1 wrote it."""
        with np.load(io.BytesIO(content)) as file:
            arrays = {name: file[name] for name in file.files}
        plain = json.loads(str(arrays["plain"]))
        del plain["digest"], plain["arrays"]
        buffer = io.BytesIO()
        np.savez(buffer, **{**arrays, "plain": np.array(json.dumps(plain))})
        return buffer.getvalue()

    def attempt(self, rng: random.Random, here: Path) -> None:
        begun, content, old, made, kept, front = rng.choice(self.runs)
        path = here / "c"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        undigested = rng.random() < 0.2
        content = mutation.of_arrays(old if undigested else content, rng)
        (path / "checkpoint.npz").write_bytes(content)
        (path / "run.json").write_bytes(_undigested(begun, 1) if undigested else begun)
        if rng.random() < 0.05:
            found = self._checkpoint(path, begun)
        else:
            settings = read_run(path)["settings"]
            kept_now = read_checkpoint(path, settings, digested=not undigested)
            assert kept_now is not None
            found = kept_now
        if not undigested and _plain(found) != _plain(kept):
            raise Other("the checkpoint is another")
        if rng.random() < (0.15 if undigested else 0.02):
            result = self._search(made(), path)
            if not undigested and result != front:
                raise Other("the search ends with another front")


def _plain(kept: Checkpoint) -> tuple[Any, ...]:
    state = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in kept.state.items()}
    evaluated = kept.evaluations
    numbers = (evaluated.genomes.tobytes(), evaluated.to_array().tobytes(), evaluated.failed)
    return repr(state), *numbers, kept.repeats, kept.seconds, repr(kept.log), kept.stale


class Stores(Kind):
    """Stores of measurements."""

    name = "stores"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.store = folder / "s.db"
        subjects = [devices.Subject("operator", o) for o in SPACE.operators()[:3]]
        subjects += [devices.Subject("kernel", k) for k in sample(2, 0)]
        subjects += [devices.Subject("onnx", RandomCNN(0))]
        protocol = replace(devices.Protocol(), apart_s=0.0, operator_rounds=2, network_rounds=2)
        phone = SimulatedPhone("sim", throttle=None, load=None)
        with data.MeasurementStore(self.store) as store, phone:
            devices.measure(subjects, on=phone, into=store, protocol=protocol)
            (here, *_) = store.conditions("sim")
            store.reject(here, [("conv", "it has no time")])
            store.set_relative(here, "other", "0123456789ab")
            store.pending(here, "operator", ["conv_k3_s1_14x14x8_8"])
            data.export(store, folder / "x.csv")  # its libraries are loaded once, not in each piece
        self.content = self.store.read_bytes()

    def attempt(self, rng: random.Random, here: Path) -> None:
        path = here / "m.db"
        for file in here.glob("m.db*"):
            file.unlink()
        path.write_bytes(self.content)
        mutation.of_database(path, rng)
        with data.MeasurementStore(path, read_only=rng.random() < 0.3) as store:
            known = store.conditions()
            for conditions in rng.sample(known, min(len(known), 1)):
                calls: list[Callable[[], Any]] = [
                    lambda c=conditions: store.latest(c, ("operator", "network")),
                    lambda c=conditions: store.begun(c, "operator"),
                    lambda c=conditions: store.rejections(c),
                    lambda c=conditions: store.relative(c),
                    lambda c=conditions: store.count(c),
                    lambda c=conditions: store.pending(c, "kernel", ["x"]),
                    lambda: data.export(store, here / "x.csv"),
                ]
                for call in rng.sample(calls, 2):
                    call()
                for taken in store.measurements(conditions, all_series=True):
                    if not (0 < taken.latency_ms < 1e9 and taken.at):
                        raise ValueError(f"{taken.subject} takes {taken.latency_ms} ms")


class Models(_Modelled):
    """Files of models: latency, kernels, the accuracy surrogate."""

    name = "models"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        few = SPACE.operators()[::2]
        regressor = OperatorRegressor.fit({o: self.model.table.ms[o] for o in few})
        self.model = replace(self.model, times=replace(self.model.times, regressor=regressor))
        self.networks = [SPACE.decode(g) for g in SPACE.sample(np.random.default_rng(5), 2)]
        self.cut = cut(to_onnx(self.networks[0]))
        self.files = {
            "latency": self.model.save(folder / "l.json").read_bytes(),
            "kernels": self.with_kernels().save(folder / "k.json").read_bytes(),
            "surrogate": table_path().read_bytes(),
        }
        self.old = {"latency": _undigested(self.files["latency"], 3)}

    @cached_property
    def true_ms(self) -> bytes:
        return bytes(self.model.latency_ms(self.networks).tobytes())

    def attempt(self, rng: random.Random, here: Path) -> None:
        name = rng.choice([*self.files])
        old = name in self.old and rng.random() < 0.15
        path = here / "model.json"
        path.write_bytes(mutation.of_json((self.old if old else self.files)[name], rng))
        if name == "surrogate":
            estimator(f"surrogate:{path}").estimate(self.networks)
            return
        found = latency_model.load(path)
        if not old and found.digest != self.model.digest:
            raise Other("another latency model")
        found.predict([*self.networks, self.cut] if found.kernels else self.networks)
        found.operators(self.networks[0].operators())


class Settings(Kind):
    """devices.toml."""

    name = "devices"
    text = """
[pixel6]
transport = "adb"
address = "1A2B3C4D"
runtime = "benchmark_model"
binary = "bin/benchmark_model"
threads = 4
cores = [4, 5, 6, 7]
fixed_performance = true
wait_below_c = 40.5

[pi]
transport = "ssh"
address = "pi@raspberrypi"
port = 2222
config = "ssh.conf"
python = "/usr/bin/python3"
precision = "float32"
provider = "CPUExecutionProvider"

[sim]
transport = "simulated"
address = "7"
threads = 2
cores = "little"

[board]
transport = "local"
runtime = "litert"
phone = false
"""

    def attempt(self, rng: random.Random, here: Path) -> None:
        path = here / "devices.toml"
        path.write_bytes(mutation.of_toml(self.text.strip().encode(), rng))
        from phonenas.devices.registry import assemble

        for found in read_settings(path).values():
            if isinstance(found, Refused):
                raise found.error
            if found.name != "local":
                assemble(found)


def _forked(
    command: Sequence[str], *, timeout: float, **_: Any
) -> subprocess.CompletedProcess[bytes]:
    """`subprocess.run` of a Python program in a fork, in which its libraries are loaded already."""
    program, words = command[3], command[4:]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as told:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(told.fileno(), 2)
                signal.setitimer(signal.ITIMER_REAL, 0)
                sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
                sys.argv = ["-c", *words]
                exec(program, {"__name__": "__main__"})
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        end = time.monotonic() + timeout
        try:
            while not (done := os.waitpid(child, os.WNOHANG))[0]:
                if time.monotonic() > end:
                    raise subprocess.TimeoutExpired(command, timeout)
                time.sleep(0.002)
            child = 0
        finally:
            if child:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        out.seek(0)
        told.seek(0)
        return subprocess.CompletedProcess(
            command, os.waitstatus_to_exitcode(done[1]), out.read(), told.read()
        )


class Onnx(_Modelled):
    """ONNX files, cut into kernels and predicted."""

    name = "onnx"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.fitted = self.with_kernels()
        nets = [space.Architecture.parse(_NETWORK), zoo.find("mnasnet-small", 0.35, 32)]
        self.files = [to_onnx(n).SerializeToString() for n in nets]
        self.files += [RandomCNN(i).to_onnx().SerializeToString() for i in (1, 2)]
        self.graphs = [self._light(content) for content in self.files]
        import numpy.random  # noqa: F401  # and what else `_forked` finds loaded
        import onnx.inliner  # noqa: F401
        import onnxruntime  # noqa: F401

    @staticmethod
    def _light(content: bytes) -> bytes:
        from phonenas.space.onnx_file import without_weights

        return without_weights(content)

    def attempt(self, rng: random.Random, here: Path) -> None:
        path = here / "x.onnx"
        way = rng.random()
        content = rng.choice(self.graphs if way < 0.7 else self.files)
        changed = self._changed(content, rng) if way < 0.5 else mutation.of_bytes(content, rng)
        path.write_bytes(changed)
        started = subprocess.run if rng.random() < 0.02 else _forked
        with mock.patch.object(onnx_check.subprocess, "run", started):
            self._read(path, rng)

    def _read(self, path: Path, rng: random.Random) -> None:
        if rng.random() < 0.8:  # most are refused here, where it is quick
            cut(path, run_once=False)
        else:
            network_file(str(path))
        if rng.random() < 0.5:
            return
        name = str(path)
        row = predicted_row(self.fitted, name, any_network(name, path, self.fitted), True, 10.0)
        if not 0 < row["low_ms"] <= row["latency_ms"] <= row["high_ms"] < 1e9:
            raise ValueError(f"it takes {row['low_ms']} to {row['high_ms']} ms")

    @staticmethod
    def _changed(content: bytes, rng: random.Random) -> bytes:
        import onnx

        model = onnx.ModelProto.FromString(content)
        graph = model.graph
        sizes = (0, -1, 1, 2, 3, 7, 2**31 - 1, 2**31, 2**62, -(2**63))
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            way = rng.randrange(12)
            node = rng.choice(graph.node)
            if way == 0:
                values = [*graph.input, *graph.output]
                tensor = rng.choice(values).type.tensor_type
                if tensor.shape.dim:
                    rng.choice(tensor.shape.dim).dim_value = rng.choice(sizes)
            elif way <= 2 and node.attribute:
                attribute = rng.choice(node.attribute)
                if attribute.ints:
                    at = rng.randrange(len(attribute.ints))
                    attribute.ints[at] = rng.choice(sizes)
                attribute.i = rng.choice(sizes)
                attribute.type = rng.randrange(12)
                if rng.random() < 0.3:
                    del attribute.ints[:]
            elif way == 3 and graph.initializer:
                tensor = rng.choice(graph.initializer)
                if tensor.dims:
                    tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(sizes)
                if rng.random() < 0.3:
                    tensor.data_type = rng.randrange(25)
                if rng.random() < 0.3:
                    tensor.raw_data = rng.randbytes(rng.randrange(12))
            elif way == 4:
                node.op_type = rng.choice(
                    [n.op_type for n in graph.node] + ["", "Loop", "Reshape", "Slice", "Resize"]
                )
            elif way == 5 and node.input:
                names = [*node.input, "", *(i.name for i in graph.input), *node.output]
                names += [n.output[0] for n in graph.node if n.output]
                node.input[rng.randrange(len(node.input))] = rng.choice(names)
            elif way == 6:
                del (node.input if rng.random() < 0.5 else node.output)[:]
            elif way == 7:
                graph.node.remove(node)
            elif way == 8:
                graph.node.append(node)
            elif way == 9 and node.output:
                node.output[0] = rng.choice(("", "x\ny", "é" * 300, graph.input[0].name))
            elif way == 10:
                model.opset_import[0].version = rng.choice((0, -1, 1, 7, 11, 99, 2**62))
            else:
                graph.input.append(rng.choice(graph.output))
        return bytes(model.SerializeToString())


class TFLite(Kind):
    """TFLite files, named as a NETWORK, and loaded by the runtime that measures them."""

    name = "tflite"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from phonenas.devices.runtimes import engine_litert
        from phonenas.space.lowering.tflite import to_tflite

        self.content = bytes(to_tflite(space.Architecture.parse(_NETWORK)))
        self.engine = engine_litert.Engine({"threads": 1})

    def attempt(self, rng: random.Random, here: Path) -> None:
        path = here / "x.tflite"
        path.write_bytes(mutation.of_bytes(self.content, rng))
        cut_file(str(path))
        network_file(str(path))


KINDS: dict[str, type[Kind]] = {
    k.name: k for k in (Runs, Checkpoints, Stores, Models, Settings, Onnx, TFLite)
}
