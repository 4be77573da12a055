"""RepViT in its training form.

Wang et al., "RepViT: Revisiting Mobile CNN From ViT Perspective", CVPR 2024, arXiv:2307.09283.
The published code calls some layers by one letter and numbers those of a gate; the variants know
how its keys read here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from flatfold.models.layers import SqueezeExcite, conv_bn


class RepVGGDW(nn.Module):
    """BN(BN(conv3x3(x)) + conv1x1(x) + x), depthwise; the 1x1 has a bias and no norm of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv_bn(channels, channels, 3, 1, channels)
        self.conv1 = nn.Conv2d(channels, channels, 1, groups=channels)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(x) + self.conv1(x) + x)
        return y


class ChannelMixer(nn.Module):
    """x + BN(conv1x1(gelu(BN(conv1x1(x))))), twice wider inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.m = nn.Sequential(
            conv_bn(channels, 2 * channels, 1, 1, 1),
            nn.GELU(),
            conv_bn(2 * channels, channels, 1, 1, 1),
        )
        nn.init.zeros_(self.m.get_parameter("2.bn.weight"))  # training starts with x alone

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.m(x)
        return y


class RepViTBlock(nn.Module):
    """ChannelMixer(token mixer(x)).

    The token mixer is SE(RepVGGDW(x)), where SE is the identity unless `squeeze_excite`; or, to
    half the size, BN(conv1x1(BN(conv3x3(x)))), whose 3x3 is depthwise with stride 2.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, squeeze_excite: bool) -> None:
        super().__init__()
        gate = SqueezeExcite(c_in, squeezed(c_in)) if squeeze_excite else nn.Identity()
        self.token_mixer = (
            nn.Sequential(RepVGGDW(c_in), gate)
            if stride == 1
            else nn.Sequential(
                conv_bn(c_in, c_in, 3, stride, c_in), gate, conv_bn(c_in, c_out, 1, 1, 1)
            )
        )
        self.channel_mixer = ChannelMixer(c_out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.channel_mixer(self.token_mixer(x))
        return y


def squeezed(channels: int) -> int:
    """Channels inside a gate: a quarter, to the nearest multiple of 8, at least 8."""
    return max(8, int(channels / 4 + 4) // 8 * 8)


def head(channels: int, num_classes: int) -> nn.Sequential:
    """linear(BN(x)), for vectors."""
    linear = nn.Linear(channels, num_classes)
    return nn.Sequential(OrderedDict(bn=nn.BatchNorm1d(channels), linear=linear))


class Classifier(nn.Module):
    """linear(BN(x)); if `distilled`, the mean of two such heads.

    The second head was trained to repeat a teacher; the published code averages them once training
    is over.
    """

    def __init__(self, channels: int, num_classes: int, distilled: bool) -> None:
        super().__init__()
        self.classifier = head(channels, num_classes)
        self.classifier_dist = head(channels, num_classes) if distilled else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(x)
        return y if self.classifier_dist is None else (y + self.classifier_dist(x)) / 2


class RepViT(nn.Module):
    """[N, 3, H, W] -> logits [N, num_classes]: four stages at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(
        self, widths: Sequence[int], gates: Sequence[str], distilled: bool, num_classes: int
    ) -> None:
        super().__init__()
        first, last = widths[0], widths[-1]
        stem = conv_bn(3, first // 2, 3, 2, 1), nn.GELU(), conv_bn(first // 2, first, 3, 2, 1)
        self.features = nn.ModuleList([nn.Sequential(*stem)])
        for i, width in enumerate(widths):
            if i > 0:
                self.features.append(RepViTBlock(widths[i - 1], width, 2, False))
            self.features.extend(RepViTBlock(width, width, 1, gate == "1") for gate in gates[i])
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.classifier = Classifier(last, num_classes, distilled)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.features:
            x = part(x)
        logits: Tensor = self.classifier(self.gap(x).flatten(1))
        return logits


def repvit(
    *,
    widths: Sequence[int],
    gates: Sequence[str],
    distilled: bool = False,
    num_classes: int = 1000,
) -> RepViT:
    """A RepViT: `widths` of its stages, and for each block of each stage whether it has a gate.

    `gates` has a string of 0 and 1 for each stage, without the block that halves the size in front
    of the stages 2 to 4, which has none. With `distilled` there are two heads.
    """
    return RepViT(widths, gates, distilled, num_classes)
