"""Files that runtimes run although ONNX forbids them or says nothing about them."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import flatfold
from flatfold.errors import InputError
from flatfold.frontend import from_proto
from tests.frontend.execution import run

IMAGE = np.random.default_rng(0).standard_normal((2, 4, 7, 8)).astype(np.float32)


def normed(*, opset: int = 17) -> onnx.ModelProto:
    """A convolution and a BatchNormalization that folds into it, then a Relu; x, c, n, y."""
    rng = np.random.default_rng(1)
    weights = {"w": rng.standard_normal((4, 4, 3, 3)), "s": rng.uniform(1, 2, 4)}
    weights |= {"b": rng.standard_normal(4), "v": rng.uniform(1, 2, 4)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c", "s", "b", "b", "v"], ["n"]),
        helper.make_node("Relu", ["n"], ["y"]),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, IMAGE.shape) for name in "xy"]
    stored = [numpy_helper.from_array(a.astype(np.float32), name) for name, a in weights.items()]
    graph = helper.make_graph(nodes, "normed", ports[:1], ports[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def assert_folded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The result has no norm, and the outputs of `proto` to the rounding that folding changes."""
    whole = flatfold.optimize(proto)
    assert "BatchNormalization" not in whole.after.operators
    before = run(ir.serde.deserialize_model(copy.deepcopy(proto)), {"x": IMAGE})
    after = run(ir.serde.deserialize_model(copy.deepcopy(whole.model)), {"x": IMAGE})
    for old, new in zip(before, after, strict=True):
        # 36 products and a norm: each rounds once, of at most the largest absolute sum
        np.testing.assert_allclose(new, old, rtol=0, atol=64 * 2**-24 * np.abs(old).max())
    return whole.model


@pytest.mark.parametrize("size", [-1, -7])
def test_a_negative_size_is_an_open_one(size: int) -> None:
    proto = normed()
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = size
    result = assert_folded(proto)
    dims = result.graph.input[0].type.tensor_type.shape.dim
    assert not dims[0].HasField("dim_value") and [d.dim_value for d in dims[1:]] == [4, 7, 8]


def test_nodes_out_of_order_are_sorted() -> None:
    proto = normed()
    for order in ([2, 1, 0], [1, 0, 2], [0, 2, 1]):
        nodes = [copy.deepcopy(proto.graph.node[i]) for i in order]
        mixed = copy.deepcopy(proto)
        del mixed.graph.node[:]
        mixed.graph.node.extend(nodes)
        assert [node.op_type for node in from_proto(mixed).graph] == [
            "Conv",
            "BatchNormalization",
            "Relu",
        ]
        assert_folded(mixed)


def test_a_subgraph_reads_what_is_computed_before_it() -> None:
    """The If reads `r` only inside its branches, where Relu's output is out of order too."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2, 4] x, bool cond) => (float[2, 4] y) {
      y = If (cond) <
        then_branch = a () => (float[2, 4] t) { t = Neg (u) u = Abs (r) },
        else_branch = b () => (float[2, 4] e) { e = Neg (r) }
      >
      r = Relu (x)
    }"""
    model = from_proto(onnx.parser.parse_model(text))
    assert [node.op_type for node in model.graph] == ["Relu", "If"]
    x = np.array([[1, -2, 3, -4]] * 2, np.float32)
    for cond in (True, False):
        found = run(model, {"x": x, "cond": np.array(cond)})[0]
        np.testing.assert_array_equal(found, -np.maximum(x, 0))


