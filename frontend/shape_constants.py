"""Shape arithmetic comes to an end: what is known becomes constants and declared shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from flatfold.frontend.editing import constant, shape_of
from flatfold.frontend.shape_values import Facts, Size, constant_of

__all__ = ["settle_integers", "settle_reshapes", "settle_shapes"]

_TYPES = {
    ir.DataType.INT64: np.int64,
    ir.DataType.INT32: np.int32,
    ir.DataType.BOOL: np.bool_,
}


def settle_shapes(facts: Facts) -> bool:
    """Declare the sizes that are known better than the graph says; whether any were."""
    changed = False
    for value, known in facts.known.items():
        sizes = facts.sizes(value) or known.shape
        shape = shape_of(sizes)
        if value.shape is None or (value.shape != shape and not value.is_graph_output()):
            value.shape = shape
            changed = True
    return changed


def settle_integers(graph: ir.Graph, facts: Facts) -> bool:
    """Make constants of the integers of which every element is known; whether there were any."""
    changed = False
    for value in list(facts.known):
        array = facts.integers(value)
        if array is None or value.dtype not in _TYPES or value.is_graph_output():
            continue
        typed: NDArray[Any] = array.astype(_TYPES[value.dtype])
        if not value.uses() or not np.array_equal(typed, array):
            continue
        settled = constant(graph, f"{value.name}_known", typed)
        ir.convenience.replace_all_uses_with(value, settled)
        changed = True
    return changed


def settle_reshapes(graph: ir.Graph, facts: Facts) -> bool:
    """Make constants of computed target shapes, with 0 for a size kept and -1 for another.

    Whether there were any.
    """
    changed = False
    for node in graph:
        if node.op_type != "Reshape" or node.domain != "" or len(node.inputs) != 2:
            continue
        target = node.inputs[1]
        if target is None or target.is_graph_input() or constant_of(target) is not None:
            continue
        sizes = _by_shape(node) or _by_target(node, facts)
        if sizes is None:
            continue
        name = f"{node.outputs[0].name}_shape"
        node.replace_input_with(1, constant(graph, name, np.array(sizes, dtype=np.int64)))
        changed = True
    return changed


def _by_shape(node: ir.Node) -> list[int] | None:
    """The target, where the shape of the output leaves one size open."""
    shape = node.outputs[0].shape
    if shape is None:
        return None
    sizes = [size if isinstance(size, int) else -1 for size in shape]
    return None if sizes.count(-1) != 1 or 0 in sizes else sizes


def _by_target(node: ir.Node, facts: Facts) -> list[int] | None:
    """The target, where all its unknown sizes but one are sizes that the input has there."""
    target, before = facts.of(node.inputs[1]), facts.sizes(node.inputs[0])
    if target is None or target.items is None or target.items.ndim != 1:
        return None
    if before is None or 0 in before:
        return None  # where there are no elements, -1 may stand for anything
    if "allowzero" in node.attributes and node.attributes["allowzero"].as_int():
        return None
    sizes = [_kept(size, before[i : i + 1]) for i, size in enumerate(target.items)]
    return None if sizes.count(-1) > 1 else sizes


def _kept(size: Size, there: tuple[Size, ...]) -> int:
    if isinstance(size, int):
        return size
    return 0 if size is not None and (size,) == there else -1
