"""Workers on a real Ray cluster: two nodes on this machine, killed and removed in mid-work."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import standin_tasks as tasks
from patience import PATIENCE_S, wait_for

from phonenas import data, devices
from phonenas.data.images import held_out
from phonenas.data.images.image_set import ImageSet
from phonenas.devices import Job
from phonenas.devices.measuring.events import Subject
from phonenas.devices.measuring.protocol import Protocol
from phonenas.search.cluster import device_workers, ray_workers
from phonenas.search.cluster.device_workers import DeviceOnNode, device_on
from phonenas.search.cluster.ray_workers import RayWorkers
from phonenas.search.cluster.workers import Needs, Serial, Workers
from phonenas.search.training import folder
from phonenas.search.training.recipe import recipe
from phonenas.space import zoo
from phonenas.space.errors import (
    DeviceError,
    DeviceUnavailable,
    InvalidArgument,
    TaskFailed,
    UnknownName,
    WorkersUnavailable,
)
from phonenas.testing import DeviceContract
from phonenas.testing.workers import WorkersContract
from tests.search.cluster.test_workers import MARK, marked

pytest.importorskip("ray", reason="Ray is not installed: pip install 'phonenas[cluster]'")

pytestmark = [
    pytest.mark.ray,
    # Ray leaves sockets and the handles of its ended programs to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROOT = Path(__file__).parents[3]
OBJECTS = 80 * 2**20
TINY = "r1_k3_s11_e1_i8_o8 r1_k3_s22_e3_i8_o8_se0.25 head16 classes3 res16"


def gone(mark: str) -> list[int]:
    """Those that are left once all are gone, or after a while."""
    deadline = time.monotonic() + PATIENCE_S
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def pids(folder: Path) -> dict[str, int]:
    """By the name of the file in which each call left word, the latest last."""
    files = sorted(folder.glob("*.pid"), key=lambda p: int(p.stem.split("-")[1]))
    return {p.stem: int(p.read_text() or 0) for p in files}


def begun_in(folder: Path, calls: int) -> dict[str, int]:
    def begun() -> bool:
        found = pids(folder)
        return len(found) >= calls and 0 not in found.values()

    wait_for(f"{calls} calls", begun, said=lambda: pids(folder))
    return pids(folder)


@pytest.fixture(scope="module", autouse=True)
def patient() -> Iterator[None]:
    """On a busy computer a node takes a minute to lend a device that was just given back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_workers, "_FREE_S", 2 * PATIENCE_S)
        yield


