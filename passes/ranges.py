"""Bounds on the values of a graph, read off the operators that make them."""

from __future__ import annotations

import math

import onnx_ir as ir

from flatfold.passes.reading import constant, number

Bounds = tuple[float, float]

EVERYTHING: Bounds = (-math.inf, math.inf)
FIXED: dict[str, Bounds] = {
    "Abs": (0.0, math.inf),
    "Exp": (0.0, math.inf),
    "HardSigmoid": (0.0, 1.0),
    "Relu": (0.0, math.inf),
    "Sigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Softplus": (0.0, math.inf),
    "Sqrt": (0.0, math.inf),
    "Tanh": (-1.0, 1.0),
}

# Their outputs are some of their first input's values.
PICKING = (
    "Flatten",
    "Gather",
    "GlobalMaxPool",
    "Identity",
    "MaxPool",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)

# Means: never below 0 where the input is not, but rounding may take them past an upper bound.
AVERAGING = ("AveragePool", "GlobalAveragePool", "ReduceMean")

MOST_STEPS = 16


def bounds(value: ir.Value | None, steps: int = MOST_STEPS) -> Bounds:
    """(low, high) such that low <= every element <= high, NaN aside."""
    node = value.producer() if value is not None else None
    if node is None or node.domain != "" or steps == 0:
        return EVERYTHING
    if node.op_type in FIXED:
        return FIXED[node.op_type]
    if node.op_type in PICKING:
        return bounds(node.inputs[0], steps - 1)
    if node.op_type in AVERAGING:
        return (0.0, math.inf) if bounds(node.inputs[0], steps - 1)[0] >= 0 else EVERYTHING
    if node.op_type == "Clip":
        given, limits = bounds(node.inputs[0], steps - 1), clip_limits(node)
        if limits is None:
            return given
        low, high = (min(max(end, limits[0]), limits[1]) for end in given)  # max wins over min
        return low, high
    return EVERYTHING


def clip_limits(node: ir.Node) -> Bounds | None:
    """The limits of a Clip, inputs or (before opset 11) attributes; None if they are computed."""
    limits = [number(node, "min", -math.inf), number(node, "max", math.inf)]
    for index in (1, 2):
        value = node.inputs[index] if len(node.inputs) > index else None
        if value is None:
            continue
        array = constant(value)
        if array is None or array.size != 1:
            return None
        limits[index - 1] = float(array.reshape(-1)[0])
    return limits[0], limits[1]
