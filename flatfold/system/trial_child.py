"""The child's side of `flatfold.system.trial`: a session, made and run.

python -m flatfold.system.trial_child JOB
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flatfold.system.child import read_job, serve
from flatfold.system.progress import Progress
from flatfold.system.trial import TrialJob

_FATAL = 4  # log level: an error is an answer, and need not be in the log
_MOST_ELEMENTS = 1 << 24  # of one input

# From the names that ONNX Runtime has for types to those of NumPy, where they differ.
_TYPES = {"float": "float32", "double": "float64"}


def main(path: Path) -> None:
    import onnxruntime as ort

    job = read_job(path, TrialJob)
    ort.set_default_logger_severity(_FATAL)

    session: Any = None

    def perform(command: str, arguments: Mapping[str, Any], _: Progress) -> dict[str, Any]:
        nonlocal session
        if command == "open":
            session = None
            try:
                session = _open(ort, job.path)
            except Exception as error:  # those of ONNX Runtime have no common base class
                return {"refused": str(error) or type(error).__name__}
        start = time.process_time()
        if command == "run" and session is not None:
            shapes = arguments["shapes"]
            with contextlib.suppress(Exception):
                inputs = session.get_inputs()
                session.run(None, {put.name: _ones(put, shapes.get(put.name)) for put in inputs})
        return {"refused": "", "seconds": time.process_time() - start}

    serve(perform)


def _open(ort: Any, model: str) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _ones(put: Any, shape: Sequence[int] | None) -> Any:
    """Ones for an input of a session. Raises where it is no tensor, or too large."""
    import numpy as np

    name = put.type.removeprefix("tensor(").removesuffix(")")
    sizes = shape or [size if isinstance(size, int) else 1 for size in put.shape]
    if math.prod(sizes) > _MOST_ELEMENTS:
        raise ValueError("too large to be tried")
    return np.ones(sizes, np.dtype(_TYPES.get(name, name)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
