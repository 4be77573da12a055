"""Which differences refute a graph, and which are rounding."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.proof import compare
from flatfold.proof.network.judge import NOT_FLOATS, Comparison


@pytest.mark.parametrize(("label", "verdict"), [("large", "sampled"), ("normal", "refuted")])
def test_luck_of_the_original_does_not_count_on_the_very_large(label, verdict):
    """A gate on the point of closing: on one input the original happens to round as it should."""
    x = np.full((1, 4), 1e6, np.float32)

    def exact(feeds):
        return [np.asarray(feeds["x"], np.float64)]

    def gated(feeds):
        return [(feeds["x"] * (1 + 1e-5)).astype(np.float32)]

    def lucky(feeds):
        return [feeds["x"]] if np.array_equal(feeds["x"], x) else gated(feeds)

    comparison = Comparison(lucky, gated, exact, "numpy", 2.0**-24)
    comparison.try_input(f"{label} 1x4", {"x": x}, lucky({"x": x}))
    assert comparison.worst.verdict == verdict


@pytest.mark.parametrize("share", [1e-7, 0.0])
def test_integers_that_differ_are_told(share):
    """The larger of two scores that are closer than rounding; and twice the same."""

    def picked(by):
        drawn = np.random.default_rng(0).standard_normal((1, 4, 1, 1)).astype(np.float32)
        weight = ir.tensor(np.concatenate([drawn, drawn * np.float32(1 + by)]), name="w")
        text = '<ir_version: 10, opset_import: ["" : 20]> g (float[1, 4, 3, 3] x) => '
        text += "(int64[1, 1, 3, 3] y) { scores = Conv (x, w)  y = ArgMax <axis = 1> (scores) }"
        return ir.from_onnx_text(text, initializers=[weight])

    found = compare(picked(0.0), picked(share))
    same = share == 0
    assert found.verdict == ("sampled" if same else "refuted")
    assert found.reason == ("" if same else NOT_FLOATS)
    assert found.is_less_exact is not same
