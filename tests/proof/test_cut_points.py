"""Two graphs compared part by part: pairs, cones that are extended or run, and open verdicts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import flatfold
from flatfold.proof import Equivalence, verify_parts
from flatfold.proof.cut_points.data import Weights, channel_blocks
from flatfold.proof.network.session import PlainSession
from tests.nets import Net
from tests.proof.planted import Block, deploy_form, drawn_net, training_form

SHAPE = (1, 4, 9, 8)


def by_parts(before: Net, after: Net) -> Equivalence:
    """By their parts alone, as if running the two had shown nothing."""
    models = (ir.from_proto(net.model(net.y)) for net in (before, after))
    return verify_parts(*models, Equivalence("sampled"))


def two() -> tuple[Net, Net]:
    return Net(SHAPE, dtype=np.float32), Net(SHAPE, dtype=np.float32)


def dims_of(model: onnx.ModelProto) -> list[int]:
    return [d.dim_value or 2 for d in model.graph.input[0].type.tensor_type.shape.dim]


def test_a_fault_in_a_dead_channel_is_caught_though_outputs_are_equal():
    blocks = drawn_net(3)
    dead = blocks[2].norms[0].beta.copy()
    dead[3] = -1000
    blocks[2] = blocks[2].with_norm(0, replace(blocks[2].norms[0], beta=dead))
    wrong = blocks[2].with_norm(0, blocks[2].norms[0].changed("variance", 3, 4))
    folded = [(wrong if block is blocks[2] else block).fold() for block in blocks]
    right, faulty = training_form(blocks), deploy_form(blocks, folded)
    x = np.random.default_rng(0).standard_normal(tuple(dims_of(right)), dtype=np.float32)
    one, two = (PlainSession(ir.from_proto(model))({"x": x})[0] for model in (right, faulty))
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-5 * np.abs(one).max())
    found = flatfold.verify(right, faulty)
    assert (found.verdict, found.faults[0].channel) == ("refuted", 3)
    assert found.faults[0].weight["output"] == 3


def test_operators_that_are_the_same_need_no_run():
    a, b = two()
    for net in (a, b):
        net.y = net.op("Erf", net.conv(net.x, 4, 4, (3, 3)), outputs=1)
    b.nodes[-1].name = "another name"
    found = by_parts(a, b)
    assert (found.verdict, found.structural, found.regions) == ("bounded", 2, 0)


def test_a_region_that_cannot_be_run_is_not_bounded():
    a, b = two()
    a.y = a.op("Softmax", a.x, axis=1)
    total = b.op("ReduceSum", b.op("Exp", b.x), b.const(np.array([1])))
    b.y = b.op("Div", b.nodes[0].output[0], total)
    found = by_parts(a, b)
    assert found.verdict == "sampled"
    assert "1 of 1 regions not compared on their own" in found.reason


def test_what_only_differs_out_of_reach_is_no_difference():
    a, b = two()
    a.y = a.conv(a.op("Relu", a.op("Relu", a.x)), 4, 4, (3, 3))
    b.y = b.conv(b.op("Relu", b.x), 4, 4, (3, 3))
    assert by_parts(a, b).verdict == "bounded"


def test_a_pair_that_only_one_side_reads_is_looked_through():
    a, b = two()
    for net in (a, b):
        net.first = net.conv(net.x, 4, 4, (1, 1), bias=False)
    a.y = a.op("Add", a.op("Relu", a.first), a.op("Add", a.first, a.x))
    b.y = b.op("Add", b.op("Add", b.op("Relu", b.first), b.x), b.first)
    assert by_parts(a, b).verdict == "bounded"


def test_an_output_that_is_a_constant_on_one_side_is_compared_too():
    a, b = two()
    zero = a.op("Mul", a.x, a.const(np.zeros((1, 1, 1, 1))))
    a.y = a.op("Add", zero, a.const(np.ones(SHAPE)))
    b.y = b.op("Add", b.op("Sub", b.x, b.x), b.const(np.ones(SHAPE)))
    assert by_parts(a, b).verdict == "bounded"
    b.constants["c0"] = b.constants["c0"] * np.float32(1.01)
    assert by_parts(a, b).verdict == "refuted"


def test_noise_is_not_the_same_twice():
    a, b = two()
    for net in (a, b):
        net.y = net.op("Add", net.x, net.op("RandomNormalLike", net.x))
    assert by_parts(a, b).verdict in ("identical", "sampled")
    b.nodes[-1].name = "another"
    assert by_parts(a, b).verdict == "sampled"


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_a_weight_of_any_size_is_met_alone(scale):
    blocks = [drawn_net(4)[3]]
    blocks = [Block(blocks[0].wide * np.float32(scale), blocks[0].narrow, blocks[0].norms)]
    weight, bias = blocks[0].fold()
    off = weight.copy()
    off[5, 7, 0, 2] *= 1 + 1e-5
    size = blocks[0].wide.shape[1]

    def net(convolution: list[np.ndarray] | None) -> Net:
        made = Net((1, size, 9, 8), dtype=np.float32)
        if convolution is not None:
            made.y = made.op("Conv", made.x, *map(made.const, convolution), pads=[1] * 4)
            return made
        arms = [made.op("Conv", made.x, made.const(blocks[0].wide), pads=[1] * 4)]
        arms += [made.op("Conv", made.x, made.const(blocks[0].narrow)), made.x]
        for i, norm in enumerate(blocks[0].norms):
            arms[i] = made.op("BatchNormalization", arms[i], *map(made.const, vars(norm).values()))
        made.y = made.op("Sum", *arms)
        return made

    assert by_parts(net(None), net([weight, bias])).verdict == "bounded"
    found = by_parts(net(None), net([off, bias]))
    assert found.verdict == "refuted"
    assert "output channel 5, input channel 7, tap (0, 2)" in found.reason


def test_sizes_that_only_one_setting_has_are_found():
    """Open axes of which the graph takes 65 x 49 and nothing smaller."""
    a, b = (Net((1, 4, "h", "w"), dtype=np.float32) for _ in range(2))
    for net, weights in ((a, (1.0, 1.0)), (b, (2.0, 0.5))):
        map_ = net.const(np.ones((1, 1, 65, 49)))
        first = net.op("Mul", net.op("Add", net.x, map_), net.const(np.array(weights[0])))
        net.y = net.op("Mul", first, net.const(np.array(weights[1])))
    assert by_parts(a, b).verdict == "bounded"
    b.constants["c2"] *= 2
    assert by_parts(a, b).verdict == "refuted"


def test_values_are_looked_at_in_parts_that_fit_in_memory(monkeypatch):
    from flatfold.proof.cut_points import alignment

    blocks = drawn_net(0)
    models = [training_form(blocks), deploy_form(blocks, [block.fold() for block in blocks])]
    graphs = [ir.from_proto(model) for model in models]
    whole = verify_parts(*graphs, Equivalence("sampled"))
    monkeypatch.setattr(alignment, "MEMORY", 5000)
    assert verify_parts(*graphs, Equivalence("sampled")) == whole


def test_an_operator_of_another_domain_is_not_taken_for_ours():
    a, b = two()
    for net in (a, b):
        net.y = net.op("Relu", net.conv(net.x, 4, 4, (3, 3)))
    graphs = [ir.from_proto(net.model(net.y)) for net in (a, b)]
    gelu = list(graphs[1].graph)[-1]
    gelu.domain, gelu.op_type = "com.microsoft", "Gelu"
    graphs[1].opset_imports["com.microsoft"] = 1
    assert verify_parts(*graphs, Equivalence("sampled")).verdict == "sampled"


@pytest.mark.parametrize(("opset", "verdict"), [(13, "bounded"), (12, "sampled")])
def test_an_operator_that_another_opset_defines_anew_is_not_the_same(opset: int, verdict: str):
    """Softmax flattened what lies behind its axis until opset 13."""
    a, b = two()
    b.opset = opset
    for net in (a, b):
        net.y = net.op("Softmax", net.x, axis=1)
    assert by_parts(a, b).verdict == verdict


def test_branches_that_a_tool_made_one_are_the_same():
    a, b = two()
    for net in (a, b):
        net.y = net.x
        for _ in range(3):
            weight = net.const(net.rng.standard_normal((4, 4, 1, 1)))
            arms = [net.op("Relu", net.op("Conv", net.y, weight)) for _ in range(1 + (net is a))]
            net.y = net.op("Relu", net.op("Add", arms[0], arms[-1]))
    found = by_parts(a, b)
    assert (found.verdict, found.regions) == ("bounded", 0)


def test_sources_that_depend_on_each_other_are_looked_through():
    """-x - 1 is a value of both, which the second reads where the first reads x + 1."""
    a, b = two()
    for net in (a, b):
        net.one = net.op("Add", net.x, net.const(np.ones(1)))
        net.less = net.op("Neg", net.one)
    a.y = a.op("Sub", a.op("Add", a.one, a.one), a.op("Add", a.less, a.x))
    b.y = b.op("Sub", b.op("Sub", b.one, b.less), b.op("Sub", b.x, b.one))
    assert by_parts(a, b).verdict == "bounded"
    b.y = b.op("Sub", b.op("Sub", b.one, b.less), b.op("Add", b.x, b.one))
    assert by_parts(a, b).verdict == "refuted"


def folded_in_single_precision(block: Block, later: bool) -> list[np.ndarray]:
    """Weight and bias of a block, every step rounded, in one order or another."""
    weight, bias = np.zeros((), np.float32), np.zeros((), np.float32)
    for kernel, norm in zip(block.kernels(), block.norms, strict=True):
        std = np.sqrt(norm.variance + np.float32(1e-5))
        scale = norm.gamma / std
        mean = (norm.gamma * norm.mean) / std if later else norm.mean * scale
        columns = [part.reshape(-1, 1, 1, 1) for part in (norm.gamma, std, scale)]
        kernel = kernel.astype(np.float32)
        weight = weight + ((kernel * columns[0]) / columns[1] if later else kernel * columns[2])
        bias = bias + (norm.beta - mean)
    return [weight, bias]


@pytest.mark.parametrize("seed", range(10, 14))
def test_two_folds_in_single_precision_are_both_right(seed: int):
    """A bias cancels in some channel, so that it is off by many units of its own last place."""
    blocks = drawn_net(seed)
    one, two = (
        deploy_form(blocks, [folded_in_single_precision(block, later) for block in blocks])
        for later in (False, True)
    )
    graphs = [ir.from_proto(model) for model in (one, two)]
    found = verify_parts(*graphs, Equivalence("sampled"))
    assert found.verdict == "bounded", found.reason
    parts = [folded_in_single_precision(block, True) for block in blocks]
    parts[3][1][2] += 1e-4 * np.abs(parts[3][1]).max()
    graphs[1] = ir.from_proto(deploy_form(blocks, parts))
    assert verify_parts(*graphs, Equivalence("sampled")).verdict == "refuted"


@pytest.mark.parametrize("kind", ["Conv", "MatMul"])
def test_one_weight_of_a_large_layer_is_met(kind: str, monkeypatch):
    """Off by 1e-5 of the largest, in a layer whose impulses share their images."""
    monkeypatch.setattr("flatfold.proof.cut_points.data.WORK", 1 << 18)
    drawn = np.random.default_rng(5).standard_normal((40, 48, 3, 3)).astype(np.float32)
    off = drawn.copy()
    off[20, 17, 1, 2] += 1e-5 * np.abs(drawn).max()

    def net(weight: np.ndarray) -> Net:
        if kind == "Conv":
            made = Net((1, 48, 8, 8), dtype=np.float32)
            made.y = made.op("Conv", made.x, made.const(weight), pads=[1] * 4)
        else:
            made = Net((2, 9, 40), dtype=np.float32)
            made.y = made.op("MatMul", made.x, made.const(weight.reshape(40, -1)))
        return made

    assert by_parts(net(drawn), net(off)).verdict == "refuted"


@pytest.mark.parametrize("groups", [1, 2, 6, 12])
def test_one_weight_is_met_where_channels_stay_apart(groups: int):
    """Impulses of all groups share an image: an output reads those of its own group alone."""
    drawn = np.random.default_rng(6).standard_normal((24, 12 // groups, 5, 5)).astype(np.float32)
    at = (17, 11 % (12 // groups), 4, 1)
    off = drawn.copy()
    off[at] += 1e-5 * np.abs(drawn).max()

    def net(weight: np.ndarray) -> Net:
        made = Net((1, 12, 16, 15), dtype=np.float32)
        y = made.op("Conv", made.x, made.const(weight), pads=[2] * 4, strides=[2, 1], group=groups)
        made.y = made.op("Mul", y, made.const(np.array(2.0)))
        return made

    assert by_parts(net(drawn), net(drawn.copy())).verdict != "refuted"
    found = by_parts(net(drawn), net(off))
    assert found.verdict == "refuted"
    assert found.faults[0].channel == 17
    assert f"tap {at[2:]}" in found.reason


def channel_blocks_of(*groups: int, channels: int = 12) -> int:
    net = Net((1, channels, 8, 8))
    for count in groups:
        net.y = net.x = net.conv(net.x, channels, channels, (3, 3), groups=count)
    return channel_blocks(ir.from_proto(net.model(net.y)).graph, [(1, channels, 8, 8)])


def test_channels_fall_into_as_many_blocks_as_every_layer_keeps_apart():
    assert [channel_blocks_of(n) for n in (1, 3, 12)] == [1, 3, 12]
    assert channel_blocks_of(4, 6) == 2
    assert channel_blocks_of(12, 1) == 1
    assert channel_blocks([], [(1, 12, 8, 8), (1, 1, 8, 8)]) == 1


def collapsed(channels: int, slope: float, off: float) -> tuple[Net, Net]:
    """Two 1 x 1 convolutions with a LeakyRelu between them, and their product, one weight `off`."""
    rng = np.random.default_rng(8)
    first, second = rng.standard_normal((2, channels, channels))
    product = second @ first
    product[5, 3] += off * np.abs(product).max()
    a, b = (Net((1, channels, 4, 4), dtype=np.float32) for _ in range(2))
    y = a.op("Conv", a.x, a.const(first[..., None, None]))
    y = a.op("LeakyRelu", y, alpha=slope)
    a.y = a.op("Conv", y, a.const(second[..., None, None]))
    b.y = b.op("Conv", b.x, b.const(product[..., None, None]))
    return a, b


def test_a_weight_made_of_two_layers_around_an_activation_that_is_linear_is_met():
    for channels in (8, 96):
        assert by_parts(*collapsed(channels, 1.0, 0.0)).verdict == "bounded"
        assert by_parts(*collapsed(channels, 1.0, 1e-5)).verdict == "refuted"
    assert by_parts(*collapsed(8, 0.5, 0.0)).verdict == "refuted"


@pytest.mark.parametrize("channels", [8, 96, 300])
def test_a_product_of_two_layers_in_single_precision_is_right(channels: int):
    pairs = collapsed(channels, 1.0, 0.0)
    first, second = (pairs[0].constants[name][..., 0, 0] for name in ("c0", "c1"))
    pairs[1].constants["c0"] = (second @ first)[..., None, None]
    assert pairs[1].constants["c0"].dtype == np.float32
    assert by_parts(*pairs).verdict == "bounded"


def test_an_impulse_has_fewer_channels_where_weights_are_sums_of_many_products():
    assert [Weights(1, products).most_together for products in (1, 64, 4096, 1 << 20)] == [
        *(16, 16, 2, 1),
    ]


def test_a_bias_is_judged_by_its_terms_where_the_first_graph_has_them():
    """Next to large outputs: there a hidden term could be large, a visible one is not."""
    rng = np.random.default_rng(9)
    weight = 1e3 * rng.standard_normal((4, 4, 3, 3))
    norm = [np.ones(4), rng.standard_normal(4), np.zeros(4), np.ones(4)]
    for visible in (True, False):
        a, b = two()
        bias = norm[1].copy()
        if visible:
            y = a.op("Conv", a.x, a.const(weight))
            a.y = a.op("BatchNormalization", y, *map(a.const, norm), epsilon=0.0)
        else:
            a.y = a.op("Conv", a.x, a.const(weight), a.const(norm[1]))
        bias[2] += 1e-5 * np.abs(bias).max()
        b.y = b.op("Conv", b.x, b.const(weight), b.const(bias))
        found = by_parts(a, b)
        assert (found.verdict == "refuted") == visible
        if visible:
            assert "bias of output channel 2" in found.reason
