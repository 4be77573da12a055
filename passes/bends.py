"""a * relu(x) + b * x is one LeakyRelu: what a schedule that makes an activation linear leaves.

    a * max(x, 0) + b * x = (a + b) * LeakyRelu(x; alpha = b / (a + b)),    a + b != 0

VanillaNet (Chen et al. 2023) trains with (1 - l) * A(x) + l * x, l growing from 0 to 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.passes import virtual
from flatfold.passes.affine import Affine, Term
from flatfold.passes.elementary import diagonal

LEAST, MOST = 1 / 16, 16.0  # of |a + b|


def bent(form: Affine, dtype: ir.DataType | None) -> Affine:
    """The form with every such pair of terms as one."""
    if len(form.live) < 2 or dtype is None:
        return form
    plain = {term.source: term for term in form.live}
    for term in form.live:
        inner = _under_relu(term.source)
        if inner is not None and inner in plain:
            joint = _joint(term, plain[inner], dtype)
            if joint is not None:
                kept = [t for t in form.live if t is not term and t is not plain[inner]]
                return bent(replace(form, terms=(*kept, joint)), dtype)
    return form


def _under_relu(value: ir.Value) -> ir.Value | None:
    node = value.producer()
    if node is None or (node.op_type, node.domain) != ("Relu", ""):
        return None
    return node.inputs[0]


def _joint(bend: Term, line: Term, dtype: ir.DataType) -> Term | None:
    """The two as one term, if each is a single number times its value."""
    numbers = [_number(term) for term in (bend, line)]
    if numbers[0] is None or numbers[1] is None or bend.source.type is None:
        return None
    total = numbers[0] + numbers[1]
    if total == 0 or not _keeps_size(total, numbers[1]):
        return None
    total = total.astype(dtype.numpy()).astype(np.float64)  # 1 - l + l is 1 but for rounding
    alpha = (numbers[1] / total).astype(np.float32).astype(np.float64)
    if dtype is ir.DataType.DOUBLE and alpha * total != numbers[1]:
        return None  # the attribute has single precision
    attributes = {"alpha": ir.Attr("alpha", ir.AttributeType.FLOAT, alpha)}
    how = virtual.Origin("LeakyRelu", line.source, (), attributes)
    name = f"{bend.source.name}.leaky"
    value = virtual.made(how, name, bend.source.shape, bend.source)
    geometry = bend.stencil.geometry
    scale = diagonal(np.repeat(total.reshape(1), geometry.outputs), None, geometry.axes)
    return Term(value, scale, bend.sizes)


def _keeps_size(total: Any, slope: Any) -> bool:
    """Whether LeakyRelu(x) cannot overflow, and hardly underflow, where x and b x do not."""
    size, steepness = np.abs(total), np.abs(slope)
    return bool(LEAST <= size <= MOST and steepness / size <= max(1.0, steepness))


def _number(term: Term) -> Any:
    """The number that the term is times its source; None if it is more than that."""
    f = term.stencil
    if f.pick is not None or not f.geometry.is_diagonal:
        return None
    numbers = f.weight.reshape(-1)
    return numbers.astype(np.float64)[0] if bool(np.all(numbers == numbers[0])) else None
