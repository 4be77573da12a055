"""Norms that are spelled out become one operator, where they are exactly that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
import pytest

import flatfold
from tests.fuzz.sketch import run
from tests.nets import Net, assert_same, assert_untouched, rewrite

U = 2.0**-24
EPSILON = 2.0**-16  # in any type
ROWS, MAP, LINE = (2, 7, 12), (2, 6, 9, 7), (2, 6, 11)

LAST, CHANNELS, PIXELS = (-1,), (1,), (2, 3)


def number(net: Net, value: float) -> str:
    return net.const(np.array(float(value)))


def mean(net: Net, x: str, axes: Sequence[int], **other) -> str:
    if net.opset < 18:
        return net.op("ReduceMean", x, axes=list(axes), **other)
    return net.op("ReduceMean", x, net.const(np.array(axes)), **other)


def parameter(net: Net, axes: Sequence[int]) -> str:
    """One number for each place along the axis that scale and bias have."""
    of_a_map = (net.shape[1], *(1,) * (len(net.shape) - 2))
    shape = (net.shape[-1],) if tuple(axes) == LAST else of_a_map
    return net.const(net.rng.uniform(0.5, 2, shape))


def spread(net: Net, x: str, axes: Sequence[int], epsilon: float = EPSILON, by="Pow") -> str:
    """mean(x^2) + epsilon."""
    square = net.op("Pow", x, number(net, 2)) if by == "Pow" else net.op("Mul", x, x)
    return net.op("Add", mean(net, square, axes), number(net, epsilon))


def centred(net: Net, x: str, axes: Sequence[int]) -> str:
    return net.op("Sub", x, mean(net, x, axes))


def divided(net: Net, x: str, axes: Sequence[int], **how) -> str:
    return net.op("Div", x, net.op("Sqrt", spread(net, x, axes, **how)))


def by_reciprocal(net: Net, x: str, axes: Sequence[int], **how) -> str:
    root = net.op("Sqrt", spread(net, x, axes, **how))
    return net.op("Mul", net.op("Reciprocal", root), x)


def by_quotient(net: Net, x: str, axes: Sequence[int], **how) -> str:
    root = net.op("Sqrt", spread(net, x, axes, **how))
    return net.op("Mul", x, net.op("Div", number(net, 1), root))


def by_power(net: Net, x: str, axes: Sequence[int], **how) -> str:
    return net.op("Div", x, net.op("Pow", spread(net, x, axes, **how), number(net, 0.5)))


def by_square(net: Net, x: str, axes: Sequence[int], **how) -> str:
    return divided(net, x, axes, by="Mul", **how)


SPELLINGS = [divided, by_reciprocal, by_quotient, by_power, by_square]


def plain(net: Net, x: str, axes: Sequence[int], spelling=divided, **how) -> str:
    return spelling(net, centred(net, x, axes), axes, **how)


def scaled(net: Net, x: str, axes: Sequence[int], spelling=divided, **how) -> str:
    return net.op("Mul", plain(net, x, axes, spelling, **how), parameter(net, axes))


def norm(net: Net, x: str, axes: Sequence[int], spelling=divided, **how) -> str:
    return net.op("Add", parameter(net, axes), scaled(net, x, axes, spelling, **how))


def shifted(net: Net, x: str, axes: Sequence[int], **how) -> str:
    return net.op("Add", plain(net, x, axes, **how), parameter(net, axes))


def by_one_product(net: Net, x: str, axes: Sequence[int], epsilon: float = EPSILON) -> str:
    """x * s + (bias - mean * s), as TensorFlow writes it."""
    middle = mean(net, x, axes)
    square = spread(net, net.op("Sub", x, middle), axes, epsilon, by="Mul")
    factor = net.op("Reciprocal", net.op("Sqrt", square))
    factor = net.op("Mul", factor, parameter(net, axes))
    rest = net.op("Sub", parameter(net, axes), net.op("Mul", middle, factor))
    return net.op("Add", net.op("Mul", x, factor), rest)


def scaled_first(net: Net, x: str, axes: Sequence[int]) -> str:
    """(x - mean) * (scale / sqrt(..)) + bias."""
    data = centred(net, x, axes)
    factor = net.op("Div", parameter(net, axes), net.op("Sqrt", spread(net, data, axes)))
    return net.op("Add", net.op("Mul", data, factor), parameter(net, axes))


FORMS = [plain, scaled, norm, shifted, by_one_product, scaled_first]


def rms(net: Net, x: str, spelling=divided, **how) -> str:
    return net.op("Mul", parameter(net, LAST), spelling(net, x, LAST, **how))


def counts(net: Net) -> Counter:
    return Counter(node.op_type for node in net.nodes)


def between(form: Callable[..., str], *args, shape=ROWS, opset=18, dtype=np.float64, **how) -> Net:
    """Two activations around it, so that nothing but the norm can be rewritten."""
    net = Net(shape, opset=opset, dtype=dtype)
    net.y = net.op("Cos", form(net, net.op("Tanh", net.x), *args, **how))
    return net


def assert_same_in_single_precision(done, shape: tuple[int, ...]) -> None:
    """Also where a row is constant, and in the units of the largest value that occurs.

    Each mean is rounded at most as often as it has values, and each value a few times more.
    """
    rng = np.random.default_rng(1)
    for scale in (1e-3, 1.0, 1e4):
        x = (scale * rng.standard_normal(shape)).astype(np.float32)
        x[:1] = x[:1, :1, :1]
        before, after = (run(model, {"x": x}) for model in (done.before, done.after))
        rounding = 8 * np.prod(shape[2:]) * U
        for one, two in zip(before, after, strict=True):
            np.testing.assert_allclose(two, one, rtol=0, atol=rounding * np.abs(one).max())


@pytest.mark.parametrize("opset", [17, 18, 21])
@pytest.mark.parametrize("form", FORMS)
def test_along_the_last_axis_it_is_a_layer_norm(form, opset):
    net = between(form, LAST, opset=opset)
    done = rewrite(net.model(net.y))
    assert done.ops == {"Tanh": 1, "LayerNormalization": 1, "Cos": 1}
    assert done.applied == ["fuse-norms"]
    assert_same(done)
    assert_untouched(rewrite(done.after))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_root_may_be_written_in_many_ways(spelling):
    net = between(norm, LAST, spelling)
    done = rewrite(net.model(net.y))
    assert done.ops == {"Tanh": 1, "LayerNormalization": 1, "Cos": 1}
    assert_same(done)


@pytest.mark.parametrize("shape", [(2, 12), (2, 3, 5, 12)])
def test_of_any_rank(shape):
    net = between(norm, LAST, shape=shape)
    done = rewrite(net.model(net.y))
    assert done.ops == {"Tanh": 1, "LayerNormalization": 1, "Cos": 1}
    assert_same(done)


@pytest.mark.parametrize("shape", [MAP, LINE, (2, 6, 3, 4, 5)])
@pytest.mark.parametrize("form", FORMS)
def test_along_the_channels_of_a_map_it_is_one_between_two_transposes(form, shape):
    net = between(form, CHANNELS, shape=shape)
    done = rewrite(net.model(net.y))
    assert done.ops == {"Tanh": 1, "Transpose": 2, "LayerNormalization": 1, "Cos": 1}
    assert_same(done)
    assert_untouched(rewrite(done.after))


def test_where_the_target_is_slow_at_transposes_the_map_is_not_turned():
    net = between(norm, CHANNELS, shape=MAP)
    assert "LayerNormalization" not in rewrite(net.model(net.y), target="openvino").ops


@pytest.mark.parametrize("opset", [7, 17, 18])
@pytest.mark.parametrize("form", FORMS)
def test_over_all_pixels_it_is_an_instance_norm(form, opset):
    net = between(form, PIXELS, shape=MAP, opset=opset, dtype=np.float32)
    done = rewrite(net.model(net.y))
    assert done.ops == {"Tanh": 1, "InstanceNormalization": 1, "Cos": 1}
    assert done.checks.certified == 1
    assert_same_in_single_precision(done, MAP)
    assert_untouched(rewrite(done.after))


def test_the_mean_over_all_pixels_may_be_a_pool():
    net = Net(MAP, dtype=np.float32)
    data = net.op("Sub", net.x, net.op("GlobalAveragePool", net.x))
    variance = net.op("GlobalAveragePool", net.op("Mul", data, data))
    root = net.op("Sqrt", net.op("Add", variance, number(net, EPSILON)))
    done = rewrite(net.model(net.op("Cos", net.op("Div", data, root))))
    assert done.ops == {"InstanceNormalization": 1, "Cos": 1}
    assert_same_in_single_precision(done, MAP)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_without_a_mean_it_is_an_rms_norm(spelling):
    net = between(rms, spelling, opset=23, dtype=np.float32)
    done = rewrite(net.model(net.y))
    assert done.ops == {"Tanh": 1, "RMSNormalization": 1, "Cos": 1}
    assert_same_in_single_precision(done, ROWS)
    assert_untouched(rewrite(done.after))


@pytest.mark.parametrize("opset", [22, 23])
def test_an_rms_norm_adds_no_bias(opset):
    net = between(rms, by_reciprocal, opset=opset, dtype=np.float32)
    bias = net.const(net.rng.uniform(0.5, 2, ROWS[-1]))
    net.nodes.pop()
    y = net.op("Cos", net.op("Add", net.nodes[-1].output[0], bias))
    done = rewrite(net.model(y))
    assert done.applied == ["fuse-norms"]
    assert done.ops["RMSNormalization"] == int(opset == 23)
    assert done.ops["Add"] == 1 + int(opset == 22)
    assert_same_in_single_precision(done, ROWS)


def test_an_rms_norm_without_a_scale():
    net = between(divided, LAST, opset=23, dtype=np.float32)
    done = rewrite(net.model(net.y))
    assert done.ops == {"Tanh": 1, "RMSNormalization": 1, "Cos": 1}
    assert_same_in_single_precision(done, ROWS)


def test_an_older_opset_has_no_such_operator():
    for form, args, opset in ((rms, (), 22), (norm, (LAST,), 16), (plain, (LAST,), 16)):
        net = between(form, *args, opset=opset, dtype=np.float32)
        done = rewrite(net.model(net.y))
        assert done.ops == counts(net)
        assert "fuse-norms" not in done.applied


@pytest.mark.parametrize("form", [norm, rms, by_one_product])
def test_every_value_between_may_be_read_elsewhere(form):
    """Once as an output of the graph, and once by another node."""
    args = () if form is rms else (LAST,)
    names = [node.output[0] for node in between(form, *args, opset=23).nodes[1:-2]]
    assert len(names) > 4
    for name in names:
        net = between(form, *args, opset=23, dtype=np.float32)
        for model in (net.model(net.y, name), net.model(net.y, net.op("Cos", name))):
            done = rewrite(model)
            assert_same_in_single_precision(done, ROWS)
            fused = done.ops["LayerNormalization"] + done.ops["RMSNormalization"]
            assert fused + done.ops["Sqrt"] == 1, name


def outside_the_root(net: Net, x: str) -> str:
    """(x - mean) / (sqrt(mean square) + epsilon)."""
    data = centred(net, x, LAST)
    square = mean(net, net.op("Mul", data, data), LAST)
    return net.op("Div", data, net.op("Add", net.op("Sqrt", square), number(net, EPSILON)))


def inside_the_mean(net: Net, x: str) -> str:
    data = centred(net, x, LAST)
    square = net.op("Add", net.op("Mul", data, data), number(net, EPSILON))
    return net.op("Div", data, net.op("Sqrt", mean(net, square, LAST)))


def without_epsilon(net: Net, x: str) -> str:
    data = centred(net, x, LAST)
    return net.op("Div", data, net.op("Sqrt", mean(net, net.op("Mul", data, data), LAST)))


def along_two_axes(net: Net, x: str) -> str:
    data = net.op("Sub", x, mean(net, x, (1,)))
    return divided(net, data, LAST)


def of_another_value(net: Net, x: str) -> str:
    data = net.op("Sub", x, mean(net, net.op("Sin", x), LAST))
    return divided(net, data, LAST)


def by_the_fourth_power(net: Net, x: str) -> str:
    data = centred(net, x, LAST)
    square = mean(net, net.op("Pow", data, number(net, 4)), LAST)
    return net.op("Div", data, net.op("Sqrt", net.op("Add", square, number(net, EPSILON))))


def without_the_root(net: Net, x: str) -> str:
    data = centred(net, x, LAST)
    return net.op("Div", data, spread(net, data, LAST))


def mean_less_the_value(net: Net, x: str) -> str:
    return divided(net, net.op("Sub", mean(net, x, LAST), x), LAST)


def weighted(net: Net, x: str) -> str:
    """The variance of fewer values than there are."""
    data = centred(net, x, LAST)
    square = net.op("Mul", mean(net, net.op("Mul", data, data), LAST), number(net, 12 / 11))
    return net.op("Div", data, net.op("Sqrt", net.op("Add", square, number(net, EPSILON))))


def by_a_scale_for_each_row(net: Net, x: str) -> str:
    rows = net.const(net.rng.uniform(0.5, 2, (net.shape[1], 1)))
    return net.op("Mul", plain(net, x, LAST), rows)


def by_a_scale_that_adds_an_axis(net: Net, x: str) -> str:
    wide = net.const(net.rng.uniform(0.5, 2, (1, 1, 1, net.shape[-1])))
    return net.op("Mul", plain(net, x, LAST), wide)


OTHERS = [
    outside_the_root,
    inside_the_mean,
    without_epsilon,
    along_two_axes,
    by_the_fourth_power,
    without_the_root,
    weighted,
]


@pytest.mark.parametrize("form", OTHERS)
def test_what_is_only_like_a_norm_is_left_alone(form):
    """But the centred rows of some are divided by the root of their mean square all the same."""
    net = between(form, opset=21)
    done = rewrite(net.model(net.y))
    assert not {"LayerNormalization", "InstanceNormalization"} & set(done.ops)
    assert_same(done)


@pytest.mark.parametrize("form", [of_another_value, mean_less_the_value, along_two_axes])
def test_of_what_is_no_difference_to_its_own_mean_the_rms_is_taken(form):
    net = between(form, opset=23, dtype=np.float32)
    done = rewrite(net.model(net.y))
    assert done.ops["RMSNormalization"] == 1
    assert done.ops["LayerNormalization"] == 0
    assert_same_in_single_precision(done, ROWS)


@pytest.mark.parametrize("form", [by_a_scale_for_each_row, by_a_scale_that_adds_an_axis])
def test_a_scale_along_another_axis_stays_behind_the_norm(form):
    net = between(form)
    done = rewrite(net.model(net.y))
    assert done.ops["LayerNormalization"] == 1
    assert done.ops["Mul"] == 1
    assert_same(done)


def test_an_epsilon_that_single_precision_lacks_stays():
    net = between(norm, LAST, epsilon=1e-5)
    done = rewrite(net.model(net.y))
    assert done.ops == counts(net)


def test_means_that_are_not_kept_are_of_another_shape():
    net = Net((3, 3), opset=18)
    data = net.op("Sub", net.x, mean(net, net.x, LAST, keepdims=0))
    done = rewrite(net.model(net.op("Cos", divided(net, data, LAST))))
    assert not {"LayerNormalization", "RMSNormalization"} & set(done.ops)
    assert_same(done)


@pytest.mark.parametrize("open_axis", [1, 2])
def test_open_sizes(open_axis):
    """Along an axis of unknown size there is no scale to write."""
    shape = tuple("n" if axis == open_axis else size for axis, size in enumerate(ROWS))
    net = Net(shape)
    done = rewrite(net.model(net.op("Cos", plain(net, net.x, LAST))))
    assert done.ops["LayerNormalization"] == int(open_axis != 2)
    assert_same(done, ROWS)


@pytest.mark.parametrize(
    ("form", "args", "shape", "opset", "kind"),
    [
        (norm, (LAST,), ROWS, 17, "LayerNormalization"),
        (norm, (CHANNELS,), MAP, 17, "LayerNormalization"),
        (norm, (PIXELS,), MAP, 17, "InstanceNormalization"),
        (by_one_product, (LAST,), ROWS, 17, "LayerNormalization"),
        (rms, (), ROWS, 23, "RMSNormalization"),
    ],
)
def test_the_whole_network_is_certified(form, args, shape, opset, kind):
    net = between(form, *args, shape=shape, opset=opset, dtype=np.float32)
    result = flatfold.optimize(ir.from_proto(net.model(net.y)))
    assert result.equivalence.verdict == "certified"
    assert result.after.operators[kind] == 1


def test_in_front_of_a_convolution_scale_and_bias_go_into_it():
    net = Net(MAP, opset=18, dtype=np.float32)
    y = norm(net, net.op("Tanh", net.x), CHANNELS)
    done = rewrite(net.model(net.op("Cos", net.conv(y, 8, 6, (1, 1)))))
    assert done.ops == {"Tanh": 1, "Transpose": 2, "LayerNormalization": 1, "Conv": 1, "Cos": 1}
    assert_same_in_single_precision(done, MAP)


def test_of_a_norm_behind_a_layer_the_layer_takes_the_mean_off():
    net = Net((2, 4, 9, 8), opset=18, dtype=np.float32)
    x = net.conv(net.x, 6, 4, (3, 3))
    centred = net.op("Sub", x, net.op("ReduceMean", x, net.const(np.array([1]))))
    square = net.op("ReduceMean", net.op("Mul", centred, centred), net.const(np.array([1])))
    root = net.op("Sqrt", net.op("Add", square, net.const(np.array(1e-5))))
    scale = net.const(net.rng.uniform(0.5, 2, (6, 1, 1)))
    y = net.op("Mul", net.op("Div", centred, root), scale)
    result = flatfold.optimize(net.model(net.op("Relu", y)))
    operators = result.after.operators
    assert operators["ReduceMean"] == 1 and not {"Sub", "LayerNormalization"} & set(operators)
    assert result.equivalence.verdict == "certified"
