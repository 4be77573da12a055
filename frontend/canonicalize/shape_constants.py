"""Shape arithmetic comes to an end: what is known becomes constants and declared shapes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from flatfold.frontend.canonicalize.edit import constant, shape_of
from flatfold.frontend.canonicalize.symbolic_dims import Facts, Size, constant_of

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


_TARGET = {"ConstantOfShape": 0, "Expand": 1}


def settle_targets(graph: ir.Graph, facts: Facts) -> bool:
    """Let every target that is computed be a Concat of such sizes and constants.

    For Expand and ConstantOfShape, where each size is known by number or name. Needs opset 15.
    Whether there were any others.
    """
    writer = _Writer(graph)
    for node in graph:
        at = _TARGET.get(node.op_type) if node.domain == "" else None
        known = None if at is None else facts.of(node.inputs[at])
        if at is None or known is None or known.items is None or known.items.ndim != 1:
            continue
        sizes, target = tuple(known.items.tolist()), node.inputs[at]
        if target is None or constant_of(target) is not None or _is_direct(target, graph):
            continue
        named = [size for size in sizes if not isinstance(size, int)]
        if named and all(size in writer.origins for size in named):
            node.replace_input_with(at, writer.target(sizes))
    return writer.insert()


class _Writer:
    def __init__(self, graph: ir.Graph) -> None:
        self.origins = {
            size.value: (value, axis)
            for value in graph.inputs
            for axis, size in enumerate(value.shape or ())
            if not isinstance(size, int) and size.value
        }
        self._graph = graph
        self._made: dict[tuple[Size, ...], ir.Value] = {}
        self._nodes: list[ir.Node] = []

    def target(self, sizes: tuple[Size, ...]) -> ir.Value:
        """A value that is `sizes`; the same one each time."""
        if sizes not in self._made:
            parts = [self._part(part) for part in _parts(sizes)]
            whole = parts[0] if len(parts) == 1 else self._add("Concat", parts, len(sizes), axis=0)
            self._made[sizes] = whole
        return self._made[sizes]

    def _part(self, part: tuple[Size, ...]) -> ir.Value:
        numbers = [size for size in part if isinstance(size, int)]
        if numbers:
            return constant(self._graph, "sizes", np.array(numbers, dtype=np.int64))
        if part not in self._made:
            value, axis = self.origins[str(part[0])]
            self._made[part] = self._add("Shape", [value], 1, start=axis, end=axis + 1)
        return self._made[part]

    def _add(
        self, operator: str, inputs: Iterable[ir.Value], count: int, **attributes: int
    ) -> ir.Value:
        node = ir.node(operator, list(inputs), attributes)
        node.outputs[0].name = "sizes"
        node.outputs[0].type = ir.TensorType(ir.DataType.INT64)
        node.outputs[0].shape = ir.Shape([count])
        self._nodes.append(node)
        return node.outputs[0]

    def insert(self) -> bool:
        """Put what was written in front of the graph; whether there was anything."""
        if self._nodes:
            self._graph.insert_before(self._graph[0], self._nodes)
        return bool(self._nodes)


def _parts(sizes: tuple[Size, ...]) -> list[tuple[Size, ...]]:
    """Numbers in a row together, each name alone."""
    parts: list[tuple[Size, ...]] = []
    for size in sizes:
        if isinstance(size, int) and parts and isinstance(parts[-1][0], int):
            parts[-1] = (*parts[-1], size)
        else:
            parts.append((size,))
    return parts


def _is_direct(target: ir.Value, graph: ir.Graph) -> bool:
    made = target.producer()
    if made is None or made.domain != "":
        return target in graph.inputs
    if made.op_type == "Shape":
        return made.inputs[0] in graph.inputs
    values = made.inputs if made.op_type == "Concat" else ()
    return bool(values) and all(
        constant_of(value) is not None or (value is not None and _is_size(value, graph))
        for value in values
    )


def _is_size(value: ir.Value, graph: ir.Graph) -> bool:
    made = value.producer()
    return made is not None and made.op_type == "Shape" and made.inputs[0] in graph.inputs
