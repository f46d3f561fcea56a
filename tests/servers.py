"""Real daemons for the tests: adbd behind a cable, an adb server, sshd, PostgreSQL.

`bash tools/real.sh` installs them. Where one is missing its tests are skipped and say so; with
PHONENAS_REAL=1, as in CI, a missing one is a failure. A test file asks for the fixtures with
`pytest_plugins = ("servers",)` (and may import from here besides: PYTEST_DONT_REWRITE).

Every daemon is on loopback with its own keys, ports and folders, and touches nothing of the user's.
Each runs under a guard, a process that watches its own standard input: when that closes, at
`stop` or because the test process died in whatever way, the guard ends the daemon and all that
came from it. Every wait has a bound.
"""

from __future__ import annotations

import contextlib
import getpass
import inspect
import json
import os
import pwd
import re
import secrets
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal, NoReturn

import pytest
from patience import PATIENCE_S, wait_for

__all__ = ["AdbPhones", "AdbServer", "Adbd", "Postgres", "Relay", "Sshd"]

Cut = Literal["reset", "silent"]

# -- missing parts --------------------------------------------------------------------------------


def missing(what: str) -> NoReturn:
    """Skip the test, or fail it where the real things are promised (PHONENAS_REAL=1)."""
    told = f"{what}. Set it up:  bash tools/real.sh"
    if os.environ.get("PHONENAS_REAL") == "1":
        pytest.fail(told, pytrace=False)
    pytest.skip(told)


