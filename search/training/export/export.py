"""export(): a trained network as the files that phones run, each compared with torch first.

    weights.safetensors   weights by the names of `to_torch`'s state (see `weights`)
    network.onnx          BatchNorm folded in, one image at a time, float32
    network.tflite        the same, where the extra `[litert]` is installed
    network_int8.onnx     where quantisation is asked for: weights and feature maps of 8 bits, or
    network_int8.tflite   another precision (`network_float16.onnx`)
    weights_int8.safetensors   of which these are made, where that are fine-tuned ones
    network.json          the network, its classes, how an image is prepared, results of the check

Before a model gets its name, its runtime and torch both get the same images. Logits may differ
by 1e-4, absolute. Where one differs by more, the network is computed in float64 too, and logits
may differ by 16 times the error of torch in float32: logits in the hundreds, as of networks that
were hardly trained, are not known more exactly. A model that names another class for one image is
refused, unless torch's two best logits there are as close as that: a tie.

Whoever runs the files needs no phonenas: mean, standard deviation, resizing and names of the
classes stand in the ONNX file's own metadata and in `network.json`, which `phonenas show` takes
for a NETWORK.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from phonenas.data.files import lock_folder, write_atomic
from phonenas.space import Classifier
from phonenas.space.errors import (
    ExportDiffers,
    InvalidArgument,
    MissingExtra,
    StoreError,
    UnknownName,
    install,
)
from phonenas.space.lowering.calibration import Ranges
from phonenas.space.lowering.weights_file import checked, weights_bytes
from phonenas.space.precision import FLOAT32, PRECISIONS

from ...exported_file import ExportedFile
from ..weights import save_weights
from .check import (
    ExportedModel,
    compared,
    evenly,
    float32_error,
    inputs_of,
    logit_differences,
    logits_of,
    mismatch_reason,
)
from .formats import MAKERS, RUNNERS, Logits, Runner, precisions_of, preprocessing
from .quantised import Quantisation, QuantisedModel, beside_float, ranges_of

if TYPE_CHECKING:
    from phonenas.data.images import ImageSet

    from ..finetuning.tuned import FineTuned, Tuned
    from ..result import Trained

__all__ = [
    "CARD",
    "FORMATS",
    "WEIGHTS",
    "Check",
    "ExportSettings",
    "Exported",
    "ExportedModel",
    "Quantisation",
    "QuantisedModel",
    "export",
]

FORMATS = ("onnx", "tflite")
WEIGHTS, CARD = "weights.safetensors", "network.json"
_TUNED_WEIGHTS = "weights_int8.safetensors"


@dataclass(frozen=True)
class Check:
    """How exported models are compared with torch.

    Args:
        most_images: Of the images at most so many, evenly spaced, ≥ 1.
        tolerance: By which logits may differ, absolute, > 0; or else by the error of float32, see
            above.
        threads: On which torch and the runtimes compute, ≥ 1.
    Raises:
        InvalidArgument: A value outside its range.
    """

    most_images: int = 2000
    tolerance: float = 1e-4
    threads: int = 1

    def __post_init__(self) -> None:
        if self.most_images < 1 or self.threads < 1 or not self.tolerance > 0:
            raise InvalidArgument(
                "most_images and threads: 1 or more, tolerance: above 0; got "
                f"{self.most_images}, {self.threads}, {self.tolerance:g}"
            )


@dataclass(frozen=True)
class ExportSettings:
    """What is written of a trained network.

    Args:
        formats: Of `FORMATS`. None: ONNX, and TFLite where its extra is installed.
        quantise: Write each format in int8 or another precision, too, and evaluate both on the same
            images. A format that does not have that precision is left out.
        check: How the models are compared with torch.
    """

    formats: tuple[str, ...] | None = None
    quantise: Quantisation | None = None
    check: Check = field(default_factory=Check)


@dataclass(frozen=True)
class Exported:
    """What was written, and the results of its check.

    Args:
        network: As it was trained.
        weights, card: `weights.safetensors` and `network.json`.
        models: Those that a phone runs.
        top1: Of torch on the same images, in [0, 1].
        images: How many they were.
        left_out: Formats that cannot be written here, with the reason.
        quantised: The same in another precision, where that was asked for.
        finetuned: What the fine-tuning for int8 came to, where that was asked for.
    """

    network: Classifier
    weights: Path
    card: Path
    models: tuple[ExportedModel, ...]
    top1: float
    images: int
    left_out: Mapping[str, str]
    quantised: tuple[QuantisedModel, ...] = ()
    finetuned: FineTuned | None = None

    @property
    def files(self) -> dict[str, Path]:
        """All files by what they are: "weights", "card", "onnx", "tflite", "onnx int8" ..."""
        models = {model.name: model.path for model in self.models}
        folder = self.weights.parent
        if self.finetuned is not None and self.finetuned.kept:
            models["weights int8"] = folder / _TUNED_WEIGHTS
        models |= {f"{q.name} {q.precision}": folder / q.file for q in self.quantised}
        return {"weights": self.weights, "card": self.card, **models}

    @property
    def sha256(self) -> dict[str, str]:
        """Of the files that a phone runs, as they were written, by the keys of `files`."""
        floats = {model.name: model.sha256 for model in self.models}
        return floats | {f"{q.name} {q.precision}": q.sha256 for q in self.quantised}

    def file_in(self, precision: str) -> ExportedFile:
        """Those that a phone runs, to be measured: in a precision, and the others beside them."""
        folder = self.weights.parent
        paths = {FLOAT32: [m.path for m in self.models]}
        for q in self.quantised:
            paths.setdefault(q.precision, []).append(folder / q.file)
        digests = {self.files[kind].name: sha256 for kind, sha256 in self.sha256.items()}
        found = ExportedFile.of(self.network, paths, digests, precision)
        return found or ExportedFile(self.network, ())

    @property
    def difference(self) -> float:
        """Largest absolute difference of a logit from torch's, over all models."""
        return max((model.difference for model in self.models), default=0.0)


