"""Fold constant affine maps per channel into the layer beside them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.reading.deferred import Deferred, deferred_value
from flatfold.passes.reading.meaning import Applied, Summed
from flatfold.passes.reading.node import (
    channel_count,
    constant,
    data_and_constant,
    number,
    optional_weights,
    per_channel,
    rank,
    source,
    spatial_sizes,
    weights,
)
from flatfold.passes.rewrite import FOLD, Region, Rewrite
from flatfold.passes.stencil.stencil import diagonal


class FoldBatchNorm(Rewrite):
    """s * (W x + b) + t = (s W) x + (s b + t),  and  W (s x + t) + b = (W s) x + (W t + b).

    *Given* a Conv or Gemm with BatchNormalization, constant Mul, Add, Sub, Div, Neg, the scale and
    bias of a LayerNormalization, or a choice of channels (Slice, Gather, shuffle) after it, or
    before it; a mean, Flatten, Reshape or Transpose may stand between. *Result* one Conv or Gemm.
    Several maps in a row become one.

    *Declines when* there is no layer to fold into; the map stands before zero padding and adds
    something (the rim would be wrong: the padding is not shifted); statistics are not constant; the
    value between is read elsewhere; a folded weight does not fit the graph's type.
    """

    name = "fold-batchnorm"
    kind = FOLD

    def accept(self, region: Region) -> None:
        if len(region.nodes) > 1 or region.root.op_type not in ("BatchNormalization",):
            return
        reasons = [why.reason for _, why in region.boundaries]
        raise Decline("ALONE", f"no layer to fold it into: {'; '.join(reasons)}")


def read_batch_norm(node: ir.Node) -> Applied:
    """s * x + t with s = gamma / sqrt(var + eps), t = beta - mean * s (Ioffe & Szegedy 2015)."""
    training = number(node, "training_mode", 0)
    if training != 0 or len(node.outputs) > 1:
        raise Decline(
            "TRAINING-MODE",
            f"the normalisation uses the statistics of the batch: training_mode is {training:g},"
            f" {len(node.outputs)} outputs",
        )
    if number(node, "spatial", 1) != 1:
        raise Decline("NOT-PER-CHANNEL", "spatial is 0: the statistics differ between pixels")
    names = ("scale", "bias", "mean", "variance")
    parts = [weights(node, i + 1, n).astype(np.float64) for i, n in enumerate(names)]
    gamma, beta, mean, variance = parts
    epsilon = number(node, "epsilon", 1e-5)
    spread, worst = variance + epsilon, int(np.argmin(variance))
    told = f"the variance {source(node, 4).name} is {variance[worst]:.3g} in channel {worst}"
    if not spread[worst] > 0:
        raise Decline("NONFINITE", f"{told}, with epsilon {epsilon:.3g} not above 0")
    scale = gamma / np.sqrt(spread)
    form = diagonal(scale, beta - mean * scale, len(spatial_sizes(source(node))))
    return Applied(source(node), form, warning=told if variance[worst] < 0 else "")


def read_layer_norm(node: ir.Node) -> Applied:
    """g * n(x) + b along the last axis, n the normalisation without them (Ba et al. 2016)."""
    data, rank_ = source(node), rank(source(node))
    if int(number(node, "axis", -1)) % rank_ != rank_ - 1 or len(node.outputs) > 1:
        raise Decline("NONLINEAR", "only a normalisation of the last axis is looked into")
    count = channel_count(data, 0)
    scale, bias = weights(node, 1, "scale"), optional_weights(node, 2, "bias")
    if scale.size != count or (bias is not None and bias.size != count):
        raise Decline("NOT-PER-CHANNEL", f"{scale.size} scales for {count} channels")
    if bias is None and np.all(scale == 1):
        raise Decline("NONLINEAR", "the normalisation has no scale and no bias")
    form = diagonal(scale.reshape(-1), None if bias is None else bias.reshape(-1), 0)
    ones = np.ones(count, scale.dtype)
    how = Deferred(node.op_type, data, (ones,), node.attributes)
    plain = deferred_value(how, f"{node.outputs[0].name}.plain", data.shape, node.outputs[0])
    return Applied(plain, form)


NORMS: dict[str, Callable[[ir.Node], Applied]] = {
    "BatchNormalization": read_batch_norm,
    "LayerNormalization": read_layer_norm,
}


def read_product(node: ir.Node) -> Applied:
    data, operand, swapped = data_and_constant(node)
    if node.op_type == "Div" and swapped:
        raise Decline("NONLINEAR", "a constant is divided by data")
    factor, axes = per_channel(operand, data)
    if node.op_type == "Div":
        if not np.all(factor != 0):
            raise Decline("NONFINITE", f"the divisor is 0 in channel {int(np.argmin(factor != 0))}")
        factor = 1.0 / factor
    return Applied(data, diagonal(factor, None, axes))


def read_sum(node: ir.Node) -> Applied | Summed:
    signs = [-1 if node.op_type == "Sub" and i == 1 else 1 for i in range(len(node.inputs))]
    arrays = [constant(value) for value in node.inputs]
    if all(array is None for array in arrays):
        return Summed(tuple((s, source(node, i)) for i, s in enumerate(signs)))
    if len(arrays) != 2:
        count = sum(array is not None for array in arrays)
        raise Decline("CONSTANT", f"{count} of the {len(arrays)} operands of a sum are constants")
    data, operand, swapped = data_and_constant(node)
    sign_data, sign_constant = (signs[1], signs[0]) if swapped else (signs[0], signs[1])
    numbers, axes = per_channel(operand, data)
    ones = np.full(len(numbers), float(sign_data))
    return Applied(data, diagonal(ones, sign_constant * numbers, axes))
