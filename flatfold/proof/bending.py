"""What activations do, element by element."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from flatfold.proof.convolution import Array
from flatfold.proof.pair import Pair, attribute, given

Rule = Callable[[ir.Node, list[Pair | None]], Pair]


def _leaky(slope: Array | float, x: Pair) -> Pair:
    return Pair(np.where(x.y >= 0, x.y, slope * x.y), np.maximum(1.0, np.abs(slope)) * x.m)


def _relu(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    return _leaky(0.0, given(arguments[0]))


def _leaky_relu(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    return _leaky(attribute(node, "alpha", 0.01), given(arguments[0]))


def _prelu(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    return _leaky(given(arguments[1]).y, given(arguments[0]))


def _clip(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x = given(arguments[0])
    low, high = ([None if a is None else a.y for a in arguments[1:]] + [None, None])[:2]
    low = attribute(node, "min", -np.inf) if low is None else low
    high = attribute(node, "max", np.inf) if high is None else high
    return Pair(np.clip(x.y, low, high), x.m)


def _smooth(function: Callable[[Array], Array], slope: float) -> Rule:
    """A function that nowhere rises or falls faster than `slope`."""

    def rule(_: ir.Node, arguments: list[Pair | None]) -> Pair:
        x = given(arguments[0])
        y = function(x.y)
        return Pair(y, np.abs(y) + slope * x.m)

    return rule


def _hard_sigmoid(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x, alpha = given(arguments[0]), attribute(node, "alpha", 0.2)
    y = np.clip(alpha * x.y + attribute(node, "beta", 0.5), 0.0, 1.0)
    return Pair(y, np.abs(y) + alpha * x.m)


BENDING: dict[str, Rule] = {
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _smooth(
        lambda x: x * np.clip(np.float64(np.float32(1 / 6)) * x + 0.5, 0.0, 1.0), 1.5
    ),
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Relu": _relu,
    "Sigmoid": _smooth(lambda x: 1 / (1 + np.exp(-x)), 0.25),
    "Softplus": _smooth(lambda x: np.log1p(np.exp(x)), 1.0),
    "Tanh": _smooth(np.tanh, 1.0),
}
