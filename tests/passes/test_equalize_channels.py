"""Channels scaled by powers of two: the same bits in single precision, and alike in size."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from flatfold.errors import NotEquivalent
from flatfold.passes import PIPELINE, Change, Decline, EqualizeChannels, Pipeline
from flatfold.passes.remark import HINTS
from flatfold.passes.scaling.balance import MOST
from flatfold.passes.scaling.channels import components
from flatfold.passes.scaling.constants import Constant
from flatfold.proof import Certificate, RegionChecks, fingerprint, require_about
from tests.equalize.bits import run_as_it_is
from tests.nets import Net, Rewritten, assert_untouched, run

WILD = 2.0 ** np.array([10, -10, 7, -4, 0, -8, 9, 3])
CHANNELS = len(WILD)


def network(**how: object) -> Net:
    return Net((1, 3, 8, 8), dtype=np.float32, **how)


def wild(net: Net, x: str = "x", inputs: int = 3, scale: np.ndarray = WILD, **how: object) -> str:
    """A layer whose outputs are times `scale`."""
    y = net.conv(x, len(scale), inputs, (3, 3), **how)
    for name in net.nodes[-1].input[1:]:
        column = scale.reshape(-1, *(1,) * (net.constants[name].ndim - 1))
        net.constants[name] = (net.constants[name] * column).astype(np.float32)
    return y


def tame(net: Net, x: str, scale: np.ndarray = WILD, kernel: int = 3) -> str:
    """A layer that divides its inputs by `scale`, and whose outputs are of one size."""
    y = net.conv(x, 4, len(scale), (kernel, kernel))
    weight = net.nodes[-1].input[1]
    net.constants[weight] = (net.constants[weight] / scale[:, None, None]).astype(np.float32)
    return y


def end(net: Net, y: str) -> onnx.ModelProto:
    """What is returned is behind a function that no scale passes."""
    return net.model(net.op("Tanh", y))


def equalize(model: onnx.ModelProto, check: Callable[..., None] | None = None) -> Rewritten:
    graph, checks = ir.from_proto(model), RegionChecks(certifying=True)
    remarks = Pipeline([EqualizeChannels()], check=check or checks).run(graph)
    onnx.checker.check_model(ir.to_proto(graph))
    return Rewritten(model, graph, remarks, checks)


def assert_equal_bits(done: Rewritten) -> None:
    """Both graphs return the same bits, and each change says that it keeps them."""
    dims = done.before.graph.input[0].type.tensor_type.shape.dim
    x = np.random.default_rng(1).standard_normal([d.dim_value or 2 for d in dims])
    x = x.astype(np.float32)
    for a, b in zip(run_as_it_is(done.before, x), run_as_it_is(done.after, x), strict=True):
        assert np.isfinite(a).all()
        assert a.tobytes() == b.tobytes()
    assert done.checks.entries
    for entry in done.checks.entries:
        assert entry.certified, entry.doubt
        assert entry.bit_exact
        assert entry.ratio == 0


def spread(model: onnx.ModelProto, name: str) -> float:
    """By how many bits the rows of a layer's weight differ in size."""
    node = next(node for node in model.graph.node if node.output[0] == name)
    weights = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    sizes = np.abs(weights[node.input[1]]).reshape(len(WILD), -1).max(axis=1)
    return float(np.ptp(np.log2(sizes)))


def assert_equalized(done: Rewritten, name: str = "conv0") -> None:
    assert_equal_bits(done)
    assert set(done.applied) == {"equalize-channels"}
    assert [n.op_type for n in done.before.graph.node] == [n.op_type for n in done.after.graph.node]
    assert spread(done.before, name) > 17
    assert spread(done.after, name) < 5  # of the sizes of random rows


def relu(net: Net, y: str) -> str:
    return net.op("Relu", y)


def leaky(net: Net, y: str) -> str:
    return net.op("LeakyRelu", y, alpha=-0.3)


def sloped(net: Net, y: str) -> str:
    return net.op("PRelu", y, net.const(net.rng.standard_normal((CHANNELS, 1, 1))))


def clipped_at_zero(net: Net, y: str) -> str:
    return net.op("Clip", y, net.const(np.array(0.0)))


def max_pool(net: Net, y: str) -> str:
    return net.op("MaxPool", y, kernel_shape=[3, 3], pads=[1] * 4)


def average_pool(net: Net, y: str) -> str:
    return net.op("AveragePool", y, kernel_shape=[3, 3], pads=[1] * 4)


