"""Which channels of a graph have to share a scale, and which keep theirs.

A channel of a value may be scaled by s > 0 if every node that reads it can make up for that: a
layer by its columns, and a positively homogeneous operator, f(s x) = s f(x), by handing s on. Each
channel that a layer writes begins a scale of its own, by number; other channels have those of what
they are computed from, Adds tie numbers to each other, and what is not understood fixes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.reading.layers import LAYERS
from flatfold.passes.reading.layout import is_uniform
from flatfold.passes.reading.meaning import Applied, Joined, Linear, Summed, Transparent
from flatfold.passes.reading.node import (
    FLOATS,
    channel_axis,
    channel_count,
    clip_limits,
    constant,
    rank,
    source,
)
from flatfold.passes.stencil.channels import NO_CHANNEL
from flatfold.passes.stencil.stencil import Stencil

FIXED = 0  # the number of the scale that is 1

OFFSET = ("Add", "BatchNormalization", "Sub", "Sum")  # by constants that are scaled, too
SIZES = ("Shape", "Size")  # which do not depend on the numbers

Labels = npt.NDArray[np.int64]
Read = Callable[[ir.Node], Linear]


@dataclass(frozen=True, eq=False)
class Channels:
    """The numbers of the scales of a value's channels, which a stencil with `axes` would mix."""

    axes: int
    scales: Labels


@dataclass(frozen=True, eq=False)
class Scaled:
    """A node that can make up for the scales of what it reads.

    `nodes` are itself and those that only have a meaning together with it, the last one first, and
    `data` is what they are applied to. `stencil`: what they compute of it, where that is known.
    `sized`: what they do depends on the size of the map.
    """

    nodes: tuple[ir.Node, ...]
    data: ir.Value
    stencil: Stencil | None = None
    sized: bool = False

    @property
    def node(self) -> ir.Node:
        return self.nodes[0]

    @property
    def has_constants(self) -> bool:
        """Whether it has constants that are scaled with the channels."""
        return self.node.op_type in (*LAYERS, *OFFSET) and self.stencil is not None


