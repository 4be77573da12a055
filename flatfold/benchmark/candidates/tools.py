"""Other tools that rewrite ONNX graphs, each run in a child process, if it is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatfold.errors import InputError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from flatfold.system.progress import Progress


BUILDER = "flatfold.benchmark.candidates.tools:build"


def by_onnxsim(model: ir.Model) -> onnx.ModelProto:
    """The model as onnxsim simplifies it with its defaults."""
    import onnx_ir as ir

    from flatfold.frontend.loading.onnxsim import simplify

    return ir.to_proto(simplify(model))


def by_onnxslim(model: ir.Model) -> onnx.ModelProto:
    """The model as onnxslim simplifies it with its defaults."""
    import onnx_ir as ir

    onnxslim: Any = importlib.import_module("onnxslim")
    slimmed: onnx.ModelProto | None = onnxslim.slim(ir.to_proto(model))
    if slimmed is None:
        raise InputError("expected a model from onnxslim, found none")
    return slimmed


def by_onnxscript(model: ir.Model) -> onnx.ModelProto:
    """The model as the optimizer of onnxscript rewrites it with its defaults."""
    import onnx_ir as ir
    import onnxscript.optimizer

    return onnxscript.optimizer.optimize(ir.to_proto(model))


TOOLS: dict[str, Callable[[ir.Model], onnx.ModelProto]] = {
    "onnxsim": by_onnxsim,
    "onnxslim": by_onnxslim,
    "onnxscript": by_onnxscript,
}


def installed_tools() -> list[str]:
    """The names of the tools that are installed, found without importing them."""
    return [name for name in TOOLS if importlib.util.find_spec(name) is not None]


def rewritten_by(tool: str, model: ir.Model) -> ir.Model:
    """`model` rewritten by `tool`. Raises BuildError where that fails or crashes."""
    import onnx_ir as ir

    from flatfold.backends.store import write_model
    from flatfold.frontend import read_model
    from flatfold.system.isolated import build_in_subprocess

    write, options = partial(write_model, model), {"tool": tool}
    with build_in_subprocess(BUILDER, write, options, target=tool) as folder:
        rewritten = read_model(folder / "model.onnx", keep_shapes=True)
        ir.external_data.load_to_model(rewritten)  # the file with its weights is deleted next
        return rewritten


def build(path: Path, folder: Path, options: Mapping[str, Any], progress: Progress) -> None:
    """Writes model.onnx, rewritten by options["tool"]; see `build_in_subprocess`."""
    from flatfold.backends.store import write_model
    from flatfold.frontend import from_proto, read_model

    tool = options["tool"]
    rewritten = TOOLS[tool](read_model(path, keep_shapes=True))
    try:
        model = from_proto(rewritten)
    except InputError as error:
        raise InputError(f"the model that {tool} returned cannot be used: {error.cause}") from error
    write_model(model, folder / "model.onnx")
