"""A graph in half the bits: which nodes take the type, where Casts are, and what is rounded."""

from __future__ import annotations

from collections import Counter

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from flatfold.passes.narrow_types import NARROW, Kept, Narrowed, narrow_types, raise_opset
from tests.nets import Net

NUMPY = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
CODES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def two_convs(**how) -> Net:
    net = Net(dtype=np.float32, **how)
    y = net.op("Relu", net.conv("x", 6, 4, (3, 3)))
    net.x = net.op("GlobalAveragePool", net.conv(y, 5, 6, (1, 1)))
    return net


def narrowed(
    net: Net, kind: str = "fp16", *kept: str, narrow_io: bool = False
) -> tuple[onnx.ModelProto, Narrowed]:
    """The model in a type, checked, and what became of it; operators of `kept` keep float32."""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(net.model(net.x)))
    before = ir.to_proto(model)
    copy = model.clone()
    raise_opset(copy, NARROW[kind])
    nodes = {node: Kept("ASKED", "a test") for node in copy.graph if node.op_type in kept}
    done = narrow_types(copy, NARROW[kind], nodes, narrow_io=narrow_io)
    proto = ir.to_proto(copy)
    onnx.checker.check_model(proto, full_check=True)
    assert ir.to_proto(model) == before  # a clone shares its types
    return proto, done


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: ir.from_proto(t).numpy() for t in model.graph.initializer}


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})[0]


@pytest.mark.parametrize("kind", NARROW)
def test_all_nodes_take_the_type_between_two_casts(kind: str) -> None:
    net = two_convs()
    model, done = narrowed(net, kind)
    assert operators(model) == {"Cast": 2, "Conv": 2, "Relu": 1, "GlobalAveragePool": 1}
    assert (done.narrow, done.total, done.casts, done.kept) == (4, 4, 2, {})
    ends = [*model.graph.input, *model.graph.output]
    assert [end.type.tensor_type.elem_type for end in ends] == [TensorProto.FLOAT] * 2
    assert [end.name for end in ends] == ["x", net.x]
    found = sorted(array.tobytes() for array in constants(model).values())
    wanted = sorted(array.astype(NUMPY[kind]).tobytes() for array in net.constants.values())
    assert found == wanted  # rounded once, to nearest


@pytest.mark.parametrize("kind", NARROW)
def test_inputs_and_outputs_take_the_type_where_that_is_asked_for(kind: str) -> None:
    model, done = narrowed(two_convs(), kind, narrow_io=True)
    ends = [*model.graph.input, *model.graph.output]
    assert [end.type.tensor_type.elem_type for end in ends] == [CODES[kind]] * 2
    assert done.casts == 0
    model, done = narrowed(two_convs(), kind, "GlobalAveragePool", narrow_io=True)
    assert done.casts == 2
    assert model.graph.output[0].type.tensor_type.elem_type == CODES[kind]


def test_a_node_that_is_kept_reads_and_writes_float32() -> None:
    net = two_convs()
    model, done = narrowed(net, "fp16", "Relu")
    assert operators(model)["Cast"] == 4
    assert [(name, why.code) for name, why in done.kept.items()] == [("relu1", "ASKED")]
    x = np.random.default_rng(0).standard_normal(net.shape).astype(np.float32)
    exact = run(net.model(net.x), x)
    assert 0 < np.abs(run(model, x) - exact).max() < 4 * 2.0**-11 * np.abs(exact).max() * 9


def test_what_only_moves_values_between_nodes_in_float32_needs_no_cast() -> None:
    net = Net(dtype=np.float32)
    y = net.op("Exp", net.conv("x", 6, 4, (3, 3)))
    y = net.op("Transpose", y, perm=[0, 2, 3, 1])
    net.x = net.op("Relu", net.op("Exp", y))
    model, done = narrowed(net, "fp16", "Exp")
    assert operators(model)["Cast"] == 3 + 1  # in, around the two, out
    assert done.narrow == 2
    assert sorted(done.kept) == ["exp1", "exp3"]


def test_a_constant_that_two_types_read_stays_in_both() -> None:
    net = Net(dtype=np.float32)
    factor = net.const(np.array([1 + 2.0**-20]))
    net.x = net.op("Mul", net.op("Exp", net.op("Mul", "x", factor)), factor)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(net.model(net.x)))
    first = next(iter(model.graph))
    narrow_types(model, NARROW["fp16"], {first: Kept("ASKED", "a test")})
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    assert sorted(float(array[0]) for array in constants(proto).values()) == [1, 1 + 2.0**-20]


