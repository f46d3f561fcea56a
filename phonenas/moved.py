"""Module paths that the documents of version 0.1 named, and where these modules are now."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

__all__ = ["MOVED"]

MOVED = {
    "phonenas.devices.transport": "phonenas.devices.transports.base",
    "phonenas.search.accuracy.fit_surrogate": "phonenas.search.accuracy.surrogate.fit",
    "phonenas.search.nsga2": "phonenas.search.strategies.nsga2",
    "phonenas.search.reward": "phonenas.search.strategies.reward",
    "phonenas.search.strategy": "phonenas.search.strategies",
    "phonenas.search.controller": "phonenas.search.strategies.controller",
    "phonenas.search.surrogate_assisted": "phonenas.search.strategies.surrogate_assisted",
    "phonenas.search.weighted_product": "phonenas.search.strategies.weighted_product",
    "phonenas.search.device_workers": "phonenas.search.cluster.device_workers",
    "phonenas.search.workers": "phonenas.search.cluster.workers",
    "phonenas.space.accel_nasbench": "phonenas.space.spaces.accel_nasbench",
    "phonenas.space.anchors": "phonenas.space.detection.anchors",
    "phonenas.space.kernel": "phonenas.space.kernels.kernel",
    "phonenas.space.mnasnet": "phonenas.space.spaces.mnasnet",
    "phonenas.space.mnasnet_flat": "phonenas.space.spaces.mnasnet_flat",
    "phonenas.space.nasbench_macro": "phonenas.space.spaces.nasbench_macro",
    "phonenas.space.proxylessnas": "phonenas.space.spaces.proxylessnas",
    "phonenas.space.ssdlite": "phonenas.space.detection.ssdlite",
    "phonenas.space.ssdlite_to_onnx": "phonenas.space.detection.onnx",
    "phonenas.space.ssdlite_to_tflite": "phonenas.space.detection.tflite",
    "phonenas.space.ssdlite_to_torch": "phonenas.space.detection.torch",
    "phonenas.space.to_onnx": "phonenas.space.lowering.onnx",
    "phonenas.space.to_tflite": "phonenas.space.lowering.tflite",
    "phonenas.space.to_torch": "phonenas.space.lowering.torch",
}


class _Finder:
    """Gives what a module holds under the module's old path too.

    A finder and loader by its methods alone: their base classes cost half of `import phonenas`.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MOVED:
            return None
        return importlib.machinery.ModuleSpec(fullname, cast("Loader", self))

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """As the import system makes it."""

    def exec_module(self, module: ModuleType) -> None:
        now = vars(importlib.import_module(MOVED[module.__name__]))
        vars(module).update({k: v for k, v in now.items() if not k.startswith("__")})
        module.__doc__ = now["__doc__"]


sys.meta_path.append(_Finder())
