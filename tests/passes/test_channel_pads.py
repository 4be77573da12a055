"""Channels of zeros around those of a map: Pad on axis 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from tests.nets import Net, assert_same, assert_untouched, rewrite


def padded(net: Net, x: str, before: int, after: int, batch: int = 0) -> str:
    return net.op("Pad", x, net.const(np.array([0, before, 0, 0, batch, after, 0, 0])))


def sliced(net: Net, x: str, start: int, end: int) -> str:
    return net.op("Slice", x, *(net.const(np.array([n])) for n in (start, end, 1)))


@pytest.mark.parametrize("start", [0, 1, 2])
def test_a_shortcut_of_some_channels_is_a_scale_by_ones_and_zeros(start):
    """MobileNeXt's partial identity."""
    net = Net()
    some = padded(net, sliced(net, net.x, start, start + 2), start, 2 - start)
    y = net.bn(net.conv(net.op("Relu", net.x), 4, 4, (3, 3), groups=4), 4)
    done = rewrite(net.model(net.op("Relu", net.op("Add", y, some))))
    assert done.ops == {"Relu": 2, "Conv": 1, "Mul": 1, "Add": 1}
    assert_same(done)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (0, 1)])
@pytest.mark.parametrize("depthwise", [False, True])
def test_channels_of_zeros_go_into_the_conv_behind(before, after, depthwise):
    net = Net()
    count = 4 + before + after
    groups = count if depthwise else 1
    y = net.conv(padded(net, net.x, before, after), count, count, (3, 3), groups=groups)
    done = rewrite(net.model(net.op("Relu", net.bn(y, count))))
    assert not {"Pad", "BatchNormalization"} & done.ops.keys()
    assert done.ops["Conv"] == 1
    assert_same(done)


def test_a_branch_beside_channels_of_zeros_merges():
    net = Net()
    wide = net.conv(net.x, 6, 4, (3, 3))
    done = rewrite(net.model(net.op("Relu", net.op("Add", wide, padded(net, net.x, 1, 1)))))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


def test_a_negative_pad_is_a_choice_of_channels():
    """The reference evaluator knows no such Pad."""
    net = Net()
    done = rewrite(net.model(net.conv(padded(net, net.x, -1, 2), 3, 5, (3, 3))))
    assert "Pad" not in done.ops
    x = np.random.default_rng(0).standard_normal(net.shape)
    same = ReferenceEvaluator(done.after).run(None, {"x": x})[0]
    cut = np.pad(x[:, 1:], [(0, 0), (0, 2), (0, 0), (0, 0)])
    weight, bias = (torch.from_numpy(net.constants[name]) for name in ("c1", "c2"))
    expected = torch.nn.functional.conv2d(torch.from_numpy(cut), weight, bias, padding=1).numpy()
    bound = 5 * 9 * 2.0**-53 * np.abs(expected).max()  # sums of 45 products
    np.testing.assert_allclose(same, expected, rtol=0, atol=bound)


def test_a_padded_batch_stays():
    net = Net()
    done = rewrite(net.model(net.conv(padded(net, net.x, 0, 0, batch=1), 4, 4, (3, 3))))
    assert_untouched(done)
    assert "PAD-MODE" in done.codes
