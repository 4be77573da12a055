"""The operators of shape arithmetic, evaluated on what is known of their arguments."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.frontend.canonicalize.symbolic_dims import (
    ELEMENTWISE,
    LIMIT,
    Facts,
    Known,
    Rule,
    Run,
    Size,
    bounded,
    broadcast,
    count_of,
)


def number(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute of `node`."""
    return node.attributes[name].as_int() if name in node.attributes else default


def _shape(node: ir.Node, facts: Facts) -> Known | None:
    sizes = facts.sizes(node.inputs[0])
    if sizes is None:
        return None
    return Known.of(sizes[number(node, "start", 0) : number(node, "end", len(sizes))])


def _gather(node: ir.Node, facts: Facts) -> Known | None:
    data, indices = facts.of(node.inputs[0]), facts.integers(node.inputs[1])
    if data is None or data.items is None or indices is None:
        return None
    return Known.of(np.take(data.items, indices, axis=number(node, "axis", 0)))


def _slice(node: ir.Node, facts: Facts) -> Known | None:
    data = facts.of(node.inputs[0])
    given = [facts.integers(value) for value in node.inputs[1:]]
    if data is None or len(given) < 2 or given[0] is None or given[1] is None:
        return None
    starts, ends = given[0].tolist(), given[1].tolist()
    axes, steps = _given(given, 2, range(len(starts))), _given(given, 3, [1] * len(starts))
    if axes is None or steps is None or any(step != 1 for step in steps):
        return None
    if all(start == 0 for start in starts) and all(end == 2**63 - 1 for end in ends):
        return data
    if data.items is None:
        return None
    index: list[slice] = [slice(None)] * data.items.ndim
    for axis, start, end in zip(axes, starts, ends, strict=True):
        index[axis] = slice(start, end)
    return Known.of(data.items[tuple(index)])


def _given(given: Sequence[Any], i: int, default: Sequence[int]) -> Sequence[int] | None:
    if i >= len(given):
        return default
    return None if given[i] is None else list(given[i])


def _concat(node: ir.Node, facts: Facts) -> Known | None:
    parts = [facts.of(value) for value in node.inputs]
    if not parts or any(part is None for part in parts):
        return None
    known = [part for part in parts if part is not None]
    axis = number(node, "axis", 0)
    if all(part.items is not None for part in known):
        return Known.of(np.concatenate([part.items for part in known], axis=axis))
    first = known[0].shape
    if axis not in (-1, len(first) - 1) or any(part.shape != first for part in known):
        return None
    if first[-1] != 1 or not all(len(part.runs) == 1 and not part.stacked for part in known):
        return None
    runs = tuple(part.runs[0] for part in known)
    return Known((*first[:-1], len(runs)), runs=runs, stacked=True)


def _range(node: ir.Node, facts: Facts) -> Known | None:
    items = [known.items for value in node.inputs if (known := facts.of(value))]
    if len(items) != 3 or any(item is None or item.size != 1 for item in items):
        return None
    start, limit, step = (item.item() for item in items if item is not None)
    if start == 0 and step == 1 and isinstance(limit, str):
        return Known((limit,), runs=(Run(0, 0),))
    values = range(start, limit, step)
    return Known.of(list(values)) if 0 < len(values) <= LIMIT else None


def _constant_of_shape(node: ir.Node, facts: Facts) -> Known | None:
    target = facts.of(node.inputs[0])
    if target is None or target.items is None or target.items.ndim != 1:
        return None
    sizes = tuple(target.items)
    fill = node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else None
    count = count_of(sizes)
    if fill is None or fill.dtype.kind not in "ib" or not count or count > LIMIT:
        return Known(sizes)
    return Known(sizes, np.full(sizes, fill.item(), dtype=object))


def _expand(node: ir.Node, facts: Facts) -> Known | None:
    sizes, target = facts.sizes(node.inputs[0]), facts.of(node.inputs[1])
    if sizes is None or target is None or target.items is None or target.items.ndim != 1:
        return None
    shape = broadcast([sizes, tuple(target.items)])
    known, count = facts.of(node.inputs[0]), count_of(shape)
    if known is None:
        return Known(shape)
    if known.items is not None and count is not None and count <= LIMIT:
        return Known.of(np.broadcast_to(known.items, [int(size or 0) for size in shape]))
    run, shift = _run(known), len(shape) - len(sizes)
    if run is None:
        return Known(shape)
    axis = None if run.axis is None else run.axis + shift
    if axis is not None and shape[axis] != sizes[axis - shift]:
        return Known(shape)
    return Known(shape, runs=(Run(axis, run.start),))


