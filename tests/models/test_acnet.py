"""ACNet on ResNet-18 is the network of the published code: its layers, names and alignment."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from flatfold.models.acnet import ACBlock
from flatfold.models.initialise import initialise
from tests.models.published import norm, require_round_trip
from tests.models.weightless import on_meta
from tests.rounding import assert_same_sums

STAGES = {1: 64, 2: 128, 3: 256, 4: 512}


PLAIN = ("stage0.conv1", "stage2.0.shortcut", "stage3.0.shortcut", "stage4.0.shortcut")


def test_published_keys_fill_the_network() -> None:
    keys = {"linear.weight", "linear.bias"}
    for layer in PLAIN:
        keys |= {f"{layer}.conv.weight", *norm(f"{layer}.bn")}
    for stage, block, conv, branch in product(STAGES, (0, 1), (1, 2), ("square", "ver", "hor")):
        layer = f"stage{stage}.{block}.conv{conv}.{branch}"
        keys |= {f"{layer}_conv.weight", *norm(f"{layer}_bn")}
    require_round_trip("acnet_resnet18", keys)


def test_parameters_are_those_of_resnet18_and_two_thin_kernels_for_each_square_one() -> None:
    network = on_meta("acnet_resnet18")
    squares = [m for m in network.modules() if isinstance(m, ACBlock)]
    pairs = sum(m.square_conv.in_channels * m.square_conv.out_channels for m in squares)
    channels = sum(m.square_conv.out_channels for m in squares)
    assert len(squares) == 16
    total = sum(parameter.numel() for parameter in network.parameters())
    assert total == 11_689_512 + 2 * (3 * pairs + 2 * channels)


def test_strides_and_the_plain_layers_are_those_of_resnet18() -> None:
    network = on_meta("acnet_resnet18")
    for s, width in STAGES.items():
        for i, block in enumerate(getattr(network, f"stage{s}")):
            assert block.conv1.square_conv.stride == ((2, 2) if s > 1 and i == 0 else (1, 1))
            assert block.conv2.square_conv.out_channels == width
            assert isinstance(block.shortcut, nn.Identity) == (s == 1 or i == 1)
    assert network.stage0.conv1.conv.kernel_size == (7, 7)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("kernel", "padding"), [(3, 1), (3, 0), (5, 1), (5, 2), (5, 3), (5, 4), (5, 6)]
)
def test_thin_kernels_lie_on_the_middle_of_the_square_one(
    kernel: int, padding: int, stride: int
) -> None:
    block = ACBlock(4, 6, kernel, stride, padding, groups=2).eval()
    initialise(block, seed=0)
    merged, bias = torch.zeros(6, 2, kernel, kernel), torch.zeros(6)
    for conv, bn in (
        (block.square_conv, block.square_bn),
        (block.ver_conv, block.ver_bn),
        (block.hor_conv, block.hor_bn),
    ):
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        high, wide = ((kernel - size) // 2 for size in conv.kernel_size)
        merged += F.pad(conv.weight, (wide, wide, high, high)) * scale.view(-1, 1, 1, 1)
        bias += bn.bias - bn.running_mean * scale
    x = torch.randn(2, 4, 9, 12, generator=torch.Generator().manual_seed(0))
    expected = F.conv2d(x, merged, bias, stride, padding, groups=2)
    terms = 2 * kernel**2 + 2 * 2 * kernel + 3 * 4  # the square, two thin ones, three norms
    assert_same_sums(block(x), expected, terms)
