"""Sizes that only a run knows, taken straight from the inputs of the graph."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from flatfold.frontend.editing import constant
from flatfold.frontend.shape_values import Facts, Size, constant_of

__all__ = ["settle_targets"]

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
