"""flatfold compile: builds an engine into a folder, and measures how much faster it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flatfold.cli import options
from flatfold.cli.console import emit, out, working
from flatfold.errors import FlatfoldError
from flatfold.text import change, clean, count, duration

if TYPE_CHECKING:
    from flatfold.compiler import Compiled, Compiler
    from flatfold.result import Optimized
    from flatfold.system.progress import Progress
    from flatfold.timing import Estimate, Timing

BUILD = Path("build")
BUDGET_S = 4.0  # for the latency of both graphs
LONGEST_NAME = 150  # a file system takes 255 bytes, and the target and precision need some
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")

Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        help="Where to write; default build/<name>-<target>-<precision>.",
    ),
]
Threads = Annotated[int | None, typer.Option(min=0, metavar="N", help="Threads of the engine.")]
Option = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-O",
        metavar="NAME=VALUE",
        help="An option of the target, such as time_limit=60. May be repeated.",
    ),
]
NoTime = Annotated[bool, typer.Option("--no-time", help="Measure nothing.")]
Tune = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Search that long for a faster engine: other forms of the graph, other options.",
    ),
]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Build the engine even if it is in the cache.")
]


def compile(
    model: options.Model,
    target: options.Target = "auto",
    out_folder: Out = None,
    weights: options.Weights = None,
    batch: options.Batch = None,
    size: options.Size = None,
    shape: options.Shape = None,
    dynamic_batch: options.DynamicBatch = False,
    verify: options.Verify = "certify",
    passes: options.Passes = None,
    skip: options.Skip = None,
    simplify: options.Simplify = False,
    max_weights: options.MaxWeights = None,
    links_inside: options.LinksInside = None,
    constant_defaults: options.ConstantDefaults = False,
    precision: options.Precision = "fp32",
    keep_float: options.KeepFloat = None,
    narrow_io: options.NarrowIo = False,
    calibration: options.Calibration = None,
    max_drop: options.MaxDrop = None,
    mean: options.Mean = None,
    std: options.Std = None,
    threads: Threads = None,
    option: Option = None,
    tune: Tune = None,
    no_time: NoTime = False,
    cache_dir: options.CacheDir = None,
    no_cache: NoCache = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Build the fastest engine that computes the same function, and prove that it does."""
    from flatfold.backends.store import check_writable
    from flatfold.compiler import AUTO, Compiler, Options, targets_of
    from flatfold.precision import Precision

    typed = Precision(precision, tuple(keep_float or ()), narrow_io, max_drop=max_drop)
    typed.require(calibration)
    data = options.calibration_data(calibration, mean, std)
    targets = targets_of(target, precision)
    by_target = {name: options.engine_options(name, threads, option or ()) for name in targets}
    reading = {
        "input_shape": options.input_shape(model, batch, size, dynamic_batch, shape),
        "dynamic_batch": dynamic_batch,
        "weights": weights,
        "max_weights": max_weights,
        "links_inside": links_inside,
        "constant_defaults": constant_defaults or None,
    }
    names, asked = options.chosen_passes(passes, skip), (batch, options.image_shape(size))
    check_writable(out_folder or default_folder(model_name(model), target, precision))
    seconds = 0.0 if no_time else tune
    choices = [
        Options(name, names, verify, simplify, chosen, seconds, typed)
        for name, chosen in by_target.items()
    ]
    with working() as progress:
        compiler = Compiler.resolve(model, progress, data, **reading)
        cache = "" if no_cache else cache_dir
        compiled = compiler.compile(choices, auto=target == AUTO, cache_dir=cache)
        outcome = _saved(compiled, out_folder, asked, progress)
        if not no_time:
            progress("measuring")
            result, built = outcome.result, outcome.target
            latency = latency_of(compiler, result, built, asked, by_target[built])
            outcome = replace(outcome, latency=latency)
    if json:
        emit("compile", outcome.to_dict())
    else:
        show(outcome)


