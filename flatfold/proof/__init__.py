"""Proof that a rewritten graph, or an engine, computes what the original computed.

    equivalence.py   Equivalence: the verdict, and the numbers it rests on
    certificate.py   Certificate: the list of all changes, for others to check
    region_check.py  RegionChecks: each rewritten region is checked before it is put in place
    structure.py     the structure of a change, which is certified once
    trial_data.py    inputs on which both sides of a change run
    interpreter/     evaluates nodes in float64; shares no code with the passes
    finite_field/    whether a change is right by its algebra, where nothing rounds
    network/         whole graphs and engines on the same inputs: compare, check_engine
    cut_points/      two graphs part by part, whichever tool rewrote one: verify_parts
    reduction/       the smallest pair of models that differs: reduce_pair

Importing the package loads neither NumPy nor an engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flatfold.proof.certificate import Certificate, Entry, fingerprint, require_about
    from flatfold.proof.cut_points.verify import verify_parts
    from flatfold.proof.equivalence import Equivalence
    from flatfold.proof.network.engine import check_engine, original_session
    from flatfold.proof.network.inputs import input_specs
    from flatfold.proof.network.reference import NoReference, Reference, onnx_reference
    from flatfold.proof.network.run import compare
    from flatfold.proof.network.sizes import sizes_that_run
    from flatfold.proof.reduction.reduce import Reduced, reduce_pair
    from flatfold.proof.region_check import RegionChecks

__all__ = [
    "Certificate",
    "Entry",
    "Equivalence",
    "NoReference",
    "Reduced",
    "Reference",
    "RegionChecks",
    "check_engine",
    "compare",
    "fingerprint",
    "input_specs",
    "onnx_reference",
    "original_session",
    "reduce_pair",
    "require_about",
    "sizes_that_run",
    "verify_parts",
]

_MODULES = {
    "Certificate": "certificate",
    "Entry": "certificate",
    "Equivalence": "equivalence",
    "NoReference": "network.reference",
    "Reduced": "reduction.reduce",
    "Reference": "network.reference",
    "RegionChecks": "region_check",
    "check_engine": "network.engine",
    "compare": "network.run",
    "fingerprint": "certificate",
    "input_specs": "network.inputs",
    "onnx_reference": "network.reference",
    "original_session": "network.engine",
    "reduce_pair": "reduction.reduce",
    "require_about": "certificate",
    "sizes_that_run": "network.sizes",
    "verify_parts": "cut_points.verify",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
