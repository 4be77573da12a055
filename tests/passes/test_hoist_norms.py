"""A per-channel map behind an operator that commutes with it goes into the layer in front."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import flatfold
from tests.nets import Net, assert_same, assert_untouched, rewrite

POOL = {"kernel_shape": [3, 3], "strides": [2, 2]}


def numbers(net: Net, *values: float) -> str:
    return net.const(np.array(values))


def integers(net: Net, *values: int) -> str:
    return net.const(np.array(values, np.int64))


def scales(net: Net, *values: float) -> str:
    """Of single precision, whatever the graph has."""
    name = numbers(net, *values)
    net.constants[name] = np.array(values, np.float32)
    return name


def resized(net: Net, y: str, mode: str, **how: str) -> str:
    return net.op("Resize", y, "", scales(net, 1, 1, 2, 1.5), mode=mode, **how)


def padded(net: Net, y: str, mode: str) -> str:
    return net.op("Pad", y, integers(net, 0, 0, 1, 2, 0, 0, 2, 0), mode=mode)


MAXIMA: dict[str, Callable[[Net, str], str]] = {
    "MaxPool": lambda net, y: net.op("MaxPool", y, pads=[1] * 4, **POOL),
    "GlobalMaxPool": lambda net, y: net.op("GlobalMaxPool", y),
    "ReduceMax": lambda net, y: net.op("ReduceMax", y, integers(net, 2, 3)),
}
OTHERS: dict[str, Callable[[Net, str], str]] = {
    "mean without the padding": lambda net, y: net.op("AveragePool", y, pads=[1] * 4, **POOL),
    "mean of the last pixels": lambda net, y: net.op("AveragePool", y, ceil_mode=1, **POOL),
    "nearest": lambda net, y: resized(
        net, y, "nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    ),
    "linear": lambda net, y: resized(net, y, "linear"),
    "corners": lambda net, y: resized(
        net, y, "linear", coordinate_transformation_mode="align_corners"
    ),
    "reflect": lambda net, y: padded(net, y, "reflect"),
    "edge": lambda net, y: padded(net, y, "edge"),
    "wrap": lambda net, y: padded(net, y, "wrap"),
    "flip": lambda net, y: net.op(
        "Slice",
        y,
        integers(net, -1),
        integers(net, np.iinfo(np.int64).min),
        integers(net, 3),
        integers(net, -1),
    ),
    "rows": lambda net, y: net.op("Gather", y, integers(net, 4, 0, 2), axis=2),
    "tile": lambda net, y: net.op("Tile", y, integers(net, 1, 1, 2, 1)),
    "Transpose": lambda net, y: net.op("Transpose", y, perm=[0, 1, 3, 2]),
    "mean": lambda net, y: net.op("GlobalAveragePool", y),
}


def norm(net: Net, y: str, channels: int = 6) -> str:
    """With scales above and below zero."""
    return net.bn(y, channels)


def rising(net: Net, y: str) -> str:
    y = net.op("Mul", y, net.const(net.rng.uniform(0.5, 2, (6, 1, 1))))
    return net.op("Add", y, net.const(net.rng.standard_normal((1, 6, 1, 1))))


def net_of(between: Callable[[Net, str], str], map_: Callable[[Net, str], str], shape) -> Net:
    net = Net(shape)
    net.y = net.op("Softplus", map_(net, between(net, net.conv(net.x, 6, 4, (3, 3)))))
    return net


@pytest.mark.parametrize("shape", [(2, 4, 9, 8), (1, 4, 6, 7)])
@pytest.mark.parametrize("kind", [*MAXIMA, *OTHERS])
def test_it_goes_into_the_convolution(kind: str, shape):
    between = (MAXIMA | OTHERS)[kind]
    net = net_of(between, rising if kind in MAXIMA else norm, shape)
    done = rewrite(net.model(net.y))
    left = {"BatchNormalization", "Mul", "Add"} & set(done.ops)
    assert not left, done.remarks
    assert done.ops["Conv"] == 1
    assert done.checks.certified == done.checks.regions, done.checks.doubts
    assert_same(done, shape)
    assert_untouched(rewrite(done.after))


@pytest.mark.parametrize("kind", MAXIMA)
@pytest.mark.parametrize("scale", [-2.0, 0.0])
def test_a_maximum_commutes_with_a_positive_scale_only(kind: str, scale: float):
    def falling(net: Net, y: str) -> str:
        return net.op("Mul", y, net.const(np.array([1, 1, scale, 1, 1, 2.0]).reshape(6, 1, 1)))

    net = net_of(MAXIMA[kind], falling, (2, 4, 9, 8))
    done = rewrite(net.model(net.y))
    assert done.ops["Mul"] == 1
    assert_same(done)


STAYS: dict[str, Callable[[Net, str], str]] = {
    "zeros are counted": lambda net, y: net.op(
        "AveragePool", y, pads=[1] * 4, count_include_pad=1, ceil_mode=1, **POOL
    ),
    "a number of its own": lambda net, y: net.op(
        "Pad", y, integers(net, 0, 0, 1, 1, 0, 0, 1, 1), numbers(net, 3.0)
    ),
    # whose weights, rounded to single precision, add up to 1 but for their roundings
    "cubic": lambda net, y: resized(net, y, "cubic"),
    "a sum of pixels": lambda net, y: net.op("ReduceSum", y, integers(net, 2, 3)),
    "channels are resized": lambda net, y: net.op(
        "Resize", y, "", scales(net, 1, 2, 1, 1), mode="nearest"
    ),
    "no maximum, a gate": lambda net, y: net.op("Sigmoid", y),
}


@pytest.mark.parametrize("kind", STAYS)
def test_what_does_not_commute_stays(kind: str):
    net = Net()
    y = STAYS[kind](net, net.conv(net.x, 6, 4, (3, 3)))
    net.y = net.bn(y, 12 if kind.startswith("channels") else 6)
    if kind.startswith("a number"):
        net.constants[net.nodes[1].input[2]] = np.array(3.0)
    done = rewrite(net.model(net.op("Softplus", net.y)))
    assert "hoist-norms" not in done.applied


def test_a_value_that_is_read_elsewhere_keeps_its_norm():
    net = Net()
    y = net.op("MaxPool", net.conv(net.x, 6, 4, (3, 3)), **POOL)
    done = rewrite(net.model(net.op("Mul", net.op("Softplus", rising(net, y)), net.op("Tanh", y))))
    assert "hoist-norms" not in done.applied


@pytest.mark.parametrize("open_batch", [False, True])
@pytest.mark.parametrize("levit", [False, True])
def test_a_norm_of_rows_goes_into_the_matrix_in_front(levit: bool, open_batch: bool):
    """[N, T, C] as [N T, C] for a BatchNorm1d; or as [N, C, T], a Transpose in front."""
    net = Net(("n" if open_batch else 3, 5, 4))
    y = net.op("MatMul", net.x, net.const(net.rng.standard_normal((4, 6))))
    if levit:
        y = net.op("Reshape", y, integers(net, -1, 6))
        y = net.op("Reshape", net.bn(y, 6), integers(net, -1, 5, 6))
    else:
        y = net.bn(net.op("Transpose", y, perm=[0, 2, 1]), 6)
    done = rewrite(net.model(net.op("Softplus", y)))
    assert "BatchNormalization" not in done.ops
    assert_same(done, (3, 5, 4))


def back_by_its_shape(net: Net, *other: str) -> tuple[str, ...]:
    """[N, T, C] as [N T, C] for a BatchNorm1d and back, as LeViT does at open sizes."""
    y = net.op("MatMul", net.x, net.const(net.rng.standard_normal((4, 6))))
    flat = net.bn(net.op("Flatten", y, axis=2), 6)
    back = net.op("Reshape", flat, net.op("Shape", y))
    read = {"product": y, "norm": flat}
    return net.op("Softplus", back), *(net.op("Relu", read[name]) for name in other)


def test_a_norm_between_views_that_are_undone_goes_into_the_matrix_in_front():
    net = Net(("n", "t", 4))
    done = rewrite(net.model(*back_by_its_shape(net)))
    assert done.applied == ["hoist-norms"]
    assert set(done.ops) <= {"MatMul", "Add", "Softplus"}
    assert done.checks.certified == done.checks.regions, done.checks.doubts
    for shape in ((3, 5, 4), (1, 2, 4)):
        assert_same(done, shape)


@pytest.mark.parametrize("other", ["product", "norm"])
def test_views_that_are_undone_stay_where_what_is_between_is_read(other: str):
    net = Net(("n", "t", 4))
    assert_untouched(rewrite(net.model(*back_by_its_shape(net, other))))


def test_a_reshape_that_cuts_rows_keeps_the_norm():
    net = Net((3, 4, 4))
    y = net.op("MatMul", net.x, net.const(net.rng.standard_normal((4, 6))))
    y = net.bn(net.op("Reshape", y, integers(net, -1, 8)), 8)
    done = rewrite(net.model(net.op("Softplus", y)))
    assert "hoist-norms" not in done.applied


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
@pytest.mark.parametrize("shape", [(2, 3, 9, 8), ("n", 3, "h", "w")])
def test_a_norm_in_front_of_a_copying_pad_goes_into_the_layer_behind(mode: str, shape):
    """Mean and deviation of a picture, a Pad that copies, and a convolution without padding."""
    net = Net(shape)
    y = net.op("Div", net.op("Sub", net.x, numbers(net, 0.5)), numbers(net, 0.25))
    y = net.conv(padded(net, y, mode), 6, 3, (3, 3), pads=[0] * 4)
    done = rewrite(net.model(net.op("Softplus", y)))
    assert done.ops == {"Pad": 1, "Conv": 1, "Softplus": 1}
    assert_same(done, (2, 3, 9, 8))


def test_a_resize_in_front_of_a_layer_lets_a_norm_pass():
    net = Net()
    y = resized(net, net.bn(net.op("Tanh", net.x), 4), "linear")
    done = rewrite(net.model(net.conv(y, 6, 4, (3, 3), pads=[0] * 4)))
    assert done.ops == {"Tanh": 1, "Resize": 1, "Conv": 1}
    assert_same(done)


def test_a_node_without_inputs_is_no_layer():
    net = Net((2, 4, 9, 8), dtype=np.float32)
    noise = net.op("RandomNormal", shape=[2, 4, 9, 8])
    y = net.op("Add", net.x, net.bn(net.op("MaxPool", noise, kernel_shape=[1, 1]), 4))
    assert_untouched(rewrite(net.model(y)))


NORMALIZED: dict[str, tuple[Callable[[Net, str], str], int]] = {
    "InstanceNormalization": (
        lambda net, y: net.op("InstanceNormalization", y, *drawn(net, 4, 4)),
        18,
    ),
    "GroupNormalization": (
        lambda net, y: net.op("GroupNormalization", y, *drawn(net, 4, 4), num_groups=2),
        21,
    ),
}


def drawn(net: Net, *counts: int) -> list[str]:
    return [net.const(net.rng.uniform(0.5, 2, count)) for count in counts]


@pytest.mark.parametrize("between", ["nothing", "MaxPool", "reflect"])
@pytest.mark.parametrize("kind", NORMALIZED)
def test_it_goes_into_the_scale_and_bias_of_a_norm(kind: str, between: str):
    normalized, opset = NORMALIZED[kind]
    net = Net((2, 4, 9, 8), opset=opset, dtype=np.float32)
    y = normalized(net, net.op("Tanh", net.x))
    y = (MAXIMA | OTHERS)[between](net, y) if between != "nothing" else y
    y = net.op("Mul", y, net.const(net.rng.uniform(0.5, 2, (4, 1, 1))))
    y = net.op("Add", y, net.const(net.rng.standard_normal((1, 4, 1, 1))))
    done = flatfold.optimize(net.model(net.op("Softplus", y)))
    operators = done.after.operators
    assert not {"Mul", "Add", "Conv"} & set(operators) and operators[kind] == 1, done.remarks
    assert done.equivalence.verdict == "certified", done.equivalence


def test_a_scale_for_each_group_takes_a_map_that_is_one_for_each():
    """Of opset 18: the map of the first net is the same for both channels of a group."""
    for numbers_, left in (([2.0, 2.0, 3.0, 3.0], 0), ([2.0, 1.0, 3.0, 3.0], 1)):
        net = Net((2, 4, 5, 6), opset=18, dtype=np.float32)
        y = net.op("GroupNormalization", net.op("Tanh", net.x), *drawn(net, 2, 2), num_groups=2)
        y = net.op("Mul", y, net.const(np.array(numbers_).reshape(4, 1, 1)))
        done = flatfold.optimize(net.model(net.op("Softplus", y)))
        assert done.after.operators.get("Mul", 0) == left, done.remarks
        assert done.equivalence.passed


@pytest.mark.parametrize(
    "how",
    [
        {"kernel_shape": [2, 4], "dilations": [2, 1], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [2, 2], "pads": [2, 0, 0, 0]},
    ],
)
def test_a_mean_of_nothing_but_padding_is_no_mean(how):
    """A window in the padding alone has the mean 0 or none, and with a shift it would have that."""
    net = Net((1, 4, 1, 6), opset=21)
    y = net.op("AveragePool", net.conv(net.x, 4, 4, (1, 1)), **how)
    done = rewrite(net.model(net.bn(y, 4)))
    assert "hoist-norms" not in done.applied


def test_a_mean_over_dilated_pixels_is_one_where_nothing_is_padded():
    net = Net((1, 4, 9, 9), opset=21)
    y = net.op("AveragePool", net.conv(net.x, 4, 4, (1, 1)), kernel_shape=[2, 2], dilations=[2, 2])
    done = rewrite(net.model(net.bn(y, 4)))
    assert done.ops["BatchNormalization"] == 0
    assert_same(done)
