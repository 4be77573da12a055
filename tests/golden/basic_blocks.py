"""What a ResNet of basic blocks is before and after, whichever branches its 3x3 layers have."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

import flatfold
from flatfold.models.initialise import initialise

TAIL = {"MaxPool": 1, "ReduceMean": 1, "Reshape": 1, "Gemm": 1}
SHORTCUTS = 3  # with a convolution: where a stage changes the shape

Operators = dict[str, int]


def training_form(blocks: int, layer: Operators) -> Operators:
    """Before: two `layer`s in each of the `blocks`, the stem and the shortcuts with their norms."""
    row = {operator: 2 * blocks * count for operator, count in layer.items()} | TAIL
    row["Conv"] += 1 + SHORTCUTS
    row["BatchNormalization"] += 1 + SHORTCUTS
    row["Add"] += blocks
    row["Relu"] = 2 * blocks + 1
    return row


def deploy_form(blocks: int) -> Operators:
    """After: a convolution for each layer, and no norm."""
    convs = 2 * blocks + 1 + SHORTCUTS
    return {"Conv": convs, "Add": blocks, "Relu": 2 * blocks + 1, **TAIL}


def require_small(network: Callable[..., nn.Module], layer: Operators, gain: float) -> None:
    """A small network of the family is rewritten and certified, at an odd size."""
    module = network(depths=(1, 1, 1, 1), widths=(8, 12, 16, 20), num_classes=10)
    initialise(module, seed=0, gain=gain)
    done = flatfold.optimize(module.eval(), input_shape=(3, 45, 70), dynamic_batch=True)
    assert done.before.operators == training_form(4, layer)
    assert done.after.operators == deploy_form(4)
    assert done.equivalence.verdict == "certified"
