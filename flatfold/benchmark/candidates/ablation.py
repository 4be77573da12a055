"""An ablation: the graphs between the training graph and flatfold's, one rewrite at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flatfold import timing
from flatfold.benchmark.measure.protocol import Plan
from flatfold.benchmark.report import Row, StepReport
from flatfold.errors import FlatfoldError
from flatfold.system.progress import Progress
from flatfold.timing import Estimate

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.result import Optimized


@dataclass(frozen=True)
class Step:
    """The graph with `rewrite` added to the rewrites of the steps before.

    `applied` counts the replacements that no earlier step has. Another rewrite may have made them:
    what `rewrite` removes can be what kept that one from being applied.
    """

    rewrite: str
    applied: int
    graph: ir.Model


def rewrite_steps(
    original: ir.Model, result: Optimized, target: str, progress: Progress
) -> list[Step]:
    """The training graph, then each graph that differs from the one before; flatfold's is last.

    The rewrites are added from the last of the pipeline to the first, so that those that most
    others build on (folding, composing, merging) come early. In each step all of them are applied
    to the training graph anew. A step that fails is left out; the next one includes its rewrite.
    """
    from flatfold.compiler import Compiler, Options
    from flatfold.frontend import Source
    from flatfold.passes import PIPELINE
    from flatfold.proof import fingerprint

    compiler = Compiler(Source(result.name, original))
    names = [rewrite.name for rewrite in reversed(PIPELINE)]
    steps = [Step("", 0, result.training)]
    last, final = fingerprint(result.training), fingerprint(result.graph)
    known: set[tuple[str, ...]] = set()  # replacements of the steps so far
    for count, name in enumerate(names, 1):
        if last == final:
            break
        progress(f"the steps on {name}")
        graph, remarks = result.graph, result.remarks
        if count < len(names):  # the graph with all rewrites is there already, and proved
            try:
                graph, _, remarks_so_far = compiler.rewrite(Options(target, names[:count]))
            except FlatfoldError:
                continue
            remarks = tuple(remarks_so_far)
        current = fingerprint(graph)
        if current != last:
            replaced = {remark.replaced for remark in remarks if remark.applied}
            graph = result.graph if current == final else graph
            steps.append(Step(name, len(replaced - known), graph))
            last, known = current, replaced
    return steps


def step_reports(
    target: str,
    steps: Sequence[Step],
    rows: Sequence[Row],
    noise: Estimate | None,
    plan: Plan,
) -> list[StepReport]:
    """Each step with its time relative to the step before; `rows[i]` was timed with `steps[i]`."""
    noise_floor = 0.0 if noise is None else noise.deviation
    reports: list[StepReport] = []
    before: Row | None = None
    for step, row in zip(steps, rows, strict=True):
        ratio = None
        if before is not None and not (before.wrong or row.wrong or before.reason or row.reason):
            ratio = timing.ratio(row.samples_s, before.samples_s, seed=plan.seed)
        verdict = ""
        if ratio is not None:
            verdict = timing.verdict(ratio, noise=noise_floor, delta=plan.delta)
        counts = row.nodes, row.parameters, row.macs, row.bytes
        report = StepReport(target, step.rewrite, step.applied, *counts, row.name, ratio, verdict)
        reports.append(report)
        before = row
    return reports
