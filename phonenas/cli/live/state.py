"""What the files of a run or a store say of the job that writes them; nothing is written.

A job's state is a table ready for JSON: `kind`, `name`, `state` (a word), `told` (a sentence, or
""), `who` (the process at work, or ""), `facts` (labels with values), `share` (of the work that is
done, in [0, 1], or None), `plots` (of each device: points in ms and per cent) and `rows` (a
header and rows, or None).
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonenas.space.errors import PhonenasError
from phonenas.space.naming import counted

if TYPE_CHECKING:
    from phonenas.search.evaluations import Evaluations
    from phonenas.search.spec import Spec

__all__ = ["RunState", "StoreState", "state_of"]

_MOST_POINTS = 1_500  # of all evaluated networks; the front is whole
_MOST_ROWS, _MOST_BYTES, _MOST_DEVICES = 12, 4 << 20, 50
_READ = ("run.json", "checkpoint.npz", "validation.json", "promoted.json")
log = logging.getLogger("phonenas")
Facts = list[tuple[str, str]]
# A device where there are several, else ""; what gives latencies on it, in ms; its target in ms.
_Column = tuple[str, Callable[["Evaluations"], Any], float | None]


def _job(kind: str, name: str, state: str, **more: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "told": "",
        "who": "",
        "facts": [],
        "share": None,
        "plots": [],
        "rows": None,
    }
    return {"kind": kind, "name": name, "state": state, **empty, **more}


def state_of(job: RunState | StoreState) -> dict[str, Any]:
    """The state of a job; an error that is not foreseen is its own, and hides no other job."""
    try:
        return job.read()
    except Exception as error:  # it is told on the page
        log.debug("a job's state", exc_info=True)
        kind, name = ("run", str(job.path)) if isinstance(job, RunState) else ("store", job.name)
        told = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return _job(kind, name, "unreadable", told=told)


class RunState:
    """A run's folder, read again where its files changed.

    Args:
        path: Of the run; it may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: Any = None
        self._found: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        """The state; what cannot be read is told in it."""
        from phonenas.data.files import at_work

        name = str(self.path)
        try:
            if not (self.path / "run.json").exists():
                told = "No search has begun here yet; the page shows it as soon as it begins."
                return _job("run", name, "not begun", told=told)
            others = sorted(self.path.glob("device*/validation.json"))[:_MOST_DEVICES]
            seen = [(str(f), self._stamp(f)) for f in (*(self.path / n for n in _READ), *others)]
            if seen != self._seen:
                self._found, self._seen = self._search(), seen
            found, (works, who) = dict(self._found), at_work(self.path)
            throughput = found.pop("throughput")  # of a search that goes on
            found["facts"] = [*found["facts"], *(throughput if works else ()), *self._trained()]
            found["state"] = _word(bool(found.pop("complete")), works)
            return {**found, "who": who}
        except PhonenasError as error:
            return _job("run", name, "unreadable", told=str(error))
        except OSError as error:  # removed while it was read, and the like
            return _job("run", name, "unreadable", told=f"{name}: {error.strerror or error}")

    @staticmethod
    def _stamp(path: Path) -> tuple[int, int] | None:
        try:
            about = path.stat()
        except OSError:
            return None
        return about.st_mtime_ns, about.st_size

    def _search(self) -> dict[str, Any]:
        """What run.json and the checkpoint say."""
        import numpy as np

        from phonenas.search.checkpoint import BUDGET, read_checkpoint
        from phonenas.search.run_document import DOCUMENT, estimate_of, read_run
        from phonenas.search.spec import Spec

        from ..progress import duration  # quick --help: it brings the search

        document = read_run(self.path)
        settings, complete = document["settings"], document["complete"]
        quantity = estimate_of(settings).quantity
        budget = max(1, int(settings.get(BUDGET, 0)))
        checkpoint = read_checkpoint(self.path, settings, digested="digest" in document)
        with DOCUMENT.checking(self.path / "run.json", "Search again, with another --out."):
            spec = Spec.recorded(settings, document.get("objectives"))
        devices = [d["device"] for d in settings.get("devices", ())] or [settings["device"]]
        about: Facts = [
            ("device", " and ".join(devices)),
            ("strategy", settings.get("strategy", "")),
        ]
        if checkpoint is None:
            facts: Facts = [("evaluated", f"none yet of {budget:,}"), *about]
            return _job(
                "run", str(self.path), "", complete=complete, throughput=[], facts=facts, share=0.0
            )
        evaluated, log = checkpoint.evaluations, checkpoint.log
        n = len(evaluated)
        facts = [("evaluated", f"{n:,} of {budget:,}")]
        share = min(1.0, n / budget) if not complete else 1.0
        rate = n / checkpoint.seconds if checkpoint.seconds > 0 else 0.0
        throughput: Facts = []
        if rate and not complete:
            throughput.append(("rate", f"{rate:,.3g} a second"))
            throughput.append(("left", f"about {duration(max(0, budget - n) / rate)}"))
        known = evaluated.take(np.flatnonzero(evaluated.has_top1))
        within = known.take(np.flatnonzero(spec.met(known) & known.comparable))
        rows, left_out = spec.front(within)
        front, left = within.take(rows), f", {left_out:,} extrapolated left out" if left_out else ""
        facts.append(("on the front", f"{len(front):,}{left}"))
        if log and log[-1].hypervolume == log[-1].hypervolume:
            facts.append(("hypervolume", f"{log[-1].hypervolume:.4f}"))
        if failed := n - len(known):
            facts.append((f"without {quantity}", f"{failed:,}"))
        plots = [
            self._plot(place, column, settings, known, front)
            for place, column in enumerate(_columns(spec))
        ]
        for plot in plots:
            where = f"measured on {plot['device']}" if plot["device"] else "measured"
            if plot["measured"]:
                facts.append((where, counted(len(plot["measured"]), "network")))
        return _job(
            "run",
            str(self.path),
            "",
            complete=complete,
            throughput=throughput,
            facts=[*facts, *about],
            share=share,
            plots=plots,
            rows=_rows(front, spec, quantity),
        )

    def _plot(
        self,
        place: int,
        column: _Column,
        settings: dict[str, Any],
        known: Evaluations,
        front: Evaluations,
    ) -> dict[str, Any]:
        """The networks by their latency on a device."""
        import numpy as np

        from phonenas.search.run_document import estimate_of

        device, of, target_ms = column
        own = device in ("", settings["device"])
        folder = self.path if own else self.path / f"device{place + 1}"
        even = np.unique(np.linspace(0, len(known) - 1, min(len(known), _MOST_POINTS)).astype(int))
        return {
            "device": device,
            "quantity": f"{estimate_of(settings).quantity}, %",
            "target": target_ms,
            "cloud": _points(zip(of(known)[even], known.top1[even], strict=True)),
            "front": _points(zip(of(front), front.top1, strict=True)),
            "measured": _points(self._measured(folder)),
        }

    @staticmethod
    def _measured(folder: Path) -> list[tuple[float, float]]:
        """Measured latency, in ms, and estimated top-1 of each network of the validation."""
        from phonenas.search.validation.validation_file import DOCUMENT, checked_validation

        path, again = folder / "validation.json", "Validate again."
        document = DOCUMENT.read(path, again)
        if document is None:
            return []
        with DOCUMENT.checking(path, again):
            networks = checked_validation(document)["networks"]
        return [(v["measured_ms"], v["top1"]) for v in networks]

    def _trained(self) -> Facts:
        """Trainings in full of the run's networks: how many have ended, and epochs of the others.

        They are in folders of their own, which change while run.json does not.
        """
        begun = sorted(
            (p for p in self.path.glob("promoted/*") if p.name.isdecimal()),
            key=lambda p: int(p.name),
        )
        if not begun:
            return []
        done = sum((p / "promoted.json").exists() for p in begun)
        facts = [("trained in full", f"{done} of {len(begun)} begun")]
        for folder in begun:
            if not (folder / "promoted.json").exists() and (folder / "curve.csv").exists():
                count = max(0, _line_count(folder / "curve.csv") - 1)
                facts.append((f"network {folder.name}", counted(count, "epoch")))
        return facts[:_MOST_ROWS]


