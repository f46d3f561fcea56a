"""A run on disk: its settings, its checkpoint, what it evaluated and its front.

    run.json            format, version, settings, versions of the libraries, front, seconds
    checkpoint.npz      strategy state and every evaluated genome with its numbers
    evaluations.parquet every evaluated genome by decision name, once the run is done
    accuracy.db         what a slow estimator said, as it came (see `accuracy.cache`)
    log.csv             a row a generation, as of the last checkpoint

All are written atomically; arrays are plain (nothing is pickled). Version 1 is the first. A network
that got no accuracy has NaN in the columns top1 and top1_error; why, the checkpoint keeps, and the
table in a column `failed` that it has only then.
"""

from __future__ import annotations

import io
import json
import logging
import time
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.documents import Document, only
from ..data.files import write_atomic
from ..space import Genomes, SearchSpace
from ..space.errors import SettingsChanged, StoreError, UnknownName, UnsupportedFormat
from .pareto import Candidate, ParetoFront

__all__ = ["LOG", "NUMBERS", "Loaded", "RunFolder", "Stopped", "load"]

FORMAT, VERSION = "phonenas-run", 1
log = logging.getLogger("phonenas")
_DOCUMENT = Document(FORMAT, VERSION, "run")
_INTERVAL_S = 1.0
NUMBERS = ("latency_ms", "top1", "top1_error", "outside")
LOG = ("evaluations", "repeats", "hypervolume", "fastest_ms", "best_top1", "seconds")
_TOLD = {"target", "columns", "estimator", "scale", "asked"}  # settings that follow from others
_SHARE = 10  # times as long as a checkpoint takes, nothing is saved again
_LIBRARIES = ("phonenas", "numpy", "pymoo", "moocore", "scipy", "scikit-learn", "lightgbm", "torch")


@dataclass(frozen=True)
class Stopped:
    """Where a run stopped."""

    state: dict[str, Any]
    genomes: Genomes
    numbers: npt.NDArray[np.float64]
    repeats: int
    seconds: float
    log: npt.NDArray[np.float64]
    stale: int = 0
    failed: dict[int, str] = field(default_factory=dict)


