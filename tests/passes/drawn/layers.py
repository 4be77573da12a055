"""Convolutions, pools and sums of branches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.passes.drawn import records as r
from tests.passes.drawn.growth import Growth, Value, fits, slid


def conv(growth: Growth, step: r.Conv, v: Value) -> Value | None:
    axes, net = v.axes, growth.net
    kernel, strides = list(step.kernel[:axes]), list(step.strides[:axes])
    dilations = list(step.dilations[:axes])
    groups = {"1": 1, "2": 2, "all": v.channels}[step.groups]
    out = -(-step.out // groups) * groups
    if v.channels % groups:
        groups, out = 1, step.out
    how, sizes = _padding(step, v, kernel, strides, dilations)
    if not fits(sizes, out):
        return None
    weight = net.rng.standard_normal((out, v.channels // groups, *kernel))
    weight = _sparse(weight, step.taps) / np.sqrt(weight[0].size)
    extra = [growth.numbers(out)] if step.bias else []
    how |= {"strides": strides, "dilations": dilations, "group": groups}
    return Value(net.op("Conv", v.name, net.const(weight), *extra, **how), out, sizes)


def _padding(step: r.Conv, v: Value, kernel, strides, dilations) -> tuple[dict, tuple[int, ...]]:
    """The attributes, and the sizes that come out."""
    axes, pads = v.axes, [0] * 2 * v.axes
    if step.pads in ("SAME_UPPER", "SAME_LOWER"):
        sizes = tuple(-(-n // s) for n, s in zip(v.sizes, strides, strict=True))
        return {"auto_pad": step.pads}, sizes
    if step.pads == "same":
        reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
        pads = [n // 2 for n in reach] + [n - n // 2 for n in reach]
    elif not isinstance(step.pads, str):
        pads = [*step.pads[0][:axes], *step.pads[1][:axes]]
    how = {"auto_pad": "VALID"} if step.pads == "VALID" else {"pads": pads}
    return how, slid(v.sizes, kernel, strides, pads, dilations)


def _sparse(weight: np.ndarray, taps: str) -> np.ndarray:
    kernel = weight.shape[2:]
    kept = np.ones(weight.shape)
    if taps == "one tap":
        kept = np.zeros(weight.shape)
        kept[(..., *(n - 1 for n in kernel))] = 1
    if taps == "no rim":
        kept = np.zeros(weight.shape)
        kept[(..., *(slice(n // 3, n - n // 3) for n in kernel))] = 1
    if taps == "dead rows":
        kept[::2] = 0
    return weight * (0 if taps == "zeros" else kept)


def transposed(growth: Growth, step: r.Transposed, v: Value) -> Value | None:
    axes = v.axes
    kernel, strides = step.kernel[:axes], step.strides[:axes]
    pads = [min(p, k - 1) for side in step.pads for p, k in zip(side, kernel, strict=False)]
    more = [min(step.more, s - 1) for s in strides]
    ends = zip(v.sizes, strides, kernel, pads[:axes], pads[axes:], more, strict=True)
    sizes = tuple((n - 1) * s + k - b - e + m for n, s, k, b, e, m in ends)
    groups = step.groups if v.channels % step.groups == 0 else 1
    if not fits(sizes, 4):
        return None
    fan = v.channels * int(np.prod(kernel))
    extra = [growth.numbers(4)] if step.bias else []
    weight = growth.numbers(v.channels, 4 // groups, *kernel, fan=fan)
    how = {"strides": strides, "pads": pads, "output_padding": more, "group": groups}
    return Value(growth.net.op("ConvTranspose", v.name, weight, *extra, **how), 4, sizes)


def pool(growth: Growth, step: r.Pool, v: Value) -> Value | None:
    axes = v.axes
    kernel, strides = list(step.kernel[:axes]), [step.stride] * axes
    pads = [min(step.pad, k // 2) for k in kernel] * 2
    sizes = slid(v.sizes, kernel, strides, pads)
    if not fits(sizes, v.channels):
        return None
    how = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    if step.kind == "AveragePool":
        how["count_include_pad"] = int(step.include)
    hanging = _up(v.sizes, kernel, strides, pads) if step.ceil else None
    if hanging is not None:
        how["ceil_mode"], sizes = 1, hanging
    return Value(growth.net.op(step.kind, v.name, **how), v.channels, sizes)


def _up(sizes, kernel, strides, pads) -> tuple[int, ...] | None:
    """Sizes with ceil_mode, where the last window may hang over the edge.

    None where that window would start behind the edge: it is left out, but ONNX's own shape
    inference counts it.
    """
    made = []
    for n, k, s, b, e in zip(sizes, kernel, strides, pads, pads[len(sizes) :], strict=False):
        made.append(-((k - n - b - e) // s) + 1)
        if (made[-1] - 1) * s >= n + b:
            return None
    return tuple(made)


def branches(growth: Growth, step: r.Branches, v: Value) -> Value | None:
    """A sum of arms of one size; an arm that cannot have it is left out."""
    out = step.out or v.channels
    arms = [(arm.minus, _arm(growth, step, arm, v, out)) for arm in step.arms]
    found = [(minus, arm) for minus, arm in arms if arm is not None]
    if not found:
        return None
    first = found[0][1]
    alike = [(minus, arm.name) for minus, arm in found if arm.shape == first.shape]
    return replace(first, name=growth.total(alike, step.nesting))


def _arm(growth: Growth, step: r.Branches, arm: r.Arm, v: Value, out: int) -> Value | None:
    v = growth.alike(v, 1) if arm.elsewhere else v
    if arm.kind != "Conv" and out != v.channels:
        return None
    y = _body(growth, step, arm, v, out)
    if y is not None and arm.then:
        y = conv(growth, r.Conv(out=out, bias=arm.bias), y)
    if y is not None and arm.norm:
        y = growth.norm(y)
    if y is not None and arm.gain:
        y = replace(y, name=growth.net.op("Mul", growth.simple(y.channels, *[1] * y.axes), y.name))
    return y


def _body(growth: Growth, step: r.Branches, arm: r.Arm, v: Value, out: int) -> Value | None:
    if arm.kind == "Conv":
        three = (arm.size,) * 3, (step.stride,) * 3, (arm.dilation,) * 3
        return conv(growth, r.Conv(0, 0, out, *three, "same", arm.groups, arm.bias), v)
    if arm.kind in ("Pool", "Max"):
        kind = "AveragePool" if arm.kind == "Pool" else "MaxPool"
        size = 3 if step.stride == 1 else 1
        how = {"pad": 1, "include": arm.bias, "stride": step.stride}
        return pool(growth, r.Pool(kind=kind, kernel=(size,) * 3, **how), v)
    if step.stride > 1:
        return None
    if arm.kind == "Shift":
        return shift(growth, r.Shift(axis=arm.size, forward=arm.bias), v)
    return v if arm.kind == "Same" else replace(v, name=growth.net.op("Relu", v.name))


def total(growth: Growth, step: r.Total, v: Value) -> Value:
    others = [growth.summand(v, index).name for index in step.others]
    terms = [(False, v.name), *((step.minus, name) for name in others)]
    return replace(v, name=growth.total(terms, step.nesting))


def edge(growth: Growth, step: r.Edge, v: Value) -> Value | None:
    axes, net = v.axes, growth.net
    sign = -1 if step.crop else 1
    ends = zip(v.sizes, step.begin, step.end, strict=False)
    sizes = tuple(n + sign * (b + e) for n, b, e in ends)
    if not fits(sizes, v.channels):
        return None
    begin, end = step.begin[:axes], step.end[:axes]
    if not step.crop:
        pads = growth.indices(0, 0, *begin, 0, 0, *end)
        return Value(net.op("Pad", v.name, pads), v.channels, sizes)
    last = [-n if n else 2**31 - 1 for n in end]
    numbers = (begin, last, range(2, axes + 2))
    name = net.op("Slice", v.name, *(growth.indices(*n) for n in numbers))
    return Value(name, v.channels, sizes)


def shift(growth: Growth, step: r.Shift, v: Value) -> Value | None:
    """x[p - amount] along one axis, zeros coming in, or around the edge."""
    axis = step.axis % v.axes
    n = step.amount
    if step.kind != "PadSlice" and n >= v.sizes[axis]:
        return None
    everything = 2**31 - 1
    kept = (0, -n) if step.forward else (n, everything)
    if step.kind == "Roll":
        far = (-n, everything) if step.forward else (0, n)
        halves = [growth.cut(v.name, axis + 2, *ends) for ends in (kept, far)]
        halves = halves[::-1] if step.forward else halves
        return replace(v, name=growth.net.op("Concat", *halves, axis=axis + 2))
    pads = [0] * 2 * (v.axes + 2)
    pads[axis + 2 + (0 if step.forward else v.axes + 2)] = n
    if step.kind == "PadSlice":
        wide = growth.net.op("Pad", v.name, growth.indices(*pads))
        return replace(v, name=growth.cut(wide, axis + 2, *kept))
    narrow = growth.cut(v.name, axis + 2, *kept)
    return replace(v, name=growth.net.op("Pad", narrow, growth.indices(*pads)))
