"""Stencils to nodes: write an affine form as Conv, Gemm, Mul and Add.

Weights are cast once, to the dtype of the value computed, and named after it, never after an old
weight, which may be shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.passes.affine import Affine, Term
from flatfold.passes.geometry import Decline
from flatfold.passes.kernels import Array, Weight, transposed
from flatfold.passes.operators import FLOATS
from flatfold.passes.reading import rank
from flatfold.passes.rims import uncrop
from flatfold.passes.stencil import Stencil, regroup

# Smallest normal number and unit roundoff, by type.
TINY = {
    ir.DataType.DOUBLE: 2.0**-1022,
    ir.DataType.FLOAT: 2.0**-126,
    ir.DataType.BFLOAT16: 2.0**-126,
    ir.DataType.FLOAT16: 2.0**-14,
}
BLOCK = 1 << 15  # elements
ROUNDOFF = {
    ir.DataType.DOUBLE: 2.0**-53,
    ir.DataType.FLOAT: 2.0**-24,
    ir.DataType.BFLOAT16: 2.0**-8,
    ir.DataType.FLOAT16: 2.0**-11,
}


@dataclass
class Lowered:
    """New nodes and initializers, not yet part of a graph; `output` stands for the old value."""

    output: ir.Value
    nodes: list[ir.Node] = field(default_factory=list)
    initializers: list[ir.Value] = field(default_factory=list)


class Names:
    """Names that no value of the graph has."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken

    def fresh(self, base: str) -> str:
        name, number = base, 1
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name


def lower(form: Affine, output: ir.Value, names: Names) -> Lowered:
    """Nodes that compute `form`. Raises Decline if a weight does not fit the output's dtype."""
    writer = _Writer(output, names)
    terms = form.live
    host = next((i for i, t in enumerate(terms) if not _is_diagonal(t)), 0)
    values = [
        writer.term(term, form.bias if index == host else None) for index, term in enumerate(terms)
    ]
    value = values[0]
    for other in values[1:]:
        value = writer.node("Add", [value, other])
    if value is terms[0].source and output.is_graph_output():
        value = writer.node("Identity", [value])  # an output keeps its name
    writer.done.output = value
    return writer.done


def _is_diagonal(term: Term) -> bool:
    return term.stencil.geometry.is_diagonal


class _Writer:
    def __init__(self, output: ir.Value, names: Names) -> None:
        if output.dtype is None or output.dtype not in FLOATS:
            raise Decline("DTYPE", f"the type of {output.name} is unknown")
        self.output = output
        self.dtype = output.dtype
        self.base = output.name or "value"
        self.names = names
        self.done = Lowered(output)

    def node(
        self, op_type: str, inputs: Sequence[ir.Value], attributes: dict[str, object] | None = None
    ) -> ir.Value:
        """Add a node and return its output."""
        node = ir.node(op_type, inputs, attributes or {})  # type: ignore[arg-type]
        value = node.outputs[0]
        value.name = self.names.fresh(f"{self.base}.{op_type.lower()}")
        node.name = value.name
        value.dtype = self.dtype
        value.shape = self.output.shape  # every term has the size of the sum
        self.done.nodes.append(node)
        return value

    def constant(self, array: Weight, what: str) -> ir.Value:
        name = self.names.fresh(f"{self.base}.{what}")
        tensor = ir.Tensor(cast(array, self.dtype), dtype=self.dtype, name=name)
        value = ir.Value(
            name=name,
            shape=ir.Shape(tensor.shape),
            type=ir.TensorType(self.dtype),
            const_value=tensor,
        )
        self.done.initializers.append(value)
        return value

    def term(self, term: Term, bias: Array | None) -> ir.Value:
        form = term.stencil
        if form.geometry.is_diagonal:
            return self.elementwise(term, bias)
        if form.geometry.axes == 0:
            return self.product(term, bias)
        whole = uncrop(form)
        spread = whole.geometry.is_transposed
        attributes = transpose_attributes(whole) if spread else conv_attributes(whole)
        weight = transposed(whole.weight, whole.geometry.groups) if spread else whole.weight
        inputs = [term.source, self.constant(weight, "weight")]
        inputs += [] if bias is None else [self.constant(bias, "bias")]
        return self.node("ConvTranspose" if spread else "Conv", inputs, attributes)

    def product(self, term: Term, bias: Array | None) -> ir.Value:
        """A matrix along the last axis: Gemm for two axes and a bias, else MatMul and Add."""
        matrix = regroup(term.stencil, 1).weight
        if rank(term.source) == 2 and bias is not None:  # before opset 11 a Gemm must have one
            inputs = [term.source, self.constant(matrix, "weight"), self.constant(bias, "bias")]
            return self.node("Gemm", inputs, {"transB": 1})
        weight = self.constant(np.ascontiguousarray(matrix.T), "weight")
        value = self.node("MatMul", [term.source, weight])
        return value if bias is None else self.node("Add", [value, self.constant(bias, "bias")])

    def elementwise(self, term: Term, bias: Array | None) -> ir.Value:
        value, form = term.source, term.stencil
        column = (-1, *(1,) * form.geometry.axes)
        if not form.is_identity:
            factor = self.constant(form.weight.reshape(column), "scale")
            value = self.node("Mul", [value, factor])
        if bias is not None:
            value = self.node("Add", [value, self.constant(bias.reshape(column), "shift")])
        return value


