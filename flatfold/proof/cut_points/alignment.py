"""Which value of one graph may be which value of another: proposals, by their numbers.

Both graphs run on the same random input, every value kept. Values of one shape whose numbers agree
are proposed as a pair, the closest first. Nothing is concluded from a pair; it is a place where
both graphs may be cut, and what lies between cuts is compared on its own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.errors import BuildError
from flatfold.proof.network.inputs import draw, settings
from flatfold.proof.network.run import PlainSession, specs_of

Array = npt.NDArray[Any]

MEMORY = 1 << 27  # elements that are kept of one run
SAMPLED = 512  # elements of a value that are compared
CLOSE = 1e-3  # of the largest of them; half precision drifts further
CLOSE_HALF = 3e-2
ALIKE = 0.5  # of the root mean square
ROUNDING = 1e-5  # closer than this, values are told apart by their names and places


@dataclass(frozen=True)
class Numbers:
    """What the values of a graph are on one input: their shapes, some elements, and the input."""

    shapes: dict[ir.Value, tuple[int, ...]]
    samples: dict[ir.Value, Array]
    order: dict[ir.Value, int]


@dataclass
class Alignment:
    """Pairs of values, from the first graph to the second and back."""

    forth: dict[ir.Value, ir.Value] = field(default_factory=dict)
    back: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def add(self, a: ir.Value, b: ir.Value) -> bool:
        """Whether the pair is in; not if one of the two has another partner."""
        if self.forth.get(a, b) is not b or self.back.get(b, a) is not a:
            return False
        self.forth[a], self.back[b] = b, a
        return True

    def without(self, a: ir.Value) -> Alignment:
        """All pairs but that of `a`."""
        forth = {mine: other for mine, other in self.forth.items() if mine is not a}
        return Alignment(forth, {other: mine for mine, other in forth.items()})

    def put(self, a: ir.Value, b: ir.Value) -> None:
        """The pair, in place of those that either is in."""
        self.back.pop(self.forth.pop(a, b), None)
        self.forth.pop(self.back.pop(b, a), None)
        self.add(a, b)


def numbers_of(model: ir.Model, feeds: Mapping[str, Array]) -> Numbers:
    """Run `model` with optimisation off and look at every value. Raises BuildError."""
    values = [v for v in _values(model.graph) if _is_tensor(v)]
    shapes, samples = {}, {}
    for part in _in_memory(values):
        for value, array in values_of(model, feeds, part).items():
            shapes[value], samples[value] = np.shape(array), _some(array)
    return Numbers(shapes, samples, {v: i for i, v in enumerate(_values(model.graph))})


def _in_memory(values: Sequence[ir.Value]) -> Iterator[list[ir.Value]]:
    """As many values as MEMORY holds at a time; those of open size count for little."""
    part, size = [], 0
    for value in values:
        dims = value.shape.dims if value.shape is not None else ()
        size += math.prod(dim for dim in dims if isinstance(dim, int))
        part.append(value)
        if size > MEMORY:
            yield part
            part, size = [], 0
    yield part


def values_of(
    model: ir.Model, feeds: Mapping[str, Array], values: Sequence[ir.Value]
) -> dict[ir.Value, Array]:
    """What `values` of the main graph are when it runs with optimisation off."""
    watched = model.clone()
    made = {v.name: v for v in _values(watched.graph)}
    asked = {v.name for v in values} - set(feeds) - {v.name for v in watched.graph.outputs}
    watched.graph.outputs.extend(made[name] for name in made if name in asked)
    arrays = PlainSession(watched)(feeds)
    found = dict(zip((v.name for v in watched.graph.outputs), arrays, strict=True)) | dict(feeds)
    return {value: np.asarray(found[value.name]) for value in values}


def first_numbers(model: ir.Model, seed: int = 0) -> tuple[dict[str, Array], Numbers]:
    """A random input, of the first size that `model` runs on, and what its values then are.

    Raises InputError where a type or rank is unknown, BuildError where it runs on none.
    """
    specs = specs_of(model)
    *others, last = settings(specs)
    for shapes in others:
        feeds = dict(next(draw(specs, shapes, seed))[1])
        with suppress(BuildError):
            return feeds, numbers_of(model, feeds)
    feeds = dict(next(draw(specs, last, seed))[1])
    return feeds, numbers_of(model, feeds)


def propose(a: ir.Model, b: ir.Model, of_a: Numbers, of_b: Numbers) -> Alignment:
    """Inputs and outputs pair by place, other values by their numbers."""
    pairs = Alignment()
    for mine, other in zip(_fed(a.graph), _fed(b.graph), strict=True):
        pairs.add(mine, other)
    ends = set(a.graph.outputs), set(b.graph.outputs)
    for mine, other in zip(a.graph.outputs, b.graph.outputs, strict=True):
        pairs.add(mine, other)
    buckets: dict[Any, tuple[list[ir.Value], list[ir.Value]]] = defaultdict(lambda: ([], []))
    for side, numbers in enumerate((of_a, of_b)):
        for value, sample in numbers.samples.items():
            if value not in ends[side] and _tells(sample):
                buckets[numbers.shapes[value], sample.dtype][side].append(value)
    ranked = [
        pair for mine, others in buckets.values() for pair in _close(mine, others, of_a, of_b)
    ]
    for *_, x, y in sorted(ranked, key=lambda pair: pair[:5]):
        pairs.add(x, y)
    return pairs


def _close(
    mine: list[ir.Value], others: list[ir.Value], of_a: Numbers, of_b: Numbers
) -> Iterator[tuple[float, bool, float, int, int, ir.Value, ir.Value]]:
    """Pairs of one shape that agree, to be sorted: the closest first, then the best in place."""
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


def in_sequence(
    mine: Sequence[ir.Node],
    others: Sequence[ir.Node],
    of_a: Numbers,
    of_b: Numbers,
    known: Alignment,
) -> Iterator[tuple[ir.Value, ir.Value]]:
    """What lies around operators that follow one another in the same way on both sides.

    For where the numbers part ways: what comes after a difference can still be told apart.
    """
    keys: list[list[Any]] = [
        [known.forth.get(n.outputs[0]) or _kind(n, of_a) for n in mine],
        [n.outputs[0] if n.outputs[0] in known.back else _kind(n, of_b) for n in others],
    ]
    for block in SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_matching_blocks():
        for step in range(block.size):
            x, y = mine[block.a + step], others[block.b + step]
            for one, two in ((x.inputs[0], y.inputs[0]), (x.outputs[0], y.outputs[0])):
                if one is None or two is None or one.is_initializer() or two.is_initializer():
                    continue
                if of_a.shapes.get(one) == of_b.shapes.get(two):
                    yield one, two


def _kind(node: ir.Node, numbers: Numbers) -> Any:
    return node.op_type, node.domain, *(numbers.shapes.get(v) for v in node.outputs)


def alike(one: Array | None, two: Array | None) -> bool:
    """Whether most of two values is the same, as where one channel is wrong."""
    if one is None or two is None or one.shape != two.shape or one.dtype.kind != "f":
        return False
    gap, size = (float(np.linalg.norm(array)) for array in (two - one, one))
    return gap <= ALIKE * size


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from _fed(graph)
    for node in graph:
        yield from node.outputs


def _fed(graph: ir.Graph) -> list[ir.Value]:
    return [value for value in graph.inputs if not value.is_initializer()]


def _is_tensor(value: ir.Value) -> bool:
    return isinstance(value.type, ir.TensorType) and bool(value.name)


def _some(array: Array) -> Array:
    flat = array.reshape(-1)
    if flat.size <= SAMPLED:
        return flat
    return flat[np.random.default_rng(flat.size).choice(flat.size, SAMPLED, replace=False)]


def agree(one: Array, two: Array) -> bool:
    """Whether elements of two values are the same numbers, as far as proposals go."""
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, two))
    limit = _limit(one) * np.max(np.abs(one), initial=0.0)
    return bool(np.max(np.abs(one - two), initial=0.0) <= limit)


def _limit(sample: Array) -> float:
    return CLOSE_HALF if sample.dtype.itemsize < 4 else CLOSE


def _tells(sample: Array) -> bool:
    """Whether numbers say which value they are of: finite floats, not all the same."""
    if sample.dtype.kind != "f" or not np.all(np.isfinite(sample)):
        return False
    return sample.size > 0 and float(np.max(np.abs(sample))) > 0
