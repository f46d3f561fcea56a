"""Operators, networks, search spaces, and their lowerings to ONNX, TFLite and torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import errors, zoo
    from .additive import AdditiveTable
    from .architecture import Architecture, Block
    from .detection.ssdlite import SSDLite
    from .graph import Classifier, NetworkGraph
    from .kernels.kernel import Kernel
    from .operator import Operator
    from .search_space import Genomes, Part, SearchSpace
    from .spaces import FileSpace, get, names, narrow
    from .spaces.accel_nasbench import AccelNASBench
    from .spaces.mnasnet import MnasNet
    from .spaces.mnasnet_flat import MnasNetFlat
    from .spaces.nasbench_macro import NASBenchMacro
    from .spaces.proxylessnas import ProxylessNAS

__all__ = [
    "AccelNASBench",
    "AdditiveTable",
    "Architecture",
    "Block",
    "Classifier",
    "FileSpace",
    "Genomes",
    "Kernel",
    "MnasNet",
    "MnasNetFlat",
    "NASBenchMacro",
    "NetworkGraph",
    "Operator",
    "Part",
    "ProxylessNAS",
    "SSDLite",
    "SearchSpace",
    "errors",
    "get",
    "names",
    "narrow",
    "zoo",
]

# Imported when first used: an error message needs no numpy, a space neither onnx nor torch.
_MODULES = {
    "to_onnx": "lowering.onnx",
    "to_tflite": "lowering.tflite",
    "to_torch": "lowering.torch",
}
_MODULES |= {"errors": "errors", "zoo": "zoo"}
_PLACES = {
    "additive": ("AdditiveTable",),
    "architecture": ("Architecture", "Block"),
    "detection.ssdlite": ("SSDLite",),
    "graph": ("Classifier", "NetworkGraph"),
    "kernels.kernel": ("Kernel",),
    "operator": ("Operator",),
    "search_space": ("Genomes", "Part", "SearchSpace"),
    "spaces": ("FileSpace", "get", "names", "narrow"),
    "spaces.accel_nasbench": ("AccelNASBench",),
    "spaces.mnasnet": ("MnasNet",),
    "spaces.mnasnet_flat": ("MnasNetFlat",),
    "spaces.nasbench_macro": ("NASBenchMacro",),
    "spaces.proxylessnas": ("ProxylessNAS",),
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{_MODULES[name]}", __name__)
    for place, held in _PLACES.items():
        if name in held:
            value = getattr(importlib.import_module(f".{place}", __name__), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'phonenas.space' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
