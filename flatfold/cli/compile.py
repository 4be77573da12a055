"""flatfold compile: a model in its training form becomes a folder with an engine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flatfold.cli import options as given
from flatfold.cli.console import emit, out, working
from flatfold.cli.options import engine_options
from flatfold.errors import FlatfoldError
from flatfold.text import change, clean, count, duration

if TYPE_CHECKING:
    from flatfold.result import Optimized
    from flatfold.timing import Ratio, Timing


BUDGET_S = 4.0


@dataclass(frozen=True)
class Latency:
    """Both timings; `ratio` is before over after, so above 1 the rewritten graph is faster."""

    before: Timing
    after: Timing
    ratio: Ratio
    shapes: Mapping[str, Sequence[int]]

    def to_dict(self) -> dict[str, Any]:
        return {
            "before": _timing(self.before),
            "after": _timing(self.after),
            "ratio": {"value": self.ratio.value, "interval": self.ratio.interval},
            "rounds": self.ratio.rounds,
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


def measure_both(
    result: Optimized,
    target: str,
    batch: int | None,
    image: Sequence[int] | None,
    options: Mapping[str, object],
) -> Latency | str:
    """Times both graphs on the same seeded inputs, or says why that could not be done."""
    from flatfold.backends import load_backend
    from flatfold.backends.tensors import drawn, shapes_of
    from flatfold.timing import interleaved_ratio, measure

    backend = load_backend(target)
    settings = {**options, **backend.beside}
    state = backend.availability()
    if not state.runs:
        return state.reason
    try:
        with (
            backend.build(result.training, settings) as before,
            backend.build(result.graph, settings) as after,
        ):
            shapes = shapes_of(after.inputs, batch, image)
            feeds = drawn(after.inputs, shapes)
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


BUILD = Path("build")
LONGEST_NAME = 150  # a file system takes 255 bytes, of which some are ours
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")

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
NoTime = Annotated[bool, typer.Option("--no-time", help="Measure no latency.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Build, whatever was built before.")]


@dataclass(frozen=True)
class Outcome:
    """What was built, where it is, and how long it takes; `latency` may be why it is not known."""

    result: Optimized
    target: str
    precision: str
    folder: Path
    latency: Latency | str
    cached: bool
    layers: int | None
    manifest: Mapping[str, Any]

    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())

    def to_dict(self) -> dict[str, Any]:
        timed = isinstance(self.latency, Latency)
        return {
            **self.result.record(),
            "engine_equivalence": self.manifest.get("engine_equivalence"),
            "auto": self.manifest.get("auto"),
            "target": self.target,
            "precision": self.precision,
            "cached": self.cached,
            "folder": str(self.folder),
            "files": {path.name: path.stat().st_size for path in self.files()},
            "latency": self.latency.to_dict() if isinstance(self.latency, Latency) else None,
            "not_timed": "" if timed else self.latency,
            "engine_layers": self.layers,
        }


def compile(
    model: given.Model,
    target: given.Target = "auto",
    out_folder: Out = None,
    weights: given.Weights = None,
    batch: given.Batch = None,
    size: given.Size = None,
    dynamic_batch: given.DynamicBatch = False,
    verify: given.Verify = "certify",
    passes: given.Passes = None,
    skip: given.Skip = None,
    simplify: given.Simplify = False,
    max_weights: given.MaxWeights = None,
    links_inside: given.LinksInside = None,
    threads: Threads = None,
    option: Option = None,
    no_time: NoTime = False,
    cache_dir: given.CacheDir = None,
    no_cache: NoCache = False,
    json: given.Json = False,
    debug: given.Debug = False,
) -> None:
    """Build the fastest engine that computes the same function, and prove that it does."""
    from flatfold import compiler
    from flatfold.backends.store.bundle import check_writable
    from flatfold.backends.tensors import check_sizes

    building = {
        name: engine_options(name, threads, option or ()) for name in compiler.targets_of(target)
    }
    chosen: dict[str, Any] = {
        "input_shape": given.input_shape(model, batch, size, dynamic_batch),
        "dynamic_batch": dynamic_batch,
        "weights": weights,
        "engine_options": building.__getitem__,
        "cache_dir": "" if no_cache else cache_dir,
        "passes": given.chosen_passes(passes, skip),
        "verify": verify,
        "simplify": simplify,
        "max_weights": max_weights,
        "links_inside": links_inside,
    }
    image = given.image_shape(size)
    check_writable(out_folder or default_folder(model_name(model), target, "fp32"))
    with working() as progress:
        made = compiler.compiled(model, target, progress=progress, **chosen)
        with made.engine as engine:
            check_sizes(engine.inputs, batch, image)
            built, precision, layers = engine.target, engine.precision, engine.layers
            folder = out_folder or default_folder(made.result.name, built, precision)
            progress("writing")
            engine.save(folder)
            said = engine.manifest
        latency: Latency | str = "switched off"
        if not no_time:
            progress("measuring")
            latency = measure_both(made.result, built, batch, image, building[built])
    done = Outcome(made.result, built, precision, folder, latency, made.cached, layers, said)
    if json:
        emit("compile", done.to_dict())
    else:
        show(done)


def model_name(model: str) -> str:
    """The name that a model given on the command line will have."""
    from flatfold.sources import is_graph

    return Path(model).stem if is_graph(model) else model.rpartition(":")[2]


def default_folder(name: str, target: str, precision: str) -> Path:
    """build/<name>-<target>-<precision>, with what a file system may not like replaced."""
    fit = _UNFIT.sub("_", name)[:LONGEST_NAME].strip("._") or "model"
    return BUILD / f"{fit}-{target}-{precision}"


def show(done: Outcome) -> None:
    """The summary of a build, as tables on stdout."""
    from rich.table import Table

    console, result = out(), done.result
    console.print(f"{clean(result.name)} for {done.target}, {done.precision}\n", style="bold")
    counts = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("", "before", "after", ""):
        counts.add_column(column, justify="left" if not counts.columns else "right")
    for counted in _counts(done):
        counts.add_row(*counted)
    console.print(counts)
    console.print()
    for name, fact in _facts(done):
        console.print(f"{name:10}{fact}", soft_wrap=True)


def _counts(done: Outcome) -> Iterator[tuple[str, str, str, str]]:
    before, after = done.result.before, done.result.after
    yield "operators", str(before.nodes), str(after.nodes), change(before.nodes, after.nodes)
    for name in {**before.operators, **after.operators}:
        old, new = before.operators.get(name, 0), after.operators.get(name, 0)
        yield f"  {clean(name)}", str(old), str(new), change(old, new)
    old, new = before.parameters, after.parameters
    yield "parameters", f"{old:,}", f"{new:,}", change(old, new)
    macs = before.macs, after.macs
    yield "multiply-accumulates", count(macs[0]), count(macs[1]), change(*macs)
    if isinstance(done.latency, Latency):
        times = [duration(t.median, t.interval) for t in (done.latency.before, done.latency.after)]
        yield "latency", times[0], times[1], done.latency.verdict()


def _facts(done: Outcome) -> Iterator[tuple[str, str]]:
    remarks = done.result.remarks
    applied = sum(remark.applied for remark in remarks)
    yield "proof", clean(str(done.result.equivalence))
    if (checked := done.manifest.get("engine_equivalence")) is not None:
        from flatfold.proof.equivalence import Equivalence

        yield "as built", clean(str(Equivalence.from_dict(checked)))
    if (auto := done.manifest.get("auto")) is not None:
        yield "target", clean(f"{auto['target']}: {auto['because']}")
    if done.cached:
        yield "cache", "built before from the same model and options; --no-cache builds it again"
    yield "rewrites", f"{applied} applied, {len(remarks) - applied} declined"
    if isinstance(done.latency, Latency):
        inputs = (f"{clean(n)} {'x'.join(map(str, s))}" for n, s in done.latency.shapes.items())
        rounds = done.latency.ratio.rounds
        yield "latency", f"medians of {rounds} alternating runs on {', '.join(inputs)}, [95 %]"
    else:
        yield "latency", f"not measured: {clean(done.latency)}"
    if done.layers is not None:
        yield "engine", f"{done.layers} layers after fusion"
    yield "files", clean(f"{done.folder}/: {', '.join(path.name for path in done.files())}")
    yield "load", f"flatfold.load({str(done.folder)!r})"
