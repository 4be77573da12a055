"""The shift-wise operator of Shift-ConvNets (architectures: Shift-wise), by slices and one-hot."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.passes.exported.exporters import SMALL, WIDE, Case

SHUFFLES, PATHS, STEP = 4, 2, 3


class ShiftWise(nn.Module):
    """Small kernels whose results are moved to the place that they have in two strips."""

    def __init__(self, c: int, big: int, way: str) -> None:
        super().__init__()
        self.way, self.big, self.count = way, big, -(-big // STEP)
        self.rep = int(c * 0.77) // 2 * 2
        order = torch.Generator().manual_seed(123)
        everything = torch.randperm(c, generator=order)
        self.moving, self.ghost = (
            part.sort().values for part in (everything[: self.rep], everything[self.rep :])
        )
        slots = (SHUFFLES, self.rep, self.count)
        draws = [torch.rand(slots, generator=order).argsort(-1) for _ in "hv"]
        self.horizontal, self.vertical = draws  # [r, c, slot] -> the small kernel in it
        shape = (SHUFFLES, self.rep)
        self.still = torch.randint(self.count, shape, generator=order)
        for axis in (2, 3):
            self.register_buffer(f"ones{axis}", self.ones(axis))
        weight = torch.zeros(self.rep, self.count, 1, 1)
        for kernels in self.still:
            weight[torch.arange(self.rep), kernels] += 1
        self.register_buffer("still_ones", weight)
        outputs = self.rep * self.count
        self.convs = nn.ModuleList(
            nn.Conv2d(self.rep, outputs, STEP, 1, STEP - 1, groups=self.rep, bias=False)
            for _ in range(PATHS)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(self.rep) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        moving, ghost = (x.index_select(1, index) for index in (self.moving, self.ghost))
        parts: Tensor = sum((conv(moving) for conv in self.convs[1:]), self.convs[0](moving))
        add = self.slices if self.way == "slices" else self.one_hot
        sums = (add(parts, self.horizontal, 3), add(parts, self.vertical, 2), self.centre(parts))
        norms = zip(self.norms, sums, strict=True)
        return torch.cat([sum((norm(y) for norm, y in norms), moving), ghost], 1)

    def moves(self) -> list[int]:
        return [self.big // 2 - i * STEP - (STEP - 1) for i in range(self.count)]

    def cut(self, y: Tensor, axis: int) -> Tensor:
        edge = STEP - 1 - STEP // 2
        return y.narrow(axis, edge, y.shape[axis] - 2 * edge)

    def picks(self, kernels: Tensor) -> Tensor:
        return torch.arange(self.rep) * self.count + kernels

    def slices(self, parts: Tensor, order: Tensor, axis: int) -> Tensor:
        """For each slot of each shuffle: pad, and narrow to where the slot is."""
        total = None
        edge, size = STEP - 1 - STEP // 2, parts.shape[axis]
        parts = self.cut(parts, 5 - axis)
        wide = [self.big, self.big, 0, 0] if axis == 3 else [0, 0, self.big, self.big]
        for shuffle in order:
            for slot, move in enumerate(self.moves()):
                part = F.pad(parts.index_select(1, self.picks(shuffle[:, slot])), wide)
                part = part.narrow(axis, self.big - move, size - 2 * edge)
                total = part if total is None else total + part
        return total

    def ones(self, axis: int) -> Tensor:
        """Where a convolution has to look for every kernel along one axis."""
        weight = torch.zeros(self.rep, self.count, (self.count - 1) * STEP + 1)
        for shuffle in self.horizontal if axis == 3 else self.vertical:
            for slot, move in enumerate(self.moves()):
                place = self.big // 2 - (STEP - 1) - move
                weight[torch.arange(self.rep), shuffle[:, slot], place] += 1
        return weight.unsqueeze(5 - axis)

    def one_hot(self, parts: Tensor, order: Tensor, axis: int) -> Tensor:
        """A convolution of ones."""
        edge, length = STEP - 1 - STEP // 2, (self.count - 1) * STEP + 1
        begin = self.big // 2 - (STEP - 1)
        pads = [begin, length - 1 - 2 * edge - begin]
        pads = [*pads, 0, 0] if axis == 3 else [0, 0, *pads]
        weight = self.get_buffer(f"ones{axis}")
        return F.conv2d(F.pad(self.cut(parts, 5 - axis), pads), weight, groups=self.rep)

    def centre(self, parts: Tensor) -> Tensor:
        parts = self.cut(self.cut(parts, 2), 3)
        if self.way == "one-hot":
            return F.conv2d(parts, self.get_buffer("still_ones"), groups=self.rep)
        picked = [parts.index_select(1, self.picks(kernels)) for kernels in self.still]
        total: Tensor = sum(picked[1:], picked[0])
        return total


def block(c: int, big: int, way: str) -> nn.Module:
    return nn.Sequential(ShiftWise(c, big, way), nn.BatchNorm2d(c), nn.GELU())


# Two strips, and the norm of the channels that do not move, which would cost a kernel's time as
# part of the strips.
CASES = {
    f"shift-wise {big}, {way}": Case(
        lambda c, big=big, way=way: block(c, big, way),
        {"Conv": 3, "Add": 1, "Gather": 2, "Concat": 1, "Gelu": 1},
        {SMALL: (15, 16), WIDE: (28, 28)},
    )
    for big, way in ((13, "one-hot"), (13, "slices"), (51, "one-hot"), (51, "slices"))
}
