"""Layers as matrices: the weights times the columns are what ONNX Runtime computes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from flatfold.proof.network.session import PlainSession
from flatfold.quantizing.layers import bias_of, layers_of
from tests.nets import Net

CONVOLUTIONS = {
    "plain": ((2, 4, 9, 7), (6, 4, 3, 3), {}),
    "strided": ((2, 4, 9, 7), (6, 4, 3, 2), {"strides": [2, 3], "pads": [1, 0, 2, 1]}),
    "dilated": ((1, 3, 11, 8), (5, 3, 3, 2), {"dilations": [2, 3], "pads": [2, 1, 0, 1]}),
    "grouped": ((2, 6, 8, 5), (4, 3, 3, 3), {"group": 2, "pads": [1] * 4}),
    "depthwise": ((2, 5, 8, 6), (10, 1, 3, 3), {"group": 5, "pads": [1] * 4}),
    "one axis": ((2, 4, 13), (6, 4, 5), {"strides": [2], "pads": [2, 1]}),
    "three axes": ((1, 3, 5, 6, 4), (4, 3, 3, 2, 1), {"strides": [2, 1, 1], "pads": [1, 0, 0] * 2}),
    "same": ((1, 3, 9, 8), (4, 3, 3, 4), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
}
TRANSPOSED = {
    "plain": ((2, 4, 5, 7), (4, 6, 3, 2), {}),
    "strided": ((1, 4, 5, 4), (4, 3, 3, 4), {"strides": [2, 3], "pads": [1, 0, 0, 2]}),
    "grouped": ((2, 6, 5, 4), (6, 2, 2, 3), {"group": 3, "strides": [2, 1]}),
    "dilated": ((1, 3, 6, 5), (3, 4, 3, 2), {"dilations": [2, 3], "pads": [1] * 4}),
    "longer": ((1, 3, 6, 5), (3, 4, 3, 3), {"strides": [2, 2], "output_padding": [1, 0]}),
    "one axis": ((2, 4, 9), (4, 3, 4), {"strides": [2], "pads": [1, 1]}),
    "depthwise": ((1, 4, 5, 6), (4, 1, 2, 2), {"group": 4, "strides": [2, 2]}),
}


def net_of(op: str, shape, weight, **attributes) -> Net:
    net = Net(shape, dtype=np.float32)
    net.x = net.op(op, "x", net.const(net.rng.standard_normal(weight)), **attributes)
    return net


def checked(net: Net) -> None:
    """Compare the product of the matrices with the output, and the weight with itself."""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(net.model(net.x)))
    (layer,) = layers_of(model)
    x = net.rng.standard_normal(net.shape).astype(np.float32)
    (expected,) = PlainSession(model)({"x": x})
    product = layer.matrices().astype(np.float64) @ layer.columns(x, 1 << 20).astype(np.float64)
    rows = np.moveaxis(expected, layer.channel_axis, 0).reshape(layer.outputs, -1)
    found = product.reshape(layer.outputs, -1)
    # ONNX Runtime adds up to 100 products of size 1 in float32.
    np.testing.assert_allclose(found, rows, rtol=0, atol=100 * 2.0**-24 * np.abs(rows).max())
    np.testing.assert_array_equal(layer.from_matrices(layer.matrices()), layer.weight)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_a_product(name: str) -> None:
    shape, weight, attributes = CONVOLUTIONS[name]
    checked(net_of("Conv", shape, weight, **attributes))


@pytest.mark.parametrize("name", TRANSPOSED)
def test_a_transposed_convolution_is_a_product(name: str) -> None:
    shape, weight, attributes = TRANSPOSED[name]
    checked(net_of("ConvTranspose", shape, weight, **attributes))


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_gemm_is_a_product(transposed: int) -> None:
    checked(net_of("Gemm", (3, 5), (4, 5) if transposed else (5, 4), transB=transposed))


def test_a_product_of_matrices_is_one_for_each_row() -> None:
    checked(net_of("MatMul", (2, 3, 5), (5, 4)))


def test_some_places_are_drawn_where_there_are_many() -> None:
    model = ir.from_proto(net_of("Conv", *CONVOLUTIONS["plain"][:2]).model("conv0"))
    (layer,) = layers_of(model)
    x = np.random.default_rng(1).standard_normal((2, 4, 9, 7)).astype(np.float32)
    every, some = layer.columns(x, 1 << 20)[0].T, layer.columns(x, 20)[0].T
    assert some.shape == (20, 36)
    assert len({row.tobytes() for row in some}) == 20
    assert {row.tobytes() for row in some} < {row.tobytes() for row in every}


@pytest.mark.parametrize(
    ("op", "attributes"), [("Gemm", {"transA": 1}), ("Gemm", {"alpha": 0.5}), ("Gemm", {"beta": 2})]
)
def test_what_no_engine_computes_on_codes_is_no_layer(op: str, attributes) -> None:
    attributes = {n: float(v) if n != "transA" else v for n, v in attributes.items()}
    model = net_of(op, (4, 4), (4, 4), **attributes).model("gemm0")
    assert layers_of(ir.from_proto(model)) == []


def test_a_weight_that_is_computed_or_no_number_is_none_of_a_layer() -> None:
    net = Net((2, 3), dtype=np.float32)
    net.x = net.op("MatMul", "x", net.op("Transpose", "x"))
    assert layers_of(ir.from_proto(net.model(net.x))) == []
    net = Net((2, 3), dtype=np.float32)
    net.x = net.op("MatMul", "x", net.const(np.full((3, 2), np.nan)))
    assert layers_of(ir.from_proto(net.model(net.x))) == []


@pytest.mark.parametrize("shape", [(4,), (1, 4), (3, 4), (1,)])
def test_a_bias_is_one_number_for_each_output(shape: tuple[int, ...]) -> None:
    net = Net((3, 5), dtype=np.float32)
    bias = net.rng.standard_normal(shape)
    weight = net.const(net.rng.standard_normal((5, 4)))
    net.x = net.op("Gemm", "x", weight, net.const(bias))
    (layer,) = layers_of(ir.from_proto(net.model(net.x)))
    found = bias_of(layer)
    if shape in ((4,), (1, 4)):
        np.testing.assert_array_equal(found, bias.reshape(4).astype(np.float32))
    else:
        assert found is None
