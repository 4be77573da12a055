"""A form moved past an operator that it passes through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from flatfold.passes import layout, virtual
from flatfold.passes.affine import Affine
from flatfold.passes.geometry import Decline
from flatfold.passes.picks import NOTHING
from flatfold.passes.reading import Carried, ints, rank, with_channels
from flatfold.passes.stencil import Stencil


def carry(node: ir.Node, linear: Carried, form: Affine) -> Affine:
    """The form of the node's output, over what the node makes of the form's source."""
    if len(form.terms) != 1 or not form.geometry.is_pointwise or form.plane is not None:
        raise Decline("NONLINEAR", "only a map of the channels passes through")
    if (linear.matrix if form.geometry.axes == 0 else linear.spatial) is None:
        other = 0 if form.geometry.axes else rank(linear.source) - 2
        form = layout.recast(form, linear.source, other)
    axes = linear.matrix if form.geometry.axes == 0 else linear.spatial
    term = form.terms[0]
    if axes is None or (linear.repeat > 1 and not term.stencil.geometry.is_diagonal):
        raise Decline("NONLINEAR", "only a scale of the channels passes through")
    if _counts(node) and term.stencil.reads != form.geometry.outputs:
        raise Decline("NONLINEAR", "the number of channels changes")
    moved = _moved(term.stencil, axes, linear.repeat)
    shape = with_channels(node.outputs[0], moved.reads, axes)
    before = virtual.through(node, term.source, shape)
    plain = term.stencil.is_identity and term.stencil.pick is None and form.bias is None
    if plain and virtual.origin(before) is not None:
        raise Decline("NONLINEAR", "there is nothing to pass through")
    bias = None if form.bias is None else np.repeat(form.bias, linear.repeat)
    return layout.form_of((layout.term_of(before, moved),), bias, node.outputs[0])


def _counts(node: ir.Node) -> bool:
    """Whether what the node does depends on the number of channels."""
    squeezed = node.op_type == "Squeeze" and len(node.inputs) < 2 and not ints(node, "axes", ())
    return node.op_type == "Reshape" or squeezed


def _moved(f: Stencil, axes: int, repeat: int) -> Stencil:
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
    pick = f.pick
    if pick is not None and repeat > 1:
        spread = (pick[:, None] * repeat + np.arange(repeat)).reshape(-1)
        pick = np.where(np.repeat(pick, repeat) == NOTHING, NOTHING, spread)
    return replace(f, geometry=shape, weight=weight, pick=pick, width=f.width * repeat)
