"""Explanations of the times of a report: steps, profiles, lower bounds and changed blocks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from flatfold.benchmark.candidates.ablation import step_reports
from flatfold.benchmark.candidates.candidates import Ablation, Candidate
from flatfold.benchmark.explain.graphs import graph_change
from flatfold.benchmark.machine.roofline import floor_of, layer_floor
from flatfold.benchmark.measure.process import Process
from flatfold.benchmark.measure.protocol import Plan
from flatfold.benchmark.report import TORCH, Layer, LayerChange, Limit, ModelReport, Profile, Row
from flatfold.errors import FlatfoldError
from flatfold.explanation import innermost
from flatfold.passes.remark import REWRITE_KEY, SCOPE_KEY, origins

if TYPE_CHECKING:
    import onnx_ir as ir


PROFILED_S = 2.0  # of each engine
FEWEST_RUNS, MOST_RUNS = 3, 50

Launchers = Mapping[str, Callable[[], Process]]


def with_floors(
    rows: Sequence[Row], candidates: Sequence[Candidate], limits: Sequence[Limit], batch: int
) -> tuple[Row, ...]:
    """The rows with the least time that this machine needs for the graph of each."""
    graphs = {c.row.name: c.graph for c in candidates if c.row.target != TORCH}
    known = {limit.target: limit for limit in limits}
    bounded = []
    for row in rows:
        graph, limit = graphs.get(row.name), known.get(row.target)
        floor = floor_of(graph, limit, batch) if graph is not None and limit is not None else None
        bounded.append(replace(row, floor_s=floor))
    return tuple(bounded)


def with_steps(report: ModelReport, ablation: Ablation, plan: Plan) -> ModelReport:
    """The report with the effect of each rewrite on a target, and the blocks it replaced."""
    known = {row.name: row for row in (*report.rows, *report.step_rows)}
    rows = [known[name] for name in ablation.rows]
    steps = step_reports(ablation.target, ablation.steps, rows, report.noise, plan)
    change = graph_change(ablation.target, ablation.result)
    return replace(report, steps=(*report.steps, *steps), changes=(*report.changes, change))


def with_profiles(
    report: ModelReport,
    ablation: Ablation,
    launch: Launchers,
    limits: Sequence[Limit],
    batch: int,
) -> ModelReport:
    """The report with the layers of both engines on a target, where the engine has a profiler."""
    limit = next((limit for limit in limits if limit.target == ablation.target), None)
    training, rewritten = ablation.steps[0].graph, ablation.result.graph
    profiles = []
    for name, graph in ((ablation.rows[0], training), (ablation.rows[-1], rewritten)):
        row = report.row(name)
        profile = _profile(launch, row) if row is not None else None
        if profile is not None:
            profiles.append(described(profile, graph, training, limit, batch))
    changes: tuple[LayerChange, ...] = ()
    if len(profiles) == 2:
        before, after = profiles
        changes = layer_changes(ablation.target, before, after, training, rewritten)
    profiled = (*report.profiles, *profiles)
    return replace(report, profiles=profiled, moves=(*report.moves, *changes))


def _profile(launch: Launchers, row: Row) -> Profile | None:
    """The profile of a row, measured in a separate process: a profiler slows the engine down."""
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


def described(
    profile: Profile,
    graph: ir.Model,
    training: ir.Model,
    limit: Limit | None = None,
    batch: int = 1,
) -> Profile:
    """`profile`, of `graph`, with place, rewrite and least time of each layer.

    A layer that shares a node with another does only some of its work, so it has no least time.
    """
    nodes, trained = _named(graph), _named(training)
    shares = Counter(name for layer in profile.layers for name in layer.nodes)
    layers = []
    for layer in profile.layers:
        computed = [nodes[name] for name in layer.nodes if name in nodes]
        floor = None
        if limit is not None and computed and all(shares[name] == 1 for name in layer.nodes):
            floor = layer_floor(computed, limit, batch)
        rewrites = dict.fromkeys(node.metadata_props.get(REWRITE_KEY, "") for node in computed)
        sources = [trained.get(name) for name in _originals(layer, nodes)]
        place = _place([node for node in sources if node is not None] or computed)
        rewrite = ", ".join(name for name in rewrites if name)
        layers.append(replace(layer, place=place, rewrite=rewrite, floor_s=floor))
    return replace(profile, layers=tuple(layers))


def layer_changes(
    target: str, before: Profile, after: Profile, training: ir.Model, graph: ir.Model
) -> tuple[LayerChange, ...]:
    """The parts of the network, largest change of time first; each layer is in exactly one.

    `before` is the profile of `training`, `after` that of `graph`. A part is a set of layers that
    compute the same nodes of the training graph. Layers that compute no node, which only change the
    layout of data, are one part with no place.
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
    changes = [_layer_change(target, _place(sources[key]), *part) for key, part in parts.items()]
    return tuple(sorted(changes, key=lambda change: -abs(change.before_s - change.after_s)))


def _layer_change(
    target: str, place: str, before: Sequence[Layer], after: Sequence[Layer]
) -> LayerChange:
    return LayerChange(
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
    """The names of the training graph's nodes that a layer computes; `nodes` is its graph."""
    names: set[str] = set()
    for name in layer.nodes:
        names.update(origins([nodes[name]]) if name in nodes else [name])
    return names


def _roots(groups: Iterable[set[str]]) -> dict[str, str]:
    """For each name the representative of its connected component (union-find).

    Names of one group are connected.
    """
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
    """The innermost module around the nodes."""
    return innermost(node.metadata_props.get(SCOPE_KEY, "") for node in nodes)
