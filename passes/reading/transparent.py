"""Operators that a map of the channels passes through: T(A x + b) = A' T(x) + b'.

A mean over all pixels, a Flatten or Reshape that only drops or adds axes or divides the pixels
anew, a Transpose between channels-first and channels-last. What is in front of them joins what is
behind them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.reading.affine import Affine
from flatfold.passes.reading.deferred import deferred_through, origin_of
from flatfold.passes.reading.layout import affine_form, in_layout, make_term
from flatfold.passes.reading.meaning import Applied, Transparent
from flatfold.passes.reading.node import (
    channel_count,
    constant,
    dims_of,
    ints,
    number,
    producer_of,
    rank,
    source,
    with_channels,
)
from flatfold.passes.reading.pooling import filled_window, read_average_pool
from flatfold.passes.reading.rearranging import rearrangement_to
from flatfold.passes.stencil.channels import NO_CHANNEL
from flatfold.passes.stencil.geometry import Ints
from flatfold.passes.stencil.stencil import Stencil, convolution, diagonal

MOST_AXES = 3  # a convolution has no more


def read_global_mean(node: ir.Node) -> Transparent:
    return Transparent(source(node), spatial=rank(source(node)) - 2, matrix=None)


def read_reduced_maximum(node: ir.Node) -> Transparent:
    """The largest pixel, over every axis but the batch and the channels."""
    pixels = _read_over_pixels(node)
    if pixels is None:
        raise Decline("NONLINEAR", "the maximum is not over the pixels")
    return replace(pixels, positive=True)


def _read_over_pixels(node: ir.Node) -> Transparent | None:
    """What reduces every axis but the batch and the channels; None if the node reduces others."""
    data, rank_ = source(node), rank(source(node))
    keep = bool(number(node, "keepdims", 1))
    if rank_ > 2 and _reduced_axes(node) == list(range(2, rank_)):
        return Transparent(data, spatial=rank_ - 2 if keep else 0, matrix=None)
    if rank_ > 2 and _reduced_axes(node) == list(range(1, rank_ - 1)):
        return Transparent(data, spatial=None, matrix=0)
    return None


def _reduced_axes(node: ir.Node) -> list[int]:
    listed = ints(node, "axes", ())
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        given = constant(node.inputs[1])
        if given is None:
            name = node.inputs[1].name
            raise Decline("NOT-CONSTANT", f"the axes {name} of {node.name} are not constant")
        listed = tuple(int(axis) for axis in given.reshape(-1))
    return sorted(axis % rank(source(node)) for axis in listed)


def read_mean(node: ir.Node) -> Applied | Transparent:
    """The mean over every axis but the batch and the channels; or over the channels alone."""
    data, rank_ = source(node), rank(source(node))
    axes, keep = _reduced_axes(node), bool(number(node, "keepdims", 1))
    pixels = _read_over_pixels(node)
    if pixels is not None and pixels.spatial is not None:
        return pixels
    # of [N, C, L] over C, or of [N, L, C] over L: either is true, and a layer of axis 1 tells
    producer = data.producer()
    along_1 = producer is not None and producer.op_type in ("Conv", "ConvTranspose")
    if axes == [1] and keep and (rank_ > 3 or along_1):
        count = channel_count(data)
        mean = np.full((1, count, *(1,) * (rank_ - 2)), 1.0 / count)
        return Applied(data, convolution(mean))
    if pixels is not None:
        return pixels
    raise Decline("NONLINEAR", "the mean is not over the pixels or the channels")


def read_global_maximum(node: ir.Node) -> Transparent:
    return replace(read_global_mean(node), positive=True)


def read_maximum(node: ir.Node) -> Transparent:
    """A maximum of windows, none of which lies in the padding alone."""
    filled_window(node)
    return replace(read_global_mean(node), positive=True)


def read_rearrangement(node: ir.Node) -> Transparent:
    """Operators up to this one that move numbers and keep channels apart."""
    found = rearrangement_to(node)
    moved = np.array([channels[0] for channels in found.channels], dtype=np.int64)
    spatial, matrix = (found.behind, None) if found.front else (None, found.behind)
    through = tuple(inner.outputs[0] for inner in reversed(found.nodes[:-1]))
    return Transparent(source(found.nodes[0]), spatial, matrix, moved=moved, through=through)


def read_view(node: ir.Node) -> Transparent:
    """[N, C, ..] to [N, C * ..], [N, C] to [N, C, 1, ..]; or only the other axes divided anew."""
    data, before, after = source(node), dims_of(source(node)), dims_of(node.outputs[0])
    if None in before[1:] or None in after[1:]:
        return _read_open_view(node)
    inner, outer = ([n or 0 for n in sizes[1:]] for sizes in (before, after))
    if node.op_type == "Flatten" and int(number(node, "axis", 1)) != 1:
        raise Decline("NONLINEAR", "the batch is flattened too")
    if before[0] is not None and after[0] != before[0]:
        raise Decline("NONLINEAR", "the batch changes")
    if len(outer) == 1 and outer[0] == math.prod(inner):
        return Transparent(data, 0, 0 if len(inner) == 1 else None, math.prod(inner[1:]))
    if len(inner) == 1 and outer[0] == inner[0] and math.prod(outer[1:]) == 1:
        return Transparent(data, None, len(outer) - 1)
    if min(len(inner), len(outer)) > 1 and math.prod(inner) == math.prod(outer):
        first = inner[0] == outer[0] and len(outer) - 1 <= MOST_AXES
        last = inner[-1] == outer[-1]
        if first or last:
            return Transparent(data, len(outer) - 1 if first else None, 0 if last else None)
    raise Decline("NONLINEAR", f"{node.op_type} mixes channels and pixels")


def _read_open_view(node: ir.Node) -> Transparent:
    """The same where sizes are open: with the batch and axis 1, or the last one, as they were.

    The numbers stay in one order, so whatever the other sizes are, they divide the same pixels.
    """
    data, before, after = source(node), dims_of(source(node)), dims_of(node.outputs[0])
    if len(node.inputs) < 2 or constant(node.inputs[1]) is None:
        raise Decline("NONLINEAR", "the sizes are not known")
    if min(len(before), len(after)) < 3 or not _same_size(data, node.outputs[0], 0):
        raise Decline("NONLINEAR", "the batch may change")
    first = before[1] is not None and before[1] == after[1] and len(after) - 2 <= MOST_AXES
    last = before[-1] is not None and before[-1] == after[-1]
    if not first and not last:
        raise Decline("NONLINEAR", f"{node.op_type} may mix channels and pixels")
    return Transparent(data, len(after) - 2 if first else None, 0 if last else None)


def _same_size(one: ir.Value, two: ir.Value, axis: int) -> bool:
    """Whether an axis is as long in both: the same number, or the same name."""
    sizes = [value.shape[axis] if value.shape is not None else None for value in (one, two)]
    names = [size if isinstance(size, int) or size is None else size.value for size in sizes]
    return names[0] is not None and names[0] == names[1]


def read_other_axes(node: ir.Node) -> Transparent:
    """Squeeze and Unsqueeze: where axis 1 and the last one are afterwards, never by their sizes."""
    data, after = source(node), rank(node.outputs[0])
    grows = node.op_type == "Unsqueeze"
    listed = _listed_axes(node)
    if not listed and not grows:
        listed = tuple(axis for axis, n in enumerate(dims_of(data)) if n == 1)
        if None in dims_of(data):
            raise Decline("NONLINEAR", "the sizes are not known")
    changed = {axis % max(after, rank(data)) for axis in listed}
    kept = [axis for axis in range(max(after, rank(data))) if axis not in changed]
    if 0 not in kept or len(kept) != min(after, rank(data)):
        raise Decline("NONLINEAR", "the batch is moved")
    places = kept if grows else [kept.index(i) if i in kept else -1 for i in range(rank(data))]
    spatial, matrix = (_axes_behind(place, after) for place in (places[1], places[-1]))
    return Transparent(data, spatial, matrix)


def _axes_behind(place: int, rank_: int) -> int | None:
    """Spatial axes of a map of this axis; None if it is neither axis 1 nor the last one."""
    if place == rank_ - 1:
        return 0
    return rank_ - 2 if place == 1 else None


def _listed_axes(node: ir.Node) -> Ints:
    """The axes, an attribute or (since opset 13) an input."""
    if len(node.inputs) < 2 or node.inputs[1] is None:
        return ints(node, "axes", ())
    given = constant(node.inputs[1])
    if given is None:
        raise Decline("NONLINEAR", f"the axes {node.inputs[1].name} are not constant")
    return tuple(int(axis) for axis in given.reshape(-1))


def read_transpose(node: ir.Node) -> Transparent:
    order, rank_ = ints(node, "perm", ()), rank(source(node))
    if len(order) != rank_ or order[0] != 0 or rank_ < 3:
        raise Decline("NONLINEAR", "the batch is moved")
    spatial = rank_ - 2 if order[1] == 1 else 0 if order[-1] == 1 else None
    matrix = 0 if order[-1] == rank_ - 1 else rank_ - 2 if order[1] == rank_ - 1 else None
    return Transparent(source(node), spatial, matrix)


TRANSPARENT: dict[str, Callable[[ir.Node], Applied | Transparent]] = {
    "Flatten": read_view,
    "GlobalAveragePool": read_global_mean,
    "GlobalMaxPool": read_global_maximum,
    "MaxPool": read_maximum,
    "ReduceMax": read_reduced_maximum,
    "ReduceMean": read_mean,
    "Squeeze": read_other_axes,
    "Transpose": read_transpose,
    "Unsqueeze": read_other_axes,
}


def push_through(node: ir.Node, linear: Transparent, form: Affine) -> Affine:
    """The form of the node's output, over what the node makes of the form's source."""
    if len(form.terms) != 1 or not form.geometry.is_pointwise or form.border_bias is not None:
        raise _why_it_stays(node, "only a map of the channels passes through")
    if (linear.matrix if form.geometry.axes == 0 else linear.spatial) is None:
        other = 0 if form.geometry.axes else rank(linear.source) - 2
        form = in_layout(form, linear.source, other)
    axes = linear.matrix if form.geometry.axes == 0 else linear.spatial
    term = form.terms[0]
    scaled = term.stencil.geometry.is_diagonal
    if axes is None or (linear.repeat > 1 and not scaled):
        raise Decline("NONLINEAR", "only a scale of the channels passes through")
    if linear.positive and not (scaled and np.all(term.stencil.weight > 0)):
        raise _why_it_stays(node, "a maximum commutes with a positive scale only")
    if linear.moved is not None:
        return _push_through_moves(node, linear, form, axes)
    if _counts(node) and term.stencil.input_channels != form.geometry.outputs:
        raise Decline("NONLINEAR", "the number of channels changes")
    moved = _on_axes(term.stencil, axes, linear.repeat)
    shape = with_channels(node.outputs[0].shape, moved.input_channels, axes)
    before = deferred_through(node, term.source, shape)
    plain = term.stencil.is_identity and term.stencil.channel_index is None and form.bias is None
    if plain and origin_of(before) is not None:
        raise _why_it_stays(node, "there is nothing to pass through")
    bias = None if form.bias is None else np.repeat(form.bias, linear.repeat)
    return affine_form((make_term(before, moved),), bias, node.outputs[0])


def _push_through_moves(node: ir.Node, linear: Transparent, form: Affine, axes: int) -> Affine:
    """As `push_through`, where each channel is one of those in front, in another place."""
    stencil, moved = form.terms[0].stencil, linear.moved
    assert moved is not None
    if not stencil.geometry.is_diagonal or stencil.channel_index is not None:
        raise Decline("NONLINEAR", "only a scale of the channels passes through")
    if stencil.is_identity and form.bias is None:
        raise _why_it_stays(node, "there is nothing to pass through")
    before = form.terms[0].source
    for value in (*reversed(linear.through), node.outputs[0]):
        before = deferred_through(producer_of(value), before, value.shape)
    scale = diagonal(stencil.weight.reshape(-1)[moved], None, axes)
    bias = None if form.bias is None else form.bias[moved]
    return affine_form((make_term(before, scale),), bias, node.outputs[0])


def _why_it_stays(node: ir.Node, otherwise: str) -> Decline:
    """Why `node` is no convolution, where it nearly is one."""
    if node.op_type == "Pad":
        mode = node.attributes["mode"].as_string()
        return Decline("PAD-MODE", f"padding by {mode} is not padding by zero")
    if node.op_type == "AveragePool":
        try:
            read_average_pool(node)
        except Decline as why:
            return why
    return Decline("NONLINEAR", otherwise)


def _counts(node: ir.Node) -> bool:
    """Whether what the node does depends on the number of channels."""
    squeezed = node.op_type == "Squeeze" and len(node.inputs) < 2 and not ints(node, "axes", ())
    sized = node.op_type == "Resize" and len(node.inputs) > 3 and node.inputs[3] is not None
    return node.op_type == "Reshape" or squeezed or sized


def _on_axes(f: Stencil, axes: int, repeat: int) -> Stencil:
    """The same map of channels with other axes behind them, each channel `repeat` times over."""
    weight = np.repeat(f.weight, repeat, axis=0) if repeat > 1 else f.weight
    weight = weight.reshape(*weight.shape[:2], *(1,) * axes)
    one, none = (1,) * axes, (0,) * axes
    shape = replace(
        f.geometry,
        outputs=f.geometry.outputs * repeat,
        inputs=f.geometry.inputs * repeat,
        groups=f.geometry.groups * repeat if repeat > 1 else f.geometry.groups,
        **{name: one for name in ("kernel", "strides", "dilations", "upsample")},
        **{name: none for name in ("begin", "end")},
    )
    channel_index = f.channel_index
    if channel_index is not None and repeat > 1:
        spread = (channel_index[:, None] * repeat + np.arange(repeat)).reshape(-1)
        channel_index = np.where(np.repeat(channel_index, repeat) == NO_CHANNEL, NO_CHANNEL, spread)
    return replace(
        f,
        geometry=shape,
        weight=weight,
        channel_index=channel_index,
        source_channels=f.source_channels * repeat,
    )
