"""What an operator that works on each channel for itself makes of a channel that is constant."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from flatfold.passes.geometry import Decline, Ints
from flatfold.passes.kernels import Array
from flatfold.passes.ranges import clip_limits
from flatfold.passes.reading import ints, number, rank, source, window

SIXTH = float(np.float32(1 / 6))  # of HardSwish, which the standard writes as a HardSigmoid


def filled_window(node: ir.Node) -> tuple[Ints, Ints, Ints, Ints]:
    """`window` of a MaxPool of which none may lie in the padding alone; Decline of any other."""
    kernel = ints(node, "kernel_shape", ())
    strides, dilations, begin, end = window(node, kernel)
    if number(node, "ceil_mode", 0) != 0 or len(node.outputs) > 1:
        raise Decline("CEIL-MODE", f"the last window of {kernel} may hang over the edge")
    beside = any(n >= k for n, k in zip((*begin, *end), kernel * 2, strict=True))
    if beside or (max(dilations) > 1 and any((*begin, *end))):
        pads = f"{begin} at the start and {end} at the end"
        raise Decline("PAD-MODE", f"a window of {kernel} may lie in the padding alone, {pads}")
    return strides, dilations, begin, end


def carried(node: ir.Node, values: Array) -> Array:
    """One number per channel through the node, NaN staying NaN. Raises Decline if it mixes them."""
    rule = CHANNELWISE.get(node.op_type) if node.domain == "" else None
    if rule is None or len(node.outputs) > 1 or rank(source(node)) < 2:
        raise Decline("NONLINEAR", f"{node.op_type} may mix channels")
    with np.errstate(all="ignore"):
        found: Array = rule(node, values)
    return found


def _leaky_relu(node: ir.Node, values: Array) -> Array:
    return np.where(values < 0, number(node, "alpha", 0.01) * values, values)


def _clip(node: ir.Node, values: Array) -> Array:
    limits = clip_limits(node)
    if limits is None or any(value is not None and value.producer() for value in node.inputs[1:]):
        raise Decline("NONLINEAR", "the limits are not constant")
    return np.minimum(np.maximum(values, limits[0]), limits[1])


def _hard_sigmoid(node: ir.Node, values: Array) -> Array:
    alpha, beta = number(node, "alpha", 0.2), number(node, "beta", 0.5)
    return np.clip(alpha * values + beta, 0.0, 1.0)


def _average(node: ir.Node, values: Array) -> Array:
    """A mean over padding is that of the constant and some zeros."""
    attribute = node.attributes.get("pads")
    padded = attribute is not None and any(attribute.as_ints())
    if padded or "auto_pad" in node.attributes or number(node, "ceil_mode", 0) != 0:
        return np.where(values == 0, values, np.nan)
    return values


def _largest(node: ir.Node, values: Array) -> Array:
    """The largest of equal numbers, if every window holds one."""
    try:
        filled_window(node)
    except Decline as why:
        raise Decline("NONLINEAR", why.reason) from None
    return values


CHANNELWISE: dict[str, Callable[[ir.Node, Array], Array]] = {
    "AveragePool": _average,
    "Clip": _clip,
    "GlobalAveragePool": lambda _, values: values,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda _, values: values * np.clip(SIXTH * values + 0.5, 0.0, 1.0),
    "Identity": lambda _, values: values,
    "LeakyRelu": _leaky_relu,
    "MaxPool": _largest,
    "Relu": lambda _, values: np.maximum(values, 0.0),
    "Sigmoid": lambda _, values: 1 / (1 + np.exp(-values)),
    "Softplus": lambda _, values: np.log1p(np.exp(values)),
    "Tanh": lambda _, values: np.tanh(values),
}
