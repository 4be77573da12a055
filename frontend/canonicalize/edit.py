"""Small edits of a graph that keep every reader of what they replace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from flatfold.frontend.canonicalize.symbolic_dims import Size


def constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """A new initializer, called `name` or something like it."""
    while name in graph.initializers:
        name += "_"
    tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype))
    value.shape = ir.Shape(array.shape)
    graph.register_initializer(value)
    return value


def stand_in(node: ir.Node, value: ir.Value) -> ir.Value:
    """Let `value` be the only output of `node`, of which an Identity is left: its output."""
    assert node.graph is not None
    identity = ir.node("Identity", [value], name=node.name)
    ir.convenience.replace_nodes_and_values(
        node.graph, node, [node], [identity], node.outputs, identity.outputs
    )
    return identity.outputs[0]


def source_of(value: ir.Value | None, operator: str) -> ir.Node | None:
    """The node that makes `value`, if it is an `operator` with one output in the same graph."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != operator or node.domain != "" or len(node.outputs) != 1:
        return None
    return node


def perm_of(node: ir.Node) -> list[int] | None:
    """The permutation of a Transpose; None if it is the reverse that goes without saying."""
    return list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else None


class Insertion:
    """Nodes in front of `anchor`, and in place of it; what they make has the type of `like`."""

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
        """The output, of shape `sizes`, of a new node."""
        node = ir.node(operator, inputs, attributes)
        node.metadata_props.update(self.anchor.metadata_props)
        (output,) = node.outputs
        output.name = f"{self._name}_{operator.lower()}"
        output.type = self._type
        output.shape = None if sizes is None else shape_of(sizes)
        self.graph.insert_before(self.anchor, node)
        return output

    def replace(self, value: ir.Value) -> None:
        """Let `value`, made here, be what the anchor was, by its name."""
        result = stand_in(self.anchor, value)
        if not result.is_graph_output():
            value.name, result.name = self._name, None

    def integers(self, role: str, numbers: Sequence[int]) -> ir.Value:
        """A constant argument."""
        return constant(self.graph, f"{self._name}_{role}", np.array(numbers, dtype=np.int64))

    def slice(
        self, data: ir.Value, sizes: Sequence[Size], axis: int, start: int, end: int
    ) -> ir.Value:
        """Positions `start` to `end` along `axis` of `data`, whose shape is `sizes`."""
        bounds = [("starts", start), ("ends", end), ("axes", axis), ("steps", 1)]
        inputs = [self.integers(role, [number]) for role, number in bounds]
        return self.add("Slice", [data, *inputs], resized(sizes, axis, end - start))


def resized(sizes: Sequence[Size], axis: int, size: Size) -> tuple[Size, ...]:
    """`sizes` with another one at `axis`."""
    return (*sizes[:axis], size, *sizes[axis + 1 :])


def shape_of(sizes: Sequence[Size]) -> ir.Shape:
    """For the graph: unnamed symbolic sizes are unknown to it."""
    return ir.Shape([_declared(size) for size in sizes])


def _declared(size: Size) -> int | str | None:
    return None if isinstance(size, str) and size.startswith("\0") else size
