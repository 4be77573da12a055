"""Lists of channels picked, and channels interleaved, in the words that exporters share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from flatfold.frontend.canonicalize.edit import (
    Insertion,
    constant,
    perm_of,
    resized,
    shape_of,
    source_of,
    stand_in,
)
from flatfold.frontend.canonicalize.shape_rules import number
from flatfold.frontend.canonicalize.symbolic_dims import Facts, Size, constant_of


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


def settle_sequences(graph: ir.Graph, facts: Facts) -> bool:
    """Of every SplitToSequence of known sizes, read only at known positions; whether any was."""
    changed = False
    for node in graph:
        if node.op_type != "SplitToSequence" or node.domain != "" or len(node.inputs) != 2:
            continue
        parts = _parts(node, facts)
        taken = None if parts is None else _taken(node, len(parts), facts)
        if parts is not None and taken is not None:
            _settle(node, parts, taken, facts)
            changed = True
    return changed


def _parts(node: ir.Node, facts: Facts) -> list[int] | None:
    """The sizes of the parts."""
    sizes, split = facts.sizes(node.inputs[0]), facts.integers(node.inputs[1])
    if not sizes or split is None or not split.size:
        return None
    whole = sizes[number(node, "axis", 0)]
    if not isinstance(whole, int) or whole < 1 or split.min() < 1:
        return None
    if split.ndim:
        return split.tolist() if split.ndim == 1 and split.sum() == whole else None
    part = int(split)
    return [min(part, whole - start) for start in range(0, whole, part)]


def _taken(node: ir.Node, count: int, facts: Facts) -> list[tuple[ir.Node, int]] | None:
    """The readers of the sequence, all in the same graph, and the position that each takes."""
    sequence, taken = node.outputs[0], []
    if sequence.is_graph_output():
        return None
    for use in sequence.uses():
        reader, graph = use.node, use.node.graph
        if reader.op_type != "SequenceAt" or reader.domain != "" or graph is not node.graph:
            return None
        position = facts.integers(reader.inputs[1])
        if position is None or position.size != 1 or not -count <= position.item() < count:
            return None
        taken.append((reader, position.item() % count))
    return taken


def _settle(
    node: ir.Node, parts: list[int], taken: list[tuple[ir.Node, int]], facts: Facts
) -> None:
    graph, data = node.graph, node.inputs[0]
    sizes = facts.sizes(data)
    assert isinstance(graph, ir.Graph) and data is not None and sizes is not None
    axis = number(node, "axis", 0) % len(sizes)
    split = constant(graph, f"{node.outputs[0].name}_sizes", np.array(parts, dtype=np.int64))
    made = ir.node("Split", [data, split], {"axis": axis}, num_outputs=len(parts))
    made.metadata_props.update(node.metadata_props)
    for output, part in zip(made.outputs, parts, strict=True):
        output.name = f"{node.outputs[0].name}_part"
        output.type, output.shape = data.type, shape_of(resized(sizes, axis, part))
    graph.insert_before(node, made)
    for reader, position in taken:
        stand_in(reader, made.outputs[position])
