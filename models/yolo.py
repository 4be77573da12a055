"""The re-parameterised blocks of YOLOv6 and YOLOv7 in their training form, in a small backbone.

RepConv: Wang et al., "YOLOv7: Trainable bag-of-freebies sets new state-of-the-art for real-time
object detectors", CVPR 2023, arXiv:2207.02696. QARepVGG: Chu et al., "Make RepVGG Greater Again: A
Quantization-aware Approach", AAAI 2024, arXiv:2212.01593. CSLA: Ding et al., "Re-parameterizing
Your Optimizers rather than Architectures", ICLR 2023, arXiv:2205.15242. The backbone is that of
YOLOv6-N (Li et al., arXiv:2209.02976) without its pyramid pooling, with a head that classifies.
Blocks carry the names of the code of YOLOv6.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flatfold.models.layers import conv, conv_bn

EPS, MOMENTUM = 1e-3, 0.03  # of every BatchNorm: both codes set them once the network is built


def norm(channels: int) -> nn.BatchNorm2d:
    """A BatchNorm as both codes configure it."""
    return nn.BatchNorm2d(channels, EPS, MOMENTUM)


class RepConv(nn.Module):
    """silu(BN(conv3x3(x)) + BN(conv1x1(x)) + BN(x)).

    BN(x) exists only where input and output have one shape.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        self.rbr_identity = norm(c_in) if c_in == c_out and stride == 1 else None
        self.rbr_dense = conv_bn(c_in, c_out, 3, stride, groups, norm)
        self.rbr_1x1 = conv_bn(c_in, c_out, 1, stride, groups, norm)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.rbr_dense(x) + self.rbr_1x1(x)
        if self.rbr_identity is not None:
            y = y + self.rbr_identity(x)
        y = self.act(y)
        return y


class OuterNorm(nn.BatchNorm2d):
    """The norm behind a sum in which x takes part as it is, once or twice."""

    init_gain = 0.2  # seeded norms that let all of that through would make the network run away

    def __init__(self, channels: int) -> None:
        super().__init__(channels, EPS, MOMENTUM)


class QARepVGGBlock(nn.Module):
    """relu(BN(BN(conv3x3(x)) + conv1x1(x) + x)), and with `mean` also + mean3x3(x) inside.

    A single norm behind the sum keeps its range small, which is what quantisation needs. x and its
    mean, of version 2, are there only where input and output have one shape.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, groups: int = 1, mean: bool = True
    ) -> None:
        super().__init__()
        self.same_shape = c_in == c_out and stride == 1
        self.rbr_dense = conv_bn(c_in, c_out, 3, stride, groups, norm)
        self.rbr_1x1 = conv(c_in, c_out, 1, stride, groups)
        self.rbr_avg = nn.AvgPool2d(3, 1, 1) if mean and self.same_shape else None
        self.bn = OuterNorm(c_out)
        self.nonlinearity = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.rbr_dense(x) + self.rbr_1x1(x)
        if self.same_shape:
            y = y + x
        if self.rbr_avg is not None:
            y = y + self.rbr_avg(x)
        y = self.nonlinearity(self.bn(y))
        return y


class Scale(nn.Module):
    """weight * x, per channel."""

    def __init__(self, channels: int, trained: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels), requires_grad=trained)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.view(1, -1, 1, 1)


class LinearAddBlock(nn.Module):
    """relu(BN(a * conv3x3(x) + b * conv1x1(x) + c * x)), with a scale per channel for each.

    In a CSLA block, constant scale and linear addition, a and b are not trained. The term c * x
    exists only where input and output have one shape.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, groups: int = 1, csla: bool = True
    ) -> None:
        super().__init__()
        same_shape = c_in == c_out and stride == 1
        self.conv = conv(c_in, c_out, 3, stride, groups)
        self.scale_conv = Scale(c_out, trained=not csla)
        self.conv_1x1 = conv(c_in, c_out, 1, stride, groups)
        self.scale_1x1 = Scale(c_out, trained=not csla)
        self.scale_identity = Scale(c_out, trained=True) if same_shape else None
        self.bn = norm(c_out)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.scale_conv(self.conv(x)) + self.scale_1x1(self.conv_1x1(x))
        if self.scale_identity is not None:
            y = y + self.scale_identity(x)
        y = self.relu(self.bn(y))
        return y


class ImplicitHead(nn.Module):
    """mean over space of m * conv1x1(x + a): the scores of the classes.

    a and m are YOLOv7's implicit knowledge, one number for each channel.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.ia = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.m = nn.Conv2d(channels, num_classes, 1)
        self.im = nn.Parameter(torch.ones(1, num_classes, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.m(x + self.ia) * self.im
        return scores.mean((2, 3))


BLOCKS = {"repconv": RepConv, "qarepvgg": QARepVGGBlock, "csla": LinearAddBlock}


class YOLOBackbone(nn.Module):
    """[N, 3, H, W] -> logits [N, num_classes]: a stem and four stages that halve the size each."""

    def __init__(
        self, block: str, widths: Sequence[int], depths: Sequence[int], num_classes: int
    ) -> None:
        super().__init__()
        make = BLOCKS[block]
        self.stem = make(3, widths[0], 2)
        self.stages = nn.ModuleList(
            nn.Sequential(make(widths[i], width, 2), *(make(width, width, 1) for _ in range(depth)))
            for i, (width, depth) in enumerate(zip(widths[1:], depths, strict=True))
        )
        self.head = ImplicitHead(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.head(x)
        return logits


def yolo(
    *, block: str, widths: Sequence[int], depths: Sequence[int], num_classes: int = 1000
) -> YOLOBackbone:
    """A backbone of one kind of `block`, "repconv", "qarepvgg" or "csla".

    `widths` are those of the stem and of each stage; a stage has a block of stride 2 and then
    `depths` blocks of stride 1.
    """
    return YOLOBackbone(block, widths, depths, num_classes)
