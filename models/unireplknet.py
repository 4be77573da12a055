"""UniRepLKNet in its training form.

Ding et al., "UniRepLKNet: A Universal Perception Large-Kernel ConvNet for Audio, Video, Point
Cloud, Time-Series and Image Recognition", CVPR 2024, arXiv:2311.15599. Stochastic depth is left
out: it does nothing outside training and has no weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from flatfold.models.layers import GatedFFN, Pyramid, conv, depthwise_bn, strides

DILATED = {  # (kernel, dilation) beside a large kernel
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    7: ((5, 1), (3, 2), (3, 3)),
}


class DilatedReparam(nn.Module):
    """BN(conv KxK(x)) + the sum of BN(conv kxk, dilated(x)), all depthwise.

    Each dilated kernel covers a part of the large one, with gaps.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.large = depthwise_bn(channels, (kernel, kernel))
        self.dilated = nn.ModuleDict(
            {f"k{k}_{r}": depthwise_bn(channels, (k, k), r) for k, r in DILATED[kernel]}
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.large(x)
        for branch in self.dilated.values():
            y = y + branch(x)
        return y


class UniRepLKNetBlock(GatedFFN):
    """x + gamma * BN(W2 GRN(gelu(W1 SE(BN(conv(x)))))).

    The convolution is a dilated reparam, or a plain depthwise one if it is small.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels)
        self.dwconv = (
            DilatedReparam(channels, kernel)
            if kernel in DILATED
            else conv(channels, channels, kernel, groups=channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.ffn(self.dwconv(x))


def unireplknet(
    *, widths: Sequence[int], kernels: Sequence[Sequence[int]], num_classes: int = 1000
) -> Pyramid:
    """A UniRepLKNet: `widths` of its stages, and the `kernels` of the blocks of each."""
    stages = [
        nn.Sequential(*(UniRepLKNetBlock(width, kernel) for kernel in of_stage))
        for width, of_stage in zip(widths, kernels, strict=True)
    ]
    return Pyramid(strides(widths), stages, widths[-1], num_classes)
