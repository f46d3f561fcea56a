"""Run TFLite models in LiteRT's interpreter: what a measuring worker needs of it, and no more.

Self-contained: it needs Python ≥ 3.10, numpy and ai-edge-litert (or its forerunner
tflite-runtime), and nothing of phonenas.

XNNPACK is a delegate: it takes the nodes that it can and leaves the rest, in silence, to kernels
that are several times slower. So each model is looked at after it is loaded, and says what runs.
"""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

# What may be asked for, and the interpreter's word for it. TFLite has two sets of kernels of its
# own: optimised ones, which also take what a delegate leaves, and plain ones to compare with.
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
        ValueError: A setting that cannot be met.
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
        package = importlib.import_module(self.package)
        wrapper = Path(self.module._interpreter_wrapper.__file__)
        # Newer packages keep the code in a library that many small wrappers share.
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
        """Make a model ready to run, its inputs filled.

        Raises:
            ValueError, RuntimeError: No TFLite file, one that cannot be prepared, or an input
                other than float32.
        """
        interpreter = self.module.Interpreter(
            model_path=str(path),
            num_threads=self.threads,
            experimental_op_resolver_type=getattr(
                self.module.OpResolverType, _RESOLVERS[self.provider]
            ),
        )
        interpreter.allocate_tensors()
        return Model(interpreter, self.provider)


class Model:
    """One loaded model.

    Attributes:
        provider: What really runs: the provider that was asked for if all nodes are with it, and
            a sentence otherwise, as in "XNNPACK, 3 of 12 nodes on built-in kernels".
        run: One inference on inputs that are set once, normal with a fixed seed. It is the
            runtime's own function: Python around it would take longer than a small operator.
    """

    def __init__(self, interpreter: Any, provider: str) -> None:
        import numpy

        # Repeated to fill the input; a prime, so that it never falls in step with the channels.
        few = numpy.random.default_rng(0).standard_normal(65_537, dtype=numpy.float32)
        for given in interpreter.get_input_details():
            if given["dtype"] != numpy.float32:
                kind = numpy.dtype(given["dtype"]).name
                raise ValueError(f"input {given['name']!r} is {kind}; only float32 is measured")
            interpreter.set_tensor(given["index"], numpy.resize(few, given["shape"]))
        self.provider = _what_runs(interpreter, provider)
        self._interpreter = interpreter
        # Around this, `interpreter.invoke` checks that no view of its memory is held: none is.
        self.run = interpreter._interpreter.Invoke


def _interpreter() -> tuple[Any, str]:
    """The module with the interpreter, and the package that it is from."""
    for package in _PACKAGES:
        try:
            return importlib.import_module(f"{package}.interpreter"), package
        except ModuleNotFoundError as error:
            if error.name not in (package, f"{package}.interpreter"):
                raise
    raise ImportError("LiteRT is not installed here. Install it:  pip install ai-edge-litert")


def _what_runs(interpreter: Any, provider: str) -> str:
    """The provider if every node is with it, otherwise how many are not.

    A delegate appends nodes of its own to the list and leaves those that it takes there too, so
    the list does not say what runs. But each of its nodes names the tensors that it reads and
    writes: what lies between them is taken.
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
