"""ONNX Runtime for the worker; self-contained, without anything of phonenas."""

from __future__ import annotations

import re
import time
from functools import cached_property, partial
from pathlib import Path
from typing import Any

# Of inputs, numpy's name of each type.
_FLOATS = {"tensor(float16)": "float16", "tensor(double)": "float64", "tensor(float)": "float32"}
_BYTES = ("int8", "uint8")
_NAMES = {"tensor(bool)": "bool", "tensor(string)": "object"}
_NEWER = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_OPSET = re.compile(r"Opset (\d+) is under development.*official support for domain .* (\d+)")


class Model:
    """One loaded model with its inputs set.

    Attributes:
        provider: The execution provider that runs it.
        load_ms: Time in which the session was made, in ms.
        session: Of ONNX Runtime.
    """

    def __init__(self, session: Any, feeds: dict[str, Any], load_ms: float) -> None:
        self.load_ms = load_ms
        self.session = session
        self.provider: str = session.get_providers()[0]
        self.run = partial(session.run, None, feeds)


def profiled(events: Any, runs: int) -> dict[str, Any]:
    """What a profile of ONNX Runtime says of the last runs, in whole µs: each, and each node in it.

    Args:
        events: Its file: complete events as of Chromium's traces; of a node they are called
            "NAME_kernel_time".
        runs: How many runs, ≥ 1; earlier ones warm up.
    """
    whole = [(e["ts"], e["dur"]) for e in events if e["name"] == "model_run"][-runs:]
    nodes: dict[tuple[str, str], dict[str, Any]] = {}
    over = 0  # when the last node ends that is no part of another
    for e in sorted(events, key=lambda e: (e.get("ts", 0), -e.get("dur", 0))):
        name = e["name"].removesuffix("_kernel_time")
        if e.get("cat") != "Node" or name == e["name"]:
            continue
        if e["ts"] < over and e["ts"] + e["dur"] <= over:
            continue  # within a Loop, an If or a Scan, whose own time holds it
        over = max(over, e["ts"] + e["dur"])
        for number, (began, us) in enumerate(whole):
            if began <= e["ts"] <= began + us:
                told = e["args"]
                key = (told.get("node_index", ""), name)
                node = nodes.setdefault(
                    key,
                    {
                        "is": [name, told.get("op_name", ""), told.get("provider", "")],
                        "us": [0] * len(whole),
                        "at_us": [0] * len(whole),
                    },
                )
                node["at_us"][number] = node["at_us"][number] or e["ts"] - began
                node["us"][number] += e["dur"]
    return {"runs_us": [us for _, us in whole], "nodes": list(nodes.values())}


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
            # Nodes that the provider does not support would run on the CPU without a message.
            self.options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")

    @cached_property
    def values(self) -> Any:
        """Numbers that are repeated to fill an input: drawing a million takes longer than loading.

        A prime number of them, so that channels do not get equal values. Drawn when they are
        needed: a process that brings up one model has loaded it then, and its peak is over.
        """
        return self.numpy.random.default_rng(0).standard_normal(65_537, dtype=self.numpy.float32)

    def _share_threads(self, threads: int) -> None:
        """One pool of threads for all sessions.

        A session's own threads spin for a while after each run: those of the sentinel take a core
        from the model beside it, and MobileNetV2 takes twice its time.
        """
        if not hasattr(self.ort, "set_global_thread_pool_sizes"):
            raise ValueError(
                f"onnxruntime {self.ort.__version__} cannot share one pool of threads among "
                "sessions, so two models side by side would slow each other down. Update it (1.32 "
                "can), or measure with one thread"
            )
        self.ort.set_default_logger_severity(3)
        self.ort.set_global_thread_pool_sizes(threads, 1)
        self.options.use_per_session_threads = False
        # Part of the conditions: times without one pool are not comparable.
        self.version += ", one pool"

    def identity(self) -> dict[str, Any]:
        """Name, version, and hash of the binary that computes."""
        import hashlib  # loads a library of some megabytes, which a startup does not need

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
        """A session of a file; its inputs from the .npz file of its name, else made up.

        Raises:
            ValueError: The file is newer than this version reads, or an input has no fixed shape.
        """
        available = self.ort.get_available_providers()
        if self.provider not in available:
            raise ValueError(f"this build has no {self.provider}; it has {', '.join(available)}")
        began = time.perf_counter()
        try:
            session = self.ort.InferenceSession(path, self.options, providers=[self.provider])
        except Exception as error:
            for pattern, what in ((_NEWER, "IR version"), (_OPSET, "opset")):
                if found := pattern.search(str(error)):
                    raise ValueError(
                        f"the file is of ONNX {what} {found[1]}, and onnxruntime {self.version} "
                        f"reads up to {found[2]}. Update onnxruntime there, or export for {what} "
                        f"{found[2]}"
                    ) from error
            raise
        load_ms = (time.perf_counter() - began) * 1e3
        beside = Path(path).with_suffix(".npz")
        if beside.is_file():
            given = self.numpy.load(beside, allow_pickle=False)
            return Model(session, {i.name: given[i.name] for i in session.get_inputs()}, load_ms)
        return Model(session, {i.name: self.made_up(i) for i in session.get_inputs()}, load_ms)

    def profile(self, path: str, warmup_runs: int, runs: int) -> dict[str, Any]:
        """Runs of a model under the profiler, in whole µs: each run, and each node in each run.

        A node that the provider does not support may run on the CPU here: the answer says so.
        """
        import json
        import shutil
        import tempfile

        folder = tempfile.mkdtemp(prefix="phonenas-")
        self.options.enable_profiling = True
        self.options.profile_file_prefix = str(Path(folder) / "profile")
        self.options.add_session_config_entry("session.disable_cpu_ep_fallback", "0")
        try:
            model = self.load(path)
            for _ in range(warmup_runs + runs):
                model.run()
            with Path(model.session.end_profiling()).open(encoding="utf-8") as file:
                events = json.load(file)
        finally:
            self.options.enable_profiling = False
            shutil.rmtree(folder, ignore_errors=True)
        return profiled(events, runs)

    def made_up(self, given: Any) -> Any:
        """Values of an input: numbers at random, bytes too; other integers are 1, which is true."""
        numpy, kind = self.numpy, given.type
        if not all(isinstance(n, int) for n in given.shape):
            raise ValueError(f"input {given.name} has free sides: {given.shape}")
        name = _FLOATS.get(kind) or _NAMES.get(kind) or kind.removeprefix("tensor(").rstrip(")")
        if kind in _FLOATS:
            return numpy.resize(self.values, given.shape).astype(name)
        if name in _BYTES:
            low = numpy.clip(numpy.abs(self.values) * 60, 0, 127)
            return numpy.resize(low, given.shape).astype(name)
        if name == "object":
            return numpy.full(given.shape, "a", dtype=object)
        return numpy.ones(given.shape, name)
