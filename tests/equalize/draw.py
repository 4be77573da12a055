"""Random networks in single precision whose channels have scales far apart.

Every layer multiplies its rows by a scale for each channel, and what reads them divides its columns
by it, so data stays of order 1 but for these scales, which are up to 2^12 either way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from tests.nets import Net

Array = npt.NDArray[np.float64]
LEAST_PIXELS, MOST_PIXELS = 3, 16
SPREADS = (0, 0, 3, 6, 12)  # bits


@dataclass(frozen=True)
class Drawn:
    """A value [1, channels, rows, columns], and the scale that each of its channels has."""

    name: str
    scale: Array
    pixels: tuple[int, int]

    @property
    def channels(self) -> int:
        return len(self.scale)


class Drawing:
    """One network that grows step by step; `now` is its newest value."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        sizes = self.integer(4, 11), self.integer(4, 11)
        count = self.integer(1, 5)
        self.net = Net((1, count, *sizes), seed=seed, dtype=np.float32, opset=18)
        self.now = Drawn(self.net.x, np.ones(count), sizes)
        self.values = [self.now]
        self.outputs: list[str] = []

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        return self.net.op(kind, *inputs, **attributes)

    def draw_scale(self, count: int) -> Array:
        spread = SPREADS[self.integer(0, len(SPREADS))]
        exponents = self.rng.uniform(-spread, spread, count)
        return 2.0 ** (np.rint(exponents) if self.chance(0.5) else exponents)

    def draw_weight(self, shape: tuple[int, ...], fan_in: int) -> Array:
        """Of unit gain, with rows of zeros, and numbers that are hardly or not normal, at times."""
        weight = self.rng.standard_normal(shape) / np.sqrt(fan_in)
        if self.chance(0.1):
            weight[self.integer(0, len(weight))] = 0
        if self.chance(0.1):
            weight[self.rng.random(shape) < 0.2] *= 10.0 ** self.integer(-41, -10)
        return weight

    def set(self, name: str, like: Drawn, **other: object) -> None:
        """The newest value: as `like` but for what is said."""
        scale, pixels = other.get("scale", like.scale), other.get("pixels", like.pixels)
        self.now = Drawn(name, np.asarray(scale), pixels)  # type: ignore[arg-type]
        self.values.append(self.now)

    def conv(self, x: Drawn, scale: Array | None = None, kind: str = "") -> Drawn:
        """A convolution: pointwise, dense, in groups, depthwise, with strides or dilations."""
        kind = kind or str(self.rng.choice(["pointwise", "dense", "dense", "grouped", "depthwise"]))
        wanted = self.integer(1, 9) if scale is None else len(scale)
        groups = 1
        if kind == "depthwise" and (scale is None or wanted == x.channels):
            groups = wanted = x.channels
        if kind == "grouped":
            groups = int(np.gcd(x.channels, wanted))
        kernel = 1 if kind == "pointwise" else 3
        scale = self.draw_scale(wanted) if scale is None else scale
        rows = x.channels // groups
        weight = self.draw_weight((wanted, rows, kernel, kernel), rows * kernel**2)
        columns = x.scale.reshape(groups, 1, rows) * np.ones((1, wanted // groups, 1))
        weight *= scale[:, None, None, None] / columns.reshape(wanted, rows, 1, 1)
        extra = [self.net.const(self.rng.standard_normal(wanted) * scale)]
        inputs = [x.name, self.net.const(weight), *(extra if self.chance(0.8) else [])]
        pads = [kernel // 2] * 4
        name = self.op("Conv", *inputs, group=groups, pads=pads)
        return Drawn(name, scale, x.pixels)

    def layer(self) -> None:
        x = self.conv(self.now)
        self.set(x.name, x)

    def strided(self) -> None:
        x, wanted = self.now, self.integer(1, 9)
        if min(x.pixels) < 2 * LEAST_PIXELS:
            return self.layer()
        scale = self.draw_scale(wanted)
        weight = self.draw_weight((wanted, x.channels, 2, 2), x.channels * 4)
        weight *= scale[:, None, None, None] / x.scale[:, None, None]
        name = self.op("Conv", x.name, self.net.const(weight), strides=[2, 2])
        return self.set(name, x, scale=scale, pixels=(x.pixels[0] // 2, x.pixels[1] // 2))

    def transposed(self) -> None:
        x, wanted = self.now, self.integer(1, 5)
        if max(x.pixels) * 2 > MOST_PIXELS:
            return self.layer()
        scale = self.draw_scale(wanted)
        weight = self.draw_weight((x.channels, wanted, 2, 2), x.channels)
        weight *= scale[:, None, None] / x.scale[:, None, None, None]
        bias = self.net.const(self.rng.standard_normal(wanted) * scale)
        name = self.op("ConvTranspose", x.name, self.net.const(weight), bias, strides=[2, 2])
        return self.set(name, x, scale=scale, pixels=(x.pixels[0] * 2, x.pixels[1] * 2))

    def activation(self) -> None:
        x, kinds = self.now, ["Relu", "Relu", "Relu", "LeakyRelu", "PRelu", "Clip"]
        kind = kinds[self.integer(0, len(kinds))]
        if kind == "LeakyRelu":
            name = self.op(kind, x.name, alpha=float(self.rng.normal(0, 0.3)))
        elif kind == "PRelu":
            slopes = self.net.const(self.rng.normal(0, 0.3, (x.channels, 1, 1)))
            name = self.op(kind, x.name, slopes)
        elif kind == "Clip":
            name = self.op(kind, x.name, self.net.const(np.array(0.0)))
        else:
            name = self.op(kind, x.name)
        self.set(name, x)

    def bounded(self) -> None:
        """What no scale passes: the channels in front of it keep theirs."""
        x = self.now
        kinds = ["Sigmoid", "Tanh", "HardSwish", "Clip", "Swish", "Softmax"]
        kind = kinds[self.integer(0, len(kinds))]
        if kind == "Clip":
            name = self.op(kind, x.name, *map(self.net.const, (np.array(0.0), np.array(6.0))))
        elif kind == "Swish":
            name = self.op("Mul", x.name, self.op("Sigmoid", x.name))
        else:
            name = self.op(kind, x.name)
        self.set(name, x, scale=np.ones(x.channels))

    def pool(self) -> None:
        x, choice = self.now, self.integer(0, 4)
        if choice == 0:
            name = self.op("MaxPool", x.name, kernel_shape=[3, 3], pads=[1] * 4)
        elif choice == 1:
            counts = self.integer(0, 2)
            attributes = {"pads": [1] * 4, "count_include_pad": counts}
            name = self.op("AveragePool", x.name, kernel_shape=[3, 3], **attributes)
        elif choice == 2 and max(x.pixels) * 2 <= MOST_PIXELS:
            scales = self.net.const(np.array([1.0, 1.0, 2.0, 2.0]))
            mode = "linear" if self.chance(0.5) else "nearest"
            name = self.op("Resize", x.name, "", scales, mode=mode)
            return self.set(name, x, pixels=(x.pixels[0] * 2, x.pixels[1] * 2))
        elif max(x.pixels) < MOST_PIXELS - 2:
            mode = str(self.rng.choice(["constant", "edge", "reflect"]))
            pads = self.net.const(np.array([0, 0, 1, 1, 0, 0, 1, 1]))
            name = self.op("Pad", x.name, pads, mode=mode)
            return self.set(name, x, pixels=(x.pixels[0] + 2, x.pixels[1] + 2))
        else:
            return self.layer()
        return self.set(name, x)

    def add(self) -> None:
        """A residual block: beside an earlier value, or beside a layer of its own."""
        x = self.now
        alike = [v for v in self.values if (v.channels, v.pixels) == (x.channels, x.pixels)]
        other = alike[self.integer(0, len(alike))]
        inner = self.conv(x)
        inner = Drawn(self.op("Relu", inner.name), inner.scale, inner.pixels)
        outer = self.conv(inner, other.scale, "dense")
        kind = str(self.rng.choice(["Add", "Add", "Sub", "Sum"]))
        self.set(self.op(kind, other.name, outer.name), other)

    def concat(self) -> None:
        x = self.now
        parts = [x, self.conv(x)]
        if self.chance(0.5):
            parts.reverse()
        name = self.op("Concat", *(part.name for part in parts), axis=1)
        self.set(name, x, scale=np.concatenate([part.scale for part in parts]))

    def choose(self) -> None:
        """Channels: a range of them, a permutation, or both halves of a Split in turn."""
        x, choice = self.now, self.integer(0, 3)
        if choice == 0 and x.channels > 1:
            first = self.integer(0, x.channels - 1)
            ends = (np.array([first]), np.array([x.channels]), np.array([1]))
            name = self.op("Slice", x.name, *map(self.net.const, ends))
            return self.set(name, x, scale=x.scale[first:])
        if choice == 1 and x.channels % 2 == 0:
            sizes = (1, 2, x.channels // 2, *x.pixels), (1, x.channels, *x.pixels)
            first, last = (self.net.const(np.array(size)) for size in sizes)
            turned = self.op("Transpose", self.op("Reshape", x.name, first), perm=[0, 2, 1, 3, 4])
            scale = x.scale.reshape(2, -1).T.reshape(-1)
            return self.set(self.op("Reshape", turned, last), x, scale=scale)
        if choice == 2 and x.channels % 2 == 0:
            sizes = self.net.const(np.array([x.channels // 2] * 2))
            name = self.op("Split", x.name, sizes, outputs=2, axis=1)
            halves = (x.scale[: x.channels // 2], x.scale[x.channels // 2 :])
            self.set(f"{name}_1", x, scale=halves[1])
            return self.set(name, x, scale=halves[0])
        index = self.rng.permutation(x.channels)
        name = self.op("Gather", x.name, self.net.const(index), axis=1)
        return self.set(name, x, scale=x.scale[index])

    def map(self) -> None:
        """A scale or a shift of each channel, or both."""
        x, column = self.now, (self.now.channels, 1, 1)
        kind = str(self.rng.choice(["Mul", "Add", "Sub", "BatchNormalization"]))
        if kind == "BatchNormalization":
            gamma, deviation = self.rng.uniform(0.5, 2, (2, x.channels))
            shift = self.rng.standard_normal(x.channels) * x.scale
            parts = (gamma, shift, shift[::-1], deviation**2)
            return self.set(self.op(kind, x.name, *map(self.net.const, parts)), x)
        if kind == "Mul":
            factor = self.rng.uniform(-2, 2, column)
            return self.set(self.op(kind, x.name, self.net.const(factor)), x)
        shift = self.net.const(self.rng.standard_normal(column) * x.scale.reshape(column))
        operands = (x.name, shift) if self.chance(0.7) else (shift, x.name)
        return self.set(self.op(kind, *operands), x)

    def gate(self) -> None:
        """Squeeze and excitation."""
        x = self.now
        mean = Drawn(self.op("GlobalAveragePool", x.name), x.scale, (1, 1))
        inner = self.conv(mean, kind="pointwise")
        inner = Drawn(self.op("Relu", inner.name), inner.scale, (1, 1))
        outer = self.conv(inner, np.ones(x.channels), "pointwise")
        self.set(self.op("Mul", x.name, self.op("Sigmoid", outer.name)), x)

    def again(self) -> None:
        """Go on from an earlier value, which is then read twice; or return this one, too."""
        if self.chance(0.3):
            self.outputs.append(self.now.name)
        self.now = self.values[self.integer(0, len(self.values))]

    def head(self) -> str:
        """A matrix product, behind a mean, a Flatten, or along the channels as the last axis."""
        x, wanted, choice = self.now, self.integer(1, 6), self.integer(0, 3)
        scale = x.scale
        if choice == 0:
            turned = self.op("Transpose", x.name, perm=[0, 2, 3, 1])
            return self.op("MatMul", turned, self.matrix(scale, wanted))
        if choice == 1:
            flat = self.op("Flatten", x.name)
            scale = np.repeat(scale, int(np.prod(x.pixels)))
        else:
            flat = self.op("ReduceMean", x.name, self.net.const(np.array([2, 3])), keepdims=0)
        bias = self.net.const(self.rng.standard_normal(wanted))
        if self.chance(0.5):
            weight = self.matrix(scale, wanted, transposed=True)
            return self.op("Gemm", flat, weight, bias, transB=1)
        return self.op("Gemm", flat, self.matrix(scale, wanted), bias)

    def matrix(self, scale: Array, wanted: int, transposed: bool = False) -> str:
        weight = self.draw_weight((len(scale), wanted), len(scale)) / scale[:, None]
        return self.net.const(weight.T if transposed else weight)


STEPS: tuple[tuple[Callable[[Drawing], None], int], ...] = (
    (Drawing.layer, 6),
    (Drawing.activation, 6),
    (Drawing.strided, 1),
    (Drawing.transposed, 1),
    (Drawing.bounded, 1),
    (Drawing.pool, 3),
    (Drawing.add, 3),
    (Drawing.concat, 1),
    (Drawing.choose, 2),
    (Drawing.map, 2),
    (Drawing.gate, 1),
    (Drawing.again, 1),
)


def draw(seed: int) -> tuple[onnx.ModelProto, npt.NDArray[np.float32]]:
    """A network, and data for it."""
    drawing = Drawing(seed)
    steps = [step for step, weight in STEPS for _ in range(weight)]
    drawing.layer()
    for _ in range(drawing.integer(2, 12)):
        steps[drawing.integer(0, len(steps))](drawing)
    outputs = dict.fromkeys([*drawing.outputs, drawing.head()])
    model = drawing.net.model(*(name for name in outputs if name != "x"))
    return model, drawing.rng.standard_normal(drawing.net.shape).astype(np.float32)
