"""Changes are certified by their algebra; a wrong formula is not, however small the difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.passes import PIPELINE, Change, Pipeline, fold_batchnorm
from flatfold.passes.reading.meaning import Applied
from flatfold.passes.reading.node import number, source, spatial_sizes, weights
from flatfold.passes.stencil import kernels
from flatfold.passes.stencil.stencil import diagonal
from flatfold.proof import RegionChecks
from flatfold.proof.finite_field.identity_test import Uncertified, require_identity
from flatfold.proof.trial_data import draw_trial, extents
from tests.nets import Net


def repvgg(dtype: type = np.float32, stride: int = 1, groups: int = 1) -> Net:
    """3x3 + 1x1 + identity, with norms, and a layer with a bias behind."""
    net = Net((2, 8, 9, 8), dtype=dtype)
    x, options = net.x, {"groups": groups, "strides": [stride] * 2}
    y = net.op(
        "Add",
        net.bn(net.conv(x, 8, 8, (3, 3), bias=False, **options), 8),
        net.bn(net.conv(x, 8, 8, (1, 1), bias=False, **options), 8),
    )
    net.y = net.op("Relu", net.op("Add", y, net.bn(x, 8)) if stride == 1 else y)
    net.y = net.bn(net.conv(net.y, 4, 8, (1, 1)), 4)
    return net


def doubts_of(net: Net) -> list[str]:
    """Why changes of the net are not certified; each one is tested before it is made."""
    doubts = []

    def check(change: Change) -> None:
        for extent in extents(change):
            data = draw_trial(change, extent, np.random.default_rng(0))
            try:
                require_identity(change, [data], 0)
            except Uncertified as why:
                doubts.append(str(why))

    remarks = Pipeline([kind() for kind in PIPELINE], check=check).run(
        ir.from_proto(net.model(net.y))
    )
    assert any(remark.applied for remark in remarks)
    return doubts


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 4)])
def test_a_right_change_is_certified_whatever_the_rounding(dtype, stride, groups):
    assert not doubts_of(repvgg(dtype, stride, groups))


def test_taps_that_are_moved_are_certified():
    net = Net((2, 4, 6, 5), opset=20)
    moves, weight = np.full((2, 2, 6, 5), -1.0), np.random.default_rng(0).normal(size=(4, 1, 1, 1))
    moved = net.op("DeformConv", net.x, net.const(weight), net.const(moves), group=4)
    net.y = net.op("Relu", net.op("Add", net.conv(net.x, 4, 4, (3, 3)), moved))
    assert not doubts_of(net)


def test_channels_that_are_dead_hide_nothing():
    """A norm with gamma and beta 0: no input shows what the formula does with its variance."""
    net = repvgg()
    for name, array in net.constants.items():
        if array.shape == (8,):
            net.constants[name] = np.where(np.arange(8) < 2, 0, array).astype(array.dtype)
    for node in net.nodes:
        if node.op_type == "BatchNormalization":
            net.constants[node.input[4]][:2] = 1
    assert not doubts_of(net)


def wrong_norm(epsilon: float, mean: float) -> Callable[[ir.Node], Applied]:
    """Folding with another epsilon, or another sign of the mean in channel 1."""

    def read(node: ir.Node) -> Applied:
        gamma, beta, centre, variance = (weights(node, i, "part") * 1.0 for i in range(1, 5))
        scale = gamma / np.sqrt(variance + epsilon * number(node, "epsilon", 1e-5))
        signs = np.ones(len(centre))
        signs[1] = mean
        shift = beta - signs * centre * scale
        return Applied(source(node), diagonal(scale, shift, len(spatial_sizes(source(node)))))

    return read


def slightly_wrong(factor: kernels.Weight, weight: kernels.Weight) -> kernels.Array:
    """2^-40 too much: sixteen bits below what float32 can show."""
    return right_scale(factor, weight) * (1 + 2.0**-40)


def tap_moved(*arguments: object) -> None:
    total, shape, weight, part = arguments
    if part.kernel == (1, 1) and shape.kernel == (3, 3):
        part = replace(part, begin=(part.begin[0], part.begin[1] + 1))
    right_accumulate(total, shape, weight, part)


right_scale, right_accumulate = kernels.scale_outputs, kernels.accumulate

FAULTS = {
    "epsilon left out": (fold_batchnorm, "read_batch_norm", wrong_norm(0, 1)),
    "epsilon a hundred times": (fold_batchnorm, "read_batch_norm", wrong_norm(100, 1)),
    "sign of the mean": (fold_batchnorm, "read_batch_norm", wrong_norm(1, -1)),
    "a weight by 2^-40": (kernels, "scale_outputs", slightly_wrong),
    "1x1 at another tap": (kernels, "accumulate", tap_moved),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_formula_is_not_certified(fault, monkeypatch):
    module, name, wrong = FAULTS[fault]
    monkeypatch.setattr(module, name, wrong)
    assert any("differ by more than rounding" in why for why in doubts_of(repvgg()))


def test_the_planted_formulas_differ_from_the_right_one_by_their_fault_alone(monkeypatch):
    right = wrong_norm(1, 1)
    monkeypatch.setattr(fold_batchnorm, "read_batch_norm", right)
    assert fold_batchnorm.FoldBatchNorm().readers()["BatchNormalization"] is right
    assert not doubts_of(repvgg())


def test_what_rounding_hides_from_the_bound_is_seen(monkeypatch):
    monkeypatch.setattr(kernels, "scale_outputs", slightly_wrong)
    checks = RegionChecks(certifying=True)
    net = repvgg()
    Pipeline([kind() for kind in PIPELINE], check=checks).run(ir.from_proto(net.model(net.y)))
    assert checks.worst < 1
    assert checks.certified < checks.regions == len(checks.doubts) + checks.certified
    assert "relu" in checks.doubts[0] or "add" in checks.doubts[0] or "batch" in checks.doubts[0]


def test_other_weights_than_those_that_were_made_are_not_certified():
    """The certificate is about the nodes that go into the graph, not about others like them."""

    def check(change: Change) -> None:
        array = change.replacement.initializers[0].const_value.numpy().copy()
        array.flat[0] = np.nextafter(array.flat[0], np.float32(np.inf))
        change.replacement.initializers[0].const_value = ir.Tensor(array)
        data = draw_trial(change, extents(change)[0], np.random.default_rng(0))
        with pytest.raises(Uncertified, match="other weights"):
            require_identity(change, [data], 0)

    net = repvgg()
    Pipeline([kind() for kind in PIPELINE], check=check).run(ir.from_proto(net.model(net.y)))
