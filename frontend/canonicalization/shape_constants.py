"""Shape arithmetic replaced by its results: constants, and sizes of the inputs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from flatfold.frontend.canonicalization.edit import add_constant, int_attribute
from flatfold.frontend.canonicalization.symbolic_dims import Shapes, Size, constant_of

_TO_THE_END = 2**63 - 1


def canonicalize_constants(graph: ir.Graph, shapes: Shapes) -> bool:
    """Replace computed values by constants where all elements are known; whether any was."""
    changed = False
    for value in [*shapes.constants, *shapes.tensors]:
        producer = value.producer()
        if producer is None or producer.graph is not graph:
            continue
        if not value.uses() or value.is_graph_output():
            continue
        array = shapes.array(value)
        if array is not None:
            ir.convenience.replace_all_uses_with(value, add_constant(graph, _take(value), array))
            changed = True
    return changed


def _take(value: ir.Value) -> str:
    """The name of `value`, which gets another one."""
    name, value.name = value.name or "constant", None
    return name


def canonicalize_slices(graph: ir.Graph, shapes: Shapes) -> bool:
    """Write computed ends of Slices as constants, counted from the end; return whether any was.

    [k : k + w] of an axis of w + n is [k : k - n], and of one of w + k is [k :].
    """
    changed = False
    for node in graph:
        if node.op_type != "Slice" or node.domain != "" or len(node.inputs) < 4:
            continue
        operand = node.inputs[2]
        if operand is None or operand.dtype != ir.DataType.INT64:
            continue
        if operand.is_graph_input() or constant_of(operand) is not None:
            continue
        ends = _ends_of(node, shapes)
        if ends is not None:
            name = f"{node.outputs[0].name}_ends"
            node.replace_input_with(2, add_constant(graph, name, np.array(ends, dtype=np.int64)))
            changed = True
    return changed


def _ends_of(node: ir.Node, shapes: Shapes) -> list[int] | None:
    sizes, ends = shapes.sizes(node.inputs[0]), shapes.shape_operand(node.inputs[2])
    axes, steps = shapes.integers(node.inputs[3]), np.ones(1, np.int64)
    if len(node.inputs) > 4 and node.inputs[4] is not None:
        given = shapes.integers(node.inputs[4])
        steps = np.zeros(1, np.int64) if given is None else given
    if sizes is None or ends is None or axes is None or len(axes) != len(ends) or min(steps) < 1:
        return None
    written: list[int] = []
    for end, axis in zip(ends, axes.reshape(-1).tolist(), strict=True):
        if not -len(sizes) <= axis < len(sizes):
            return None
        last = end if isinstance(end, int) else _from_the_end(end, sizes[axis], shapes)
        if last is None:
            return None
        written.append(last)
    return written


def _from_the_end(end: Size, size: Size, shapes: Shapes) -> int | None:
    """The number that stands for `end`, which is no number, on an axis of `size`."""
    beyond = shapes.difference(end, size)
    return beyond if beyond is None or beyond < 0 else _TO_THE_END


def canonicalize_reshapes(graph: ir.Graph, shapes: Shapes) -> bool:
    """Replace computed shape operands of Reshape by constants; return whether any was.

    0 stands for a size that is kept, whatever `allowzero` was, and -1 for one other size that is
    not known.
    """
    changed = False
    for node in graph:
        if node.op_type != "Reshape" or node.domain != "" or len(node.inputs) != 2:
            continue
        operand = node.inputs[1]
        if operand is None or operand.is_graph_input() or constant_of(operand) is not None:
            continue
        sizes = _from_result(shapes.sizes(node.outputs[0])) or _from_operand(node, shapes)
        if sizes is None:
            continue
        name = f"{node.outputs[0].name}_shape"
        node.replace_input_with(1, add_constant(graph, name, np.array(sizes, dtype=np.int64)))
        if 0 in sizes:
            node.attributes.pop("allowzero", None)
        changed = True
    return changed


def _from_result(result: tuple[Size, ...] | None) -> list[int] | None:
    """The constant operand, where one size of the result is open."""
    if result is None:
        return None
    sizes = [size if isinstance(size, int) else -1 for size in result]
    return None if sizes.count(-1) != 1 or 0 in sizes else sizes


def _from_operand(node: ir.Node, shapes: Shapes) -> list[int] | None:
    """The constant operand, where all unknown sizes but one are the input's on the same axis."""
    operand, before = shapes.shape_operand(node.inputs[1]), shapes.sizes(node.inputs[0])
    if operand is None or before is None or 0 in before:
        return None  # of a tensor without elements, -1 may stand for any size
    sizes = [_constant_size(size, before[i : i + 1]) for i, size in enumerate(operand)]
    if int_attribute(node, "allowzero", 0) and (0 in operand or sizes.count(-1) > (-1 in operand)):
        return None  # 0 is a size there, and of a tensor without elements every size must be given
    return None if sizes.count(-1) > 1 else sizes


