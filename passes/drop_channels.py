"""Remove channels whose value is a constant from the layers that make and read them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.passes.cost.model import Cost, CostModel
from flatfold.passes.decline import Decline
from flatfold.passes.lowering.emit import Emitter
from flatfold.passes.lowering.plan import Part, plan_term
from flatfold.passes.lowering.replacement import Names, Replacement, clone_onto
from flatfold.passes.lowering.rounding import within_range
from flatfold.passes.reading import read_layer
from flatfold.passes.reading.affine import Affine, Term
from flatfold.passes.reading.layout import make_term, sizes_read
from flatfold.passes.reading.node import (
    clip_limits,
    number,
    pixel_count,
    rank,
    source,
    text,
    why_shared,
    with_channels,
)
from flatfold.passes.reading.pooling import filled_window
from flatfold.passes.rewrite import LocalRewrite, Proposal, Region
from flatfold.passes.stencil.channels import ChannelIndex
from flatfold.passes.stencil.geometry import composed_geometry
from flatfold.passes.stencil.kernels import Array, placeholder
from flatfold.passes.stencil.stencil import Stencil, add_biases, nonzero_bias, select_outputs

LAYERS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Stage:
    """A node on the way from one dense layer to the next, and its stencil if it has weights."""

    node: ir.Node
    stencil: Stencil | None


class DropChannels(LocalRewrite):
    """W2 f(W1 x + b1) + b2 without the channels i of the middle that have W1[i] = 0.

    f works on each channel for itself: activations, pools, depthwise convolutions. Where channel i
    is f(b1[i]) = c on the whole map, it adds sum over k of W2[:, i, k] * c to the bias b2.

    *Given* filters of zeros (pruned, or with a norm of gamma 0) in a layer, or in a depthwise one
    behind it. *Result* both layers without these channels.

    *Declines when* the constant meets the padding of a layer, which hides it at the border, and
    when a value between is read elsewhere.
    """

    name = "drop-channels"

    def match(self, node: ir.Node, names: Names, cost: CostModel) -> Proposal:
        """Two dense layers, `node` the second, with fewer channels between them."""
        last = _dense(node)
        stages = _chain(source(node))
        _require_one_axis(last.geometry.axes, stages)
        with within_range():
            values = _constants(stages)
        known = np.isfinite(values)
        if not known.any():
            raise Decline("NONLINEAR", "no channel is a constant")
        count = int(known.sum())
        if _is_padded(last):
            known &= values == 0
        keep = np.flatnonzero(~known).astype(np.int64)
        if len(keep) == len(known):
            raise Decline(
                "BORDER-BIAS",
                f"{count} channels are constants, but zero padding by {last.geometry.begin} and"
                f" {last.geometry.end} is not",
            )
        keep = keep if len(keep) else np.zeros(1, np.int64)
        if len(keep) == len(known):
            raise Decline("TRIVIAL", "one channel has to stay")
        writer = _Writer(keep, names, cost, Replacement(node.outputs[0]), last.geometry.axes)
        replacement = writer.run(node, last, stages, np.where(known, values, 0.0))
        nodes = (node, *(stage.node for stage in stages))
        form = Affine((_footprint(last, stages),), None, 0)
        region = Region(node, form, nodes, {}, ())
        before, after = _costs(node, last, stages, len(keep), cost)
        return Proposal(region, replacement, before, after)


def _dense(node: ir.Node) -> Stencil:
    """The stencil of a layer with one group."""
    layer = read_layer(node) if node.op_type in LAYERS and node.domain == "" else None
    if layer is None or layer.geometry.groups > 1:
        raise Decline("NONLINEAR", "it is not a layer that reads every channel")
    return layer


def _chain(value: ir.Value) -> list[Stage]:
    """The nodes from `value` up to a dense layer, whose outputs nobody else reads."""
    stages: list[Stage] = []
    while True:
        node = value.producer()
        if node is None or why_shared(value) is not None:
            raise Decline("NONLINEAR", "a value between is read elsewhere")
        if node.op_type in LAYERS and node.domain == "":
            layer = read_layer(node)
            stages.append(Stage(node, layer))
            if layer.geometry.groups == 1:
                return stages
            if not layer.geometry.is_depthwise:
                raise Decline("NONLINEAR", "groups keep their channels")
        else:
            stages.append(Stage(node, None))
            constant_through(node, np.zeros(1))  # raises Decline if it mixes channels
        value = source(node)


def _require_one_axis(axes: int, stages: list[Stage]) -> None:
    """Decline unless all work along the axis that the last layer mixes."""
    for stage in stages:
        pooled = "Pool" in stage.node.op_type and axes == 0
        if pooled or (stage.stencil is not None and stage.stencil.geometry.axes != axes):
            raise Decline("NONLINEAR", "the layers mix different axes")


def _constants(stages: list[Stage]) -> Array:
    """What each channel is in front of the last layer, on the whole map; NaN if it varies."""
    values: Array | None = None
    for stage in reversed(stages):
        if stage.stencil is None:
            assert values is not None
            values = constant_through(stage.node, values)
            continue
        f = stage.stencil
        bias = np.zeros(f.geometry.outputs) if f.bias is None else f.bias
        dead = ~np.any(f.weight.reshape(f.geometry.outputs, -1), axis=1)
        image = np.full(f.geometry.outputs, np.nan)
        if values is not None:
            sums = f.weight.reshape(f.geometry.outputs, -1).sum(axis=1, dtype=np.float64)
            image = sums * values + bias
            image[(values != 0) & _is_padded(f)] = np.nan
        values = np.where(dead, bias, image)
    assert values is not None
    return values


def _is_padded(f: Stencil) -> bool:
    return max((*f.geometry.begin, *f.geometry.end), default=0) > 0 or f.geometry.is_transposed


@dataclass
class _Writer:
    """Writes the layers again, on the channels `keep` only."""

    keep: ChannelIndex
    names: Names
    cost: CostModel
    done: Replacement
    axes: int

    def run(self, node: ir.Node, last: Stencil, stages: list[Stage], values: Array) -> Replacement:
        """Every node from the first layer to the last; `values` are those of what goes."""
        try:
            value = source(stages[-1].node)
            with within_range():
                for stage in reversed(stages):
                    value = self._stage(stage, value, stage is stages[-1])
                self.done.output = self._layer(node, self._last(last, values), value)
        except Decline:
            self.done.discard()
            raise
        return self.done

    def _stage(self, stage: Stage, value: ir.Value, is_first: bool) -> ir.Value:
        if stage.stencil is None:
            shape = with_channels(stage.node.outputs[0].shape, len(self.keep), self.axes)
            node = clone_onto(stage.node, value, shape, self.names)
            self.done.nodes.append(node)
            return node.outputs[0]
        f = select_outputs(stage.stencil, self.keep)
        return self._layer(
            stage.node, f if is_first else replace(f, channel_index=None, source_channels=0), value
        )

    def _last(self, last: Stencil, values: Array) -> Stencil:
        gone = np.setdiff1d(np.arange(last.geometry.inputs), self.keep)
        taps = tuple(range(2, last.weight.ndim))
        sums = last.weight[:, gone].sum(axis=taps, dtype=np.float64)
        shape = replace(last.geometry, inputs=len(self.keep))
        bias = add_biases(last.bias, nonzero_bias(sums @ values[gone]))
        return Stencil(shape, last.weight[:, self.keep], bias)

    def _layer(self, node: ir.Node, f: Stencil, value: ir.Value) -> ir.Value:
        axes = f.geometry.axes
        pixels = pixel_count(sizes_read(node.outputs[0], axes))
        term = Term(value, replace(f, bias=None), sizes_read(source(node), axes))
        plan = plan_term(Part.of(term.stencil, term.sizes), f.bias is not None, pixels, self.cost)
        emitter = Emitter(node.outputs[0], self.names)
        try:
            return emitter.term(term, f.bias, plan)
        finally:
            self.done.nodes += emitter.replacement.nodes
            self.done.initializers += emitter.replacement.initializers


def _footprint(last: Stencil, stages: list[Stage]) -> Term:
    """A stencil that reads as far as the layers together do."""
    first = stages[-1]
    assert first.stencil is not None
    shape = first.stencil.geometry
    for stage in reversed(stages[:-1]):
        if stage.stencil is not None:
            shape = composed_geometry(stage.stencil.geometry, shape)
    shape = composed_geometry(last.geometry, shape)
    weight = placeholder((shape.outputs, shape.inputs // shape.groups, *shape.kernel))
    return make_term(source(first.node), Stencil(shape, weight))


def _costs(
    node: ir.Node, last: Stencil, stages: list[Stage], count: int, cost: CostModel
) -> tuple[Cost, Cost]:
    before, after = Cost(), Cost()
    for stage in (Stage(node, last), *stages):
        if stage.stencil is None:
            continue
        shape = stage.stencil.geometry
        pixels = pixel_count(sizes_read(stage.node.outputs[0], shape.axes))
        inputs = shape.inputs if stage is stages[-1] else count
        outputs = shape.outputs if stage.node is node else count
        groups = count if shape.is_depthwise and shape.groups > 1 else 1
        fewer = replace(shape, inputs=inputs, outputs=outputs, groups=groups)
        before += cost.stencil(shape, False, False, pixels)
        after += cost.stencil(fewer, False, False, pixels)
    return before, after


SIXTH = float(np.float32(1 / 6))  # of HardSwish, which the standard writes as a HardSigmoid
GELU = (2**0.5, (2 / math.pi) ** 0.5, 0.044715)
ERF: Any = np.frompyfunc(math.erf, 1, 1)


def constant_through(node: ir.Node, values: Array) -> Array:
    """One number per channel through the node, NaN staying NaN. Raises Decline if it mixes them."""
    rule = CHANNELWISE.get(node.op_type) if node.domain == "" else None
    if rule is None or len(node.outputs) > 1 or rank(source(node)) < 2:
        raise Decline("NONLINEAR", f"{node.op_type} may mix channels")
    with np.errstate(all="ignore"):
        constants: Array = rule(node, values)
    return constants


def _leaky_relu(node: ir.Node, values: Array) -> Array:
    return np.where(values < 0, number(node, "alpha", 0.01) * values, values)


def _clip(node: ir.Node, values: Array) -> Array:
    limits = clip_limits(node)
    if limits is None or any(value is not None and value.producer() for value in node.inputs[1:]):
        raise Decline("NONLINEAR", "the limits are not constant")
    return np.minimum(np.maximum(values, limits[0]), limits[1])


def _hard_sigmoid(node: ir.Node, values: Array) -> Array:
    alpha, beta = number(node, "alpha", 0.2), number(node, "beta", 0.5)
    return np.clip(alpha * values + beta, 0.0, 1.0)


def _gelu(node: ir.Node, values: Array) -> Array:
    double = node.outputs[0].dtype == ir.DataType.DOUBLE
    root, slope, cubic = GELU if double else (float(np.float32(n)) for n in GELU)
    if text(node, "approximate", "none") == "tanh":
        curve = np.tanh((values + values**3 * cubic) * slope)
    else:
        curve = ERF(values / root).astype(np.float64)
    constants: Array = values * (1 + curve) * 0.5
    return constants


def _softplus(values: Array) -> Array:
    constants: Array = np.log(1 + np.exp(values))
    return constants


def _swish(node: ir.Node, values: Array) -> Array:
    return values * (1 / (1 + np.exp(-number(node, "alpha", 1.0) * values)))


def _average(node: ir.Node, values: Array) -> Array:
    """A mean over padding is that of the constant and some zeros."""
    attribute = node.attributes.get("pads")
    padded = attribute is not None and any(attribute.as_ints())
    if padded or "auto_pad" in node.attributes or number(node, "ceil_mode", 0) != 0:
        return np.where(values == 0, values, np.nan)
    return values


def _largest(node: ir.Node, values: Array) -> Array:
    """The largest of equal numbers, if every window holds one."""
    try:
        filled_window(node)
    except Decline as why:
        raise Decline("NONLINEAR", why.reason) from None
    return values


CHANNELWISE: dict[str, Callable[[ir.Node, Array], Array]] = {
    "AveragePool": _average,
    "Clip": _clip,
    "Gelu": _gelu,
    "GlobalAveragePool": lambda _, values: values,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda _, values: values * np.clip(SIXTH * values + 0.5, 0.0, 1.0),
    "Identity": lambda _, values: values,
    "LeakyRelu": _leaky_relu,
    "MaxPool": _largest,
    "Mish": lambda _, values: values * np.tanh(_softplus(values)),
    "Relu": lambda _, values: np.maximum(values, 0.0),
    "Sigmoid": lambda _, values: 1 / (1 + np.exp(-values)),
    "Softplus": lambda _, values: _softplus(values),
    "Swish": _swish,
    "Tanh": lambda _, values: np.tanh(values),
}
