"""Tensors and nodes of a TFLite model under construction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import MissingExtra, install
from ..operator import Convolution, Operator
from .calibration import SIGMOID_BOUNDS, Ranges
from .weights import Arrays, folded

if TYPE_CHECKING:
    from ..detection.head_layer import HeadLayer

__all__ = ["CLAMPS", "INPUT", "OUTPUT", "Graph"]

INPUT, OUTPUT = "input", "output"
_SCHEMA_VERSION, _FILE_IDENTIFIER = 3, b"TFL3"
# The first version of every operator kind suffices here, so that old runtimes read it too.
_OPERATOR_VERSION = 1
# The schema once held an operator's kind in one signed byte; readers of that field want both.
_OLD_KINDS_END = 127
_REDUCED = "reduced_precision_support"  # the name of a model's metadata
_ALIGNMENT = 16  # bytes; runtimes map the file and compute on its constants in place
#: Activations that a convolution has in itself.
CLAMPS = {"relu": "RELU", "relu6": "RELU6", None: "NONE"}
_BY_NAME = {"relu": "RELU", "relu6": "RELU6", "sigmoid": "LOGISTIC", "hard_swish": "HARD_SWISH"}
# What the schema calls the options of each kind; LOGISTIC, RELU and RELU6 have none.
_OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "HARD_SWISH": "HardSwishOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "MUL": "MulOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "QUANTIZE": "QuantizeOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SLICE": "SliceOptions",
    "TRANSPOSE": "TransposeOptions",
}


class _Constant:
    """Bytes of a constant, packed at an aligned place: the generated class does not see to it."""

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - the generated classes' word
        builder.Prep(_ALIGNMENT, self.buffer.data.size)
        return self.buffer.Pack(builder)


class Graph:
    """Tensors, nodes and weights under construction; a value is the index of its tensor.

    Args:
        weights, seed, precision: As for `to_tflite`.
        ranges: Of the values, for int8: the nodes are such as XNNPACK takes in 8 bits, too, and
            `write_in_precision` makes all of them 8 bits wide. None: feature maps are float32.
    Attributes:
        sources: Where a tensor's scale comes from, if not from the range of the tensor's own name:
            another name, or the range itself.
    Raises:
        MissingExtra: ai-edge-litert is not installed.
    """

    def __init__(
        self,
        weights: Arrays | None,
        seed: int,
        precision: str = "float32",
        ranges: Ranges | None = None,
    ) -> None:
        try:
            from ai_edge_litert import schema_py_generated
        except (ImportError, OSError) as error:  # OSError: its library does not load
            raise MissingExtra(
                "a TFLite model was asked for, and ai-edge-litert, which carries the schema, "
                f"cannot be imported here. Install it:  {install('litert')}"
            ) from error
        self.schema: Any = schema_py_generated
        self.weights = weights
        self.seed = seed
        self.precision, self.ranges = precision, ranges
        self.sources: dict[int, str | tuple[float, float]] = {}
        self.entry = 0  # the input
        self.tensors: list[Any] = []
        self.nodes: list[Any] = []
        self.kinds: dict[str, int] = {}
        # By convention the first buffer is empty: that of the tensors that are not constants.
        self.buffers: list[Any] = [self.schema.BufferT()]

    def tensor(
        self, name: str, shape: Sequence[int], kind: str = "FLOAT32", buffer: int = 0
    ) -> int:
        self.tensors.append(
            self.schema.TensorT(
                shape=list(shape),
                type=getattr(self.schema.TensorType, kind),
                buffer=buffer,
                name=name,
            )
        )
        return len(self.tensors) - 1

    def constant(self, name: str, array: npt.NDArray[Any]) -> int:
        kind = {"float32": "FLOAT32", "int32": "INT32"}[array.dtype.name]
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.buffers.append(_Constant(self.schema.BufferT(data=data)))
        return self.tensor(name, array.shape, kind, len(self.buffers) - 1)

    @cached_property
    def axes(self) -> int:
        """Rows and columns of a map, (2,): one constant for all means."""
        return self.constant("axes", np.array([1, 2], np.int32))

    def node(
        self, kind: str, name: str, inputs: list[int], shape: Sequence[int], **options: Any
    ) -> int:
        value = self.tensor(name, shape)
        node = self.schema.OperatorT(
            opcodeIndex=self.kinds.setdefault(kind, len(self.kinds)), inputs=inputs, outputs=[value]
        )
        if kind in _OPTIONS:
            node.builtinOptionsType = getattr(self.schema.BuiltinOptions, _OPTIONS[kind])
            node.builtinOptions = getattr(self.schema, f"{_OPTIONS[kind]}T")(**options)
        self.nodes.append(node)
        return value

    def shape(self, value: int) -> tuple[int, int, int, int]:
        """(1, px, px, channels) of a map."""
        one, height, width, channels = self.tensors[value].shape
        return one, height, width, channels

    def operator(self, prefix: str, operator: Operator | HeadLayer, value: int) -> int:
        source = value
        if operator.kind == "head":
            features, *hidden, classifier = operator.convolutions
            value = self.mean(f"{prefix}pool", self.convolution(prefix, features, value))
            for convolution in hidden:
                value = self.convolution(prefix, convolution, value)
            weight, bias = folded(self.weights, self.seed, prefix, classifier)
            name = f"{prefix}{classifier.name}"
            inputs = [value, self.constant(f"{name}.w", weight.reshape(weight.shape[:2]))]
            inputs.append(self.constant(f"{name}.b", bias))
            return self.node("FULLY_CONNECTED", name, inputs, (1, classifier.out_channels))
        gate = value
        for convolution in operator.convolutions:
            if convolution.name == "se_reduce":
                gate = self.mean(f"{prefix}se_pool", value)
            if convolution.name.startswith("se_"):
                gate = self.convolution(prefix, convolution, gate)
                if convolution.name == "se_expand":
                    value = self.node("MUL", f"{prefix}se_scale", [value, gate], self.shape(value))
            else:
                value = self.convolution(prefix, convolution, value)
        if isinstance(operator, Operator) and operator.skip == "pool":
            source = self.pooled(prefix, operator, source)
        if operator.skip != "none":
            value = self.node("ADD", f"{prefix}skip", [value, source], self.shape(value))
        return value

    def mean(self, name: str, value: int) -> int:
        shape = (1, 1, 1, self.shape(value)[3])
        return self.node("MEAN", name, [value, self.axes], shape, keepDims=True)

    def pooled(self, prefix: str, operator: Operator, value: int) -> int:
        """The pool skip: 3×3 average at the layer's stride, channels cut or zero-padded."""
        name, stride, px = f"{prefix}skip_pool", operator.stride, operator.out_px
        shape = (1, px, px, operator.in_channels)
        same = _same_is_symmetric(3, stride, operator.in_px)
        if same and self.ranges is None:
            value = self.node(
                "AVERAGE_POOL_2D",
                name,
                [value],
                shape,
                padding=self.schema.Padding.SAME,
                strideW=stride,
                strideH=stride,
                filterWidth=3,
                filterHeight=3,
            )
        else:
            # A pool behind a PAD counts the zeros, and XNNPACK does not merge the two. With a
            # depthwise convolution it does, and a map of factors makes up for the zeros at the
            # border. On 28×28×40, one x86 core, that took 7 µs; to pool a map that is longer by
            # one and cut the result, which needs no factors, took 18. In 8 bits XNNPACK has no
            # average pooling at all.
            if not same:
                value = self.padded(name, value, 3)
            starts = range(-1, operator.in_px, stride)[:px]
            inside = [min(s + 3, operator.in_px) - max(s, 0) for s in starts]
            padding = self.schema.Padding.SAME if same else self.schema.Padding.VALID
            value = self.averaged(name, value, shape, ((3, 3), stride, padding), inside)
        shape = (1, px, px, operator.out_channels)
        more = operator.out_channels - operator.in_channels
        if more > 0:
            pads = np.array([[0, 0], [0, 0], [0, 0], [0, more]], np.int32)
            pads_value = self.constant(f"{prefix}skip_pads", pads)
            return self.node("PAD", f"{prefix}skip_pad", [value, pads_value], shape)
        if more < 0:
            bounds = {"begin": (0, 0, 0, 0), "size": shape}
            inputs = [value]
            for what, bound in bounds.items():
                inputs.append(self.constant(f"{prefix}skip_{what}", np.array(bound, np.int32)))
            return self.node("SLICE", f"{prefix}skip_cut", inputs, shape)
        return value

    def averaged(
        self,
        name: str,
        value: int,
        shape: tuple[int, int, int, int],
        window: tuple[tuple[int, int], int, Any],
        inside: Sequence[int],
    ) -> int:
        """A mean that leaves padding out, as a depthwise convolution and a map of factors.

        Args:
            name: Of what it gives.
            value: A map.
            shape: Of what it gives.
            window: Kernel, stride and padding.
            inside: Of the rows, and of the columns, of each window, how many are no padding.
        """
        (height, width), stride, padding = window
        weight = np.full((1, height, width, shape[3]), 1 / (height * width), np.float32)
        inputs = [value, self.constant(f"{name}.w", weight)]
        inputs.append(self.constant(f"{name}.b", np.zeros(shape[3], np.float32)))
        total = self.node(
            "DEPTHWISE_CONV_2D",
            f"{name}_sum",
            inputs,
            shape,
            padding=padding,
            strideW=stride,
            strideH=stride,
            depthMultiplier=1,
        )
        # Means have a narrower range than what they are of, and so a finer scale.
        self.sources[total] = name
        counts = np.outer(inside, inside)
        factors = (height * width / counts).reshape(1, shape[1], shape[2], 1).astype(np.float32)
        return self.node("MUL", name, [total, self.constant(f"{name}_border", factors)], shape)

    def padded(self, name: str, value: int, kernel: int) -> int:
        """An even map with the zeros that a convolution of stride 2 reads, all but one before."""
        _, height, width, channels = self.shape(value)
        before, after = kernel // 2, kernel // 2 - 1
        more = before + after
        pads = np.array([[0, 0], [before, after], [before, after], [0, 0]], np.int32)
        inputs = [value, self.constant(f"{name}_pads", pads)]
        return self.node("PAD", f"{name}_pad", inputs, (1, height + more, width + more, channels))

    def convolution(self, prefix: str, convolution: Convolution, value: int) -> int:
        name, out_px = f"{prefix}{convolution.name}", convolution.out_px
        weight, bias = folded(self.weights, self.seed, prefix, convolution)
        padding = self.schema.Padding.SAME
        if not _same_is_symmetric(convolution.kernel, convolution.stride, self.shape(value)[1]):
            value = self.padded(name, value, convolution.kernel)
            padding = self.schema.Padding.VALID
        function = convolution.activation
        clamp = function if function in CLAMPS else None
        kinds = self.schema.ActivationFunctionType
        options = {
            "padding": padding,
            "strideW": convolution.stride,
            "strideH": convolution.stride,
            "fusedActivationFunction": getattr(kinds, CLAMPS[clamp]),
        }
        if convolution.groups == 1:
            kind, weight = "CONV_2D", weight.transpose(0, 2, 3, 1)
        else:
            kind, weight = "DEPTHWISE_CONV_2D", weight.transpose(1, 2, 3, 0)
            options["depthMultiplier"] = 1
        inputs = [value, self.constant(f"{name}.w", weight), self.constant(f"{name}.b", bias)]
        shape = (1, out_px, out_px, convolution.out_channels)
        value = self.node(kind, name, inputs, shape, **options)
        if clamp is not None:
            self.sources[value] = f"{name}_{clamp}"
        alone = function != "none" and clamp is None
        return self.activation(f"{name}_", function, value) if alone else value

    def activation(self, prefix: str, function: str, value: int) -> int:
        """The nodes of an activation alone, named after `prefix` and it."""
        shape, name = self.tensors[value].shape, f"{prefix}{function}"
        if self.ranges is not None:
            return self._activation_of_bytes(name, function, value)
        if function in _BY_NAME:
            return self.node(_BY_NAME[function], name, [value], shape)
        if function == "swish":
            gate = self.node("LOGISTIC", f"{name}.sigmoid", [value], shape)
            return self.node("MUL", name, [value, gate], shape)
        relu6 = self.schema.ActivationFunctionType.RELU6
        if function == "hard_sigmoid":
            three = self.constant(f"{name}.three", np.array([3], np.float32))
            value = self.node(
                "ADD", f"{name}.clamp", [value, three], shape, fusedActivationFunction=relu6
            )
            sixth = self.constant(f"{name}.sixth", np.array([1 / 6], np.float32))
            return self.node("MUL", name, [value, sixth], shape)
        value = self.node("RELU", f"{name}.low", [value], shape)
        one = self.constant(f"{name}.one", np.array([1], np.float32))
        return self.node("MINIMUM", name, [value, one], shape)

    def _activation_of_bytes(self, name: str, function: str, value: int) -> int:
        """What XNNPACK has in 8 bits: what lies outside the range of a value is clamped to it."""
        shape = self.tensors[value].shape
        if function in ("relu", "relu6", "clip"):
            return self.node("QUANTIZE", name, [value], shape)
        if function in ("sigmoid", "swish"):
            label = name if function == "sigmoid" else f"{name}.sigmoid"
            gate = self.node("LOGISTIC", label, [value], shape)
            self.sources[gate] = SIGMOID_BOUNDS
            return gate if function == "sigmoid" else self.node("MUL", name, [value, gate], shape)
        # x / 6 + 1/2, clamped to [0, 1]
        label = name if function == "hard_sigmoid" else f"{name}.gate"
        gate = self.scaled(label, value, 1 / 6, 0.5, source=(0.0, 1.0))
        return gate if function == "hard_sigmoid" else self.node("MUL", name, [value, gate], shape)

    def scaled(
        self,
        name: str,
        value: int,
        scale: Any,
        shift: Any,
        source: tuple[float, float] | None = None,
        **options: Any,
    ) -> int:
        """A map times a factor plus a summand, for each channel, as a convolution.

        Args:
            name: Of what it gives.
            value: A map, or a vector of channels.
            scale, shift: Of each channel, (channels,), or one for all.
            source: Its range, if it is not that of its name.
            options: Of the convolution.
        """
        shape = tuple(self.tensors[value].shape)
        channels = shape[-1]
        if len(shape) == 2:
            value = self.reshaped(f"{name}_map", value, (1, 1, 1, channels))
        weight = np.broadcast_to(np.float32(scale), (1, 1, 1, channels))
        inputs = [value, self.constant(f"{name}.w", weight)]
        inputs.append(self.constant(f"{name}.b", np.broadcast_to(np.float32(shift), channels)))
        value = self.node(
            "DEPTHWISE_CONV_2D",
            name,
            inputs,
            self.tensors[value].shape,
            padding=self.schema.Padding.SAME,
            strideW=1,
            strideH=1,
            depthMultiplier=1,
            **options,
        )
        if source is not None:
            self.sources[value] = source
        if len(shape) == 4:
            return value
        return self.reshaped(f"{name}_vector", value, shape)

    def reshaped(self, name: str, value: int, shape: tuple[int, ...]) -> int:
        to = self.constant(f"{name}.shape", np.array(shape, np.int32))
        return self.node("RESHAPE", name, [value, to], shape, newShape=list(shape))

    def packed(
        self, name: str, *outputs: int, versions: Mapping[str, int] | None = None, mark: str = ""
    ) -> bytes:
        """The model.

        Args:
            name: Of the graph.
            outputs: Values that it gives.
            versions: Of kinds of which the first version does not suffice.
            mark: What its metadata says of reduced precision; "" for none.
        """
        import flatbuffers  # comes with ai-edge-litert

        schema = self.schema
        codes = {kind: getattr(schema.BuiltinOperator, kind) for kind in self.kinds}
        versions, metadata = versions or {}, []
        if mark:
            data = np.frombuffer(mark.encode(), np.uint8)
            self.buffers.append(_Constant(schema.BufferT(data=data)))
            metadata.append(schema.MetadataT(name=_REDUCED, buffer=len(self.buffers) - 1))
        model = schema.ModelT(
            version=_SCHEMA_VERSION,
            operatorCodes=[
                schema.OperatorCodeT(
                    deprecatedBuiltinCode=min(code, _OLD_KINDS_END),
                    builtinCode=code,
                    version=versions.get(kind, _OPERATOR_VERSION),
                )
                for kind, code in codes.items()
            ],
            subgraphs=[
                schema.SubGraphT(
                    tensors=self.tensors,
                    inputs=[self.entry],
                    outputs=list(outputs),
                    operators=self.nodes,
                    name=name,
                )
            ],
            description="phonenas",
            metadata=metadata or None,
            buffers=self.buffers,
        )
        # Room for all constants from the start: growing copies what is there.
        constants = sum(c.buffer.data.size + _ALIGNMENT for c in self.buffers[1:])
        builder = flatbuffers.Builder(constants + 1024 * len(self.nodes) + 4096)
        builder.Finish(model.Pack(builder), file_identifier=_FILE_IDENTIFIER)
        return bytes(builder.Output())


def _same_is_symmetric(kernel: int, stride: int, px: int) -> bool:
    """Whether TFLite's SAME pads `kernel // 2` above and on the left, and reads as far below."""
    return kernel == 1 or stride == 1 or px % 2 == 1
