"""Layers with weights: convolutions, products of matrices, norms, recurrent layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.fuzz.sketch import Rejected, Sketch


def spatial(s: Sketch, x: str) -> tuple[int, int, tuple[int, ...]]:
    """(images, channels, sizes) of a map. Raises Rejected where x is none."""
    shape = s.shape(x)
    if not 3 <= len(shape) <= 5:
        raise Rejected("no map")
    return shape[0], shape[1], shape[2:]


def divisor(s: Sketch, number: int) -> int:
    return int(s.one([n for n in range(1, number + 1) if number % n == 0]))


def window(s: Sketch, sizes: tuple[int, ...], widest: int = 5) -> dict[str, Any]:
    """Kernel, strides, dilations and padding that fit the map, in any of their spellings."""
    rank = len(sizes)
    kernel = [s.between(1, min(widest, 3 if rank == 3 else widest)) for _ in sizes]
    attributes: dict[str, Any] = {"kernel_shape": kernel}
    if s.chance(0.3):
        attributes["strides"] = [s.between(1, 3) for _ in sizes]
    if s.chance(0.2):
        attributes["dilations"] = [s.between(1, 2) for _ in sizes]
    match s.between(0, 5):
        case 0:
            return attributes
        case 1:
            if "dilations" not in attributes:
                attributes["auto_pad"] = s.one(("SAME_UPPER", "SAME_LOWER", "VALID"))
        case 2:
            attributes["pads"] = [s.between(0, k - 1) for k in kernel + kernel]
        case _:
            steps = attributes.get("dilations", [1] * rank)
            attributes["pads"] = [(k - 1) * d // 2 for k, d in zip(kernel, steps, strict=True)] * 2
    return attributes


def conv(s: Sketch, x: str) -> str:
    _, channels, sizes = spatial(s, x)
    return conv_to(s, x, s.one((channels, channels, s.between(1, 8))), window(s, sizes))


def conv_to(s: Sketch, x: str, outputs: int, attributes: dict[str, Any]) -> str:
    """A Conv with `outputs` channels, grouped where that fits."""
    channels = s.shape(x)[1]
    groups = divisor(s, int(np.gcd(channels, outputs))) if s.chance(0.4) else 1
    weight = s.normal(outputs, channels // groups, *attributes["kernel_shape"], scale=0.5)
    if s.chance(0.1):  # pruned weights
        weight *= s.rng.random(weight.shape) < 0.5
    if s.chance(0.1):  # pruned channels
        weight[s.between(0, outputs - 1)] = 0
    extra = [s.const(s.normal(outputs))] if s.chance(0.5) else []
    attributes = dict(attributes)
    if s.chance(0.3):
        del attributes["kernel_shape"]
    return s.add("Conv", x, s.const(weight), *extra, group=groups, **attributes)


def pointwise(s: Sketch, x: str) -> str:
    _, channels, sizes = spatial(s, x)
    outputs = s.one((channels, s.between(1, 8)))
    return conv_to(s, x, outputs, {"kernel_shape": [1 for _ in sizes]})


def conv_transpose(s: Sketch, x: str) -> str:
    _, channels, sizes = spatial(s, x)
    attributes = window(s, sizes, 4)
    groups = divisor(s, channels) if s.chance(0.3) else 1
    each = s.between(1, 4)
    weight = s.normal(channels, each, *attributes["kernel_shape"], scale=0.5)
    if "strides" in attributes and s.chance(0.3):
        attributes["output_padding"] = [s.between(0, n - 1) for n in attributes["strides"]]
    extra = [s.const(s.normal(each * groups))] if s.chance(0.5) else []
    return s.add("ConvTranspose", x, s.const(weight), *extra, group=groups, **attributes)


def batch_norm(s: Sketch, x: str) -> str:
    shape = s.shape(x)
    if len(shape) < 2:
        raise Rejected("rank")
    count = shape[1]
    variance = np.abs(s.normal(count)) + np.float32(0.3)
    parts = [s.normal(count), s.normal(count), s.normal(count), variance]
    attributes = {"epsilon": float(s.one((1e-5, 1e-3)))} if s.chance(0.7) else {}
    return s.add("BatchNormalization", x, *map(s.const, parts), **attributes)


def other_norm(s: Sketch, x: str) -> str:
    shape = s.shape(x)
    if len(shape) < 3:
        raise Rejected("rank")
    match s.between(0, 4):
        case 0:
            parts = [s.const(s.normal(shape[1])), s.const(s.normal(shape[1]))]
            return s.add("InstanceNormalization", x, *parts, epsilon=1e-2)
        case 1:
            if s.opset < 21:
                raise Rejected("GroupNormalization")
            parts = [s.const(s.normal(shape[1])), s.const(s.normal(shape[1]))]
            groups = divisor(s, shape[1])
            return s.add("GroupNormalization", x, *parts, num_groups=groups, epsilon=1e-2)
        case 2:
            return s.add("LRN", x, size=s.one((1, 3, 5)), alpha=0.1, beta=0.75, bias=1.0)
        case 3:
            if s.opset < 9:
                raise Rejected("MeanVarianceNormalization")
            return s.add("MeanVarianceNormalization", x, axes=[0, *range(2, len(shape))])
    return s.add("LpNormalization", x, axis=s.between(0, len(shape) - 1), p=s.between(1, 2))


def layer_norm(s: Sketch, x: str) -> str:
    """LayerNormalization, or spelled out with means as older exporters did."""
    shape = s.shape(x)
    if not shape or shape[-1] < 2:
        raise Rejected("too few")
    scale, bias = s.const(s.normal(shape[-1])), s.const(s.normal(shape[-1]))
    if s.opset >= 17 and s.chance(0.6):
        return s.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-2)
    if s.opset >= 18:
        raise Rejected("axes are an input")
    mean = s.add("ReduceMean", x, axes=[-1] if s.opset >= 11 else [len(shape) - 1], keepdims=1)
    centred = s.add("Sub", x, mean)
    square = s.add("Mul", centred, centred)
    axes = [-1] if s.opset >= 11 else [len(shape) - 1]
    variance = s.add("ReduceMean", square, axes=axes, keepdims=1)
    spread = s.add("Sqrt", s.add("Add", variance, s.const(np.float32(1e-2))))
    return s.add("Add", s.add("Mul", s.add("Div", centred, spread), scale), bias)


def spelled_norm(s: Sketch, x: str) -> str:
    """A norm spelled out, along the last axis, the channels or all pixels."""
    shape = s.shape(x)
    if len(shape) < 3:
        raise Rejected("rank")
    axes = s.one(([len(shape) - 1], [1], list(range(2, len(shape)))))
    along = axes[0] if len(axes) == 1 else 1
    parameters = tuple(n if i == along else 1 for i, n in enumerate(shape))[1:]
    data = s.add("Sub", x, _mean(s, x, axes)) if s.chance(0.7) else x
    square = s.add("Mul", data, data) if s.chance(0.5) else _square(s, data)
    root = s.add("Sqrt", s.add("Add", _mean(s, square, axes), s.const(np.float32(1e-2))))
    divides = s.chance(0.5)
    y = s.add("Div", data, root) if divides else s.add("Mul", data, s.add("Reciprocal", root))
    if s.chance(0.7):
        y = s.add("Mul", y, s.const(s.normal(*parameters)))
    return s.add("Add", y, s.const(s.normal(*parameters))) if s.chance(0.7) else y


def _square(s: Sketch, x: str) -> str:
    return s.add("Pow", x, s.const(np.float32(2)))


def _mean(s: Sketch, x: str, axes: list[int]) -> str:
    if s.opset >= 18:
        return s.add("ReduceMean", x, s.const(np.array(axes, np.int64)))
    return s.add("ReduceMean", x, axes=axes)


def linear(s: Sketch, x: str) -> str:
    """MatMul with a constant, then usually a bias."""
    shape = s.shape(x)
    if not shape:
        raise Rejected("scalar")
    outputs = s.one((shape[-1], s.between(1, 8)))
    weight = s.const(s.normal(shape[-1], outputs, scale=0.5))
    y = s.add("MatMul", x, weight)
    if s.chance(0.6):
        pair = [y, s.const(s.normal(outputs))]
        y = s.add("Add", *(pair if s.chance(0.5) else pair[::-1]))
    return y


def matmul_left(s: Sketch, x: str) -> str:
    """A constant times x."""
    shape = s.shape(x)
    if len(shape) < 2:
        raise Rejected("rank")
    return s.add("MatMul", s.const(s.normal(s.between(1, 6), shape[-2], scale=0.5)), x)


def attention(s: Sketch, x: str) -> str:
    """softmax(q k') v with q, k and v from x."""
    shape = s.shape(x)
    if len(shape) not in (3, 4) or shape[-1] < 2:
        raise Rejected("rank")
    q, k, v = (s.add("MatMul", x, s.const(s.normal(shape[-1], 4, scale=0.5))) for _ in range(3))
    axes = list(range(len(shape)))
    axes[-2:] = axes[:-3:-1]
    scores = s.add("MatMul", q, s.add("Transpose", k, perm=axes))
    scores = s.add("Mul", scores, s.const(np.float32(0.5)))
    return s.add("MatMul", s.add("Softmax", scores, axis=len(shape) - 1), v)


def gemm(s: Sketch, x: str) -> str:
    shape = s.shape(x)
    if len(shape) != 2:
        x = s.add("Flatten", x, axis=s.between(0, min(2, len(shape))))
        shape = s.shape(x)
    across = s.chance(0.5)
    outputs = s.between(1, 8)
    weight = s.normal(*((outputs, shape[1]) if across else (shape[1], outputs)), scale=0.5)
    bias = s.one((s.normal(outputs), s.normal(1, outputs), s.normal(1), s.normal(shape[0], 1)))
    attributes: dict[str, Any] = {"transB": 1} if across else {}
    if s.chance(0.3):
        attributes |= {"alpha": 0.5, "beta": float(s.one((2.0, 0.0)))}
    return s.add("Gemm", x, s.const(weight), s.const(bias), **attributes)


def einsum(s: Sketch, x: str) -> str:
    shape = s.shape(x)
    if s.opset < 12 or not 2 <= len(shape) <= 4:
        raise Rejected("Einsum")
    letters = "abcd"[: len(shape)]
    axis = s.between(0, len(shape) - 1)
    out = letters.replace(letters[axis], "z")
    if s.chance(0.3):
        out = "".join(out[i] for i in s.permutation(len(out)))
    weight = s.const(s.normal(shape[axis], s.between(1, 5), scale=0.5))
    return s.add("Einsum", x, weight, equation=f"{letters},{letters[axis]}z->{out}")


def recurrent(s: Sketch, x: str) -> str:
    """LSTM, GRU or RNN over the last axis but one."""
    shape = s.shape(x)
    if len(shape) == 4:
        x = s.add("Reshape", x, s.ints(0, 0, -1))
        shape = s.shape(x)
    if len(shape) != 3 or shape[0] > 12:
        raise Rejected("rank")
    kind, gates = s.one((("LSTM", 4), ("GRU", 3), ("RNN", 1)))
    both = s.chance(0.4)
    ways, hidden = 1 + both, 3
    weights = [
        s.const(s.normal(ways, gates * hidden, shape[2], scale=0.4)),
        s.const(s.normal(ways, gates * hidden, hidden, scale=0.4)),
        s.const(s.normal(ways, 2 * gates * hidden, scale=0.4)),
    ]
    how = {"direction": "bidirectional"} if both else {}
    if kind == "GRU":
        how["linear_before_reset"] = s.between(0, 1)
    y = s.add(kind, x, *weights, hidden_size=hidden, **how)
    y = s.add("Transpose", y, perm=[0, 2, 1, 3])
    return s.add("Reshape", y, s.ints(0, 0, ways * hidden))


LAYERS = [
    *(conv, conv, conv, pointwise, conv_transpose, batch_norm, batch_norm, other_norm),
    *(layer_norm, linear, linear, matmul_left, attention, gemm, einsum, recurrent),
    *(spelled_norm, spelled_norm),
]
