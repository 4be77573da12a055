"""ACNet in its training form: asymmetric convolution blocks in a ResNet.

Ding et al., "ACNet: Strengthening the Kernel Skeletons for Powerful CNN via Asymmetric Convolution
Blocks", ICCV 2019, arXiv:1908.03930. Modules carry the names of the published code, so that its
checkpoints load.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from flatfold.models.layers import Staged
from flatfold.models.resnet import resnet


class ACBlock(nn.Module):
    """BN(conv KxK (x)) + BN(conv Kx1 (x)) + BN(conv 1xK (x)).

    All three kernels are centred on the same pixel. Where that asks for negative padding, for
    `padding` < K // 2, the input of the thin kernels is cropped instead, across them.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int, stride: int, padding: int, groups: int = 1
    ) -> None:
        super().__init__()
        across = padding - kernel // 2
        self.crop = max(-across, 0)
        tall, wide = (padding, max(across, 0)), (max(across, 0), padding)

        def conv(size: tuple[int, int], pads: tuple[int, int]) -> nn.Conv2d:
            return nn.Conv2d(c_in, c_out, size, stride, pads, groups=groups, bias=False)

        self.square_conv = conv((kernel, kernel), (padding, padding))
        self.square_bn = nn.BatchNorm2d(c_out)
        self.ver_conv = conv((kernel, 1), tall)
        self.ver_bn = nn.BatchNorm2d(c_out)
        self.hor_conv = conv((1, kernel), wide)
        self.hor_bn = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        columns = rows = x
        if self.crop:
            columns = x[..., self.crop : -self.crop]
            rows = x[..., self.crop : -self.crop, :]
        y: Tensor = self.square_bn(self.square_conv(x))
        y = y + self.ver_bn(self.ver_conv(columns)) + self.hor_bn(self.hor_conv(rows))
        return y


def acnet(*, depths: Sequence[int], widths: Sequence[int], num_classes: int = 1000) -> Staged:
    """A ResNet of basic blocks, `depths` of `widths` channels, with an ACBlock for each 3x3."""

    def layer(c_in: int, c_out: int, stride: int) -> nn.Module:
        return ACBlock(c_in, c_out, 3, stride, 1)

    return resnet(depths, widths, layer, num_classes)
