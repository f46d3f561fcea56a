"""A run on disk: its settings, its checkpoint, what it evaluated and its front.

    run.json            format, version, settings and their digest, versions of the libraries,
                        front, seconds
    model.json          the latency model that predicts, as it was when the run began
    checkpoint.npz      strategy state and every evaluated genome with its numbers
    evaluations.parquet every evaluated genome by decision name, once the run is done
    networks.parquet    the same networks as block strings, on request
    accuracy.db         answers of a slow estimator, as they came (see `accuracy.cache`)
    log.csv             a row a generation, as of the last checkpoint
    references.json     known networks beside the front

All are written atomically; arrays are plain (nothing is pickled). One process at a time works in a
run's folder, and its files carry one digest of its settings (`run_digest`), so that files of two
runs are never read as one. Version 1 is the first; runs of phonenas 0.1 lack `objectives` and the
digest. A network without an accuracy has NaN as top1 and top1_error; the reason is in the
checkpoint, and in a column `failed` that the table has only then.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections import Counter
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from phonenas import space as spaces
from phonenas.data import Conditions
from phonenas.data.documents import only
from phonenas.data.files import Lock, lock_folder, remove_unfinished, write_atomic
from phonenas.latency_model import LatencyModel
from phonenas.latency_model import load as load_model
from phonenas.space import AdditiveTable, SearchSpace
from phonenas.space.errors import (
    InvalidArgument,
    PhonenasError,
    SettingsChanged,
    StoreError,
    UnknownName,
    UnsupportedFormat,
)

from .checkpoint import DERIVED, Checkpoint, read_checkpoint, run_digest, write_checkpoint
from .evaluations import COLUMNS, Evaluations, Generation
from .pareto import FRONT_COLUMNS, Candidate, ParetoFront
from .run_document import DOCUMENT, read_run
from .spec import Spec
from .strategies.reward import reward

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Checkpoint", "Loaded", "RunFolder", "load", "lock_run"]

_INTERVAL_S = 1.0
_FILES: tuple[str, ...] = (
    *("run.json", "model.json", "checkpoint.npz", "evaluations.parquet", "log.csv"),
    *("networks.parquet", "references.json", "validation.json", "promoted.json"),
    *("report.html", "comparison.html"),
)
_SHARE = 10  # times as long as a checkpoint takes, nothing is saved again
_LIBRARIES = ("phonenas", "numpy", "pymoo", "moocore", "scipy", "scikit-learn", "lightgbm", "torch")


def lock_run(path: Path) -> Lock:
    """Keep other processes out of a run's folder; a round of a validation has its run's lock.

    Raises:
        StoreError: Another process works there, and is named.
    """
    above = path.absolute().parent
    is_round = re.fullmatch("round[0-9]+", path.name) and (above / "run.json").exists()
    return lock_folder(above if is_round else path)


class RunFolder:
    """Lifetime: opened at the start of a search with its settings, saved to, then closed.

    Args:
        path, settings: The folder, and all that a resumed run must share. It is this process's
            until `close`; a finished run is only read, and needs no lock.
        model, objectives: Summary of the latency model, and `Spec.to_dict` of what is asked.
        lock: Whether to take the folder's lock; without it the caller has it.
    Raises:
        SettingsChanged: It holds a run with other settings.
        UnsupportedFormat: It holds a run of a newer version, or a damaged one.
        StoreError: It holds something else, cannot be written, or another process works in it.
    """

    def __init__(
        self,
        path: str | Path,
        settings: dict[str, Any],
        model: dict[str, Any] | None = None,
        objectives: dict[str, Any] | None = None,
        *,
        lock: bool = True,
    ) -> None:
        self.path = Path(path)
        self.model, self.objectives = model or {}, objectives
        self.settings = json.loads(json.dumps(settings))
        self._saved_s, self._pause_s = time.monotonic(), _INTERVAL_S
        self._lock: Lock | None = None
        self._made: list[str] = []  # by this object: what goes if nothing is evaluated
        self._digested = True
        only(self.path, "run.json")
        if self._same():
            return
        if lock:
            self._lock = lock_run(self.path)
        try:
            only(self.path, "run.json")  # of what came while another process had the folder
            if self._lock is not None and self._lock.error is None:
                remove_unfinished(self.path, _FILES)
            if self._same() is None:
                self._write_json({"complete": False})
                self._made.append("run.json")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the folder to others."""
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, PhonenasError) and not self._checkpoint.exists():
            # Nothing was evaluated, as at a broken image: nothing is lost.
            for name in self._made:
                (self.path / name).unlink(missing_ok=True)
        self.close()

    def _same(self) -> bool | None:
        """Whether the run there, of these settings, is finished; None where there is no run."""
        if not (self.path / "run.json").exists():
            return None
        document = read_run(self.path)
        self._digested = document["version"] == DOCUMENT.version
        before = document["settings"]
        changed = [
            f"{k} was {_described(before, k)} and is now {_described(self.settings, k)}"
            for k in sorted({*before, *self.settings} - DERIVED)
            if before.get(k) != self.settings.get(k)
        ]
        if changed:
            model = self.path / "model.json"
            refitted = (
                f" The latency model was fitted again since; that of the run:  --model "
                f"{shlex.quote(str(model))}"
                if any(c.startswith("latency_model") for c in changed) and model.exists()
                else ""
            )
            raise SettingsChanged(
                f"{self.path} holds a run with other settings: {'; '.join(changed)}. Give the "
                f"same settings to go on with it, or another --out for a new run.{refitted}"
            )
        return bool(document["complete"])

    def keep_model(self, latency: LatencyModel) -> None:
        """Write the model that predicts, so that a later fit does not take it away.

        Raises:
            StoreError: Another model lies in its place, or it cannot be written.
        """
        path = self.path / "model.json"
        if path.exists():
            with suppress(UnsupportedFormat):  # damaged: it is written again
                if load_model(path).digest != latency.digest:
                    raise StoreError(
                        f"{path} is another latency model than the one that predicts. Move it "
                        "away, or choose another --out."
                    )
                return
        latency.save(path)
        self._made.append(path.name)

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoint.npz"

    def _write_json(self, more: dict[str, Any]) -> None:
        document = {
            "settings": self.settings,
            "run": run_digest(self.settings),
            "model": self.model,
            "libraries": {name: _version(name) for name in _LIBRARIES},
            **({} if self.objectives is None else {"objectives": self.objectives}),
            **more,
        }
        DOCUMENT.write(self.path / "run.json", document)

    def finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(read_run(self.path)["complete"])

    def due(self) -> bool:
        """Whether the last checkpoint is a second old, and ten times as old as it took."""
        return time.monotonic() - self._saved_s >= self._pause_s

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint and the log."""
        began = time.monotonic()
        write_checkpoint(self.path, self.settings, checkpoint)
        self._saved_s = time.monotonic()
        self._pause_s = max(_INTERVAL_S, _SHARE * (self._saved_s - began))

    def checkpoint(self) -> Checkpoint | None:
        """Where the run stopped; None for a new one.

        Raises:
            UnsupportedFormat: The file is damaged.
        """
        return read_checkpoint(self.path, self.settings, digested=self._digested)

    def finish(self, front: ParetoFront, space: SearchSpace, done: Checkpoint) -> None:
        """Write the front, and every evaluation as a table."""
        import pandas as pd

        evaluated = done.evaluations
        table = pd.DataFrame(evaluated.genomes, columns=list(space.decisions))
        table[list(evaluated.columns)] = evaluated.to_array()
        table.attrs["run"] = run_digest(self.settings)
        if evaluated.failed:
            table["failed"] = [evaluated.failed.get(row, "") for row in range(len(table))]
        write_atomic(
            self.path / "evaluations.parquet", lambda beside: table.to_parquet(beside, index=False)
        )
        reasons = dict(sorted(Counter(evaluated.failed.values()).items()))
        ended = {"complete": True, "seconds": done.seconds, "hypervolume": front.hypervolume}
        failed = {"failed": reasons} if reasons else {}
        self._write_json({**ended, **failed, "front": [c.to_dict() for c in front]})


def _described(settings: dict[str, Any], name: str) -> str:
    """A setting for people; an estimator's digest with what was asked for."""
    value = settings.get(name)
    if name == "accuracy" and "estimator" in settings:
        asked = " ".join(f"--{k} {v}" for k, v in settings.get("asked", {}).items())
        return f"{value!r} ({asked or settings['estimator']})"
    return repr(value)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True)
