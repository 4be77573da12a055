"""The verdict on two graphs, whichever tools made them: cone by cone, and as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import onnx_ir as ir

from flatfold.errors import FlatfoldError
from flatfold.frontend import canonicalize
from flatfold.proof.cut_points.check import Verdict
from flatfold.proof.cut_points.cones import Cone
from flatfold.proof.cut_points.prove import CutPointProof, prove
from flatfold.proof.equivalence import Equivalence, Fault
from flatfold.proof.network.judge import MARGIN
from flatfold.proof.network.sizes import Shapes
from flatfold.proof.reduction.impulse import description, find_wrong_weight
from flatfold.system.progress import Progress, silent

SHOWN = 3  # faults that are described


def verify_parts(
    a: ir.Model,
    b: ir.Model,
    whole: Equivalence,
    progress: Progress = silent,
    sizes: Sequence[Shapes] | None = None,
) -> Equivalence:
    """`whole`, the verdict from running both graphs, extended by a comparison part by part.

    The verdict becomes `bounded` if every part is equal or within rounding, and `refuted` if one is
    not; otherwise it stays.
    """
    one, two = a.clone(), b.clone()
    try:
        for model in (one, two):
            canonicalize(model)
        if ir.to_proto(one) == ir.to_proto(two):
            return Equivalence("identical", reason="the same bytes once both are canonical")
        proof = prove(one, two, progress, sizes=sizes)
    except FlatfoldError as why:
        return _with_reason(whole, f"the parts were not compared: {why.cause}")
    except MemoryError:
        return _with_reason(whole, "the parts were not compared: there is not enough memory")
    counted = replace(
        whole, regions=len(proof.checked), structural=proof.structural, region_ratio=proof.worst
    )
    return _judge(proof, counted)


def _judge(proof: CutPointProof, whole: Equivalence) -> Equivalence:
    refuted = proof.of_kind("refuted")
    if refuted:
        faults = tuple(fault_of(proof, cone, verdict) for cone, verdict in refuted[:SHOWN])
        more = f"; {len(refuted) - SHOWN} more regions differ" if len(refuted) > SHOWN else ""
        reason = "; ".join(fault.text for fault in faults) + more
        return replace(_with_reason(whole, reason), verdict="refuted", faults=faults)
    missed = proof.of_kind("open")
    if missed:
        reason = f"{len(missed)} of {len(proof.checked)} regions not compared on their own: "
        return _with_reason(whole, reason + missed[0][1].reason)
    if proof.unpaired:
        return _with_reason(whole, f"output {proof.unpaired[0]} is not computed in both")
    if whole.verdict == "refuted":
        return _with_reason(whole, "each region is within rounding, the whole is not")
    if whole.verdict == "unknown":
        return whole
    rounded = math.ceil(proof.worst / MARGIN)
    reason = f"weights of the second rounded up to {rounded} times" if rounded > 1 else ""
    return replace(_with_reason(whole, reason), verdict="bounded")


def fault_of(proof: CutPointProof, cone: Cone, verdict: Verdict) -> Fault:
    """What is wrong with a cone that was refuted."""
    weight = find_wrong_weight(cone, proof.shapes, bias_only=verdict.gap.of_bias)
    channel = verdict.gap.place[1] if len(verdict.gap.place) > 1 else None
    content = weight.to_dict() if weight is not None else None
    text = description(cone, verdict, weight)
    return Fault(_names(cone.before), _names(cone.after), verdict.gap.ratio, channel, content, text)


def _names(nodes: Iterable[ir.Node]) -> tuple[str, ...]:
    return tuple(node.name or node.op_type for node in nodes)


def _with_reason(whole: Equivalence, reason: str) -> Equivalence:
    return replace(whole, reason="; ".join(part for part in (whole.reason, reason) if part))