@pytest.fixture(autouse=True)
def given_back() -> None:
    """A simulated phone's holder, whose clock goes on, ends with the last device that had it."""
    gc.collect()


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What nodes inherit: where the tasks are, and a devices.toml."""
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "devices.toml").write_text(
        '[shelf]\ntransport = "simulated"\naddress = "3"\n'
        '[other]\ntransport = "simulated"\naddress = "4"\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        places = [str(ROOT), str(ROOT / "tests"), *filter(None, before)]
        patch.setenv("PYTHONPATH", os.pathsep.join(places))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PHONENAS_DEVICES", str(folder / "devices.toml"))
        yield folder


@pytest.fixture(scope="module")
def cluster(surroundings: Path) -> Iterator[Any]:
    """A head, and a node with a GPU on paper and two devices on its cables."""
    from ray.cluster_utils import Cluster

    mark = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, mark)
        made = Cluster()
        try:
            made.add_node(num_cpus=1, include_dashboard=False, object_store_memory=OBJECTS)
            held = {"device:shelf": 1, "device:other": 1, "device:nowhere": 1}
            made.add_node(num_cpus=1, num_gpus=1, resources=held, object_store_memory=OBJECTS)
            yield made
        finally:
            made.shutdown()
    assert gone(mark) == []


@pytest.fixture(scope="class")
def on_cluster(cluster: Any) -> Iterator[RayWorkers]:
    with RayWorkers(cluster.address, patience_s=2) as workers:
        yield workers


class TestOnTheCluster(WorkersContract):
    @pytest.fixture
    def workers(self, on_cluster: RayWorkers) -> Workers:
        return on_cluster

    def test_shared_arrays_are_not_copied_for_each_call(self, workers: Workers) -> None:
        images = np.ones((500, 500), np.uint8)
        found = workers.map(tasks.total, [(images, n) for n in range(3)])
        assert [writeable for _, writeable in found] == [False] * 3  # seen where they lie

    def test_what_cannot_travel_names_the_task(self, workers: Workers) -> None:
        with pytest.raises(TaskFailed, match=r"unportable failed in call 1 of 1: .*generator"):
            workers.map(tasks.unportable, [(3,)])

    def test_a_trace_from_the_worker_is_with_the_error(self, workers: Workers) -> None:
        with pytest.raises(TaskFailed) as caught:
            workers.map(tasks.divide, [(1, 0)])
        assert "standin_tasks.py" in "".join(caught.value.__notes__)

    def test_a_gpu_is_shared_by_fractions_and_hidden_from_others(
        self, workers: Workers, tmp_path: Path
    ) -> None:
        half = Needs(0.1, 0.5)
        assert workers.map(
            tasks.meet, [(str(tmp_path), n, 2, PATIENCE_S) for n in range(2)], needs=half
        ) == [True, True]
        (shared,) = workers.map(tasks.surroundings, [()], needs=half)
        (without,) = workers.map(tasks.surroundings, [()], needs=Needs())
        assert (shared[2], without[2]) == ("0", "")
        # A process to which they were hidden is never given one later.
        seen = workers.map(tasks.surroundings, [()] * 4, needs=half)
        assert {gpus for _, _, gpus in seen} == {"0"}
        assert without[0] not in {pid for pid, _, _ in seen}

    def test_a_named_thing_leads_to_the_node_that_has_it(
        self, workers: Workers, cluster: Any
    ) -> None:
        shelf = Needs(0.1, 0, {"device:shelf": 0.5})
        found = workers.map(tasks.surroundings, [()] * 4, needs=shelf)
        assert {node for _, node, _ in found} == {cluster.list_all_nodes()[1].node_id}

    @pytest.mark.parametrize(
        ("needs", "named"),
        [
            (Needs(1, 2), "GPU 2"),
            (Needs(64), "CPU 64"),
            (Needs(0, 0, {"device:pixel6": 1}), "device:pixel6 1"),
        ],
    )
    def test_what_no_node_has_is_told_and_not_waited_for(
        self, workers: Workers, needs: Needs, named: str
    ) -> None:
        with pytest.raises(WorkersUnavailable, match=f"needs .*{named} on one node, and none of 2"):
            workers.map(tasks.add, [(1, 2)], needs=needs)

    def test_a_worker_that_is_killed_is_survived(self, cluster: Any, tmp_path: Path) -> None:
        other = RayWorkers(cluster.address)
        given = [(str(tmp_path), n, n % 2) for n in range(4)]
        assert other.map(tasks.die, given) == [0, 1, 2, 3]  # on the open connection
        other.close()
        begun = sorted(p.stem.split("-")[0] for p in tmp_path.glob("*.pid"))
        assert begun == ["0", "1", "1", "2", "3", "3"]

    def test_a_call_that_ends_each_worker_ends_in_an_error(
        self, workers: Workers, tmp_path: Path
    ) -> None:
        with pytest.raises(TaskFailed, match=r"die: call 1 of 1 took its worker down 4 times"):
            workers.map(tasks.die, [(str(tmp_path), 0, 99)])


def test_it_leaves_no_token_or_handler_and_stdout_as_it_was(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def handler(number: int, frame: Any) -> None:
        raise SystemExit(1)

    monkeypatch.setenv("HOME", str(tmp_path))
    variables, stdout = {k for k in os.environ if k.startswith("RAY_AUTH")}, sys.stdout
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with RayWorkers(cluster.address, count=1) as workers:
            assert workers.map(tasks.add, [(1, 1)]) == [2]
            assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert sys.stdout is stdout
    assert list(tmp_path.iterdir()) == []
    assert {k for k in os.environ if k.startswith("RAY_AUTH")} == variables


def test_a_node_that_does_not_answer_is_told(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = os.getpid()

    def tell() -> dict[str, str]:
        if os.getpid() != here:
            time.sleep(4321)
        return {}

    with RayWorkers(cluster.address) as workers:
        monkeypatch.setattr(ray_workers, "_ANSWER_S", 1.0)
        monkeypatch.setattr(ray_workers, "_teller", lambda: tell)
        workers._known.clear()
        workers._compare({n["NodeID"]: "10.0.0.7" for n in workers.ray.nodes()[:1]})
    assert "node 10.0.0.7 of the Ray cluster did not say within 1 s which versions" in caplog.text


def test_nodes_with_other_versions_are_refused(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version
    other = {"phonenas": "99.0"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: other.get(name) or real(name))
    with pytest.raises(WorkersUnavailable, match=r"phonenas 0\.\d+\.\d+ / 99.0 \(there / here\)"):
        RayWorkers(cluster.address).start()


def test_no_cluster_at_the_address() -> None:
    with pytest.raises(WorkersUnavailable, match=r"can be reached at 127.0.0.1:9: .*refused"):
        RayWorkers("127.0.0.1:9").start()


# -- twenty trainings ----------------------------------------------------------------------------


def test_twenty_trainings_outlive_a_worker_and_a_node(
    cluster: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    chance = np.random.default_rng(0)
    labels = chance.integers(0, 3, 96)
    pixels = (
        chance.integers(0, 256, (96, 16, 16, 3), np.uint8) // 2
        + (labels * 40).astype(np.uint8)[:, None, None, None]
    )
    images, held = held_out(ImageSet.of(pixels, labels), 0.25, seed=0)
    told = recipe("small", epochs=10, batch=12).settings
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    expected = Serial().map(
        tasks.train_small, [(str(alone), n, TINY, told, images, held) for n in range(20)]
    )
    second = cluster.add_node(num_cpus=1, object_store_memory=OBJECTS)
    done: list[int] = []

    def disturb(item: int, result: Any) -> None:
        done.append(item)
        if len(done) in (4, 7):  # the call that was begun last is at work, most likely
            with contextlib.suppress(ProcessLookupError):
                os.kill(list(pids(together).values())[-1], signal.SIGKILL)
        if len(done) == 10:
            cluster.remove_node(second, allow_graceful=False)

    with RayWorkers(cluster.address) as workers:
        found = workers.map(
            tasks.train_small,
            [(str(together), n, TINY, told, images, held) for n in range(20)],
            on_result=disturb,
        )
    assert capfd.readouterr().out == "", "results alone go there"
    assert sorted(done) == list(range(20))
    begun = len(list(together.glob("*.pid")))
    # Which of the two was at work when it was lost depends on the load of the machine.
    assert begun >= 21, "the worker or the node was at work"
    assert len({trained.top1 for trained in expected}) > 1
    for mine, theirs in zip(expected, found, strict=True):
        assert theirs.top1 == mine.top1
        assert [e.loss for e in theirs.curve] == [e.loss for e in mine.curve]
        assert theirs.weights.keys() == mine.weights.keys()
        for name, array in mine.weights.items():
            np.testing.assert_array_equal(theirs.weights[name], array)


def test_what_ray_says_twice_of_a_lost_node_is_not_among_the_results(
    cluster: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    from ray._private.worker import print_to_stdstream  # what its listening thread calls

    said = {"lines": ["Raylet is terminated"], "pid": "raylet", "is_err": False}
    with RayWorkers(cluster.address):
        for _ in range(2):
            listener = threading.Thread(
                target=print_to_stdstream, args=(dict(said),), kwargs={"ignore_prefix": False}
            )
            listener.start()
            listener.join()
    out, err = capfd.readouterr()
    assert out == "", "results alone go there"
    assert err.count("Raylet is terminated") == 2


def test_one_training_on_the_cluster_is_the_one_here(cluster: Any, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = (chance.integers(0, 100, (60, 16, 16, 3)) + 50 * y[:, None, None, None]).astype(np.uint8)
    np.savez(tmp_path / "set.npz", x_train=x[:48], y_train=y[:48], x_test=x[48:], y_test=y[48:])
    words = [
        "train",
        TINY.replace(" classes3", ""),
        "--data",
        str(tmp_path / "set.npz"),
        "--recipe",
        "small",
        "--epochs",
        "3",
        "--batch",
        "12",
        "--threads",
        "1",
    ]
    there = [*words, "--ray", cluster.address, "--gpus", "0.5", "--device", "cpu"]
    for command, out in ((words, "here"), (there, "there")):
        done = subprocess.run(
            [sys.executable, "-m", "phonenas", *command, "--out", str(tmp_path / out)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, done.stderr
    assert "training on the cluster, 3 epochs" in done.stderr
    here, found = folder.load(tmp_path / "here"), folder.load(tmp_path / "there")
    assert [e.loss for e in here.curve] == [e.loss for e in found.curve]
    for name, array in here.weights.items():
        np.testing.assert_array_equal(found.weights[name], array)


# -- Ctrl-C --------------------------------------------------------------------------------------

SCRIPT = """
import sys
import standin_tasks as tasks
from phonenas.search.workers import workers_from