@dataclass
class ChannelScales:
    """What is known of the scales of one graph.

    `of`: the channels of each value; of any other value all scales are fixed. `ties`: numbers that
    have to be alike. `fixed`: numbers of scales that stay 1, and why.
    """

    read: Read
    kept: Mapping[ir.Node, Decline]
    count: int = FIXED + 1
    of: dict[ir.Value, Channels] = field(default_factory=dict)
    nodes: list[Scaled] = field(default_factory=list)
    ties: list[tuple[Labels, Labels]] = field(default_factory=list)
    fixed: list[tuple[Labels, Decline]] = field(default_factory=list)

    def visit(self, graph: ir.Graph) -> None:
        """Go over every node, in order; then fix what is read by one that cannot make up for it."""
        groups, declined = self._groups(graph), dict[ir.Node, Decline]()
        for node, nodes in groups.items():
            try:
                self._visit(node, nodes)
            except Decline as why:
                declined |= dict.fromkeys(nodes, why.bare())
        able = {node for scaled in self.nodes for node in scaled.nodes}
        for value, channels in self.of.items():
            if value.is_graph_output():
                returned = f"{value.name} is an output of the graph"
                last = Decline("TRIVIAL", returned)  # which nobody would want otherwise
                self._keep(channels, Decline("OUTPUT", returned) if value.uses() else last)
            for use in value.uses():
                if use.node.graph is not graph:
                    inside = Decline("SHARED", f"{value.name} is read inside a subgraph")
                    self._keep(channels, inside)
                elif use.node not in able and use.node.op_type not in SIZES:
                    self._keep(channels, declined.get(use.node, _not_homogeneous(use.node)))

    def scales_of(self, value: ir.Value, axes: int, count: int) -> Labels:
        """The numbers of a value's scales. Raises Decline where a layer mixes another axis."""
        known = self.of.get(value)
        if known is None:
            return np.full(count, FIXED)
        if (known.axes, len(known.scales)) != (axes, count):
            raise Decline("LAYOUT", f"{value.name} is read along another axis than it is made")
        return known.scales

    def _groups(self, graph: ir.Graph) -> dict[ir.Node, tuple[ir.Node, ...]]:
        """Each node with those in front of it that only have a meaning together with it."""
        groups: dict[ir.Node, tuple[ir.Node, ...]] = {}
        inside: set[ir.Node] = set()
        for node in reversed(graph):
            if node not in inside:
                moves = node.op_type in ("Reshape", "Transpose")
                linear = self._linear(node) if moves else None
                through = linear.through if isinstance(linear, Applied | Transparent) else ()
                makers = (value.producer() for value in through)
                groups[node] = (node, *(maker for maker in makers if maker is not None))
                inside.update(groups[node])
        return dict(reversed(groups.items()))

    def _linear(self, node: ir.Node) -> Linear | Decline:
        try:
            return self.read(node)
        except Decline as why:
            return why.bare()

    def _visit(self, node: ir.Node, nodes: tuple[ir.Node, ...]) -> None:
        read = [value for one in nodes for value in one.inputs if value in self.of]
        if not read and node.op_type not in LAYERS:
            return
        if node in self.kept:
            raise self.kept[node].bare()
        if node.outputs[0].dtype not in FLOATS:
            raise _not_homogeneous(node)
        linear = None if is_homogeneous(node) else self._linear(node)
        if isinstance(linear, Summed):
            self._tie(node, [value for _, value in linear.operands])
        elif isinstance(linear, Joined):
            self._join(node, linear)
        elif len(set(read)) > 1:
            raise _not_homogeneous(node)
        elif linear is None:
            self._hand_on(Scaled(nodes, source(node)), self._known(source(node)))
        elif isinstance(linear, Decline):
            self._visit_gate(node, linear)
        elif isinstance(linear, Transparent):
            self._pass(nodes, linear)
        else:
            self._apply(nodes, linear)

    def _hand_on(self, scaled: Scaled, channels: Channels) -> None:
        if len(channels.scales) != channel_count(scaled.node.outputs[0], channels.axes):
            raise Decline("SHAPE", f"the channels of {scaled.node.outputs[0].name} are not known")
        self.of[scaled.node.outputs[0]] = channels
        self.nodes.append(scaled)

    def _apply(self, nodes: tuple[ir.Node, ...], linear: Applied) -> None:
        """A layer, whose outputs have scales of their own; or a choice or map of the channels."""
        node = nodes[0]
        stencil, data, shape = linear.stencil, linear.source, linear.stencil.geometry
        if node.op_type in LAYERS:
            self.scales_of(data, shape.axes, shape.inputs)
            numbers = np.arange(self.count, self.count + shape.outputs)
            self.count += shape.outputs
            self._hand_on(Scaled(nodes, data, stencil), Channels(shape.axes, numbers))
            return
        known = self._known(data)
        if is_uniform(stencil) and stencil.bias is None and shape.is_pointwise:
            self._hand_on(Scaled(nodes, data), known)
            return
        offset = stencil.bias is not None and node.op_type not in OFFSET
        if not shape.is_depthwise or linear.fill != 0 or offset:
            raise _not_homogeneous(node)
        before = self.scales_of(data, shape.axes, stencil.input_channels)
        index = stencil.channels_read
        scales = np.where(index == NO_CHANNEL, FIXED, before[index])
        self._hand_on(Scaled(nodes, data, stencil), Channels(shape.axes, scales))

    def _pass(self, nodes: tuple[ir.Node, ...], linear: Transparent) -> None:
        """A mean, a maximum or a view: the channels behind it have the scales of those in front."""
        before = self._known(linear.source)
        axes = linear.matrix if before.axes == 0 else linear.spatial
        if axes is None:
            raise Decline("LAYOUT", f"{nodes[0].name}, a {nodes[0].op_type}, mixes the channels")
        scales = before.scales if linear.moved is None else before.scales[linear.moved]
        behind = Channels(axes, np.repeat(scales, linear.repeat))
        self._hand_on(Scaled(nodes, linear.source, sized=linear.repeat > 1), behind)

    def _visit_gate(self, node: ir.Node, otherwise: Decline) -> None:
        """x g for a value g whose scale is fixed."""
        scaled = [value for value in node.inputs if value is not None and value in self.of]
        if node.op_type != "Mul" or len(scaled) != 1:
            known = otherwise.code not in ("NONLINEAR", "INPUT")
            raise otherwise if known else _not_homogeneous(node)
        if rank(scaled[0]) != rank(node.outputs[0]):
            raise Decline("BROADCAST", f"{node.name} gives {scaled[0].name} more axes")
        sized = any(constant(value) is not None for value in node.inputs)
        self._hand_on(Scaled((node,), scaled[0], sized=sized), self.of[scaled[0]])

    def _tie(self, node: ir.Node, values: Sequence[ir.Value]) -> None:
        """All operands, and the result, have the same scales."""
        known = [self.of[value] for value in values if value in self.of]
        first = known[0]
        alike = all((c.axes, len(c.scales)) == (first.axes, len(first.scales)) for c in known)
        if not alike or len({rank(value) for value in values}) > 1:
            raise Decline("BROADCAST", f"{node.name} adds values of different channels")
        for channels in known[1:]:
            self.ties.append((first.scales, channels.scales))
        for value in values:
            if value not in self.of:
                self._keep(first, Decline("TIED", f"{value.name}, which keeps its scale, is added"))
        self._hand_on(Scaled((node,), values[0]), first)

    def _join(self, node: ir.Node, linear: Joined) -> None:
        """Side by side: along the channels each keeps its scales, along other axes all share."""
        if linear.fills:
            raise _not_homogeneous(node)
        axes = next(self.of[value].axes for value in linear.values if value in self.of)
        if linear.axis % rank(linear.values[0]) != channel_axis(linear.values[0], axes):
            self._tie(node, linear.values)
            return
        counts = [channel_count(value, axes) for value in linear.values]
        pairs = zip(linear.values, counts, strict=True)
        parts = [self.scales_of(value, axes, count) for value, count in pairs]
        self._hand_on(Scaled((node,), linear.values[0]), Channels(axes, np.concatenate(parts)))

    def _known(self, value: ir.Value) -> Channels:
        if value not in self.of:
            raise Decline("NOT-HOMOGENEOUS", f"{value.name} keeps its scale")
        return self.of[value]

    def _keep(self, channels: Channels, why: Decline) -> None:
        self.fixed.append((channels.scales, why))


