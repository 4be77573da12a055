"""EfficientNetV2 in its training form.

Tan and Le, "EfficientNetV2: Smaller Models and Faster Training", ICML 2021, arXiv:2104.00298.
Modules carry the names of timm, which has the authors' weights for PyTorch, so that its checkpoints
load. Stochastic depth is left out: it does nothing outside training and has no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from flatfold.models.layers import conv

FUSED = 3  # the first stages, whose blocks have one dense 3x3 in place of 1x1 and depthwise 3x3
TENSORFLOW_EPS = 1e-3


@dataclass(frozen=True)
class Style:
    """What differs between the authors' TensorFlow code and PyTorch's habits."""

    same_padding: bool = False
    eps: float = 1e-5

    def conv(
        self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> nn.Conv2d:
        """A convolution without bias whose map is ceil(size / stride)."""
        if stride > 1 and self.same_padding:
            return SamePadConv(c_in, c_out, kernel, stride, groups=groups, bias=False)
        return conv(c_in, c_out, kernel, stride, groups)

    def norm(self, channels: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(channels, eps=self.eps)


class SamePadConv(nn.Conv2d):
    """conv(pad(x)) with TensorFlow's padding: as little as gives ceil(size / stride) pixels.

    Of an odd number of rows or columns the larger half comes after the map, so that an even map
    under a 3x3 with stride 2 is padded at its end only.
    """

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for axis in (1, 0):  # F.pad takes the last axis first
            size, kernel, stride = x.shape[2 + axis], self.kernel_size[axis], self.stride[axis]
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads))


class SqueezeExcite(nn.Module):
    """x * sigmoid(expand(silu(reduce(mean of x over space)))): one gate per channel."""

    init_gain = 0.02  # seeded gates stay near one half; steep ones make a deep network run away

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, squeezed, 1)
        self.conv_expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = F.silu(self.conv_reduce(x.mean((2, 3), keepdim=True)))
        gate: Tensor = self.conv_expand(squeezed).sigmoid()
        return x * gate


class ConvBlock(nn.Module):
    """x + silu(BN(conv3x3(x))): a fused block that does not expand.

    The shortcut, here and in the other blocks, only where input and output have one shape.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, style: Style) -> None:
        super().__init__()
        self.shortcut = stride == 1 and c_in == c_out
        self.conv = style.conv(c_in, c_out, 3, stride)
        self.bn1 = style.norm(c_out)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.bn1(self.conv(x)))
        return y + x if self.shortcut else y


class FusedBlock(nn.Module):
    """x + BN(conv1x1(silu(BN(conv3x3(x))))), `expansion` times wider inside: Fused-MBConv."""

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int, style: Style) -> None:
        super().__init__()
        inner = expansion * c_in
        self.shortcut = stride == 1 and c_in == c_out
        self.conv_exp = style.conv(c_in, inner, 3, stride)
        self.bn1 = style.norm(inner)
        self.conv_pwl = style.conv(inner, c_out, 1)
        self.bn2 = style.norm(c_out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn2(self.conv_pwl(F.silu(self.bn1(self.conv_exp(x)))))
        return y + x if self.shortcut else y


class InvertedBlock(nn.Module):
    """x + BN(conv1x1(SE(silu(BN(depthwise3x3(silu(BN(conv1x1(x))))))))): MBConv.

    `expansion` times wider inside; SE squeezes to a quarter of the channels of the *input*.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int, style: Style) -> None:
        super().__init__()
        inner = expansion * c_in
        self.shortcut = stride == 1 and c_in == c_out
        self.conv_pw = style.conv(c_in, inner, 1)
        self.bn1 = style.norm(inner)
        self.conv_dw = style.conv(inner, inner, 3, stride, groups=inner)
        self.bn2 = style.norm(inner)
        self.se = SqueezeExcite(inner, max(1, c_in // 4))
        self.conv_pwl = style.conv(inner, c_out, 1)
        self.bn3 = style.norm(c_out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.silu(self.bn1(self.conv_pw(x)))
        y = self.se(F.silu(self.bn2(self.conv_dw(y))))
        y = self.bn3(self.conv_pwl(y))
        return y + x if self.shortcut else y


class EfficientNetV2(nn.Module):
    """[N, 3, H, W] -> logits [N, num_classes]: a stem, fused stages, then inverted ones, a head."""

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        stem: int,
        head: int,
        style: Style,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.conv_stem = style.conv(3, stem, 3, 2)
        self.bn1 = style.norm(stem)
        inputs = (stem, *widths)
        stages = (
            _stage(index, inputs[index], width, depths[index], style)
            for index, width in enumerate(widths)
        )
        self.blocks = nn.Sequential(*stages)
        self.conv_head = style.conv(widths[-1], head, 1)
        self.bn2 = style.norm(head)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(head, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.silu(self.bn1(self.conv_stem(x))))
        x = F.silu(self.bn2(self.conv_head(x)))
        logits: Tensor = self.classifier(self.global_pool(x).flatten(1))
        return logits


# Of each stage: the stride of its first block, and how much wider its blocks are inside.
STRIDES = (1, 2, 2, 2, 1, 2, 1)
EXPANSIONS = (1, 4, 4, 4, 6, 6, 6)


def _stage(index: int, c_in: int, c_out: int, depth: int, style: Style) -> nn.Sequential:
    ends = [(c_in, STRIDES[index]), *[(c_out, 1)] * (depth - 1)]
    expansion = EXPANSIONS[index]
    if expansion == 1:
        return nn.Sequential(*(ConvBlock(inputs, c_out, stride, style) for inputs, stride in ends))
    block = FusedBlock if index < FUSED else InvertedBlock
    return nn.Sequential(
        *(block(inputs, c_out, stride, expansion, style) for inputs, stride in ends)
    )


def efficientnetv2(
    *,
    depths: Sequence[int],
    widths: Sequence[int],
    stem: int,
    head: int = 1280,
    tensorflow: bool = False,
    num_classes: int = 1000,
) -> EfficientNetV2:
    """An EfficientNetV2: `depths` and `widths` of its six or seven stages, channels of both ends.

    With `tensorflow`, padding and epsilon of the authors' code, which their weights need.
    """
    style = Style(same_padding=True, eps=TENSORFLOW_EPS) if tensorflow else Style()
    return EfficientNetV2(depths, widths, stem, head, style, num_classes)
