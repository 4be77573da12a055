"""DBB on ResNet-18 is the network of the published code: its layers, names and borders."""

from __future__ import annotations

import copy
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatfold.models.dbb import BNAndPad, DiverseBranchBlock
from flatfold.models.initialise import initialise
from tests.models.published import norm, require_round_trip
from tests.models.weightless import on_meta
from tests.rounding import assert_same_sums

PLAIN = ("stage0.conv1", "stage2.0.shortcut", "stage3.0.shortcut", "stage4.0.shortcut")


def images(channels: int, height: int = 9, width: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, channels, height, width, generator=generator)


def test_published_keys_fill_the_network() -> None:
    keys = {"linear.weight", "linear.bias"}
    for layer in PLAIN:
        keys |= {f"{layer}.conv.weight", *norm(f"{layer}.bn")}
    for stage, block, conv in product((1, 2, 3, 4), (0, 1), (1, 2)):
        layer = f"stage{stage}.{block}.conv{conv}"
        for branch in ("dbb_origin", "dbb_1x1"):
            keys |= {f"{layer}.{branch}.conv.weight", *norm(f"{layer}.{branch}.bn")}
        mean, pair = f"{layer}.dbb_avg", f"{layer}.dbb_1x1_kxk"
        keys |= {f"{mean}.conv.weight", *norm(f"{mean}.bn.bn"), *norm(f"{mean}.avgbn")}
        keys |= {f"{pair}.idconv1.weight", *norm(f"{pair}.bn1.bn")}
        keys |= {f"{pair}.conv2.weight", *norm(f"{pair}.bn2")}
    require_round_trip("dbb_resnet18", keys)


def test_parameters_are_those_of_resnet18_and_of_three_more_branches() -> None:
    network = on_meta("dbb_resnet18")
    convs = [m.dbb_origin.conv for m in network.modules() if isinstance(m, DiverseBranchBlock)]
    assert len(convs) == 16
    extra = 0
    for i, o in ((conv.in_channels, conv.out_channels) for conv in convs):
        point, mean = o * i + 2 * o, o * i + 2 * o + 2 * o
        pair = i * i + 2 * i + 9 * i * o + 2 * o
        extra += point + mean + pair
    total = sum(parameter.numel() for parameter in network.parameters())
    assert total == 11_689_512 + extra


@pytest.mark.parametrize("training", [False, True])
def test_each_channel_is_padded_with_what_its_norm_makes_of_zero(training: bool) -> None:
    layer = BNAndPad(3, 2)
    initialise(layer, seed=0)
    inside, border = copy.deepcopy(layer.bn).train(training), copy.deepcopy(layer.bn).eval()
    expected = border(torch.zeros(2, 3, 13, 16))
    expected[..., 2:-2, 2:-2] = inside(images(3))
    # The border is beta - mean * gamma / sqrt(variance + epsilon).
    assert_same_sums(layer.train(training)(images(3)), expected, 5)


def folded(weight: Tensor, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    scale = bn.weight / (bn.running_var + bn.eps).sqrt()
    return weight * scale.view(-1, 1, 1, 1), bn.bias - bn.running_mean * scale


def behind(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], groups: int
) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a KxK convolution after a 1x1 whose output is padded with its bias."""
    inner = first[0].flatten(1).chunk(groups)
    shifts = first[1].chunk(groups)
    outer = second[0].chunk(groups)
    kernels = [torch.einsum("omyx,mi->oiyx", o, m) for o, m in zip(outer, inner, strict=True)]
    biases = [torch.einsum("omyx,m->o", o, b) for o, b in zip(outer, shifts, strict=True)]
    return torch.cat(kernels), second[1] + torch.cat(biases)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_block_is_the_sum_of_its_branches(kernel: int, stride: int, groups: int) -> None:
    block = DiverseBranchBlock(4, 6, kernel, stride, groups).eval()
    initialise(block, seed=0)
    mean, pair, side = block.dbb_avg, block.dbb_1x1_kxk, kernel // 2
    eye = torch.eye(4 // groups).repeat(groups, 1).view(4, -1, 1, 1)
    diagonal = torch.eye(6 // groups).repeat(groups, 1).view(6, -1, 1, 1)
    average = diagonal.expand(-1, -1, kernel, kernel) / kernel**2
    point, shift = folded(block.dbb_1x1.conv.weight, block.dbb_1x1.bn)
    branches = [
        folded(block.dbb_origin.conv.weight, block.dbb_origin.bn),
        (F.pad(point, [side] * 4), shift),
        behind(folded(mean.conv.weight, mean.bn.bn), folded(average, mean.avgbn), groups),
        behind(
            folded(pair.idconv1.weight + eye, pair.bn1.bn),
            folded(pair.conv2.weight, pair.bn2),
            groups,
        ),
    ]
    weight, bias = (torch.stack(parts).sum(0) for parts in zip(*branches, strict=True))
    expected = F.conv2d(images(4), weight, bias, stride, side, groups=groups)
    terms = 4 * kernel**2 // groups + 4 // groups + 2 * 4  # a 1x1, a kernel, and their norms
    assert_same_sums(block(images(4)), expected, 4 * terms)


def test_a_depthwise_block_has_three_branches_and_twice_the_channels_inside() -> None:
    block = DiverseBranchBlock(6, 6, 3, 2, groups=6)
    assert block.dbb_1x1 is None
    assert [name for name, _ in block.dbb_avg.named_children()] == ["avg", "avgbn"]
    assert block.dbb_avg.avg.padding == 1 and block.dbb_avg.avg.count_include_pad
    assert block.dbb_1x1_kxk.conv1.weight.shape == (12, 1, 1, 1)
    assert block.dbb_1x1_kxk.conv2.weight.shape == (6, 2, 3, 3)
    assert block(images(6)).shape == (2, 6, 5, 6)
