"""Activations that exporters spell out become one operator, where they are exactly that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

import flatfold
from tests.fuzz.sketch import run
from tests.nets import Net, assert_untouched, rewrite

ROOT, SLOPE = 2**0.5, (2 / np.pi) ** 0.5
U = 2.0**-24

# Both sides of every limit, of the overflow of e^x and of x^3, and what is no number.
NUMBERS = [0, 1e-30, 0.5, 2.999, 3, 10, 17, 20, 45, 88, 89, 104, 1e4, 3e13, 1e38, np.inf]
EXTREME = np.array([[n, -n] for n in NUMBERS] + [[np.nan, 1]], np.float32).reshape(1, 2, 17, 1)


def number(net: Net, value: float) -> str:
    return net.const(np.array(float(value)))


def clipped(net: Net, y: str, shift: float = 3, low: float = 0, top: float = 6) -> str:
    moved = net.op("Add", number(net, shift), y)
    return net.op("Clip", moved, number(net, low), number(net, top))


def divided_last(net: Net, y: str, **other: float) -> str:
    return net.op("Div", net.op("Mul", y, clipped(net, y, **other)), number(net, 6))


def divided_first(net: Net, y: str, **other: float) -> str:
    return net.op("Mul", y, net.op("Div", clipped(net, y, **other), number(net, 6)))


def multiplied(net: Net, y: str, **other: float) -> str:
    return net.op("Mul", number(net, 1 / 6), net.op("Mul", clipped(net, y, **other), y))


def gate(net: Net, y: str, **other: float) -> str:
    return net.op("Div", clipped(net, y, **other), number(net, 6))


def gate_by_name(net: Net, y: str) -> str:
    return net.op("Mul", y, net.op("HardSigmoid", y, alpha=1 / 6, beta=0.5))


def raised(net: Net, y: str, root: float = ROOT, one: float = 1.0, divides: bool = True) -> str:
    """1 + erf(y / sqrt(2))."""
    factor = number(net, root if divides else 1 / root)
    curve = net.op("Erf", net.op("Div" if divides else "Mul", y, factor))
    return net.op("Add", curve, number(net, one))


def gelu_half_last(net: Net, y: str, half: float = 0.5, **other: float) -> str:
    return net.op("Mul", net.op("Mul", y, raised(net, y, **other)), number(net, half))


def gelu_half_of_x(net: Net, y: str, half: float = 0.5, **other: float) -> str:
    return net.op("Mul", net.op("Mul", number(net, half), y), raised(net, y, **other))


def gelu_half_inside(net: Net, y: str, half: float = 0.5, **other: float) -> str:
    return net.op("Mul", y, net.op("Mul", raised(net, y, **other), number(net, half)))


def gelu_halved(net: Net, y: str, half: float = 0.5, **other: float) -> str:
    return net.op("Div", net.op("Mul", raised(net, y, **other), y), number(net, 1 / half))


def raised_by_tanh(net: Net, inner: str) -> str:
    return net.op("Add", net.op("Tanh", inner), number(net, 1))


def gelu_by_cube(net: Net, y: str, cubic: float = 0.044715, slope: float = SLOPE) -> str:
    cube = net.op("Mul", net.op("Pow", y, number(net, 3)), number(net, cubic))
    inner = net.op("Mul", net.op("Add", y, cube), number(net, slope))
    return net.op("Mul", net.op("Mul", y, raised_by_tanh(net, inner)), number(net, 0.5))


def gelu_by_products(net: Net, y: str, cubic: float = 0.044715, slope: float = SLOPE) -> str:
    cube = net.op("Mul", net.op("Mul", net.op("Mul", y, y), y), number(net, cubic))
    inner = net.op("Mul", number(net, slope), net.op("Add", cube, y))
    return net.op("Mul", y, net.op("Mul", raised_by_tanh(net, inner), number(net, 0.5)))


def gelu_factored(net: Net, y: str, cubic: float = 0.044715, slope: float = SLOPE) -> str:
    square = net.op("Add", net.op("Mul", net.op("Mul", y, number(net, cubic)), y), number(net, 1))
    inner = net.op("Mul", net.op("Mul", y, number(net, slope)), square)
    return net.op("Mul", net.op("Mul", number(net, 0.5), y), raised_by_tanh(net, inner))


def softplus(net: Net, y: str, one: float = 1.0) -> str:
    return net.op("Log", net.op("Add", net.op("Exp", y), number(net, one)))


def mish(net: Net, y: str) -> str:
    return net.op("Mul", y, net.op("Tanh", net.op("Softplus", y)))


def mish_by_logarithm(net: Net, y: str, one: float = 1.0) -> str:
    return net.op("Mul", net.op("Tanh", softplus(net, y, one)), y)


def sigmoid(net: Net, y: str, one: float = 1.0) -> str:
    below = net.op("Add", number(net, one), net.op("Exp", net.op("Neg", y)))
    return net.op("Div", number(net, one), below)


def sigmoid_by_reciprocal(net: Net, y: str, one: float = 1.0) -> str:
    below = net.op("Add", net.op("Exp", net.op("Neg", y)), number(net, one))
    return net.op("Reciprocal", below)


def silu(net: Net, y: str) -> str:
    return net.op("Mul", y, net.op("Sigmoid", y))


def swish(net: Net, y: str, beta: float = 1.702) -> str:
    return net.op("Mul", net.op("Sigmoid", net.op("Mul", y, number(net, beta))), y)


def silu_divided(net: Net, y: str, one: float = 1.0) -> str:
    return net.op("Div", y, net.op("Add", net.op("Exp", net.op("Neg", y)), number(net, one)))


def swish_divided(net: Net, y: str, beta: float = 1.702) -> str:
    inner = net.op("Mul", y, number(net, -beta))
    return net.op("Div", y, net.op("Add", number(net, 1), net.op("Exp", inner)))


SWISHES = [divided_last, divided_first, multiplied]
GELUS = [gelu_half_last, gelu_half_of_x, gelu_half_inside, gelu_halved]
GELUS_BY_TANH = [gelu_by_cube, gelu_by_products, gelu_factored]

# Each spelling, the opset, the target, and what it becomes.
ONE_OPERATOR: list[tuple[Callable[..., str], int, str, str]] = [
    *((part, 18, "default", "HardSwish") for part in (*SWISHES, gate_by_name)),
    (gate, 18, "default", "HardSigmoid"),
    *((part, 20, target, "Gelu") for part in GELUS for target in ("default", "openvino")),
    *((part, 20, "default", "Gelu") for part in GELUS_BY_TANH),
    (softplus, 18, "openvino", "Softplus"),
    (mish, 18, "default", "Mish"),
    (mish_by_logarithm, 18, "openvino", "Mish"),
    *((part, 18, "default", "Sigmoid") for part in (sigmoid, sigmoid_by_reciprocal)),
]


def net_of(activation: Callable[..., str], opset: int = 18, dtype=np.float32, **other) -> Net:
    net = Net(opset=opset, dtype=dtype)
    y = net.conv(net.x, 6, 4, (3, 3))
    net.y = net.conv(activation(net, y, **other), 4, 6, (1, 1))
    return net


def counts(net: Net) -> Counter:
    return Counter(node.op_type for node in net.nodes)


@pytest.mark.parametrize(("activation", "opset", "target", "kind"), ONE_OPERATOR)
def test_it_is_one_operator(activation, opset, target, kind):
    net = net_of(activation, opset)
    done = rewrite(net.model(net.y), target=target)
    assert done.ops == {"Conv": 2, kind: 1}
    assert done.applied == ["fuse-activations"]
    assert done.checks.worst <= 1.01
    assert done.checks.certified == 1
    assert_untouched(rewrite(done.after, target=target))


@pytest.mark.parametrize(("activation", "opset", "target", "kind"), ONE_OPERATOR)
def test_it_computes_the_same_of_any_number(activation, opset, target, kind):
    """The curve is rounded to units of 1, four of them at most, and is then multiplied by x.

    e^x leaves the range of single precision at 89 and 6 x at 6e37: what is spelled out is infinite
    from there on, where a Softplus and a HardSwish are x. No number stays no number.
    """
    net = Net(EXTREME.shape, opset=opset, dtype=np.float32)
    done = rewrite(net.model(activation(net, net.x)), target=target)
    assert done.ops == {kind: 1}
    (one,), (two,) = (run(model, {"x": EXTREME}) for model in (done.before, done.after))
    np.testing.assert_array_equal(np.isnan(one), np.isnan(two))
    known, beyond = np.isfinite(one), np.isinf(one)
    rounding = 4 * U * (np.abs(EXTREME) + np.abs(one))
    assert np.all(np.abs(one[known] - two[known]) <= rounding[known])
    expected = EXTREME if kind in ("HardSwish", "Softplus") else one
    np.testing.assert_allclose(two[beyond], expected[beyond], rtol=4 * U)


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("activation", SWISHES)
def test_both_compute_the_same_on_either_side_of_the_limits(activation, opset):
    net = net_of(activation, opset)
    done = rewrite(net.model(net.y))
    for scale in (0.1, 1.0, 100.0):
        x = {"x": (scale * net.rng.standard_normal(net.shape)).astype(np.float32)}
        (one,), (two,) = (run(model, x) for model in (done.before, done.after))
        rounding = 64 * U  # 36 products, the activation, 6 products
        np.testing.assert_allclose(two, one, rtol=0, atol=rounding * np.abs(one).max())


@pytest.mark.parametrize(("activation", "opset", "target", "kind"), ONE_OPERATOR)
def test_in_double_precision_it_stays(activation, opset, target, kind):
    net = net_of(activation, opset, dtype=np.float64)
    done = rewrite(net.model(net.y), target=target)
    assert "fuse-activations" not in done.applied
    assert done.ops[kind] == counts(net)[kind]


@pytest.mark.parametrize("activation", [*GELUS, gelu_by_cube])
def test_in_half_precision_the_constants_are_rounded_more_coarsely(activation):
    net = net_of(activation, 20, dtype=np.float16)
    assert rewrite(net.model(net.y)).ops == {"Conv": 2, "Gelu": 1}


@pytest.mark.parametrize("activation", SWISHES)
def test_before_opset_14_it_is_a_hard_sigmoid_and_a_product(activation):
    net = net_of(activation, opset=13)
    assert rewrite(net.model(net.y)).ops == {"Conv": 2, "HardSigmoid": 1, "Mul": 1}
    net = net_of(activation, opset=13)
    slow = rewrite(net.model(net.y), target="openvino")
    assert "HardSigmoid" not in slow.ops


@pytest.mark.parametrize("activation", [silu_divided, swish_divided])
@pytest.mark.parametrize("target", ["default", "openvino"])
def test_a_quotient_is_a_sigmoid_and_a_product(activation, target):
    net = net_of(activation, opset=24)
    done = rewrite(net.model(net.y), target=target)
    scales = int(activation is swish_divided)
    assert done.ops == {"Conv": 2, "Sigmoid": 1, "Mul": 1 + scales}
    assert done.checks.certified == 1
    assert_untouched(rewrite(done.after, target=target))


@pytest.mark.parametrize("activation", [silu_divided, swish_divided])
def test_a_quotient_of_any_number(activation):
    """e^-x is infinite below -89; x over that is 0, and so is x times a sigmoid."""
    net = Net(EXTREME.shape, dtype=np.float32)
    done = rewrite(net.model(activation(net, net.x)))
    assert done.ops["Sigmoid"] == 1
    (one,), (two,) = (run(model, {"x": EXTREME}) for model in (done.before, done.after))
    np.testing.assert_array_equal(np.isnan(one), np.isnan(two))
    known = np.isfinite(one)
    rounding = 4 * U * (np.abs(EXTREME) + np.abs(one))
    assert np.all(np.abs(one[known] - two[known]) <= rounding[known])
    np.testing.assert_array_equal(two[np.isinf(one)], one[np.isinf(one)])


@pytest.mark.parametrize("activation", [silu, swish, softplus, mish_by_logarithm])
def test_what_onnx_runtime_runs_faster_in_parts_stays_in_parts(activation):
    net = net_of(activation, opset=24)
    done = rewrite(net.model(net.y))
    assert done.ops == counts(net)
    assert "fuse-activations" not in done.applied


@pytest.mark.parametrize(
    ("activation", "opset"),
    [(part, 19) for part in (*GELUS, *GELUS_BY_TANH)] + [(mish, 17)],
)
def test_an_older_opset_has_no_such_operator(activation, opset):
    for target in ("default", "openvino"):
        net = net_of(activation, opset)
        done = rewrite(net.model(net.y), target=target)
        assert not {"Gelu", "Mish"} & set(done.ops)
        assert done.graph.opset_imports[""] == opset


@pytest.mark.parametrize("other", [{"shift": 2.5}, {"low": -1}, {"top": 5}])
@pytest.mark.parametrize("activation", [*SWISHES, gate])
def test_with_other_constants_it_is_something_else(activation, other):
    net = net_of(activation, **other)
    assert not {"HardSwish", "HardSigmoid"} & set(rewrite(net.model(net.y)).ops)


@pytest.mark.parametrize(
    ("activation", "other"),
    [
        *((part, {name: n}) for part in GELUS for name, n in (("root", 1.4143), ("one", 1.01))),
        *((part, {"half": 0.51}) for part in GELUS),
        *((part, {"cubic": 0.04472}) for part in GELUS_BY_TANH),
        *((part, {"slope": 0.798}) for part in GELUS_BY_TANH),
        *((part, {"one": 1.5}) for part in (softplus, mish_by_logarithm, silu_divided)),
        *((part, {"one": 1.5}) for part in (sigmoid, sigmoid_by_reciprocal)),
    ],
)
def test_constants_that_are_nearly_right_are_others(activation, other):
    net = net_of(activation, 24, **other)
    done = rewrite(net.model(net.y), target="openvino")
    assert "fuse-activations" not in done.applied


def test_what_is_read_elsewhere_stays():
    net = Net(dtype=np.float32)
    y = net.conv(net.x, 4, 4, (3, 3))
    inner = clipped(net, y)
    product = net.op("Div", net.op("Mul", y, inner), number(net, 6))
    done = rewrite(net.model(net.op("Max", product, inner)))
    assert "Clip" in done.ops and "HardSwish" not in done.ops


@pytest.mark.parametrize(("activation", "opset", "target", "kind"), ONE_OPERATOR)
def test_every_value_between_may_be_read_elsewhere(activation, opset, target, kind):
    """Once as an output of the graph, and once by another node."""
    plain = net_of(activation, opset)
    inner = [node.output[0] for node in plain.nodes[1:-2]]
    assert inner
    for name in inner:
        net = net_of(activation, opset)
        for model in (net.model(net.y, name), net.model(net.y, net.op("Cos", name))):
            done = rewrite(model, target=target)
            assert done.ops[kind] == counts(net)[kind], name


@pytest.mark.parametrize(("activation", "opset", "target", "kind"), ONE_OPERATOR)
def test_an_activation_of_another_value_than_it_multiplies_is_none(activation, opset, target, kind):
    net = net_of(activation, opset)
    y = net.nodes[0].output[0]
    readers = [node for node in net.nodes if y in node.input]
    if len(readers) < 2:
        return  # a function of one operand
    other = net.conv(net.x, 6, 4, (1, 1))
    net.nodes.insert(0, net.nodes.pop())
    readers[-1].input[list(readers[-1].input).index(y)] = other
    done = rewrite(net.model(net.y), target=target)
    assert done.ops[kind] == counts(net)[kind]


def test_another_value_times_the_gate_is_no_hard_swish():
    net = Net(dtype=np.float32)
    y = net.conv(net.x, 4, 4, (3, 3))
    done = rewrite(net.model(net.op("Mul", net.op("Tanh", y), gate(net, y))))
    assert done.ops == {"Conv": 1, "Tanh": 1, "HardSigmoid": 1, "Mul": 1}


def test_a_constant_that_adds_an_axis_is_no_number():
    net = Net((2, 4, 3, 3), opset=20, dtype=np.float32)
    half = net.const(np.full((1, 1, 1, 1, 1), 0.5))
    y = net.op("Mul", net.op("Mul", net.x, raised(net, net.x)), half)
    done = rewrite(net.model(net.op("Cos", y)))
    assert "Gelu" not in done.ops


@pytest.mark.parametrize(("activation", "opset", "target", "kind"), ONE_OPERATOR)
def test_the_whole_network_is_certified(activation, opset, target, kind):
    net = net_of(activation, opset)
    result = flatfold.optimize(ir.from_proto(net.model(net.y)), target=target)
    assert result.equivalence.verdict == "certified"
    assert result.after.operators[kind] == 1
