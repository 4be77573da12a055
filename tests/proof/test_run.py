"""Whole graphs, run with optimisation off against a float64 reference."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

import flatfold
from flatfold.errors import InputError
from flatfold.proof import NoReference, compare, onnx_reference
from flatfold.proof.network.inputs import KINDS, draw_feeds, input_specs
from flatfold.proof.network.session import LARGE_WEIGHT, plain_session
from flatfold.proof.network.sizes import sizes_that_run
from tests.nets import Net, rewrite, run


def small(seed: int = 0, shape=(1, 4, 9, 8), dtype=np.float32) -> Net:
    net = Net(shape, seed=seed, dtype=dtype)
    y = net.op("Relu", net.bn(net.conv(net.x, 6, 4, (3, 3)), 6))
    net.y = net.op("GlobalAveragePool", net.conv(y, 5, 6, (1, 1)))
    return net


def both(net: Net) -> tuple[ir.Model, ir.Model]:
    done = rewrite(net.model(net.y))
    return ir.from_proto(done.before), done.graph


def test_a_right_rewrite_is_sampled_on_every_kind_of_input():
    found = compare(*both(small()))
    assert found.verdict == "sampled"
    assert len(found.inputs) == len(KINDS)
    assert found.error <= found.bound < 1e-5
    assert found.reference == "the ONNX reference in float64"


def test_open_sizes_are_tried_at_two_settings():
    found = compare(*both(small(shape=("n", 4, "h", "w"))))
    assert found.verdict == "sampled"
    assert {label.rpartition(" ")[2] for label in found.inputs} == {"2x4x64x48", "1x4x65x49"}


@pytest.mark.parametrize("what", ["weight", "bias"])
def test_a_wrong_weight_is_refuted(what):
    before, after = both(small())
    name = next(n for n in after.graph.initializers if n.endswith(what))
    array = after.graph.initializers[name].const_value.numpy().copy()
    array.flat[1] += 1e-3
    after.graph.initializers[name].const_value = ir.Tensor(array, name=name)
    found = compare(before, after)
    assert found.verdict == "refuted"
    assert found.error > found.bound


def test_a_lost_nan_is_refuted():
    net = small()
    before = ir.from_proto(net.model(net.y))
    net.constants["c1"][0] = np.nan
    wrong = ir.from_proto(net.model(net.y))
    assert compare(before, wrong).verdict == "refuted"
    assert compare(wrong, before).verdict == "refuted"


def test_what_is_no_longer_finite_is_refuted():
    """Twice as large and half of it: the same function, until the float is too small for it."""
    nets = [Net((1, 4, 8, 8), dtype=np.float32) for _ in range(2)]
    for net, factor in zip(nets, (1.0, 1e33), strict=True):
        y = net.op("Mul", net.x, net.const(np.float32(factor)))
        net.y = net.op("Mul", y, net.const(np.float32(1 / factor)))
    before, after = (ir.from_proto(net.model(net.y)) for net in nets)
    found = compare(before, after)
    assert found.verdict == "refuted"
    assert "no longer finite" in found.reason
    assert found.worst_input.startswith("large")
    assert compare(after, before).verdict == "sampled"


@pytest.mark.parametrize(
    ("largest", "down", "verdict"),
    [(1e38, 1.0, "sampled"), (1e38, 1e-38, "sampled"), (1e20, 1.0, "refuted")],
)
def test_where_another_order_overflows_only_numbers_far_from_the_limit_refute(
    largest, down, verdict
):
    """The mean of 3,000 numbers, and their sum divided: that is 3,000 times as large before.

    `down` makes the output small again, so that only a value inside is near the limit.
    """
    texts = [
        "y = ReduceMean <axes = [1]> (x)",
        "s = ReduceSum (x, a) y = Div (s, n)",
    ]
    models = []
    for text, scale in zip(texts, (1.0, 1.0 if largest > 1e30 else 1e19), strict=True):
        whole = f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[2, 3000] z) => (float[2, 1] w)
        <float n = {{3000.0}}, int64[1] a = {{1}}, float k = {{{largest}}}, float b = {{{scale}}},
         float c = {{{down / scale}}}> {{ t = Tanh (z) u = Abs (t) v = Mul (u, k) x = Mul (v, b)
        {text} w = Mul (y, c) }}"""
        models.append(ir.from_proto(onnx.parser.parse_model(whole)))
    assert compare(*models).verdict == verdict


