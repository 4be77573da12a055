"""ONNX operators, one row each: the rule that evaluates one, and the traits that checks rely on.

`OPERATORS`, at the end, is the table; a rule returns the output of a node for its operands, with
its magnitude companion. Rules for layers and activations are here, those that only move numbers in
`movement`, those that read between pixels in `sampling`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.proof.interpreter import movement, sampling
from flatfold.proof.interpreter.convolution import Array, convolve, same_pads, transpose_convolve
from flatfold.proof.interpreter.pair import Pair, Unsupported, attribute, given

Rule = Callable[[ir.Node, list[Pair | None]], Pair]
Curve = Callable[[Array], Array]

SAME_RANGE: Curve = np.asarray


class Linear(Enum):
    """In which operands an operator is linear."""

    NONE = "none"
    JOINTLY = "all together: a sum, or data movement"
    EACH = "each, where the others are constant: a product"
    FIRST = "the first, where the others are constant: a convolution"


@dataclass(frozen=True)
class Operator:
    """One row: `rule` evaluates a node, None where the interpreter does not know the operator.

    any_size: computes the same at every batch and map size.
    elementwise: combines several operands element by element.
    piecewise: linear on part of its range only.
    counts_pixels: its constants may depend on the size of the map.
    output_range: maps any numbers to numbers that the output may have; SAME_RANGE where those are
        the numbers that the input may have. None where nothing is known.
    random: two nodes that are the same differ in their outputs.
    """

    rule: Rule | None = None
    linear: Linear = Linear.NONE
    any_size: bool = False
    elementwise: bool = False
    piecewise: bool = False
    counts_pixels: bool = False
    output_range: Curve | None = None
    random: bool = False


def traits_of(node: ir.Node) -> Operator:
    """The row of the node's operator; the default one, of which nothing is known, without a row."""
    return OPERATORS.get(node.op_type, UNKNOWN)


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


def _smooth(function: Curve, slope: float) -> Rule:
    """The rule of a function whose derivative is at most `slope` everywhere."""

    def rule(_: ir.Node, arguments: list[Pair | None]) -> Pair:
        x = given(arguments[0])
        y = function(x.y)
        return Pair(y, np.abs(y) + slope * x.m)

    return rule


