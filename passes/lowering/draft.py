"""Nodes of one type that are written one behind the other, and not yet part of a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from flatfold.passes.lowering.replacement import Names, Replacement
from flatfold.passes.lowering.rounding import cast, keep_exact
from flatfold.passes.stencil.kernels import Weight

AXES_ARE_AN_INPUT = 18  # the opset from which on the axes of ReduceMean are

AttributeValue = float | int | str | Sequence[int]


@dataclass
class Draft:
    """New nodes in place of those that compute `old`, each with an output of its type."""

    old: ir.Value
    names: Names
    nodes: list[ir.Node] = field(default_factory=list)
    initializers: list[ir.Value] = field(default_factory=list)

    def op(
        self,
        kind: str,
        *inputs: ir.Value,
        shape: ir.Shape | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> ir.Value:
        """The output of a new node, of this shape or that of its first input."""
        new = ir.node(kind, inputs, attributes or {})
        output = new.outputs[0]
        new.name = output.name = self.names.fresh(f"{self.old.name}.{kind.lower()}")
        output.shape = inputs[0].shape if shape is None else shape
        output.type = self.old.type
        self.nodes.append(new)
        return output

    def copy(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> ir.Value:
        """The first output of the same node, by name, on other inputs."""
        new = ir.node(node.op_type, inputs, dict(node.attributes), num_outputs=len(node.outputs))
        new.name = node.name
        for output, old in zip(new.outputs, node.outputs, strict=True):
            output.name = self.names.fresh(f"{old.name}.{node.op_type.lower()}")
            output.shape, output.type = old.shape, old.type
        self.nodes.append(new)
        return new.outputs[0]

    def constant(self, array: Weight | float, what: str) -> ir.Value:
        """A constant in the type of the outputs."""
        dtype = self.old.dtype
        assert dtype is not None
        if isinstance(array, int | float):
            return self._initializer(np.asarray(array, dtype.numpy()), what, dtype, array)
        return self._initializer(cast(array, dtype), what, dtype, array)

    def integers(self, numbers: Sequence[int], what: str) -> ir.Value:
        return self._initializer(np.array(numbers, np.int64), what, ir.DataType.INT64)

    def _initializer(
        self, array: Weight, what: str, dtype: ir.DataType, exact: Weight | float | None = None
    ) -> ir.Value:
        name = self.names.fresh(f"{self.old.name}.{what}")
        tensor = ir.Tensor(array, dtype=dtype, name=name)
        if self.names.keeps_exact and exact is not None:
            keep_exact(tensor, np.asarray(exact))
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(dtype))
        value.const_value = tensor
        self.initializers.append(value)
        return value

    def mean(self, value: ir.Value, opset: int) -> ir.Value:
        """The mean along the last axis, which is kept."""
        dims = value.shape.dims if value.shape is not None else ()
        shape = ir.Shape([*dims[:-1], 1])
        if opset < AXES_ARE_AN_INPUT:
            return self.op("ReduceMean", value, shape=shape, attributes={"axes": [-1]})
        return self.op("ReduceMean", value, self.integers([-1], "axes"), shape=shape)

    def replacement(self, output: ir.Value) -> Replacement:
        return Replacement(output, self.nodes, self.initializers)
