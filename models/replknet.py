"""RepLKNet in its training form.

Ding et al., "Scaling Up Your Kernels to 31x31: Revisiting Large Kernel Design in CNNs", CVPR 2022,
arXiv:2203.06717. Modules carry the names of the published code, so that its checkpoints load.
Stochastic depth is left out: it does nothing outside training and has no weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from flatfold.models.layers import LargeKernel, conv_bn


def conv_bn_relu(c_in: int, c_out: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
    """relu(BN(conv(x)))."""
    layers = conv_bn(c_in, c_out, kernel, stride, groups)
    layers.add_module("nonlinear", nn.ReLU())
    return layers


class RepLKBlock(nn.Module):
    """x + BN(conv1x1(relu(large kernel of relu(BN(conv1x1(BN(x)))))))."""

    def __init__(self, channels: int, inner: int, large: int, small: int | None) -> None:
        super().__init__()
        self.prelkb_bn = nn.BatchNorm2d(channels)
        self.pw1 = conv_bn_relu(channels, inner, 1, 1, 1)
        self.large_kernel = LargeKernel(inner, inner, large, small)
        self.lk_nonlinear = nn.ReLU()
        self.pw2 = conv_bn(inner, channels, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.large_kernel(self.pw1(self.prelkb_bn(x)))
        y = x + self.pw2(self.lk_nonlinear(y))
        return y


class ConvFFN(nn.Module):
    """x + BN(conv1x1(gelu(BN(conv1x1(BN(x)))))), four times wider inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.preffn_bn = nn.BatchNorm2d(channels)
        self.pw1 = conv_bn(channels, 4 * channels, 1, 1, 1)
        self.pw2 = conv_bn(4 * channels, channels, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pw1(self.preffn_bn(x))
        y = x + self.pw2(F.gelu(y))
        return y


class Stage(nn.Module):
    """`depth` times a block with a large kernel and then a ConvFFN."""

    init_gain = 0.5  # 48 seeded shortcuts would add up to far more than what reached the first

    def __init__(
        self, channels: int, depth: int, inner: int, large: int, small: int | None
    ) -> None:
        super().__init__()
        pairs = [
            (RepLKBlock(channels, inner, large, small), ConvFFN(channels)) for _ in range(depth)
        ]
        self.blocks = nn.Sequential(*(block for pair in pairs for block in pair))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.blocks(x)
        return y


class RepLKNet(nn.Module):
    """[N, 3, H, W] -> logits [N, num_classes]: four stages at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        kernels: Sequence[int],
        small: int | None,
        inner_ratio: float,
        num_classes: int,
    ) -> None:
        super().__init__()
        first, last = widths[0], widths[-1]
        self.stem = nn.Sequential(
            conv_bn_relu(3, first, 3, 2, 1),
            conv_bn_relu(first, first, 3, 1, first),
            conv_bn_relu(first, first, 1, 1, 1),
            conv_bn_relu(first, first, 3, 2, first),
        )
        self.stages = nn.ModuleList(
            Stage(width, depths[i], int(width * inner_ratio), kernels[i], small)
            for i, width in enumerate(widths)
        )
        self.transitions = nn.ModuleList(
            _transition(widths[i], width) for i, width in enumerate(widths[1:])
        )
        self.norm = nn.BatchNorm2d(last)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages[0](self.stem(x))
        for transition, stage in zip(self.transitions, list(self.stages)[1:], strict=True):
            x = stage(transition(x))
        logits: Tensor = self.head(self.avgpool(self.norm(x)).flatten(1))
        return logits


def _transition(c_in: int, c_out: int) -> nn.Sequential:
    """To `c_out` channels at half the size."""
    return nn.Sequential(
        conv_bn_relu(c_in, c_out, 1, 1, 1), conv_bn_relu(c_out, c_out, 3, 2, c_out)
    )


def replknet(
    *,
    widths: Sequence[int],
    kernels: Sequence[int],
    depths: Sequence[int] = (2, 2, 18, 2),
    small: int | None = 5,
    inner_ratio: float = 1.0,
    num_classes: int = 1000,
) -> RepLKNet:
    """A RepLKNet: `widths`, `depths` and large `kernels` of its stages.

    `small` is the kernel beside each large one, `inner_ratio` the channels under the large kernels
    as a multiple of the stage's (`dw_ratio` in the paper).
    """
    return RepLKNet(widths, depths, kernels, small, inner_ratio, num_classes)
