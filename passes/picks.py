"""Which channels a stencil reads, and which of its outputs are wanted: index arrays.

A stencil may read its source through a `pick`: input j is channel pick[j] of the source, and a
channel of zeros where pick[j] is -1. Slice, Split, Gather, Concat and shuffles of channels are all
picks, so they cost an index and no matrix.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from flatfold.passes import arithmetic, kernels
from flatfold.passes.geometry import Geometry
from flatfold.passes.kernels import Weight

Index = npt.NDArray[np.int64]
Picked = tuple[Weight, Geometry, Index]

NOTHING = -1


def every(count: int) -> Index:
    return np.arange(count, dtype=np.int64)


def is_every(pick: Index, width: int) -> bool:
    """Whether this picks each channel once, in order (a channel of zeros may stand for any)."""
    return len(pick) == width and bool(np.all((pick == every(width)) | (pick == NOTHING)))


def resolved(pick: Index, width: int) -> Index:
    """The pick with a channel of the source in place of each channel of zeros: any will do."""
    place = np.minimum(every(len(pick)), width - 1)
    return np.where(pick == NOTHING, place, pick)


def is_range(pick: Index) -> bool:
    """Whether the channels are one after the other."""
    return bool(np.all(np.diff(pick) == 1))


def rows(weight: Weight, shape: Geometry, pick: Index, index: Index) -> Picked:
    """The outputs `index` of a stencil, zeros where it is -1: (weight, shape, pick)."""
    count, groups, each = len(index), shape.groups, shape.outputs // shape.groups
    owner = np.where(index == NOTHING, NOTHING, index // each)
    alone = weight.shape[1] == 1 and bool(np.any(index == NOTHING))  # zeros read nothing
    if groups == 1 and not alone:
        return _taken(weight, index), replace(shape, outputs=count), pick
    block = 1 if weight.shape[1] == 1 else _block(owner, each)
    if not block:
        dense = kernels.coarsen(weight, shape, 1)
        return _taken(dense, index), replace(shape, outputs=count, groups=1), pick
    chosen = owner.reshape(-1, block).max(axis=1)
    inputs = np.where(chosen[:, None] == NOTHING, NOTHING, pick.reshape(groups, -1)[chosen])
    inputs = inputs.reshape(-1)
    geometry = replace(shape, outputs=count, inputs=len(inputs), groups=count // block)
    return _taken(weight, index), geometry, inputs


def _taken(weight: Weight, index: Index) -> Weight:
    taken: Weight = weight[index]
    taken[index == NOTHING] = 0
    return taken


def _block(owner: Index, each: int) -> int:
    """Rows in a group, if the rows asked for come in whole groups of one old group each; or 0."""
    if len(owner) % each:
        return 0
    blocks = owner.reshape(-1, each)
    top = blocks.max(axis=1, keepdims=True)
    return each if bool(np.all((blocks == top) | (blocks == NOTHING))) else 0


def spread(weight: Weight, shape: Geometry, pick: Index, width: int) -> tuple[Weight, Geometry]:
    """The same operator without a pick: one group, reading all `width` channels of the source."""
    dense = kernels.coarsen(weight, shape, 1)
    total = arithmetic.zeros((shape.outputs, width, *shape.kernel))
    live = pick != NOTHING
    np.add.at(total.swapaxes(0, 1), pick[live], dense.swapaxes(0, 1)[live])
    return total, replace(shape, inputs=width, groups=1)


def permuted(weight: Weight, shape: Geometry, pick: Index) -> Weight | None:
    """Weights that read the source as it is, if no group picks a channel of another group."""
    each = shape.inputs // shape.groups
    places = pick.reshape(shape.groups, each) - each * np.arange(shape.groups)[:, None]
    live = pick.reshape(shape.groups, each) != NOTHING
    if each == 1 or np.any(live & ((places < 0) | (places >= each))):
        return None
    blocks = weight.reshape(shape.groups, -1, each, *shape.kernel)
    total = arithmetic.zeros(blocks.shape)
    for group in range(shape.groups):
        target, source = total[group].swapaxes(0, 1), blocks[group].swapaxes(0, 1)
        np.add.at(target, places[group][live[group]], source[live[group]])
    permuted_: Weight = total.reshape(weight.shape)
    return permuted_


def live(weight: Weight) -> npt.NDArray[np.bool_]:
    """Which outputs have a weight at all."""
    alive: npt.NDArray[np.bool_] = np.any(weight.reshape(len(weight), -1) != 0, axis=1)
    return alive


def agreed(picks: list[Index], alive: list[npt.NDArray[np.bool_]]) -> Index | None:
    """One pick for stencils that read one channel an output; None if two want different ones."""
    union = np.full(len(picks[0]), NOTHING, np.int64)
    for pick, wanted in zip(picks, alive, strict=True):
        wanted = wanted & (pick != NOTHING)
        if np.any(wanted & (union != NOTHING) & (union != pick)):
            return None
        union = np.where(wanted, pick, union)
    return union
