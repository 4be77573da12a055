"""An If with a constant condition becomes the branch that it takes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from flatfold.frontend import canonicalize
from tests.frontend.assertions import assert_same_function
from tests.frontend.execution import counts, from_text, run


@pytest.mark.parametrize("taken", [0, 1])
def test_the_branch_taken_stays(taken: int) -> None:
    """It has an initializer, uses a name that is used outside, and reads a value from outside."""
    model = from_text(
        f"""g (float[2] x) => (float[2] y) <float[2] k = {{3.0, 5.0}}> {{
            c = Constant <value = bool {{{taken}}}> ()
            p = Sub (x, k)
            q = If (c) <
                then_branch = t () => (float[2] r) <float[2] k = {{1.0, 2.0}}> {{ r = Add (x, k) }},
                else_branch = f () => (float[2] r) {{ n = Neg (p) r = Mul (n, n) }}
            >
            y = Div (q, p)
        }}"""
    )
    assert_same_function(model)
    assert counts(model) == {"Sub": 1, "Div": 1} | ({"Add": 1} if taken else {"Neg": 1, "Mul": 1})


def test_branches_that_return_values_unchanged() -> None:
    """An input, an initializer and one value twice, all of them outputs of the graph."""
    model = from_text(
        """g (float[2] x) => (float[2] a, float[2] b, float[2] d, float[2] e)
        <float[2] k = {3.0, 5.0}> {
            c = Constant <value = bool {1}> ()
            a, b, d, e = If (c) <
                then_branch = t () => (float[2] p, float[2] q, float[2] r, float[2] s) {
                    p = Identity (x) q = Identity (k) r = Neg (x) s = Identity (r)
                },
                else_branch = f () => (float[2] p, float[2] q, float[2] r, float[2] s) {
                    p, q = Split <num_outputs = 2> (k) r = Neg (x) s = Neg (k)
                }
            >
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Neg": 1, "Identity": 3}


def test_a_condition_computed_from_shapes_and_a_nested_if() -> None:
    model = from_text(
        """g (float[N, 3] x) => (float[N, 3] y) <int64 two = {2}, int64 one = {1}> {
            s = Shape (x)
            r = Size (s)
            c = Equal (r, two)
            y = If (c) <
                then_branch = t () => (float[N, 3] p) {
                    n = Equal (r, one)
                    p = If (n) <
                        then_branch = u () => (float[N, 3] q) { q = Neg (x) },
                        else_branch = v () => (float[N, 3] w) { w = Abs (x) }
                    >
                },
                else_branch = f () => (float[N, 3] z) { z = Exp (x) }
            >
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Abs": 1}


def test_a_condition_that_the_caller_may_override_stays() -> None:
    model = from_text(
        """g (float[2] x, bool c) => (float[2] y) <bool c = {1}> {
            y = If (c) <
                then_branch = t () => (float[2] p) { p = Neg (x) },
                else_branch = f () => (float[2] q) { q = Abs (x) }
            >
        }"""
    )
    canonicalize(model)
    assert counts(model) == {"If": 1}
    feeds = {"x": np.array([-1, 2], np.float32), "c": np.array(False)}
    assert run(model, feeds)[0].tolist() == [1, 2]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_what_only_the_other_branch_reads_goes() -> None:
    model = from_text(
        """g (float[2] x) => (float[2] y) <float[2] k = {3.0, 5.0}, float[2] m = {1.0, 2.0}> {
            c = Constant <value = bool {1}> ()
            y = If (c) <
                then_branch = t () => (float[2] r) { r = Add (x, k) },
                else_branch = f () => (float[2] r) {
                    d = Constant <value = bool {1}> ()
                    r = If (d) <
                        then_branch = t2 () => (float[2] s) { s = Mul (x, m) },
                        else_branch = f2 () => (float[2] s) { s = Neg (x) }
                    >
                }
            >
        }"""
    )
    assert_same_function(model)
    assert list(model.graph.initializers) == ["k"]
    assert not any(use.node.op_type == "Mul" for use in model.graph.inputs[0].uses())
