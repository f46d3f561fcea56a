"""Books: what is written of each promoted network, so that none is trained twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.documents import Document
from ..data.files import write_atomic
from ..space.errors import SettingsChanged
from .promoted import PromotedNetwork

if TYPE_CHECKING:
    from ..data.images import ImageSet
    from .training.recipe import Recipe

__all__ = ["Books"]

FORMAT, VERSION = "phonenas-promoted-network", 1
_DOCUMENT = Document(FORMAT, VERSION, "result of a promoted network")
_AGAIN = "Remove it: the training's last checkpoint is beside it, and little is done again."
# What training and export tell; the rest follows from the run and the device.
_KEPT = ("top1", "top1_error", "top5", "images", "epochs", "seconds", "failed", "files",
         "export_difference", "export_failed")  # fmt: skip

_SHOWN = 3  # of the settings that changed


class Books:
    """The results of trainings in a run's folder, `promoted/ID/promoted.json`.

    Args:
        run_dir: Of the run.
        recipe, seed: How networks are trained.
        images, test: On what, and judged by what.
    """

    def __init__(
        self, run_dir: Path, recipe: Recipe, seed: int, images: ImageSet, test: ImageSet
    ) -> None:
        self.run_dir = run_dir
        self.settings: dict[str, Any] = {
            **{f"recipe {k}": v for k, v in recipe.settings.items() if k != "name"},
            "seed": seed,
            "images": images.digest,
            "test images": test.digest,
        }

    def folder(self, id_: int) -> Path:
        """Of one network: the training keeps its checkpoints there."""
        return self.run_dir / "promoted" / str(id_)

    def keep(self, network: PromotedNetwork) -> None:
        """Write a result down.

        Raises:
            StoreError: The disk does not take it.
        """
        row = network.to_dict()
        text = {
            "format": FORMAT,
            "version": VERSION,
            "settings": {"network": network.block_args, **self.settings},
            "result": {name: row[name] for name in _KEPT},
        }
        path = self.folder(network.id) / "promoted.json"
        write_atomic(path, json.dumps(text, indent=1, allow_nan=False) + "\n")

    def result(self, planned: PromotedNetwork, *, must_agree: bool) -> PromotedNetwork | None:
        """A network with what was written down of it; None if nothing was, or a file of it is gone.

        Args:
            planned: Before anything was done.
            must_agree: Whether other settings are an error; else such a result counts for none.
        Raises:
            SettingsChanged: It was trained with other settings; both values are named.
            UnsupportedFormat: Damaged or of another version.
            StoreError: It cannot be read.
        """
        path = self.folder(planned.id) / "promoted.json"
        found = _DOCUMENT.read(path, _AGAIN)
        if found is None:
            return None
        with _DOCUMENT.checking(path, _AGAIN):
            settings = dict(found["settings"])
            kept = {name: found["result"][name] for name in _KEPT}
            network = replace(planned, **kept)
            PromotedNetwork.from_dict(network.to_dict())  # numbers are numbers
        now = {"network": planned.block_args, **self.settings}
        now = json.loads(json.dumps(now))
        changed = [
            f"{k} was {settings.get(k)!r} and is now {now.get(k)!r}"
            for k in sorted({*settings, *now})
            if settings.get(k) != now.get(k)
        ]
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        if changed and must_agree:
            raise SettingsChanged(
                f"network {planned.id} of {self.run_dir} was promoted with other settings: "
                f"{'; '.join(changed[:_SHOWN])}{more}. Give the same settings, or move {self.run_dir / 'promoted'} "
                "away to train anew."
            )
        if changed or not all((self.run_dir / file).exists() for file in network.files.values()):
            return None
        return network
