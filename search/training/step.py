"""One step of a training: forward, backward, update, average.

torch is imported by this room: it is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from phonenas.space.errors import InvalidArgument

from .average import WeightAverage
from .distributed import Processes
from .optimizer import make_optimizer
from .recipe import Recipe
from .teacher import TeacherModel

__all__ = ["TrainingStep", "resolved_precision"]

_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def resolved_precision(precision: str, device: torch.device) -> str:
    """What "auto" comes to on a device: float32 on a CPU; bfloat16, else float16, on a GPU.

    Raises:
        InvalidArgument: float16 on a CPU, whose gradients would vanish without a scale.
    """
    if precision == "float16" and device.type == "cpu":
        raise InvalidArgument("precision float16 is for GPUs; on a CPU give bfloat16 or float32")
    if precision != "auto":
        return precision
    if device.type == "cpu":
        return "float32"
    # Not torch's is_bf16_supported: it counts emulation, which is slower than float16.
    has = torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8
    return "bfloat16" if has else "float16"


class TrainingStep:
    """A network with its optimizer, its average and its precision.

    Lifetime: made with a module on the CPU, which it moves to the device, then `step` for each
    batch; or `backward` several times, which adds the gradients up, and then `update`.

    Args:
        recipe: Optimizer, loss, average and precision.
        module: The network; BatchNorm's momentum is set to the recipe's.
        processes: That train together; their device is where it computes.
        seed: Of dropout: what a step drops is a function of it, the step and the process, so that
            a training that goes on needs no state of any generator.
        teacher: Whose outputs are learned beside the labels.
    """

    def __init__(
        self,
        recipe: Recipe,
        module: nn.Module,
        processes: Processes,
        seed: int = 0,
        teacher: TeacherModel | None = None,
    ) -> None:
        self.recipe, self.processes, self.seed = recipe, processes, seed
        self.teacher = teacher
        self.device: torch.device = processes.device
        self.precision = resolved_precision(recipe.precision, self.device)
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.momentum = recipe.norm_momentum
        on_gpu = self.device.type == "cuda"
        # On a CPU too: depthwise convolutions take half the time.
        self.layout = torch.channels_last
        to: Any = module.to  # torch declares no overload with both arguments
        self.module: nn.Module = to(self.device, memory_format=self.layout)
        self.optimizer = make_optimizer(recipe, self.module)
        self.average = WeightAverage(self.module, recipe.average) if recipe.average else None
        self.forward: Callable[[Tensor], Tensor] = processes.joined(self.module)
        self.updates = self._passes = 0
        self._scaler = torch.amp.GradScaler(
            self.device.type, enabled=on_gpu and self.precision == "float16"
        )
        self._seeded = any(isinstance(m, nn.Dropout) and m.p > 0 for m in module.modules())
        self._generator = torch.default_generator
        if on_gpu:
            torch.cuda.init()  # type: ignore[no-untyped-call]
            index = torch.cuda.current_device() if self.device.index is None else self.device.index
            self._generator = torch.cuda.default_generators[index]

    @property
    def evaluated(self) -> nn.Module:
        """The module that is evaluated: the average, or the network itself."""
        return self.module if self.average is None else self.average.module

    def step(self, x: Tensor, y: Tensor, learning_rate: float) -> Tensor:
        """Train on one batch.

        Args:
            x: (n, 3, px, px) float32, on any device.
            y: (n,) int64.
            learning_rate: Of this update.
        Returns:
            The loss before the update, a scalar on the device, not waited for.
        """
        loss = self.backward(x, y)
        self.update(learning_rate)
        return loss

    def backward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the gradients of one batch, as `step` takes it, to those that are there."""
        if self._seeded:
            self._generator.manual_seed(self._dropout_seed())
        x = x.to(self.device, memory_format=self.layout, non_blocking=True)
        y = y.to(self.device, non_blocking=True)
        kind = _TYPES.get(self.precision)
        with torch.autocast(self.device.type, kind, enabled=kind is not None):
            out = self.forward(x)
        smoothing = self.recipe.label_smoothing
        loss = functional.cross_entropy(out.float(), y, label_smoothing=smoothing)
        if self.teacher is not None:
            weight = self.teacher.teacher.weight
            loss = (1 - weight) * loss + weight * self.teacher.loss(x, out)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def update(self, learning_rate: float) -> None:
        """Update the weights by the gradients that are there, and drop these."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        self._passes = 0
        if self.average is not None:
            self.average.update(self.updates)

    def share_statistics(self) -> None:
        """Average BatchNorm's moving statistics over the processes; all must call it together."""
        if self.processes.world > 1:
            modules = [self.module] + ([] if self.average is None else [self.average.module])
            self.processes.mean([b for m in modules for b in m.buffers() if b.is_floating_point()])

    def tensors(self) -> dict[str, Tensor]:
        """All that the next step depends on, by name, not copied."""
        tensors = {f"model.{k}": v for k, v in self.module.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{k}": v for k, v in self.average.module.state_dict().items()}
        for name, weight in self.module.named_parameters():
            for key, value in self.optimizer.state[weight].items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{name}.{key}"] = value
        return tensors

    def scaler_state(self) -> dict[str, Any]:
        """Of float16's loss scale, plain numbers; empty for other precisions."""
        return dict(self._scaler.state_dict())

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], scaler: dict[str, Any], updates: int) -> None:
        """Go on from what `tensors` and `scaler_state` gave after so many updates.

        Raises:
            KeyError, RuntimeError: They are of another network or optimizer.
        """
        own = self.tensors()
        if set(own) != set(tensors):
            raise KeyError(f"{sorted(set(own) ^ set(tensors))[0]} is in only one of the two")
        for name, tensor in own.items():
            if tensor.shape != tensors[name].shape:
                raise KeyError(f"{name} has another shape")
            tensor.copy_(tensors[name])
        if scaler:
            self._scaler.load_state_dict(scaler)
        self.updates = updates

    def _dropout_seed(self) -> int:
        key = (self.seed, self.updates, self._passes, self.processes.rank)
        self._passes += 1
        sequence = np.random.SeedSequence(key)
        return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
