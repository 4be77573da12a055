"""Models that onnx.checker accepts: with false declarations, or text that is not UTF-8."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import flatfold
from flatfold.errors import InputError
from flatfold.frontend import from_proto
from flatfold.proof.network.session import PlainSession
from tests.cli.bad_inputs import good


def declared(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


@pytest.mark.parametrize("shape", [[1, 4, 9], [1, 4, 9, 9, 2], [1, 4, 8, 9]])
def test_a_false_shape_of_an_intermediate_value_is_dropped(shape: list[int | str]) -> None:
    proto = good()
    proto.graph.value_info.append(declared("a", shape))
    model = from_proto(proto)
    shapes = {v.name: v.shape for node in model.graph for v in node.outputs}
    assert shapes["a"] is None
    result = flatfold.optimize(proto)
    assert result.equivalence.verdict == "certified" and result.after.operators["Conv"] == 1


@pytest.mark.parametrize("shape", [[1, 4, 9], [], [1, 4, 8, 9], [7], None])
def test_a_false_shape_of_an_output_is_dropped(shape: list[int | str] | None) -> None:
    proto = good()
    expected = flatfold.optimize(proto).model.graph.output[0]
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, shape))
    result = flatfold.optimize(proto)
    assert result.equivalence.verdict == "certified" and result.model.graph.output[0] == expected
    onnx.checker.check_model(result.model)


def test_names_of_sizes_of_an_output_stay() -> None:
    proto = good()
    proto.graph.output[0].CopyFrom(declared("y", ["N", "C", 9, 9]))
    assert from_proto(proto).graph.outputs[0].shape == ["N", "C", 9, 9]
    found = from_proto(flatfold.optimize(proto).model).graph.outputs[0].shape
    assert found is not None and str(found[0]) == "N"


def test_an_input_of_more_axes_than_arrays_have_is_refused() -> None:
    proto = good()
    proto.graph.input[0].CopyFrom(declared("x", [1] * 65))
    with pytest.raises(InputError, match="found 65 of 'x'"):
        from_proto(proto)


def test_a_graph_without_outputs_is_refused() -> None:
    proto = good()
    del proto.graph.output[:]
    with pytest.raises(InputError, match="without outputs"):
        from_proto(proto)


def test_text_that_is_not_utf8_is_refused() -> None:
    content = good().SerializeToString().replace(b"block", b"\xff\xfeock")
    proto = onnx.ModelProto()
    proto.ParseFromString(content)
    with pytest.raises(InputError, match="not UTF-8"):
        from_proto(proto)


def test_the_name_of_a_node_that_is_not_utf8_is_refused() -> None:
    proto = good()
    proto.graph.node[0].name = "nodename"
    mutant = onnx.ModelProto()
    mutant.ParseFromString(proto.SerializeToString().replace(b"nodename", b"nodenam\xeb"))
    with pytest.raises(InputError, match="not UTF-8"):
        from_proto(mutant)


def test_sizes_of_a_split_that_a_caller_may_override() -> None:
    """The parts need not have the sizes that the default gives."""
    text = """<ir_version: 10, opset_import: ["" : 17]>
    g (float[1, 4, 5, 5] x, int64[2] sizes) => (float[1, C, 5, 5] y, float[1, D, 5, 5] z)
    { half, rest = Split <axis = 1> (x, sizes) y = Relu (half) z = Relu (rest) }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([2, 2], np.int64), "sizes"))
    result = flatfold.optimize(proto)
    session = onnxruntime.InferenceSession(
        result.model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(0).standard_normal((1, 4, 5, 5)).astype(np.float32)
    y, z = session.run(None, {"x": x, "sizes": np.array([1, 3], np.int64)})
    np.testing.assert_array_equal(y, np.maximum(x[:, :1], 0))
    np.testing.assert_array_equal(z, np.maximum(x[:, 1:], 0))
    y, _ = session.run(None, {"x": x})
    np.testing.assert_array_equal(y, np.maximum(x[:, :2], 0))


@pytest.mark.parametrize("kind", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize(("size", "kernel", "pad"), [(5, 3, 0), (6, 2, 1), (7, 2, 0), (8, 3, 1)])
def test_the_size_that_a_runtime_gives_a_pool_with_ceil_mode_is_accepted(kind, size, kernel, pad):
    """onnx may infer one more: a window that starts in the padding at the end."""
    node = helper.make_node(
        kind, ["x"], ["y"], kernel_shape=[kernel] * 2, strides=[2, 2], pads=[pad] * 4, ceil_mode=1
    )

    def model(*shape):
        image = helper.make_tensor_value_info("x", 1, [1, 2, size, size])
        pooled = helper.make_tensor_value_info("y", 1, shape)
        graph = helper.make_graph([node], "pool", [image], [pooled])
        opsets = [helper.make_opsetid("", 18)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    x = np.zeros((1, 2, size, size), np.float32)
    shape = PlainSession(ir.from_proto(model(1, 2, "h", "w")))({"x": x})[0].shape
    assert flatfold.optimize(model(*shape)).equivalence.passed
