"""Weights in half the bits are rounded once, from the float64 that they were folded in."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

import flatfold
from flatfold.passes import PIPELINE, Pipeline
from flatfold.passes.lowering.rounding import exact_of, nearest
from flatfold.passes.narrow_types import NARROW
from flatfold.proof import fingerprint
from tests.nets import Net

NUMPY = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
UNTOUCHED = 7  # outputs of the layer that no rewrite touches
PLANTED = 8 * 4 * 9  # weights that two roundings take to another number than one does


def folded(kind: str, scale: np.ndarray | float = 1.0, seed: int = 0) -> tuple[Net, np.ndarray]:
    """A layer with a BatchNorm times `scale`, two layers without, and the fold in float64.

    Products of two random numbers that two roundings take to another one than a single rounding
    does are rare. (1 + a)(1 + b) with a + b = half a unit of the type is 1 + a + b + ab, which
    single precision rounds to the middle between two numbers, and then to even, which is 1.
    """
    net = Net((1, 8, 6, 6), seed=seed, dtype=np.float32)
    y = net.bn(net.conv("x", 16, 8, (3, 3), bias=False), 16, eps=0.0)
    weight, gamma, beta, _, variance = net.constants.values()
    half, b = {"fp16": (2.0**-11, 2.0**-14), "bf16": (2.0**-8, 2.0**-17)}[kind]
    variance[:8] = 1
    gamma[:8] = 1 + b
    weight[:8, ::2] = 1 + half - b
    factor = np.broadcast_to(np.asarray(scale, np.float32), 16)
    gamma *= factor
    beta *= factor
    wide = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64))
    second = net.rng.standard_normal((5, 16, 1, 1)) / factor[:, None, None]
    y = net.op("Sigmoid", net.op("Conv", net.op("Relu", y), net.const(second)))
    net.x = net.conv(y, UNTOUCHED, 5, (1, 1), bias=False)
    return net, weight.astype(np.float64) * wide[:, None, None, None]


def weights(model: ir.Model) -> dict[int, np.ndarray]:
    """Those of the layers, by their number of outputs."""
    arrays = [n.inputs[1].const_value.numpy() for n in model.graph if n.op_type == "Conv"]
    return {len(array): array for array in arrays}


def twice(exact: np.ndarray, kind: str) -> np.ndarray:
    """The weights by way of single precision."""
    return exact.astype(np.float32).astype(NUMPY[kind])


def closest(number: float, kind: str) -> np.generic:
    """The nearest to `number` of the numbers of the type around it, ties to even."""
    near = np.asarray(number, np.float32).astype(NUMPY[kind])
    bits = near.view(np.uint16).astype(int)
    around = [np.uint16(b).view(NUMPY[kind]) for b in range(max(bits - 2, 0), bits + 3)]
    return min(around, key=lambda n: (abs(float(n) - number), int(n.view(np.uint16)) % 2))


@pytest.mark.parametrize("kind", NARROW)
def test_the_nearest_number_is_found_in_one_rounding(kind: str) -> None:
    rng = np.random.default_rng(0)
    least = {"fp16": -26, "bf16": -136}[kind]  # the smallest numbers, of one bit, and below
    sizes = np.ldexp(rng.uniform(1, 2, 4000), rng.integers(least, 15, 4000))
    middles = np.ldexp(rng.integers(128, 4096, 4000) + 0.5, rng.integers(least, 2, 4000))
    numbers = np.concatenate([sizes, middles, np.nextafter(middles, 0), np.nextafter(middles, 9e9)])
    found = nearest(numbers, NARROW[kind])
    assert found.dtype == NUMPY[kind]
    assert [float(n) for n in found] == [float(closest(n, kind)) for n in numbers]
    assert np.any(found != numbers.astype(np.float32).astype(NUMPY[kind]))
    ends = nearest(np.array([np.inf, -np.inf, 1e300, np.nan, -0.0]), NARROW[kind])
    assert np.array_equal(ends.astype(float), [np.inf, -np.inf, np.inf, np.nan, 0], equal_nan=True)
    assert np.signbit(ends[-1])


@pytest.mark.parametrize("scale", [1.0, 2.0 ** np.tile([9.0, -9, 4, 0], 4)], ids=["", "wild"])
@pytest.mark.parametrize("kind", NARROW)
def test_folds_are_rounded_once(kind: str, scale: np.ndarray | float) -> None:
    for seed in range(4):
        net, exact = folded(kind, scale, seed)
        result = flatfold.optimize(net.model(net.x), precision=kind)
        assert "equalize-channels" in {r.rewrite for r in result.remarks if r.applied}
        found = weights(result.graph)
        rows = np.abs(found[16].astype(np.float64)).reshape(16, -1).max(axis=1)
        by = np.log2(rows / np.abs(exact).reshape(16, -1).max(axis=1)).round().astype(int)
        assert np.any(by)
        exact = np.ldexp(exact, by[:, None, None, None])
        assert found[16].dtype == NUMPY[kind]
        assert np.array_equal(found[16], nearest(exact, NARROW[kind]))
        assert np.count_nonzero(twice(exact, kind) != found[16]) >= PLANTED
        original = next(array for array in net.constants.values() if len(array) == UNTOUCHED)
        assert np.array_equal(found[UNTOUCHED], original.astype(NUMPY[kind]))


def test_the_graph_in_float32_is_the_same_and_keeps_nothing_that_was_not_asked_for() -> None:
    net, _ = folded("fp16")
    plain, keeping = (ir.from_proto(net.model(net.x)) for _ in range(2))
    Pipeline([r() for r in PIPELINE]).run(plain)
    Pipeline([r() for r in PIPELINE], keeps_exact=True).run(keeping)
    assert fingerprint(plain) == fingerprint(keeping)
    kept = [
        sum(exact_of(value) is not None for value in model.graph.initializers.values())
        for model in (plain, keeping)
    ]
    assert kept == [0, 2]  # the weight and the bias of the fold
