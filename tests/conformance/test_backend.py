"""flatfold and ONNX Runtime behind the backend interface of ONNX."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper

from flatfold.errors import BuildError, InputError, TargetError, TargetUnavailable
from tests.conformance.flatfold_backend import FlatfoldBackend
from tests.conformance.ort_backend import OrtBackend
from tests.nets import Net

BACKENDS = (FlatfoldBackend, OrtBackend)
TYPES = (np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4, ml_dtypes.uint4)


def from_text(text: str, opset: int = 20, ir_version: int = 10) -> onnx.ModelProto:
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>'
    return onnx.parser.parse_model(header + text)


def test_a_network_is_rewritten_and_runs():
    net = Net((2, 4, 6, 6), dtype=np.float32)
    model = net.model(net.op("Relu", net.bn(net.conv(net.x, 4, 4, (3, 3), bias=False), 4)))
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 6)).astype(np.float32)
    prepared = FlatfoldBackend.prepare(model)
    assert prepared.result is not None
    assert [node.op_type for node in prepared.result.model.graph.node] == ["Conv", "Relu"]
    (expected,) = OrtBackend.run_model(model, [x])
    (found,) = prepared.run([x])
    bound = 36 * 2.0**-23 * np.abs(expected).max()  # sums of 36 products in float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)
    assert OrtBackend.prepare(model).result is None


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("dtype", TYPES)
def test_types_that_numpy_does_not_have(kind, dtype):
    """Each element keeps its bits, an odd number of half bytes too; also without any axis."""
    numbers = np.array([0, 1, 1, 0, 1], np.float32).astype(dtype)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for array in (numbers, numbers[:0], numbers[1].reshape(())):
        given, made = (helper.make_tensor_value_info(n, element, array.shape) for n in "xz")
        nodes = [
            helper.make_node("Cast", ["x"], ["y"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Cast", ["y"], ["z"], to=element),
        ]
        if np.dtype(dtype).name.endswith("int4"):  # which older versions only quantize
            nodes = [
                helper.make_node("Constant", [], ["one"], value_float=1.0),
                helper.make_node("DequantizeLinear", ["x", "one"], ["y"]),
                helper.make_node("QuantizeLinear", ["y", "one"], ["z"], output_dtype=element),
            ]
        graph = helper.make_graph(nodes, "g", [given], [made])
        imports = [helper.make_opsetid("", 21)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=10)
        (found,) = kind.run_model(model, [array])
        assert found.dtype == array.dtype and found.shape == array.shape
        assert found.tobytes() == array.tobytes()


@pytest.mark.parametrize("kind", BACKENDS)
def test_strings_and_sequences(kind):
    model = from_text("g (seq(string[N]) s, int64 at) => (string[N] y) { y = SequenceAt (s, at) }")
    parts = [np.array(["a", "bc"], dtype=object), np.array(["d"], dtype=object)]
    (found,) = kind.run_model(model, [parts, np.int64(0)])
    assert found.tolist() == ["a", "bc"]


@pytest.mark.parametrize("kind", BACKENDS)
def test_opsets_that_onnx_runtime_does_not_know(kind):
    """Older ones are converted; of newer ones, the operators that did not change run."""
    text = """g (float[2, 3] x, float[3] b) => (float[2, 3] y) {
        y = Add <axis = 1, broadcast = 1> (x, b)
    }"""
    old = from_text(text, opset=6, ir_version=3)
    x, b = np.ones((2, 3), np.float32), np.arange(3, dtype=np.float32)
    np.testing.assert_array_equal(kind.run_model(old, [x, b])[0], x + b)
    newest = onnx.defs.onnx_opset_version()
    new = from_text("g (float[2, 3] x) => (float[2, 3] y) { y = Neg (x) }", newest, onnx.IR_VERSION)
    np.testing.assert_array_equal(kind.run_model(new, [x])[0], -x)


def test_one_node():
    node = helper.make_node("Split", ["x"], ["a", "b"], axis=0, num_outputs=2)
    first, second = FlatfoldBackend.run_node(node, [np.arange(4.0)])
    assert (first.tolist(), second.tolist()) == ([0, 1], [2, 3])
    node = helper.make_node("Squeeze", ["x"], ["y"], axes=[0])  # an input since opset 13
    (found,) = FlatfoldBackend.run_node(node, [np.ones((1, 2), np.float32)], opset_version=11)
    assert found.shape == (2,)


def test_devices():
    assert FlatfoldBackend.supports_device("CPU") and FlatfoldBackend.supports_device("CPU:0")
    assert not FlatfoldBackend.supports_device("CUDA")
    model = from_text("g (float[2] x) => (float[2] y) { y = Neg (x) }")
    assert FlatfoldBackend.is_compatible(model) and not FlatfoldBackend.is_compatible(model, "CUDA")
    with pytest.raises(TargetUnavailable, match="CUDA"):
        FlatfoldBackend.prepare(model, "CUDA")


def test_what_cannot_run_says_why():
    model = from_text("g (float[2] x, float[2] z) => (float[2] y) { y = Add (x, z) }")
    prepared = FlatfoldBackend.prepare(model)
    one, two = np.ones(2, np.float32), np.ones(3, np.float32)
    with pytest.raises(InputError, match=r"expected 2 inputs \(x, z\), found 1"):
        prepared.run([one])
    with pytest.raises(InputError, match="float64"):
        prepared.run([one, one.astype(np.float64)])
    with pytest.raises(TargetError, match="onnxruntime could not run"):
        prepared.run([one, two])
    unknown = from_text("g (float[2] x) => (float[2] y) { y = Det (x) }", opset=1, ir_version=3)
    with pytest.raises((BuildError, InputError)):
        FlatfoldBackend.prepare(unknown)
