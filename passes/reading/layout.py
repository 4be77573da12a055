"""Channels first or last: which axis a form mixes, and forms brought to one layout.

A stencil with spatial axes mixes axis 1 of [N, C, ...]; one without mixes the last axis, whatever
the rank: the matrix products of channels-last blocks. A single number for all channels is the same
in both layouts, and so is the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.reading.affine import Affine, Term
from flatfold.passes.reading.meaning import Applied, Joined, scale
from flatfold.passes.reading.node import (
    channel_axis,
    channel_count,
    dims_of,
    pixel_count,
    rank,
    spatial_sizes,
)
from flatfold.passes.stencil.geometry import Ints, Sizes, unknown_sizes
from flatfold.passes.stencil.kernels import Array
from flatfold.passes.stencil.stencil import Stencil, diagonal


def affine_form(terms: tuple[Term, ...], bias: Array | None, value: ir.Value) -> Affine:
    """The form of `value`, with what its shape says about cost."""
    axes = terms[0].stencil.geometry.axes
    if not axes:
        known = [
            dims_of(v)[1:-1] for v in (value, *(t.source for t in terms)) if _has_rank(v, value)
        ]
        pixels = pixel_count(best_known(known))
        return Affine(terms, bias, pixels, batched=rank(value) > 2)
    declared = unknown_sizes(axes) if value.shape is None else spatial_sizes(value)
    computed = terms[0].stencil.geometry.output_sizes(terms[0].sizes)
    sizes = tuple(a if a is not None else b for a, b in zip(computed, declared, strict=True))
    return Affine(terms, bias, pixel_count(sizes))


def _has_rank(one: ir.Value, two: ir.Value) -> bool:
    return one is two or (one.shape is not None and rank(one) == rank(two))


def best_known(sizes: Sequence[Sizes]) -> Sizes:
    """Sizes that several values have, each as far as any of them declares it."""
    return tuple(
        next((n for n in axis if n is not None), None) for axis in zip(*sizes, strict=True)
    )


def known_shape(form: Affine, value: ir.Value) -> ir.Shape | None:
    """The shape of a value, its open axes filled in by what its form computes from known ones."""
    if value.shape is None:
        return None
    dims = list(value.shape.dims)
    for term in form.terms:
        if not _has_rank(term.source, value) or term.source.shape is None:
            continue
        geometry, read = term.stencil.geometry, list(term.source.shape.dims)
        sizes = geometry.output_sizes(term.sizes) if geometry.axes else read[1:-1]
        count = (geometry.outputs,)
        computed = [read[0], *count, *sizes] if geometry.axes else [read[0], *sizes, *count]
        pairs = zip(dims, computed, strict=True)
        dims = [new if str(old) == "None" and new is not None else old for old, new in pairs]
    return ir.Shape(dims)


def form_of_operator(linear: Applied, value: ir.Value) -> Affine:
    """The form of an operator's output over the operator's own input."""
    form = linear.stencil
    shared = replace(
        form, bias=None, owns_weight=False
    )  # meanings are kept: nobody may sum into them
    return affine_form((make_term(linear.source, shared),), form.bias, value)


def leaf(value: ir.Value) -> Affine:
    """A value that is not looked into: the identity of itself."""
    return form_of_operator(scale(value), value)


def make_term(source: ir.Value, stencil: Stencil) -> Term:
    """A term, with the sizes of its source."""
    return Term(source, stencil, sizes_read(source, stencil.geometry.axes))


def sizes_read(value: ir.Value, axes: int) -> Sizes:
    """Spatial sizes of a value that a stencil with `axes` is applied to."""
    if value.shape is None:
        return unknown_sizes(axes)
    return spatial_sizes(value) if axes else ()


def align_layout(outer: Applied, inner: Affine, value: ir.Value) -> tuple[Stencil, Affine]:
    """`outer` and the form of its input in one layout; `value` is that input."""
    stencil, axes = outer.stencil, inner.geometry.axes
    if stencil.geometry.axes == axes:
        return stencil, inner
    if is_uniform(stencil):
        return _restated(stencil, channel_count(value, axes), axes), inner
    return stencil, in_layout(inner, value, stencil.geometry.axes)


def same_layout(operands: list[tuple[ir.Value, Affine]]) -> list[Affine]:
    """The forms of a sum's operands in one layout; Decline where a rank differs: it broadcasts."""
    first = operands[0][0]
    for value, _ in operands[1:]:
        if rank(value) != rank(first):
            raise Decline("BROADCAST", f"{_shapes(first, value)} differ in rank")
    fixed = {form.geometry.axes for _, form in operands if not _is_free(form)}
    axes = min(fixed) if fixed else operands[0][1].geometry.axes
    return [in_layout(form, value, axes) for value, form in operands]


def joined_layout(operands: list[tuple[ir.Value, Affine]], axis: int) -> tuple[list[Affine], bool]:
    """The operands of a Concat in one layout, and whether they are joined along its channels."""
    rank_ = rank(operands[0][0])
    last = any(form.geometry.axes == 0 and not _is_free(form) for _, form in operands)
    axes = 0 if rank_ == 2 or (last and axis == rank_ - 1) else rank_ - 2
    forms = [in_layout(form, value, axes) for value, form in operands]
    return forms, axis == channel_axis(operands[0][0], axes)


