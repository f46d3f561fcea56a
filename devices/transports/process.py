"""Process: a program that reads and writes lines; every wait for it is bounded.

The program runs on this computer or on a device; in both cases a local process carries its standard
input and output. To a device an empty line is sent every second: a program that gets none for some
seconds has lost this side, and ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import IO, Any

from phonenas.space.errors import DeviceError, DeviceUnavailable

from ..system.device_text import plain, shown

__all__ = ["HUNG", "NEW_GROUP", "Process"]

HUNG = (
    "A program hangs there, or it sleeps, or its cable or network is gone. Check these; the same "
    "command continues from there."
)
_LOST = "Check its cable, its network and its memory; the same command continues from there."
_NOISE = (
    "Something there prints by itself, a shell's start-up file or a library: silence it; the same "
    "command continues from there."
)

#: Windows's form of `start_new_session`: Ctrl-C is for us, and we end a program in order.
NEW_GROUP: int = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)

_BEAT_S = 1.0
_CHUNK = 1 << 16
_LONGEST_LINE = 1 << 24
_LEAVE_S = 2.0  # for a program to end by itself once its input is closed


class Process:
    """One running program. Made by a transport's `spawn`, ended by `close`.

    Args:
        name: Of the device, for messages.
        command: The local process, as an argument list.
        beat: Whether to send an empty line every second.
        keep_open: File descriptors that the process inherits.
        environment: Of the process; None for this one's.
    Attributes:
        advice: A sentence for the error that the program ended too early.
    Raises:
        DeviceUnavailable: The process cannot be started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        beat: bool = False,
        keep_open: Sequence[int] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.advice = _LOST
        self._buffer = b""
        self._closed = threading.Event()
        self._chunks: queue.Queue[bytes] | None = None
        self._writing = threading.Lock()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        try:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment,
                pass_fds=tuple(d for d in keep_open if d >= 0),  # none without file locks
                start_new_session=True,  # Ctrl-C is for us: we end it in order
                creationflags=NEW_GROUP,
            )
        except OSError as error:
            self._errors.close()
            raise DeviceUnavailable(f"{name}: {command[0]} cannot be started: {error}") from error
        if sys.platform == "win32":  # its select waits for sockets alone
            self._chunks = queue.Queue(_LONGEST_LINE // _CHUNK)
            threading.Thread(target=self._read_on, name=f"read {name}", daemon=True).start()
        if beat:
            threading.Thread(target=self._beat, name=f"beat {name}", daemon=True).start()

    def _beat(self) -> None:
        while not self._closed.wait(_BEAT_S):
            try:
                self._write(b"\n")
            except (OSError, ValueError):  # it has ended, or is being closed
                return

    def _read_on(self) -> None:
        """Put what it prints into `_chunks`, its end as b""."""
        assert self.process.stdout is not None and self._chunks is not None
        chunk = b"?"
        while chunk and not self._closed.is_set():
            try:
                chunk = os.read(self.process.stdout.fileno(), _CHUNK)
            except (OSError, ValueError):  # it is being closed
                chunk = b""
            while not self._closed.is_set():
                with contextlib.suppress(queue.Full):
                    self._chunks.put(chunk, timeout=_BEAT_S)
                    break

    def _chunk(self, limit_s: float) -> bytes | None:
        """What it printed next; b"" if it has ended, None after `limit_s` seconds."""
        assert self.process.stdout is not None
        if self._chunks is not None:
            try:
                chunk = self._chunks.get(timeout=limit_s)
            except queue.Empty:
                return None
            if not chunk:
                self._chunks.put(b"")  # so it is for whoever asks next
            return chunk
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            ready = selector.select(limit_s)
        return os.read(self.process.stdout.fileno(), _CHUNK) if ready else None

    def _write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        with self._writing:
            self.process.stdin.write(data)
            self.process.stdin.flush()

    def ask(self, request: dict[str, Any]) -> None:
        """Send a JSON document as one line."""
        try:
            self._write(json.dumps(request).encode() + b"\n")
        except (OSError, ValueError) as error:
            raise DeviceUnavailable(f"{self.name}: {self._ended()}") from error

    def line(self, limit_s: float) -> str:
        """The next line, without its end.

        Raises:
            DeviceUnavailable: The program ended, was lost, or printed no line for `limit_s`
                seconds.
            DeviceError: It printed a line without end.
        """
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            chunk = self._chunk(left) if left > 0 else None
            if chunk is None:
                raise DeviceUnavailable(
                    f"{self.name} did not answer within {limit_s:.0f} s{self._complaint()}. {HUNG}"
                )
            if not chunk:
                raise DeviceUnavailable(f"{self.name}: {self._ended()}")
            self._buffer += chunk
            if len(self._buffer) > _LONGEST_LINE:
                raise DeviceError(
                    f"{self.name} sent {len(self._buffer)} bytes without a line. {_NOISE}"
                )
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode("utf-8", errors="replace").rstrip("\r")

    def answer(self, limit_s: float) -> dict[str, Any]:
        """The next line as a JSON object.

        Raises:
            DeviceError: It is not one. Otherwise as `line`.
        """
        text = self.line(limit_s)
        document: Any = None
        with contextlib.suppress(ValueError, RecursionError):
            document = json.loads(text)
        if not isinstance(document, dict):
            raise DeviceError(f"{self.name}'s worker answered {shown(text)}. {_NOISE}")
        return document

    def _ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)
        code = self.process.returncode
        return f"its worker process ended with code {code}{self._complaint()}. {self.advice}"

    def _complaint(self) -> str:
        """The last line of its error output, made plain, as " (line)"; "" if there is none."""
        with contextlib.suppress(OSError, ValueError):
            self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - 4096))
            lines = self._errors.read().decode("utf-8", errors="replace").strip().splitlines()
            if lines:
                return f" ({plain(lines[-1])})"
        return ""

    def await_end(self, limit_s: float) -> None:
        """Wait until it has ended by itself.

        Raises:
            DeviceUnavailable: It did not within `limit_s` seconds.
        """
        try:
            self.process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired as error:
            raise DeviceUnavailable(
                f"{self.name} did not end within {limit_s:.0f} s. {HUNG}"
            ) from error

    def stop(self) -> None:
        """Ask a `watched` script to end at once, with all that it runs."""
        with contextlib.suppress(OSError, ValueError):
            self._write(b"stop\n")

    def close(self) -> None:
        """Close its input, wait a little, then kill it; takes at most some ten seconds."""
        self._closed.set()
        process = self.process
        if process.stdin:
            # An empty line may just be sent; the program may have ended first.
            with contextlib.suppress(OSError, ValueError), self._writing:
                process.stdin.close()
        try:
            process.wait(timeout=_LEAVE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel
                process.wait(timeout=10)
        if process.stdout:
            process.stdout.close()
        self._errors.close()
