"""An `onnx_ir.Model` as bytes or as a file, on both sides of protobuf's limit of 2 GiB."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flatfold.system.atomic import atomic_files, os_errors_as_ours

if TYPE_CHECKING:
    import onnx_ir as ir


EXTERNAL_ABOVE = 2**30
"""Bytes of weights above which they go to a file of their own."""


def write_model(model: ir.Model, path: Path) -> None:
    """Saves `model` at `path`, with its weights inline or, above 1 GiB, in `<name>.data` beside."""
    import onnx_ir as ir

    if weight_bytes(model) > EXTERNAL_ABOVE:
        ir.save(_typed_copy(model), path, external_data=f"{path.name}.data")
    else:
        path.write_bytes(serialized(model))


def save_model(model: ir.Model, path: Path) -> None:
    """`write_model`, all or nothing: what was there stays until everything is written.

    Raises OutputError.
    """
    with (
        os_errors_as_ours(path, "file that you may write"),
        atomic_files(path.resolve().parent) as staging,
    ):
        write_model(model, staging / path.name)


def serialized(model: ir.Model) -> bytes:
    """`model` with all weights inline, the same bytes each time. Raises ValueError over 2 GiB."""
    import onnx_ir as ir

    copy = _typed_copy(model)
    ir.external_data.load_to_model(copy)
    content: bytes = ir.to_proto(copy).SerializeToString(deterministic=True)
    return content


def detached(model: ir.Model) -> ir.Model:
    """A copy that later edits of `model` do not reach; weights up to 1 GiB are read into memory.

    Weights already in memory are shared, not copied: tensors are never edited in place.
    """
    import onnx_ir as ir

    copy = model.clone()
    if weight_bytes(copy) <= EXTERNAL_ABOVE:
        ir.external_data.load_to_model(copy)
    return copy


def weight_bytes(model: ir.Model) -> int:
    """The size of all initializers, those of subgraphs included."""
    return sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def _typed_copy(model: ir.Model) -> ir.Model:
    """A copy whose weights state their type, as they do once read back from a file.

    So a model that was saved, loaded and saved again is the same bytes.
    """
    import onnx_ir as ir

    copy = model.clone()
    for graph in copy.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.dtype = value.const_value.dtype
                value.shape = ir.Shape(value.const_value.shape.numpy())
    return copy
