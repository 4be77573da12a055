"""ConvNeXt.

Liu et al., "A ConvNet for the 2020s", CVPR 2022, arXiv:2201.03545. Modules carry the names of the
published code, so that its checkpoints load. Stochastic depth is left out: it does nothing outside
training and has no weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from flatfold.models.layers import ChannelsLastFFN, Pyramid, patches, repeated


class ConvNeXtBlock(ChannelsLastFFN):
    """x + gamma * W2 gelu(W1 LN(conv7x7(x))), the convolution depthwise."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.ffn(self.dwconv(x))


def convnext(*, widths: Sequence[int], depths: Sequence[int], num_classes: int = 1000) -> Pyramid:
    """A ConvNeXt: `widths` and `depths` of its stages at 1/4, 1/8, 1/16 and 1/32."""
    stages = repeated(depths, lambda i: ConvNeXtBlock(widths[i]))
    return Pyramid(patches(widths), stages, widths[-1], num_classes)
