"""Reading constants, attributes and shapes off ONNX nodes; Decline where they are not there.

And the two things that an operator may turn out to be: `Applied`, a stencil of one value, or
`Summed`, a signed sum of several.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from flatfold.passes.geometry import Decline, Ints, Sizes
from flatfold.passes.kernels import Weight
from flatfold.passes.stencil import Stencil, diagonal


@dataclass(frozen=True)
class Applied:
    """stencil(source)."""

    source: ir.Value
    stencil: Stencil


@dataclass(frozen=True)
class Summed:
    """sum of sign * value."""

    operands: tuple[tuple[int, ir.Value], ...]


def constant(value: ir.Value | None) -> Weight | None:
    """The array of a constant; None for anything else, an overridable graph input included."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def spatial(value: ir.Value) -> Sizes:
    """Static spatial sizes of an [N, C, ...] value, None where unknown."""
    if value.shape is None:
        raise Decline("SHAPE", f"the rank of {value.name} is unknown")
    if value.shape.rank() < 2:
        raise Decline("SHAPE", f"{value.name} has no batch and channel axes")
    return tuple(dim if isinstance(dim, int) else None for dim in value.shape.dims[2:])


def channels(value: ir.Value) -> int:
    spatial(value)
    dim = value.shape[1] if value.shape is not None else None
    if not isinstance(dim, int):
        raise Decline("SHAPE", f"the number of channels of {value.name} is unknown")
    return dim


def weights(node: ir.Node, index: int, what: str) -> Weight:
    """A constant floating-point operand that must be there."""
    value = node.inputs[index]
    array = constant(value)
    if array is None:
        name = value.name if value is not None else "missing"
        raise Decline("NOT-CONSTANT", f"the {what} {name} is not a constant")
    if not np.issubdtype(array.dtype, np.floating) and array.dtype.name != "bfloat16":
        raise Decline("DTYPE", f"the {what} is of type {array.dtype}")
    return array


def optional(node: ir.Node, index: int, what: str) -> Weight | None:
    present = len(node.inputs) > index and node.inputs[index] is not None
    return weights(node, index, what) if present else None


def source(node: ir.Node, index: int = 0) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise Decline("NOT-CONSTANT", "the input is missing")
    return value


def ints(node: ir.Node, name: str, default: Ints) -> Ints:
    attribute = node.attributes.get(name)
    return default if attribute is None else tuple(attribute.as_ints())


def number(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.value)


def window(node: ir.Node, kernel: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """(strides, dilations, begin, end) of a Conv or pool, auto_pad resolved."""
    axes = len(kernel)
    strides, dilations = ints(node, "strides", (1,) * axes), ints(node, "dilations", (1,) * axes)
    mode = node.attributes.get("auto_pad")
    text = "NOTSET" if mode is None else mode.as_string()
    if text == "NOTSET":
        pads = ints(node, "pads", (0,) * (2 * axes))
        return strides, dilations, pads[:axes], pads[axes:]
    if text == "VALID":
        return strides, dilations, (0,) * axes, (0,) * axes
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


def per_channel(operand: Weight, data: ir.Value) -> Weight:
    """A constant operand as one number per channel; Decline if it varies along another axis."""
    count, rank = channels(data), len(spatial(data)) + 2
    shape = (1,) * (rank - operand.ndim) + operand.shape
    if len(shape) != rank or any(dim != 1 for i, dim in enumerate(shape) if i != 1):
        raise Decline("NOT-PER-CHANNEL", f"a constant of shape {operand.shape} is not per channel")
    if shape[1] not in (1, count):
        raise Decline("NOT-PER-CHANNEL", f"{shape[1]} constants would widen {count} channels")
    return np.broadcast_to(operand.reshape(-1).astype(np.float64), (count,))


def scaled(data: ir.Value, factor: float = 1.0) -> Applied:
    """factor * data."""
    count, axes = channels(data), len(spatial(data))
    return Applied(data, diagonal(np.full(count, factor), None, axes))
