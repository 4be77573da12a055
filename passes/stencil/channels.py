"""Which channels a stencil reads, and which of its outputs are wanted: index arrays.

A stencil may read its source through a channel index: input j is channel index[j] of the source,
and a channel of zeros where index[j] is -1. Slice, Split, Gather, Concat and shuffles of channels
are all such indices, so they cost an array of integers and no matrix.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from flatfold.passes.stencil import kernels
from flatfold.passes.stencil.geometry import Geometry
from flatfold.passes.stencil.kernels import Weight

ChannelIndex = npt.NDArray[np.int64]
Selected = tuple[Weight, Geometry, ChannelIndex]

NO_CHANNEL = -1


def all_channels(count: int) -> ChannelIndex:
    return np.arange(count, dtype=np.int64)


def is_all_channels(channel_index: ChannelIndex, source_channels: int) -> bool:
    """Whether this picks each channel once, in order (a channel of zeros may stand for any)."""
    return len(channel_index) == source_channels and bool(
        np.all((channel_index == all_channels(source_channels)) | (channel_index == NO_CHANNEL))
    )


def fill_gaps(channel_index: ChannelIndex, source_channels: int) -> ChannelIndex:
    """The pick with a channel of the source in place of each channel of zeros: any will do."""
    place = np.minimum(all_channels(len(channel_index)), source_channels - 1)
    return np.where(channel_index == NO_CHANNEL, place, channel_index)


def is_consecutive(channel_index: ChannelIndex) -> bool:
    """Whether the channels are one after the other."""
    return bool(np.all(np.diff(channel_index) == 1))


def select_weight_rows(
    weight: Weight, shape: Geometry, channel_index: ChannelIndex, index: ChannelIndex
) -> Selected:
    """The outputs `index` of a stencil, zeros where it is -1: (weight, shape, pick)."""
    count, groups, each = len(index), shape.groups, shape.outputs // shape.groups
    owner = np.where(index == NO_CHANNEL, NO_CHANNEL, index // each)
    alone = weight.shape[1] == 1 and bool(np.any(index == NO_CHANNEL))  # zeros read nothing
    if groups == 1 and not alone:
        return _taken(weight, index), replace(shape, outputs=count), channel_index
    block = 1 if weight.shape[1] == 1 else _block(owner, each)
    if not block:
        dense = kernels.coarsen(weight, shape, 1)
        return _taken(dense, index), replace(shape, outputs=count, groups=1), channel_index
    chosen = owner.reshape(-1, block).max(axis=1)
    inputs = np.where(
        chosen[:, None] == NO_CHANNEL, NO_CHANNEL, channel_index.reshape(groups, -1)[chosen]
    )
    inputs = inputs.reshape(-1)
    geometry = replace(shape, outputs=count, inputs=len(inputs), groups=count // block)
    return _taken(weight, index), geometry, inputs


def _taken(weight: Weight, index: ChannelIndex) -> Weight:
    taken: Weight = weight[index]
    taken[index == NO_CHANNEL] = 0
    return taken


def _block(owner: ChannelIndex, each: int) -> int:
    """Rows in a group, if the rows asked for come in whole groups of one old group each; or 0."""
    if len(owner) % each:
        return 0
    blocks = owner.reshape(-1, each)
    top = blocks.max(axis=1, keepdims=True)
    return each if bool(np.all((blocks == top) | (blocks == NO_CHANNEL))) else 0


def to_dense(
    weight: Weight, shape: Geometry, channel_index: ChannelIndex, source_channels: int
) -> tuple[Weight, Geometry]:
    """The same operator in one group that reads all `source_channels` channels of the source."""
    dense = kernels.coarsen(weight, shape, 1)
    total = kernels.zeros((shape.outputs, source_channels, *shape.kernel))
    live = channel_index != NO_CHANNEL
    np.add.at(total.swapaxes(0, 1), channel_index[live], dense.swapaxes(0, 1)[live])
    return total, replace(shape, inputs=source_channels, groups=1)


def permute_within_groups(
    weight: Weight, shape: Geometry, channel_index: ChannelIndex
) -> Weight | None:
    """Weights that read the source as it is, if no group picks a channel of another group."""
    each = shape.inputs // shape.groups
    places = channel_index.reshape(shape.groups, each) - each * np.arange(shape.groups)[:, None]
    live = channel_index.reshape(shape.groups, each) != NO_CHANNEL
    if each == 1 or np.any(live & ((places < 0) | (places >= each))):
        return None
    blocks = weight.reshape(shape.groups, -1, each, *shape.kernel)
    total = kernels.zeros(blocks.shape)
    for group in range(shape.groups):
        target, source = total[group].swapaxes(0, 1), blocks[group].swapaxes(0, 1)
        np.add.at(target, places[group][live[group]], source[live[group]])
    permuted_: Weight = total.reshape(weight.shape)
    return permuted_


def nonzero_outputs(weight: Weight) -> npt.NDArray[np.bool_]:
    """Which outputs have a weight at all."""
    alive: npt.NDArray[np.bool_] = np.any(weight.reshape(len(weight), -1) != 0, axis=1)
    return alive


def common_index(
    picks: list[ChannelIndex], alive: list[npt.NDArray[np.bool_]]
) -> ChannelIndex | None:
    """One pick for stencils that read one channel an output; None if two want different ones."""
    union = np.full(len(picks[0]), NO_CHANNEL, np.int64)
    for channel_index, wanted in zip(picks, alive, strict=True):
        wanted = wanted & (channel_index != NO_CHANNEL)
        if np.any(wanted & (union != NO_CHANNEL) & (union != channel_index)):
            return None
        union = np.where(wanted, channel_index, union)
    return union