def conv_attributes(f: Stencil) -> dict[str, object]:
    shape = f.geometry
    return {
        "kernel_shape": shape.kernel,
        "strides": shape.strides,
        "dilations": shape.dilations,
        "pads": (*shape.begin, *shape.end),
        "group": shape.groups,
    }


def transpose_attributes(f: Stencil) -> dict[str, object]:
    """Attributes of the ConvTranspose that is this stencil; Decline if there is none."""
    shape = f.geometry
    ends = zip(shape.span, shape.begin, shape.end, strict=True)
    pads = [(span - 1 - begin, span - 1 - end) for span, begin, end in ends]
    extra = tuple(max(-last, 0) for _, last in pads)
    short = any(x >= u for x, u in zip(extra, shape.upsample, strict=True) if x)
    if any(s > 1 for s in shape.strides) or min(first for first, _ in pads) < 0 or short:
        raise Decline("UPSAMPLE", "no ConvTranspose has this stride and padding")
    return {
        "kernel_shape": shape.kernel,
        "strides": shape.upsample,
        "dilations": shape.dilations,
        "pads": (*(first for first, _ in pads), *(max(last, 0) for _, last in pads)),
        "output_padding": extra,
        "group": shape.groups,
    }


def cast(array: Weight, dtype: ir.DataType) -> npt.NDArray[np.generic]:
    """One rounding from float64; Decline if a weight overflows or is lost to underflow."""
    if array.dtype == dtype.numpy():
        return array
    rounded = np.empty(array.shape, dtype.numpy())
    rows = max(1, BLOCK // max(array[0].size, 1))
    with np.errstate(over="ignore", under="ignore"):
        for start in range(0, len(array), rows):  # a block at a time stays in the cache
            block = slice(start, start + rows)
            rounded[block] = array[block]
            _require_finite(array[block], rounded[block], dtype)
            _require_no_underflow(array[block], rounded[block], dtype)
    return rounded


def _require_finite(array: Weight, rounded: npt.NDArray[Any], dtype: ir.DataType) -> None:
    if np.all(np.isfinite(rounded)):
        return
    if not np.all(np.isfinite(array)):
        raise Decline("NONFINITE", "a weight is infinite or not a number")
    worst = float(np.max(np.abs(array)))
    raise Decline("OVERFLOW", f"a folded weight of {worst:.3g} overflows {dtype.name}")


def _require_no_underflow(array: Weight, rounded: npt.NDArray[Any], dtype: ir.DataType) -> None:
    """Weights below the smallest normal number lose digits; that matters if they carry weight."""
    size = np.abs(array)
    small = (size < TINY[dtype]) & (size > 0)
    if not np.any(small):
        return
    within = tuple(range(1, array.ndim))
    lost = np.sum(np.where(small, np.abs(array - rounded.astype(np.float64)), 0.0), axis=within)
    if np.any(lost > ROUNDOFF[dtype] / 4 * np.sum(size, axis=within)):
        least = float(np.min(size[small]))
        raise Decline("UNDERFLOW", f"a folded weight of {least:.3g} underflows {dtype.name}")