def test_another_output_shape_is_refuted():
    one, two = small(), small()
    flat = two.op("Flatten", two.y)
    a, b = ir.from_proto(one.model(one.y)), ir.from_proto(two.model(flat))
    assert compare(a, b).verdict == "refuted"


def test_the_reference_is_double_precision():
    net = small(dtype=np.float32)
    model = net.model(net.y)
    x = np.random.default_rng(0).standard_normal((1, 4, 9, 8)).astype(np.float32)
    exact = onnx_reference(ir.from_proto(model))({"x": x})[0]
    for name, array in net.constants.items():
        net.constants[name] = array.astype(np.float64)
    net.dtype = np.float64
    double = run(net.model(net.y), x.astype(np.float64))[0]
    assert exact.dtype == np.float64
    assert np.allclose(exact, double, rtol=1e-6, atol=1e-9)  # epsilon is a float32 in both
    assert np.max(np.abs(exact - double)) < 1e-12 * np.max(np.abs(double)) + 1e-12


def two_thirds(kind: str) -> ir.Model:
    """2/3, computed in several ways."""
    net = Net((1, 4, 8, 8), dtype=np.float32)
    number = net.const(np.float32(2 / 3))
    if kind == "cancelling":  # right, but few of its bits are left next to a million
        y = net.op("Sub", net.op("Add", net.x, number), net.x)
        return ir.from_proto(net.model(y))
    far = net.op("Relu", net.op("Sub", net.x, net.const(np.float32(1e5))))
    slope = np.float32(0 if kind == "constant" else 1e-6)
    y = net.op("Add", net.op("Mul", far, net.const(slope)), number)
    return ir.from_proto(net.model(y))


def test_where_only_the_original_strays_on_the_very_large_the_other_is_right():
    original = two_thirds("cancelling")
    assert compare(original, two_thirds("constant")).verdict == "sampled"
    found = compare(original, two_thirds("wrong when large"))
    assert found.verdict == "refuted"
    assert found.worst_input.startswith("large")


def logistic(rate: float, steps: int, late: bool) -> ir.Model:
    """A map that about doubles every error in each of its steps, of the very large alone."""
    net = Net((1, 4, 8, 8), dtype=np.float32)
    one, factor = net.const(np.float32(1)), net.const(np.float32(rate))
    y = net.op("Relu", net.op("Sub", net.x, net.const(np.float32(1e5))))
    y = net.op("Mul", y, net.const(np.float32(1e-7)))
    for _ in range(steps):
        rest = net.op("Sub", one, y)
        pair = (y, net.op("Mul", rest, factor)) if late else (net.op("Mul", y, factor), rest)
        y = net.op("Mul", *pair)
    return ir.from_proto(net.model(y))


@pytest.mark.parametrize("steps", [12, 16, 24])
def test_roundings_that_the_original_magnifies_are_magnified_in_the_other_too(steps):
    original = logistic(3.99, steps, late=False)
    assert compare(original, logistic(3.99, steps, late=True)).verdict == "sampled"


def test_what_is_wrong_is_found_among_magnified_roundings():
    found = compare(logistic(3.99, 12, late=False), logistic(3.9, 12, late=False))
    assert found.verdict == "refuted"
    assert found.worst_input.startswith("large")


def test_a_graph_without_a_double_form_is_judged_by_the_original():
    net = Net((1, 4, 8, 8), dtype=np.float32)
    up = net.op("Resize", net.x, "", net.const(np.array([1, 1, 2, 2], np.float32)))
    net.y = net.bn(net.conv(up, 4, 4, (3, 3)), 4)
    before, after = both(net)
    with pytest.raises(NoReference, match="Resize"):
        onnx_reference(before)
    found = compare(before, after)
    assert found.verdict == "sampled"
    assert found.reference == "the original in its own precision"


