"""Reduce two models that differ to the smallest pair that differs in the same way, on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from flatfold.errors import Inconclusive, OutputError
from flatfold.frontend import canonicalize
from flatfold.proof.cut_points.cones import node_names
from flatfold.proof.cut_points.prove import CutPointProof, prove
from flatfold.proof.cut_points.verify import fault_of
from flatfold.proof.equivalence import Fault
from flatfold.proof.network.sizes import Shapes
from flatfold.proof.reduction.extract import extract
from flatfold.proof.reduction.shrink import shrink
from flatfold.system.atomic import atomic_folder, os_errors_as_ours, refuse_foreign
from flatfold.system.progress import Progress

FILES = ("a.onnx", "b.onnx", "fault.json")


@dataclass(frozen=True)
class Reduced:
    """The folder of the smallest pair, and what is wrong; without a fault the two models agree.

    nodes: number of nodes of both models together, before and after. inputs: shapes of the inputs
    of the small models.
    """

    text: str
    folder: str = ""
    fault: Fault | None = None
    nodes: tuple[int, int] = (0, 0)
    inputs: tuple[tuple[int, ...], ...] = ()

    def __bool__(self) -> bool:
        """Whether a difference was found."""
        return self.fault is not None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return self.text


def reduce_pair(
    a: ir.Model,
    b: ir.Model,
    folder: Path,
    progress: Progress,
    sizes: Sequence[Shapes] | None = None,
) -> Reduced:
    """Write the smallest pair to `folder`. Raises Inconclusive, OutputError, or BuildError.

    `sizes` as for `compare`.
    """
    _refuse_foreign(folder)
    one, two = a.clone(), b.clone()
    for model in (one, two):
        canonicalize(model)
    proof = prove(one, two, progress, sizes=sizes)
    refuted = proof.of_kind("refuted")
    if not refuted:
        return _agreeing(proof)
    cone, verdict = refuted[0]
    progress("shrinking")
    small = shrink(extract(cone, (one, two), proof.shapes))
    fault = fault_of(proof, cone, verdict)
    nodes = len(one.graph) + len(two.graph), small.nodes
    inputs = tuple(small.shapes[value] for value in small.a.graph.inputs)
    sides = node_names(list(small.a.graph)), node_names(list(small.b.graph))
    shapes = ", ".join("x".join(map(str, shape)) for shape in inputs)
    text = f"{nodes[0]} nodes of both became {nodes[1]}: {sides[0]} and {sides[1]} on {shapes}"
    result = Reduced(f"{text}; {fault.text}", str(folder), fault, nodes, inputs)
    _write((small.a, small.b), result, folder)
    return result


def _agreeing(proof: CutPointProof) -> Reduced:
    """The result where the two agree. Raises Inconclusive where a part could not be compared."""
    missed = proof.of_kind("open")
    if missed or proof.unpaired:
        reason = missed[0][1].reason if missed else f"output {proof.unpaired[0]} has no partner"
        raise Inconclusive(
            f"no region is refuted, but not all could be compared: {reason}",
            where=node_names(missed[0][0].before) if missed else "",
            hint="`flatfold verify` compares the two as a whole",
        )
    return Reduced(
        f"the two agree: {len(proof.checked)} regions within rounding, {proof.structural} operators"
        " the same; there is nothing to reduce"
    )


def _refuse_foreign(folder: Path) -> None:
    """Raises OutputError if the folder holds anything but an earlier reduction."""
    if folder.exists() and not folder.is_dir():
        raise OutputError("expected a folder, found a file", where=str(folder))
    if folder.exists():
        refuse_foreign(folder, FILES)


def _write(models: tuple[ir.Model, ir.Model], result: Reduced, folder: Path) -> None:
    with os_errors_as_ours(folder), atomic_folder(folder.resolve()) as staging:
        for model, name in zip(models, FILES, strict=False):
            ir.save(model, staging / name)
        (staging / FILES[2]).write_text(json.dumps(result.to_dict(), indent=2) + os.linesep)