def export(
    trained: Trained | Classifier,
    into: str | Path,
    images: ImageSet,
    *,
    weights: Mapping[str, Any] | None = None,
    recipe: str = "",
    settings: ExportSettings | None = None,
) -> Exported:
    """Write a trained network as files that phones run, after comparing them with torch.

    Args:
        trained: What `train` gave, or a network whose `weights` are given. Where it was fine-tuned
            for int8, the int8 files are of the weights that were better on the held-out images.
        into: Folder for the files; those of an earlier export are replaced.
        images: On which the models are compared with torch; usually the test images.
        weights: float32 arrays by the names of `to_torch`'s state, with a bare network.
        recipe: Digest of the recipe, for the files.
        settings: What is written; by default `ExportSettings()`.
    Raises:
        InvalidArgument: Weights that are not the network's or no numbers, or images of other
            classes.
        ExportDiffers: A model does not compute what torch does. It and `network.json` are not
            written; the weights are, and the models that passed.
        MissingExtra: torch, safetensors or what a format in `formats` needs is not installed.
        StoreError: The disk does not take the files, or another process works in the folder.
    """
    settings = settings or ExportSettings()
    network, arrays = _given(trained, weights)
    chosen, left_out = _chosen(settings.formats)
    if len(images.classes) != network.classes:
        raise InvalidArgument(
            f"the network has {network.classes} classes, and the images of "
            f"{images.source} are of {len(images.classes)}"
        )
    if not len(images):
        raise InvalidArgument(f"{images.source} has no image to check the export on")
    some = evenly(images, settings.check.most_images)
    about = {"classes": list(images.classes), **_about(trained, recipe)}
    with lock_folder(Path(into)):
        tuned = None if isinstance(trained, Classifier) else trained.tuned
        tests = (some, settings, tuned)
        files = _written(Path(into), network, arrays, chosen, about, tests)
    if settings.quantise is not None:
        there, of = {q.name for q in files.quantised}, settings.quantise.precision
        lacking = [name for name in chosen if name not in there]
        left_out |= {f"{name} {of}": f"{name} has no form in {of}" for name in lacking}
    return replace(files, left_out=left_out)