def program(name: str) -> str:
    """The path of a program; an administrator's folders count, whatever PATH says."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        missing(f"{name} is not installed")
    return found


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


# -- the cable ------------------------------------------------------------------------------------


class Relay:
    """Carries each connection of one address to another, until it is unplugged.

    Args:
        listen: Where it is reached: (host, port), port 0 for any; or a Unix socket's path.
        upstream: Where it leads, likewise.
    """

    _CHUNK = 1 << 18

    def __init__(self, listen: Any, upstream: Any) -> None:
        self._listen, self._upstream = listen, upstream
        self._listener = self._bound()
        if not isinstance(listen, str):
            self._listen = self._listener.getsockname()[:2]  # the port that was given
        self._listener.listen(64)
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._wanted = self._mode = "up"
        self._changed = threading.Condition()
        self._peer: dict[socket.socket, socket.socket] = {}
        self._waiting: dict[socket.socket, bytearray] = {}  # what is still to be sent to it
        self._ended: set[socket.socket] = set()  # sends no more
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._listen[1])

    def plug(self) -> None:
        """Let new connections in, and let those that were silent go on."""
        self._turn("up")

    def unplug(self, cut: Cut = "reset") -> None:
        """Take the cable out.

        "reset": every connection is reset and new ones are refused, as by a host that lost the
        program. "silent": bytes just stop, both ways; a new connection is taken and stays mute,
        as by a host that lost its network.
        """
        self._turn(cut)

    def stop(self) -> None:
        """Close everything; may be called again."""
        if self._thread.is_alive():
            self._turn("stopped")
            self._thread.join(PATIENCE_S)
        self._wake.close()

    def _turn(self, mode: str) -> None:
        with self._changed:
            self._wanted = mode
            self._wake.send(b"!")
            if not self._changed.wait_for(lambda: self._mode == mode, PATIENCE_S):
                raise TimeoutError(f"the relay did not turn to {mode!r}")

    # From here on the relay's own thread.

    def _bound(self) -> socket.socket:
        if isinstance(self._listen, str):
            listener = socket.socket(socket.AF_UNIX)
        else:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(self._listen)
        listener.setblocking(False)
        return listener

    def _run(self) -> None:
        try:
            while self._mode != "stopped":
                self._step()
        finally:
            self._reset_all()
            self._listener.close()
            self._woken.close()
            with self._changed:
                self._mode = "stopped"
                self._changed.notify_all()

    def _step(self) -> None:
        # A new selector each time: few sockets, and no bookkeeping to get wrong.
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            if self._mode != "silent":
                if self._mode == "up":
                    selector.register(self._listener, selectors.EVENT_READ)
                for end, peer in self._peer.items():
                    events = 0
                    if end not in self._ended and len(self._waiting[peer]) < self._CHUNK:
                        events |= selectors.EVENT_READ
                    if self._waiting[end]:
                        events |= selectors.EVENT_WRITE
                    if events:
                        selector.register(end, events)
            ready = selector.select()
        for key, events in ready:
            one: Any = key.fileobj
            if one is self._woken:
                self._obey()
                return  # what was ready may be closed
            if one is self._listener:
                self._accept()
            elif one in self._peer:
                if events & selectors.EVENT_READ:
                    self._read(one)
                if one in self._peer and events & selectors.EVENT_WRITE:
                    self._write(one)

    def _obey(self) -> None:
        self._woken.recv(64)
        with self._changed:
            if self._wanted == "reset" and self._mode != "reset":
                self._reset_all()
                self._listener.close()
                self._listener = self._bound()  # nobody else gets the port, and nobody is let in
            elif self._mode == "reset" and self._wanted in ("up", "silent"):
                self._listener.listen(64)
            self._mode = self._wanted
            self._changed.notify_all()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        upstream = socket.socket(
            socket.AF_UNIX if isinstance(self._upstream, str) else socket.AF_INET
        )
        upstream.settimeout(PATIENCE_S)
        try:
            upstream.connect(self._upstream)
        except OSError:
            upstream.close()
            self._reset(client)
            return
        for one, other in ((client, upstream), (upstream, client)):
            one.setblocking(False)
            if one.family == socket.AF_INET:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peer[one] = other
            self._waiting[one] = bytearray()

    def _read(self, one: socket.socket) -> None:
        try:
            said = one.recv(self._CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._drop(one)
            return
        if said:
            self._waiting[self._peer[one]] += said
            self._write(self._peer[one])
            return
        self._ended.add(one)
        self._close_if_done(one)

    def _write(self, one: socket.socket) -> None:
        try:
            while self._waiting[one]:
                sent = one.send(self._waiting[one])
                del self._waiting[one][:sent]
        except BlockingIOError:
            return
        except OSError:
            self._drop(one)
            return
        self._close_if_done(self._peer[one])

    def _close_if_done(self, one: socket.socket) -> None:
        """What ended and is passed on whole is ended on the other side too."""
        other = self._peer[one]
        if one not in self._ended or self._waiting[other]:
            return
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)
        if other in self._ended and not self._waiting[one]:
            self._forget(one)
            one.close()
            other.close()

    def _drop(self, one: socket.socket) -> None:
        other = self._peer[one]
        self._forget(one)
        self._reset(one)
        self._reset(other)

    def _forget(self, one: socket.socket) -> None:
        for each in (one, self._peer[one]):
            del self._peer[each], self._waiting[each]
            self._ended.discard(each)

    def _reset_all(self) -> None:
        for one in list(self._peer):
            if one in self._peer:
                self._drop(one)

    @staticmethod
    def _reset(one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()


# -- the guard ------------------------------------------------------------------------------------


def _guard(task: dict[str, Any]) -> None:
    """Run a daemon until it ends, "stop" is said or standard input closes; then end all of it.

    Runs in a process of its own, from this very text. With a "door" it stands in a network
    namespace, and lets connections in from outside by a Unix socket at that path.
    """
    import ctypes
    import fcntl

    # Orphans of the daemon become children of this process, so that none is lost.
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with Path(task["log"]).open("ab") as log:
        daemon = subprocess.Popen(
            task["command"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            user=task["user"],
            group=task["group"],
            extra_groups=None if task["user"] is None else [],
        )

    def reap() -> bool:
        """Whether the daemon has ended."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == daemon.pid:
                    daemon.returncode = ended[1]
        return daemon.returncode is not None

    def offspring() -> set[int]:
        parents = {}
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parents[int(status.parts[2])] = int(
                    status.read_text(errors="replace").rpartition(")")[2].split()[1]
                )
        found = {os.getpid()}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return found - {os.getpid()}

    if task["door"]:
        with socket.socket() as s:  # a new namespace's loopback is down: SIOC[GS]IFFLAGS, IFF_UP
            flags = fcntl.ioctl(s, 0x8913, struct.pack("16sH22x", b"lo", 0))
            up = struct.unpack_from("H", flags, 16)[0] | 1
            fcntl.ioctl(s, 0x8914, struct.pack("16sH22x", b"lo", up))
        until = time.monotonic() + PATIENCE_S
        while not reap() and time.monotonic() < until:
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", task["port"])) == 0:
                    break
            time.sleep(0.01)
        Relay(task["door"], ("127.0.0.1", task["port"]))
    os.write(1, b"%d\n" % daemon.pid)
    os.close(1)
    orphaned = False
    while not reap():
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select()}
        if 0 in ready:
            orphaned = not os.read(0, 64)
            break
        if woken in ready:
            os.read(woken, 64)
    if not reap():
        os.kill(daemon.pid, task["signal"])
    until = time.monotonic() + task["grace_s"]
    while not reap() and time.monotonic() < until:
        time.sleep(0.01)
    until = time.monotonic() + PATIENCE_S
    while (left := offspring()) and time.monotonic() < until:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        reap()
        time.sleep(0.01)
    if orphaned and task["folder"]:  # nobody else is left to do it
        shutil.rmtree(task["folder"], ignore_errors=True)
    os._exit(0)


