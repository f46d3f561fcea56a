"""One training as a task for workers: another computer may do it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from phonenas.space import Classifier, zoo
from phonenas.space.errors import InvalidArgument, PhonenasError, TaskFailed

from ..cluster.workers import Workers
from . import trainer
from .finetuning.finetune import fine_tuned
from .folder import TrainingFolder, finished_in
from .job import TrainingJob
from .resources import Resources, pick_device

if TYPE_CHECKING:
    from .export.quantised import Quantisation
    from .result import Event, Trained

__all__ = ["network_failure", "train_network", "train_on"]


def network_failure(error: RuntimeError | MemoryError) -> str:
    """Why torch cannot train one network: mostly that it takes more memory than there is.

    Raises:
        TaskFailed: Every other network would fail too: after an error of the GPU itself this
            process can use it no more.
    """
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    gpu_errors = ("CUDA error", "cuDNN error", "CUBLAS_STATUS", "HIP error", "NCCL")
    if "out of memory" not in reason and any(sign in reason for sign in gpu_errors):
        raise TaskFailed(
            f"the GPU failed, so no further training can run in this process: {reason}. Give the "
            "command again: what is finished is kept."
        ) from error
    return reason


def train_network(
    network: str,
    folder: str | None,
    job: TrainingJob,
    resources: Resources,
    on_event: Callable[[Event], None] | None = None,
    quantise: Quantisation | None = None,
) -> Trained | str:
    """The task of one training, for `Workers.map`.

    Args:
        network: Block string.
        folder, job, resources, on_event: As for `run_job`.
        quantise: By which it is fine-tuned, if that says so.
    Returns:
        What `run_job` gave, with its fine-tuning; or why this network cannot be trained.
    Raises:
        PhonenasError: What would stop every other network, too.
    """
    pick_device(resources.device)  # where it is missing, no network can be trained
    try:
        trained = trainer.run_job(
            zoo.parse(network), job, into=folder, resources=resources, on_event=on_event
        )
        if quantise is None:
            return trained
        return fine_tuned(
            trained, job, quantise, into=folder, resources=resources, on_event=on_event
        )
    except PhonenasError as error:
        if isinstance(error, InvalidArgument):  # this network and these images do not fit
            return str(error)
        raise
    except (RuntimeError, MemoryError) as error:
        return f"{type(error).__name__}: {network_failure(error)}"


def train_on(
    workers: Workers,
    network: Classifier,
    job: TrainingJob,
    *,
    into: Path | None = None,
    resources: Resources | None = None,
) -> Trained:
    """Train one network where the workers are, and keep the result here.

    Args:
        workers: Who trains; of several, one does.
        network, job: As for `run_job`.
        into: Folder. Where the workers see it too, checkpoints and the curve grow in it and a
            training that was stopped goes on; else it gets the result at the end.
        resources: What the training may use there; by default `Resources()`.
    Raises:
        TaskFailed: It could not go on; torch's reason.
        SettingsChanged: The folder holds a training with other settings; found before any work.
        PhonenasError: As `run_job` and `Workers.map`.
    """
    resources = resources or Resources()
    network = network.with_classes(len(job.images.classes))
    settings = job.settings(network)
    if into is not None and (done := finished_in(into, settings)) is not None:
        return done
    folder = None if into is None else str(into.resolve())
    (result,) = workers.map(
        train_network, [(str(network), folder, job, resources)], needs=resources.needs
    )
    if isinstance(result, str):
        raise TaskFailed(
            f"the training could not go on: {result}. If the memory does not suffice, give a "
            "smaller batch or resolution, with another folder."
        )
    trained: Trained = result
    if into is not None and finished_in(into, settings) is None:
        here = TrainingFolder(into, {**settings, "precision": trained.recipe["precision"]})
        try:
            here.finish(trained)
        finally:
            here.close()
    return trained
