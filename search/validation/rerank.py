"""rerank(): the front of all that a run evaluated, under another latency model.

Top-1 and further objectives are those that the run holds; only the latency column is new. So no
costly estimator and no function of a user is asked again.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from phonenas.latency_model import LatencyModel
from phonenas.space import Architecture, Genomes
from phonenas.space.errors import InvalidArgument, NotInSpace, UnsupportedFormat

from ..device_view import keep_models
from ..evaluations import CHANCE, Evaluations
from ..history import History, Intervals, least_chance
from ..run_folder import Checkpoint, Loaded, RunFolder, load
from .round_model import damage_advice

__all__ = ["evaluated_of", "rerank"]

Floats = npt.NDArray[np.float64]
# Settings of a run that those of its rounds share, where it has them.
_SHARED: tuple[str, ...] = (
    "space",
    "resolution_px",
    "device",
    "accuracy",
    "target_ms",
    "target",
    "seed",
    "trust",
)
_SHARED += ("soft", "chance", "also", "limits", "columns", "devices", "across", "device_weights")


def evaluated_of(run: Loaded) -> Evaluations:
    """All that a run evaluated, in order.

    Raises:
        InvalidArgument: The run was loaded with another space than its own.
        UnsupportedFormat: What it evaluated is not of its space, or damaged.
    """
    space, evaluated = run.space, run.evaluations()
    wrong = f"{run.path} does not hold what it evaluated in {space.name}"
    device, named = shlex.quote(str(run.settings["device"])), shlex.quote(space.name)
    advice = f"Search again:  phonenas search --device {device} --space {named} --out NEW"
    if not len(evaluated):
        raise UnsupportedFormat(f"{wrong}: there is no checkpoint.npz. {advice}")
    try:
        known = set(space.keys(space.check(evaluated.genomes)))
        front = [space.encode(c.architecture) for c in run.front]
    except (InvalidArgument, NotInSpace) as error:
        raise UnsupportedFormat(f"{wrong}: {error}. {advice}") from error
    if not known.issuperset(space.keys(np.array(front))):
        raise UnsupportedFormat(f"{wrong}: its front is not among them. {advice}")
    return evaluated


def rerank(
    run: Loaded, latency: LatencyModel, measured_ms: Mapping[str, float], into: Path
) -> Loaded:
    """The front of all that a run evaluated under a latency model, as a run in a folder of its own.

    Args:
        run: Finished.
        latency: Predicts the latency of every network.
        measured_ms: Measured latencies by block string, in ms; they count instead of predictions.
        into: The folder; a run that lies there already, made in the same way, is given again.
    Raises:
        Infeasible: No network meets the target and the limits.
        SettingsChanged: The folder holds another run.
        PhonenasError: As `evaluated_of` and `search`.
    """
    began = time.monotonic()
    space, spec, evaluated = run.space, run.spec, evaluated_of(run)
    networks = [(Architecture.parse(name), ms) for name, ms in measured_ms.items()]
    known = {space.keys(space.encode(a)[None])[0]: ms for a, ms in networks if a in space}
    interval_of = latency.intervals(space)

    def measured(genomes: Genomes) -> tuple[list[int], list[float]]:
        rows = [(i, known[k]) for i, k in enumerate(space.keys(genomes)) if k in known]
        return [i for i, _ in rows], [ms for _, ms in rows]

    def intervals(genomes: Genomes) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
        low, high, covered = interval_of(genomes)
        rows, ms = measured(genomes)
        low[rows], high[rows] = ms, ms
        return low, high, covered

    latency_ms = latency.on(space)(evaluated.genomes)
    rows, ms = measured(evaluated.genomes)
    latency_ms[rows] = ms
    further, own = dict(evaluated.further), f"latency:{latency.device}"
    # On the other devices networks are predicted as in the search.
    models = run.device_models()
    on_devices: dict[str, Intervals] = {
        f"latency:{d}": intervals if d == latency.device else model.intervals(space)
        for d, model in models.items()
    }
    if models:
        further[own] = latency_ms
    if spec.chance is not None:
        by_column = on_devices or {"": intervals}
        further[CHANCE] = least_chance(spec, latency_ms, further, by_column, evaluated.genomes)
    history = History(space, spec, latency.device, latency.conditions.origin)
    ranked = replace(evaluated, latency_ms=latency_ms, further=further)
    history.remember(ranked)
    front = history.front(intervals, on_devices)
    digest = latency.digest + json.dumps(dict(measured_ms), sort_keys=True)
    digest = hashlib.sha256(digest.encode()).hexdigest()[:12]
    settings = {
        **{name: run.settings[name] for name in _SHARED if name in run.settings},
        "latency_model": digest,
        "evaluations": len(evaluated),
        "strategy": "again",
        "again": str(run.settings["strategy"]),
    }
    if models:  # its own model is fitted again; the others are those of the search
        settings["devices"] = [
            {**d, "latency_model": latency.digest} if d["device"] == latency.device else d
            for d in settings["devices"]
        ]
    try:
        summary, objectives = {**latency.summary(), "digest": digest}, run.objectives
        if models and objectives is not None:
            of = {**objectives["devices"], latency.device: summary}
            objectives = {**objectives, "devices": of}
        # Whoever works in the run has the lock of its rounds.
        folder = RunFolder(into, settings, summary, objectives, lock=False)
        if not folder.finished():
            seconds = time.monotonic() - began
            done = Checkpoint({}, ranked, 0, seconds, (history.note(seconds),))
            keep_models(run, into)
            folder.save(done)
            folder.finish(front, space, done)
        return load(into, run.given_space)
    except UnsupportedFormat as error:
        raise UnsupportedFormat(f"{error} {damage_advice(into)}") from error
