"""Networks beside each other in words, as a flat table and as JSON."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from phonenas.latency_model.metrics import Z90
from phonenas.space.naming import counted

from .networks import Compared, against, alike, scored, top1_gain

__all__ = ["as_json", "reasons", "sentences", "shortened"]

_LONGEST = 300


def sentences(compared: Compared, place: int) -> list[str]:
    """What the error bars of one device say: of the models, and of networks of equal MACs."""
    device, lines = compared.devices[place], []
    timings = [r.timings[place] for r in compared.rows]
    origin = next((t.origin for t in timings if t.measured_ms is not None), "measured")
    s = scored(compared, place)
    if s is not None:
        inside = sum(bool(t.inside) for t in timings if not t.fitted_on)
        ranks = "" if math.isnan(s.spearman) else f", Spearman's ρ {s.spearman:.3f}"
        lines.append(
            f"{device}: {counted(s.n, 'network')} {origin} that the model was not fitted on: mean "
            f"error {s.mape:.1%}, bias {s.bias:+z.1%}{ranks}, {inside} inside the 90 % interval"
            + (f". {s.note}" if s.n > 2 and s.note else "")
        )
    if fitted := sum(t.fitted_on and t.error is not None for t in timings):
        lines.append(
            f"{device}: {counted(fitted, 'network')} of these "
            f"{'was' if fitted == 1 else 'were'} measured for the fit of the model, so no score "
            "of the model counts "
            f"{'it' if fitted == 1 else 'them'}"
        )
    for p in alike(compared, place):
        basis = origin if p.ratio.basis == "measured" else p.ratio.basis
        lines.append(
            f"{device}: {p.slower} takes {p.ratio.times:.2f} times as long as {p.faster} (90 %: "
            f"{p.ratio.low:.2f} to {p.ratio.high:.2f}, {basis}) with {p.macs[1] / 1e6:.0f} "
            f"M MACs against {p.macs[0] / 1e6:.0f} M"
        )
    return lines


def reasons(compared: Compared) -> list[str]:
    """What is not known and why, and what predictions assume, each text once."""
    said: dict[str, dict[str, list[str]]] = {}
    for row in compared.rows:
        for t in row.timings:
            for text in filter(None, (t.reason, *t.notes)):
                said.setdefault(text, {}).setdefault(row.name, []).append(t.device)
        if row.no_estimate:
            text = f"no estimate of top-1: {row.no_estimate}"
            said.setdefault(text, {})[row.name] = list(compared.devices)
    lines = []
    for text, by_row in said.items():
        every = len(by_row) == len(compared.rows) > 1
        names = "every network" if every else ", ".join(by_row)
        devices = dict.fromkeys(d for on in by_row.values() for d in on)
        where = "" if len(devices) == len(compared.devices) else f" on {', '.join(devices)}"
        lines.append(f"{names}{where}: {shortened(text)}")
    return lines


def shortened(text: str) -> str:
    """A message of 300 characters at most, as of the nearest of a hundred names."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1].rstrip()}…"


def as_json(compared: Compared) -> dict[str, Any]:
    """Everything, ready for JSON."""
    rows = []
    for row in compared.rows:
        own = asdict(row)
        own["failed"] = row.failed
        gain = None if row is compared.rows[0] else top1_gain(row, compared.rows[0])
        own["top1_against_the_first"] = (
            None
            if gain is None
            else {
                "points": 100 * gain[0],
                "low": 100 * (gain[0] - Z90 * gain[1]),
                "high": 100 * (gain[0] + Z90 * gain[1]),
                "scale": gain[2],
            }
        )
        for place, (values, t) in enumerate(zip(own["timings"], row.timings, strict=True)):
            ratio = against(compared, row, place)
            values |= {
                "error": t.error,
                "inside": t.inside,
                "against_the_first": None
                if ratio is None
                else {**asdict(ratio), "verdict": ratio.verdict},
            }
        rows.append(own)
    devices = []
    for place, device in enumerate(compared.devices):
        known = scored(compared, place)
        devices.append(
            {
                "device": device,
                "note": compared.notes[place] if compared.notes else "",
                "score": None if known is None else known.to_dict(),
                "alike": [
                    {**asdict(p), "ratio": {**asdict(p.ratio), "verdict": p.ratio.verdict}}
                    for p in alike(compared, place)
                ],
            }
        )
    return {"networks": rows, "devices": devices, "scale": compared.scale}
