"""What no input ran is named, and the verdict is unknown; branches that are alike need not run."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

import flatfold
from flatfold.proof import compare
from flatfold.proof.network.branches import Watch
from flatfold.proof.network.session import PlainSession

# Of the sum q over the input, or the integer t; and the branch that runs on no input.
CONDITIONS = {
    "p = Tanh (q) c = Less (p, huge)": "else_branch",
    "p = Tanh (q) c = Greater (p, huge)": "then_branch",
    "c = Greater (q, zero)": "",
    "c = Equal (t, seven)": "",
}


def gated(condition: str, factor: float = 2.0, slope: float = 0.5, name: str = "a") -> ir.Model:
    """A LeakyRelu where the condition is true, and a product where it is not."""
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    net (float[2, 5] x, int64 t) => (float[2, 5] y)
    <float zero = {{0.0}}, int64 seven = {{7}}, float huge = {{1e30}}> {{
        q = ReduceSum <keepdims = 0> (x)
        {condition}
        y = If (c) <
            then_branch = yes () => (float[2, 5] r) {{ r = LeakyRelu <alpha = {slope}> (x) }},
            else_branch = no () => (float[2, 5] s) {{ s = Mul (x, {name}) }}>
    }}"""
    model = onnx.parser.parse_model(text)
    weight = numpy_helper.from_array(np.array(factor, np.float32), name)
    model.graph.node[-1].attribute[1].g.initializer.append(weight)
    assert model.graph.node[-1].attribute[1].name == "else_branch"
    return ir.from_proto(model)


@pytest.mark.parametrize(("condition", "never"), CONDITIONS.items())
def test_a_branch_that_differs_and_never_runs_is_named(condition: str, never: str):
    changes = {"then_branch": {"slope": 0.25}, "else_branch": {"factor": 3.0}}
    for branch, change in changes.items():
        found = compare(gated(condition), gated(condition, **change))
        assert found.verdict == ("unknown" if branch == never else "refuted")
        assert (f"no input ran {branch} of If 'y'" in found.reason) == (branch == never)
        assert found.uncovered == ((f"{branch} of If 'y'",) if branch == never else ())


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_branch_that_only_has_other_names_need_not_run(condition: str):
    assert compare(gated(condition), gated(condition, name="b")).verdict == "sampled"


@pytest.mark.parametrize("condition", ["c = Less (zero, huge)", "n = Size (x) c = Less (n, seven)"])
def test_a_branch_that_no_numbers_decide_may_go(condition: str):
    result = flatfold.optimize(ir.to_proto(gated(condition)))
    assert "If" not in {node.op_type for node in result.model.graph.node}
    assert result.equivalence.passed


def looped(trips: str, factor: float) -> ir.Model:
    """x multiplied up to three times, or never: int(|tanh(sum of x)| * `trips`) times."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Mul", ["carried", "w"], ["out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", 7, []),
            helper.make_tensor_value_info("go", 9, []),
            helper.make_tensor_value_info("carried", 1, [2, 5]),
        ],
        [
            helper.make_tensor_value_info("on", 9, []),
            helper.make_tensor_value_info("out", 1, [2, 5]),
        ],
        [numpy_helper.from_array(np.array(factor, np.float32), "w")],
    )
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    net (float[2, 5] x) => (float[2, 5] y)
    <float zero = {{0.0}}, float three = {{3.0}}, bool go = {{1}}> {{
        q = ReduceSum <keepdims = 0> (x)
        p = Tanh (q)
        a = Abs (p)
        b = Mul (a, {trips})
        n = Cast <to = 7> (b)
        y = Identity (x)
    }}"""
    model = onnx.parser.parse_model(text)
    loop = helper.make_node("Loop", ["n", "go", "x"], ["y"], name="again", body=body)
    model.graph.node[-1].CopyFrom(loop)
    return ir.from_proto(model)


def test_the_body_of_a_loop_that_never_runs_is_named():
    assert compare(looped("three", 0.5), looped("three", 0.6)).verdict == "refuted"
    found = compare(looped("zero", 0.5), looped("zero", 0.6))
    assert (found.verdict, found.uncovered) == ("unknown", ("body of Loop 'again'",))
    assert compare(looped("zero", 0.5), looped("zero", 0.5)).verdict == "sampled"


def by_rate(factor: float, refusing: bool = False) -> ir.Model:
    """32 samples at one rate, 16 at any other one: a batch of rows of 16 at both.

    The rows of the second branch are scaled. `refusing`: it runs at no size.
    """
    rows = "-1, 16, 7" if refusing else "-1, 16"
    count = 3 if refusing else 2
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    net (float[n, length] x, int64 rate) => (float[a, b] y)
    <int64 high = {{16000}}, int64[2] wide = {{-1, 32}}, int64[{count}] rows = {{{rows}}}> {{
        c = Equal (rate, high)
        y = If (c) <
            then_branch = yes () => (float[a, b] r) {{ w = Reshape (x, wide) r = Neg (w) }},
            else_branch = no () => (float[a, b] s) {{
                k = Constant <value_float = {factor}> ()
                m = Mul (x, k) v = Reshape (m, rows) s = Add (v, x)
            }}>
    }}"""
    return ir.from_proto(onnx.parser.parse_model(text))


def test_a_branch_that_only_runs_at_other_sizes_is_run_at_these():
    assert compare(by_rate(2.0), by_rate(2.0)).verdict == "sampled"
    assert compare(by_rate(2.0), by_rate(3.0)).verdict == "refuted"
    found = compare(by_rate(2.0, refusing=True), by_rate(3.0, refusing=True))
    assert (found.verdict, found.uncovered) == ("unknown", ("else_branch of If 'y'",))


def test_a_constant_may_be_kept_otherwise():
    """As an initializer of the branch, or as a node in it."""
    one, two = gated("c = Greater (q, zero)"), gated("c = Greater (q, zero)")
    branch = next(node for node in two.graph if node.op_type == "If").attributes["else_branch"]
    (weight,) = branch.as_graph().initializers.values()
    assert weight.const_value is not None
    constant = ir.node("Constant", [], {"value": weight.const_value})
    constant.outputs[0].name = "k"
    branch.as_graph().insert_before(branch.as_graph()[0], constant)
    ir.convenience.replace_all_uses_with(weight, constant.outputs[0])
    branch.as_graph().initializers.clear()
    assert not Watch.of(one, two, PlainSession).branches
    assert Watch.of(one, gated("c = Greater (q, zero)", 3.0), PlainSession).branches
