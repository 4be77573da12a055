"""A report with why the times are what they are: steps, profiles, floors, and blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from flatfold.comparing.changes import changes_of
from flatfold.comparing.data import TORCH, ModelReport, Row
from flatfold.comparing.explained import Limit, Profile
from flatfold.comparing.floors import floor_of
from flatfold.comparing.measuring import Plan
from flatfold.comparing.moves import described, moves
from flatfold.comparing.process import Process
from flatfold.comparing.stages import steps_of
from flatfold.comparing.variants import Variant, Way
from flatfold.errors import FlatfoldError

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
