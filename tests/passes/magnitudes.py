"""Nets and data of any magnitude, and how far a rewritten net is from its bound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir

from flatfold.proof.interpreter.interpreter import evaluate
from flatfold.proof.interpreter.pair import Pair
from flatfold.proof.network.session import PlainSession
from tests.nets import Net, run

NONE = [0, 0, 0, 0]
SHAPE = (1, 3, 6, 6)
LARGEST = {np.float32: float(np.finfo(np.float32).max), np.float16: 65504.0}
ROUNDOFF = {np.float32: 2.0**-24, np.float16: 2.0**-11}
SPACING = {np.float32: 2.0**-149, np.float16: 2.0**-24}
RANGE = {np.float32: 30.0, np.float16: 4.0}  # decades


class Drawn(Net):
    """A net whose weights are drawn by magnitude."""

    def size(self) -> float:
        """A magnitude, uniform by its logarithm; near 1 as often as not."""
        wide = RANGE[self.dtype] * self.rng.choice([0.05, 0.5, 1.0])
        return float(10 ** self.rng.uniform(-wide, wide))

    def filled(self, *shape: int) -> np.ndarray:
        return self.size() * self.rng.standard_normal(shape)

    def clipped(self, array: np.ndarray) -> str:
        most = LARGEST[self.dtype]
        return self.const(np.clip(array, -most, most).astype(self.dtype).astype(np.float64))

    def layer(self, x: str, o: int, i: int, k: int, bias: bool = True) -> str:
        parts = [self.clipped(self.filled(o, i, k, k))]
        parts += [self.clipped(self.filled(o))] if bias else []
        return self.op("Conv", x, *parts, pads=NONE)

    def norm(self, x: str, c: int) -> str:
        gamma = self.filled(c) * (self.size() if self.rng.random() < 0.3 else 1.0)
        variance = np.abs(self.filled(c)) * (self.rng.random(c) < 0.9)
        parts = gamma, self.filled(c), self.filled(c), variance
        return self.op("BatchNormalization", x, *map(self.clipped, parts), epsilon=1e-5)

    def scale(self, x: str, c: int) -> str:
        shape = (c, 1, 1) if self.rng.random() < 0.5 else ()
        return self.op(str(self.rng.choice(["Mul", "Div"])), x, self.clipped(self.filled(*shape)))


def folded(net: Drawn) -> str:
    return net.norm(net.layer(net.x, 4, 3, 3, bias=bool(net.rng.random() < 0.5)), 4)


def shrunk(net: Drawn) -> str:
    """Weights whose product with the scale is about the smallest normal number."""
    decades = -np.log10(SPACING[net.dtype]) / 2 - net.rng.uniform(0, 5)
    y = net.op("Conv", net.x, net.const(10**-decades * net.rng.standard_normal((4, 3, 3, 3))))
    return net.op("Mul", y, net.const(10**-decades * net.rng.uniform(0.1, 1, (4, 1, 1))))


def folded_before(net: Drawn) -> str:
    return net.layer(net.norm(net.op("Identity", net.x), 3), 4, 3, 3)


def chained(net: Drawn) -> str:
    y = net.layer(net.x, 4, 3, 1)
    for _ in range(net.rng.integers(2, 5)):
        y = net.scale(y, 4) if net.rng.random() < 0.7 else net.norm(y, 4)
    return y


def composed(net: Drawn) -> str:
    return net.layer(net.scale(net.layer(net.x, 4, 3, 3), 4), 3, 4, 1)


def cancelling(net: Drawn) -> str:
    """Branches with huge opposite weights."""
    y = net.layer(net.x, 3, 3, 1, bias=False)
    weight = net.constants[net.nodes[-1].input[1]].astype(np.float64)
    z = net.op("Conv", net.x, net.clipped(-weight * (1 + 0.01 * net.rng.random())), pads=NONE)
    both = net.op("Add", net.norm(y, 3), net.norm(z, 3)) if net.rng.random() < 0.5 else None
    return net.op("Add", both or net.op("Add", y, z), net.norm(net.x, 3))


def of_two_sources(net: Drawn) -> str:
    """s (f(x) + g(z)), the sum of which may be small."""
    y, z = net.layer(net.x, 3, 3, 1), net.layer(net.op("Relu", net.x), 3, 3, 1)
    return net.layer(net.norm(net.op("Add", y, z), 3), 4, 3, 1)


def averaged(net: Drawn) -> str:
    return net.layer(net.op("GlobalAveragePool", net.norm(net.x, 3)), 4, 3, 1)


def bending(net: Drawn) -> str:
    """a relu(x) + b x, a + b being 1 or nearly 0."""
    b = net.size()
    a = b * (ROUNDOFF[net.dtype] ** net.rng.uniform(0, 0.9) - 1)
    if net.rng.random() < 0.5:
        a, b = 0.25, 0.75
    a, b = net.clipped(np.array(a)), net.clipped(np.array(b))
    parts = net.op("Mul", net.op("Relu", net.x), a), net.op("Mul", net.x, b)
    return net.op("Add", *parts)


BLOCKS: tuple[Callable[[Drawn], str], ...] = (
    folded,
    shrunk,
    folded_before,
    chained,
    composed,
    cancelling,
    of_two_sources,
    averaged,
    bending,
)


def drawn(
    block: Callable[[Drawn], str], seed: int, dtype: type
) -> tuple[onnx.ModelProto, np.ndarray]:
    """A net and data on which the net's sums of magnitudes are often finite, and often just so."""
    net = Drawn(SHAPE, seed=seed, dtype=dtype)
    model = net.model(block(net))
    x, most = net.rng.standard_normal(SHAPE), LARGEST[dtype]
    gain = float(np.max(in_double(model, x).m - in_double(model, 0 * x).m))
    wanted = most * 10 ** -net.rng.choice([0.5, 3.0, RANGE[dtype], 1.5 * RANGE[dtype]])
    with np.errstate(all="ignore"):
        return model, np.clip(x * (wanted / gain), -most / 50, most / 50).astype(dtype)


