"""Branches whose weights are zero, and what computed them, are not written."""

from __future__ import annotations

import numpy as np

from tests.nets import Net, assert_same, rewrite


def test_a_branch_of_zeros_goes_and_so_does_what_computed_it():
    """(1 - l) * A(x) + l * x at l = 1: the activation is dead."""
    net = Net()
    zero, one = net.const(np.zeros((1,))), net.const(np.ones((1,)))
    y = net.op("Mul", net.op("Relu", net.op("Exp", net.x)), zero)
    done = rewrite(net.model(net.op("Sigmoid", net.op("Add", y, net.op("Mul", net.x, one)))))
    assert done.ops == {"Sigmoid": 1}
    assert_same(done)


def test_branches_that_cancel_leave_the_rest():
    net = Net()
    y = net.conv(net.x, 4, 4, (3, 3), False)
    again = net.op("Conv", net.x, "c0", pads=[1, 1, 1, 1])
    rest = net.op("Tanh", net.op("Relu", net.x))
    done = rewrite(net.model(net.op("Add", net.op("Sub", y, again), rest)))
    assert done.ops == {"Relu": 1, "Tanh": 1, "Identity": 1}  # the output keeps its name
    assert_same(done)
