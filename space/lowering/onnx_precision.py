"""An ONNX model in another precision than float32, by ONNX Runtime's own tools.

int8 is what `onnxruntime.quantization.quantize_static` makes of the model behind
`quant_pre_process`: QDQ nodes, one scale for each output channel of a weight (symmetric, −127 to
127), biases of 32 bits, feature maps of unsigned bytes. With signed bytes ONNX Runtime on x86
leaves a third of the convolutions of MnasNet-A1 in float32; with unsigned ones all are of 8 bits
there.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from ..errors import InvalidArgument
from .calibration import Ranges

__all__ = ["dynamic_int8", "float16", "static_int8"]

_ONE_AT_A_TIME = threading.RLock()


def static_int8(
    model: onnx.ModelProto, ranges: Ranges, *, bytes_in: bool = False, bytes_out: bool = False
) -> onnx.ModelProto:
    """A float model with weights and feature maps of 8 bits.

    Args:
        model: A float32 model of `to_onnx`.
        ranges: Of its values, as `calibrated` gives them.
        bytes_in, bytes_out: The input, the output is of bytes, as within a network; else float32.
    Raises:
        InvalidArgument: The ranges lack a value; it is named.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    prepared = _preprocessed(model)
    lacking = {o for node in prepared.graph.node for o in node.output} - set(ranges)
    if lacking:
        raise InvalidArgument(f"the calibrated ranges lack {min(lacking)} of {model.graph.name}")
    limits = {
        name: (np.float32(low).reshape(()), np.float32(high).reshape(()))
        for name, (low, high) in ranges.items()
    }
    with _quiet():
        quantizer = QDQQuantizer(
            prepared,
            True,  # a scale for each output channel
            False,  # 8 bits, not 7
            QuantType.QInt8,
            QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, limits),
            [],
            [],
            list({*QDQRegistry, *QLinearOpsRegistry}),
            {},
        )
        quantizer.quantize_model()
    made = quantizer.model.model
    if bytes_in:
        _bytes_in(made.graph)
    if bytes_out:
        _bytes_out(made.graph)
    return _cleaned(made, model)


def dynamic_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float model with weights of 8 bits, whose inputs are made bytes as they are computed."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet(), tempfile.TemporaryDirectory(prefix="phonenas-") as folder:
        path = Path(folder) / "dynamic.onnx"
        # The CPU provider's integer convolution takes weights of unsigned bytes alone.
        quantize_dynamic(_preprocessed(model), path, weight_type=QuantType.QUInt8)
        made = onnx.load(path)
    return _cleaned(made, model)


def float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float model with weights and feature maps of 16 bits; input and output stay float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with _quiet():
        made = convert_float_to_float16(copy, keep_io_types=True)
    return _cleaned(made, model)


def _preprocessed(model: onnx.ModelProto) -> onnx.ModelProto:
    """As ONNX Runtime asks it: optimised on the basic level, all shapes known."""
    from onnxruntime.quantization import quant_pre_process

    with _quiet(), tempfile.TemporaryDirectory(prefix="phonenas-") as folder:
        given, made = Path(folder) / "given.onnx", Path(folder) / "made.onnx"
        given.write_bytes(model.SerializeToString())
        # No side is symbolic: all shapes follow without sympy.
        quant_pre_process(str(given), str(made), skip_symbolic_shape=True)
        return onnx.load(made)


def _bytes_in(graph: onnx.GraphProto) -> None:
    """Let the input be what its first node, which makes it bytes, gives."""
    (given,) = graph.input
    readers = [n for n in graph.node if given.name in n.input]
    first = readers[0]
    if len(readers) != 1 or first.op_type != "QuantizeLinear":
        raise InvalidArgument(f"the input of {graph.name} has no kernel of 8 bits")
    made = first.output[0]
    graph.node.remove(first)
    for node in graph.node:
        node.input[:] = [given.name if i == made else i for i in node.input]
    given.type.tensor_type.elem_type = TensorProto.UINT8


def _bytes_out(graph: onnx.GraphProto) -> None:
    """Let the output be what its last node, which makes it float32, reads."""
    (taken,) = graph.output
    last = next(n for n in graph.node if taken.name in n.output)
    if last.op_type != "DequantizeLinear":
        raise InvalidArgument(f"the output of {graph.name} has no kernel of 8 bits")
    read = last.input[0]
    graph.node.remove(last)
    for node in graph.node:
        node.input[:] = [taken.name if i == read else i for i in node.input]
        node.output[:] = [taken.name if o == read else o for o in node.output]
    taken.type.tensor_type.elem_type = TensorProto.UINT8


def _cleaned(made: onnx.ModelProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """With the versions of the float model, so that phones' older runtimes read it, too."""
    used = {node.domain for node in made.graph.node}
    versions = {o.domain: o.version for o in made.opset_import if o.domain in used}
    del made.opset_import[:]
    made.opset_import.extend(onnx.helper.make_opsetid(d, v) for d, v in versions.items())
    made.ir_version = max(model.ir_version, 7)
    made.producer_name = model.producer_name
    del made.graph.value_info[:]
    del made.metadata_props[:]
    made.graph.name = model.graph.name
    return made


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tools' advice to whoever calls them: what they advise is done here."""
    root: Any = logging.getLogger()
    with _ONE_AT_A_TIME:  # what it changes is the process's, and devices are prepared in threads
        before = root.level
        root.setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            root.setLevel(before)
