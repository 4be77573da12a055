"""Operators that only give the axes of a tensor other sizes: no two of them behind each other.

    Squeeze(Unsqueeze(x))        = x, and whatever else has the shape of x again
    Reshape(view(x))             = Reshape(x)
    Unsqueeze(Unsqueeze(x))      = Unsqueeze(x), and so of two Squeezes
    view(view(x))                = Reshape(x) where one constant says the sizes
    ReduceMean(x) of sizes of 1  = x, or Squeeze(x)

A view is a Flatten, Reshape, Squeeze or Unsqueeze; next to one, so is a Transpose that only moves
axes of size 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from flatfold.frontend.canonicalization.edit import (
    Insertion,
    add_constant,
    axes_of,
    int_attribute,
    perm_of,
    replace_with_identity,
)
from flatfold.frontend.canonicalization.symbolic_dims import Shapes, Size, constant_of

_VIEWS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
_REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")
_AXES_ARE_INPUTS = 13  # the opset from which on the axes of Squeeze are


def canonicalize_reductions(graph: ir.Graph, shapes: Shapes, version: int) -> bool:
    """Replace each mean, sum or extreme of single elements by a Squeeze; whether any was.

    One that keeps the axes returns its input.
    """
    changed = False
    for node in graph:
        sizes = shapes.sizes(node.inputs[0]) if node.inputs else None
        if node.op_type not in _REDUCTIONS or node.domain != "" or sizes is None:
            continue
        axes = axes_of(node, len(sizes))
        if not axes or any(sizes[axis] != 1 for axis in axes):
            continue
        _squeeze(node, axes, shapes, version)
        changed = True
    return changed


def _squeeze(node: ir.Node, axes: Sequence[int], shapes: Shapes, version: int) -> None:
    """Replace a reduction of `axes` of size 1."""
    data = node.inputs[0]
    assert data is not None
    if int_attribute(node, "keepdims", 1):
        replace_with_identity(node, data)
        return
    insertion, sizes = Insertion(node, data), shapes.sizes(node.outputs[0])
    if version < _AXES_ARE_INPUTS:
        insertion.replace(insertion.add("Squeeze", [data], sizes, {"axes": list(axes)}))
        return
    operand = insertion.integers("axes", axes)
    insertion.replace(insertion.add("Squeeze", [data, operand], sizes))


def canonicalize_views(graph: ir.Graph, shapes: Shapes) -> bool:
    """Replace each view of a view by one view, or by none; return whether any was."""
    changed = False
    for node in graph:
        if len(node.outputs) == 1 and _is_view(node, shapes):
            changed |= _undone(node, shapes) or _joined(node, shapes)
    return changed


def _is_view(node: ir.Node, shapes: Shapes) -> bool:
    if node.domain != "" or not node.inputs or node.inputs[0] is None:
        return False
    return node.op_type in _VIEWS or (node.op_type == "Transpose" and _moves_ones(node, shapes))


def _moves_ones(transpose: ir.Node, shapes: Shapes) -> bool:
    """Whether the axes that are not of size 1 stay in order."""
    perm, sizes = perm_of(transpose), shapes.sizes(transpose.inputs[0])
    if perm is None or sizes is None or sorted(perm) != list(range(len(sizes))):
        return False
    moved = [axis for axis in perm if sizes[axis] != 1]
    return moved == sorted(moved)


def _undone(node: ir.Node, shapes: Shapes) -> bool:
    """Replace `node` by a value before it that has the same shape and elements."""
    after = shapes.sizes(node.outputs[0])
    if after is None or None in after:
        return False
    for value in _before(node, shapes):
        if shapes.sizes(value) == after:
            replace_with_identity(node, value)
            return True
    return False


def _before(node: ir.Node, shapes: Shapes) -> Iterator[ir.Value]:
    """What `node` is a view of, what that is a view of, and so on."""
    maker: ir.Node | None = node
    while maker is not None and len(maker.outputs) == 1 and _is_view(maker, shapes):
        value = maker.inputs[0]
        assert value is not None
        yield value
        maker = value.producer()


def _joined(node: ir.Node, shapes: Shapes) -> bool:
    """Let `node` be a view of what the view before it is of."""
    first = None if node.inputs[0] is None else node.inputs[0].producer()
    if first is None or len(first.outputs) != 1 or not _is_view(first, shapes):
        return False
    if node.op_type == "Reshape" and _has_whole_target(node):
        node.replace_input_with(0, first.inputs[0])
        return True
    middle = first.outputs[0]
    if first.graph is not node.graph or middle.is_graph_output() or len(middle.uses()) != 1:
        return False
    axes = _same_kind(first, node, shapes)
    if axes is not None:
        _set_axes(node, first, axes)
        return True
    return _reshape(node, first, shapes)


def _has_whole_target(reshape: ir.Node) -> bool:
    """Whether its operand is constant and names no size of what it reads."""
    target = constant_of(reshape.inputs[1]) if len(reshape.inputs) > 1 else None
    return target is not None and not np.any(target == 0)  # 0: such a size, or no elements


def _same_kind(first: ir.Node, second: ir.Node, shapes: Shapes) -> list[int] | None:
    """The axes of one Squeeze or Unsqueeze that does what two do."""
    before, after = shapes.sizes(first.inputs[0]), shapes.sizes(second.outputs[0])
    if first.op_type != second.op_type or before is None or after is None:
        return None
    if first.op_type == "Squeeze":
        one = axes_of(first, len(before))
        two = None if one is None else axes_of(second, len(before) - len(one))
        return None if one is None or two is None else _with_others(one, two, len(before))
    if first.op_type == "Unsqueeze":
        two = axes_of(second, len(after))
        one = None if two is None else axes_of(first, len(after) - len(two))
        return None if one is None or two is None else _with_others(two, one, len(after))
    return None


def _with_others(axes: Sequence[int], others: Sequence[int], rank: int) -> list[int]:
    """`axes` of a tensor, and `others` of it that count without these."""
    rest = [axis for axis in range(rank) if axis not in axes]
    return sorted([*axes, *(rest[axis] for axis in others)])


def _set_axes(node: ir.Node, first: ir.Node, axes: Sequence[int]) -> None:
    node.replace_input_with(0, first.inputs[0])
    if "axes" in node.attributes:
        node.attributes["axes"] = ir.AttrInt64s("axes", axes)
        return
    assert isinstance(node.graph, ir.Graph)
    name = f"{node.outputs[0].name}_axes"
    operand = add_constant(node.graph, name, np.array(axes, dtype=np.int64))
    node.replace_input_with(1, operand)


def _reshape(node: ir.Node, first: ir.Node, shapes: Shapes) -> bool:
    """Replace both by a Reshape, where a constant says the sizes."""
    data, after = first.inputs[0], shapes.sizes(node.outputs[0])
    before = shapes.sizes(data)
    target = None if before is None or after is None else _target(before, after)
    if data is None or target is None:
        return False
    insertion = Insertion(node, node.outputs[0])
    insertion.replace(insertion.add("Reshape", [data, insertion.integers("shape", target)], after))
    return True


def _target(before: Sequence[Size], after: Sequence[Size]) -> list[int] | None:
    """The operand of a Reshape from sizes `before` to `after`; None if there is no constant one.

    0 stands for a size that stays where it is and -1 for one other size, never both: of a tensor
    without elements, -1 says nothing where a 0 stands for a size of 0.
    """
    if 0 in after:
        return None
    target = [size if isinstance(size, int) else -1 for size in after]
    if target.count(-1) <= 1:
        return target
    kept = zip(after, [*before, *[None] * len(after)], strict=False)
    target = [a if isinstance(a, int) else 0 if a is not None and a == b else -1 for a, b in kept]
    return None if -1 in target else target