def test_a_constant_beyond_the_range_is_not_clipped() -> None:
    net = Net(dtype=np.float32)
    net.x = net.op("Relu", net.op("Mul", net.op("Relu", "x"), net.const(np.array([7e4]))))
    model, done = narrowed(net, "fp16")
    (why,) = done.kept.values()
    assert why.code == "RANGE" and "7e+04" in why.reason and "6.55e+04" in why.reason
    assert [float(array[0]) for array in constants(model).values()] == [7e4]
    model, done = narrowed(net, "bf16")
    assert not done.kept


def test_operators_keep_the_operands_that_have_one_type_only() -> None:
    net = Net(dtype=np.float32)
    scales = net.const(np.array([1, 1, 2, 2.0]))
    net.x = net.op("Resize", net.op("Relu", "x"), "", scales, mode="nearest")
    for kind in NARROW:
        model, done = narrowed(net, kind)
        assert done.narrow == 2 and constants(model)["c0"].dtype == np.float32


def test_operators_without_the_type_keep_float32() -> None:
    net = Net(dtype=np.float32)
    net.x = net.op("Celu", net.op("Relu", "x"))
    for kind in NARROW:
        model, done = narrowed(net, kind)
        ((name, why),) = done.kept.items()
        assert (name, why.code) == ("celu1", "DTYPE")
        assert operators(model)["Cast"] == 2  # in front of the Relu, and behind it
    net = Net(dtype=np.float32)
    net.x = net.op("Shrink", net.op("Relu", "x"))
    assert not narrowed(net, "fp16")[1].kept
    assert "BFLOAT16" in narrowed(net, "bf16")[1].kept["shrink1"].reason


def test_what_is_no_tensor_keeps_its_type() -> None:
    net = Net(dtype=np.float32)
    pair = net.op("SequenceConstruct", net.op("Relu", "x"), "x")
    net.x = net.op("Neg", net.op("SequenceAt", pair, net.const(np.array(0))))
    _, done = narrowed(net, "fp16")
    assert sorted(done.kept) == ["sequenceat2", "sequenceconstruct1"]


def test_the_scale_of_codes_is_not_rounded() -> None:
    net = Net(dtype=np.float32, opset=21)
    scale, zero = net.const(np.array(0.1)), net.const(np.array(3, np.uint8))
    codes = net.op("QuantizeLinear", net.op("Relu", "x"), scale, zero)
    net.x = net.op("Relu", net.op("DequantizeLinear", codes, scale, zero))
    model, done = narrowed(net, "fp16")
    assert sorted(why.code for why in done.kept.values()) == ["CODES", "CODES"]
    assert constants(model)[scale] == np.float32(0.1)


def test_bodies_of_an_if_keep_their_types() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 18]>
        g (float[2, 3] x, bool c) => (float[2, 3] y) {
            r = Relu (x)
            s = If (c) <
                then_branch = t () => (float[2, 3] p) { p = Exp (r) },
                else_branch = f () => (float[2, 3] q) { q = Abs (r) }
            >
            y = Neg (s)
        }"""
    )
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    done = narrow_types(model, NARROW["fp16"])
    typed = ir.to_proto(model)
    onnx.checker.check_model(typed, full_check=True)
    assert [why.code for why in done.kept.values()] == ["CONTROL-FLOW"]
    feeds = {"x": np.float32([[1, -2, 3], [4, 5, -6]]), "c": np.array(True)}
    one, two = (
        ort.InferenceSession(m.SerializeToString()).run(None, feeds)[0] for m in (proto, typed)
    )
    np.testing.assert_allclose(one, two, rtol=2.0**-10)  # two roundings to float16


def test_an_output_that_is_listed_twice_is_cast_once() -> None:
    net = two_convs()
    proto = net.model(net.x)
    copy = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(net.shape))
    proto.graph.output.append(copy)  # an input that is an output
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    done = narrow_types(model, NARROW["fp16"])
    typed = ir.to_proto(model)
    onnx.checker.check_model(typed, full_check=True)
    assert done.casts == 2 and [end.name for end in typed.graph.output] == [net.x, "x"]
