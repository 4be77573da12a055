"""Shift-add: results of small kernels, each moved to its place in a large one, and summed.

In every shuffle each result has a slot of its own along either axis. With T, the results,

    along an axis:  y[c, w] = sum over shuffles and slots of  T[result in the slot, w - its move]
    still:          y[c, w] = sum over shuffles of            T[a result of c, w + edge]

where T is zero outside. The classes are the ways in which that can be written; the function is
the same. `models/shuffles.py` has the tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatfold.models.shuffles import Layout, drawn


class ShiftAdd(nn.Module):
    """T [N, channels * count, H + 2 edge, W + 2 edge] -> horizontal, vertical and still sums."""

    still: Tensor

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        horizontal, vertical, still = drawn(layout)
        first = torch.arange(layout.channels, device="cpu") * layout.count
        # The channels of T: in the slots, one slot after the other, and of what stays.
        for axis, order in ((3, horizontal), (2, vertical)):
            channels = (order.mT + first).flatten(1)
            self.register_buffer(f"slots{axis}", channels, persistent=False)
        self.register_buffer("still", still + first, persistent=False)

    def forward(self, parts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, columns = self.inner(parts, 2), self.inner(parts, 3)
        return self.along(rows, 3), self.along(columns, 2), self.centre(self.inner(rows, 3))

    def along(self, parts: Tensor, axis: int) -> Tensor:
        """The sum of all results, each moved along `axis`."""
        raise NotImplementedError

    def centre(self, parts: Tensor) -> Tensor:
        """The sum of the results that stay."""
        return total([parts.index_select(1, channels) for channels in self.still])

    def inner(self, x: Tensor, axis: int) -> Tensor:
        """x without what it is larger by along `axis`."""
        return x.narrow(axis, self.layout.edge, x.shape[axis] - 2 * self.layout.edge)

    def slots(self, parts: Tensor, axis: int) -> Iterator[tuple[Tensor, int]]:
        """What lies in each slot, the sum of one result of each shuffle, and its move."""
        tables = self.get_buffer(f"slots{axis}")
        summed = total([parts.index_select(1, channels) for channels in tables])
        yield from zip(summed.chunk(self.layout.count, dim=1), self.layout.moves, strict=True)


class BySlice(ShiftAdd):
    """Zeros around T; each slot is a slice that begins elsewhere."""

    def along(self, parts: Tensor, axis: int) -> Tensor:
        size, first = parts.shape[axis] - 2 * self.layout.edge, self.layout.pads[0]
        slots = self.slots(padded(parts, self.layout.pads, axis), axis)
        return total([slot.narrow(axis, first - move, size) for slot, move in slots])


class ByRoll(ShiftAdd):
    """Zeros around T, enough that what comes in again at the other end is cut off."""

    def along(self, parts: Tensor, axis: int) -> Tensor:
        size, first = parts.shape[axis] - 2 * self.layout.edge, self.layout.pads[0]
        slots = self.slots(padded(parts, self.layout.pads, axis), axis)
        return total([slot.roll(move, axis).narrow(axis, first, size) for slot, move in slots])


class ByGridSample(ShiftAdd):
    """Each slot is sampled at whole pixels elsewhere, and is zero outside."""

    def along(self, parts: Tensor, axis: int) -> Tensor:
        size = parts.shape[axis] - 2 * self.layout.edge
        return total([sampled(slot, move, size, axis) for slot, move in self.slots(parts, axis)])


class ByOneHot(ShiftAdd):
    """A convolution in groups, whose kernels have a one where each result is to be read."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        for axis in (2, 3):
            self.register_buffer(f"ones{axis}", self._ones(axis), persistent=False)
        counts = torch.zeros(layout.channels * layout.count, device="cpu")
        for channels in self.still:
            counts[channels] += 1
        self.register_buffer("ones", self._in_groups(counts, 1, 1), persistent=False)

    def _ones(self, axis: int) -> Tensor:
        layout = self.layout
        length = (layout.count - 1) * layout.small + 1
        ones = torch.zeros(layout.channels * layout.count, length, device="cpu")
        place = torch.arange(0, length, layout.small, device="cpu")
        for channels in self.get_buffer(f"slots{axis}"):
            ones[channels, place.repeat_interleave(layout.channels)] += 1
        return self._in_groups(ones, *((1, length) if axis == 3 else (length, 1)))

    def _in_groups(self, ones: Tensor, *kernel: int) -> Tensor:
        return ones.view(self.layout.channels, self.layout.count, *kernel)

    def along(self, parts: Tensor, axis: int) -> Tensor:
        first, last = self.layout.moves[0], -self.layout.moves[-1] - 2 * self.layout.edge
        x = padded(parts, (first, last), axis)
        return F.conv2d(x, self.get_buffer(f"ones{axis}"), groups=self.layout.channels)

    def centre(self, parts: Tensor) -> Tensor:
        return F.conv2d(parts, self.get_buffer("ones"), groups=self.layout.channels)