def _saved(
    compiled: Compiled,
    out_folder: Path | None,
    asked: tuple[int | None, tuple[int, ...] | None],
    progress: Progress,
) -> Outcome:
    """The engine saved in its folder. Raises InputError for sizes it does not take."""
    from flatfold.backends import check_sizes

    with compiled.engine as engine:
        check_sizes(engine.inputs, *asked)
        result, target, precision = compiled.result, engine.target, engine.precision
        folder = out_folder or default_folder(result.name, target, precision)
        progress("writing")
        engine.save(folder)
        layers = engine.layers  # some engines tell only while they are open
    facts = result, target, precision, folder, "switched off", compiled.cached, layers
    return Outcome(*facts, engine.manifest)


def model_name(model: str) -> str:
    """The name that a model given on the command line will have."""
    from flatfold.sources import is_graph

    return Path(model).stem if is_graph(model) else model.rpartition(":")[2]


def default_folder(name: str, target: str, precision: str) -> Path:
    """build/<name>-<target>-<precision>, with characters that a file system may refuse replaced."""
    safe = _UNSAFE.sub("_", name)[:LONGEST_NAME].strip("._") or "model"
    return BUILD / f"{safe}-{target}-{precision}"


@dataclass(frozen=True)
class Latency:
    """Both timings; `ratio` is before over after, so above 1 the rewritten graph is faster."""

    before: Timing
    after: Timing
    ratio: Estimate
    shapes: Mapping[str, Sequence[int]]

    def to_dict(self) -> dict[str, Any]:
        return {
            "before": _timing(self.before),
            "after": _timing(self.after),
            "ratio": self.ratio.to_dict(),
            "rounds": len(self.before.samples),
            "inputs": {name: list(shape) for name, shape in self.shapes.items()},
            "environment": self.before.environment,
        }

    def verdict(self) -> str:
        """In words; no claim where the interval of the ratio includes 1."""
        value, (low, high) = self.ratio.value, self.ratio.interval
        if low <= 1 <= high:
            return f"no difference measured [{low:.2f}, {high:.2f}]"
        if value > 1:
            return f"{value:.2f}x faster [{low:.2f}, {high:.2f}]"
        return f"{1 / value:.2f}x slower [{1 / high:.2f}, {1 / low:.2f}]"


def latency_of(
    compiler: Compiler,
    result: Optimized,
    target: str,
    asked: tuple[int | None, Sequence[int] | None],
    engine_options: Mapping[str, object],
) -> Latency | str:
    """Both graphs timed on the same seeded inputs, or why they could not be.

    `asked` is the batch and the size of the image, for open axes.
    """
    from flatfold.backends import load_backend, random_feeds, shapes_of
    from flatfold.timing import interleaved_ratio, measure

    backend = load_backend(target)
    timed = {**engine_options, **backend.timing_options}
    state = backend.availability()
    if not state.runs:
        return state.reason
    try:
        with (
            backend.build(result.training, timed) as before,
            backend.build(result.graph, timed) as after,
        ):
            shapes = shapes_of(after.inputs, *asked, compiler.sizes[-1])
            feeds = random_feeds(after.inputs, shapes)
            runs = {"before": before.bind(feeds), "after": after.bind(feeds)}
            timings = measure(runs, budget_s=BUDGET_S)
    except FlatfoldError as error:
        return error.cause
    pair = timings["before"], timings["after"]
    return Latency(*pair, interleaved_ratio(*pair), shapes)


def _timing(timing: Timing) -> dict[str, Any]:
    return {
        "median_s": timing.median,
        "interval_s": timing.interval,
        "p90_s": timing.percentile(90),
        "first_call_s": timing.warmup[0] if timing.warmup else None,
        "samples_s": timing.samples,
    }