def test_a_circle_is_refused_with_the_names_of_its_nodes() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x) => (float[2] y) { a = Add (x, b) b = Relu (a) y = Neg (b) }"""
    with pytest.raises(InputError, match=r"in a circle: '(Add', 'Relu|Relu', 'Add)'"):
        from_proto(onnx.parser.parse_model(text))


def test_an_opset_imported_by_both_of_its_names() -> None:
    proto = normed()
    proto.opset_import.append(helper.make_opsetid("ai.onnx", 17))
    proto.graph.node[0].domain = "ai.onnx"
    proto.graph.name = ""
    result = assert_folded(proto)
    assert [(opset.domain, opset.version) for opset in result.opset_import] == [("", 17)]
    proto.opset_import[1].version = 13
    with pytest.raises(InputError, match=r"2 opsets are imported for 'ai.onnx'"):
        from_proto(proto)


@pytest.mark.parametrize("listed", ["xy", "yx", "yy", "xyxy", "yny"])
def test_outputs_that_are_inputs_or_listed_twice(listed: str) -> None:
    proto = normed()
    kind = proto.graph.output[0].type
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name, type=kind) for name in listed)
    result = assert_folded(proto)
    onnx.checker.check_model(result)
    assert [value.name for value in result.graph.output] == list(listed)
    assert Counter(node.op_type for node in result.graph.node)["Identity"] == 0


def test_a_graph_that_gives_its_input_alone() -> None:
    text = "g (float[2] x) => (float[2] x) { }"
    proto = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>' + text)
    result = flatfold.optimize(proto).model
    onnx.checker.check_model(result)
    x = np.array([1, 2], np.float32)
    assert run(ir.serde.deserialize_model(result), {"x": x})[0].tolist() == [1, 2]


def test_an_input_keeps_its_sizes_where_it_is_an_output_of_open_sizes() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 17]>
        g (float[2, 3] x) => (float[a, b] x, float[2, 3] y) { y = Relu (x) }"""
    )
    proto.graph.value_info.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3]))
    (given,) = from_proto(proto).graph.inputs
    assert given.shape == (2, 3)


def _constant(*attributes: onnx.AttributeProto) -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["c"])
    constant.attribute.extend(attributes)
    nodes = [constant, helper.make_node("Add", ["x", "c"], ["y"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


VALUE = helper.make_attribute(
    "value", numpy_helper.from_array(np.array([3.0, 4.0], np.float32), "v")
)
OTHERS = (helper.make_attribute("axis", 5), helper.make_attribute("value_floats", [7.0, 8.0]))
MISNAMED = helper.make_attribute("junk", [1.0, 2.0])


@pytest.mark.parametrize(
    "attributes",
    [(VALUE, OTHERS[0]), (VALUE, OTHERS[1]), (OTHERS[1], VALUE), (MISNAMED, VALUE), (MISNAMED,)],
)
def test_the_first_attribute_of_a_constant_is_its_value(
    attributes: tuple[onnx.AttributeProto, ...],
) -> None:
    """ONNX Runtime asks for its type, not for its name, and reads no other."""
    proto, x = _constant(*attributes), np.array([1, 2], np.float32)
    session = ort.InferenceSession(proto.SerializeToString())
    expected = session.run(None, {"x": x})[0]
    done = flatfold.optimize(proto)
    assert done.equivalence.passed
    result = ort.InferenceSession(done.model.SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("called", [False, True])
def test_a_function_that_reads_what_it_is_not_given(called: bool) -> None:
    """It is refused where it is called, as by ONNX Runtime, and left out where nothing calls it."""
    text = f"""<ir_version: 8, opset_import: ["" : 17, "l" : 1]>
    g (float[2] x) => (float[2] y) {{ y = {"l.f" if called else "Relu"} (x) }}
    <domain: "l", opset_import: ["" : 17]> f (a) => (b) {{ b = Add (a, other) }}"""
    proto = onnx.parser.parse_model(text)
    if called:
        with pytest.raises(InputError, match="reads 'other'"):
            flatfold.optimize(proto)
    else:
        assert flatfold.optimize(proto).equivalence.passed


@pytest.mark.parametrize("version", [3, 4])
def test_a_weight_that_is_an_input_may_be_set_from_version_4_on(version: int) -> None:
    proto = normed(opset=9)
    for tensor in proto.graph.initializer:
        port = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        proto.graph.input.append(port)
    proto.ir_version = version
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    assert len(session.get_overridable_initializers()) == (0 if version == 3 else 4)
    if version == 3:
        result = assert_folded(proto)
        assert [value.name for value in result.graph.input] == ["x"]
        assert result.ir_version == 4 and proto.ir_version == 3
    else:
        kept = flatfold.optimize(proto)
        assert {node.op_type for node in kept.model.graph.node} >= {"BatchNormalization"}
        assert len(kept.model.graph.input) == 5
        folded = flatfold.optimize(proto, constant_defaults=True)
        assert folded.equivalence.verdict == "certified"
        assert "BatchNormalization" not in {node.op_type for node in folded.model.graph.node}
        assert [value.name for value in folded.model.graph.input] == ["x"]
        assert len(proto.graph.input) == 5  # the caller's own
