"""Layers that several families share."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-6  # of every LayerNorm, and of what GlobalResponseNorm divides by
START = 1e-6  # of a layer scale: a new block is almost the identity


def conv(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias, with padding that keeps the size at stride 1."""
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)


def conv_bn(
    c_in: int,
    c_out: int,
    kernel: int,
    stride: int,
    groups: int,
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
) -> nn.Sequential:
    """norm(conv(x))."""
    layer = conv(c_in, c_out, kernel, stride, groups)
    return nn.Sequential(OrderedDict(conv=layer, bn=norm(c_out)))


def depthwise_bn(channels: int, kernel: tuple[int, int], dilation: int = 1) -> nn.Sequential:
    """BN(conv(x)) of one channel each, at the size of x."""
    padding = (kernel[0] // 2 * dilation, kernel[1] // 2 * dilation)
    layer = nn.Conv2d(channels, channels, kernel, 1, padding, dilation, groups=channels, bias=False)
    return nn.Sequential(OrderedDict(conv=layer, bn=nn.BatchNorm2d(channels)))


class LargeKernel(nn.Module):
    """BN(conv(x)) with a large kernel + BN(conv(x)) with a small one.

    Each channel of x is read alone. Without a `small` kernel the first term alone.
    """

    def __init__(
        self, c_in: int, c_out: int, large: int, small: int | None, stride: int = 1
    ) -> None:
        super().__init__()
        self.lkb_origin = conv_bn(c_in, c_out, large, stride, c_in)
        self.small_conv = None if small is None else conv_bn(c_in, c_out, small, stride, c_in)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lkb_origin(x)
        return y if self.small_conv is None else y + self.small_conv(x)


class SqueezeExcite(nn.Module):
    """x * sigmoid(up(relu(down(mean of x over space)))): one gate per channel."""

    init_gain = 0.02  # seeded gates stay near one half; steep ones make a deep network run away

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.down = nn.Conv2d(channels, squeezed, 1)
        self.up = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.up(self.down(self.pool(x)).relu()).sigmoid()
        return x * gate


class ChannelNorm(nn.LayerNorm):
    """w * (x - mean) / sqrt(variance + eps) + b over the channels of every pixel of [N, C, H, W].

    Written out, as the published code does: the operator of that name works along the last axis.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        variance = centred.pow(2).mean(1, keepdim=True)
        normal = centred / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * normal + self.bias[:, None, None]


class GlobalResponseNorm(nn.Module):
    """(gamma * n + 1) * x + beta, n = g / mean of g over channels, g = |x| over space.

    Of [N, H, W, C] (Woo et al., "ConvNeXt V2", arXiv:2301.00808). Needs the whole map: linear in
    nothing but its last step.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        g: Tensor = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        n = g / (g.mean(dim=-1, keepdim=True) + EPS)
        return (self.gamma * n + 1) * x + self.beta


class Permuted(nn.Module):
    """x with its axes in this order."""

    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


class ChannelsLastFFN(nn.Module):
    """gamma * W2 gelu(W1 LN(x)) at every pixel: the second half of a ConvNeXt block.

    A base class, so that its layers stand beside those of the block, as in the published code.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=EPS)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), START))

    def ffn(self, x: Tensor) -> Tensor:
        """What is to be added to the block's input, of the map `x`."""
        y: Tensor = self.norm(x.permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return y.permute(0, 3, 1, 2)


class GatedFFN(nn.Module):
    """gamma * BN(W2 GRN(gelu(W1 SE(BN(x))))): the second half of a UniRepLKNet block.

    A base class, so that its layers stand beside those of the block, as in the published code.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.se = SqueezeExcite(channels, channels // 4)
        self.pwconv1 = nn.Sequential(Permuted(0, 2, 3, 1), nn.Linear(channels, 4 * channels))
        self.act = nn.Sequential(nn.GELU(), GlobalResponseNorm(4 * channels))
        last = nn.Linear(4 * channels, channels, bias=False)
        self.pwconv2 = nn.Sequential(last, Permuted(0, 3, 1, 2), nn.BatchNorm2d(channels))
        self.gamma = nn.Parameter(torch.full((channels,), START))

    def ffn(self, x: Tensor) -> Tensor:
        """What is to be added to the block's input, of the map `x`."""
        y: Tensor = self.pwconv2(self.act(self.pwconv1(self.se(self.norm(x)))))
        return self.gamma[:, None, None] * y


class Staged(nn.Sequential):
    """[N, 3, H, W] -> logits [N, num_classes]: stages in turn, mean over space, Linear.

    `stages` are called by their names, as in the published code.
    """

    def __init__(self, stages: Mapping[str, nn.Module], width: int, num_classes: int) -> None:
        gap, linear = nn.AdaptiveAvgPool2d(1), nn.Linear(width, num_classes)
        super().__init__(OrderedDict(stages, gap=gap, flatten=nn.Flatten(1), linear=linear))

    def forward(self, x: Tensor) -> Tensor:  # what nn.Sequential does: exporters name the input x
        for part in self:
            x = part(x)
        return x


class Pyramid(nn.Module):
    """[N, 3, H, W] -> logits [N, num_classes]: ways down and stages in turn, mean, LN, Linear."""

    def __init__(
        self, ways_down: Iterable[nn.Module], stages: Iterable[nn.Module], width: int, classes: int
    ) -> None:
        super().__init__()
        self.downsample_layers = nn.ModuleList(ways_down)
        self.stages = nn.ModuleList(stages)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        for down, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(down(x))
        logits: Tensor = self.head(self.norm(x.mean((-2, -1))))
        return logits


def patches(widths: Sequence[int]) -> list[nn.Module]:
    """ConvNeXt's ways down: LN(conv4x4/4), then conv2x2/2(LN(x)) three times."""
    first = nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0]))
    steps = itertools.pairwise(widths)
    return [first, *(nn.Sequential(ChannelNorm(a), nn.Conv2d(a, b, 2, 2)) for a, b in steps)]


def strides(widths: Sequence[int]) -> list[nn.Module]:
    """UniRepLKNet's ways down: LN(conv3x3/2(x)), at first twice with a gelu between them."""

    def halved(c_in: int, c_out: int) -> list[nn.Module]:
        return [nn.Conv2d(c_in, c_out, 3, 2, 1), ChannelNorm(c_out)]

    half, width = widths[0] // 2, widths[0]
    first = nn.Sequential(*halved(3, half), nn.GELU(), *halved(half, width))
    steps = itertools.pairwise(widths)
    return [first, *(nn.Sequential(*halved(a, b)) for a, b in steps)]


def repeated(depths: Sequence[int], block: Callable[[int], nn.Module]) -> list[nn.Module]:
    """Stages of `depths` blocks; `block` makes one of stage i."""
    return [nn.Sequential(*(block(i) for _ in range(n))) for i, n in enumerate(depths)]
