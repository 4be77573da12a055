"""Write a normalization that is spelled out in several operators as the operator that it is."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from flatfold.passes.cost.model import Cost, CostModel
from flatfold.passes.decline import Decline
from flatfold.passes.lowering.draft import Draft
from flatfold.passes.lowering.replacement import Names, Replacement
from flatfold.passes.lowering.spellings import spell
from flatfold.passes.reading.affine import Affine
from flatfold.passes.reading.composites import Composite
from flatfold.passes.reading.layout import make_term
from flatfold.passes.reading.node import constant, dims_of, pixel_count
from flatfold.passes.reading.norms import norm_at
from flatfold.passes.rewrite import LocalRewrite, Proposal, Region
from flatfold.passes.stencil.stencil import diagonal

OPSETS = {"InstanceNormalization": 6, "LayerNormalization": 17, "RMSNormalization": 23}
SINGLE, HALF, DOUBLE = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE
TYPES = {  # that ONNX Runtime has kernels for
    "InstanceNormalization": (SINGLE,),
    "LayerNormalization": (SINGLE, HALF, DOUBLE),
    "RMSNormalization": (SINGLE, HALF),
}


class FuseNorms(LocalRewrite):
    """(x - mean) / sqrt(mean((x - mean)^2) + eps) * scale + bias = LayerNormalization(x).

    *Given* means along the last axis, or along the channels of a map; means over all pixels, which
    are an InstanceNormalization; or no mean that is taken off, which is an RMSNormalization.
    *Result* that operator, between two Transposes for the channels of a map; in an opset that lacks
    it, the nodes by which the target finds it.

    *Declines when* a value between is read elsewhere, scale and bias vary along other axes, the
    target is slow at the operator, or a layer in front of a norm of its channels can take the mean
    off itself.
    """

    name = "fuse-norms"
    first = True

    def match(self, node: ir.Node, names: Names, cost: CostModel) -> Proposal:
        """One norm that ends in `node`."""
        norm = norm_at(node)
        if norm is None:
            raise Decline("NONLINEAR", "no norm ends in it")
        kind, epsilon = norm.op_type, float(norm.attributes["epsilon"])
        if node.outputs[0].dtype not in TYPES[kind] or epsilon != float(np.float32(epsilon)):
            raise Decline("NONLINEAR", "the operator has no kernel, or its epsilon is rounded")
        if not norm.is_exact:
            raise Decline("NONLINEAR", "it is multiplied by a number that is not quite 1")
        turned = _is_turned(norm)
        if turned and not cost.profile.turned_norm:
            raise Decline("NONLINEAR", "the target is slow at turning the map twice")
        if turned and _follows_layer(norm):
            raise Decline("NONLINEAR", "the layer in front takes the mean off")
        if names.opset >= OPSETS[kind] and kind not in cost.profile.slow:
            new = _turned(norm, names) if turned else _plain(norm, names)
        elif turned:
            raise Decline("NONLINEAR", f"the opset has no {kind}")
        else:
            new = spell(norm, names)
        return Proposal(_region(norm), new, *_costs(norm, new, cost))


def _is_turned(norm: Composite) -> bool:
    """Whether it is along the channels of a map."""
    last = len(dims_of(norm.data)) - 1
    return norm.op_type == "LayerNormalization" and norm.axes != (last,)


def _follows_layer(norm: Composite) -> bool:
    """Whether a layer that only the norm reads is in front, which can take the mean off itself."""
    layer = norm.data.producer()
    readers = {use.node for use in norm.data.uses()}
    is_layer = layer is not None and layer.op_type in ("Conv", "ConvTranspose")
    return is_layer and not norm.data.is_graph_output() and readers <= set(norm.nodes)


def _channels(norm: Composite) -> tuple[int, int]:
    """How many places the scale has a number for, and the axes behind those of a stencil of it."""
    sizes = dims_of(norm.data)
    of_a_map = _is_turned(norm) or norm.op_type == "InstanceNormalization"
    count = sizes[1 if of_a_map else -1]
    assert count is not None
    return count, len(sizes) - 2 if of_a_map else 0


def _region(norm: Composite) -> Region:
    count, axes = _channels(norm)
    term = make_term(norm.data, diagonal(np.ones(count), None, axes))
    return Region(norm.nodes[0], Affine((term,), None, 0), norm.nodes, {}, ())


def _costs(norm: Composite, new: Replacement, cost: CostModel) -> tuple[Cost, Cost]:
    elements = pixel_count(dims_of(norm.data)[1:])
    one = cost.elementwise(1, elements)
    turns = sum(node.op_type == "Transpose" for node in new.nodes)
    found = norm.op_type in cost.profile.finds
    after = cost.repeated(one, 1 if found else len(new.nodes) - turns)
    return cost.repeated(one, len(norm.nodes)), after + cost.repeated(cost.copy(1, elements), turns)


def _plain(norm: Composite, names: Names) -> Replacement:
    """The operator alone."""
    draft = Draft(norm.output, names)
    return draft.replacement(_normalized(draft, norm, norm.data))


def _turned(norm: Composite, names: Names) -> Replacement:
    """Channels last, the operator, and back."""
    draft, rank = Draft(norm.output, names), len(dims_of(norm.data))
    there = [0, *range(2, rank), 1]
    back = [there.index(axis) for axis in range(rank)]
    dims = norm.data.shape.dims if norm.data.shape is not None else ()
    shape = ir.Shape([dims[axis] for axis in there])
    last = draft.op("Transpose", norm.data, shape=shape, attributes={"perm": there})
    whole = _normalized(draft, norm, last)
    return draft.replacement(
        draft.op("Transpose", whole, shape=norm.data.shape, attributes={"perm": back})
    )


def _normalized(draft: Draft, norm: Composite, value: ir.Value) -> ir.Value:
    parameters = [_parameter(draft, norm, norm.scale, 1.0, "scale")]
    if norm.bias is not None or norm.op_type == "InstanceNormalization":
        parameters.append(_parameter(draft, norm, norm.bias, 0.0, "bias"))
    return draft.op(norm.op_type, value, *parameters, attributes=norm.attributes)


def _parameter(
    draft: Draft, norm: Composite, value: ir.Value | None, otherwise: float, what: str
) -> ir.Value:
    """One number for each channel, as an array of one axis."""
    array = constant(value)
    if value is not None and array is not None and array.ndim == 1:
        return value
    count, _ = _channels(norm)
    given = np.full(count, otherwise) if array is None else array.reshape(-1)
    return draft.constant(given, what)
