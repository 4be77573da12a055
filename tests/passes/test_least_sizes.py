"""The least sizes of a map that is open: no map that the graph makes is smaller."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import flatfold
from flatfold.passes.reading.least_sizes import least_sizes
from tests.nets import Net, run


def integers(net: Net, *numbers: int) -> str:
    return net.const(np.array(numbers))


def padded(net: Net, x: str, *pads: int) -> str:
    return net.op("Pad", x, integers(net, 0, 0, *pads[:2], 0, 0, *pads[2:]))


def cut(net: Net, x: str, start: int, end: int, axis: int) -> str:
    return net.op("Slice", x, *(integers(net, n) for n in (start, end, axis)))


CASES = {
    "Pad": (lambda n: padded(n, n.x, 1, 0, 2, 1), (4, 2)),
    "Pad, norm, Relu": (lambda n: n.op("Relu", n.bn(padded(n, n.x, 1, 1, 1, 1), 2)), (3, 3)),
    "Pad, Mul, Add": (
        lambda n: n.op("Add", n.op("Mul", padded(n, n.x, 2, 2, 1, 0), n.x1), n.x1),
        (4, 3),
    ),
    "Slice of a Pad": (lambda n: cut(n, padded(n, n.x, 1, 1, 1, 1), 1, 2**31, 2), (2, 3)),
    "Pad of a cut": (
        lambda n: padded(n, cut(n, n.x, 2, 2**31, 2), 1, 1, 1, 1),
        (2, 3),
    ),
    "Slice from the end": (lambda n: cut(n, padded(n, n.x, 2, 2, 2, 2), -3, -1, 3), (5, 2)),
    "Concat": (lambda n: n.op("Concat", n.x, padded(n, n.x, 1, 0, 0, 0), axis=2), (3, 1)),
    "Conv": (lambda n: n.conv(n.x, 3, 2, (1, 2), pads=[2, 1, 0, 1]), (3, 2)),
    "Conv by 2": (lambda n: n.conv(n.x, 3, 2, (3, 3), pads=[3, 1, 3, 1], strides=[2, 2]), (3, 1)),
    "Softplus": (lambda n: n.op("Softplus", padded(n, n.x, 1, 1, 1, 1)), (1, 1)),
}


@pytest.mark.parametrize(("build", "expected"), CASES.values(), ids=CASES)
def test_no_map_is_smaller(build, expected):
    net = Net(("n", 2, "h", "w"))
    net.x1 = net.const(np.ones((2, 1, 1)))
    output = build(net)
    model = net.model(output)
    (value,) = ir.from_proto(model).graph.outputs
    assert least_sizes(value) == expected
    for size in ((1, 1), (1, 3), (2, 1)):
        (array,) = run(model, np.zeros((1, 2, *size)))
        assert all(least <= n for least, n in zip(expected, array.shape[2:], strict=True))


@pytest.mark.parametrize("by_mul", [True, False])
def test_a_mean_over_a_padded_map_of_any_size_is_a_kernel(by_mul):
    """The average branch of a DBB: its map has three rows and columns at least."""
    net = Net(("n", 4, "h", "w"), dtype=np.float32)
    y = padded(net, net.conv(net.x, 4, 4, (1, 1), bias=False), 1, 1, 1, 1)
    y = net.op("Mul", y, net.const(net.rng.standard_normal((4, 1, 1)))) if by_mul else y
    y = net.op("AveragePool", y, kernel_shape=[3, 3], strides=[1, 1])
    model = net.model(net.op("Relu", net.op("Add", y, net.conv(net.x, 4, 4, (3, 3)))))
    result = flatfold.optimize(model)
    assert result.equivalence.verdict == "certified"
    assert result.after.operators == {"Conv": 1, "Relu": 1}