def in_double(model: onnx.ModelProto, x: np.ndarray) -> Pair:
    """y and M of the whole net."""
    graph = ir.from_proto(model).graph
    with np.errstate(all="ignore"):
        values = evaluate(list(graph), {graph.inputs[0]: Pair(x, np.abs(x))})
    return values[graph.outputs[0]]


def outputs(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """ONNX Runtime's; in half precision the evaluator's, as the former sums in single then."""
    return (
        run(model, x) if x.dtype == np.float16 else PlainSession(ir.from_proto(model))({"x": x})
    )[0]


def products(model: onnx.ModelProto) -> int:
    """Of the longest sum."""
    shapes = [tensor.dims for tensor in model.graph.initializer]
    pixels = SHAPE[2] * SHAPE[3]
    return max([pixels, *(int(np.prod(shape[1:])) for shape in shapes if len(shape) > 1)])


def excess(model: onnx.ModelProto, after: onnx.ModelProto, x: np.ndarray, dtype: type) -> float:
    """Worst error over its bound, infinite if it is; 0 where nothing is promised or asked."""
    exact, n, data = in_double(model, x.astype(np.float64)), products(after), np.abs(x).max()
    promised = exact.m.max() <= LARGEST[dtype] and n * float(data) <= LARGEST[dtype]
    old = outputs(model, x).astype(np.float64)
    if not promised or not np.all(np.isfinite(old)):
        return 0.0
    y = outputs(after, x).astype(np.float64)
    if not np.all(np.isfinite(y)):
        return np.inf
    bound = (n + 16) * ROUNDOFF[dtype] * exact.m + n * SPACING[dtype]
    return float(np.max(np.abs(y - exact.y) / np.maximum(bound, np.abs(old - exact.y))))
