"""A run of several devices on one page: what it says at the top, and each device's part of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from phonenas.search.device_view import of_device
from phonenas.search.pareto import Candidate, ParetoFront
from phonenas.search.run_document import estimate_of
from phonenas.search.run_folder import Loaded

from .page import number, table

__all__ = ["OfDevice", "headline", "latencies", "of_devices", "on_the_front"]


@dataclass(frozen=True)
class OfDevice:
    """A run as that of one of its devices.

    Args:
        run: See `device_view.of_device`.
        validation: As `read_validation` gives it; None without one.
        several: Whether the run is of other devices, too.
    """

    run: Loaded
    validation: dict[str, Any] | None
    several: bool = False

    @property
    def device(self) -> str:
        """Its name."""
        return str(self.run.settings["device"])

    @property
    def heading(self) -> str:
        """What stands behind a heading: " on pixel6" where there are several devices."""
        return f" on {escape(self.device)}" if self.several else ""

    @property
    def suffix(self) -> str:
        """Of the names of its plots."""
        return f"-{self.run.path.name}" if self.run.whole is not None else ""

    @property
    def origin(self) -> str:
        """Where its times come from: not "measured" where prediction or validation is not."""
        known = [
            self.run.model.get("conditions", {}),
            (self.validation or {}).get("conditions", {}),
        ]
        origins = [str(c.get("origin", "measured")) for c in known]
        return next((origin for origin in origins if origin != "measured"), "measured")

    @property
    def measurable(self) -> bool:
        """Whether there is a device; else its times were measured by others."""
        model = self.run.model.get("conditions", {})
        return str(model.get("origin", "measured")) not in ("public", "imported")


def of_devices(run: Loaded) -> list[Loaded]:
    """The run as that of each of its devices, in order; alone if it is the part of a later one."""
    first, *others = run.devices
    if run.whole is not None or run.settings["device"] != first:
        others = []
    return [run, *(of_device(run, device) for device in others)]


def latencies(c: Candidate, devices: Sequence[OfDevice]) -> str:
    """The predicted latency of a candidate, with the device where there are several; HTML."""
    if len(devices) == 1:
        return f"○ {c.latency_ms:.2f} ms"
    own = [(d.device, c.values[f"latency:{d.device}"]) for d in devices]
    return ", ".join(f"○ {ms:.2f} ms on {escape(device)}" for device, ms in own)


def on_the_front(front: ParetoFront) -> str:
    """What the number of a front's networks is of, and how many of them are extrapolated."""
    left = f" ({front.left_out} left out)" if front.left_out else ""
    return f"of them on the front, {sum(c.outside for c in front)} extrapolated{left}"


def headline(devices: Sequence[OfDevice]) -> str:
    """The top of the page of several devices: the targets, the best network, a row a device."""
    run = devices[0].run
    names = " and ".join(escape(d.device) for d in devices)
    text, estimate = "No target was set.", escape(str(estimate_of(run.settings, run.front)))
    how = str(run.settings.get("across", ""))
    if run.front.target_ms is not None:
        text = {
            "worst": "The front trades top-1 for the largest latency / target of all devices.",
            "mean": "The front trades top-1 for the weighted geometric mean of latency / target.",
        }.get(how, "The latency on each device is an objective of its own.")
        text += " Every network on it is predicted to keep all targets."
        text = text if not run.settings.get("soft") else "The targets are soft. " + text
    best = max(run.front, key=lambda c: c.top1, default=None)
    if best is not None:
        text += (
            f" By prediction the most accurate is <b>network {best.id}</b>: "
            f"{latencies(best, devices)}, {estimate} {best.top1:.1%}."
        )
    text += _on_all(devices)
    facts = [
        (f"{len(run.evaluations()):,}", "networks evaluated by prediction"),
        (f"{len(run.front)}", on_the_front(run.front)),
    ]
    tiles = "".join(f"<li><b>{a}</b>{b}</li>" for a, b in facts)
    titles = ("device", "target", "its times are", "what it is", "precision", "validated")
    rows = [_row(d) for d in devices]
    return (
        f'<h1>Networks for {names}</h1><p class="lead">{text}</p><ul class="facts">{tiles}</ul>'
        f"<h2>Devices</h2>{table(titles, rows)}"
    )


def _row(d: OfDevice) -> tuple[str, ...]:
    conditions = d.run.model.get("conditions", {})
    target = number(d.run.front.target_ms, "{:.2f} ms")
    given = d.run.front.target
    if d.run.front.target_ms is not None and given != f"{d.run.front.target_ms:g}":
        target += f", given as {given}"
    networks = (d.validation or {}).get("networks", ())
    meets = [v for v in networks if v["verdict"] in ("meets", "likely")]
    validated = "not yet" if d.measurable else "there is no device"
    if networks:
        validated = f"{len(networks)} networks"
        if d.run.front.target_ms is not None:
            validated = f"{len(meets)} of {len(networks)} meet the target, or likely"
    return (
        d.device,
        target,
        d.origin,
        str(conditions.get("model", "")),
        d.run.precision,
        validated,
    )


def _on_all(devices: Sequence[OfDevice]) -> str:
    """A sentence on the networks that were measured on every device; "" where none was."""
    if any(d.validation is None for d in devices):
        return ""
    by_id: list[Mapping[int, Any]] = [
        {v["id"]: v for v in (d.validation or {})["networks"]} for d in devices
    ]
    both = sorted(set.intersection(*(set(of) for of in by_id)))
    if not both or devices[0].run.front.target_ms is None:
        return ""
    good = [i for i in both if all(of[i]["verdict"] in ("meets", "likely") for of in by_id)]
    text = (
        f" Of {len(both)} networks that were validated on every device, {len(good)} meet all "
        "targets as measured, or likely do"
    )
    if not good:
        return f"{text}."
    best = max(good, key=lambda i: float(by_id[0][i]["top1"]))
    ms = ", ".join(
        f"● {of[best]['measured_ms']:.2f} ms on {escape(d.device)}"
        for d, of in zip(devices, by_id, strict=True)
    )
    return f"{text}; the most accurate of them is <b>network {best}</b>: <b>{ms}</b>."
