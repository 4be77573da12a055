"""Typed graphs in their own arithmetic."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from flatfold.errors import BuildError
from flatfold.proof.network.arithmetic import (
    Rounding,
    TypedSession,
    UnsupportedTypes,
    half_types,
    open_session,
)
from flatfold.proof.network.reference import onnx_reference
from flatfold.proof.network.session import PlainSession
from tests.nets import Net
from tests.typed import BRAIN, HALF, repvgg, typed

NUMPY = {HALF: np.float16, BRAIN: ml_dtypes.bfloat16}
ROUNDING = [Rounding.NEAREST, Rounding.UNBOUNDED, Rounding.MOVED, Rounding.REWEIGHTED]
KINDS = [HALF, BRAIN]


def graph(text: str) -> ir.Model:
    return ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 22]> {text}')


def rounded(array: np.ndarray, dtype: ir.DataType) -> np.ndarray:
    """By NumPy and ml_dtypes, which share no code with ONNX Runtime's Cast."""
    with np.errstate(over="ignore"):
        return array.astype(NUMPY[dtype]).astype(np.float32)


def numbers() -> np.ndarray:
    """Of all sizes: ties, subnormal numbers of float16, and what is too large for it."""
    rng = np.random.default_rng(0)
    sizes = 2.0 ** rng.integers(-30, 20, 4000)
    ties = 1 + np.arange(1 << 13) * 2.0**-12
    array = np.concatenate([rng.standard_normal(4000) * sizes, ties, [0.0, -0.0, 65519.0, 65520.0]])
    return array.astype(np.float32)


@pytest.mark.parametrize("dtype", KINDS)
def test_every_value_is_rounded_to_its_type(dtype):
    """y = relu(h + h) - h, each value rounded: by hand, number by number."""
    model = graph(
        f"g (float[n] x) => (float[n] y) {{ h = Cast <to = {int(dtype)}> (x)  s = Add (h, h)"
        "  r = Relu (s)  d = Sub (r, h)  y = Cast <to = 1> (d) }"
    )
    x = numbers()
    h = rounded(x, dtype)
    with np.errstate(invalid="ignore"):  # inf - inf
        expected = rounded(np.maximum(rounded(h + h, dtype), 0) - h, dtype)
    np.testing.assert_array_equal(TypedSession(model)({"x": x})[0], expected)


@pytest.mark.parametrize("dtype", KINDS)
def test_a_cast_is_not_left_out(dtype):
    """ONNX Runtime drops pairs of Casts that it has put in itself; those of a graph it keeps."""
    x = numbers()
    model = graph(
        f"g (float[n] x) => (float[n] y)"
        f"{{ h = Cast <to = {int(dtype)}> (x)  y = Cast <to = 1> (h) }}"
    )
    np.testing.assert_array_equal(TypedSession(model)({"x": x})[0], rounded(x, dtype))


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("shape", [(1, 16, 14, 13), (3, 5, 7, 11)])
def test_a_network_is_near_its_exact_outputs_and_not_nearer_than_its_type(dtype, ends, shape):
    model = typed(repvgg(shape), dtype, ends)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    x = x if ends else x.astype(NUMPY[dtype])
    (exact,) = onnx_reference(model)({"x": x.astype(np.float32)})
    unit = {HALF: 2.0**-11, BRAIN: 2.0**-8}[dtype] * np.abs(exact).max()
    for rounding in ROUNDING:
        (y,) = TypedSession(model, rounding)({"x": x})
        assert y.dtype == np.float32
        assert unit / 100 < np.sqrt(np.mean((y - exact) ** 2)) < 4 * unit
    (y,) = TypedSession(model, Rounding.NONE)({"x": x})
    assert np.abs(y - exact).max() < unit / 100


@pytest.mark.parametrize("dtype", KINDS)
def test_outputs_in_half_precision_are_numbers_of_their_type(dtype):
    model = typed(repvgg(), dtype, ends=False)
    x = np.random.default_rng(2).standard_normal((1, 16, 14, 13)).astype(NUMPY[dtype])
    (y,) = TypedSession(model)({"x": x})
    np.testing.assert_array_equal(y, rounded(y, dtype))


def test_moved_grids_are_another_draw_each_time_and_zeros_stay():
    model = graph("g (float16[n] x) => (float16[n] y) { y = Mul (x, x) }")
    session = TypedSession(model, Rounding.MOVED)
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float16)
    x[::10] = 0
    one, two = session({"x": x})[0], session({"x": x})[0]
    assert np.any(one != two) and not np.any(one[::10])
    error = np.abs(one / np.where(x == 0, 1, x.astype(np.float32) ** 2) - 1)[x != 0]
    normal = np.abs(one[x != 0]) > 2.0**-13
    assert error[normal].max() <= 1.01 * 2.0**-11


def test_an_engine_of_a_coarser_type_rounds_all_that_depends_on_an_input():
    """Inputs, weights and values are bfloat16; sizes, and what is computed from them, are not."""
    model = graph(
        "g (float[n] x) => (float[n] y) <float[2] w = {1.001, 3.003}, float[1] count = {1001.0}>"
        "{ p = Mul (x, w)  s = Add (count, count)  y = Div (p, s) }"
    )
    x = np.array([1.234567, 7.654321], np.float32)
    w = rounded(np.array([1.001, 3.003], np.float32), BRAIN)
    expected = rounded(rounded(rounded(x, BRAIN) * w, BRAIN) / np.float32(2002), BRAIN)
    (y,) = TypedSession(model, narrow=BRAIN)({"x": x})
    np.testing.assert_array_equal(y, expected)
    assert not np.array_equal(y, TypedSession(model)({"x": x})[0])


