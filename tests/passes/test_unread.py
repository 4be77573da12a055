"""Zero weights never meet what may be infinite; where they meet what was unread, it is said."""

from __future__ import annotations

import numpy as np

from flatfold.passes.lifting.unread import NOTE
from tests.nets import Net, assert_same, assert_untouched, rewrite


def some_channels(net: Net, x: str) -> str:
    return net.op("Gather", x, net.const(np.array([0, 1, 0, 2])), axis=1)


def told(done) -> list[str]:
    return [remark.reason for remark in done.remarks if remark.applied and NOTE in remark.reason]


def test_channels_of_an_input_that_were_not_chosen_are_multiplied_by_zero_and_it_is_said_once():
    net = Net()
    y = net.conv(some_channels(net, net.x), 4, 4, (1, 1))
    y = net.conv(some_channels(net, net.op("Relu", y)), 4, 4, (1, 1))
    done = rewrite(net.model(y))
    assert_same(done, net.shape)
    assert done.ops == {"Conv": 2, "Relu": 1}
    assert len(told(done)) == 1


def test_nothing_is_said_where_every_weight_was_there_before():
    net = Net()
    done = rewrite(net.model(net.bn(net.conv(net.x, 4, 4, (3, 3)), 4)))
    assert done.ops == {"Conv": 1}
    assert not told(done)


def test_a_copy_of_what_may_be_infinite_is_not_multiplied_by_zero():
    net = Net()
    y = net.op("MaxPool", net.op("Exp", net.x), kernel_shape=[2, 2])
    done = rewrite(net.model(net.conv(some_channels(net, y), 4, 4, (1, 1))))
    assert "INFINITE" in done.codes
    assert_untouched(done)


def test_a_division_by_a_constant_is_finite():
    net = Net()
    y = net.op("Sigmoid", net.op("Div", net.x, net.const(np.array([2.0]))))
    done = rewrite(net.model(net.conv(some_channels(net, y), 4, 4, (1, 1))))
    assert "Gather" not in done.ops
    assert_same(done, net.shape)


def test_a_norm_that_makes_no_number_is_not_multiplied_by_zero_behind_other_operators():
    for variance in (0.5, -1.0):
        net = Net()
        norm = [np.ones(4), np.zeros(4), np.zeros(4), np.array([1.0, 2, variance, 1])]
        y = net.op("BatchNormalization", net.x, *map(net.const, norm))
        y = net.op("Softsign", net.op("Round", y))
        done = rewrite(net.model(net.conv(some_channels(net, y), 4, 4, (1, 1))))
        assert ("INFINITE" in done.codes) == (variance < 0)
        assert ("Gather" in done.ops) == (variance < 0)


def test_a_constant_that_is_infinite_is_not_multiplied_by_zero():
    for end in (2.0, np.inf):
        net = Net()
        y = net.op("Sigmoid", net.op("Mul", net.x, net.const(np.array([end]))))
        done = rewrite(net.model(net.conv(some_channels(net, y), 4, 4, (1, 1))))
        assert ("INFINITE" in done.codes) == np.isinf(end)
