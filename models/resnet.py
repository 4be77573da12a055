"""ResNet of basic blocks, whose 3x3 convolutions can be replaced by multi-branch blocks.

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

from flatfold.models.layers import Staged, conv_bn

Layer = Callable[[int, int, int], nn.Module]
"""(c_in, c_out, stride) -> the block in the place of BN(conv3x3(x)), with padding 1."""


class BasicBlock(nn.Module):
    """relu(conv2(relu(conv1(x))) + shortcut(x)).

    `conv1` and `conv2` are built by `layer`. The shortcut is x itself, or BN(conv1x1(x)) where the
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


def _stage(c_in: int, c_out: int, depth: int, stride: int, layer: Layer) -> nn.Sequential:
    first = BasicBlock(c_in, c_out, stride, layer)
    return nn.Sequential(first, *(BasicBlock(c_out, c_out, 1, layer) for _ in range(depth - 1)))


def resnet(depths: Sequence[int], widths: Sequence[int], layer: Layer, num_classes: int) -> Staged:
    """Four stages at 1/4, 1/8, 1/16 and 1/32: `depths` of basic blocks, with `widths` channels."""
    stem = conv_bn(3, widths[0], 7, 2, 1)
    stem.add_module("nonlinear", nn.ReLU())
    pool = nn.MaxPool2d(3, 2, 1)
    stages: dict[str, nn.Module] = {"stage0": nn.Sequential(OrderedDict(conv1=stem, maxpool=pool))}
    inputs = (widths[0], *widths)
    for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        stages[f"stage{i + 1}"] = _stage(inputs[i], width, depth, 1 if i == 0 else 2, layer)
    return Staged(stages, widths[-1], num_classes)
