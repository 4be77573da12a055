"""A map of the channels in front of, or behind, operators that only move numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
import pytest

import flatfold
from flatfold.passes.decline import Decline
from flatfold.passes.reading.rearranging import rearranged
from tests.nets import Net, Rewritten, assert_same, rewrite

SHAPE = (2, 8, 4, 6)

Move = Callable[[Net, str], str]


def integers(net: Net, *values: int) -> str:
    return net.const(np.array(values, np.int64))


def view(*target: int) -> Move:
    return lambda net, y: net.op("Reshape", y, integers(net, *target))


def turn(*order: int) -> Move:
    return lambda net, y: net.op("Transpose", y, perm=order)


def chain(*moves: Move) -> Move:
    def run(net: Net, y: str) -> str:
        for move in moves:
            y = move(net, y)
        return y

    return run


def sliced(net: Net, y: str, axes: Sequence[int], first: int, last: int, step: int) -> str:
    ends = ([value] * len(axes) for value in (first, last))
    begin, end = (integers(net, *values) for values in ends)
    return net.op("Slice", y, begin, end, integers(net, *axes), integers(net, *[step] * len(axes)))


# Behind a layer and in front of a norm: each channel in front is in one channel behind.
BEHIND: dict[str, tuple[Move, int]] = {
    "DepthToSpace": (lambda net, y: net.op("DepthToSpace", y, blocksize=2), 2),
    "DepthToSpace CRD": (lambda net, y: net.op("DepthToSpace", y, blocksize=2, mode="CRD"), 2),
    "pixel shuffle": (
        chain(view(2, 2, 2, 2, 4, 6), turn(0, 1, 4, 2, 5, 3), view(2, 2, 8, 12)),
        2,
    ),
    "pixel shuffle, blocks first": (
        chain(view(2, 2, 2, 2, 4, 6), turn(0, 3, 4, 1, 5, 2), view(2, 2, 8, 12)),
        2,
    ),
    "space to batch": (
        chain(view(2, 8, 2, 2, 3, 2), turn(3, 5, 0, 1, 2, 4), view(8, 8, 2, 3)),
        8,
    ),
    "rows chosen": (lambda net, y: net.op("Gather", y, integers(net, 3, 0, 0, 1), axis=2), 8),
    "tiled": (lambda net, y: net.op("Tile", y, integers(net, 1, 1, 2, 1)), 8),
    "turned over": (lambda net, y: sliced(net, y, (2, 3), -1, -(2**40), -1), 8),
    "expanded": (
        lambda net, y: net.op("Expand", net.op("GlobalAveragePool", y), integers(net, 1, 1, 4, 6)),
        8,
    ),
}


def norm_behind(move: Move, channels: int) -> Rewritten:
    """A layer, what moves its numbers, and a norm of so many channels, rewritten."""
    net = Net(SHAPE)
    y = net.bn(move(net, net.conv(net.x, 8, 8, (3, 3))), channels)
    return rewrite(net.model(net.op("Tanh", y)))


@pytest.mark.parametrize("kind", BEHIND)
def test_a_norm_behind_goes_into_the_layer_in_front(kind):
    done = norm_behind(*BEHIND[kind])
    assert "BatchNormalization" not in done.ops and done.ops["Conv"] == 1
    assert done.checks.certified == done.checks.regions > 0, done.checks.doubts
    assert_same(done)


# In front of a layer and behind a norm: each channel behind is one of those in front.
FRONT: dict[str, tuple[Move, int]] = {
    "SpaceToDepth": (lambda net, y: net.op("SpaceToDepth", y, blocksize=2), 32),
    "pixel unshuffle": (
        chain(view(2, 8, 2, 2, 3, 2), turn(0, 1, 3, 5, 2, 4), view(2, 32, 2, 3)),
        32,
    ),
    "pixel unshuffle, blocks first": (
        chain(view(2, 8, 2, 2, 3, 2), turn(0, 3, 5, 1, 2, 4), view(2, 32, 2, 3)),
        32,
    ),
    "largest pixel of each window": (
        lambda net, y: net.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]),
        8,
    ),
    "largest pixel": (lambda net, y: net.op("GlobalMaxPool", y), 8),
    **{kind: BEHIND[kind] for kind in ("space to batch", "rows chosen", "tiled", "turned over")},
}


def rising(net: Net, y: str) -> str:
    scale = net.const(net.rng.uniform(0.5, 2, (8, 1, 1)))
    return net.op("Add", net.op("Mul", y, scale), net.const(net.rng.standard_normal((8, 1, 1))))


@pytest.mark.parametrize("kind", FRONT)
def test_a_norm_in_front_goes_into_the_layer_behind(kind):
    move, channels = FRONT[kind]
    net = Net(SHAPE)
    y = net.conv(move(net, rising(net, net.x)), 6, channels, (1, 1))
    done = rewrite(net.model(net.op("Tanh", y)))
    assert not {"Add", "Mul", "BatchNormalization"} & set(done.ops) and done.ops["Conv"] == 1
    assert done.checks.certified == done.checks.regions > 0, done.checks.doubts
    assert_same(done)


def test_windows_of_an_image_and_a_linear_layer():
    """[N, C, H, W] to [windows, pixels, C], as in front of an attention over windows."""
    net = Net(SHAPE)
    y = net.bn(net.op("Exp", net.x), 8)
    y = chain(view(2, 8, 2, 2, 3, 2), turn(0, 2, 4, 3, 5, 1), view(12, 4, 8))(net, y)
    y = net.op("Add", net.op("MatMul", y, net.const(net.rng.standard_normal((8, 6)))), "b")
    net.const(net.rng.standard_normal(6), "b")
    done = rewrite(net.model(net.op("Tanh", y)))
    assert "BatchNormalization" not in done.ops and done.ops["MatMul"] == 1
    assert_same(done)


@pytest.mark.parametrize("kind", ["DepthToSpace", "DepthToSpace CRD", "turned over", "tiled"])
def test_at_open_sizes(kind):
    move, channels = BEHIND[kind]
    net = Net(("n", 8, "h", "w"), dtype=np.float32)
    y = net.bn(move(net, net.conv(net.x, 8, 8, (3, 3))), channels)
    result = flatfold.optimize(net.model(net.op("Tanh", y)))
    assert "BatchNormalization" not in result.after.operators
    assert result.equivalence.passed


# What is one channel on the far side is several on the near side.
MIXES: dict[str, tuple[Move, int]] = {
    "SpaceToDepth": FRONT["SpaceToDepth"],
    "pixel unshuffle": FRONT["pixel unshuffle"],
    "channels tiled": (lambda net, y: net.op("Tile", y, integers(net, 1, 2, 1, 1)), 16),
}


@pytest.mark.parametrize("kind", MIXES)
def test_a_norm_that_differs_between_parts_of_a_channel_stays_behind(kind):
    done = norm_behind(*MIXES[kind])
    assert done.ops["BatchNormalization"] + done.ops["Conv"] == 2
    assert_same(done)


@pytest.mark.parametrize("kind", ["DepthToSpace", "pixel shuffle"])
def test_a_norm_of_several_channels_that_become_one_stays_in_front(kind):
    move, channels = BEHIND[kind]
    net = Net(SHAPE)
    y = net.conv(move(net, net.bn(net.x, 8)), 6, channels, (1, 1))
    done = rewrite(net.model(net.op("Tanh", y)))
    assert done.ops["BatchNormalization"] == 1
    assert_same(done)


def test_a_falling_norm_stays_in_front_of_a_maximum():
    net = Net(SHAPE)
    scale = net.const(np.array([1, 2, -1, 1, 1, 3, 1, 0.5]).reshape(8, 1, 1))
    y = net.op("MaxPool", net.op("Mul", net.x, scale), kernel_shape=[2, 2], strides=[2, 2])
    done = rewrite(net.model(net.op("Tanh", net.conv(y, 6, 8, (1, 1)))))
    assert done.ops["Mul"] == 1
    assert_same(done)


def test_a_map_without_pixels_moves_nothing():
    net = Net((2, 8, 0, 6), dtype=np.float32)
    y = net.op("DepthToSpace", net.bn(net.op("Exp", net.x), 8), blocksize=2)
    graph = ir.from_proto(net.model(net.op("Tanh", y)))
    with pytest.raises(Decline, match="moves no numbers"):
        rearranged([graph.graph.node("depthtospace2")], 2, 2)


def test_a_value_between_that_is_an_output_stays():
    net = Net(SHAPE)
    first = view(2, 8, 2, 2, 3, 2)(net, net.bn(net.x, 8))
    second = turn(0, 3, 5, 1, 2, 4)(net, first)
    y = net.conv(view(2, 32, 2, 3)(net, second), 6, 32, (1, 1))
    done = rewrite(net.model(net.op("Tanh", y), second))
    assert done.ops["Transpose"] == 1
    assert_same(done)


def test_one_channel_that_becomes_several_rows_takes_no_scale_for_each():
    net = Net((2, 1, 4, 3))
    y = view(2, 4, 3)(net, net.conv(net.x, 1, 1, (3, 3)))
    y = net.op("Mul", y, net.const(net.rng.standard_normal((4, 1))))
    done = rewrite(net.model(net.op("Tanh", y)))
    assert done.ops["Mul"] + done.ops["Conv"] == 2
    assert_same(done)


def without_batch(net: Net, y: str) -> str:
    """[n, 4, 1, 1] -> [n, 1, 1] -> [1, n, 1]: the batch is where channels would be."""
    one = net.op("Gather", net.bn(y, 4), net.const(np.array(2)), axis=1)
    return net.op("Transpose", net.bn(one, 1), perm=[1, 0, 2])


def test_a_batch_that_is_moved_is_no_channel():
    net = Net(("n", 4, 1, 1))
    done = rewrite(net.model(without_batch(net, net.op("Relu", net.x))))
    for batch in (1, 3):
        assert_same(done, (batch, 4, 1, 1))


def test_a_batch_that_a_view_takes_in_is_no_batch():
    """[n, 2, 4, 4, 4] as [1, 2, -1, 4] keeps the channels apart for one image, and for no more."""
    net = Net(("n", 2, 4, 4, 4))
    y = net.op("Reshape", net.bn(net.x, 2), integers(net, 1, 2, -1, 4))
    done = rewrite(net.model(net.op("Sigmoid", y)))
    for batch in (1, 2, 3):
        assert_same(done, (batch, 2, 4, 4, 4))


@pytest.mark.parametrize(
    ("shape", "order"), [(("n", "c", 1, 1), (1, 2, 0, 3)), (("n", 5, 1, 1), (1, 0, 2, 3))]
)
def test_channels_of_unknown_number_are_not_followed(shape, order):
    """Neither in front nor behind: one number stood for all of them, and for the batch."""
    net = Net(shape)
    model = ir.from_proto(net.model(net.op("Transpose", net.bn(net.x, 5), perm=order)))
    (turned,) = (node for node in model.graph if node.op_type == "Transpose")
    with pytest.raises(Decline, match="the number of channels"):
        rearranged([turned], 2, 2)
