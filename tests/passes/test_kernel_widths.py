"""Depthwise kernels get columns of zeros where the target is faster on a wider one."""

from __future__ import annotations

import numpy as np
import pytest

from flatfold.passes.cost.profiles import PROFILES
from tests.nets import Net, Rewritten, assert_same, assert_untouched, rewrite
from tests.passes.test_trim_kernels import rimmed

WIDE, FAST = 13, 14


def on_openvino(net: Net, *outputs: str) -> Rewritten:
    return rewrite(net.model(*outputs), target="openvino")


def shape(done: Rewritten) -> tuple[list[int], list[int]]:
    """Kernel and pads of the one convolution."""
    (conv,) = (node for node in done.graph.graph if node.op_type == "Conv")
    kernel, pads = (list(conv.attributes[name].as_ints()) for name in ("kernel_shape", "pads"))
    return kernel, pads


@pytest.mark.parametrize("height", [1, 3, WIDE])
@pytest.mark.parametrize("size", [(28, 28), (9, 31), (14, 5)])
def test_a_slow_width_becomes_a_fast_one(height, size):
    net = Net((2, 4, *size))
    done = on_openvino(net, net.conv(net.x, 4, 4, (height, WIDE), True, 4))
    side = height // 2
    assert shape(done) == ([height, FAST], [side, 6, side, 7])
    assert done.applied == ["trim-kernels"]
    assert_same(done)


@pytest.mark.parametrize(
    "how", [{"strides": [2, 3]}, {"pads": [0] * 4}, {"pads": [1, 12, 3, 0]}, {"auto_pad": "VALID"}]
)
def test_strides_and_any_padding(how):
    net = Net((1, 4, 27, 26))
    done = on_openvino(net, net.conv(net.x, 4, 4, (5, WIDE), True, 4, **how))
    assert shape(done)[0] == [5, FAST]
    assert_same(done)


def test_open_sizes():
    net = Net(("n", 4, "h", "w"))
    done = on_openvino(net, net.conv(net.x, 4, 4, (WIDE, WIDE), True, 4))
    assert shape(done)[0] == [WIDE, FAST]
    for size in [(1, 4, 28, 28), (2, 4, 3, 1)]:
        assert_same(done, size)


def test_one_axis():
    net = Net((2, 4, 40))
    done = on_openvino(net, net.conv(net.x, 4, 4, (WIDE,), True, 4))
    assert shape(done) == ([FAST], [6, 7])
    assert_same(done)


def test_merged_branches_get_it_at_once():
    net = Net((1, 16, 28, 28))
    branches = [net.bn(net.conv(net.x, 16, 16, (k, k), False, 16), 16) for k in (WIDE, 5)]
    done = on_openvino(net, net.op("Relu", net.op("Add", *branches)))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert shape(done)[0] == [WIDE, FAST]
    assert done.applied == ["merge-branches"]
    assert_same(done)


@pytest.mark.parametrize("columns", [np.s_[0:13], np.s_[1:14], np.s_[2:15]])
def test_a_rim_of_zeros_goes_but_for_what_the_width_needs(columns):
    net = Net((1, 4, 28, 28))
    done = on_openvino(net, rimmed(net, np.s_[:, :, 1:3, columns], (3, 15), 4))
    assert shape(done)[0] == [2, FAST]
    assert_same(done)


def test_what_was_widened_stays_as_it_is():
    net = Net((1, 4, 28, 28))
    first = on_openvino(net, net.conv(net.x, 4, 4, (WIDE, WIDE), True, 4))
    again = rewrite(first.after, target="openvino")
    assert_untouched(again)


@pytest.mark.parametrize(
    ("kernel", "groups", "how"),
    [
        ((3, 3), 4, {}),
        ((7, 7), 4, {}),
        ((FAST, FAST), 4, {"pads": [6, 6, 7, 7]}),
        ((WIDE, 3), 4, {}),  # its height may be anything
        ((3, WIDE), 1, {}),  # dense layers are another kind of kernel
        ((3, WIDE), 4, {"dilations": [1, 2], "pads": [1, 12, 1, 12]}),  # as are dilated ones
    ],
)
def test_other_kernels_are_left(kernel, groups, how):
    net = Net((1, 4, 28, 28))
    assert_untouched(on_openvino(net, net.conv(net.x, 4, 4, kernel, True, groups, **how)))


def test_without_the_rewrite_nothing_is_widened():
    net = Net((1, 4, 28, 28))
    model = net.model(net.conv(net.x, 4, 4, (WIDE, WIDE), True, 4))
    assert_untouched(rewrite(model, "fold-batchnorm", target="openvino"))


@pytest.mark.parametrize("target", sorted(set(PROFILES) - {"openvino"}))
def test_on_other_targets_no_width_is_that_slow(target):
    for width in range(2, 52):
        net = Net((1, 4, 28, 28))
        assert_untouched(
            rewrite(net.model(net.conv(net.x, 4, 4, (3, width), True, 4)), target=target)
        )
