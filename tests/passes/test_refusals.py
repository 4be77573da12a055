"""Every code with a graph that trips it: the remark has the numbers and a hint, the graph stays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto

from flatfold.passes.remark import HINTS
from tests.nets import assert_untouched, rewrite
from tests.passes import refused

Case = tuple[str, Callable[[], ModelProto], str]
CASES: tuple[Case, ...] = (
    ("ALONE", refused.alone, "Exp"),
    ("ATTRIBUTE", lambda: refused.with_attributes(strides=[0, 1]), "(0, 1)"),
    ("ATTRIBUTE", lambda: refused.with_attributes(group=3), "3 groups"),
    ("AUTO-PAD", refused.auto_padded, "stride 2"),
    ("BORDER", refused.padded_twice, "1 live"),
    ("BORDER-BIAS", refused.shifted_in_front_of_padding, "(2, 2)"),
    ("BORDER-BIAS", refused.bias_in_front_of_a_transposed_one, "stride (2, 2)"),
    ("BORDER-BIAS", refused.another_border, "1 constants of up to 1.5"),
    ("BORDER-BIAS", refused.constant_channels_in_front_of_padding, "2 channels"),
    ("BROADCAST", refused.broadcast, "[2,4,1,1]"),
    ("CEIL-MODE", lambda: refused.pooled(strides=[2, 2], ceil_mode=1), "(3, 3)"),
    ("CHANNELS", refused.heights_of_other_channels, "[4, 5]"),
    ("COMPOSITE", refused.half_of_a_gelu, "part of a Gelu"),
    ("CONSTANT", refused.constants_in_a_sum, "1 of the 3"),
    ("COST", refused.bottleneck, "8.0x"),
    ("COUNT-PAD", lambda: refused.pooled(pads=[1, 1, 1, 1]), "(1, 1)"),
    ("DTYPE", refused.of_integers, "INT32"),
    ("FRACTION", refused.between_pixels, "of a pixel"),
    ("INFINITE", refused.chosen_of_infinite, "the result of a Exp"),
    ("LAYOUT", refused.along_other_axes, "axis 1"),
    ("MATMUL", refused.by_a_matrix_on_the_left, "is the left factor: it mixes rows of x"),
    ("MATMUL", refused.by_many_matrices, "(2, 5, 3)"),
    ("NONFINITE", lambda: refused.with_parameters(0, 3, np.nan), "nan in element [3, 0, 0, 0]"),
    ("NONFINITE", lambda: refused.with_parameters(2, 4, np.inf), "inf in channel 4"),
    ("NONFINITE", lambda: refused.with_parameters(4, 5, -0.25), "-0.25 in channel 5"),
    ("NONFINITE", lambda: refused.with_parameters(4, 1, 0.0, eps=0.0), "0 in channel 1"),
    ("NONFINITE", refused.divided, "channel 2"),
    ("NONFINITE", lambda: refused.gemm(2, 4, alpha=float("inf")), "inf"),
    ("NOT-CONSTANT", refused.overridable, "c2 is an input that the caller may set"),
    ("NOT-PER-CHANNEL", refused.per_pixel, "(9, 8)"),
    ("OLD-OPSET", refused.every_second_pixel_in_an_old_opset, "has opset 9"),
    ("OUTPUT", lambda: refused.read_besides(""), "conv0"),
    ("OVERFLOW", lambda: refused.scaled(1e25, 1e15), "1e+40 in output channel 2"),
    ("OVERFLOW", lambda: refused.scaled(1e3, 1e3, np.float16), "1e+06 in output channel 2"),
    ("OVERFLOW", lambda: refused.scaled(1e200, 1e200, np.float64), "1.8e+308"),
    ("PAD-MODE", lambda: refused.padded_by("reflect"), "reflect"),
    ("SHAPE", refused.of_unknown_rank, "exp0"),
    ("SHARED", lambda: refused.read_besides("Tanh"), "2 times"),
    ("SIZE", refused.equal_on_some_sizes, "None"),
    ("SLICE", refused.nothing_of_it, "5 to 3"),
    ("SOURCES", refused.of_two_values, "2 terms"),
    ("STRIDE", refused.at_other_strides, "(1, 3)"),
    ("TRAINING-MODE", refused.in_training, "training_mode is 1"),
    ("TRANSPOSED", lambda: refused.gemm(4, 2, transA=1), "transA is 1"),
    ("UNDERFLOW", lambda: refused.scaled(1e-30, 1e-15), "1e-45 in output channel 2"),
    ("UNDERFLOW", lambda: refused.scaled(1e-3, 1e-4, np.float16), "in output channel 2"),
    ("UNDERFLOW", lambda: refused.scaled(1e-200, 1e-200, np.float64), "1e-308"),
    ("UNPROVED", refused.unknown_to_the_check, "reflect"),
    ("UPSAMPLE", refused.spread_out, "(3, 3)"),
)


@pytest.mark.parametrize(
    "code, model, number", CASES, ids=[f"{case[0]} {i}" for i, case in enumerate(CASES)]
)
def test_what_is_declined_says_why_and_stays(code, model, number):
    done = rewrite(model())
    told = [remark for remark in done.remarks if remark.code == code]
    assert [remark for remark in told if number in remark.reason], done.remarks
    assert {remark.hint for remark in told} == {HINTS[code]}
    assert_untouched(done)


def test_every_code_has_a_hint_and_a_graph():
    """The codes are those of the source: tests/docs/test_pages.py compares them with the hints.

    No graph is known that runs out of sweeps; test_potential.py allows for one only. What is SLOWER
    is taken back by time: tests/test_tuning.py. What keeps its scale (NOT-HOMOGENEOUS, TIED) is of
    a pass that is not in the pipeline: test_equalize_channels.py. What keeps float32 is in
    test_narrow_types.py and tests/test_precision.py, and what int8 is in tests/quantizing.
    """
    in_float32 = {"ASKED", "CODES", "CONTROL-FLOW", "DROP", "RANGE", "ROUNDING"}
    elsewhere = {"NO-GAIN", "NOT-HOMOGENEOUS", "SLOWER", "SWEEPS", "TIED", *in_float32}
    assert {code for code, _, _ in CASES} | elsewhere == set(HINTS)
