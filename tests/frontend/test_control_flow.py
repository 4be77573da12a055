"""An If with a constant condition becomes the branch that it takes."""

from __future__ import annotations

from collections.abc import Callable

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


def test_results_that_nothing_reads_go_from_both_branches() -> None:
    model = from_text(
        """g (float[2] x, bool c) => (float[2] y) {
            a, y, b = If (c) <
                then_branch = t () => (float[2] p, float[2] q, float[2] r) {
                    p = Neg (x) q = Exp (p) r = Abs (q)
                },
                else_branch = f () => (float[2] p2, float[2] q2, float[2] r2) {
                    p2 = Exp (x) q2 = Neg (x) r2 = Abs (x)
                }
            >
        }"""
    )
    assert_same_function(model)
    _, *branches = model.graphs()
    assert [[n.op_type for n in branch] for branch in branches] == [["Neg", "Exp"], ["Neg"]]
    assert len(model.graph[0].outputs) == 1


def test_an_if_that_nothing_reads_goes_with_all_that_only_it_reads() -> None:
    model = from_text(
        """g (float[2] x, bool c) => (float[2] y) {
            e = Exp (x)
            a = If (c) <
                then_branch = t () => (float[2] p) { p = Neg (e) },
                else_branch = f () => (float[2] q) { q = Abs (e) }
            >
            y = Sqrt (x)
        }"""
    )
    canonicalize(model)
    assert counts(model) == {"Sqrt": 1}


RANKS = """g (float[2, 3, n] x, bool go, float[1, 16, 3] w, float[1, 16, 4] r, float[4, 2, 1] k)
=> (float[a, b, c] y, float[i, j, l] z) <int64[1] last = {{-1}}, int64[1] first = {{0}},
int64[1] one = {{1}}, int64 two = {{2}}, int64 three = {{3}}> {{
    s = Shape (x)
    size = Gather (s, last)
    single = Equal (size, one)
    v = If (single) <
        then_branch = t () => (float[d, e] p) {{ p = Squeeze (x, last) }},
        else_branch = f () => (float[d, e, h] q) {{ q = Identity (x) }}
    >
    vs = Shape (v)
    rank = Size (vs)
    flat = Equal (rank, two)
    many = Not (flat)
    bool = Cast <to = 9> (many)
    z = If (bool) <
        then_branch = t2 () => (float[i, j, l] p2) {{ p2 = Exp (x) }},
        else_branch = f2 () => (float[i, j, l] q2) {{ q2 = Neg (x) }}
    >
    m = Unsqueeze (v, first)
    {body}
}}"""


def ranked(body: str, size: int) -> tuple[ir.Model, Callable[[ir.Model], list[np.ndarray]]]:
    """A value v of two axes where x has one column, else of three, and its results."""
    model = from_text(RANKS.format(body=body))
    rng = np.random.default_rng(0)
    shapes = {"x": (2, 3, size), "w": (1, 16, 3), "r": (1, 16, 4), "k": (4, 2, 1)}
    feeds = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    return model, lambda other: run(other, feeds | {"go": np.array(True)})


@pytest.mark.parametrize(
    "body", ["all, y, cell = LSTM <hidden_size = 4> (m, w, r)", "y = Conv (m, k)"]
)
def test_a_branch_that_a_node_behind_it_could_not_run_with_is_not_taken(body: str) -> None:
    """The If stays, so that the node still refuses; what depends on the number of axes is known."""
    model, results = ranked(body, size=1)
    before = results(model)
    canonicalize(model)
    for old, new in zip(before, results(model), strict=True):
        np.testing.assert_array_equal(old, new)
    (left,) = [node for node in model.graph if node.op_type == "If"]
    assert "Neg" in counts(model) and "Exp" not in counts(model)
    assert left.outputs[0].shape is not None and left.outputs[0].shape.rank() == 2
    _, refused = ranked(body, size=2)
    with pytest.raises(Exception, match="dim"):
        refused(model)