def counting_pool(net: Net, y: str) -> str:
    return net.op("AveragePool", y, kernel_shape=[2, 2], count_include_pad=1)


def mean(net: Net, y: str) -> str:
    return net.op("GlobalAveragePool", net.op("Relu", y))


def reduced(net: Net, y: str) -> str:
    return net.op("ReduceMean", net.op("Relu", y), net.const(np.array([2, 3])), keepdims=1)


def maximum(net: Net, y: str) -> str:
    return net.op("GlobalMaxPool", y)


def zeros_around(net: Net, y: str) -> str:
    return net.op("Pad", y, net.const(np.array([0, 0, 1, 0, 0, 0, 0, 2])))


def edges_around(net: Net, y: str) -> str:
    return net.op("Pad", y, net.const(np.array([0, 0, 1, 1, 0, 0, 1, 1])), mode="reflect")


def resized(net: Net, y: str) -> str:
    return net.op("Resize", y, "", net.const(np.array([1.0, 1, 2, 2])), mode="linear")


def cropped(net: Net, y: str) -> str:
    ends = (np.array([1, 2]), np.array([7, 8]), np.array([2, 3]))
    return net.op("Slice", y, *map(net.const, ends))


def depthwise(net: Net, y: str) -> str:
    return net.op("Relu", net.conv(y, CHANNELS, CHANNELS, (3, 3), groups=CHANNELS))


def norm(net: Net, y: str) -> str:
    return net.bn(net.op("Relu", y), CHANNELS)


def shift(net: Net, y: str) -> str:
    column = WILD.reshape(-1, 1, 1)
    return net.op(
        "Add", net.op("Relu", y), net.const(net.rng.standard_normal(column.shape) * column)
    )


def subtracted(net: Net, y: str) -> str:
    column = WILD.reshape(-1, 1, 1)
    return net.op("Sub", net.const(net.rng.standard_normal(column.shape) * column), y)


def factor(net: Net, y: str) -> str:
    return net.op("Mul", y, net.const(net.rng.standard_normal((CHANNELS, 1, 1))))


def factors_of_pixels(net: Net, y: str) -> str:
    return net.op("Mul", y, net.const(net.rng.standard_normal((1, 1, 8, 8))))


def gate(net: Net, y: str) -> str:
    inner = tame(net, net.op("GlobalAveragePool", y), kernel=1)
    gates = net.op("Sigmoid", net.conv(net.op("Relu", inner), CHANNELS, 4, (1, 1)))
    return net.op("Mul", y, gates)


def transposed_twice(net: Net, y: str) -> str:
    last = net.op("Relu", net.op("Transpose", y, perm=[0, 2, 3, 1]))
    return net.op("Transpose", last, perm=[0, 3, 1, 2])


def viewed(net: Net, y: str) -> str:
    flat = net.op("Reshape", y, net.const(np.array([1, CHANNELS, 64])))
    return net.op("Reshape", net.op("Relu", flat), net.const(np.array([1, CHANNELS, 4, 16])))


def residual(net: Net, y: str) -> str:
    """All that is added has the same scales."""
    y = net.op("Relu", y)
    for _ in range(2):
        inner = net.op("Relu", tame(net, y))
        y = net.op("Relu", net.op("Add", y, wild(net, inner, 4)))
    return y


@pytest.mark.parametrize(
    "between",
    [
        relu,
        leaky,
        sloped,
        clipped_at_zero,
        max_pool,
        average_pool,
        counting_pool,
        mean,
        reduced,
        maximum,
        zeros_around,
        edges_around,
        resized,
        cropped,
        depthwise,
        norm,
        shift,
        subtracted,
        factor,
        factors_of_pixels,
        gate,
        transposed_twice,
        viewed,
        residual,
    ],
)
def test_channels_become_alike_through(between: Callable[[Net, str], str]) -> None:
    net = network()
    done = equalize(end(net, tame(net, between(net, wild(net)))))
    assert_equalized(done)


def test_a_gate_with_fewer_axes_is_not_checked_and_channels_keep_their_scale():
    net = network()
    gates = net.op("Sigmoid", net.conv(net.x, 8, 3, (1, 1)))
    index = net.const(np.array(0))
    done = equalize(end(net, tame(net, net.op("Mul", wild(net), net.op("Gather", gates, index)))))
    assert_untouched(done)
    assert "BROADCAST" in done.codes


