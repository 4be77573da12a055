"""What `optimize` returns: the rewritten graph, its counts, the remarks and the proof."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatfold.precision import IN_CODES

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from flatfold.passes import Remark
    from flatfold.proof import Certificate, Entry, Equivalence, Reference


LEAST_DECIBELS = 10.0  # of a graph in 8 bits: below, a tenth of the signal's power is noise


@dataclass(frozen=True)
class Rounded:
    """What half the bits change: a graph with types of its own beside the same graph in float32.

    `nodes` of all `total` compute in `precision`, between `casts` Casts. On `runs` runs, on data
    that was `given` or drawn, the outputs have `decibels` of signal over the difference, in the
    worst output, None where the graph cannot be run here; and the same largest entry in `agreement`
    of all rows, None where the outputs are no rows of scores or the data was drawn. `layers` has
    the decibels that each layer and each sum is predicted to keep, by the name of its node.

    A graph in 8 bits was also run on inputs that were held out: `held_runs`, `held_decibels` and
    `held_agreement`. `lost` is what it loses, at most `max_drop` where that was asked for.
    """

    precision: str
    nodes: int
    total: int
    casts: int
    runs: int
    given: bool
    decibels: float | None
    agreement: float | None
    layers: Mapping[str, float] = field(default_factory=dict)
    held_runs: int = 0
    held_decibels: float | None = None
    held_agreement: float | None = None
    lost: float | None = None
    max_drop: float | None = None

    @property
    def verdict(self) -> str:
        """Of a graph in 8 bits "quantized", "degraded", or "speed only" on random data."""
        if self.precision not in IN_CODES:
            return ""
        if not self.given:
            return "speed only"
        measured = [x for x in (self.decibels, self.held_decibels) if x is not None]
        if min(measured, default=LEAST_DECIBELS) < LEAST_DECIBELS:
            return "degraded"
        allowed = self.lost is None or self.max_drop is None or self.lost <= self.max_drop
        return "quantized" if allowed else "degraded"

    def __str__(self) -> str:
        text = self._on_data()
        if self.held_decibels is not None:
            text += f"; {self.held_decibels:.0f} dB{_agreeing(self.held_agreement, self.held_runs)}"
            text += f" in {self.held_runs} runs that were held out"
        if self.max_drop is not None and self.lost is not None:
            text += f"; {max(self.lost, 0.0):.2%} lost of {self.max_drop:.2%} allowed"
        return f"{self.verdict}: {text}" if self.verdict else text

    def _on_data(self) -> str:
        data = "runs on the data given" if self.given else "runs on random data"
        text = f"{self.nodes} of {self.total} nodes in {self.precision}"
        if self.decibels is None:
            return f"{text}, what they change was not measured"
        text += f", {self.decibels:.0f} dB"
        text += _agreeing(self.agreement, self.runs if self.verdict else 0)
        return f"{text} in {self.runs} {data}"


def _agreeing(share: float | None, runs: int) -> str:
    """How many have the same largest score; with an interval where `runs` are few."""
    if share is None:
        return ""
    text = f" and {share:.1%} the same largest score"
    if not runs:
        return text
    low, high = interval_of_share(share, runs)
    return f"{text} [{low:.1%}, {high:.1%}]"


def interval_of_share(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share that was seen in `count` cases (Wilson 1927)."""
    z = 1.959964
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) * z
    reach /= 1 + z * z / count
    return max(centre - reach, 0.0), min(centre + reach, 1.0)


