"""The real daemons that other tests lean on: what they do, and what becomes of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import servers
from patience import PATIENCE_S, wait_for
from servers import AdbPhones, AdbServer, Postgres, Relay, Sshd

pytest_plugins = ("servers",)


# -- the cable ------------------------------------------------------------------------------------


@pytest.fixture
def echo():
    """A program that says back what it hears, and its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                while said := connection.recv(1 << 16):
                    connection.sendall(said)
            except OSError:
                pass  # a cut cable

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(PATIENCE_S)


@pytest.fixture
def cable(echo):
    relay = Relay(("127.0.0.1", 0), echo)
    yield relay
    relay.stop()


def call(relay: Relay) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", relay.port), timeout=PATIENCE_S)
    connection.sendall(b"hello")
    return connection


def test_the_cable_carries_bytes_and_their_end(cable: Relay) -> None:
    sent = os.urandom(5_000_000)
    with call(cable) as connection:
        assert connection.recv(5) == b"hello"
        writer = threading.Thread(
            target=lambda: (connection.sendall(sent), connection.shutdown(socket.SHUT_WR))
        )
        writer.start()
        heard = bytearray()
        while more := connection.recv(1 << 16):
            heard += more
        writer.join(PATIENCE_S)
    assert bytes(heard) == sent


def test_unplugged_by_reset_nothing_stays_and_nothing_enters(cable: Relay) -> None:
    with call(cable) as connection:
        assert connection.recv(5) == b"hello"
        cable.unplug()
        with pytest.raises(ConnectionResetError):
            connection.recv(5)
    with pytest.raises(ConnectionRefusedError):
        call(cable)
    port = cable.port
    cable.plug()
    assert cable.port == port
    with call(cable) as connection:
        assert connection.recv(5) == b"hello"


def test_unplugged_in_silence_bytes_wait(cable: Relay) -> None:
    with call(cable) as old:
        assert old.recv(5) == b"hello"
        cable.unplug("silent")
        old.sendall(b"later")
        with call(cable) as new:
            for connection in (old, new):
                connection.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    connection.recv(5)
            cable.plug()
            new.settimeout(PATIENCE_S)
            assert new.recv(5) == b"hello"
        old.settimeout(PATIENCE_S)
        assert old.recv(5) == b"later"


def test_a_cable_that_leads_nowhere_resets() -> None:
    relay = Relay(("127.0.0.1", 0), ("127.0.0.1", servers.free_port()))
    try:
        with pytest.raises(OSError), call(relay) as connection:
            connection.recv(1)
            raise ConnectionResetError  # an end is as good as a reset
    finally:
        relay.stop()
        relay.stop()


def test_what_is_missing_skips_and_fails_where_it_was_promised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PHONENAS_REAL", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-thing is not .* tools/real.sh"):
        servers.program("no-such-thing")
    monkeypatch.setenv("PHONENAS_REAL", "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-thing is not .* tools/real.sh"):
        servers.program("no-such-thing")


_DIES = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from servers import Guarded
from pathlib import Path
folder = Path(sys.argv[2])
command = ["sh", "-c", "trap '' HUP TERM INT; sleep 77 & echo $! > child; sleep 77"]
daemon = Guarded(command, log=folder / "log", folder=folder, grace_s=0.2)
while not ((folder / "child").exists() and (folder / "child").read_text().strip()):
    time.sleep(0.01)