def _hard_sigmoid(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x, alpha = given(arguments[0]), attribute(node, "alpha", 0.2)
    y = np.clip(alpha * x.y + attribute(node, "beta", 0.5), 0.0, 1.0)
    return Pair(y, np.abs(y) + alpha * x.m)


def _hard_swish(x: Array) -> Array:
    y: Array = x * np.clip(np.float64(np.float32(1 / 6)) * x + 0.5, 0.0, 1.0)
    return y


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _softplus(x: Array) -> Array:
    """log(1 + e^x), by the operators that it is spelled out in."""
    y: Array = np.log(1 + np.exp(x))
    return y


_ERF: Any = np.frompyfunc(math.erf, 1, 1)


def _erf(x: Array) -> Array:
    y: Array = _ERF(x.reshape(-1)).astype(np.float64)
    return y.reshape(x.shape)


GELU = (2**0.5, (2 / math.pi) ** 0.5, 0.044715)


def _gelu(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    """x (1 + erf(x / sqrt(2))) / 2, or the approximation of it; its slope is at most 1.13."""
    by_tanh = attribute(node, "approximate", "none") == "tanh"
    double = node.outputs[0].dtype == ir.DataType.DOUBLE
    root, slope, cubic = GELU if double else (float(np.float32(number)) for number in GELU)

    def curve(x: Array) -> Array:
        inner = np.tanh((x + x**3 * cubic) * slope) if by_tanh else _erf(x / root)
        y: Array = x * (1 + inner) * 0.5
        return y

    return _smooth(curve, 1.13)(node, arguments)


def _swish(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    alpha = attribute(node, "alpha", 1.0)
    return _smooth(lambda x: x * _sigmoid(alpha * x), 1.1)(node, arguments)


def _exp(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    x = given(arguments[0])
    y = np.exp(x.y)
    return Pair(y, y * (1 + x.m))


def _log(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    x = given(arguments[0])
    y = np.log(x.y)
    return Pair(y, np.abs(y) + x.m / np.abs(x.y))


def _sqrt(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    x = given(arguments[0])
    return Pair(np.sqrt(x.y), np.sqrt(x.m))


def _reciprocal(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    x = given(arguments[0])
    return Pair(1 / x.y, x.m / x.y**2)


def _power(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    """x^p for one p: a whole number above 0, or x above 0."""
    x, exponent = given(arguments[0]), given(arguments[1])
    if exponent.y.size != 1:
        raise Unsupported("Pow by several exponents")
    power = float(getattr(exponent.y, "value", exponent.y).reshape(-1)[0])
    if power < 1 or power != int(power):
        y = x.y**power
        return Pair(y, np.abs(y) * (1 + abs(power) * x.m / np.abs(x.y)))
    return Pair(x.y ** int(power), power * x.m ** int(power))


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
    """Every pixel adds its kernel to the output."""
    x, w = given(arguments[0]), given(arguments[1])
    options = {name: attribute(node, name, None) for name in node.attributes}
    y, m = (transpose_convolve(a, b, options) for a, b in ((x.y, w.y), (x.m, w.m)))
    if y is None or m is None:
        raise Unsupported("ConvTranspose with a larger output than it has values")
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


def _instance_norm(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    """(x - mean) / sqrt(variance + epsilon) over all pixels, times a scale, plus a bias."""
    x, scale, bias = (given(a) for a in arguments)
    pixels = tuple(range(2, x.y.ndim))
    centred = x.y - x.y.mean(pixels, keepdims=True)
    spread = np.sqrt((centred**2).mean(pixels, keepdims=True) + attribute(node, "epsilon", 1e-5))
    plain = centred / spread
    y = plain * _axes(scale.y, x.y) + _axes(bias.y, x.y)
    return Pair(y, np.abs(plain) * _axes(scale.m, x.y) + _axes(bias.m, x.y))


def _group_norm(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    """The same over the pixels of each group of channels; scale and bias per channel or group."""
    x, scale, bias = (given(a) for a in arguments)
    groups = attribute(node, "num_groups", 1)
    split = (x.y.shape[0], groups, -1)
    whole = x.y.reshape(split)
    centred = whole - whole.mean(2, keepdims=True)
    spread = np.sqrt((centred**2).mean(2, keepdims=True) + attribute(node, "epsilon", 1e-5))
    plain = (centred / spread).reshape(x.y.shape)
    index = np.arange(x.y.shape[1]) * scale.y.shape[0] // x.y.shape[1]
    parts = [np.take(array, index, 0) for array in (scale.y, bias.y, scale.m, bias.m)]
    g, b, g_m, b_m = (_axes(part, x.y) for part in parts)
    return Pair(plain * g + b, np.abs(plain) * g_m + b_m)


def _rms_norm(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x, scale = given(arguments[0]), given(arguments[1])
    if attribute(node, "axis", -1) not in (-1, x.y.ndim - 1):
        raise Unsupported("RMSNormalization of several axes")
    spread = np.sqrt((x.y**2).mean(-1, keepdims=True) + attribute(node, "epsilon", 1e-5))
    plain = x.y / spread
    return Pair(plain * scale.y, np.abs(plain) * scale.m)


def _mean(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x, (axes, keep) = given(arguments[0]), _reduced(node, arguments)
    return Pair(x.y.mean(axes, keepdims=keep), x.m.mean(axes, keepdims=keep))


def _reduced(node: ir.Node, arguments: list[Pair | None]) -> tuple[tuple[int, ...], bool]:
    """The axes that are reduced, and whether they stay as axes of one."""
    axes, keep = attribute(node, "axes", None), bool(attribute(node, "keepdims", 1))
    if len(arguments) > 1 and arguments[1] is not None:
        axes = arguments[1].y.astype(np.int64).tolist()
    if not axes:
        raise Unsupported(f"{node.op_type} over no axes or all")
    return tuple(axes), keep


def _reduced_max(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    """The largest pixel of each channel, with the axes of the node."""
    x, (axes, keep) = given(arguments[0]), _reduced(node, arguments)
    if sorted(axis % x.y.ndim for axis in axes) != list(range(2, x.y.ndim)):
        raise Unsupported("ReduceMax over other axes than the pixels")
    largest = _global_max(node, arguments)
    if keep:
        return largest
    shape = x.y.shape[:2]
    return Pair(largest.y.reshape(shape), largest.m.reshape(shape))


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


def _with_last_windows(
    sizes: Any, kernel: tuple[int, ...], strides: Any, dilations: Any, pads: list[int]
) -> list[int]:
    """Pads of a pool with ceil_mode: a last window may hang over the end, but not start there."""
    axes, ends = len(kernel), []
    for n, k, s, d, b, e in zip(
        sizes, kernel, strides, dilations, pads[:axes], pads[axes:], strict=True
    ):
        span = d * (k - 1) + 1
        count = -(-(n + b + e - span) // s) + 1
        count -= (count - 1) * s >= n + b
        ends.append(max(e, (count - 1) * s + span - n - b))
    return [*pads[:axes], *ends]


def _average_pool(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x = given(arguments[0])
    kernel = tuple(attribute(node, "kernel_shape", ()))
    strides, dilations, pads = _window(node, x.y, kernel)
    if attribute(node, "ceil_mode", 0):
        if attribute(node, "count_include_pad", 0):
            raise Unsupported("AveragePool with ceil_mode that counts the padding")
        pads = _with_last_windows(x.y.shape[2:], kernel, strides, dilations, pads)
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


def _einsum(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    """A product of two operands, of which one has a letter or two that are all its own."""
    a, b = given(arguments[0]), given(arguments[1])
    inputs, _, output = str(attribute(node, "equation", "")).replace(" ", "").partition("->")
    left, right = inputs.split(",")
    if len(left) < len(right):
        a, b, left, right = b, a, right, left
    summed = [letter for letter in right if letter in left and letter not in output]
    if len(right) == 1 and left == output and right in left:
        shape = [-1 if letter == right else 1 for letter in left]
        return Pair(a.y * b.y.reshape(shape), a.m * b.m.reshape(shape))
    new = [letter for letter in right if letter not in left]
    if len(right) != 2 or len(summed) != 1 or left.replace(summed[0], new[0]) != output:
        raise Unsupported(f"Einsum of {inputs}->{output}")
    at, order = left.index(summed[0]), list(range(len(left)))
    order.append(order.pop(at))
    back = [order.index(axis) for axis in range(len(left))]
    turned = (0, 1) if right[0] == summed[0] else (1, 0)
    y, m = (
        (x.transpose(order) @ w.transpose(turned)).transpose(back)
        for x, w in ((a.y, b.y), (a.m, b.m))
    )
    return Pair(y, m)


def _neg(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    x = given(arguments[0])
    return Pair(-x.y, x.m)


def _identity(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    return given(arguments[0])


def _global_max(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    """The largest pixel of each channel."""
    x = given(arguments[0])
    over = tuple(range(2, x.y.ndim))
    shape = (*x.y.shape[:2], *(1,) * len(over))
    return Pair(x.y.max(over).reshape(shape), x.m.max(over).reshape(shape))


def _max_pool(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    """The largest of each window; pixels outside the map are smaller than any other."""
    x, kernel = given(arguments[0]), tuple(attribute(node, "kernel_shape", ()))
    strides, dilations, pads = _window(node, x.y, kernel)
    if attribute(node, "ceil_mode", 0):
        raise Unsupported("MaxPool with ceil_mode")
    axes = len(kernel)
    width = [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)]
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    window = tuple(slice(None, None, d) for d in dilations)
    index = (slice(None), slice(None), *(slice(None, None, s) for s in strides), *window)
    over, results = tuple(range(-axes, 0)), []
    for array, outside in ((x.y, -np.inf), (x.m, 0.0)):
        whole = np.pad(array, width, constant_values=outside)
        views = np.lib.stride_tricks.sliding_window_view(whole, spans, tuple(range(2, axes + 2)))
        results.append(views[index].max(over))
    return Pair(*results)


UNKNOWN = Operator()

OPERATORS: dict[str, Operator] = {
    "Abs": Operator(output_range=np.abs),
    "Add": Operator(_sum, Linear.JOINTLY, any_size=True, elementwise=True),
    "AveragePool": Operator(_average_pool, Linear.JOINTLY, any_size=True, output_range=SAME_RANGE),
    "BatchNormalization": Operator(_batch_norm, Linear.FIRST, any_size=True),
    "Bernoulli": Operator(random=True),
    "Clip": Operator(_clip, any_size=True, piecewise=True, output_range=SAME_RANGE),
    "Concat": Operator(movement.concat, Linear.JOINTLY, counts_pixels=True),
    "Conv": Operator(_conv, Linear.FIRST, any_size=True),
    "ConvTranspose": Operator(_conv_transpose, Linear.FIRST),
    "DepthToSpace": Operator(
        movement.depth_to_space, Linear.JOINTLY, counts_pixels=True, output_range=SAME_RANGE
    ),
    "DeformConv": Operator(sampling.evaluate_deform_conv, counts_pixels=True),
    "Div": Operator(_div, Linear.FIRST, any_size=True, elementwise=True),
    "Dropout": Operator(_identity),
    "Einsum": Operator(_einsum, Linear.EACH),
    "Erf": Operator(_smooth(_erf, 1.13), any_size=True, output_range=_erf),
    "Exp": Operator(_exp, any_size=True, output_range=np.exp),
    "Expand": Operator(
        movement.expand, Linear.JOINTLY, counts_pixels=True, output_range=SAME_RANGE
    ),
    "Flatten": Operator(movement.flatten, Linear.JOINTLY, output_range=SAME_RANGE),
    "Gather": Operator(movement.gather, Linear.JOINTLY, output_range=SAME_RANGE),
    "Gelu": Operator(_gelu, any_size=True),
    "Gemm": Operator(_gemm, Linear.EACH),
    "GlobalAveragePool": Operator(
        _global_mean, Linear.JOINTLY, any_size=True, output_range=SAME_RANGE
    ),
    "GlobalMaxPool": Operator(_global_max, any_size=True, output_range=SAME_RANGE),
    "GridSample": Operator(sampling.evaluate_grid_sample, counts_pixels=True),
    "GroupNormalization": Operator(_group_norm),
    "HardSigmoid": Operator(
        _hard_sigmoid, any_size=True, output_range=lambda x: np.clip(0.2 * x + 0.5, 0, 1)
    ),
    "HardSwish": Operator(_smooth(_hard_swish, 1.5), any_size=True),
    "Identity": Operator(_identity, Linear.JOINTLY, any_size=True, output_range=SAME_RANGE),
    "InstanceNormalization": Operator(_instance_norm),
    "LayerNormalization": Operator(_layer_norm),
    "LeakyRelu": Operator(_leaky_relu, any_size=True, piecewise=True),
    "Log": Operator(_log, any_size=True),
    "MatMul": Operator(_matmul, Linear.EACH),
    "MaxPool": Operator(_max_pool, any_size=True, output_range=SAME_RANGE),
    "Mish": Operator(_smooth(lambda x: x * np.tanh(_softplus(x)), 1.09), any_size=True),
    "Mul": Operator(_mul, Linear.EACH, any_size=True, elementwise=True),
    "Multinomial": Operator(random=True),
    "Neg": Operator(_neg, Linear.JOINTLY, any_size=True),
    "PRelu": Operator(_prelu, any_size=True, elementwise=True, piecewise=True),
    "Pad": Operator(movement.pad, Linear.JOINTLY),
    "Pow": Operator(_power, any_size=True),
    "RMSNormalization": Operator(_rms_norm),
    "RandomNormal": Operator(random=True),
    "RandomNormalLike": Operator(random=True),
    "RandomUniform": Operator(random=True),
    "RandomUniformLike": Operator(random=True),
    "Reciprocal": Operator(_reciprocal, any_size=True),
    "ReduceMax": Operator(_reduced_max, output_range=SAME_RANGE),
    "ReduceMean": Operator(_mean, Linear.JOINTLY, output_range=SAME_RANGE),
    "Relu": Operator(_relu, any_size=True, piecewise=True, output_range=lambda x: np.maximum(x, 0)),
    "Reshape": Operator(
        movement.reshape, Linear.JOINTLY, counts_pixels=True, output_range=SAME_RANGE
    ),
    "Resize": Operator(
        sampling.evaluate_resize, Linear.JOINTLY, counts_pixels=True, output_range=SAME_RANGE
    ),
    "Shape": Operator(movement.shape, counts_pixels=True),
    "Sigmoid": Operator(_smooth(_sigmoid, 0.25), any_size=True, output_range=_sigmoid),
    "Slice": Operator(movement.slice_, Linear.JOINTLY, counts_pixels=True, output_range=SAME_RANGE),
    "Softmax": Operator(output_range=_sigmoid),
    "Softplus": Operator(_smooth(_softplus, 1.0), any_size=True, output_range=_softplus),
    "SpaceToDepth": Operator(
        movement.space_to_depth, Linear.JOINTLY, counts_pixels=True, output_range=SAME_RANGE
    ),
    "Split": Operator(linear=Linear.JOINTLY, output_range=SAME_RANGE),
    "Sqrt": Operator(_sqrt, any_size=True, output_range=np.abs),
    "Squeeze": Operator(movement.squeeze, Linear.JOINTLY, output_range=SAME_RANGE),
    "Sub": Operator(_sub, Linear.JOINTLY, any_size=True, elementwise=True),
    "Sum": Operator(_sum, Linear.JOINTLY, any_size=True, elementwise=True),
    "Swish": Operator(_swish, any_size=True),
    "Tanh": Operator(_smooth(np.tanh, 1.0), any_size=True, output_range=np.tanh),
    "Tile": Operator(movement.tile, Linear.JOINTLY, output_range=SAME_RANGE),
    "Transpose": Operator(movement.transpose, Linear.JOINTLY, output_range=SAME_RANGE),
    "Unsqueeze": Operator(movement.unsqueeze, Linear.JOINTLY, output_range=SAME_RANGE),
}
