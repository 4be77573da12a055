"""Values that are another value with copies of its own pixels around it: x is a crop of pad(x).

A layer that reads x alone then reads a crop of pad(x), so that it can be one with a layer over
pad(x). Such a value is a Pad by reflection, by its edge or around (wrap), or a Concat of parts of x
with x, which is how the older exporter writes circular padding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.reading.affine import Affine, Term
from flatfold.passes.reading.copying import COPYING_MODES, read_copying_pad
from flatfold.passes.reading.node import dims_of, number, pads_by_axis, spatial_sizes, text
from flatfold.passes.stencil.geometry import Ints

MOST_STEPS = 4  # one Concat for each spatial axis, and one more


@dataclass(frozen=True)
class Surrounded:
    """`outer` without `begin` and `end` pixels of each spatial axis is `inner`.

    `nodes` compute `outer` from `inner`, in order. `mode`: of a single Pad, else "".
    """

    outer: ir.Value
    inner: ir.Value
    begin: Ints
    end: Ints
    nodes: tuple[ir.Node, ...]
    mode: str = ""


def surroundings(outer: ir.Value) -> list[Surrounded]:
    """What `outer` is a larger map of, the largest first; none for most values."""
    found: list[Surrounded] = []
    value = outer
    while len(found) < MOST_STEPS:
        try:
            step = _step(value)
        except Decline:
            break
        if step is None:
            break
        last = found[-1] if found else None
        value = step.inner
        if last is not None:
            step = Surrounded(
                outer,
                step.inner,
                tuple(a + b for a, b in zip(last.begin, step.begin, strict=True)),
                tuple(a + b for a, b in zip(last.end, step.end, strict=True)),
                (*step.nodes, *last.nodes),
            )
        found.append(step)
    return found


def _step(outer: ir.Value) -> Surrounded | None:
    node = outer.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Pad" and text(node, "mode", "constant") in COPYING_MODES:
        return _of_pad(node)
    return _of_concat(node) if node.op_type == "Concat" else None


def _of_pad(node: ir.Node) -> Surrounded | None:
    inner = read_copying_pad(node).source
    both = pads_by_axis(node)
    if np.any(both < 0):
        return None
    begin, end = (tuple(int(n) for n in side[2:]) for side in both)
    return Surrounded(node.outputs[0], inner, begin, end, (node,), text(node, "mode", ""))


def _of_concat(node: ir.Node) -> Surrounded | None:
    """A Concat along a spatial axis of one value and, around it, Slices of that value."""
    axis, rank = int(number(node, "axis", 0)), len(dims_of(node.outputs[0]))
    axis %= rank
    slices = [value.producer() if value is not None else None for value in node.inputs]
    copies = [n for n in slices if n is not None and n.op_type == "Slice" and n.domain == ""]
    sources = {n.inputs[0] for n in copies}
    whole = [i for i, value in enumerate(node.inputs) if value in sources]
    if axis < 2 or len(sources) != 1 or len(whole) != 1 or len(copies) != len(node.inputs) - 1:
        return None
    (inner,), (place,) = sources, whole
    sizes = [None if v is None else dims_of(v)[axis] for v in node.inputs]
    before, behind = sizes[:place], sizes[place + 1 :]
    if inner is None or None in before or None in behind:
        return None
    begin, end = [0] * (rank - 2), [0] * (rank - 2)
    begin[axis - 2] = sum(n for n in before if n is not None)
    end[axis - 2] = sum(n for n in behind if n is not None)
    nodes = (*dict.fromkeys(copies), node)
    return Surrounded(node.outputs[0], inner, tuple(begin), tuple(end), nodes)


def over_larger_maps(forms: list[Affine]) -> list[Affine] | None:
    """The forms with terms over a map as terms over a larger one; None if there is no such pair.

    A term is moved if it reads nothing outside its own map, where the two maps differ.
    """
    sources = {term.source for form in forms for term in form.terms}
    larger = {source: surroundings(source) for source in sources}
    moves: dict[ir.Value, Surrounded] = {}
    for outer, inside in larger.items():
        for one in inside:
            if one.inner in sources:
                moves[one.inner] = _larger(moves.get(one.inner), one)
        for other in sources - {outer}:
            crop = _within(larger[other], inside, outer)
            if crop is not None:
                moves[other] = _larger(moves.get(other), crop)
    moved = [_moved(form, moves) for form in forms]
    return moved if any(a is not b for a, b in zip(moved, forms, strict=True)) else None


def _larger(one: Surrounded | None, two: Surrounded) -> Surrounded:
    if one is None or sum(two.begin) + sum(two.end) > sum(one.begin) + sum(one.end):
        return two
    return one


def _within(
    smaller: list[Surrounded], larger: list[Surrounded], outer: ir.Value
) -> Surrounded | None:
    """Two Pads of one value in the same mode: the smaller is a crop of the larger."""
    if not smaller or not larger:
        return None
    one, two = smaller[0], larger[0]
    if not one.mode or (one.mode, one.inner) != (two.mode, two.inner):
        return None
    begin = tuple(b - a for a, b in zip(one.begin, two.begin, strict=True))
    end = tuple(b - a for a, b in zip(one.end, two.end, strict=True))
    if min(*begin, *end) < 0 or not any((*begin, *end)):
        return None
    return Surrounded(outer, one.outer, begin, end, two.nodes, two.mode)


def _moved(form: Affine, moves: dict[ir.Value, Surrounded]) -> Affine:
    terms = tuple(_moved_term(term, moves.get(term.source)) for term in form.terms)
    same = all(a is b for a, b in zip(terms, form.terms, strict=True))
    return form if same else replace(form, terms=terms)


def _moved_term(term: Term, move: Surrounded | None) -> Term:
    """The term over the larger map; the same one where it reads outside its own."""
    g = term.stencil.geometry
    if move is None or g.is_transposed or g.axes != len(move.begin):
        return term
    if max((*g.begin, *g.end), default=0) > 0:
        return term
    begin = tuple(own - more for own, more in zip(g.begin, move.begin, strict=True))
    end = tuple(own - more for own, more in zip(g.end, move.end, strict=True))
    stencil = replace(term.stencil, geometry=replace(g, begin=begin, end=end))
    return Term(move.outer, stencil, spatial_sizes(move.outer))