@dataclass(frozen=True)
class Outcome:
    """What was built, its folder, and its latency, or why that was not measured."""

    result: Optimized
    target: str
    precision: str
    folder: Path
    latency: Latency | str
    cached: bool
    layers: int | None
    manifest: Mapping[str, Any]

    @property
    def tuning(self) -> Mapping[str, Any]:
        """What was decided by time; see `Tuned.to_dict`."""
        tuning: Mapping[str, Any] = self.manifest["tuning"]
        return tuning

    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())

    def to_dict(self) -> dict[str, Any]:
        timed = isinstance(self.latency, Latency)
        return {
            **self.result.record(),
            "engine_equivalence": self.manifest.get("engine_equivalence"),
            "auto": self.manifest.get("auto"),
            "tuning": self.tuning,
            "target": self.target,
            "precision": self.precision,
            "cached": self.cached,
            "folder": str(self.folder),
            "files": {path.name: path.stat().st_size for path in self.files()},
            "latency": self.latency.to_dict() if isinstance(self.latency, Latency) else None,
            "not_timed": "" if timed else self.latency,
            "engine_layers": self.layers,
        }


def show(outcome: Outcome) -> None:
    """Print the summary of a build on stdout, as tables."""
    from rich.table import Table

    console, result = out(), outcome.result
    console.print(f"{clean(result.name)} for {outcome.target}, {outcome.precision}\n", style="bold")
    counts = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("", "before", "after", ""):
        counts.add_column(column, justify="left" if not counts.columns else "right")
    for row in _counts(outcome):
        counts.add_row(*row)
    console.print(counts)
    console.print()
    for name, fact in _facts(outcome):
        console.print(f"{name:10}{fact}", soft_wrap=True)


def _counts(outcome: Outcome) -> Iterator[tuple[str, str, str, str]]:
    before, after = outcome.result.before, outcome.result.after
    yield "operators", str(before.nodes), str(after.nodes), change(before.nodes, after.nodes)
    for name in {**before.operators, **after.operators}:
        old, new = before.operators.get(name, 0), after.operators.get(name, 0)
        yield f"  {clean(name)}", str(old), str(new), change(old, new)
    old, new = before.parameters, after.parameters
    yield "parameters", f"{old:,}", f"{new:,}", change(old, new)
    macs = before.macs, after.macs
    yield "multiply-accumulates", count(macs[0]), count(macs[1]), change(*macs)
    if isinstance(outcome.latency, Latency):
        times = [
            duration(t.median, t.interval) for t in (outcome.latency.before, outcome.latency.after)
        ]
        yield "latency", times[0], times[1], outcome.latency.verdict()


def _facts(outcome: Outcome) -> Iterator[tuple[str, str]]:
    remarks = outcome.result.remarks
    applied = sum(remark.applied for remark in remarks)
    yield "proof", clean(str(outcome.result.equivalence))
    if outcome.result.rounded is not None:
        yield "precision", clean(str(outcome.result.rounded))
    if (as_built := outcome.manifest.get("engine_equivalence")) is not None:
        from flatfold.proof import Equivalence

        yield "as built", clean(str(Equivalence.from_dict(as_built)))
    if (auto := outcome.manifest.get("auto")) is not None:
        yield "target", clean(f"{auto['target']}: {auto['because']}")
    if outcome.tuning["reason"]:
        from flatfold.tuning import described

        yield "tuning", clean(described(outcome.tuning))
    if outcome.cached:
        yield "cache", "built before from the same model and options; --no-cache builds it again"
    yield "rewrites", f"{applied} applied, {len(remarks) - applied} declined"
    if isinstance(outcome.latency, Latency):
        inputs = (f"{clean(n)} {'x'.join(map(str, s))}" for n, s in outcome.latency.shapes.items())
        rounds = len(outcome.latency.before.samples)
        yield "latency", f"medians of {rounds} alternating runs on {', '.join(inputs)}, [95 %]"
    else:
        yield "latency", f"not measured: {clean(outcome.latency)}"
    if outcome.layers is not None:
        yield "engine", f"{outcome.layers} layers after fusion"
    yield "files", clean(f"{outcome.folder}/: {', '.join(path.name for path in outcome.files())}")
    yield "load", f"flatfold.load({str(outcome.folder)!r})"
