"""Constants, attributes and shapes of ONNX nodes, and who reads a value; Decline if not known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.stencil.geometry import Ints, Sizes
from flatfold.passes.stencil.kernels import Array, Weight, lifted

Numbers = npt.NDArray[Any]


def constant(value: ir.Value | None) -> Weight | None:
    """The array of a constant; None for anything else, an overridable graph input included."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def constant_or_expanded(value: ir.Value | None) -> Weight | None:
    """The array of a constant, or of one that is repeated by an Expand."""
    node = value.producer() if value is not None else None
    if node is not None and (node.op_type, node.domain) == ("Expand", ""):
        return constant(node.inputs[0])
    return constant(value)


def single_number(value: ir.Value | None) -> float | None:
    """A constant of one real number, whatever its shape; it may give what it meets more axes."""
    array = constant(value)
    if array is None or array.size != 1 or array.dtype.kind in "cOSU":
        return None
    return float(array.reshape(-1)[0])


def rank_of(value: ir.Value) -> int | None:
    """The number of axes, if it is known."""
    return None if value.shape is None else value.shape.rank()


def rank(value: ir.Value) -> int:
    if value.shape is None:
        raise Decline("SHAPE", f"the rank of {value.name} is unknown")
    if value.shape.rank() < 2:
        raise Decline("SHAPE", f"{value.name} of shape {value.shape} has no batch and channels")
    return value.shape.rank()


def dims_of(value: ir.Value) -> Sizes:
    """Every dimension, None where it is open."""
    rank(value)
    dims = value.shape.dims if value.shape is not None else ()
    return tuple(dim if isinstance(dim, int) else None for dim in dims)


def spatial_sizes(value: ir.Value) -> Sizes:
    """Static spatial sizes of an [N, C, ...] value, None where unknown."""
    return dims_of(value)[2:]


def channel_axis(value: ir.Value, axes: int) -> int:
    """A stencil without spatial axes mixes the last axis, whatever the rank; any other, axis 1."""
    return 1 if axes else rank(value) - 1


def with_channels(shape: ir.Shape | None, count: int, axes: int) -> ir.Shape | None:
    """The shape with another number of the channels that a stencil mixes; None if not known."""
    if shape is None:
        return None
    dims = list(shape.dims)
    dims[1 if axes else -1] = count
    return ir.Shape(dims)


MAX_CHANNELS = 2**20
"""The most channels of a map that is rewritten; several arrays have a number for each."""


def channel_count(value: ir.Value, axes: int | None = None) -> int:
    """Channels of an [N, C, ...] value, or of one that a stencil with `axes` is applied to."""
    size = dims_of(value)[1 if axes is None else channel_axis(value, axes)]
    if not size:
        raise Decline("SHAPE", f"the number of channels of {value.name} is unknown or 0")
    if size > MAX_CHANNELS:
        raise Decline("SHAPE", f"{value.name} has {size} channels, more than {MAX_CHANNELS}")
    return size


def either_axes(value: ir.Value) -> int:
    """Spatial axes for a form that is the same in both layouts: that whose channels are known."""
    return rank(value) - 2 if dims_of(value)[1] is not None else 0


def weights(node: ir.Node, index: int, what: str) -> Weight:
    """A constant floating-point operand that must be there."""
    value = node.inputs[index] if index < len(node.inputs) else None
    array, name = constant(value), "missing" if value is None else value.name
    if array is None:
        settable = value is not None and value.is_graph_input() and value.const_value is not None
        why = "is an input that the caller may set" if settable else "is not a constant"
        raise Decline("NOT-CONSTANT", f"the {what} {name} {why}")
    if not np.issubdtype(array.dtype, np.floating) and array.dtype.name != "bfloat16":
        raise Decline("DTYPE", f"the {what} {name} is of type {array.dtype}")
    if array.size == 0:
        raise Decline("SHAPE", f"the {what} {name} is empty: its shape is {list(array.shape)}")
    require_finite(array, f"the {what} {name}")
    return lifted(array)


