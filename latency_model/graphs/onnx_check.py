"""Whether a runtime loads an ONNX file: what none loads has no latency to predict.

It also tells the shapes that a run has where the graph does not. The file is loaded in a process of
its own, whose time and memory are bounded: by ONNX Runtime where the device runs that and it is
installed here, else by onnx's own checker, which also infers shapes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phonenas.data.files import TemporaryFolder
from phonenas.data.measurement import Conditions, taken_as
from phonenas.space.errors import PrecisionDiffers, UnsupportedFormat
from phonenas.space.file_inputs import Shape
from phonenas.space.onnx_file import set_shapes, whole_model

__all__ = ["check_loads", "observed", "same_precision"]

_LIMIT_S = 60.0
_MEMORY_BYTES = 4 << 30  # beside the file's own size, several times over
_COPIES = 6
_TEXT = 400  # characters of a library's message that are shown
_LIMITED = """
import sys
try:
    import resource
    for kind, most in ((resource.RLIMIT_AS, int(sys.argv[2])), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, hard))
except (ImportError, AttributeError, ValueError, OSError):
    pass  # Windows has no such limits, and macOS refuses that of the address space
"""
_RUNTIME = """
import onnxruntime
options = onnxruntime.SessionOptions()
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.log_severity_level = 4
load = lambda p: onnxruntime.InferenceSession(p, options, providers=["CPUExecutionProvider"])
"""
_CHECKER = """
import onnx

def load(path):
    # Runtimes do without the shapes of outputs, and the checker does not: they are inferred first.
    model = onnx.load(path)
    shaped = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(shaped, full_check=True)
"""
_RUN = """
import json
import numpy

def load(path, runtime_load=load):
    # Every tensor becomes an output of one run.
    import onnx
    from onnx import inliner
    model = onnx.load(path)
    if model.functions:
        model = inliner.inline_local_functions(model)
    there = {o.name for o in model.graph.output} | {t.name for t in model.graph.initializer}
    names = [o for n in model.graph.node for o in n.output if o and o not in there]
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
    session = runtime_load(model.SerializeToString())
    kinds = {"tensor(float16)": "f2", "tensor(double)": "f8", "tensor(float)": "f4"}
    whole = {"tensor(bool)": "?", "tensor(string)": "O"}
    given = numpy.load(sys.argv[3], allow_pickle=False) if sys.argv[3:] else None
    random, feeds = numpy.random.default_rng(0), {}
    for i in session.get_inputs():
        if given is not None:
            feeds[i.name] = given[i.name]
        elif i.type in kinds:
            feeds[i.name] = random.standard_normal(i.shape).astype(kinds[i.type])
        else:
            kind = whole.get(i.type) or i.type[7:-1]
            feeds[i.name] = numpy.ones(i.shape, kind)
    found = {}
    for name, value in zip([o.name for o in session.get_outputs()], session.run(None, feeds)):
        if isinstance(value, numpy.ndarray):
            kind = 8 if value.dtype == object else onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            found[name] = [value.shape, kind]
    print(json.dumps(found))
"""
_LOAD = """
try:
    load(sys.argv[1])
except BaseException as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(3)
"""


def same_precision(path: str, own: str, conditions: Conditions, odd: str = "") -> None:
    """Refuse a file that computes in another precision than what a model was measured in.

    Args:
        path: Of the file.
        own: What it computes in.
        conditions: Of the model.
        odd: Which of its layers compute in another precision than most, in words.
    Raises:
        PrecisionDiffers: It does; the message says what to do instead.
    """
    device, precision = conditions.device, conditions.precision
    # Tables of GPUs are of float32 models, which a GPU computes in float16.
    if conditions.origin == "public":
        precision = device.rsplit("/", 1)[-1]
    elif conditions.origin == "imported" and conditions.provider.lower() == "gpu":
        precision = "float32" if precision == "float16" else precision
    if own in (precision, *taken_as(precision, conditions.runtime)):
        return
    measure = f"phonenas profile --device {shlex.quote(device)} --network {shlex.quote(path)}"
    if conditions.origin == "public":
        advice = f"Look for a phone whose name ends in {own}:  phonenas devices --ready"
    elif conditions.origin == "imported":
        advice = (
            f"It is an imported table, with no device to measure: give a network in {precision}"
        )
    else:
        advice = f"Measure the file:  {measure}"
    if odd:
        raise PrecisionDiffers(
            f"{path} mixes {own.replace('+', ' and ')} ({odd}): no model predicts such a file. "
            + advice
        )
    raise PrecisionDiffers(
        f"{path} computes in {own}, but {device} was measured in {precision}, so that its latency "
        f"cannot be predicted. {advice}"
    )


def check_loads(path: Path, runtime: str) -> None:
    """Refuse a file that the runtime would not load.

    Args:
        path: An ONNX file, of a readable graph.
        runtime: Of the device, as its conditions name it.
    Raises:
        UnsupportedFormat: It is not loaded; the message holds what the library says.
    """
    own = runtime.startswith("onnxruntime") and importlib.util.find_spec("onnxruntime") is not None
    library = "onnxruntime" if own else "onnx.checker"
    advice = "A file that no runtime loads has no latency: export it again"
    _asked(_RUNTIME if own else _CHECKER, path, f"{path}: {library} does not load it", advice)


def observed(
    model: Path | Any, shapes: dict[str, Shape], inputs: Path | None = None
) -> dict[str, tuple[Shape, int]]:
    """Shape and element type of each tensor in one run of a model.

    Args:
        model: Path of an ONNX file, or an `onnx.ModelProto`.
        shapes: Of its inputs.
        inputs: An .npz file that it is run on; None for random inputs.
    Raises:
        UnsupportedFormat: It does not run; the message holds what the library says.
    """
    name = str(model) if isinstance(model, Path) else model.graph.name
    if importlib.util.find_spec("onnxruntime") is None:
        return {}
    with TemporaryFolder() as folder:
        whole = (
            whole_model(model)
            if isinstance(model, Path)
            else type(model).FromString(model.SerializeToString())
        )
        set_shapes(whole, shapes)
        path = folder / "whole.onnx"
        path.write_bytes(whole.SerializeToString())
        refused = f"{name}: its shapes do not follow from its inputs, and it does not run here"
        more = [] if inputs is None else [str(inputs.resolve())]
        said = _asked(_RUNTIME + _RUN, path, refused, "Give real inputs:  --input FILE.npz", more)
    found: dict[str, Any] = json.loads(said)
    return {n: (tuple(map(int, shape)), int(kind)) for n, (shape, kind) in found.items()}


def _asked(program: str, path: Path, refused: str, advice: str, more: Sequence[str] = ()) -> str:
    """What a program of its own says of a file."""
    memory = _MEMORY_BYTES + _COPIES * path.stat().st_size
    command = [sys.executable, "-I", "-c", _LIMITED + program + _LOAD]
    try:
        done = subprocess.run(
            [*command, str(path.resolve()), str(memory), *more],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LIMIT_S,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired as error:
        raise UnsupportedFormat(f"{refused} within {_LIMIT_S:g} s") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").split("\n")
        said = " ".join(" ".join(lines).split())[-_TEXT:] or f"exit code {done.returncode}"
        raise UnsupportedFormat(f"{refused}: {said}. {advice}")
    return done.stdout.decode(errors="replace")
