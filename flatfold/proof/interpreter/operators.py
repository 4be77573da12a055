"""What each operator of a linear region computes, and the magnitude companion of the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.proof.interpreter.convolution import Array, convolve, cut, same_pads, scatter
from flatfold.proof.interpreter.movement import MOVING
from flatfold.proof.interpreter.pair import Pair, Unsupported, attribute, given
from flatfold.proof.interpreter.sampling import SAMPLING

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


def _axes(parameter: Array, like: Array) -> Array:
    return parameter.reshape(-1, *(1,) * (like.ndim - 2))


def _window(node: ir.Node, x: Array, kernel: tuple[int, ...]) -> tuple[Any, Any, list[int]]:
    none = [0] * 2 * len(kernel)
    strides = attribute(node, "strides", [1] * len(kernel))
    dilations = attribute(node, "dilations", [1] * len(kernel))
    mode = attribute(node, "auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        return strides, dilations, same_pads(x.shape[2:], kernel, strides, dilations, mode)
    return strides, dilations, list(attribute(node, "pads", none)) if mode == "NOTSET" else none


def _conv(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x, w = given(arguments[0]), given(arguments[1])
    strides, dilations, pads = _window(node, x.y, w.y.shape[2:])
    groups = attribute(node, "group", 1)
    y = convolve(x.y, w.y, strides, dilations, pads, groups)
    m = convolve(x.m, w.m, strides, dilations, pads, groups)
    bias = arguments[2] if len(arguments) > 2 else None
    return Pair(y, m) if bias is None else Pair(y + _axes(bias.y, y), m + _axes(bias.m, m))


def _conv_transpose(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    """Every pixel adds its kernel to the output: the definition, tap by tap."""
    x, w = given(arguments[0]), given(arguments[1])
    axes = w.y.ndim - 2
    none, one = [0] * axes, [1] * axes
    if "output_shape" in node.attributes or attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        raise Unsupported("ConvTranspose with a wanted output size")
    strides, dilations = (attribute(node, name, one) for name in ("strides", "dilations"))
    pads, extra = attribute(node, "pads", none * 2), attribute(node, "output_padding", none)
    groups = attribute(node, "group", 1)
    full = [scatter(a, b, strides, dilations, groups) for a, b in ((x.y, w.y), (x.m, w.m))]
    y, m = (cut(array, pads, extra) for array in full)
    bias = arguments[2] if len(arguments) > 2 else None
    return Pair(y, m) if bias is None else Pair(y + _axes(bias.y, y), m + _axes(bias.m, m))


def _batch_norm(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    if attribute(node, "training_mode", 0):
        raise Unsupported("BatchNormalization in training mode")
    x, gamma, beta, mean, variance = (given(a) for a in arguments)
    scale = gamma.y / np.sqrt(variance.y + attribute(node, "epsilon", 1e-5))
    y = _axes(scale, x.y) * (x.y - _axes(mean.y, x.y)) + _axes(beta.y, x.y)
    m = _axes(np.abs(scale), x.m) * (x.m + _axes(mean.m, x.m)) + _axes(beta.m, x.m)
    return Pair(y, m)


def _layer_norm(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x, scale = given(arguments[0]), given(arguments[1])
    if attribute(node, "axis", -1) not in (-1, x.y.ndim - 1):
        raise Unsupported("LayerNormalization of several axes")
    centred = x.y - x.y.mean(-1, keepdims=True)
    epsilon = attribute(node, "epsilon", 1e-5)
    plain = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    y, m = plain * scale.y, np.abs(plain) * scale.m
    bias = arguments[2] if len(arguments) > 2 else None
    return Pair(y, m) if bias is None else Pair(y + bias.y, m + bias.m)


def _mean(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x = given(arguments[0])
    axes, keep = attribute(node, "axes", None), bool(attribute(node, "keepdims", 1))
    if len(arguments) > 1 and arguments[1] is not None:
        axes = arguments[1].y.astype(np.int64).tolist()
    if not axes:
        raise Unsupported("a mean over no axes or all")
    return Pair(x.y.mean(tuple(axes), keepdims=keep), x.m.mean(tuple(axes), keepdims=keep))


def _global_mean(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    x = given(arguments[0])
    axes = tuple(range(2, x.y.ndim))
    return Pair(x.y.mean(axes, keepdims=True), x.m.mean(axes, keepdims=True))


def _gemm(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    a, b = given(arguments[0]), given(arguments[1])
    if attribute(node, "transA", 0):
        a = Pair(a.y.T, a.m.T)
    if attribute(node, "transB", 0):
        b = Pair(b.y.T, b.m.T)
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    y, m = alpha * (a.y @ b.y), abs(alpha) * (a.m @ b.m)
    c = arguments[2] if len(arguments) > 2 else None
    return Pair(y, m) if c is None else Pair(y + beta * c.y, m + abs(beta) * c.m)


def _average_pool(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x = given(arguments[0])
    kernel = tuple(attribute(node, "kernel_shape", ()))
    strides, dilations, pads = _window(node, x.y, kernel)
    if attribute(node, "ceil_mode", 0):
        raise Unsupported("AveragePool with ceil_mode")
    ones = np.ones((x.y.shape[1], 1, *kernel))
    groups, counted = len(ones), np.ones_like(x.y[:1])
    if attribute(node, "count_include_pad", 0):
        size: Any = float(np.prod(kernel))
    else:
        size = convolve(counted, ones, strides, dilations, pads, groups)
    y = convolve(x.y, ones, strides, dilations, pads, groups) / size
    return Pair(y, convolve(x.m, ones, strides, dilations, pads, groups) / size)


def _sum(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    pairs = [given(a) for a in arguments]
    return Pair(_total([p.y for p in pairs]), _total([p.m for p in pairs]))


def _total(arrays: list[Array]) -> Array:
    total = arrays[0]
    for array in arrays[1:]:
        total = total + array
    return total


def _sub(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    a, b = given(arguments[0]), given(arguments[1])
    return Pair(a.y - b.y, a.m + b.m)


def _mul(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    a, b = given(arguments[0]), given(arguments[1])
    return Pair(a.y * b.y, a.m * b.m)


def _div(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    a, b = given(arguments[0]), given(arguments[1])
    return Pair(a.y / b.y, a.m / b.m)


def _matmul(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    a, b = given(arguments[0]), given(arguments[1])
    return Pair(a.y @ b.y, a.m @ b.m)


def _neg(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    x = given(arguments[0])
    return Pair(-x.y, x.m)


def _same(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    return given(arguments[0])


def _max_pool(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    """The largest of each window; what lies outside is below everything."""
    x, kernel = given(arguments[0]), tuple(attribute(node, "kernel_shape", ()))
    strides, dilations, pads = _window(node, x.y, kernel)
    if attribute(node, "ceil_mode", 0):
        raise Unsupported("MaxPool with ceil_mode")
    axes = len(kernel)
    width = [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)]
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    window = tuple(slice(None, None, d) for d in dilations)
    index = (slice(None), slice(None), *(slice(None, None, s) for s in strides), *window)
    over, found = tuple(range(-axes, 0)), []
    for array, outside in ((x.y, -np.inf), (x.m, 0.0)):
        whole = np.pad(array, width, constant_values=outside)
        views = np.lib.stride_tricks.sliding_window_view(whole, spans, tuple(range(2, axes + 2)))
        found.append(views[index].max(over))
    return Pair(*found)


RULES: dict[str, Callable[[ir.Node, list[Pair | None]], Pair]] = {
    "Add": _sum,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": _div,
    "Dropout": _same,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_mean,
    "Identity": _same,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mul": _mul,
    "Neg": _neg,
    "ReduceMean": _mean,
    "Sub": _sub,
    "Sum": _sum,
    **BENDING,
    **MOVING,
    **SAMPLING,
}
