"""An `onnx_ir.Model` as bytes or as a file, also above protobuf's limit of 2 GiB."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flatfold.system.atomic import atomic_files, os_errors_as_ours

if TYPE_CHECKING:
    import onnx_ir as ir


EXTERNAL_ABOVE = 2**30
"""Bytes of weights above which they are written to a separate file."""


def write_model(model: ir.Model, path: Path) -> None:
    """Writes `model` to `path`; weights of more than 1 GiB go to `<path>.data`."""
    import onnx_ir as ir

    if weight_bytes(model) > EXTERNAL_ABOVE:
        ir.save(_typed_copy(model), path, external_data=f"{path.name}.data")
    else:
        path.write_bytes(serialized(model))


def save_model(model: ir.Model, path: Path) -> None:
    """As `write_model`, but an existing file is only replaced once everything is written.

    Raises OutputError where the file cannot be written.
    """
    with (
        os_errors_as_ours(path, "file that you may write"),
        atomic_files(path.resolve().parent) as staging,
    ):
        write_model(model, staging / path.name)


def serialized(model: ir.Model) -> bytes:
    """`model` with its weights as bytes, the same each time. Raises ValueError above 2 GiB."""
    import onnx_ir as ir

    copy = _typed_copy(model)
    ir.external_data.load_to_model(copy)
    content: bytes = ir.to_proto(copy).SerializeToString(deterministic=True)
    return content


def detached(model: ir.Model) -> ir.Model:
    """A copy that later edits of `model` do not change; weights up to 1 GiB are read into memory.

    Weights in memory are shared, since tensors are never edited in place.
    """
    import onnx_ir as ir

    copy = model.clone()
    if weight_bytes(copy) <= EXTERNAL_ABOVE:
        ir.external_data.load_to_model(copy)
    return copy


def weight_bytes(model: ir.Model) -> int:
    """The bytes of all initializers, including those of subgraphs."""
    return sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def _typed_copy(model: ir.Model) -> ir.Model:
    """A copy whose weights have types and shapes, as they have when read from a file.

    So a model that is saved, loaded and saved again gives the same bytes.
    """
    import onnx_ir as ir

    copy = model.clone()
    for graph in copy.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.dtype = value.const_value.dtype
                value.shape = ir.Shape(value.const_value.shape.numpy())
    return copy
