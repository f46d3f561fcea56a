"""LiteRT's interpreter for the worker.

Self-contained: it needs Python ≥ 3.10, numpy and ai-edge-litert (or its predecessor
tflite-runtime), and nothing of phonenas.

XNNPACK is a delegate: it takes the nodes that it supports and leaves the rest, without a message,
to kernels that are several times slower. So each model is inspected after it is loaded.
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

# Our providers, and the interpreter's names. TFLite has two sets of kernels of its own: optimised
# ones, which also run what a delegate leaves, and plain ones to compare with.
_RESOLVERS = {
    "XNNPACK": "BUILTIN",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}
_PACKAGES = {"ai_edge_litert": "litert", "tflite_runtime": "tflite-runtime"}


class Engine:
    """LiteRT's interpreter under one set of settings.

    Args:
        settings: `threads`, ≥ 1 (default 1); `provider`, "XNNPACK" (default), "builtin" or
            "reference"; `optimisation`, "all": LiteRT has no other.
    Raises:
        ValueError: A setting that it does not have.
        ImportError: Neither ai-edge-litert nor tflite-runtime can be imported.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.provider = settings.get("provider", "XNNPACK")
        if self.provider not in _RESOLVERS:
            known = ", ".join(_RESOLVERS)
            raise ValueError(f"LiteRT has no provider {self.provider!r}. Known: {known}")
        optimisation = settings.get("optimisation", "all")
        if optimisation != "all":
            raise ValueError(
                f"LiteRT has one level of optimisation, 'all', and {optimisation!r} was asked for"
            )
        self.threads = int(settings.get("threads", 1))
        if self.threads < 1:
            raise ValueError(f"threads are 1 or more, got {self.threads}")
        self.module, self.package = _interpreter()

    def identity(self) -> dict[str, Any]:
        """Runtime, its version, the hash of the library that holds its kernels, its providers."""
        import hashlib  # loads a library of some megabytes, which a startup does not need

        package = importlib.import_module(self.package)
        wrapper = Path(self.module._interpreter_wrapper.__file__)
        # Newer packages have the code in a library that many small wrappers share.
        library = max(
            (wrapper, *wrapper.parent.glob("*pywrap*common*")), key=lambda p: p.stat().st_size
        )
        binary = library.read_bytes()
        return {
            "runtime": _PACKAGES[self.package],
            "version": str(package.__version__),
            "sha256": hashlib.sha256(binary).hexdigest(),
            "providers": [p for p in _RESOLVERS if p != "XNNPACK" or b"TfLiteXNNPack" in binary],
        }

    def load(self, path: str) -> Model:
        """Load a model and fill its inputs: from the .npz file of its name, else made up.

        Raises:
            ValueError, RuntimeError: Not a TFLite file, or one that cannot be prepared.
        """
        began = time.perf_counter()
        interpreter = self.module.Interpreter(
            model_path=str(path),
            num_threads=self.threads,
            experimental_op_resolver_type=getattr(
                self.module.OpResolverType, _RESOLVERS[self.provider]
            ),
        )
        beside, given = Path(path).with_suffix(".npz"), {}
        if beside.is_file():
            import numpy

            with numpy.load(beside, allow_pickle=False) as arrays:
                given = dict(arrays)
            for i in interpreter.get_input_details():
                if i["name"] in given and tuple(i["shape"]) != given[i["name"]].shape:
                    interpreter.resize_tensor_input(i["index"], given[i["name"]].shape)
        interpreter.allocate_tensors()
        load_ms = (time.perf_counter() - began) * 1e3
        return Model(interpreter, self.provider, given, load_ms)


class Model:
    """One loaded model.

    Attributes:
        provider: The provider that was asked for if it runs all nodes, otherwise a sentence as
            "XNNPACK, 3 of 12 nodes on built-in kernels".
        load_ms: Time in which the interpreter was made and its tensors were allocated, in ms.
        run: One inference on inputs that are set once: those given, else numbers that are normal
            with a fixed seed, other integers than bytes 1. It is the runtime's own function:
            Python around it would take longer than a small operator.
    """

    def __init__(
        self, interpreter: Any, provider: str, arrays: dict[str, Any], load_ms: float
    ) -> None:
        import numpy

        self.load_ms = load_ms

        # Repeated to fill the input; a prime number, so that channels do not get equal values.
        few = numpy.random.default_rng(0).standard_normal(65_537, dtype=numpy.float32)
        for given in interpreter.get_input_details():
            kind, shape = numpy.dtype(given["dtype"]), given["shape"]
            if given["name"] in arrays:
                values = arrays[given["name"]]
            elif kind.kind == "f":
                values = numpy.resize(few, shape).astype(kind)
            elif kind.itemsize == 1 and kind.kind in "iu":
                values = numpy.resize(numpy.clip(numpy.abs(few) * 60, 0, 127), shape).astype(kind)
            elif kind.kind in "iub":
                values = numpy.ones(shape, kind)
            else:
                raise ValueError(f"input {given['name']!r} is {kind.name}: give real inputs")
            interpreter.set_tensor(given["index"], values)
        self.provider = _what_runs(interpreter, provider)
        self._interpreter = interpreter
        # `interpreter.invoke` calls it after a check that no view of its memory exists: none does.
        self.run = interpreter._interpreter.Invoke


def _interpreter() -> tuple[Any, str]:
    """The module with the interpreter, and its package."""
    for package in _PACKAGES:
        try:
            return importlib.import_module(f"{package}.interpreter"), package
        except ModuleNotFoundError as error:
            if error.name not in (package, f"{package}.interpreter"):
                raise
    raise ImportError("LiteRT is not installed here. Install it:  pip install ai-edge-litert")


def _what_runs(interpreter: Any, provider: str) -> str:
    """The provider if it runs every node, otherwise how many it does not.

    A delegate appends nodes of its own to the list and leaves those that it takes there, too, so
    the list does not show what runs. But each of its nodes names the tensors that it reads and
    writes: the nodes between them are taken.
    """
    graph = interpreter._interpreter
    count = graph.NumNodes()
    delegates = [i for i in range(count) if "delegate" in graph.NodeName(i).lower()]
    own = [i for i in range(count) if i not in delegates]
    writer = {int(t): i for i in own for t in graph.NodeOutputs(i)}
    taken: set[int] = set()
    for delegate in delegates:
        border = {int(t) for t in graph.NodeInputs(delegate)}
        waiting = [int(t) for t in graph.NodeOutputs(delegate)]
        while waiting:
            node = writer.get(waiting.pop())
            if node is not None and node not in taken:
                taken.add(node)
                waiting.extend({int(t) for t in graph.NodeInputs(node)} - border)
    left = len(own) - len(taken)
    if provider == "XNNPACK":
        return provider if not left else f"XNNPACK, {left} of {len(own)} nodes on built-in kernels"
    return provider if not taken else f"{provider}, {len(taken)} of {len(own)} nodes delegated"
