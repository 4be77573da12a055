"""ONNX Runtime with every optimisation off: what the graph says, node by node."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.errors import BuildError

PROTOBUF_LIMIT = 1 << 31


class PlainSession:
    """One graph, ready to run. Raises BuildError where ONNX Runtime refuses it."""

    def __init__(self, model: ir.Model) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = _open(ort, model, options)
        except Exception as why:
            raise BuildError(f"ONNX Runtime refused the graph: {_last_line(why)}") from None

    def __call__(self, feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Outputs in order. Raises BuildError if the run fails."""
        try:
            return [np.asarray(y) for y in self._session.run(None, dict(feeds))]
        except Exception as why:
            raise BuildError(f"ONNX Runtime failed on the graph: {_last_line(why)}") from None


def _open(ort: Any, model: ir.Model, options: Any) -> Any:
    providers = ["CPUExecutionProvider"]
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
    if size < PROTOBUF_LIMIT - (1 << 26):
        serialised = ir.to_proto(model).SerializeToString()
        return ort.InferenceSession(serialised, options, providers=providers)
    with tempfile.TemporaryDirectory(prefix="flatfold-") as folder:
        path = Path(folder) / "model.onnx"
        ir.save(model, path, external_data="model.data")
        return ort.InferenceSession(str(path), options, providers=providers)


def _last_line(why: Exception) -> str:
    lines = [line for line in str(why).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(why).__name__
