"""The functions that are measured: each reads a model file and returns the new ModelProto."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def flatfold_on(path: Path) -> object:
    """The rewrites alone."""
    import flatfold

    return flatfold.optimize(path, verify="off").model


def onnxsim_on(path: Path) -> object:
    """onnxsim with its defaults."""
    import onnx
    import onnxsim

    return onnxsim.simplify(onnx.load(path))[0]


def checked_on(path: Path) -> object:
    """The rewrites with every change checked against its bound, before any graph is run."""
    import onnx_ir as ir

    from flatfold.frontend import canonicalize, read_model
    from flatfold.passes import PIPELINE, Pipeline
    from flatfold.proof import RegionChecks

    graph = read_model(path)
    canonicalize(graph)
    Pipeline([kind() for kind in PIPELINE], check=RegionChecks()).run(graph)
    return ir.to_proto(graph)


CONTENDERS: dict[str, Callable[[Path], object]] = {
    "flatfold": flatfold_on,
    "onnxsim": onnxsim_on,
    "flatfold, checked": checked_on,
}
