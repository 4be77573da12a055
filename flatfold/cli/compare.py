"""flatfold compare: the latency of a model as exported, after other tools, and by flatfold."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flatfold.cli import options
from flatfold.cli import report as files
from flatfold.cli.console import err, out, working
from flatfold.errors import Inconclusive, Regression
from flatfold.text import speed

if TYPE_CHECKING:
    from rich.console import Console

    from flatfold.benchmark.baseline import Change
    from flatfold.benchmark.report import Report

STDOUT = "-"
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%?")

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL", help=options.MODEL_FORMS, autocompletion=options.complete_model
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "-t",
        metavar="NAME",
        autocompletion=options.complete_target,
        help="May be repeated; default every target that runs here.",
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        metavar="A,B",
        help="Of onnxsim, onnxslim, onnxscript, eager, torch.compile; default those installed.",
    ),
]
Precisions = Annotated[
    str, typer.Option(metavar="A,B", help="Of fp32, fp16 and bf16; each is a row of its own.")
]
Rounds = Annotated[
    int | None, typer.Option(min=6, metavar="N", help="An even number of rounds; default 6.")
]
Budget = Annotated[
    float | None,
    typer.Option(
        min=0, metavar="S", help="No more rounds after this time for each model; default 300."
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Of every engine; default one per physical core."),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Of the intervals' resampling.")]
Explain = Annotated[
    bool,
    typer.Option(
        help="Time each rewrite by itself, too, and every layer, and what the machine could do."
    ),
]
JsonFile = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the report there as JSON; - is stdout."),
]
Baseline = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="An older report: exit code 5 where flatfold is slower."),
]
FailAbove = Annotated[
    str, typer.Option(metavar="PERCENT", help="How much slower than the baseline is allowed.")
]


def compare(
    models: Models,
    target: Targets = None,
    against: Against = None,
    weights: options.Weights = None,
    batch: options.Batch = None,
    size: options.Size = None,
    shape: options.Shape = None,
    verify: options.Verify = "certify",
    precision: Precisions = "fp32",
    calibration: options.Calibration = None,
    mean: options.Mean = None,
    std: options.Std = None,
    rounds: Rounds = None,
    budget: Budget = None,
    threads: Threads = None,
    seed: Seed = 0,
    explain: Explain = True,
    save: files.Save = None,
    json: JsonFile = None,
    baseline: Baseline = None,
    fail_above: FailAbove = "5%",
    debug: options.Debug = False,
) -> None:
    """Time a model as exported, rewritten by other tools, in PyTorch and by flatfold."""
    from flatfold.benchmark.measure.protocol import Plan
    from flatfold.benchmark.session import report_on
    from flatfold.benchmark.views.files import check_writable

    allowed, old = percent(fail_above), files.read_report(baseline) if baseline else None
    files.check_places(save)
    if json not in (None, STDOUT):
        check_writable(Path(json))
    plan = Plan.of(rounds, budget, seed)
    with working() as progress:
        report = report_on(
            [_reader(model, batch, size, shape, weights) for model in models],
            target or ["auto"],
            against=None if against is None else [n.strip() for n in against.split(",") if n],
            threads=threads,
            plan=plan,
            verify=verify,
            batch=batch,
            image=options.image_shape(size),
            explain=explain,
            precisions=[name.strip() for name in precision.split(",")],
            calibration=options.calibration_data(calibration, mean, std),
            progress=progress,
        )
    files.save_reports([report], save)
    _finish(report, json, old, allowed)


def _finish(report: Report, json: str | None, old: Report | None, allowed: float) -> None:
    """Writes and shows the report and its changes from the baseline. Raises Regression."""
    from flatfold.benchmark.baseline import changes
    from flatfold.benchmark.views.files import write
    from flatfold.cli.report_table import show

    console = err() if json == STDOUT else out()
    if json == STDOUT:
        print(report.to_json())
    elif json is not None:
        write(Path(json), f"{report.to_json()}\n")
    show(report, console)
    if old is not None:
        _compare_with_baseline(changes(old, report, allowed), console, allowed)
    failed = [model for model in report.models if model.reason]
    if failed:
        raise Inconclusive(
            f"{len(failed)} of {len(report.models)} models were not measured",
            where="; ".join(f"{model.model}: {model.reason}" for model in failed),
        )


def _compare_with_baseline(changed: Sequence[Change], console: Console, allowed: float) -> None:
    """Shows the change of each row. Raises Regression if one is slower or no longer correct."""
    from flatfold.cli.report_table import show_changes

    show_changes(changed, console)
    failed = [change for change in changed if change.failed]
    if failed:
        raise Regression(
            f"{len(failed)} of {len(changed)} rows are slower than the baseline by more than "
            f"{allowed:.3g}, or no longer correct",
            where="; ".join(_named(change) for change in failed),
            hint="measure again to be sure, or write a new baseline with --json",
        )


def percent(text: str) -> float:
    """ "5%" and "5" are 0.05."""
    match = _PERCENT.fullmatch(text.strip())
    if not match or float(match[1]) == 0:
        raise typer.BadParameter(f"expected a percentage such as 5%, found {text!r}")
    return float(match[1]) / 100


def _named(change: Change) -> str:
    slower = "" if change.ratio is None else speed(change.ratio.value)
    return f"{change.model}, {change.row}: {change.reason or slower}"


def _reader(
    model: str,
    batch: int | None,
    size: str | None,
    shape: Sequence[str] | None,
    weights: str | None,
) -> Callable[[], Any]:
    from flatfold.cli.verify import graph_of
    from flatfold.sources import resolve

    asked = options.input_shape(model, batch, size, False, shape)
    return lambda: resolve(graph_of(model), input_shape=asked, weights=weights)