def test_halves_of_a_split_and_a_concat_keep_their_scales_apart():
    net = network()
    sizes = net.const(np.array([5, 3]))
    first = net.op("Split", net.op("Relu", wild(net)), sizes, outputs=2, axis=1)
    both = net.op("Concat", f"{first}_1", net.op("Relu", first), axis=1)
    assert_equalized(equalize(end(net, tame(net, both, np.roll(WILD, 3)))))


def test_a_concat_may_begin_with_a_value_that_keeps_its_scale():
    net = network()
    both = net.op("Concat", net.op("Tanh", net.x), net.op("Relu", wild(net)), axis=1)
    assert_equalized(
        equalize(end(net, tame(net, both, np.concatenate([np.ones(3), WILD])))), "conv1"
    )


def test_a_shuffle_moves_the_scales():
    net = network()
    sizes = (1, 2, CHANNELS // 2, 8, 8), (1, CHANNELS, 8, 8)
    parts, whole = (net.const(np.array(size)) for size in sizes)
    turned = net.op("Transpose", net.op("Reshape", wild(net), parts), perm=[0, 2, 1, 3, 4])
    shuffled = net.op("Reshape", turned, whole)
    scale = WILD.reshape(2, -1).T.reshape(-1)
    assert_equalized(equalize(end(net, tame(net, shuffled, scale))))


@pytest.mark.parametrize("trans", [0, 1])
def test_a_flattened_map_goes_into_a_gemm(trans):
    net = network()
    flat = net.op("Flatten", net.op("Relu", wild(net)))
    weight = net.rng.standard_normal((CHANNELS * 64, 5)) / np.repeat(WILD, 64)[:, None]
    weight = net.const(weight.T if trans else weight)
    y = net.op("Gemm", flat, weight, net.const(np.array([0.5])), transB=trans, alpha=0.3, beta=2.0)
    assert_equalized(equalize(end(net, y)))


def test_a_gemm_between_two_others_scales_a_single_bias_for_each_output():
    net = Net((3, 6), dtype=np.float32)
    first = net.const(net.rng.standard_normal((6, CHANNELS)) * WILD)
    y = net.op("Relu", net.op("Gemm", net.x, first, net.const(np.array([0.5]))))
    y = net.op("Gemm", y, net.const(net.rng.standard_normal((CHANNELS, 5)) / WILD[:, None]))
    done = equalize(end(net, y))
    assert_equal_bits(done)
    biases = [i for i in done.after.graph.initializer if list(i.dims) == [CHANNELS]]
    assert len(biases) == 1


def test_matrix_products_along_the_last_axis():
    net = Net((2, 7, 6), dtype=np.float32)
    y = net.op("MatMul", net.x, net.const(net.rng.standard_normal((6, CHANNELS)) * WILD))
    y = net.op("Relu", net.op("Add", y, net.const(net.rng.standard_normal(CHANNELS) * WILD)))
    y = net.op("MatMul", y, net.const(net.rng.standard_normal((CHANNELS, 5)) / WILD[:, None]))
    done = equalize(end(net, y))
    assert_equal_bits(done)
    assert done.applied == ["equalize-channels"]


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_and_grouped_layers(groups):
    net = network()
    y = net.op("Relu", wild(net))
    weight = net.rng.standard_normal((CHANNELS, 6 // groups, 2, 2)) / WILD[:, None, None, None]
    bias = net.const(net.rng.standard_normal(6))
    y = net.op("ConvTranspose", y, net.const(weight), bias, strides=[2, 2], group=groups)
    y = net.conv(net.op("Relu", y), 4, 6, (3, 3), groups=groups)
    assert_equalized(equalize(end(net, y)))


def test_several_readers_share_the_scales():
    net = network()
    y = net.op("Relu", wild(net))
    assert_equalized(equalize(net.model(net.op("Tanh", tame(net, y)), net.op("Exp", tame(net, y)))))


def test_a_batch_and_sizes_may_be_open():
    net = Net(("n", 3, "h", "w"), dtype=np.float32)
    y = net.op("GlobalAveragePool", max_pool(net, residual(net, wild(net))))
    y = net.op("Reshape", y, net.const(np.array([0, -1])))
    weight = net.const(net.rng.standard_normal((CHANNELS, 5)) / WILD[:, None])
    done = equalize(end(net, net.op("Gemm", y, weight)))
    x = np.random.default_rng(1).standard_normal((2, 3, 9, 7)).astype(np.float32)
    assert run_as_it_is(done.before, x)[0].tobytes() == run_as_it_is(done.after, x)[0].tobytes()
    assert spread(done.after, "conv0") < 5


def test_a_weight_that_two_layers_share_becomes_two():
    net = network()
    one, two = net.op("Relu", wild(net)), net.op("Relu", wild(net, scale=WILD[::-1]))
    first = net.conv(one, 4, CHANNELS, (3, 3))
    second = net.op("Conv", two, *net.nodes[-1].input[1:], pads=[1] * 4)
    done = equalize(end(net, net.op("Add", first, second)))
    assert_equal_bits(done)
    layers = [node for node in done.after.graph.node if node.op_type == "Conv"]
    assert len({node.input[1] for node in layers}) == 4


def test_once_more_there_is_nothing_to_do():
    net = network()
    done = equalize(end(net, tame(net, residual(net, wild(net)))))
    assert done.applied
    assert_untouched(equalize(done.after))


def test_channels_of_one_size_stay():
    net = network()
    y = net.op("Relu", net.conv(net.x, CHANNELS, 3, (1, 1)))
    net.constants["c0"] = (net.constants["c0"] / 2).astype(np.float32)
    assert_untouched(equalize(end(net, net.conv(y, 4, CHANNELS, (1, 1)))))


def test_channels_that_are_never_written_or_read_stay():
    net = network()
    y = net.op("Relu", wild(net))
    for name in net.nodes[0].input[1:]:
        net.constants[name][2] = 0
    z = tame(net, y)
    net.constants[net.nodes[-1].input[1]][:, 5] = 0
    done = equalize(end(net, z))
    assert_equal_bits(done)
    weights = {i.name: numpy_helper.to_array(i) for i in done.after.graph.initializer}
    new = weights[done.after.graph.node[0].input[1]]
    assert np.array_equal(new[5], net.constants["c0"][5])
    assert not np.array_equal(new[0], net.constants["c0"][0])


def test_no_channel_is_scaled_by_more_than_the_limit():
    net = network()
    scale = 2.0 ** np.array([0, 0, 0, 0, 0, 0, 0, 40])
    done = equalize(end(net, tame(net, net.op("Relu", wild(net, scale=scale)), scale)))
    assert_equal_bits(done)
    weights = {i.name: numpy_helper.to_array(i) for i in done.after.graph.initializer}
    new = weights[done.after.graph.node[0].input[1]]
    assert np.array_equal(new[7] * 2.0**MOST, net.constants["c0"][7])


def test_what_overflows_in_half_precision_is_right_afterwards():
    """conv, relu, conv, relu, conv in half precision: no number, then within a few roundings."""
    net = network()
    scale = 2.0 ** np.array([10, -10, 10, -10, 10, -10, 10, 10])
    y = net.op("Relu", wild(net, scale=scale))
    y = net.op("Relu", tame(net, y, scale))
    y = wild(net, y, 4, scale=np.full(4, 2.0**10))
    done = equalize(net.model(tame(net, net.op("Relu", y), np.full(4, 2.0**10))))
    assert_equal_bits(done)
    x = np.random.default_rng(3).standard_normal((1, 3, 8, 8))
    expected = run_as_it_is(done.before, x.astype(np.float32))[0]
    before, after = (in_half_precision(model, x) for model in (done.before, done.after))
    assert not np.isfinite(before).all()
    # Each of five layers rounds weights and values to 2^-11 of what is summed, sums of 72 products.
    assert np.max(np.abs(after - expected)) <= 5 * 2 * np.sqrt(72) * 2.0**-11 * np.max(
        np.abs(expected)
    )


def in_half_precision(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """The first output, with every weight and every value rounded to half precision."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    for tensor in half.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            with np.errstate(over="ignore"):
                tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), tensor.name))
    for value in (*half.graph.input, *half.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    del half.graph.value_info[:]
    return run(half, x.astype(np.float16))[0].astype(np.float32)


# What it declines, with the code and a part of the reason.


def behind(kind: str, *limits: float, **attributes: object) -> Callable[[Net, str], str]:
    def between(net: Net, y: str) -> str:
        operands = [net.const(np.array(limit)) for limit in limits]
        return net.op(kind, y, *operands, **attributes)

    return between


def swish(net: Net, y: str) -> str:
    return net.op("Mul", y, net.op("Sigmoid", y))


def squared(net: Net, y: str) -> str:
    return net.op("Mul", y, y)


def quantized(net: Net, y: str) -> str:
    scale, zero = net.const(np.array(0.1)), net.const(np.array(3, np.uint8))
    return net.op("DequantizeLinear", net.op("QuantizeLinear", y, scale, zero), scale, zero)


def padded_by_ones(net: Net, y: str) -> str:
    pads = net.const(np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    return net.op("Pad", y, pads, net.const(np.array(1.0)))


def added_to_the_input(net: Net, y: str) -> str:
    return net.op("Add", y, net.op("Concat", net.x, net.x, net.op("Tanh", net.x), axis=1))


def added_to_what_is_fixed(net: Net, y: str) -> str:
    other = net.op("Sigmoid", net.conv(net.x, CHANNELS, 3, (1, 1)))
    return net.op("Add", y, other)


def along_the_pixels(net: Net, y: str) -> str:
    return net.op("MatMul", y, net.const(net.rng.standard_normal((8, 8))))


def cast(net: Net, y: str) -> str:
    return net.op("Cast", net.op("Cast", y, to=TensorProto.DOUBLE), to=TensorProto.FLOAT)


def read_besides(net: Net, y: str) -> str:
    net.besides = net.op("Exp", y)
    return y


def returned_besides(net: Net, y: str) -> str:
    net.besides = y
    return y


DECLINED = [
    (behind("Clip", 0.0, 6.0), "NOT-HOMOGENEOUS", "a Clip"),
    (behind("Sigmoid"), "NOT-HOMOGENEOUS", "a Sigmoid"),
    (behind("Gelu"), "NOT-HOMOGENEOUS", "a Gelu"),
    (behind("HardSwish"), "NOT-HOMOGENEOUS", "a HardSwish"),
    (behind("Softmax", axis=1), "NOT-HOMOGENEOUS", "a Softmax"),
    (behind("Elu"), "NOT-HOMOGENEOUS", "a Elu"),
    (swish, "NOT-HOMOGENEOUS", "a Sigmoid"),
    (squared, "NOT-HOMOGENEOUS", "a Mul"),
    (padded_by_ones, "NOT-HOMOGENEOUS", "a Pad"),
    (read_besides, "NOT-HOMOGENEOUS", "a Exp"),
    (along_the_pixels, "LAYOUT", "conv0"),
    (quantized, "DTYPE", "QuantizeLinear"),
    (cast, "DTYPE", "Cast"),
    (added_to_what_is_fixed, "TIED", "sigmoid"),
    (returned_besides, "OUTPUT", "conv0"),
]


@pytest.mark.parametrize(
    "between, code, part", DECLINED, ids=[str(i) for i in range(len(DECLINED))]
)
def test_it_declines_and_says_why(between, code, part):
    net = network(opset=20)
    y = net.op("Tanh", tame(net, between(net, wild(net))))
    besides = [net.besides] if hasattr(net, "besides") else []
    done = equalize(net.model(y, *besides))
    assert_untouched(done)
    told = [remark for remark in done.remarks if remark.node == "conv0"]
    assert [(remark.code, remark.hint) for remark in told] == [(code, HINTS[code])]
    assert part in told[0].reason


def test_a_value_that_is_no_layer_ties_what_is_added_to_it():
    net = network()
    y = added_to_the_input(net, wild(net, scale=np.full(9, 64.0)))
    done = equalize(end(net, tame(net, y, np.ones(9))))
    assert_untouched(done)
    assert "TIED" in done.codes


def test_a_weight_that_a_caller_may_set_reads_channels_as_they_are():
    net = network()
    y = tame(net, wild(net))
    done = equalize(net.model(net.op("Tanh", y), extra_inputs=[net.nodes[1].input[1]]))
    assert_untouched(done)
    assert "NOT-CONSTANT" in done.codes


def test_a_subgraph_reads_channels_as_they_are():
    net = network()
    y = net.op("Relu", wild(net))
    branch = helper.make_graph(
        [helper.make_node("Identity", [y], ["inside"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)],
    )
    flag = net.const(np.array(True))
    other = net.op("If", flag, then_branch=branch, else_branch=branch)
    done = equalize(net.model(net.op("Tanh", tame(net, y)), other))
    assert_untouched(done)
    assert "SHARED" in done.codes


@pytest.mark.parametrize("number", [1e-40, 2.0**-120])
def test_a_channel_stays_where_a_constant_is_or_would_be_no_normal_number(number):
    """Channel 0 would be divided by 2^10 or so; the others are equalised."""
    net = network()
    z = tame(net, net.op("Relu", wild(net)))
    net.constants["c0"][0, 0, 0, 0] = number
    done = equalize(end(net, z))
    assert_equal_bits(done)
    weights = {i.name: numpy_helper.to_array(i) for i in done.after.graph.initializer}
    new = weights[done.after.graph.node[0].input[1]]
    same = [np.array_equal(*rows) for rows in zip(new, net.constants["c0"], strict=True)]
    assert [channel for channel, kept in enumerate(same) if kept] == [0]


@pytest.mark.parametrize(
    "written, read, code",
    [(2.0**-123, 1.0, "UNDERFLOW"), (1.0, 2.0**125, "OVERFLOW"), (1e-40, 1.0, "UNDERFLOW")],
)
def test_a_layer_of_which_no_channel_can_be_scaled_says_why(written, read, code):
    """p is 2^10: it would be divided by 2^10 where it is written, and multiplied where read."""
    net = network()
    first = np.zeros((2, 3, 1, 1))
    first[:, 0], first[:, 1] = 2.0**10, written
    last = np.full((2, 2, 1, 1), 2.0**-10)
    last[1] = read
    y = net.op("Conv", net.op("Conv", net.x, net.const(first)), net.const(last))
    done = equalize(end(net, y))
    assert_untouched(done)
    told = [remark for remark in done.remarks if remark.node == "conv0"]
    assert [remark.code for remark in told] == [code]
    assert "is no normal FLOAT" in told[0].reason


def test_a_node_that_cannot_be_checked_keeps_its_scale_and_others_do_not():
    net = network()
    y = net.op("Relu", tame(net, net.op("Relu", wild(net))))
    y = tame(net, net.op("Relu", wild(net, y, 4)))
    seen: list[set[str]] = []

    def check(*changes: Change) -> None:
        seen.append({change.region.root.name or "" for change in changes})
        for change in changes:
            if change.region.root.name == "relu1":
                why = Decline("UNPROVED", "not known")
                why.change = change
                raise why

    done = equalize(end(net, y), check)
    assert "relu1" in seen[0]
    assert "relu1" not in seen[-1]
    assert "UNPROVED" in done.codes
    assert spread(done.after, "conv0") == spread(done.before, "conv0")
    assert spread(done.after, "conv4") < 5


def test_a_wrong_factor_is_found(monkeypatch):
    """The check compares each node between its scales with the node as it was."""
    right = Constant.scaled
    monkeypatch.setattr(Constant, "scaled", lambda self, exponents: right(self, exponents) * 2)
    net = network()
    with pytest.raises(NotEquivalent, match="equalize-channels"):
        equalize(end(net, tame(net, net.op("Relu", wild(net)))))


def test_a_certificate_accounts_for_it_and_says_that_bits_are_kept():
    net = network()
    y = net.op("Relu", net.bn(wild(net), CHANNELS))
    model = end(net, net.bn(tame(net, y), 4))
    graph, checks = ir.from_proto(model), RegionChecks(certifying=True)
    Pipeline([kind() for kind in PIPELINE], check=checks).run(graph)
    folded = len(checks.entries)
    Pipeline([EqualizeChannels()], check=checks).run(graph)
    original, rewritten = ir.from_proto(model), ir.from_proto(ir.to_proto(graph))
    certificate = Certificate(fingerprint(original), fingerprint(rewritten), tuple(checks.entries))
    content = json.loads(json.dumps(certificate.to_dict()))
    assert Certificate.from_dict(content) == certificate
    require_about(certificate, original, rewritten)
    kept = [entry["bit_exact"] for entry in content["changes"]]
    assert kept == [False] * folded + [True] * (len(kept) - folded)
    assert True in kept
    for entry in content["changes"]:
        del entry["bit_exact"]  # as in a certificate of before
    assert not any(entry.bit_exact for entry in Certificate.from_dict(content).changes)


def test_it_is_no_part_of_what_runs_in_full_precision():
    assert EqualizeChannels not in PIPELINE


def test_components_are_those_of_a_search():
    rng = np.random.default_rng(0)
    for count in (1, 5, 40, 300):
        pairs = [rng.integers(0, count, (2, n)) for n in rng.integers(0, count // 3 + 2, 3)]
        expected = np.arange(count)
        for _ in range(count):
            for one, two in np.concatenate(pairs, axis=1).T:
                least = min(expected[one], expected[two])
                expected[[one, two]] = least
        found = components(count, [(one, two) for one, two in pairs])
        assert np.array_equal(found, expected)
