"""Identity test of a change: both sides evaluated in a prime field, where nothing rounds.

The code that made the change runs once more on shadowed weights
(`flatfold.proof.finite_field.shadow`), and both sides are evaluated on shadowed random data. Each
output is a polynomial of degree d in the elements drawn, so two different polynomials agree at a
random point with probability at most d / p, below 1e-8 (Schwartz 1980, Zippel 1979); two draws make
that 1e-16. The test covers all weights and all inputs at once: channels that are dead for the
weights at hand are not hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.passes import Change, Decline, Replacement
from flatfold.passes.stencil import kernels
from flatfold.proof.finite_field.field import PRIME
from flatfold.proof.finite_field.shadow import ShadowedArray, shadowed, using_key
from flatfold.proof.interpreter.interpreter import evaluate
from flatfold.proof.interpreter.pair import Pair, Unsupported
from flatfold.proof.trial_data import Trial

DRAWS = 2


class Uncertified(Exception):
    """The change could not be shown to be right by algebra alone; the text says why."""


def require_identity(change: Change, trials: Sequence[Trial], seed: int) -> None:
    """Raise Uncertified unless both sides agree exactly on each trial, in each draw.

    The floats of the trials make the decisions: which element is larger, what is zero.
    """
    for draw in range(DRAWS):
        rng = np.random.default_rng([seed, draw])
        with using_key(DRAWS * seed + draw), kernels.lifting(shadowed):
            _require_equal(change, trials, rng)


def _require_equal(change: Change, trials: Sequence[Trial], rng: np.random.Generator) -> None:
    try:
        recomputed = change.again()
    except (Decline, TypeError, ValueError) as why:
        raise Uncertified(f"it cannot be computed in the prime field: {why}") from None
    try:
        _require_same_nodes(recomputed.nodes, change.replacement.nodes)
        for trial in trials:
            _require_equal_outputs(trial, change, recomputed, rng)
    finally:
        recomputed.discard()


def _require_equal_outputs(
    trial: Trial, change: Change, recomputed: Replacement, rng: np.random.Generator
) -> None:
    feeds = {value: Pair(_with_drawn(pair.y, rng), pair.m) for value, pair in trial.feeds.items()}
    try:
        before = evaluate(trial.nodes, feeds, shadowed)[change.region.output].y
        nodes = (*trial.shared, *recomputed.nodes)
        after = evaluate(nodes, feeds, shadowed)[recomputed.output].y
    except (Unsupported, TypeError, ValueError) as why:
        raise Uncertified(f"it cannot be evaluated in the prime field: {why}") from None
    expected, actual = (shadowed(array).shadow for array in (before, after))
    if expected.shape != actual.shape or not np.array_equal(expected, actual):
        differing = np.mean(expected != actual) if expected.shape == actual.shape else 1.0
        raise Uncertified(f"{differing:.1%} of the outputs differ by more than rounding")


def _with_drawn(array: Any, rng: np.random.Generator) -> Any:
    """The data with random elements that do not depend on its numbers."""
    return ShadowedArray(array, rng.integers(0, PRIME, array.shape))


def _require_same_nodes(recomputed: Sequence[ir.Node], planned: Sequence[ir.Node]) -> None:
    """The same nodes with the same weights, bit by bit."""
    if len(recomputed) != len(planned):
        counts = f"{len(recomputed)} nodes, not {len(planned)}"
        raise Uncertified(f"computed once more it has {counts}")
    for one, two in zip(recomputed, planned, strict=True):
        if (one.op_type, _attributes(one)) != (two.op_type, _attributes(two)):
            raise Uncertified(f"computed once more {two.op_type} is another node")
        for a, b in zip(one.inputs, two.inputs, strict=True):
            if not np.array_equal(*map(_numbers, (a, b))):
                raise Uncertified(f"computed once more {two.op_type} has other weights")


def _attributes(node: ir.Node) -> dict[str, Any]:
    return {name: attribute.value for name, attribute in node.attributes.items()}


def _numbers(value: ir.Value | None) -> Any:
    if value is None or value.const_value is None:
        return None
    array: Any = value.const_value.numpy()
    return array.value if isinstance(array, ShadowedArray) else array
