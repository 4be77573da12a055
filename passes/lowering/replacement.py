"""Nodes that are not yet part of a graph, and names for them that the graph does not use yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir


@dataclass
class Replacement:
    """New nodes and initializers, not yet part of a graph; `output` stands for the old value."""

    output: ir.Value
    nodes: list[ir.Node] = field(default_factory=list)
    initializers: list[ir.Value] = field(default_factory=list)

    def discard(self) -> None:
        """Detach the nodes from the values they read, which otherwise count them as readers."""
        for node in self.nodes:
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)


class Names:
    """Hands out names that no value of the model has; `opset` is that of the model.

    `keeps_exact`: new constants remember what they were rounded from, see `keep_exact`.
    """

    def __init__(self, taken: set[str], opset: int, *, keeps_exact: bool = False) -> None:
        self._taken = taken
        self.opset = opset
        self.keeps_exact = keeps_exact

    @classmethod
    def of(cls, model: ir.Model, *, keeps_exact: bool = False) -> Names:
        """Those of a model; a body of If or Loop sees the names around it, so all are one set."""
        taken: set[str | None] = set()
        for graph in model.graphs():
            taken.update(graph.initializers)
            taken.update(value.name for value in graph.inputs)
            taken.update(value.name for node in graph for value in node.outputs)
        names, opset = {name for name in taken if name}, model.opset_imports.get("", 0)
        return cls(names, opset, keeps_exact=keeps_exact)

    def fresh(self, base: str) -> str:
        """`base`, or `base` with the first free number behind it."""
        name, number = base, 1
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name


def initializer(name: str, array: npt.NDArray[Any]) -> ir.Value:
    """A constant of this name, not yet part of a graph."""
    tensor = ir.Tensor(np.asarray(array, order="C"), name=name)
    return ir.Value(
        name=name,
        shape=ir.Shape(tensor.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )


def remove_unused_initializers(graph: ir.Graph) -> None:
    for name, value in list(graph.initializers.items()):
        if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
            del graph.initializers[name]


def clone_onto(node: ir.Node, source: ir.Value, shape: ir.Shape | None, names: Names) -> ir.Node:
    """A copy of the node with `source` as its first input and an output of this shape."""
    copy = ir.node(node.op_type, [source, *node.inputs[1:]], dict(node.attributes))
    new, old = copy.outputs[0], node.outputs[0]
    new.name = copy.name = names.fresh(f"{old.name}.{node.op_type.lower()}")
    new.shape, new.type = shape, old.type
    return copy
