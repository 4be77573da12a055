"""What canonicalizing promises, asserted."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from flatfold.frontend import canonicalize
from tests.frontend.execution import content, counts, random_feeds, run

GLUE = {"Constant", "Identity", "Shape", "Expand", "CastLike", "Cast", "Concat", "Squeeze"}


def assert_same_function(model: ir.Model) -> None:
    """Canonicalizing keeps the interface and the outputs' bits; a second time it does nothing."""
    interface = [(v.name, v.shape, v.type) for v in (*model.graph.inputs, *model.graph.outputs)]
    feeds = random_feeds(model)
    before = run(model, feeds)
    canonicalize(model)
    assert interface == [
        (v.name, v.shape, v.type) for v in (*model.graph.inputs, *model.graph.outputs)
    ]
    for old, new in zip(before, run(model, feeds), strict=True):
        np.testing.assert_array_equal(old, new)
    onnx.checker.check_model(ir.serde.serialize_model(model), full_check=True)
    once = content(model)
    canonicalize(model)
    assert content(model) == once


def assert_invariants(model: ir.Model) -> None:
    graph = model.graph
    assert not GLUE & counts(model).keys()
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    values += [value for value in graph.initializers.values() if value not in graph.inputs]
    for kind in (values, list(graph)):
        names = [item.name for item in kind]
        assert all(names) and len(set(names)) == len(names)
    assert all(value.shape is not None and value.type is not None for value in values)
    assert all(value.uses() for value in graph.initializers.values())
    assert not any(value.metadata_props for value in values)
