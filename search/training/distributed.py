"""Several processes that train one network, as torchrun starts them.

Each process takes every k-th image of each batch, and gradients are averaged: a batch is that of
the recipe whatever the number of processes. BatchNorm normalises over the images of one process,
as each core did in the official training, and its moving statistics are averaged over the
processes before they are used or kept. The first process alone reads and writes the folder.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from phonenas.space.errors import InvalidArgument, WorkersUnavailable

from .resources import pick_device

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Processes", "rank_and_world", "together"]

_TIMEOUT = timedelta(minutes=30)  # longer than any evaluation or write that others wait for


def rank_and_world() -> tuple[int, int]:
    """The number of this process and how many there are, as torchrun says; (0, 1) without it.

    Raises:
        InvalidArgument: Its variables contradict each other.
    """
    try:
        rank, world, _ = (
            int(os.environ.get(name, default))
            for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
        )
    except ValueError as error:
        raise InvalidArgument(
            f"RANK, WORLD_SIZE and LOCAL_RANK are whole numbers: {error}"
        ) from error
    if not 0 <= rank < world:
        raise InvalidArgument(f"RANK {rank} is not below WORLD_SIZE {world}; torchrun sets both")
    return rank, world


@dataclass(frozen=True)
class Processes:
    """The processes that train together; by default this one alone.

    Args:
        rank, world: Number of this process, from 0, and how many there are.
        device: Where this one computes, a torch device or its name.
    Raises:
        InvalidArgument: A rank that is not below `world`.
    """

    rank: int = 0
    world: int = 1
    device: Any = "cpu"

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise InvalidArgument(f"a rank lies in [0, {self.world}), got {self.rank}")

    @property
    def first(self) -> bool:
        """Whether this one reads and writes the folder and sends events."""
        return self.rank == 0

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """Replace each by its mean over the processes."""
        if self.world > 1:
            import torch.distributed as dist

            for t in tensors:
                dist.all_reduce(t)
                t /= self.world

    def sum(self, tensor: Tensor) -> Tensor:
        """Its sum over the processes, in place."""
        if self.world > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor)
        return tensor

    def from_first(self, tensors: Sequence[Tensor]) -> None:
        """Replace each by the first process's."""
        if self.world > 1:
            import torch.distributed as dist

            for t in tensors:
                dist.broadcast(t, 0)

    def agreed(self, decision: bool) -> bool:
        """The decision of the first process, for all."""
        if self.world == 1:
            return decision
        import torch

        decided = torch.tensor(int(decision), device=self.device)
        self.from_first([decided])
        return bool(decided)

    def joined(self, module: nn.Module) -> nn.Module:
        """The module, its gradients averaged over the processes after each backward pass."""
        if self.world == 1:
            return module
        from torch.nn.parallel import DistributedDataParallel

        ids = [self.device.index] if self.device.type == "cuda" else None
        # Newer torch has another name for it, and warns about the older.
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        newer = "forward_sync_buffers"
        more: dict[str, Any] = {newer if newer in known else "broadcast_buffers": False}
        return DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True, **more)


@contextlib.contextmanager
def together(device: str = "auto") -> Iterator[Processes]:
    """The processes of this training; gloo on CPUs, nccl on GPUs, one GPU a process.

    Args:
        device: As `pick_device`; with several processes and GPUs, "auto" and "cuda" give each its
            own.
    Raises:
        InvalidArgument: No such device, or more processes than GPUs.
        WorkersUnavailable: The processes do not find each other.
    """
    rank, world = rank_and_world()
    if world == 1:
        yield Processes(0, 1, pick_device(device))
        return
    import torch
    import torch.distributed as dist

    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device in ("auto", "cuda") and (device == "cuda" or torch.cuda.is_available()):
        device = f"cuda:{local}"
    chosen = pick_device(device)
    ours = not dist.is_initialized()
    if ours:
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        try:
            dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_TIMEOUT)
        except (ValueError, RuntimeError, OSError) as error:
            raise WorkersUnavailable(
                f"WORLD_SIZE says that {world} processes train together, and process {rank} does "
                f"not find the others: {error}. Start them by torchrun, or alone without these "
                "variables:  env -u RANK -u WORLD_SIZE phonenas train ..."
            ) from error
    try:
        yield Processes(rank, world, chosen)
    finally:
        if ours:
            dist.destroy_process_group()
