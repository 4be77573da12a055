"""What others make of the training graph: each tool in a process of its own, if it is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatfold.errors import InputError
from flatfold.system.progress import Progress

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir


MAKER = "flatfold.benchmark.candidates.tools:make"


def by_onnxsim(model: ir.Model) -> onnx.ModelProto:
    """onnxsim with its defaults."""
    import onnx_ir as ir

    from flatfold.frontend.loading.onnxsim import simplify

    return ir.to_proto(simplify(model))


def by_onnxslim(model: ir.Model) -> onnx.ModelProto:
    """onnxslim with its defaults."""
    import onnx_ir as ir

    onnxslim: Any = importlib.import_module("onnxslim")
    made: onnx.ModelProto | None = onnxslim.slim(ir.to_proto(model))
    if made is None:
        raise InputError("onnxslim gives no model back")
    return made


def by_onnxscript(model: ir.Model) -> onnx.ModelProto:
    """The optimizer of onnxscript with its defaults."""
    import onnx_ir as ir
    import onnxscript.optimizer

    return onnxscript.optimizer.optimize(ir.to_proto(model))


RIVALS: dict[str, Callable[[ir.Model], onnx.ModelProto]] = {
    "onnxsim": by_onnxsim,
    "onnxslim": by_onnxslim,
    "onnxscript": by_onnxscript,
}


def installed() -> list[str]:
    """The tools that are here, without importing them."""
    return [name for name in RIVALS if importlib.util.find_spec(name) is not None]


def rewritten_by(tool: str, model: ir.Model) -> ir.Model:
    """What `tool` makes of `model`. Raises BuildError where it fails or crashes."""
    from flatfold.backends.store.model_file import write_model
    from flatfold.frontend.loading.load import read_model
    from flatfold.system.isolated import made_apart

    with made_apart(MAKER, partial(write_model, model), {"tool": tool}, target=tool) as folder:
        found = read_model(folder / "model.onnx")
        return _in_memory(found)


def make(path: Path, folder: Path, options: Mapping[str, Any], say: Progress) -> None:
    """A maker of `backends.apart`: writes model.onnx, if what the tool makes is a model."""
    from flatfold.backends.store.model_file import write_model
    from flatfold.frontend.loading.load import from_proto, read_model

    tool = options["tool"]
    made = RIVALS[tool](read_model(path))
    try:
        model = from_proto(made)
    except InputError as error:
        raise InputError(f"what {tool} makes cannot be used: {error.cause}") from error
    write_model(model, folder / "model.onnx")


def _in_memory(model: ir.Model) -> ir.Model:
    """With its weights read, as the file they are in is about to go."""
    import onnx_ir as ir

    ir.external_data.load_to_model(model)
    return model
