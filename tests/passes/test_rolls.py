"""A roll is one copy of rows where rows are long, and no convolution then."""

from __future__ import annotations

import numpy as np
import pytest

from tests.nets import Net, assert_same, rewrite


def rolled(net: Net, x: str, shift: int, size: int, axis: int) -> str:
    """torch.roll by `shift`, as exporters write it."""
    ends = [(size - shift, size), (0, size - shift)] if shift > 0 else [(-shift, size), (0, -shift)]
    parts = [
        net.op("Slice", x, *(net.const(np.array([n])) for n in (start, end, axis)))
        for start, end in ends
    ]
    return net.op("Concat", *parts, axis=axis)


@pytest.mark.parametrize("shift", [3, -3, 1])
def test_rows_are_copied_one_by_one(shift: int) -> None:
    net = Net((2, 6, 9, 40))
    y = rolled(net, net.op("Tanh", net.x), shift, 9, 2)
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Tanh": 1, "Gather": 1, "Relu": 1}
    assert done.applied == ["rewrite-shifts"]
    assert_same(done)
    again = rewrite(done.after)
    assert not again.applied


def test_of_a_map_and_its_rows() -> None:
    """Swin: both axes of a channels-last map, of which one is axis 1."""
    net = Net((1, 48, 9, 32))
    y = rolled(net, rolled(net, net.op("Tanh", net.x), -2, 48, 1), -3, 9, 2)
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Tanh": 1, "Gather": 2, "Relu": 1}
    assert_same(done)


def test_a_scale_and_a_shift_behind_it_stay() -> None:
    net = Net((2, 6, 9, 40))
    y = rolled(net, net.op("Tanh", net.x), 3, 9, 2)
    y = net.op("Add", y, net.const(net.rng.normal(size=(6, 1, 1))))
    done = rewrite(net.model(net.op("Relu", y)))
    assert "Slice" not in done.ops
    assert_same(done)


@pytest.mark.parametrize(("shape", "axis"), [((2, 6, 9, 40), 3), ((2, 6, 9, 8), 2)])
def test_short_rows_are_not(shape: tuple[int, ...], axis: int) -> None:
    net = Net(shape)
    y = rolled(net, net.op("Tanh", net.x), 3, shape[axis], axis)
    done = rewrite(net.model(net.op("Relu", y)))
    assert "Gather" not in done.ops
    assert_same(done)


def test_of_open_size_no_list_of_rows_can_be_written() -> None:
    net = Net((2, 6, "w", 40))
    tail, head, end, axis = (net.const(np.array([n])) for n in (-3, 0, 2**62, 2))
    x = net.op("Tanh", net.x)
    y = net.op(
        "Concat", net.op("Slice", x, tail, end, axis), net.op("Slice", x, head, tail, axis), axis=2
    )
    done = rewrite(net.model(net.op("Relu", y)))
    assert "Gather" not in done.ops
    for size in (3, 4, 9):
        assert_same(done, (2, 6, size, 40))


def test_taps_a_map_apart_that_are_no_roll_stay() -> None:
    """Other weights than ones: a scale of each part of its own."""
    net = Net((2, 6, 9, 40))
    weight = net.const(net.rng.standard_normal((6, 1, 2, 1)))
    how = {"dilations": [9, 1], "pads": [3, 0, 6, 0], "group": 6}
    done = rewrite(net.model(net.op("Relu", net.op("Conv", net.op("Tanh", net.x), weight, **how))))
    assert "Gather" not in done.ops
    assert_same(done)
