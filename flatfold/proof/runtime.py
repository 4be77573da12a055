"""ONNX Runtime with every optimisation off: what the graph says, node by node."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.errors import BuildError, InputError

PROTOBUF_LIMIT = 1 << 31
MOST_ELEMENTS = 1 << 29  # of one value: 2 GiB in float32
_OUT_OF_MEMORY = ("Failed to allocate memory", "bad_alloc")
FATAL = 4  # every error arrives as an exception too; printed on stderr it would come twice


class PlainSession:
    """One graph, ready to run. Raises BuildError where ONNX Runtime refuses it."""

    def __init__(self, model: ir.Model) -> None:
        import onnxruntime as ort

        ort.set_default_logger_severity(FATAL)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = FATAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = _open(ort, model, options)
        except Exception as why:
            raise BuildError(f"ONNX Runtime refused the graph: {_last_line(why)}") from None

    def __call__(self, feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Outputs in order. Raises BuildError if the run fails, MemoryError if that is why."""
        try:
            return [np.asarray(y) for y in self._session.run(None, dict(feeds))]
        except Exception as why:
            if any(words in str(why) for words in _OUT_OF_MEMORY):
                raise MemoryError from None
            raise BuildError(f"ONNX Runtime failed on the graph: {_last_line(why)}") from None


def plain_session(model: ir.Model, which: str) -> PlainSession:
    """A session of `model`; InputError, which says `which` it is, where there can be none."""
    try:
        return PlainSession(model)
    except BuildError as error:
        raise InputError(
            f"{which} cannot be run to be compared: {error.cause}",
            hint='make a model that ONNX Runtime runs, or leave the proof out with verify="off"',
        ) from error


def require_runnable(model: ir.Model) -> int:
    """The elements of all values, as far as sizes are known.

    Raises InputError where one of them does not fit into memory.
    """
    total = 0
    made = (value for node in model.graph.all_nodes() for value in node.outputs)
    for value in (*model.graph.inputs, *made):
        dims = [dim if isinstance(dim, int) else 1 for dim in value.shape or ()]
        count = math.prod(dims)
        total += count
        if count > MOST_ELEMENTS:
            raise InputError(
                f"value {value.name!r} has {count} elements, too many to run the graph",
                hint='export it for a smaller input, or leave the proof out with verify="off"',
            )
    return total


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
