"""validation.json of a run: its strict form, how it is written, and what an earlier one says."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from phonenas.data import Conditions
from phonenas.data.documents import Count, Energy, Ms, Number, Share, Text, strict
from phonenas.latency_model import LatencyModel

from ..checkpoint import of_this_run, run_digest
from ..exported_file import FileLatency
from ..run_document import VALIDATION as DOCUMENT
from ..run_folder import Loaded
from .validate import Validation, score_of

__all__ = ["DOCUMENT", "checked_validation", "document", "earlier"]

log = logging.getLogger("phonenas")


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
    energy_mj: Energy | None = None
    file: FileLatency | None = None


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


def earlier(path: Path, run: Loaded, conditions: Conditions) -> dict[str, Any]:
    """The document of an earlier validation of the same predictions; empty where there is none.

    Networks that the run's front does not hold, or that were predicted otherwise, are left out,
    and all of them if they were measured under other conditions.

    Args:
        path: `validation.json` of the run.
        run: Whose predictions.
        conditions: Under which is measured now.
    Raises:
        UnsupportedFormat: The file is damaged, or no validation.
        StoreError: It cannot be read.
    """
    advice = "Remove it, then give the same command again: the store holds what was measured."
    document = DOCUMENT.read(path, advice)
    if document is None:
        return {}
    of_this_run(path, document.get("run"), run.settings, advice)
    with DOCUMENT.checking(path, advice):
        checked_validation(document)
        predicted = {c.id: (c.block_args, c.latency_ms) for c in run.front}
        same = [
            v
            for v in document["networks"]
            if predicted.get(v["id"]) == (v["block_args"], v["predicted_ms"])
        ]
        if same:
            score_of(same)  # all of it are numbers
        lacking = [
            {**u, "reason": str(u["reason"])}
            for u in document.get("unmeasured", ())
            if predicted.get(u["id"]) == (u["block_args"], u["predicted_ms"])
        ]
        before = Conditions.from_dict(document["conditions"])
    if before != conditions:
        changed = "; ".join(before.differences(conditions))
        log.info("%s was measured under other conditions: %s (then / now)", path, changed)
        return {}
    return {**document, "networks": same, "unmeasured": lacking}


def document(
    validation: Validation,
    run: Loaded,
    conditions: Conditions,
    *,
    latency: LatencyModel | None = None,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that a report says of a validation, ready for JSON.

    Args:
        validation: What was measured.
        run: Whose predictions they were; its own account of the model that predicted is taken.
        conditions: Under which the networks were measured.
        latency: The model that predicted, for where the milliseconds go; None: not at hand.
        before: An earlier document, as `earlier` gives it: its networks that were not measured
            this time stay, and count in the score; so do those without a measurement, until they
            have one.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    networks = []
    for v in validation.networks:
        shares = [] if latency is None else latency.explain(v.candidate.architecture)
        networks.append(
            {
                **v.to_dict(),
                **{n: getattr(v.candidate, n) for n in ("top1_error", "outside", "macs", "params")},
                "at": at,
                "constant_ms": sum(e.ms for e in shares if e.operator is None),
                "operators": [
                    {n: getattr(e.operator, n) for n in ("label", "in_px", "key")}
                    | {"ms": e.ms, "measured": e.measured}
                    for e in shares
                    if e.operator is not None
                ],
            }
        )
    kept = dict(before or {})
    now = {v["id"] for v in networks}
    networks += [v for v in kept.get("networks", ()) if v["id"] not in now]
    networks.sort(key=lambda v: int(v["id"]))
    lacking = [{**u.to_dict(), "at": at} for u in validation.unmeasured]
    known = {v["id"] for v in networks} | {u["id"] for u in lacking}
    lacking += [u for u in kept.get("unmeasured", ()) if u["id"] not in known]
    return {
        **{name: kept[name] for name in ("rounds", "best", "stopped") if name in kept},
        "format": DOCUMENT.format,
        "version": DOCUMENT.version,
        "run": run_digest(run.settings),
        "device": run.settings["device"],
        "target_ms": run.front.target_ms,
        "target": run.front.target,
        "verdict": {"stable": validation.verdict.stable, "text": validation.verdict.text},
        "rejected": validation.rejected,
        "reused": validation.reused,
        "at": at,
        "conditions": conditions.to_dict(),
        "networks": networks,
        "unmeasured": lacking,
        "score": score_of(networks).to_dict(),
        "model": run.model,
    }
