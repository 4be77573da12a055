"""ResNet of basic blocks, whose 3x3 convolutions are blocks of another kind.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385. ACNet and
DBB replace the 3x3 convolutions with branches that are trained side by side; the 7x7 convolution
at the start and the 1x1 convolutions of the shortcuts stay as they are. Modules carry the names of
the code published with DBB, which trains both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from flatfold.models.repvgg import conv_bn

Layer = Callable[[int, int, int], nn.Module]
"""(c_in, c_out, stride) -> what stands in for BN(conv3x3(x)), with padding 1."""


class BasicBlock(nn.Module):
    """relu(conv2(relu(conv1(x))) + shortcut(x)).

    `conv1` and `conv2` are made by `layer`. The shortcut is x itself, or BN(conv1x1(x)) where the
    shape changes.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, layer: Layer) -> None:
        super().__init__()
        same_shape = c_in == c_out and stride == 1
        self.shortcut = nn.Identity() if same_shape else conv_bn(c_in, c_out, 1, stride, 1)
        self.conv1 = layer(c_in, c_out, stride)
        self.conv2 = layer(c_out, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.relu(self.conv1(x)))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """[N, 3, H, W] -> logits [N, num_classes]: four stages at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(
        self, depths: Sequence[int], widths: Sequence[int], layer: Layer, num_classes: int
    ) -> None:
        super().__init__()
        first, last = widths[0], widths[-1]
        stem = conv_bn(3, first, 7, 2, 1)
        stem.add_module("nonlinear", nn.ReLU())
        self.stage0 = nn.Sequential(OrderedDict(conv1=stem, maxpool=nn.MaxPool2d(3, 2, 1)))
        inputs = (first, *widths)
        self.stage1, self.stage2, self.stage3, self.stage4 = (
            _stage(inputs[i], widths[i], depths[i], 1 if i == 0 else 2, layer) for i in range(4)
        )
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage0(x)
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x)
        logits: Tensor = self.linear(self.gap(x).flatten(1))
        return logits


def _stage(c_in: int, c_out: int, depth: int, stride: int, layer: Layer) -> nn.Sequential:
    first = BasicBlock(c_in, c_out, stride, layer)
    return nn.Sequential(first, *(BasicBlock(c_out, c_out, 1, layer) for _ in range(depth - 1)))
