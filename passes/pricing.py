"""What a region costs as it is written now."""

from __future__ import annotations

import onnx_ir as ir

from flatfold.passes import cost, virtual
from flatfold.passes.cost import Cost, Profile
from flatfold.passes.layout import alone
from flatfold.passes.reading import Applied, Carried, Joined, Linear, constant, known
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
        elements = cost.positions(known(node.outputs[0])[1:])
        if isinstance(linear, Joined):
            return cost.of_copy(1, elements, profile)
        return cost.of_elementwise(1, elements, profile, reads=len(linear.operands))
    return _of_applied(linear, node, profile)


def _of_applied(linear: Applied, node: ir.Node, profile: Profile) -> Cost:
    form = alone(linear, node.outputs[0])
    how = virtual.origin(linear.source)
    if how is not None:
        own = virtual.cost_of_operator(how.op_type, how.source, profile)
        weights = [constant(value) for value in node.inputs[1:]]
        return own + Cost(parameters=sum(array.size for array in weights if array is not None))
    if form.geometry.is_diagonal:  # one node, however it is written
        one = cost.of_elementwise(form.geometry.outputs, form.pixels, profile)
        constants = min(len(node.inputs) - 1, 2) if linear.stencil.pick is None else 0
        return Cost(1, 0, constants * form.geometry.outputs, one.seconds)
    return cost_of(form, profile)
