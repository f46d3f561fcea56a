"""What a training may use of a computer: torch device, threads, loader processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from phonenas.space.errors import InvalidArgument, MissingExtra, install

from ..cluster.workers import Needs

__all__ = ["Resources", "computing", "pick_device", "require_torch"]


@dataclass(frozen=True)
class Resources:
    """What one training or evaluation may use. Only last digits of results depend on it.

    Args:
        device: Where torch computes: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
        threads: Of the CPU, ≥ 1; None leaves torch's number. The last digits depend on it.
        loaders: Processes that decode image files, ≥ 0; 0 decodes them in the training's own.
        gpus: Share of the GPUs of a worker that one training takes, ≥ 0; without effect where it
            runs in this process.
    Raises:
        InvalidArgument: A number outside its range.
    """

    device: str = "auto"
    threads: int | None = None
    loaders: int = 0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise InvalidArgument(f"threads: 1 or more, got {self.threads}")
        if self.loaders < 0:
            raise InvalidArgument(f"loaders: 0 or more processes, got {self.loaders}")
        self.needs  # noqa: B018 - checks the share of GPUs

    @property
    def needs(self) -> Needs:
        """What a task on workers takes: as many processors as threads."""
        return Needs(cpus=self.threads or 1, gpus=self.gpus)


def require_torch() -> None:
    """Tell of a missing extra before any work.

    Raises:
        MissingExtra: torch or safetensors is not installed.
    """
    try:
        import safetensors
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            f"training needs torch and safetensors, and {error.name} cannot be imported here. "
            f"Install them:  {install('torch')}"
        ) from error
    del safetensors


def pick_device(name: str) -> Any:
    """A torch device by name.

    Args:
        name: "auto" (the first GPU where there is one, else the CPU), "cpu", "cuda", "cuda:1".
    Raises:
        InvalidArgument: No such device here.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidArgument(f"device is auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise InvalidArgument(f"device is auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InvalidArgument(
                f"device {name} was asked for, and torch sees {count} GPUs here. Use --device cpu, "
                "or install a torch that is built for this GPU."
            )
    return device


@contextlib.contextmanager
def computing(threads: int | None) -> Iterator[None]:
    """torch with so many threads of the CPU for a while; the number before is restored.

    Raises:
        InvalidArgument: Fewer than one.
    """
    if threads is None:
        yield
        return
    if threads < 1:
        raise InvalidArgument(f"threads: 1 or more, got {threads}")
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
