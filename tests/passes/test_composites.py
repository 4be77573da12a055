"""What ONNX Runtime makes one kernel of, it still does afterwards; what is alike folds as ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.fuzz.sketch import run
from tests.nets import Net, assert_untouched, rewrite

ROOT = 2**0.5


def number(net: Net, value: float) -> str:
    return net.const(np.array(float(value)))


def raised(net: Net, x: str, root: float = ROOT, one: float = 1.0) -> str:
    return net.op("Add", net.op("Erf", net.op("Div", x, number(net, root))), number(net, one))


def half_last(net: Net, x: str, half: float = 0.5, **other: float) -> str:
    return net.op("Mul", net.op("Mul", x, raised(net, x, **other)), number(net, half))


def half_of_x(net: Net, x: str, half: float = 0.5, **other: float) -> str:
    return net.op("Mul", net.op("Mul", x, number(net, half)), raised(net, x, **other))


def by_tanh(net: Net, x: str, half: float = 0.5) -> str:
    cube = net.op("Mul", net.op("Pow", x, number(net, 3)), number(net, 0.044715))
    inner = net.op("Mul", net.op("Add", x, cube), number(net, (2 / np.pi) ** 0.5))
    gate = net.op("Add", net.op("Tanh", inner), number(net, 1))
    return net.op("Mul", net.op("Mul", x, gate), number(net, half))


def normed(net: Net, x: str, axis: int = -1) -> str:
    centred = net.op("Sub", x, net.op("ReduceMean", x, axes=[axis]))
    square = net.op("ReduceMean", net.op("Pow", centred, number(net, 2)), axes=[axis])
    spread = net.op("Sqrt", net.op("Add", square, number(net, 1e-5)))
    shape = (16,) if axis == -1 else (16, 1)
    scale, bias = (net.const(net.rng.uniform(0.5, 2, shape)) for _ in range(2))
    return net.op("Add", net.op("Mul", net.op("Div", centred, spread), scale), bias)


def between_matrices(part: Callable[..., str], opset: int = 17, **other) -> Net:
    """MatMul, the part, MatMul, on 16 features."""
    net = Net((2, 6, 16), dtype=np.float32, opset=opset)
    y = net.op("MatMul", net.x, net.const(net.rng.standard_normal((16, 16))))
    y = part(net, y, **other)
    net.y = net.op("MatMul", y, net.const(net.rng.standard_normal((16, 8))))
    return net


def fused(model: onnx.ModelProto, folder: Path) -> Counter:
    """The operators that ONNX Runtime makes of a model."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "fused.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "fused.onnx").graph.node)


@pytest.mark.parametrize(
    ("part", "kernel", "opset"),
    [(half_last, "Gelu", 17), (half_of_x, "Gelu", 17), (normed, "LayerNormalization", 16)],
)
def test_onnx_runtime_finds_its_kernel_afterwards_too(part, kernel: str, opset, tmp_path: Path):
    net = between_matrices(part, opset)
    done = rewrite(net.model(net.y))
    assert fused(done.before, tmp_path)[kernel] == 1
    assert fused(done.after, tmp_path)[kernel] == 1
    assert "COMPOSITE" in done.codes
    assert_untouched(rewrite(done.after))


def rms(net: Net, x: str, by: str = "Reciprocal") -> str:
    square = net.op("ReduceMean", net.op("Mul", x, x), axes=[-1])
    root = net.op("Sqrt", net.op("Add", square, number(net, 1e-5)))
    y = net.op("Div", x, root) if by == "Div" else net.op("Mul", x, net.op(by, root))
    return net.op("Mul", y, net.const(net.rng.uniform(0.5, 2, 16)))


def half_inside(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Mul", raised(net, x), number(net, 0.5)))


def by_product(net: Net, x: str) -> str:
    curve = net.op("Erf", net.op("Mul", x, number(net, 1 / ROOT)))
    return net.op("Mul", net.op("Mul", x, number(net, 0.5)), net.op("Add", curve, number(net, 1)))


def normed_by_product(net: Net, x: str) -> str:
    centred = net.op("Sub", x, net.op("ReduceMean", x, axes=[-1]))
    square = net.op("ReduceMean", net.op("Mul", centred, centred), axes=[-1])
    spread = net.op("Sqrt", net.op("Add", square, number(net, 1e-5)))
    scale, bias = (net.const(net.rng.uniform(0.5, 2, 16)) for _ in range(2))
    return net.op("Add", net.op("Mul", net.op("Div", centred, spread), scale), bias)


@pytest.mark.parametrize(
    ("part", "kernel", "opset"),
    [
        (half_inside, "Gelu", 17),
        (by_product, "Gelu", 17),
        (by_tanh, "FastGelu", 17),
        (rms, "SimplifiedLayerNormalization", 17),
        (normed_by_product, "LayerNormalization", 16),
    ],
)
def test_what_onnx_runtime_does_not_find_is_spelled_in_another_way(part, kernel, opset, tmp_path):
    net = between_matrices(part, opset)
    done = rewrite(net.model(net.y))
    assert fused(done.before, tmp_path)[kernel] == 0
    assert fused(done.after, tmp_path)[kernel] == 1
    assert done.checks.worst <= 1.01
    assert done.checks.certified == 1
    assert done.graph.opset_imports[""] == opset
    x = {"x": net.rng.standard_normal(net.shape).astype(np.float32)}
    (one,), (two,) = (run(model, x) for model in (done.before, done.after))
    bound = 64 * 2.0**-24 * np.abs(one).max()  # two sums of 16 products, 16 squares, the curve
    np.testing.assert_allclose(two, one, rtol=0, atol=bound)
    assert_untouched(rewrite(done.after))


@pytest.mark.parametrize("part", [half_inside, by_product, by_tanh, normed_by_product])
def test_openvino_finds_every_spelling(part):
    net = between_matrices(part, 16)
    assert "Gelu" not in rewrite(net.model(net.y), target="openvino").ops
    assert_untouched(rewrite(net.model(net.y), target="openvino"))


def test_the_factor_of_a_gelu_by_tanh_stays():
    net = between_matrices(by_tanh)
    done = rewrite(net.model(net.y), target="openvino")
    assert done.ops == Counter(node.op_type for node in done.before.graph.node)


@pytest.mark.parametrize("part", [half_last, half_of_x])
@pytest.mark.parametrize("other", [{"root": 1.5}, {"one": 2.0}, {"half": 0.25}])
def test_with_other_constants_it_is_no_gelu(part, other):
    net = between_matrices(part, **other)
    assert "COMPOSITE" not in rewrite(net.model(net.y)).codes


def test_a_norm_of_another_axis_is_no_kernel_and_folds():
    """ONNX Runtime has none for it, so the scale and the bias go into the convolution."""
    net = Net((2, 16, 6, 5), dtype=np.float32, opset=16)
    centred = net.op("Sub", net.x, net.op("ReduceMean", net.x, axes=[1]))
    square = net.op("ReduceMean", net.op("Mul", centred, centred), axes=[1])
    spread = net.op("Sqrt", net.op("Add", square, number(net, 1e-5)))
    scale, bias = (net.const(net.rng.uniform(0.5, 2, (16, 1, 1))) for _ in range(2))
    y = net.op("Add", net.op("Mul", net.op("Div", centred, spread), scale), bias)
    done = rewrite(net.model(net.conv(y, 8, 16, (1, 1))))
    assert "fold-batchnorm" in done.applied
    assert "COMPOSITE" not in done.codes
