"""Kernels with many zeros are cut down to what is used, where that is cheaper."""

from __future__ import annotations

import numpy as np
import pytest

from tests.nets import Net, assert_same, assert_untouched, rewrite


def depthwise(net: Net, channels: int, weight: np.ndarray, **how) -> str:
    pads = {"pads": [n // 2 for n in weight.shape[2:]] * 2, **how}
    return net.op("Conv", net.x, net.const(weight), group=channels, **pads)


def kernels(done) -> list[list[int]]:
    convs = [node for node in done.graph.graph if node.op_type == "Conv"]
    return sorted(list(node.attributes["kernel_shape"].as_ints()) for node in convs)


def plus(channels: int, size: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((channels, 1, size, size))
    mask = np.zeros((size, size))
    low, high = (size - width) // 2, (size + width) // 2
    mask[low:high], mask[:, low:high] = 1, 1
    return weight * mask


@pytest.mark.parametrize("shape", [(1, 8, 40, 40), ("n", 8, "h", "w")])
def test_a_plus_becomes_two_strips(shape):
    net = Net(shape)
    done = rewrite(net.model(net.op("Relu", depthwise(net, 8, plus(8, 31, 3)))))
    assert kernels(done) == [[3, 31], [31, 3]]
    assert done.applied == ["trim-kernels"]
    (remark,) = [remark for remark in done.remarks if remark.applied]
    ratio = remark.after.seconds / remark.before.seconds
    assert ratio < 1 and remark.reason.endswith(f"more nodes, {ratio:.2f}x the time by estimate")
    assert_same(done, (1, 8, 40, 40))
    assert_untouched(rewrite(done.after))


def test_a_gap_divides_a_kernel():
    weight = np.random.default_rng(0).standard_normal((8, 1, 3, 61))
    weight[..., 4:57] = 0
    net = Net((1, 8, 40, 70))
    done = rewrite(net.model(net.op("Relu", depthwise(net, 8, weight))))
    assert max(size for kernel in kernels(done) for size in kernel) < 61
    assert_same(done)


def test_a_gap_whose_gain_is_less_than_estimates_tell_apart_stays():
    """Two kernels of 21 columns would take 0.990 of the time of one of 41."""
    weight = np.random.default_rng(0).standard_normal((8, 1, 3, 41))
    weight[..., 4:37] = 0
    net = Net((1, 8, 40, 48))
    done = rewrite(net.model(net.op("Relu", depthwise(net, 8, weight))))
    assert_untouched(done)
    assert "COST" in done.codes


def test_channels_that_use_few_taps_get_a_small_kernel():
    weight = np.random.default_rng(0).standard_normal((16, 1, 31, 31))
    used = np.zeros((31, 31))
    used[14:17, 14:17] = 1
    weight[8:] *= used
    net = Net((1, 16, 40, 40))
    done = rewrite(net.model(net.op("Relu", depthwise(net, 16, weight))))
    assert kernels(done) == [[3, 3], [31, 31]]
    assert done.ops["Concat"] == 1
    assert_same(done)
    assert_untouched(rewrite(done.after))


def test_a_kernel_that_uses_all_its_taps_stays():
    net = Net((1, 8, 20, 20))
    weight = net.rng.standard_normal((8, 1, 7, 7))
    assert_untouched(rewrite(net.model(net.op("Relu", depthwise(net, 8, weight)))))


def test_small_kernels_are_not_worth_the_sum():
    net = Net((1, 8, 20, 20))
    assert_untouched(rewrite(net.model(net.op("Relu", depthwise(net, 8, plus(8, 5, 1))))))


def test_strips_that_come_with_a_bias_and_a_norm():
    net = Net((1, 8, 40, 40))
    y = net.bn(depthwise(net, 8, plus(8, 31, 3)), 8)
    done = rewrite(net.model(net.op("Relu", y)))
    assert kernels(done) == [[3, 31], [31, 3]]
    assert done.ops == {"Conv": 2, "Add": 1, "Relu": 1}
    assert_same(done)
