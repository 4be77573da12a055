"""Write a plan as ONNX nodes: each stencil as the operators that compute it.

Weights are cast once, to the dtype of the value computed, and named after that value, never after
an old weight, which other nodes may share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.passes.cost.model import CostModel
from flatfold.passes.decline import Decline
from flatfold.passes.lowering.plan import Block, Plan, Step, TermPlan, in_place, plan
from flatfold.passes.lowering.replacement import Names, Replacement
from flatfold.passes.lowering.rounding import cast, keep_exact
from flatfold.passes.reading.affine import Affine, Term
from flatfold.passes.reading.deferred import origin_of
from flatfold.passes.reading.layout import known_shape
from flatfold.passes.reading.node import FLOATS, TO_THE_END, channel_axis, rank, with_channels
from flatfold.passes.stencil.channels import ChannelIndex, fill_gaps, is_consecutive
from flatfold.passes.stencil.kernels import Array, Weight, transposed
from flatfold.passes.stencil.stencil import Stencil, regroup
from flatfold.passes.stencil.taps import crops_to_taps, rolled


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


def as_rows(weight: Weight) -> Weight:
    """A weight that the operator reads as it is, one output channel a row."""
    return weight


class Emitter:
    """Writes the nodes of one form for the value `output`; `replacement` collects them."""

    def __init__(self, output: ir.Value, names: Names, shape: ir.Shape | None = None) -> None:
        if output.dtype is None or output.dtype not in FLOATS:
            dtype = output.dtype.name if output.dtype is not None else "unknown"
            raise Decline("DTYPE", f"the type of {output.name} is {dtype}")
        self.output = output
        self.shape = output.shape if shape is None else shape  # with what is known besides
        self.dtype = output.dtype
        self.base = output.name or "value"
        self.names = names
        self.replacement = Replacement(output)
        self._sources: dict[ir.Value, ir.Value] = {}
        self._selected: dict[tuple[ir.Value, bytes], ir.Value] = {}

    def source(self, value: ir.Value) -> ir.Value:
        """A value of the graph as it is; a deferred one by the nodes that make it."""
        origin = origin_of(value)
        if origin is None:
            return value
        if value not in self._sources:
            what = f"{origin.op_type.lower()}.operand"
            rest = [self._operand(operand, what) for operand in origin.rest]
            inputs, attributes = [self.source(origin.source), *rest], dict(origin.attributes)
            self._sources[value] = self.node(origin.op_type, inputs, attributes, value.shape)
        return self._sources[value]

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
        self.replacement.nodes.append(node)
        return value

    def constant(self, array: Weight, what: str) -> ir.Value:
        """A constant, rounded to the type of the output."""
        return self._initializer(cast(array, self.dtype), what, self.dtype, array)

    def factors(
        self, weight: Weight, what: str, place: Callable[[Weight], Weight] = as_rows
    ) -> ir.Value:
        """Weights that multiply data, one output channel a row, rounded to the output's type and
        then placed as the operator reads them."""
        rounded = place(cast(weight, self.dtype, multiplies=True))
        exact = place(weight) if self.names.keeps_exact else None
        return self._initializer(rounded, what, self.dtype, exact)

    def integers(self, numbers: Sequence[int] | ChannelIndex, what: str) -> ir.Value:
        return self._initializer(np.array(numbers, np.int64), what, ir.DataType.INT64)

    def _initializer(
        self, array: npt.NDArray[Any], what: str, dtype: ir.DataType, exact: Weight | None = None
    ) -> ir.Value:
        name = self.names.fresh(f"{self.base}.{what}")
        tensor = ir.Tensor(array, dtype=dtype, name=name)
        if self.names.keeps_exact and exact is not None:
            keep_exact(tensor, exact)
        value = ir.Value(
            name=name, shape=ir.Shape(tensor.shape), type=ir.TensorType(dtype), const_value=tensor
        )
        self.replacement.initializers.append(value)
        return value

    def term(self, term: Term, bias: Array | None, plan: TermPlan) -> ir.Value:
        """The value of one term, by the steps of its plan."""
        term = replace(term, source=self.source(term.source))
        moves = {Step.SELECT: self.select, Step.CROP: self.crop, Step.PAD: self.pad}
        moves[Step.ROLL] = self.roll
        for step, _ in plan.steps:
            if step in moves:
                term = moves[step](term)
        one_tap = any(step is Step.ONE_TAP for step, _ in plan.steps)
        term = self.select(term)  # what another term has selected is used again
        return self.one_tap(term, bias) if one_tap else self.apply(term, bias)

    def select(self, term: Term) -> Term:
        """The term on the channels that it reads: by a Slice if they are consecutive, or Gather."""
        form = term.stencil
        if form.channel_index is None:
            return term
        index = fill_gaps(form.channel_index, form.source_channels)
        key = (term.source, index.tobytes())
        if key not in self._selected:
            self._selected[key] = self.channels(term.source, index, form.geometry.axes)
        whole = replace(form, channel_index=None, source_channels=0)
        return replace(term, source=self._selected[key], stencil=whole)

    def channels(self, value: ir.Value, index: ChannelIndex, axes: int) -> ir.Value:
        """Channels `index` of a value."""
        axis = channel_axis(value, axes)
        shape = with_channels(value.shape, len(index), axes)
        if self.names.opset >= 10 and is_consecutive(index):
            ends = ([int(index[0])], [int(index[-1]) + 1], [axis])
            names = zip(ends, ("starts", "ends", "axes"), strict=True)
            return self.node("Slice", [value, *(self.integers(*e) for e in names)], None, shape)
        inputs = [value, self.integers(index, "channels")]
        return self.node("Gather", inputs, {"axis": axis}, shape)

    def crop(self, term: Term) -> Term:
        """The term on the pixels that it keeps, and on its channels if these are consecutive."""
        self._require_opset(10)
        form, shape = term.stencil, term.stencil.geometry
        begin, end = ([max(-n, 0) for n in side] for side in (shape.begin, shape.end))
        axes, ends = [*range(2, shape.axes + 2)], [-n or TO_THE_END for n in end]
        steps = list(shape.strides)
        if form.channel_index is not None:
            index = fill_gaps(form.channel_index, form.source_channels)
            if is_consecutive(index):
                begin, ends = [int(index[0]), *begin], [int(index[-1]) + 1, *ends]
                axes, steps = [1, *axes], [1, *steps]
                form = replace(form, channel_index=None, source_channels=0)
        ranges = ((begin, "starts"), (ends, "ends"), (axes, "axes"), (steps, "steps"))
        inputs = [self.integers(numbers, what) for numbers, what in ranges]
        cut = [max(-b, 0) + max(-e, 0) for b, e in zip(shape.begin, shape.end, strict=True)]
        left = [
            None if n is None else (n - less + step - 1) // step
            for n, less, step in zip(term.sizes, cut, shape.strides, strict=True)
        ]
        batch = term.source.shape[0] if term.source.shape is not None else None
        kept = ir.Shape([batch, form.input_channels, *left])
        value = self.node("Slice", [term.source, *inputs], None, kept)
        begin_left, end_left = (tuple(max(n, 0) for n in side) for side in (shape.begin, shape.end))
        rest = replace(shape, begin=begin_left, end=end_left, strides=(1,) * shape.axes)
        return replace(term, source=value, stencil=replace(form, geometry=rest))

    def pad(self, term: Term) -> Term:
        """The term on its source with the zeros around it."""
        self._require_opset(11)
        form, shape = term.stencil, term.stencil.geometry
        pads = self.integers([0, 0, *shape.begin, 0, 0, *shape.end], "pads")
        value = self.node("Pad", [term.source, pads], None, self._shape_of(form))
        rest = replace(shape, begin=(0,) * shape.axes, end=(0,) * shape.axes)
        return replace(term, source=value, stencil=replace(form, geometry=rest))

    def roll(self, term: Term) -> Term:
        """The term on its source, rolled along one axis by copies of its rows."""
        form = term.stencil
        axis, shift = rolled(form, term.sizes) or (0, 0)
        rows = np.roll(np.arange(term.sizes[axis] or 0, dtype=np.int64), shift)
        inputs = [term.source, self.integers(rows, "rows")]
        value = self.node("Gather", inputs, {"axis": axis + 2}, self._shape_of(form))
        scale = form.weight[(slice(None),) * (axis + 2) + (slice(0, 1),)]
        rest = replace(form, geometry=in_place(form.geometry), weight=scale)
        return replace(term, source=value, stencil=rest)

    def _require_opset(self, needed: int) -> None:
        if self.names.opset < needed:
            opset = self.names.opset
            raise Decline(
                "OLD-OPSET",
                f"a Slice or Pad by inputs needs opset {needed}, the model has opset {opset}",
            )

    def apply(self, term: Term, bias: Array | None) -> ir.Value:
        """The layer, or the scale and bias, that is left of a term."""
        form = term.stencil
        if form.geometry.is_diagonal:
            return self.elementwise(term, bias)
        if form.geometry.axes == 0:
            return self.product(term, bias)
        whole = crops_to_taps(form)
        is_transposed = whole.geometry.is_transposed
        attributes = transpose_attributes(whole) if is_transposed else conv_attributes(whole)
        groups = whole.geometry.groups
        place = partial(transposed, groups=groups) if is_transposed else as_rows
        inputs = [term.source, self.factors(whole.weight, "weight", place)]
        inputs += [] if bias is None else [self.constant(bias, "bias")]
        op_type = "ConvTranspose" if is_transposed else "Conv"
        return self.node(op_type, inputs, attributes, self._shape_of(form))

    def _shape_of(self, form: Stencil) -> ir.Shape | None:
        return with_channels(self.shape, form.geometry.outputs, form.geometry.axes)

    def product(self, term: Term, bias: Array | None) -> ir.Value:
        """A matrix along the last axis: Gemm for two axes and a bias, else MatMul and Add."""
        matrix = regroup(term.stencil, 1).weight
        shape = self._shape_of(term.stencil)
        if rank(term.source) == 2 and bias is not None:  # before opset 11 a Gemm must have one
            inputs = [term.source, self.factors(matrix, "weight"), self.constant(bias, "bias")]
            return self.node("Gemm", inputs, {"transB": 1}, shape)
        weight = self.factors(matrix, "weight", lambda rows: rows.T.copy())
        value = self.node("MatMul", [term.source, weight], None, shape)
        if bias is None:
            return value
        return self.node("Add", [value, self.constant(bias, "bias")], None, shape)

    def one_tap(self, term: Term, bias: Array | None) -> ir.Value:
        """A scale and a bias per channel as a depthwise convolution by one tap."""
        form = term.stencil
        inputs = [term.source, self.factors(form.weight, "weight")]
        inputs += [] if bias is None else [self.constant(bias, "bias")]
        return self.node("Conv", inputs, conv_attributes(form), self._shape_of(form))

    def elementwise(self, term: Term, bias: Array | None) -> ir.Value:
        """A scale and a bias per channel."""
        value, form, shape = term.source, term.stencil, self._shape_of(term.stencil)
        column = (-1, *(1,) * form.geometry.axes)
        if not form.is_identity:
            factor = self.factors(form.weight, "scale", lambda rows: rows.reshape(column))
            value = self.node("Mul", [value, factor], None, shape)
        if bias is not None:
            shift = self.constant(bias.reshape(column), "shift")
            value = self.node("Add", [value, shift], None, shape)
        return value


def lower(form: Affine, output: ir.Value, names: Names, cost: CostModel) -> Replacement:
    """Nodes that compute `form`. Raises Decline if a weight does not fit the output's dtype."""
    emitter = Emitter(output, names, known_shape(form, output))
    try:
        emitter.replacement.output = _emit_plan(plan(form, cost), form, emitter)
    except Decline:
        emitter.replacement.discard()
        raise
    return emitter.replacement


def _emit_plan(plan: Plan, form: Affine, emitter: Emitter) -> ir.Value:
    output, axes = emitter.output, form.geometry.axes
    values = [_emit_sum(block, emitter) for block in plan.blocks]
    value = values[0]
    if len(values) > 1:
        axis = 1 if axes else (len(output.shape) if output.shape is not None else 2) - 1
        value = emitter.node("Concat", values, {"axis": axis}, emitter.shape)
        if not plan.in_order:
            order = np.argsort(np.concatenate([block.channels for block in plan.blocks]))
            value = emitter.channels(value, order.astype(np.int64), axes)
    if value.producer() not in emitter.replacement.nodes and output.is_graph_output():
        value = emitter.node("Identity", [value], None, output.shape)  # an output keeps its name
    return value


def _emit_sum(block: Block, emitter: Emitter) -> ir.Value:
    form, plans = block.form, block.plan.terms
    values = [
        emitter.term(term, form.bias if index == block.plan.host else None, plans[index])
        for index, term in enumerate(form.live)
    ]
    value = values[0]
    shape = with_channels(emitter.shape, form.geometry.outputs, form.geometry.axes)
    for other in values[1:]:
        value = emitter.node("Add", [value, other], None, shape)
    return value
