"""torch's networks, `module:Name` or a .pt2 file: exported as ONNX while a command runs."""

from __future__ import annotations

import atexit
import inspect
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonenas.data.files import TemporaryFolder
from phonenas.space.errors import InvalidArgument, PhonenasError, UnsupportedFormat
from phonenas.space.file_inputs import NOT_GIVEN, Given, Shape
from phonenas.space.registry import Registry

from .torch_program import TorchProgram

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SUFFIX", "exported", "module_of"]

SUFFIX = ".pt2"

_USUAL_PX, _OPSET, _SEED = 224, 17, 0
_PLACES: Registry[Any] = Registry("torch module", "phonenas.networks", {})


@cache
def exported(text: str, given: Given = NOT_GIVEN) -> tuple[Path, Given]:
    """An ONNX file of a module, removed when this process ends; and what is left to say of it.

    Its inputs are those of `forward`, of the shapes that the user sets; a single one is an image
    of 224 px unless set. Random weights are those of seed 0. A program in a file has the inputs,
    shapes and weights that it was exported with.

    Args:
        text: `module:Name` of a module, or of what gives one when it is called; or a .pt2 file.
        given: What the user says of its inputs.
    Raises:
        UnknownName: It cannot be imported.
        InvalidArgument: It is no module, or an input has no shape.
        UnsupportedFormat: torch cannot export it; the message holds what it says.
        MissingExtra: torch is not installed.
    """
    from phonenas.space.lowering.torch import torch_or_extra

    torch = torch_or_extra()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.manual_seed(_SEED)
        if text.endswith(SUFFIX):
            program = TorchProgram.at(Path(text))
            module, kinds = program.module, {n: kind for n, kind, _ in program.inputs}
            names, shapes = _shapes_of(program, text, given)
        else:
            module, kinds = _made(torch, text), {n: a.dtype for n, a in given.arrays}
            names, shapes = _shapes(module, text, given)
        path = Path(_folder().path, str(len(list(_folder().path.iterdir()))))
        path.mkdir()
        path /= Path(text).name.replace(":", "-") + ".onnx"
        try:
            inputs = tuple(_tensor(torch, shapes[n], kinds.get(n, "float32")) for n in names)
            with torch.no_grad():
                torch.onnx.export(
                    module, inputs, str(path), input_names=names, opset_version=_OPSET, dynamo=False
                )
        except PhonenasError:
            raise
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise UnsupportedFormat(
                f"torch cannot export {text} as ONNX: {type(error).__name__} {said}"
            ) from error
    return path, Given(file=given.file, arrays=given.arrays, digest=given.digest)


def module_of(text: str) -> nn.Module:
    """A module as `exported` takes it, in evaluation; random weights are those of seed 0.

    Raises:
        UnknownName, InvalidArgument, MissingExtra: As `exported`.
    """
    from phonenas.space.lowering.torch import torch_or_extra

    torch = torch_or_extra()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return _made(torch, text)


def _made(torch: Any, text: str) -> nn.Module:
    found = _PLACES.get(text)
    if not isinstance(found, torch.nn.Module):
        try:
            found = found()
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise InvalidArgument(
                f"{text} gives no torch module when it is called without arguments: {said}"
            ) from error
    if not isinstance(found, torch.nn.Module):
        raise InvalidArgument(f"{text} is {type(found).__name__}, and no torch module")
    module: nn.Module = found.eval()
    return module


def _shapes(module: nn.Module, text: str, given: Given) -> tuple[list[str], dict[str, Shape]]:
    parameters = inspect.signature(module.forward).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wanted = [p.name for p in parameters if p.kind in plain and p.default is p.empty]
    shapes = {**{n: a.shape for n, a in given.arrays}, **dict(given.shapes)}
    unknown = next((n for n in shapes if n not in [p.name for p in parameters]), None)
    if unknown is not None:
        raise InvalidArgument(f"{text} has no input {unknown}; its inputs: {', '.join(wanted)}")
    names = [p.name for p in parameters if p.name in shapes or p.name in wanted]
    lacking = [n for n in names if n not in shapes]
    if len(names) == 1 and lacking:
        px = given.resolution_px or _USUAL_PX
        return names, {names[0]: (1, 3, px, px)}
    if given.resolution_px is not None:
        raise InvalidArgument(f"--resolution does not apply to {text}, whose shapes are given")
    if lacking or not names:
        raise InvalidArgument(
            f"{text}: the shape of {', '.join(lacking) or 'its inputs'} is not known. Set it:  "
            f"--shape {(lacking or ['NAME'])[0]}=1,3,224,224"
        )
    return names, shapes


def _shapes_of(
    program: TorchProgram, text: str, given: Given
) -> tuple[list[str], dict[str, Shape]]:
    """Those that it was exported with; what the user says must be the same."""
    shapes = {name: shape for name, _, shape in program.inputs}
    names = ", ".join(shapes)
    for name, said in {**{n: a.shape for n, a in given.arrays}, **dict(given.shapes)}.items():
        if name not in shapes:
            raise InvalidArgument(f"{text} has no input {name}; its inputs: {names}")
        if tuple(said) != shapes[name]:
            fixed = ",".join(map(str, shapes[name]))
            raise InvalidArgument(
                f"{text} was exported with {name}={fixed}, and runs at no other shape than that"
            )
    for name, kind, _ in program.inputs:
        held = dict(given.arrays).get(name)
        if held is not None and held.dtype != kind:
            raise InvalidArgument(f"{text}: {name} is {kind}, and --input gives {held.dtype}")
    px = given.resolution_px
    if px is not None and any(len(s) != 4 or px not in s[1:] for s in shapes.values()):
        raise InvalidArgument(
            f"--resolution does not apply to {text}, which was exported at fixed shapes"
        )
    return list(shapes), shapes


def _tensor(torch: Any, shape: Shape, kind: str) -> Any:
    dtype = getattr(torch, kind, None)
    if not isinstance(dtype, torch.dtype):
        raise InvalidArgument(f"torch has no tensors of {kind}")
    if dtype.is_floating_point:
        return torch.randn(shape).to(dtype)
    return torch.ones(shape, dtype=dtype)


@cache
def _folder() -> TemporaryFolder:
    folder = TemporaryFolder()
    atexit.register(folder.close)
    return folder