UNDECIDED = {
    "either may run": "y = Identity (m)",
    "in a branch that need not run": """y = If (go) <
        then_branch = t3 () => (float[a, b, c] p3) {
            all, p3, cell = LSTM <hidden_size = 4> (m, w, r)
        },
        else_branch = f3 () => (float[a, b, c] q3) { q3 = Exp (x) }
    >""",
    "in a loop that need not run": """y = Loop (three, go, x) <
        body = b3 (int64 step, bool on, float[a, b, c] state) => (bool on4, float[a, b, c] p4) {
            on4 = Identity (on)
            all, p4, cell = LSTM <hidden_size = 4> (m, w, r)
        }
    >""",
    "not read": "all, other, cell = LSTM <hidden_size = 4> (m, w, r) y = Exp (x)",
    "in another domain": "y = LSTM (m, w, r)",
}


@pytest.mark.parametrize("case", UNDECIDED)
def test_a_branch_that_may_be_taken_stays(case: str) -> None:
    model, _ = ranked(UNDECIDED[case], size=1)
    if case == "in another domain":
        next(node for node in model.graph if node.op_type == "LSTM").domain = "own"
    before = counts(model)["If"]
    canonicalize(model)
    assert counts(model)["If"] == before
    _, *bodies = model.graphs()
    assert ["Exp"] in [[node.op_type for node in body] for body in bodies]


@pytest.mark.parametrize("size", [1, 2])
def test_what_was_only_tried_is_declared_of_nothing(size: int) -> None:
    """Either branch may be taken: a body behind the If returns two axes more, or three."""
    body = """y = If (go) <
        then_branch = t3 () => (float[] p3) { p3 = Abs (m) },
        else_branch = f3 () => (float[] q3) { q3 = Sqrt (m) }
    >"""
    model, results = ranked(body, size)
    before = results(model)
    canonicalize(model)
    for old, new in zip(before, results(model), strict=True):
        np.testing.assert_array_equal(old, new)
    last = [node for node in model.graph if node.op_type == "If"][-1]
    assert all(a.as_graph().outputs[0].shape is None for a in last.attributes.values())


def test_what_a_body_declares_of_its_inputs_is_not_believed() -> None:
    """The state grows with each step, although the body says that it has the shape of x."""
    model = from_text(
        """g (float[2, 3] x, int64 n, bool go) => (float[a, b] y)
        <int64[1] zero = {0}, int64[1] two = {2}> {
            y = Loop (n, go, x) <
                body = l (int64 i, bool on, float[2, 3] v) => (bool on2, float[2, 3] w)
                {
                    on2 = Identity (on)
                    first = Slice (v, zero, two, zero)
                    sums = Add (first, x)
                    w = Concat <axis = 0> (v, sums)
                }
            >
        }"""
    )
    feeds = {"x": np.ones((2, 3), np.float32), "n": np.array(3), "go": np.array(True)}
    (before,) = run(model, feeds)
    canonicalize(model)
    (after,) = run(model, feeds)
    assert after.shape == (8, 3)
    np.testing.assert_array_equal(after, before)


def test_what_a_body_computes_of_known_sizes_is_a_constant() -> None:
    model = from_text(
        """g (float[2, 3] x, int64 n, bool go) => (float[a, b] y) {
            y = Loop (n, go, x) <
                body = l (int64 i, bool on, float[c, d] v) => (bool on2, float[c, d] w) {
                    on2 = Identity (on)
                    s = Shape (v)
                    k = ConstantOfShape <value = float[1] {2.0}> (s)
                    m = Mul (v, k)
                    w = Reshape (m, s)
                }
            >
        }"""
    )
    feeds = {"x": np.ones((2, 3), np.float32), "n": np.array(3), "go": np.array(True)}
    before = run(model, feeds)
    canonicalize(model)
    _, body = model.graphs()
    assert [node.op_type for node in body] == ["Identity", "Mul"]
    np.testing.assert_array_equal(run(model, feeds)[0], before[0])
