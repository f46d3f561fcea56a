"""A torch state dict of somebody else's, loaded by shape and order into a network of `to_torch`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..architecture import Architecture
from ..errors import InvalidArgument, UnknownName, UnsupportedFormat
from ..graph import NetworkGraph
from .torch import BN_EPSILON, state_arrays, to_torch, torch_or_extra
from .weights import Arrays

if TYPE_CHECKING:
    from torch import nn

__all__ = ["USUAL_EPS", "folded_eps", "load_state_dict"]

USUAL_EPS = 1e-5  # of torch's BatchNorm; a state dict does not hold it
_LEAST_TORCH = (2, 6)  # before it, even weights alone could run code
_WRAPPED = ("state_dict", "model_state_dict", "model", "net")
_COUNTER = "num_batches_tracked"


def load_state_dict(
    path: Path, network: Architecture | NetworkGraph, *, eps: float = USUAL_EPS
) -> nn.Module:
    """A network with the weights of a `.pth` file, whose names may be any.

    Tensors are taken in their order, each of the shape that is wanted next; a classifier may be a
    1×1 convolution there. Nothing but tensors is unpickled.

    Args:
        path: A file of `torch.save(model.state_dict(), path)`.
        network: What the weights are of.
        eps: Of every BatchNorm there, > 0.
    Returns:
        A module as `to_torch` makes it, in evaluation mode, its BatchNorm with this eps.
    Raises:
        UnknownName: No such file.
        InvalidArgument: They are the weights of another network; the first that differs is named.
        UnsupportedFormat: The file is damaged or holds more than tensors; or torch is too old to
            read it safely.
        MissingExtra: torch is not installed.
    """
    torch = torch_or_extra()
    if not 0 < eps < 1:
        raise InvalidArgument(f"the eps of BatchNorm lies in (0, 1), got {eps:g}")
    given = _tensors(torch, path)
    module = to_torch(network, seed=0)
    own = {k: v for k, v in module.state_dict().items() if not k.endswith(_COUNTER)}
    for at, (name, wanted) in enumerate(own.items()):
        if at >= len(given):
            raise InvalidArgument(
                f"{path} holds {len(given)} tensors, and {_called(network)} has {len(own)}"
            )
        theirs, tensor = given[at]
        if _plain(tensor.shape) != _plain(wanted.shape):
            raise InvalidArgument(
                f"{path} is of another network than {_called(network)}: its tensor {at + 1}, "
                f"{theirs}, has the shape {tuple(tensor.shape)}, and {name} {tuple(wanted.shape)}"
            )
        own[name] = tensor.reshape(wanted.shape).to(wanted.dtype)
    if len(given) > len(own):
        raise InvalidArgument(
            f"{path} holds {len(given)} tensors, and {_called(network)} has {len(own)}"
        )
    if not all(bool(torch.isfinite(t).all()) for t in own.values()):
        raise UnsupportedFormat(f"{path} holds a number that is not finite")
    module.load_state_dict(own, strict=False)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.eps = eps
    return module.eval()


def folded_eps(module: nn.Module, eps: float) -> Arrays:
    """Arrays as `state_arrays` gives them, for a network whose BatchNorm has its usual eps.

    The difference goes into the variance, so that both compute the same.

    Args:
        module: Of `load_state_dict`.
        eps: Of its BatchNorm.
    """
    arrays = state_arrays(module)
    return {
        name: (a + np.float32(eps - BN_EPSILON)) if name.endswith("running_var") else a
        for name, a in arrays.items()
    }


def _tensors(torch: Any, path: Path) -> list[tuple[str, Any]]:
    version = tuple(int("".join(filter(str.isdigit, n)) or 0) for n in torch.__version__.split("."))
    if version[:2] < _LEAST_TORCH:
        raise UnsupportedFormat(
            f"torch {torch.__version__} cannot read {path} safely: 2.6 can.  pip install -U torch"
        )
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UnknownName(f"there is no file {path}") from error
    except Exception as error:
        said = " ".join(str(error).split())[:160]
        raise UnsupportedFormat(
            f"{path} is no file of tensors alone ({said}). Save the weights alone:  "
            "torch.save(model.state_dict(), 'weights.pth')"
        ) from error
    for key in _WRAPPED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in found.items()
    ):
        raise UnsupportedFormat(
            f"{path} holds other things than tensors by name. Save the weights alone:  "
            "torch.save(model.state_dict(), 'weights.pth')"
        )
    return [(k, v) for k, v in found.items() if not k.endswith(_COUNTER)]


def _plain(shape: Any) -> tuple[int, ...]:
    """A shape, a 1×1 convolution's as that of a matrix."""
    sides = tuple(shape)
    return sides[:2] if len(sides) == 4 and math.prod(sides[2:]) == 1 else sides


def _called(network: Architecture | NetworkGraph) -> str:
    return str(network)[:60]
