"""promote(): the second stage. The best of a run are trained in full, and the device measures them.

A search ranks by estimates of accuracy and by predicted latency. What it found is then trained to
the end, exported and measured, and the front is told again from these.

    RUN/promoted/ID/      checkpoints of the training, the exported files, promoted.json
    RUN/promoted.json     everything, and the front (see `promoted`)

A command that was stopped goes on when it is given again: a network whose own promoted.json is there is
not trained again, one that was under way goes on from its checkpoint, and what the store holds is
not measured again. One that diverged or cannot be trained is kept with its reason, and the others
go on; what would hit all alike (a full disk, a broken image, a missing extra) stops.

Source: Tan et al., MnasNet, CVPR 2019, section 4: the 15 best of the search are trained in full.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..data import Conditions, MeasurementStore
from ..devices import Device
from ..devices.plan import Event as DeviceEvent
from ..latency_model import LatencyModel
from ..space.errors import (
    InvalidArgument,
    SettingsChanged,
)
from .choosing import worth_measuring
from .promoted import Promoted, PromotedNetwork, kendall
from .promotion_file import Books
from .promotion_steps import as_before, exported, planned, promises, set_told, with_measured
from .run_folder import Loaded
from .run_folder import load as load_run
from .training_task import train_network
from .validation import validate
from .workers import Needs, Serial, Workers

if TYPE_CHECKING:
    from ..data.images import ImageSet
    from .training.recipe import Recipe
    from .training.trained import Event as TrainingEvent
    from .training.trained import Trained

__all__ = ["Began", "Finished", "OnEvent", "Training", "promote"]


@dataclass(frozen=True)
class Began:
    """Event: what is to be trained.

    Args:
        networks: Chosen in all.
        done: Of them, those with a result of an earlier call.
        images: To train on.
        epochs: Of each training.
        seconds: About how long those that are left take at this computer's speed, one by one;
            None where it cannot be told.
    """

    networks: int
    done: int
    images: int
    epochs: int
    seconds: float | None


@dataclass(frozen=True)
class Training:
    """Event: how the training of one network goes on; only where it runs in this process."""

    id: int
    event: TrainingEvent


@dataclass(frozen=True)
class Finished:
    """Event: a network is trained and exported, or was given up.

    Args:
        id: Of the candidate.
        done, networks: How many have come to their end, of all chosen.
        top1: On the test images; None where it was given up.
        failed: Why; "" else.
    """

    id: int
    done: int
    networks: int
    top1: float | None
    failed: str


Event = Began | Training | Finished | DeviceEvent
OnEvent = Callable[[Event], None]


def promote(
    run: Loaded | str | Path,
    images: ImageSet,
    test: ImageSet,
    *,
    recipe: Recipe,
    top: int = 15,
    on: Device | None = None,
    into: MeasurementStore | None = None,
    workers: Workers | None = None,
    needs: Needs | None = None,
    latency: LatencyModel | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    loaders: int = 0,
    formats: tuple[str, ...] | None = None,
    again: bool = False,
    on_event: OnEvent | None = None,
) -> Promoted:
    """Train the best networks of a run in full, measure them, and tell the front from that.

    Args:
        run: Finished, or its folder.
        images: To train on; the networks get its classes.
        test: To judge them by, of the same classes. No choice is made by it.
        recipe: How each is trained.
        top: How many, ≥ 1; chosen as `validate` chooses what it measures (`worth_measuring`).
            What was trained before under the same settings is among them, too.
        on: The device that the run was for, not entered: it is entered for a moment before the
            first training, so that a wrong one is told early, and again after the last. None to
            leave the latencies as predicted; those measured earlier stay.
        into: The store for the measurements; needed with `on`.
        workers: Who trains; this process one by one by default. On other computers, a run folder
            that all of them see lets a training go on from its checkpoint.
        needs: What one training holds; by default as many processors as threads.
        latency: Predicts networks whose classes are not those of the run; without it the run's
            own promise stands.
        seed: Of every training.
        device: Where torch computes: "auto", "cpu", "cuda".
        threads: Of the CPU; None leaves torch's number, on which the last digits depend.
        loaders: Processes that read images, for each training.
        formats: To export; see `export`.
        again: Measure anew what the store already holds.
        on_event: Called with the events here, and those of `devices.measure`.
    Returns:
        What is in `promoted.json`, too.
    Raises:
        InvalidArgument: top < 1, no store for the device, another device than the run's, sets
            of different classes.
        SettingsChanged: A network was promoted with other settings, or the device runs under
            other conditions than when the promises were made.
        UnstableDevice, DeviceUnavailable: The trainings are kept.
        StoreError, UnsupportedFormat, MissingExtra, InvalidImage, TaskFailed: As their names say;
            the same call goes on.
    """
    run = run if isinstance(run, Loaded) else load_run(run)
    tell = on_event or _ignore
    if top < 1:
        raise InvalidArgument(f"top: 1 or more, got {top}")
    if tuple(images.classes) != tuple(test.classes):
        raise InvalidArgument(
            f"{images.source} and {test.source} are of different classes: "
            f"{len(images.classes)} and {len(test.classes)}, or of other names"
        )
    expected = _expected(run, on, into)
    books = Books(run.path, recipe, seed, images, test)
    best = worth_measuring(run.front, top)
    found: dict[int, PromotedNetwork] = {}
    for candidate in run.front:
        fresh = planned(candidate, len(images.classes), run, latency)
        earlier = books.result(fresh, must_agree=candidate in best)
        if earlier is not None:
            found[candidate.id] = earlier
        elif candidate in best:
            found[candidate.id] = fresh
    left = [n for n in found.values() if n.top1 is None and not n.failed]
    workers = workers or Serial()
    here = isinstance(workers, Serial)
    needs = needs or Needs(cpus=threads or 1)
    if not here and device.startswith("cuda") and not needs.gpus:
        raise InvalidArgument(
            f"a training on workers sees no GPU unless it is lent one, and is to run on {device}: "
            "give --gpus 1, or a share of one"
        )
    if on_event is not None:
        # Elsewhere other processors compute, or a GPU that this computer has not.
        about = _about_s(left, recipe, len(images), len(test), device, threads) if here else None
        tell(Began(len(found), len(found) - len(left), len(images), recipe.epochs, about))

    def finished(item: int, result: Trained | str) -> None:
        n = left[item]
        if isinstance(result, str):
            # Not written down: the next call tries it again.
            found[n.id] = replace(n, failed=result)
        else:
            found[n.id] = exported(n, result, run.path, test, recipe, formats, threads)
            books.keep(found[n.id])
        done = sum(bool(m.failed) or m.top1 is not None for m in found.values())
        tell(Finished(n.id, done, len(found), found[n.id].top1, found[n.id].failed))

    if left:
        workers.map(
            train_network,
            [
                (
                    n.block_args,
                    images,
                    test,
                    recipe,
                    seed,
                    str(books.folder(n.id).resolve()),
                    device,
                    threads,
                    loaders,
                    _telling(n.id, tell) if here else None,
                )
                for n in left
            ],
            needs=needs,
            on_result=finished,
        )
    networks = [found[i] for i in sorted(found)]
    result = Promoted(
        networks=tuple(networks), target_ms=run.front.target_ms, target=run.front.target,
        device=str(run.settings["device"]), recipe=recipe.settings, seed=seed,
        images={"train": set_told(images), "test": set_told(test)}, kendall_tau=kendall(networks),
        seconds=sum(n.seconds for n in networks),
    )  # fmt: skip
    result = as_before(result, run.path)
    result.save(run.path)
    if on is None or into is None or not result.trained:
        return result
    with on as phone:
        validation = validate(
            promises(result), on=phone, into=into, top=len(result.trained), expected=expected,
            again=again, on_event=tell,
        )  # fmt: skip
        result = with_measured(result, validation, phone.conditions)
    result.save(run.path)
    return result


def _about_s(
    left: list[PromotedNetwork],
    recipe: Recipe,
    images: int,
    test: int,
    device: str,
    threads: int | None,
) -> float | None:
    """By the pace of the network in the middle."""
    from .training.pace import about_s, seconds_per_mac

    if not left:
        return None
    middle = sorted(left, key=lambda n: n.macs)[len(left) // 2].architecture
    try:
        pace = seconds_per_mac(middle, recipe, device=device, threads=threads)
    except (RuntimeError, MemoryError):  # torch's, as where the memory does not suffice
        return None
    return about_s(pace, sum(n.macs for n in left), recipe, images, test)


def _expected(
    run: Loaded, on: Device | None, into: MeasurementStore | None
) -> Conditions | None:  # fmt: skip
    """What the device must be as; looked at before days are spent on training."""
    if on is None:
        return None
    if into is None:
        raise InvalidArgument("what a device says goes into a store; none was given")
    if run.settings["device"] != on.name:
        raise InvalidArgument(
            f"{run.path} was searched for {run.settings['device']}, not for {on.name}"
        )
    if "conditions" not in run.model:
        return None
    expected = Conditions.from_dict(run.model["conditions"])
    with on as phone:
        if phone.conditions != expected:
            raise SettingsChanged(
                f"{on.name} is not as it was when the promises were made: "
                f"{'; '.join(expected.differences(phone.conditions))} (then / now). Profile and fit "
                f"anew:  phonenas profile --device {on.name}"
            )
    return expected


def _telling(id_: int, tell: OnEvent) -> Callable[[TrainingEvent], None]:
    return lambda event: tell(Training(id_, event))


def _ignore(event: object) -> None:
    pass