class ByDeformation(ShiftAdd):
    """A convolution in groups, with a tap for each shuffle that is moved by whole pixels.

    Exported as the operator DeformConv; otherwise the taps are picked, as torch has none.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        for axis in (2, 3):
            channels = self.get_buffer(f"slots{axis}")
            of_slots = torch.tensor(layout.moves, device="cpu").repeat_interleave(layout.channels)
            moves = torch.zeros_like(channels).scatter(1, channels, of_slots.expand_as(channels))
            self.register_buffer(f"moves{axis}", moves, persistent=False)  # [shuffle, channel of T]

    def along(self, parts: Tensor, axis: int) -> Tensor:
        exporting = torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export()
        moved = self._operator(parts, axis) if exporting else self._picked(parts, axis)
        return moved.narrow(axis, 0, parts.shape[axis] - 2 * self.layout.edge)

    def _picked(self, parts: Tensor, axis: int) -> Tensor:
        first, last = self.layout.pads[0], max(-self.layout.moves[-1], 0)
        x = padded(parts, (first, last), axis).movedim(axis, -1)
        place = torch.arange(parts.shape[axis], device=x.device)
        shape = (*x.shape[:-1], len(place))
        taps = [
            x.gather(-1, (first + place - moves[:, None])[:, None].expand(shape))
            for moves in self.get_buffer(f"moves{axis}")
        ]
        in_groups = (x.shape[0], self.layout.channels, self.layout.count, *shape[2:])
        return total(taps).reshape(in_groups).sum(2).movedim(-1, axis)

    def _operator(self, parts: Tensor, axis: int) -> Tensor:
        layout, moves = self.layout, self.get_buffer(f"moves{axis}")
        tap = torch.arange(layout.shuffles, device=parts.device)
        offset = parts.new_zeros(moves.shape[1], layout.shuffles, 2)
        offset[:, :, axis - 2] = (-moves.T - tap).to(parts.dtype)
        offset = offset.view(1, -1, 1, 1).expand(parts.shape[0], -1, *parts.shape[2:])
        kernel = [1, layout.shuffles] if axis == 3 else [layout.shuffles, 1]
        return torch.onnx.ops.symbolic(
            "DeformConv",
            (parts, parts.new_ones(layout.channels, layout.count, *kernel), offset),
            {
                "group": layout.channels,
                "offset_group": layout.channels * layout.count,
                "kernel_shape": kernel,
                "pads": [0, 0, kernel[0] - 1, kernel[1] - 1],
            },
            dtype=parts.dtype,
            shape=(parts.shape[0], layout.channels, *parts.shape[2:]),
        )


SHIFTS: dict[str, type[ShiftAdd]] = {
    "slice": BySlice,
    "one_hot": ByOneHot,
    "roll": ByRoll,
    "deformable": ByDeformation,
    "grid_sample": ByGridSample,
}


def shift_add(way: str, layout: Layout) -> ShiftAdd:
    """Shift-add in one of the SHIFTS. Raises ValueError, which lists them."""
    if way not in SHIFTS:
        raise ValueError(f"no shift {way!r}: choose one of {', '.join(SHIFTS)}")
    return SHIFTS[way](layout)


def total(terms: Sequence[Tensor]) -> Tensor:
    """The sum of `terms`."""
    result = terms[0]
    for term in terms[1:]:
        result = result + term
    return result


def padded(x: Tensor, pads: tuple[int, int], axis: int) -> Tensor:
    """x with zeros in front of it and behind along `axis`; less than none is a crop."""
    return F.pad(x, (*pads, 0, 0) if axis == 3 else (0, 0, *pads))


def sampled(x: Tensor, move: int, size: int, axis: int) -> Tensor:
    """x[.., w - move, ..] for `size` places w along `axis`, zero outside."""
    height, width = x.shape[2:]
    rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    if axis == 3:
        columns = columns[:size] - move
    else:
        rows = rows[:size] - move
    across = ((2 * columns + 1).to(x.dtype) / width - 1).expand(len(rows), -1)
    down = ((2 * rows + 1).to(x.dtype) / height - 1)[:, None].expand(-1, len(columns))
    grid = torch.stack([across, down], -1).expand(x.shape[0], -1, -1, -1)
    return F.grid_sample(x, grid, mode="nearest", padding_mode="zeros", align_corners=False)
