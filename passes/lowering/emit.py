"""Terms to nodes: each stencil as the operators that compute it.

Weights are cast once, to the dtype of the value computed, and named after it, never after an old
weight, which may be shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.passes.cost.profiles import Profile
from flatfold.passes.decline import Decline
from flatfold.passes.lowering.plan import (
    Part,
    bias_host,
    crops,
    is_in_order,
    moves_data,
    picks_first,
    plan_blocks,
)
from flatfold.passes.lowering.rounding import cast
from flatfold.passes.reading.affine import Affine, Term
from flatfold.passes.reading.deferred import origin_of
from flatfold.passes.reading.node import FLOATS, TO_THE_END, channel_axis, rank, with_channels
from flatfold.passes.rewrite import Names, Replacement
from flatfold.passes.stencil.channels import ChannelIndex, fill_gaps, is_consecutive
from flatfold.passes.stencil.kernels import Array, Weight, transposed
from flatfold.passes.stencil.stencil import Stencil, regroup
from flatfold.passes.stencil.taps import crops_to_taps


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
        raise Decline(
            "UPSAMPLE",
            f"no ConvTranspose spreads by {shape.upsample}, pads by {pads} and keeps every pixel of"
            f" {shape.strides}",
        )
    return {
        "kernel_shape": shape.kernel,
        "strides": shape.upsample,
        "dilations": shape.dilations,
        "pads": (*(first for first, _ in pads), *(max(last, 0) for _, last in pads)),
        "output_padding": extra,
        "group": shape.groups,
    }


class Emitter:
    """Writes the nodes of one form; `done` collects them."""

    def __init__(self, output: ir.Value, names: Names, profile: Profile, pixels: int) -> None:
        if output.dtype is None or output.dtype not in FLOATS:
            found = output.dtype.name if output.dtype is not None else "unknown"
            raise Decline("DTYPE", f"the type of {output.name} is {found}")
        self.output = output
        self.dtype = output.dtype
        self.base = output.name or "value"
        self.names = names
        self.profile = profile
        self.pixels = pixels
        self.done = Replacement(output)
        self._made: dict[ir.Value, ir.Value] = {}
        self._chosen: dict[tuple[ir.Value, bytes], ir.Value] = {}

    def source(self, value: ir.Value) -> ir.Value:
        """A value of the graph: itself, or made here if nothing makes it yet."""
        how = origin_of(value)
        if how is None:
            return value
        if value not in self._made:
            rest = [
                self._operand(operand, f"{how.op_type.lower()}.operand") for operand in how.rest
            ]
            inputs, attributes = [self.source(how.source), *rest], dict(how.attributes)
            self._made[value] = self.node(how.op_type, inputs, attributes, value.shape)
        return self._made[value]

    def _operand(self, operand: ir.Value | Weight | None, what: str) -> ir.Value | None:
        if operand is None or isinstance(operand, ir.Value):
            return operand
        return self.constant(operand, what)

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, object] | None = None,
        shape: ir.Shape | None = None,
    ) -> ir.Value:
        """Add a node and return its output."""
        node = ir.node(op_type, inputs, attributes or {})  # type: ignore[arg-type]
        value = node.outputs[0]
        value.name = self.names.fresh(f"{self.base}.{op_type.lower()}")
        node.name = value.name
        value.dtype = self.dtype
        value.shape = shape
        self.done.nodes.append(node)
        return value

    def constant(self, array: Weight, what: str) -> ir.Value:
        """A constant, rounded to the type of the output."""
        return self._initializer(cast(array, self.dtype), what, self.dtype)

    def factors(self, weight: Weight) -> Weight:
        """What multiplies data, an output channel a row, rounded to the type of the output."""
        return cast(weight, self.dtype, multiplies=True)

    def integers(self, numbers: Sequence[int] | ChannelIndex, what: str) -> ir.Value:
        return self._initializer(np.array(numbers, np.int64), what, ir.DataType.INT64)

    def _initializer(self, array: npt.NDArray[Any], what: str, dtype: ir.DataType) -> ir.Value:
        name = self.names.fresh(f"{self.base}.{what}")
        tensor = ir.Tensor(array, dtype=dtype, name=name)
        value = ir.Value(
            name=name, shape=ir.Shape(tensor.shape), type=ir.TensorType(dtype), const_value=tensor
        )
        self.done.initializers.append(value)
        return value

    def term(self, term: Term, bias: Array | None) -> ir.Value:
        """The value of one term."""
        term = replace(term, source=self.source(term.source))
        part = Part.of(term.stencil, term.sizes)
        if moves_data(part, self.pixels, self.profile):
            return self.elementwise(self.shift(term), bias)
        term = self.select(term)
        form = term.stencil
        if form.geometry.is_diagonal:
            return self.elementwise(term, bias)
        if form.geometry.axes == 0:
            return self.product(term, bias)
        whole = crops_to_taps(form)
        spread = whole.geometry.is_transposed
        attributes = transpose_attributes(whole) if spread else conv_attributes(whole)
        weight = self.factors(whole.weight)
        weight = transposed(weight, whole.geometry.groups) if spread else weight
        inputs = [term.source, self.constant(weight, "weight")]
        inputs += [] if bias is None else [self.constant(bias, "bias")]
        return self.node(
            "ConvTranspose" if spread else "Conv", inputs, attributes, self._shape_of(form)
        )

    def _shape_of(self, form: Stencil) -> ir.Shape | None:
        return with_channels(self.output, form.geometry.outputs, form.geometry.axes)

    def select(self, term: Term) -> Term:
        """The term on the channels that it picks: a Slice where they are in a row, or a Gather."""
        form = term.stencil
        if form.pick is None:
            return term
        pick = fill_gaps(form.pick, form.width)
        key = (term.source, pick.tobytes())
        if key not in self._chosen:
            self._chosen[key] = self.channels(term.source, pick, form.geometry.axes)
        value = self._chosen[key]
        return replace(term, source=value, stencil=replace(form, pick=None, width=0))

    def channels(self, value: ir.Value, index: ChannelIndex, axes: int) -> ir.Value:
        """Channels `index` of a value."""
        axis = channel_axis(value, axes)
        shape = with_channels(value, len(index), axes)
        if self.names.opset >= 10 and is_consecutive(index):
            ends = ([int(index[0])], [int(index[-1]) + 1], [axis])
            names = zip(ends, ("starts", "ends", "axes"), strict=True)
            return self.node("Slice", [value, *(self.integers(*e) for e in names)], None, shape)
        inputs = [value, self.integers(index, "channels")]
        return self.node("Gather", inputs, {"axis": axis}, shape)

    def shift(self, term: Term) -> Term:
        """The term with its move carried out by Slice and Pad: what is left is a scale."""
        shape, part = term.stencil.geometry, Part.of(term.stencil, term.sizes)
        needed = 11 if max((*shape.begin, *shape.end)) > 0 else 10
        if self.names.opset < needed:
            told = f"the model has opset {self.names.opset}"
            raise Decline("OLD-OPSET", f"a Slice or Pad by inputs needs opset {needed}, {told}")
        if (
            part.pick is not None
            and not is_consecutive(part.pick)
            and picks_first(part, self.pixels)
        ):
            term = self.select(term)
        if crops(shape):
            term = self.crop(term)
        term = self.select(term)
        form, value = term.stencil, term.source
        if max((*shape.begin, *shape.end)) > 0:
            begin, end = ([max(n, 0) for n in side] for side in (shape.begin, shape.end))
            pads = self.integers([0, 0, *begin, 0, 0, *end], "pads")
            value = self.node("Pad", [value, pads], None, self._shape_of(form))
        none, one = (0,) * shape.axes, (1,) * shape.axes
        rest = replace(shape, begin=none, end=none, strides=one)
        return replace(term, source=value, stencil=replace(form, geometry=rest))

    def crop(self, term: Term) -> Term:
        """The term on the pixels that it keeps, and on its channels if these are in a row."""
        form, shape = term.stencil, term.stencil.geometry
        begin, end = ([max(-n, 0) for n in side] for side in (shape.begin, shape.end))
        axes, ends = [*range(2, shape.axes + 2)], [-n or TO_THE_END for n in end]
        steps = list(shape.strides)
        if form.pick is not None:
            pick = fill_gaps(form.pick, form.width)
            if is_consecutive(pick):
                begin, ends = [int(pick[0]), *begin], [int(pick[-1]) + 1, *ends]
                axes, steps = [1, *axes], [1, *steps]
                form = replace(form, pick=None, width=0)
        ranges = ((begin, "starts"), (ends, "ends"), (axes, "axes"), (steps, "steps"))
        inputs = [self.integers(numbers, what) for numbers, what in ranges]
        trim = [max(-b, 0) + max(-e, 0) for b, e in zip(shape.begin, shape.end, strict=True)]
        left = [
            None if n is None else (n - less + step - 1) // step
            for n, less, step in zip(term.sizes, trim, shape.strides, strict=True)
        ]
        batch = term.source.shape[0] if term.source.shape is not None else None
        kept = ir.Shape([batch, form.reads, *left])
        return replace(
            term, source=self.node("Slice", [term.source, *inputs], None, kept), stencil=form
        )

    def product(self, term: Term, bias: Array | None) -> ir.Value:
        """A matrix along the last axis: Gemm for two axes and a bias, else MatMul and Add."""
        matrix = self.factors(regroup(term.stencil, 1).weight)
        shape = self._shape_of(term.stencil)
        if rank(term.source) == 2 and bias is not None:  # before opset 11 a Gemm must have one
            inputs = [term.source, self.constant(matrix, "weight"), self.constant(bias, "bias")]
            return self.node("Gemm", inputs, {"transB": 1}, shape)
        weight = self.constant(matrix.T.copy(), "weight")
        value = self.node("MatMul", [term.source, weight], None, shape)
        if bias is None:
            return value
        return self.node("Add", [value, self.constant(bias, "bias")], None, shape)

    def elementwise(self, term: Term, bias: Array | None) -> ir.Value:
        """A scale and a bias per channel; both at once are a convolution by one tap."""
        value, form, shape = term.source, term.stencil, self._shape_of(term.stencil)
        column = (-1, *(1,) * form.geometry.axes)
        if bias is not None and form.geometry.axes and not form.is_identity:
            parts = [self.constant(self.factors(form.weight), "weight")]
            parts.append(self.constant(bias, "bias"))
            return self.node("Conv", [value, *parts], conv_attributes(form), shape)
        if not form.is_identity:
            factor = self.constant(self.factors(form.weight).reshape(column), "scale")
            value = self.node("Mul", [value, factor], None, shape)
        if bias is not None:
            shift = self.constant(bias.reshape(column), "shift")
            value = self.node("Add", [value, shift], None, shape)
        return value


def lower(form: Affine, output: ir.Value, names: Names, profile: Profile) -> Replacement:
    """Nodes that compute `form`. Raises Decline if a weight does not fit the output's dtype."""
    writer = Emitter(output, names, profile, form.pixels)
    try:
        writer.done.output = _written(form, writer)
    except Decline:
        writer.done.discard()
        raise
    return writer.done


def _written(form: Affine, writer: Emitter) -> ir.Value:
    output, apart = writer.output, plan_blocks(form, writer.profile)
    values = [_sum(block.form, writer) for block in apart]
    value, axes = values[0], form.geometry.axes
    if len(apart) > 1:
        axis = 1 if axes else (len(output.shape) if output.shape is not None else 2) - 1
        value = writer.node("Concat", values, {"axis": axis}, output.shape)
        if not is_in_order(apart):
            order = np.argsort(np.concatenate([block.channels for block in apart]))
            value = writer.channels(value, order.astype(np.int64), axes)
    if value.producer() not in writer.done.nodes and output.is_graph_output():
        value = writer.node("Identity", [value], None, output.shape)  # an output keeps its name
    return value


def _sum(form: Affine, writer: Emitter) -> ir.Value:
    terms = form.live
    host = bias_host([term.stencil.geometry for term in terms])
    values = [
        writer.term(term, form.bias if index == host else None) for index, term in enumerate(terms)
    ]
    value = values[0]
    shape = with_channels(writer.output, form.geometry.outputs, form.geometry.axes)
    for other in values[1:]:
        value = writer.node("Add", [value, other], None, shape)
    return value
