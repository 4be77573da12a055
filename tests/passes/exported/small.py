"""Blocks with small kernels: RepViT, CSLA, ResNet-D, VanillaNet; transposed layers, other axes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tests.passes.exported.exporters import EXPORTERS, SMALL, WIDE, Case
from tests.passes.exported.parts import NORMS, Residual, Scale, Sum, conv_bn


def repvit(c: int) -> nn.Module:
    branches = (conv_bn(c, c, 3, groups=c), nn.Conv2d(c, c, 1, groups=c), nn.Identity())
    return nn.Sequential(Sum(*branches), nn.BatchNorm2d(c), nn.GELU())


def csla(c: int) -> nn.Module:
    large = nn.Sequential(nn.Conv2d(c, c, 3, padding=1, bias=False), Scale(c))
    small = nn.Sequential(nn.Conv2d(c, c, 1, bias=False), Scale(c))
    return nn.Sequential(Sum(large, small, Scale(c)), nn.BatchNorm2d(c), nn.ReLU())


def resnet_d(c: int) -> nn.Module:
    shortcut = nn.Sequential(nn.AvgPool2d(2, 2), conv_bn(c, 2 * c, 1))
    return nn.Sequential(Sum(conv_bn(c, 2 * c, 3, stride=2), shortcut), nn.ReLU())


class Mixed(nn.Module):
    """(1 - l) * relu(x) + l * x."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        return (1 - self.share) * F.relu(x) + self.share * x


def vanilla(c: int, activation: nn.Module) -> nn.Module:
    conv = (nn.Conv2d(c, c, 1), nn.BatchNorm2d(c, eps=1e-6), activation, nn.Conv2d(c, 2 * c, 1))
    series = conv_bn(2 * c, 2 * c, 7, groups=2 * c, eps=1e-6)
    return nn.Sequential(*conv, nn.BatchNorm2d(2 * c, eps=1e-6), nn.MaxPool2d(2), nn.ReLU(), series)


def transposed(c: int, groups: int, axes: int) -> nn.Module:
    kind = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[axes]
    layer = kind(c, 2 * c, 4, 2, 1, groups=groups, bias=groups == 1)
    return nn.Sequential(layer, NORMS[axes](2 * c), nn.ReLU())


def repvgg(c: int, axes: int, bias: bool = False) -> nn.Module:
    large, small = (conv_bn(c, c, k, axes=axes, bias=bias) for k in (3, 1))
    return nn.Sequential(Sum(large, small, NORMS[axes](c)), nn.ReLU())


def diverse(c: int, axes: int, bias: bool = False) -> nn.Module:
    """The branches of a DBB, without padding inside, so that every chain is exact."""
    pool = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}[axes]
    mean = nn.Sequential(conv_bn(c, c, 1, axes=axes, bias=bias), pool(3, 1), NORMS[axes](c))
    one = conv_bn(c, c, 1, axes=axes, bias=bias)
    pair = (one, conv_bn(c, c, 3, axes=axes, padding=0, bias=bias))
    return nn.Sequential(Sum(nn.Sequential(*pair), mean), nn.ReLU())


AXES = {
    1: {SMALL: (17,), WIDE: (98,)},
    2: {SMALL: (9, 10), WIDE: (28, 28)},
    3: {SMALL: (5, 6, 4), WIDE: (8, 8, 8)},
}
EVEN = {SMALL: (10, 12), WIDE: (28, 28)}
ONE = {"Conv": 1, "Relu": 1}

CASES = {
    "RepViT": Case(repvit, {"Conv": 1, "Gelu": 1}),
    "CSLA": Case(csla, ONE),
    "ResNet-D": Case(resnet_d, ONE, EVEN),
    "VanillaNet slope 1": Case(
        lambda c: vanilla(c, nn.LeakyReLU(1.0)), {"Conv": 2, "Relu": 1, "MaxPool": 1}, EVEN
    ),
    "VanillaNet l = 1": Case(
        lambda c: vanilla(c, Mixed(1.0)), {"Conv": 2, "Relu": 1, "MaxPool": 1}, EVEN
    ),
    "VanillaNet l = 0.3": Case(
        lambda c: vanilla(c, Mixed(0.3)),
        {"Conv": 3, "Relu": 1, "MaxPool": 1, "LeakyRelu": 1},
        EVEN,
        verdict="bounded",  # the slope is an attribute, which has single precision
    ),
    **{
        f"ConvTranspose {axes}-D, {name}": Case(
            lambda c, share=share, axes=axes: transposed(c, max(c // share, 1), axes),
            {"ConvTranspose": 1, "Relu": 1},
            AXES[axes],
        )
        for axes in AXES
        for name, share in (("dense", SMALL * WIDE), ("grouped", 4), ("depthwise", 1))
    },
    **{
        f"{block.__name__} {n}-D, {'with' if bias else 'no'} biases": Case(
            lambda c, block=block, n=n, bias=bias: block(c, n, bias),
            ONE,
            AXES[n],
            EXPORTERS if bias or n < 3 else EXPORTERS[1:],
        )
        for block in (repvgg, diverse)
        for n in AXES
        for bias in (False, True)
    },
    "residual": Case(lambda c: nn.Sequential(Residual(conv_bn(c, c, 3)), nn.ReLU()), ONE),
}
