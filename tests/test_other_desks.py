"""A desk without Linux: what phonenas does where the parts that only Linux has are hidden.

`other_desks.py` hides them and runs whole commands. No Mac and no computer with Windows took part.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S

from phonenas.data import files
from phonenas.devices.transports import adb, process, ssh
from phonenas.devices.transports.base import Answer, bounded, how_to_install
from phonenas.devices.transports.local import LocalTransport
from phonenas.devices.transports.process import Process
from phonenas.latency_model.graphs import onnx_check
from phonenas.space.errors import DeviceUnavailable
from phonenas.space.file_inputs import link_or_copy

HERE = Path(__file__).parent
SPACE = """\
resolution = 64
[stem]
filters = 16
[[blocks]]
op = "mbconv"
filters = [16, 24]
kernel = [3, 5]
expansion = [3, 6]
layers = [1, 2]
stride = 2
[[blocks]]
op = "mbconv"
filters = [32, 40]
kernel = [3, 5]
expansion = [3, 6]
layers = [1, 2]
stride = 2
"""
STUDY = """\
out = "runs/study"
device = "sim"
space = "mine.toml"
[profile]
operators = 30
networks = 10
[fit]
[search]
target = "4"
evaluations = 200
[validate]
top = 2
[report]
"""


# -- single parts, quick --------------------------------------------------------------------------


@pytest.fixture
def no_fcntl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)  # its import fails
    monkeypatch.delattr(os, "O_NONBLOCK")  # as Windows lacks it
    files._tell_no_locks.cache_clear()


@pytest.mark.usefixtures("no_fcntl")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_without_file_locks_a_note_is_kept_and_that_is_told_once(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "one"
    if kind == "folder":
        path.mkdir()
    note = path / ".phonenas-owner" if kind == "folder" else path
    with caplog.at_level(logging.WARNING, "phonenas"):
        with files.Lock(path) as first, files.Lock(path):
            assert first.fileno() == -1 and first.error is None
            assert f'"pid": {os.getpid()}' in note.read_text(encoding="utf-8")
        first.close()
    assert [r.getMessage().partition(":")[0] for r in caplog.records] == [
        "this system has no file locks"
    ]
    assert not (path / ".phonenas-owner").exists()
    with files.TemporaryFolder() as folder:
        assert folder.is_dir()
    assert not folder.exists()


def test_whether_a_process_works_is_not_known_with_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise AssertionError("with Windows this ends the process")

    lock = files.Lock(tmp_path)
    assert files.at_work(tmp_path)[0] is True
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", kill)
    works, told = files.at_work(tmp_path)
    assert works is None and "not known" in told
    lock.close()


def test_a_file_is_copied_where_no_link_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_right(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "A required privilege is not held by the client")

    source = tmp_path / "a.onnx"
    source.write_bytes(b"model")
    assert link_or_copy(source, tmp_path / "link").is_symlink()
    monkeypatch.setattr(os, "symlink", no_right)
    copy = link_or_copy(source, tmp_path / "copy")
    assert not copy.is_symlink() and copy.read_bytes() == b"model"


def test_a_linked_file_is_sent_over_ssh_and_not_its_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []

    def run(self: object, command: list[str], limit_s: float, data: bytes) -> Answer:
        sent.append(data)
        return Answer(0, "")

    monkeypatch.setattr(ssh.SshTransport, "_run", run)
    (tmp_path / "own.onnx").write_bytes(b"model")
    link = link_or_copy(tmp_path / "own.onnx", tmp_path / "1.onnx")
    transport = ssh.SshTransport("board", "host")
    transport.folder = "/tmp/there"
    assert transport.push([link], limit_s=1.0) == ["/tmp/there/1.onnx"]
    with tarfile.open(fileobj=BytesIO(sent[0])) as archive:
        (member,) = archive.getmembers()
        content = archive.extractfile(member)
        assert member.isreg() and content is not None and content.read() == b"model"


def test_a_program_that_takes_too_long_is_ended_without_groups_of_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "killpg")
    with pytest.raises(DeviceUnavailable, match="did not answer within 0 s"):
        bounded("x", [sys.executable, "-c", "import time; time.sleep(600)"], limit_s=0.1)


def test_lines_are_read_where_pipes_cannot_be_selected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.sys, "platform", "win32")
    monkeypatch.delattr(process.selectors, "DefaultSelector")
    program = "import sys; print('{\"a\": 1}'); print('x', flush=True); input(); print('y')"
    talk = Process("x", [sys.executable, "-c", program], keep_open=[-1])
    assert talk.answer(PATIENCE_S) == {"a": 1} and talk.line(PATIENCE_S) == "x"
    with pytest.raises(DeviceUnavailable, match="did not answer"):
        talk.line(0.05)
    talk.ask({})
    assert talk.line(PATIENCE_S) == "y"
    for _ in range(2):
        with pytest.raises(DeviceUnavailable, match="ended with code 0"):
            talk.line(PATIENCE_S)
    talk.close()


def test_adb_is_found_where_androids_sdk_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert adb.found_adb() is None
    # A variable that is not set is no folder of that name here.
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ANDROID_SDK_ROOT", raising=False)
    here = tmp_path / "$ANDROID_HOME" / "platform-tools" / "adb"
    here.parent.mkdir(parents=True)
    here.write_text("#!/bin/sh\n", encoding="utf-8")
    here.chmod(0o700)
    assert adb.found_adb() is None
    program = tmp_path / "Library" / "Android" / "sdk" / "platform-tools" / "adb"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho 'List of devices attached'\n", encoding="utf-8")
    program.chmod(0o700)
    assert adb.found_adb() == str(program)
    assert adb.attached() == ()
    monkeypatch.setenv("PATH", str(program.parent))
    assert adb.found_adb() == "adb"


@pytest.mark.parametrize(
    ("system", "adb_by", "ssh_by"),
    [
        ("linux", "apt install adb", "apt install openssh-client"),
        ("freebsd14", "apt install adb", "apt install openssh-client"),
        ("darwin", "brew install android-platform-tools", "part of macOS"),
        ("win32", "Android's platform-tools", "OpenSSH Client"),
    ],
)
def test_how_a_program_is_installed_follows_the_system(
    system: str, adb_by: str, ssh_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert adb_by in how_to_install("adb") and ssh_by in how_to_install("ssh")
    assert adb_by in how_to_install("/home/me/Android/Sdk/platform-tools/adb")
    assert how_to_install("taskset") == "taskset"


def test_a_computer_with_windows_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    transport = LocalTransport("local")
    assert transport.state()[0] == "no shell"
    with pytest.raises(DeviceUnavailable, match="local: a computer with Windows cannot be measur"):
        transport.open()


@pytest.mark.parametrize("error", ["ValueError('exceeds')", "OSError(22)", "AttributeError()"])
def test_a_file_is_loaded_where_memory_cannot_be_limited(error: str) -> None:
    stub = f"""
