"""Each rewrite, on the graphs that it is for: any batch, any size, half precision, both rims."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.nets import Net, assert_same, assert_untouched, rewrite

NONE = [0, 0, 0, 0]
CHANNELS, SIZES = 4, (9, 8)


def fold(net: Net) -> str:
    return net.bn(net.conv(net.x, 6, 4, (3, 3)), 6)


def fold_before(net: Net) -> str:
    return net.conv(net.bn(net.op("Tanh", net.x), 4), 6, 4, (3, 3), pads=NONE)


def fold_through_a_mean(net: Net) -> str:
    mean = net.op("GlobalAveragePool", net.bn(net.op("Tanh", net.x), 4))
    return net.conv(mean, 6, 4, (1, 1))


def choose(net: Net) -> str:
    index = net.const(np.array([3, 1, 0, 2]))
    return net.conv(net.op("Gather", net.x, index, axis=1), 6, 4, (3, 3))


def merge(net: Net) -> str:
    arms = [net.bn(net.conv(net.x, 4, 4, (k, k), bias=False), 4) for k in (3, 1, 5)]
    return net.op("Add", net.op("Sub", arms[0], arms[1]), net.op("Add", arms[2], net.bn(net.x, 4)))


def concatenate(net: Net) -> str:
    return net.op("Concat", *(net.conv(net.x, n, 4, (3, 3)) for n in (2, 5)), axis=1)


def compose(net: Net) -> str:
    return net.conv(net.conv(net.x, 8, 4, (3, 3)), 4, 8, (1, 1))


def collapse(net: Net) -> str:
    y = net.op("LeakyRelu", net.conv(net.x, 8, 4, (1, 1)), alpha=1.0)
    return net.conv(y, 4, 8, (1, 1))


def bend(net: Net) -> str:
    y = net.op("Tanh", net.x)
    quarter, rest = net.const(np.array(0.25)), net.const(np.array(0.75))
    parts = net.op("Mul", net.op("Relu", y), rest), net.op("Mul", y, quarter)
    return net.op("Add", *parts)


def shift(net: Net) -> str:
    """x[i + 1] without its first row, and a row of zeros at the end, beside a kernel."""
    rows = (net.const(np.array([n])) for n in (1, 2**31 - 1, 2))
    moved = net.op("Pad", net.op("Slice", net.x, *rows), net.const(np.array([0] * 6 + [1, 0])))
    return net.op("Add", net.conv(net.x, 4, 4, (3, 3)), moved)


def trim(net: Net) -> str:
    y = net.conv(net.x, 6, 4, (5, 5))
    weight = net.constants[net.nodes[-1].input[1]]
    weight[:, :, [0, -1]] = 0
    return y


def drop(net: Net) -> str:
    y = net.conv(net.x, 8, 4, (3, 3))
    net.constants[net.nodes[-1].input[1]][[1, 5]] = 0
    return net.conv(net.op("Relu", y), 6, 8, (3, 3), pads=NONE)


def hoist(net: Net) -> str:
    y = net.op("MaxPool", net.conv(net.x, 6, 4, (3, 3)), kernel_shape=[2, 2], strides=[2, 2])
    return net.op("Relu", y)


def hoist_norm(net: Net) -> str:
    pool = net.op("MaxPool", net.conv(net.x, 4, 4, (3, 3)), kernel_shape=[2, 2], strides=[2, 2])
    return net.op("Mul", pool, net.const(np.array([0.5, 2.0, 1.5, 3.0]).reshape(4, 1, 1)))


CASES: dict[Callable[[Net], str], str] = {
    fold: "fold-batchnorm",
    fold_before: "fold-batchnorm",
    fold_through_a_mean: "fold-batchnorm",
    choose: "fold-batchnorm",
    merge: "merge-branches",
    concatenate: "merge-branches",
    compose: "compose-convs",
    collapse: "collapse-activations",
    bend: "collapse-activations",
    shift: "rewrite-shifts",
    trim: "trim-kernels",
    drop: "drop-channels",
    hoist: "hoist-activations",
    hoist_norm: "hoist-norms",
}
SHAPES = [(2, 4, 9, 8), ("n", 4, 9, 8), ("n", 4, "h", "w"), (1, 4, 5, 12)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_it_fires_and_nothing_changes_inside_or_on_the_rim(case, shape):
    net = Net(shape)
    done = rewrite(net.model(net.op("Softplus", case(net))))
    assert done.applied == [CASES[case]]
    given = tuple(n if isinstance(n, int) else {"n": 3, "h": 9, "w": 7}[n] for n in shape)
    assert_same(done, given)
    assert_untouched(rewrite(done.after))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_in_other_precisions_every_change_stays_within_its_bound(case, dtype):
    net = Net(dtype=dtype)
    done = rewrite(net.model(net.op("Softplus", case(net))))
    assert done.applied == [CASES[case]]
    assert done.checks.regions == 1
    assert 0 <= done.checks.worst <= 1.01
    types = {value.dtype.name for value in done.graph.graph.initializers.values()}
    assert types <= {{np.float16: "FLOAT16", np.float32: "FLOAT"}[dtype], "INT64"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_without_it_the_graph_is_left_or_still_right(case):
    net = Net()
    model = net.model(net.op("Softplus", case(net)))
    from flatfold.passes import PIPELINE

    others = [kind.name for kind in PIPELINE if kind.name != CASES[case]]
    done = rewrite(model, *others)
    assert CASES[case] not in done.applied
    assert_same(done)


def test_every_rewrite_is_here():
    from flatfold.passes import PIPELINE

    of_their_own = {"fuse-activations", "fuse-biases", "fuse-norms"}  # they have files of tests
    assert {kind.name for kind in PIPELINE} == set(CASES.values()) | of_their_own


def test_a_bias_too_small_for_half_precision_does_not_stop_a_fold():
    net = Net(dtype=np.float16)
    y = net.bn(net.conv(net.x, 6, 4, (3, 3), bias=False), 6)
    beta, mean = (net.constants[name] for name in net.nodes[-1].input[2:4])
    beta[2], mean[2] = 6e-8, 0
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Conv": 1, "Relu": 1}
