"""Whatever can be measured, as the ONNX file that a runtime is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .architecture import Architecture
from .errors import InvalidArgument, UnsupportedFormat
from .kernel import Kernel
from .onnx_file import OnnxFile, elsewhere, graph_bytes
from .operator import Operator
from .random_cnn import RandomCNN
from .ssdlite import SSDLite

__all__ = ["Measurable", "layers_alone", "write_onnx", "write_tflite"]

Measurable = Operator | Architecture | SSDLite | Kernel | RandomCNN | OnnxFile


def write_onnx(model: Measurable, path: Path) -> Path:
    """Write a model as an ONNX file for one image at `path`.

    A file that is one already becomes a link, unless its batch has no size: then a copy with a
    batch of 1.

    Raises:
        InvalidArgument: A kernel that has no ONNX form.
        UnknownName, UnsupportedFormat: An ONNX file that is gone, or keeps weights elsewhere.
    """
    if isinstance(model, OnnxFile):
        return _own(model, path)
    path.write_bytes(_built(model).SerializeToString())
    return path


def write_tflite(model: Measurable, path: Path, runtime: str) -> Path:
    """Write a model as a TFLite file for one image at `path`.

    Raises:
        MissingExtra: ai-edge-litert is not installed.
        InvalidArgument: A kernel or somebody else's network, which `runtime` cannot be given.
    """
    if isinstance(model, SSDLite):
        from .ssdlite_to_tflite import ssdlite_to_tflite

        path.write_bytes(ssdlite_to_tflite(model))
        return path
    from .to_tflite import to_tflite

    path.write_bytes(to_tflite(layers_alone(model, runtime)))
    return path


def layers_alone(model: Measurable, runtime: str) -> Operator | Architecture:
    """The model, if it is built of the spaces' layers, which have forms beside ONNX.

    Raises:
        InvalidArgument: It is a kernel or somebody else's network.
    """
    if isinstance(model, Operator | Architecture):
        return model
    raise InvalidArgument(
        f"{runtime} cannot be given {model.key}: kernels and ONNX files are measured with a runtime "
        "that reads ONNX (onnxruntime, onnxruntime_perf_test)"
    )


def _built(model: Operator | Architecture | SSDLite | Kernel | RandomCNN) -> Any:
    if isinstance(model, RandomCNN):
        return model.to_onnx()
    if isinstance(model, Kernel):
        from .kernel_to_onnx import kernel_to_onnx

        return kernel_to_onnx(model)
    if isinstance(model, SSDLite):
        from .ssdlite_to_onnx import ssdlite_to_onnx

        return ssdlite_to_onnx(model)
    from .to_onnx import to_onnx

    return to_onnx(model)


def _own(file: OnnxFile, path: Path) -> Path:
    import onnx

    bare = onnx.ModelProto.FromString(graph_bytes(file.path))
    outside = elsewhere(bare)
    if outside is not None:
        raise UnsupportedFormat(f"{file.path}: {outside} lies in another file, which is not opened")
    weights = {t.name for t in bare.graph.initializer}
    free = [i.name for i in bare.graph.input if i.name not in weights and _batch(i).dim_value < 1]
    if not free:
        path.symlink_to(file.path.resolve())
        return path
    whole = onnx.load(str(file.path), load_external_data=False)
    for given in whole.graph.input:
        if given.name in free:
            _batch(given).dim_value = 1
    path.write_bytes(whole.SerializeToString())
    return path


def _batch(given: Any) -> Any:
    dims = given.type.tensor_type.shape.dim
    if not dims:
        raise UnsupportedFormat(f"input {given.name} has no shape")
    return dims[0]
