"""Reading constants, attributes and shapes off ONNX nodes; Decline where they are not there.

And what an operator may turn out to be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from flatfold.passes.arithmetic import lifted
from flatfold.passes.elementary import diagonal
from flatfold.passes.geometry import Decline, Ints, Sizes
from flatfold.passes.kernels import Array, Weight
from flatfold.passes.rounding import require_finite
from flatfold.passes.stencil import Stencil


@dataclass(frozen=True)
class Applied:
    """stencil(source), by the node itself and those that make the values `through`."""

    source: ir.Value
    stencil: Stencil
    through: tuple[ir.Value, ...] = ()
    warning: str = ""  # about numbers that are odd, though no reason to decline


@dataclass(frozen=True)
class Summed:
    """sum of sign * value."""

    operands: tuple[tuple[int, ir.Value], ...]


@dataclass(frozen=True, eq=False)
class Fill:
    """Rows of one number per channel at the start or the end."""

    numbers: Array
    rows: int
    at_start: bool


@dataclass(frozen=True)
class Joined:
    """Values put side by side along an axis that is not the batch, constants at its ends."""

    values: tuple[ir.Value, ...]
    axis: int
    fills: tuple[Fill, ...] = ()


@dataclass(frozen=True)
class Carried:
    """An operator that a map of the channels passes through.

    Spatial axes of the map afterwards, if it mixes axis 1 (`spatial`) or the last one (`matrix`);
    None if it does not pass. Each channel is `repeat` features afterwards.
    """

    source: ir.Value
    spatial: int | None
    matrix: int | None
    repeat: int = 1


Linear = Applied | Summed | Joined | Carried


def operands(linear: Linear) -> tuple[ir.Value, ...]:
    """The values that it reads."""
    if isinstance(linear, Applied | Carried):
        return (linear.source,)
    if isinstance(linear, Joined):
        return linear.values
    return tuple(value for _, value in linear.operands)


def constant(value: ir.Value | None) -> Weight | None:
    """The array of a constant; None for anything else, an overridable graph input included."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def unexpanded(value: ir.Value | None) -> Weight | None:
    """The array of a constant, or of one that is repeated by an Expand."""
    node = value.producer() if value is not None else None
    if node is not None and (node.op_type, node.domain) == ("Expand", ""):
        return constant(node.inputs[0])
    return constant(value)


def rank(value: ir.Value) -> int:
    if value.shape is None:
        raise Decline("SHAPE", f"the rank of {value.name} is unknown")
    if value.shape.rank() < 2:
        raise Decline("SHAPE", f"{value.name} of shape {value.shape} has no batch and channels")
    return value.shape.rank()


def known(value: ir.Value) -> Sizes:
    """Every dimension, None where it is open."""
    rank(value)
    dims = value.shape.dims if value.shape is not None else ()
    return tuple(dim if isinstance(dim, int) else None for dim in dims)


def spatial(value: ir.Value) -> Sizes:
    """Static spatial sizes of an [N, C, ...] value, None where unknown."""
    return known(value)[2:]


def channel_axis(value: ir.Value, axes: int) -> int:
    """A stencil without spatial axes mixes the last axis, whatever the rank; any other, axis 1."""
    return 1 if axes else rank(value) - 1


def with_channels(value: ir.Value, count: int, axes: int) -> ir.Shape | None:
    """The shape of a value, with another number of the channels that a stencil mixes."""
    if value.shape is None:
        return None
    dims = list(value.shape.dims)
    dims[1 if axes else -1] = count
    return ir.Shape(dims)


def channels(value: ir.Value, axes: int | None = None) -> int:
    """Channels of an [N, C, ...] value, or of one that a stencil with `axes` is applied to."""
    size = known(value)[1 if axes is None else channel_axis(value, axes)]
    if not size:
        raise Decline("SHAPE", f"the number of channels of {value.name} is unknown or 0")
    return size


