"""One command that says what rewriting bought, on this machine, against what else there is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from flatfold.system.progress import Progress, silent

if TYPE_CHECKING:
    from flatfold.benchmark.report import Report


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
    progress: Progress = silent,
    **reading: Any,
) -> Report:
    """How long a model takes in training form, rewritten by others, in PyTorch, and by flatfold.

    `models` is one model, as for `optimize`, or a list of them; `reading` are its options that say
    how to read or export one. `targets`: "auto" is each that runs here. `against` names what to
    compare with, of "onnxsim", "onnxslim", "onnxscript", "eager" and "torch.compile"; by default
    those that are installed. Each row is checked against the training graph. At least `rounds`
    rounds of fresh processes (6), then more until every pair is decided, but none is begun after
    `budget_s` seconds (300) for a model. `threads` are those of every engine; by default one per
    physical core that this process may use. With `explain`, the graph after each rewrite is timed,
    too, and every layer of the training graph's engine and of flatfold's. What fails is a row with
    its reason.
    """
    from flatfold.benchmark.measure.protocol import Plan
    from flatfold.benchmark.session import report_on
    from flatfold.sources import resolve

    wanted: Sequence[Any] = models if isinstance(models, list | tuple) else [models]
    return report_on(
        [_reader(resolve, model, reading) for model in wanted],
        [targets] if isinstance(targets, str) else list(targets),
        against=against,
        threads=threads,
        plan=Plan.of(rounds, budget_s, seed),
        verify=verify,
        explain=explain,
        progress=progress,
    )


def _reader(resolve: Any, model: Any, reading: Any) -> Any:
    return lambda: resolve(model, **reading)
