"""The formats of exported networks: how each is written, and run on this computer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from phonenas.space import Classifier
from phonenas.space.errors import MissingExtra, install
from phonenas.space.lowering.calibration import Ranges

__all__ = ["MAKERS", "RUNNERS", "Logits", "Runner", "precisions_of", "preprocessing"]

Logits = npt.NDArray[np.float32]
#: (1, 3, px, px) images to (classes,) logits.
Runner = Callable[[Logits], Logits]


def _onnx(
    network: Classifier,
    weights: Mapping[str, Any],
    facts: Mapping[str, Any],
    precision: str = "float32",
    ranges: Ranges | None = None,
) -> bytes:
    from onnx import helper

    from phonenas.space.lowering.onnx import to_onnx

    model = to_onnx(network, weights=weights, precision=precision, ranges=ranges)
    # Values are text; what is not text already is JSON.
    properties = {"network": str(network), **facts["preprocessing"], **facts}
    properties.pop("preprocessing")
    helper.set_model_props(
        model, {k: v if isinstance(v, str) else json.dumps(v) for k, v in properties.items()}
    )
    return bytes(model.SerializeToString())


def _tflite(
    network: Classifier,
    weights: Mapping[str, Any],
    facts: Mapping[str, Any],
    precision: str = "float32",
    ranges: Ranges | None = None,
) -> bytes:
    from phonenas.space.lowering.tflite import to_tflite

    return to_tflite(network, weights=weights, precision=precision, ranges=ranges)


def _onnxruntime(model: bytes, threads: int) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # On x86 without VNNI products of 8 bits saturate in pairs otherwise, as on no phone.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()

    def run(image: Logits) -> Logits:
        logits: Logits = session.run(None, {entry.name: image})[0][0]
        return logits

    return run


def _litert(model: bytes, threads: int) -> Runner:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except (ImportError, OSError) as error:  # OSError: its library does not load
        raise MissingExtra(
            "a TFLite model is checked with ai-edge-litert, which cannot be imported here. "
            f"Install it:  {install('litert')}"
        ) from error
    interpreter = Interpreter(model_content=model, num_threads=threads)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    output = interpreter.get_output_details()[0]["index"]

    def run(image: Logits) -> Logits:
        interpreter.set_tensor(entry, np.ascontiguousarray(image.transpose(0, 2, 3, 1)))
        interpreter.invoke()
        logits: Logits = interpreter.get_tensor(output)[0]
        return logits

    return run


MAKERS: Mapping[str, Callable[..., bytes]] = {"onnx": _onnx, "tflite": _tflite}
RUNNERS: Mapping[str, Callable[[bytes, int], Runner]] = {"onnx": _onnxruntime, "tflite": _litert}


def precisions_of(form: str) -> tuple[str, ...]:
    """The precisions in which a format is written."""
    if form == "onnx":
        from phonenas.space.lowering.onnx import PRECISIONS as of_onnx

        return of_onnx
    from phonenas.space.lowering.tflite import PRECISIONS as of_tflite

    return of_tflite


def preprocessing(resolution_px: int) -> dict[str, Any]:
    """How an image becomes the input, as `Batches` does it, for whoever runs the file."""
    from ..pipeline import MEAN, STD

    return {
        "colours": "RGB, divided by 255, less mean, divided by std",
        "mean": list(MEAN),
        "std": list(STD),
        "central_share": 224 / 256,
        "crop_px": resolution_px,
        "resizing": "the central square, of central_share of the shorter side, to crop_px, "
        "bilinear, averaging where it reduces (at 224 px: resize to 256, crop 224). A square image "
        "no larger than crop_px is taken whole",
    }
