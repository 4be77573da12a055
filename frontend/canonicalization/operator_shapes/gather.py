"""Output sizes of operators that select, write or order by index, or make what they count by."""

from __future__ import annotations

import math

from flatfold.frontend.canonicalization.operator_shapes.rule import (
    Operands,
    Sizes,
    axis_in,
    replaced,
    single,
    unknown,
)


def gather(operands: Operands) -> list[Sizes | None]:
    before, indices = operands.sizes(0), operands.sizes(1)
    if before is None or indices is None:
        return []
    axis = axis_in(operands.integer("axis", 0), len(before))
    return [(*before[:axis], *indices, *before[axis + 1 :])]


def gather_elements(operands: Operands) -> list[Sizes | None]:
    return [operands.sizes(1)]


def gather_nd(operands: Operands) -> list[Sizes | None]:
    before, indices = operands.sizes(0), operands.sizes(1)
    if before is None or indices is None or not isinstance(indices[-1], int):
        return []
    used = operands.integer("batch_dims", 0) + indices[-1]
    return [(*indices[:-1], *before[used:])] if used <= len(before) else []


def compress(operands: Operands) -> list[Sizes | None]:
    before = operands.sizes(0)
    if not operands.named("axis"):
        return [(None,)]
    if before is None:
        return []
    return [replaced(before, axis_in(operands.integer("axis", 0), len(before)), None)]


def top_k(operands: Operands) -> list[Sizes | None]:
    before = operands.sizes(0)
    if before is None:
        return []
    count = operands.integer("k", 0) if operands.named("k") else single(operands.numbers("", 1))
    axis = axis_in(operands.integer("axis", -1), len(before))
    return operands.outputs(replaced(before, axis, count))


def one_hot(operands: Operands) -> list[Sizes | None]:
    indices, depth = operands.sizes(0), operands.array(1)
    if indices is None:
        return []
    axis = axis_in(operands.integer("axis", -1), len(indices) + 1)
    return [(*indices[:axis], single(depth), *indices[axis:])]


def non_max_suppression(operands: Operands) -> list[Sizes | None]:
    return [(None, 3)]


def non_zero(operands: Operands) -> list[Sizes | None]:
    before = operands.sizes(0)
    return [(None if before is None else max(len(before), 1), None)]


def unique(operands: Operands) -> list[Sizes | None]:
    before = operands.sizes(0)
    first: Sizes | None = (None,)
    if operands.named("axis"):
        axis = operands.integer("axis", 0)
        first = None if before is None else replaced(before, axis_in(axis, len(before)), None)
    return [first, (None,), (None,), (None,)]


def shape(operands: Operands) -> list[Sizes | None]:
    """The length of a Shape whose input has unknown rank is unknown."""
    before = operands.sizes(0)
    if before is None:
        return [(None,)]
    first, last = operands.integer("start", 0), operands.integer("end", len(before))
    return [(len(before[first:last]),)]


def scalar(operands: Operands) -> list[Sizes | None]:
    """One number."""
    return [()]


def range_(operands: Operands) -> list[Sizes | None]:
    bounds = [operands.array(i) for i in range(3)]
    known = [array.item() for array in bounds if array is not None and array.size == 1]
    if len(known) < 3:
        return [(None,)]
    start, limit, step = known
    if step == 0 or not all(math.isfinite(number) for number in known):
        return [(None,)]
    if all(isinstance(number, int) for number in known):
        return [(len(range(start, limit, step)),)]
    return [(max(math.ceil((limit - start) / step), 0),)]


def window(operands: Operands) -> list[Sizes | None]:
    """HannWindow and the like."""
    return [(single(operands.numbers("", 0)),)]


def mel_weights(operands: Operands) -> list[Sizes | None]:
    bins, length = single(operands.numbers("", 0)), single(operands.numbers("", 1))
    return [(None if length is None else length // 2 + 1, bins)]


def drawn(operands: Operands) -> list[Sizes | None]:
    """RandomNormal and RandomUniform: the shape is an attribute."""
    asked = operands.integers("shape")
    return [None if asked is None else tuple(asked)]


def multinomial(operands: Operands) -> list[Sizes | None]:
    before = operands.sizes(0)
    return [(None if before is None else before[0], operands.integer("sample_size", 1))]


def loss(operands: Operands) -> list[Sizes | None]:
    """SoftmaxCrossEntropyLoss and NegativeLogLikelihoodLoss."""
    first = operands.sizes(1) if operands.text("reduction", "mean") == "none" else ()
    return [first, operands.sizes(0)]


def spectrum(operands: Operands) -> list[Sizes | None]:
    """DFT, of which the rank is known."""
    before = operands.sizes(0)
    return [None if before is None else unknown(len(before))]


def frames(operands: Operands) -> list[Sizes | None]:
    """STFT: batch, frames, frequencies, real and imaginary part."""
    before = operands.sizes(0)
    return [(None if before is None else before[0], None, None, 2)]
