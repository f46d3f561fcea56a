"""of_device(): a run of several devices as the run of one of them.

The networks of the front, their ids and their rewards stay. `latency_ms` and its interval, the
target and the model are those of the device, so that whatever takes a run takes it as one of this
device: a validation, its rounds, a plot. The columns of each device stay, too. In memory it has
the evaluations of the whole run; on disk it is a complete run, in `device2` of the run's folder for
the second device.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from phonenas.space.errors import InvalidArgument

from .checkpoint import Checkpoint
from .loaded import Loaded, load
from .run_document import model_file
from .run_folder import RunFolder

__all__ = ["keep_models", "of_device", "written"]


def of_device(run: Loaded, device: str) -> Loaded:
    """A finished run as one of this device; the run itself where it is of it alone, or first of it.

    Raises:
        InvalidArgument: It was not searched for that device.
    """
    if run.settings["device"] == device:
        return run
    if device not in run.devices:
        raise InvalidArgument(
            f"{run.path} was searched for {' and '.join(run.devices)}, not for {device}"
        )
    place = run.devices.index(device)
    own, column = run.settings["devices"][place], f"latency:{device}"
    model = (run.objectives or {})["devices"][device]
    candidates = []
    for c in run.front:
        ends = c.intervals[column]
        candidates.append(
            replace(
                c,
                latency_ms=c.values[column],
                low_ms=ends.low_ms,
                high_ms=ends.high_ms,
                covered=ends.covered,
                measured_ms=None,
            )
        )
    settings = {**run.settings, **own, "precision": model["conditions"]["precision"]}
    settings |= {"strategy": "again", "again": str(run.settings["strategy"])}
    front = replace(
        run.front,
        candidates=tuple(candidates),
        target_ms=own["target_ms"],
        target=own["target"],
        origin=str(model["conditions"]["origin"]),
    )
    return replace(
        run,
        path=run.path / f"device{place + 1}",
        settings=settings,
        front=front,
        model=model,
        whole=run.whole or run,
    )


def written(view: Loaded) -> Loaded:
    """`of_device` on disk, in a folder of its own; what lies there already is given again.

    Args:
        view: As `of_device` gives it; whoever calls has the lock of the run's folder.
    Raises:
        SettingsChanged, StoreError, UnsupportedFormat: As `RunFolder`.
    """
    if view.whole is None:
        return view
    view.device_models()  # a damaged one is told before a folder is made
    folder = RunFolder(view.path, view.settings, view.model, view.objectives, lock=False)
    if not folder.finished():
        done = Checkpoint({}, view.evaluations(), 0, view.seconds, view.log())
        keep_models(view, view.path)
        folder.save(done)
        folder.finish(view.front, view.space, done)
    return replace(load(view.path, view.given_space), whole=view.whole)


def keep_models(run: Loaded, into: Path) -> None:
    """Write the models of a run of several devices into a folder that was made of it.

    Args:
        run: Of several devices; of one device nothing is written.
        into: Holds a run of the same settings, but for the model of its own device, which a round
            of a validation fits by itself.
    """
    for device, model in run.device_models().items():
        path = into / model_file(run.settings, device)
        if path.name != "model.json" or not path.exists():
            model.save(path)
