"""Whether two models compute the same, in double precision.

Rewriting rounds each weight to single precision once. What that may do to the outputs is measured:
the original is run again with every weight moved by one rounding, and its outputs move as far.
"""

from __future__ import annotations

import contextlib

import numpy as np
import onnx

from tests.fuzz.doubled import evaluate, in_double, perturbed
from tests.fuzz.sketch import Array, Rejected, run

ROUNDOFF = 2.0**-24  # of single precision
EXACT = 4 * ROUNDOFF  # a pool has weights too, which are rounded when it becomes a convolution
DRAWS = 4
COPIES = 200  # of the outputs, so that freed memory of their size is filled
RELIABLE = 512 * ROUNDOFF  # what ONNX Runtime in single precision may round; 1e-5 is an epsilon
TINY = 4 * 2.0**-149  # a few times the spacing of the smallest numbers
FACTOR = 16  # weights of several layers are rounded in one, and four draws miss the worst signs


def difference(
    original: onnx.ModelProto, rewritten: onnx.ModelProto, feeds: dict[str, Array]
) -> str:
    """How the second differs from the first on one input; empty where they agree.

    And where the first has no one answer: for a Concat of an empty array and one that is not, ONNX
    Runtime returns memory that nothing was written to.
    """
    fault = _difference(original, rewritten, feeds)
    return fault if fault and _repeats(original, feeds) else ""


def _repeats(original: onnx.ModelProto, feeds: dict[str, Array]) -> bool:
    """Whether the model gives the same again when freed memory has other numbers in it."""
    outputs = run(original, feeds)
    for number in (np.nan, 1.0, -7.0):
        filled = [np.full_like(y, number) for _ in range(COPIES) for y in outputs if _is_float(y)]
        del filled
        again = run(original, feeds)
        if any(a.tobytes() != b.tobytes() for a, b in zip(outputs, again, strict=True)):
            return False
    return True


def _is_float(array: Array) -> bool:
    return array.dtype.kind == "f"


def _difference(
    original: onnx.ModelProto, rewritten: onnx.ModelProto, feeds: dict[str, Array]
) -> str:
    before = run(original, feeds)
    try:
        after = run(rewritten, feeds)
    except Rejected as why:
        return f"ONNX Runtime refuses the result: {why}"
    fault = _interface(before, after)
    if fault:
        return fault
    try:
        exact = evaluate(in_double(original), feeds)
        trusted = all(map(_close, exact, before))
        second = evaluate(in_double(rewritten), feeds) if trusted else []
    except Rejected:
        trusted = False
    if not trusted:
        return _in_single(original, feeds, before, after)
    return _in_double(original, feeds, exact, second)


def _interface(before: list[Array], after: list[Array]) -> str:
    for index, (a, b) in enumerate(zip(before, after, strict=True)):
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"output {index} is {b.dtype}{b.shape}, was {a.dtype}{a.shape}"
        if a.dtype.kind == "f" and (np.isfinite(a) & ~np.isfinite(b)).any():
            return f"output {index} is no longer finite"
    return ""


def _close(exact: Array, single: Array) -> bool:
    """Whether the evaluator agrees with ONNX Runtime, so that it may be relied on."""
    if exact.shape != single.shape:
        return False
    scale = np.abs(single).max(initial=0.0) if single.dtype.kind == "f" else 1.0
    return bool((np.abs(exact.astype(np.float64) - single) <= RELIABLE * scale).all())


def _in_double(
    original: onnx.ModelProto, feeds: dict[str, Array], exact: list[Array], second: list[Array]
) -> str:
    errors = [_largest(a, b) for a, b in zip(exact, second, strict=True)]
    seen = max(map(_size, feeds.values()), default=0.0)
    scales = [max(seen, _size(a)) for a in exact]
    if all(error <= EXACT * scale for error, scale in zip(errors, scales, strict=True)):
        return ""
    moves = _moves(original, feeds, exact)
    for index, (error, move, scale) in enumerate(zip(errors, moves, scales, strict=True)):
        allowed = FACTOR * move + EXACT * scale
        if not error <= allowed:
            return f"output {index} is off by {error:.3g}, allowed {allowed:.3g}, size {scale:.3g}"
    return ""


def _moves(original: onnx.ModelProto, feeds: dict[str, Array], exact: list[Array]) -> list[float]:
    """How far each output moves when weights move by a rounding."""
    rng = np.random.default_rng(0)
    doubled = in_double(original)
    runs = [evaluate(perturbed(doubled, rng, ROUNDOFF), feeds) for _ in range(DRAWS)]
    return [max(_largest(y, run[i]) for run in runs) for i, y in enumerate(exact)]


def _in_single(
    original: onnx.ModelProto, feeds: dict[str, Array], before: list[Array], after: list[Array]
) -> str:
    """What is left where nothing computes the model in double: rounding of some thousand terms.

    And as far as the outputs move when the inputs do by a rounding: an ArgMin of equal numbers.
    """
    for index, (a, b) in enumerate(zip(before, after, strict=True)):
        error, scale = _largest(a, b), _size(a)
        if np.array_equal(a, b, equal_nan=_is_float(a)) or error <= 4096 * ROUNDOFF * scale + TINY:
            continue
        if not error <= FACTOR * _move_in_single(original, feeds, index, a):
            return f"output {index} is off by {error:.3g} in single precision, size {scale:.3g}"
    return ""


def _move_in_single(
    original: onnx.ModelProto, feeds: dict[str, Array], index: int, output: Array
) -> float:
    """How far an output moves when the inputs move by a rounding."""
    rng, moves = np.random.default_rng(0), [0.0]
    for _ in range(DRAWS):
        signs = {name: rng.choice([-1, 1], np.shape(array)) for name, array in feeds.items()}
        moved = {
            name: (array * (1 + 2 * ROUNDOFF * signs[name])).astype(array.dtype)
            if _is_float(array)
            else array
            for name, array in feeds.items()
        }
        with contextlib.suppress(Rejected):
            moves.append(_largest(output, run(original, moved)[index]))
    return max(moves)


def _largest(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        return float("inf")
    if a.dtype.kind != "f":
        return float((a != b).any())
    with np.errstate(invalid="ignore"):
        gaps = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(gaps.max(initial=0.0))


def _size(a: Array) -> float:
    return float(np.abs(a).max(initial=0.0)) if a.dtype.kind == "f" else 1.0
