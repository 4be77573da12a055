"""Which differences refute a graph, and which are rounding."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.proof import compare
from flatfold.proof.network.judge import Comparison
from tests.nets import Net, rewrite


@pytest.mark.parametrize("label", ["large", "normal"])
def test_luck_of_the_original_does_not_count(label):
    """A gate on the point of closing: on one input the original happens to round as it should."""
    x = np.full((1, 4), 1e6, np.float32)

    def exact(feeds):
        return [np.asarray(feeds["x"], np.float64)]

    def gated(feeds):
        return [(feeds["x"] * (1 + 1e-5)).astype(np.float32)]

    def lucky(feeds):
        return [feeds["x"]] if np.array_equal(feeds["x"], x) else gated(feeds)

    def verdict(after):
        comparison = Comparison(lucky, after, exact, "numpy", 2.0**-24)
        comparison.try_input(f"{label} 1x4", {"x": x}, lucky({"x": x}))
        return comparison.result.verdict

    assert verdict(gated) == "sampled"
    assert verdict(lambda feeds: [feeds["x"] * np.float32(1 + 1e-3)]) == "refuted"


@pytest.mark.parametrize(
    ("share", "verdict"), [(1e-7, "sampled"), (1e-3, "refuted"), (0.0, "sampled")]
)
def test_scores_are_compared_where_their_order_differs(share, verdict):
    """The larger of two scores that are closer than rounding, or further; and twice the same."""

    def picked(by):
        drawn = np.random.default_rng(0).standard_normal((1, 4, 1, 1)).astype(np.float32)
        weight = ir.tensor(np.concatenate([drawn, drawn * np.float32(1 + by)]), name="w")
        text = '<ir_version: 10, opset_import: ["" : 20]> g (float[1, 4, 3, 3] x) => '
        text += "(int64[1, 1, 3, 3] y) { scores = Conv (x, w)  y = ArgMax <axis = 1> (scores) }"
        return ir.from_onnx_text(text, initializers=[weight])

    found = compare(picked(0.0), picked(share))
    assert found.verdict == verdict
    assert ("scores" in found.reason) == (verdict == "refuted")
    assert ("ArgMax" in found.reason) == (share == 1e-7)


def net_of(*steps, shape=(1, 3, 16, 16)) -> Net:
    """A norm and a convolution, then the operators of `steps`, each of the value before it."""
    net = Net(shape, dtype=np.float32)
    net.y = net.op("Relu", net.bn(net.conv(net.x, 8, 3, (3, 3)), 8))
    for step in steps:
        net.y = step(net, net.y)
    return net


def low_logit(net: Net, y: str) -> str:
    weight = net.const(0.07 * net.rng.standard_normal((1, 8, 3, 3)))
    return net.op("Conv", y, weight, net.const(np.array([-16.7])), pads=[1] * 4)


def ranked(net: Net, y: str) -> str:
    """The pixels of the first channel in the order of the second's scores."""
    flat = net.op("Reshape", y, net.const(np.array([1, 8, -1])))
    rows = [
        net.op("Slice", flat, *map(net.const, map(np.array, ([i], [i + 1], [1])))) for i in (0, 1)
    ]
    top = net.op("TopK", rows[1], net.const(np.array([100])), outputs=2)
    order = net.nodes[-1].output[1]
    assert top
    return net.op("GatherElements", rows[0], order, axis=2)


def wrong_by(model: ir.Model, share: float) -> ir.Model:
    """`model` with one weight of its first layer off by this share."""
    copy = model.clone()
    name = next(n.inputs[1].name for n in copy.graph if n.op_type == "Conv")
    array = copy.graph.initializers[name].const_value.numpy().copy()
    array.flat[5] *= 1 + share
    copy.graph.initializers[name].const_value = ir.Tensor(array, name=name)
    return copy


SIGMOID = lambda net, y: net.op("Sigmoid", y)  # noqa: E731
STEPS = {"saturated": (low_logit, SIGMOID), "ranked": (ranked,)}


@pytest.mark.parametrize("name", STEPS)
def test_an_output_that_shows_nothing_is_compared_further_up(name):
    """A Sigmoid that is 0 but for its own roundings, and rows in the order of close scores."""
    net = net_of(*STEPS[name])
    done = rewrite(net.model(net.y))
    before, after = ir.from_proto(done.before), done.graph
    assert compare(before, after).verdict == "sampled"
    wrong = compare(before, wrong_by(after, 0.05))
    assert wrong.verdict == "refuted"