def optional_weights(node: ir.Node, index: int, what: str) -> Weight | None:
    absent = len(node.inputs) <= index or node.inputs[index] is None
    return None if absent else weights(node, index, what)


def source(node: ir.Node, index: int = 0) -> ir.Value:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise Decline("NOT-CONSTANT", f"input {index} of the {node.op_type} is missing")
    return value


def ints(node: ir.Node, name: str, default: Ints) -> Ints:
    attribute = node.attributes.get(name)
    return default if attribute is None else tuple(attribute.as_ints())


def number(node: ir.Node, name: str, default: float) -> float:
    """A number; one that is not given has single precision too, as every attribute has."""
    attribute = node.attributes.get(name)
    return float(np.float32(default)) if attribute is None else float(attribute.value)


def text(node: ir.Node, name: str, default: str) -> str:
    """A string attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else str(attribute.value)


def padding(node: ir.Node) -> tuple[Numbers, Numbers, Numbers]:
    """(pads, fill, axes) of a Pad: inputs, or attributes before opset 11."""
    every_axis: Numbers = np.arange(rank(source(node)))
    attribute = node.attributes.get("pads", node.attributes.get("paddings"))
    if attribute is not None:
        value = np.array(number(node, "value", 0.0))
        return np.array(ints(node, attribute.name, ())), value, every_axis
    given = [(value, constant(value)) for value in node.inputs[1:]]
    computed = [str(v.name) for v, array in given if v is not None and array is None]
    if computed:
        raise Decline("NOT-CONSTANT", f"the padding is not constant: {', '.join(computed)}")
    pads, fill, axes = [*(array for _, array in given), None, None][:3]
    if pads is None:
        raise Decline("NOT-CONSTANT", "the padding, input 1 of the node, is missing")
    return pads, np.zeros(1) if fill is None else fill, every_axis if axes is None else axes


def pads_by_axis(node: ir.Node) -> Numbers:
    """[2, rank]: how much a Pad adds in front of each axis and behind it."""
    pads, _, axes = padding(node)
    both = np.zeros((2, rank(source(node))), dtype=np.int64)
    both[:, axes.astype(np.int64)] = pads.reshape(2, -1)
    return both


def window(node: ir.Node, kernel: Ints, *, padded: bool = True) -> tuple[Ints, Ints, Ints, Ints]:
    """(strides, dilations, begin, end) of a Conv or pool, auto_pad resolved.

    Without `padded`, no padding whatever the node says.
    """
    axes = len(kernel)
    strides, dilations = ints(node, "strides", (1,) * axes), ints(node, "dilations", (1,) * axes)
    pads = ints(node, "pads", (0,) * (2 * axes))
    given = (strides, dilations, pads)
    fitting = [len(some) for some in given] == [axes, axes, 2 * axes]
    if not fitting or min((*strides, *dilations, *kernel), default=1) < 1:
        raise Decline("ATTRIBUTE", f"strides, dilations, pads {given} do not fit a kernel {kernel}")
    mode = text(node, "auto_pad", "NOTSET")
    if mode == "VALID" or not padded:
        return strides, dilations, (0,) * axes, (0,) * axes
    if mode == "NOTSET":
        return strides, dilations, pads[:axes], pads[axes:]
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise Decline("ATTRIBUTE", f"auto_pad is {mode}, which the standard does not know")
    sizes = spatial_sizes(source(node))
    begin, end = [], []
    for k, d, s, size in zip(kernel, dilations, strides, sizes, strict=True):
        if size is None and s > 1:
            raise Decline("AUTO-PAD", f"{mode} with stride {s} pads by the unknown input size")
        last = 0 if size is None else (-(-size // s) - 1) * s - size + 1
        total = max(d * (k - 1) + last, 0)
        if d * (k - 1) + last < 0 and node.op_type != "Conv":
            # ONNX Runtime starts a pool in the middle of what its strides skip, a Conv at 0
            raise Decline("AUTO-PAD", f"{mode} with stride {s} skips the end of an axis of {size}")
        less, more = total // 2, total - total // 2
        begin.append(less if mode == "SAME_UPPER" else more)
        end.append(more if mode == "SAME_UPPER" else less)
    return strides, dilations, tuple(begin), tuple(end)


def data_and_constant(node: ir.Node) -> tuple[ir.Value, Weight, bool]:
    """(data, constant, whether the constant comes first) of a binary operator."""
    if constant(node.inputs[1]) is not None:
        return source(node, 0), weights(node, 1, "operand"), False
    if constant(node.inputs[0]) is None:
        raise Decline("NONLINEAR", "both operands depend on data")
    return source(node, 1), weights(node, 0, "operand"), True


def per_channel(operand: Weight, data: ir.Value) -> tuple[Array, int]:
    """A constant operand as one number per channel, and the spatial axes it leaves.

    Channels are axis 1 or the last one; a single number is taken along axis 1. Decline if the
    constant varies along another axis, or would widen the data.
    """
    sizes = dims_of(data)
    shape = (1,) * (len(sizes) - operand.ndim) + operand.shape
    varies = [axis for axis, dim in enumerate(shape) if dim != 1]
    last = varies == [len(sizes) - 1]
    if len(shape) != len(sizes) or (varies not in ([], [1]) and not last):
        raise Decline("NOT-PER-CHANNEL", f"a constant of shape {operand.shape} is not per channel")
    axes = 0 if last else len(sizes) - 2 if varies else either_axes(data)
    count = channel_count(data, axes)
    if operand.size not in (1, count):
        raise Decline("NOT-PER-CHANNEL", f"{operand.size} constants would widen {count} channels")
    return np.broadcast_to(operand.reshape(-1).astype(np.float64), (count,)), axes


def producer_of(value: ir.Value) -> ir.Node:
    producer = value.producer()
    if producer is None:
        raise Decline("INPUT", f"{value.name} is an input of the graph")
    return producer


def why_shared(value: ir.Value) -> Decline | None:
    """Why what makes a value must stay; None if a single node of the same graph reads it."""
    if value.is_graph_output():
        return Decline("OUTPUT", f"{value.name} is an output of the graph")
    readers = [use.node for use in value.uses() if use.node.graph is not None]  # drafts are in none
    producer = value.producer()
    if len(readers) != 1:
        return Decline("SHARED", f"{value.name} is read {len(readers)} times")
    if producer is not None and readers[0].graph is not producer.graph:
        return Decline("SHARED", f"{value.name} is read 1 time, inside a subgraph")
    return None


def only_producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node of one of these types that computes `value`, if a single node reads it."""
    node = value.producer() if value is not None else None
    if value is None or node is None or node.domain not in ("", "ai.onnx"):
        return None
    return node if node.op_type in op_types and why_shared(value) is None else None


def require_finite(array: Weight, what: str) -> None:
    """Decline, with the place and the number, unless all are finite."""
    finite = np.isfinite(array)
    if np.all(finite):
        return
    place = [int(n) for n in np.argwhere(~finite)[0]]
    where = f"channel {place[0]}" if array.ndim == 1 else f"element {place}"
    raise Decline("NONFINITE", f"{what} is {float(array[tuple(place)])} in {where}")


FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


ASSUMED_SIZE = 28


def pixel_count(sizes: Sizes) -> int:
    """Number of pixels of a map."""
    return math.prod(ASSUMED_SIZE if size is None else max(size, 1) for size in sizes)


Bounds = tuple[float, float]


def clip_limits(node: ir.Node) -> Bounds | None:
    """The limits of a Clip, inputs or (before opset 11) attributes; None if they are computed."""
    limits = [number(node, "min", -math.inf), number(node, "max", math.inf)]
    for index in (1, 2):
        value = node.inputs[index] if len(node.inputs) > index else None
        if value is None:
            continue
        array = constant(value)
        if array is None or array.size != 1:
            return None
        limits[index - 1] = float(array.reshape(-1)[0])
    return limits[0], limits[1]


TO_THE_END = 2**31 - 1  # exporters write the end of an axis as this or more
