"""Sizes for the open axes of a graph's inputs: likely ones are tried until the graph runs.

Exporters leave the batch, the size of an image or the length of a sound open, and a network takes
some sizes only: multiples of 32, or the one that its last layer was made for. One symbol has one
size wherever it stands, and an axis whose channels the first layer counts has that many.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.errors import BuildError, InputError
from flatfold.proof.network.fixed_sizes import solved_extents
from flatfold.proof.network.inputs import Feeds, InputSpec, draw_feeds, input_specs

Shapes = dict[str, tuple[int, ...]]
Run = Callable[[Feeds], Any]

BATCHES = (2, 1)
OTHER_BATCHES = (4, 3, 8, 5, 6, 7, 16, 32)  # for a graph whose constants ask for one

# By the number of open axes of an input that are neither batch nor channels: first sizes that are
# odd, even and not square, which show most, then those that networks are made for.
LENGTHS = (
    *(64, 65, 512, 576, 256, 128, 100, 1, 16, 1024, 1600, 4000, 4096, 8000, 8192, 16000, 16384),
    *(32000, 32768, 48000, 65536, 3, 8, 24, 32, 48, 80, 96, 160, 320, 400, 640, 1280),
)
SQUARES = (96, 128, 160, 224, 256, 320, 48, 192, 288, 384, 416, 448, 299, 300, 512, 640)
EXTENTS: dict[int, tuple[tuple[int, ...], ...]] = {
    1: tuple((n,) for n in (*LENGTHS, *range(1, 8), *range(8, 257, 8))),
    2: (
        *((64, 48), (65, 49), (64, 96), (32, 32), (64, 49), (65, 48), (48, 320)),
        *((n, n) for n in (*SQUARES, *range(8, 129, 8), 65)),
        *((n, m) for n, m in itertools.product((1, 2, 3, 4, 64), repeat=2)),
        *((n, n) for n in (5, 6, 7, *range(136, 257, 8))),
    ),
    3: (
        *((16, 12, 10), (17, 13, 9)),
        *((n, n, n) for n in (16, 32, 64, 96, 128, 8, 24, 48, *range(1, 8))),
    ),
}
QUICK = 4  # of these are tried before any is solved for, which takes longer
MOST_PROBES = 150
MOST_SECONDS = 20.0
MORE_PROBES = 6  # for a second size, once one is found
MOST_ELEMENTS = 1 << 23  # of all inputs of a probe together

# Operators whose other operands may make the result larger than the first, by more than MOST_ADDED.
ENLARGING = ("Expand", "Pad", "Resize", "Tile", "Upsample")
MOST_ADDED, MOST_AXES = 1 << 10, 64

# Operators that pass on the shape of their first input, so that what reads them reads it.
SAME_SHAPE = ("Cast", "Identity", "Relu", "Clip", "Mul", "Sub", "Add", "Div", "Sigmoid", "Pow")


def sizes_that_run(
    model: ir.Model,
    given: Mapping[str, Sequence[int | None]] | None = None,
    run: Run | None = None,
) -> list[Shapes]:
    """One or two settings of all inputs' shapes at which `model` runs, the first one to be used.

    A graph without open axes has one setting, which is not tried. `given` has shapes that are
    fixed, but for sizes that are None; a symbol fixed in one of them is fixed in the others too.
    `run` runs the graph on feeds and raises BuildError; without it ONNX Runtime does, with
    optimisation off. Raises InputError where no size is found, with the runtime's reason.
    """
    axes = _Axes.of(model, input_specs(model), given or {})
    if not axes.open:
        return [axes.shapes({})]
    if run is None:
        from flatfold.proof.network.arithmetic import open_session

        run = open_session(model, "the graph")
    return _search(model, axes, run)


@dataclass(frozen=True)
class _Axes:
    """The axes of all inputs. `known`: their sizes, by key; `open`: the other keys, by kind.

    The key of an axis is its symbol, or else its input and position. The kind is "batch", or the
    place of the axis among those of its input that are neither batch nor known, and their number.
    """

    specs: Sequence[InputSpec]
    known: Mapping[object, int]
    open: Mapping[object, str | tuple[int, int]]

    @classmethod
    def of(
        cls, model: ir.Model, specs: Sequence[InputSpec], given: Mapping[str, Sequence[int | None]]
    ) -> _Axes:
        known: dict[object, int] = {}
        for spec in specs:
            for axis, size in enumerate(given.get(spec.name, ())):
                if size is not None:
                    known[_key(spec, axis)] = size
        by_name = {spec.name: spec for spec in specs}
        for value in model.graph.inputs:
            if value.name in by_name:
                for axis, size in told_by_readers(value).items():
                    known.setdefault(_key(by_name[value.name], axis), size)
        batches = _batch_keys(specs)
        open_axes: dict[object, str | tuple[int, int]] = {}
        for spec in specs:
            keys = [_key(spec, axis) for axis in range(len(spec.shape))]
            unknown = [key for key in keys if not isinstance(key, int) and key not in known]
            inner = [key for key in unknown if key not in batches]
            for key in unknown:
                kind = "batch" if key in batches else (inner.index(key), len(inner))
                open_axes.setdefault(key, kind)
        return cls(specs, known, open_axes)

    def shapes(self, chosen: Mapping[object, int]) -> Shapes:
        """The shape of each input with these sizes of the open axes."""
        sizes = {**chosen, **self.known}
        return {
            spec.name: tuple(
                key if isinstance(key, int) else sizes[key]
                for key in (_key(spec, axis) for axis in range(len(spec.shape)))
            )
            for spec in self.specs
        }

    @property
    def rank(self) -> int:
        """The most open axes of one input that are no batch."""
        kinds = self.open.values()
        return max((kind[1] for kind in kinds if not isinstance(kind, str)), default=0)

    def shapes_of(self, extents: Sequence[int], batch: int = 1) -> Shapes:
        """The shape of each input with these extents of the open axes that are no batch."""
        return self.shapes({key: _size(kind, batch, extents) for key, kind in self.open.items()})

    def settings(
        self,
        solved: Callable[[], Iterator[tuple[int, ...]]],
        batches: Callable[[], Sequence[int]],
    ) -> Iterator[tuple[tuple[int, ...], int]]:
        """(extents, batch) worth a try: a few small ones, those solved for, and likely ones."""
        extents = EXTENTS.get(min(self.rank, 3), ((),))
        yield from zip(extents[:2], BATCHES, strict=False)
        for extent in itertools.chain(extents[:QUICK], solved()):
            yield from ((extent, batch) for batch in batches())
        yield from ((extents[0], batch) for batch in OTHER_BATCHES)
        for extent in extents[QUICK:]:
            yield from ((extent, batch) for batch in batches())


def _batch_keys(specs: Sequence[InputSpec]) -> set[object]:
    """Axis 0; beside an input where that is open, the first open axis: [layers, batch, ...]."""
    batches = {_key(s, 0) for s in specs if len(s.shape) > 1 and not isinstance(s.shape[0], int)}
    for spec in specs if batches else ():
        axes = [axis for axis, size in enumerate(spec.shape) if not isinstance(size, int)]
        if len(spec.shape) > 2 and axes and not {_key(spec, axis) for axis in axes} & batches:
            batches.add(_key(spec, axes[0]))
    return batches


def _key(spec: InputSpec, axis: int) -> object:
    size = spec.shape[axis]
    return size if isinstance(size, int) else size or (spec.name, axis)


def _size(kind: str | tuple[int, int], batch: int, extent: Sequence[int]) -> int:
    if isinstance(kind, str):
        return batch
    return extent[min(kind[0], len(extent) - 1)] if extent else 1


def _search(model: ir.Model, axes: _Axes, run: Run) -> list[Shapes]:
    """Two settings, of different extents where two are found, or else one."""
    found: dict[tuple[int, ...], Shapes] = {}
    spare: Shapes | None = None  # another batch of the only extents
    reason, left = "", MOST_PROBES
    tried: set[tuple[tuple[int, ...], ...]] = set()

    def solved() -> Iterator[tuple[int, ...]]:
        return iter(()) if found else solved_extents(model, axes.rank, axes.shapes_of)

    def batches() -> Sequence[int]:
        """The batch that no setting has yet comes first."""
        return BATCHES if found and last == BATCHES[1] else BATCHES[::-1]

    last, start, enlarges = 0, time.monotonic(), enlarges_inputs(model)
    for extents, batch in itertools.islice(axes.settings(solved, batches), 4 * MOST_PROBES):
        late = time.monotonic() - start > MOST_SECONDS
        if not left or late or len(found) == 2 or (spare and not axes.rank):
            break
        shapes = axes.shapes_of(extents, batch)
        size, key = sum(map(math.prod, shapes.values())), tuple(shapes.values())
        if key in tried or size > MOST_ELEMENTS or (extents in found and spare):
            continue
        left, tried = left - 1, tried | {key}
        refusal = _refusal(model, axes.specs, shapes, run, enlarges)
        if refusal:
            reason = reason or refusal
            continue
        if extents in found:
            spare = shapes
        else:
            found[extents], last = shapes, batch
        left = min(left, MORE_PROBES)
    if not found:
        raise InputError(
            f"the original graph could not be run on any of {len(tried)} sizes tried: {reason}",
            hint="give a size that it takes, such as --shape NAME:1x3x320x320",
        )
    return [*found.values(), *([spare] if spare and len(found) == 1 else [])]


def _refusal(
    model: ir.Model, specs: Sequence[InputSpec], shapes: Shapes, run: Run, enlarges: bool
) -> str:
    """Why the model does not run on inputs of these shapes; empty if it does."""
    try:
        if enlarges:
            elements_at(model, shapes)
        run(next(draw_feeds(specs, shapes, seed=0))[1])
    except (BuildError, InputError, MemoryError) as error:
        return str(getattr(error, "cause", "not enough memory"))
    return ""


def enlarges_inputs(model: ir.Model) -> bool:
    """Whether a constant makes an array so much larger that a likely size may not fit memory."""
    for node in model.graph.all_nodes():
        for value in node.inputs[1:] if node.op_type in ENLARGING else node.inputs[:0]:
            tensor = ir.convenience.get_const_tensor(value) if value is not None else None
            if tensor is None or tensor.size > 2 * MOST_AXES:
                continue
            numbers = np.abs(np.nan_to_num(tensor.numpy().astype(np.float64)))
            if np.any(numbers > MOST_ADDED):
                return True
    return False


def elements_at(model: ir.Model, shapes: Shapes) -> int:
    """The number of elements of all values for inputs of these shapes, as far as sizes are known.

    Raises InputError where one value is too large for memory.
    """
    from flatfold.frontend.canonicalization.graph_shapes import evaluate_shapes
    from flatfold.proof.network.session import require_runnable

    copy = model.clone()
    for value in copy.graph.inputs:
        if value.name in shapes:
            value.shape = ir.Shape(shapes[value.name])
    evaluate_shapes(copy.graph, dict(copy.opset_imports))
    return require_runnable(copy)


def told_by_readers(value: ir.Value) -> dict[int, int]:
    """Sizes of axes of `value` that the first layers behind it tell by their weights."""
    told: dict[int, int] = {}
    rank = value.shape.rank() if value.shape is not None else 0
    pending = deque([(value, list(range(rank)))])  # and which axis of the input each axis is
    seen = {value}
    while pending:
        read, order = pending.popleft()
        for use in read.uses():
            node = use.node
            if use.idx == 0 and node.op_type in SAME_SHAPE and _keeps_rank(node, rank):
                onward = order
            elif node.op_type == "Transpose" and "perm" in node.attributes:
                perm = node.attributes["perm"].as_ints()
                fits = sorted(perm) == list(range(len(order)))
                onward = [order[axis] for axis in perm] if fits else []
            else:
                counted = _counted(node, use.idx, rank)
                told |= {order[a]: n for a, n in counted.items() if a < len(order)}
                continue
            if onward and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                pending.append((node.outputs[0], onward))
    return told


def _keeps_rank(node: ir.Node, rank: int) -> bool:
    """Whether no other operand makes the result larger than the first one."""
    others = [v for v in node.inputs[1:] if v is not None]
    return all(v.shape is not None and _is_single(v, rank) for v in others)


def _is_single(value: ir.Value, rank: int) -> bool:
    dims = value.shape.dims if value.shape is not None else ()
    return len(dims) <= rank and all(dim == 1 for dim in dims)


def _counted(node: ir.Node, index: int, rank: int) -> dict[int, int]:
    """Sizes of the axes of input `index` of a layer with constant weights."""
    if index != 0 or len(node.inputs) < 2 or node.inputs[1] is None:
        return {}
    weight = node.inputs[1]
    dims = [dim if isinstance(dim, int) else 0 for dim in weight.shape or ()]
    group = node.attributes["group"].as_int() if "group" in node.attributes else 1
    turned = "transB" in node.attributes and node.attributes["transB"].as_int()
    sizes: dict[str, Callable[[], dict[int, int]]] = {
        "Conv": lambda: {1: dims[1] * group},
        "ConvTranspose": lambda: {1: dims[0]},
        "BatchNormalization": lambda: {1: dims[0]},
        "InstanceNormalization": lambda: {1: dims[0]},
        "Gemm": lambda: {1: dims[1 if turned else 0]},
        "MatMul": lambda: {rank - 1: dims[-2]},
        "LSTM": lambda: {2: dims[2]},
        "GRU": lambda: {2: dims[2]},
        "RNN": lambda: {2: dims[2]},
    }
    least = {"BatchNormalization": 1, "InstanceNormalization": 1, "LSTM": 3, "GRU": 3, "RNN": 3}
    if node.op_type not in sizes or len(dims) < least.get(node.op_type, 2):
        return {}
    return {axis: size for axis, size in sizes[node.op_type]().items() if size > 0}
