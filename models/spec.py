"""`ModelSpec`: how a network of the zoo is built, and its figures, without building it."""

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
    `parameters` counts those of the training form and of the optimized form, `paper` is an arXiv
    number. `renames` turn the keys of the authors' checkpoints into those of the module: pairs of a
    regular expression and its replacement for re.sub, applied in order; None drops the entry.
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
