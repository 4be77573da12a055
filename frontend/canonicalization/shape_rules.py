"""Partial evaluation of the operators of shape arithmetic: one rule an operator."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from flatfold.frontend.canonicalization.edit import int_attribute
from flatfold.frontend.canonicalization.symbolic_dims import (
    ELEMENTWISE,
    MAX_ELEMENTS,
    Arange,
    KnownTensor,
    Rule,
    Shapes,
    Size,
    bounded,
    broadcast,
    element_count,
)


def _shape(node: ir.Node, shapes: Shapes) -> KnownTensor | None:
    sizes = shapes.sizes(node.inputs[0])
    if sizes is None:
        return None
    start, end = int_attribute(node, "start", 0), int_attribute(node, "end", len(sizes))
    return KnownTensor.of(sizes[start:end])


def _gather(node: ir.Node, shapes: Shapes) -> KnownTensor | None:
    data, indices = shapes.tensor(node.inputs[0]), shapes.integers(node.inputs[1])
    if data is None or data.elements is None or indices is None:
        return None
    return KnownTensor.of(np.take(data.elements, indices, axis=int_attribute(node, "axis", 0)))


def _slice(node: ir.Node, shapes: Shapes) -> KnownTensor | None:
    data, bounds = shapes.tensor(node.inputs[0]), _bounds(node, shapes)
    if data is None or len(bounds) < 2 or bounds[0] is None or bounds[1] is None:
        return None
    starts, ends = bounds[0].tolist(), bounds[1].tolist()
    axes, steps = _optional(bounds, 2, range(len(starts))), _optional(bounds, 3, [1] * len(starts))
    if axes is None or steps is None or any(step != 1 for step in steps):
        return None
    if all(start == 0 for start in starts) and all(end == 2**63 - 1 for end in ends):
        return data
    if data.elements is None:
        return None
    index: list[slice] = [slice(None)] * data.elements.ndim
    for axis, start, end in zip(axes, starts, ends, strict=True):
        index[axis] = slice(start, end)
    return KnownTensor.of(data.elements[tuple(index)])


def _bounds(node: ir.Node, shapes: Shapes) -> list[NDArray[np.int64] | None]:
    """Starts, ends, axes and steps of a Slice: inputs, and before opset 10 attributes."""
    if "starts" not in node.attributes:
        return [shapes.integers(value) for value in node.inputs[1:]]
    names = [name for name in ("starts", "ends", "axes") if name in node.attributes]
    return [np.array(node.attributes[name].as_ints(), dtype=np.int64) for name in names]


def _optional(bounds: Sequence[Any], i: int, default: Sequence[int]) -> Sequence[int] | None:
    """Input `i` of the bounds, `default` if there are fewer, None if it is unknown."""
    if i >= len(bounds):
        return default
    return None if bounds[i] is None else list(bounds[i])


def _concat(node: ir.Node, shapes: Shapes) -> KnownTensor | None:
    parts = [shapes.tensor(value) for value in node.inputs]
    if not parts or any(part is None for part in parts):
        return None
    known = [part for part in parts if part is not None]
    axis = int_attribute(node, "axis", 0)
    if all(part.elements is not None for part in known):
        return KnownTensor.of(np.concatenate([part.elements for part in known], axis=axis))
    first = known[0].shape
    if axis not in (-1, len(first) - 1) or any(part.shape != first for part in known):
        return None
    if first[-1] != 1 or not all(len(part.aranges) == 1 and not part.stacked for part in known):
        return None
    aranges = tuple(part.aranges[0] for part in known)
    return KnownTensor((*first[:-1], len(aranges)), aranges=aranges, stacked=True)


def _range(node: ir.Node, shapes: Shapes) -> KnownTensor | None:
    inputs = [known.elements for value in node.inputs if (known := shapes.tensor(value))]
    if len(inputs) != 3 or any(scalar is None or scalar.size != 1 for scalar in inputs):
        return None
    start, limit, step = (scalar.item() for scalar in inputs if scalar is not None)
    if start == 0 and step == 1 and isinstance(limit, str):
        return KnownTensor((limit,), aranges=(Arange(0, 0),))
    values = range(start, limit, step)
    return KnownTensor.of(list(values)) if 0 < len(values) <= MAX_ELEMENTS else None


def _constant_of_shape(node: ir.Node, shapes: Shapes) -> KnownTensor | None:
    sizes = shapes.shape_operand(node.inputs[0])
    if sizes is None:
        return None
    fill = node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else None
    count = element_count(sizes)
    if fill is None or fill.dtype.kind not in "ib" or not count or count > MAX_ELEMENTS:
        return KnownTensor(sizes)
    elements = np.full([int(size or 0) for size in sizes], fill.item(), dtype=np.object_)
    return KnownTensor(sizes, elements)


def _expand(node: ir.Node, shapes: Shapes) -> KnownTensor | None:
    sizes, operand = shapes.sizes(node.inputs[0]), shapes.shape_operand(node.inputs[1])
    if sizes is None or operand is None:
        return None
    shape = broadcast([sizes, operand])
    known, count = shapes.tensor(node.inputs[0]), element_count(shape)
    if known is None:
        return KnownTensor(shape)
    if known.elements is not None and count is not None and count <= MAX_ELEMENTS:
        return KnownTensor.of(np.broadcast_to(known.elements, [int(size or 0) for size in shape]))
    arange, shift = _as_arange(known), len(shape) - len(sizes)
    if arange is None:
        return KnownTensor(shape)
    axis = None if arange.axis is None else arange.axis + shift
    if axis is not None and shape[axis] != sizes[axis - shift]:
        return KnownTensor(shape)
    return KnownTensor(shape, aranges=(Arange(axis, arange.start),))


def _as_arange(known: KnownTensor) -> Arange | None:
    """`known` as one arange, if it is one."""
    if known.elements is None:
        return known.aranges[0] if len(known.aranges) == 1 and not known.stacked else None
    axes = [axis for axis, size in enumerate(known.elements.shape) if size != 1]
    values = known.elements.ravel().tolist()
    if not values or not isinstance(values[0], int) or len(axes) > 1:
        return None
    if values != list(range(values[0], values[0] + len(values))):
        return None
    return Arange(axes[0] if axes else None, values[0])


def _reshape(node: ir.Node, shapes: Shapes) -> KnownTensor | None:
    sizes, operand = shapes.sizes(node.inputs[0]), shapes.shape_operand(node.inputs[1])
    if sizes is None or operand is None:
        return None
    shape = list(operand)
    if not int_attribute(node, "allowzero", 0):
        shape = [sizes[i] if size == 0 else size for i, size in enumerate(shape)]
    if shape.count(-1) == 1:
        shape[shape.index(-1)] = _inferred_size(sizes, [size for size in shape if size != -1])
    return _reshaped(shapes.tensor(node.inputs[0]), tuple(shape))


def _inferred_size(sizes: Sequence[Size], others: Sequence[Size]) -> Size:
    """The size that -1 stands for in a Reshape from `sizes` to `others` and -1."""
    if None in sizes or None in others:
        return None
    names = Counter(size for size in sizes if isinstance(size, str))
    used = Counter(size for size in others if isinstance(size, str))
    total = math.prod(size for size in sizes if isinstance(size, int))
    part = math.prod(size for size in others if isinstance(size, int))
    unused = list((names - used).elements())
    if used - names or not part or total % part:
        return None
    if not unused:
        return total // part
    return unused[0] if len(unused) == 1 and total == part else None


def _reshaped(known: KnownTensor | None, shape: tuple[Size, ...]) -> KnownTensor:
    """`known` with the same elements in the same order, as a tensor of `shape`."""
    if known is None:
        return KnownTensor(shape)
    if known.elements is not None and element_count(shape) == known.elements.size:
        return KnownTensor.of(known.elements.reshape([int(size or 0) for size in shape]))
    old = [axis for axis, size in enumerate(known.shape) if size != 1]
    new = [axis for axis, size in enumerate(shape) if size != 1]
    if len(known.aranges) != 1 or known.stacked:
        return KnownTensor(shape)
    if [known.shape[axis] for axis in old] != [shape[axis] for axis in new]:
        return KnownTensor(shape)
    axis = known.aranges[0].axis
    new_axis = None if axis is None or axis not in old else new[old.index(axis)]
    return KnownTensor(shape, aranges=(Arange(new_axis, known.aranges[0].start),))


def _unsqueeze(node: ir.Node, shapes: Shapes) -> KnownTensor | None:
    sizes, axes = shapes.sizes(node.inputs[0]), _axes(node, shapes)
    if sizes is None or axes is None:
        return None
    rank = len(sizes) + axes.size
    new, old = {int(axis) % rank for axis in axes.flat}, iter(sizes)
    return _reshaped(
        shapes.tensor(node.inputs[0]), tuple(1 if i in new else next(old) for i in range(rank))
    )


def _axes(node: ir.Node, shapes: Shapes) -> NDArray[np.int64] | None:
    """The axes of Squeeze and Unsqueeze: an attribute, and from opset 13 on an input."""
    if "axes" in node.attributes:
        return np.array(node.attributes["axes"].as_ints(), dtype=np.int64)
    return shapes.integers(node.inputs[1])


def _squeeze(node: ir.Node, shapes: Shapes) -> KnownTensor | None:
    sizes = shapes.sizes(node.inputs[0])
    if sizes is None:
        return None
    dropped = {axis for axis, size in enumerate(sizes) if size == 1}
    if "axes" in node.attributes or (len(node.inputs) > 1 and node.inputs[1] is not None):
        axes = _axes(node, shapes)
        if axes is None:
            return None
        dropped = {int(axis) % len(sizes) for axis in axes.flat}
    elif not all(isinstance(size, int) for size in sizes):
        return None  # a symbolic size may be 1
    kept = tuple(size for axis, size in enumerate(sizes) if axis not in dropped)
    return _reshaped(shapes.tensor(node.inputs[0]), kept)


def _cast(node: ir.Node, shapes: Shapes) -> KnownTensor | None:
    known, to = shapes.tensor(node.inputs[0]), int_attribute(node, "to", 0)
    if known is None or known.elements is None:
        return None
    if to == ir.DataType.BOOL:
        return KnownTensor.of(np.frompyfunc(_truth, 1, 1)(known.elements))
    if to not in (ir.DataType.INT32, ir.DataType.INT64):
        return None
    return KnownTensor.of(np.frompyfunc(bounded, 1, 1)(known.elements))


def _truth(size: Size) -> Size:
    return bool(size) if isinstance(size, int) else None


def _size(node: ir.Node, shapes: Shapes) -> KnownTensor | None:
    sizes = shapes.sizes(node.inputs[0])
    count = None if sizes is None else element_count(sizes)
    return None if count is None else KnownTensor.of(bounded(count))


def _elementwise(function: Callable[..., Size]) -> Rule:
    return _elementwise_in(lambda _, *sizes: function(*sizes))


def _elementwise_in(function: Callable[..., Size]) -> Rule:
    """The rule by a function of the shapes and of one element of each operand."""

    def rule(node: ir.Node, shapes: Shapes) -> KnownTensor | None:
        known = [tensor for value in node.inputs if (tensor := shapes.tensor(value)) is not None]
        if len(known) != len(node.inputs):
            return None
        shape = broadcast([tensor.shape for tensor in known])
        count, arguments = element_count(shape), [tensor.elements for tensor in known]
        if any(array is None for array in arguments) or count is None or count > MAX_ELEMENTS:
            return KnownTensor(shape)
        each = np.frompyfunc(functools.partial(function, shapes), len(arguments), 1)
        return KnownTensor.of(each(*[array for array in arguments if array is not None]))

    return rule


RULES: dict[str, Rule] = {
    "Add": _elementwise_in(Shapes.added),
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _elementwise_in(Shapes.quotient),
    "Expand": _expand,
    "Gather": _gather,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _elementwise_in(Shapes.subtracted),
    "Unsqueeze": _unsqueeze,
    **{operator: _elementwise(function) for operator, function in ELEMENTWISE.items()},
}
"""By operator: what is known of its output beside the sizes that `operator_shapes` tells."""
