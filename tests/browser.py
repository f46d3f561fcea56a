"""A headless Chromium, driven through the pipe of its debugging protocol."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import servers
from patience import PATIENCE_S

__all__ = ["Tab", "opened"]

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)


class Tab:
    """One page; `events` are those of the page and of its network."""

    def __init__(self, into: int, out: int) -> None:
        self._into, self._out = into, out
        self._buffer, self._number, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._into, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE_S
        while True:
            for got in self._received(end):
                if got.get("id") == self._number:
                    assert "error" not in got, got
                    return dict(got["result"])
                self.events.append(got)

    def _received(self, end: float) -> Iterator[dict[str, Any]]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._out], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError("chromium does not answer")
            got = os.read(self._out, 1 << 20)
            assert got, "chromium ended"
            self._buffer += got
        while b"\0" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\0")
            yield json.loads(line)

    def open(self, page: Path | str, width: int = 1300, height: int = 900) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        # A headless browser has no mouse, and the page then draws no buttons.
        # Windows that the page opens are noted instead.
        source = """
            const media = matchMedia;
            matchMedia = q => q.includes("hover") ? { matches: true } : media(q);
            window.windows = [];
            window.open = url => { windows.push(String(url)); return null; };
        """
        self.call("Page.addScriptToEvaluateOnNewDocument", source=source)
        self.events.clear()
        url = page if isinstance(page, str) else page.resolve().as_uri()
        self.call("Page.navigate", url=url)
        end = time.monotonic() + PATIENCE_S
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events += self._received(end)

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        done = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def of(self, method: str) -> list[dict[str, Any]]:
        return [e["params"] for e in self.events if e.get("method") == method]

    def screenshot(self, path: Path) -> None:
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def opened(page: Path | str, profile: Path, width: int = 1300) -> Iterator[Tab]:
    """A page, of a file or an address, opened and drawn; the browser ends with the context."""
    chromium = shutil.which("chromium")
    if chromium is None:
        servers.missing("chromium is not installed")
        raise AssertionError  # not reached
    (there_out, here_in), (here_out, there_in) = os.pipe(), os.pipe()

    def wired() -> None:
        # Its ends are descriptors 3 and 4, whatever their numbers are here.
        spare = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (there_out, there_in)]
        os.dup2(spare[0], 3)
        os.dup2(spare[1], 4)

    browser = subprocess.Popen(
        [chromium, *_FLAGS, f"--user-data-dir={profile}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=wired,
        close_fds=False,
    )
    for fd in (there_out, there_in):
        os.close(fd)
    try:
        tab = Tab(here_in, here_out)
        tab.open(page, width)
        tab.run("window.drawn")  # its plots come after its text
        yield tab
    finally:
        browser.kill()
        browser.wait()
        os.close(here_in)
        os.close(here_out)
