"""Proof that a rewritten graph, or an engine, computes what the original computed.

    equivalence.py   Equivalence: the verdict, and the numbers it rests on
    certificate.py   Certificate: the list of all changes, for others to check
    change.py        RegionChecks: each change is checked before it is made
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
    from flatfold.proof.certificate import Certificate
    from flatfold.proof.change import RegionChecks
    from flatfold.proof.cut_points.verify import verify_parts
    from flatfold.proof.equivalence import Equivalence
    from flatfold.proof.network.engine import check_engine
    from flatfold.proof.network.run import compare
    from flatfold.proof.reduction.reduce import reduce_pair

__all__ = [
    "Certificate",
    "Equivalence",
    "RegionChecks",
    "check_engine",
    "compare",
    "reduce_pair",
    "verify_parts",
]

_MODULES = {
    "Certificate": "certificate",
    "Equivalence": "equivalence",
    "RegionChecks": "change",
    "check_engine": "network.engine",
    "compare": "network.run",
    "reduce_pair": "reduction.reduce",
    "verify_parts": "cut_points.verify",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