def either_axes(value: ir.Value) -> int:
    """Spatial axes for a form that is the same in both layouts: that whose channels are known."""
    return rank(value) - 2 if known(value)[1] is not None else 0


def pixels(value: ir.Value, axes: int) -> Sizes:
    """Sizes of all axes but batch and channels."""
    sizes = list(known(value))
    del sizes[channel_axis(value, axes)], sizes[0]
    return tuple(sizes)


def weights(node: ir.Node, index: int, what: str) -> Weight:
    """A constant floating-point operand that must be there."""
    value = node.inputs[index] if index < len(node.inputs) else None
    array, name = constant(value), "missing" if value is None else value.name
    if array is None:
        raise Decline("NOT-CONSTANT", f"the {what} {name} is not a constant")
    if not np.issubdtype(array.dtype, np.floating) and array.dtype.name != "bfloat16":
        raise Decline("DTYPE", f"the {what} {name} is of type {array.dtype}")
    if array.size == 0:
        raise Decline("SHAPE", f"the {what} {name} is empty: its shape is {list(array.shape)}")
    require_finite(array, f"the {what} {name}")
    return lifted(array)


def optional(node: ir.Node, index: int, what: str) -> Weight | None:
    absent = len(node.inputs) <= index or node.inputs[index] is None
    return None if absent else weights(node, index, what)


def source(node: ir.Node, index: int = 0) -> ir.Value:
    value = node.inputs[index]
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


def window(node: ir.Node, kernel: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """(strides, dilations, begin, end) of a Conv or pool, auto_pad resolved."""
    axes = len(kernel)
    strides, dilations = ints(node, "strides", (1,) * axes), ints(node, "dilations", (1,) * axes)
    pads = ints(node, "pads", (0,) * (2 * axes))
    given = (strides, dilations, pads)
    fitting = [len(some) for some in given] == [axes, axes, 2 * axes]
    if not fitting or min((*strides, *dilations, *kernel), default=1) < 1:
        raise Decline("ATTRIBUTE", f"strides, dilations, pads {given} do not fit a kernel {kernel}")
    mode = node.attributes.get("auto_pad")
    text = "NOTSET" if mode is None else str(mode.value)
    if text == "NOTSET":
        return strides, dilations, pads[:axes], pads[axes:]
    if text == "VALID":
        return strides, dilations, (0,) * axes, (0,) * axes
    if text not in ("SAME_UPPER", "SAME_LOWER"):
        raise Decline("ATTRIBUTE", f"auto_pad is {text}, which the standard does not know")
    sizes = spatial(source(node))
    begin, end = [], []
    for k, d, s, size in zip(kernel, dilations, strides, sizes, strict=True):
        if size is None and s > 1:
            raise Decline("AUTO-PAD", f"{text} with stride {s} pads by the unknown input size")
        last = 0 if size is None else (-(-size // s) - 1) * s - size + 1
        total = max(d * (k - 1) + last, 0)
        less, more = total // 2, total - total // 2
        begin.append(less if text == "SAME_UPPER" else more)
        end.append(more if text == "SAME_UPPER" else less)
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
    sizes = known(data)
    shape = (1,) * (len(sizes) - operand.ndim) + operand.shape
    varies = [axis for axis, dim in enumerate(shape) if dim != 1]
    last = varies == [len(sizes) - 1]
    if len(shape) != len(sizes) or (varies not in ([], [1]) and not last):
        raise Decline("NOT-PER-CHANNEL", f"a constant of shape {operand.shape} is not per channel")
    axes = 0 if last else len(sizes) - 2 if varies else either_axes(data)
    count = channels(data, axes)
    if operand.size not in (1, count):
        raise Decline("NOT-PER-CHANNEL", f"{operand.size} constants would widen {count} channels")
    return np.broadcast_to(operand.reshape(-1).astype(np.float64), (count,)), axes


def scaled(data: ir.Value, factor: float = 1.0) -> Applied:
    """factor * data."""
    axes = either_axes(data)
    return Applied(data, diagonal(np.full(channels(data, axes), factor), None, axes))
