"""Where the time of the training graph went: its layers beside those of the rewritten graph.

A layer computes nodes, and a rewritten node says which of the training graph it replaced. Layers of
the two profiles that hang together so are one part of the network: a `Move`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from flatfold.comparing.explained import Layer, Limit, Move, Profile
from flatfold.comparing.floors import layer_floor
from flatfold.decisions import innermost
from flatfold.passes.remark import REWRITE_KEY, SCOPE_KEY, origins

if TYPE_CHECKING:
    import onnx_ir as ir


def described(
    profile: Profile,
    graph: ir.Model,
    training: ir.Model,
    limit: Limit | None = None,
    batch: int = 1,
) -> Profile:
    """`profile`, of `graph`, with place, rewrite and floor of each layer.

    A layer that shares a node with another has no floor, as it does some of the work only.
    """
    nodes, trained = _named(graph), _named(training)
    shares = Counter(name for layer in profile.layers for name in layer.nodes)
    layers = []
    for layer in profile.layers:
        computed = [nodes[name] for name in layer.nodes if name in nodes]
        floor = None
        if limit is not None and computed and all(shares[name] == 1 for name in layer.nodes):
            floor = layer_floor(computed, limit, batch)
        made = dict.fromkeys(node.metadata_props.get(REWRITE_KEY, "") for node in computed)
        sources = [trained.get(name) for name in _originals(layer, nodes)]
        place = _place([node for node in sources if node is not None] or computed)
        rewrite = ", ".join(name for name in made if name)
        layers.append(replace(layer, place=place, rewrite=rewrite, floor_s=floor))
    return replace(profile, layers=tuple(layers))


def moves(
    target: str, before: Profile, after: Profile, training: ir.Model, graph: ir.Model
) -> tuple[Move, ...]:
    """The parts of the network, those first whose time changed most; each layer is in one of them.

    `before` is the profile of `training`, `after` that of `graph`. Layers that compute no node,
    which only lay data out anew, are one part with no place.
    """
    trained, rewritten = _named(training), _named(graph)
    old = [(layer, set(layer.nodes)) for layer in before.layers]
    new = [(layer, _originals(layer, rewritten)) for layer in after.layers]
    roots = _roots(names for _, names in (*old, *new))
    parts: dict[str, tuple[list[Layer], list[Layer]]] = {}
    for side, layers in enumerate((old, new)):
        for layer, names in layers:
            key = roots[min(names)] if names else ""
            parts.setdefault(key, ([], []))[side].append(layer)
    sources: dict[str, list[ir.Node]] = {key: [] for key in parts}
    for name in roots.keys() & trained.keys():
        sources[roots[name]].append(trained[name])
    found = [_move(target, _place(sources[key]), *part) for key, part in parts.items()]
    return tuple(sorted(found, key=lambda move: -abs(move.before_s - move.after_s)))


def _move(target: str, place: str, before: Sequence[Layer], after: Sequence[Layer]) -> Move:
    return Move(
        target,
        place,
        math.fsum(layer.seconds for layer in before),
        math.fsum(layer.seconds for layer in after),
        tuple(layer.name for layer in before),
        tuple(layer.name for layer in after),
    )


def _named(model: ir.Model) -> dict[str, ir.Node]:
    return {node.name: node for node in model.graph if node.name}


def _originals(layer: Layer, nodes: Mapping[str, ir.Node]) -> set[str]:
    """The names of the training graph's nodes that a layer stands for."""
    found: set[str] = set()
    for name in layer.nodes:
        found.update(origins([nodes[name]]) if name in nodes else [name])
    return found


def _roots(groups: Iterable[set[str]]) -> dict[str, str]:
    """For each name one that all names have which groups connect with it."""
    above: dict[str, str] = {}

    def root(name: str) -> str:
        while above.setdefault(name, name) != name:
            above[name] = name = above[above[name]]
        return name

    for names in filter(None, groups):
        first, *others = map(root, names)
        for other in others:
            above[root(other)] = root(first)
    return {name: root(name) for name in list(above)}


def _place(nodes: Iterable[ir.Node]) -> str:
    return innermost(node.metadata_props.get(SCOPE_KEY, "") for node in nodes)
