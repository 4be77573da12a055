"""What values reach, and clipping them, beside brute force on the numbers themselves."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from flatfold import narrowing
from flatfold.passes.quantization.record import Range
from flatfold.quantizing.comparison import fake_quantized
from flatfold.quantizing.ranges import BINS, Histogram, collect, ranges_by_name
from tests.nets import Net

DRAWS = {
    "normal": lambda rng: rng.standard_normal(20000),
    "behind a Relu": lambda rng: np.maximum(rng.standard_normal(20000), 0),
    "with far values": lambda rng: rng.standard_t(2, 20000),
    "with one far value": lambda rng: np.append(rng.standard_normal(20000), 300.0),
    "skewed": lambda rng: rng.exponential(1, 20000) - 0.3,
    "tiny": lambda rng: 1e-30 * rng.standard_normal(20000),
    "negative": lambda rng: -rng.random(20000),
}


def filled(array: np.ndarray, parts: int = 5) -> Histogram:
    histogram = Histogram()
    for part in np.array_split(array.astype(np.float32), parts):
        histogram.add(part)
    return histogram


@pytest.mark.parametrize("name", DRAWS)
def test_numbers_are_counted_in_bins_whatever_the_order(name: str) -> None:
    array = DRAWS[name](np.random.default_rng(0)).astype(np.float32)
    for ordered in (array, array[np.argsort(np.abs(array))], array[np.argsort(-np.abs(array))]):
        histogram = filled(ordered)
        edges = (np.arange(2 * BINS + 1) - BINS) * histogram.width
        expected, _ = np.histogram(ordered.astype(np.float64), edges)
        np.testing.assert_array_equal(histogram.counts, expected)
        assert histogram.counts.sum() == array.size
        assert histogram.extremes() == Range(min(array.min(), 0), max(array.max(), 0))


@pytest.mark.parametrize("codes", ["uint8", "int8"])
@pytest.mark.parametrize("name", DRAWS)
def test_the_clipped_range_is_as_good_as_any(name: str, codes: str) -> None:
    array = DRAWS[name](np.random.default_rng(1)).astype(np.float32)
    histogram = filled(array)

    def loss(limits: Range) -> float:
        return float(np.square(fake_quantized(array, limits, codes) - array).sum(dtype=np.float64))

    low, high = histogram.low, histogram.high
    shares = np.linspace(0.02, 1, 50)
    if codes == "int8":
        brute = min(loss(Range(share * low, share * high)) for share in shares)
    else:
        brute = min(loss(Range(s * low, t * high)) for s in shares for t in shares)
    # The histogram knows numbers to within an eighth of a code, whose own error is a twelfth of its
    # square: what it adds to a loss, and what candidates between those here gain, is below 5 %.
    assert loss(histogram.clipped(codes)) <= 1.05 * brute
    assert loss(histogram.clipped(codes)) <= 1.001 * loss(histogram.extremes())


def test_a_far_value_is_clipped() -> None:
    histogram = filled(DRAWS["with one far value"](np.random.default_rng(0)))
    limits = histogram.clipped("int8")
    # (300 - c)^2 + 20000 (c / 127)^2 / 12 is smallest at c = 272; candidates are 3 apart.
    assert limits.high == pytest.approx(272, abs=3) and histogram.high == 300
    assert histogram.outside(limits) == pytest.approx(1 / 20001)
    assert histogram.outside(histogram.extremes()) == 0


def test_a_value_that_is_always_0_has_a_range() -> None:
    histogram = filled(np.zeros(10))
    assert histogram.extremes() == histogram.clipped("uint8") == Range(0, 0)
    histogram.add(np.ones(1, np.float32))
    assert histogram.counts.sum() == 11 and histogram.counts[BINS] == 10


def moving() -> ir.Model:
    net = Net((1, 2, 4, 4), dtype=np.float32)
    net.x = net.op("Relu", net.op("MaxPool", net.conv("x", 3, 2, (1, 1)), kernel_shape=[2, 2]))
    return ir.from_proto(onnx.shape_inference.infer_shapes(net.model(net.x)))


def test_what_moves_numbers_keeps_their_range() -> None:
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((1, 2, 4, 4)).astype(np.float32)} for _ in range(3)]
    ranges = ranges_by_name(collect(moving(), feeds), Histogram.extremes)
    assert ranges["maxpool1"] == ranges["conv0"]
    assert ranges["relu2"].low == 0


def test_a_concat_has_a_range_of_its_own() -> None:
    net = Net((1, 2, 4, 4), dtype=np.float32)
    net.x = net.op("Concat", "x", net.op("Mul", "x", net.const(np.float32(3))), axis=1)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(net.model(net.x)))
    feeds = [{"x": np.linspace(-1, 2, 32, dtype=np.float32).reshape(1, 2, 4, 4)}]
    ranges = ranges_by_name(collect(model, feeds), Histogram.extremes)
    assert ranges["x"] == Range(-1, 2) and ranges["concat1"] == Range(-3, 6)


def test_a_graph_is_run_in_parts_where_its_values_are_large(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((1, 2, 4, 4)).astype(np.float32)} for _ in range(3)]
    whole = ranges_by_name(collect(moving(), feeds), Histogram.extremes)
    monkeypatch.setattr(narrowing, "MOST_ELEMENTS", 10)
    assert ranges_by_name(collect(moving(), feeds), Histogram.extremes) == whole


def test_a_value_that_is_no_number_has_no_range() -> None:
    net = Net((4,), dtype=np.float32)
    net.x = net.op("Sqrt", net.op("Neg", "x"))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(net.model(net.x)))
    ranges = ranges_by_name(collect(model, [{"x": np.ones(4, np.float32)}]), Histogram.extremes)
    assert ranges == {"x": Range(0, 1), "neg0": Range(-1, 0)}
