"""Identity on part of the channels: MobileNeXt's sandglass block (architectures: MobileNeXt)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.passes.exported.exporters import Case
from tests.passes.exported.parts import conv_bn

WAYS = ("slices", "mask", "in place")


class Sandglass(nn.Module):
    """The first c / divisor channels have a shortcut."""

    def __init__(self, c: int, divisor: int, way: str) -> None:
        super().__init__()
        hidden = max(c // 6, 2)
        self.body = nn.Sequential(
            conv_bn(c, c, 3, groups=c),
            nn.ReLU6(),
            conv_bn(c, hidden, 1),
            conv_bn(hidden, c, 1),
            nn.ReLU6(),
            conv_bn(c, c, 3, groups=c),
        )
        self.kept, self.way = c // divisor, way
        mask = (torch.arange(c) < self.kept).float().reshape(1, c, 1, 1)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        k = self.kept
        if self.way == "mask":
            return y + x * self.mask
        if self.way == "slices":
            return torch.cat([y[:, :k] + x[:, :k], y[:, k:]], 1)
        y[:, :k] += x[:, :k]
        return y


def rest(divisor: int) -> dict[str, int]:
    """What is left beside convolutions: part of the channels is a mask, all of them need none."""
    mask = {"Mul": 1} if divisor > 1 else {}
    return {"Clip": 2, "Add": 1, **mask}


CASES = {
    f"sandglass /{divisor}, {way}": Case(
        lambda c, divisor=divisor, way=way: Sandglass(c, divisor, way),
        {"Conv": 4, **rest(divisor)},
        small={"Conv": 3, **rest(divisor)},  # two narrow 1x1 in a row are one
    )
    for divisor in (1, 2, 3)
    for way in WAYS
}
