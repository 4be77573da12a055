"""Graphs written by hand, each for one property of the canonical form."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.frontend import canonicalize
from tests.frontend.assertions import assert_invariants, assert_same_function
from tests.frontend.execution import counts, from_text, run


def test_shapes_are_inferred_and_computed_shapes_become_constant() -> None:
    model = from_text(
        """g (float[N, 4, 6, 6] x, float[4, 4, 3, 3] w) => (float[N, 64] y) {
            c = Conv <pads = [0, 0, 0, 0]> (x, w)
            s = Shape <start = 0, end = 1> (c)
            rest = Constant <value_ints = [-1]> ()
            target = Concat <axis = 0> (s, rest)
            y = Reshape (c, target)
        }"""
    )
    assert_same_function(model)
    assert_invariants(model)
    assert counts(model) == {"Conv": 1, "Reshape": 1}
    assert str(model.graph.node(0).outputs[0].shape) == "[N,4,4,4]"


def test_chains_of_constants_are_evaluated() -> None:
    model = from_text(
        """g (float[2, 3] x) => (float[2, 3] y)
        <float[3] a = {1.0, 2.0, 3.0}, float[1] unused = {1.0}> {
            two = Constant <value = float {2.0}> ()
            doubled = Mul (a, two)
            copied = Identity (doubled)
            dead = Add (x, unused)
            n = Constant <value_ints = [3]> ()
            ones = ConstantOfShape <value = float[1] {1.0}> (n)
            sum = Add (copied, ones)
            y = Add (x, sum)
        }"""
    )
    assert_same_function(model)
    assert_invariants(model)
    assert counts(model) == {"Add": 1}
    (constant,) = model.graph.initializers.values()
    assert constant.const_value is not None
    np.testing.assert_array_equal(constant.const_value.numpy(), [3, 5, 7])


def test_initializer_that_is_an_input_stays_overridable() -> None:
    model = from_text(
        """g (float[2] x, float[2] w = {1.0, 2.0}) => (float[2] y) {
            two = Constant <value = float {2.0}> ()
            doubled = Mul (w, two)
            y = Add (x, doubled)
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Mul": 1, "Add": 1}
    x, w = np.float32([1, 1]), np.float32([10, 20])
    np.testing.assert_array_equal(run(model, {"x": x, "w": w})[0], x + 2 * w)
    np.testing.assert_array_equal(run(model, {"x": x})[0], x + np.float32([2, 4]))


def test_overridable_shape_and_condition_are_not_taken_for_constants() -> None:
    model = from_text(
        """g (float[2, 3] x, int64[2] s = {2, 3}, bool c = {1}) => (float[a, b] y) {
            r = Reshape (x, s)
            y = If (c) <
                then_branch = t () => (float[d, e] p) { p = Neg (r) },
                else_branch = f () => (float[d, e] q) { q = Abs (r) }
            >
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Reshape": 1, "If": 1}
    feeds = {"x": np.ones((2, 3), np.float32), "s": np.int64([3, 2]), "c": np.array(False)}
    np.testing.assert_array_equal(run(model, feeds)[0], np.ones((3, 2)))


def test_identities_at_the_interface() -> None:
    model = from_text(
        """g (float[2] x) => (float[2] a, float[2] b, float[2] c, float[2] d)
        <float[2] w = {1.0, 2.0}> {
            n = Neg (x)
            a = Identity (n)
            b = Identity (a)
            c = Identity (x)
            d = Identity (w)
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Neg": 1, "Identity": 3}


@pytest.mark.parametrize("opset", [7, 11, 13, 20])
def test_dropout_in_inference_disappears(opset: int) -> None:
    model = from_text(
        f"""<ir_version: 8, opset_import: ["" : {opset}]>
        g (float[2, 3] x) => (float[2, 3] y) {{ r = Relu (x) d = Dropout (r) y = Neg (d) }}"""
    )
    assert_same_function(model)
    assert counts(model) == {"Relu": 1, "Neg": 1}


def test_dropout_that_may_be_switched_on_stays() -> None:
    model = from_text(
        """g (float[2, 3] x, bool train = {0}) => (float[2, 3] y) {
            half = Constant <value = float {0.5}> ()
            y = Dropout <seed = 1> (x, half, train)
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Dropout": 1}


def test_batchnorm_in_training_mode_is_untouched() -> None:
    model = from_text(
        """g (float[4, 2] x) => (float[4, 2] y, float[2] m)
        <float[2] s = {1.0, 2.0}, float[2] b = {0.1, 0.2}, float[2] mean = {0.3, 0.4},
         float[2] var = {1.0, 1.5}> {
            y, m, v = BatchNormalization <training_mode = 1> (x, s, b, mean, var)
        }"""
    )
    canonicalize(model)
    (norm,) = model.graph
    assert norm.attributes["training_mode"].as_int() == 1
    assert [value.name for value in norm.inputs] == ["x", "s", "b", "mean", "var"]


def test_bodies_are_cleaned_like_the_graph_around_them() -> None:
    """What a body returns is a value of its own: where it is one from outside, an Identity stays.

    Nothing that depends on constants is left, nothing that is computed outside already.
    """
    model = from_text(
        """g (float[2] x, bool c) => (float[2] y, float[2] z, float[2] r) {
            copy = Identity (x)
            e = Exp (copy)
            r = Abs (e)
            y = If (c) <
                then_branch = t () => (float[2] p) {
                    k = Constant <value = float[2] {1.0, 2.0}> ()
                    m = Neg (k)
                    i = Identity (copy)
                    d = Exp (i)
                    a = Add (d, m)
                    b = Add (d, m)
                    p = Mul (a, b)
                },
                else_branch = f () => (float[2] q) { l = Abs (e) q = Identity (copy) }
            >
            n = Constant <value = int64 {3}> ()
            z = Loop (n, c, copy) <
                body = l (int64 i, bool go, float[2] v) => (bool on, float[2] w) {
                    on = Identity (go)
                    o = Constant <value_ints = [0]> ()
                    u = Unsqueeze (copy, o)
                    s = Squeeze (u, o)
                    w = Add (v, s)
                }
            >
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Exp": 1, "Abs": 1, "If": 1, "Loop": 1}
    _, *bodies = model.graphs()
    found = [[node.op_type for node in body] for body in bodies]
    assert found == [["Add", "Mul"], ["Identity"], ["Identity", "Add"]]
    assert list(model.graph.initializers) == ["n"]
    (constant,) = bodies[0].initializers.values()
    assert constant.const_value is not None
    assert constant.const_value.numpy().tolist() == [-1.0, -2.0]


def test_functions_are_inlined() -> None:
    model = from_text(
        """<ir_version: 10, opset_import: ["" : 20, "f" : 1]>
        g (float[2] x) => (float[2] y) { t = f.twice (x) y = f.same (t) }
        <opset_import: ["" : 20], domain: "f"> twice (a) => (b) { b = Add (a, a) }
        <opset_import: ["" : 20], domain: "f"> same (a) => (b) { b = Identity (a) }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Add": 1} and not model.functions


def test_function_of_another_opset_stays_a_call() -> None:
    model = from_text(
        """<ir_version: 10, opset_import: ["" : 20, "f" : 1]>
        g (float[2] x) => (float[2] y) { t = f.twice (x) y = f.twice (t) }
        <opset_import: ["" : 17], domain: "f"> twice (a) => (b) { b = Add (a, a) }"""
    )
    function = next(iter(model.functions.values()))
    assert_same_function(model)
    assert counts(model) == {"twice": 2} and list(model.functions.values()) == [function]


def test_quantized_weight_stays_behind_dequantizelinear() -> None:
    model = from_text(
        """g (float[2] x) => (float[2] y)
        <int8[2] q = {1, 2}, float s = {0.5}, int8 z = {0}> {
            w = DequantizeLinear (q, s, z)
            y = Mul (x, w)
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"DequantizeLinear": 1, "Mul": 1}


def test_nodes_without_names_or_with_equal_names_get_unique_ones() -> None:
    model = from_text("g (float[2] x) => (float[2] y) { a = Neg (x) b = Neg (a) y = Neg (b) }")
    assert not any(node.name for node in model.graph)
    assert_same_function(model)
    assert_invariants(model)
    for node in model.graph:
        node.name = "same"
    canonicalize(model)
    assert_invariants(model)


def test_weight_computed_from_weights_is_folded_at_any_size() -> None:
    model = from_text(
        """g (float[1, 600] x, float[600, 600] w) => (float[600, 600] y) {
            t = Neg (w) y = Mul (x, t)
        }"""
    )
    weight = model.graph.inputs.pop(1)
    weight.const_value = ir.tensor(np.ones((600, 600), np.float32), name="w")
    model.graph.register_initializer(weight)
    assert_same_function(model)
    assert counts(model) == {"Mul": 1}


def test_sequences_of_unknown_parts_are_left_alone() -> None:
    """The folding library would write a Split of another opset, and lose the types."""
    model = from_text(
        """g (float[3] x, int64 at) => (float[N] y) <int64[2] sizes = {1, 2}> {
            parts = SplitToSequence <axis = 0> (x, sizes)
            y = SequenceAt (parts, at)
        }"""
    )
    canonicalize(model)
    assert counts(model) == {"SplitToSequence": 1, "SequenceAt": 1}
    feeds = {"x": np.arange(3, dtype=np.float32), "at": np.array(0)}
    assert run(model, feeds)[0].tolist() == [0.0]


@pytest.mark.parametrize("number", [-(2**63), 99])
def test_a_type_that_does_not_exist_is_left_to_who_runs_the_graph(number: int) -> None:
    text = "g (float[3] x) => (float[3] y) {{ z = Cast <to = {}> (x)  y = Relu (z) }}"
    model = from_text(text.format(number))
    model.graph[0].outputs[0].type = None
    canonicalize(model)
    assert counts(model) == {"Cast": 1, "Relu": 1}


def chain(length: int) -> ir.Model:
    body = " ".join(f"v{i + 1} = Relu (v{i})" for i in range(length))
    return from_text(f"g (float[2] v0) => (float[2] v{length}) {{ {body} }}")


def weights_that_are_inputs(length: int) -> ir.Model:
    """As files of before opset 9 have them."""
    inputs = ", ".join(f"float[2] w{i} = {{1.0, 2.0}}" for i in range(length))
    body = " ".join(f"v{i + 1} = Add (v{i}, w{i})" for i in range(length))
    return from_text(f"g (float[2] v0, {inputs}) => (float[2] v{length}) {{ {body} }}")


@pytest.mark.parametrize("graph_of", [chain, weights_that_are_inputs])
def test_work_grows_linearly_with_the_graph(graph_of: Callable[[int], ir.Model]) -> None:
    """Measured in function calls, which do not depend on how busy the machine is."""

    def calls(length: int) -> int:
        model = graph_of(length)
        count = itertools.count()
        sys.setprofile(lambda *_: next(count))
        try:
            canonicalize(model)
        finally:
            sys.setprofile(None)
        return next(count)

    calls(10)  # import what the first call imports
    assert calls(1200) < 4.4 * calls(300)
