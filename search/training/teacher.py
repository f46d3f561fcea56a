"""Teacher: a trained network whose outputs another one learns beside the labels (distillation).

    loss = (1 - weight) · cross-entropy(labels) + weight · T² · KL(teacher / T ‖ network / T)

The teacher gets each batch as the network gets it, augmented, and of the side that it takes.

Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonenas.space.errors import InvalidArgument, UnsupportedFormat

from ..exported_file import file_sha256

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Teacher", "TeacherModel"]


@dataclass(frozen=True)
class Teacher:
    """Which network teaches, and how much it counts.

    Args:
        source: An .onnx file that takes (n, 3, px, px) images prepared as `Batches` prepares them,
            and gives (n, classes) logits; or `module:Name` of such a torch module.
        weight: Of its outputs beside the labels, in (0, 1].
        temperature: By which both outputs are divided, T > 0.
    Raises:
        InvalidArgument: A value out of range, or neither a file nor a module.
    """

    source: str
    weight: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not (0 < self.weight <= 1 and 0 < self.temperature < float("inf")):
            raise InvalidArgument(
                "a teacher's weight lies in (0, 1], its temperature above 0; got "
                f"{self.weight:g}, {self.temperature:g}"
            )
        if self.is_file and not Path(self.source).is_file():
            raise InvalidArgument(f"the teacher {self.source} is no file")
        if not self.is_file and ":" not in self.source:
            raise InvalidArgument(
                f"a teacher is an .onnx file or module:Name of a torch module, got {self.source!r}"
            )

    @classmethod
    def named(cls, source: str | None) -> Teacher | None:
        """One of the usual weight and temperature; None for none.

        Raises:
            InvalidArgument: As `Teacher`.
        """
        return None if source is None else cls(source)

    @property
    def is_file(self) -> bool:
        """Whether it is an .onnx file."""
        return self.source.endswith(".onnx")

    @property
    def settings(self) -> dict[str, Any]:
        """All that it decides of a network's weights, ready for JSON.

        Raises:
            PhonenasError: The module cannot be made.
        """
        if self.is_file:
            digest = file_sha256(Path(self.source))
        else:
            own = hashlib.sha256(self.source.encode())
            for name, tensor in sorted(self._module().state_dict().items()):
                own.update(name.encode() + tensor.cpu().numpy().tobytes())
            digest = own.hexdigest()
        said = {"teacher": digest[:16], "teacher_weight": self.weight}
        return {**said, "teacher_temperature": self.temperature}

    def _module(self) -> Any:
        from phonenas.latency_model.graphs.torch_module import module_of

        return module_of(self.source)


class TeacherModel:
    """A teacher ready to teach.

    Args:
        teacher: Which.
        classes: Of the network that learns.
        device: On which a torch module computes; an ONNX file computes on the CPU.
        threads: Of an ONNX file.
    Raises:
        InvalidArgument: It gives something else than logits of as many classes.
        UnsupportedFormat: ONNX Runtime cannot load the file.
    """

    def __init__(self, teacher: Teacher, classes: int, device: Any, threads: int = 1) -> None:
        import torch

        self.teacher, self.px = teacher, 0
        self._run = self._of_file(threads) if teacher.is_file else self._of_module(device)
        side = self.px or 32
        try:
            found = self._run(torch.zeros(1, 3, side, side, device=device))
        except Exception as error:  # whatever a runtime or another's module raises
            said = " ".join(str(error).split())[:200]
            raise InvalidArgument(
                f"the teacher {teacher.source} takes no image of {side} px: {said}"
            ) from error
        if getattr(found, "shape", None) != (1, classes):
            shape = "×".join(map(str, getattr(found, "shape", ("no tensor",))))
            raise InvalidArgument(
                f"the teacher {teacher.source} gives {shape} for one image, and the network that "
                f"learns has {classes} classes"
            )

    def loss(self, x: Tensor, logits: Tensor) -> Tensor:
        """T² · KL(teacher / T ‖ network / T), the mean over a batch.

        Args:
            x: (n, 3, px, px) as the network got it.
            logits: Of the network, (n, classes).
        """
        from torch.nn import functional

        t = self.teacher.temperature
        wanted = functional.softmax(self(x).float() / t, dim=1)
        own = functional.log_softmax(logits.float() / t, dim=1)
        return functional.kl_div(own, wanted, reduction="batchmean") * t * t

    def __call__(self, x: Tensor) -> Tensor:
        """The teacher's logits, (n, classes), without gradients."""
        import torch
        from torch.nn import functional

        with torch.no_grad():
            if self.px and x.shape[-1] != self.px:
                size = (self.px, self.px)
                x = functional.interpolate(x, size, mode="bilinear", antialias=True)
            return self._run(x).to(x.device)

    def _of_module(self, device: Any) -> Callable[[Tensor], Tensor]:
        module = self.teacher._module().to(device).eval()

        def run(x: Tensor) -> Tensor:
            found: Tensor = module(x)
            return found

        return run

    def _of_file(self, threads: int) -> Callable[[Tensor], Tensor]:
        import onnxruntime
        import torch

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(
                self.teacher.source, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has classes of its own for each
            said = " ".join(str(error).split())[:200]
            raise UnsupportedFormat(
                f"the teacher {self.teacher.source} cannot be loaded: {said}"
            ) from error
        entry, *more = session.get_inputs()
        if more or len(entry.shape) != 4:
            raise InvalidArgument(f"the teacher {self.teacher.source} takes no images alone")
        count, side = entry.shape[0], entry.shape[-1]
        self.px = side if isinstance(side, int) else 0
        alone = count == 1  # as most exported files are

        def run(x: Tensor) -> Tensor:
            images = np.ascontiguousarray(x.float().cpu().numpy())
            parts = np.split(images, len(images)) if alone else [images]
            return torch.from_numpy(
                np.concatenate([session.run(None, {entry.name: part})[0] for part in parts])
            )

        return run
