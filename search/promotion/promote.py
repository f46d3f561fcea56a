"""promote(): the second stage. The best networks of a run are trained in full and measured.

A search ranks by estimates of accuracy and by predicted latency. The networks that it found are
then trained to the end, exported and measured, and the front is computed from these numbers.

    RUN/promoted/ID/      checkpoints of the training, the exported files, promoted.json
    RUN/promoted.json     everything, and the front (see `Promoted`)

A command that was stopped goes on when it is given again: a network whose own promoted.json is
there is not trained again, one whose training was stopped goes on from its checkpoint, and what
the store holds is not measured again. A network that diverged or cannot be trained is kept with its
reason, and the others go on; what would affect all of them (a full disk, a broken image, a missing
extra) stops.

Source: Tan et al., MnasNet, CVPR 2019, section 4: the 15 best of the search are trained in full.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonenas.data import Conditions, MeasurementStore
from phonenas.devices import Device
from phonenas.devices.measuring.events import Event as DeviceEvent
from phonenas.latency_model import LatencyModel
from phonenas.space.errors import InvalidArgument, SettingsChanged, UncoveredOperator

from ..candidate_selection import select_candidates
from ..checkpoint import of_this_run, run_digest
from ..cluster.workers import Serial, Workers
from ..pareto import Candidate
from ..run_folder import Loaded, lock_run
from ..run_folder import load as load_run
from ..training.export.export import ExportSettings
from ..training.export.quantised import of_run
from ..training.resources import Resources
from ..training.task import train_network
from ..training.throughput import seconds_per_mac, total_s
from ..validation.validate import Validation, score_of, target_verdict, validate
from .result import FILE, Promoted, PromotedNetwork, read_promoted
from .store import PromotionStore, exported

if TYPE_CHECKING:
    from phonenas.data.images import ImageSet

    from ..training.job import TrainingJob
    from ..training.result import Event as TrainingEvent
    from ..training.result import Trained

__all__ = ["Began", "Event", "Finished", "LatencySource", "Training", "promote"]

log = logging.getLogger("phonenas")


@dataclass(frozen=True)
class Began:
    """Event: the trainings are about to begin.

    Args:
        networks: Selected in all.
        done, again: Of them, with a result of an earlier call; trained, and exported again.
        images, epochs: To train on; of each training.
        seconds: Estimate for those left to train, one by one on this computer; None without one.
    """

    networks: int
    done: int
    again: int
    images: int
    epochs: int
    seconds: float | None


@dataclass(frozen=True)
class Training:
    """Event of the training of one network; only where it runs in this process."""

    id: int
    event: TrainingEvent


@dataclass(frozen=True)
class Finished:
    """Event: a network is trained and exported, or has failed.

    Args:
        id: Of the candidate.
        done, networks: How many are finished, of all selected.
        top1: On the test images; None where it failed.
        failed: Why; "" where it did not.
    """

    id: int
    done: int
    networks: int
    top1: float | None
    failed: str


Event = Began | Training | Finished | DeviceEvent
OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class LatencySource:
    """Where the latencies of the trained networks come from.

    Args:
        model: Predicts networks whose classes are not those of the run; without it the run's own
            prediction stays.
        device: For which the run searched, not entered: it is entered for a moment before the
            first training, so that a wrong one is found early, and again after the last. None
            leaves the latencies as predicted; those measured earlier stay.
        store: For the measurements; needed with `device`.
        remeasure: Measure what the store already holds, too.
    Raises:
        InvalidArgument: A device without a store.
    """

    model: LatencyModel | None = None
    device: Device | None = None
    store: MeasurementStore | None = None
    remeasure: bool = False

    def __post_init__(self) -> None:
        if self.device is not None and self.store is None:
            raise InvalidArgument("measurements go into a store; none was given")


def promote(
    run: Loaded | str | Path,
    job: TrainingJob,
    *,
    top: int = 15,
    latency: LatencySource | None = None,
    workers: Workers | None = None,
    resources: Resources | None = None,
    exports: ExportSettings | None = None,
    on_event: OnEvent | None = None,
) -> Promoted:
    """Train the best networks of a run in full, measure them, and compute the front from that.

    Args:
        run: Finished, or its folder.
        job: Images to train and to test on, recipe and seed, the same for every network; the
            networks get the classes of the images. No choice is made by the test images.
        top: How many, ≥ 1; selected as `validate` selects what it measures (`select_candidates`).
            Networks trained before under the same settings are among them, too.
        latency: Model, device and store; by default the run's own predictions.
        workers: Who trains; this process one by one by default. On other computers, a run folder
            that all of them see lets a training go on from its checkpoint.
        resources: What each training may use; by default `Resources()`.
        exports: What is written of each. By default each format in float32; of a run in another
            precision always in that, too, int8 calibrated on the training images where nothing
            else is said. The files in the precision of the run are those that ship.
        on_event: Called with the events here, and those of `devices.measure`.
    Returns:
        What is in `promoted.json`, too.
    Raises:
        InvalidArgument: top < 1, no test images, another device than the run's, a GPU without a
            share of one for workers, or files in another precision than the run's.
        SettingsChanged: A network was promoted with other settings, or the device runs under
            other conditions than when the latencies were predicted.
        UnstableDevice, DeviceUnavailable: No latency was measured; the trainings are kept.
        UnsupportedFormat: The run's promoted.json is damaged; it is not overwritten.
        StoreError, MissingExtra, InvalidImage, TaskFailed: As their names say (a StoreError also
            names another process that works in the folder); the same call goes on.
    """
    run = run if isinstance(run, Loaded) else load_run(run)
    latency, resources = latency or LatencySource(), resources or Resources()
    send = on_event or _ignore
    if top < 1:
        raise InvalidArgument(f"top: 1 or more, got {top}")
    if job.test is None:
        raise InvalidArgument("promoted networks are tested on images; none were given")
    with lock_run(run.path):
        run.check_unchanged()
        exports = exports or ExportSettings()
        if exports.formats != ():
            quantise = of_run(run.precision, exports.quantise, job.images)
            exports = replace(exports, quantise=quantise)
        return _promoted(run, job, top, latency, workers, resources, exports, send)


def _promoted(
    run: Loaded,
    job: TrainingJob,
    top: int,
    latency: LatencySource,
    workers: Workers | None,
    resources: Resources,
    exports: ExportSettings,
    send: OnEvent,
) -> Promoted:
    """`promote`, once the folder is locked."""
    assert job.test is not None
    test = job.test
    expected = _expected_conditions(run, latency.device)
    earlier = read_promoted(run.path)
    if earlier is not None:
        remedy = "Move it away, then give the same command again: no training is lost."
        of_this_run(run.path / FILE, earlier.run or None, run.settings, remedy)
    store = PromotionStore(run.path, job, exports.quantise)
    exports = replace(exports, check=replace(exports.check, threads=resources.threads or 1))
    networks = _selected(run, job, top, latency.model, store)
    left = [n for n in networks.values() if n.top1 is None and not n.failed]
    workers = workers or Serial()
    here = isinstance(workers, Serial)
    if not here and resources.device.startswith("cuda") and not resources.gpus:
        raise InvalidArgument(
            f"a training on workers sees no GPU unless it has a share of one, and it is to run on "
            f"{resources.device}: give --gpus 1, or a share of one"
        )
    if send is not _ignore:
        # Elsewhere other processors compute, or a GPU that this computer has not.
        new = [n for n in left if n.id not in store.again]
        seconds = _estimated_s(new, job, resources) if here else None
        counts = len(networks), len(networks) - len(left), len(left) - len(new)
        send(Began(*counts, len(job.images), job.recipe.epochs, seconds))

    def finished(item: int, result: Trained | str) -> None:
        network = left[item]
        if isinstance(result, str):
            # Not kept: the next call tries it again.
            network = replace(network, failed=result)
        else:
            network = exported(network, result, store, test, exports)
            store.keep(network)
        networks[network.id] = network
        done = sum(bool(n.failed) or n.top1 is not None for n in networks.values())
        send(Finished(network.id, done, len(networks), network.top1, network.failed))

    if left:
        workers.map(
            train_network,
            [
                (
                    n.block_args,
                    str(store.folder(n.id).resolve()),
                    job,
                    resources,
                    _sender(n.id, send) if here else None,
                    exports.quantise if exports.formats != () else None,
                )
                for n in left
            ],
            needs=resources.needs,
            on_result=finished,
        )
    promoted = Promoted(
        networks=tuple(networks[i] for i in sorted(networks)),
        target_ms=run.front.target_ms,
        target=run.front.target,
        device=str(run.settings["device"]),
        recipe=job.recipe.settings,
        seed=job.seed,
        images={"train": _described(job.images), "test": _described(test)},
        seconds=sum(n.seconds for n in networks.values()),
        run=run_digest(run.settings),
        precision=run.precision,
    ).with_measurements_of(earlier)
    promoted.save(run.path)
    if latency.device is None or latency.store is None or not promoted.trained:
        return promoted
    written = {n.block_args: n.exported(run.path) for n in promoted.trained}
    files = {network: file for network, file in written.items() if file is not None}
    with latency.device as device:
        validation = validate(
            replace(promoted.predicted_front, exported=files),
            on=device,
            into=latency.store,
            top=len(promoted.trained),
            expected=expected,
            again=latency.remeasure,
            on_event=send,
        )
        promoted = _validated(promoted, validation, device.conditions)
    promoted.save(run.path)
    return promoted


def _selected(
    run: Loaded, job: TrainingJob, top: int, model: LatencyModel | None, store: PromotionStore
) -> dict[int, PromotedNetwork]:
    """The networks by id, with their earlier results where there are some."""
    best = select_candidates(run.front, top)
    networks = {}
    for candidate in run.front:
        planned = _planned(candidate, run, job, model)
        earlier = store.result(planned, must_agree=candidate in best)
        if earlier is not None:
            networks[candidate.id] = earlier
        elif candidate in best or candidate.id in store.again:
            networks[candidate.id] = planned
    return networks


def _planned(
    candidate: Candidate, run: Loaded, job: TrainingJob, model: LatencyModel | None
) -> PromotedNetwork:
    """A candidate with the classes of the images, before it is trained."""
    network = replace(candidate.architecture, classes=len(job.images.classes))
    latency_ms = (candidate.latency_ms, candidate.low_ms, candidate.high_ms)
    as_trained = str(network) == candidate.block_args
    if model is not None and not as_trained:
        try:
            predicted = model.predict([network])
            low_ms, high_ms = float(predicted.low_ms[0]), float(predicted.high_ms[0])
            latency_ms = (float(predicted.ms[0]), low_ms, high_ms)
            as_trained = True
        except UncoveredOperator:
            pass  # a head far smaller than any measured one: `predicted_as_trained` stays False
    predicted_ms, low_ms, high_ms = latency_ms
    target_ms = run.front.target_ms
    return PromotedNetwork(
        id=candidate.id,
        candidate=candidate.block_args,
        block_args=str(network),
        top1_estimated=candidate.top1,
        estimated_error=candidate.top1_error,
        predicted_ms=predicted_ms,
        low_ms=low_ms,
        high_ms=high_ms,
        predicted_as_trained=as_trained,
        macs=network.macs,
        params=network.params,
        precision=run.precision,
        meets_target=None if target_ms is None else predicted_ms <= target_ms,
        verdict=target_verdict(predicted_ms, high_ms / predicted_ms - 1, target_ms),
    )


def _validated(promoted: Promoted, validation: Validation, conditions: Conditions) -> Promoted:
    """With what the device measured, of the exported files where it takes them, and the front of
    that."""
    by_id = {v.candidate.id: v for v in validation.networks}
    lacking = {u.candidate.id: u.reason for u in validation.unmeasured}
    networks, measured = [], []
    for n in promoted.networks:
        v = by_id.get(n.id)
        if v is not None:
            n = n.measured(v, promoted.target_ms)
            measured.append(n)
        n = replace(n, unmeasured=lacking.get(n.id, ""))
        networks.append(n)
    return replace(
        promoted,
        origin=conditions.origin,
        score=score_of([n.to_dict() for n in measured]),
        verdict=validation.verdict,
        conditions=conditions,
        seconds=promoted.seconds + validation.seconds,
    ).with_front(networks)


def _estimated_s(
    left: list[PromotedNetwork], job: TrainingJob, resources: Resources
) -> float | None:
    """Seconds that the trainings will take, by the throughput of the network in the middle."""
    if not left or job.teacher is not None:  # how long a teacher takes is not known
        return None
    middle = sorted(left, key=lambda n: n.macs)[len(left) // 2].architecture
    try:
        per_mac_s = seconds_per_mac(middle, job.recipe, resources)
    except (RuntimeError, MemoryError) as error:  # torch's, as where the memory does not suffice
        log.warning("how long the trainings will take cannot be estimated: %s", error)
        return None
    macs = sum(n.macs for n in left)
    return total_s(per_mac_s, macs, job.recipe, len(job.images), job.test_images)


def _expected_conditions(run: Loaded, device: Device | None) -> Conditions | None:
    """The device's conditions, compared with the run's before days are spent on training."""
    if device is None:
        return None
    if run.settings["device"] != device.name:
        measure = shlex.join(["phonenas", "validate", str(run.path), "--device", device.name])
        first = run.settings["device"]
        told = f": promote measures on {first}; afterwards measure there:  {measure}"
        told = told if device.name in run.devices else f", not for {device.name}"
        raise InvalidArgument(f"{run.path} was searched for {' and '.join(run.devices)}{told}")
    if "conditions" not in run.model:
        return None
    expected = run.conditions
    with device:
        if device.conditions != expected:
            raise SettingsChanged(
                f"{device.name} is not as it was when the latencies were predicted: "
                f"{'; '.join(expected.differences(device.conditions))} (then / now). Profile it "
                f"and fit its model again:  phonenas profile --device "
                f"{shlex.quote(device.name)}"
            )
    return expected


def _described(images: ImageSet) -> dict[str, Any]:
    """What is kept of a set of images."""
    about = {"source": images.source, "digest": images.digest, "images": len(images)}
    return {**about, "left_out": len(images.skipped)} if images.skipped else about


def _sender(id_: int, send: OnEvent) -> Callable[[TrainingEvent], None]:
    return lambda event: send(Training(id_, event))


def _ignore(event: object) -> None:
    pass
