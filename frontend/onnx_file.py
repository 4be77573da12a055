"""ONNX files and protos -> ONNX IR. Nothing else in the package opens a model file."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from flatfold.errors import InputError
from flatfold.frontend.external_data import (
    external_tensors,
    load_external_data,
    tensor_nbytes,
)
from flatfold.frontend.tensors import own_tensors

if TYPE_CHECKING:
    import onnx

__all__ = ["from_proto", "read_model"]

_SMALL = 1024  # bytes; larger weights are kept from the checker, which would copy them
_EXPORT_HINT = "export it again, for example with torch.onnx.export"


def read_model(path: str | os.PathLike[str]) -> ir.Model:
    """The model in the file at `path`, checked, with all its weights in memory.

    External data must lie in plain files inside the model's folder, see
    `flatfold.frontend.external_data`. Raises `InputError` for whatever is wrong with the file.
    """
    path = Path(path)
    try:
        proto = _parse(_read_regular(path))
        load_external_data(proto, path.parent)
        return _from_own_proto(proto)
    except InputError as error:
        error.where = error.where or str(path)
        raise


def from_proto(proto: onnx.ModelProto) -> ir.Model:
    """The model in `proto`, checked. Works on a copy: `proto` is neither changed nor kept.

    Raises `InputError` when the proto is not a valid model or keeps weights outside of itself.
    """
    import onnx

    external = next(external_tensors(proto), None)
    if external is not None:
        raise InputError(
            f"weight {external.name!r} is kept in a file, and a proto does not say where",
            hint="pass the path of the .onnx file",
        )
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return _from_own_proto(copy)


def _read_regular(path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}", hint="check the path") from error
    except OSError as error:
        raise InputError(f"cannot open the file: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InputError("expected an ONNX file, found no regular file")
    with os.fdopen(handle, "rb") as file:
        return file.read()


def _parse(data: bytes) -> onnx.ModelProto:
    import onnx

    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception as error:  # protobuf's own, which differs between its implementations
        raise InputError(
            f"expected an ONNX model, found {len(data)} bytes that do not parse: "
            "truncated, or of another format",
            hint=_EXPORT_HINT,
        ) from error
    if not proto.HasField("graph"):
        found = "no graph in the file" if data else "an empty file"
        raise InputError(f"expected an ONNX model, found {found}", hint=_EXPORT_HINT)
    return proto


def _from_own_proto(proto: onnx.ModelProto) -> ir.Model:
    _check_versions(proto)
    for graph in _graphs(proto.graph):
        _check_names(graph)
    _check_structure(proto)
    try:
        model = ir.serde.deserialize_model(proto)
        own_tensors(model)
    except Exception as error:
        raise InputError(f"cannot read the model: {_one_line(error)}") from error
    return model


def _check_versions(proto: onnx.ModelProto) -> None:
    import onnx

    newest = onnx.defs.onnx_opset_version()
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx") and not 1 <= opset.version <= newest:
            raise InputError(
                f"expected opset 1 to {newest}, found {opset.version}",
                hint="convert it with onnx.version_converter, or install a newer onnx",
            )
    if proto.ir_version > onnx.IR_VERSION:
        raise InputError(
            f"expected IR version up to {onnx.IR_VERSION}, found {proto.ir_version}",
            hint="install a newer onnx",
        )


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """`graph` and the graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)


def _check_names(graph: onnx.GraphProto) -> None:
    """Readers disagree about which of two values of one name counts, so there may be none."""
    stored = [tensor.name for tensor in graph.initializer]
    stored += [tensor.values.name for tensor in graph.sparse_initializer]
    made = [name for node in graph.node for name in node.output if name]
    given = [value.name for value in graph.input]
    for kind, names in (("initializers", stored), ("node outputs", made), ("inputs", given)):
        name, count = next(iter(Counter(names).most_common(1)), ("", 0))
        if count > 1:
            raise InputError(f"{count} {kind} are named {name!r}", where=f"graph {graph.name!r}")
    both = set(made) & (set(stored) | set(given))
    if both:
        raise InputError(
            f"a node's output has the name of an input or initializer: {min(both)!r}",
            where=f"graph {graph.name!r}",
        )


def _check_structure(proto: onnx.ModelProto) -> None:
    """Run onnx.checker on the model without its large weights, whose sizes are checked here."""
    import onnx

    skeleton = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name == "graph":
            _copy_without_weights(proto.graph, skeleton.graph)
        elif field.is_repeated:
            getattr(skeleton, field.name).extend(value)
        else:
            setattr(skeleton, field.name, value)
    try:
        onnx.checker.check_model(skeleton)
    except Exception as error:
        raise InputError(
            f"not a valid ONNX model: {_one_line(error)}", hint=_EXPORT_HINT
        ) from error


def _copy_without_weights(graph: onnx.GraphProto, skeleton: onnx.GraphProto) -> None:
    import onnx

    inputs = {value.name for value in graph.input}
    for field, value in graph.ListFields():
        if field.name == "initializer":
            continue
        if field.is_repeated:
            getattr(skeleton, field.name).extend(value)
        else:
            setattr(skeleton, field.name, value)
    for tensor in graph.initializer:
        if tensor.HasField("raw_data") and len(tensor.raw_data) != tensor_nbytes(tensor):
            raise InputError(
                f"weight {tensor.name!r} has {len(tensor.raw_data)} bytes, "
                f"its shape and type call for {tensor_nbytes(tensor)}"
            )
        if not tensor.HasField("raw_data") or tensor_nbytes(tensor) <= _SMALL:
            skeleton.initializer.append(tensor)
        elif tensor.name not in inputs:
            skeleton.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
