"""ParNet in its training form.

Goyal et al., "Non-deep Networks", NeurIPS 2022, arXiv:2110.07641. Twelve layers deep: three streams
at different sizes run beside each other and are fused one after another. Dropout is left out: it
does nothing outside training and has no weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flatfold.models.layers import conv_bn

ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "relu": nn.ReLU}


def shuffled(x: Tensor, groups: int) -> Tensor:
    """The channels of `groups` groups in turn: the first of each, then the second of each, ..."""
    _, channels, height, width = x.shape
    split = x.reshape(-1, groups, channels // groups, height, width)
    return split.transpose(1, 2).flatten(1, 2)


class Gate(nn.Conv2d):
    """sigmoid(conv1x1(mean of x over space)): one number for each output channel."""

    def __init__(self, c_in: int, c_out: int, groups: int) -> None:
        super().__init__(c_in, c_out, 1, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mean((2, 3), keepdim=True)).sigmoid()


class ParNetBlock(nn.Module):
    """act(d + q + i * gate(i)), or act((d + q) * 2 * gate(x)) where the shape changes.

    d = BN(conv3x3(x)); q = BN(conv1x1(x)), of the 2x2 means of x at stride 2; i = BN(x). With
    groups the output is shuffled. The published code calls this a RepVGG-SSE block.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, activation: str, groups: int = 1
    ) -> None:
        super().__init__()
        self.groups = groups
        same_shape = c_in == c_out and stride == 1
        self.rbr_identity = nn.BatchNorm2d(c_in) if same_shape else None
        self.rbr_dense = conv_bn(c_in, c_out, 3, stride, groups)
        self.rbr_1x1 = conv_bn(c_in, c_out, 1, 1, groups)
        self.pool = nn.AvgPool2d(2, 2) if stride == 2 else nn.Identity()
        self.gate = Gate(c_in, c_out, groups)
        self.nonlinearity = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.rbr_dense(x) + self.rbr_1x1(self.pool(x))
        if self.rbr_identity is None:
            y = 2 * y * self.gate(x)
        else:
            identity = self.rbr_identity(x)
            y = y + identity * self.gate(identity)
        y = self.nonlinearity(y)
        return y if self.groups == 1 else shuffled(y, self.groups)


class Fusion(nn.Module):
    """block(channels of BN(a) and BN(b) in turn), so that each of its groups reads half of both."""

    def __init__(self, c_in: int, c_out: int, stride: int, activation: str) -> None:
        super().__init__()
        self.b1, self.b2 = nn.BatchNorm2d(c_in), nn.BatchNorm2d(c_in)
        self.block = ParNetBlock(2 * c_in, c_out, stride, activation, groups=2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        y: Tensor = self.block(shuffled(torch.cat((self.b1(a), self.b2(b)), 1), 2))
        return y


class ParNet(nn.Module):
    """[N, 3, H, W] -> logits [N, num_classes], H and W multiples of 32.

    Streams of `depths` blocks with `widths` channels at 1/4, 1/8 and 1/16; `last` channels at 1/32.
    """

    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        last: int,
        activation: str,
        num_classes: int,
    ) -> None:
        super().__init__()

        def block(c_in: int, c_out: int, stride: int) -> ParNetBlock:
            return ParNetBlock(c_in, c_out, stride, activation)

        first, second, third = widths
        stem = min(64, first)
        self.inits = nn.ModuleList(
            [
                nn.Sequential(block(3, stem, 2), block(stem, first, 2)),
                block(first, second, 2),
                block(second, third, 2),
            ]
        )
        self.streams = nn.ModuleList(
            nn.Sequential(*(block(width, width, 1) for _ in range(depth)))
            for width, depth in zip(widths, depths, strict=True)
        )
        self.down = block(first, second, 2)
        self.fusions = nn.ModuleList(
            [Fusion(second, third, 2, activation), Fusion(third, third, 1, activation)]
        )
        self.last = block(third, last, 2)
        self.head = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        streams = []
        for init, stream in zip(self.inits, self.streams, strict=True):
            x = init(x)
            streams.append(stream(x))
        y = self.down(streams[0])
        for fusion, stream in zip(self.fusions, streams[1:], strict=True):
            y = fusion(stream, y)
        logits: Tensor = self.head(self.last(y).mean((2, 3)))
        return logits


def parnet(
    *,
    widths: Sequence[int],
    last: int,
    depths: Sequence[int] = (4, 5, 5),
    activation: str = "silu",
    num_classes: int = 1000,
) -> ParNet:
    """A ParNet: `widths` and `depths` of its three streams, and the `last` width.

    The `activation` of the paper is "silu". The configurations published with the code ask for it
    in a form that the code does not read, and build "relu".
    """
    return ParNet(widths, depths, last, activation, num_classes)
