"""The least size that an open axis can have, by the nodes in front of it."""

from __future__ import annotations

import contextlib

import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.reading.node import constant, dims_of, number, source, spatial_sizes, window
from flatfold.passes.stencil.geometry import Ints

# They pass on the sizes of the map that they read.
SAME_SIZES = ("BatchNormalization", "Clip", "Identity", "LeakyRelu", "Relu")
# Their operands are repeated to one size, which is no less than that of any.
ELEMENTWISE = ("Add", "Div", "Mul", "Sub", "Sum")

MOST_STEPS = 24  # from a value back to what its size follows from


def least_sizes(value: ir.Value) -> Ints:
    """The least that each spatial size can be: 1 where it is open, and what Pads in front add.

    A Concat along an axis is as long as its parts are together, a Slice by as much shorter as it
    cuts off, which may be all.
    """
    return _least(value, MOST_STEPS, {})


def _least(value: ir.Value, steps: int, known: dict[ir.Value, Ints]) -> Ints:
    if value in known:
        return known[value]
    sizes = spatial_sizes(value)
    least: Ints = (1,) * len(sizes)
    node = value.producer()
    if None in sizes and steps and node is not None and node.domain == "":
        with contextlib.suppress(Decline):  # of an operand the rank is not known
            least = _behind(node, len(sizes), steps - 1, known)
    pairs = zip(sizes, least, strict=True)
    known[value] = tuple(n if size is None else size for size, n in pairs)
    return known[value]


def _behind(node: ir.Node, axes: int, steps: int, known: dict[ir.Value, Ints]) -> Ints:
    """The least sizes of what `node` makes, which has so many spatial axes."""
    operands = [value for value in node.inputs if value is not None]
    if node.op_type in ELEMENTWISE:
        alike = [value for value in operands if len(dims_of(value)) == axes + 2]
        parts = [_least(value, steps, known) for value in alike] or [(1,) * axes]
        return tuple(map(max, zip(*parts, strict=True)))
    reads = node.op_type in ("Concat", "Conv", "Pad", "Slice", *SAME_SIZES)
    if not operands or not reads or len(dims_of(operands[0])) != axes + 2:
        return (1,) * axes
    if node.op_type == "Concat":
        parts = [_least(value, steps, known) for value in operands]
        joined = int(number(node, "axis", 0)) % (axes + 2) - 2
        columns = enumerate(zip(*parts, strict=True))
        return tuple(sum(sizes) if axis == joined else max(sizes) for axis, sizes in columns)
    first = _least(operands[0], steps, known)
    if node.op_type == "Conv":
        return _convolved(node, first)
    if node.op_type == "Pad":
        return _padded(node, first)
    return _cut(node, first) if node.op_type == "Slice" else first


def _convolved(node: ir.Node, least: Ints) -> Ints:
    """A Conv has no output where its kernel is larger than the padded map."""
    kernel = tuple(size or 1 for size in spatial_sizes(source(node, 1)))
    strides, dilations, begin, end = window(node, kernel)
    axes = zip(least, kernel, strides, dilations, begin, end, strict=True)
    return tuple(max((n + b + e - d * (k - 1) - 1) // s + 1, 0) for n, k, s, d, b, e in axes)


def _padded(node: ir.Node, least: Ints) -> Ints:
    pads = constant(node.inputs[1]) if len(node.inputs) in (2, 3) else None  # of all axes
    if pads is None or len(pads) != 2 * len(least) + 4:
        return (0,) * len(least)  # it may cut off pixels
    added = pads.reshape(2, -1).sum(axis=0)[2:]
    return tuple(max(n + int(more), 0) for n, more in zip(least, added, strict=True))


def _cut(node: ir.Node, least: Ints) -> Ints:
    given = [constant(value) for value in node.inputs[1:]]
    if len(given) < 3 or any(array is None for array in given):
        return (0,) * len(least)
    starts, ends, axes, *rest = (a.reshape(-1).tolist() for a in given if a is not None)
    steps = rest[0] if rest else [1] * len(starts)
    left = list(least)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        at = int(axis) % (len(least) + 2) - 2
        if at >= 0:
            left[at] = len(range(*slice(start, end, step).indices(left[at]))) if step == 1 else 0
    return tuple(left)
