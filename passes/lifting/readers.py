"""The layers that could take a map: all that read what it returns, and what lies between.

A value that several nodes read ends a region, since one of them alone cannot change it. Where every
one of them is a layer that composes with the map, each takes it, and it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from flatfold.passes.cost.model import Cost, CostModel
from flatfold.passes.decline import Decline
from flatfold.passes.lowering.plan import plan
from flatfold.passes.reading.affine import Affine
from flatfold.passes.reading.deferred import origin_of
from flatfold.passes.reading.meaning import Applied, Linear, Transparent
from flatfold.passes.reading.node import producer_of, why_shared

MOST_VALUES = 64  # between a map and the layers that read it
Key = tuple[object, ...]


@dataclass(frozen=True)
class Readers:
    """`layers` read `source` through the map and `values`, which nothing else reads."""

    source: ir.Value
    layers: tuple[ir.Node, ...]
    values: frozenset[ir.Value]


def readers_of(
    node: ir.Node, linear: Callable[[ir.Node], Linear], read: Callable[[ir.Node], Linear]
) -> Readers:
    """What reads the map of the channels that `node` is; `read` reads a node anew.

    Raises Decline where it is no such map, where something else than a layer or an operator that
    the map passes through reads it, and where there is one layer only: it takes the map as it is.
    """
    own = linear(node)
    if not isinstance(own, Applied) or not own.stencil.geometry.is_diagonal:
        raise Decline("NONLINEAR", "it is not a map of the channels alone")
    if own.stencil.is_identity or own.through or origin_of(own.source) is not None:
        raise Decline("NONLINEAR", "it is not a map of the channels alone")
    layers: list[ir.Node] = []
    values, stack = {node.outputs[0]}, [node.outputs[0]]
    while stack:
        for reader in _all_readers(stack.pop()):
            meaning = read(reader)
            if isinstance(meaning, Transparent):
                stack.append(reader.outputs[0])
                values.add(reader.outputs[0])
            elif isinstance(meaning, Applied) and len(values) <= MOST_VALUES:
                layers.append(_with_bias(reader, read))
            else:
                raise Decline("NONLINEAR", f"{reader.name} is no layer")
    if len(layers) < 2:
        raise Decline("TRIVIAL", "one layer reads it")
    return Readers(own.source, tuple(layers), frozenset(values))


def _all_readers(value: ir.Value) -> list[ir.Node]:
    """The nodes that read a value, of the same graph and as their data. Raises Decline."""
    producer, uses = producer_of(value), [use for use in value.uses() if use.node.graph is not None]
    elsewhere = any(use.node.graph is not producer.graph or use.idx for use in uses)
    if elsewhere or value.is_graph_output():
        raise Decline("NONLINEAR", f"{value.name} is read elsewhere")
    return [use.node for use in uses]


def _with_bias(layer: ir.Node, read: Callable[[ir.Node], Linear]) -> ir.Node:
    """The last of the maps behind a layer that only it makes, such as its bias; or the layer."""
    while why_shared(layer.outputs[0]) is None:
        reader = next(use.node for use in layer.outputs[0].uses() if use.node.graph is not None)
        try:
            meaning = read(reader)
        except Decline:
            return layer
        if not isinstance(meaning, Applied) or not meaning.stencil.geometry.is_diagonal:
            return layer
        layer = reader
    return layer


def cost_of_forms(forms: Sequence[Affine], cost: CostModel) -> Cost:
    """What the nodes cost that are written for the forms; what makes one source, once."""
    total, known = Cost(), set[Key]()
    for form in forms:
        total += plan(form, cost).cost
        for term in form.live:
            key = _key(term.source)
            if key not in known:
                known.add(key)
                total += cost.deferred(term.source)
    return total


def _key(value: ir.Value) -> Key:
    """The operators that make a deferred value, and the value of the graph that they read."""
    steps: list[object] = []
    while (origin := origin_of(value)) is not None:
        given = [(name, str(origin.attributes[name].value)) for name in sorted(origin.attributes)]
        steps += [origin.op_type, *given, *map(id, origin.rest)]
        value = origin.source
    return (*steps, id(value))
