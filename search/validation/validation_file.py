"""The strict form of validation.json."""

from __future__ import annotations

from typing import Any

import msgspec

from phonenas.data.documents import Count, Ms, Number, Share, Text, strict

__all__ = ["checked_validation"]


class _Network(msgspec.Struct):
    """A network of a validation, as its file has it; what a report adds is optional."""

    id: Count
    block_args: Text
    top1: Share
    predicted_ms: Ms
    low_ms: Ms
    high_ms: Ms
    measured_ms: Ms
    error: Number
    spread: Number | None = None
    inside: bool | None = None
    p50_ms: Ms | None = None
    p90_ms: Ms | None = None
    load_ms: Ms | None = None
    first_ms: Ms | None = None
    peak_bytes: Count | None = None
    model_bytes: Count | None = None
    file_bytes: Count | None = None


class _Round(msgspec.Struct):
    round: Count
    networks: list[_Network]


class _Best(_Network, kw_only=True):
    round: Count
    name: Text


class _File(msgspec.Struct):
    networks: list[_Network]
    conditions: dict[str, bool | Number | Text | None] | None = None
    target_ms: Ms | None = None
    score: dict[str, bool | Number | Text | None] | None = None
    verdict: dict[str, bool | Number | Text | None] | None = None
    rejected: Count = 0
    reused: Count = 0
    at: Text = ""
    device: Text = ""
    rounds: list[_Round] = []
    best: list[_Best] = []
    stopped: Text = ""


def checked_validation(document: dict[str, Any]) -> dict[str, Any]:
    """The content of a validation.json, each value checked.

    Raises:
        ValueError: One is missing, or of another kind or range.
    """
    strict(document, _File)
    return document