print(daemon.pid, (folder / "child").read_text(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_daemon_its_children_and_its_folder_go_with_the_tests(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    tests = str(Path(__file__).parents[2])
    done = servers.run([sys.executable, "-c", _DIES, tests, str(folder)])
    assert done.returncode == -signal.SIGKILL, done.stderr
    daemon, child = done.stdout.split()
    for pid in (daemon, child):
        wait_for(f"the end of {pid}", lambda pid=pid: not Path(f"/proc/{pid}").exists())
    wait_for("the removal", lambda: not folder.exists())


# -- adbd -----------------------------------------------------------------------------------------


@pytest.mark.adbd
def test_adb_runs_commands_and_gives_their_exit_codes(adb_phones: AdbPhones) -> None:
    first, _ = adb_phones.serials
    adb = adb_phones.server.adb
    assert adb("-s", first, "shell", "echo hi").stdout == "hi\n"
    assert adb("-s", first, "shell", "echo no >&2; exit 3").returncode == 3
    assert adb("-s", first, "get-state").stdout == "device\n"


@pytest.mark.adbd
def test_adb_carries_files(adb_phones: AdbPhones, tmp_path: Path) -> None:
    first, _ = adb_phones.serials
    there = adb_phones.devices[0].folder / "file"
    (tmp_path / "sent").write_bytes(os.urandom(3_000_000))
    adb = adb_phones.server.adb
    assert adb("-s", first, "push", str(tmp_path / "sent"), str(there)).returncode == 0
    assert there.read_bytes() == (tmp_path / "sent").read_bytes()
    assert adb("-s", first, "pull", str(there), str(tmp_path / "got")).returncode == 0
    assert (tmp_path / "got").read_bytes() == there.read_bytes()
    assert adb("-s", first, "pull", "/no/such", str(tmp_path / "x")).returncode == 1


@pytest.mark.adbd
def test_two_devices_at_once(adb_phones: AdbPhones) -> None:
    def ask(n: int) -> str:
        serial = adb_phones.serials[n % 2]
        return adb_phones.server.adb("-s", serial, "shell", f"sleep 0.1; echo {n}; pwd").stdout

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(ask, range(8)))
    folders = [str(device.folder) for device in adb_phones.devices]
    assert told == [f"{n}\n{folders[n % 2]}\n" for n in range(8)]
    assert adb_phones.server.adb("shell", "true").returncode == 1  # more than one device


def once(flag: Path) -> str:
    """A shell command that ends once this file is there; daemons run on this computer."""
    return f"while [ ! -e {flag} ]; do sleep 0.05; done"


def start(phones: AdbPhones, command: str) -> subprocess.Popen[str]:
    """A command under way on the first device."""
    process = subprocess.Popen(
        ["adb", "-s", phones.serials[0], "shell", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=phones.environment,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.adbd
def test_unplugged_in_mid_command_adb_says_that_all_is_well(adb_phones: AdbPhones) -> None:
    """What was printed before arrives, then nothing; the exit code is 0, on stderr is nothing.

    So an exit code proves nothing: only what a command prints last shows that it ended. The
    server sees a lost connection and calls the device offline; plugged in, it reconnects.
    """
    first, second = adb_phones.serials
    command = start(adb_phones, "echo begun; sleep 4321; echo ended; exit 5")
    adb_phones.devices[0].unplug()
    assert command.communicate(timeout=PATIENCE_S) == ("", "")
    assert command.returncode == 0
    adb = adb_phones.server.adb
    lost = adb("-s", first, "shell", "echo hi")
    assert (lost.returncode, lost.stdout) == (1, "")
    assert "offline" in lost.stderr or "not found" in lost.stderr
    refused = adb("connect", first)
    assert refused.returncode == 0
    assert refused.stdout.startswith(("failed to connect", "already connected"))
    assert adb("-s", second, "shell", "echo hi").stdout == "hi\n"
    adb_phones.devices[0].plug()
    adb_phones.server.connect(adb_phones.devices[0])
    assert adb("-s", first, "shell", "echo hi").stdout == "hi\n"


@pytest.mark.adbd
def test_a_silent_cable_hangs_adb_until_it_speaks_again(
    adb_phones: AdbPhones, tmp_path: Path
) -> None:
    """Nothing tells a lost network from a long command: only a time limit of one's own does."""
    first, _ = adb_phones.serials
    flag = tmp_path / "flag"
    command = start(adb_phones, f"echo begun; {once(flag)}; echo ended; exit 5")
    adb_phones.devices[0].unplug("silent")
    flag.touch()
    with pytest.raises(subprocess.TimeoutExpired):
        command.wait(0.6)
    assert adb_phones.server.state(first) == "device"
    with pytest.raises(subprocess.TimeoutExpired):
        adb_phones.server.adb("-s", first, "shell", "echo hi", seconds=0.3)
    adb_phones.devices[0].plug()
    assert command.communicate(timeout=PATIENCE_S) == ("ended\n", "")
    assert command.returncode == 5


@pytest.mark.adbd
def test_a_restarted_daemon_is_offline_until_it_is_connected_anew(adb_phones: AdbPhones) -> None:
    first, _ = adb_phones.serials
    adb, device = adb_phones.server.adb, adb_phones.devices[0]
    command = start(adb_phones, "echo begun; trap '' HUP; sleep 4321; echo ended")
    device.kill()
    assert command.communicate(timeout=PATIENCE_S) == ("", "")
    assert command.returncode == 0
    wait_for("offline", lambda: adb_phones.server.state(first) in ("offline", ""))
    device.restart()
    assert device.address == first
    assert adb("disconnect", first).returncode == 0
    adb_phones.server.connect(device)
    assert adb("-s", first, "shell", "echo hi").stdout == "hi\n"


@pytest.mark.adbd
def test_a_killed_server_is_replaced_by_one_that_knows_no_device(adb_phones: AdbPhones) -> None:
    first, _ = adb_phones.serials
    command = start(adb_phones, "echo begun; sleep 4321; echo ended")
    adb_phones.server.kill()
    assert command.communicate(timeout=PATIENCE_S) == ("", "")
    assert command.returncode == 0
    lost = adb_phones.server.adb("-s", first, "shell", "echo hi")  # starts one
    assert (lost.returncode, lost.stdout) == (1, "")
    assert "not found" in lost.stderr
    adb_phones.heal()
    assert adb_phones.server.adb("-s", first, "shell", "echo hi").stdout == "hi\n"


@pytest.mark.adbd
def test_a_server_ends_whoever_started_it() -> None:
    server = AdbServer()
    server.kill()
    assert not server.answers()
    assert server.adb("devices").returncode == 0
    assert server.answers()
    server.stop()
    assert not server.answers()
    assert not server.folder.exists()


# -- ssh ------------------------------------------------------------------------------------------


@pytest.mark.sshd
def test_ssh_runs_commands_and_gives_their_exit_codes(sshd: Sshd) -> None:
    done = sshd.ssh("echo hi; exit 4")
    assert (done.returncode, done.stdout) == (4, "hi\n")


@pytest.mark.sshd
def test_ssh_carries_files(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(os.urandom(3_000_000))
    scp = ["scp", "-q", "-F", str(sshd.config), str(tmp_path / "sent")]
    done = servers.run([*scp, f"{sshd.host}:{sshd.folder}/got"])
    assert done.returncode == 0, done.stderr
    assert (sshd.folder / "got").read_bytes() == (tmp_path / "sent").read_bytes()


@pytest.mark.sshd
def test_another_host_key_is_refused_until_it_is_trusted(sshd: Sshd) -> None:
    sshd.change_host_key()
    refused = sshd.ssh("echo hi")
    assert (refused.returncode, refused.stdout) == (255, "")
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in refused.stderr
    sshd.trust()
    assert sshd.ssh("echo hi").stdout == "hi\n"


def session(sshd: Sshd, command: str, *options: str) -> subprocess.Popen[str]:
    """A command under way there."""
    process = subprocess.Popen(
        ["ssh", "-F", str(sshd.config), "-o", "BatchMode=yes", *options, sshd.host, command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.sshd
def test_a_dropped_session_is_255_and_its_command_lives_on(sshd: Sshd, tmp_path: Path) -> None:
    flag, mark = tmp_path / "flag", tmp_path / "mark"
    command = session(sshd, f"echo begun; {once(flag)}; echo ended > {mark}; exit 3")
    sshd.drop()
    told, _ = command.communicate(timeout=PATIENCE_S)
    assert (command.returncode, told) == (255, "")
    assert sshd.ssh("echo hi").stdout == "hi\n"
    flag.touch()
    wait_for("the command that was left alone", mark.exists)


@pytest.mark.sshd
def test_ssh_unplugged(sshd: Sshd) -> None:
    command = session(sshd, "echo begun; sleep 4321")
    sshd.unplug()
    command.communicate(timeout=PATIENCE_S)
    assert command.returncode == 255
    assert sshd.ssh("echo hi").returncode == 255
    sshd.plug()
    assert sshd.ssh("echo hi").stdout == "hi\n"


@pytest.mark.sshd
def test_a_silent_network_hangs_ssh_unless_it_asks_for_signs_of_life(
    sshd: Sshd, tmp_path: Path
) -> None:
    alive = ("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1")
    asking = session(sshd, "echo begun; sleep 4321", *alive)
    flag = tmp_path / "flag"
    patient = session(sshd, f"echo begun; {once(flag)}; echo ended")
    sshd.unplug("silent")
    flag.touch()
    asking.communicate(timeout=PATIENCE_S)
    assert asking.returncode == 255
    assert sshd.ssh("true", options=["-o", "ConnectTimeout=1"]).returncode == 255
    assert patient.poll() is None
    sshd.plug()
    assert patient.communicate(timeout=PATIENCE_S) == ("ended\n", "")
    assert patient.returncode == 0


# -- PostgreSQL -----------------------------------------------------------------------------------


@pytest.mark.postgres
def test_postgres_answers_and_comes_back(postgres: Postgres, postgres_url: str) -> None:
    import sqlalchemy as sa
    from sqlalchemy import exc

    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        assert connection.execute(sa.text("SELECT 1")).scalar() == 1
        connection.execute(sa.text("CREATE TABLE kept (n INTEGER)"))
        connection.execute(sa.text("INSERT INTO kept VALUES (7)"))
    postgres.restart()
    with pytest.raises(exc.OperationalError), engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT n FROM kept")).scalar() == 7
    engine.dispose()
    wrong = sa.create_engine(postgres.url(password="wrong"))
    with pytest.raises(exc.OperationalError, match="password authentication failed"):
        wrong.connect()
    postgres.halt()
    assert not postgres.answers()
