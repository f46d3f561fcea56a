"""Tasks for workers: what a test hands out must be found by its name in another process."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from phonenas.data.images.image_set import ImageSet
from phonenas.search.training.recipe import Recipe
from phonenas.search.training.result import Trained
from phonenas.space import Architecture
from phonenas.space.errors import InvalidArgument


def add(a: float, b: float) -> float:
    return a + b


def refuse(number: int, wrong: tuple[int, ...]) -> int:
    if number in wrong:
        raise InvalidArgument(f"{number} is refused")
    return number


def divide(a: int, b: int) -> float:
    return a / b


def unportable(number: int) -> Any:
    return (part for part in range(number))  # a generator cannot travel


def total(images: Any, factor: int) -> tuple[int, bool]:
    """Of an array; and whether the array could be written to."""
    return int(images.sum()) * factor, bool(images.flags.writeable)


def speak(text: str) -> None:
    print(text, flush=True)


def process_and_gpus() -> tuple[int, str]:
    """Process, and the GPUs that it may see."""
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", "unset")


def surroundings() -> tuple[int, str, str]:
    """Process, node, and the GPUs that it may see."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    return os.getpid(), node, os.environ.get("CUDA_VISIBLE_DEVICES", "unset")


def note(folder: str, item: int) -> None:
    """Leave word of the process that does an item."""
    Path(folder, f"{item}-{time.monotonic_ns()}.pid").write_text(str(os.getpid()))


def meet(folder: str, item: int, others: int, limit_s: float) -> bool:
    """Whether all others were at work at the same time."""
    note(folder, item)
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if len({p.name.split("-")[0] for p in Path(folder).glob("*.pid")}) >= others:
            return True
        time.sleep(0.05)
    return False


def sleep(folder: str, item: int, seconds: float) -> int:
    note(folder, item)
    time.sleep(seconds)
    return item


def die(folder: str, item: int, times: int) -> int:
    """Killed in the middle, as often as asked."""
    note(folder, item)
    if len(list(Path(folder).glob(f"{item}-*.pid"))) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def train_small(
    folder: str, item: int, network: str, settings: dict[str, Any], images: ImageSet, held: ImageSet
) -> Trained:
    """A short training from a seed, on one thread, slow enough to be killed in its middle."""
    from phonenas.search.training.job import TrainingJob
    from phonenas.search.training.resources import Resources
    from phonenas.search.training.trainer import run_job

    note(folder, item)
    job = TrainingJob(images, held, Recipe(**settings), item, evaluate_each=0)
    return run_job(Architecture.parse(network), job, resources=Resources("cpu", threads=1))
