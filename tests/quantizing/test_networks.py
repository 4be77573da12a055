"""Blocks of all kinds through the whole recipe, in the dialect of each engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from flatfold.passes.quantization.dialect import DIALECTS
from flatfold.quantizing.recipe import named
from flatfold.quantizing.steps import Setting, _Search, find
from tests.nets import Net

PLANE, LINE, SPACE = (2, 4, 11, 8), (2, 4, 23), (1, 4, 5, 6, 4)


def scaled(net: Net, y: str, o: int, i: int, kernel: tuple[int, ...], **how) -> str:
    """A layer whose outputs are about as large as its inputs."""
    groups = how.pop("group", 1)
    weight = net.rng.standard_normal((o, i // groups, *kernel))
    weight /= np.sqrt(weight[0].size / 2)
    pads = [(k - 1) // 2 for k in kernel] * 2
    inputs = y, net.const(weight), net.const(0.1 * net.rng.standard_normal(o))
    return net.op("Conv", *inputs, pads=pads, group=groups, **how)


def residual(net: Net) -> str:
    y = net.op("Relu", scaled(net, "x", 8, 4, (3, 3)))
    other = scaled(net, net.op("Relu", scaled(net, y, 8, 8, (3, 3))), 8, 8, (3, 3))
    return scaled(net, net.op("Relu", net.op("Add", other, y)), 4, 8, (1, 1))


def concatenated(net: Net) -> str:
    parts = [net.op("Relu", scaled(net, "x", 6, 4, (k, k))) for k in (1, 3, 5)]
    return scaled(net, net.op("Concat", *parts, axis=1), 5, 18, (1, 1))


def gated(net: Net) -> str:
    y = net.op("Relu", scaled(net, "x", 8, 4, (3, 3)))
    squeezed = net.op("Relu", scaled(net, net.op("GlobalAveragePool", y), 4, 8, (1, 1)))
    gate = net.op("Sigmoid", scaled(net, squeezed, 8, 4, (1, 1)))
    return scaled(net, net.op("Mul", y, gate), 5, 8, (3, 3))


def silu(net: Net) -> str:
    y = scaled(net, "x", 8, 4, (3, 3))
    y = net.op("Mul", y, net.op("Sigmoid", y))
    return scaled(net, net.op("HardSwish", scaled(net, y, 8, 8, (3, 3), group=8)), 5, 8, (1, 1))


def pooled(net: Net) -> str:
    y = net.op("MaxPool", net.op("Relu", scaled(net, "x", 8, 4, (3, 3))), kernel_shape=[2, 2])
    y = net.op("AveragePool", scaled(net, y, 8, 8, (3, 3), strides=[2, 1]), kernel_shape=[2, 2])
    return scaled(
        net, net.op("Clip", y, *map(net.const, (np.float32(0), np.float32(6)))), 5, 8, (1, 1)
    )


def attention(net: Net) -> str:
    """Rows of 8 numbers, normalized, and mixed with weights that they choose themselves."""
    y = net.op("Transpose", net.op("Reshape", "x", net.const(np.array([2, 4, -1]))), perm=[0, 2, 1])
    ends = net.const(np.ones(4)), net.const(np.zeros(4))
    y = net.op("LayerNormalization", y, *ends)
    q, k, v = (net.op("MatMul", y, net.const(net.rng.standard_normal((4, 6)) / 2)) for _ in "qkv")
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1]))
    y = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    y = net.op("Gelu", net.op("MatMul", y, net.const(net.rng.standard_normal((6, 12)) / 2)))
    return net.op("MatMul", y, net.const(net.rng.standard_normal((12, 5)) / 3))


def line(net: Net) -> str:
    y = net.op("Relu", scaled(net, "x", 8, 4, (5,), strides=[2]))
    return scaled(net, net.op("LeakyRelu", scaled(net, y, 8, 8, (3,), group=4)), 5, 8, (1,))


def space(net: Net) -> str:
    y = net.op("Relu", scaled(net, "x", 6, 4, (3, 3, 1)))
    return scaled(net, y, 5, 6, (1, 3, 3), dilations=[1, 1, 1])


def enlarged(net: Net) -> str:
    y = net.op("Relu", scaled(net, "x", 6, 4, (3, 3)))
    weight = net.const(net.rng.standard_normal((6, 3, 4, 2)) / 4)
    y = net.op("ConvTranspose", y, weight, strides=[2, 2], pads=[1, 0, 1, 0], group=2)
    return scaled(net, net.op("Relu", y), 5, 6, (3, 3))


NETS: dict[Callable[[Net], str], tuple[int, ...]] = {
    **dict.fromkeys((residual, concatenated, gated, silu, pooled, attention, enlarged), PLANE),
    line: LINE,
    space: SPACE,
}


@pytest.mark.parametrize("target", ["ort-cpu", "openvino", "trt"])
@pytest.mark.parametrize("net_of", NETS, ids=lambda net_of: net_of.__name__)
def test_every_kind_of_block_is_quantized_and_no_step_makes_it_worse(
    net_of: Callable[[Net], str], target: str
) -> None:
    net = Net(NETS[net_of], dtype=np.float32, opset=20)
    net.x = net_of(net)
    model = named(ir.from_proto(onnx.shape_inference.infer_shapes(net.model(net.x))))
    feeds = [{"x": net.rng.standard_normal(net.shape).astype(np.float32)} for _ in range(6)]
    setting = Setting(DIALECTS[target])
    recipe = find(model, feeds, setting)
    start = _Search(model, feeds, setting)._start()
    assert recipe.difference.decibels >= start.difference.decibels
    # 8 bits of a normal number that reaches 4 leave 41 dB; five layers add to it, and to the int8
    # of a value that is positive, which has 7 bits.
    assert recipe.difference.decibels > 25
    assert [row.name for row in recipe.rows] == [one.name for one in setting.layers(model)]
    assert not any(row.kept for row in recipe.rows)
    stored = [node for node in setting.write(model, recipe.quantization).graph
              if node.op_type == "DequantizeLinear" and node.inputs[0].const_value is not None
              and node.inputs[0].dtype == ir.DataType.INT8]  # fmt: skip
    assert len(stored) == len(recipe.rows) > 1
