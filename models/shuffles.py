"""The tables of shift-add: at which position of a large kernel each small kernel lies."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

SEED = 123  # of the published tables, which their checkpoints do not hold


@dataclass(frozen=True)
class Layout:
    """Results of `small` kernels in strips of length `big`, for every one of `channels`."""

    big: int
    small: int
    channels: int
    shuffles: int

    @property
    def count(self) -> int:
        """Results for each channel: the small kernels that make a strip."""
        return -(-self.big // self.small)

    @property
    def edge(self) -> int:
        """By how much the map of results is larger on every side: their kernels are fully padded.

        So every product that touches the map is there, and what is shifted out of it is zero.
        """
        return self.small - 1 - self.small // 2

    @property
    def moves(self) -> list[int]:
        """How far the result in each slot moves, from the first slot to the last."""
        return [self.big // 2 - i * self.small - (self.small - 1) for i in range(self.count)]

    @property
    def pads(self) -> tuple[int, int]:
        """Zeros in front of and behind the results that a slot may look at."""
        return max(self.moves[0], 0), max(-self.moves[-1] - 2 * self.edge, 0)


@functools.lru_cache
def drawn(layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """What the published code draws: the results in the slots of its horizontal and its vertical
    strips, [shuffle, channel, slot], and the results that stay, [shuffle, channel].
    """
    generator, shape = torch.Generator("cpu").manual_seed(SEED), [layout.channels]

    def orders() -> Tensor:
        rows = [
            torch.randperm(layout.count, generator=generator, device="cpu")
            for _ in range(layout.shuffles * layout.channels)
        ]
        return torch.stack(rows).view(layout.shuffles, layout.channels, layout.count)

    horizontal, vertical = orders(), orders()
    still = [
        torch.randint(layout.count, shape, generator=generator, device="cpu")
        for _ in range(layout.shuffles)
    ]
    return horizontal, vertical, torch.stack(still)
