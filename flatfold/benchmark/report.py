"""A report: plain data with a schema number, from which every view is made.

A Report has a ModelReport for each model, with a Row for each candidate and a Pair for each two
that are compared. The field names are those of the JSON files: change SCHEMA with them.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from os import PathLike
from typing import Any

import msgspec

from flatfold import timing
from flatfold.errors import InputError
from flatfold.proof import Equivalence
from flatfold.result import Rounded
from flatfold.timing import Estimate

SCHEMA = 1
PERCENTILES = (50, 90, 95, 99)
FLATFOLD, TRAINING = "flatfold", "training"
TORCH = "torch"  # the target of eager PyTorch and torch.compile
LARGEST = 1e30  # of any number in a report but the error of a row that is wrong


@dataclass(frozen=True)
class Row:
    """One candidate on one target: its time, its precision, and whether it is right.

    `variant` is the name of the candidate. `samples_s` are seconds by process, block and run; a
    round in which the row was not measured has no blocks. `build_s`, which includes loading the
    library, and `first_call_s` have one number for each process that built, or ran, an engine; no
    statistic uses them. `prepare_s` is the time to make the graph, `proof` the verdict on the
    graph, and `equivalence` that on the outputs of the engine. `bytes` are those of the weights and
    of every value that a node reads or writes; `floor_s` is the least time that this machine needs
    for `macs`, the weights, and the inputs and outputs. `rounded` says what another precision
    changes: such a row computes something else, and is ranked with no other. `reason` says why
    there is no time, or no time of the later processes.
    """

    variant: str
    target: str
    precision: str = ""
    equivalence: Equivalence | None = None
    proof: str = ""
    samples_s: tuple[tuple[tuple[float, ...], ...], ...] = ()
    build_s: tuple[float, ...] = ()
    first_call_s: tuple[float, ...] = ()
    prepare_s: float | None = None
    steady: bool = True
    layers: int | None = None
    nodes: int | None = None
    parameters: int | None = None
    macs: int | None = None
    bytes: int | None = None
    floor_s: float | None = None
    rounded: Rounded | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        return f"{self.variant} {self.target}"

    @cached_property
    def latency(self) -> Estimate | None:
        """The median of a run with its 95 % interval; None where fewer than three processes ran."""
        return timing.level(self.samples_s)

    @cached_property
    def percentiles(self) -> dict[int, float | None]:
        """By p, in seconds; None where there are too few runs for it."""
        runs = [run for process in self.samples_s for block in process for run in block]
        return {p: timing.percentile(runs, p) for p in PERCENTILES}

    @property
    def wrong(self) -> bool:
        """Whether its outputs differ from those of the training graph."""
        return self.equivalence is not None and self.equivalence.verdict == "refuted"

    @property
    def ranked(self) -> bool:
        """Whether its time may be compared: only that of a row whose outputs passed the check."""
        passed = self.equivalence is not None and self.equivalence.passed and not self.rounded
        return passed and not self.reason and self.latency is not None

    def to_dict(self) -> dict[str, Any]:
        latency = self.latency
        fields = asdict(self)
        if fields["equivalence"] is not None:  # an error may be infinite, which JSON does not have
            fields["equivalence"] = {n: finite(v) for n, v in fields["equivalence"].items()}
        return {
            **fields,
            "median_s": None if latency is None else latency.value,
            "interval_s": None if latency is None else latency.interval,
            "percentiles_s": {f"p{p}": value for p, value in self.percentiles.items()},
            "wrong": self.wrong,
            "ranked": self.ranked,
        }


@dataclass(frozen=True)
class Pair:
    """Two rows by name: `row` takes `ratio` times the time of `against`; `verdict` is of `row`."""

    row: str
    against: str
    ratio: Estimate
    verdict: str


@dataclass(frozen=True)
class StepReport:
    """One step of an ablation: the graph with one more rewrite, and its time.

    The first step of a target has no `rewrite`: it is the training graph. `applied` counts the
    replacements that no earlier step has. `bytes` are those of the weights and of every value that
    a node reads or writes, for one run. `row` names the row that was timed with this graph;
    `ratio` is its time relative to the step before, None for the first step and where one of the
    two was not timed.
    """

    target: str
    rewrite: str
    applied: int
    nodes: int | None
    parameters: int | None
    macs: int | None
    bytes: int | None
    row: str = ""
    ratio: Estimate | None = None
    verdict: str = ""


@dataclass(frozen=True)
class Layer:
    """A layer of an engine: its name and kind in the engine's words, and its seconds in one run.

    `nodes` are the nodes of the graph that it computes, as far as the engine says; `place` is the
    module around them, `rewrite` the rewrite that made them, and `floor_s` the least time that this
    machine needs for their work, None where that is not known.
    """

    name: str
    kind: str
    seconds: float
    nodes: tuple[str, ...] = ()
    place: str = ""
    rewrite: str = ""
    floor_s: float | None = None


@dataclass(frozen=True)
class Profile:
    """The layers of the row `row`, in the order in which they run, timed by the engine's profiler.

    `run_s` is the time of a profiled run by the clock of the host; a run takes less without the
    profiler. `device_s` is the time of a run without it by the events of the device, None on the
    processor.
    """

    row: str
    run_s: float
    layers: tuple[Layer, ...]
    device_s: float | None = None


@dataclass(frozen=True)
class LayerChange:
    """The time of a part of the network on one target, in the training graph and in flatfold's.

    `place` is the module of the source; `before` and `after` are the names of the layers.
    """

    target: str
    place: str
    before_s: float
    after_s: float
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class Limit:
    """What this machine does at best on a target, measured by a matrix product and by a copy.

    `flops` are floating-point operations a second, two for a multiply-accumulate; `bytes` are read
    and written a second.
    """

    target: str
    flops: float
    bytes: float


@dataclass(frozen=True)
class Box:
    """A box of a sketch: `kind` is "layer", "norm" or "other" for a node, "" for an end."""

    lines: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True)
class Sketch:
    """A part of a graph: boxes, and edges from box to box, by position."""

    boxes: tuple[Box, ...] = ()
    edges: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Block:
    """One kind of replacement: the graph before and after, and all places where it was made."""

    rewrite: str
    places: tuple[str, ...]
    before: Sketch
    after: Sketch


@dataclass(frozen=True)
class Decision:
    """A rewrite that was applied or declined, why, and where."""

    rewrite: str
    applied: bool
    code: str
    reason: str
    hint: str
    places: tuple[str, ...]


@dataclass(frozen=True)
class GraphChange:
    """How the rewritten graph of a target differs from the training graph, block by block."""

    target: str
    operators_before: dict[str, int]
    operators_after: dict[str, int]
    blocks: tuple[Block, ...]
    decisions: tuple[Decision, ...]


@dataclass(frozen=True)
class ModelReport:
    """One model: its rows, the pairs of rows that are compared, and the noise floor.

    `noise` is the ratio of the row `reference` to itself in another process (an A/A pair); None
    where it could not be measured. `decided`: whether no pair is left inconclusive. `step_rows` are
    the graphs between the training graph and flatfold's, each compared only with the step before.
    `reason` says why there are no rows.
    """

    model: str
    inputs: dict[str, tuple[int, ...]]
    reference: str = ""
    rows: tuple[Row, ...] = ()
    pairs: tuple[Pair, ...] = ()
    noise: Estimate | None = None
    rounds: int = 0
    decided: bool = False
    notes: tuple[str, ...] = ()
    steps: tuple[StepReport, ...] = ()
    step_rows: tuple[Row, ...] = ()
    profiles: tuple[Profile, ...] = ()
    moves: tuple[LayerChange, ...] = ()
    changes: tuple[GraphChange, ...] = ()
    reason: str = ""

    def row(self, name: str) -> Row | None:
        return next((row for row in self.rows if row.name == name), None)

    def pair(self, row: str, against: str) -> Pair | None:
        wanted = (pair for pair in self.pairs if (pair.row, pair.against) == (row, against))
        return next(wanted, None)

    def seconds(self, row: Row) -> float | None:
        """The time that a row is ranked by: its ratio to the training graph times that one's time.

        On a machine that drifts, a ratio of blocks that ran one after the other is more accurate
        than two medians over all rounds. The row's own median where it has no such ratio.
        """
        pairs = (pair for pair in self.pairs if pair.row == row.name)
        for pair in pairs:
            base = self.row(pair.against)
            if base is not None and base.variant == TRAINING and base.latency is not None:
                return pair.ratio.value * base.latency.value
        return row.latency.value if row.latency is not None else None

    def ranking(self) -> list[Row]:
        """The rows that may be compared, the fastest first."""
        rows = [(self.seconds(row), row) for row in self.rows if row.ranked]
        known = [(seconds, row) for seconds, row in rows if seconds is not None]
        return [row for _, row in sorted(known, key=lambda item: item[0])]

    def to_dict(self) -> dict[str, Any]:
        rows = {name: [r.to_dict() for r in getattr(self, name)] for name in ("rows", "step_rows")}
        return {**asdict(self), **rows}


@dataclass(frozen=True)
class Report:
    """The result of `flatfold.compare`: the models, and all that is needed to measure again."""

    models: tuple[ModelReport, ...]
    environment: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "environment": self.environment,
            "options": self.options,
            "limits": [asdict(limit) for limit in self.limits],
            "models": [model.to_dict() for model in self.models],
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes .html, .md or .json, by its ending. Raises InputError and OutputError."""
        from flatfold.benchmark.views.files import save

        save([self], path)

    @classmethod
    def from_dict(cls, content: Any) -> Report:
        """What `to_dict` wrote, JSON in between or not. Raises InputError for anything else."""
        schema = content.get("schema") if isinstance(content, Mapping) else None
        if schema != SCHEMA:
            raise InputError(
                f"expected a report of schema {SCHEMA}, found {schema!r}",
                hint="write one with `flatfold compare --json FILE`",
            )
        try:
            if not is_sound(content):
                raise InputError("the report is damaged: a number in it is too large, or is none")
            report = msgspec.convert(with_infinities(content), cls)
        except msgspec.ValidationError as error:
            raise InputError(f"the report is damaged: {error}") from error
        if not all(number > 0 for number in _times(report)):
            raise InputError("the report is damaged: a time in it is not positive")
        return report

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Raises InputError."""
        try:
            return cls.from_dict(json.loads(text))
        except (RecursionError, ValueError) as error:
            raise InputError(f"the report is no JSON: {error}") from error

    def rows(self) -> Iterator[tuple[ModelReport, Row]]:
        for model in self.models:
            for row in model.rows:
                yield model, row


def _times(report: Report) -> Iterator[float]:
    """All numbers that must be positive: seconds of runs, and ratios."""
    for model in report.models:
        for row in (*model.rows, *model.step_rows):
            yield from (run for process in row.samples_s for block in process for run in block)
        ratios = (*(pair.ratio for pair in model.pairs), *(step.ratio for step in model.steps))
        for ratio in filter(None, (*ratios, model.noise)):
            yield from (ratio.value, *ratio.interval)


def finite(value: Any) -> Any:
    """`value`, or None where it is infinite or no number, which JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def with_infinities(content: Any) -> Any:
    """`content` with infinity for each null of an equivalence; see `finite`."""
    if isinstance(content, Mapping):
        return {
            name: {n: math.inf if v is None else v for n, v in value.items()}
            if name == "equivalence" and isinstance(value, Mapping)
            else with_infinities(value)
            for name, value in content.items()
        }
    if isinstance(content, list | tuple):
        return [with_infinities(value) for value in content]
    return content


def is_sound(content: Any, largest: float = LARGEST) -> bool:
    """Whether all numbers are finite and not too large; JSON may hold NaN and long integers."""
    if isinstance(content, Mapping):
        return all(
            is_sound(value, sys.float_info.max if name == "equivalence" else largest)
            for name, value in content.items()
        )
    if isinstance(content, list | tuple):
        return all(is_sound(value, largest) for value in content)
    return not isinstance(content, int | float) or abs(content) <= largest
