"""What is computed twice is computed once; what may differ each time, or is an output, stays."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

import flatfold
from flatfold.frontend.canonicalization.duplicates import merge_nodes
from tests.fuzz.sketch import run


def left(body: str, outputs: str = "float[2, 5] y", opset: int = 17) -> onnx.ModelProto:
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    net (float[2, 5] x) => ({outputs})
    <float[5] c = {{1.0, 2.0, 3.0, 4.0, 5.0}}, float[5] d = {{1.0, 2.0, 3.0, 4.0, 5.0}},
     float[5] e = {{1.0, 2.0, 3.0, 4.0, 6.0}}, float[1, 5] f = {{1.0, 2.0, 3.0, 4.0, 5.0}}> {{
        {body}
    }}"""
    model = onnx.parser.parse_model(text)
    result = flatfold.optimize(model, verify="off").model
    if "Random" not in body:
        x = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
        for before, after in zip(run(model, {"x": x}), run(result, {"x": x}), strict=True):
            np.testing.assert_array_equal(after, before)
    return result


def ops(model: onnx.ModelProto) -> Counter:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("a = Sigmoid (x) b = Sigmoid (x) y = Pow (a, b)", {"Sigmoid": 1, "Pow": 1}),
        ("a = Elu <alpha = 2.0> (x) b = Elu (x) y = Pow (a, b)", {"Elu": 2, "Pow": 1}),
        (
            "a = Sigmoid (x) b = Sigmoid (x) s = Tanh (a) t = Tanh (b) y = Pow (s, t)",
            {"Sigmoid": 1, "Tanh": 1, "Pow": 1},
        ),
        ("a = Max (x, c) b = Max (x, d) y = Pow (a, b)", {"Max": 1, "Pow": 1}),
        ("a = Max (x, c) b = Max (x, e) y = Pow (a, b)", {"Max": 2, "Pow": 1}),
        ("a = Max (x, c) b = Max (x, f) y = Pow (a, b)", {"Max": 2, "Pow": 1}),
        (
            "a = RandomNormalLike (x) b = RandomNormalLike (x) y = Pow (a, b)",
            {"RandomNormalLike": 2, "Pow": 1},
        ),
    ],
)
def test_what_is_computed_twice_is_computed_once(body: str, expected: dict) -> None:
    assert ops(left(body)) == expected


def test_equal_weights_stay_parameters_of_their_own() -> None:
    weights = ", ".join("1.0" for _ in range(25))
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    net (float[2, 5] x) => (float[2, 5] y)
    <float[5, 5] a = {{{weights}}}, float[5, 5] b = {{{weights}}}> {{
        c = MatMul (x, a) d = Relu (c) y = MatMul (d, b)
    }}"""
    result = flatfold.optimize(onnx.parser.parse_model(text), verify="off")
    assert result.before.parameters == result.after.parameters == 50


def test_two_outputs_that_are_the_same_stay_two() -> None:
    model = left("y = Sigmoid (x) z = Sigmoid (x)", "float[2, 5] y, float[2, 5] z")
    assert [value.name for value in model.graph.output] == ["y", "z"]


def test_a_branch_of_its_own_is_not_compared() -> None:
    branch = "then_branch = t () => (float[2, 5] r) { r = Relu (x) }"
    other = "else_branch = e () => (float[2, 5] s) { s = Neg (x) }"
    flag = "q = ReduceSum <keepdims = 0> (x) k = Cast <to = 9> (q)"
    body = f"{flag} a = If (k) <{branch}, {other}> b = If (k) <{branch}, {other}> y = Pow (a, b)"
    assert ops(left(body))["If"] == 2


def test_what_a_branch_computes_again_is_computed_before_it() -> None:
    """But not what is computed in another branch, or only behind the If."""
    body = """q = ReduceSum <keepdims = 0> (x) k = Cast <to = 9> (q) m = Tanh (x)
        a = If (k) <
            then_branch = t () => (float[2, 5] r) { n = Tanh (x) l = Exp (x) r = Pow (n, l) },
            else_branch = e () => (float[2, 5] s) { o = Exp (x) w = Sin (x) s = Pow (o, w) }
        > v = Sin (x) z = Pow (m, v) y = Pow (a, z)"""
    model = left(body)
    assert ops(model)["Tanh"] == ops(model)["Sin"] == 1
    (choice,) = [node for node in model.graph.node if node.op_type == "If"]
    branches = {a.name: Counter(n.op_type for n in a.g.node) for a in choice.attribute}
    assert branches == {
        "then_branch": {"Exp": 1, "Pow": 1},
        "else_branch": {"Exp": 1, "Sin": 1, "Pow": 1},
    }


def test_an_attribute_that_is_a_type_is_no_key():
    """Optional has the type of what it may hold."""
    kind = helper.make_tensor_type_proto(1, [2])
    nodes = [helper.make_node("Optional", [], [name], type=kind) for name in "ab"]
    nodes += [helper.make_node("OptionalHasElement", [n], [f"{n}_has"]) for n in "ab"]
    outputs = [helper.make_tensor_value_info(f"{n}_has", 9, []) for n in "ab"]
    graph = helper.make_graph(nodes, "types", [], outputs)
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    assert not merge_nodes(model.graph)