import sys, types
def refuse(*_): raise {error}
sys.modules["resource"] = types.SimpleNamespace(
    RLIMIT_AS=1, RLIMIT_CORE=2, RLIM_INFINITY=-1, getrlimit=lambda k: (-1, -1), setrlimit=refuse)
"""
    program = f"{stub}{onnx_check._LIMITED}\nprint('loaded')"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, "x", "1000"], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("loaded\n", "")


# ssh [options] -- HOST LINE: the line runs here. A master makes its socket.
SSH = """\
#!/bin/sh
export TMPDIR="{place}"
while [ "$1" != -- ]; do
  case $1 in
    ControlPath=*) control=${{1#*=\\"}}; control=${{control%\\"}};;
    ControlMaster=yes) master=1;;
  esac
  shift
done
[ -z "$master" ] || : >"$control"
shift 2
exec sh -c "$*"
"""


# -- whole commands, where the parts are hidden ---------------------------------------------------


def at_desk(
    system: str, commands: list[list[str]], folder: Path, environment: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What each command says, one after the other in one process."""
    asked = folder / "commands.json"
    asked.write_text(json.dumps(commands), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(HERE / "other_desks.py"), system, str(asked)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=dict(environment),
        timeout=PATIENCE_S * 5,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o700)
    return path


@pytest.fixture
def desk(tmp_path: Path, environment: dict[str, str]) -> dict[str, str]:
    """A folder with a space, a study and devices, and an adb and an ssh that are none."""
    (tmp_path / "mine.toml").write_text(SPACE, encoding="utf-8")
    (tmp_path / "study.toml").write_text(STUDY, encoding="utf-8")
    python, standins = f"#!{sys.executable} -IS\n", tmp_path / "bin"
    phone = standins / "R1"
    for name in ("bin", "tmp"):
        (phone / name).mkdir(parents=True)
    write_program(standins / "adb", python + (HERE / "standin_adb.py").read_text(encoding="utf-8"))
    shutil.copy(standins / "adb", standins / "adb.EXE")  # what `shutil.which` looks for there
    (standins / "devices").write_text(
        "List of devices attached\nR1  device usb:1-1 product:x model:Pixel_6 transport_id:1\n"
    )
    write_program(standins / "ssh", SSH.format(place=phone / "tmp"))
    shutil.copy(standins / "ssh", standins / "ssh.EXE")
    worker = write_program(
        standins / "worker",
        f'#!/bin/sh\nshift\nexec {sys.executable} -IS "{standins / "worker.py"}" "$@"\n',
    )
    shutil.copy(HERE / "standin_worker.py", standins / "worker.py")
    tables = ['[sim]\ntransport = "simulated"\n']
    tables += [
        f'[{kind}]\ntransport = "{kind}"\naddress = "R1"\npython = "{worker}"\nphone = false\n'
        for kind in ("adb", "ssh")
    ]
    (tmp_path / "devices.toml").write_text("".join(tables), encoding="utf-8")
    path = f"{standins}:{os.environ['PATH']}"
    return {**environment, "PATH": path, "TMPDIR": str(tmp_path), "PHONENAS_DB": "s.db"}


COMMANDS = """\
devices
doctor
profile --device sim --space mine.toml --operators 30 --networks 10
fit --device sim
search --device sim --space mine.toml --target 4 --evaluations 300 --out runs/a
validate runs/a --device sim --top 2
report runs/a
show runs/a
export-network runs/a:0 --out network.onnx
export measurements.csv
compare runs/a:0 mobilenet-v2 --device pixel4/tflite/cpu-1large/float32
predict network.onnx --device pixel4/tflite/cpu-1large/float32
search --device pixel4/tflite/cpu-1large/float32 --target 30 --evaluations 200 --out runs/pixel4
report runs/pixel4
run study.toml
profile --device adb --network network.onnx --quick
profile --device ssh --network network.onnx --quick
init study --yes --out other.toml
examples search
"""


@pytest.mark.slow
@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_all_commands_run_where_the_parts_of_linux_are_hidden(
    system: str, desk: dict[str, str], tmp_path: Path
) -> None:
    commands = [["import"], *(line.split() for line in COMMANDS.splitlines())]
    first, *results = at_desk(system, commands, tmp_path, desk)
    assert first == {"failed": []}
    assert len(results) == len(commands) - 1
    for result in results:
        assert result["code"] == 0, json.dumps(result)[-3000:]
    rows = results[0]["out"]
    assert "SIMULATED" in results[5]["out"]
    assert (tmp_path / "runs" / "study" / "report.html").exists() or list(
        (tmp_path / "runs" / "study").rglob("report.html")
    )
    assert (tmp_path / "runs" / "a" / "report.html").stat().st_size > 10**5
    local = next(line for line in rows.splitlines() if line.startswith("local"))
    assert ("no shell" in local) == (system == "win32")
    told = "this system has no file locks"
    assert (told in "".join(r["err"] for r in results)) == (system == "win32")