def test_inputs_are_seeded_and_cover_rim_and_centre():
    model = ir.from_proto(small().model("relu2"))
    specs = input_specs(model)
    (shapes,) = sizes_that_run(model)
    first, second = (dict(draw_feeds(specs, shapes, 0)) for _ in range(2))
    for kind in KINDS:
        assert np.array_equal(first[kind]["x"], second[kind]["x"], equal_nan=True)
    assert not first["border"]["x"][..., 1:-1, 1:-1].any()
    assert first["border"]["x"][..., 0, :].all()
    assert np.count_nonzero(first["impulses"]["x"]) == 2 * 4
    spectrum = np.abs(np.fft.rfft2(first["natural"]["x"][0])).mean(0)
    assert spectrum[1, 0] > 2 * spectrum[4, 0]  # low frequencies carry most of a photograph


def test_verify_says_identical_bounded_sampled_or_refuted():
    model = small().model("globalaveragepool4")
    assert flatfold.verify(model, model).verdict == "identical"
    assert flatfold.verify(model, rewrite(model).after).verdict == "bounded"
    assert flatfold.verify(model, rewrite(model).after, verify="sample").verdict == "sampled"
    other = small(seed=1)
    assert not flatfold.verify(model, other.model(other.y))


def test_verify_refuses_models_with_other_inputs():
    net = small()
    model = net.model(net.y)
    with pytest.raises(InputError, match="different outputs"):
        flatfold.verify(model, net.model("relu2"))


def test_verify_pairs_inputs_and_outputs_of_other_names_by_their_order():
    """The names are swapped on top of it: y is a value inside of the other graph."""
    one, two = (Net((1, 4, 9, 8), dtype=np.float32) for _ in range(2))
    models = []
    for net, inner in ((one, "a"), (two, "y")):
        net.nodes.append(helper.make_node("Relu", [net.x], [inner]))
        net.nodes.append(helper.make_node("Neg", [inner], ["y" if inner == "a" else "z"]))
        models.append(net.model(net.nodes[-1].output[0]))
    found = flatfold.verify(*models)
    assert found.verdict == "bounded"
    assert "outputs paired by their order: z as y" in found.reason
    two.nodes[-1].op_type = "Abs"
    assert flatfold.verify(models[0], two.model("z")).verdict == "refuted"


def test_what_onnx_runtime_has_no_kernel_for_is_run_by_the_reference():
    """Padding by SAME next to dilation, which ONNX allows."""
    net = Net((1, 4, 9, 8), dtype=np.float32)
    weight = net.const(net.rng.standard_normal((4, 4, 3, 3)))
    net.y = net.bn(net.op("Conv", net.x, weight, auto_pad="SAME_UPPER", dilations=[2, 2]), 4)
    before, after = both(net)
    found = compare(before, after)
    assert found.verdict == "sampled"
    assert "dilation" in found.reference.lower()
    name = next(iter(after.graph.initializers))
    array = after.graph.initializers[name].const_value.numpy().copy()
    array.flat[1] += 1e-2
    after.graph.initializers[name].const_value = ir.Tensor(array, name=name)
    assert compare(before, after).verdict == "refuted"


def test_outputs_that_differ_each_time_prove_nothing():
    net = small()
    noise = net.op("RandomNormalLike", net.x)
    model = ir.from_proto(net.model(net.op("Add", net.x, noise)))
    found = compare(model, model.clone())
    assert found.verdict == "unknown"
    assert not found


def test_a_reference_that_fails_on_the_way_is_given_up():
    net = small()
    weight = net.const(net.rng.standard_normal((4, 4, 3, 3)))
    net.y = net.bn(net.op("ConvTranspose", net.x, weight, strides=[4, 4], auto_pad="SAME_UPPER"), 4)
    found = compare(*both(net))
    assert found.verdict == "sampled"
    assert found.reference == "the original in its own precision"


def test_longer_sums_may_round_more_and_others_not():
    from flatfold.proof.network.judge import longest_sum, rounding_growth

    net = Net((1, 8, 9, 8), dtype=np.float32)
    short = ir.from_proto(
        net.model(net.conv(net.conv(net.x, 8, 8, (1, 1)), 8, 8, (3, 3), groups=8))
    )
    net = Net((1, 8, 9, 8), dtype=np.float32)
    long = ir.from_proto(net.model(net.conv(net.x, 8, 8, (3, 3))))
    assert (longest_sum(short), longest_sum(long)) == (9, 72)
    assert rounding_growth(short, long) == 8**0.5
    assert rounding_growth(long, short) == 1.0


