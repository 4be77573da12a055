"""Random graphs of linear and other operators: what a rewrite might meet, and worse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from tests.nets import Net

CHANNELS = (2, 4, 6)


@dataclass(frozen=True)
class Value:
    name: str
    channels: int
    sizes: tuple[int, ...]


def random_graph(seed: int, linear: bool = False) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """A graph and the shape of its input; half of the graphs leave batch and sizes open.

    `linear`: of affine operators only, and the batch always open.
    """
    rng = np.random.default_rng(seed)
    axes = int(rng.choice([1, 2, 2, 2, 1 if linear else 3]))
    sizes = tuple(int(n) for n in rng.integers(3, 6 if linear else 10, axes))
    declared = (2, 4, *sizes) if rng.random() < 0.5 else ("n", 4, *"dhw"[:axes])
    declared = ("n", *declared[1:]) if linear else declared
    maker = _Maker(Net(declared, seed=seed), rng, [Value("x", 4, sizes)], linear)
    for _ in range(int(rng.integers(2, 9))):
        maker.step()
    outputs = [maker.pool[-1].name]
    extra = maker.pool[int(rng.integers(len(maker.pool)))].name
    if rng.random() < 0.2 and extra not in (*outputs, "x"):
        outputs.append(extra)
    if outputs[0] == "x":
        outputs[0] = maker.net.op("Neg", "x")
    return maker.net.model(*outputs), (2, 4, *sizes)


class _Maker:
    def __init__(self, net: Net, rng: np.random.Generator, pool: list[Value], linear: bool) -> None:
        self.net, self.rng, self.pool, self.linear = net, rng, pool, linear

    def step(self) -> None:
        kinds = [self.conv, self.norm, self.affine, self.branches, self.other, self.total]
        kinds += [
            self.transposed,
            self.crop_or_pad,
            self.pool_mean,
            self.norm,
            self.conv,
            self.branches,
        ]
        kind = kinds[int(self.rng.integers(len(kinds)))]
        kind = self.branches if self.linear and kind == self.other else kind
        recent = self.pool[-3:] if self.rng.random() < 0.8 else self.pool
        value = kind(recent[int(self.rng.integers(len(recent)))])
        if value is not None:
            self.pool.append(value)

    def norm(self, v: Value) -> Value:
        return Value(self.net.bn(v.name, v.channels), v.channels, v.sizes)

    def affine(self, v: Value) -> Value:
        shape = (1,) if self.rng.random() < 0.3 else (v.channels, *(1,) * len(v.sizes))
        array = self.rng.choice([-1.0, 0.0, 0.5, 1.0, 2.0], shape)
        kind = str(self.rng.choice(["Add", "Mul", "Sub", "Div", "Neg", "Identity"]))
        if kind in ("Neg", "Identity"):
            return Value(self.net.op(kind, v.name), v.channels, v.sizes)
        if kind == "Div":
            return Value(self.net.op(kind, v.name, self.net.const(array + 3)), v.channels, v.sizes)
        pair = [v.name, self.net.const(array)]
        pair = pair[::-1] if self.rng.random() < 0.5 else pair
        return Value(self.net.op(kind, *pair), v.channels, v.sizes)

    def conv(self, v: Value, channels: int = 0, **how) -> Value | None:
        axes = len(v.sizes)
        draw = lambda low, high: [int(n) for n in self.rng.integers(low, high, axes)]  # noqa: E731
        kernel = how.get("kernel") or draw(1, 4)
        strides = how.get("strides") or (draw(1, 3) if self.rng.random() < 0.3 else [1] * axes)
        dilations = draw(1, 3) if self.rng.random() < 0.3 else [1] * axes
        pads = how.get("pads") or (draw(0, 3) + draw(0, 3))
        if self.rng.random() < 0.4 and "pads" not in how:
            pads = [d * (k - 1) // 2 for d, k in zip(dilations, kernel, strict=True)] * 2
        out = channels or int(self.rng.choice(CHANNELS))
        groups = int(self.rng.choice([g for g in (1, 2, v.channels) if out % g == 0]))
        sizes = _sizes(v.sizes, kernel, strides, dilations, pads)
        if min(sizes) < 1:
            return None
        attributes = {"strides": strides, "dilations": dilations, "pads": pads}
        bias = self.rng.random() < 0.4
        name = self.net.conv(v.name, out, v.channels, kernel, bias, groups, **attributes)
        return Value(name, out, sizes)

    def transposed(self, v: Value) -> Value | None:
        axes = len(v.sizes)
        if max(v.sizes) > 12:
            return None
        kernel = [int(n) for n in self.rng.integers(1, 4, axes)]
        strides = [int(n) for n in self.rng.integers(1, 3, axes)]
        pads = [int(self.rng.integers(0, k)) for k in kernel * 2]
        grown = zip(v.sizes, strides, kernel, pads[:axes], pads[axes:], strict=True)
        sizes = tuple((n - 1) * s + k - b - e for n, s, k, b, e in grown)
        if min(sizes) < 1:
            return None
        groups = int(self.rng.choice([1, 2]))
        weight = self.net.const(self.rng.standard_normal((v.channels, 4 // groups, *kernel)))
        how = {"strides": strides, "pads": pads, "group": groups}
        return Value(self.net.op("ConvTranspose", v.name, weight, **how), 4, sizes)

    def along_last_axis(self, v: Value) -> Value:
        """A matrix product or a scale along the last axis, as in channels-last blocks."""
        size = v.sizes[-1]
        if self.rng.random() < 0.5:
            vector = self.net.const(self.rng.standard_normal(size))
            kind = str(self.rng.choice(["Mul", "Add"]))
            return Value(self.net.op(kind, v.name, vector), v.channels, v.sizes)
        width = int(self.rng.choice([size, size, 5]))
        matrix = self.net.const(self.rng.standard_normal((size, width)))
        name = self.net.op("MatMul", v.name, matrix)
        return Value(name, v.channels, (*v.sizes[:-1], width))

    def branches(self, v: Value) -> Value | None:
        """Two to four branches of one size over one value, with signs."""
        stride = [int(self.rng.choice([1, 1, 2]))] * len(v.sizes)
        channels = v.channels if self.rng.random() < 0.7 else int(self.rng.choice(CHANNELS))
        arms: list[Value] = []
        for _ in range(int(self.rng.integers(2, 5))):
            k = int(self.rng.choice([1, 1, 3, 3, 5]))
            how = {"kernel": [k] * len(v.sizes), "strides": stride}
            arm = self.conv(v, channels, **how, pads=[k // 2] * 2 * len(v.sizes))
            if arm is not None and self.rng.random() < 0.6:
                arm = self.norm(arm)
            arms += [arm] if arm is not None else []
        if stride[0] == 1 and channels == v.channels and self.rng.random() < 0.6:
            arms.append(self.norm(v) if self.rng.random() < 0.5 else v)
        alike = [arm for arm in arms if arm.sizes == arms[0].sizes]
        return self._sum(alike) if len(alike) > 1 else None

    def total(self, v: Value) -> Value | None:
        alike = [o for o in self.pool if (o.channels, o.sizes) == (v.channels, v.sizes)]
        picked = [alike[int(i)] for i in self.rng.integers(len(alike), size=2)]
        return self._sum([v, *picked[: int(self.rng.integers(1, 3))]])

    def _sum(self, arms: list[Value]) -> Value:
        if self.rng.random() < 0.3:
            name = self.net.op("Sum", *(arm.name for arm in arms))
            return Value(name, arms[0].channels, arms[0].sizes)
        name = arms[0].name
        for arm in arms[1:]:
            kind = "Sub" if self.rng.random() < 0.3 else "Add"
            pair = (name, arm.name) if self.rng.random() < 0.7 else (arm.name, name)
            name = self.net.op(kind, *pair)
        return Value(name, arms[0].channels, arms[0].sizes)

    def crop_or_pad(self, v: Value) -> Value | None:
        axes = len(v.sizes)
        begin, end = self.rng.integers(0, 2, (2, axes))
        if self.rng.random() < 0.5:
            pads = np.concatenate([[0, 0], begin, [0, 0], end])
            name = self.net.op("Pad", v.name, self.net.const(pads))
            return Value(name, v.channels, _moved(v.sizes, begin + end))
        if min(_moved(v.sizes, -begin - end)) < 1:
            return None
        last = np.where(end > 0, -end, 2**31 - 1)
        arrays = (begin, last, np.arange(2, axes + 2))
        name = self.net.op("Slice", v.name, *(self.net.const(a) for a in arrays))
        return Value(name, v.channels, _moved(v.sizes, -begin - end))

    def pool_mean(self, v: Value) -> Value | None:
        axes = len(v.sizes)
        k, pad = int(self.rng.integers(1, 4)), int(self.rng.integers(0, 2))
        pad = min(pad, k - 1)
        attributes = {
            "kernel_shape": [k] * axes,
            "strides": [int(self.rng.integers(1, 3))] * axes,
            "pads": [pad] * 2 * axes,
            "count_include_pad": int(self.rng.integers(0, 2)),
        }
        sizes = _sizes(v.sizes, [k] * axes, attributes["strides"], [1] * axes, [pad] * 2 * axes)
        if min(sizes) < 1:
            return None
        return Value(self.net.op("AveragePool", v.name, **attributes), v.channels, sizes)

    def other(self, v: Value) -> Value:
        kind = str(self.rng.choice(["Relu", "Sigmoid", "Gate", "Square", "LeakyRelu", "Clip"]))
        if kind == "LeakyRelu":
            alpha = float(self.rng.choice([0.1, 1.0, 1.0]))
            return Value(self.net.op(kind, v.name, alpha=alpha), v.channels, v.sizes)
        if kind == "Clip":
            low, high = (self.net.const(np.array(n)) for n in (0.0, self.rng.choice([1.0, 6.0])))
            return Value(self.net.op(kind, v.name, low, high), v.channels, v.sizes)
        if kind == "Gate":
            gate = self.net.op("Sigmoid", self.net.op("GlobalAveragePool", v.name))
            return Value(self.net.op("Mul", v.name, gate), v.channels, v.sizes)
        if kind == "Square":
            return Value(self.net.op("Mul", v.name, v.name), v.channels, v.sizes)
        return Value(self.net.op(kind, v.name), v.channels, v.sizes)


def _sizes(sizes, kernel, strides, dilations, pads) -> tuple[int, ...]:
    axes = len(sizes)
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    ends = zip(sizes, pads[:axes], pads[axes:], spans, strides, strict=True)
    return tuple((n + b + e - span) // s + 1 for n, b, e, span, s in ends)


def _moved(sizes, by) -> tuple[int, ...]:
    return tuple(int(n + d) for n, d in zip(sizes, by, strict=True))
