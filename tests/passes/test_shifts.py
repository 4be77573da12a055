"""Shifts, in every way they are written, are one thing: they join what is beside them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flatfold.passes import PIPELINE
from tests.nets import Net, assert_same, assert_untouched, rewrite

H, W = 9, 8


def by_pad_and_slice(net: Net, x: str, dy: int, dx: int) -> str:
    """y[i, j] = x[i - dy, j - dx], 0 outside."""
    pads = [0, 0, max(dy, 0), max(dx, 0), 0, 0, max(-dy, 0), max(-dx, 0)]
    padded = net.op("Pad", x, net.const(np.array(pads)))
    starts, ends = [max(-dy, 0), max(-dx, 0)], [H + max(-dy, 0), W + max(-dx, 0)]
    return net.op("Slice", padded, *(net.const(np.array(n)) for n in (starts, ends, [2, 3])))


def by_slice_and_pad(net: Net, x: str, dy: int, dx: int) -> str:
    starts, ends = [max(-dy, 0), max(-dx, 0)], [H - max(dy, 0), W - max(dx, 0)]
    cut = net.op("Slice", x, *(net.const(np.array(n)) for n in (starts, ends, [2, 3])))
    pads = [0, 0, max(dy, 0), max(dx, 0), 0, 0, max(-dy, 0), max(-dx, 0)]
    return net.op("Pad", cut, net.const(np.array(pads)))


def by_writing(net: Net, x: str, dy: int, dx: int) -> str:
    """Into zeros: out[:, :, dy:] = x[:, :, :-dy], as the exporters write it."""
    for axis, by in ((2, dy), (3, dx)):
        if not by:
            continue
        shape = list(net.shape)
        shape[axis] = abs(by)
        ends = (0, -by) if by > 0 else (-by, 2**31 - 1)
        rest = net.op("Slice", x, *(net.const(np.array([n])) for n in (*ends, axis)))
        zeros = net.const(np.zeros(shape))
        x = net.op("Concat", *([zeros, rest] if by > 0 else [rest, zeros]), axis=axis)
    return x


def by_one_hot(net: Net, x: str, dy: int, dx: int) -> str:
    reach = 3
    weight = np.zeros((4, 1, 2 * reach + 1, 2 * reach + 1))
    weight[:, :, reach - dy, reach - dx] = 1
    return net.op("Conv", x, net.const(weight), group=4, pads=[reach] * 4)


def by_grid(net: Net, x: str, dy: int, dx: int, mode="nearest") -> str:
    ys = (2 * (np.arange(H) - dy) + 1) / H - 1
    xs = (2 * (np.arange(W) - dx) + 1) / W - 1
    grid = np.stack(np.broadcast_arrays(xs[None, :], ys[:, None]), -1)
    grid = np.broadcast_to(grid, (2, H, W, 2)).copy()
    return net.op("GridSample", x, net.const(grid), mode=mode, padding_mode="zeros")


def by_deformed_taps(net: Net, x: str, dy: int, dx: int) -> str:
    offset = np.zeros((2, 2, H, W))
    offset[:, 0], offset[:, 1] = -dy, -dx
    weight = np.ones((4, 1, 1, 1))
    return net.op("DeformConv", x, net.const(weight), net.const(offset), group=4)


WAYS = [by_pad_and_slice, by_slice_and_pad, by_writing, by_one_hot, by_grid, by_deformed_taps]
MOVES = [(1, 0), (0, -1), (-2, 1), (3, 3)]


@pytest.mark.parametrize(("dy", "dx"), MOVES)
@pytest.mark.parametrize("way", WAYS)
def test_a_shift_joins_the_kernel_that_is_large_enough_for_it(way, dy, dx):
    net = Net((2, 4, H, W), opset=20)
    total = net.op("Add", net.conv(net.x, 4, 4, (7, 7)), way(net, net.x, dy, dx))
    done = rewrite(net.model(net.op("Relu", total)))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


@pytest.mark.parametrize("way", WAYS)
def test_shifted_convolutions_are_the_large_kernel_that_they_imitate(way):
    """Shift-ConvNets: small depthwise kernels, each moved to its place, summed."""
    net = Net((2, 4, H, W), opset=20)
    places = [(-3, 0), (0, 0), (3, 0)]
    arms = [net.conv(net.x, 4, 4, (3, 3), groups=4, bias=False, pads=[1, 1, 1, 1])]
    arms += [net.conv(way(net, net.x, *p), 4, 4, (1, 1), groups=4, bias=False) for p in places]
    done = rewrite(net.model(net.op("Relu", net.op("Sum", *arms))))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


@pytest.mark.parametrize("way", WAYS)
def test_shifts_cancel_where_nothing_is_lost(way):
    """Back and forth loses the rim: that is a mask, never the identity."""
    net = Net((2, 4, H, W), opset=20)
    y = way(net, way(net, net.op("Tanh", net.x), 1, 0), -1, 0)
    assert_same(rewrite(net.model(net.op("Relu", y))))


@pytest.mark.parametrize("target", ["ort-cpu", "openvino"])
@pytest.mark.parametrize(("dy", "dx"), MOVES)
@pytest.mark.parametrize("way", [by_grid, by_deformed_taps])
def test_a_sampler_of_whole_pixels_is_a_shift_even_alone(way, dy, dx, target):
    """It is priced as the sampler that it is. On a GPU two small copies cost more than one."""
    net = Net((2, 4, H, W), opset=20)
    y = way(net, net.op("Tanh", net.x), dy, dx)
    done = rewrite(net.model(net.op("Exp", y)), target=target)
    assert not {"GridSample", "DeformConv"} & done.ops.keys()
    assert done.applied == ["rewrite-shifts"]
    assert_same(done)


def test_deformed_taps_alone_become_a_convolution():
    net = Net((2, 4, H, W), opset=20)
    offset = np.tile(np.array([0.0, 1.0]), 9).reshape(1, 18, 1, 1) * np.ones((2, 18, H, W))
    weight = net.const(net.rng.standard_normal((6, 4, 3, 3)))
    y = net.op("DeformConv", net.op("Tanh", net.x), weight, net.const(offset), pads=[1] * 4)
    done = rewrite(net.model(net.op("Exp", y)))
    assert done.ops == {"Tanh": 1, "Conv": 1, "Exp": 1}
    assert done.applied == ["rewrite-shifts"]
    assert_same(done)


@pytest.mark.parametrize("way", [by_pad_and_slice, by_grid, by_deformed_taps])
def test_a_shift_stays_while_its_pass_is_switched_off(way):
    net = Net((2, 4, H, W), opset=20)
    others = [kind.name for kind in PIPELINE if kind.name != "rewrite-shifts"]
    total = net.op("Add", net.conv(net.x, 4, 4, (7, 7)), way(net, net.x, 1, 0))
    model = net.model(net.op("Relu", total))
    assert_untouched(rewrite(model, *others))
    assert rewrite(model).applied == ["rewrite-shifts"]


def test_a_shift_moves_through_a_pointwise_layer():
    net = Net((2, 4, H, W))
    y = net.conv(by_pad_and_slice(net, net.x, 1, -1), 6, 4, (1, 1), bias=False)
    z = net.conv(net.x, 6, 4, (3, 3), bias=False)
    done = rewrite(net.model(net.op("Relu", net.op("Add", y, z))))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


def test_a_shift_of_what_has_a_bias_is_left_beside_the_kernel():
    net = Net((2, 4, H, W))
    y = by_pad_and_slice(net, net.conv(net.x, 4, 4, (1, 1)), 1, 0)
    done = rewrite(net.model(net.op("Relu", net.op("Add", net.conv(net.x, 4, 4, (3, 3)), y))))
    assert "BORDER-BIAS" in done.codes
    assert_same(done)


def test_between_pixels_is_no_shift():
    net = Net((2, 4, H, W), opset=20)
    grid = np.zeros((2, H, W, 2)) + np.linspace(-0.9, 0.9, W)[:, None]
    y = net.op("GridSample", net.x, net.const(grid), mode="linear")
    done = rewrite(net.model(net.op("Relu", net.conv(y, 4, 4, (3, 3)))))
    assert_untouched(done)
    assert "FRACTION" in done.codes


@pytest.mark.parametrize("how", ["border", "open grid", "per image", "half a pixel"])
def test_samples_that_are_left(how):
    net = Net((2, 4, H, W), opset=20)
    if how == "half a pixel":
        offset = np.full((2, 18, H, W), 0.5)
        y = net.op(
            "DeformConv", net.x, net.const(np.ones((4, 4, 3, 3))), net.const(offset), pads=[1] * 4
        )
    else:
        ys = (2 * np.arange(H) + 1) / H - 1
        xs = (2 * np.arange(W) + 1) / W - 1
        grid = np.stack(np.broadcast_arrays(xs[None, :], ys[:, None]), -1)
        grid = np.broadcast_to(grid, (2, H, W, 2)).copy()
        if how == "per image":
            grid[1] += 2 / np.array([W, H])
        name = net.const(grid)
        name = net.op("Tanh", name) if how == "open grid" else name
        mode = "border" if how == "border" else "zeros"
        y = net.op("GridSample", net.x, name, mode="nearest", padding_mode=mode)
    assert_untouched(rewrite(net.model(net.op("Relu", net.conv(y, 4, 4, (3, 3))))))


def test_every_way_is_the_same_shift():
    x = np.random.default_rng(0).standard_normal((2, 4, H, W))
    for dy, dx in MOVES:
        wanted = torch.zeros(2, 4, H, W, dtype=torch.float64)
        inner = torch.from_numpy(x)[
            :, :, max(-dy, 0) : H - max(dy, 0), max(-dx, 0) : W - max(dx, 0)
        ]
        wanted[:, :, max(dy, 0) : H - max(-dy, 0), max(dx, 0) : W - max(-dx, 0)] = inner
        for way in WAYS:
            from tests.nets import run

            net = Net((2, 4, H, W), opset=20)
            (found,) = run(net.model(way(net, net.x, dy, dx)), x)
            np.testing.assert_array_equal(found, wanted.numpy())


def test_what_is_left_is_written_as_is_cheapest():
    """Between convolutions a depthwise kernel of one tap is cheaper than a Pad and a Slice."""
    net = Net((1, 4, H, W), dtype=np.float32)
    y = by_pad_and_slice(net, net.op("Tanh", net.x), 1, 0)
    assert rewrite(net.model(net.op("Relu", y))).ops == {"Tanh": 1, "Conv": 1, "Relu": 1}
    net = Net((1, 64, 112, 112), dtype=np.float32)
    far = net.op("Pad", net.op("Tanh", net.x), net.const(np.array([0, 0, 40, 0, 0, 0, 0, 0])))
    y = net.op("Slice", far, *(net.const(np.array([n])) for n in (0, 112, 2)))
    assert rewrite(net.model(net.op("Relu", y))).ops == {
        "Tanh": 1,
        "Slice": 1,
        "Conv": 1,
        "Relu": 1,
    }


def test_a_pad_that_also_crops_is_priced_as_the_copy_that_it_is():
    """And not as the convolution that it may become, or it would never become one."""
    net = Net((1, 16, H, W), dtype=np.float32)
    y = net.op("Pad", net.op("Tanh", net.x), net.const(np.array([0, 0, 1, 1, 0, 0, -1, -1])))
    assert rewrite(net.model(net.op("Relu", y))).ops == {"Tanh": 1, "Conv": 1, "Relu": 1}


def test_two_norms_in_a_row_are_one_convolution_by_one_tap():
    net = Net((1, 4, H, W), dtype=np.float32)
    y = net.bn(net.bn(net.op("Tanh", net.x), 4), 4)
    assert rewrite(net.model(net.op("Relu", y))).ops == {"Tanh": 1, "Conv": 1, "Relu": 1}


@pytest.mark.parametrize("size", [12, 64])
def test_circular_padding_is_no_convolution_as_long_as_the_map(size):
    """The last pixels, all, the first ones: by taps, three of a dilation as long as the signal."""
    net = Net((1, 16, size))
    zero, axis, end = (net.const(np.array([n])) for n in (0, 2, 2**31 - 1))
    last = net.op("Slice", net.x, net.const(np.array([-2])), end, axis)
    first = net.op("Slice", net.x, zero, net.const(np.array([2])), axis)
    y = net.op("Concat", last, net.x, first, axis=2)
    weight = net.const(net.rng.standard_normal((16, 16, 3)))
    done = rewrite(net.model(net.op("Conv", y, weight, dilations=[2])))
    assert done.ops["Conv"] == 1
    assert_same(done)
