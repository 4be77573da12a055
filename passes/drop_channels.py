"""Remove channels whose value is a constant from the layers that make and read them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from flatfold.passes import cost, layout
from flatfold.passes.affine import Affine, Term
from flatfold.passes.constants import carried
from flatfold.passes.cost import Cost, Profile
from flatfold.passes.draft import Lowered, Names, again
from flatfold.passes.geometry import Decline, compose
from flatfold.passes.kernels import Array, zeros_of
from flatfold.passes.operators import meaning
from flatfold.passes.picks import Index
from flatfold.passes.reading import Applied, source, with_channels
from flatfold.passes.region import Region
from flatfold.passes.rewrite import Exchange, Proposal
from flatfold.passes.rounding import within_range
from flatfold.passes.sharing import shared
from flatfold.passes.stencil import Stencil, plus, present, rows
from flatfold.passes.writer import Writer

LAYERS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Stage:
    """A node on the way from one dense layer to the next, and its stencil if it has weights."""

    node: ir.Node
    stencil: Stencil | None


class DropChannels(Exchange):
    """W2 f(W1 x + b1) + b2 without the channels i of the middle that have W1[i] = 0.

    f works on each channel for itself: activations, pools, depthwise convolutions. Where channel i
    is f(b1[i]) = c on the whole map, it adds sum over k of W2[:, i, k] * c to the bias b2.

    *Given* filters of zeros (pruned, or with a norm of gamma 0) in a layer, or in a depthwise one
    behind it. *Result* both layers without these channels.

    *Declines when* the constant meets the padding of a layer, which hides it at the border, and
    when a value between is read elsewhere.
    """

    name = "drop-channels"

    def propose(self, node: ir.Node, names: Names, profile: Profile) -> Proposal:
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
        writing = _Rewriting(keep, names, profile, Lowered(node.outputs[0]), last.geometry.axes)
        lowered = writing.run(node, last, stages, np.where(known, values, 0.0))
        nodes = (node, *(stage.node for stage in stages))
        form = Affine((_footprint(last, stages),), None, 0)
        region = Region(node, form, nodes, {}, self.name, ())
        before, after = _costs(node, last, stages, len(keep), profile)
        return Proposal(region, lowered, before, after)


def _dense(node: ir.Node) -> Stencil:
    """The stencil of a layer with one group."""
    found = meaning(node) if node.op_type in LAYERS and node.domain == "" else None
    if not isinstance(found, Applied) or found.stencil.geometry.groups > 1:
        raise Decline("NONLINEAR", "it is not a layer that reads every channel")
    return found.stencil


def _chain(value: ir.Value) -> list[Stage]:
    """The nodes from `value` up to a dense layer, whose outputs nobody else reads."""
    stages: list[Stage] = []
    while True:
        node = value.producer()
        if node is None or shared(value) is not None:
            raise Decline("NONLINEAR", "a value between is read elsewhere")
        if node.op_type in LAYERS and node.domain == "":
            found = meaning(node)
            if not isinstance(found, Applied):
                raise Decline("NONLINEAR", "it is no layer")
            shape = found.stencil.geometry
            stages.append(Stage(node, found.stencil))
            if shape.groups == 1:
                return stages
            if not shape.is_depthwise:
                raise Decline("NONLINEAR", "groups keep their channels")
        else:
            stages.append(Stage(node, None))
            carried(node, np.zeros(1))  # raises Decline if it does more than one channel at a time
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
            values = carried(stage.node, values)
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
class _Rewriting:
    """Writes the layers again, on the channels `keep` only."""

    keep: Index
    names: Names
    profile: Profile
    done: Lowered
    axes: int

    def run(self, node: ir.Node, last: Stencil, stages: list[Stage], values: Array) -> Lowered:
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
            shape = with_channels(stage.node.outputs[0], len(self.keep), self.axes)
            node = again(stage.node, value, shape, self.names)
            self.done.nodes.append(node)
            return node.outputs[0]
        f = rows(stage.stencil, self.keep)
        return self._layer(stage.node, f if is_first else replace(f, pick=None, width=0), value)

    def _last(self, last: Stencil, values: Array) -> Stencil:
        gone = np.setdiff1d(np.arange(last.geometry.inputs), self.keep)
        taps = tuple(range(2, last.weight.ndim))
        sums = last.weight[:, gone].sum(axis=taps, dtype=np.float64)
        shape = replace(last.geometry, inputs=len(self.keep))
        bias = plus(last.bias, present(sums @ values[gone]))
        return Stencil(shape, last.weight[:, self.keep], bias)

    def _layer(self, node: ir.Node, f: Stencil, value: ir.Value) -> ir.Value:
        axes = f.geometry.axes
        pixels = cost.positions(layout.sizes_of(node.outputs[0], axes))
        writer = Writer(node.outputs[0], self.names, self.profile, pixels)
        term = Term(value, replace(f, bias=None), layout.sizes_of(source(node), axes))
        try:
            return writer.term(term, f.bias)
        finally:
            self.done.nodes += writer.done.nodes
            self.done.initializers += writer.done.initializers


def _footprint(last: Stencil, stages: list[Stage]) -> Term:
    """A stencil that reads as far as the layers together do."""
    first = stages[-1]
    assert first.stencil is not None
    shape = first.stencil.geometry
    for stage in reversed(stages[:-1]):
        if stage.stencil is not None:
            shape = compose(stage.stencil.geometry, shape)
    shape = compose(last.geometry, shape)
    weight = zeros_of((shape.outputs, shape.inputs // shape.groups, *shape.kernel))
    return layout.term_of(source(first.node), Stencil(shape, weight))


def _costs(
    node: ir.Node, last: Stencil, stages: list[Stage], count: int, profile: Profile
) -> tuple[Cost, Cost]:
    before, after = Cost(), Cost()
    for stage in (Stage(node, last), *stages):
        if stage.stencil is None:
            continue
        shape = stage.stencil.geometry
        pixels = cost.positions(layout.sizes_of(stage.node.outputs[0], shape.axes))
        inputs = shape.inputs if stage is stages[-1] else count
        outputs = shape.outputs if stage.node is node else count
        groups = count if shape.is_depthwise and shape.groups > 1 else 1
        fewer = replace(shape, inputs=inputs, outputs=outputs, groups=groups)
        before += cost.of_stencil(shape, False, False, pixels, profile)
        after += cost.of_stencil(fewer, False, False, pixels, profile)
    return before, after