def _word(complete: bool, works: bool | None) -> str:
    if works or complete:
        return "at work" if works else "finished"
    return "not known" if works is None else "stopped"


def _line_count(path: Path) -> int:
    """Lines of a regular file, of its first 4 MiB; to open a pipe would wait for its writer."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return len(file.read(_MOST_BYTES).splitlines()) if regular else 0


def _points(pairs: Iterable[tuple[float, float]]) -> list[list[float]]:
    """Latency in ms and top-1 in per cent, by latency, in the digits that a plot shows."""
    return sorted([round(float(ms), 4), round(100 * float(top1), 3)] for ms, top1 in pairs)


def _columns(spec: Spec) -> list[_Column]:
    """Of each of several devices, or of the one: its name, latencies and target."""
    if spec.devices is None:
        target_ms = None if spec.target is None else spec.target.ms
        return [("", lambda e: e.latency_ms, target_ms)]
    return [
        (name.partition(":")[2], partial(_further, name), ms)
        for name, ms in spec.devices.targets_ms.items()
    ]


def _further(name: str, evaluated: Evaluations) -> Any:
    return evaluated.further[name]


def _rows(front: Evaluations, spec: Spec, quantity: str) -> dict[str, Any]:
    """Networks of the front, evenly spaced."""
    columns = _columns(spec)
    latencies = [of(front) for _, of, _ in columns]
    order = sorted(range(len(front)), key=lambda i: (latencies[0][i], front.top1[i]))
    last = min(len(order), _MOST_ROWS) - 1
    places = [round(i * (len(order) - 1) / last) for i in range(last + 1)] if last > 0 else [0]
    some = [order[i] for i in places] if order else []
    of = "" if len(some) == len(order) else f", {len(some)} of {len(order)}, evenly spaced"
    return {
        "title": f"The front as predicted{of}",
        "head": [*(f"latency on {d}" if d else "latency" for d, _, _ in columns), quantity],
        "rows": [
            [*(f"{ms[i]:.2f} ms" for ms in latencies), f"{100 * front.top1[i]:.1f} %"] for i in some
        ],
    }


class StoreState:
    """A store of measurements, opened to be read each time.

    Args:
        db: Its path or URL; it may not be there yet.
    """

    def __init__(self, db: str) -> None:
        from ..output import shown_db

        self.db, self.name = db, shown_db(db)

    def read(self) -> dict[str, Any]:
        """The state; what cannot be read is told in it."""
        from phonenas.data import MeasurementStore

        name = self.name
        if "://" not in self.db and not Path(self.db).exists():
            told = "There is no store here yet; the page shows it as soon as a profile begins."
            return _job("store", name, "not begun", told=told)
        try:
            with MeasurementStore(self.db, create=False, read_only=True) as store:
                counts = store.progress()
        except PhonenasError as error:
            return _job("store", name, "unreadable", told=str(error))
        if not counts:
            return _job("store", name, "empty", told="Nothing is measured yet.")
        done, open_ = counts[0].complete, counts[0].open
        facts: Facts = [
            ("device measured last", counts[0].device),
            ("measured", f"{done:,} of {done + open_:,}"),
            (
                "last round",
                f"{counts[0].last[:19].replace('T', ' ')} UTC" if counts[0].last else "–",
            ),
        ]
        rows = [
            [c.device, c.conditions, f"{c.complete:,}", f"{c.open:,}", f"{c.given_up:,}"]
            for c in counts[:_MOST_ROWS]
        ]
        head = ["device", "conditions", "measured", "under way", "given up"]
        return _job(
            "store",
            name,
            "incomplete" if open_ else "complete",
            told="A job is at work or was stopped; the last round tells which." if open_ else "",
            facts=facts,
            share=done / (done + open_) if done + open_ else None,
            rows={"title": "Measurements", "head": head, "rows": rows},
        )
