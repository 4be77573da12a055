"""Graphs that a rewrite declines, each for a reason of its own."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper

from tests.nets import Net

NONE = [0, 0, 0, 0]


def ended(net: Net, y: str) -> ModelProto:
    """The value behind an activation, so that the graph's output is none of the region."""
    return net.model(net.op("Exp", y))


def alone() -> ModelProto:
    net = Net()
    return ended(net, net.bn(net.op("Exp", net.x), 4))


def with_attributes(**wrong: object) -> ModelProto:
    net = Net()
    net.bn(net.conv(net.x, 4, 4, (3, 3)), 4)
    model = ended(net, net.nodes[-1].output[0])
    kept = [a for a in model.graph.node[0].attribute if a.name not in (*wrong, "auto_pad")]
    del model.graph.node[0].attribute[:]
    kept += [helper.make_attribute(name, value) for name, value in wrong.items()]
    model.graph.node[0].attribute.extend(kept)
    return model


def auto_padded() -> ModelProto:
    net = Net((2, 4, "h", "w"))
    y = net.conv(net.x, 4, 4, (3, 3), auto_pad="SAME_UPPER", strides=[2, 2])
    return ended(net, net.bn(y, 4))


def padded_twice() -> ModelProto:
    net = Net()
    return ended(net, net.conv(net.conv(net.x, 32, 4, (3, 3), False), 4, 32, (3, 3)))


def shifted_in_front_of_padding() -> ModelProto:
    net = Net()
    return ended(net, net.conv(net.bn(net.x, 4), 4, 4, (5, 5)))


def bias_in_front_of_a_transposed_one() -> ModelProto:
    net = Net()
    weight = net.const(net.rng.standard_normal((4, 4, 2, 2)))
    return ended(net, net.op("ConvTranspose", net.bn(net.x, 4), weight, strides=[2, 2]))


def another_border() -> ModelProto:
    net = Net()
    edge = np.full((2, 4, 1, 8), 1.5)
    y = net.op("Concat", net.const(edge), net.conv(net.x, 4, 4, (3, 3)), axis=2)
    return ended(net, net.conv(y, 4, 4, (3, 3), pads=NONE))


def constant_channels_in_front_of_padding() -> ModelProto:
    net = Net()
    y = net.conv(net.x, 8, 4, (3, 3))
    net.constants[net.nodes[-1].input[1]][[1, 5]] = 0
    return ended(net, net.conv(net.op("Tanh", y), 6, 8, (3, 3)))


def broadcast() -> ModelProto:
    net = Net()
    mean = net.op("GlobalAveragePool", net.conv(net.x, 4, 4, (3, 3)))
    return ended(net, net.op("Add", net.conv(net.x, 4, 4, (3, 3)), net.op("Exp", mean)))


def pooled(**how: object) -> ModelProto:
    net = Net()
    y = net.op("AveragePool", net.op("Exp", net.x), kernel_shape=[3, 3], **how)
    return ended(net, net.conv(y, 4, 4, (1, 1)))


def heights_of_other_channels() -> ModelProto:
    """A graph that no shape inference accepts."""
    net = Net()
    parts = net.conv(net.x, 4, 4, (3, 3)), net.conv(net.x, 5, 4, (3, 3))
    model = ended(net, net.op("Concat", *parts, axis=2))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("exp3", 11, [2, 4, 18, 8]))
    return model


def constants_in_a_sum() -> ModelProto:
    net = Net()
    return ended(net, net.op("Sum", net.conv(net.x, 4, 4, (3, 3)), net.x, net.const(np.ones(1))))


def bottleneck() -> ModelProto:
    net = Net((1, 64, 28, 28))
    return ended(net, net.conv(net.conv(net.x, 4, 64, (1, 1)), 64, 4, (1, 1)))


def of_integers() -> ModelProto:
    net = Net((2, 4))
    model = ended(net, net.op("Cast", net.x, to=TensorProto.DOUBLE))
    weight = helper.make_tensor("w", TensorProto.INT32, (4, 3), range(12))
    model.graph.initializer.append(weight)
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT32),
        helper.make_node("MatMul", ["i", "w"], ["m"]),
    ]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend([*nodes, helper.make_node("Cast", ["m"], ["exp1"], to=11)])
    model.graph.value_info.append(helper.make_tensor_value_info("i", 6, (2, 4)))
    model.graph.value_info.append(helper.make_tensor_value_info("m", 6, (2, 3)))
    return model


def between_pixels() -> ModelProto:
    net = Net(opset=20)
    grid = np.zeros((2, 9, 8, 2)) + np.linspace(-0.9, 0.9, 8)[:, None]
    y = net.op("GridSample", net.x, net.const(grid), mode="linear")
    return ended(net, net.conv(y, 4, 4, (3, 3)))


def along_other_axes() -> ModelProto:
    net = Net((2, 4, 5, 4))
    weight = net.const(net.rng.standard_normal((4, 4)))
    return ended(net, net.op("MatMul", net.bn(net.x, 4), weight))


def by_many_matrices() -> ModelProto:
    net = Net((2, 4, 5))
    return ended(net, net.op("MatMul", net.x, net.const(net.rng.standard_normal((2, 5, 3)))))


def with_parameters(index: int, channel: int, number: float, eps: float = 1e-5) -> ModelProto:
    """Conv and BatchNormalization, one number of the latter, or the former's weight, replaced."""
    net = Net()
    y = net.bn(net.conv(net.x, 6, 4, (3, 3)), 6, eps=eps)
    node = net.nodes[-1 if index else 0]
    net.constants[node.input[index or 1]][(channel, *(0,) * (0 if index else 3))] = number
    return ended(net, y)


