"""Normalisations: a map of the channels, alone or behind the part that is not linear."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from flatfold.passes import virtual
from flatfold.passes.elementary import diagonal
from flatfold.passes.geometry import Decline
from flatfold.passes.reading import (
    Applied,
    channels,
    number,
    optional,
    rank,
    source,
    spatial,
    weights,
)


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
    form = diagonal(scale, beta - mean * scale, len(spatial(source(node))))
    return Applied(source(node), form, warning=told if variance[worst] < 0 else "")


def read_layer_norm(node: ir.Node) -> Applied:
    """g * n(x) + b along the last axis, n the normalisation without them (Ba et al. 2016)."""
    data, rank_ = source(node), rank(source(node))
    if int(number(node, "axis", -1)) % rank_ != rank_ - 1 or len(node.outputs) > 1:
        raise Decline("NONLINEAR", "only a normalisation of the last axis is looked into")
    count = channels(data, 0)
    scale, bias = weights(node, 1, "scale"), optional(node, 2, "bias")
    if scale.size != count or (bias is not None and bias.size != count):
        raise Decline("NOT-PER-CHANNEL", f"{scale.size} scales for {count} channels")
    if bias is None and np.all(scale == 1):
        raise Decline("NONLINEAR", "the normalisation has no scale and no bias")
    form = diagonal(scale.reshape(-1), None if bias is None else bias.reshape(-1), 0)
    ones = np.ones(count, scale.dtype)
    how = virtual.Origin(node.op_type, data, (ones,), node.attributes)
    plain = virtual.made(how, f"{node.outputs[0].name}.plain", data.shape, node.outputs[0])
    return Applied(plain, form)


NORMS: dict[str, Callable[[ir.Node], Applied]] = {
    "BatchNormalization": read_batch_norm,
    "LayerNormalization": read_layer_norm,
}