_GUARD = f"""
from __future__ import annotations
import contextlib, json, os, selectors, shutil, signal, socket, struct, subprocess, sys
import threading, time
from pathlib import Path
PATIENCE_S = {PATIENCE_S}
{inspect.getsource(Relay)}
{inspect.getsource(_guard)}
_guard(json.loads(sys.argv[1]))
"""


class Guarded:
    """A daemon under its guard.

    Args:
        command: Program and arguments.
        log: File that takes what it prints.
        environment: All of its environment.
        folder: Where it runs; removed if the tests die before they stop it.
        user: Account to run it as, where this one is root; None for this one.
        stop_signal: What `stop` sends first; what is left after `grace_s` seconds is killed.
        wrap: Program and arguments that the guard itself is started by.
        door: Unix socket that leads to `port` of the guard's network namespace.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace_s: float = 5.0,
        wrap: Sequence[str] = (),
        door: Path | None = None,
        port: int = 0,
    ) -> None:
        account = None if user is None else pwd.getpwnam(user)
        task = {
            "command": list(command),
            "log": str(log),
            "user": None if account is None else account.pw_uid,
            "group": None if account is None else account.pw_gid,
            "signal": int(stop_signal),
            "grace_s": grace_s,
            "folder": None if folder is None else str(folder),
            "door": None if door is None else str(door),
            "port": port,
        }
        self.command, self.log, self._grace_s = command, log, grace_s
        with log.open("ab") as errors:
            self._guard = subprocess.Popen(
                [*wrap, sys.executable, "-I", "-S", "-c", _GUARD, json.dumps(task)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                cwd=folder,
                start_new_session=True,  # a Ctrl-C at the terminal is for the tests
            )
        assert self._guard.stdout is not None
        try:
            self.pid = int(_line(self._guard.stdout, PATIENCE_S * 1.5) or 0)
            if not self.pid:
                raise RuntimeError(f"{command[0]} did not start: {self.said()}")
        except BaseException:
            self.stop()
            raise

    def said(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-2000:]

    @property
    def alive(self) -> bool:
        return self._guard.poll() is None

    def kill(self) -> None:
        """End the daemon at once, as a crash would."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """End the daemon and all that came from it; may be called again."""
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # it has ended; so have we before
            self._guard.stdin.write(b"stop")
            self._guard.stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.close()
        self._guard.stdout.close()
        try:
            self._guard.wait(self._grace_s + 1.5 * PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait(PATIENCE_S)
            raise


def _line(stream: IO[bytes], seconds: float) -> bytes:
    """One line of a pipe; what there was by then if it takes longer."""
    found = b""
    until = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while not found.endswith(b"\n") and (left := until - time.monotonic()) > 0:
            if selector.select(left):
                said = os.read(stream.fileno(), 4096)
                if not said:
                    break
                found += said
    return found


def run(
    command: Sequence[str], *, seconds: float = PATIENCE_S, **more: Any
) -> subprocess.CompletedProcess[str]:
    """A program to its end, bounded; its output is text."""
    return subprocess.run(
        command, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL, **more
    )


def _folder() -> Path:
    """A private folder with a short name: a Unix socket's path has at most 107 characters."""
    return Path(tempfile.mkdtemp(prefix="phonenas-test-", dir="/tmp"))


