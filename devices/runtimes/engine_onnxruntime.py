"""ONNX Runtime for the worker: self-contained, nothing of phonenas in it."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any


class Model:
    """One loaded model with its input set.

    Attributes:
        provider: The execution provider that really runs it.
    """

    def __init__(self, session: Any, feeds: dict[str, Any]) -> None:
        self.provider: str = session.get_providers()[0]
        self.run = partial(session.run, None, feeds)


class Engine:
    """Sessions of ONNX Runtime.

    Args:
        settings: "threads", "optimisation" (none, basic, extended, all) and "provider".
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        import numpy
        import onnxruntime

        self.numpy, self.ort = numpy, onnxruntime
        self.provider = settings["provider"]
        # Repeated to fill an input: drawing a million values would take longer than loading.
        # A prime, so that they never fall in step with a channel count.
        self.values = numpy.random.default_rng(0).standard_normal(65_537, dtype=numpy.float32)
        levels = onnxruntime.GraphOptimizationLevel
        self.options = onnxruntime.SessionOptions()
        threads = int(settings.get("threads", 1))
        self.version = onnxruntime.__version__
        if threads > 1:
            self._share_threads(threads)
        else:
            self.options.intra_op_num_threads = 1
        self.options.inter_op_num_threads = 1
        self.options.log_severity_level = 3
        self.options.graph_optimization_level = {
            "none": levels.ORT_DISABLE_ALL,
            "basic": levels.ORT_ENABLE_BASIC,
            "extended": levels.ORT_ENABLE_EXTENDED,
            "all": levels.ORT_ENABLE_ALL,
        }[settings.get("optimisation", "all")]
        if self.provider != "CPUExecutionProvider":
            # Nodes that the provider does not take would run on the CPU without a word.
            self.options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")

    def _share_threads(self, threads: int) -> None:
        """One pool of threads for all sessions.

        A session's own threads spin for a while after each run. Those of the sentinel would take
        a core from the model beside it, which made MobileNetV2 take twice its time.
        """
        if not hasattr(self.ort, "set_global_thread_pool_sizes"):
            raise ValueError(
                f"onnxruntime {self.ort.__version__} cannot share one pool of threads among sessions, so "
                "two models side by side would slow each other down. Update it (1.32 can), or measure "
                "with one thread"
            )
        self.ort.set_default_logger_severity(3)
        self.ort.set_global_thread_pool_sizes(threads, 1)
        self.options.use_per_session_threads = False
        # Said where conditions are told apart: times of threads that fought are no times of these.
        self.version += ", one pool"

    def identity(self) -> dict[str, Any]:
        """Name, version, and hash of the binary that computes."""
        from onnxruntime.capi import onnxruntime_pybind11_state as binary

        digest = hashlib.sha256()
        with Path(binary.__file__).open("rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
        return {
            "runtime": "onnxruntime",
            "version": self.version,
            "sha256": digest.hexdigest(),
            "providers": self.ort.get_available_providers(),
        }

    def load(self, path: str) -> Model:
        """A session of a file, with random input that stays the same."""
        available = self.ort.get_available_providers()
        if self.provider not in available:
            raise ValueError(f"this build has no {self.provider}; it has {', '.join(available)}")
        session = self.ort.InferenceSession(path, self.options, providers=[self.provider])
        feeds = {i.name: self.numpy.resize(self.values, i.shape) for i in session.get_inputs()}
        return Model(session, feeds)
