"""Alignment: which values of two graphs may be equal, proposed from their numbers on one input.

Both graphs run on the same random input, and every value is recorded. Values of the same shape
whose numbers agree are proposed as a pair, the closest first. A pair proves nothing: it is a
candidate cut point, and the cones between cut points are compared one by one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.errors import InputError
from flatfold.proof.network.arithmetic import open_session
from flatfold.proof.network.inputs import draw_feeds, input_specs
from flatfold.proof.network.sizes import Shapes, elements_at, sizes_that_run

Array = npt.NDArray[Any]

MEMORY = 1 << 27  # elements recorded in one run
# In a graph of more elements values are not recorded: for each MEMORY of them all of it is run.
MOST_RECORDED = 1 << 29
SAMPLED = 512  # elements of a value that are compared
CLOSE = 1e-3  # largest difference of a pair, over the largest element
CLOSE_HALF = 3e-2  # the same for half precision, which drifts further
MOSTLY = 0.5  # largest difference of values that are mostly equal, as a ratio of Euclidean norms
ROUNDING = 1e-5  # differences below this do not rank pairs; names and positions do


@dataclass(frozen=True)
class RecordedValues:
    """The values of a graph on one input: their shapes, a sample of their elements, their order."""

    shapes: dict[ir.Value, tuple[int, ...]]
    samples: dict[ir.Value, Array]
    order: dict[ir.Value, int]


@dataclass
class Alignment:
    """Pairs of values: from the first graph, a, to the second, b, and from b to a."""

    to_b: dict[ir.Value, ir.Value] = field(default_factory=dict)
    to_a: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def add(self, a: ir.Value, b: ir.Value) -> bool:
        """Add the pair unless one of the two has another partner; returns whether it is in."""
        if self.to_b.get(a, b) is not b or self.to_a.get(b, a) is not a:
            return False
        self.to_b[a], self.to_a[b] = b, a
        return True

    def without(self, a: ir.Value) -> Alignment:
        """All pairs but that of `a`."""
        to_b = {mine: other for mine, other in self.to_b.items() if mine is not a}
        return Alignment(to_b, {other: mine for mine, other in to_b.items()})

    def replace(self, a: ir.Value, b: ir.Value) -> None:
        """Add the pair; pairs that either is in are removed."""
        self.to_a.pop(self.to_b.pop(a, b), None)
        self.to_b.pop(self.to_a.pop(b, a), None)
        self.add(a, b)


def record_values(model: ir.Model, feeds: Mapping[str, Array]) -> RecordedValues:
    """Run `model` with optimisation off and record every value. Raises BuildError."""
    values = [v for v in _values(model.graph) if _is_tensor(v)]
    shapes, samples = {}, {}
    for part in _in_memory(values):
        for value, array in evaluate_values(model, feeds, part).items():
            shapes[value], samples[value] = np.shape(array), _sample(array)
    return RecordedValues(shapes, samples, {v: i for i, v in enumerate(_values(model.graph))})


def _in_memory(values: Sequence[ir.Value]) -> Iterator[list[ir.Value]]:
    """Lists of values that MEMORY holds at a time; open dimensions count as 1."""
    part, size = [], 0
    for value in values:
        dims = value.shape.dims if value.shape is not None else ()
        size += math.prod(dim for dim in dims if isinstance(dim, int))
        part.append(value)
        if size > MEMORY:
            yield part
            part, size = [], 0
    yield part


def evaluate_values(
    model: ir.Model, feeds: Mapping[str, Array], values: Sequence[ir.Value]
) -> dict[ir.Value, Array]:
    """The arrays of `values` of the main graph when it runs with optimisation off."""
    copy = model.clone()
    by_name = {v.name: v for v in _values(copy.graph)}
    missing = {v.name for v in values} - set(feeds) - {v.name for v in copy.graph.outputs}
    copy.graph.outputs.extend(by_name[name] for name in by_name if name in missing)
    outputs = open_session(copy)(feeds)
    arrays = dict(zip((v.name for v in copy.graph.outputs), outputs, strict=True)) | dict(feeds)
    return {value: np.asarray(arrays[value.name]) for value in values}


def record_first_input(
    model: ir.Model, seed: int = 0, sizes: Sequence[Shapes] | None = None
) -> tuple[dict[str, Array], RecordedValues]:
    """A random input, of the first of `sizes` or of a size found, and the values recorded on it.

    Raises InputError where a type or rank is unknown, or where there are more than MOST_RECORDED
    elements, BuildError where it does not run.
    """
    shapes = (sizes or sizes_that_run(model))[0]
    if (count := elements_at(model, shapes)) > MOST_RECORDED:
        raise InputError(
            f"the graph has {count} elements in its values, of which {MOST_RECORDED} are recorded",
            hint="compare the graphs at a smaller size",
        )
    feeds = dict(next(draw_feeds(input_specs(model), shapes, seed))[1])
    return feeds, record_values(model, feeds)


def propose_pairs(
    a: ir.Model, b: ir.Model, of_a: RecordedValues, of_b: RecordedValues
) -> Alignment:
    """Pairs of inputs and outputs by position, and of other values by their numbers."""
    pairs = Alignment()
    for mine, other in zip(_runtime_inputs(a.graph), _runtime_inputs(b.graph), strict=True):
        pairs.add(mine, other)
    ends = set(a.graph.outputs), set(b.graph.outputs)
    for mine, other in zip(a.graph.outputs, b.graph.outputs, strict=True):
        pairs.add(mine, other)
    buckets: dict[Any, tuple[list[ir.Value], list[ir.Value]]] = defaultdict(lambda: ([], []))
    for side, numbers in enumerate((of_a, of_b)):
        for value, sample in numbers.samples.items():
            if value not in ends[side] and _is_identifying(sample):
                buckets[numbers.shapes[value], sample.dtype][side].append(value)
    ranked = [
        pair for mine, others in buckets.values() for pair in _close_pairs(mine, others, of_a, of_b)
    ]
    for *_, x, y in sorted(ranked, key=lambda pair: pair[:5]):
        pairs.add(x, y)
    return pairs


def _close_pairs(
    mine: list[ir.Value], others: list[ir.Value], of_a: RecordedValues, of_b: RecordedValues
) -> Iterator[tuple[float, bool, float, int, int, ir.Value, ir.Value]]:
    """Pairs of one shape that agree, with their sort key: difference, names, distance in order."""
    if not mine or not others:
        return
    left, right = (
        np.stack([numbers.samples[v] for v in values]).astype(np.float64)
        for values, numbers in ((mine, of_a), (others, of_b))
    )
    limit = _limit(of_a.samples[mine[0]])
    for i, row in enumerate(left):
        gaps = np.abs(right - row).max(axis=1) / np.abs(row).max()
        for j in np.flatnonzero(gaps <= limit):
            x, y = mine[i], others[j]
            place = of_a.order[x] / len(of_a.order) - of_b.order[y] / len(of_b.order)
            gap = 0.0 if gaps[j] <= ROUNDING else float(gaps[j])
            yield gap, x.name != y.name, abs(place), of_a.order[x], of_b.order[y], x, y


def pairs_in_sequence(
    mine: Sequence[ir.Node],
    others: Sequence[ir.Node],
    of_a: RecordedValues,
    of_b: RecordedValues,
    known: Alignment,
) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Inputs and outputs of operators that occur in the same sequence in both graphs.

    Used after the first difference, from where on the numbers of the two graphs no longer agree.
    """
    keys: list[list[Any]] = [
        [known.to_b.get(n.outputs[0]) or _kind(n, of_a) for n in mine],
        [n.outputs[0] if n.outputs[0] in known.to_a else _kind(n, of_b) for n in others],
    ]
    for block in SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_matching_blocks():
        for step in range(block.size):
            x, y = mine[block.a + step], others[block.b + step]
            first = zip(x.inputs[:1], y.inputs[:1], strict=False)
            for one, two in (*first, (x.outputs[0], y.outputs[0])):
                if one is None or two is None or one.is_initializer() or two.is_initializer():
                    continue
                if of_a.shapes.get(one) == of_b.shapes.get(two):
                    yield one, two


