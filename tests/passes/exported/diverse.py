"""Diverse Branch Block (architectures: DBB), with its padding as the published code writes it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.passes.exported.exporters import EXPORTERS, SMALL, Case
from tests.passes.exported.parts import Sum, conv_bn


class BNAndPad(nn.Module):
    """BN, then a border of what BN makes of zero."""

    def __init__(self, c: int, pad: int) -> None:
        super().__init__()
        self.bn, self.pad = nn.BatchNorm2d(c), pad

    def forward(self, x: Tensor) -> Tensor:
        bn, p = self.bn, self.pad
        edge = bn.bias - bn.running_mean * bn.weight / torch.sqrt(bn.running_var + bn.eps)
        edge = edge.detach().view(1, -1, 1, 1)
        y = F.pad(bn(x), [p] * 4)
        y[:, :, 0:p, :] = edge
        y[:, :, -p:, :] = edge
        y[:, :, :, 0:p] = edge
        y[:, :, :, -p:] = edge
        return y


class IdentityConv(nn.Conv2d):
    """A 1x1 convolution that keeps its weight apart from the identity."""

    def forward(self, x: Tensor) -> Tensor:
        eye = torch.eye(self.in_channels, dtype=self.weight.dtype).reshape(*self.weight.shape)
        return F.conv2d(x, self.weight + eye)


def dense(c: int, k: int, stride: int) -> nn.Module:
    p = k // 2
    mean = nn.Sequential(
        nn.Conv2d(c, c, 1, bias=False),
        BNAndPad(c, p),
        nn.AvgPool2d(k, stride, 0),
        nn.BatchNorm2d(c),
    )
    chain = nn.Sequential(
        IdentityConv(c, c, 1, bias=False),
        BNAndPad(c, p),
        conv_bn(c, c, k, stride=stride, padding=0),
    )
    square = conv_bn(c, c, k, stride=stride)
    return nn.Sequential(Sum(square, conv_bn(c, c, 1, stride=stride), mean, chain), nn.ReLU())


def depthwise(c: int, k: int, stride: int) -> nn.Module:
    mean = nn.Sequential(nn.AvgPool2d(k, stride, k // 2), nn.BatchNorm2d(c))
    chain = nn.Sequential(
        nn.Conv2d(c, 2 * c, 1, groups=c, bias=False),
        BNAndPad(2 * c, k // 2),
        conv_bn(2 * c, c, k, stride=stride, padding=0, groups=c),
    )
    square = conv_bn(c, c, k, stride=stride, groups=c)
    return nn.Sequential(Sum(square, mean, chain), nn.ReLU())


CASES = {
    f"DBB {block.__name__} {k}x{k} s{stride}, writes": Case(
        lambda c, block=block, k=k, stride=stride: block(c, k, stride),
        {"Conv": 1, "Relu": 1},
        {SMALL: (9, 10)},
        exporters=EXPORTERS if k == 3 else EXPORTERS[:2],
        batches=("static",),  # the border that is written has the size of the batch
        verdict="bounded",  # what is written there was worked out before, and rounded
    )
    for block, k in ((dense, 3), (depthwise, 3), (depthwise, 5))
    for stride in (1, 2)
}
