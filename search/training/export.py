"""export(): a trained network as the files that phones run, each held against torch first.

    weights.safetensors   weights by the names of `to_torch`'s state (see `weights_file`)
    network.onnx          BatchNorm folded in, one image at a time, float32
    network.tflite        the same, where the extra `[litert]` is there
    network.json          the network, its classes, how an image is prepared, how the check went

Before a model stands under its name, its runtime and torch are both given the images, prepared
alike. Logits may differ by 1e-4, absolute. Where one differs by more, the network is computed in
float64 too, and they may differ by 16 times what torch in float32 is off from that: logits in
the hundreds, as of networks that were hardly trained, are known no better. A model that decides
otherwise on one image is refused, unless torch's two best logits there are as close: a tie.

Whoever runs the files needs no phonenas: what it must know (mean, standard deviation, resizing,
names of the classes) stands in the ONNX file's own metadata and in `network.json`, which
`phonenas show` takes for a NETWORK.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...data.files import write_atomic
from ...space import Architecture
from ...space.errors import (
    ExportDiffers,
    InvalidArgument,
    StoreError,
    UnknownName,
)
from .export_check import Form, answers, compared, left_open, off, problem
from .export_forms import MAKERS, RUNNERS, preprocessing
from .weights_file import checked, load_weights, save_weights

if TYPE_CHECKING:
    from ...data.images import ImageSet
    from .trained import Trained

__all__ = ["CARD", "FORMATS", "WEIGHTS", "Exported", "Form", "export", "load_weights"]

FORMATS = ("onnx", "tflite")
WEIGHTS, CARD = "weights.safetensors", "network.json"
_MOST_IMAGES = 2000
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Exported:
    """What was written, and how it was checked.

    Args:
        network: As it was trained.
        weights, card: `weights.safetensors` and `network.json`.
        forms: The models that a phone runs.
        top1: Of torch on the same images, in [0, 1].
        images: How many they were.
        left_out: Forms that could not be made here, with the reason.
    """

    network: Architecture
    weights: Path
    card: Path
    forms: tuple[Form, ...]
    top1: float
    images: int
    left_out: Mapping[str, str]

    @property
    def files(self) -> dict[str, Path]:
        """All files by what they are: "weights", "card", "onnx", "tflite"."""
        models = {form.name: form.path for form in self.forms}
        return {"weights": self.weights, "card": self.card, **models}

    @property
    def difference(self) -> float:
        """Largest absolute difference of a logit from torch's, over all forms."""
        return max((form.difference for form in self.forms), default=0.0)

    @property
    def differing(self) -> int:
        """Images that some form names otherwise than torch, ties included."""
        return max((form.differing for form in self.forms), default=0)


