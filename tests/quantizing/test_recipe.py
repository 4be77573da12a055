"""The whole recipe: steps are kept where they gain, and channels that differ are equalised."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from flatfold.errors import InputError
from flatfold.passes import EqualizeChannels, Pipeline
from flatfold.passes.cost.profiles import PROFILES
from flatfold.passes.narrow_types import Kept
from flatfold.passes.quantization.dialect import DIALECTS
from flatfold.passes.quantization.record import Quantization
from flatfold.precision import Precision
from flatfold.proof import Equivalence
from flatfold.quantizing import recipe as recipe_module
from flatfold.quantizing import steps
from flatfold.quantizing.biases import corrected
from flatfold.quantizing.comparison import Difference
from flatfold.quantizing.layers import layers_of
from flatfold.quantizing.mixed import Allowed, by_loss, enough_in_float, one_at_a_time
from flatfold.quantizing.ranges import Histogram, collect, ranges_by_name
from flatfold.quantizing.recipe import _which, quantized
from flatfold.quantizing.rounding import to_nearest
from flatfold.quantizing.steps import Recipe, Setting, again_corrected, find, keep_in_float
from flatfold.result import Optimized
from tests.nets import Net
from tests.quantizing.test_biases import means

SHAPE = (1, 3, 14, 11)
TARGETS = ("ort-cpu", "openvino", "trt")
INT8 = Precision("int8")  # its names that stay in float are all that is read here


def chain(powers: int = 0, layers: int = 4, seed: int = 0) -> ir.Model:
    """Layers whose channels are times 2^n, n in -powers..powers, which the next one undoes."""
    net = Net(SHAPE, seed=seed, dtype=np.float32)
    exponents = np.random.default_rng(9)
    before, y, count = np.ones(3), "x", 3
    for _ in range(layers):
        after = np.exp2(exponents.integers(-powers, powers + 1, 16))
        weight = net.rng.standard_normal((16, count, 3, 3)) / np.sqrt(5 * count)
        weight = weight * after[:, None, None, None] / before[:, None, None]
        bias = net.const(0.1 * net.rng.standard_normal(16) * after)
        y = net.op("Relu", net.op("Conv", y, net.const(weight), bias, pads=[1] * 4))
        before, count = after, 16
    y = net.op("Flatten", net.op("GlobalAveragePool", y))
    last = net.rng.standard_normal((10, 16)) / before
    net.x = net.op("Gemm", y, net.const(last), net.const(np.zeros(10)), transB=1)
    return ir.from_proto(onnx.shape_inference.infer_shapes(net.model(net.x)))


def data(count: int = 12) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    base = rng.standard_normal((count, 3, 1, 1)) + rng.standard_normal((count, *SHAPE[1:]))
    return [{"x": base[n : n + 1].astype(np.float32)} for n in range(count)]


def setting(target: str = "ort-cpu", *, per_channel: bool = True, **how) -> Setting:
    return Setting(replace(DIALECTS[target], per_channel=per_channel), **how)


def result_of(model: ir.Model) -> Optimized:
    return Optimized("net", model, model, model, (), Equivalence("unknown", reason="not asked"))


def equalized(model: ir.Model) -> ir.Model:
    copy = model.clone()
    assert Pipeline([EqualizeChannels()], PROFILES["default"]).run(copy)
    return copy


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("per_channel", [True, False])
def test_equalising_undoes_what_scaled_channels_lose(target: str, per_channel: bool) -> None:
    feeds, how = data(), setting(target, per_channel=per_channel)
    plain = find(chain(), feeds, how).difference.decibels
    scaled = find(chain(5), feeds, how).difference.decibels
    assert plain > 25 and scaled < plain - 8
    done = quantized(
        result_of(equalized(chain(5))),
        *(INT8, feeds, how.dialect),
        given=True,
        unequalized=result_of(chain(5)),
    )
    assert done.rounded is not None and done.rounded.decibels > plain - 3  # by sqrt 2
    (remark,) = [one for one in done.remarks if one.rewrite == "equalize-channels"]
    assert remark.applied and ("dB to" in remark.reason or "5 with it" in remark.reason)
    assert (done.rounded.nodes, done.rounded.total) == (5, 5)


def test_the_graph_that_loses_less_is_taken() -> None:
    feeds, how = data(), setting()
    worse, better = result_of(chain(5)), result_of(chain())
    done = quantized(worse, INT8, feeds, how.dialect, given=True, unequalized=better)
    assert done.float_graph is better.graph
    (remark,) = [one for one in done.remarks if one.rewrite == "equalize-channels"]
    assert (remark.applied, remark.code) == (False, "NO-GAIN")


@pytest.mark.parametrize(
    ("before", "after", "applied"),
    [
        ((3, 20.0), (3, 21.0), True),
        ((3, 21.0), (3, 20.0), False),
        ((3, 20.0), (3, 20.0), True),
        ((2, 40.0), (3, 20.0), True),
        ((3, 20.0), (2, 40.0), False),
    ],
)
def test_more_layers_in_8_bits_are_better_than_fewer_that_are_nearer(before, after, applied):
    def recipe(layers: int, decibels: float) -> Recipe:
        weights = dict.fromkeys(map(str, range(layers)))
        return Recipe(chain(), Quantization({}, weights), Difference(decibels, 1.0))

    remark = _which("net", recipe(*before), recipe(*after))
    assert (remark.applied, remark.code) == (applied, "APPLIED" if applied else "NO-GAIN")
    assert bool(remark.hint) != applied


def test_biases_are_corrected_again_for_the_layers_that_are_left() -> None:
    model, feeds, how = chain(), data(), setting("openvino", per_channel=False)
    layers = layers_of(model)
    weights = {one.name: to_nearest(one, np.float32(0.05)) for one in layers}
    now = Quantization(ranges_by_name(collect(model, feeds), Histogram.extremes), weights)
    assert again_corrected(model, now, feeds, how).biases == {}
    now = corrected(now, model, how.write(model, now), layers, feeds)
    left = keep_in_float(now, {"conv2": Kept("ASKED", "")})
    assert set(left.biases) == set(left.weights) == set(weights) - {"conv2"}
    after = again_corrected(model, left, feeds, how)
    wanted, found = means(model, feeds), means(how.write(model, after), feeds)
    for name in after.weights:
        np.testing.assert_allclose(
            found[name], wanted[name], atol=1e-3 * np.abs(wanted[name]).max()
        )


@pytest.mark.parametrize("target", TARGETS)
def test_no_step_makes_it_worse_and_each_is_told(target: str) -> None:
    recipe = find(chain(2), data(), setting(target))
    names = ["clip-weights", "round-by-reading", "clip-ranges", "correct-biases"]
    assert [remark.rewrite for remark in recipe.remarks] == names
    assert {remark.code for remark in recipe.remarks} <= {"APPLIED", "NO-GAIN"}
    assert all(remark.applied == (remark.code == "APPLIED") for remark in recipe.remarks)
    assert any(remark.applied for remark in recipe.remarks)
    search = steps._Search(chain(2), data(), setting(target))
    best = search._start()
    for (name, step), remark in zip(search._steps(), recipe.remarks, strict=True):
        after = search._recipe(step(best.quantization))
        gain = after.difference.decibels - best.difference.decibels
        assert remark.applied == (gain >= steps.GAIN), name
        best = after if remark.applied else best
    assert recipe.difference == best.difference


def test_every_layer_has_a_row() -> None:
    recipe = find(chain(), data(), setting())
    assert [row.operator for row in recipe.rows] == ["Conv"] * 4 + ["Gemm"]
    read = ["x", "relu1", "relu3", "relu5", "flatten9"]
    for row, name in zip(recipe.rows, read, strict=True):
        limits = recipe.quantization.ranges[name]
        assert (row.low, row.high) == (limits.low, limits.high)
        assert row.kept == "" and row.decibels > 20 and 0 <= row.saturated < 0.05


def test_each_layer_is_told_with_its_range_scale_and_decibels() -> None:
    done = quantized(result_of(chain()), INT8, data(), DIALECTS["ort-cpu"], given=True)
    told = [one for one in done.remarks if one.rewrite == "quantize"]
    assert [one.node for one in told] == ["conv0", "conv2", "conv4", "conv6", "gemm10"]
    recipe = find(chain(), data(), setting())
    limits, row = recipe.quantization.ranges["relu1"], recipe.rows[1]
    scale, zero = limits.grid("uint8")
    assert told[1].reason == (
        f"reads 0 to {limits.high:.3g} as uint8, scale {scale:.3g}, zero point {zero}, "
        f"{row.saturated:.2%} clipped; alone it leaves {row.decibels:.0f} dB"
    )


def test_a_graph_that_was_not_equalised_is_quantized_once(monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(recipe_module, "find", lambda *given: calls.append(given) or find(*given))
    same = result_of(chain()), result_of(chain())
    quantized(same[0], INT8, data(), DIALECTS["trt"], given=True, unequalized=same[1])
    assert len(calls) == 1


def test_what_is_asked_for_stays_in_float() -> None:
    recipe = find(chain(), data(), setting(keep_float=("conv0", "Gemm")))
    kept = {row.name: row.kept for row in recipe.rows if row.kept}
    assert kept == {"conv0": "ASKED", "gemm10": "ASKED"}
    assert len(recipe.quantization.weights) == 3
    with pytest.raises(InputError, match="stem"):
        find(chain(), data(), setting(keep_float=("stem",)))


@pytest.mark.parametrize(("target", "float_layers"), [("openvino", 1), ("ort-cpu", 2)])
def test_a_layer_that_loses_too_much_stays_in_float(target: str, float_layers: int) -> None:
    """Channels that differ by 2^20 are 0 but for one, which has no weights.

    In ONNX Runtime the layer in front would write them as codes all the same.
    """
    net = Net(SHAPE, dtype=np.float32)
    scales = np.array([1.0, *[2.0**-20] * 7])
    first = net.rng.standard_normal((8, 3, 1, 1)) * scales[:, None, None, None]
    second = net.rng.standard_normal((4, 8, 1, 1)) / scales[:, None, None]
    second[:, 0] = 0
    y = net.op("Relu", net.op("Conv", "x", net.const(first)))
    y = net.op("Conv", y, net.const(second))
    net.x = net.op("Conv", y, net.const(net.rng.standard_normal((3, 4, 1, 1))))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(net.model(net.x)))
    recipe = find(model, data(), setting(target))
    kept = ["conv0", "conv2"][-float_layers:]
    assert {row.name: row.kept for row in recipe.rows if row.kept} == dict.fromkeys(
        kept, "ROUNDING"
    )
    assert set(recipe.quantization.weights) == {"conv0", "conv2", "conv3"} - set(kept)
    assert recipe.difference.decibels > 20
    done = quantized(result_of(model), INT8, data(), DIALECTS[target], given=False)
    assert sorted(one.node for one in done.remarks if one.code == "ROUNDING") == kept
    assert (done.rounded.nodes, done.rounded.total) == (3 - float_layers, 3)
    assert done.rounded.agreement is None


def test_layers_that_lose_most_for_their_arithmetic_come_first() -> None:
    model, feeds = chain(3), data()
    recipe = find(model, feeds, setting(per_channel=False))
    alone = one_at_a_time(recipe, feeds, setting())
    assert set(alone) == {row.name for row in recipe.rows}
    order = by_loss(model, alone)
    assert order[0] == "conv0"  # the stem
    pixels, products = 14 * 11, {"conv2": 144, "conv4": 144, "conv6": 144}
    ratio = {name: 10 ** (-alone[name] / 10) / (16 * pixels * n) for name, n in products.items()}
    ratio["gemm10"] = 10 ** (-alone["gemm10"] / 10) / 160
    assert order[1:] == sorted(ratio, key=ratio.__getitem__, reverse=True)


@pytest.mark.parametrize("wanted", [0, 1, 2, 4, 5])
def test_as_few_layers_as_are_enough_stay_in_float(wanted: int) -> None:
    """With an accuracy that only counts the layers that are left."""
    model, feeds, how = chain(), data(), setting()
    recipe = find(model, feeds, how)

    counts = []

    @dataclass(frozen=True)
    class Counting(Setting):
        def write(self, model: ir.Model, quantization) -> ir.Model:
            counts.append(len(quantization.weights))
            return super().write(model, quantization)

    def accuracy(run) -> float:
        left = counts[-1] if counts else 0  # the float graph is judged before any is written
        return 1.0 if left <= 5 - wanted else 0.5

    allowed = Allowed(0.1, accuracy)
    found = enough_in_float(recipe, feeds, Counting(how.dialect), allowed)
    assert len(found.quantization.weights) == 5 - wanted
    kept = [row.name for row in found.rows if row.kept]
    assert len(kept) == wanted
    if wanted:
        assert kept[0] == "conv0" and found.remarks[-1].rewrite == "mixed"
        assert all(row.alone is not None for row in found.rows)
        assert found.difference.decibels > recipe.difference.decibels
        reason = found.quantization.kept["conv0"].reason
        assert f"{found.rows[0].alone:.0f} dB of the outputs" in reason and "10.00%" in reason


def test_outputs_that_are_no_scores_need_an_accuracy() -> None:
    net = Net(SHAPE, dtype=np.float32)
    net.x = net.conv("x", 4, 3, (3, 3))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(net.model(net.x)))
    recipe = find(model, data(), setting())
    with pytest.raises(InputError, match="rows of scores"):
        enough_in_float(recipe, data(), setting(), Allowed(0.01))


def test_a_graph_is_not_changed() -> None:
    model = chain()
    before = ir.to_proto(model).SerializeToString()
    quantized(result_of(model), INT8, data(), DIALECTS["ort-cpu"], given=True)
    assert ir.to_proto(model).SerializeToString() == before
