"""The command doctor: what is installed, reached and readable here, and what to do where not."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from phonenas.space.errors import PhonenasError, install
from phonenas.space.naming import counted

from ..options import Output, command
from ..output import completed, shown_db, table
from ..stores import open_store

if TYPE_CHECKING:
    from phonenas.devices import DeviceState

__all__ = ["doctor"]

# What each extra is for, and its distributions by the module that each is imported as.
_EXTRAS = {
    "torch": (
        "train, promote, supernet, the strategy rl, .pth files",
        {"torch": "torch", "safetensors": "safetensors", "PIL": "pillow"},
    ),
    "litert": (".tflite files: written, read and measured", {"ai_edge_litert": "ai-edge-litert"}),
    "cluster": ("--ray: trainings and devices on many computers", {"ray": "ray"}),
    "postgres": ("a store in PostgreSQL: --db postgresql://...", {"psycopg": "psycopg"}),
}
_REQUIRED = ("numpy", "onnx", "onnxruntime", "scikit-learn", "lightgbm", "pymoo", "pandas")
_LEAST_FREE = 2 * 10**9  # bytes of the folder for temporary files: a job lowers thousands of models
_AHEAD = timedelta(minutes=5)  # clocks of two computers that share a store may differ by this


@dataclass(frozen=True)
class _Finding:
    """One thing that was looked at.

    Args:
        check: What was looked at.
        state: "ok"; "note" where something may disturb; "absent" where a part that is not always
            needed is not there; "fault" where a command that needs it will fail.
        found: What is there, in words.
        advice: What to do, with the command if there is one; "" where there is nothing to do.
    """

    check: str
    state: str
    found: str
    advice: str = ""


@command
def doctor(output: Output, db: str) -> None:
    """Check what is installed, which devices answer, and whether the store can be read."""
    found = [*_installed(), *_computer(), *_reached(), *_store(db)]
    faults = sum(f.state == "fault" for f in found)

    def text() -> str:
        rows = [[f.state, f.check, f.found] for f in found]
        advice = [f"{f.check}: {f.advice}" for f in found if f.advice]
        end = f"{counted(faults, 'fault')}." if faults else "No fault."
        return "\n".join(
            [
                table(["state", "checked", "found"], rows),
                "",
                *advice,
                *([""] if advice else []),
                end,
            ]
        )

    output.print([asdict(f) for f in found], text)
    if faults:
        raise SystemExit(1)


def _installed() -> Iterator[_Finding]:
    """Python, what phonenas always needs, and its extras."""
    place = Path(sys.modules["phonenas"].__file__ or "").parent
    python = ".".join(map(str, sys.version_info[:3]))
    yield _Finding("phonenas", "ok", f"{metadata.version('phonenas')}, Python {python}, {place}")
    lacking = [name for name in _REQUIRED if not _version(name)]
    yield (
        _Finding(
            "packages",
            "fault",
            f"not installed: {', '.join(lacking)}",
            f"pip install {' '.join(lacking)}",
        )
        if lacking
        else _Finding("packages", "ok", ", ".join(f"{n} {_version(n)}" for n in _REQUIRED))
    )
    for extra, (purpose, modules) in _EXTRAS.items():
        missing = [d for module, d in modules.items() if find_spec(module) is None]
        if missing:
            yield _Finding(
                f"extra {extra}",
                "absent",
                f"{', '.join(missing)} not installed; it is for {purpose}",
                install(extra),
            )
        else:
            versions = ", ".join(f"{d} {_version(d)}" for d in modules.values())
            yield _Finding(f"extra {extra}", "ok", f"{versions}; for {purpose}")


def _version(distribution: str) -> str:
    """The version of a distribution; "" if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _computer() -> Iterator[_Finding]:
    """This computer: how busy it is, and its room for temporary files."""
    from phonenas.devices.measuring.preconditions import load_text

    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    if load is None:
        yield _Finding("load", "note", f"{counted(cores, 'core')}; this system tells no load")
    elif busy := load_text([{"load": load, "online": cores}]):
        advice = "other programs run: close them before this computer is measured"
        yield _Finding("load", "note", busy, advice)
    else:
        yield _Finding("load", "ok", f"{load:.1f} on {counted(cores, 'core')}")
    place = tempfile.gettempdir()
    free = shutil.disk_usage(place).free
    told = f"{free / 1e9:.1f} GB free in {place}"
    if free < _LEAST_FREE:
        advice = "make room there, or name another folder in the variable TMPDIR"
        yield _Finding("temporary files", "fault", told, advice)
    else:
        yield _Finding("temporary files", "ok", told)


def _reached() -> Iterator[_Finding]:
    """The programs that reach devices, and each device that is known or seen."""
    from phonenas.devices import listing
    from phonenas.devices.transports.adb import found_adb
    from phonenas.devices.transports.base import how_to_install

    for program, purpose in (("adb", "Android phones"), ("ssh", "boards and other computers")):
        # Android's SDK need not be on the PATH.
        path = shutil.which(program) or (found_adb() if program == "adb" else None)
        if path:
            yield _Finding(program, "ok", f"{path}; for {purpose}")
        else:
            found = f"not on the PATH; it is for {purpose}"
            yield _Finding(program, "absent", found, f"install it:  {how_to_install(program)}")
    try:
        states = listing()
    except PhonenasError as error:
        yield _Finding("devices.toml", "fault", str(error))
        return
    for state in states:
        yield _device(state)


def _device(state: DeviceState) -> _Finding:
    if state.state == "ready":
        found = ", ".join(t for t in (state.model, state.runtime, state.detail) if t)
        return _Finding(f"device {state.name}", "ok", found)
    kind = "fault" if state.state == "not usable" else "note"
    return _Finding(f"device {state.name}", kind, state.state, state.detail)


def _store(db: str) -> Iterator[_Finding]:
    """Whether the store opens and each of its measurements can be read, and its newest time."""
    place = shown_db(db)
    if "://" not in db and not Path(db).exists():
        command = completed("phonenas profile", db)
        yield _Finding("store", "absent", f"there is none at {place}", f"make one:  {command}")
        return
    last: dict[str, datetime] = {}
    total = 0
    try:
        with open_store(db) as store:
            every = store.conditions()
            for conditions in every:
                taken = store.measurements(conditions, all_series=True)
                total += len(taken)
                for at in (r.at for m in taken for r in m.rounds):
                    if len(at) > len("2026-01-01") and (when := _moment(at)):
                        name = conditions.device
                        last[name] = max(last.get(name, when), when)
    except PhonenasError as error:
        yield _Finding("store", "fault", str(error))
        return
    devices = sorted({c.device for c in every})
    shown = f"{', '.join(devices[:5])}{', ...' if len(devices) > 5 else ''}"
    told = f"{place}: {counted(total, 'measurement')}" + (f" of {shown}" if devices else "")
    yield _Finding("store", "ok", told)
    ahead = {n: t for n, t in last.items() if t > datetime.now(UTC) + _AHEAD}
    if ahead:
        name, when = max(ahead.items(), key=lambda item: item[1])
        yield _Finding(
            "clock",
            "note",
            f"a measurement of {name} is of {when:%Y-%m-%d %H:%M} UTC, and it is "
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC here",
            "set this computer's clock, or that of the computer which measured",
        )
    else:
        yield _Finding("clock", "ok", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")


def _moment(text: str) -> datetime | None:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
