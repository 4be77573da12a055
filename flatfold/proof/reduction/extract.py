"""Extract a cone as two small models with the same inputs and one output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from flatfold.proof.cut_points.cones import Cone
from flatfold.proof.cut_points.data import Shape

OUTPUT = "y"


@dataclass(frozen=True)
class ModelPair:
    """Two small models that take the same inputs."""

    a: ir.Model
    b: ir.Model

    @property
    def shapes(self) -> dict[ir.Value, Shape]:
        """Shapes of the first model's inputs and output; () where none is declared."""
        values = (*self.a.graph.inputs, *self.a.graph.outputs)
        return {v: tuple(v.shape.numpy()) if v.shape is not None else () for v in values}

    @property
    def cone(self) -> Cone:
        """The cone that is all of both models."""
        sources = tuple(zip(self.a.graph.inputs, self.b.graph.inputs, strict=True))
        ends = self.a.graph.outputs[0], self.b.graph.outputs[0]
        return Cone(*ends, sources, tuple(self.a.graph), tuple(self.b.graph))

    @property
    def nodes(self) -> int:
        """Nodes of both models together."""
        return len(self.a.graph) + len(self.b.graph)

    def resized(self, sizes: Mapping[str, Shape]) -> ModelPair:
        """Copies of the models with other input shapes, by name."""
        pair = ModelPair(self.a.clone(), self.b.clone())
        for model in (pair.a, pair.b):
            for value in model.graph.inputs:
                value.shape = ir.Shape(sizes[value.name or ""])
        return pair


def extract(
    cone: Cone, models: tuple[ir.Model, ir.Model], shapes: Mapping[ir.Value, Shape]
) -> ModelPair:
    """A cone of two `models` as a pair, its sources as inputs of these shapes."""
    sizes = [shapes[value] for value, _ in cone.sources]
    mine, others = ([pair[side] for pair in cone.sources] for side in (0, 1))
    a = _model(cone.before, mine, cone.a, models[0], sizes)
    return ModelPair(a, _model(cone.after, others, cone.b, models[1], sizes))


def _model(
    nodes: Iterable[ir.Node],
    sources: Iterable[ir.Value],
    output: ir.Value,
    model: ir.Model,
    sizes: Iterable[Shape],
) -> ir.Model:
    """Inputs are called x0, x1, ..., the output y; other values with such a name are renamed."""
    inputs = [
        ir.Value(name=f"x{i}", type=value.type, shape=ir.Shape(size))
        for i, (value, size) in enumerate(zip(sources, sizes, strict=True))
    ]
    copies: dict[ir.Value | None, ir.Value | None] = {None: None}
    copies |= dict(zip(sources, inputs, strict=True))
    taken = {OUTPUT, *(value.name for value in inputs)}
    new_nodes, constants = [], []
    for node in nodes:
        for value in node.inputs:
            if value not in copies:
                copies[value] = _fresh(value, taken)
                constants.append(copies[value])
        for value in node.outputs:
            copies[value] = _fresh(value, taken, OUTPUT if value is output else "")
        new_nodes.append(
            ir.Node(
                node.domain,
                node.op_type,
                [copies[v] for v in node.inputs],
                node.attributes.values(),
                overload=node.overload,
                outputs=[v for old in node.outputs if (v := copies[old]) is not None],
                name=node.name,
            )
        )
    end = copies[output]
    graph = ir.Graph(
        inputs,
        [end] if end is not None else [],
        nodes=new_nodes,
        initializers=[c for c in constants if c is not None],
        opset_imports=dict(model.opset_imports),
        name=model.graph.name,
    )
    return ir.Model(graph, ir_version=model.ir_version)


def _fresh(value: ir.Value | None, taken: set[str | None], name: str = "") -> ir.Value | None:
    """A copy of `value` with an unused name, in no graph; a constant keeps its tensor."""
    if value is None:
        return None
    unused = name or value.name or "v"
    while not name and unused in taken:
        unused += "_"
    taken.add(unused)
    shape = value.shape if value.const_value is not None else None
    return ir.Value(name=unused, type=value.type, shape=shape, const_value=value.const_value)
