"""An engine in 8 bits beside the graph that it was built from.

Both round values to codes, and where a sum lies between two codes its own roundings decide which of
the two it becomes; what such a value changes grows from layer to layer. How much that explains is
seen on the graph itself, with every value that is rounded to codes changed by as much as sums in
single precision differ. An engine that is further from the graph computes something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from flatfold.errors import Inaccurate
from flatfold.narrowing import SAME
from flatfold.passes.lowering.replacement import Names
from flatfold.proof import Equivalence
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
    runs = runs[:RUNS]
    comparison = Comparison(graph, runs)
    explained = min(comparison.of(moved(graph, seed)).decibels for seed in range(SEEDS))
    names = [value.name or "" for value in graph.graph.outputs]
    outputs = ([engine.run(dict(run))[name] for name in names] for run in runs)
    found = comparison.between(outputs).decibels
    least = min(explained - MARGIN, ENOUGH)
    said = f"{found:.0f} dB beside its graph, of {least:.0f} dB that roundings leave"
    if found < least:
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
        name = names.fresh(f"{value.name}.factors")
        factor = ir.Value(
            name=name,
            shape=ir.Shape(np.shape(array)),
            type=ir.TensorType(ir.DataType.FLOAT),
            const_value=ir.Tensor(np.asarray(array), name=name),
        )
        copy.graph.register_initializer(factor)
        product = ir.node("Mul", [value, factor])
        product.name = product.outputs[0].name = names.fresh(f"{value.name}.moved")
        product.outputs[0].shape, product.outputs[0].type = value.shape, value.type
        copy.graph.insert_before(node, product)
        node.replace_input_with(0, product.outputs[0])
    return copy
