"""A page of this computer alone: it is read with a token, and nothing can be written through it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from phonenas.space.errors import InvalidArgument

__all__ = ["LiveServer"]

log = logging.getLogger("phonenas")

_MOST_CONNECTIONS = 16  # at once: the page has one
_SILENCE_S = 10.0  # after which a connection that says nothing is closed
_WAIT_S = 5.0  # for another request's reading
_FRESH_S = 1.0  # for so long a state is given again instead of being read


class LiveServer(ThreadingHTTPServer):
    """Serves the page at `url`, and what `read` gives as JSON, on the loopback address.

    Args:
        read: Called for the state, at most once a second; its result goes to the page.
        port: 0 for any that is free.
    Attributes:
        url: Of the page, with the token.
    Raises:
        InvalidArgument: The port is another program's.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, read: Callable[[], Any], port: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        self._read, self._lock = read, threading.Lock()
        self._free = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._state, self._read_s = b"", float("-inf")
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            words = f"--port {port} cannot be used: {error.strerror or error}. Leave it out for any"
            raise InvalidArgument(words) from error
        self.hosts = {f"127.0.0.1:{self.server_port}", f"localhost:{self.server_port}"}
        self.url = f"http://127.0.0.1:{self.server_port}/?token={self.token}"

    def server_bind(self) -> None:
        """As in the base class, without its question for this computer's full name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """As in the base class, with a limit on connections."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """As in the base class."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error of this program."""
        log.debug("a request failed", exc_info=True)

    def state(self) -> bytes:
        """The state as JSON, not older than a second; the last one while reading takes long.

        Raises:
            TimeoutError: The first reading takes long.
        """
        if not self._lock.acquire(timeout=_WAIT_S):
            if not self._state:
                raise TimeoutError("the files are still being read")
            return self._state
        try:
            if time.monotonic() - self._read_s > _FRESH_S:
                self._state = json.dumps(self._read(), allow_nan=False).encode()
                self._read_s = time.monotonic()
            return self._state
        finally:
            self._lock.release()

    @cached_property
    def page(self) -> tuple[bytes, str]:
        """The page, and the policy by which the browser refuses all that is not of it."""
        html, script = (
            (files(__package__) / name).read_text(encoding="utf-8").replace("\r\n", "\n")
            for name in ("page.html", "page.js")
        )
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy = (
            f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )
        return html.replace("@script@", script).encode(), policy


class _Handler(BaseHTTPRequestHandler):
    """Two addresses, both for GET: the page and its state."""

    server: LiveServer
    timeout = _SILENCE_S
    server_version, sys_version = "phonenas", ""

    def do_GET(self) -> None:  # the base class's name for it
        """Answer; to whom has no token, or came by another name than this computer's, nothing."""
        asked = urlsplit(self.path)
        token = parse_qs(asked.query).get("token", [""])[0]
        if self.headers.get("Host", "") not in self.server.hosts:
            # A page of another site whose name was made to lead here (DNS rebinding).
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, b"not this host\n")
        elif not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._answer(HTTPStatus.FORBIDDEN, b"open the address that phonenas serve printed\n")
        elif asked.path == "/":
            self._answer(HTTPStatus.OK, self.server.page[0], "text/html; charset=utf-8")
        elif asked.path == "/state":
            try:
                state = self.server.state()
            except Exception as error:  # the page shows it
                log.debug("the state", exc_info=True)
                text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}\n"
                self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, text.encode())
            else:
                self._answer(HTTPStatus.OK, state, "application/json")
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"nothing is here\n")

    def _answer(
        self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8"
    ) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": self.server.page[1],
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: Any) -> None:
        """Nothing: the address of each request holds the token."""
