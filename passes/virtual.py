"""Values that no node of the graph makes yet: an operator applied to a value that is there.

Moving a linear map past an operator, T(A x + b) = A' T(x) + b', needs the value T(x). It is only
planned until the form over it is written, so nothing in the graph reads its source meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from flatfold.passes import cost
from flatfold.passes.cost import Cost, Profile
from flatfold.passes.kernels import Weight
from flatfold.passes.reading import ints, known

KEY = "flatfold.origin"

FREE = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")  # a view; no data moves


@dataclass(frozen=True)
class Origin:
    """op_type(source, *rest): `rest` holds values of the graph, and constants that it lacks."""

    op_type: str
    source: ir.Value
    rest: tuple[ir.Value | Weight | None, ...]
    attributes: Mapping[str, ir.Attr]


def made(origin: Origin, name: str, shape: ir.Shape | None, like: ir.Value) -> ir.Value:
    """The value that `origin` describes."""
    value = ir.Value(name=name, shape=shape, type=like.type)
    value.meta[KEY] = origin
    return value


def origin(value: ir.Value) -> Origin | None:
    """How a virtual value is made; None for a value of the graph."""
    found = value.meta.get(KEY)
    return found if isinstance(found, Origin) else None


def base(value: ir.Value) -> ir.Value:
    """The value of the graph that a virtual one comes from."""
    while (how := origin(value)) is not None:
        value = how.source
    return value


def through(node: ir.Node, source: ir.Value, shape: ir.Shape | None) -> ir.Value:
    """`node` applied to another source; a Transpose of its own inverse is what that one reads."""
    if node.op_type == "Transpose":
        earlier = _before_transpose(source, ints(node, "perm", ()))
        if earlier is not None:
            return earlier
    how = Origin(node.op_type, source, tuple(node.inputs[1:]), node.attributes)
    return made(how, f"{source.name}.{node.op_type.lower()}", shape, node.outputs[0])


def _before_transpose(value: ir.Value, order: tuple[int, ...]) -> ir.Value | None:
    """What `value` is a Transpose of, if turning it by `order` undoes that."""
    how, node = origin(value), value.producer()
    if how is not None and how.op_type == "Transpose":
        attribute = how.attributes.get("perm")
        first, earlier = tuple(attribute.as_ints()) if attribute else (), how.source
    elif node is not None and (node.op_type, node.domain) == ("Transpose", ""):
        if node.inputs[0] is None:
            return None
        first, earlier = ints(node, "perm", ()), node.inputs[0]
    else:
        return None
    undone = len(first) == len(order) and all(first[axis] == i for i, axis in enumerate(order))
    return earlier if undone else None


def cost_of(value: ir.Value, profile: Profile) -> Cost:
    """Of the nodes that a virtual value needs."""
    total = Cost()
    while (how := origin(value)) is not None:
        total += cost_of_operator(how.op_type, how.source, profile)
        arrays = [held for held in how.rest if held is not None and not isinstance(held, ir.Value)]
        total += Cost(parameters=sum(array.size for array in arrays))
        value = how.source
    return total


def cost_of_operator(op_type: str, source: ir.Value, profile: Profile) -> Cost:
    """One pass over what it reads, or nothing."""
    if op_type in FREE or source.shape is None:
        return Cost()
    elements = cost.positions(known(source)[1:])
    if op_type == "Transpose":
        return cost.of_copy(1, elements, profile)
    return cost.of_elementwise(1, elements, profile)
