"""Comparing latencies: `compare` measures a model in each form and returns a `Report`.

session.py    the candidates of a model are made, checked, measured and compared
report.py     a report as plain data with a schema number
checks.py     the outputs of each row, the pairs that are compared, and warnings
baseline.py   a report compared with an older one
candidates/   what is compared: the training graph, other tools, PyTorch, flatfold
measure/      rounds of worker processes
machine/      the machine and its limits
explain/      the effect of each rewrite, and the time of each layer
views/        a report in words, as Markdown, and as files
html/         a report as an HTML page
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from flatfold.system.progress import Progress, silent

if TYPE_CHECKING:
    from flatfold.benchmark.report import Report

__all__ = ["Report", "compare"]


def compare(
    models: Any,
    targets: str | Iterable[str] = "auto",
    *,
    against: Iterable[str] | None = None,
    rounds: int | None = None,
    budget_s: float | None = None,
    threads: int | None = None,
    verify: str = "certify",
    seed: int = 0,
    explain: bool = True,
    precisions: Iterable[str] = ("fp32",),
    calibration: Any = None,
    progress: Progress = silent,
    **reading: Any,
) -> Report:
    """The latency of a model in training form, after other tools, in PyTorch, and by flatfold.

    `models` is one model, as for `optimize`, or a list of them; `reading` are the options of
    `optimize` that say how to read or export one. `targets`: "auto" is each that runs here.
    `against` names what to compare with, of "onnxsim", "onnxslim", "onnxscript", "eager" and
    "torch.compile"; by default those that are installed. The outputs of each row are compared with
    those of the training graph. At least `rounds` rounds of fresh processes (6) are measured, then
    more until every pair is decided, but none is begun after `budget_s` seconds (300) for a model.
    `threads` are those of every engine; by default one per physical core that this process may use.
    `precisions`: flatfold's graph is timed in each of "fp32", "fp16" and "bf16" that a target
    computes in, too, with what the roundings change on `calibration` (see `optimize`); such a row
    is ranked with no other. With `explain`, the graph after each rewrite is timed, too, and every
    layer of the training graph's engine and of flatfold's. A candidate that fails is a row with its
    reason.
    """
    from flatfold.benchmark.measure.protocol import Plan
    from flatfold.benchmark.session import report_on
    from flatfold.sources import resolve

    several: Sequence[Any] = models if isinstance(models, list | tuple) else [models]
    return report_on(
        [partial(resolve, model, **reading) for model in several],
        [targets] if isinstance(targets, str) else list(targets),
        against=against,
        threads=threads,
        plan=Plan.of(rounds, budget_s, seed),
        verify=verify,
        explain=explain,
        precisions=precisions,
        calibration=calibration,
        progress=progress,
    )


def __getattr__(name: str) -> Any:
    """`Report`, imported when it is first used: it loads NumPy."""
    if name == "Report":
        from flatfold.benchmark.report import Report

        return Report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
