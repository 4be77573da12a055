"""The least time that work can take on a machine, from what the machine does at best.

seconds >= max(2 multiply-accumulates / flops, bytes / bytes a second)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from flatfold.summary import macs_of, shape_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.comparing.explained import Limit


def floor_of(model: ir.Model, limit: Limit, batch: int = 1) -> float | None:
    """Seconds for a whole graph that keeps all it computes between its ends in the caches.

    Read and written are its weights, inputs and outputs. An open batch is `batch`; None where
    another size is open.
    """
    graph = model.graph
    ends = {*graph.inputs, *graph.outputs, *graph.initializers.values()}
    return _seconds(graph, _bytes(ends, batch), limit, batch)


def layer_floor(nodes: Collection[ir.Node], limit: Limit, batch: int = 1) -> float | None:
    """Seconds for nodes that run as one: only what leaves or enters them is written or read."""
    read, made = _values(nodes)
    outputs = {v for v in made if v.is_graph_output() or not _readers(v) <= set(nodes)}
    return _seconds(nodes, _bytes((read - made) | outputs, batch), limit, batch)


def bytes_of(model: ir.Model, batch: int = 1) -> int | None:
    """What all nodes read and write if each runs by itself: weights, and values at each use.

    An open batch is `batch`, one image; None where another size is open.
    """
    total = 0
    for node in model.graph:
        read, made = _values([node])
        moved = _bytes(read | made, batch)
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
    """What the nodes read, and what they make."""
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
