"""Values that no node of the graph makes yet: an operator applied to a value that is there.

Moving a linear map past an operator, T(A x + b) = A' T(x) + b', needs the value T(x). Its node is
written only with the form over it, so until then nothing more in the graph reads its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from flatfold.passes.reading.node import ints
from flatfold.passes.stencil.kernels import Weight

DEFERRED_KEY = "flatfold.origin"


@dataclass(frozen=True)
class Deferred:
    """op_type(source, *rest): `rest` holds values of the graph, and constants that it lacks."""

    op_type: str
    source: ir.Value
    rest: tuple[ir.Value | Weight | None, ...]
    attributes: Mapping[str, ir.Attr]


def deferred_value(origin: Deferred, name: str, shape: ir.Shape | None, like: ir.Value) -> ir.Value:
    """The value that `origin` describes."""
    value = ir.Value(name=name, shape=shape, type=like.type)
    value.meta[DEFERRED_KEY] = origin
    return value


def origin_of(value: ir.Value) -> Deferred | None:
    """The operator that a deferred value stands for; None for a value of the graph."""
    origin = value.meta.get(DEFERRED_KEY)
    return origin if isinstance(origin, Deferred) else None


def root_value(value: ir.Value) -> ir.Value:
    """The value of the graph that a deferred one is computed from."""
    while (origin := origin_of(value)) is not None:
        value = origin.source
    return value


def deferred_through(node: ir.Node, source: ir.Value, shape: ir.Shape | None) -> ir.Value:
    """The deferred output of `node` on another source.

    A Transpose behind its own inverse is no node: the result is what the inverse reads.
    """
    if node.op_type == "Transpose":
        earlier = _before_transpose(source, ints(node, "perm", ()))
        if earlier is not None:
            return earlier
    origin = Deferred(node.op_type, source, tuple(node.inputs[1:]), node.attributes)
    return deferred_value(origin, f"{source.name}.{node.op_type.lower()}", shape, node.outputs[0])


def _before_transpose(value: ir.Value, order: tuple[int, ...]) -> ir.Value | None:
    """The input of the Transpose that computes `value`, if a Transpose by `order` undoes it."""
    origin, node = origin_of(value), value.producer()
    if origin is not None and origin.op_type == "Transpose":
        attribute = origin.attributes.get("perm")
        first, earlier = tuple(attribute.as_ints()) if attribute else (), origin.source
    elif node is not None and (node.op_type, node.domain) == ("Transpose", ""):
        if node.inputs[0] is None:
            return None
        first, earlier = ints(node, "perm", ()), node.inputs[0]
    else:
        return None
    undone = len(first) == len(order) and all(first[axis] == i for i, axis in enumerate(order))
    return earlier if undone else None
