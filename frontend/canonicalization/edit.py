"""Small edits of a graph, and small questions about its nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from flatfold.frontend.canonicalization.symbolic_dims import Size, constant_of

LARGEST = 2**63 - 1  # a size that a file can hold


def add_constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """A new initializer that holds `array`; `name` gets underscores appended until it is free."""
    while name in graph.initializers:
        name += "_"
    tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype))
    value.shape = ir.Shape(array.shape)
    graph.register_initializer(value)
    return value


def replace_with_identity(node: ir.Node, value: ir.Value) -> ir.Value:
    """Replace `node` by an Identity of `value`, and return the output of that Identity."""
    assert node.graph is not None
    identity = ir.node("Identity", [value], name=node.name)
    ir.convenience.replace_nodes_and_values(
        node.graph, node, [node], [identity], node.outputs, identity.outputs
    )
    return identity.outputs[0]


def producer_of(value: ir.Value | None, operator: str) -> ir.Node | None:
    """The node that computes `value`, if it is an `operator` with one output."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != operator or node.domain != "" or len(node.outputs) != 1:
        return None
    return node


def perm_of(node: ir.Node) -> list[int] | None:
    """The permutation of a Transpose; None if it has no attribute, which reverses the axes."""
    return list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else None


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute of `node`."""
    return node.attributes[name].as_int() if name in node.attributes else default


def axes_of(node: ir.Node, rank: int) -> list[int] | None:
    """The axes of a Squeeze, an Unsqueeze or a reduction, counted from the start.

    None where it has none, where they are not constant and where there are no such axes.
    """
    given: Sequence[int] | None = None
    if "axes" in node.attributes:
        given = node.attributes["axes"].as_ints()
    elif len(node.inputs) > 1:
        array = constant_of(node.inputs[1])
        given = None if array is None else array.reshape(-1).astype(np.int64).tolist()
    if not given or any(not -rank <= axis < rank for axis in given):
        return None
    axes = sorted({axis % rank for axis in given})
    return axes if len(axes) == len(given) else None


class Insertion:
    """New nodes in front of `anchor`, which they then replace; outputs have the type of `like`."""

    def __init__(self, anchor: ir.Node, like: ir.Value) -> None:
        assert anchor.graph is not None
        self.graph = anchor.graph
        self.anchor = anchor
        self._type = like.type
        self._name = anchor.outputs[0].name or anchor.op_type

    def add(
        self,
        operator: str,
        inputs: Sequence[ir.Value],
        sizes: Sequence[Size] | None,
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """Insert a node and return its output, of shape `sizes`."""
        node = ir.node(operator, inputs, attributes)
        node.metadata_props.update(self.anchor.metadata_props)
        (output,) = node.outputs
        output.name = f"{self._name}_{operator.lower()}"
        output.type = self._type
        output.shape = None if sizes is None else shape_of(sizes)
        self.graph.insert_before(self.anchor, node)
        return output

    def replace(self, value: ir.Value) -> None:
        """Replace the anchor by `value`, the output of an inserted node, which takes its name."""
        result = replace_with_identity(self.anchor, value)
        if not result.is_graph_output():
            value.name, result.name = self._name, None

    def integers(self, role: str, numbers: Sequence[int]) -> ir.Value:
        """A constant input, named after the anchor and its `role`."""
        return add_constant(self.graph, f"{self._name}_{role}", np.array(numbers, dtype=np.int64))

    def slice(
        self, data: ir.Value, sizes: Sequence[Size], axis: int, start: int, end: int
    ) -> ir.Value:
        """Insert a Slice of `data`, of shape `sizes`: positions `start` to `end` along `axis`."""
        bounds = [("starts", start), ("ends", end), ("axes", axis), ("steps", 1)]
        inputs = [self.integers(role, [number]) for role, number in bounds]
        return self.add("Slice", [data, *inputs], resized(sizes, axis, end - start))


def resized(sizes: Sequence[Size], axis: int, size: Size) -> tuple[Size, ...]:
    """`sizes` with `size` at `axis`."""
    return (*sizes[:axis], size, *sizes[axis + 1 :])


def shape_of(sizes: Sequence[Size]) -> ir.Shape:
    """`sizes` as a shape of the graph; one that no graph can hold is left open."""
    return ir.Shape([None if isinstance(n, int) and n > LARGEST else n for n in sizes])
