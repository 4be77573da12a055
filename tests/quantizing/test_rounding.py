"""Scales and codes of weights, beside the literal algorithms in float64."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.passes.quantization.record import LARGEST_CODE
from flatfold.quantizing import rounding
from flatfold.quantizing.layers import Layer, layers_of
from flatfold.quantizing.rounding import Hessian, by_reading, gptq, scales_of, to_nearest
from tests.quantizing.test_layers import net_of

SHAPES = {
    "conv": ("Conv", (1, 6, 12, 9), (5, 6, 3, 2), {}),
    "grouped": ("Conv", (1, 6, 12, 9), (8, 3, 3, 3), {"group": 2}),
    "depthwise": ("Conv", (1, 5, 12, 9), (5, 1, 3, 3), {"group": 5}),
    "one axis": ("Conv", (2, 4, 40), (3, 4, 5), {"strides": [2]}),
    "three axes": ("Conv", (1, 3, 6, 7, 5), (4, 3, 2, 3, 2), {}),
    "transposed": ("ConvTranspose", (1, 4, 6, 7), (4, 3, 3, 2), {"strides": [2, 2]}),
    "transposed groups": ("ConvTranspose", (1, 6, 6, 7), (6, 2, 3, 2), {"group": 3}),
    "gemm": ("Gemm", (60, 12), (7, 12), {"transB": 1}),
    "matmul": ("MatMul", (5, 12, 10), (10, 6), {}),
}


def case(name: str) -> tuple[Layer, Hessian, np.ndarray]:
    """A layer, its Hessian on data that is alike everywhere, and its columns."""
    net = net_of(*SHAPES[name][:3], **SHAPES[name][3])
    (layer,) = layers_of(ir.from_proto(net.model(net.x)))
    data = 1 + net.rng.standard_normal(net.shape) / 2
    columns = layer.columns(np.maximum(data, 0).astype(np.float32), 1 << 20)
    hessian = Hessian.empty(layer)
    for part in np.array_split(columns, 3, axis=2):
        hessian.add(part)
    return layer, hessian, columns.astype(np.float64)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_a_scale_is_that_of_the_largest_weight_or_the_best(name: str, per_channel: bool) -> None:
    layer, _, _ = case(name)
    outputs = np.moveaxis(layer.weight.astype(np.float64), layer.axis, 0)
    rows = outputs.reshape(len(outputs) if per_channel else 1, -1)
    plain = scales_of(layer, per_channel=per_channel, clip=False)
    best = scales_of(layer, per_channel=per_channel, clip=True)
    assert plain.dtype == best.dtype == np.float32
    assert plain.shape == best.shape == ((len(outputs),) if per_channel else ())
    for row, one, two in zip(rows, np.atleast_1d(plain), np.atleast_1d(best), strict=True):
        assert one == pytest.approx(np.abs(row).max() / LARGEST_CODE)
        lost = {s: _lost(row, s * np.abs(row).max() / 127) for s in np.linspace(0.6, 1, 21)}
        assert _lost(row, float(two)) == pytest.approx(min(lost.values()), rel=1e-4)


def _lost(row: np.ndarray, scale: float) -> float:
    codes = np.clip(np.rint(row / scale), -127, 127)
    return float(np.square(codes * scale - row).sum())


@pytest.mark.parametrize("name", SHAPES)
def test_codes_to_nearest_are_half_a_code_away(name: str) -> None:
    layer, _, _ = case(name)
    for per_channel in (True, False):
        codes = to_nearest(layer, scales_of(layer, per_channel=per_channel, clip=False))
        assert codes.axis == (layer.axis if per_channel else None)
        assert codes.codes.dtype == np.int8 and codes.codes.min() >= -127
        away = np.abs(codes.weight().astype(np.float64) - layer.weight) / codes.along()
        assert away.max() <= 0.5 + 127 * 2.0**-23  # scale and product are rounded to float32


def literal(weights: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Equations 2 and 3 of Frantar et al. 2022: after each column, H^-1 without its row."""
    left, codes = weights.copy(), np.zeros_like(weights)
    mean = np.diag(hessian).mean()
    inverse = np.linalg.inv(hessian + rounding.DAMPING * mean * np.eye(len(hessian)))
    for column in np.argsort(-np.diag(hessian), kind="stable"):
        codes[:, column] = np.clip(np.rint(left[:, column]), -127, 127)
        error = (left[:, column] - codes[:, column]) / inverse[column, column]
        left -= np.outer(error, inverse[column])
        inverse -= np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
        inverse[column, column] = 1.0  # its row and column are 0 now, and it is not read again
    return codes


@pytest.mark.parametrize(("count", "width"), [(7, 3), (24, 8), (50, 128), (64, 16)])
def test_it_is_the_algorithm_of_the_paper(count: int, width: int, monkeypatch) -> None:
    monkeypatch.setattr(rounding, "WIDTH", width)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        columns = rng.standard_normal((count, 3 * count)) + rng.standard_normal((1, 3 * count))
        weights = rng.normal(0, 40, (9, count))
        hessian = columns @ columns.T
        np.testing.assert_array_equal(gptq(weights, hessian), literal(weights, hessian))


def test_what_is_never_read_is_rounded_to_nearest() -> None:
    weights = np.random.default_rng(0).normal(0, 40, (3, 6))
    np.testing.assert_array_equal(gptq(weights, np.zeros((6, 6))), np.rint(weights))
    hessian = np.diag([0.0, 1, 1, 0, 1, 1])
    np.testing.assert_array_equal(gptq(weights, hessian), np.rint(weights))


@pytest.mark.parametrize("largest", [2048, 5])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_no_output_is_further_away_than_to_nearest(
    name: str, per_channel: bool, largest: int, monkeypatch
) -> None:
    monkeypatch.setattr(rounding, "LARGEST", largest)
    layer, hessian, columns = case(name)
    scale = scales_of(layer, per_channel=per_channel, clip=False)
    nearest, other = to_nearest(layer, scale), by_reading(layer, scale, hessian)
    assert other.codes.dtype == np.int8 and np.abs(other.codes.astype(int)).max() <= 127
    lost = [_lost_outputs(layer, codes.weight(), columns, largest) for codes in (nearest, other)]
    assert np.all(lost[1] <= lost[0] * (1 + 1e-5))  # of sums in float32
    if largest > 5:
        assert lost[1].sum() < 0.7 * lost[0].sum()


def _lost_outputs(layer: Layer, weight: np.ndarray, columns: np.ndarray, largest: int):
    """|(W - Q) x|^2 of each output, block by block of what it reads."""
    difference = (layer.matrices(weight) - layer.matrices()).astype(np.float64)
    rows = difference.shape[2]
    return sum(
        np.square(difference[..., n : n + largest] @ columns[:, n : n + largest]).sum(axis=2)
        for n in range(0, rows, largest)
    )


@pytest.mark.parametrize("name", SHAPES)
def test_a_hessian_is_the_product_of_the_columns(name: str) -> None:
    layer, hessian, columns = case(name)
    for group in range(layer.groups):
        ((part, block),) = hessian.blocks(group)
        expected = columns[group] @ columns[group].T
        assert (part.start, part.stop) == (0, len(expected))
        np.testing.assert_allclose(block, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert Hessian.elements(layer) == sum(block.size for blocks in hessian.sums for block in blocks)