@dataclass(frozen=True)
class Optimized:
    """A rewritten graph, every decision on the way to it, and the proof.

    `original` is the graph as exported or read; `training` the same without what the exporter left
    in it, which is what "before" means wherever counts and latencies are compared; `graph` the
    rewritten one. `equivalence` and `changes` are about the rewritten graph in float32; where
    `graph` has other types, that is `float_graph`, and `rounded` says what they change.
    `recorded` is the certificate of a result that was read from a record.
    `reference` returns a function that computes the original in float64, or None where there is no
    module to do it.
    """

    name: str
    graph: ir.Model
    original: ir.Model
    training: ir.Model
    remarks: tuple[Remark, ...]
    equivalence: Equivalence
    changes: tuple[Entry, ...] | None = None
    rounded: Rounded | None = None
    float_graph: ir.Model | None = None
    recorded: Certificate | None = field(default=None, repr=False, compare=False)
    reference: Callable[[], Reference | None] = field(
        default=lambda: None, repr=False, compare=False
    )

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The rewritten graph as an ONNX model with all weights in it; beyond 2 GiB use `save`."""
        import onnx_ir as ir

        return ir.to_proto(self.graph)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the rewritten graph as an .onnx file, all or nothing.

        Weights of more than 1 GiB go to `<name>.data` in the same folder. Raises OutputError.
        """
        from flatfold.backends.store import save_model

        save_model(self.graph, Path(path))

    @cached_property
    def before(self) -> Summary:
        """Counts of the training form."""
        return summarise(self.training)

    @cached_property
    def after(self) -> Summary:
        """Counts of the rewritten graph."""
        return summarise(self.graph)

    def certificate(self) -> Certificate | None:
        """What was proved of each change between `training` and `graph`; None if nothing was."""
        from flatfold.proof import Certificate, fingerprint

        if self.changes is None or self.recorded is not None:
            return self.recorded
        proved = self.graph if self.float_graph is None else self.float_graph
        return Certificate(fingerprint(self.training), fingerprint(proved), self.changes)

    def record(self) -> dict[str, Any]:
        """What the manifest of an engine says about the graph: plain JSON values."""
        return {
            "name": self.name,
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "equivalence": self.equivalence.to_dict(),
            "remarks": [asdict(remark) for remark in self.remarks],
            "rounded": None if self.rounded is None else asdict(self.rounded),
        }

    @classmethod
    def from_record(
        cls,
        record: Mapping[str, Any],
        certificate: Mapping[str, Any] | None,
        original: ir.Model,
        training: ir.Model,
        graph: ir.Model,
    ) -> Optimized:
        """The result that `record()` and `certificate()` were written from, given its graphs."""
        from flatfold.passes import Remark
        from flatfold.proof import Certificate, Equivalence

        rounded = record.get("rounded")
        proved = None if certificate is None else Certificate.from_dict(certificate)
        return cls(
            record["name"],
            graph,
            original,
            training,
            tuple(map(Remark.from_dict, record["remarks"])),
            Equivalence.from_dict(record["equivalence"]),
            None if proved is None else proved.changes,
            None if rounded is None else Rounded(**rounded),
            recorded=proved,
        )


@dataclass(frozen=True)
class Summary:
    """Counts of a graph. `macs`: multiply-accumulates of Conv and matrix products for one run.

    `parameters` counts floating-point weights without the running statistics of
    BatchNormalization. `macs` is None where a size is open.
    """

    nodes: int
    operators: dict[str, int]
    parameters: int
    macs: int | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarise(model: ir.Model, batch: int = 1) -> Summary:
    """Counts over the main graph and every subgraph; an open batch axis counts as `batch`."""
    import onnx_ir as ir

    nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
    operators = Counter(node.op_type for node in nodes)
    macs = [macs_of(node, batch) for node in nodes]
    weights = {
        value: math.prod(shape_of(value) or ())
        for node in nodes
        for index, value in enumerate(node.inputs)
        if value is not None and _is_parameter(node, index, value)
    }
    return Summary(
        nodes=len(nodes),
        operators=dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        parameters=sum(weights.values()),
        macs=None if None in macs else sum(number or 0 for number in macs),
    )


STATISTICS = (3, 4)  # the inputs of BatchNormalization that are no parameters


def _is_parameter(node: ir.Node, index: int, value: ir.Value) -> bool:
    if node.op_type == "BatchNormalization" and index in STATISTICS:
        return False
    floating = value.dtype is not None and value.dtype.is_floating_point()
    return value.is_initializer() and floating and math.prod(shape_of(value) or (1,)) > 1


def macs_of(node: ir.Node, batch: int = 1) -> int | None:
    """Multiply-accumulates of a Conv or a product of matrices, 0 of other nodes.

    An open batch axis counts as `batch`; None where another size is open.
    """
    if node.op_type == "Conv":
        weight, out = shape_of(node.inputs[1]), shape_of(node.outputs[0], batch)
        return None if weight is None or out is None else math.prod(weight[1:]) * math.prod(out)
    if node.op_type in ("Gemm", "MatMul"):
        left, out = shape_of(node.inputs[0], batch), shape_of(node.outputs[0], batch)
        return None if left is None or out is None else left[-1] * math.prod(out)
    return 0


def shape_of(value: ir.Value | None, batch: int | None = None) -> tuple[int, ...] | None:
    """The sizes of a value, an open first one as `batch`; None where one is open."""
    if value is None or value.shape is None:
        return None
    dims = list(value.shape.dims)
    if batch is not None and dims and not isinstance(dims[0], int):
        dims[0] = batch
    sizes = tuple(dim for dim in dims if isinstance(dim, int))
    return sizes if len(sizes) == len(dims) else None