def test_a_large_weight_that_no_node_reads_is_left_to_onnx_runtime():
    """It removes such weights, and refuses to be given them."""
    net = small()
    net.const(np.zeros(LARGE_WEIGHT, np.float32), "unread")
    model = ir.from_proto(net.model(net.conv(net.x, 4, 4, (3, 3))))
    assert compare(model, model.clone()).verdict == "sampled"


@pytest.mark.parametrize("opset", [7, 9, 13, 14, 22])
def test_the_reference_takes_the_statistics_that_a_norm_is_given(opset):
    """ONNX's own evaluator takes those of the batch before opset 14, and fails before 9."""
    net = Net((2, 3, 4, 5), opset=opset, dtype=np.float32)
    model = net.model(net.bn(net.x, 3, eps=0.01))
    x = np.random.default_rng(0).standard_normal(net.shape).astype(np.float32)
    feeds = {"x": x}
    (exact,) = onnx_reference(ir.from_proto(model))(feeds)
    (single,) = plain_session(ir.from_proto(model), "the graph")(feeds)
    assert np.abs(exact - single).max() < 1e-5


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_the_reference_gathers_elements_within_the_axis_and_refuses_others(axis):
    """An index far outside made the evaluator's own run for ever."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 5, 6)).astype(np.float32)
    indices = rng.integers(-x.shape[axis], x.shape[axis], (2, 3, 6))
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    net (float[4, 5, 6] x, int64[2, 3, 6] i) => (float[2, 3, 6] y) {{
      y = GatherElements <axis = {axis}> (x, i)
    }}"""
    model = onnx.parser.parse_model(text)
    reference = onnx_reference(ir.from_proto(model))
    feeds = {"x": x, "i": indices}
    (expected,) = plain_session(ir.from_proto(model), "the graph")(feeds)
    assert np.array_equal(reference(feeds)[0], expected)
    for outside in (x.shape[axis], 2**60, -(2**60)):
        with pytest.raises(NoReference, match="outside the axis"):
            reference({"x": x, "i": np.full_like(indices, outside)})


def test_verify_refuses_an_input_of_another_rank():
    one, two = (Net(shape, dtype=np.float32) for shape in ((1, 4, 9), (1, 4, 9, 8)))
    with pytest.raises(InputError, match="different inputs"):
        flatfold.verify(*(net.model(net.op("Relu", net.x)) for net in (one, two)))


def test_verify_of_a_constant_that_is_an_output():
    one, two = (
        onnx.parser.parse_model(
            f"""<ir_version: 10, opset_import: ["" : 17]>
            g (float[2] x) => (float[2] y, float[2] c) <float[2] {name} = {{1.0, 2.0}}>
            {{ y = Add (x, {name}) {more} }}"""
        )
        for name, more in (("c", ""), ("d", "c = Identity (d)"))
    )
    assert flatfold.verify(one, two).verdict == "bounded"


def test_a_layer_of_no_channels_is_proved_and_an_engine_may_refuse_it() -> None:
    """It has no products, and gives zeros."""
    pytest.importorskip("openvino")
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 0, 4, 7] x) => (float[1, 1, a, b] y) { y = ConvTranspose (x, w) }"""
    proto = onnx.parser.parse_model(text)
    weight = np.zeros((0, 1, 4, 3), np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    assert flatfold.optimize(proto).equivalence.passed
    with pytest.raises(InputError, match="'x' has no elements"):
        flatfold.compile(proto, target="openvino")


@pytest.mark.parametrize(("end", "verdict"), [("Neg (y)", "refuted"), ("Identity (y)", "sampled")])
def test_an_infinity_that_becomes_the_other_one_is_a_difference(end, verdict):
    """Behind an overflow, which is the same in both, the sign of the infinity still counts."""
    models = []
    for last in ("Identity (y)", end):
        text = f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[2, 5] x) => (float[2, 5] z) <float zero = {{0.0}}> {{
        a = Abs (x) b = Mul (a, zero) c = Log (b) y = Add (c, x) z = {last} }}"""
        models.append(ir.from_proto(onnx.parser.parse_model(text)))
    found = compare(*models)
    assert found.verdict == verdict


