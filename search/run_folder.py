"""A run on disk: its settings, its checkpoint, what it evaluated and its front.

    run.json            format, version, settings and their digest, versions of the libraries,
                        front, seconds
    model.json          the latency model that predicts, as it was when the run began
    model2.json         that of the second of several devices, and so on
    model.int8.json     of a search over precisions one of each, instead of model.json
    checkpoint.npz      strategy state and every evaluated genome with its numbers
    evaluations.parquet every evaluated genome by decision name, once the run is done
    networks.parquet    the same networks as block strings, on request
    accuracy.db         answers of a slow estimator, as they came (see `accuracy.cache`)
    log.csv             a row a generation, as of the last checkpoint
    references.json     known networks beside the front
    traces.json         what runtimes' profilers said of networks
    first300/           the run as it was finished after 300 evaluations, before it went on
    device2/            the run as one of the second of several devices, once that is validated

All are written atomically; arrays are plain (nothing is pickled). One process at a time works in a
run's folder, and its files carry one digest of its settings (`run_digest`), so that files of two
runs are never read as one. Version 1 is the first; runs of phonenas 0.1 lack `objectives` and the
digest. A network without an accuracy has NaN as top1 and top1_error; the reason is in the
checkpoint, and in a column `failed` that the table has only then.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import time
from collections import Counter
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

from phonenas.data.documents import only
from phonenas.data.files import Lock, remove_unfinished, write_atomic
from phonenas.latency_model import LatencyModel
from phonenas.latency_model import load as load_model
from phonenas.space import SearchSpace
from phonenas.space.errors import PhonenasError, SettingsChanged, StoreError, UnsupportedFormat
from phonenas.space.precision import PRECISIONS

from .budget import Budget
from .checkpoint import (
    BUDGET,
    DERIVED,
    RULES,
    Checkpoint,
    read_checkpoint,
    run_digest,
    write_checkpoint,
)
from .loaded import Loaded, load, lock_run
from .pareto import ParetoFront
from .run_document import DOCUMENT, VALIDATION, model_file, named_in, read_run

__all__ = ["Checkpoint", "Loaded", "RunFolder", "load", "lock_run"]

log = logging.getLogger("phonenas")

_INTERVAL_S = 1.0
_FILES: tuple[str, ...] = (
    *("run.json", "model.json", "checkpoint.npz", "evaluations.parquet", "log.csv"),
    *("networks.parquet", "references.json", "validation.json", "promoted.json"),
    *("report.html", "comparison.html", "traces.json"),
    *(f"model.{precision}.json" for precision in PRECISIONS),
)
# Made of the front of a finished run: another front, other numbers.
_OF_THE_FRONT: tuple[str, ...] = (
    "validation.json",
    "references.json",
    "networks.parquet",
    "promoted.json",
)
_OF_THE_FRONT += ("report.html", "comparison.html", "promoted", "round[0-9]*", *PRECISIONS)
_OF_THE_FRONT += ("device[0-9]*", "traces.json")
_MODELS = "model[0-9]*.json"  # of the further ones of several devices
_SHARE = 10  # times as long as a checkpoint takes, nothing is saved again
_LIBRARIES = ("phonenas", "numpy", "pymoo", "moocore", "scipy", "scikit-learn", "lightgbm", "torch")


class RunFolder:
    """Lifetime: opened at the start of a search with its settings, saved to, then closed.

    Args:
        path, settings: The folder, and all that a resumed run must share, with its budget. It is
            this process's until `close`; a finished run is only read, and needs no lock. One with
            a smaller budget is under way again; as it was, it stays in a folder of its own,
            `first300`.
        model, objectives: Summary of the latency model, and `Spec.to_dict` of what is asked.
        lock: Whether to take the folder's lock; without it the caller has it.
    Attributes:
        kept: Where the finished run that goes on stays as it was; None for any other.
    Raises:
        SettingsChanged: It holds a run with other settings, or with a greater budget.
        UnsupportedFormat: It holds a run of a newer version, or a damaged one.
        StoreError: It holds something else, cannot be written, or another process works in it; or
            a finished run that is to go on lacks its checkpoint.
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
        self.kept: Path | None = None
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
            same = self._same()
            if same is None:
                self._write_json({"complete": False})
                self._made.append("run.json")
            elif not same and self._budget_of(read_run(self.path)) != self._budget_of(
                {"settings": self.settings}
            ):
                self._go_on()
            if not same:
                self._remove_of_first()
        except BaseException:
            self.close()
            raise

    @property
    def locked(self) -> bool:
        """Whether this object has the folder's lock."""
        return self._lock is not None

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
        """Whether the run there, of these settings, is finished; None where there is no run.

        One that has something left to do of this budget is not finished.
        """
        if not (self.path / "run.json").exists():
            return None
        document = read_run(self.path)
        self._digested = document["version"] == DOCUMENT.version
        before = document["settings"]
        changed = [
            f"{k} was {_described(before, k)} and is now {_described(self.settings, k)}"
            for k in sorted({*before, *self.settings} - DERIVED - {BUDGET, *RULES})
            if before.get(k) != self.settings.get(k)
        ]
        if changed:
            refitted = self._refitted(before)
            raise SettingsChanged(
                f"{self.path} holds a run with other settings: {'; '.join(changed)}. Give the "
                f"same settings to go on with it, or another --out for a new run.{refitted}"
            )
        had, asked = self._evaluated(document), self.settings.get(BUDGET, 0)
        if asked < had:
            raise SettingsChanged(
                f"{self.path} holds a run of {had:,} {BUDGET}, and {asked:,} are asked for. Give "
                f"{had:,} or more to go on with it, or another --out for a new run."
            )
        if not document["complete"]:
            return False
        budget, ended = Budget.of(self.settings), document.get("ended", {}).get("rule", "")
        return budget.is_spent(ended, Budget.of(before), had, document["seconds"])

    def _refitted(self, before: dict[str, Any]) -> str:
        """A sentence where models were fitted again since the run began; "" elsewhere."""
        models = [
            self.path / model_file(before, old["device"])
            for old, new in zip(_models(before), _models(self.settings), strict=False)
            if old["latency_model"] != new["latency_model"] and old["device"] == new["device"]
        ]
        words = [f"--model {shlex.quote(str(path))}" for path in models if path.exists()]
        if not words:
            return ""
        return f" The latency model was fitted again since; that of the run:  {' '.join(words)}"

    @staticmethod
    def _evaluated(document: dict[str, Any]) -> int:
        """How many networks a run evaluated, or is to evaluate."""
        return int(
            document.get("ended", {}).get("evaluations") or document["settings"].get(BUDGET, 0)
        )

    @staticmethod
    def _budget_of(document: dict[str, Any]) -> list[Any]:
        """What of a run's settings may change."""
        return [document["settings"].get(name) for name in (BUDGET, *RULES)]

    def _go_on(self) -> None:
        """Take up the run there with the greater budget; a finished one is kept as it is."""
        before = read_run(self.path)
        checkpoint = read_checkpoint(self.path, before["settings"], digested=self._digested)
        if before["complete"]:
            if checkpoint is None:
                raise StoreError(
                    f"{self._checkpoint} is missing, so that this finished run cannot go on. "
                    "Search again, with another --out."
                )
            if not (checkpoint.before_last or before.get("ended")):
                log.warning(
                    "%s was finished by an earlier phonenas: it goes on from its end, which may "
                    "give another front than all evaluations at once",
                    self.path,
                )
            self._keep_first(self._evaluated(before))
        if checkpoint is not None:  # with a digest that does not hold the budget
            write_checkpoint(self.path, self.settings, checkpoint)
        self._digested = True
        self._write_json({"complete": False})

    def _keep_first(self, evaluations: int) -> None:
        """Keep the finished run, and what was made of its front, in a folder of its own."""
        kept = self.path / f"first{evaluations}"
        beside = self.path / f".{kept.name}"
        try:
            for old in (beside, kept):
                shutil.rmtree(old, ignore_errors=True)
            beside.mkdir()
            # The run's own files alone: a store, too, may lie in its folder.
            for path in [
                p for own in (*_FILES, _MODELS, *_OF_THE_FRONT) for p in self.path.glob(own)
            ]:
                if path.is_dir():
                    shutil.copytree(
                        path, beside / path.name, copy_function=_linked, dirs_exist_ok=True
                    )
                elif not (beside / path.name).exists():
                    _linked(str(path), str(beside / path.name))
            self._name_anew(beside, kept)
            beside.replace(kept)
        except OSError as error:
            raise StoreError(
                f"the run in {self.path} cannot be kept as {kept}, and does not go on: "
                f"{error.strerror or error}. Free the disk, then give the command again."
            ) from error
        self.kept = kept

    @staticmethod
    def _name_anew(beside: Path, kept: Path) -> None:
        """Let validations that are kept name their own networks: `RUN:3` is of the new front."""
        for path in filter(Path.is_file, beside.rglob("validation.json")):
            with suppress(UnsupportedFormat):  # a damaged one stays as it is
                document = VALIDATION.read(path, "")
                with VALIDATION.checking(path, ""):
                    named = named_in(kept / path.parent.relative_to(beside), document or {})
                VALIDATION.write(path, named)

    def _remove_of_first(self) -> None:
        """Remove what belongs to the front of a run before it went on, and was kept with it."""
        for path in [p for pattern in _OF_THE_FRONT for p in self.path.glob(pattern)]:
            if any((first / path.name).exists() for first in self.path.glob("first[0-9]*")):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def keep_model(self, latency: LatencyModel, name: str | None = None) -> None:
        """Write a model that predicts, so that a later fit does not take it away.

        Args:
            latency: Of the device, or of one of several devices.
            name: Of the file; None for that of the device.
        Raises:
            StoreError: Another model lies in its place, or it cannot be written.
        """
        path = self.path / (name or model_file(self.settings, latency.device))
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

    def ended(self) -> str:
        """The rule that ended a finished run, one of `Budget`; "" for its evaluations."""
        return str(read_run(self.path).get("ended", {}).get("rule", ""))

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

    def finish(
        self, front: ParetoFront, space: SearchSpace, done: Checkpoint, rule: str = ""
    ) -> None:
        """Write the front, and every evaluation as a table.

        Args:
            front, space, done: What the run found, where, and all that it evaluated.
            rule: That ended it before it had evaluated all networks, if one did.
        """
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
        ended: dict[str, Any] = {
            "complete": True,
            "seconds": done.seconds,
            "hypervolume": front.hypervolume,
        }
        if rule:
            ended["ended"] = {"rule": rule, "evaluations": len(evaluated)}
        if reasons:
            ended["failed"] = reasons
        if front.left_out:
            ended["left_out"] = front.left_out
        self._write_json({**ended, "front": [c.to_dict() for c in front]})


def _models(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The devices of a run's settings, each with the digest of its model."""
    return settings.get("devices") or [settings]


def _linked(source: str, target: str) -> None:
    """One more name of a file; a copy where the disk has no such links."""
    try:
        os.link(source, target)
    except (AttributeError, OSError):  # Android has no such call
        shutil.copy2(source, target)


def _described(settings: dict[str, Any], name: str) -> str:
    """A setting for people; an estimator's digest with what was asked for."""
    value = settings.get(name)
    if name == "devices":
        words = [
            f"{d['device']} (model {d['latency_model']}, {d['target'] or 'no target'})"
            for d in value or ()
        ]
        return ", ".join(words) or "one device"
    if name == "accuracy" and "estimator" in settings:
        asked = " ".join(f"--{k} {v}".rstrip() for k, v in settings.get("asked", {}).items())
        return f"{value!r} ({asked or settings['estimator']})"
    return repr(value)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
