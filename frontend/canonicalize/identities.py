"""Operators that return their input as it is, and pairs of Transposes that cancel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from flatfold.frontend.canonicalize.edit import perm_of, source_of, stand_in
from flatfold.frontend.canonicalize.shape_rules import number
from flatfold.frontend.canonicalize.symbolic_dims import Facts, Size, constant_of


def settle_no_ops(graph: ir.Graph, facts: Facts) -> bool:
    """Leave an Identity of each of them; whether there were any."""
    changed = False
    for node in graph:
        rule = _RULES.get(node.op_type) if node.domain == "" else None
        if rule is None or len(node.outputs) != 1 or not node.inputs:
            continue
        source = rule(node, facts)
        if source is not None:
            stand_in(node, source)
            changed = True
    return changed


def _slice(node: ir.Node, facts: Facts) -> ir.Value | None:
    """All of the input, or all of one part of a Concat."""
    sizes, spans = facts.sizes(node.inputs[0]), _spans(node)
    if sizes is None or spans is None:
        return None
    if all(_is_whole(sizes[axis], start, end) for axis, start, end in spans):
        return node.inputs[0]
    return _part(node, spans[0], facts) if len(spans) == 1 else None


def _spans(node: ir.Node) -> list[tuple[int, int, int]] | None:
    """Axis, start and end of each restriction of a Slice in steps of 1."""
    arguments = [constant_of(value) for value in node.inputs[1:]]
    if len(arguments) < 2 or any(argument is None for argument in arguments):
        return None
    starts, ends, *rest = (a.astype(np.int64) for a in arguments if a is not None)
    axes = rest[0] if rest else np.arange(starts.size)
    if len(rest) > 1 and np.any(rest[1] != 1):
        return None
    return list(zip(axes.tolist(), starts.tolist(), ends.tolist(), strict=True))


def _is_whole(size: Size, start: int, end: int) -> bool:
    if not isinstance(size, int):
        return start == 0 and end == np.iinfo(np.int64).max
    return (start == 0 or start <= -size) and end >= size


def _part(node: ir.Node, span: tuple[int, int, int], facts: Facts) -> ir.Value | None:
    joined = source_of(node.inputs[0], "Concat")
    if joined is None or node.inputs[0] is None or node.inputs[0].shape is None:
        return None
    rank, (axis, start, end), position = len(node.inputs[0].shape), span, 0
    if number(joined, "axis", 0) % rank != axis % rank:
        return None
    for part in joined.inputs:
        sizes = facts.sizes(part)
        size = None if sizes is None else sizes[axis]
        if not isinstance(size, int):
            return None
        if (position, position + size) == (start, end):
            return part
        position += size
    return None


def _transpose(node: ir.Node, facts: Facts) -> ir.Value | None:
    """In place, or back to where another Transpose came from."""
    perm = perm_of(node)
    if perm is None or node.inputs[0] is None:
        return None
    if perm == sorted(perm):
        return node.inputs[0]
    first = source_of(node.inputs[0], "Transpose")
    before = None if first is None else perm_of(first)
    if first is None or before is None or len(before) != len(perm):
        return None
    return first.inputs[0] if [before[axis] for axis in perm] == sorted(perm) else None


def _pad(node: ir.Node, facts: Facts) -> ir.Value | None:
    pads = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if pads is None or np.any(pads) else node.inputs[0]


def _concat(node: ir.Node, facts: Facts) -> ir.Value | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _expand(node: ir.Node, facts: Facts) -> ir.Value | None:
    """To the shape that the input has."""
    before, after = facts.sizes(node.inputs[0]), facts.of(node.outputs[0])
    if before is None or after is None or None in before or tuple(after.shape) != tuple(before):
        return None
    return node.inputs[0]


_RULES: dict[str, Callable[[ir.Node, Facts], ir.Value | None]] = {
    "Concat": _concat,
    "Expand": _expand,
    "Pad": _pad,
    "Reshape": _expand,
    "Slice": _slice,
    "Transpose": _transpose,
}
