"""Fold BatchNormalization and other constant per-channel maps into the layer next to them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from flatfold.passes.cost.model import MARGIN
from flatfold.passes.decline import Decline
from flatfold.passes.lifting.sums import CompositionContext, compose_form
from flatfold.passes.reading import Reader
from flatfold.passes.reading.affine import Affine
from flatfold.passes.reading.deferred import Deferred, deferred_value
from flatfold.passes.reading.meaning import Applied, scale
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
from flatfold.passes.rewrite import Region, Rewrite
from flatfold.passes.stencil.stencil import Stencil, diagonal


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

    def readers(self) -> Mapping[str, Reader]:
        return {
            "Add": read_constant_sum,
            "BatchNormalization": read_batch_norm,
            "Div": read_product,
            "LayerNormalization": read_layer_norm,
            "Mul": read_product,
            "Neg": read_negation,
            "Sub": read_constant_sum,
            "Sum": read_constant_sum,
        }

    def claims(self, region: Region) -> bool:
        """Every region that no other pass claims: at most one layer, and maps of its channels."""
        return True

    def accept(self, region: Region) -> None:
        if len(region.nodes) > 1 or region.root.op_type != "BatchNormalization":
            return
        reasons = [why.reason for _, why in region.stops]
        raise Decline("ALONE", f"no layer to fold it into: {'; '.join(reasons)}")

    def compose(self, outer: Stencil, inner: Affine, context: CompositionContext) -> Affine | None:
        """A per-channel map after anything, or anything after per-channel maps."""
        if not outer.geometry.is_diagonal and any(
            not term.stencil.geometry.is_diagonal for term in inner.terms
        ):
            return None
        return compose_form(outer, inner, context, margin=MARGIN if _is_norm(inner) else 0.0)


def _is_norm(form: Affine) -> bool:
    """Whether the form is a scale and a shift per channel of one value, as a norm is read."""
    scaled = len(form.live) == 1 and form.live[0].stencil.geometry.is_diagonal
    return scaled and form.bias is not None and not form.live[0].stencil.is_identity


def read_batch_norm(node: ir.Node) -> Applied:
    """s * x + t with s = gamma / sqrt(var + eps), t = beta - mean * s (Ioffe & Szegedy 2015)."""
    training = number(node, "training_mode", 0)
    if training != 0 or len(node.outputs) > 1:
        raise Decline(
            "TRAINING-MODE",
            f"the normalization uses the statistics of the batch: training_mode is {training:g},"
            f" {len(node.outputs)} outputs",
        )
    if number(node, "spatial", 1) != 1:
        raise Decline("NOT-PER-CHANNEL", "spatial is 0: the statistics differ between pixels")
    names = ("scale", "bias", "mean", "variance")
    parts = [weights(node, i + 1, n).astype(np.float64) for i, n in enumerate(names)]
    shapes = [part.shape for part in parts]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        raise Decline("NOT-PER-CHANNEL", f"its constants have shapes {shapes}")
    gamma, beta, mean, variance = parts
    epsilon = number(node, "epsilon", 1e-5)
    spread, worst = variance + epsilon, int(np.argmin(variance))
    reason = f"the variance {source(node, 4).name} is {variance[worst]:.3g} in channel {worst}"
    if not spread[worst] > 0:
        raise Decline("NONFINITE", f"{reason}, with epsilon {epsilon:.3g} not above 0")
    scale = gamma / np.sqrt(spread)
    form = diagonal(scale, beta - mean * scale, len(spatial_sizes(source(node))))
    return Applied(source(node), form, warning=reason if variance[worst] < 0 else "")


def read_layer_norm(node: ir.Node) -> Applied:
    """g * n(x) + b along the last axis, n the normalization without them (Ba et al. 2016)."""
    data, rank_ = source(node), rank(source(node))
    if int(number(node, "axis", -1)) % rank_ != rank_ - 1 or len(node.outputs) > 1:
        raise Decline("NONLINEAR", "only a normalization of the last axis is looked into")
    count = channel_count(data, 0)
    scale, bias = weights(node, 1, "scale"), optional_weights(node, 2, "bias")
    if scale.size != count or (bias is not None and bias.size != count):
        raise Decline("NOT-PER-CHANNEL", f"{scale.size} scales for {count} channels")
    if bias is None and np.all(scale == 1):
        raise Decline("NONLINEAR", "the normalization has no scale and no bias")
    form = diagonal(scale.reshape(-1), None if bias is None else bias.reshape(-1), 0)
    ones = np.ones(count, scale.dtype)
    normalization = Deferred(node.op_type, data, (ones,), node.attributes)
    plain = deferred_value(
        normalization, f"{node.outputs[0].name}.plain", data.shape, node.outputs[0]
    )
    return Applied(plain, form)


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


def read_negation(node: ir.Node) -> Applied:
    """y = -x."""
    return scale(source(node), -1.0)


def read_constant_sum(node: ir.Node) -> Applied:
    """x + c, x - c or c - x, for a constant c per channel."""
    arrays = [constant(value) for value in node.inputs]
    if len(arrays) != 2 or all(array is None for array in arrays):
        raise Decline("NONLINEAR", "it is not a value and a constant that are added")
    data, operand, swapped = data_and_constant(node)
    signs = (1.0, -1.0) if node.op_type == "Sub" else (1.0, 1.0)
    sign_data, sign_constant = reversed(signs) if swapped else signs
    numbers, axes = per_channel(operand, data)
    ones = np.full(len(numbers), sign_data)
    return Applied(data, diagonal(ones, sign_constant * numbers, axes))