count, address, folder = sys.argv[1:]
with workers_from(int(count), address) as workers:
    workers.map(tasks.sleep, [(folder, n, 4321.0) for n in range(8)])
"""


def interrupted(
    address: str, folder: Path, how: signal.Signals, mark: str
) -> tuple[int, dict[str, int]]:
    """What a program ends with that is stopped while two calls run, and their processes."""
    script = folder / "program.py"
    script.write_text(SCRIPT)
    program = subprocess.Popen(
        [sys.executable, str(script), "2", address, str(folder)],
        env={**os.environ, MARK: mark},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        begun = begun_in(folder, 2)
        if how == signal.SIGINT:
            os.killpg(program.pid, how)  # as a terminal does: to all in the foreground
        else:
            program.send_signal(how)
        program.communicate(timeout=PATIENCE_S)
        return program.returncode, begun
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()


def test_a_stopped_program_leaves_the_users_cluster_free(cluster: Any, tmp_path: Path) -> None:
    code, begun = interrupted(cluster.address, tmp_path, signal.SIGINT, uuid.uuid4().hex)
    assert code != 0
    running = [Path("/proc", str(pid)) for pid in begun.values()]
    wait_for("the end of the calls", lambda: not any(x.exists() for x in running))
    with RayWorkers(cluster.address) as workers:
        assert workers.map(tasks.add, [(1, 2)] * 3) == [3, 3, 3]


# -- devices -------------------------------------------------------------------------------------


class TestDeviceOnNode(DeviceContract):
    @pytest.fixture
    def device(self, on_cluster: RayWorkers) -> devices.Device:
        found = device_on(on_cluster, "shelf")
        assert isinstance(found, DeviceOnNode)
        return found


def test_a_device_there_measures_as_one_here(
    on_cluster: RayWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subjects = [
        Subject("network", zoo.network("mnasnet-small", resolution=64)),
        Subject("network", zoo.network("mnasnet-a1", resolution=64)),
    ]
    protocol = Protocol(network_rounds=2, apart_s=0.0)
    found = []
    for name, device in (
        ("here", devices.connect("shelf")),
        ("there", device_on(on_cluster, "shelf")),
    ):
        with data.MeasurementStore(tmp_path / f"{name}.db") as store, device:
            outcome = devices.measure(subjects, on=device, into=store, protocol=protocol)
            assert store.count(device.conditions) == 2
        found.append({s: m.medians_ms for s, m in outcome.results.items()})
    assert found[0] == found[1]
    assert len(found[0]) == 2


def test_a_model_that_did_not_arrive_is_sent_again(tmp_path: Path) -> None:
    holder = device_workers._Holder("shelf", 1, None)
    device = DeviceOnNode.__new__(DeviceOnNode)
    device._there, device._entered, device.name = {}, True, "shelf"
    full = True

    class Phone:
        def run_ms(self, jobs: Any, *, sentinel: Path, **_: Any) -> Iterator[Any]:
            yield [sentinel.read_bytes(), *(job.model.read_bytes() for job in jobs)]

    def ask(verb: str, fresh: Any, *given: Any, **_: Any) -> Any:
        if full:  # one of them arrives
            holder.run(dict(list(fresh.items())[:1]), [], [], next(iter(fresh)), 1, 0.1)
            raise DeviceError("No space left on device")
        return holder.run(fresh, *given)

    holder.device, device._ask = Phone(), ask  # type: ignore[assignment, method-assign]
    holder.there = lambda: holder.device  # type: ignore[method-assign, return-value, assignment]
    models = []
    for name in ("sentinel", "model"):
        models.append(tmp_path / f"{name}.onnx")
        models[-1].write_bytes(name.encode())
    job = Job(models[1], 3)
    with pytest.raises(DeviceError, match="No space"):
        list(device._readings([job], models[0], 1, 0.1))
    full = False
    for _ in range(2):
        assert list(device._readings([job], models[0], 1, 0.1)) == [[b"sentinel", b"model"]]
    assert holder.folder is not None and len(list(holder.folder.path.iterdir())) == 2
    holder.folder.close()


def test_a_device_is_lent_to_one_at_a_time(
    on_cluster: RayWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    with device_on(on_cluster, "other"):
        with monkeypatch.context() as patch:
            patch.setattr("phonenas.search.cluster.device_workers._FREE_S", 2.0)
            with pytest.raises(DeviceUnavailable, match="other is in use"):
                device_on(on_cluster, "other").__enter__()
    with device_on(on_cluster, "other") as device:  # free again
        assert device.conditions.device == "other"


def test_names_that_no_node_or_file_bears(on_cluster: RayWorkers) -> None:
    with pytest.raises(UnknownName, match=r"No node of the Ray cluster holds it either"):
        device_on(on_cluster, "pixel6")
    with pytest.raises(UnknownName, match=r"on the node that holds nowhere: no device is called"):
        device_on(on_cluster, "nowhere").__enter__()
    assert not isinstance(device_on(on_cluster, "local"), DeviceOnNode)
    assert not isinstance(device_on(Serial(), "local"), DeviceOnNode)


def test_a_node_that_dies_is_a_lost_device(cluster: Any, tmp_path: Path) -> None:
    held = cluster.add_node(
        num_cpus=0, resources={"device:shelf2": 1, "device:local": 1}, object_store_memory=OBJECTS
    )
    with RayWorkers(cluster.address, patience_s=2) as workers:
        device = device_on(workers, "local")
        assert isinstance(device, DeviceOnNode)
        with device:
            assert device.conditions.runtime == "onnxruntime"
            cluster.remove_node(held, allow_graceful=False)
            with pytest.raises(DeviceUnavailable, match="local was lost with the node"):
                for _ in range(300):  # its process notices within a second or so
                    device.telemetry()
                    time.sleep(0.1)
    with pytest.raises(InvalidArgument):
        RayWorkers(cluster.address, count=0)
