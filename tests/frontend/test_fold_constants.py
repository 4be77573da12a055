"""Nodes of constants are computed as ONNX Runtime computes them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

import flatfold
from flatfold.proof.network.session import PlainSession
from tests.fuzz.sketch import run


@pytest.mark.parametrize("opset", [9, 13, 15])
def test_a_norm_of_a_constant_takes_the_statistics_that_it_is_given(opset: int) -> None:
    """ONNX's implementation takes those of the batch before opset 14."""
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    g (float[1, 1, 3] x) => (float[1, 1, 3] y)
    <float[1, 1, 3] c = {{1.0, 2.0, 4.0}}, float[1] a = {{0.5}}, float[1] b = {{2.0}},
     float[1] m = {{0.75}}, float[1] v = {{1.5}}> {{
        n = BatchNormalization <epsilon = 0.01> (c, a, b, m, v)
        y = Add (x, n)
    }}"""
    model = onnx.parser.parse_model(text)
    result = flatfold.optimize(model).model
    feeds = {"x": np.zeros((1, 1, 3), np.float32)}
    before, after = run(model, feeds), run(result, feeds)
    assert [node.op_type for node in result.graph.node] == ["Add"]
    np.testing.assert_allclose(after, before, rtol=2.0**-22)


def kernel_of_parts(channels: int, shared: bool = False, readers: int = 1) -> onnx.ModelProto:
    """A Conv by a kernel that is computed: weight[o, i] * taps[h, w], times a scale per channel.

    The kernel has as many elements as the weight has, but for the taps; `shared`: the weight is an
    output, too.
    """
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((channels, channels)).astype(np.float32)
    arrays = {
        "weight": weight,
        "taps": rng.standard_normal((3, 3)).astype(np.float32),
        "scale": np.ones((channels, channels, 3, 3), np.float32),
    }
    nodes = [
        onnx.helper.make_node("Einsum", ["weight", "taps"], ["wide"], equation="oi,hw->oihw"),
        onnx.helper.make_node("Mul", ["wide", "scale"], ["kernel"]),
        *(
            onnx.helper.make_node("Conv", ["x", "kernel"], [f"y{i}"], pads=[1] * 4)
            for i in range(readers)
        ),
    ]
    if shared:
        nodes.append(onnx.helper.make_node("MatMul", ["z", "scale"], ["w"]))
    outputs = [
        onnx.helper.make_tensor_value_info(f"y{i}", 1, [1, channels, 4, 4]) for i in range(readers)
    ]
    inputs = [onnx.helper.make_tensor_value_info("x", 1, [1, channels, 4, 4])]
    if shared:
        inputs.append(onnx.helper.make_tensor_value_info("z", 1, [channels, channels, 3, 3]))
        outputs.append(onnx.helper.make_tensor_value_info("w", 1, None))
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        inputs,
        outputs,
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )


def ops_of(model: onnx.ModelProto) -> list[str]:
    return sorted(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("channels", [64, 200])
def test_a_kernel_is_computed_though_parts_of_it_are_large(channels: int) -> None:
    model = kernel_of_parts(channels)
    result = flatfold.optimize(model, verify="off").model
    assert ops_of(result) == ["Conv"]
    x = np.random.default_rng(1).standard_normal((1, channels, 4, 4)).astype(np.float32)
    (before,), (after,) = run(model, {"x": x}), run(result, {"x": x})
    np.testing.assert_allclose(after, before, rtol=0, atol=2.0**-20 * np.abs(before).max())


def test_a_kernel_that_makes_the_model_larger_is_not_computed() -> None:
    """The scale stays for another reader, so that the kernel comes on top of it."""
    assert "Einsum" not in ops_of(flatfold.optimize(kernel_of_parts(64, True), verify="off").model)
    assert "Einsum" in ops_of(flatfold.optimize(kernel_of_parts(200, True), verify="off").model)


@pytest.mark.parametrize(("limit", "number"), [("_MAX_PRODUCTS", 1 << 18), ("_MAX_GROUP", 1 << 19)])
def test_a_kernel_that_takes_long_or_much_memory_is_not_computed(
    limit: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "flatfold.frontend.canonicalization.fold_constants"
    monkeypatch.setattr(f"{module}.{limit}", number)
    assert "Einsum" in ops_of(flatfold.optimize(kernel_of_parts(200), verify="off").model)


@pytest.mark.parametrize(
    ("operator", "attributes", "opset"),
    [
        ("Softmax", {"axis": 1}, 12),
        ("LogSoftmax", {"axis": 1}, 11),
        ("Hardmax", {"axis": 1}, 12),
        ("LRN", {"size": 3, "alpha": 0.1}, 13),
    ],
)
def test_what_is_computed_is_what_engines_compute(operator, attributes, opset) -> None:
    """Beside ONNX Runtime: up to opset 12 a Softmax is along all axes from its own on."""
    constant = np.random.default_rng(0).standard_normal((2, 4, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node(operator, ["c"], ["s"], **attributes),
        helper.make_node("Add", ["x", "s"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 4, 3, 3])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    weights = [onnx.numpy_helper.from_array(constant, "c")]
    graph = helper.make_graph(nodes, "net", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    feeds = {"x": np.zeros((2, 4, 3, 3), np.float32)}
    one, two = (
        PlainSession(ir.from_proto(m))(feeds)[0]
        for m in (model, flatfold.optimize(model, verify="off").model)
    )
    np.testing.assert_allclose(one, two, rtol=1e-6)