def _run(known: Known) -> Run | None:
    """The tensor as a run, if it is one."""
    if known.items is None:
        return known.runs[0] if len(known.runs) == 1 and not known.stacked else None
    sides = [axis for axis, size in enumerate(known.items.shape) if size != 1]
    values = known.items.ravel().tolist()
    if not values or not isinstance(values[0], int) or len(sides) > 1:
        return None
    if values != list(range(values[0], values[0] + len(values))):
        return None
    return Run(sides[0] if sides else None, values[0])


def _reshape(node: ir.Node, facts: Facts) -> Known | None:
    sizes, target = facts.sizes(node.inputs[0]), facts.of(node.inputs[1])
    if sizes is None or target is None or target.items is None or target.items.ndim != 1:
        return None
    shape = list(target.items)
    if not number(node, "allowzero", 0):
        shape = [sizes[i] if size == 0 else size for i, size in enumerate(shape)]
    if shape.count(-1) == 1:
        shape[shape.index(-1)] = _rest(sizes, [size for size in shape if size != -1])
    return _viewed(facts.of(node.inputs[0]), tuple(shape))


def _rest(sizes: Sequence[Size], others: Sequence[Size]) -> Size:
    """The size that -1 stands for."""
    if None in sizes or None in others:
        return None
    names = Counter(size for size in sizes if isinstance(size, str))
    gone = Counter(size for size in others if isinstance(size, str))
    total = math.prod(size for size in sizes if isinstance(size, int))
    part = math.prod(size for size in others if isinstance(size, int))
    left = list((names - gone).elements())
    if gone - names or not part or total % part:
        return None
    if not left:
        return total // part
    return left[0] if len(left) == 1 and total == part else None


def _viewed(known: Known | None, shape: tuple[Size, ...]) -> Known:
    """`known`, in the same order, as a tensor of `shape`."""
    if known is None:
        return Known(shape)
    if known.items is not None and count_of(shape) == known.items.size:
        return Known.of(known.items.reshape([int(size or 0) for size in shape]))
    old = [axis for axis, size in enumerate(known.shape) if size != 1]
    new = [axis for axis, size in enumerate(shape) if size != 1]
    if len(known.runs) != 1 or known.stacked:
        return Known(shape)
    if [known.shape[axis] for axis in old] != [shape[axis] for axis in new]:
        return Known(shape)
    axis = known.runs[0].axis
    moved = None if axis is None or axis not in old else new[old.index(axis)]
    return Known(shape, runs=(Run(moved, known.runs[0].start),))


def _unsqueeze(node: ir.Node, facts: Facts) -> Known | None:
    sizes, axes = facts.sizes(node.inputs[0]), facts.integers(node.inputs[1])
    if sizes is None or axes is None:
        return None
    rank = len(sizes) + axes.size
    new, old = {int(axis) % rank for axis in axes.flat}, iter(sizes)
    return _viewed(
        facts.of(node.inputs[0]), tuple(1 if i in new else next(old) for i in range(rank))
    )


def _squeeze(node: ir.Node, facts: Facts) -> Known | None:
    sizes = facts.sizes(node.inputs[0])
    if sizes is None:
        return None
    gone = {axis for axis, size in enumerate(sizes) if size == 1}
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = facts.integers(node.inputs[1])
        if axes is None:
            return None
        gone = {int(axis) % len(sizes) for axis in axes.flat}
    elif not all(isinstance(size, int) for size in sizes):
        return None  # a symbolic size may be 1
    kept = tuple(size for axis, size in enumerate(sizes) if axis not in gone)
    return _viewed(facts.of(node.inputs[0]), kept)


def _cast(node: ir.Node, facts: Facts) -> Known | None:
    known, to = facts.of(node.inputs[0]), number(node, "to", 0)
    if known is None or known.items is None or to not in (ir.DataType.INT32, ir.DataType.INT64):
        return None
    return Known.of(np.frompyfunc(bounded, 1, 1)(known.items))


def _elementwise(function: Callable[..., Size]) -> Rule:
    def rule(node: ir.Node, facts: Facts) -> Known | None:
        known = [k for value in node.inputs if (k := facts.of(value)) is not None]
        if len(known) != len(node.inputs):
            return None
        shape = broadcast([k.shape for k in known])
        count = count_of(shape)
        if any(k.items is None for k in known) or count is None or count > LIMIT:
            return Known(shape)
        return Known.of(np.frompyfunc(function, len(known), 1)(*[k.items for k in known]))

    return rule


RULES: dict[str, Rule] = {
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Gather": _gather,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    **{operator: _elementwise(function) for operator, function in ELEMENTWISE.items()},
}
"""By operator, for opset 13 and later: before it, axes and bounds were attributes."""
