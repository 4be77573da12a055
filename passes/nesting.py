"""Sums inside sums of the same shape are one sum, however they are nested."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

import onnx_ir as ir

from flatfold.passes import layout
from flatfold.passes.reading import Linear, Summed
from flatfold.passes.sharing import producer_of

Terms = list[tuple[int, ir.Value]]


def flat_sums(
    order: Sequence[ir.Node], linear: Callable[[ir.Node], Linear], cuts: Container[ir.Value]
) -> dict[ir.Node, Terms]:
    """Terms of each outermost sum, those of sums of the same shape inside it among them.

    `order` has every node before the nodes it reads; values in `cuts` are not looked into.
    """
    sums: dict[ir.Node, Terms] = {}
    inside: set[ir.Node] = set()
    for node in order:
        found = linear(node)
        if not isinstance(found, Summed) or node in inside:
            continue
        terms, stack = sums.setdefault(node, []), list(reversed(found.operands))
        while stack:
            sign, value = stack.pop()
            if value in cuts or not layout.same_shape(value, node.outputs[0]):
                terms.append((sign, value))
                continue
            inner = linear(producer_of(value))
            if not isinstance(inner, Summed):
                terms.append((sign, value))
                continue
            inside.add(producer_of(value))
            stack += [(sign * own, operand) for own, operand in reversed(inner.operands)]
    return sums
