"""Why the times are what they are: plain data, worked out beside what `data` holds.

What each rewrite contributed, what each layer of an engine takes, what this machine could do at
best, and the graph before and after, block by block.
"""

from __future__ import annotations

from dataclasses import dataclass

from flatfold.comparing.paired import Estimate


@dataclass(frozen=True)
class Step:
    """The graph once a rewrite is added to those before it, all of them applied from the start.

    The first step of a target has no `rewrite`: it is the training graph. `applied` counts the
    replacements that were not made before. `bytes` are those of the weights and of every value that
    a node reads or writes, for one run. `row` names the row that was timed with this graph;
    `ratio` is its time beside that of the step before, None for the first and where one of the two
    was not timed.
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
    """What an engine runs as one: its name and kind in the engine's words, seconds of one run.

    `nodes` are those of the graph that it computes, as far as the engine tells; `place` is the
    module of the source around them, `rewrite` what made them, and `floor_s` the least time that
    this machine could take for their work; None where it is not known.
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
    """The layers of the row `row`, from the engine's own profiler, in the order in which they run.

    `run_s` is the time of a whole run while it was profiled, which is more than without, by the
    clock of the host; `device_s` that of a run without the profiler by the events of the device,
    None for the processor.
    """

    row: str
    run_s: float
    layers: tuple[Layer, ...]
    device_s: float | None = None


@dataclass(frozen=True)
class Move:
    """A part of the network in two profiles of one target: seconds in the training graph, and now.

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
    """What this machine does at best on a target: a large product of matrices, and a large copy.

    `flops` are floating-point operations a second, two for a multiply-accumulate; `bytes` those
    read and written a second.
    """

    target: str
    flops: float
    bytes: float


@dataclass(frozen=True)
class Box:
    """A node of a sketch, or an end of it, which has no `kind`: "layer", "norm", "other" or ""."""

    lines: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True)
class Sketch:
    """A piece of a graph: boxes, and which of them feeds which, by position."""

    boxes: tuple[Box, ...] = ()
    edges: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Block:
    """What one rewrite replaced and by what, and all the places of the network where it did."""

    rewrite: str
    places: tuple[str, ...]
    before: Sketch
    after: Sketch


@dataclass(frozen=True)
class Decision:
    """A kind of decision of the rewrites: what was done or left, why, and where."""

    rewrite: str
    applied: bool
    code: str
    reason: str
    hint: str
    places: tuple[str, ...]


@dataclass(frozen=True)
class Changes:
    """The rewritten graph of a target beside the training graph, block by block."""

    target: str
    operators_before: dict[str, int]
    operators_after: dict[str, int]
    blocks: tuple[Block, ...]
    decisions: tuple[Decision, ...]
