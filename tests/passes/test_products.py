"""What nodes multiply is read in any order; what is only like an operator is read as none.

The readers alone: behind a pass, the proof would decline what they get wrong.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.passes.reading.activations import activation_at
from flatfold.passes.reading.norms import norm_at
from flatfold.passes.reading.products import polynomial_of, product_of
from tests.nets import Net
from tests.passes import test_fuse_activations as activations
from tests.passes import test_fuse_norms as norms


def last_node(net: Net, y: str) -> ir.Node:
    """The node that makes `y`, which an activation behind it reads."""
    graph = ir.from_proto(net.model(net.op("Cos", y))).graph
    return next(node for node in graph if node.outputs[0].name == y)


def number(net: Net, value: float) -> str:
    return net.const(np.array(float(value)))


def product(net: Net, y: str) -> tuple[float, dict[str | None, float]]:
    read = product_of(last_node(net, y).outputs[0])
    return read.number, {value.name: power for value, power in read.powers.items()}


def test_numbers_and_powers_add_up_in_any_order():
    net = Net()
    a, b = net.op("Sin", net.x), net.op("Tanh", net.x)
    y = net.op("Div", net.op("Mul", number(net, 3), a), net.op("Mul", b, number(net, 2)))
    assert product(net, net.op("Neg", net.op("Mul", y, b))) == (-1.5, {a: 1.0})


def test_a_root_of_a_product_is_no_product_of_roots():
    """sqrt(x x) is |x|."""
    net = Net()
    x = net.op("Sin", net.x)
    square = net.op("Mul", x, x)
    assert product(net, net.op("Sqrt", square)) == (1.0, {square: 0.5})
    net = Net()
    square = net.op("Pow", net.op("Sin", net.x), number(net, 2))
    assert product(net, net.op("Pow", square, number(net, 1.5))) == (1.0, {square: 1.5})


def test_powers_of_whole_numbers_are_looked_into():
    net = Net()
    a, b = net.op("Sin", net.x), net.op("Tanh", net.x)
    y = net.op("Pow", net.op("Div", a, b), number(net, 2))
    assert product(net, net.op("Reciprocal", y)) == (1.0, {a: -2.0, b: 2.0})


def test_what_is_read_elsewhere_is_not_looked_into():
    net = Net()
    inner = net.op("Mul", net.op("Sin", net.x), number(net, 2))
    curve = net.op("Tanh", inner)
    assert product(net, net.op("Mul", inner, curve)) == (1.0, {inner: 1.0, curve: 1.0})


def test_a_constant_that_adds_an_axis_ends_no_activation():
    for shape, kind in (((1,), "Gelu"), ((1, 1, 1, 1), "Gelu"), ((1, 1, 1, 1, 1), None)):
        net = Net()
        half = net.const(np.full(shape, 0.5))
        y = net.op("Mul", net.op("Mul", net.x, activations.raised(net, net.x)), half)
        read = activation_at(last_node(net, y))
        assert (read.op_type if read is not None else None) == kind


@pytest.mark.parametrize("power", [0, 2, None])
def test_a_polynomial_has_no_other_power(power):
    net = Net()
    cube = net.op("Mul", net.op("Pow", net.x, number(net, 3)), number(net, 0.044715))
    sum_ = net.op("Add", net.x, cube)
    if power is not None:
        square = net.op("Mul", net.op("Mul", net.x, net.x), number(net, 1e-3))
        sum_ = net.op("Add", sum_, square if power else number(net, 1e-3))
    inner = net.op("Mul", sum_, number(net, activations.SLOPE))
    raised = activations.raised_by_tanh(net, inner)
    node = last_node(net, net.op("Mul", net.op("Mul", net.x, number(net, 0.5)), raised))
    assert (activation_at(node) is not None) == (power is None)


def test_a_polynomial_of_high_degree_is_not_worked_out():
    """(x + 1)^(2^14) has more terms than any time."""
    net = Net()
    inner = net.op("Add", net.x, number(net, 1))
    for _ in range(14):
        inner = net.op("Mul", inner, inner)
    raised = activations.raised_by_tanh(net, inner)
    node = last_node(net, net.op("Mul", net.op("Mul", net.x, number(net, 0.5)), raised))
    assert activation_at(node) is None
    nodes: dict = {}
    assert polynomial_of(node.graph.node(14).outputs[0], node.graph.inputs[0], nodes) is None
    assert list(nodes.values()).count(None) == len(nodes) - 2  # all but the sum and its square


@pytest.mark.parametrize("other", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (activations.gelu_by_cube, "slope"),
        (activations.gelu_by_cube, "cubic"),
        (activations.gelu_half_last, "half"),
        (activations.gelu_half_last, "root"),
        (activations.gelu_half_last, "one"),
        (activations.silu_divided, "one"),
        (activations.divided_last, "shift"),
        (activations.divided_last, "top"),
    ],
)
def test_a_constant_that_is_no_number_is_another(activation, name, other):
    net = Net()
    assert activation_at(last_node(net, activation(net, net.x, **{name: other}))) is None


@pytest.mark.parametrize("other", [np.nan, np.inf])
def test_a_beta_that_is_no_number_makes_no_swish(other):
    net = Net()
    assert activation_at(last_node(net, activations.swish(net, net.x, other))) is None


def test_a_mish_is_of_one_value():
    net = Net()
    one, two = net.op("Sin", net.x), net.op("Tanh", net.x)
    for other, kind in ((one, "Mish"), (two, None)):
        part = Net(nodes=list(net.nodes))
        y = part.op("Mul", other, part.op("Tanh", part.op("Softplus", one)))
        read = activation_at(last_node(part, y))
        assert (read.op_type if read is not None else None) == kind


def by_weighted_squares(net: Net, x: str) -> str:
    data = norms.centred(net, x, norms.LAST)
    square = net.op("Mul", net.op("Mul", data, data), number(net, 12 / 11))
    spread = net.op("Add", norms.mean(net, square, norms.LAST), number(net, norms.EPSILON))
    return net.op("Div", data, net.op("Sqrt", spread))


def by_a_scale_for_each_place(net: Net, x: str) -> str:
    scale = net.const(net.rng.uniform(0.5, 2, net.shape[1:]))
    return net.op("Mul", norms.plain(net, x, norms.LAST), scale)


def of_means_that_are_not_kept(net: Net, x: str) -> str:
    square = norms.mean(net, net.op("Mul", x, x), norms.LAST, keepdims=0)
    return net.op("Div", x, net.op("Sqrt", net.op("Add", square, number(net, norms.EPSILON))))


def by_one_product(net: Net, x: str, mean_of: str, axes: tuple[int, ...]) -> str:
    """x * s + (bias - mean * s), where the mean may be another than that of the variance."""
    middle, outer = norms.mean(net, x, norms.LAST), norms.mean(net, mean_of, axes)
    square = norms.spread(net, net.op("Sub", x, middle), norms.LAST, by="Mul")
    factor = net.op("Reciprocal", net.op("Sqrt", square))
    factor = net.op("Mul", factor, norms.parameter(net, norms.LAST))
    rest = net.op("Sub", norms.parameter(net, norms.LAST), net.op("Mul", outer, factor))
    return net.op("Add", net.op("Mul", x, factor), rest)


def of_the_mean_of_another(net: Net, x: str) -> str:
    return by_one_product(net, x, net.op("Cos", x), norms.LAST)


def of_the_mean_of_other_axes(net: Net, x: str) -> str:
    return by_one_product(net, x, x, norms.CHANNELS)


@pytest.mark.parametrize(
    "form",
    [
        by_weighted_squares,
        of_means_that_are_not_kept,
        of_the_mean_of_another,
        of_the_mean_of_other_axes,
        by_a_scale_for_each_place,
        norms.by_a_scale_that_adds_an_axis,
        norms.outside_the_root,
        norms.inside_the_mean,
        norms.without_epsilon,
        norms.without_the_root,
    ],
)
def test_what_is_only_like_a_norm_is_none(form):
    net = Net((12, 12, 12))
    assert norm_at(last_node(net, form(net, net.op("Tanh", net.x)))) is None


@pytest.mark.parametrize("form", norms.FORMS)
def test_all_forms_are_read(form):
    net = Net((12, 12, 12))
    read = norm_at(last_node(net, form(net, net.op("Tanh", net.x), norms.LAST)))
    assert read is not None
    assert (read.op_type, read.axes) == ("LayerNormalization", (2,))
    assert read.deviation == 0.0
