"""Kernels with rims of zeros are cut down to what is used."""

from __future__ import annotations

import numpy as np
import pytest

from tests.nets import Net, assert_same, assert_untouched, rewrite


def rimmed(net: Net, live, kernel=(7, 5), groups=1, **how) -> str:
    """A convolution of 4 channels whose kernel is zero outside `live`."""
    y = net.conv(net.x, 4, 4, kernel, True, groups, **how)
    weight = next(reversed([n for n in net.constants if net.constants[n].ndim > 2]))
    kept = np.zeros_like(net.constants[weight])
    kept[live] = net.constants[weight][live]
    net.constants[weight] = kept
    return y


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(
    ("how", "kernel"),
    [({}, [2, 1]), ({"strides": [2, 3]}, [2, 1]), ({"pads": [1, 0, 3, 2]}, [4, 3])],
)
def test_rims_go_as_far_as_the_padding_reaches(groups, how, kernel):
    net = Net((2, 4, 12, 11))
    done = rewrite(net.model(rimmed(net, np.s_[:, :, 3:5, 2:3], groups=groups, **how)))
    (conv,) = done.graph.graph
    assert list(conv.attributes["kernel_shape"].as_ints()) == kernel
    assert done.applied == ["trim-kernels"]
    assert_same(done)


def test_dilated_rims():
    net = Net((1, 4, 15, 14))
    pads = {"dilations": [2, 2], "pads": [4, 3, 4, 3]}
    done = rewrite(net.model(rimmed(net, np.s_[:, :, 1:4, 1:4], (5, 5), **pads)))
    (conv,) = done.graph.graph
    assert list(conv.attributes["kernel_shape"].as_ints()) == [3, 3]
    assert_same(done)


def test_a_rim_that_one_channel_uses_stays():
    net = Net()
    done = rewrite(net.model(rimmed(net, np.s_[2, 1, 0:1, 0:1])))
    (conv,) = (node for node in done.graph.graph if node.op_type == "Conv")
    live = conv.attributes["kernel_shape"].as_ints()
    assert list(live) == [4, 3]  # the far rims go, the used corner and the padding stay
    assert_same(done)


def test_without_padding_nothing_can_go():
    net = Net((1, 4, 12, 11))
    done = rewrite(net.model(rimmed(net, np.s_[:, :, 3:5, 2:3], pads=[0] * 4)))
    assert_untouched(done)


def test_a_folded_kernel_is_trimmed_on_the_way():
    net = Net()
    done = rewrite(net.model(net.bn(rimmed(net, np.s_[:, :, 3:4, 2:3]), 4)))
    assert done.applied == ["fold-batchnorm"]
    assert list(done.graph.graph.node(0).attributes["kernel_shape"].as_ints()) == [1, 1]
    assert_same(done)


def test_dynamic_size():
    net = Net(("n", 4, "h", "w"))
    done = rewrite(net.model(rimmed(net, np.s_[:, :, 3:5, 2:3])))
    for shape in [(1, 4, 7, 7), (2, 4, 3, 2)]:
        assert_same(done, shape)
