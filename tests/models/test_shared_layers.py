"""Layers of several families, against the operators of torch and their equations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatfold.models.initialise import initialise
from flatfold.models.layers import ChannelNorm, GlobalResponseNorm, Pyramid, depthwise_bn
from tests.rounding import assert_same_sums


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_channel_norm_is_layer_norm_along_axis_one() -> None:
    norm, x = ChannelNorm(5), drawn(2, 5, 3, 4)
    initialise(norm, seed=0)
    norm.double()
    last = F.layer_norm(x.permute(0, 2, 3, 1), (5,), norm.weight, norm.bias, 1e-6)
    assert_same_sums(norm(x), last.permute(0, 3, 1, 2), 5 + 5 + 4)  # mean, variance, the rest
    assert norm.eps == 1e-6


def test_response_norm_is_relative_to_the_mean_response() -> None:
    norm, x = GlobalResponseNorm(5), drawn(2, 3, 4, 5)
    initialise(norm, seed=0)
    norm.double()
    response = x.square().sum((1, 2), keepdim=True).sqrt()
    relative = response / (response.mean(3, keepdim=True) + 1e-6)
    expected = x + norm.gamma * relative * x + norm.beta
    assert_same_sums(norm(x), expected, 3 * 4 + 5 + 6)  # over the map, the channels, the rest


@pytest.mark.parametrize(("kernel", "dilation"), [((5, 3), 1), ((3, 3), 4), ((7, 7), 2)])
def test_depthwise_keeps_size_and_place(kernel: tuple[int, int], dilation: int) -> None:
    layer, x = depthwise_bn(2, kernel, dilation).double().eval(), drawn(1, 2, 6, 9)
    with torch.no_grad():
        nn.init.zeros_(layer.conv.weight)[:, :, kernel[0] // 2, kernel[1] // 2] = 3.0
    taps = kernel[0] * kernel[1]
    assert_same_sums(layer(x), 3 * x / (1 + layer.bn.eps) ** 0.5, taps + 4)  # and a norm


def test_pyramid_wants_a_way_down_for_each_stage() -> None:
    with pytest.raises(ValueError):
        Pyramid([nn.Identity()], [nn.Identity(), nn.Identity()], 3, 2)(torch.zeros(1, 3, 8, 8))
