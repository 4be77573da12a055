"""Whether a change is right by its algebra: both sides in a prime field, where nothing rounds.

The code that made the change makes it once more, on twins of the weights
(`flatfold.proof.finite_field.shadow`), and both sides are evaluated on twins of random data. Each
output is a polynomial of degree d in the elements drawn, so a wrong one agrees at a point with
probability at most d / p, below 1e-8 (Schwartz 1980, Zippel 1979); two draws make that 1e-16. This
is about all weights and all inputs at once: channels that are dead for the weights at hand are not
hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.passes import Change
from flatfold.passes.decline import Decline
from flatfold.passes.rewrite import Replacement
from flatfold.passes.stencil import kernels
from flatfold.proof.finite_field.field import PRIME
from flatfold.proof.finite_field.shadow import Twin, keyed, twin
from flatfold.proof.interpreter.interpreter import evaluate
from flatfold.proof.interpreter.pair import Pair, Unsupported
from flatfold.proof.trial_data import Trial

DRAWS = 2


class Uncertified(Exception):
    """The change could not be shown to be right by algebra alone; the text says why."""


def certify(change: Change, trials: Sequence[Trial], seed: int) -> None:
    """Raise Uncertified unless both sides agree exactly on each trial, in each draw.

    The numbers of the trials decide what is decided.
    """
    for draw in range(DRAWS):
        rng = np.random.default_rng([seed, draw])
        with keyed(DRAWS * seed + draw), kernels.lifting(twin):
            _agree(change, trials, rng)


def _agree(change: Change, trials: Sequence[Trial], rng: np.random.Generator) -> None:
    try:
        again = change.again()
    except (Decline, TypeError, ValueError) as why:
        raise Uncertified(f"it cannot be worked out without rounding: {why}") from None
    try:
        _require_same(again.nodes, change.lowered.nodes)
        for trial in trials:
            _agree_on(trial, change, again, rng)
    finally:
        again.discard()


def _agree_on(trial: Trial, change: Change, again: Replacement, rng: np.random.Generator) -> None:
    feeds = {value: Pair(_drawn(pair.y, rng), pair.m) for value, pair in trial.feeds.items()}
    try:
        before = evaluate(trial.nodes, feeds, twin)[change.region.output].y
        after = evaluate(again.nodes, feeds, twin)[again.output].y
    except (Unsupported, TypeError, ValueError) as why:
        raise Uncertified(f"it cannot be evaluated without rounding: {why}") from None
    one, two = (twin(array).shadow for array in (before, after))
    if one.shape != two.shape or not np.array_equal(one, two):
        wrong = np.mean(one != two) if one.shape == two.shape else 1.0
        raise Uncertified(f"{wrong:.1%} of the outputs are not the same but for rounding")


def _drawn(array: Any, rng: np.random.Generator) -> Any:
    """The data with elements that have nothing to do with its numbers."""
    return Twin(array, rng.integers(0, PRIME, array.shape))


def _require_same(again: Sequence[ir.Node], made: Sequence[ir.Node]) -> None:
    """The same nodes with the same weights, bit by bit."""
    if len(again) != len(made):
        raise Uncertified(f"worked out again it has {len(again)} nodes, not {len(made)}")
    for one, two in zip(again, made, strict=True):
        if (one.op_type, _plain(one)) != (two.op_type, _plain(two)):
            raise Uncertified(f"worked out again {two.op_type} is another node")
        for a, b in zip(one.inputs, two.inputs, strict=True):
            if not np.array_equal(*map(_numbers, (a, b))):
                raise Uncertified(f"worked out again {two.op_type} has other weights")


def _plain(node: ir.Node) -> dict[str, Any]:
    return {name: attribute.value for name, attribute in node.attributes.items()}


def _numbers(value: ir.Value | None) -> Any:
    if value is None or value.const_value is None:
        return None
    array: Any = value.const_value.numpy()
    return array.value if isinstance(array, Twin) else array