# -- adb ------------------------------------------------------------------------------------------


@cache
def _isolation() -> tuple[str, ...] | None:
    """How a network namespace is had here: as any user, else as root; None where it is not."""
    for flags in ("-rn", "-n"):
        command = (program("unshare"), flags)
        if run([*command, "true"]).returncode == 0:
            return command
    return None


def _adbd_command() -> list[str]:
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(cache_home) / "phonenas" / "adbd-trixie"
    daemon = root / "usr/lib/android-sdk/platform-tools/adbd"
    loaders = sorted((root / "usr/lib").glob("*-linux-gnu*/ld-linux*.so.*"))
    if not daemon.is_file() or not loaders:
        missing("adbd is not set up")
    libraries = loaders[0].parent
    return [str(loaders[0]), "--library-path", f"{libraries}:{libraries}/android", str(daemon)]


class Adbd:
    """A device's side of adb, behind a cable: a real daemon in a network namespace of its own."""

    def __init__(self) -> None:
        command = _adbd_command()
        isolation = _isolation()
        if isolation is None:
            missing("neither `unshare -rn` nor `unshare -n` is allowed here, which adbd needs")
        self.folder = _folder()
        self._command, self._isolation = command, isolation
        self._door = self.folder / "door"
        try:
            self._daemon = self._started()
            self.cable = Relay(("127.0.0.1", 0), str(self._door))
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _started(self) -> Guarded:
        self._door.unlink(missing_ok=True)
        return Guarded(
            self._command,
            log=self.folder / "log",
            environment={"PATH": os.environ["PATH"]},  # a phone has none of the tests' settings
            folder=self.folder,
            wrap=self._isolation,
            door=self._door,
            port=5555,  # adbd's own, on every address: hence the namespace
            grace_s=0.5,
        )

    @property
    def address(self) -> str:
        """Where `adb connect` finds it, which is its serial too: 127.0.0.1:PORT."""
        return f"127.0.0.1:{self.cable.port}"

    @property
    def alive(self) -> bool:
        return self._daemon.alive

    def said(self) -> str:
        """The end of what the daemon printed."""
        return self._daemon.said()

    def unplug(self, cut: Cut = "reset") -> None:
        """The cable is out: connections are reset and refused, or fall silent."""
        self.cable.unplug(cut)

    def plug(self) -> None:
        """The cable is in; adb reconnects by itself or by `adb connect`."""
        self.cable.plug()

    def kill(self) -> None:
        """The daemon and all its commands are gone; the cable stays in."""
        self._daemon.kill()

    def restart(self) -> None:
        """The daemon is killed and started anew; the cable stays in."""
        self.kill()
        self._daemon = self._started()

    def stop(self) -> None:
        """End it and remove its folder."""
        self.cable.stop()
        self._daemon.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class AdbServer:
    """An adb server of the tests' own, on a port of its own, with keys of its own."""

    def __init__(self) -> None:
        self._adb = program("adb")
        self.folder = _folder()
        self.port = free_port()
        # What makes a command speak to this server; nothing here says which device.
        self.settings = {
            "ANDROID_ADB_SERVER_PORT": str(self.port),
            "HOME": str(self.folder),
            "ANDROID_USER_HOME": str(self.folder / ".android"),
            "ANDROID_SDK_HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            # No search for emulators on ports of this computer, which are not ours.
            "ADB_LOCAL_TRANSPORT_MAX_PORT": "5553",
            "ADB_MDNS_AUTO_CONNECT": "0",
        }
        unset = ("ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS", "ANDROID_SERIAL", "ADB_TRACE")
        self.environment = {k: v for k, v in os.environ.items() if k not in unset}
        self.environment |= self.settings
        (self.folder / ".android").mkdir()
        try:
            self._start()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _start(self) -> None:
        self._server = Guarded(
            [self._adb, "-P", str(self.port), "nodaemon", "server"],
            log=self.folder / "log",
            environment=self.environment,
            folder=self.folder,
            grace_s=0.5,
        )
        wait_for("the adb server", self.answers, said=self._server.said)

    def answers(self) -> bool:
        """Whether a server listens on the port, this one or one that a command started."""
        with socket.socket() as s:
            s.settimeout(1)
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def adb(self, *arguments: str, seconds: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Run adb against this server."""
        return run([self._adb, *arguments], seconds=seconds, env=self.environment)

    def state(self, serial: str) -> str:
        """What `adb devices` says of it: device, offline, ...; "" where it is not listed."""
        listed = re.findall(r"^(\S+)\t(.*)$", self.adb("devices").stdout, re.M)
        return str(dict(listed).get(serial, ""))

    def connect(self, device: Adbd) -> None:
        """Connect, anew if need be, and wait until commands are answered."""
        serial, told = device.address, ""

        def answers() -> bool:
            if self.state(serial) != "device":
                return False
            hello = self.adb("-s", serial, "shell", "echo", "hi", seconds=seconds)
            return hello.stdout == "hi\n"

        for seconds in (3, 10, 30, PATIENCE_S):  # a connection may come about that stays mute
            # It tells by its words alone: the exit code is 0 for a refused connection too.
            told = self.adb("connect", serial).stdout
            if told.startswith(("connected to", "already connected")):
                with contextlib.suppress(TimeoutError, subprocess.TimeoutExpired):
                    wait_for("the device", answers, seconds)
                    return
            self.adb("disconnect", serial)
        raise RuntimeError(f"adb does not reach {serial}: {told} {device.said()}")

    def kill(self) -> None:
        """The server is gone, as by a crash; the next adb command would start another."""
        self._server.kill()

    def restart(self) -> None:
        """A server of ours again, whatever became of the last; devices must be connected anew."""
        self._end()
        self._start()

    def _end(self) -> None:
        self._server.stop()
        if self.answers():  # one that a command started in its place
            self.adb("kill-server")
            wait_for("the end of the adb server", lambda: not self.answers())

    @property
    def alive(self) -> bool:
        return self._server.alive

    def stop(self) -> None:
        """End it and remove its folder."""
        self._end()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class AdbPhones:
    """Two devices that one adb server has connected."""

    server: AdbServer
    devices: tuple[Adbd, Adbd]

    @property
    def serials(self) -> tuple[str, str]:
        first, second = self.devices
        return first.address, second.address

    @property
    def environment(self) -> dict[str, str]:
        """For subprocesses: all of an environment in which adb speaks to this server."""
        return self.server.environment

    @property
    def settings(self) -> dict[str, str]:
        """The same as what has to be set, for `monkeypatch.setenv`."""
        return self.server.settings

    def heal(self) -> None:
        """Cables in, daemons and server alive, both devices connected."""
        if not self.server.alive:
            self.server.restart()
        for device in self.devices:
            device.plug()
            if not device.alive:
                device.restart()
            self.server.connect(device)

    def stop(self) -> None:
        self.server.stop()
        for device in self.devices:
            device.stop()


@pytest.fixture(scope="session")
def _adb_phones() -> Iterator[AdbPhones]:
    with contextlib.ExitStack() as stack:
        devices = []
        for _ in range(2):
            devices.append(Adbd())
            stack.callback(devices[-1].stop)
        server = AdbServer()
        stack.callback(server.stop)
        yield AdbPhones(server, (devices[0], devices[1]))


@pytest.fixture
def adb_phones(_adb_phones: AdbPhones) -> AdbPhones:
    """Two devices, connected and well, whatever the test before did to them."""
    _adb_phones.heal()
    return _adb_phones


# -- ssh ------------------------------------------------------------------------------------------


class Sshd:
    """A real sshd on loopback, with keys and configuration of its own, behind a cable.

    `ssh -F sshd.config testphone` reaches it as this very user.
    """

    host = "testphone"

    def __init__(self) -> None:
        self._sshd, keygen = program("sshd"), program("ssh-keygen")
        program("ssh")
        self.folder = _folder()
        self.config = self.folder / "ssh_config"
        self._known_hosts = self.folder / "known_hosts"
        self._keygen = keygen
        try:
            self._start_up()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _start_up(self) -> None:
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        for name in ("host_key", "user_key"):
            self._new_key(name)
        authorized = self.folder / "authorized_keys"
        shutil.copy(self.folder / "user_key.pub", authorized)
        for _ in range(5):  # another program may take the free port first
            self._port = free_port()
            (self.folder / "sshd_config").write_text(
                f"""\
Port {self._port}
ListenAddress 127.0.0.1
HostKey "{self.folder}/host_key"
AuthorizedKeysFile "{authorized}"
PidFile none
UsePAM {"yes" if _account_is_locked() else "no"}
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
PrintMotd no
MaxStartups 100
MaxSessions 100
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""
            )
            self._start()
            if self._daemon.alive:
                break
        else:
            raise RuntimeError(f"sshd does not start: {self._daemon.said()}")
        self.cable = Relay(("127.0.0.1", 0), ("127.0.0.1", self._port))
        self.trust()
        self.config.write_text(
            f"""\
Host {self.host}
    HostName 127.0.0.1
    Port {self.cable.port}
    User {getpass.getuser()}
    IdentityFile "{self.folder}/user_key"
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile "{self._known_hosts}"
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
"""
        )

    def _new_key(self, name: str) -> None:
        path = self.folder / name
        for old in (path, path.with_suffix(".pub")):
            old.unlink(missing_ok=True)
        done = run([self._keygen, "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)])
        assert done.returncode == 0, done.stderr

    def _start(self) -> None:
        self._daemon = Guarded(
            [self._sshd, "-D", "-e", "-f", str(self.folder / "sshd_config")],
            log=self.folder / "log",
            folder=self.folder,
            grace_s=1.0,
        )
        wait_for("sshd", lambda: self._answers() or not self._daemon.alive, said=self.said)

    def _answers(self) -> bool:
        with socket.socket() as s:
            s.settimeout(10)
            if s.connect_ex(("127.0.0.1", self._port)):
                return False
            try:
                return s.recv(4) == b"SSH-"
            except OSError:
                return False

    @property
    def alive(self) -> bool:
        return self._daemon.alive

    def said(self) -> str:
        """The end of what sshd printed."""
        return self._daemon.said()

    def ssh(
        self, *command: str, options: Sequence[str] = (), seconds: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        return run(
            ["ssh", "-F", str(self.config), "-o", "BatchMode=yes", *options, self.host, *command],
            seconds=seconds,
        )

    def trust(self) -> None:
        """Let the present host key be the known one."""
        key = (self.folder / "host_key.pub").read_text()
        self._known_hosts.write_text(f"[127.0.0.1]:{self.cable.port} {key}")

    def change_host_key(self) -> None:
        """Another host key, as of another machine at the same address; `trust` accepts it."""
        self._new_key("host_key")
        self.restart()

    def restart(self) -> None:
        """The daemon and every session and command of it are gone, and it is started anew."""
        self._daemon.stop()
        self._start()

    def drop(self) -> None:
        """Kill what serves the sessions; the commands they run are left to themselves."""
        for pid in _offspring(self._daemon.pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
                    os.kill(pid, signal.SIGKILL)

    def unplug(self, cut: Cut = "reset") -> None:
        """The network is gone: connections are reset and refused, or fall silent."""
        self.cable.unplug(cut)

    def plug(self) -> None:
        """The network is back."""
        self.cable.plug()

    def heal(self) -> None:
        """Alive, reachable, and its host key known."""
        self.plug()
        if not self.alive:
            self.restart()
        self.trust()

    def stop(self) -> None:
        """End it and remove its folder."""
        self.cable.stop()
        self._daemon.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _account_is_locked() -> bool:
    """Whether sshd without PAM would refuse this account for a "!" in its shadow entry."""
    try:
        shadow = Path("/etc/shadow").read_text()
    except OSError:
        return False  # sshd, run by the same user, cannot read it either
    return f"\n{getpass.getuser()}:!" in f"\n{shadow}"


def _offspring(pid: int) -> set[int]:
    """Children and children's children of a process."""
    found: set[int] = set()
    new = {pid}
    while new:
        children: set[int] = set()
        for each in new:
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{each}/task").iterdir():
                    children |= set(map(int, (task / "children").read_text().split()))
        new = children - found
        found |= children
    return found


@pytest.fixture(scope="session")
def _sshd() -> Iterator[Sshd]:
    daemon = Sshd()
    yield daemon
    daemon.stop()


@pytest.fixture
def sshd(_sshd: Sshd) -> Sshd:
    """A host that ssh reaches, and well, whatever the test before did to it."""
    _sshd.heal()
    return _sshd


# -- PostgreSQL -----------------------------------------------------------------------------------


class Postgres:
    """A PostgreSQL server on a loopback port, with one account and a password of its own."""

    user = "phonenas"

    def __init__(self) -> None:
        found = sorted(
            Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[4])
        )
        if not found:
            missing("PostgreSQL is not installed")
        try:
            import psycopg  # noqa: F401
        except ImportError:
            missing("psycopg is not installed (pip install 'psycopg[binary]')")
        self._bin = found[-1].parent
        self.password = secrets.token_hex(12)
        self.folder = _folder()
        self._data = self.folder / "data"
        # PostgreSQL refuses to run as root.
        self._account = "postgres" if os.getuid() == 0 else None
        try:
            self._initialise()
            for _ in range(5):  # another program may take the free port first
                self.port = free_port()
                self._start()
                if self._daemon.alive:
                    break
            else:
                raise RuntimeError(f"PostgreSQL does not start: {self._daemon.said()}")
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _initialise(self) -> None:
        password = self.folder / "password"
        password.write_text(self.password)
        if self._account is not None:
            for path in (self.folder, password):
                shutil.chown(path, self._account, self._account)
        command = [self._bin / "initdb", "--pgdata", self._data, "--username", self.user]
        command += ["--pwfile", password, "--auth", "scram-sha-256", "--no-sync"]
        command += ["--encoding", "UTF8", "--locale", "C"]
        as_account: dict[str, Any] = (
            {} if self._account is None else {"user": self._account, "group": self._account}
        )
        done = run([str(c) for c in command], cwd=self.folder, **as_account)
        assert done.returncode == 0, done.stderr

    def _start(self) -> None:
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "shared_buffers": "16MB",
            "fsync": "off",
        }
        self._daemon = Guarded(
            [str(self._bin / "postgres"), "-D", str(self._data)]
            + [word for name, value in options.items() for word in ("-c", f"{name}={value}")],
            log=self.folder / "log",
            folder=self.folder,
            user=self._account,
            stop_signal=signal.SIGINT,  # its "fast": sessions are cut, nothing is lost
        )
        wait_for(
            "PostgreSQL", lambda: self.answers() or not self._daemon.alive, said=self._daemon.said
        )

    def answers(self) -> bool:
        """Whether it takes connections."""
        ready = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return run(ready).returncode == 0

    @property
    def alive(self) -> bool:
        return self._daemon.alive

    def url(self, database: str = "postgres", *, password: str | None = None) -> str:
        """For SQLAlchemy; with another password where one is given."""
        secret = self.password if password is None else password
        return f"postgresql+psycopg://{self.user}:{secret}@127.0.0.1:{self.port}/{database}"

    def empty(self) -> str:
        """The URL of the database, emptied; whoever is still connected to it is cut off."""
        import psycopg

        plain = self.url().replace("+psycopg", "")
        with psycopg.connect(plain, autocommit=True, connect_timeout=int(PATIENCE_S)) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
            connection.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
        return self.url()

    def restart(self) -> None:
        """Every session is cut; what was committed is there again."""
        self._daemon.stop()
        self._start()

    def halt(self) -> None:
        """Stop it; `restart` starts it again."""
        self._daemon.stop()

    def stop(self) -> None:
        """End it and remove its folder."""
        self._daemon.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def _postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.stop()


@pytest.fixture
def postgres(_postgres: Postgres) -> Postgres:
    """A server that answers, whatever the test before did to it."""
    if not _postgres.alive:
        _postgres.restart()
    return _postgres


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """An empty database."""
    return postgres.empty()
