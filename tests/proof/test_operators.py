"""The rules of the interpreter are those of ONNX Runtime, and their magnitudes bound errors."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.proof.finite_field.field import PRIME, image
from flatfold.proof.finite_field.shadow import ShadowedArray, shadowed
from flatfold.proof.interpreter.interpreter import evaluate
from flatfold.proof.interpreter.pair import Pair, Unsupported
from tests.fuzz.sketch import run
from tests.nets import Net

U = 2.0**-24
SHAPE = (2, 3, 4, 5)

# Operator, opset, constant operands, attributes, whether its operand is above 0.
RULES = [
    ("Erf", 13, (), {}, False),
    ("Exp", 13, (), {}, False),
    ("Gelu", 20, (), {}, False),
    ("Gelu", 20, (), {"approximate": "tanh"}, False),
    ("InstanceNormalization", 17, (np.array([0.5, -2, 3]), np.array([1.0, 0, -1])), {}, False),
    ("Log", 13, (), {}, True),
    ("Mish", 18, (), {}, False),
    ("Pow", 15, (np.array(2.0),), {}, False),
    ("Pow", 15, (np.array(3.0),), {}, False),
    ("Pow", 15, (np.array(-0.5),), {}, True),
    ("RMSNormalization", 23, (np.array([0.5, -2, 3, 1, 4]),), {"epsilon": 1e-3}, False),
    ("Reciprocal", 13, (), {}, True),
    ("Softplus", 13, (), {}, False),
    ("Sqrt", 13, (), {}, True),
    ("Swish", 24, (), {"alpha": 1.702}, False),
]


def net_of(kind, opset, operands, attributes) -> tuple[Net, str]:
    net = Net(SHAPE, opset=opset, dtype=np.float32)
    return net, net.op(kind, net.x, *map(net.const, operands), **attributes)


def numbers(above_zero: bool) -> np.ndarray:
    x = 2 * np.random.default_rng(0).standard_normal(SHAPE)
    return np.abs(x) + 0.25 if above_zero else x


@pytest.mark.parametrize(("kind", "opset", "operands", "attributes", "above_zero"), RULES)
def test_a_rule_is_that_of_onnx_runtime(kind, opset, operands, attributes, above_zero):
    net, y = net_of(kind, opset, operands, attributes)
    model, x = net.model(y), numbers(above_zero).astype(np.float32)
    graph = ir.from_proto(model).graph
    pair = evaluate(graph, {graph.inputs[0]: Pair(x.astype(float), np.abs(x).astype(float))})
    (expected,) = run(model, {"x": x})
    result = pair[graph.outputs[0]]
    assert np.all(np.abs(result.y - expected) <= 8 * U * result.m)
    assert np.all(result.m >= np.abs(result.y) * (1 - 1e-12))


@pytest.mark.parametrize(("kind", "opset", "operands", "attributes", "above_zero"), RULES)
def test_a_magnitude_bounds_what_rounding_of_the_operand_does(
    kind, opset, operands, attributes, above_zero
):
    """Norms are left out: they divide by what all the other numbers make."""
    if "Normalization" in kind:
        return
    net, y = net_of(kind, opset, operands, attributes)
    graph, x, share = ir.from_proto(net.model(y)).graph, numbers(above_zero), 2.0**-30
    plain, moved = (
        evaluate(graph, {graph.inputs[0]: Pair(data, np.abs(x))})[graph.outputs[0]]
        for data in (x, x * (1 + share))
    )
    assert np.all(np.abs(moved.y - plain.y) <= share * (1 + 1e-6) * plain.m)


def test_a_power_of_many_exponents_is_not_known():
    net, y = net_of("Pow", 15, (np.arange(1.0, 6.0),), {})
    graph = ir.from_proto(net.model(y)).graph
    x = np.ones(SHAPE)
    with pytest.raises(Unsupported, match="several exponents"):
        evaluate(graph, {graph.inputs[0]: Pair(x, x)})


def test_roots_of_two_and_a_sixth_obey_what_they_are_in_single_precision():
    root, half, sixth = image(np.float32([2**0.5, 0.5**0.5, 1 / 6]), key=5).tolist()
    assert root * root % PRIME == 2
    assert root * half % PRIME == 1
    assert 6 * sixth % PRIME == 1
    assert image(np.float32([-1 / 6]), key=5).tolist() == [PRIME - sixth]
    near = np.nextafter(np.float32(1 / 6), np.float32(1))
    assert image(near, key=5) != sixth


def test_a_function_of_objects_keeps_numbers_and_elements_together():
    x = shadowed(np.array([0.5, 0.5, -1.0]))
    y = np.frompyfunc(lambda value: value + 1, 1, 1)(x)
    assert isinstance(y, ShadowedArray)
    assert y.value.dtype == np.float64
    assert y.shadow[0] == y.shadow[1] != y.shadow[2]
