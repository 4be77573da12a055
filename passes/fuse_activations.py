"""Write an activation that is spelled out in several operators as the operator that it is."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from flatfold.passes.cost.model import CostModel
from flatfold.passes.cost.profiles import Profile
from flatfold.passes.decline import Decline
from flatfold.passes.lowering.draft import Draft
from flatfold.passes.lowering.replacement import Names
from flatfold.passes.lowering.spellings import spell
from flatfold.passes.reading.activations import HARD_SIGMOID, activation_at
from flatfold.passes.reading.affine import Affine
from flatfold.passes.reading.composites import Composite
from flatfold.passes.reading.layout import make_term
from flatfold.passes.reading.meaning import scale
from flatfold.passes.reading.node import dims_of, pixel_count
from flatfold.passes.rewrite import LocalRewrite, Proposal, Region

# The first opset with each operator. A Swish, of opset 24, is none: ONNX Runtime takes up to 1.15
# times the time of Sigmoid and Mul for it, which it makes one kernel of; OpenVINO takes the same.
OPSETS = {"Gelu": 20, "HardSigmoid": 6, "HardSwish": 14, "Mish": 18, "Sigmoid": 6, "Softplus": 1}
TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


class FuseActivations(LocalRewrite):
    """x * clip(x + 3, 0, 6) / 6 = HardSwish(x),  x * (1 + erf(x / sqrt(2))) / 2 = Gelu(x).

    *Given* a Gelu, HardSwish, HardSigmoid, Mish, Sigmoid or Softplus in any order in which
    exporters write their products. *Result* that operator; in an opset that lacks it, a HardSigmoid
    and a Mul, or a Gelu in the order in which the target finds it. x / (1 + e^(-beta x)) becomes
    a Sigmoid and a Mul.

    *Declines when* the constants are others, a value between is read elsewhere, the target is slow
    at the operator, or the type is finer than single precision, which its constants have.
    """

    name = "fuse-activations"
    first = True

    def match(self, node: ir.Node, names: Names, cost: CostModel) -> Proposal:
        """One activation that ends in `node`."""
        composite = activation_at(node)
        if composite is None:
            raise Decline("NONLINEAR", "no activation ends in it")
        if node.outputs[0].dtype not in TYPES or not composite.is_exact:
            raise Decline("NONLINEAR", "the operator has other constants, in single precision")
        data, kind = composite.data, composite.op_type
        term = make_term(data, scale(data).stencil)
        region = Region(node, Affine((term,), None, 0), composite.nodes, {}, ())
        one = cost.elementwise(1, pixel_count(dims_of(data)[1:]))
        if _has_operator(composite, names.opset, cost.profile):
            draft = Draft(node.outputs[0], names)
            new = draft.replacement(draft.op(kind, data, attributes=_attributes(composite)))
        elif kind == "HardSwish" and "HardSigmoid" in cost.profile.slow:
            raise Decline("NONLINEAR", "the target is slow at a HardSigmoid")
        else:
            new = spell(composite, names)
        kernels = 1 if kind in cost.profile.finds else len(new.nodes)
        before, after = (cost.repeated(one, n) for n in (len(composite.nodes), kernels))
        return Proposal(region, new, before, after)


def _has_operator(composite: Composite, opset: int, profile: Profile) -> bool:
    """Whether the opset has the operator, and the target is no slower with it."""
    kind = composite.op_type
    by_logarithm = kind == "Mish" and any(node.op_type == "Log" for node in composite.nodes)
    needed = {kind, "Softplus"} if by_logarithm else {kind}
    return opset >= OPSETS.get(kind, opset + 1) and not needed & set(profile.slow)


def _attributes(composite: Composite) -> Mapping[str, float | int | str]:
    """Those of the operator, without what they are anyway."""
    if composite.op_type == "HardSigmoid":
        return HARD_SIGMOID
    return {name: value for name, value in composite.attributes.items() if value != "none"}