def divided() -> ModelProto:
    net = Net()
    divisor = net.const(np.array([1.0, 2.0, 0.0, 1.0]).reshape(4, 1, 1))
    return ended(net, net.op("Div", net.conv(net.x, 4, 4, (3, 3)), divisor))


def overridable() -> ModelProto:
    net = Net()
    y = net.op("Exp", net.bn(net.conv(net.x, 4, 4, (3, 3)), 4))
    return net.model(y, extra_inputs=[net.nodes[1].input[1]])


def per_pixel() -> ModelProto:
    net = Net()
    y = net.op("Mul", net.conv(net.x, 4, 4, (3, 3)), net.const(np.ones((9, 8)) + np.eye(9, 8)))
    return ended(net, y)


def every_second_pixel_in_an_old_opset() -> ModelProto:
    net = Net(opset=9)
    weight = net.const(np.full((4, 1, 1, 1), 2.0))
    y = net.op("Conv", net.op("Exp", net.x), weight, group=4, strides=[2, 2])
    return ended(net, net.op("Mul", y, net.const(np.array(0.5))))


def scaled(first: float, second: float, dtype: type = np.float32) -> ModelProto:
    """A convolution by weights of one size and a scale of another, channel 2 standing out."""
    net = Net(dtype=dtype)
    y = net.op("Conv", net.x, net.const(np.full((4, 4, 1, 1), first)))
    factor = np.where(np.arange(4) == 2, second, 1.0).reshape(4, 1, 1)
    return ended(net, net.op("Mul", y, net.const(factor)))


def padded_by(mode: str) -> ModelProto:
    net = Net()
    y = net.op("Pad", net.x, net.const(np.array([0, 0, 2, 1] * 2)), mode=mode)
    return ended(net, net.conv(y, 4, 4, (3, 3), pads=NONE))


def of_unknown_rank() -> ModelProto:
    net = Net((2, "c", 9, "w"))
    y = net.op("Mul", net.op("Exp", net.x), net.const(np.array(2.0)))
    return ended(net, net.op("Mul", y, net.const(np.array(3.0))))


def equal_on_some_sizes() -> ModelProto:
    net = Net((2, 4, "h", "w"))
    strided = net.conv(net.x, 4, 4, (3, 3), strides=[2, 2])
    other = net.conv(net.x, 4, 4, (2, 2), strides=[2, 2], pads=[0] * 4)
    model = ended(net, net.op("Add", strided, other))
    for info in model.graph.value_info:  # as an exporter knows them from its own tracing
        for dim, name in zip(info.type.tensor_type.shape.dim[2:], "pq", strict=True):
            dim.dim_param = name
    return model


def nothing_of_it() -> ModelProto:
    net = Net()
    ends = [net.const(np.array([n])) for n in (5, 3, 2)]
    return ended(net, net.op("Mul", net.op("Slice", net.x, *ends), net.const(np.array(2.0))))


def of_two_values() -> ModelProto:
    net = Net()
    return ended(net, net.op("Add", net.op("Exp", net.x), net.op("Tanh", net.x)))


def at_other_strides() -> ModelProto:
    net = Net()
    one = net.conv(net.x, 4, 4, (3, 3), strides=[1, 2], pads=NONE)
    two = net.conv(net.x, 4, 4, (3, 2), strides=[1, 3], pads=[0, 0, 0, 1])
    return ended(net, net.op("Add", one, two))


def in_training() -> ModelProto:
    net = Net()
    y = net.bn(net.conv(net.x, 4, 4, (3, 3)), 4, outputs=3, training_mode=1)
    return ended(net, y)


def chosen_of_infinite() -> ModelProto:
    """A convolution of some channels of what may overflow; the last channel is not read."""
    net = Net()
    y = net.op("Gather", net.op("Exp", net.x), net.const(np.array([0, 1, 0, 2])), axis=1)
    return net.model(net.conv(y, 4, 4, (1, 1)))


def half_of_a_gelu() -> ModelProto:
    """The factor 1/2 of a Gelu in front of a convolution, which could take it."""
    net = Net()
    root, one, half = (net.const(np.array(number)) for number in (2**0.5, 1.0, 0.5))
    y = net.op("Mul", net.x, net.op("Add", net.op("Erf", net.op("Div", net.x, root)), one))
    return net.model(net.conv(net.op("Mul", y, half), 4, 4, (1, 1)))


def by_a_matrix_on_the_left() -> ModelProto:
    net = Net((2, 8, 30))
    return net.model(net.op("MatMul", net.const(net.rng.standard_normal((16, 8))), net.x))


def unknown_to_the_check() -> ModelProto:
    """Copies of more pixels than its maps of open sizes have."""
    net = Net(("n", 4, "h", "w"))
    y = net.op("Relu", net.conv(net.x, 4, 4, (3, 3)))
    pads = net.const(np.array([0, 0, 9, 9] * 2))
    return ended(net, net.bn(net.op("Pad", net.conv(y, 4, 4, (1, 1)), pads, mode="reflect"), 4))


def spread_out() -> ModelProto:
    net = Net()
    weight = net.const(net.rng.standard_normal((8, 4, 2, 2)))
    y = net.conv(net.x, 8, 4, (3, 3), False)
    return ended(net, net.op("ConvTranspose", y, weight, strides=[2, 2]))


def gemm(rows: int, columns: int, **how: float) -> ModelProto:
    net = Net((rows, columns))
    y = net.op("Gemm", net.x, net.const(np.ones((4, 3))), **how)
    return ended(net, net.op("Mul", y, net.const(np.full(3, 2.0))))


def read_besides(reader: str) -> ModelProto:
    """A convolution and a norm, with another reader of the value between, if there is one."""
    net = Net()
    y = net.conv(net.x, 4, 4, (3, 3))
    return net.model(net.op("Exp", net.bn(y, 4)), net.op(reader, y) if reader else y)
