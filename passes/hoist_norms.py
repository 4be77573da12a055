"""Move a per-channel map in front of a pool, a resize or a view, into the layer there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from flatfold.passes.cost.model import CostModel
from flatfold.passes.decline import Decline
from flatfold.passes.fold_batchnorm import FoldBatchNorm
from flatfold.passes.lowering.draft import Draft
from flatfold.passes.lowering.emit import lower
from flatfold.passes.lowering.plan import cost_of_nodes, form_cost
from flatfold.passes.lowering.replacement import Names, Replacement, clone_onto
from flatfold.passes.lowering.rounding import within_range
from flatfold.passes.reading import meaning, read_layer, read_reshape
from flatfold.passes.reading.copying import copied_axes, read_copying_pad, read_resize
from flatfold.passes.reading.layout import form_of_operator
from flatfold.passes.reading.meaning import Applied, Transparent
from flatfold.passes.reading.node import (
    channel_count,
    dims_of,
    ints,
    number,
    only_producer,
    rank,
    require_finite,
    source,
    weights,
    why_shared,
    window,
)
from flatfold.passes.reading.pooling import require_filled
from flatfold.passes.reading.rearranging import MOST_NODES, MOVERS, Rearranged, rearranged
from flatfold.passes.reading.transparent import TRANSPARENT
from flatfold.passes.rewrite import LocalRewrite, Proposal, Region
from flatfold.passes.stencil.stencil import Stencil, compose, diagonal

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
NORMS = ("GroupNormalization", "InstanceNormalization")
VIEWS = {**TRANSPARENT, "Reshape": read_reshape}
MAPS = ("Add", "BatchNormalization", "Div", "Mul", "Sub")
COPYING = ("Gather", "Slice", "Tile")  # pixels, or rows
MOST_STEPS = 8  # between the map and the layer


class HoistNorms(LocalRewrite):
    """s * T(W x + b) + t = T((s W) x + (s b + t)) for an operator T that commutes with the map.

    *Given* a BatchNormalization, or a constant Mul, Add, Sub or Div per channel, behind MaxPool
    (s above 0), an average whose weights add up to 1, Resize, a Pad, Slice, Gather or Tile that
    copies pixels, Squeeze, Flatten, Reshape or Transpose, behind a layer (Conv, ConvTranspose, Gemm
    or MatMul), or behind an InstanceNormalization or GroupNormalization, which has a scale and a
    bias of its own. *Result* the layer with other weights, and T; no T where it is views of y that
    a Reshape to Shape(y) undoes behind the map.

    *Declines when* a value between is read elsewhere; the map differs between what is one channel
    in front of T; a window may lie in the padding alone; s is 0 or below behind a maximum.
    """

    name = "hoist-norms"

    def match(self, node: ir.Node, names: Names, cost: CostModel) -> Proposal:
        """The layer in front of the map `node`, or of the map that `node` views, with it."""
        viewed = _undone_views(node)
        if viewed is not None:
            return _into_viewed(viewed, names, cost)
        norm = _read_map(node)
        between, layer = _path(norm.source)
        moved = norm.stencil
        moved = _in_front_of_all(moved, between)
        if layer.op_type in NORMS:
            return _into_norm(node, between, layer, moved, names, cost)
        own = _layer(layer)
        if own.stencil.geometry.axes != moved.geometry.axes:
            raise Decline("LAYOUT", "the map works along another axis than the layer")
        with within_range():
            whole = compose(moved, own.stencil, None)
            form = form_of_operator(Applied(own.source, whole), layer.outputs[0])
            replacement = lower(form, layer.outputs[0], names, cost)
        replacement = _written(replacement, between, node, names)
        inside = (node, *between, layer)
        region = Region(node, form, inside, {}, ())
        output = layer.outputs[0]
        behind = form_of_operator(Applied(output, moved), output)  # the map, where it moves to
        before = cost_of_nodes({layer: own}, cost) + form_cost(behind, cost)
        return Proposal(region, replacement, before, form_cost(form, cost))


def _undone_views(node: ir.Node) -> tuple[ir.Node, ...] | None:
    """(node, map, views, Shape, layer) of Reshape(map(views(y)), Shape(y)), y made by a layer.

    Nothing else reads what is between, and the views keep the last axis.
    """
    views_back = node.op_type == "Reshape" and len(node.inputs) > 1
    shape = only_producer(node.inputs[1], "Shape") if views_back else None
    norm = only_producer(node.inputs[0], *MAPS) if shape is not None else None
    if shape is None or norm is None or shape.attributes:
        return None
    whole, views, value = shape.inputs[0], list[ir.Node](), _read_map(norm).source
    while value is not whole:
        view = only_producer(value, "Flatten", "Reshape")
        if view is None or not _keeps_last(view):
            return None
        views.append(view)
        value = source(view)
    layer = value.producer()
    readers = {use.node for use in value.uses() if use.node.graph is not None}
    if layer is None or layer.op_type not in LAYERS or not views or value.is_graph_output():
        return None
    return (node, norm, *views, shape, layer) if readers == {views[-1], shape} else None


def _into_viewed(inside: tuple[ir.Node, ...], names: Names, cost: CostModel) -> Proposal:
    """The layer with the map in it, which has the shape that the views would give back."""
    layer, output = inside[-1], inside[-1].outputs[0]
    moved, own = _read_map(inside[1]).stencil, _layer(layer)
    if own.stencil.geometry.axes or moved.geometry.axes:
        raise Decline("LAYOUT", "the map works along another axis than the layer")
    with within_range():
        form = form_of_operator(Applied(own.source, compose(moved, own.stencil, None)), output)
        replacement = lower(form, output, names, cost)
    behind = form_of_operator(Applied(output, moved), output)
    before = cost_of_nodes({layer: own}, cost) + form_cost(behind, cost)
    return Proposal(
        Region(inside[0], form, inside, {}, ()), replacement, before, form_cost(form, cost)
    )


def _into_norm(
    node: ir.Node,
    between: Sequence[ir.Node],
    norm: ir.Node,
    moved: Stencil,
    names: Names,
    cost: CostModel,
) -> Proposal:
    """s (g n(x) + b) + t = (s g) n(x) + (s b + t), n the norm without its scale g and bias b."""
    data, output = source(norm), norm.outputs[0]
    if moved.geometry.axes != rank(data) - 2 or len(norm.outputs) > 1:
        raise Decline("LAYOUT", "the map works along another axis than the norm")
    own = [weights(norm, index, what) for index, what in ((1, "scale"), (2, "bias"))]
    g, b = (array.reshape(-1).astype(np.float64) for array in own)
    s, t = moved.weight.reshape(-1), moved.bias
    if len(s) != len(g):  # one number for each group, before opset 21
        s = _first_of_each(s, len(s) // len(g))
        t = None if t is None else _first_of_each(t, len(t) // len(g))
    require_finite(s, "the scale")
    draft = Draft(output, names)
    parts = [draft.constant(s * g, "scale")]
    parts.append(draft.constant(s * b if t is None else s * b + t, "bias"))
    attributes = {name: attribute.value for name, attribute in norm.attributes.items()}
    new = draft.replacement(
        draft.op(norm.op_type, data, *parts, shape=output.shape, attributes=attributes)
    )
    one = np.ones(moved.geometry.outputs)
    form = form_of_operator(Applied(data, diagonal(one, None, moved.geometry.axes)), output)
    region = Region(node, form, (node, *between, norm), {}, ())
    behind = form_of_operator(Applied(output, moved), output)
    whole = cost.operator(norm.op_type, data)
    replacement = _written(new, list(between), node, names)
    return Proposal(region, replacement, whole + form_cost(behind, cost), whole)


def _read_map(node: ir.Node) -> Applied:
    """A scale and a shift per channel of a value of the graph, a Conv of one tap among them."""
    if node.op_type == "Conv":
        layer = _layer(node)
        if not layer.stencil.geometry.is_diagonal:
            raise Decline("NONLINEAR", "it is not a map of the channels alone")
        return layer
    readers = {kind: (reader,) for kind, reader in FoldBatchNorm().readers().items()}
    if node.op_type == "LayerNormalization":
        raise Decline("NONLINEAR", "it is not a map of the channels alone")
    linear = meaning(node, readers)
    if not isinstance(linear, Applied) or not linear.stencil.geometry.is_diagonal:
        raise Decline("NONLINEAR", "it is not a map of the channels alone")
    return linear


def _path(value: ir.Value) -> tuple[list[ir.Node], ir.Node]:
    """The operators from `value` back to a layer, and the layer; nothing else reads between."""
    between: list[ir.Node] = []
    while len(between) <= MOST_STEPS:
        node = value.producer()
        if node is None or node.domain != "" or why_shared(value) is not None:
            break
        if node.op_type in NORMS or (node.op_type in LAYERS and between):
            return between, node
        if node.op_type in LAYERS:
            break  # fold-batchnorm's own
        between.append(node)
        value = source(node)
    raise Decline("NONLINEAR", "no layer is behind what it could move past")


def _layer(node: ir.Node) -> Applied:
    """The layer, with the value that it reads."""
    stencil = read_layer(node)
    return Applied(source(node), stencil)


def _in_front_of_all(moved: Stencil, between: Sequence[ir.Node]) -> Stencil:
    """The map in front of the last of the operators that gives what `moved` gives behind the first.

    Several of them that only move numbers count as one where each alone mixes channels and pixels.
    """
    while between:
        try:
            moved, taken = _in_front(moved, between[0]), 1
        except Decline as why:
            moved, taken = _in_front_of_moves(moved, between, why)
        between = between[taken:]
    return moved


def _in_front_of_moves(
    moved: Stencil, between: Sequence[ir.Node], otherwise: Decline
) -> tuple[Stencil, int]:
    """The map in front of the fewest operators past which it can move, and how many these are."""
    for count in range(1, min(len(between), MOST_NODES) + 1):
        nodes = tuple(reversed(between[:count]))
        if nodes[0].op_type not in MOVERS:
            break
        axes = rank(source(nodes[0])) - 2
        for front in dict.fromkeys((axes, 0)):
            with suppress(Decline):
                return _gathered(moved, rearranged(nodes, front, moved.geometry.axes)), count
    raise otherwise.bare()


def _gathered(moved: Stencil, linear: Rearranged) -> Stencil:
    """The map in front, where every channel behind that holds numbers of one has the same map."""
    scale, bias = moved.weight.reshape(-1), moved.bias
    count = 1 + max(int(channels.max()) for channels in linear.channels)
    owner = np.full(count, -1)
    for index, channels in enumerate(linear.channels):
        for one in channels:
            first = owner[one] if owner[one] >= 0 else index
            if scale[first] != scale[index] or (bias is not None and bias[first] != bias[index]):
                raise Decline("NOT-PER-CHANNEL", "the map differs between parts of one channel")
            owner[one] = first
    channels_in_front = channel_count(source(linear.nodes[0]), linear.front)
    if count != channels_in_front or np.any(owner < 0):
        raise Decline("NONLINEAR", "some channels are not read")
    return diagonal(scale[owner], None if bias is None else bias[owner], linear.front)


def _in_front(moved: Stencil, node: ir.Node) -> Stencil:
    """The map in front of `node` that gives what `moved` gives behind it. Raises Decline."""
    if node.op_type == "AveragePool":
        _require_average(node)
        return _along_channels(moved, node)
    if node.op_type == "Resize":
        return _through(moved, read_resize(node))
    if node.op_type == "Pad":
        return _through(moved, read_copying_pad(node))
    if node.op_type in COPYING:
        return _past_copies(moved, node)
    if node.op_type in ("Flatten", "Reshape") and _keeps_last(node) and not moved.geometry.axes:
        return moved
    if node.op_type in VIEWS:
        linear = VIEWS[node.op_type](node)
        if isinstance(linear, Transparent) and linear.moved is None:
            return _through(moved, linear)
    raise Decline("NONLINEAR", f"{node.op_type} does not commute with a map of the channels")


def _past_copies(moved: Stencil, node: ir.Node) -> Stencil:
    """The same map, where `node` leaves the axis of the channels alone."""
    axes = copied_axes(node)
    rank_ = rank(source(node))
    channels = 1 if moved.geometry.axes else rank_ - 1
    if moved.geometry.axes not in (0, rank_ - 2) or channels in axes:
        raise Decline("LAYOUT", f"{node.op_type} is along the axis of the map")
    return moved


def _keeps_last(node: ir.Node) -> bool:
    """Whether a Reshape has rows as long as before: the last axis stays, whatever the others."""
    before, after = (dims_of(value)[-1] for value in (source(node), node.outputs[0]))
    return before is not None and before == after


def _require_average(node: ir.Node) -> None:
    """Decline unless the weights of every window add up to 1."""
    *_, begin, end = window(node, ints(node, "kernel_shape", ()))
    if any((*begin, *end)) and number(node, "count_include_pad", 0) != 0:
        raise Decline("BORDER", "the pool counts the zeros around the map")
    if number(node, "ceil_mode", 0) != 0 and number(node, "count_include_pad", 0) != 0:
        raise Decline("CEIL-MODE", "the last window may hang over the edge of the map")
    require_filled(node)


def _along_channels(moved: Stencil, node: ir.Node) -> Stencil:
    if moved.geometry.axes != rank(source(node)) - 2:
        raise Decline("LAYOUT", f"{node.op_type} is along the axis of the map")
    return moved


def _through(moved: Stencil, linear: Transparent) -> Stencil:
    """The map of what a view reads. Each channel may be several features behind it."""
    if linear.positive and not np.all(moved.weight > 0):
        raise Decline("NONLINEAR", "a maximum commutes with a positive scale only")
    rank_ = rank(linear.source)
    scale, bias = moved.weight.reshape(-1), moved.bias
    if moved.geometry.axes == linear.spatial:
        axes = rank_ - 2
    elif moved.geometry.axes == linear.matrix:
        axes = 0
    else:
        raise Decline("LAYOUT", "the channels are not along one axis in front of it")
    if linear.repeat > 1:
        scale = _first_of_each(scale, linear.repeat)
        bias = None if bias is None else _first_of_each(bias, linear.repeat)
    return replace(diagonal(scale, bias, axes), owns_weight=False)


def _first_of_each(numbers: np.ndarray, repeat: int) -> np.ndarray:
    rows = numbers.reshape(-1, repeat)
    if not np.all(rows == rows[:, :1]):
        raise Decline("NOT-PER-CHANNEL", "the map differs between pixels of one channel")
    first: np.ndarray = rows[:, 0]
    return first


def _written(new: Replacement, between: list[ir.Node], node: ir.Node, names: Names) -> Replacement:
    """The layer with the map in it, and the operators between behind it."""
    for inner in reversed(between):
        shape = inner.outputs[0].shape
        new.nodes.append(clone_onto(inner, new.output, shape, names))
        new.output = new.nodes[-1].outputs[0]
    new.output.shape = node.outputs[0].shape
    return new
