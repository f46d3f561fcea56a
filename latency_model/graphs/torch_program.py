"""A torch program in a .pt2 file (`torch.export.save`), as a module that runs its nodes.

The file's parts are read as what they are: the graph is JSON, weights are raw numbers. torch's own
`torch.export.load` unpickles some parts and evaluates expressions, which a file of others could use
to run code; so a file with pickled weights, free sides or operations outside `aten` is refused.

Source: torch/export/pt2_archive/constants.py (names in the archive) and
torch/_export/serde/schema.py (the JSON, and the numbers of types) of PyTorch 2.8 to 2.13.
"""

from __future__ import annotations

import json
import math
import re
import stat
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonenas.space.errors import InvalidArgument, UnknownName, UnsupportedFormat, reading
from phonenas.space.file_inputs import Shape

if TYPE_CHECKING:
    from torch import nn

__all__ = ["TorchProgram"]

_MOST_BYTES, _MOST_JSON = 2 << 30, 64 << 20
_DTYPES = {
    **{1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32"},
    **{8: "float64", 12: "bool", 13: "bfloat16"},
}
_MEMORY_FORMATS = {
    **{1: "contiguous_format", 2: "channels_last", 3: "channels_last_3d", 4: "preserve_format"}
}
_STRIDED = 7
_POSITIONAL = 1
_ATEN = re.compile(r"torch\.ops\.aten\.([a-z_][a-z0-9_]{0,80})\.([A-Za-z_][A-Za-z0-9_]{0,80})")
# Words that operations on tensors take. An operation with any other may name a file
# (`aten::from_file`).
_WORDS = frozenset(
    {
        *("approximate", "assert_msg", "equation", "indexing", "interpolation", "mode", "norm"),
        *("ord", "pad_mode", "padding", "padding_side", "reduce", "rounding_mode", "side"),
    }
)
_PLAIN = ("as_int", "as_ints", "as_bool", "as_bools", "as_string")
_ELSE = "Give the module itself,  module:Name , or export it as ONNX"
_AGAIN = "Save it again with torch.export.save of PyTorch 2.8 or newer"


@dataclass(frozen=True)
class _Node:
    """One operation: its function, its arguments as JSON, and names of what it gives."""

    run: Any
    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[str | tuple[str, ...] | None, ...]


@dataclass(frozen=True, eq=False)
class TorchProgram:
    """A program that was exported at fixed shapes.

    Args:
        inputs: Name, type as numpy has it, and shape of each.
        module: Takes the inputs in this order, and gives what the program gives.
    """

    inputs: tuple[tuple[str, str, Shape], ...]
    module: nn.Module

    @classmethod
    def at(cls, path: Path) -> TorchProgram:
        """The program in a file.

        Raises:
            UnknownName, InvalidArgument: No such file, or it cannot be read.
            UnsupportedFormat: Damaged, no such archive, or it holds what is not read: pickled
                parts, free sides, operations outside `aten`, several programs.
            MissingExtra: torch is not installed.
        """
        try:
            about = path.stat()
            if not stat.S_ISREG(about.st_mode):  # a pipe would be waited for without end
                raise InvalidArgument(f"{path} is no regular file")
            if about.st_size > _MOST_BYTES:
                raise UnsupportedFormat(f"{path} holds {about.st_size:,} bytes: too large")
            with path.open("rb") as file, reading(str(path), _AGAIN):
                with zipfile.ZipFile(file) as archive:
                    return _Reader(path, archive).program()
        except FileNotFoundError as error:
            raise UnknownName(f"there is no file {path}") from error
        except OSError as error:
            raise InvalidArgument(f"{path} cannot be read: {error.strerror}") from error


class _Reader:
    """Reads one archive."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        from phonenas.space.lowering.torch import torch_or_extra

        self.torch = torch_or_extra()
        self.path, self.archive = path, archive
        self.entries = {i.filename: i for i in archive.infolist()}
        models = [n for n in self.entries if re.fullmatch(r"[^/]+/models/[^/]+\.json", n)]
        if len(models) != 1:
            old = any(n.endswith("serialized_exported_program.json") for n in self.entries)
            held = "an archive of an older PyTorch" if old else f"{len(models)} programs"
            raise UnsupportedFormat(f"{path} holds {held}, not one program. {_AGAIN}")
        self.root, _, name = models[0].rpartition("/models/")
        self.name = name.removesuffix(".json")
        self.size_of: dict[str, Any] = {}
        self.left_bytes = _MOST_BYTES  # of memory, whatever the file says of its sizes

    def program(self) -> TorchProgram:
        """The whole."""
        found = self.json(f"models/{self.name}.json")
        graph, signature = found["graph_module"]["graph"], found["graph_module"]["signature"]
        held = {**self.tensors("weights", "weights"), **self.tensors("constants", "constants")}
        self.size_of = graph["tensor_values"]
        bound: dict[str, Any] = {}
        inputs: list[tuple[str, str, Shape]] = []
        for spec in signature["input_specs"]:
            ((kind, said),) = spec.items()
            if kind == "user_input":
                name = self.tensor_name(said["arg"], "an input")
                dtype, sides = self.dtype(self.size_of[name]), self.sides(name)
                self.take(math.prod(sides) * dtype.itemsize, name)
                inputs.append((name, str(dtype).removeprefix("torch."), sides))
                continue
            names = {"parameter": "parameter_name", "buffer": "buffer_name"}
            key = names.get(kind, "tensor_constant_name")
            if key not in said or said[key] not in held:
                raise UnsupportedFormat(f"{self.path} holds an input of kind {kind}. {_ELSE}")
            bound[said["arg"]["name"]] = held[said[key]]
        outputs = [
            self.tensor_name(spec["user_output"]["arg"], "an output")
            for spec in signature["output_specs"]
            if "user_output" in spec
        ]
        if not inputs or not outputs:
            raise UnsupportedFormat(f"{self.path} has no input or no output")
        nodes = [self.node(n) for n in graph["nodes"]]
        module = _module(self.torch, [n for n, _, _ in inputs], bound, nodes, outputs)
        return TorchProgram(tuple(inputs), module)

    def json(self, name: str) -> Any:
        return json.loads(self.content(name, _MOST_JSON))

    def content(self, name: str, most: int) -> bytes:
        """Bytes of one entry, which are not more than expected."""
        whole = f"{self.root}/{name}"
        if whole not in self.entries:
            raise UnsupportedFormat(f"{self.path} has no {name}. {_AGAIN}")
        if self.entries[whole].file_size > most:
            raise UnsupportedFormat(f"{self.path}: {name} is larger than expected")
        self.take(self.entries[whole].file_size, name)
        return self.archive.read(self.entries[whole])

    def take(self, size: int, what: str) -> None:
        """Count bytes of memory that something takes, before it does."""
        self.left_bytes -= size
        if self.left_bytes < 0:
            raise UnsupportedFormat(
                f"{self.path} is too large: with {what} it takes more than {_MOST_BYTES:,} bytes"
            )

    def tensors(self, folder: str, word: str) -> dict[str, Any]:
        """By name, the tensors that are kept as raw numbers."""
        config = self.json(f"data/{folder}/{self.name}_{word}_config.json")["config"]
        found, raw = {}, {}
        for name, entry in config.items():
            place, meta = str(entry["path_name"]), entry["tensor_meta"]
            if entry["use_pickle"] or meta is None or not re.fullmatch(r"\w{1,80}", place):
                raise UnsupportedFormat(
                    f"{self.path}: {name} is pickled, and a pickle is not read: it could run code. "
                    f"{_AGAIN}"
                )
            dtype = self.dtype(meta)
            if place not in raw:
                content = bytearray(self.content(f"data/{folder}/{place}", _MOST_BYTES))
                raw[place] = (
                    self.torch.frombuffer(content, dtype=dtype)
                    if content
                    else self.torch.zeros(0, dtype=dtype)
                )
            flat = raw[place]
            sides, strides = self.whole(meta["sizes"]), self.whole(meta["strides"])
            (offset,) = self.whole([meta["storage_offset"]])
            last = offset + sum((n - 1) * s for n, s in zip(sides, strides, strict=True))
            if math.prod(sides) and last >= flat.numel():
                raise UnsupportedFormat(f"{self.path}: {name} is larger than what is kept of it")
            if (size := math.prod(sides)) > flat.numel():  # repeated: the export writes all of it
                self.take(size * dtype.itemsize, name)
            found[name] = flat.as_strided(sides, strides, offset)
        return found

    def dtype(self, meta: Mapping[str, Any]) -> Any:
        if meta["dtype"] not in _DTYPES:
            raise UnsupportedFormat(f"{self.path}: type {meta['dtype']} of a tensor is not read")
        return getattr(self.torch, _DTYPES[meta["dtype"]])

    def whole(self, sizes: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        """Sides that are numbers."""
        found = tuple(s.get("as_int") for s in sizes)
        if not all(isinstance(n, int) and 0 <= n <= _MOST_BYTES for n in found):
            raise UnsupportedFormat(
                f"{self.path} has sides that are free. Export it at fixed shapes, without "
                "dynamic_shapes"
            )
        return found  # type: ignore[return-value]

    def sides(self, name: str) -> Shape:
        return self.whole(self.size_of[name]["sizes"])

    def tensor_name(self, argument: Mapping[str, Any], what: str) -> str:
        if set(argument) != {"as_tensor"}:
            raise UnsupportedFormat(f"{self.path}: {what} is no tensor. {_ELSE}")
        return str(argument["as_tensor"]["name"])

    def node(self, said: Mapping[str, Any]) -> _Node:
        """One node, whose function is torch's own."""
        target = _ATEN.fullmatch(said["target"])
        packet = None if target is None else getattr(self.torch.ops.aten, target[1], None)
        run = None if target is None else getattr(packet, target[2], None)
        schema = run._schema if isinstance(run, self.torch._ops.OpOverload) else None
        if (
            schema is None
            or any("str" in str(a.type) and a.name not in _WORDS for a in schema.arguments)
            # Others set what holds for the process, as its seed.
            or not any("Tensor" in str(a.type) for a in (*schema.arguments, *schema.returns))
        ):
            raise UnsupportedFormat(
                f"{self.path}: {str(said['target'])[:100]} is not an operation of aten, and no "
                f"other is run from a file. {_ELSE}"
            )
        outputs: list[str | tuple[str, ...] | None] = []
        for output in said["outputs"]:
            ((kind, value),) = output.items()
            if kind == "as_tensor":
                outputs.append(str(value["name"]))
            elif kind == "as_tensors":
                outputs.append(tuple(str(v["name"]) for v in value))
            elif kind == "as_none":
                outputs.append(None)
            else:
                raise UnsupportedFormat(
                    f"{self.path}: {str(said['target'])[:100]} gives no tensor. {_ELSE}"
                )
        for given in said["inputs"]:
            self.argument(given["arg"], dict.fromkeys(self.size_of))
        return _Node(run, tuple(said["inputs"]), tuple(outputs))

    def argument(self, said: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        return _argument(self.torch, said, values)


def _argument(torch: Any, said: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """The value of an argument.

    Raises:
        UnsupportedFormat: Of a kind that is not read.
    """
    ((kind, value),) = said.items()
    if kind == "as_tensor":
        return values[value["name"]]
    if kind == "as_tensors":
        return [values[v["name"]] for v in value]
    if kind == "as_optional_tensors":
        return [_argument(torch, v, values) for v in value]
    if kind == "as_optional_tensor":
        return _argument(torch, value, values)
    if kind == "as_none":
        return None
    if kind == "as_float":
        return float(value)  # infinite ones and NaN are words
    if kind == "as_floats":
        return [float(v) for v in value]
    if kind in _PLAIN:
        return value
    if kind == "as_scalar_type" and value in _DTYPES:
        return getattr(torch, _DTYPES[value])
    if kind == "as_memory_format" and value in _MEMORY_FORMATS:
        return getattr(torch, _MEMORY_FORMATS[value])
    if kind == "as_layout" and value == _STRIDED:
        return torch.strided
    if kind == "as_device":
        return torch.device("cpu")
    raise UnsupportedFormat(f"an argument of kind {kind} is not read from a file. {_ELSE}")


def _module(
    torch: Any,
    inputs: Sequence[str],
    bound: Mapping[str, Any],
    nodes: Sequence[_Node],
    outputs: Sequence[str],
) -> nn.Module:
    """A module whose buffers are the program's weights."""

    class Program(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for name, tensor in bound.items():
                self.register_buffer(name, tensor)

        def forward(self, *given: Any) -> Any:
            values: dict[str, Any] = {name: getattr(self, name) for name in bound}
            values |= zip(inputs, given, strict=True)
            for node in nodes:
                positional, named = [], {}
                for argument in node.inputs:
                    value = _argument(torch, argument["arg"], values)
                    if argument.get("kind", _POSITIONAL) == _POSITIONAL:
                        positional.append(value)
                    else:
                        named[argument["name"]] = value
                _keep(values, node.outputs, node.run(*positional, **named))
            found = tuple(values[name] for name in outputs)
            return found[0] if len(found) == 1 else found

    module: nn.Module = Program().eval()
    return module


def _keep(values: dict[str, Any], names: Sequence[Any], given: Any) -> None:
    """Put what a node gives under its names."""
    if not names:  # of a check, as of a tensor's type
        return
    results = [given] if len(names) == 1 else given
    for name, result in zip(names, results, strict=True):
        if isinstance(name, tuple):
            values |= zip(name, result, strict=True)
        elif name is not None:
            values[name] = result