def _kind(node: ir.Node, numbers: RecordedValues) -> Any:
    return node.op_type, node.domain, *(numbers.shapes.get(v) for v in node.outputs)


def mostly_equal(one: Array | None, two: Array | None) -> bool:
    """Whether two values are the same for the most part, as where one channel is wrong."""
    if one is None or two is None or one.shape != two.shape or one.dtype.kind != "f":
        return False
    gap, size = (float(np.linalg.norm(array)) for array in (two - one, one))
    return gap <= MOSTLY * size


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from _runtime_inputs(graph)
    for node in graph:
        yield from node.outputs


def _runtime_inputs(graph: ir.Graph) -> list[ir.Value]:
    return [value for value in graph.inputs if not value.is_initializer()]


def _is_tensor(value: ir.Value) -> bool:
    return isinstance(value.type, ir.TensorType) and bool(value.name)


def _sample(array: Array) -> Array:
    flat = array.reshape(-1)
    if flat.size <= SAMPLED:
        return flat
    return flat[np.random.default_rng(flat.size).choice(flat.size, SAMPLED, replace=False)]


def nearly_equal(one: Array, two: Array) -> bool:
    """Whether samples of two values agree closely enough to propose them as a pair."""
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, two))
    limit = _limit(one) * np.max(np.abs(one), initial=0.0)
    return bool(np.max(np.abs(one - two), initial=0.0) <= limit)


def _limit(sample: Array) -> float:
    return CLOSE_HALF if sample.dtype.itemsize < 4 else CLOSE


def _is_identifying(sample: Array) -> bool:
    """Whether numbers can identify a value: finite floats that are not all 0."""
    if sample.dtype.kind != "f" or not np.all(np.isfinite(sample)):
        return False
    return sample.size > 0 and float(np.max(np.abs(sample))) > 0