class RunFolder:
    """Lifetime: opened at the start of a search with its settings, then saved to.

    Raises:
        SettingsChanged: It holds a run with other settings.
        UnsupportedFormat: It holds a run of a newer version.
        StoreError: It holds something else, or cannot be written.
    """

    def __init__(
        self, path: str | Path, settings: dict[str, Any], model: dict[str, Any] | None = None
    ) -> None:
        self.path = Path(path)
        self.model = model or {}
        self.settings = json.loads(json.dumps(settings))
        self.columns = tuple(self.settings.get("columns", NUMBERS))
        self._saved_s, self._pause_s = time.monotonic(), _INTERVAL_S
        if (self.path / "run.json").exists():
            found = _read(self.path)
            changed = [
                f"{k} was {_shown(found['settings'], k)} and is now {_shown(self.settings, k)}"
                for k in sorted({*found["settings"], *self.settings} - _TOLD)
                if found["settings"].get(k) != self.settings.get(k)
            ]
            if changed and not found["complete"] and not self._checkpoint.exists():
                # It stopped before anything was judged, as at a broken image: nothing is lost.
                log.info("%s: begun anew with other settings: %s", self.path, "; ".join(changed))
                self._write_json({"complete": False})
            elif changed:
                refitted = (
                    " The latency model was fitted anew since: --model gives an older one."
                    if any(c.startswith("latency_model") for c in changed)
                    else ""
                )
                raise SettingsChanged(
                    f"{self.path} holds a run with other settings: {'; '.join(changed)}. Give the "
                    f"same settings to go on with it, or another --out for a new run.{refitted}"
                )
        else:
            only(self.path, "run.json")
            self._write_json({"complete": False})

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoint.npz"

    def _write_json(self, more: dict[str, Any]) -> None:
        document = {
            "format": FORMAT,
            "version": VERSION,
            "settings": self.settings,
            "model": self.model,
            "libraries": {name: _version(name) for name in _LIBRARIES},
            **more,
        }
        write_atomic(self.path / "run.json", json.dumps(document, indent=1) + "\n")

    def finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(_read(self.path)["complete"])

    def due(self) -> bool:
        """Whether it is time for a checkpoint: the last one is a second old, or cost a tenth of its age."""
        return time.monotonic() - self._saved_s >= self._pause_s

    def save(
        self,
        state: dict[str, Any],
        genomes: Genomes,
        numbers: npt.NDArray[np.float64],
        repeats: int,
        seconds: float = 0.0,
        log: Sequence[Sequence[float]] = (),
        stale: int = 0,
        failed: Mapping[int, str] | None = None,
    ) -> None:
        """Write the checkpoint.

        Args:
            state, genomes, numbers, repeats: Of the strategy and the judge.
            seconds: That the run has taken so far.
            log: Its rows.
            stale: Asks in a row that brought nothing new.
            failed: Why networks have no accuracy, by row.
        """
        began = time.monotonic()
        arrays = {f"state_{k}": v for k, v in state.items() if isinstance(v, np.ndarray)}
        plain = {k: v for k, v in state.items() if not isinstance(v, np.ndarray)}
        text = json.dumps(
            {"state": plain, "repeats": repeats, "seconds": seconds, "stale": stale}
            | ({"failed": {str(row): why for row, why in failed.items()}} if failed else {})
        )
        buffer = io.BytesIO()
        rows = np.array(log, np.float64).reshape(-1, len(LOG))
        np.savez(
            buffer, plain=np.array(text), genomes=genomes, numbers=numbers, log=rows, **arrays,  # type: ignore[arg-type]
        )  # fmt: skip
        write_atomic(self._checkpoint, buffer.getvalue())
        lines = [
            ",".join(LOG),
            *(",".join(f"{v:.6g}" if v % 1 else f"{v:.0f}" for v in row) for row in rows),
        ]
        write_atomic(self.path / "log.csv", "\n".join(lines) + "\n")
        self._saved_s = time.monotonic()
        self._pause_s = max(_INTERVAL_S, _SHARE * (self._saved_s - began))

    def checkpoint(self) -> Stopped | None:
        """Where the run stopped; None for a new one.

        Raises:
            UnsupportedFormat: The file is damaged.
        """
        path = self._checkpoint
        if not path.exists():
            return None
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                plain = json.loads(str(file["plain"]))
                state = plain["state"]
                state |= {k[6:]: file[k] for k in file.files if k.startswith("state_")}
                genomes, numbers = file["genomes"], file["numbers"]
                log = file["log"] if "log" in file.files else np.empty((0, len(LOG)))
                if numbers.shape != (len(genomes), len(self.columns)) or genomes.dtype != np.int8:
                    raise ValueError(f"genomes {genomes.shape}, numbers {numbers.shape}")
                if log.ndim != 2 or log.shape[1] != len(LOG):
                    raise ValueError(f"log {log.shape}")
                failed = {int(row): str(why) for row, why in plain.get("failed", {}).items()}
                if sorted(failed) != np.flatnonzero(np.isnan(numbers[:, 1])).tolist():
                    raise ValueError(f"{len(failed)} reasons for networks without an accuracy")
                return Stopped(
                    state,
                    genomes,
                    numbers,
                    plain["repeats"],
                    plain["seconds"],
                    log,
                    plain.get("stale", 0),
                    failed,
                )
        except (
            OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile,
        ) as error:  # fmt: skip
            raise UnsupportedFormat(
                f"{path} is damaged ({error}). Remove it to start this run anew."
            ) from error

    def finish(
        self,
        front: ParetoFront,
        space: SearchSpace,
        genomes: Genomes,
        numbers: npt.NDArray[np.float64],
        seconds: float,
        failed: Mapping[int, str] | None = None,
    ) -> None:
        """Write the front, and every evaluation as a table; `failed` as for `save`."""
        import pandas as pd

        table = pd.DataFrame(genomes, columns=list(space.decisions))
        for column, name in enumerate(self.columns):
            table[name] = numbers[:, column]
        if failed:
            table["failed"] = [failed.get(row, "") for row in range(len(table))]
        write_atomic(
            self.path / "evaluations.parquet", lambda beside: table.to_parquet(beside, index=False)
        )
        told = {"failed": dict(sorted(Counter(failed.values()).items()))} if failed else {}
        self._write_json({"complete": True, "seconds": seconds, **told, **_front_dict(front)})


