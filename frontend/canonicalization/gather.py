"""Parts of tensors, selected or joined: as Gather, Split, Concat and channel shuffles.

GatherND(x, [[i], [j], ...])                 = Gather(x, [i, j, ...])
SequenceAt(SplitToSequence(x, sizes), i)     = Split(x, sizes)[i]
stack([x, y], axis), axis merged with next   = Concat([x, y], axis)
stack([x, y], axis), merged with previous    = shuffle(Concat([x, y], axis - 1))
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from flatfold.frontend.canonicalization.edit import (
    Insertion,
    add_constant,
    int_attribute,
    perm_of,
    producer_of,
    replace_with_identity,
    resized,
    shape_of,
)
from flatfold.frontend.canonicalization.symbolic_dims import Shapes, Size, constant_of


def canonicalize_gathers(graph: ir.Graph, shapes: Shapes) -> bool:
    """Replace GatherND along one axis by Gather, with the Transpose before it moved behind.

    Returns whether any was replaced.
    """
    changed = False
    for node in graph:
        if node.op_type != "GatherND" or node.domain != "" or int_attribute(node, "batch_dims", 0):
            continue
        sizes, indices = shapes.sizes(node.inputs[0]), shapes.integers(node.inputs[1])
        if not sizes or indices is None or indices.ndim != 2 or indices.shape[1] != 1:
            continue
        _gather(node, sizes, indices[:, 0].tolist())
        changed = True
    return changed


def _gather(node: ir.Node, sizes: Sequence[Size], positions: Sequence[int]) -> None:
    data = node.inputs[0]
    assert data is not None
    insertion = Insertion(node, data)
    size = sizes[0]
    if isinstance(size, int):
        positions = [i + size if i < 0 else i for i in positions]
    indices = insertion.integers("indices", positions)
    result_sizes = resized(sizes, 0, len(positions))
    transpose = producer_of(data, "Transpose")
    perm = None if transpose is None else perm_of(transpose)
    if transpose is None or transpose.inputs[0] is None or perm is None:
        gathered = insertion.add("Gather", [data, indices], result_sizes, {"axis": 0})
        insertion.replace(gathered)
        return
    before = [result_sizes[perm.index(axis)] for axis in range(len(perm))]
    gathered = insertion.add("Gather", [transpose.inputs[0], indices], before, {"axis": perm[0]})
    insertion.replace(insertion.add("Transpose", [gathered], result_sizes, {"perm": perm}))


def canonicalize_stacks(graph: ir.Graph, shapes: Shapes) -> bool:
    """Replace tensors stacked along a new axis that a Reshape merges with a neighbor.

    Merged with the axis after it, the tensors are concatenated. Merged with the axis before it,
    they are interleaved: a Concat along that axis, and a shuffle. Returns whether any was.
    """
    changed = False
    for node in graph:
        if node.op_type != "Reshape" or node.domain != "" or node.inputs[0] is None:
            continue
        stack = producer_of(node.inputs[0], "Concat")
        parts = None if stack is None else _stacked(stack, shapes)
        sizes, after = shapes.sizes(node.inputs[0]), shapes.sizes(node.outputs[0])
        if stack is None or parts is None or sizes is None or after is None:
            continue
        axis = int_attribute(stack, "axis", 0) % len(sizes)
        if axis > 0 and _merges(sizes, after, axis - 1):
            changed |= _interleave(node, parts, axis, sizes)
        elif axis + 1 < len(sizes) and _merges(sizes, after, axis):
            insertion = Insertion(node, node.inputs[0])
            insertion.replace(insertion.add("Concat", parts, after, {"axis": axis}))
            changed = True
    return changed


def _stacked(stack: ir.Node, shapes: Shapes) -> list[ir.Value] | None:
    """The tensors that `stack`, a Concat of Unsqueezes, joins along a new axis."""
    sizes = shapes.sizes(stack.outputs[0])
    if sizes is None or len(stack.inputs) < 2 or "axis" not in stack.attributes:
        return None
    axis, parts = int_attribute(stack, "axis", 0) % len(sizes), []
    for value in stack.inputs:
        unsqueeze = producer_of(value, "Unsqueeze")
        part = None if unsqueeze is None else _unsqueezed(unsqueeze, axis, len(sizes))
        if part is None:
            return None
        parts.append(part)
    return parts


def _unsqueezed(unsqueeze: ir.Node, axis: int, rank: int) -> ir.Value | None:
    """The input of an Unsqueeze, if that adds `axis` to a tensor that then has `rank` axes."""
    axes = constant_of(unsqueeze.inputs[1]) if len(unsqueeze.inputs) == 2 else None
    if "axes" in unsqueeze.attributes:  # before opset 13
        axes = np.array(unsqueeze.attributes["axes"].as_ints())
    if axes is None or axes.size != 1 or int(axes.item()) % rank != axis:
        return None
    return unsqueeze.inputs[0]


def _merges(sizes: Sequence[Size], after: Sequence[Size], axis: int) -> bool:
    """Whether `after` is `sizes` with `axis` and the next one as one axis."""
    first, second = sizes[axis : axis + 2]
    if not isinstance(first, int) or not isinstance(second, int) or None in after:
        return False
    return [*sizes[:axis], first * second, *sizes[axis + 2 :]] == list(after)


def _interleave(node: ir.Node, parts: Sequence[ir.Value], axis: int, sizes: Sequence[Size]) -> bool:
    """Concat, Reshape and Transpose in front of a Reshape that merges `axis` with the one before.

    `sizes` is the shape of the stack. Returns False where -1 would have to stand for two sizes.
    """
    before, each, count, after = sizes[: axis - 1], sizes[axis - 1], len(parts), sizes[axis + 1 :]
    assert isinstance(each, int) and node.inputs[0] is not None
    operand = [size if isinstance(size, int) and size else 0 for size in before]
    operand += [count, each]
    operand += [size if isinstance(size, int) else -1 for size in after]
    if operand.count(-1) > 1 or 0 in sizes:
        return False
    if -1 not in operand and before and operand[0] == 0:
        operand[0] = -1
    insertion = Insertion(node, node.inputs[0])
    joined = insertion.add("Concat", parts, [*before, count * each, *after], {"axis": axis - 1})
    shape = insertion.integers("shape", operand)
    split = insertion.add("Reshape", [joined, shape], [*before, count, each, *after])
    perm = list(range(len(sizes)))
    perm[axis - 1], perm[axis] = axis, axis - 1
    node.replace_input_with(0, insertion.add("Transpose", [split], sizes, {"perm": perm}))
    return True


def canonicalize_sequences(graph: ir.Graph, shapes: Shapes) -> bool:
    """Replace SplitToSequence by Split where sizes and the positions read are known.

    Returns whether any was replaced.
    """
    changed = False
    for node in graph:
        if node.op_type != "SplitToSequence" or node.domain != "" or len(node.inputs) != 2:
            continue
        parts = _parts(node, shapes)
        readers = None if parts is None else _readers(node, len(parts), shapes)
        if parts is not None and readers is not None:
            _split(node, parts, readers, shapes)
            changed = True
    return changed


def _parts(node: ir.Node, shapes: Shapes) -> list[int] | None:
    """The sizes of the parts that a SplitToSequence returns."""
    sizes, split = shapes.sizes(node.inputs[0]), shapes.integers(node.inputs[1])
    if not sizes or split is None or not split.size:
        return None
    whole = sizes[int_attribute(node, "axis", 0)]
    if not isinstance(whole, int) or whole < 1 or split.min() < 1:
        return None
    if split.ndim:
        return split.tolist() if split.ndim == 1 and split.sum() == whole else None
    part = int(split)
    return [min(part, whole - start) for start in range(0, whole, part)]


def _readers(node: ir.Node, count: int, shapes: Shapes) -> list[tuple[ir.Node, int]] | None:
    """The SequenceAts that read the sequence with their positions; None for other readers."""
    sequence, readers = node.outputs[0], []
    if sequence.is_graph_output():
        return None
    for use in sequence.uses():
        reader, graph = use.node, use.node.graph
        if reader.op_type != "SequenceAt" or reader.domain != "" or graph is not node.graph:
            return None
        position = shapes.integers(reader.inputs[1])
        if position is None or position.size != 1 or not -count <= position.item() < count:
            return None
        readers.append((reader, position.item() % count))
    return readers


def _split(
    node: ir.Node, parts: list[int], readers: list[tuple[ir.Node, int]], shapes: Shapes
) -> None:
    graph, data = node.graph, node.inputs[0]
    sizes = shapes.sizes(data)
    assert isinstance(graph, ir.Graph) and data is not None and sizes is not None
    axis = int_attribute(node, "axis", 0) % len(sizes)
    name = node.outputs[0].name
    part_sizes = add_constant(graph, f"{name}_sizes", np.array(parts, dtype=np.int64))
    split = ir.node("Split", [data, part_sizes], {"axis": axis}, num_outputs=len(parts))
    split.metadata_props.update(node.metadata_props)
    for output, part in zip(split.outputs, parts, strict=True):
        output.name = f"{name}_part"
        output.type, output.shape = data.type, shape_of(resized(sizes, axis, part))
    graph.insert_before(node, split)
    for reader, position in readers:
        replace_with_identity(reader, split.outputs[position])
