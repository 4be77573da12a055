"""A tensor split into a sequence of which parts are taken: a Split."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from flatfold.frontend.editing import constant, resized, shape_of, stand_in
from flatfold.frontend.shape_rules import number
from flatfold.frontend.shape_values import Facts

__all__ = ["settle_sequences"]


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