def _constant_size(size: Size, before: tuple[Size, ...]) -> int:
    """`size` in a constant operand; `before` has the input's size on the same axis, if any."""
    if isinstance(size, int):
        return size
    return 0 if size is not None and (size,) == before else -1


_SHAPE_OPERAND = {"ConstantOfShape": 0, "Expand": 1}  # the input that holds it


def canonicalize_shape_operands(graph: ir.Graph, shapes: Shapes) -> bool:
    """Write computed shape operands as a Concat of constants and sizes of graph inputs.

    For Expand and ConstantOfShape, where each size is known by number or name. Needs opset 15.
    Returns whether any was written.
    """
    writer = _OperandWriter(graph)
    for node in graph:
        index = _SHAPE_OPERAND.get(node.op_type) if node.domain == "" else None
        sizes = None if index is None else shapes.shape_operand(node.inputs[index])
        if index is None or sizes is None:
            continue
        operand = node.inputs[index]
        if operand is None or constant_of(operand) is not None or _is_canonical(operand, graph):
            continue
        named = [size for size in sizes if not isinstance(size, int)]
        if named and all(size in writer.origins for size in named):
            node.replace_input_with(index, writer.operand(sizes))
    return writer.insert()


class _OperandWriter:
    """Values that hold given sizes; equal sizes share one value.

    `origins` has the graph input and axis that each symbolic dimension is the size of.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.origins = {
            size.value: (value, axis)
            for value in graph.inputs
            for axis, size in enumerate(value.shape or ())
            if not isinstance(size, int) and size.value
        }
        self._graph = graph
        self._values: dict[tuple[Size, ...], ir.Value] = {}
        self._nodes: list[ir.Node] = []

    def operand(self, sizes: tuple[Size, ...]) -> ir.Value:
        if sizes not in self._values:
            parts = [self._part(part) for part in _grouped(sizes)]
            whole = parts[0] if len(parts) == 1 else self._add("Concat", parts, len(sizes), axis=0)
            self._values[sizes] = whole
        return self._values[sizes]

    def _part(self, part: tuple[Size, ...]) -> ir.Value:
        numbers = [size for size in part if isinstance(size, int)]
        if numbers:
            return add_constant(self._graph, "sizes", np.array(numbers, dtype=np.int64))
        if part not in self._values:
            value, axis = self.origins[str(part[0])]
            self._values[part] = self._add("Shape", [value], 1, start=axis, end=axis + 1)
        return self._values[part]

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
        """Put the new nodes at the start of the graph; return whether there are any."""
        if self._nodes:
            self._graph.insert_before(self._graph[0], self._nodes)
        return bool(self._nodes)


def _grouped(sizes: tuple[Size, ...]) -> list[tuple[Size, ...]]:
    """`sizes` in order: consecutive numbers as one group, each name alone."""
    groups: list[tuple[Size, ...]] = []
    for size in sizes:
        if isinstance(size, int) and groups and isinstance(groups[-1][0], int):
            groups[-1] = (*groups[-1], size)
        else:
            groups.append((size,))
    return groups


def _is_canonical(operand: ir.Value, graph: ir.Graph) -> bool:
    """Whether `operand` is an input, the size of one, or a Concat of such sizes and constants."""
    producer = operand.producer()
    if producer is None or producer.domain != "":
        return operand in graph.inputs
    if producer.op_type == "Shape":
        return producer.inputs[0] in graph.inputs
    values = producer.inputs if producer.op_type == "Concat" else ()
    return bool(values) and all(
        constant_of(value) is not None or (value is not None and _is_input_size(value, graph))
        for value in values
    )


def _is_input_size(value: ir.Value, graph: ir.Graph) -> bool:
    producer = value.producer()
    return (
        producer is not None and producer.op_type == "Shape" and producer.inputs[0] in graph.inputs
    )
