"""Maps of the channels move past views that only divide the pixels anew: tokens, and back."""

from __future__ import annotations

import numpy as np
import pytest

from tests.nets import Net, assert_same, assert_untouched, rewrite


def to_tokens(net: Net, x: str, channels: int, batch: int | str, pixels: int) -> str:
    """[N, C, H, W] to [N, pixels, C], as in front of an attention."""
    target = net.const(np.array([-1 if batch == "n" else batch, channels, pixels]))
    return net.op("Transpose", net.op("Reshape", x, target), perm=[0, 2, 1])


@pytest.mark.parametrize("batch", [2, "n"])
def test_a_norm_in_front_of_tokens_goes_into_the_linear_layer(batch):
    net = Net((batch, 4, 9, 8))
    y = to_tokens(net, net.bn(net.op("Tanh", net.x), 4), 4, batch, 72)
    y = net.op("MatMul", y, net.const(net.rng.standard_normal((4, 6))))
    done = rewrite(net.model(net.op("Relu", net.op("Add", y, net.const(net.rng.normal(size=6))))))
    assert done.ops == {"Tanh": 1, "Reshape": 1, "Transpose": 1, "MatMul": 1, "Add": 1, "Relu": 1}
    assert_same(done, (2, 4, 9, 8))


@pytest.mark.parametrize("outputs", [256, 768])
def test_where_it_leaves_a_bias_that_is_about_as_dear_it_goes_too(outputs):
    net = Net((1, 256, 4, 4))
    y = to_tokens(net, net.bn(net.op("Tanh", net.x), 256), 256, 1, 16)
    y = net.op("MatMul", y, net.const(net.rng.standard_normal((256, outputs))))
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Tanh": 1, "Reshape": 1, "Transpose": 1, "MatMul": 1, "Add": 1, "Relu": 1}
    assert_same(done)


def test_where_the_bias_is_dearer_it_stays():
    net = Net((2, 4, 9, 8))
    y = to_tokens(net, net.bn(net.op("Tanh", net.x), 4), 4, 2, 72)
    y = net.op("MatMul", y, net.const(net.rng.standard_normal((4, 64))))
    done = rewrite(net.model(net.op("Relu", y)))
    assert_untouched(done)
    assert "COST" in done.codes


def test_a_scale_behind_tokens_that_are_a_map_again_goes_into_the_linear_layer():
    net = Net()
    y = net.op("Tanh", to_tokens(net, net.x, 4, 2, 72))
    y = net.op("MatMul", y, net.const(net.rng.standard_normal((4, 4))))
    y = net.op("Transpose", net.op("Add", y, net.const(net.rng.normal(size=4))), perm=[0, 2, 1])
    y = net.op("Reshape", y, net.const(np.array([2, 4, 9, 8])))
    done = rewrite(
        net.model(net.op("Relu", net.op("Mul", y, net.const(net.rng.normal(size=(4, 1, 1))))))
    )
    assert "Mul" not in done.ops
    assert_same(done)


def test_pixels_of_a_channels_last_map_are_divided_anew():
    net = Net((2, 9, 8, 4))
    scaled = net.op("Mul", net.op("Tanh", net.x), net.const(net.rng.standard_normal(4)))
    y = net.op("Reshape", scaled, net.const(np.array([2, 72, 4])))
    done = rewrite(
        net.model(net.op("Relu", net.op("MatMul", y, net.const(net.rng.normal(size=(4, 6))))))
    )
    assert done.ops == {"Tanh": 1, "Reshape": 1, "MatMul": 1, "Relu": 1}
    assert_same(done)


@pytest.mark.parametrize(
    "target",
    [
        [2, 8, 36],  # half a channel
        [1, 8, 72],  # two images side by side
    ],
)
def test_a_view_that_mixes_channels_or_images_lets_nothing_through(target):
    net = Net((2, 4, 9, 8))
    y = net.op("Reshape", net.op("Tanh", net.x), net.const(np.array(target)))
    scale = net.const(net.rng.standard_normal((target[1], *(1,) * (len(target) - 2))))
    z = net.op("Reshape", net.op("Mul", y, scale), net.const(np.array([2, 4, 9, 8])))
    done = rewrite(net.model(net.op("Relu", net.conv(z, 4, 4, (3, 3)))))
    assert_untouched(done)


def test_a_scale_of_two_channels_side_by_side_is_one_of_each():
    net = Net((2, 4, 9, 8))
    y = net.op("Reshape", net.op("Tanh", net.x), net.const(np.array([2, 2, 144])))
    scale = net.const(net.rng.standard_normal((2, 1)))
    z = net.op("Reshape", net.op("Mul", y, scale), net.const(np.array([2, 4, 9, 8])))
    done = rewrite(net.model(net.op("Relu", net.conv(z, 4, 4, (3, 3)))))
    assert "Mul" not in done.ops and done.ops["Conv"] == 1
    assert done.checks.certified == done.checks.regions > 0
    assert_same(done)


def test_a_scale_passes_to_more_axes_than_a_convolution_has():
    net = Net((2, 4, 9, 8))
    y = net.bn(net.op("Tanh", net.x), 4)
    y = net.op("Reshape", y, net.const(np.array([2, 4, 3, 3, 4, 2])))
    scale = net.const(net.rng.standard_normal((4, 1, 1, 1, 1)))
    done = rewrite(net.model(net.op("Relu", net.op("Mul", y, scale))))
    assert "BatchNormalization" not in done.ops
    assert_same(done)


@pytest.mark.parametrize("shape", [("n", 4, "h", "w"), (2, 4, "h", 7)])
def test_open_sizes_are_divided_anew_as_well(shape):
    net = Net(shape)
    y = net.bn(net.op("Tanh", net.x), 4)
    y = net.op("Transpose", net.op("Reshape", y, net.const(np.array([0, 4, -1]))), perm=[0, 2, 1])
    y = net.op("MatMul", y, net.const(net.rng.standard_normal((4, 6))))
    done = rewrite(net.model(net.op("Relu", net.op("Add", y, net.const(net.rng.normal(size=6))))))
    assert done.ops == {"Tanh": 1, "Reshape": 1, "Transpose": 1, "MatMul": 1, "Add": 1, "Relu": 1}
    for sizes in ((2, 4, 9, 7), (2, 4, 1, 7), (2, 4, 4, 7)):
        assert_same(done, sizes)


def test_open_sizes_of_a_channels_last_map_too():
    net = Net(("n", "h", "w", 4))
    y = net.op("Mul", net.op("Tanh", net.x), net.const(net.rng.normal(size=4)))
    y = net.op("Reshape", y, net.const(np.array([0, -1, 4])))
    y = net.op("MatMul", y, net.const(net.rng.standard_normal((4, 6))))
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Tanh": 1, "Reshape": 1, "MatMul": 1, "Relu": 1}
    for sizes in ((2, 9, 7, 4), (1, 4, 4, 4)):
        assert_same(done, sizes)


@pytest.mark.parametrize("target", [[-1, 4, 8], [0, 8, -1], [0, -1, 8]])
def test_where_open_sizes_may_move_channels_or_images_nothing_goes_through(target):
    net = Net(("n", 4, "h", "w"))
    y = net.op("Reshape", net.bn(net.op("Tanh", net.x), 4), net.const(np.array(target)))
    if target[-1] == 8 and target[0] == 0:
        y = net.op("MatMul", y, net.const(net.rng.standard_normal((8, 6))))
    else:
        y = net.op("Conv", y, net.const(net.rng.standard_normal((5, target[1], 1))))
    assert_untouched(rewrite(net.model(net.op("Relu", y))))
