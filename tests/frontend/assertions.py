"""Assertions on a canonical graph."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from flatfold.frontend import canonicalize
from tests.frontend.execution import content, counts, random_feeds, run

GLUE = {"Constant", "Identity", "Shape", "Expand", "CastLike", "Cast", "Concat", "Squeeze"}


def assert_same_function(model: ir.Model) -> None:
    """Canonicalize `model`, which must change neither its interface nor any bit of its outputs.

    A second time must change nothing at all.
    """
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
    """No leftovers of an exporter; every value has a unique name, a shape and a type."""
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
