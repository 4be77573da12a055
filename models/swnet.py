"""Shift-ConvNets in their training form: small convolutions whose results are moved.

Li et al., "Shift-ConvNets: Small Convolutional Kernel with Large Kernel Effects", arXiv:2401.12736,
and "ShiftwiseConv: Small Convolutional Kernel with Large Kernel Effect", CVPR 2025. Version 1
replaces the large kernels of a SLaK, version 2 those of a UniRepLKNet. Stochastic depth is left
out: it does nothing outside training and has no weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from flatfold.models.layers import ChannelsLastFFN, GatedFFN, Pyramid, patches, repeated, strides
from flatfold.models.shifts import shift_add
from flatfold.models.shuffles import SEED, Layout


class ShiftWise(nn.Module):
    """[BN(horizontal) + BN(vertical) + BN(still) + moving, ghost]: the large kernel.

    The three are the shift-add of the sum of `paths` depthwise convolutions of the `moving`
    channels of the input, each with a result for every place in a strip of length `big`. The
    ghost channels pass; they come last from here on. `mask` silences whole kernels, the same in
    each path: the coarse sparsity of the paper, of a checkpoint already part of the weights.
    """

    init_gain = 0.02  # a strip sums hundreds of seeded kernels
    moving: Tensor
    ghost: Tensor
    mask: Tensor | None

    def __init__(
        self,
        channels: int,
        layout: Layout,
        paths: int = 2,
        shift: str = "one_hot",
        sparsity: float = 0.0,
    ) -> None:
        super().__init__()
        moving, results = layout.channels, layout.channels * layout.count
        drawn = np.random.RandomState(SEED).choice(channels, channels - moving, replace=False)
        everything = torch.arange(channels, device="cpu")
        is_ghost = torch.isin(everything, torch.from_numpy(drawn))
        self.register_buffer("moving", everything[~is_ghost], persistent=False)
        self.register_buffer("ghost", everything[is_ghost], persistent=False)
        self.register_buffer("mask", _mask(results, sparsity), persistent=False)
        small = layout.small
        self.convs = nn.ModuleList(
            nn.Conv2d(moving, results, small, padding=small - 1, groups=moving, bias=False)
            for _ in range(paths)
        )
        self.shift_add = shift_add(shift, layout)
        self.bn_horizontal = nn.BatchNorm2d(moving)
        self.bn_vertical = nn.BatchNorm2d(moving)
        self.bn_still = nn.BatchNorm2d(moving)

    def forward(self, x: Tensor) -> Tensor:
        moving, ghost = x.index_select(1, self.moving), x.index_select(1, self.ghost)
        parts = self.results(self.convs[0], moving)
        for conv in list(self.convs)[1:]:
            parts = parts + self.results(conv, moving)
        horizontal, vertical, still = self.shift_add(parts)
        y: Tensor = self.bn_horizontal(horizontal) + self.bn_vertical(vertical)
        y = y + self.bn_still(still) + moving
        return torch.cat([y, ghost], dim=1)

    def results(self, conv: nn.Module, x: Tensor) -> Tensor:
        """What one path makes of the moving channels."""
        assert isinstance(conv, nn.Conv2d)
        weight = conv.weight if self.mask is None else conv.weight * self.mask
        return nn.functional.conv2d(x, weight, padding=conv.padding, groups=conv.groups)


def _mask(results: int, sparsity: float) -> Tensor | None:
    """Zeros for a share of the kernels, which training would choose, and ones for the others."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is the share of kernels that are zero, not {sparsity}")
    if sparsity == 0:
        return None
    order = torch.randperm(
        results, generator=torch.Generator("cpu").manual_seed(SEED), device="cpu"
    )
    return (order >= round(sparsity * results)).float().view(results, 1, 1, 1)


class SWBlockV1(ChannelsLastFFN):
    """x + gamma * W2 gelu(W1 LN(shift-wise(x)))."""

    def __init__(self, channels: int, large_kernel: ShiftWise) -> None:
        super().__init__(channels)
        self.large_kernel = large_kernel

    def forward(self, x: Tensor) -> Tensor:
        return x + self.ffn(self.large_kernel(x))


class SWBlock(GatedFFN):
    """x + gamma * BN(W2 GRN(gelu(W1 SE(BN(shift-wise(x))))))."""

    def __init__(self, channels: int, large_kernel: ShiftWise) -> None:
        super().__init__(channels)
        self.large_kernel = large_kernel

    def forward(self, x: Tensor) -> Tensor:
        return x + self.ffn(self.large_kernel(x))


def swnet(
    *,
    version: int,
    widths: Sequence[int],
    depths: Sequence[int],
    big: Sequence[int] = (51, 49, 47, 13),
    small: int = 3,
    ghosts: float = 0.23,
    paths: int = 2,
    shuffles: int = 4,
    shift: str = "one_hot",
    sparsity: float = 0.0,
    num_classes: int = 1000,
) -> Pyramid:
    """A Shift-ConvNet of `version` 1 or 2: `widths`, `depths` and `big` kernels of its stages.

    `shift` is the way in which the shifts are written: "slice", "one_hot", "roll", "deformable"
    or "grid_sample". All compute the same. `ghosts` is the share of channels that pass.
    """

    def block(i: int) -> nn.Module:
        width = widths[i]
        moving = width - int(width * ghosts) if version == 1 else int(width * (1 - ghosts)) // 2 * 2
        layout = Layout(big[i], small, moving, shuffles)
        large_kernel = ShiftWise(width, layout, paths, shift, sparsity)
        return SWBlockV1(width, large_kernel) if version == 1 else SWBlock(width, large_kernel)

    ways_down = patches(widths) if version == 1 else strides(widths)
    return Pyramid(ways_down, repeated(depths, block), widths[-1], num_classes)
