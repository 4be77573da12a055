"""Operators that return their input unchanged, and pairs of Transposes that cancel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from flatfold.frontend.canonicalization.edit import (
    int_attribute,
    perm_of,
    producer_of,
    replace_with_identity,
)
from flatfold.frontend.canonicalization.symbolic_dims import Shapes, Size, constant_of


def canonicalize_identities(graph: ir.Graph, shapes: Shapes) -> bool:
    """Replace each such operator by an Identity; return whether any was."""
    changed = False
    for node in graph:
        rule = _RULES.get(node.op_type) if node.domain == "" else None
        if rule is None or len(node.outputs) != 1 or not node.inputs:
            continue
        source = rule(node, shapes)
        if source is not None:
            replace_with_identity(node, source)
            changed = True
    return changed


def canonicalize_casts(graph: ir.Graph) -> bool:
    """Write each CastLike to a known type as Cast; return whether any was.

    One with attributes, which say how to round and to saturate, stays as it is.
    """
    changed = False
    for node in graph:
        if (node.op_type, node.domain) != ("CastLike", "") or node.attributes:
            continue
        like = node.inputs[1]
        if like is None or like.dtype is None:
            continue
        cast = ir.node("Cast", [node.inputs[0]], {"to": like.dtype}, name=node.name)
        cast.outputs[0].shape, cast.outputs[0].type = node.outputs[0].shape, like.type
        ir.convenience.replace_nodes_and_values(
            graph, node, [node], [cast], node.outputs, cast.outputs
        )
        changed = True
    return changed


def canonicalize_empty_parts(graph: ir.Graph, shapes: Shapes) -> bool:
    """Drop the inputs of each Concat that have no elements along its axis; whether any was."""
    changed = False
    for node in graph:
        if (node.op_type, node.domain) != ("Concat", "") or len(node.inputs) < 2:
            continue
        axis = int_attribute(node, "axis", 1)
        sizes = [shapes.sizes(value) for value in node.inputs]
        if any(part is None or not -len(part) <= axis < len(part) for part in sizes):
            continue
        pairs = zip(node.inputs, sizes, strict=True)
        kept = [value for value, part in pairs if part is not None and part[axis] != 0]
        if 0 < len(kept) < len(sizes):
            _keep_inputs(node, kept)
            changed = True
    return changed


def _keep_inputs(node: ir.Node, values: Sequence[ir.Value | None]) -> None:
    for i, value in enumerate(values):
        node.replace_input_with(i, value)
    node.resize_inputs(len(values))


def _slice(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """The input if the Slice is all of it; an input of the Concat before if it is all of that."""
    sizes, spans = shapes.sizes(node.inputs[0]), _spans(node)
    if sizes is None or spans is None:
        return None
    if all(_is_whole(sizes[axis], start, end) for axis, start, end in spans):
        return node.inputs[0]
    return _concat_part(node, spans[0], shapes) if len(spans) == 1 else None


def _spans(node: ir.Node) -> list[tuple[int, int, int]] | None:
    """Axis, start and end of each range of a Slice with constant bounds and steps of 1."""
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


def _concat_part(node: ir.Node, span: tuple[int, int, int], shapes: Shapes) -> ir.Value | None:
    """The input of the Concat before `node` that has exactly the positions `span`."""
    joined = producer_of(node.inputs[0], "Concat")
    whole = shapes.sizes(node.inputs[0])
    if joined is None or whole is None:
        return None
    rank, (axis, start, end), position = len(whole), span, 0
    if int_attribute(joined, "axis", 0) % rank != axis % rank:
        return None
    for part in joined.inputs:
        sizes = shapes.sizes(part)
        size = None if sizes is None else sizes[axis]
        if not isinstance(size, int):
            return None
        if (position, position + size) == (start, end):
            return part
        position += size
    return None


def _transpose(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """The input if no axis moves; the input of the Transpose before if this one undoes it."""
    perm = perm_of(node)
    if perm is None or node.inputs[0] is None:
        return None
    if perm == sorted(perm):
        return node.inputs[0]
    first = producer_of(node.inputs[0], "Transpose")
    before = None if first is None else perm_of(first)
    if first is None or before is None or len(before) != len(perm):
        return None
    return first.inputs[0] if [before[axis] for axis in perm] == sorted(perm) else None


def _pad(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    pads = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if pads is None or np.any(pads) else node.inputs[0]


def _cast(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """The input if it has the type already; of CastLike, that of its second input."""
    source = node.inputs[0]
    wanted = None if "to" not in node.attributes else int_attribute(node, "to", 0)
    if node.op_type == "CastLike" and node.inputs[1] is not None:
        wanted = node.inputs[1].dtype
    return source if source is not None and wanted and source.dtype == wanted else None


def _expand(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    return _of_same_shape(node.inputs[0], node, shapes)


_NEUTRAL = {"Add": 0, "Div": 1, "Mul": 1, "Sub": 0}  # the operand that changes no integer
_COMMUTES = ("Add", "Mul")


def _arithmetic(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """The operand beside a constant 0 or 1, of integers; of floats, x + 0 is not x where x is -0.

    The rewrites see to the floats.
    """
    dtype = node.outputs[0].dtype
    if dtype is None or not dtype.is_integer() or len(node.inputs) != 2:
        return None
    pairs = [(0, 1), (1, 0)] if node.op_type in _COMMUTES else [(0, 1)]
    for kept, other in pairs:
        constant = constant_of(node.inputs[other])
        if constant is not None and np.all(constant == _NEUTRAL[node.op_type]):
            return _of_same_shape(node.inputs[kept], node, shapes)
    return None


def _of_same_shape(value: ir.Value | None, node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """`value` if it is known to have the shape of what `node` returns."""
    before, after = shapes.sizes(value), shapes.sizes(node.outputs[0])
    return value if before is not None and None not in before and before == after else None


def _where(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """What a constant condition takes everywhere."""
    condition = constant_of(node.inputs[0])
    if condition is None or not condition.size or (np.any(condition) and not np.all(condition)):
        return None
    return _of_same_shape(node.inputs[1 if np.all(condition) else 2], node, shapes)


def _tile(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    repeats = constant_of(node.inputs[1]) if len(node.inputs) == 2 else None
    return None if repeats is None or np.any(repeats != 1) else node.inputs[0]


def _single(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """The only input of an operator of any number of them."""
    return node.inputs[0] if len(node.inputs) == 1 else None


_RULES: dict[str, Callable[[ir.Node, Shapes], ir.Value | None]] = {
    **dict.fromkeys(("Concat", "Max", "Mean", "Min", "Sum"), _single),
    **dict.fromkeys(_NEUTRAL, _arithmetic),
    "Cast": _cast,
    "CastLike": _cast,
    "Expand": _expand,
    "Pad": _pad,
    "Slice": _slice,
    "Tile": _tile,
    "Transpose": _transpose,
    "Where": _where,
}
