"""Diverse branch blocks in their training form, in a ResNet.

Ding et al., "Diverse Branch Block: Building a Convolution as an Inception-like Unit", CVPR 2021,
arXiv:2103.13425. Modules carry the names of the published code, so that its checkpoints load.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatfold.models.layers import Staged, conv_bn
from flatfold.models.resnet import resnet


class BNAndPad(nn.Module):
    """pad(s * x) + t, where BN(x) = s * x + t: each channel is padded with its t, BN of zero.

    So a convolution after it reads, beyond the border, what it would read if x had been padded
    with zeros before. Without that no 1x1 convolution with BN could be merged with a KxK behind.
    """

    def __init__(self, channels: int, pad: int) -> None:
        super().__init__()
        self.pads = [pad] * 4
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        norm, mean, variance = self.bn, self.bn.running_mean, self.bn.running_var
        assert mean is not None and variance is not None
        scale = (norm.weight / (variance + norm.eps).sqrt()).view(1, -1, 1, 1)
        shift = norm.bias.view(1, -1, 1, 1) - mean.view(1, -1, 1, 1) * scale
        if self.training:  # then BN has the statistics of the batch, and no gradient flows to t
            shift = shift.detach()
            return F.pad(norm(x) - shift, self.pads) + shift
        return F.pad(x * scale, self.pads) + shift


class IdentityConv1x1(nn.Conv2d):
    """conv1x1(x) + x: `weight` is what is learned on top of the identity."""

    identity: Tensor

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(channels, channels, 1, groups=groups, bias=False)
        width = channels // groups
        eye = torch.eye(width).repeat(groups, 1).view(channels, width, 1, 1)
        self.register_buffer("identity", eye, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight + self.identity, groups=self.groups)


class DiverseBranchBlock(nn.Module):
    """BN(KxK(x)) + BN(1x1(x)) + BN(mean(pad(BN(1x1(x))))) + BN(KxK(pad(BN(1x1(x) + x)))).

    KxK and 1x1 are convolutions, the mean is over KxK pixels. A depthwise block has no second
    branch, its third is BN(mean(x)), and its fourth is twice as wide inside and has no "+ x".
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        pad = kernel // 2
        depthwise = groups == c_out
        self.dbb_origin = conv_bn(c_in, c_out, kernel, stride, groups)
        self.dbb_1x1 = None if depthwise else conv_bn(c_in, c_out, 1, stride, groups)
        self.dbb_avg = nn.Sequential()
        if not depthwise:
            self.dbb_avg.add_module("conv", nn.Conv2d(c_in, c_out, 1, groups=groups, bias=False))
            self.dbb_avg.add_module("bn", BNAndPad(c_out, pad))
        mean = nn.AvgPool2d(kernel, stride, pad if depthwise else 0)
        self.dbb_avg.add_module("avg", mean)
        self.dbb_avg.add_module("avgbn", nn.BatchNorm2d(c_out))
        inner = 2 * c_in if depthwise else c_in
        first = OrderedDict[str, nn.Module]()
        if depthwise:
            first["conv1"] = nn.Conv2d(c_in, inner, 1, groups=groups, bias=False)
        else:
            first["idconv1"] = IdentityConv1x1(c_in, groups)
        second = nn.Conv2d(inner, c_out, kernel, stride, groups=groups, bias=False)
        self.dbb_1x1_kxk = nn.Sequential(
            OrderedDict(first, bn1=BNAndPad(inner, pad), conv2=second, bn2=nn.BatchNorm2d(c_out))
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dbb_origin(x)
        if self.dbb_1x1 is not None:
            y = y + self.dbb_1x1(x)
        y = y + self.dbb_avg(x) + self.dbb_1x1_kxk(x)
        return y


def dbb(*, depths: Sequence[int], widths: Sequence[int], num_classes: int = 1000) -> Staged:
    """A ResNet of basic blocks, `depths` of `widths` channels, with diverse 3x3 layers."""

    def layer(c_in: int, c_out: int, stride: int) -> nn.Module:
        return DiverseBranchBlock(c_in, c_out, 3, stride)

    return resnet(depths, widths, layer, num_classes)
