"""Lists of channels picked, and channels interleaved, in the words that exporters share."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from flatfold.frontend.editing import Insertion, perm_of, resized, source_of
from flatfold.frontend.shape_rules import number
from flatfold.frontend.shape_values import Facts, Size, constant_of

__all__ = ["settle_picks", "settle_stacks"]


def settle_picks(graph: ir.Graph, facts: Facts) -> bool:
    """GatherND along one axis, alone or between Transposes, becomes Gather; whether any did."""
    changed = False
    for node in graph:
        if node.op_type != "GatherND" or node.domain != "" or number(node, "batch_dims", 0):
            continue
        sizes, indices = facts.sizes(node.inputs[0]), facts.integers(node.inputs[1])
        if not sizes or indices is None or indices.ndim != 2 or indices.shape[1] != 1:
            continue
        _settle_pick(node, sizes, indices[:, 0].tolist())
        changed = True
    return changed


def _settle_pick(node: ir.Node, sizes: Sequence[Size], picked: Sequence[int]) -> None:
    data = node.inputs[0]
    assert data is not None
    insertion = Insertion(node, data)
    size = sizes[0]
    if isinstance(size, int):
        picked = [i + size if i < 0 else i for i in picked]
    indices = insertion.integers("indices", picked)
    result_sizes = resized(sizes, 0, len(picked))
    turn = source_of(data, "Transpose")
    perm = None if turn is None else perm_of(turn)
    if turn is None or turn.inputs[0] is None or perm is None:
        gathered = insertion.add("Gather", [data, indices], result_sizes, {"axis": 0})
        insertion.replace(gathered)
        return
    before = [result_sizes[perm.index(axis)] for axis in range(len(perm))]
    gathered = insertion.add("Gather", [turn.inputs[0], indices], before, {"axis": perm[0]})
    insertion.replace(insertion.add("Transpose", [gathered], result_sizes, {"perm": perm}))


def settle_stacks(graph: ir.Graph, facts: Facts) -> bool:
    """Tensors stacked along a new axis that a Reshape then merges with the one before it.

    That interleaves them: Concat along the axis before it, and a shuffle. If it is merged with
    the axis behind it, they are just concatenated. Whether there were any.
    """
    changed = False
    for node in graph:
        if node.op_type != "Reshape" or node.domain != "" or node.inputs[0] is None:
            continue
        stack = source_of(node.inputs[0], "Concat")
        parts = None if stack is None else _stacked(stack, facts)
        sizes, after = facts.sizes(node.inputs[0]), facts.sizes(node.outputs[0])
        if stack is None or parts is None or sizes is None or after is None:
            continue
        axis = number(stack, "axis", 0) % len(sizes)
        if axis > 0 and _merges(sizes, after, axis - 1):
            changed |= _interleave(node, parts, axis, sizes)
        elif axis + 1 < len(sizes) and _merges(sizes, after, axis):
            insertion = Insertion(node, node.inputs[0])
            insertion.replace(insertion.add("Concat", parts, after, {"axis": axis}))
            changed = True
    return changed


def _stacked(stack: ir.Node, facts: Facts) -> list[ir.Value] | None:
    """What is stacked, before each got an axis of its own."""
    sizes = facts.sizes(stack.outputs[0])
    if sizes is None or len(stack.inputs) < 2 or "axis" not in stack.attributes:
        return None
    axis, parts = number(stack, "axis", 0) % len(sizes), []
    for value in stack.inputs:
        made = source_of(value, "Unsqueeze")
        part = None if made is None else _part(made, axis, len(sizes))
        if part is None:
            return None
        parts.append(part)
    return parts


def _part(made: ir.Node, axis: int, rank: int) -> ir.Value | None:
    axes = constant_of(made.inputs[1]) if len(made.inputs) == 2 else None
    if axes is None or axes.size != 1 or int(axes.item()) % rank != axis:
        return None
    return made.inputs[0]


def _merges(sizes: Sequence[Size], after: Sequence[Size], axis: int) -> bool:
    """Whether `after` is `sizes` with `axis` and the next one as one axis."""
    first, second = sizes[axis : axis + 2]
    if not isinstance(first, int) or not isinstance(second, int) or None in after:
        return False
    return [*sizes[:axis], first * second, *sizes[axis + 2 :]] == list(after)


def _interleave(node: ir.Node, parts: Sequence[ir.Value], axis: int, sizes: Sequence[Size]) -> bool:
    before, each, count, behind = sizes[: axis - 1], sizes[axis - 1], len(parts), sizes[axis + 1 :]
    assert isinstance(each, int) and node.inputs[0] is not None
    target = [size if isinstance(size, int) and size else 0 for size in before]
    target += [count, each]
    target += [size if isinstance(size, int) else -1 for size in behind]
    if target.count(-1) > 1 or 0 in sizes:
        return False
    if -1 not in target and before and target[0] == 0:
        target[0] = -1
    insertion = Insertion(node, node.inputs[0])
    joined = insertion.add("Concat", parts, [*before, count * each, *behind], {"axis": axis - 1})
    split = insertion.integers("shape", target)
    viewed = insertion.add("Reshape", [joined, split], [*before, count, each, *behind])
    perm = list(range(len(sizes)))
    perm[axis - 1], perm[axis] = axis, axis - 1
    node.replace_input_with(0, insertion.add("Transpose", [viewed], sizes, {"perm": perm}))
    return True
