"""An engine in 8 bits beside the graph that it was built from.

Both round values to codes, and where a sum lies between two codes its own roundings decide which of
the two it becomes; what such a value changes grows from layer to layer. How much that explains is
seen on the graph itself, with every value that is rounded to codes changed by as much as sums in
single precision differ. An engine that is further from the graph computes something else. So does
one that is further in all but a quarter of the runs than roundings lead in half of them: a rounding
changes codes in some runs and none in others, a wrong number changes all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from flatfold.errors import Inaccurate
from flatfold.narrowing import SAME
from flatfold.passes.lowering.replacement import Names, initializer
from flatfold.proof import Equivalence
from flatfold.proof.network.session import PlainSession
from flatfold.quantizing.comparison import Comparison

if TYPE_CHECKING:
    from flatfold.backends import Engine

RUNS = 8
MOVED = 2.0**-20  # of a value: sixteen roundings in single precision, of sums of some 250 products
SEEDS = 3  # ways to move values
MARGIN = 6.0  # decibels: twice the difference that is explained
ENOUGH = 50.0  # decibels, where nothing else is said: 8 bits leave some 20 to 40


def check_codes(engine: Engine, graph: ir.Model, runs: Sequence[Mapping[str, Any]]) -> Equivalence:
    """How far the outputs of an engine are from those of its graph. Raises Inaccurate."""
    comparison = Comparison(graph, runs[:RUNS])
    runs = comparison.feeds
    names = [value.name or "" for value in graph.graph.outputs]
    outputs = [[engine.run(dict(run))[name] for name in names] for run in runs]
    other = [PlainSession(moved(graph, seed)) for seed in range(SEEDS)]
    explained = [[session(run) for run in runs] for session in other]
    found = comparison.between(outputs).decibels
    least = _limit(comparison.between(one).decibels for one in explained)
    each = sorted(comparison.each(outputs))
    nearest = each[-max(1, len(each) // 4)]
    usual = _limit(float(np.median(comparison.each(one))) for one in explained)
    said = f"{found:.0f} dB beside its graph, of {least:.0f} dB that roundings leave"
    if nearest < usual:
        said += f", and {nearest:.0f} dB of {usual:.0f} dB in the nearest quarter of the runs"
    if found < least or nearest < usual:
        raise Inaccurate(
            f"target {engine.target} computes something else than its graph in 8 bits: {said}",
            where=f"target {engine.target}",
            hint="another target, or precision='fp32'",
        )
    reason = "the same codes" if found >= SAME else said
    labels = tuple(f"calibration {number}" for number in range(len(runs)))
    error, bound = (10 ** (-decibels / 20) for decibels in (found, least))
    return Equivalence(
        "sampled",
        error,
        0.0,
        bound,
        inputs=labels,
        reference="the graph in 8 bits",
        reason=reason,
        measure="root mean square",
    )


def _limit(explained: Iterable[float]) -> float:
    """The decibels that an engine has to have, by those that roundings leave of each seed."""
    return min(min(explained) - MARGIN, ENOUGH)


def moved(model: ir.Model, seed: int) -> ir.Model:
    """The graph with each value that is rounded to codes changed by a share of MOVED or less."""
    copy = model.clone()
    names, rng = Names.of(copy), np.random.default_rng(seed)
    for node in list(copy.graph):
        value = node.inputs[0] if node.op_type == "QuantizeLinear" else None
        if value is None or value.const_value is not None or value.dtype != ir.DataType.FLOAT:
            continue
        dims = value.shape.dims if value.shape is not None else ()
        axes = len(dims)
        count = dims[1] if axes > 1 and isinstance(dims[1], int) else 1
        factors = (1 + MOVED * rng.uniform(-1, 1, count)).astype(np.float32)
        array = factors.reshape(-1, *(1,) * (axes - 2)) if axes > 1 else factors[0]
        factor = initializer(names.fresh(f"{value.name}.factors"), array)
        copy.graph.register_initializer(factor)
        product = ir.node("Mul", [value, factor])
        product.name = product.outputs[0].name = names.fresh(f"{value.name}.moved")
        product.outputs[0].shape, product.outputs[0].type = value.shape, value.type
        copy.graph.insert_before(node, product)
        node.replace_input_with(0, product.outputs[0])
    return copy
