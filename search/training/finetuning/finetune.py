"""fine_tuned(): a trained network, and the int8 form of it that is better on held-out images.

    FOLDER/finetuned/       checkpoint, curve, weights and result of the fine-tuning
    FOLDER/finetuned.json   what it came to, so that the same command does not compute it again

The fine-tuning is a training of its own, from the trained weights, of the network as its int8 file
computes it (see `fake_quantisation`), on the training images. It is stopped, resumed and kept as
any other. The ranges of the feature maps stay those of the file made after training, and the file
of the fine-tuned weights has them, too.

Source: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-
Only Inference, CVPR 2018. Krishnamoorthi, Quantizing deep convolutional networks for efficient
inference, 2018: fine-tuning from a float network is better than a training from the start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonenas.space import Classifier
from phonenas.space.errors import InvalidArgument, SettingsChanged
from phonenas.space.lowering.calibration import Ranges

from .. import trainer
from ..export.check import inputs_of
from ..export.formats import RUNNERS
from ..export.quantised import Quantisation, change_error, ranges_of
from ..job import TrainingJob
from ..resources import Resources
from .kept import Kept, keep, kept_in
from .settings import LOSS, FineTuning, tuned_by
from .start import QuantisedStart
from .tuned import FineTuned, Tuned

if TYPE_CHECKING:
    from phonenas.data.images import ImageSet

    from ..result import Event, Trained

__all__ = ["FOLDER", "fine_tuned"]

FOLDER = "finetuned"


def fine_tuned(
    trained: Trained,
    job: TrainingJob,
    quantise: Quantisation,
    *,
    into: str | Path | None = None,
    resources: Resources | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Trained:
    """A trained network with `tuned`, where a fine-tuning is asked for and can be.

    Args:
        trained: What `run_job` gave for `job`; one that diverged stays as it is.
        job: Of its training: images, recipe, seed and teacher are those of the fine-tuning, too.
        quantise: How it is quantised; without `finetune` it stays as it is.
        into: Folder of the training; the fine-tuning is kept in `finetuned` of it.
        resources, on_event: As for `run_job`.
    Raises:
        InvalidArgument: The held-out images are those tested or trained on, or the network has no
            fine-tuning.
        SettingsChanged: The folder holds a fine-tuning with other settings.
        PhonenasError: As `run_job`.
    """
    tuning = quantise.finetune
    if tuning is None or trained.diverged:
        return trained
    if tuning.held.digest in {job.images.digest, getattr(job.test, "digest", "")}:
        raise InvalidArgument(
            f"{tuning.held.source}: int8 files are not compared on the images that the network is "
            "trained or tested on"
        )
    resources = resources or Resources()
    network, weights = trained.network, trained.weights
    key = _digest(network, job, quantise, QuantisedStart(weights, {}))
    kept = None if into is None else kept_in(Path(into), key)
    if kept is not None and not kept.result.epochs:
        return replace(trained, tuned=Tuned(kept.result, {}, kept.ranges, kept.calibrated_on))
    if kept is not None and into is not None and (Path(into) / FOLDER / "result.json").exists():
        start = QuantisedStart(weights, kept.ranges)
        tuned = _trained_on(network, job, tuning, start, into, resources, on_event)
        made = Tuned(kept.result, tuned.weights, kept.ranges, kept.calibrated_on)
        return replace(trained, tuned=made)
    ranges, count = ranges_of(network, weights, quantise)
    assert ranges is not None
    start = QuantisedStart(weights, ranges)
    threads = resources.threads or 1
    of_float = _right(network, weights, None, tuning.held, threads)
    of_small = _right(network, weights, ranges, tuning.held, threads)
    whole, before = float(np.mean(of_float)), float(np.mean(of_small))
    digest = _digest(network, job, quantise, start)
    found = FineTuned(0, False, len(tuning.held), whole, before, None, "", digest)
    found = replace(found, before_error=change_error(of_small, of_float))
    # A difference of shares is off by its last digits.
    if tuning.when == "auto" and whole - before <= LOSS + 1e-9:
        keep(into, Kept(key, found, ranges, count))
        return replace(trained, tuned=Tuned(found, {}, ranges, count))
    tuned = _trained_on(network, job, tuning, start, into, resources, on_event)
    found = replace(found, epochs=len(tuned.curve), failed=tuned.diverged)
    if not tuned.diverged:
        of_tuned = _right(network, tuned.weights, ranges, tuning.held, threads)
        after, error = float(np.mean(of_tuned)), change_error(of_tuned, of_float)
        found = replace(found, after_top1=after, kept=after > before, after_error=error)
    keep(into, Kept(key, found, ranges, count))
    return replace(trained, tuned=Tuned(found, tuned.weights, ranges, count))


def _trained_on(
    network: Classifier,
    job: TrainingJob,
    tuning: FineTuning,
    start: QuantisedStart,
    into: str | Path | None,
    resources: Resources,
    on_event: Callable[[Event], None] | None,
) -> Trained:
    """The fine-tuning itself; its accuracy is that on the held-out images."""
    own = replace(
        job,
        test=tuning.held,
        recipe=tuned_by(job.recipe, tuning.epochs),
        start=start,
        pause_after=None,
    )
    folder = None if into is None else Path(into) / FOLDER
    try:
        return trainer.run_job(network, own, into=folder, resources=resources, on_event=on_event)
    except SettingsChanged as error:
        said = str(error).partition(". Give the same settings")[0]
        raise SettingsChanged(
            f"{said}. Give the same settings, or remove {folder} to fine-tune again."
        ) from error


def _right(
    network: Classifier,
    weights: Mapping[str, Any],
    ranges: Ranges | None,
    images: ImageSet,
    threads: int,
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which images the ONNX file names correctly, (n,), as ONNX Runtime runs it: in int8 with
    ranges, else in float32."""
    from phonenas.space.lowering.onnx import to_onnx

    precision = "float32" if ranges is None else "int8"
    model = to_onnx(network, weights=weights, precision=precision, ranges=ranges)
    run = RUNNERS["onnx"](model.SerializeToString(), threads)
    named = [int(run(image).argmax()) for image in inputs_of(images, network.resolution_px)]
    right: np.ndarray[Any, np.dtype[np.bool_]] = np.array(named) == images.labels
    return right


def _digest(
    network: Classifier, job: TrainingJob, quantise: Quantisation, start: QuantisedStart
) -> str:
    """Of all settings that decide a fine-tuning."""
    teacher = {} if job.teacher is None else job.teacher.settings
    settings = {
        **quantise.settings,
        **start.settings,
        **teacher,
        "network": str(network),
        "images trained on": job.images.digest,
        "recipe": job.recipe.digest,
        "seed": job.seed,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
