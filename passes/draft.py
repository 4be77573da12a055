"""Nodes that are not yet part of a graph, and names for them that nothing has."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir


@dataclass
class Lowered:
    """New nodes and initializers, not yet part of a graph; `output` stands for the old value."""

    output: ir.Value
    nodes: list[ir.Node] = field(default_factory=list)
    initializers: list[ir.Value] = field(default_factory=list)

    def discard(self) -> None:
        """Let go of what the nodes read, which counts its readers."""
        for node in self.nodes:
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)


def again(node: ir.Node, source: ir.Value, shape: ir.Shape | None, names: Names) -> ir.Node:
    """The node on another first input, with an output of this shape."""
    copy = ir.node(node.op_type, [source, *node.inputs[1:]], dict(node.attributes))
    made, like = copy.outputs[0], node.outputs[0]
    made.name = copy.name = names.fresh(f"{like.name}.{node.op_type.lower()}")
    made.shape, made.type = shape, like.type
    return copy


class Names:
    """Names that no value of the graph has; and the opset that they are written in."""

    def __init__(self, taken: set[str], opset: int) -> None:
        self._taken = taken
        self.opset = opset

    def fresh(self, base: str) -> str:
        name, number = base, 1
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name
