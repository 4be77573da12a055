"""The verdict on two graphs of any origin: from cut to cut, and on the whole."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import onnx_ir as ir

from flatfold.errors import FlatfoldError
from flatfold.frontend import canonicalize
from flatfold.proof.cut_points.check import Verdict
from flatfold.proof.cut_points.cones import Cone
from flatfold.proof.cut_points.prove import Cuts, prove
from flatfold.proof.equivalence import Equivalence, Fault
from flatfold.proof.network.judge import MARGIN
from flatfold.proof.reduction.impulse import described, diagnose
from flatfold.system.progress import Progress, silent

SHOWN = 3  # faults that are looked into


def part_by_part(
    a: ir.Model, b: ir.Model, whole: Equivalence, progress: Progress = silent
) -> Equivalence:
    """`whole`, what running both came to, with what their parts say.

    `bounded` if every part is equal or within rounding, `refuted` if one is not, else as it was.
    """
    one, two = a.clone(), b.clone()
    try:
        for model in (one, two):
            canonicalize(model)
        if ir.to_proto(one) == ir.to_proto(two):
            return Equivalence("identical", reason="the same bytes once both are canonical")
        cuts = prove(one, two, progress)
    except FlatfoldError as why:
        return _with_reason(whole, f"the parts were not compared: {why.cause}")
    found = replace(
        whole, regions=len(cuts.checked), structural=cuts.structural, region_ratio=cuts.worst
    )
    return _judged(cuts, found)


def _judged(cuts: Cuts, found: Equivalence) -> Equivalence:
    wrong = cuts.of_kind("refuted")
    if wrong:
        faults = tuple(fault(cuts, cone, verdict) for cone, verdict in wrong[:SHOWN])
        more = f"; {len(wrong) - SHOWN} more regions differ" if len(wrong) > SHOWN else ""
        reason = "; ".join(fault.text for fault in faults) + more
        return replace(_with_reason(found, reason), verdict="refuted", faults=faults)
    missed = cuts.of_kind("open")
    if missed:
        reason = f"{len(missed)} of {len(cuts.checked)} regions not compared on their own: "
        return _with_reason(found, reason + missed[0][1].reason)
    if cuts.unpaired:
        return _with_reason(found, f"output {cuts.unpaired[0]} is not computed in both")
    if found.verdict == "refuted" and not found.is_less_exact:
        return _with_reason(found, "each region is within rounding, the whole is not")
    if found.verdict == "unknown":
        return found
    rounded = math.ceil(cuts.worst / MARGIN)
    reason = f"weights of the second rounded up to {rounded} times" if rounded > 1 else ""
    if found.is_less_exact:
        reason = "each region is within rounding, but as a whole the second is less exact"
    return replace(_with_reason(found, reason), verdict="bounded")


def fault(cuts: Cuts, cone: Cone, verdict: Verdict) -> Fault:
    """What is wrong with a cone that was refuted."""
    finding = diagnose(cone, cuts.shapes)
    channel = verdict.gap.place[1] if len(verdict.gap.place) > 1 else None
    weight = finding.to_dict() if finding is not None else None
    text = described(cone, verdict, finding)
    return Fault(_names(cone.before), _names(cone.after), verdict.gap.ratio, channel, weight, text)


def _names(nodes: Iterable[ir.Node]) -> tuple[str, ...]:
    return tuple(node.name or node.op_type for node in nodes)


def _with_reason(found: Equivalence, reason: str) -> Equivalence:
    return replace(found, reason="; ".join(part for part in (found.reason, reason) if part))