def test_an_overflow_in_a_branch_refutes_nothing():
    """inf - inf / 2 in one order of the products is inf in the other one."""
    models = []
    for rest in ("h = Mul (b, half) n = Neg (h) y = Add (b, n)", "y = Mul (b, half)"):
        text = f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[2, 5] x) => (float[2, 5] y)
        <bool yes = {{1}}, float large = {{3e38}}, float ten = {{10.0}}, float half = {{0.5}}> {{
        b = If (yes) <
          then_branch = one () => (float[2, 5] b1) {{ a = Mul (x, large) b1 = Mul (a, ten) }},
          else_branch = two () => (float[2, 5] b2) {{ b2 = Identity (x) }}> {rest} }}"""
        models.append(ir.from_proto(onnx.parser.parse_model(text)))
    assert compare(*models).verdict == "sampled"


def test_an_input_of_too_many_elements_is_said_by_name():
    text = """<ir_version: 8, opset_import: ["" : 17]>
    net (float[4611686018427387904, 2] x) => (float[4611686018427387904, 2] y) { y = Relu (x) }"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    with pytest.raises(InputError, match="'x' has 9223372036854775808 elements"):
        compare(model, model.clone())


def test_a_pool_that_visits_too_many_pixels_is_said_by_name():
    """ONNX Runtime goes through every pixel of a window, those beside the map too."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    net (float[2, 5] x) => (float[1, 1, 2, 5] y) <int64[4] s = {1, 1, 2, 5}>
    { a = Reshape (x, s) y = AveragePool <auto_pad = "SAME_LOWER", kernel_shape = [3, 2147483648]>
    (a) }"""
    with pytest.raises(InputError, match="the pool of 'y' visits 64424509440 pixels"):
        flatfold.optimize(onnx.parser.parse_model(text))


@pytest.mark.parametrize(
    "how",
    [
        *('auto_pad = "SAME_UPPER"', 'auto_pad = "SAME_LOWER"', 'auto_pad = "VALID"'),
        *("output_shape = [9, 13]", 'output_shape = [9, 12], auto_pad = "SAME_UPPER"'),
        "output_shape = [10, 13], output_padding = [1, 1]",
    ],
)
def test_the_reference_gives_a_wanted_output_size_as_onnx_runtime_does(how: str) -> None:
    rng = np.random.default_rng(0)
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    net (float[2, 4, 5, 7] x, float[4, 3, 3, 3] w) => (float[2, 6, h, v] y)
    {{ y = ConvTranspose <group = 2, strides = [2, 2], {how}> (x, w) }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    feeds = {"x": rng.standard_normal((2, 4, 5, 7)), "w": rng.standard_normal((4, 3, 3, 3))}
    feeds = {name: array.astype(np.float32) for name, array in feeds.items()}
    (exact,), (found,) = onnx_reference(model)(feeds), plain_session(model, "it")(feeds)
    # 4 channels of at most 4 taps, each product and sum rounded to 2^-24 of numbers below 16
    np.testing.assert_allclose(found, exact, rtol=0, atol=16 * 16 * 2.0**-24)


def test_what_a_file_does_not_say_the_type_of_is_rounded_otherwise_too():
    """(c + p) - p is c only up to the rounding of p, which may be large."""
    models = []
    for rest in ("s = Add (c, p) y = Sub (s, p)", "z = Sub (p, p) y = Add (c, z)"):
        text = f"""<ir_version: 8, opset_import: ["" : 14]>
        net (float[2, 5] x) => (float[2, 5] y, float[2, 5] q)
        <float[5] c = {{0.3, -0.7, 1.1, 0.2, 0.9}}, float[1] slope = {{0.3}}, float k = {{0.1}},
         uint8 zero = {{0}}> {{
        d = QuantizeLinear (x, k, zero) q = DequantizeLinear (d, k, zero)
        p = PRelu (x, slope) {rest} }}"""
        model = ir.from_proto(onnx.parser.parse_model(text))
        assert model.graph.node(2).outputs[0].type is None
        models.append(model)
    assert compare(*models).verdict == "sampled"