def is_homogeneous(node: ir.Node) -> bool:
    """Whether it is an activation with f(s x) = s f(x) for every s > 0."""
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "Clip":
        limits = clip_limits(node)
        return limits is not None and limits[0] in (0, -math.inf) and limits[1] in (0, math.inf)
    if node.op_type == "PRelu":
        return constant(node.inputs[1]) is not None
    return node.op_type in ("LeakyRelu", "Relu")


def _not_homogeneous(node: ir.Node) -> Decline:
    if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Cast"):
        return Decline("DTYPE", f"{node.name} is a {node.op_type}: its numbers are of another type")
    return Decline("NOT-HOMOGENEOUS", f"{node.name}, a {node.op_type}, is not f(s x) = s f(x)")


def components(count: int, ties: Sequence[tuple[Labels, Labels]]) -> Labels:
    """The least number that each of `count` numbers is tied to, directly or by others."""
    labels = np.arange(count)
    if not ties:
        return labels
    one, two = (np.concatenate(side) for side in zip(*ties, strict=True))
    while True:
        least = np.minimum(labels[one], labels[two])
        new = labels.copy()
        for ends in (labels[one], labels[two], one, two):
            np.minimum.at(new, ends, least)
        while not np.array_equal(new, new[new]):
            new = new[new]
        if np.array_equal(new, labels):
            return labels
        labels = new
