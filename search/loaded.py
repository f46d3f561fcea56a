"""A finished run as it lies on disk; and the lock of a run's folder."""

from __future__ import annotations

import re
import shlex
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonenas import space as spaces
from phonenas.data import Conditions
from phonenas.data.files import Lock, lock_folder, write_atomic
from phonenas.latency_model import LatencyModel
from phonenas.latency_model import load as load_model
from phonenas.space import AdditiveTable, SearchSpace
from phonenas.space.errors import (
    InvalidArgument,
    PhonenasError,
    SettingsChanged,
    UnknownName,
    UnsupportedFormat,
)
from phonenas.space.precision import FLOAT32, PRECISIONS

from .checkpoint import BUDGET, read_checkpoint, run_digest
from .evaluations import COLUMNS, Evaluations, Generation
from .pareto import FRONT_COLUMNS, Candidate, ParetoFront
from .run_document import DOCUMENT, model_file, read_run
from .spec import Spec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Loaded", "load", "lock_run"]

_PART = re.compile(rf"(round|device)[0-9]+|{'|'.join(PRECISIONS)}")  # of a run, in its folder


def lock_run(path: Path) -> Lock:
    """Keep other processes out of a run's folder. What a validation made in it, and the run of one
    precision, have its lock, too.

    Raises:
        StoreError: Another process works there, and is named.
    """
    above = path.absolute()
    while _PART.fullmatch(above.name) and (above.parent / "run.json").exists():
        path = above = above.parent
    return lock_folder(path)


@dataclass(frozen=True)
class Loaded:
    """A finished run: its settings, front, seconds, and versions of libraries.

    `model` holds digest, conditions and scores of the latency model that predicted, and the
    networks that examined it; `failed` how many networks got no accuracy, by reason; `objectives`
    is `Spec.to_dict` of what was asked, None in a run of version 0.1; `digested` whether its files
    hold digests of their content; `whole` the run of several devices that this is as a run of one
    of them.
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
    whole: Loaded | None = None

    def __repr__(self) -> str:
        return f"Loaded({str(self.path)!r}, {self.front!r})"

    @property
    def latency_model(self) -> LatencyModel | None:
        """The model that predicted; None in runs of phonenas 0.1, which kept none.

        Raises:
            UnsupportedFormat: It is damaged.
        """
        return self._model_of(str(self.settings["device"]), self.settings["latency_model"])

    def _model_of(self, device: str, digest: str) -> LatencyModel | None:
        run = self.whole or self
        path = run.path / model_file(run.settings, device)
        model = load_model(path) if path.exists() else None
        return model if model is not None and model.digest == digest else None

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that it was searched for."""
        several = self.settings.get("devices", ())
        return tuple(d["device"] for d in several) or (str(self.settings["device"]),)

    def device_models(self) -> dict[str, LatencyModel]:
        """The model of each of several devices that predicted; none for one device.

        Raises:
            UnsupportedFormat: One is damaged, or missing.
        """
        models = {}
        for of in self.settings.get("devices", ()):
            model = self._model_of(of["device"], of["latency_model"])
            if model is None:
                missing = self.path / model_file(self.settings, of["device"])
                raise UnsupportedFormat(
                    f"{missing} is missing, the latency model of {of['device']}. Search again, "
                    "with another --out."
                )
            models[of["device"]] = model
        return models

    @property
    def conditions(self) -> Conditions:
        """Under which the model that predicted was measured; UnsupportedFormat without any."""
        with DOCUMENT.checking(self.path / "run.json", "Search again, with another --out."):
            return Conditions.from_dict(self.model.get("conditions") or {})

    @property
    def precision(self) -> str:
        """What its networks compute in; float32 in a run that does not say it."""
        known = {"precision": FLOAT32, **(self.model.get("conditions") or {}), **self.settings}
        return str(known["precision"])

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
        if self.whole is not None:
            known = self.whole.evaluations()
            return replace(known, latency_ms=known.further[f"latency:{self.settings['device']}"])
        checkpoint = read_checkpoint(self.path, self.settings, digested=self.digested)
        if checkpoint is not None:
            return checkpoint.evaluations
        columns = self.settings.get("columns", COLUMNS)
        return Evaluations.of_array(np.empty((0, 0), np.int8), np.empty((0, len(columns))), columns)

    def log(self) -> tuple[Generation, ...]:
        """A row a generation."""
        if self.whole is not None:
            return self.whole.log()
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
        further = {**evaluated.further, **self.spec.ratios(evaluated)}
        counts = AdditiveTable(space, lambda o: (o.macs, o.params))(genomes).astype(np.int64)
        columns = {
            "network": [space.text(row) for row in genomes],
            **{name: getattr(evaluated, name) for name in COLUMNS},
            "macs": counts[:, 0],
            "params": counts[:, 1],
            "reward": None,
            **self.front.origin_columns,
            **{n: v for n, v in further.items() if n not in FRONT_COLUMNS},
            "failed": [evaluated.failed.get(i, "") for i in range(len(evaluated))],
        }
        if target is not None:
            columns["reward"] = self.spec.rewards(evaluated)
        front = self.front.to_frame()
        named = [n for n in map(str, front) if n.startswith(("low:", "high:"))]
        ends = [n for n in named if n not in columns]
        known = front[["id", "network", "low_ms", "high_ms", *ends]]
        frame = pd.DataFrame(columns).merge(known, on="network", how="left")
        more = [*(name for name in columns if name not in FRONT_COLUMNS), *ends]
        return frame.astype({"id": "Int64"})[[*FRONT_COLUMNS, *more]]

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

    def check_unchanged(self) -> None:
        """Check, with the folder locked, that its run is still the one that was read.

        Raises:
            SettingsChanged: A search went on in it meanwhile.
        """
        document = read_run(self.path)
        networks = [row["block_args"] for row in document.get("front", ())]
        if not document["complete"] or networks != [c.block_args for c in self.front]:
            raise SettingsChanged(
                f"the search in {self.path} went on to {document['settings'].get(BUDGET):,} "
                f"{BUDGET} after its front was read. Give the command again, for the front of now."
            )

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
        targets={f"latency:{d['device']}": d["target_ms"] for d in settings.get("devices", ())},
        left_out=document.get("left_out", 0),
        origins={
            f"latency:{device}": str(model.get("conditions", {}).get("origin", "measured"))
            for device, model in ((document.get("objectives") or {}).get("devices") or {}).items()
        },
    )
    seconds, libraries, model = (document[name] for name in ("seconds", "libraries", "model"))
    failed, objectives = document.get("failed", {}), document.get("objectives")
    digested = document["version"] == DOCUMENT.version
    return Loaded(
        folder, settings, front, seconds, libraries, model, failed, objectives, space, digested
    )
