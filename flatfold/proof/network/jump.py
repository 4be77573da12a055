"""Two graphs cut in front of their jumps, where one rounding changes the output by any amount.

Two scores that are closer than rounding change places in a TopK, and all that is gathered by them.
So the operands of such operators are compared themselves, and the operators read the same numbers
in both graphs: those that the original has there. What lies behind is then compared as usual, for
the same order of ties. The same is done in front of a Sigmoid or another operator that bounds an
output, where the output has run into its bound and so shows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from flatfold.proof.network.judge import JUDGED
from flatfold.proof.network.output_range import bounding_nodes, output_scale

Array = npt.NDArray[Any]

# The operands in which each operator jumps.
JUMPS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("ArgMax", "ArgMin", "Hardmax", "NonZero", "TopK", "Unique"), (0,)),
    **dict.fromkeys(("Cast", "CastLike", "Ceil", "Floor", "Round", "Sign"), (0,)),
    **dict.fromkeys(("DynamicQuantizeLinear", "QuantizeLinear"), (0,)),
    **dict.fromkeys(("Shrink", "ThresholdedRelu"), (0,)),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mod"), (0, 1)),
    "GridSample": (1,),
    "NonMaxSuppression": (0, 1),
    "RoiAlign": (1,),
}


@dataclass(frozen=True)
class Place:
    """An operand that is cut: of which node of either graph, by its position, and which one."""

    before: int
    after: int
    operand: int


@dataclass(frozen=True)
class Cut:
    """Two graphs whose values at `names` are outputs, and inputs of what reads them.

    kinds: the operators that read each of them.
    """

    before: ir.Model
    after: ir.Model
    names: tuple[str, ...]
    kinds: tuple[str, ...]

    def feeds(self, feeds: Mapping[str, Array], recorded: Sequence[Array]) -> dict[str, Array]:
        """`feeds` with the original's values at the cut."""
        cut = zip(self.names, recorded, strict=True)
        return {**feeds, **{_input_name(name): array for name, array in cut}}


def places_to_cut(before: ir.Model, after: ir.Model) -> list[Place]:
    """The operands of jumps, and of what bounds an output, that both graphs have."""
    position = [{node: i for i, node in enumerate(model.graph)} for model in (before, after)]
    wanted = [_nodes_to_cut(model) for model in (before, after)]
    places: dict[ir.Value | None, Place] = {}
    for one, two in _paired(*wanted):
        for operand in JUMPS.get(one.op_type, (0,)):
            if all(_is_cut_open(node, operand) for node in (one, two)):
                place = Place(position[0][one], position[1][two], operand)
                places.setdefault(one.inputs[operand], place)
    return list(places.values())


def with_outputs(model: ir.Model, places: Sequence[Place]) -> ir.Model:
    """The original with the values at `places` as its only outputs."""
    copy = model.clone()
    nodes = list(copy.graph)
    values = [nodes[place.before].inputs[place.operand] for place in places]
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(value for value in values if value is not None)
    return copy


def cut_graphs(
    before: ir.Model, after: ir.Model, places: Sequence[Place], recorded: Sequence[Array]
) -> Cut:
    """Both graphs cut at `places`; `recorded` are the original's values there, for their types."""
    one, two = before.clone(), after.clone()
    mine = [(list(one.graph)[place.before], place.operand) for place in places]
    others = [(list(two.graph)[place.after], place.operand) for place in places]
    names = [_name_of(node.inputs[operand]) for node, operand in mine]
    for graph, operands in ((one.graph, mine), (two.graph, others)):
        for (node, operand), name, array in zip(operands, names, recorded, strict=True):
            _cut(graph, node, operand, name, array)
    kinds = tuple(node.op_type for node, _ in mine)
    return Cut(one, two, tuple(names), kinds)


def _cut(graph: ir.Graph, node: ir.Node, operand: int, name: str, array: Array) -> None:
    """Let every jump that reads the operand read a new input, and make the operand an output."""
    value = node.inputs[operand]
    if value is None:
        return
    dtype = value.dtype or ir.DataType.from_numpy(array.dtype)  # of bfloat16 is read as float32
    given = ir.Value(name=_input_name(name), type=ir.TensorType(dtype))
    given.shape = ir.Shape([None] * array.ndim)
    readers = tuple(value.uses())
    judged = ir.node("Identity", [value])
    judged.outputs[0].name = f"{name}{JUDGED}"
    judged.outputs[0].type = ir.TensorType(dtype)
    graph.append(judged)
    graph.inputs.append(given)
    graph.outputs.append(judged.outputs[0])
    for reader, index in readers:
        if reader is node or (_jumps(reader) and index in JUMPS[reader.op_type]):
            reader.replace_input_with(index, given)


def _name_of(value: ir.Value | None) -> str:
    return (value.name or "") if value is not None else ""


def _input_name(name: str) -> str:
    return f"{name}:cut"


def _nodes_to_cut(model: ir.Model) -> list[ir.Node]:
    bounding = {
        node
        for value in model.graph.outputs
        if output_scale(value) is not None
        for node in bounding_nodes(value)
    }
    return [node for node in model.graph if node in bounding or _jumps(node)]


def _jumps(node: ir.Node) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in JUMPS


def _is_cut_open(node: ir.Node, operand: int) -> bool:
    """Whether the operand is computed, and may be a float."""
    value = node.inputs[operand] if operand < len(node.inputs) else None
    if value is None or value.producer() is None:
        return False
    if ir.convenience.get_const_tensor(value) is not None:
        return False
    if node.op_type in ("Cast", "CastLike") and not _is_to_whole(node):
        return False
    return value.dtype is None or bool(value.dtype.is_floating_point())


def _is_to_whole(node: ir.Node) -> bool:
    target = node.attributes.get("to")
    dtype = ir.DataType(target.as_int()) if target is not None else node.outputs[0].dtype
    return dtype is None or not dtype.is_floating_point()


def _paired(mine: Sequence[ir.Node], others: Sequence[ir.Node]) -> list[tuple[ir.Node, ir.Node]]:
    """Nodes of both graphs by the name of their output, the rest by their order of each kind."""
    by_name = {(node.op_type, node.outputs[0].name): node for node in others}
    pairs = [(node, by_name.pop((node.op_type, node.outputs[0].name), None)) for node in mine]
    result = [(one, two) for one, two in pairs if two is not None]
    single, free = [one for one, two in pairs if two is None], list(by_name.values())
    for kind in dict.fromkeys(node.op_type for node in single):
        left = [node for node in single if node.op_type == kind]
        right = [node for node in free if node.op_type == kind]
        if len(left) == len(right):
            result += zip(left, right, strict=True)
    return result
