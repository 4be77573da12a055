"""Checkpoints as the authors publish them: the names of their keys, and what becomes of each."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from flatfold.frontend.pytorch.weights import load_weights, renamed
from flatfold.models import ZOO
from tests.models.weightless import on_meta


def norm(prefix: str) -> set[str]:
    """The keys of a BatchNorm."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return {f"{prefix}.{name}" for name in ("weight", "bias", *statistics)}


def require_round_trip(name: str, keys: Iterable[str]) -> None:
    """A file with just these keys fills the whole of network `name`.

    The keys are written down from the authors' code, not from ours.
    """
    network, renames = on_meta(name), ZOO[name].renames
    state = network.state_dict()
    file = {key: torch.empty(0) for key in keys}
    for key in file:
        for own in renamed({key: file[key]}, renames, state):
            assert own in state, f"{key} would be {own}, which there is not"
            file[key] = state[own]
    load_weights(network, file, renames)  # refuses missing and unexpected keys
