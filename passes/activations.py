"""Activations that do nothing: training made them linear, or their input never bends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from flatfold.passes.geometry import Decline
from flatfold.passes.ranges import bounds, clip_limits
from flatfold.passes.reading import Applied, number, scaled, source, weights


def read_relu(node: ir.Node) -> Applied:
    data = source(node)
    if bounds(data)[0] < 0:
        raise Decline("NONLINEAR", "Relu is not linear")
    return scaled(data)


def read_leaky_relu(node: ir.Node) -> Applied:
    """x where alpha is 1 (VanillaNet's schedule at its end), or where x is never negative."""
    data, alpha = source(node), number(node, "alpha", 0.01)
    if alpha != 1 and bounds(data)[0] < 0:
        raise Decline("NONLINEAR", f"LeakyRelu with alpha {alpha:g} is not linear")
    return scaled(data)


def read_prelu(node: ir.Node) -> Applied:
    data = source(node)
    if bounds(data)[0] < 0:
        slopes = weights(node, 1, "slope")
        bent = int(np.count_nonzero(slopes != 1))
        if bent:
            raise Decline("NONLINEAR", f"{bent} of {slopes.size} slopes of PRelu are not 1")
    return scaled(data)


def read_clip(node: ir.Node) -> Applied:
    data, limits = source(node), clip_limits(node)
    if limits is None:
        names = ", ".join(str(value.name) for value in node.inputs[1:] if value is not None)
        raise Decline("NOT-CONSTANT", f"the limits of Clip are not constant: {names}")
    low, high = bounds(data)
    if low < limits[0] or high > limits[1]:
        raise Decline("NONLINEAR", "Clip is not linear")
    return scaled(data)


ACTIVATIONS: dict[str, Callable[[ir.Node], Applied]] = {
    "Clip": read_clip,
    "LeakyRelu": read_leaky_relu,
    "PRelu": read_prelu,
    "Relu": read_relu,
}
