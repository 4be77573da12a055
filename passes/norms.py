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
    if number(node, "training_mode", 0) != 0 or len(node.outputs) > 1:
        raise Decline(
            "TRAINING-MODE",
            "the normalisation uses the statistics of the batch",
            "export the model in eval mode",
        )
    if number(node, "spatial", 1) != 1:
        raise Decline("NOT-PER-CHANNEL", "the statistics differ between pixels")
    names = ("scale", "bias", "mean", "variance")
    parts = [weights(node, i + 1, n).astype(np.float64) for i, n in enumerate(names)]
    gamma, beta, mean, variance = parts
    spread = variance + number(node, "epsilon", 1e-5)
    if not np.all(spread > 0) or not all(np.all(np.isfinite(part)) for part in parts):
        worst = int(np.argmin(np.where(np.isfinite(spread), spread, -np.inf)))
        raise Decline("NONFINITE", f"variance + epsilon is {spread[worst]:g} in channel {worst}")
    scale = gamma / np.sqrt(spread)
    return Applied(source(node), diagonal(scale, beta - mean * scale, len(spatial(source(node)))))


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
