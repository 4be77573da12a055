"""The blocks of YOLOv6 and YOLOv7 compute what their papers say, with groups as without."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatfold.models import list_models
from flatfold.models.initialise import initialise
from flatfold.models.yolo import ImplicitHead, LinearAddBlock, QARepVGGBlock, RepConv
from tests.models.published import norm
from tests.models.weightless import on_meta
from tests.rounding import assert_same_sums

# Of a 3x3 and a 1x1 over at most eight channels, an identity, and three norms.
TERMS = 9 * 8 + 8 + 1 + 3 * 4


def images(channels: int = 8) -> Tensor:
    return torch.randn(2, channels, 7, 10, generator=torch.Generator().manual_seed(0))


def filled(block: nn.Module) -> nn.Module:
    initialise(block, seed=0)
    return block.eval()


def scale_of(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """BN(x) = s * x + t, with the epsilon of YOLO."""
    scale = bn.weight / (bn.running_var + 1e-3).sqrt()
    return scale.view(-1, 1, 1, 1), bn.bias - bn.running_mean * scale


def identity_kernel(channels: int, groups: int) -> Tensor:
    """x as a 3x3 convolution: output i reads channel i of its own group."""
    width = channels // groups
    kernel = torch.zeros(channels, width, 3, 3)
    for i in range(channels):
        kernel[i, i % width, 1, 1] = 1
    return kernel


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_repconv(groups: int) -> None:
    block = filled(RepConv(8, 8, 1, groups))
    (s3, t3), (s1, t1), (s0, t0) = (
        scale_of(bn) for bn in (block.rbr_dense.bn, block.rbr_1x1.bn, block.rbr_identity)
    )
    point = F.pad(block.rbr_1x1.conv.weight, [1] * 4)
    kernel = s3 * block.rbr_dense.conv.weight + s1 * point + s0 * identity_kernel(8, groups)
    y = F.conv2d(images(), kernel, t3 + t1 + t0, padding=1, groups=groups)
    assert_same_sums(block(images()), y * torch.sigmoid(y), TERMS)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("mean", [False, True])
def test_qarepvgg(groups: int, mean: bool) -> None:
    block = filled(QARepVGGBlock(8, 8, 1, groups, mean))
    (s3, t3), (s, t) = scale_of(block.rbr_dense.bn), scale_of(block.bn)
    eye = identity_kernel(8, groups)
    kernel = s3 * block.rbr_dense.conv.weight + F.pad(block.rbr_1x1.weight, [1] * 4) + eye
    if mean:
        kernel += eye.amax((2, 3), keepdim=True) / 9  # padding counts in a mean at the border
    y = F.conv2d(images(), s * kernel, s.flatten() * t3 + t, padding=1, groups=groups)
    assert_same_sums(block(images()), y.relu(), TERMS)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_csla(groups: int) -> None:
    block = filled(LinearAddBlock(8, 8, 1, groups))
    s, t = scale_of(block.bn)
    a, b, c = (
        scale.weight.view(-1, 1, 1, 1)
        for scale in (block.scale_conv, block.scale_1x1, block.scale_identity)
    )
    kernel = a * block.conv.weight + b * F.pad(block.conv_1x1.weight, [1] * 4)
    kernel += c * identity_kernel(8, groups)
    y = F.conv2d(images(), s * kernel, t, padding=1, groups=groups)
    assert_same_sums(block(images()), y.relu(), TERMS)


def test_keys_of_the_blocks_are_those_of_yolov6() -> None:
    dense = {"rbr_dense.conv.weight", *norm("rbr_dense.bn")}
    point = {"rbr_1x1.conv.weight", *norm("rbr_1x1.bn")}
    scales = {f"scale_{name}.weight" for name in ("conv", "1x1", "identity")}
    for block, keys in (
        (RepConv(8, 8, 1), dense | point | norm("rbr_identity")),
        (QARepVGGBlock(8, 8, 1), dense | {"rbr_1x1.weight", *norm("bn")}),
        (LinearAddBlock(8, 8, 1), {"conv.weight", "conv_1x1.weight"} | scales | norm("bn")),
    ):
        assert set(block.state_dict()) == keys


def test_scales_of_convolutions_are_constant_in_csla() -> None:
    for csla in (True, False):
        block = LinearAddBlock(8, 8, 1, csla=csla)
        assert block.scale_conv.weight.requires_grad != csla
        assert block.scale_1x1.weight.requires_grad != csla
        assert block.scale_identity.weight.requires_grad


@pytest.mark.parametrize("block", [RepConv, QARepVGGBlock, LinearAddBlock])
def test_what_changes_the_shape_has_no_identity(block: type[nn.Module]) -> None:
    for c_out, stride in ((8, 2), (12, 1), (12, 2)):
        made = block(8, c_out, stride).eval()
        assert made(images()).shape == (2, c_out, *((4, 5) if stride == 2 else (7, 10)))
        absent = ("rbr_identity", "rbr_avg", "scale_identity")
        assert all(getattr(made, name, None) is None for name in absent)


def test_head_adds_before_the_scores_and_multiplies_them() -> None:
    head = filled(ImplicitHead(8, 5))
    means = (images() + head.ia).mean((2, 3))
    scores = (means @ head.m.weight.flatten(1).T + head.m.bias) * head.im.flatten()
    assert_same_sums(head(images()), scores, 7 * 10 + 8 + 4)  # the map, the channels, the rest


@pytest.mark.parametrize("name", list_models("yolo_*"))
def test_every_norm_has_the_epsilon_of_yolo(name: str) -> None:
    norms = [layer for layer in on_meta(name).modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {(layer.eps, layer.momentum) for layer in norms} == {(1e-3, 0.03)}
    assert [len(stage) for stage in on_meta(name).stages] == [3, 5, 7, 3]
