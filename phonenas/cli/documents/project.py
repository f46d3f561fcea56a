"""Documents of the commands about a project as a whole."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["DevicesWritten", "Examples", "Findings", "Served", "StudyDone", "StudyWritten"]


class _Step(msgspec.Struct, kw_only=True):
    """A step of a study; result is the document of its command, null where it was done before."""

    step: str
    command: str
    before: bool
    at: str
    made: str | None
    result: Any


class StudyDone(msgspec.Struct, kw_only=True):
    """A study, done; with --commands the document is the list of its commands."""

    study: str
    out: str
    steps: list[_Step]


class StudyWritten(msgspec.Struct, kw_only=True):
    """The study file that `init study` wrote, and the commands of its steps."""

    file: str
    steps: list[str]


class DevicesWritten(msgspec.Struct, kw_only=True):
    """The devices.toml that `init` wrote: devices added, and those that were there."""

    file: str
    devices: list[str]
    kept: list[str]


class _Finding(msgspec.Struct, kw_only=True):
    """One thing that was looked at; state: ok, note, absent or fault."""

    check: str
    state: str
    found: str
    advice: str


Findings = list[_Finding]


class _Example(msgspec.Struct, kw_only=True):
    command: str
    does: str


class _Task(msgspec.Struct, kw_only=True):
    task: str
    title: str
    commands: list[_Example]


Examples = list[_Task]


class Served(msgspec.Struct, kw_only=True):
    """The address of the page, with its token; the command goes on."""

    url: str
