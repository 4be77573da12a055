"""What the cost model says of the classic questions, on the measured profile, and of every figure.

Time, not the number of multiplies, decides. The statements are those of the figures measured by
bench/operator_costs.py: whoever changes a figure sees here what else changes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.passes.cost.model import (
    BYTES,
    LANES,
    Cost,
    CostModel,
)
from flatfold.passes.cost.profiles import PROFILES
from flatfold.passes.stencil.geometry import Geometry, composed_geometry, summed_geometry
from tests.nets import Net, assert_untouched, rewrite, run

ORT = PROFILES["ort-cpu"]
MAPS = ((64, 56), (128, 28), (512, 14), (1024, 7))
CHANNELS, SIZE = 192, 28


def layer(o: int, i: int, kernel=(1, 1), groups=1, dilation=1, upsample=1) -> Geometry:
    pads = tuple((k - 1) * dilation // 2 for k in kernel)
    one, axes = (1,) * len(kernel), len(kernel)
    return Geometry(o, i, groups, kernel, one, (dilation,) * axes, pads, pads, (upsample,) * axes)


def seconds(shape: Geometry, size: int = SIZE, profile=ORT) -> float:
    return CostModel(profile).stencil(shape, True, False, size**2).seconds


def merges(one: Geometry, two: Geometry, size: int = SIZE, profile=ORT) -> bool:
    joined = summed_geometry([one, two], (size, size))
    add = CostModel(profile).elementwise(one.outputs, size**2, reads=2).seconds
    apart = seconds(one, size, profile) + seconds(two, size, profile) + add
    return seconds(joined, size, profile) < apart


def composes(outer: Geometry, inner: Geometry, size: int = SIZE, profile=ORT) -> bool:
    apart = seconds(outer, size, profile) + seconds(inner, size, profile)
    return seconds(composed_geometry(outer, inner), size, profile) <= apart


def depthwise(c: int, k: int, wide: int | None = None, dilation: int = 1) -> Geometry:
    return layer(c, c, (k, k if wide is None else wide), c, dilation)


def dense(c: int, k: int) -> Geometry:
    return layer(c, c, (k, k))


def block(kernels: list[tuple[int, int, int]], channels=32, size=28, groups=1) -> Net:
    """A sum of convolutions over one input: (height, width, dilation) each, of equal size."""
    net = Net((1, channels, size, size), dtype=np.float32)
    total = ""
    for height, width, dilation in kernels:
        pads = [(height - 1) * dilation // 2, (width - 1) * dilation // 2] * 2
        how = {"dilations": [dilation] * 2, "pads": pads}
        y = net.conv(net.x, channels, channels, (height, width), groups=groups, **how)
        total = net.op("Add", total, y) if total else y
    net.last = total
    return net


@pytest.mark.parametrize("channels,size", MAPS)
def test_a_3x3_a_1x1_and_an_identity_merge_into_one_3x3(channels, size):
    assert merges(dense(channels, 3), dense(channels, 1), size)
    assert merges(dense(channels, 3), depthwise(channels, 1), size)


@pytest.mark.parametrize("channels,size", MAPS)
def test_a_depthwise_layer_beside_a_dense_3x3_merges(channels, size):
    assert merges(dense(channels, 3), depthwise(channels, 3), size)


@pytest.mark.parametrize("profile", ["ort-cpu", "trt"])
def test_a_5x5_beside_a_31x31_merges_into_it(profile):
    for channels, size in ((128, 32), (256, 16)):
        assert merges(depthwise(channels, 31), depthwise(channels, 5), size, PROFILES[profile])


@pytest.mark.parametrize("profile", ["ort-cpu", "trt"])
def test_depthwise_then_pointwise_is_not_composed(profile):
    for channels, size in MAPS:
        inner, outer = depthwise(channels, 3), dense(channels, 1)
        assert not composes(outer, inner, size, PROFILES[profile])
        assert not composes(inner, outer, size, PROFILES[profile])


def test_a_pointwise_pair_is_composed_at_equal_width_and_not_through_a_bottleneck():
    for channels, size in MAPS:
        assert composes(dense(channels, 1), dense(channels, 1), size)
    assert not composes(layer(192, 32), layer(32, 192))
    assert composes(layer(32, 192), layer(192, 32))


@pytest.mark.parametrize("profile", ["ort-cpu", "trt"])
def test_two_strips_are_not_merged_into_a_square(profile):
    for channels, size in ((64, 56), (128, 28), (512, 14)):
        tall, wide = depthwise(channels, 51, 5), depthwise(channels, 5, 51)
        assert not merges(tall, wide, size, PROFILES[profile])


@pytest.mark.parametrize("profile", ["ort-cpu", "trt"])
def test_dilated_branches_all_merge_into_the_large_kernel(profile):
    large = depthwise(80, 17)
    for kernel, dilation in ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)):
        for size in (56, 28, 14):
            branch = depthwise(80, kernel, dilation=dilation)
            assert merges(large, branch, size, PROFILES[profile])


def test_the_dilated_branches_of_a_graph_become_one_layer():
    branches = [(17, 17, 1), (5, 5, 1), (9, 9, 2), (3, 3, 4), (3, 3, 5), (3, 3, 7)]
    net = block(branches, 16, 14, groups=16)
    assert rewrite(net.model(net.op("Relu", net.last))).ops == {"Conv": 1, "Relu": 1}


def test_the_strips_of_a_graph_stay_two():
    net = block([(51, 5, 1), (5, 51, 1)], 16, 28, groups=16)
    done = rewrite(net.model(net.op("Relu", net.last)))
    assert done.codes == {"COST"}
    assert_untouched(done)


@pytest.mark.parametrize("profile", ["ort-cpu", "trt"])
def test_a_batchnorm_alone_is_at_most_two_passes(profile):
    for channels, size in MAPS:
        one = CostModel(PROFILES[profile]).elementwise(channels, size**2)
        written = CostModel(PROFILES[profile]).stencil(depthwise(channels, 1), True, False, size**2)
        assert written.seconds <= 2 * one.seconds
        assert CostModel(ORT).stencil(depthwise(channels, 1), False, False, size**2).nodes == 1
        assert CostModel(ORT).stencil(depthwise(channels, 1), False, True, size**2) == Cost()


def maps(channels: int, *kinds: str, target: str) -> list[str]:
    """The operators that are left of these, in this order, between two activations."""
    net = Net((1, channels, 14, 14), dtype=np.float32)
    y = net.op("Tanh", net.x)
    for kind in kinds:
        y = net.op(kind, y, net.const(net.rng.uniform(0.5, 1.5, (channels, 1, 1))))
    done = rewrite(net.model(net.op("Relu", y)), target=target)
    assert_same_in_single(done)
    return [node.op_type for node in done.graph.graph][1:-1]


def assert_same_in_single(done) -> None:
    """Up to nine products and sums a number, each rounded to single precision."""
    x = np.random.default_rng(0).standard_normal((1, done.graph.graph.inputs[0].shape[1], 14, 14))
    (a,), (b,) = (run(model, x.astype(np.float32)) for model in (done.before, done.after))
    np.testing.assert_allclose(b, a, rtol=0, atol=32 * 2.0**-24 * np.abs(a).max())


def test_a_scale_and_an_offset_are_one_tap_where_the_target_is_slow_at_an_add():
    assert maps(LANES, "Mul", "Mul", "Add", target="ort-cpu") == ["Conv"]
    assert maps(LANES, "Mul", "Mul", "Add", target="openvino") == ["Mul", "Add"]
    assert maps(LANES, "Mul", "Add", target="openvino") == ["Mul", "Add"]
    assert maps(LANES, "Mul", "Add", target="trt") == ["Conv"]


def test_an_offset_alone_is_one_tap_where_it_would_leave_the_layout_of_the_layers():
    assert maps(LANES, "Add", target="ort-cpu") == ["Conv"]
    assert maps(LANES - 1, "Add", target="ort-cpu") == ["Add"]
    assert maps(LANES, "Add", target="openvino") == ["Add"]
    assert maps(LANES, "Mul", target="ort-cpu") == ["Mul"]


@pytest.mark.parametrize(
    "channels,target,left",
    [
        (24, "ort-cpu", "Conv"),
        (32, "ort-cpu", "AveragePool"),
        (8, "ort-cpu", "AveragePool"),
        (24, "openvino", "AveragePool"),
    ],
)
def test_an_average_is_a_layer_where_the_target_has_no_fast_one(channels, target, left):
    net = Net((1, channels, 14, 14), dtype=np.float32)
    y = net.op("AveragePool", net.op("Tanh", net.x), kernel_shape=[3, 3], strides=[2, 2])
    done = rewrite(net.model(net.op("Relu", y)), target=target)
    assert [node.op_type for node in done.graph.graph] == ["Tanh", left, "Relu"]
    assert_same_in_single(done)


def test_what_shuffles_blocks_or_writes_little_has_its_price():
    net = Net((1, 64, 10, 10))
    source = ir.from_proto(net.model(net.op("Relu", net.x))).graph.inputs[0]
    model = CostModel(ORT)
    elements = 6400 * BYTES
    assert model.operator("Reshape", source) == Cost()
    expected = {
        "Transpose": 2 * elements / ORT.copies,
        "DepthToSpace": 2 * elements / ORT.blocks,
        "GlobalAveragePool": elements / ORT.bandwidth,
        "Exp": 2 * elements / ORT.elementwise,
    }
    for op_type, seconds_ in expected.items():
        node = model.operator(op_type, source)
        assert node.seconds == pytest.approx(ORT.node + seconds_, rel=1e-12)
        assert node.nodes == 1


def test_a_copy_is_one_node_that_reads_and_writes_the_map():
    copy = CostModel(ORT).copy(64, 100)
    assert (copy.nodes, copy.macs, copy.parameters) == (1, 0, 0)
    assert copy.seconds == pytest.approx(ORT.node + 8 * 64 * 100 / ORT.copies, rel=1e-12)
    assert copy.seconds > CostModel(ORT).elementwise(64, 100).seconds


def test_a_shift_is_cheaper_as_a_depthwise_layer_than_as_two_copies():
    for channels, size in MAPS[:3]:
        shift = CostModel(ORT).stencil(depthwise(channels, 3), False, False, size**2).seconds
        assert shift < 2 * CostModel(ORT).copy(channels, size**2).seconds


@pytest.mark.parametrize(
    "shape,figure",
    [
        (dense(64, 3), "dense"),
        (layer(64, 1, (3, 3)), "dense"),
        (layer(64, 64, (3, 3), groups=64 // LANES), "dense"),
        (layer(64, 64, (3, 3), groups=128 // LANES), "thin"),
        (layer(128, 64, (3, 3), groups=64), "thin"),
        (dense(64, 1), "pointwise"),
        (layer(64, 32, (), groups=1), "product"),
        (layer(64, 64, (2, 2), upsample=2), "transposed"),
        (layer(64, 64, (2, 2), groups=64, upsample=2), "transposed_grouped"),
    ],
)
def test_each_class_of_layer_has_its_figure(shape, figure):
    for factor in (1.0, 3.0):
        profile = replace(ORT, **{figure: factor * getattr(ORT, figure)})
        assert CostModel(profile).rate(shape) == getattr(profile, figure)


def busy(shape: Geometry, profile=ORT) -> float:
    """Seconds of the multiplies alone, and of copies."""
    return seconds(shape, profile=replace(profile, node=0.0, bandwidth=float("inf")))


def test_channels_are_filled_up_to_whole_registers():
    """Measured: 17 to 32 channels take the same time, those read on ort-cpu; 1 x 1, 8 to 16."""
    openvino = PROFILES["openvino"]
    for profile in (ORT, openvino):
        ratio = busy(layer(20, 32, (3, 3)), profile) / busy(layer(32, 32, (3, 3)), profile)
        assert ratio == pytest.approx(1, rel=0.02)
    full = layer(32, 32, (3, 3))
    assert busy(layer(32, 20, (3, 3))) == pytest.approx(busy(full), rel=1e-12)
    assert busy(layer(32, 20, (3, 3)), openvino) < 0.7 * busy(full, openvino)
    assert busy(layer(32, 8, (3, 3))) == pytest.approx(busy(full) / 4, rel=1e-12)
    assert busy(layer(32, 8)) == pytest.approx(busy(layer(32, 16)), rel=1e-12)


def test_a_layer_that_reads_no_multiple_of_four_channels_copies_what_each_tap_reads():
    """Measured: 3 x 3, 33 -> 32 takes 1.6 times as long as 32 -> 32, 33 -> 1 no longer."""
    assert 1.3 < busy(layer(32, 33, (3, 3))) / busy(layer(32, 32, (3, 3))) < 1.7
    assert busy(layer(1, 33, (3, 3))) < busy(layer(1, 32, (3, 3)))
    assert busy(layer(1, 33, (3, 3))) < busy(layer(1, 36, (3, 3)))
    openvino = PROFILES["openvino"]
    assert busy(layer(32, 33, (3, 3)), openvino) < busy(layer(32, 36, (3, 3)), openvino)


def test_the_rate_of_a_depthwise_kernel_is_that_of_its_width():
    table = replace(ORT, depthwise=((1, 10.0), (3, 30.0), (11, 110.0)), dilated_depthwise=0.5)
    widths = {1: 10.0, 2: 20.0, 3: 30.0, 5: 50.0, 11: 110.0, 51: 110.0}
    for wide, expected in widths.items():
        assert CostModel(table).rate(depthwise(8, 9, wide)) == pytest.approx(expected, rel=1e-12)
    assert CostModel(table).rate(depthwise(8, 3, dilation=2)) == pytest.approx(15.0, rel=1e-12)


def test_dilation_counts_where_there_is_more_than_one_tap():
    slow = replace(ORT, dilated=0.25)
    assert CostModel(slow).rate(layer(64, 64, (3, 3), dilation=2)) == ORT.dense / 4
    assert CostModel(slow).rate(layer(64, 64, (1, 1), dilation=2)) == ORT.pointwise


def test_the_tables_of_every_profile_ascend_and_every_figure_is_positive():
    for profile in PROFILES.values():
        widths = [wide for wide, _ in profile.depthwise]
        assert widths == sorted(set(widths))
        numbers = [figure for _, figure in profile.depthwise]
        numbers += [value for value in vars(profile).values() if isinstance(value, float)]
        assert min(numbers) > 0
    assert PROFILES["default"] is ORT