class Loaded:
    """A finished run: its settings, front, seconds, and versions of libraries.

    `model` holds digest, conditions and scores of the latency model that predicted, and the
    networks that examined it; `failed` how many networks got no accuracy, by reason; `objectives`
    is `Spec.to_dict` of what was asked, None in a run of version 0.1; `digested` whether its files
    hold digests of their content.
    """

    path: Path
    settings: dict[str, Any]
    front: ParetoFront
    seconds: float
    libraries: dict[str, str]
    model: dict[str, Any]
    failed: dict[str, int] = field(default_factory=dict)
    objectives: dict[str, Any] | None = None
    given_space: SearchSpace | None = None
    digested: bool = False

    def __repr__(self) -> str:
        return f"Loaded({str(self.path)!r}, {self.front!r})"

    @property
    def latency_model(self) -> LatencyModel | None:
        """The model that predicted; None in runs of phonenas 0.1, which kept none.

        Raises:
            UnsupportedFormat: It is damaged.
        """
        path = self.path / "model.json"
        model = load_model(path) if path.exists() else None
        own = model is not None and model.digest == self.settings["latency_model"]
        return model if own else None

    @property
    def conditions(self) -> Conditions:
        """Under which the model that predicted was measured; UnsupportedFormat without any."""
        with DOCUMENT.checking(self.path / "run.json", "Search again, with another --out."):
            return Conditions.from_dict(self.model.get("conditions") or {})

    @cached_property
    def space(self) -> SearchSpace:
        """The space that was searched, by its name or as `load` was given it.

        Raises:
            UnknownName, InvalidArgument: No space of that name, or another was given.
        """
        name, px = self.settings["space"], self.settings["resolution_px"]
        space = self.given_space or spaces.get(name, px)
        if (space.name, space.resolution_px) != (name, px):
            raise InvalidArgument(
                f"{self.path} was searched in {name} at {px} px, not in {space.name} at "
                f"{space.resolution_px} px"
            )
        return space

    @property
    def spec(self) -> Spec:
        """What was asked; UnsupportedFormat where it is damaged."""
        try:
            return Spec.recorded(self.settings, self.objectives)
        except (PhonenasError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnsupportedFormat(
                f"{self.path / 'run.json'} is damaged: {str(error)[:200]}"
            ) from error

    def evaluations(self) -> Evaluations:
        """All networks that were evaluated, in order; none where the checkpoint was removed.

        Raises:
            UnsupportedFormat: The checkpoint is damaged.
        """
        checkpoint = read_checkpoint(self.path, self.settings, digested=self.digested)
        if checkpoint is not None:
            return checkpoint.evaluations
        columns = self.settings.get("columns", COLUMNS)
        return Evaluations.of_array(np.empty((0, 0), np.int8), np.empty((0, len(columns))), columns)

    def log(self) -> tuple[Generation, ...]:
        """A row a generation."""
        checkpoint = read_checkpoint(self.path, self.settings, digested=self.digested)
        return () if checkpoint is None else checkpoint.log

    def to_frame(self) -> pd.DataFrame:
        """All networks that were evaluated, in order, with the columns of `ParetoFront.to_frame`.

        `id` is the place in the front, missing for the others, whose interval is not known either;
        `failed` is why a network has no accuracy. `evaluations.parquet` has the genes.

        Raises:
            UnsupportedFormat: What was evaluated is damaged, or not of the run's space.
        """
        import pandas as pd

        space, target, evaluated = self.space, self.spec.target, self.evaluations()
        try:
            genomes = space.check(evaluated.genomes.reshape(len(evaluated), len(space.decisions)))
        except ValueError as error:
            raise UnsupportedFormat(
                f"{self.path / 'checkpoint.npz'} holds no networks of {space.name}: "
                f"{str(error)[:200]}"
            ) from error
        counts = AdditiveTable(space, lambda o: (o.macs, o.params))(genomes).astype(np.int64)
        columns = {
            "network": [str(space.decode(row)) for row in genomes],
            **{name: getattr(evaluated, name) for name in COLUMNS},
            "macs": counts[:, 0],
            "params": counts[:, 1],
            "reward": None,
            "origin": self.front.origin,
            **{n: v for n, v in evaluated.further.items() if n not in FRONT_COLUMNS},
            "failed": [evaluated.failed.get(i, "") for i in range(len(evaluated))],
        }
        if target is not None:
            rewards = reward(evaluated.top1, evaluated.latency_ms, target.ms)
            columns["reward"] = rewards * self.spec.weights(evaluated)
        known = self.front.to_frame()[["id", "network", "low_ms", "high_ms"]]
        frame = pd.DataFrame(columns).merge(known, on="network", how="left")
        further = [name for name in columns if name not in FRONT_COLUMNS]
        return frame.astype({"id": "Int64"})[[*FRONT_COLUMNS, *further]]

    def write_networks(self, path: str | Path | None = None) -> Path:
        """Write `to_frame`, with the name of each candidate ("runs/x:3"), as a Parquet file.

        Args:
            path: The file; by default networks.parquet beside evaluations.parquet.
        """
        file = Path(path) if path is not None else self.path / "networks.parquet"
        frame = self.to_frame()
        frame.attrs["run"] = run_digest(self.settings)
        known = frame.id.notna()
        frame.insert(0, "name", "")
        frame.loc[known, "name"] = [f"{self.path}:{i}" for i in frame.id[known]]
        with lock_run(self.path) if file.parent == self.path else nullcontext():
            return write_atomic(file, lambda beside: frame.to_parquet(beside, index=False))

    def with_measured(self, measured_ms: dict[int, float]) -> None:
        """Write the measured latencies of some candidates, in ms by id, into the run."""
        document = read_run(self.path)
        for row in document["front"]:
            if row["id"] in measured_ms:
                row["measured_ms"] = measured_ms[row["id"]]
        DOCUMENT.write(self.path / "run.json", document)


def load(path: str | Path, space: SearchSpace | None = None) -> Loaded:
    """A run by its folder, with its space where that is not known by name.

    Raises:
        UnknownName: There is none.
        UnsupportedFormat: It is unfinished, damaged or of another version.
    """
    folder = Path(path)
    if not (folder / "run.json").exists():
        raise UnknownName(
            f"there is no run in {folder}. Make one:  phonenas search --device DEVICE --out "
            f"{shlex.quote(str(folder))}"
        )
    document = read_run(folder)
    if not document["complete"]:
        raise UnsupportedFormat(
            f"the run in {folder} was stopped before its end. The same phonenas search command "
            "goes on with it."
        )
    settings = document["settings"]
    front = ParetoFront(
        tuple(Candidate.from_dict(row) for row in document["front"]),
        settings["target_ms"],
        settings["target"],
        document["hypervolume"],
        str(document["model"].get("conditions", {}).get("origin", "measured")),
    )
    seconds, libraries, model = (document[name] for name in ("seconds", "libraries", "model"))
    failed, objectives = document.get("failed", {}), document.get("objectives")
    digested = document["version"] == DOCUMENT.version
    return Loaded(
        folder, settings, front, seconds, libraries, model, failed, objectives, space, digested
    )
