"""Which nodes keep float32, what half the bits change, and which targets compute in them."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import onnx
import pytest

import flatfold
from flatfold.compiler import Options, targets_of
from flatfold.errors import InputError, PrecisionUnavailable, UnknownName
from flatfold.narrowing import SAME, decibels_kept, kept_nodes, observe
from flatfold.passes.narrow_types import NARROW
from flatfold.precision import Precision
from flatfold.proof import fingerprint, require_about
from flatfold.result import Optimized
from tests.nets import Net

SHAPE = (1, 4, 12, 10)
needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="openvino is not installed"
)


def chain(scale: np.ndarray | float = 1.0, back: bool = True) -> Net:
    """Two layers, with the channels between them scaled, which the second one undoes."""
    net = Net(SHAPE, dtype=np.float32)
    factors = np.broadcast_to(np.asarray(scale, float), (16,))
    first = net.rng.standard_normal((16, 4, 3, 3)) * factors[:, None, None, None]
    second = net.rng.standard_normal((5, 16, 1, 1)) / (factors[:, None, None] if back else 1)
    y = net.op("Conv", "x", net.const(first), pads=[1] * 4)
    y = net.op("Conv", net.op("Sigmoid" if not back else "Relu", y), net.const(second))
    net.x = net.op("GlobalAveragePool", y)
    return net


def data(count: int, scale: float = 1.0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"x": (scale * rng.standard_normal(SHAPE)).astype(np.float32)} for _ in range(count)]


def kept(net: Net, kind: str, *, given: bool = True, scale: float = 1.0, **how) -> dict[str, str]:
    """The codes of the nodes that keep float32, by operator and name."""
    model = onnx.shape_inference.infer_shapes(net.model(net.x))
    import onnx_ir as ir

    graph = ir.from_proto(model)
    seen = observe(graph, data(2, scale), NARROW[kind])
    found = kept_nodes(graph, Precision(kind, **how), seen, given=given)
    return {node.name: why.code for node, why in found.items()}


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_a_plain_network_keeps_nothing(kind: str) -> None:
    assert kept(chain(), kind) == {}


def test_values_that_may_leave_the_range_keep_float32() -> None:
    # Sums of 36 products reach about 20, so 20 * 2000 * 2 (the headroom) is above 65504.
    assert kept(chain(2000.0), "fp16") == {"conv0": "RANGE", "relu1": "RANGE", "conv2": "RANGE"}
    assert kept(chain(2000.0), "bf16") == {}
    assert kept(chain(300.0), "fp16") == {}
    assert "RANGE" in kept(chain(300.0), "fp16", given=False).values()  # a headroom of 16


def test_a_value_that_an_operator_bounds_needs_no_headroom() -> None:
    net = Net(SHAPE, dtype=np.float32)
    low, high = (net.const(np.array(float(n))) for n in (0, 60000))
    net.x = net.op("Neg", net.op("Clip", net.op("Relu", "x"), low, high))
    assert kept(net, "fp16", given=False) == {}


def test_rounding_that_loses_too_much_keeps_float32() -> None:
    # In float16 numbers below 6e-5 have fewer bits: at 2e-7 two or three of eleven are left.
    found = kept(chain(1e-8), "fp16")
    assert found == {"conv0": "ROUNDING", "conv2": "ROUNDING"}
    assert kept(chain(1e-8), "bf16") == {}
    assert kept(chain(), "fp16", budget=100.0) == {"conv0": "ROUNDING", "conv2": "ROUNDING"}


def test_a_difference_of_large_values_keeps_float32() -> None:
    net = Net(SHAPE, dtype=np.float32)
    far = net.op("Add", "x", net.const(np.array(3000.0)))
    net.x = net.op("Sub", far, net.const(np.array(3000.0)))
    assert kept(net, "fp16")["sub1"] == "ROUNDING"
    assert kept(net, "bf16")["sub1"] == "ROUNDING"


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize(
    "layer", ["dense", "grouped", "depthwise", "transposed", "gemm", "gemm^T", "matmul"]
)
def test_the_predicted_noise_is_that_of_the_layer(layer: str, scale: float, kind: str) -> None:
    import ml_dtypes
    import onnx_ir as ir
    from onnx.reference import ReferenceEvaluator

    net = Net((3, 8, 9, 7) if layer[0] in "dt" or layer == "grouped" else (40, 8))
    factors = scale * 2.0 ** net.rng.integers(-4, 5, 8)
    net.dtype = np.float32
    makers = {
        "dense": lambda x: net.op("Conv", x, weight(6, 8, 3, 3)),
        "grouped": lambda x: net.op("Conv", x, weight(6, 4, 3, 3), group=2),
        "depthwise": lambda x: net.op("Conv", x, weight(8, 1, 3, 3), group=8),
        "transposed": lambda x: net.op("ConvTranspose", x, weight(8, 6, 2, 2), strides=[2, 2]),
        "gemm": lambda x: net.op("Gemm", x, weight(8, 5)),
        "gemm^T": lambda x: net.op("Gemm", x, weight(5, 8), transB=1),
        "matmul": lambda x: net.op("MatMul", x, weight(8, 5)),
    }

    def weight(*shape: int) -> str:
        return net.const(net.rng.standard_normal(shape))

    net.x = makers[layer]("x")
    rng = np.random.default_rng(2)
    along = factors.reshape(1, 8, *[1] * (len(net.shape) - 2))
    x = (rng.standard_normal(net.shape) * along).astype(np.float32)
    model = onnx.shape_inference.infer_shapes(net.model(net.x))
    graph = ir.from_proto(model)
    dtype = ml_dtypes.bfloat16 if kind == "bf16" else np.float16
    seen = observe(graph, [{"x": x}], NARROW[kind])
    predicted = decibels_kept(next(iter(graph.graph)), seen, Precision(kind))
    run = lambda x, w: ReferenceEvaluator(_with(model, w)).run(None, {"x": x})[0]  # noqa: E731
    (name,) = net.constants
    w = net.constants[name]
    exact = run(x, w).astype(float)
    rounded = run(x.astype(dtype).astype(np.float32), w.astype(dtype).astype(np.float32))
    measured = 10 * np.log10(np.square(exact).sum() / np.square(exact - rounded).sum())
    assert predicted == pytest.approx(measured, abs=2.5)  # of few hundred outputs


def _with(model: onnx.ModelProto, weight: np.ndarray) -> onnx.ModelProto:
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    (old,) = copy.graph.initializer
    old.CopyFrom(onnx.numpy_helper.from_array(weight, old.name))
    return copy


def test_names_and_patterns_that_keep_float32() -> None:
    assert kept(chain(), "fp16", keep_float=("conv2",)) == {"conv2": "ASKED"}
    assert kept(chain(), "fp16", keep_float=("Conv",)) == {"conv0": "ASKED", "conv2": "ASKED"}
    assert kept(chain(), "fp16", keep_float=("relu*",)) == {"relu1": "ASKED"}
    with pytest.raises(InputError, match="called 'head"):
        kept(chain(), "fp16", keep_float=("conv0", "head.*"))


def test_wrong_precisions() -> None:
    with pytest.raises(UnknownName, match="fp8"):
        Precision("fp8")
    with pytest.raises(InputError, match="found fp32"):
        Precision("fp32", ("head",))
    with pytest.raises(PrecisionUnavailable, match="ort-cpu cannot compute in fp16"):
        targets_of("ort-cpu", "fp16")
    with pytest.raises(PrecisionUnavailable):
        flatfold.compile(chain().model("relu1"), target="ort-cpu", precision="bf16", cache_dir="")


def test_optimize_writes_the_types_and_says_what_they_change() -> None:
    net = chain()
    model = net.model(net.x)
    result = flatfold.optimize(model, precision="fp16", calibration=data(3))
    onnx.checker.check_model(result.model, full_check=True)
    assert result.equivalence.verdict in ("certified", "bounded", "identical")
    rounded = result.rounded
    assert rounded is not None and rounded.precision == "fp16" and rounded.given
    assert rounded.nodes == rounded.total - 0 and rounded.casts == 2 and rounded.runs == 3
    assert 45 < rounded.decibels < 80  # of 72 that a single rounding leaves
    float_types = {t.data_type for t in result.model.graph.initializer if t.data_type != 7}
    assert float_types == {onnx.TensorProto.FLOAT16}
    certificate = result.certificate()
    assert certificate is not None and certificate.rewritten == fingerprint(result.float_graph)


def test_the_remarks_name_what_keeps_float32() -> None:
    net = chain()
    result = flatfold.optimize(
        net.model(net.x), precision="bf16", keep_float=["GlobalAveragePool"], verify="off"
    )
    (remark,) = (r for r in result.remarks if r.rewrite == "narrow-types")
    assert (remark.code, remark.applied) == ("ASKED", False) and net.x in remark.node
    assert remark.hint


@needs_openvino
def test_an_engine_in_bf16_computes_in_bf16_or_is_refused() -> None:
    net = chain()
    how = {"target": "openvino", "cache_dir": "", "tune": 0.0, "calibration": data(3)}
    try:
        engine = flatfold.compile(net.model(net.x), precision="bf16", **how)
    except PrecisionUnavailable as error:
        assert "computes in fp32" in str(error)  # a processor without bfloat16
        return
    with engine:
        assert engine.precision == "bf16"
        assert engine.manifest["rounded"]["precision"] == "bf16"
        assert engine.manifest["engine_equivalence"]["verdict"] == "sampled"


def test_a_graph_in_fp16_says_that_a_processor_computes_it_in_fp32() -> None:
    net = chain()
    typed = flatfold.optimize(net.model(net.x), precision="fp16", verify="off").model
    with flatfold.compile(typed, target="ort-cpu", cache_dir="", tune=0.0) as engine:
        assert engine.precision == "fp32"


def test_nothing_is_changed_where_everything_keeps_float32() -> None:
    net = chain()
    result = flatfold.optimize(net.model(net.x), precision="fp16", keep_float=["*"], verify="off")
    assert result.rounded is not None
    assert (result.rounded.nodes, result.rounded.casts, result.rounded.decibels) == (0, 0, SAME)
    with pytest.raises(PrecisionUnavailable, match="no node can compute in bf16: keep_float"):
        flatfold.compile(
            net.model(net.x),
            target="trt-rtx" if find_spec("tensorrt_rtx") else "openvino",
            precision="bf16",
            keep_float=["*"],
            cache_dir="",
        )


def test_a_value_that_is_no_number_keeps_float32() -> None:
    net = Net(SHAPE, dtype=np.float32)
    net.x = net.op("Neg", net.op("Log", net.op("Neg", net.op("Abs", "x"))))
    assert kept(net, "bf16") == {"log2": "RANGE", "neg3": "RANGE"}


def test_the_key_of_an_engine_has_the_precision_and_the_data() -> None:
    from flatfold.compiler import Compiler

    net = chain()
    keys = set()
    for kind, scale in (("fp32", 1.0), ("bf16", 1.0), ("bf16", 2.0)):
        compiler = Compiler.resolve(net.model(net.x), calibration=data(2, scale))
        keys.add(repr(compiler._key(Options("openvino", precision=Precision(kind)))))
    assert len(keys) == 3


def test_channels_of_any_size_survive_fp16_in_a_trained_network() -> None:
    """Top-1 of handwritten digits with channels between layers scaled by up to 2^16 and back."""
    from examples.digits import NETS, STORED, digits, held_out
    from flatfold.frontend.pytorch.weights import load_weights
    from flatfold.proof.network.arithmetic import TypedSession

    module = NETS["repvgg"]()
    load_weights(module, STORED / "repvgg.safetensors", ())
    images, labels = digits()
    mine = held_out(len(images))
    x, y = images[mine].numpy(), labels[mine].numpy()
    merged = flatfold.optimize(
        module.eval(), input_shape=(3, 32, 32), dynamic_batch=True, verify="off"
    )
    provoked = _scaled_between_layers(merged.model, np.random.default_rng(0))
    exact = _scores(flatfold.optimize(provoked, verify="off").graph, x)
    result = flatfold.optimize(provoked, precision="fp16", calibration=[x[:64]], verify="off")
    assert result.rounded is not None and result.rounded.nodes == result.rounded.total
    found = np.asarray(TypedSession(result.graph)({"x": x})[0])
    assert np.mean(exact.argmax(1) == y) > 0.98  # as trained
    assert np.mean(exact.argmax(1) == y) - np.mean(found.argmax(1) == y) <= 0.0025
    noise = 10 * np.log10(np.square(exact).sum() / np.square(found - exact).sum())
    assert noise > 50  # what ten layers of 72 dB each leave, with room
    # Without equalisation the same graph is no number, or keeps float32.
    kept = _kept_without_equalisation(provoked, x[:64])
    assert "RANGE" in kept or "ROUNDING" in kept


def _scores(graph, x: np.ndarray) -> np.ndarray:
    from flatfold.proof.network.session import PlainSession

    return np.asarray(PlainSession(graph)({"x": x})[0]).astype(float)


def _scaled_between_layers(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """The same function, the channels between two convolutions scaled by powers of two."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    arrays = {t.name: onnx.numpy_helper.to_array(t).copy() for t in copy.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in copy.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for conv in (node for node in copy.graph.node if node.op_type == "Conv"):
        (relu, *more), after = readers.get(conv.output[0], [None]), []
        if relu is not None and relu.op_type == "Relu" and not more:
            after = readers.get(relu.output[0], [])
        if len(after) == 1 and after[0].op_type == "Conv":
            powers = 2.0 ** rng.integers(-16, 17, len(arrays[conv.input[1]]))
            arrays[conv.input[1]] *= powers.astype(np.float32)[:, None, None, None]
            arrays[conv.input[2]] *= powers.astype(np.float32)
            arrays[after[0].input[1]] /= powers.astype(np.float32)[:, None, None]
    for tensor in copy.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(arrays[tensor.name], tensor.name))
    return copy


def _kept_without_equalisation(model: onnx.ModelProto, x: np.ndarray) -> set[str]:
    import onnx_ir as ir

    graph = ir.from_proto(onnx.shape_inference.infer_shapes(model))
    seen = observe(graph, [{"x": x}], NARROW["fp16"])
    found = kept_nodes(graph, Precision("fp16"), seen, given=True)
    return {why.code for why in found.values()}


def test_the_certificate_in_a_record_is_about_the_graph_in_float32() -> None:
    net = Net(SHAPE, dtype=np.float32)
    net.x = net.op("Relu", net.bn(net.conv("x", 6, 4, (3, 3)), 6))
    first = flatfold.optimize(net.model(net.x), precision="fp16")
    certificate = first.certificate()
    assert certificate is not None and first.float_graph is not None
    require_about(certificate, first.training, first.float_graph)
    graphs = first.original, first.training, first.graph
    again = Optimized.from_record(first.record(), certificate.to_dict(), *graphs)
    assert again.certificate() == certificate
    assert (again.rounded, again.changes) == (first.rounded, first.changes)
