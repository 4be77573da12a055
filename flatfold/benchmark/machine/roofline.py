"""The roofline: the limits of this machine on a target, and the least time a graph needs there.

The limit of arithmetic is measured with a product of matrices, that of memory with a copy. Both run
like any candidate: in a separate process with the same options, threads and cores.
(Williams et al. 2009.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flatfold.benchmark.measure import arrays
from flatfold.benchmark.measure.job import MEMORY, Job
from flatfold.benchmark.measure.process import Process
from flatfold.benchmark.report import Limit
from flatfold.errors import FlatfoldError
from flatfold.result import macs_of, shape_of
from flatfold.system.progress import Progress

if TYPE_CHECKING:
    import onnx_ir as ir


SIDES = (768, 1536)  # rows of a matrix: the smaller fit in the caches, the larger feed more threads
BLOCKS, RUNS, WARM_S = 4, 10, 1.0
LEAST, MOST = 2**28, 2**30  # bytes that are copied
BEYOND = 4  # times the last-level cache, so that the cache holds only a small part of the copy
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def measured_limits(
    options: Mapping[str, Mapping[str, object]],
    threads: int,
    affinity: Sequence[int],
    folder: Path,
    progress: Progress,
) -> tuple[Limit, ...]:
    """The limits of the targets in `options`, in float32; `folder` is for files.

    A target that fails has no limit. Nor has one that computes on a device: a copy in host memory
    does not measure device memory, and the times of a device include the transfer.
    """
    from flatfold.backends import load_backend

    targets = [target for target in options if load_backend(target).threads]
    if not targets:
        return ()
    products = {side: _stored(folder / f"product {side}", side) for side in SIDES}
    progress("measuring a copy in memory")
    job = Job("copy", MEMORY, threads, tuple(affinity), feeds=str(_feeds(products[SIDES[0]])))
    copy = _best(job, folder)
    limits = []
    for target in targets:
        progress(f"measuring a product of matrices on target {target}")
        rates = []
        for side, files in products.items():
            job = Job(
                "product",
                target,
                threads,
                tuple(affinity),
                str(_feeds(files)),
                str(_model(files)),
                dict(options[target]),
                str(files / target),
            )
            least = _best(job, folder)
            rates += [] if least is None else [2 * side**3 / least]
        if rates and copy is not None:
            limits.append(Limit(target, max(rates), 2 * size() / copy))
    return tuple(limits)


def _best(job: Job, folder: Path) -> float | None:
    """The seconds of the fastest run, None where it fails.

    Not the median: a limit is wanted, and other work can only make a run slower.
    """
    process = Process(job, folder)
    try:
        process.start()
        process.warm(WARM_S)
        return min(min(process.block(RUNS)) for _ in range(BLOCKS))
    except FlatfoldError:
        return None
    finally:
        process.close()


def _model(folder: Path) -> Path:
    return folder / "model.onnx"


def _feeds(folder: Path) -> Path:
    return folder / "feeds.npz"


def _stored(folder: Path, side: int) -> Path:
    """Writes the model x @ w, where w is constant like the weights of a layer, and x."""
    import onnx_ir as ir

    from flatfold.backends.store import write_model

    kind, shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([side, side])
    x, y = (ir.Value(name=name, type=kind, shape=shape) for name in "xy")
    rng = np.random.default_rng(0)
    data, weight = (rng.uniform(-1, 1, (side, side)).astype(np.float32) for _ in "xw")
    constant = ir.tensor(weight, name="w")
    w = ir.Value(name="w", type=kind, shape=shape, const_value=constant)
    node = ir.node("MatMul", [x, w], outputs=[y], name="product")
    graph = ir.Graph(
        [x], [y], nodes=[node], initializers=[w], opset_imports={"": 20}, name="product"
    )
    folder.mkdir()
    write_model(ir.Model(graph, ir_version=10), _model(folder))
    arrays.store(_feeds(folder), {"x": data})
    return folder


class Copying:
    """Copies `size` bytes from one array to another with `threads` threads, run by a worker.

    It accepts any feeds and has no outputs.
    """

    precision, layers = "", None

    def __init__(self, threads: int) -> None:
        count = size() // 8
        # Both are written here: the system allocates pages when they are first written.
        self.source, self.target = np.ones(count), np.full(count, 2.0)
        self.pool = ThreadPoolExecutor(threads)
        halves = (np.array_split(array, threads) for array in (self.target, self.source))
        self.parts = list(zip(*halves, strict=True))

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Copies once."""
        self.bind(feeds)()
        return {}

    def bind(self, feeds: Mapping[str, Any]) -> Callable[[], object]:
        """A call that copies once."""
        return lambda: list(self.pool.map(lambda part: np.copyto(*part), self.parts))


