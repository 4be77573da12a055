"""A report with why the times are what they are: steps, profiles, floors, and blocks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from flatfold.benchmark.candidates.ablation import steps_of
from flatfold.benchmark.candidates.candidates import Variant, Way
from flatfold.benchmark.explain.graphs import changes_of
from flatfold.benchmark.machine.roofline import floor_of, layer_floor
from flatfold.benchmark.measure.process import Process
from flatfold.benchmark.measure.protocol import Plan
from flatfold.benchmark.report import TORCH, Layer, Limit, ModelReport, Move, Profile, Row
from flatfold.errors import FlatfoldError
from flatfold.explanation import innermost
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


PROFILED_S = 2.0  # of each engine
FEWEST_RUNS, MOST_RUNS = 3, 50

Launchers = Mapping[str, Callable[[], Process]]


def with_floors(
    rows: Sequence[Row], variants: Sequence[Variant], limits: Sequence[Limit], batch: int
) -> tuple[Row, ...]:
    """The least time that this machine could take for each graph."""
    graphs = {v.row.name: v.graph for v in variants if v.row.target != TORCH}
    known = {limit.target: limit for limit in limits}
    found = []
    for row in rows:
        graph, limit = graphs.get(row.name), known.get(row.target)
        floor = floor_of(graph, limit, batch) if graph is not None and limit is not None else None
        found.append(replace(row, floor_s=floor))
    return tuple(found)


def with_steps(report: ModelReport, way: Way, plan: Plan) -> ModelReport:
    """What each rewrite contributed on a target, and the blocks that were replaced."""
    known = {row.name: row for row in (*report.rows, *report.step_rows)}
    rows = [known[name] for name in way.rows]
    steps = steps_of(way.target, way.stages, rows, report.noise, plan)
    changes = changes_of(way.target, way.result)
    return replace(report, steps=(*report.steps, *steps), changes=(*report.changes, changes))


def with_profiles(
    report: ModelReport, way: Way, launch: Launchers, limits: Sequence[Limit], batch: int
) -> ModelReport:
    """Where the time goes on a target, before and after; nothing where the engine does not tell."""
    limit = next((limit for limit in limits if limit.target == way.target), None)
    first, last = way.stages[0].graph, way.result.graph
    found = []
    for name, graph in ((way.rows[0], first), (way.rows[-1], last)):
        row = report.row(name)
        profile = _profile(launch, row) if row is not None else None
        if profile is not None:
            found.append(described(profile, graph, first, limit, batch))
    changed = moves(way.target, found[0], found[1], first, last) if len(found) == 2 else ()
    return replace(report, profiles=(*report.profiles, *found), moves=(*report.moves, *changed))


def _profile(launch: Launchers, row: Row) -> Profile | None:
    """Taken in a process of its own: an engine is another one with its profiler on."""
    if row.latency is None or row.reason:
        return None
    runs = round(PROFILED_S / row.latency.value)
    process = launch[row.name]()
    try:
        process.start()
        return process.profile(min(max(runs, FEWEST_RUNS), MOST_RUNS))
    except FlatfoldError:
        return None
    finally:
        process.close()
