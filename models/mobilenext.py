"""MobileNeXt in its training form.

Zhou et al., "Rethinking Bottleneck Structure for Efficient Mobile Network Design", ECCV 2020,
arXiv:2007.02269. Modules carry the names of the published code, so that its checkpoints load.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from flatfold.models.layers import conv

Row = tuple[int, int, int, int]

# Reduction, channels, blocks and stride of each row of the paper's table.
ROWS: tuple[Row, ...] = (
    (2, 96, 1, 2),
    (6, 144, 1, 1),
    (6, 192, 3, 2),
    (6, 288, 3, 2),
    (6, 384, 4, 1),
    (6, 576, 4, 2),
    (6, 960, 3, 1),
    (6, 1280, 1, 1),
)


def make_divisible(value: float, divisor: int) -> int:
    """The multiple of `divisor` nearest to `value`, but never less than nine tenths of it."""
    nearest = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return nearest if nearest >= 0.9 * value else nearest + divisor


def depthwise(channels: int, stride: int = 1) -> list[nn.Module]:
    """The layers of BN(conv(x)), one 3x3 kernel for each channel."""
    return [conv(channels, channels, 3, stride, channels), nn.BatchNorm2d(channels)]


def pointwise(c_in: int, c_out: int) -> list[nn.Module]:
    """The layers of BN(conv1x1(x))."""
    return [conv(c_in, c_out, 1), nn.BatchNorm2d(c_out)]


class Sandglass(nn.Module):
    """x + BN(dw3x3(relu6(BN(conv1x1(BN(conv1x1(relu6(BN(dw3x3(x))))))))): narrow in the middle.

    Neither the reduction by `reduction` nor the last depthwise layer has an activation. A block
    without `leading` starts with the reduction, one without `trailing` ends with the expansion. The
    shortcut adds the first 1 / `identity_divisor` of the channels; with 0 there is none.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        stride: int,
        reduction: int,
        leading: bool,
        trailing: bool,
        identity_divisor: int,
    ) -> None:
        super().__init__()
        self.shared = c_in // identity_divisor if identity_divisor else 0
        hidden = c_in // reduction
        if hidden < c_out / 6:
            hidden = make_divisible(math.ceil(c_out / 6), 16)
        first = [*depthwise(c_in), nn.ReLU6()] if leading else []
        last = depthwise(c_out, stride) if trailing else []
        self.conv = nn.Sequential(
            *first, *pointwise(c_in, hidden), *pointwise(hidden, c_out), nn.ReLU6(), *last
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        if self.shared == 0:
            return y
        rest = x.shape[1] - self.shared
        return y + (F.pad(x[:, : self.shared], (0, 0, 0, 0, 0, rest)) if rest else x)


class MobileNeXt(nn.Module):
    """[N, 3, H, W] -> logits [N, num_classes]: a stem, and the sandglasses of each row.

    The last row does not become narrower than it stands there.
    """

    def __init__(
        self, rows: Sequence[Row], width: float, identity_divisor: int, num_classes: int
    ) -> None:
        super().__init__()
        channels = make_divisible(32 * width, 8)
        stem = conv(3, channels, 3, 2)
        layers: list[nn.Module] = [nn.Sequential(stem, nn.BatchNorm2d(channels), nn.ReLU6())]
        for index, (reduction, base, depth, stride) in enumerate(rows, 1):
            scale = max(width, 1.0) if index == len(rows) else width
            c_out = make_divisible(base * scale, 8)
            alone = depth == 1 and stride == 1
            layers.append(_first(channels, c_out, stride, reduction, alone))
            channels = c_out
            layers += [
                Sandglass(channels, channels, 1, reduction, True, True, identity_divisor)
                for _ in range(depth - 1)
            ]
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(channels, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits


def _first(c_in: int, c_out: int, stride: int, reduction: int, alone: bool) -> Sandglass:
    """The block that changes the width: whole where it is `alone` in its row, or reduces by 2."""
    whole = reduction == 2 or alone
    return Sandglass(c_in, c_out, stride, reduction, whole, whole or stride == 2, 0)


def mobilenext(
    *,
    width: float = 1.0,
    identity_divisor: int = 1,
    rows: Sequence[Row] = ROWS,
    num_classes: int = 1000,
) -> MobileNeXt:
    """A MobileNeXt `width` times as wide as its `rows`, which are the paper's by default.

    Its shortcuts carry the first 1 / `identity_divisor` of the channels.
    """
    return MobileNeXt(rows, width, identity_divisor, num_classes)
