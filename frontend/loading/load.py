"""Checked models from ONNX files and protos. No other module of the package opens a model file."""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from flatfold.errors import InputError
from flatfold.frontend.loading.external_data import Allowed, external_tensors, load_external_data
from flatfold.frontend.loading.repair import repair_model
from flatfold.frontend.loading.sparse import make_dense
from flatfold.frontend.loading.tensors import own_tensors, tensor_nbytes
from flatfold.frontend.loading.validate import (
    check_functions,
    check_interface,
    check_names,
    require_single_data,
)
from flatfold.system.trial import READ, Trial

if TYPE_CHECKING:
    import onnx


_SMALL = 1024  # bytes; larger weights are not passed to the checker, which would copy them
_PROTOBUF_LIMIT = 2**31 - 1
_DEFAULT = Allowed()
_SPLIT_HINT = (
    "store the weights in a separate file: onnx.save_model(..., save_as_external_data=True)"
)
_EXPORT_HINT = "export it again, for example with torch.onnx.export"


def read_model(
    path: str | os.PathLike[str], allowed: Allowed = _DEFAULT, *, keep_shapes: bool = False
) -> ir.Model:
    """The model in the file at `path`, checked.

    What it declares about the shapes of values between nodes may be false, and is dropped, unless
    `keep_shapes`, for files that were written by ourselves.

    External data must lie in plain files inside the model's folder, see
    `flatfold.frontend.loading.external_data`; large weights stay there until they are needed.
    Raises `InputError` if anything is wrong with the file.
    """
    path = Path(path)
    try:
        proto = _parse(_read_regular(path))
        with _readable():
            lazy = load_external_data(proto, path.parent, allowed)
            return _from_own_proto(proto, lazy, keep_shapes)
    except InputError as error:
        error.where = error.where or str(path)
        raise


def from_proto(proto: onnx.ModelProto) -> ir.Model:
    """The model in `proto`, checked; `proto` is copied, not changed.

    Raises `InputError` when the proto is not a valid model or keeps weights in other files.
    """
    import onnx

    with _readable():
        _refuse_external(proto)
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        return _from_own_proto(copy, {})


def require_whole(content: bytes) -> None:
    """Raise `InputError` unless `content` is a model without external data.

    Nothing else is checked: a file written by an engine may have operators only that one knows.
    """
    with _readable():
        _refuse_external(_parse(content))


@contextmanager
def _readable() -> Iterator[None]:
    """Turn the errors that reading the fields of a parsed model may raise into `InputError`."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError(f"text in the model is not UTF-8: {error}", hint=_EXPORT_HINT) from error
    except RecursionError as error:
        raise InputError(
            "the subgraphs of the model are nested too deeply", hint=_EXPORT_HINT
        ) from error


def _refuse_external(proto: onnx.ModelProto) -> None:
    external = next(external_tensors(proto), None)
    if external is not None:
        raise InputError(
            f"expected a model with all its weights, found weight {external.name!r} kept in a file",
            hint="pass the path of the .onnx file",
        )


def _read_regular(path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}", hint="check the path") from error
    except OSError as error:
        raise InputError(
            f"cannot open the file: {error.strerror}", hint="check the path and its permissions"
        ) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InputError(
            "expected an ONNX file, found no regular file",
            hint="check the path: it is a folder or a device",
        )
    with os.fdopen(handle, "rb") as file:
        size = os.fstat(handle).st_size
        if size > _PROTOBUF_LIMIT:
            raise InputError(
                f"expected an ONNX file of up to 2 GiB, found {size} bytes", hint=_SPLIT_HINT
            )
        return file.read(size)  # this much is allocated at once


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
        content = "no graph in the file" if data else "an empty file"
        raise InputError(f"expected an ONNX model, found {content}", hint=_EXPORT_HINT)
    return proto


def _from_own_proto(
    proto: onnx.ModelProto, lazy: Mapping[str, ir.TensorProtocol], keep_shapes: bool = False
) -> ir.Model:
    """The model in `proto`, which is changed; `lazy` has the initializers without data there."""
    _check_versions(proto)
    check_names(proto)
    repair_model(proto, keep_shapes)
    make_dense(proto)
    check_interface(proto.graph)
    check_functions(proto)
    _check_structure(proto, lazy)
    try:
        model = ir.serde.deserialize_model(proto)
        for name, tensor in lazy.items():
            model.graph.initializers[name].const_value = tensor
        own_tensors(model)
    except Exception as error:
        raise InputError(f"cannot read the model: {_one_line(error)}", hint=_EXPORT_HINT) from error
    model.graph.meta[READ] = True
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


def _check_structure(proto: onnx.ModelProto, lazy: Container[str]) -> None:
    """Run onnx.checker on a copy without large weights, whose sizes are checked here instead.

    What it refuses is refused unless ONNX Runtime takes it: the checker knows no operator of
    other domains, and none that ONNX has withdrawn.
    """
    import onnx

    without_weights = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name == "graph":
            _copy_without_weights(proto.graph, without_weights.graph, lazy)
        elif field.is_repeated:
            getattr(without_weights, field.name).extend(value)
        else:
            setattr(without_weights, field.name, value)
    try:
        onnx.checker.check_model(without_weights)
    except Exception as error:
        require_single_data(proto)
        if Trial(without_weights.SerializeToString()).refused:
            raise InputError(
                f"not a valid ONNX model: {_one_line(error)}", hint=_EXPORT_HINT
            ) from error


def _copy_without_weights(
    graph: onnx.GraphProto, without_weights: onnx.GraphProto, lazy: Container[str]
) -> None:
    import onnx

    inputs = {value.name for value in graph.input}
    for field, value in graph.ListFields():
        if field.name == "initializer":
            continue
        if field.is_repeated:
            getattr(without_weights, field.name).extend(value)
        else:
            setattr(without_weights, field.name, value)
    for output in without_weights.output:  # runtimes need no shape there, the checker wants one
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.shape.SetInParent()
    for tensor in graph.initializer:
        if tensor.HasField("raw_data") and len(tensor.raw_data) != tensor_nbytes(tensor):
            raise InputError(
                f"weight {tensor.name!r} has {len(tensor.raw_data)} bytes, "
                f"its shape and type call for {tensor_nbytes(tensor)}",
                hint=_EXPORT_HINT,
            )
        large = tensor.HasField("raw_data") and tensor_nbytes(tensor) > _SMALL
        if not large and tensor.name not in lazy:
            without_weights.initializer.append(tensor)
        elif tensor.name not in inputs:
            without_weights.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