def _written(
    folder: Path,
    network: Classifier,
    arrays: Mapping[str, npt.NDArray[np.float32]],
    chosen: Sequence[str],
    about: Mapping[str, Any],
    how: tuple[ImageSet, ExportSettings, Tuned | None],
) -> Exported:
    """`export`, once the folder is locked. `how`: the images to compare models on, what is written,
    and the fine-tuning."""
    some, settings, tuned = how
    # First of all: killed at any moment, no older model lies beside weights that are not its own.
    check, quantise = settings.check, settings.quantise
    _clear(folder)
    kept = save_weights(folder / WEIGHTS, network, arrays, about)
    facts = {**about, "preprocessing": preprocessing(network.resolution_px)}
    facts["weights_sha256"] = hashlib.sha256(kept.read_bytes()).hexdigest()
    contents = {name: MAKERS[name](network, arrays, facts) for name in chosen}
    runners = {name: RUNNERS[name](model, check.threads) for name, model in contents.items()}
    logits = logits_of(network, arrays, some, runners, check.threads)
    torch = logits["torch"]
    top1 = float(np.mean(torch.argmax(1) == some.labels))
    allowed = np.full(len(torch), check.tolerance)
    if not all(logit_differences(torch, logits[n]).max() <= check.tolerance for n in chosen):
        error = float32_error(network, arrays, some, torch, check.threads)
        allowed = np.maximum(allowed, error)
    models, rejected = [], []
    for name, content in contents.items():
        path = folder / f"network.{name}"
        model = compared(path, torch, logits[name], some.labels, allowed)
        if reason := mismatch_reason(model, torch, logits[name], allowed):
            rejected.append(reason)
        else:
            write_atomic(path, content)
            models.append(replace(model, sha256=hashlib.sha256(content).hexdigest()))
    if rejected:
        raise ExportDiffers(f"{'; '.join(rejected)}. The weights are in {kept}.")
    small: tuple[QuantisedModel, ...] = ()
    finetuned = None
    if quantise is not None:
        one = _Quantised(folder, network, facts, some, (contents, logits), settings)
        small, finetuned = one.models(arrays, tuned)
    card = {
        "format": "phonenas-network",
        "version": 1,
        "block_args": str(network),
        "resolution_px": network.resolution_px,
        **facts,
        "check": {
            "images": len(some),
            "source": some.source,
            "top1": top1,
            "forms": [{**asdict(m), "path": m.path.name} for m in models],
        },
    }
    if small:
        card["quantised"] = [{**asdict(q), "path": q.file} for q in small]
    if finetuned is not None:
        card["finetuned"] = asdict(finetuned)
    written = write_atomic(folder / CARD, json.dumps(card, indent=1) + "\n")
    return Exported(network, kept, written, tuple(models), top1, len(some), {}, small, finetuned)


