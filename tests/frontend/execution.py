"""Small graphs from text, and running them by ONNX Runtime with its optimizer off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray


def run(model: ir.Model, feeds: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.generic]]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    data = ir.serde.serialize_model(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def random_feeds(model: ir.Model, batch: int = 2) -> dict[str, NDArray[np.generic]]:
    """Seeded values for every input without a default; symbolic sizes become `batch`."""
    rng = np.random.default_rng(0)
    feeds = {}
    for value in model.graph.inputs:
        assert value.shape is not None and value.dtype is not None and value.name is not None
        if value.const_value is None:
            sizes = [size if isinstance(size, int) else batch for size in value.shape]
            feeds[value.name] = rng.standard_normal(sizes).astype(value.dtype.numpy())
    return feeds


def counts(model: ir.Model) -> Counter[str]:
    """How many nodes there are of each operator."""
    return Counter(node.op_type for node in model.graph)


def from_text(text: str) -> ir.Model:
    """A model from the body of an ONNX text graph; opset 20 unless the text says otherwise."""
    header = "" if text.lstrip().startswith("<") else '<ir_version: 10, opset_import: ["" : 20]>'
    proto = onnx.parser.parse_model(header + text)
    onnx.checker.check_model(proto)
    return ir.serde.deserialize_model(proto)


def content(model: ir.Model) -> bytes:
    """The bytes of the model file."""
    return bytes(ir.serde.serialize_model(model).SerializeToString(deterministic=True))
