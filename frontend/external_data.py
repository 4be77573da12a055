"""Weights kept beside a model file, read so that a hostile file can name nothing else.

A location is a relative path of plain folders and one regular file inside the model's folder:
no ``..``, no link of either kind (a hard link could be to any file of the disk), no device.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from flatfold.errors import InputError

if TYPE_CHECKING:
    import onnx

__all__ = ["external_tensors", "load_external_data", "tensor_nbytes"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not block us


def load_external_data(proto: onnx.ModelProto, folder: Path) -> None:
    """Move every tensor that `proto` keeps outside of itself into it. Raises `InputError`."""
    import onnx

    for tensor in external_tensors(proto):
        data = _read(tensor, folder)
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.DEFAULT
        tensor.raw_data = data


def external_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """The tensors of `proto`, at any depth, whose data is elsewhere."""
    import onnx

    for tensor in _tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield tensor


def tensor_nbytes(tensor: onnx.TensorProto) -> int:
    """Bytes of raw data that the tensor's shape and type call for. Raises `InputError`."""
    try:
        dtype = ir.DataType(tensor.data_type)
        bits: int = dtype.bitwidth
    except (TypeError, ValueError) as error:
        raise _refusal(tensor, f"has no fixed-size element type ({tensor.data_type})") from error
    if any(size < 0 for size in tensor.dims):
        raise _refusal(tensor, f"has the shape {list(tensor.dims)}")
    count: int = math.prod(tensor.dims)
    return (count * bits + 7) // 8


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """All TensorProtos below a protobuf message; names of fields are not relied upon."""
    import onnx

    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for item in value if field.is_repeated else [value]:
            if isinstance(item, onnx.TensorProto):
                yield item
            else:
                yield from _tensors(item)


def _read(tensor: onnx.TensorProto, folder: Path) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    expected = tensor_nbytes(tensor)
    offset = _number(tensor, entries, "offset", 0)
    length = _number(tensor, entries, "length", expected)
    if length != expected:
        raise _refusal(tensor, f"has {length} bytes, its shape and type call for {expected}")
    handle = _open_inside(tensor, folder, entries.get("location", ""))
    with os.fdopen(handle, "rb") as file:
        size = os.fstat(handle).st_size
        if offset + length > size:
            raise _refusal(tensor, f"ends at byte {offset + length} of a file of {size} bytes")
        file.seek(offset)
        data = file.read(length)
    if len(data) != length:
        raise _refusal(tensor, "is in a file that shrank while it was read")
    return data


def _number(tensor: onnx.TensorProto, entries: dict[str, str], key: str, default: int) -> int:
    text = entries.get(key, str(default))
    if not (text.isascii() and text.isdigit()):
        raise _refusal(tensor, f"has the {key} {text!r}, not a number of bytes")
    return int(text)


def _open_inside(tensor: onnx.TensorProto, folder: Path, location: str) -> int:
    """A descriptor of the regular file `location` below `folder`; no step follows a link."""
    parts = PurePosixPath(location).parts
    absolute = location.startswith("/") or PureWindowsPath(location).is_absolute()
    if not parts or absolute or ".." in parts or "\0" in location:
        raise _refusal(tensor, f"names {location!r}, not a file inside the model's folder")
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            inner = _step(tensor, location, part, at, _FOLDER)
            os.close(at)
            at = inner
        handle = _step(tensor, location, parts[-1], at, _FILE)
    finally:
        os.close(at)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(handle)
        kind = "a hard link" if stat.S_ISREG(status.st_mode) else "not a regular file"
        raise _refusal(tensor, f"names {location!r}, which is {kind}")
    return handle


def _step(tensor: onnx.TensorProto, location: str, part: str, at: int, flags: int) -> int:
    try:
        status = os.stat(part, dir_fd=at, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            raise _refusal(tensor, f"names {location!r}, which leads through a symbolic link")
        return os.open(part, flags, dir_fd=at)
    except OSError as error:
        raise _refusal(tensor, f"names {location!r}: {error.strerror}") from error


def _refusal(tensor: onnx.TensorProto, finding: str) -> InputError:
    return InputError(
        f"weight {tensor.name!r} {finding}",
        hint="keep weights as plain files in the model's folder; "
        "onnx.save_model(..., save_as_external_data=True) writes them so",
    )
