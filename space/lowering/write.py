"""Networks and whatever else can be measured, written as the files that runtimes read."""

from __future__ import annotations

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
from ..tflite_file import TfliteFile
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
    path: Path,
    *,
    seed: int = 0,
    weights: Arrays | None = None,
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
    Raises:
        UnknownName: No such form; the message offers the nearest.
        MissingExtra: What the form needs is not installed; the extra is named.
        InvalidArgument: A detector in the torch form, which is of classifiers only.
    """
    if form not in FORMATS:
        raise UnknownName(f"no format is called {form!r}. {nearest(form, FORMATS)}")
    if form == "torch":
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
    elif form == "onnx":
        path.write_bytes(_built(network, seed, weights).SerializeToString())
    else:
        path.write_bytes(_flatbuffer(network, seed, weights))
    return path


def write_onnx(model: Measurable, path: Path) -> Path:
    """Write a model as an ONNX file for one image at `path`.

    A file that is one already becomes a link, unless sides are set or weights lie beside it: then
    a copy in one file.

    Raises:
        InvalidArgument: A kernel that has no ONNX form.
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
    path.write_bytes(_built(model).SerializeToString())
    return path


def write_tflite(model: Measurable, path: Path, runtime: str) -> Path:
    """Write a model as a TFLite file for one image at `path`.

    Raises:
        MissingExtra: ai-edge-litert is not installed.
        InvalidArgument: A kernel or somebody else's network, which `runtime` cannot be given.
    """
    if isinstance(model, TfliteFile):
        return model.write(path)
    layers = model if isinstance(model, SSDLite) else layers_alone(model, runtime)
    path.write_bytes(_flatbuffer(layers))
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


def _flatbuffer(
    model: Operator | Architecture | NetworkGraph | SSDLite,
    seed: int = 0,
    weights: Arrays | None = None,
) -> bytes:
    if isinstance(model, SSDLite):
        from ..detection.tflite import ssdlite_to_tflite

        return ssdlite_to_tflite(model, seed=seed)
    from .tflite import to_tflite

    return to_tflite(model, weights=weights, seed=seed)


def _built(
    model: Operator | Architecture | NetworkGraph | SSDLite | Kernel | LiftedKernel | RandomCNN,
    seed: int = 0,
    weights: Arrays | None = None,
) -> Any:
    if isinstance(model, RandomCNN | LiftedKernel):
        return model.to_onnx()
    if isinstance(model, Kernel):
        from ..kernels.onnx import kernel_to_onnx

        return kernel_to_onnx(model)
    if isinstance(model, SSDLite):
        from ..detection.onnx import ssdlite_to_onnx

        return ssdlite_to_onnx(model, seed=seed)
    from .onnx import to_onnx

    return to_onnx(model, weights=weights, seed=seed)
