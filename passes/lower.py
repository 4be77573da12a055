"""Forms to nodes: write an affine form as Conv, Gemm, Mul, Add and Concat."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from flatfold.passes.affine import Affine
from flatfold.passes.cost import Profile
from flatfold.passes.draft import Lowered, Names
from flatfold.passes.geometry import Decline
from flatfold.passes.reading import with_channels
from flatfold.passes.writer import Writer
from flatfold.passes.writing import host_of, in_order, planned

__all__ = ["Lowered", "Names", "lower"]


def lower(form: Affine, output: ir.Value, names: Names, profile: Profile) -> Lowered:
    """Nodes that compute `form`. Raises Decline if a weight does not fit the output's dtype."""
    writer = Writer(output, names, profile, form.pixels)
    try:
        writer.done.output = _written(form, writer)
    except Decline:
        writer.done.discard()
        raise
    return writer.done


def _written(form: Affine, writer: Writer) -> ir.Value:
    output, apart = writer.output, planned(form, writer.profile)
    values = [_sum(block.form, writer) for block in apart]
    value, axes = values[0], form.geometry.axes
    if len(apart) > 1:
        axis = 1 if axes else (len(output.shape) if output.shape is not None else 2) - 1
        value = writer.node("Concat", values, {"axis": axis}, output.shape)
        if not in_order(apart):
            order = np.argsort(np.concatenate([block.channels for block in apart]))
            value = writer.channels(value, order.astype(np.int64), axes)
    if value.producer() not in writer.done.nodes and output.is_graph_output():
        value = writer.node("Identity", [value], None, output.shape)  # an output keeps its name
    return value


def _sum(form: Affine, writer: Writer) -> ir.Value:
    terms = form.live
    host = host_of([term.stencil.geometry for term in terms])
    values = [
        writer.term(term, form.bias if index == host else None) for index, term in enumerate(terms)
    ]
    value = values[0]
    shape = with_channels(writer.output, form.geometry.outputs, form.geometry.axes)
    for other in values[1:]:
        value = writer.node("Add", [value, other], None, shape)
    return value
