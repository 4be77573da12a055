"""VanillaNet in its training form.

Chen et al., "VanillaNet: the Power of Minimalism in Deep Learning", NeurIPS 2023,
arXiv:2305.12972. Modules carry the names of the published code, so that its checkpoints load.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-6  # of every BatchNorm


def conv_bn(
    c_in: int, c_out: int, kernel: int = 1, stride: int = 1, padding: int = 0
) -> list[nn.Module]:
    """The layers of BN(conv(x)); the conv has a bias."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding)
    return [conv, nn.BatchNorm2d(c_out, eps=EPS)]


class SeriesActivation(nn.Conv2d):
    """BN(sum over a window of weight * relu(x)), per channel: the paper's series of activations.

    The window reaches `reach` pixels to every side. A Conv2d whose input is relu(x), so that its
    kernel is called `weight` as in the published code.
    """

    def __init__(self, channels: int, reach: int) -> None:
        super().__init__(
            channels, channels, 2 * reach + 1, padding=reach, groups=channels, bias=False
        )
        self.bn = nn.BatchNorm2d(channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(super().forward(x.relu()))
        return y


class VanillaBlock(nn.Module):
    """act(pool(BN(conv(leaky(BN(conv(x))))))), both convolutions 1x1."""

    def __init__(self, c_in: int, c_out: int, pool: int, reach: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*conv_bn(c_in, c_in))
        self.conv2 = nn.Sequential(*conv_bn(c_in, c_out))
        self.pool = nn.Identity() if pool == 1 else nn.MaxPool2d(pool, 2, (pool - 1) // 2)
        self.act = SeriesActivation(c_out, reach)

    def forward(self, x: Tensor, slope: float) -> Tensor:
        y: Tensor = self.conv2(F.leaky_relu(self.conv1(x), slope))
        y = self.act(self.pool(y))
        return y


class VanillaNet(nn.Module):
    """[N, 3, H, W] -> logits [N, num_classes]: no shortcut, no branch.

    `slope` is that of the activation between the two convolutions of each pair. Training moves it
    from 0, a ReLU, to 1, where the pair has become one linear layer.
    """

    def __init__(
        self,
        widths: Sequence[int],
        pools: Sequence[int],
        stem: tuple[int, int],
        reach: int,
        slope: float,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.slope = slope
        stride, padding = stem
        first, last = widths[0], widths[-1]
        self.stem1 = nn.Sequential(*conv_bn(3, first, 4, stride, padding))
        self.stem2 = nn.Sequential(*conv_bn(first, first), SeriesActivation(first, reach))
        self.stages = nn.ModuleList(
            VanillaBlock(widths[i], widths[i + 1], pool, reach) for i, pool in enumerate(pools)
        )
        self.cls1 = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Dropout(), *conv_bn(last, num_classes)
        )
        self.cls2 = nn.Sequential(nn.Conv2d(num_classes, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem2(F.leaky_relu(self.stem1(x), self.slope))
        for stage in self.stages:
            x = stage(x, self.slope)
        logits: Tensor = self.cls2(F.leaky_relu(self.cls1(x), self.slope))
        return logits.flatten(1)


def vanillanet(
    *,
    widths: Sequence[int],
    pools: Sequence[int],
    stem: tuple[int, int] = (4, 0),
    reach: int = 3,
    slope: float = 1.0,
    num_classes: int = 1000,
) -> VanillaNet:
    """A VanillaNet: `widths` of the stem and of each stage, `pools` of each stage.

    A pool is the width of its MaxPool with stride 2, or 1 for none; one of width 3 is padded by 1.
    `stem` is stride and padding of the first convolution; `reach` is `act_num` of the paper.
    """
    return VanillaNet(widths, pools, stem, reach, slope, num_classes)