def export(
    trained: Trained | Architecture,
    into: str | Path,
    images: ImageSet,
    *,
    weights: Mapping[str, Any] | None = None,
    formats: Sequence[str] | None = None,
    recipe: str = "",
    most: int = _MOST_IMAGES,
    tolerance: float = _TOLERANCE,
    threads: int = 1,
) -> Exported:
    """Write a trained network as files that phones run, after holding them against torch.

    Args:
        trained: What `train` gave, or a network whose `weights` are given.
        into: Folder for the files; what an earlier export left there under their names goes.
        images: On which the models are held against torch; by custom the test images.
        weights: float32 arrays by the names of `to_torch`'s state, with a bare network.
        formats: Of `FORMATS`. By default ONNX, and TFLite where its extra is installed.
        recipe: Digest of how it was trained, to be told in the files.
        most: Of the images at most, evenly taken, ≥ 1.
        tolerance: By which logits may differ, absolute, > 0; or else by as much as float32 leaves
            open, see above.
        threads: That torch and the runtimes compute on, ≥ 1.
    Raises:
        InvalidArgument: Weights that are not the network's or no numbers, images of other
            classes, or an argument outside its range.
        ExportDiffers: A model does not compute what torch does. It and `network.json` are not
            there then; the weights are, and the models that did pass.
        MissingExtra: torch, safetensors or what a format in `formats` needs is not installed.
        StoreError: The disk does not take the files.
    """
    network, arrays = _given(trained, weights)
    wanted, left_out = _wanted(formats)
    if most < 1 or threads < 1 or not tolerance > 0:
        raise InvalidArgument(
            f"most and threads: 1 or more, tolerance: above 0; got {most}, {threads}, {tolerance:g}"
        )
    if len(images.classes) != network.classes:
        raise InvalidArgument(
            f"the network tells {network.classes} classes apart, and the images of "
            f"{images.source} are of {len(images.classes)}"
        )
    if not len(images):
        raise InvalidArgument(f"{images.source} has no image to check the export on")
    shown = _evenly(images, most)
    folder = Path(into)
    about = {"classes": list(images.classes), **_told(trained, recipe)}
    # First of all: killed at any moment, no older model lies beside weights that are not its own.
    _cleared(folder)
    kept = save_weights(folder / WEIGHTS, network, arrays, about)
    facts = {**about, "preprocessing": preprocessing(network.resolution_px)}
    facts["weights_sha256"] = hashlib.sha256(kept.read_bytes()).hexdigest()
    models = {form: MAKERS[form](network, arrays, facts) for form in wanted}
    runners = {form: RUNNERS[form](model, threads) for form, model in models.items()}
    labels, logits = answers(network, arrays, shown, runners, threads)
    top1 = float(np.mean(logits["torch"].argmax(1) == labels))
    torch, forms, wrong = logits["torch"], [], []
    allowed = np.full(len(torch), tolerance)
    if not all(off(torch, logits[form]).max() <= tolerance for form in wanted):
        allowed = np.maximum(allowed, left_open(network, arrays, shown, torch, threads))
    for form, model in models.items():
        path = folder / f"network.{form}"
        held = compared(form, path, torch, logits[form], labels, allowed)
        wrong_with = problem(held, torch, logits[form], allowed)
        if wrong_with:
            wrong.append(wrong_with)
        else:
            write_atomic(path, model)
            forms.append(held)
    if wrong:
        raise ExportDiffers(f"{'; '.join(wrong)}. The weights are in {kept}.")
    card = {
        "format": "phonenas-network", "version": 1, "block_args": str(network),
        "resolution_px": network.resolution_px, **facts,
        "check": {
            "images": len(shown), "source": images.source, "top1": top1,
            "forms": [{**asdict(f), "path": f.path.name} for f in forms],
        },
    }  # fmt: skip
    written = write_atomic(folder / CARD, json.dumps(card, indent=1) + "\n")
    return Exported(network, kept, written, tuple(forms), top1, len(shown), left_out)


def _cleared(folder: Path) -> None:
    """Without what an earlier export left there: it holds other weights, maybe."""
    for name in (CARD, *(f"network.{form}" for form in FORMATS)):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"{folder / name} is older and cannot be removed: {error.strerror}"
            ) from error


def _given(
    trained: Trained | Architecture, weights: Mapping[str, Any] | None
) -> tuple[Architecture, dict[str, npt.NDArray[np.float32]]]:
    if isinstance(trained, Architecture):
        if weights is None:
            raise InvalidArgument("a network is exported with its weights; none were given")
        return trained, checked(trained, weights)
    if weights is not None:
        raise InvalidArgument("what was trained has its own weights; give no others")
    if trained.diverged:
        raise InvalidArgument(
            f"the training diverged, there is nothing to export: {trained.diverged}"
        )
    return trained.network, checked(trained.network, trained.weights)


def _told(trained: Trained | Architecture, recipe: str) -> dict[str, Any]:
    """What the training says of itself, without what is no number."""
    if isinstance(trained, Architecture):
        return {"recipe_digest": recipe}
    told: dict[str, Any] = {"recipe": trained.recipe, "recipe_digest": recipe}
    told |= {"images_trained": trained.images, "epochs": len(trained.curve)}
    if trained.images_held and trained.top1 == trained.top1:
        told |= {"top1": trained.top1, "top5": trained.top5, "images_held": trained.images_held}
    return told


def _wanted(formats: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
    if formats is not None:
        unknown = [f for f in formats if f not in FORMATS]
        if unknown:
            raise UnknownName(f"no format is called {unknown[0]!r}. Known: {', '.join(FORMATS)}.")
        return list(dict.fromkeys(formats)), {}
    if importlib.util.find_spec("ai_edge_litert") is not None:
        return list(FORMATS), {}
    reason = "ai-edge-litert is not installed:  pip install 'phonenas[litert]'"
    return [f for f in FORMATS if f != "tflite"], {"tflite": reason}


def _evenly(images: ImageSet, most: int) -> ImageSet:
    if len(images) <= most:
        return images
    return images.subset(np.linspace(0, len(images) - 1, most).round().astype(np.int64))
