"""An engine in 8 bits is held to its graph: right ones pass, and each planted fault is caught."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.backends import load_backend
from flatfold.errors import Inaccurate
from flatfold.passes.quantization.dialect import DIALECTS
from flatfold.passes.quantization.writer import write_codes
from flatfold.proof.network.session import PlainSession
from flatfold.quantizing.comparison import Comparison
from flatfold.quantizing.engine_check import MOVED, check_codes, moved
from tests.nets import Net
from tests.passes.quantization.test_writer import feeds_of, record

TARGETS = ("ort-cpu", "openvino")


def network() -> tuple[ir.Model, list[dict[str, np.ndarray]]]:
    net = Net((1, 8, 16, 16), dtype=np.float32)
    x = net.op("Relu", net.conv(net.x, 16, 8, (3, 3)))
    y = net.op("Relu", net.conv(x, 16, 16, (3, 3), groups=16))
    x = net.op("Relu", net.op("Add", net.conv(y, 16, 16, (1, 1)), x))
    x = net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", net.conv(x, 32, 16, (3, 3)))))
    w, b = net.const(net.rng.standard_normal((10, 32))), net.const(net.rng.standard_normal(10))
    model = ir.from_proto(net.model(net.op("Gemm", x, w, b, transB=1)))
    return model, feeds_of(model, 6)


def quantized(target: str) -> tuple[ir.Model, list[dict[str, np.ndarray]]]:
    model, feeds = network()
    return write_codes(model, record(model, feeds), DIALECTS[target]), feeds


@pytest.mark.parametrize("target", TARGETS)
def test_an_engine_is_near_its_graph(target):
    backend = load_backend(target)
    if not backend.availability().runs:
        pytest.skip(backend.availability().reason)
    graph, feeds = quantized(target)
    with backend.build(graph, {}) as engine:
        found = check_codes(engine, graph, feeds)
    assert found.passed and found.error <= found.bound <= 10 ** (-34 / 20)
    assert len(found.inputs) == 6


def constants(model: ir.Model, operator: str, index: int, codes: bool) -> list[ir.Value]:
    """Constants that nodes read as input `index`, of weights and biases, or of values."""
    nodes = [node for node in model.graph if node.op_type == operator]
    stored = [node for node in nodes if (node.inputs[0].const_value is not None) == codes]
    return [node.inputs[index] for node in stored]


def change(value: ir.Value, function: Callable[[np.ndarray], np.ndarray]) -> None:
    array = value.const_value.numpy()
    value.const_value = ir.Tensor(function(array.copy()).astype(array.dtype), name=value.name)


def scale_on_another_axis(model: ir.Model) -> None:
    change(constants(model, "DequantizeLinear", 1, True)[0], lambda scale: scale[::-1])


def zero_point_off_by_one(model: ir.Model) -> None:
    load = next(node for node in model.graph if node.op_type == "DequantizeLinear")
    zero = ir.Value(name="zero", const_value=ir.Tensor(load.inputs[2].const_value.numpy() + 1))
    zero.type, zero.shape = load.inputs[2].type, load.inputs[2].shape
    zero.const_value.name = "zero"
    model.graph.register_initializer(zero)
    load.replace_input_with(2, zero)


def every_code_off_by_one(model: ir.Model) -> None:
    codes = constants(model, "DequantizeLinear", 0, True)[0]
    change(codes, lambda array: np.where(array < 127, array + 1, array))


def swapped_scales(model: ir.Model) -> None:
    one, two = constants(model, "QuantizeLinear", 1, False)[1:3]
    mine, other = one.const_value.numpy(), two.const_value.numpy()
    change(one, lambda _: other)
    change(two, lambda _: mine)


def dropped_bias(model: ir.Model) -> None:
    for node in model.graph:
        if node.op_type == "Conv":
            node.resize_inputs(2)
            return


FAULTS = (
    scale_on_another_axis,
    zero_point_off_by_one,
    every_code_off_by_one,
    swapped_scales,
    dropped_bias,
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_an_engine_of_another_graph_is_caught(fault):
    graph, feeds = quantized("ort-cpu")
    wrong = graph.clone()
    fault(wrong)
    with (
        load_backend("ort-cpu").build(wrong, {}) as engine,
        pytest.raises(Inaccurate, match="dB beside its graph"),
    ):
        check_codes(engine, graph, feeds)


def test_what_roundings_explain_is_little():
    """Values are moved by less than a thousandth of a code, and few of them change theirs."""
    graph, feeds = quantized("ort-cpu")
    assert MOVED * 255 < 1e-3
    assert Comparison(graph, feeds).of(moved(graph, 0)).decibels > 40
    assert len(PlainSession(moved(graph, 0))(feeds[0])) == 1
