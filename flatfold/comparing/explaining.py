"""A report with why the times are what they are: steps, profiles, and the graph block by block."""

from __future__ import annotations

from dataclasses import replace

from flatfold.comparing.changes import changes_of
from flatfold.comparing.data import ModelReport
from flatfold.comparing.measuring import Plan
from flatfold.comparing.stages import steps_of
from flatfold.comparing.variants import Way


def with_steps(report: ModelReport, way: Way, plan: Plan) -> ModelReport:
    """What each rewrite contributed on a target, and the blocks that were replaced."""
    known = {row.name: row for row in (*report.rows, *report.step_rows)}
    rows = [known[name] for name in way.rows]
    steps = steps_of(way.target, way.stages, rows, report.noise, plan)
    changes = changes_of(way.target, way.result)
    return replace(report, steps=(*report.steps, *steps), changes=(*report.changes, changes))
