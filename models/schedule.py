"""VanillaNet's deep training: an activation that becomes linear while the network learns.

Chen et al., "VanillaNet: the Power of Minimalism in Deep Learning", NeurIPS 2023,
arXiv:2305.12972, section 3.1. Between two layers stands (1 - s) * relu(x) + s * x, a leaky ReLU of
slope s. Training moves s from 0 to 1; at exactly 1 the two layers are one, and `optimize` makes
them one. Before that they are not, and it does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from flatfold.errors import InputError, UnknownName

# From the share of the epochs that have passed to the slope: 0 to 0, 1 to 1.
SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda share: share,
    "cosine": lambda share: 0.5 * (1 - math.cos(math.pi * share)),
}


@dataclass
class SlopeSchedule:
    """The slope of each epoch: 0 in epoch 0, exactly 1 from epoch `decay_epochs` on.

    Call `apply` before the first epoch and when training goes on from a file, `step` after each
    epoch; both with every copy of the network, an average of its weights too: a slope is no part
    of a state dict. All that the schedule knows is in its fields, so `vars(schedule)` is what to
    save, and `SlopeSchedule(**saved)` goes on from there.
    """

    decay_epochs: int = 100
    shape: str = "linear"
    epoch: int = 0

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise UnknownName("schedule", self.shape, SHAPES)
        if self.decay_epochs < 0 or self.epoch < 0:
            raise InputError(
                f"expected epochs of 0 or more, found {self.decay_epochs} and {self.epoch}"
            )

    @property
    def slope(self) -> float:
        """What the slope is in this epoch."""
        if self.epoch >= self.decay_epochs:
            return 1.0
        return SHAPES[self.shape](self.epoch / self.decay_epochs)

    def apply(self, *modules: nn.Module) -> float:
        """Give `modules`, and what is inside them, the slope of this epoch; returns it.

        Those with a number `slope` take it. Raises `InputError` where one has none inside.
        """
        for module in modules:
            leaky: list[Any] = [layer for layer in module.modules() if _has_slope(layer)]
            if not leaky:
                raise InputError(
                    f"no layer of {type(module).__name__} has a slope",
                    hint="call its activation F.leaky_relu(x, self.slope) with a number",
                )
            for layer in leaky:
                layer.slope = self.slope
        return self.slope

    def step(self, *modules: nn.Module) -> float:
        """Go on to the next epoch and `apply` its slope."""
        self.epoch += 1
        return self.apply(*modules)


def _has_slope(layer: nn.Module) -> bool:
    return isinstance(vars(layer).get("slope"), (int, float))
