"""What the files of a run or a store say of the job that writes them; nothing is written.

A job's state is a table ready for JSON: `kind`, `name`, `state` (a word), `told` (a sentence, or
""), `who` (the process at work, or ""), `facts` (labels with values), `share` (of the work that is
done, in [0, 1], or None), `plot` (points in ms and per cent, or None) and `rows` (a header and
rows, or None).
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from phonenas.space.errors import PhonenasError
from phonenas.space.naming import counted

__all__ = ["RunState", "StoreState", "state_of"]

_MOST_POINTS = 1_500  # of all evaluated networks; the front is whole
_MOST_ROWS, _MOST_BYTES = 12, 4 << 20
_READ = ("run.json", "checkpoint.npz", "validation.json", "promoted.json")
log = logging.getLogger("phonenas")
Facts = list[tuple[str, str]]


def _job(kind: str, name: str, state: str, **more: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "told": "",
        "who": "",
        "facts": [],
        "share": None,
        "plot": None,
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
            seen = [self._stamp(f) for f in _READ]
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

    def _stamp(self, name: str) -> tuple[int, int] | None:
        try:
            about = (self.path / name).stat()
        except OSError:
            return None
        return about.st_mtime_ns, about.st_size

    def _search(self) -> dict[str, Any]:
        """What run.json and the checkpoint say."""
        import numpy as np

        from phonenas.search.checkpoint import BUDGET, read_checkpoint
        from phonenas.search.pareto import non_dominated
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
        front = within.take(non_dominated(spec.losses(within))) if len(within) else within
        facts.append(("on the front", f"{len(front):,}"))
        if log and log[-1].hypervolume == log[-1].hypervolume:
            facts.append(("hypervolume", f"{log[-1].hypervolume:.4f}"))
        if failed := n - len(known):
            facts.append((f"without {quantity}", f"{failed:,}"))
        even = np.unique(np.linspace(0, len(known) - 1, min(len(known), _MOST_POINTS)).astype(int))
        measured = self._measured()
        if measured:
            facts.append(("measured", counted(len(measured), "network")))
        best = _points(zip(front.latency_ms, front.top1, strict=True))
        plot = {
            "quantity": f"{quantity}, %",
            "target": None if spec.target is None else spec.target.ms,
            "cloud": _points(zip(known.latency_ms[even], known.top1[even], strict=True)),
            "front": best,
            "measured": _points(measured),
        }
        return _job(
            "run",
            str(self.path),
            "",
            complete=complete,
            throughput=throughput,
            facts=[*facts, *about],
            share=share,
            plot=plot,
            rows=_rows(best, quantity),
        )

    def _measured(self) -> list[tuple[float, float]]:
        """Measured latency, in ms, and estimated top-1 of each network of the validation."""
        from phonenas.search.validation.validation_file import DOCUMENT, checked_validation

        path, again = self.path / "validation.json", "Validate again."
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


def _rows(front: list[list[float]], quantity: str) -> dict[str, Any]:
    """Networks of the front, evenly spaced."""
    last = min(len(front), _MOST_ROWS) - 1
    places = [round(i * (len(front) - 1) / last) for i in range(last + 1)] if last > 0 else [0]
    some = [front[i] for i in places] if front else []
    of = "" if len(some) == len(front) else f", {len(some)} of {len(front)}, evenly spaced"
    return {
        "title": f"The front as predicted{of}",
        "head": ["latency", quantity],
        "rows": [[f"{ms:.2f} ms", f"{top1:.1f} %"] for ms, top1 in some],
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
