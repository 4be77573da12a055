"""The graphs on the way from the training graph to flatfold's: one rewrite after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flatfold import timing
from flatfold.benchmark.measure.protocol import Plan
from flatfold.benchmark.report import Row, Step
from flatfold.errors import FlatfoldError
from flatfold.system.progress import Progress
from flatfold.timing import Estimate

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.result import Optimized


@dataclass(frozen=True)
class Stage:
    """The graph once `rewrite` is added to those before: `applied` replacements are new.

    It need not have made them itself: what it removes may be what kept another rewrite apart.
    """

    rewrite: str
    applied: int
    graph: ir.Model


def stages(original: ir.Model, result: Optimized, target: str, progress: Progress) -> list[Stage]:
    """The training graph, then each graph that differs from the one before, flatfold's last.

    The rewrites are added in the order of the pipeline, each time starting from the training graph.
    """
    from flatfold.compiler import Compiler, Options
    from flatfold.frontend import Source
    from flatfold.passes import PIPELINE
    from flatfold.proof.certificate import fingerprint

    names = [rewrite.name for rewrite in PIPELINE]
    compiler = Compiler(Source(result.name, original))
    found = [Stage("", 0, result.training)]
    last, final = fingerprint(result.training), fingerprint(result.graph)
    before: set[tuple[str, ...]] = set()
    for count, name in enumerate(names, 1):
        if last == final:
            break
        progress(f"the steps on {name}")
        graph, remarks = result.graph, result.remarks
        if count < len(names):  # with all of them it is flatfold's, which was proved
            try:
                graph, _, told = compiler.rewrite(Options(target, names[:count]))
            except FlatfoldError:
                continue  # what it does is in the next step then
            remarks = tuple(told)
        now = fingerprint(graph)
        if now != last:
            made = {remark.replaced for remark in remarks if remark.applied}
            found.append(Stage(name, len(made - before), result.graph if now == final else graph))
            last, before = now, made
    return found


def steps_of(
    target: str,
    found: Sequence[Stage],
    rows: Sequence[Row],
    noise: Estimate | None,
    plan: Plan,
) -> list[Step]:
    """`rows[i]` is the row that was timed with the graph of `found[i]`."""
    reach = 0.0 if noise is None else noise.deviation
    steps: list[Step] = []
    before: Row | None = None
    for stage, row in zip(found, rows, strict=True):
        ratio = None
        if before is not None and not (before.wrong or row.wrong or before.reason or row.reason):
            ratio = timing.ratio(row.samples_s, before.samples_s, seed=plan.seed)
        word = "" if ratio is None else timing.verdict(ratio, noise=reach, delta=plan.delta)
        counts = row.nodes, row.parameters, row.macs, row.bytes
        steps.append(Step(target, stage.rewrite, stage.applied, *counts, row.name, ratio, word))
        before = row
    return steps
