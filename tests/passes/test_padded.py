"""Branches that read x and branches that read a pad of x merge on the padded map."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import flatfold
from tests.nets import Net, assert_same, assert_untouched, rewrite

MODES = ("reflect", "edge", "wrap")


def padded(net: Net, begin: tuple[int, int], end: tuple[int, int], mode: str) -> str:
    pads = net.const(np.array([0, 0, *begin, 0, 0, *end]))
    return net.op("Pad", net.x, pads, mode=mode)


def block(
    shape=(2, 4, 9, 8), mode="reflect", begin=(1, 1), end=(1, 1), kernel=(3, 3), strides=1, **how
):
    """A layer over a padded map, a pointwise one and a norm beside it (RepVGG)."""
    net = Net(shape, opset=19, **how)
    layer = {"pads": [0] * 4, "strides": [strides] * 2}
    y = net.bn(net.conv(padded(net, begin, end, mode), 4, 4, kernel, False, **layer), 4)
    y = net.op("Add", y, net.bn(net.conv(net.x, 4, 4, (1, 1), **layer), 4))
    if strides == 1:
        y = net.op("Add", net.bn(net.x, 4), y)
    return net.model(net.op("Relu", y))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(2, 4, 9, 8), (1, 4, 4, 7), (3, 4, 2, 2)])
def test_a_block_on_a_padded_map_is_one_layer(mode, shape):
    done = rewrite(block(shape, mode))
    assert done.ops == {"Pad": 1, "Conv": 1, "Relu": 1}
    assert done.checks.certified == done.checks.regions > 0
    assert_same(done)


@pytest.mark.parametrize("mode", MODES)
def test_at_open_sizes(mode):
    result = flatfold.optimize(block(("n", 4, "h", "w"), mode, dtype=np.float32))
    assert result.after.operators == {"Pad": 1, "Conv": 1, "Relu": 1}
    assert result.equivalence.verdict == "certified"


@pytest.mark.parametrize(
    "begin, end, kernel",
    [((2, 0), (0, 2), (3, 3)), ((0, 3), (1, 2), (2, 6)), ((3, 3), (3, 3), (7, 7))],
)
def test_the_pads_decide_where_the_pixel_itself_is(begin, end, kernel):
    done = rewrite(block((2, 4, 11, 10), "reflect", begin, end, kernel))
    assert done.ops == {"Pad": 1, "Conv": 1, "Relu": 1}
    assert done.checks.certified == done.checks.regions > 0
    assert_same(done)


@pytest.mark.parametrize("size", [8, 9])
def test_with_a_stride(size):
    done = rewrite(block((1, 4, size, 10), "edge", strides=2))
    assert done.ops == {"Pad": 1, "Conv": 1, "Relu": 1}
    assert_same(done)


@pytest.mark.parametrize("mode", MODES)
def test_of_two_pads_the_smaller_is_read_in_the_larger(mode):
    net = Net(opset=19)
    branches = [
        net.conv(padded(net, (n, n), (n, n), mode), 4, 4, (2 * n + 1,) * 2, pads=[0] * 4)
        for n in (1, 2)
    ]
    done = rewrite(net.model(net.op("Relu", net.op("Sub", *branches))))
    assert done.ops == {"Pad": 1, "Conv": 1, "Relu": 1}
    assert done.checks.certified == done.checks.regions > 0
    assert_same(done)


def wrapped(net: Net, value: str, axis: int, size: int) -> str:
    """One pixel of the other end on each side, as the older exporter writes circular padding."""
    last, first = (
        net.op("Slice", value, *(net.const(np.array([n])) for n in ends), net.const([axis]))
        for ends in ((size - 1, size), (0, 1))
    )
    return net.op("Concat", last, value, first, axis=axis)


def test_circular_padding_of_slices():
    net = Net()
    around = wrapped(net, wrapped(net, net.x, 2, 9), 3, 8)
    y = net.op("Add", net.conv(around, 4, 4, (3, 3), pads=[0] * 4), net.conv(net.x, 4, 4, (1, 1)))
    done = rewrite(net.model(net.op("Relu", net.op("Add", y, net.x))))
    assert done.ops == {"Slice": 4, "Concat": 2, "Conv": 1, "Relu": 1}
    assert done.checks.certified == done.checks.regions > 0
    assert_same(done)


def assert_apart(model, convs: int) -> None:
    done = rewrite(model)
    assert done.ops["Conv"] == convs and done.ops["Add"] == 1
    assert_same(done)


def test_zeros_around_one_branch_and_copies_around_the_other_stay_apart():
    net = Net()
    branches = [
        net.conv(padded(net, (1, 1), (1, 1), "reflect"), 4, 4, (3, 3), pads=[0] * 4),
        net.conv(net.x, 4, 4, (3, 3)),
    ]
    assert_apart(net.model(net.op("Relu", net.op("Add", *branches))), 2)


def test_pads_of_two_modes_stay_apart():
    net = Net()
    branches = [
        net.conv(padded(net, (n, n), (n, n), mode), 4, 4, (2 * n + 1,) * 2, pads=[0] * 4)
        for n, mode in ((1, "edge"), (2, "reflect"))
    ]
    assert_apart(net.model(net.op("Relu", net.op("Add", *branches))), 2)


def test_a_pad_that_also_crops_stays_apart():
    """The reference evaluator does not run it, but the check of the rewrites would have."""
    net = Net()
    branches = [
        net.conv(padded(net, (2, 2), (-1, 2), "reflect"), 4, 4, (2, 5), pads=[0] * 4),
        net.conv(net.x, 4, 4, (1, 1)),
    ]
    assert_untouched(rewrite(net.model(net.op("Relu", net.op("Add", *branches)))))


def test_what_is_beside_it_in_a_concat_must_be_its_own_pixels():
    """Slices of another value: the map inside is the same, but is not all that it is made of."""
    net = Net()
    other = net.op("Exp", net.x)
    last, first = (
        net.op("Slice", other, *(net.const(np.array([n])) for n in ends), net.const([2]))
        for ends in ((8, 9), (0, 1))
    )
    around = net.op("Concat", last, net.x, first, axis=2)
    y = net.conv(around, 4, 4, (3, 1), pads=[0] * 4)
    model = net.model(net.op("Relu", net.op("Add", y, net.conv(net.x, 4, 4, (1, 1)))))
    assert_apart(model, 2)


def test_pixels_that_the_stride_skips_are_no_reason():
    """The pointwise layer of stride 2 reads the even pixels of the map inside, wherever it lies."""
    done = rewrite(block((1, 4, 9, 9), "wrap", (2, 1), (0, 1), strides=2))
    assert done.ops == Counter({"Pad": 1, "Conv": 1, "Relu": 1})
    assert_same(done)