def _shown(settings: dict[str, Any], name: str) -> str:
    """A setting for people; an estimator's digest with what was asked for."""
    value = settings.get(name)
    if name == "accuracy" and "estimator" in settings:
        asked = " ".join(f"--{k} {v}" for k, v in settings.get("asked", {}).items())
        return f"{value!r} ({asked or settings['estimator']})"
    return repr(value)


def _version(name: str) -> str:
    if name == "phonenas":
        from .. import __version__

        return __version__
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _front_dict(front: ParetoFront) -> dict[str, Any]:
    return {
        "hypervolume": front.hypervolume,
        "front": [c.to_dict() for c in front.candidates],
    }


def _read(path: Path) -> dict[str, Any]:
    found = _DOCUMENT.read(path / "run.json", "Search again, with another --out.")
    if found is None:
        raise StoreError(f"{path / 'run.json'} is gone")
    parts: dict[str, type] = {"settings": dict, "model": dict, "complete": bool}
    if found.get("complete"):
        parts |= {"front": list, "seconds": float, "hypervolume": float, "libraries": dict}
        parts |= {"failed": dict} if "failed" in found else {}
    for name, kind in parts.items():
        if not isinstance(found.get(name), kind):
            raise UnsupportedFormat(f"{path / 'run.json'} is damaged: {name} is missing or wrong")
    return dict(found)


@dataclass(frozen=True)
class Loaded:
    """A finished run: its settings, front, seconds, and the latency model that promised.

    `model` holds that model's digest, conditions, scores and the networks that examined it;
    `failed` how many networks got no accuracy, by reason.
    """

    path: Path
    settings: dict[str, Any]
    front: ParetoFront
    seconds: float
    libraries: dict[str, str]
    model: dict[str, Any]
    failed: dict[str, int] = field(default_factory=dict)

    def numbers(self) -> npt.NDArray[np.float64]:
        """latency_ms, top1, top1_error, outside of all evaluations, and what more was asked, (n, 4 + more).

        top1 and top1_error are NaN where a network got no accuracy.
        """
        stopped = RunFolder(self.path, self.settings).checkpoint()
        return np.empty((0, 4)) if stopped is None else stopped.numbers

    def log(self) -> npt.NDArray[np.float64]:
        """A row a generation, (g, 6): evaluations, repeats, hypervolume, fastest ms, best top-1, seconds."""
        stopped = RunFolder(self.path, self.settings).checkpoint()
        return np.empty((0, len(LOG))) if stopped is None else stopped.log

    def with_measured(self, measured_ms: dict[int, float]) -> None:
        """Write what the device said of some candidates into the run."""
        found = _read(self.path)
        for row in found["front"]:
            if row["id"] in measured_ms:
                row["measured_ms"] = measured_ms[row["id"]]
        write_atomic(self.path / "run.json", json.dumps(found, indent=1) + "\n")


def load(path: str | Path) -> Loaded:
    """A run by its folder.

    Raises:
        UnknownName: There is none.
        UnsupportedFormat: It is unfinished, damaged or of another version.
    """
    folder = Path(path)
    if not (folder / "run.json").exists():
        raise UnknownName(
            f"there is no run in {folder}. Make one:  phonenas search --out {folder} ..."
        )
    found = _read(folder)
    if not found["complete"]:
        raise UnsupportedFormat(
            f"the run in {folder} was stopped before its end. The same phonenas search command "
            "goes on with it."
        )
    try:
        candidates = tuple(Candidate.from_dict(row) for row in found["front"])
        front = ParetoFront(
            candidates,
            found["settings"]["target_ms"],
            found["settings"]["target"],
            found["hypervolume"],
        )
    except (TypeError, KeyError, ValueError) as error:
        raise UnsupportedFormat(f"{folder / 'run.json'} is damaged: {error}") from error
    return Loaded(
        folder, found["settings"], front, found["seconds"], found["libraries"], found["model"],
        found.get("failed", {}),
    )  # fmt: skip