def concat_offsets(linear: Joined, values: Sequence[ir.Value]) -> list[tuple[Ints, Ints]]:
    """(zeros in front, zeros behind) of each value in a Concat along a spatial axis."""
    axis = linear.axis
    first = sum(fill.rows for fill in linear.fills if fill.at_start)
    last = sum(fill.rows for fill in linear.fills if not fill.at_start)
    lengths = [dims_of(value)[axis] for value in values]
    if len(values) > 1 and None in lengths:
        unknown = ", ".join(str(v.name) for v, n in zip(values, lengths, strict=True) if n is None)
        raise Decline("SHAPE", f"the size along axis {axis} is not known: {unknown}")
    whole = sum(length or 0 for length in lengths)
    at = [axis - 2 == i for i in range(rank(values[0]) - 2)]
    moves, before = [], 0
    for length in lengths:
        after = whole - before - (length or 0)
        begin, end = first + before, last + after
        moves.append((tuple(begin * here for here in at), tuple(end * here for here in at)))
        before += length or 0
    return moves


def in_layout(form: Affine, value: ir.Value, axes: int) -> Affine:
    """The form in the layout with these axes: its own, or another if it is alike in both."""
    if form.geometry.axes == axes:
        return form
    if not _is_free(form):
        mixed = ("axis 1", "the last axis") if form.geometry.axes else ("the last axis", "axis 1")
        raise Decline(
            "LAYOUT", f"what makes {value.name} works along {mixed[0]}, what reads it {mixed[1]}"
        )
    terms = tuple(
        make_term(t.source, _restated(t.stencil, channel_count(t.source, axes), axes))
        for t in form.terms
    )
    bias = None if form.bias is None else np.repeat(form.bias[:1], channel_count(value, axes))
    return affine_form(terms, bias, value)


def _is_free(form: Affine) -> bool:
    """Whether the form is the same in both layouts."""
    plain = form.bias is None or bool(np.all(form.bias == form.bias[0]))
    return plain and all(is_uniform(term.stencil) for term in form.terms)


def is_uniform(f: Stencil) -> bool:
    """Whether it is one scale and one shift for all channels, in place."""
    numbers = f.weight.reshape(-1)
    alike = f.channel_index is None and f.geometry.is_diagonal
    same = alike and bool(np.all(numbers == numbers[0]))
    return same and (f.bias is None or bool(np.all(f.bias == f.bias[0])))


def _restated(f: Stencil, count: int, axes: int) -> Stencil:
    bias = None if f.bias is None else np.repeat(f.bias[:1], count)
    return diagonal(np.repeat(f.weight.reshape(-1)[:1], count), bias, axes)


def require_equal_sizes(operands: list[tuple[ir.Value, Affine]]) -> None:
    """Decline a sum that might broadcast: every axis of every operand must be known to agree."""
    first, form = operands[0]
    for value, other in operands[1:]:
        mine, its = form.geometry, other.geometry
        if (mine.outputs, mine.axes) != (its.outputs, its.axes):
            raise Decline("BROADCAST", f"{_shapes(first, value)} differ in channels")
        needed = set(range(rank(first))) - {channel_axis(first, mine.axes)}
        if needed <= _equal_dims(first, value) or needed <= _shared_axes(form, other, first, value):
            continue
        raise Decline("BROADCAST", f"{_shapes(first, value)} may differ in size")


def _shapes(*values: ir.Value) -> str:
    return " and ".join(f"{value.name} of shape {value.shape}" for value in values)


def same_shape(one: ir.Value, two: ir.Value) -> bool:
    """Whether two values are known to have the same shape."""
    if one.shape is None or two.shape is None or len(one.shape) != len(two.shape):
        return False
    return len(_equal_dims(one, two)) == len(one.shape)


def _shared_axes(f: Affine, g: Affine, one: ir.Value, two: ir.Value) -> set[int]:
    """Axes known to agree by the shapes of two values, or by what both compute of one source."""
    agree = _equal_dims(one, two)
    mine = {term.source: term for term in f.terms}
    for term in g.terms:
        if term.source in mine:
            agree |= _equal_axes(mine[term.source], term)
    return agree


def _equal_dims(one: ir.Value, two: ir.Value) -> set[int]:
    if one.shape is None or two.shape is None:
        return set()
    pairs = enumerate(zip(one.shape, two.shape, strict=True))
    return {axis for axis, (a, b) in pairs if a == b and str(a) != "None"}


def _equal_axes(one: Term, two: Term) -> set[int]:
    """Axes on which two stencils over one source have equal sizes whatever the source's are."""
    f, g = one.stencil.geometry, two.stencil.geometry
    if f.axes == 0:
        return set(range(rank(one.source)))
    same = {i for i in range(f.axes) if (f.strides[i], f.growth[i]) == (g.strides[i], g.growth[i])}
    return {0} | {axis + 2 for axis in same}