@dataclass(frozen=True)
class _Quantised:
    """What is written in another precision.

    Args:
        folder, network: Where, and of what.
        facts: For the files.
        some: Images that the files are evaluated on.
        floats: The float32 files' contents, and their logits.
        settings: With `quantise`.
    """

    folder: Path
    network: Classifier
    facts: Mapping[str, Any]
    some: ImageSet
    floats: tuple[Mapping[str, bytes], Mapping[str, Logits]]
    settings: ExportSettings

    def models(
        self, arrays: Mapping[str, npt.NDArray[np.float32]], tuned: Tuned | None
    ) -> tuple[tuple[QuantisedModel, ...], FineTuned | None]:
        """Write each format that has the precision; and what the fine-tuning came to.

        Args:
            arrays: The weights.
            tuned: Their fine-tuning; None without one.
        """
        quantise = self.settings.quantise
        assert quantise is not None
        if tuned is None:
            given = ranges_of(self.network, arrays, quantise)
            return self._made(arrays, self.facts, *given, write=True), None
        given, kept = (tuned.ranges, tuned.calibrated_on), tuned.found.kept
        plain = self._made(arrays, self.facts, *given, write=not kept)
        if not tuned.weights:
            return plain, tuned.found
        about = {"fine-tuned for": "int8", "digest": tuned.found.digest}
        own = weights_bytes(self.network, tuned.weights, about)
        if kept:
            write_atomic(self.folder / _TUNED_WEIGHTS, own)
        facts = {**self.facts, "weights_sha256": hashlib.sha256(own).hexdigest()}
        facts["fine_tuning"] = tuned.found.digest
        after = self._made(tuned.weights, facts, *given, write=kept)
        return (after, tuned.with_tests(plain)) if kept else (plain, tuned.with_tests(after))

    def _made(
        self,
        arrays: Mapping[str, npt.NDArray[np.float32]],
        facts: Mapping[str, Any],
        ranges: Ranges | None,
        count: int,
        *,
        write: bool,
    ) -> tuple[QuantisedModel, ...]:
        """The files of some weights, evaluated; they are written, or not."""
        settings, network = self.settings, self.network
        quantise, threads = settings.quantise, settings.check.threads
        assert quantise is not None
        (contents, logits), of = self.floats, quantise.precision
        having = [name for name in contents if of in precisions_of(name)]
        made = {name: MAKERS[name](network, arrays, facts, of, ranges) for name in having}
        runners: dict[str, Runner] = {}
        reasons: dict[str, str] = {}
        for name, model in made.items():
            try:
                runners[name] = RUNNERS[name](model, threads)
            except (MissingExtra, MemoryError):
                raise
            except Exception as error:
                # Each runtime has kernels of int8, and raises classes of its own.
                if quantise.calibrated:
                    raise
                reasons[name] = " ".join(str(error).split())[:200] or type(error).__name__
        rows = [
            np.stack([run(image) for run in runners.values()])
            for image in (inputs_of(self.some, network.resolution_px) if runners else ())
        ]
        small = dict(zip(runners, np.stack(rows, axis=1), strict=True)) if rows else {}
        models = []
        for name, content in made.items():
            path = self.folder / f"network_{of}.{name}"
            if write:
                write_atomic(path, content)
            pair = (small.get(name), logits[name])
            sizes = (len(content), len(contents[name]))
            written = (path, hashlib.sha256(content).hexdigest(), of)
            reason = reasons.get(name, "")
            models.append(beside_float(written, pair, self.some.labels, sizes, count, reason))
        return tuple(models)


def _clear(folder: Path) -> None:
    """Remove the files of an earlier export: they may hold other weights."""
    stems = ["network", *(f"network_{precision}" for precision in PRECISIONS)]
    models = [f"{stem}.{form}" for stem in stems for form in FORMATS]
    for name in (CARD, _TUNED_WEIGHTS, *models):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"{folder / name} is older and cannot be removed: {error.strerror}"
            ) from error


def _given(
    trained: Trained | Classifier, weights: Mapping[str, Any] | None
) -> tuple[Classifier, dict[str, npt.NDArray[np.float32]]]:
    if isinstance(trained, Classifier):
        if weights is None:
            raise InvalidArgument("a network is exported with its weights; none were given")
        return trained, checked(trained, weights)
    if weights is not None:
        raise InvalidArgument("a trained network has its own weights; give no others")
    if trained.diverged:
        raise InvalidArgument(
            f"the training diverged, there is nothing to export: {trained.diverged}"
        )
    return trained.network, checked(trained.network, trained.weights)


def _about(trained: Trained | Classifier, recipe: str) -> dict[str, Any]:
    """Recipe, images and accuracy of the training, without what is not a number."""
    if isinstance(trained, Classifier):
        return {"recipe_digest": recipe}
    about: dict[str, Any] = {"recipe": trained.recipe, "recipe_digest": recipe}
    about |= {"images_trained": trained.images, "epochs": len(trained.curve)}
    if trained.images_held and trained.top1 == trained.top1:
        about |= {"top1": trained.top1, "top5": trained.top5, "images_held": trained.images_held}
    return about


def _chosen(formats: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
    if formats is not None:
        unknown = [f for f in formats if f not in FORMATS]
        if unknown:
            raise UnknownName(f"no format is called {unknown[0]!r}. Known: {', '.join(FORMATS)}.")
        return list(dict.fromkeys(formats)), {}
    if importlib.util.find_spec("ai_edge_litert") is not None:
        return list(FORMATS), {}
    reason = f"ai-edge-litert is not installed:  {install('litert')}"
    return [f for f in FORMATS if f != "tflite"], {"tflite": reason}
