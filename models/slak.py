"""SLaK in its training form.

Liu et al., "More ConvNets in the 2020s: Scaling up Kernels Beyond 51x51 using Sparsity", ICLR 2023,
arXiv:2207.03620. A ConvNeXt of which every depthwise 7x7 is three kernels. The sparsity is one of
weights, so that a trained network is dense with zeros in it. Stochastic depth is left out: it
does nothing outside training and has no weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from flatfold.models.layers import ChannelsLastFFN, Pyramid, depthwise_bn, patches, repeated


class Strips(nn.Module):
    """BN(conv MxN(x)) + BN(conv NxM(x)) + BN(conv NxN(x)), all depthwise: a cross."""

    def __init__(self, channels: int, length: int, width: int) -> None:
        super().__init__()
        self.tall = depthwise_bn(channels, (length, width))
        self.wide = depthwise_bn(channels, (width, length))
        self.small_conv = depthwise_bn(channels, (width, width))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.tall(x) + self.wide(x) + self.small_conv(x)
        return y


class SLaKBlock(ChannelsLastFFN):
    """x + gamma * W2 gelu(W1 LN(strips(x)))."""

    def __init__(self, channels: int, length: int, width: int) -> None:
        super().__init__(channels)
        self.large_kernel = Strips(channels, length, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.ffn(self.large_kernel(x))


def slak(
    *,
    widths: Sequence[int],
    depths: Sequence[int],
    lengths: Sequence[int] = (51, 49, 47, 13),
    strip: int = 5,
    num_classes: int = 1000,
) -> Pyramid:
    """A SLaK: `widths` and `depths` of its stages, `lengths` and width of their strips."""
    stages = repeated(depths, lambda i: SLaKBlock(widths[i], lengths[i], strip))
    return Pyramid(patches(widths), stages, widths[-1], num_classes)