LOOP = """
g (float16[2] x) => (float16[2] y) <int64 trips = {3}, bool go = {1}> {
  y = Loop (trips, go, x) <body = b (int64 i, bool c, float16[2] a) => (bool d, float16[2] e) {
    d = Identity (c)  s = Mul (a, a)  e = Add (s, x) }>
}
"""
BRANCH = """
g (bool c, bfloat16[2] x) => (bfloat16[2] y) {
  y = If (c) <then_branch = t () => (bfloat16[2] u) { u = Mul (x, x) },
              else_branch = e () => (bfloat16[2] v) { v = Neg (x) }>
}
"""


def test_bodies_of_loops_and_branches_are_rounded_too():
    x = np.array([0.3337, 0.7771]).astype(np.float16)
    expected = x.astype(np.float32)
    for _ in range(3):
        expected = rounded(rounded(expected * expected, HALF) + x.astype(np.float32), HALF)
    np.testing.assert_array_equal(TypedSession(graph(LOOP))({"x": x})[0], expected)
    x = x.astype(ml_dtypes.bfloat16)
    single = x.astype(np.float32)
    (y,) = TypedSession(graph(BRANCH))({"c": np.array(True), "x": x})
    np.testing.assert_array_equal(y, rounded(single * single, BRAIN))
    (y,) = TypedSession(graph(BRANCH))({"c": np.array(False), "x": x})
    np.testing.assert_array_equal(y, -single)


def test_overflow_and_subnormal_numbers_of_float16():
    model = graph("g (float16[n] x) => (float16[n] y) { s = Mul (x, x)  y = Sqrt (s) }")
    x = np.array([300.0, 200.0, 2.2e-4, 3e-5], np.float16)
    (y,) = TypedSession(model)({"x": x})
    assert np.isinf(y[0]) and y[1] == 200 and y[3] == 0
    assert y[2] == 2.0**-12  # of a subnormal number: 4.8e-8 is nearest to 2^-24
    session = TypedSession(model, Rounding.UNBOUNDED)
    (y,), peaks = session.peaks({"x": x})
    assert y[0] == 300 and abs(y[3] / 3e-5 - 1) < 2.0**-8
    assert [peak.name for peak in peaks if peak.overflows] == ["s"]


def test_infinite_masks_are_no_overflow():
    text = "g (float16[2] x) => (float16[2] y) <float16[2] m = {0, 64512}> { y = Add (x, m) }"
    session = TypedSession(graph(text), Rounding.UNBOUNDED)
    (y,), peaks = session.peaks({"x": np.ones(2, np.float16)})
    assert y[0] == 1 and y[1] == -np.inf  # 64512 are the bits of minus infinity
    assert not any(peak.overflows for peak in peaks)


def test_only_half_precision_is_rounded():
    model = repvgg()
    assert half_types(model) == set() and isinstance(open_session(model), PlainSession)
    assert half_types(typed(model, BRAIN)) == {BRAIN}
    assert isinstance(open_session(typed(model, BRAIN)), TypedSession)


def test_a_graph_whose_types_do_not_fit_is_refused():
    """Computed in float32, they would fit."""
    mixed = "g (bfloat16[n] x) => (bfloat16[n] y) <float[1] w = {2.0}> { y = Mul (x, w) }"
    with pytest.raises(BuildError, match="Type"):
        open_session(graph(mixed))


def test_what_is_not_supported_says_so():
    sequence = (
        "g (float16[n] x) => (float16[n] y)"
        "{ s = SequenceConstruct (x)  y = ConcatFromSequence <axis = 0> (s) }"
    )
    with pytest.raises(UnsupportedTypes, match="no tensor"):
        TypedSession(graph(sequence))
    old = ir.from_onnx_text(
        '<ir_version: 3, opset_import: ["" : 6]>g (float16[n] x) => (float16[n] y) { y = Relu (x) }'
    )
    with pytest.raises(UnsupportedTypes, match="old opset"):
        TypedSession(old)


def test_a_bfloat16_layer_before_opset_22_runs():
    """The standard gives Conv bfloat16 from opset 22 on; exporters write it into older graphs."""
    net = Net((1, 4, 9, 8), dtype=np.float32, opset=18)
    model = typed(ir.from_proto(net.model(net.conv(net.x, 4, 4, (3, 3)))), BRAIN)
    with pytest.raises(BuildError):
        PlainSession(model)
    x = np.ones((1, 4, 9, 8), np.float32)
    assert np.all(np.isfinite(open_session(model)({"x": x})[0]))


@pytest.mark.parametrize("dtype", KINDS)
def test_types_that_a_file_does_not_say_are_inferred(dtype):
    """Also by ONNX: of a Reshape of constants, and of EyeLike, flatfold itself infers none."""
    name = {HALF: "float16", BRAIN: "bfloat16"}[dtype]
    model = graph(
        f"g ({name}[2, 2] x) => ({name}[2, 2] y) {{ two = Constant <value_ints = [2, 2]> ()"
        "  minus = Constant <value_ints = [-1]> ()  sizes = Reshape (two, minus)"
        "  e = EyeLike (x)  r = Reshape (x, sizes)  a = Add (r, e)  y = Mul (a, a) }"
    )
    for node in model.graph:
        if not node.outputs[0].is_graph_output():
            node.outputs[0].type = None
    x = np.array([[0.3337, 0.25], [0.7771, 1.5]]).astype(NUMPY[dtype])
    total = rounded(x.astype(np.float32) + np.eye(2, dtype=np.float32), dtype)
    np.testing.assert_array_equal(TypedSession(model)({"x": x})[0], rounded(total**2, dtype))
