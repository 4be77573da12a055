"""Numbers of any size: what is finite stays finite and within its rounding bound, or is left.

ONNX Runtime, optimisation off, runs both graphs; y and its magnitude companion M are the proof's in
float64. Where M, and with it every sum of the original taken by absolute values, stays within the
type, the new graph must be finite and off by at most (n + 16) u M, n products to a sum.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

import flatfold
from flatfold.passes import PIPELINE, Pipeline
from flatfold.passes.decline import Decline
from flatfold.passes.lowering import rounding
from tests.nets import Net, rewrite
from tests.passes.magnitudes import (
    BLOCKS,
    SHAPE,
    bending,
    drawn,
    excess,
    folded,
    outputs,
    shrunk,
)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("seeds", [range(20), pytest.param(range(20, 500), marks=pytest.mark.slow)])
def test_what_is_finite_stays_finite_and_within_its_bound(seeds, block, dtype):
    applied = 0
    for seed in seeds:
        model, x = drawn(block, seed, dtype)
        done = rewrite(model)
        assert excess(model, done.after, x, dtype) <= 1, seed
        applied += bool(done.applied)
    assert applied


def unguarded(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = ir.from_proto(model)
    Pipeline([kind() for kind in PIPELINE]).run(graph)
    return ir.to_proto(graph)


def nothing(*_: object) -> None:
    """A guard that lets everything through."""


REACH = ("lowering.rounding._require_reach", nothing)
GUARDS = {
    "overflow": (folded, ("lowering.rounding._require_room", nothing), REACH),
    "underflow": (shrunk, ("lowering.rounding._require_no_loss", nothing)),
    "bends": (bending, ("collapse_activations._keeps_size", lambda *_: True)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("guard", GUARDS)
def test_without_a_guard_such_draws_go_wrong(guard, dtype, monkeypatch):
    """So the draws above are those that matter."""
    block, *guards = GUARDS[guard]
    for name, harmless in guards:
        monkeypatch.setattr(f"flatfold.passes.{name}", harmless)
    wrong = 0
    for seed in range(60):
        model, x = drawn(block, seed, dtype)
        wrong += excess(model, unguarded(model), x, dtype) > 1
    assert wrong >= 1


KNOWN = {  # sizes of W, gamma, x; mean, variance; what becomes of it
    "a product beyond the type": (1e25, 1e15, 1e-20, 0.0, 1.0, "OVERFLOW"),
    "a product below the type": (1e-30, 1e-15, 1e25, 0.0, 1.0, "UNDERFLOW"),
    "weights below the type": (1e-40, 1.0, 1.0, 0.0, 1.0, "UNDERFLOW"),
    "a negative variance": (1.0, 1.0, 1.0, 0.0, -1e-6, "note: the variance c4 is -1e-06"),
    "a scale of zero": (1.0, 0.0, 1.0, 0.5, 1.0, "Conv"),
    "a large mean": (1.0, 1.0, 1.0, 1e6, 1.0, "Conv"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_convolution_and_a_norm_with_numbers_that_fold_badly(name):
    """Four of the tools in use return NaN or a wrong result on some of these."""
    weight, gamma, data, mean, variance, expected = KNOWN[name]
    net = Net(SHAPE, dtype=np.float32)
    y = net.op("Conv", net.x, net.const(weight * net.rng.standard_normal((4, 3, 3, 3))))
    parts = (
        net.const(np.full(4, number)) for number in (gamma, 0.5 * (gamma == 0), mean, variance)
    )
    model = net.model(net.op("BatchNormalization", y, *parts))
    x = (data * net.rng.standard_normal(SHAPE)).astype(np.float32)
    done = flatfold.optimize(model)
    assert np.all(np.isfinite(outputs(model, x)))
    assert excess(model, done.model, x, np.float32) <= 1
    assert any(expected in f"{remark.code} {remark.reason}" for remark in done.remarks)


def test_a_bias_goes_into_a_layer_whose_weights_are_below_the_type():
    """They stay as they are, to the bit: nothing more is lost of them."""
    net = Net(SHAPE, dtype=np.float32)
    weight = 1e-40 * net.rng.standard_normal((4, 3, 3, 3))
    y = net.op("Conv", net.x, net.const(weight))
    model = net.model(net.op("Add", y, net.const(net.rng.standard_normal((4, 1, 1)))))
    done = flatfold.optimize(model)
    (conv,) = done.model.graph.node
    stored = {t.name: numpy_helper.to_array(t) for t in done.model.graph.initializer}
    np.testing.assert_array_equal(stored[conv.input[1]], weight.astype(np.float32))
    x = net.rng.standard_normal(SHAPE).astype(np.float32)
    np.testing.assert_array_equal(outputs(done.model, x), outputs(model, x))


BEYOND = {
    ir.DataType.FLOAT: (3.5e38, 1e-39),
    ir.DataType.BFLOAT16: (3.4e38, 1e-39),
    ir.DataType.FLOAT16: (65520.0, 1e-6),
}


@pytest.mark.parametrize("dtype", BEYOND)
def test_the_ends_of_each_type(dtype):
    large, small = BEYOND[dtype]
    for number, code in ((large, "OVERFLOW"), (small, "UNDERFLOW")):
        array = np.where(np.arange(4) == 2, number, 1.0).reshape(4, 1) * np.ones((4, 3))
        with pytest.raises(Decline, match="output channel 2") as found:
            rounding.cast(array, dtype, multiplies=True)
        assert found.value.code == code
    array[:, 0] = 1.0  # beside which the small ones do not count
    assert rounding.cast(array, dtype, multiplies=True).dtype == dtype.numpy()


def scaled_afterwards(net: Net, size: float) -> str:
    """s (f(x) + g(z)) with f(x) = -g(z)."""
    weight = size * net.rng.uniform(0.5, 1, (3, 3, 1, 1))
    parts = zip((net.x, net.op("Relu", net.x)), (weight, -weight), strict=True)
    y = net.op("Add", *(net.op("Conv", x, net.const(w)) for x, w in parts))
    return net.op("Mul", y, net.const(np.full((3, 1, 1), 3 * size)))


def added_apart(net: Net, size: float) -> str:
    """(f(x) + g(z)) + f(x) with f(x) = -g(z)."""
    weight = size * net.rng.uniform(0.8, 1, (3, 3, 1, 1))
    parts = ((net.x, weight), (net.op("Relu", net.x), -weight), (net.x, weight))
    y, z, again = (net.op("Conv", x, net.const(w)) for x, w in parts)
    return net.op("Add", net.op("Add", y, z), again)


@pytest.mark.parametrize(
    "block, dtype, size, data",
    [
        (scaled_afterwards, np.float32, 1e18, 85.0),
        (scaled_afterwards, np.float16, 100.0, 1.6),
        (added_apart, np.float32, 1e20, 1e18),
        (added_apart, np.float16, 300.0, 65.0),
    ],
)
def test_terms_that_cancel_are_not_made_larger_before_they_do(
    block, dtype, size, data, monkeypatch
):
    """A value between would be infinite that the original does not have."""
    net = Net(SHAPE, dtype=dtype)
    model = net.model(block(net, size))
    x = np.full(SHAPE, data, dtype)
    expected = outputs(model, x)
    assert np.all(np.isfinite(expected))
    done = rewrite(model)
    assert "OVERFLOW" in done.codes
    assert np.array_equal(outputs(done.after, x), expected)
    for name in ("lifting.forms._require_no_growth", "lowering.rounding._require_reach"):
        monkeypatch.setattr(f"flatfold.passes.{name}", nothing)
    assert not np.all(np.isfinite(outputs(unguarded(model), x)))


def test_a_difference_is_not_scaled_before_it_is_taken(monkeypatch):
    """s (x - y) is a number though s x is not."""
    net = Net(SHAPE, dtype=np.float32)
    signs = np.where(np.arange(27) < 14, 1.0, -1.0).reshape(3, 3, 3)
    y = net.op("Conv", net.x, net.const(np.tile(signs, (4, 1, 1, 1))))
    parts = (net.const(np.full(4, number)) for number in (1e38, 0.0, 0.0, 1.0))
    model = net.model(net.op("BatchNormalization", y, *parts))
    x = np.ones(SHAPE, np.float32)
    assert np.all(np.isfinite(outputs(model, x)))
    done = rewrite(model)
    assert "OVERFLOW" in done.codes
    assert np.all(np.isfinite(outputs(done.after, x)))
    monkeypatch.setattr("flatfold.passes.lowering.rounding._require_reach", nothing)
    assert not np.all(np.isfinite(outputs(unguarded(model), x)))


@pytest.mark.parametrize("layers", [1, 2])
def test_constant_channels_beyond_double_precision(layers):
    """The nodes that were written before it was found out read nothing afterwards."""
    net = Net((1, 4, 6, 6))
    y = net.conv(net.x, 8, 4, (1, 1))
    net.constants["c0"][[1, 5]] = 0
    net.constants["c1"][1] = 1e200
    for _ in range(layers):
        y = net.op("LeakyRelu", y, alpha=0.5)
        y = net.conv(y, 8, 8, (1, 1))
        net.constants[net.nodes[-1].input[1]][:] = 1e200
    graph = ir.from_proto(net.model(net.op("Exp", y)))
    values = [*graph.graph.inputs, *(value for node in graph.graph for value in node.outputs)]
    readers = [len(value.uses()) for value in values]
    remarks = Pipeline([kind() for kind in PIPELINE]).run(graph)
    assert "OVERFLOW" in {remark.code for remark in remarks}
    assert readers == [len(value.uses()) for value in values]
