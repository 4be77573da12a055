"""What a region costs as it is written now."""

from __future__ import annotations

import onnx_ir as ir

from flatfold.passes import cost, virtual
from flatfold.passes.cost import Cost, Profile
from flatfold.passes.geometry import Sizes
from flatfold.passes.layout import alone
from flatfold.passes.reading import (
    Applied,
    Carried,
    Joined,
    Linear,
    Summed,
    constant,
    known,
    operands,
)
from flatfold.passes.region import Region
from flatfold.passes.writing import cost_of


def cost_as_it_is(region: Region, profile: Profile) -> Cost:
    """Cost of the nodes that the region has."""
    total = Cost()
    for node, linear in region.meanings.items():
        total += _of_node(linear, node, profile)
    return total


def _of_node(linear: Linear, node: ir.Node, profile: Profile) -> Cost:
    if node.op_type == "Identity":
        return Cost()
    if isinstance(linear, Carried):
        return virtual.cost_of_operator(node.op_type, linear.source, profile)
    if not isinstance(linear, Applied):
        values = (
            [node.outputs[0], *operands(linear)]
            if isinstance(linear, Summed)
            else [node.outputs[0]]
        )
        elements = cost.positions(_most_known(values)[1:])
        if isinstance(linear, Joined):
            return cost.of_copy(1, elements, profile)
        return cost.of_elementwise(1, elements, profile, reads=len(linear.operands))
    return _of_applied(linear, node, profile)


def _most_known(values: list[ir.Value]) -> Sizes:
    """Sizes of values that are of one size: what any of them knows."""
    sizes = [known(value) for value in values]
    alike = [some for some in sizes if len(some) == len(sizes[0])]
    return tuple(
        next((n for n in axis if n is not None), None) for axis in zip(*alike, strict=True)
    )


def _of_applied(linear: Applied, node: ir.Node, profile: Profile) -> Cost:
    form = alone(linear, node.outputs[0])
    how = virtual.origin(linear.source)
    if how is not None:
        own = virtual.cost_of_operator(how.op_type, how.source, profile)
        weights = [constant(value) for value in node.inputs[1:]]
        return own + Cost(parameters=sum(array.size for array in weights if array is not None))
    if form.geometry.is_diagonal and linear.stencil.pick is None:  # one node, whichever it is
        one = cost.of_elementwise(form.geometry.outputs, form.pixels, profile)
        constants = min(len(node.inputs) - 1, 2)
        return Cost(1, 0, constants * form.geometry.outputs, one.seconds)
    return cost_of(form, profile)
