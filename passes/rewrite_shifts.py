"""Read Pad, Slice, GridSample and DeformConv that move whole pixels as kernels of one tap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.reading import Reader
from flatfold.passes.reading.channels import read_slice
from flatfold.passes.reading.layers import groups_of
from flatfold.passes.reading.meaning import Applied, Linear
from flatfold.passes.reading.node import (
    channel_count,
    constant,
    constant_or_expanded,
    dims_of,
    number,
    optional_weights,
    padding,
    pads_by_axis,
    require_finite,
    source,
    spatial_sizes,
    text,
    weights,
    window,
)
from flatfold.passes.rewrite import Region, Rewrite
from flatfold.passes.stencil import kernels
from flatfold.passes.stencil.channels import NO_CHANNEL
from flatfold.passes.stencil.geometry import Ints
from flatfold.passes.stencil.kernels import Array, Weight
from flatfold.passes.stencil.stencil import (
    convolution,
    select_outputs,
    translation,
)

MOST_TAPS = 4096  # of the box that holds them all
SURE = 0.25  # a coordinate this close to a whole number is rounded to it by every runtime


class RewriteShifts(Rewrite):
    """y[c, p] = x[c, p + d(c)], and 0 outside the map: a depthwise kernel with one tap, off centre.

    *Given* Slice and Pad on the pixels, a roll (Slices put end to end), a GridSample whose grid or
    a DeformConv whose offsets are whole pixels (shift networks: Wu et al. 2018, Shift-ConvNets
    2024). *Result* the layers around it, with the shift in their kernels; alone, a Slice and a Pad,
    or a convolution, whichever the target does faster.

    *Declines when* a sample lies between pixels; the grid or the offsets are computed, or differ
    between images or pixels; what is padded with is not 0.
    """

    name = "rewrite-shifts"

    def readers(self) -> Mapping[str, Reader]:
        return {
            "DeformConv": read_deform_conv,
            "GridSample": read_grid_sample,
            "Pad": read_pad,
            "Slice": read_slice,
        }

    def claims(self, region: Region) -> bool:
        """Pixels are cut off or sampled somewhere; padding alone belongs to the layer behind it."""
        return any(_moves_pixels(node, linear) for node, linear in region.meanings.items())

    def accept(self, region: Region) -> None:
        """A Slice alone copies what it has to; a convolution would read, and multiply, more."""
        if len(region.nodes) == 1 and region.root.op_type == "Slice":
            raise Decline("TRIVIAL", "it already has its cheapest form")


def _moves_pixels(node: ir.Node, linear: Linear) -> bool:
    if node.op_type in ("DeformConv", "GridSample"):
        return True
    if node.op_type != "Slice" or not isinstance(linear, Applied):
        return False
    return not linear.stencil.geometry.is_pointwise


def read_grid_sample(node: ir.Node) -> Applied:
    """x[step * p + shift], 0 outside, if the constant grid points at whole pixels in a lattice."""
    data, grid = source(node), _expanded(node.inputs[1])
    sizes = [size or 0 for size in spatial_sizes(data)]
    if grid is None or 0 in sizes or not np.all(np.isfinite(grid)):
        grid_and_map = f"{source(node, 1).name} for a map of sizes {spatial_sizes(data)}"
        raise Decline(
            "NOT-CONSTANT", f"the grid or the size of the map is not constant: {grid_and_map}"
        )
    if text(node, "padding_mode", "zeros") != "zeros":
        raise Decline("PAD-MODE", f"{text(node, 'padding_mode', '')} is not padding by zero")
    if grid.ndim != len(sizes) + 2 or np.any(grid != grid[:1]):
        raise Decline("NOT-CONSTANT", f"the grid differs between {len(grid)} images")
    nearest = text(node, "mode", "linear") == "nearest"
    aligned = number(node, "align_corners", 0) != 0
    begin, end, strides = [], [], []
    for axis, size in enumerate(sizes):
        x = grid[0, ..., len(sizes) - 1 - axis].astype(np.float64)  # the last axis comes first
        place = (x + 1) / 2 * (size - 1) if aligned else ((x + 1) * size - 1) / 2
        step, shift = _line(np.moveaxis(place, axis, 0), nearest)
        count = grid.shape[axis + 1]
        begin.append(-shift)
        end.append(step * (count - 1) + shift + 1 - size)
        strides.append(step)
    channels = channel_count(data)
    moved = translation(channels, tuple(begin), tuple(end), tuple(strides))
    return Applied(data, moved, sampling=(channels, 0))


def _line(place: Array, nearest: bool) -> tuple[int, int]:
    """(step, shift) of places step * p + shift along the first axis, the same along the others."""
    whole = np.rint(place)
    off = float(np.max(np.abs(place - whole)))
    if off > (SURE if nearest else 0.0):
        raise Decline("FRACTION", f"a sample lies {off:.3g} of a pixel off the nearest one")
    line = whole.reshape(len(whole), -1)
    step = int(line[1, 0] - line[0, 0]) if len(line) > 1 else 1
    expected = line[0, 0] + step * np.arange(len(line))
    if step < 1 or np.any(line != expected[:, None]):
        raise Decline("NONLINEAR", "the samples are not in a lattice of pixels")
    return step, int(line[0, 0])


def read_deform_conv(node: ir.Node) -> Applied:
    """A convolution whose taps are moved by whole pixels, the same everywhere (Dai et al. 2017)."""
    weight, offset = weights(node, 1, "weight"), _expanded(node.inputs[2])
    mask = _expanded(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] else None
    if offset is None or (mask is None and len(node.inputs) > 4 and node.inputs[4] is not None):
        names = ", ".join(str(v.name) for v in (node.inputs[2], *node.inputs[4:5]) if v)
        raise Decline("NOT-CONSTANT", f"the offsets or the mask are not constant: {names}")
    parts = int(number(node, "offset_group", 1))
    kernel, axes = weight.shape[2:], weight.ndim - 2
    moves = _uniform(offset, "offsets").reshape(parts, int(np.prod(kernel)), axes)
    share = None if mask is None else _uniform(mask, "mask").reshape(parts, -1)
    if share is not None:
        require_finite(share, "the mask")
    require_finite(moves, "an offset of the taps")
    if np.any(moves != np.rint(moves)):
        off = float(np.max(np.abs(moves - np.rint(moves))))
        raise Decline("FRACTION", f"a tap lies {off:.3g} of a pixel off the nearest one")
    groups = groups_of(node, weight.shape[0])
    strides, dilations, begin, end = window(node, kernel)
    taps = np.stack(np.meshgrid(*map(np.arange, kernel), indexing="ij"), -1).reshape(-1, axes)
    places = (taps * np.array(dilations) + moves).astype(np.int64)
    low, high = places.min((0, 1)), places.max((0, 1))
    count = float(np.prod((high - low + 1).astype(float)))
    if count > MOST_TAPS:
        raise Decline("COST", f"exact, but the kernel would have {count:g} taps, over {MOST_TAPS}")
    full = _scattered(weight, groups, places - low, high - low + 1, share)
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    first = tuple(int(b - n) for b, n in zip(begin, low, strict=True))
    growth = [b + e - span for b, e, span in zip(begin, end, spans, strict=True)]
    last = tuple(
        int(g + h - n + 1 - b) for g, h, n, b in zip(growth, high, low, first, strict=True)
    )
    form = convolution(
        full,
        optional_weights(node, 3, "bias"),
        groups=groups,
        strides=strides,
        begin=first,
        end=last,
    )
    samples = weight.shape[1] * groups * math.prod(kernel)
    return Applied(source(node), form, sampling=(samples, weight.size))


def _scattered(
    weight: Weight, groups: int, places: npt.NDArray[np.int64], size: Sequence[int], share: Any
) -> Array:
    """The weights on a dense kernel, each tap of each part of the channels at its place."""
    each = weight.shape[1]
    inputs = each * groups
    if inputs % len(places):
        raise Decline("ATTRIBUTE", f"{inputs} channels do not make {len(places)} groups of offsets")
    full: Array = kernels.zeros((*weight.shape[:2], *size))
    flat = weight.reshape(*weight.shape[:2], -1)
    rows = weight.shape[0] // groups
    for channel in range(inputs):
        group, column = divmod(channel, each)
        part = channel * len(places) // inputs
        for tap, place in enumerate(places[part]):
            scale = 1.0 if share is None else share[part, tap]
            at = (slice(group * rows, (group + 1) * rows), column)
            target: tuple[Any, ...] = (*at, *place)
            full[target] += scale * flat[at[0], column, tap]
    return full


def _uniform(array: Weight, what: str) -> Weight:
    """[N, numbers, ..] as one list of numbers, if these are the same everywhere."""
    flat = array.swapaxes(0, 1).reshape(array.shape[1], -1)
    if np.any(flat != flat[:, :1]):
        extent = f"{array.min():g} to {array.max():g}"
        raise Decline("NOT-PER-CHANNEL", f"the {what} differ between pixels or images: {extent}")
    first: Weight = flat[:, 0]
    return first


def _expanded(value: ir.Value | None) -> Weight | None:
    """A constant, or one that is repeated for every image."""
    array = constant_or_expanded(value)
    if value is None or array is None or constant(value) is not None:
        return array
    sizes = dims_of(value)
    if None in sizes[1:]:
        return None
    images = array.shape[0] if array.ndim == len(sizes) else 1
    shape: Ints = (images, *(size or 0 for size in sizes[1:]))
    return np.broadcast_to(array, shape)


def read_pad(node: ir.Node) -> Applied:
    """A number around the map, zeros around its channels; of either, a crop."""
    mode = node.attributes.get("mode")
    if mode is not None and mode.as_string() != "constant":
        raise Decline("PAD-MODE", f"padding by {mode.as_string()} is not padding by zero")
    _, fill, _ = padding(node)
    around = float(fill.item()) if np.any(fill != 0) else 0.0
    if not np.isfinite(around):
        raise Decline("PAD-MODE", f"padding by {around:g} is not padding by a number")
    data = source(node)
    both = pads_by_axis(node)
    if np.any(both[:, 0]):
        raise Decline("PAD-MODE", f"the batch is padded by {both[:, 0].tolist()}")
    begin, end = (tuple(int(n) for n in side[2:]) for side in both)
    move, count = translation(channel_count(data), begin, end), channel_count(data)
    if not np.any(both[:, 1]):
        return Applied(data, move, fill=around if max((*begin, *end), default=0) > 0 else 0.0)
    if around:
        raise Decline("PAD-MODE", f"channels of {around:g} are not channels of zeros")
    index = np.arange(-both[0, 1], count + both[1, 1])
    if not len(index):
        raise Decline("PAD-MODE", f"none of {count} channels is left")
    return Applied(
        data, select_outputs(move, np.where((index < 0) | (index >= count), NO_CHANNEL, index))
    )
