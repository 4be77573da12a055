"""What the zoo knows of a network before it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Renames = tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class ModelSpec:
    """How to build one network of the zoo.

    `factory` is ``module:function``; called with `kwargs` it returns the training form.
    `input_shape` is (C, H, W). `gain` is the variance gain of convolutions under the seeded
    initialisation (see `flatfold.models.initialise`), chosen so that logits are of order 1.
    `parameters` are those of the training form and of what `optimize` makes of it, and `paper`
    is an arXiv number. `renames` lead from the keys of the authors' checkpoints to those of the
    module: pairs of a regular expression and what re.sub puts in its place, in order; with None
    the whole entry is dropped.
    """

    family: str
    factory: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    input_shape: tuple[int, int, int] = (3, 224, 224)
    gain: float = 1.0
    summary: str = ""
    parameters: tuple[int, int] = (0, 0)
    paper: str = ""
    renames: Renames = ()