def size() -> int:
    """Bytes that are copied in a run: several times the size of the largest cache."""
    return min(max(LEAST, BEYOND * last_level_cache()), MOST)


def last_level_cache() -> int:
    """Bytes of the largest cache of a core; 0 where the system does not say."""
    sizes = [0]
    for path in _CACHES.glob("index*/size"):
        with suppress(OSError, ValueError):
            text = path.read_text(encoding="utf-8").strip()
            sizes.append(int(text.rstrip("KMG")) * _UNITS.get(text[-1:], 1))
    return max(sizes)


def floor_of(model: ir.Model, limit: Limit, batch: int = 1) -> float | None:
    """The least seconds for a whole graph, with everything but its ends kept in the caches.

    Only weights, inputs and outputs are moved. A dynamic batch counts as `batch`; None where
    another size is dynamic.
    """
    graph = model.graph
    ends = {*graph.inputs, *graph.outputs, *graph.initializers.values()}
    return _seconds(graph, _bytes(ends, batch), limit, batch)


def layer_floor(nodes: Collection[ir.Node], limit: Limit, batch: int = 1) -> float | None:
    """The least seconds for nodes that run as one layer: only its inputs and outputs are moved."""
    read, written = _values(nodes)
    outputs = {v for v in written if v.is_graph_output() or not _readers(v) <= set(nodes)}
    return _seconds(nodes, _bytes((read - written) | outputs, batch), limit, batch)


def bytes_of(model: ir.Model, batch: int = 1) -> int | None:
    """Bytes that all nodes read and write if each runs alone: a value counts at each use.

    A dynamic batch counts as `batch`; None where another size is dynamic.
    """
    total = 0
    for node in model.graph:
        read, written = _values([node])
        moved = _bytes(read | written, batch)
        if moved is None:
            return None
        total += moved
    return total


def _seconds(nodes: Iterable[ir.Node], moved: int | None, limit: Limit, batch: int) -> float | None:
    work = [macs_of(node, batch) for node in nodes]
    known = [macs for macs in work if macs is not None]
    if moved is None or len(known) < len(work):
        return None
    return max(2 * sum(known) / limit.flops, moved / limit.bytes)


def _values(nodes: Iterable[ir.Node]) -> tuple[set[ir.Value], set[ir.Value]]:
    """The values that the nodes read, and those that they write."""
    every = list(nodes)
    read = {value for node in every for value in node.inputs if value is not None}
    return read, {value for node in every for value in node.outputs if value.name}


def _readers(value: ir.Value) -> set[ir.Node]:
    return {node for node, _ in value.uses()}


def _bytes(values: Iterable[ir.Value], batch: int) -> int | None:
    total = 0
    for value in values:
        weight = value.const_value if value.is_initializer() else None
        shape = shape_of(value, batch)
        if weight is not None:
            total += weight.nbytes
        elif shape is None or value.dtype is None:
            return None
        else:
            total += math.ceil(math.prod(shape) * value.dtype.bitwidth / 8)
    return total
