"""Networks and whatever else can be measured, written as the files that runtimes read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..architecture import Architecture
from ..detection.ssdlite import SSDLite
from ..errors import InvalidArgument, UnknownName, nearest
from ..graph import NetworkGraph
from ..kernels.kernel import Kernel
from ..kernels.lifted import LiftedKernel
from ..kernels.random_cnn import RandomCNN
from ..onnx_file import OnnxFile
from ..operator import Operator
from ..ort_file import OrtFile
from ..precision import FLOAT32, checked_precision
from ..tflite_file import TfliteFile
from .calibration import Images, Ranges, calibrated
from .weights import Arrays

__all__ = ["FORMATS", "Measurable", "layers_alone", "write_network", "write_onnx", "write_tflite"]

#: What `write_network` can write.
FORMATS = ("onnx", "tflite", "torch")
Measurable = (
    Operator
    | Architecture
    | NetworkGraph
    | SSDLite
    | Kernel
    | LiftedKernel
    | RandomCNN
    | OnnxFile
    | OrtFile
    | TfliteFile
)


def write_network(
    network: Architecture | NetworkGraph | SSDLite,
    form: str,
    path: str | Path,
    *,
    seed: int = 0,
    weights: Arrays | None = None,
    precision: str = FLOAT32,
    images: Images | None = None,
) -> Path:
    """Write a network as one file, with random weights where none are given.

    Args:
        network: A network, or a detector.
        form: "onnx" or "tflite": a model for one image; or "torch": a safetensors file of the
            state of `to_torch(network, seed=seed)`, as `phonenas.search.training.load_weights`
            reads it.
        path: Where; its folder exists.
        seed: Of the weights. The ONNX and TFLite forms of one seed compute the same function.
        weights: By the names of `to_torch`'s state; of a classifier.
        precision: What it computes in: those of `onnx.PRECISIONS`, `tflite.PRECISIONS`.
        images: For int8, on which the ranges of its feature maps are calibrated, each (1, 3, px,
            px); None: random ones, which serve for times alone.
    Raises:
        UnknownName: No such form; the message offers the nearest.
        MissingExtra: What the form needs is not installed; the extra is named.
        InvalidArgument: A detector in the torch form, which is of classifiers only. A precision
            that the form, or a detector, does not have. Images without int8, none, or of another
            size.
    """
    path = Path(path)
    if form not in FORMATS:
        raise UnknownName(f"no format is called {form!r}. {nearest(form, FORMATS)}")
    if images is not None and precision != "int8":
        raise InvalidArgument(f"calibration images are of int8, and {precision} was asked for")
    if form == "torch":
        checked_precision(precision, "precision of a torch file:", (FLOAT32,))
        if isinstance(network, SSDLite):
            raise InvalidArgument(
                "a weights file holds a classifier, and this network is a detector. Write it as "
                "onnx or tflite."
            )
        from .torch import state_arrays, to_torch
        from .weights_file import weights_bytes

        arrays = weights or state_arrays(to_torch(network, seed=seed))
        about = {"trained": weights is not None, "seed": seed}
        path.write_bytes(weights_bytes(network, arrays, about))
        return path
    ranges = None
    if images is not None and not isinstance(network, SSDLite):
        ranges = calibrated(network, images, weights=weights, seed=seed)
    made = _Numbers(seed, weights, precision, ranges)
    if form == "onnx":
        path.write_bytes(_built(network, made).SerializeToString())
    else:
        path.write_bytes(_flatbuffer(network, made))
    return path


def write_onnx(model: Measurable, path: Path, precision: str = FLOAT32) -> Path:
    """Write a model as an ONNX file for one image at `path`.

    A file that is one already becomes a link, unless sides are set or weights lie beside it: then
    a copy in one file. It stays in its own precision, whatever `precision` says.

    Raises:
        InvalidArgument: A kernel that has no ONNX form, or a precision that the model's ONNX form
            does not have.
        UnknownName, UnsupportedFormat: A file that is gone, or keeps weights outside its folder.
    """
    if isinstance(model, OnnxFile):
        return model.write(path)
    if isinstance(model, OrtFile):
        return model.write(path.with_suffix(".ort"))  # by its ending the runtime knows the format
    if isinstance(model, TfliteFile):
        raise InvalidArgument(
            f"{model.key} is a TFLite file: it is measured with litert or benchmark_model, and "
            "this device's runtime reads ONNX"
        )
    path.write_bytes(_built(model, _Numbers(precision=precision)).SerializeToString())
    return path


def write_tflite(model: Measurable, path: Path, runtime: str, precision: str = FLOAT32) -> Path:
    """Write a model as a TFLite file for one image at `path`; a file stays in its own precision.

    Raises:
        MissingExtra: ai-edge-litert is not installed.
        InvalidArgument: A kernel or somebody else's network, which `runtime` cannot be given; or a
            precision that the model's TFLite form does not have.
    """
    if isinstance(model, TfliteFile):
        return model.write(path)
    layers = model if isinstance(model, SSDLite) else layers_alone(model, runtime)
    path.write_bytes(_flatbuffer(layers, _Numbers(precision=precision)))
    return path


def layers_alone(model: Measurable, runtime: str) -> Operator | Architecture | NetworkGraph:
    """The model, if it is of the spaces' layers or a graph, which have forms beside ONNX.

    Raises:
        InvalidArgument: It is a kernel or somebody else's network.
    """
    if isinstance(model, Operator | Architecture | NetworkGraph):
        return model
    raise InvalidArgument(
        f"{runtime} cannot be given {model.key}: kernels and ONNX files are measured with a "
        "runtime that reads ONNX (onnxruntime, onnxruntime_perf_test)"
    )


@dataclass(frozen=True)
class _Numbers:
    """What a network's numbers are; arguments as of `to_onnx`."""

    seed: int = 0
    weights: Arrays | None = None
    precision: str = FLOAT32
    ranges: Ranges | None = None

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "weights": self.weights,
            "precision": self.precision,
            "ranges": self.ranges,
        }

    def of_floats(self, what: str) -> None:
        """Refuse another precision for what is written in float32 alone."""
        checked_precision(self.precision, f"precision of {what}:", (FLOAT32,))


def _flatbuffer(model: Operator | Architecture | NetworkGraph | SSDLite, made: _Numbers) -> bytes:
    if isinstance(model, SSDLite):
        from ..detection.tflite import ssdlite_to_tflite

        made.of_floats("a detector")
        return ssdlite_to_tflite(model, seed=made.seed)
    from .tflite import to_tflite

    return to_tflite(model, **made.settings)


def _built(
    model: Operator | Architecture | NetworkGraph | SSDLite | Kernel | LiftedKernel | RandomCNN,
    made: _Numbers,
) -> Any:
    if isinstance(model, Operator | Architecture | NetworkGraph):
        from .onnx import to_onnx

        return to_onnx(model, **made.settings)
    if isinstance(model, LiftedKernel):  # as it stands in its file
        return model.to_onnx()
    made.of_floats("a detector" if isinstance(model, SSDLite) else f"kernel {model.key}")
    if isinstance(model, RandomCNN):
        return model.to_onnx()
    if isinstance(model, Kernel):
        from ..kernels.onnx import kernel_to_onnx

        return kernel_to_onnx(model)
    from ..detection.onnx import ssdlite_to_onnx

    return ssdlite_to_onnx(model, seed=made.seed)
