"""PromotionStore: the result of each promoted network, so that none is trained twice."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonenas.data.documents import Document
from phonenas.space.errors import ExportDiffers, SettingsChanged
from phonenas.space.precision import FLOAT32

from ..training.export.export import WEIGHTS, ExportSettings, export
from ..training.folder import changed_settings
from .result import PromotedNetwork

if TYPE_CHECKING:
    from phonenas.data.images import ImageSet

    from ..training.export.quantised import Quantisation
    from ..training.job import TrainingJob
    from ..training.result import Trained

__all__ = ["PromotionStore", "exported"]

_DOCUMENT = Document("phonenas-promoted-network", 2, "result of a promoted network")
_REMEDY = "Remove it: the training's last checkpoint is beside it, so little is done again."
# What training and export give; the rest follows from the run and the device.
_KEPT = (
    "top1",
    "top1_error",
    "top5",
    "images",
    "epochs",
    "seconds",
    "failed",
    "files",
    "sha256",
    "quantised",
    "finetuned",
    "export_difference",
    "export_failed",
)

log = logging.getLogger("phonenas")

_SHOWN = 3  # of the settings that changed


class PromotionStore:
    """The results of trainings in a run's folder, `promoted/ID/promoted.json`.

    Args:
        run_dir: Of the run.
        job: How the networks are trained and tested.
        quantise: How what was trained is quantised; None: not.
    Attributes:
        again: Ids of the networks, found so far, that were trained and are to be exported again.
    """

    def __init__(self, run_dir: Path, job: TrainingJob, quantise: Quantisation | None) -> None:
        self.run_dir, self.job = run_dir, job
        self.quantise = None if quantise is None else quantise.settings
        self.again: set[int] = set()
        self.settings: dict[str, Any] = {
            **{f"recipe {k}": v for k, v in job.recipe.settings.items() if k != "name"},
            **({} if job.teacher is None else job.teacher.settings),
            "seed": job.seed,
            "images": job.images.digest,
            "test images": None if job.test is None else job.test.digest,
        }

    def folder(self, id_: int) -> Path:
        """Of one network: the training keeps its checkpoints there."""
        return self.run_dir / "promoted" / str(id_)

    def keep(self, network: PromotedNetwork) -> None:
        """Write the result of a network.

        Raises:
            StoreError: The disk does not take it.
        """
        row = network.to_dict()
        document = {
            "settings": {"network": network.block_args, **self.settings},
            "result": {name: row[name] for name in _KEPT},
            "quantise": self.quantise,
        }
        _DOCUMENT.write(self.folder(network.id) / "promoted.json", document)

    def result(self, planned: PromotedNetwork, *, must_agree: bool) -> PromotedNetwork | None:
        """A network with its kept result; None without one, or where it is to be exported again:
        a file is gone, it was not quantised so, or a quantised file was not evaluated.

        Args:
            planned: The network before its training.
            must_agree: Whether other settings are an error; else such a result is left out, with
                a warning.
        Raises:
            SettingsChanged: It was trained with other settings; both values are named.
            UnsupportedFormat: Damaged or of another version.
            StoreError: It cannot be read.
        """
        path = self.folder(planned.id) / "promoted.json"
        document = _DOCUMENT.read(path, _REMEDY)
        if document is None:
            return None
        with _DOCUMENT.checking(path, _REMEDY):
            settings = dict(document["settings"])
            # Older releases kept none.
            result = {"sha256": {}, "quantised": [], "finetuned": None, **document["result"]}
            kept = {name: result[name] for name in _KEPT}
            # Numbers are numbers.
            network = PromotedNetwork.from_dict({**planned.to_dict(), **kept})
            # A format may have no form in a precision: a whole export then has no such file. What
            # differed from torch is quantised again.
            whole = network.quantised or "card" in network.files
            quantised = dict(document.get("quantise") or {}) if whole else {}
        now = {"network": planned.block_args, **self.settings}
        now = json.loads(json.dumps(now))
        changed = changed_settings(settings, now)
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        differences = f"{'; '.join(changed[:_SHOWN])}{more}"
        if changed and must_agree:
            raise SettingsChanged(
                f"network {planned.id} of {self.run_dir} was promoted with other settings: "
                f"{differences}. Give the same settings, or move {self.run_dir / 'promoted'} away "
                "to train again."
            )
        if changed:
            log.warning(
                "network %d of %s is left out, since it was promoted with other settings: %s",
                planned.id,
                self.run_dir,
                differences,
            )
            return None
        gone = [file for file in network.files.values() if not (self.run_dir / file).exists()]
        if gone:
            log.warning("network %d is exported again: %s is gone", planned.id, gone[0])
            self.again.add(planned.id)
            return None
        # In a run in int8 the front is of these files, whether a network is among the best or not.
        needed = (must_agree or planned.precision != FLOAT32) and network.top1 is not None
        why = _quantised_otherwise(network, quantised, self.quantise) if needed else ""
        if why:
            log.warning("network %d is exported again: %s", planned.id, why)
            self.again.add(planned.id)
            return None
        return network


def exported(
    network: PromotedNetwork,
    trained: Trained,
    store: PromotionStore,
    test: ImageSet,
    exports: ExportSettings,
) -> PromotedNetwork:
    """A network with the result of its training, its files written.

    Args:
        network: As it was selected.
        trained: Its training, and its fine-tuning where one was asked for.
        store: Whose folder takes the files.
        test: Images to test on.
        exports: What is written.
    """
    network = replace(
        network, epochs=len(trained.curve), seconds=trained.seconds, images=trained.images_held
    )
    if trained.diverged or trained.top1 != trained.top1:
        return replace(network, failed=trained.diverged or "its top-1 is not a number")
    p, count = trained.top1, max(trained.images_held, 1)
    network = replace(network, top1=p, top5=trained.top5, top1_error=sqrt(p * (1 - p) / count))
    folder, run_dir = store.folder(network.id), store.run_dir
    try:
        written = export(trained, folder, test, recipe=store.job.recipe.digest, settings=exports)
    except ExportDiffers as error:
        names = {"weights": WEIGHTS, "onnx": "network.onnx", "tflite": "network.tflite"}
        kept = {
            name: str((folder / file).relative_to(run_dir))
            for name, file in names.items()
            if (folder / file).exists()
        }
        return replace(network, export_failed=str(error), files=kept)
    files = {name: path.relative_to(run_dir).as_posix() for name, path in written.files.items()}
    left_out = "; ".join(f"{name}: {reason}" for name, reason in written.left_out.items())
    return replace(
        network,
        files=files,
        sha256=written.sha256,
        quantised=written.quantised,
        finetuned=written.finetuned,
        export_difference=written.difference,
        export_failed=left_out,
    )


def _quantised_otherwise(
    network: PromotedNetwork, kept: dict[str, Any], now: dict[str, Any] | None
) -> str:
    """Why a network is quantised again; "" where it need not be.

    Args:
        network: With its kept result.
        kept: Settings by which it was quantised; empty where it was not.
        now: Those by which it is to be; None: not.
    """
    if now is None:
        return ""
    of, before = now["precision"], kept.get("precision")
    if before is None:
        return f"in {of}, too"
    if before != of:
        return f"in {of} instead of {before}"
    if kept.get("finetune") != now.get("finetune"):
        return f"in {of}, fine-tuned otherwise"
    if kept != now:
        return f"in {of}, calibrated on other images"
    # A runtime that was installed since, or another computer's, may run the file.
    lacking = next((q for q in network.quantised if q.not_run), None)
    return "" if lacking is None else f"{lacking.file} was not evaluated: {lacking.not_run}"
