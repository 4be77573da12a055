"""Two models that are given: whether they compute the same, and where they part ways."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatfold.errors import UnknownName

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.proof.equivalence import Equivalence
    from flatfold.proof.reduce import Reduced

VERIFY = ("sample", "bound")
Progress = Callable[[str], None]


def silent(_: str) -> None:
    """Progress that nobody wants to see."""


def verify(
    model_a: Any,
    model_b: Any,
    *,
    verify: str = "bound",
    certificate: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    **options: Any,
) -> Equivalence:
    """Whether two models with the same inputs and outputs compute the same function.

    Runs both on random, constant, impulse and border inputs against model_a in float64. `verify`:
    "sample" stops there; "bound" also compares them part by part, whichever tool rewrote the
    second: operators that are the same, and regions that agree within rounding. The verdict is
    `identical`, `bounded`, `sampled`, `refuted` (then `faults` name the region and the weight) or
    `unknown`. A difference is a verdict, not an exception. `options` are those of `optimize` that
    say how to export a module, and an ONNX model beside one has its own; or how to read files.
    `certificate`: of the rewriting of A to B; raises InputError unless it is about these two.
    """
    from flatfold.proof.equivalence import Equivalence
    from flatfold.proof.execute import compare
    from flatfold.proof.parts import part_by_part
    from flatfold.resolve import is_same, reference_of, resolve_both
    from flatfold.summary import summarise

    if verify not in VERIFY:
        raise UnknownName("verification", verify, VERIFY)
    a, b = resolve_both(model_a, model_b, **options)
    told = _certified(certificate, a.model, b.model) if certificate is not None else ""
    if is_same(a.model, b.model):
        reason = "the two graphs have the same bytes"
        return Equivalence("identical", reason="; ".join(text for text in (reason, told) if text))
    macs = summarise(a.model).macs or 0
    found = compare(
        a.model,
        b.model,
        reference=reference_of(a),
        macs=macs,
        progress=lambda label: progress(f"running on {label}"),
    )
    if verify == "bound":
        found = part_by_part(a.model, b.model, found, progress)
    return replace(found, reason="; ".join(text for text in (found.reason, told) if text))


def _certified(content: Mapping[str, Any], a: ir.Model, b: ir.Model) -> str:
    """What a certificate says of these two. Raises InputError if it is about others."""
    from flatfold.frontend.canonicalise import canonicalise
    from flatfold.proof.certificate import Certificate, require_about

    found, original = Certificate.from_dict(content), a.clone()
    canonicalise(original)
    require_about(found, original, b)
    exact = sum(entry.certified for entry in found.changes)
    return (
        f"the certificate accounts for every new node: {len(found.changes)} changes,"
        f" {exact} exact by their algebra when they were made"
    )


def reduce(
    model_a: Any,
    model_b: Any,
    folder: str | os.PathLike[str] = "build/reduced",
    *,
    progress: Progress = silent,
    **options: Any,
) -> Reduced:
    """The smallest part in which two models differ, as two small models in `folder`.

    The first region that `verify` refutes, with the values it reads as inputs, without the terms
    and at the smallest size that leave the same weight wrong. Nothing is written where the two
    agree. `options` as for `verify`. Raises Inconclusive where neither can be said.
    """
    from flatfold.proof.reduce import reduce_pair
    from flatfold.resolve import resolve_both

    a, b = resolve_both(model_a, model_b, **options)
    return reduce_pair(a.model, b.model, Path(folder), progress)
