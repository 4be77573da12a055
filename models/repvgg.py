"""RepVGG in its training form.

Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021, arXiv:2101.03697.
Modules carry the names of the published code, so that its checkpoints load.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from torch import Tensor, nn


def conv_bn(c_in: int, c_out: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
    """BN(conv(x)); the conv has no bias, and padding that keeps the size at stride 1."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(c_out)))


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


class RepVGGBlock(nn.Module):
    """relu(SE(BN(conv3x3(x)) + BN(conv1x1(x)) + BN(x))).

    The identity branch BN(x) exists only where input and output have one shape. SE is the
    identity unless `squeeze_excite`.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, groups: int, squeeze_excite: bool
    ) -> None:
        super().__init__()
        same_shape = c_in == c_out and stride == 1
        self.rbr_identity = nn.BatchNorm2d(c_in) if same_shape else None
        self.rbr_dense = conv_bn(c_in, c_out, 3, stride, groups)
        self.rbr_1x1 = conv_bn(c_in, c_out, 1, stride, groups)
        self.se = SqueezeExcite(c_out, c_out // 16) if squeeze_excite else nn.Identity()
        self.nonlinearity = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        identity = 0 if self.rbr_identity is None else self.rbr_identity(x)
        y: Tensor = self.nonlinearity(self.se(self.rbr_dense(x) + self.rbr_1x1(x) + identity))
        return y


class RepVGG(nn.Module):
    """[N, 3, H, W] -> logits [N, num_classes]: a stem and four stages that halve the size each."""

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        groups: int,
        squeeze_excite: bool,
        num_classes: int,
    ) -> None:
        super().__init__()
        stem = min(64, widths[0])
        self.stage0 = RepVGGBlock(3, stem, 2, 1, squeeze_excite)
        layers = _layer_groups(groups)
        inputs = (stem, *widths)
        stages = [_stage(inputs[i], widths[i], depths[i], layers, squeeze_excite) for i in range(4)]
        self.stage1, self.stage2, self.stage3, self.stage4 = stages
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage0(x)
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x)
        logits: Tensor = self.linear(self.gap(x).flatten(1))
        return logits


def _layer_groups(groups: int) -> Iterator[int]:
    """Groups of layer 1, 2, 3, ... (the stem is layer 0): even layers up to 26 are grouped."""
    layer = 1
    while True:
        yield groups if layer % 2 == 0 and layer <= 26 else 1
        layer += 1


def _stage(
    c_in: int, c_out: int, depth: int, layers: Iterator[int], squeeze_excite: bool
) -> nn.Sequential:
    first = RepVGGBlock(c_in, c_out, 2, next(layers), squeeze_excite)
    rest = (RepVGGBlock(c_out, c_out, 1, next(layers), squeeze_excite) for _ in range(depth - 1))
    return nn.Sequential(first, *rest)


def repvgg(
    *,
    depths: Sequence[int],
    widths: Sequence[int],
    groups: int = 1,
    squeeze_excite: bool = False,
    num_classes: int = 1000,
) -> RepVGG:
    """A RepVGG with `depths` blocks and `widths` channels in its stages 1 to 4."""
    return RepVGG(depths, widths, groups, squeeze_excite, num_classes)
