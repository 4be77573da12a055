"""Move an activation in front of a max pool, to the convolution that computes it for nothing."""

from __future__ import annotations

import onnx_ir as ir

from flatfold.passes.cost.model import CostModel
from flatfold.passes.decline import Decline
from flatfold.passes.lowering.replacement import Names, Replacement, clone_onto
from flatfold.passes.reading.affine import Affine
from flatfold.passes.reading.layout import make_term
from flatfold.passes.reading.node import (
    channel_count,
    clip_limits,
    constant,
    dims_of,
    ints,
    number,
    pixel_count,
    source,
    why_shared,
)
from flatfold.passes.reading.pooling import filled_window
from flatfold.passes.rewrite import LocalRewrite, Proposal, Region
from flatfold.passes.stencil.kernels import placeholder
from flatfold.passes.stencil.stencil import convolution

LAYERS = ("Conv", "ConvTranspose")


class HoistActivations(LocalRewrite):
    """f(maxpool(x)) = maxpool(f(x)) for a function f that never falls.

    *Given* MaxPool - Relu (or LeakyRelu, Clip) behind a convolution. *Result* the activation right
    behind the convolution: engines compute the two in one step.

    *Declines when* a window may lie in the padding alone, or the value between is read elsewhere.
    """

    name = "hoist-activations"

    def match(self, node: ir.Node, names: Names, cost: CostModel) -> Proposal:
        """Exchange `node`, an activation, with the pool in front of it."""
        _require_rising(node)
        pool = _private_producer(source(node), ("MaxPool",))
        data = source(pool)
        _private_producer(data, LAYERS)
        kernel = ints(pool, "kernel_shape", ())
        strides, dilations, begin, end = filled_window(pool)
        window = convolution(
            placeholder((channel_count(data), 1, *kernel)),
            groups=channel_count(data),
            strides=strides,
            dilations=dilations,
            begin=begin,
            end=end,
        )
        form = Affine((make_term(data, window),), None, 0)
        region = Region(node, form, (node, pool), {}, ())
        pooled_last = cost.elementwise(1, pixel_count(dims_of(data)[1:]))
        pooled_first = cost.elementwise(1, pixel_count(dims_of(node.outputs[0])[1:]))
        return Proposal(
            region, _exchanged(node, pool, names), pooled_last + pooled_first, pooled_last
        )


def _require_rising(node: ir.Node) -> None:
    """Decline unless the node is a function that never falls, with a meaning of its own."""
    if node.domain != "":
        raise Decline("NONLINEAR", "it is not an activation")
    if node.op_type == "Relu" or (node.op_type == "LeakyRelu" and number(node, "alpha", 0.01) >= 0):
        return
    if node.op_type != "Clip":
        raise Decline("NONLINEAR", "it is not an activation that never falls")
    limits = clip_limits(node)
    operands = [value for value in node.inputs[1:] if value is not None]
    if limits is None or limits[0] > limits[1] or any(constant(v) is None for v in operands):
        raise Decline("NONLINEAR", "the limits are not constant")


def _private_producer(value: ir.Value, op_types: tuple[str, ...]) -> ir.Node:
    node = value.producer()
    if node is None or node.domain != "" or node.op_type not in op_types:
        raise Decline("NONLINEAR", "nothing that it could move to")
    if why_shared(value) is not None:
        raise Decline("NONLINEAR", f"{value.name} is read elsewhere")
    return node


def _exchanged(node: ir.Node, pool: ir.Node, names: Names) -> Replacement:
    data = source(pool)
    first = clone_onto(node, data, data.shape, names)
    last = clone_onto(pool, first.outputs[0], node.outputs[0].shape, names)
    return Replacement(last.outputs[0], [first, last], [])
