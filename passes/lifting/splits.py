"""A Split of channels is as many Slices; where nothing came of that, it is one Split again.

The rewrites read one value at a time, and a Slice has only one. While they run, every Split of
channels is opened; those whose parts are all still there afterwards are closed, as they were.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from flatfold.passes.lowering.replacement import Names
from flatfold.passes.remark import REPLACED_KEY

_MAX_PARTS = 1024
"""A Split into more parts stays: a Slice for each would cost more than any rewrite gains."""


@dataclass(frozen=True)
class Opened:
    """A Split that was taken apart: the node as it was, and the Slice for each part in use."""

    split: ir.Node
    slices: dict[int, ir.Node]


def open_splits(graph: ir.Graph, names: Names) -> list[Opened]:
    """Replace each Split of channels into parts of known size by Slices."""
    if names.opset < 10:  # before that the range of a Slice is an attribute
        return []
    splits = [node for node in graph if (node.op_type, node.domain) == ("Split", "")]
    return [_opened(graph, node, names) for node in splits if _parts(node)]


def _parts(node: ir.Node) -> list[int]:
    """Channels of each part; none if the Split is of another axis or of unknown sizes."""
    source, axis = node.inputs[0], node.attributes.get("axis")
    if source is None or source.shape is None or axis is None or len(source.shape) < 2:
        return []
    if len(node.outputs) > _MAX_PARTS:
        return []
    shapes = [value.shape for value in node.outputs]
    if axis.as_int() % len(source.shape) != 1 or any(shape is None for shape in shapes):
        return []
    if any(value is not None and value.is_graph_input() for value in node.inputs[1:]):
        return []  # sizes that a caller may override
    sizes = [shape[1] for shape in shapes if shape is not None]
    counts = [size for size in sizes if isinstance(size, int)]
    return counts if len(counts) == len(sizes) and sum(counts) == source.shape[1] else []


def _opened(graph: ir.Graph, split: ir.Node, names: Names) -> Opened:
    source = split.inputs[0]
    slices: dict[int, ir.Node] = {}
    start = 0
    for index, (value, count) in enumerate(zip(split.outputs, _parts(split), strict=True)):
        if value.uses() or value.is_graph_output():
            ranges = [
                _constant(graph, names.fresh(f"{value.name}.{what}"), number)
                for what, number in (("starts", start), ("ends", start + count), ("axes", 1))
            ]
            node = ir.node("Slice", [source, *ranges], name=f"{split.name or 'split'}_{index}")
            node.metadata_props[REPLACED_KEY] = json.dumps([split.name or ""])
            _take_over(value, node.outputs[0])
            slices[index] = node
        start += count
    graph.insert_before(split, list(slices.values()))
    for index, node in slices.items():
        old, new = split.outputs[index], node.outputs[0]
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    split.replace_input_with(0, None)  # its sizes stay in use, so that they are kept
    graph.remove(split)
    return Opened(split, slices)


def _constant(graph: ir.Graph, name: str, number: int) -> ir.Value:
    tensor = ir.tensor(np.array([number], np.int64), name=name)
    value = ir.Value(
        name=name, shape=ir.Shape([1]), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def _take_over(old: ir.Value, new: ir.Value) -> None:
    """Let `new` be in every respect what `old` was."""
    new.name, new.shape, new.type = old.name, old.shape, old.type
    new.metadata_props.update(old.metadata_props)


def close_splits(graph: ir.Graph, opened: list[Opened]) -> None:
    """Put back each Split of which every part that was read still is."""
    for item in opened:
        nodes = list(item.slices.values())
        sources = {node.inputs[0] for node in nodes if node.graph is graph}
        if len(sources) != 1 or any(node.graph is not graph for node in nodes):
            _forget(graph, item.split)
            continue
        for index, node in item.slices.items():
            _take_over(node.outputs[0], item.split.outputs[index])
        item.split.replace_input_with(0, sources.pop())
        graph.insert_before(nodes[0], item.split)
        for index, node in item.slices.items():
            old, new = node.outputs[0], item.split.outputs[index]
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        ranges = [value for node in nodes for value in node.inputs[1:] if value is not None]
        graph.remove(nodes, safe=True)
        for value in ranges:
            graph.initializers.pop(value.name or "", None)


def _forget(graph: ir.Graph, split: ir.Node) -> None:
    """Let go of the sizes of a Split that is gone for good."""
    for index, value in enumerate(split.inputs):
        split.replace_input_with(index, None)
        if value is not None and not (value.uses() or value.is_graph_output()):
            graph.initializers.pop(value.name or "", None)
