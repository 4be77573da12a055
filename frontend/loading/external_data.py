"""External data: weights in separate files, read so that a hostile model can reach no other file.

A location is a relative path of plain folders and one regular file inside the model's folder:
no ``..``, no link of either kind (a hard link could be to any file of the disk), no device.
Symbolic links into one folder may be allowed, for caches that keep their files by hash.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
import weakref
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.errors import InputError
from flatfold.frontend.loading.tensors import array_of, refusal, tensor_nbytes

if TYPE_CHECKING:
    import onnx


MAX_WEIGHTS = 16.0
"""GiB that the weights of one model may have unless the caller allows more."""

LEFT_ON_DISK = 2**16  # bytes; larger weights are read when they are needed

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not block us
_BLOCK = 1 << 22  # bytes read at once
_GIB = 2**30
_LEAVE_FILES = "leave the files of a model unchanged while it is in use"


@dataclass(frozen=True)
class Allowed:
    """Limits on external data.

    All weights together have at most `max_weights` GiB, one tensor a quarter of that. Symbolic
    links are followed to files below `links_inside` only. With `files`, no other file is read.
    """

    max_weights: float = MAX_WEIGHTS
    links_inside: Path | None = None
    files: Container[str] | None = None


def load_external_data(
    proto: onnx.ModelProto, folder: Path, allowed: Allowed
) -> dict[str, ir.TensorProtocol]:
    """Read the external tensors of `proto` into it. Raises `InputError`.

    Large initializers of the main graph stay on disk: `proto` has no data for them, and they are
    returned by name, to be read when they are needed.
    """
    import onnx

    _check_sizes(proto, allowed)
    opened: dict[str, LazyFile] = {}
    lazy: dict[str, ir.TensorProtocol] = {}
    for tensor in proto.graph.initializer:
        external = tensor.data_location == onnx.TensorProto.EXTERNAL
        if external and tensor_nbytes(tensor) > LEFT_ON_DISK:
            lazy[tensor.name] = _take_weight(tensor, folder, allowed, opened)
    for tensor in external_tensors(proto):
        tensor.raw_data = _take_weight(tensor, folder, allowed, opened).tobytes()
    return lazy


def external_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """The tensors of `proto`, at any depth, whose data is in other files."""
    import onnx

    for tensor in tensors_of(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield tensor


def _check_sizes(proto: onnx.ModelProto, allowed: Allowed) -> None:
    """Compare the sizes that shapes and types call for with what is allowed; nothing is read."""
    import onnx

    total = 0
    for tensor in tensors_of(proto):
        external = tensor.data_location == onnx.TensorProto.EXTERNAL
        size = tensor_nbytes(tensor) if external else tensor_nbytes(tensor, 0)
        total += size
        most = allowed.max_weights * _GIB
        _require_allowed(f"weight {tensor.name!r} calls for", size, most / 4, 4 * size)
        _require_allowed("the weights call for at least", total, most, total)


def _require_allowed(what: str, size: int, most: float, needed: int) -> None:
    """Raise where `size` is above `most`; allowing `needed` bytes in all would be enough."""
    if size > most:
        raise InputError(
            f"{what} {size / _GIB:.3g} GiB, and {most / _GIB:.3g} GiB are allowed",
            hint=f"allow more with max_weights={math.ceil(needed / _GIB)} (in GiB; one tensor may "
            "have a quarter of it), or --max-weights",
        )


def tensors_of(message: Any) -> Iterator[onnx.TensorProto]:
    """All TensorProtos inside a protobuf message, in whatever field they are."""
    import onnx

    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for item in value if field.is_repeated else [value]:
            if isinstance(item, onnx.TensorProto):
                yield item
            else:
                yield from tensors_of(item)


def _take_weight(
    tensor: onnx.TensorProto, folder: Path, allowed: Allowed, opened: dict[str, LazyFile]
) -> ir.TensorProtocol:
    """The data of `tensor`, lazily, after removing the reference to its file from `tensor`."""
    import onnx

    entries = {entry.key: entry.value for entry in tensor.external_data}
    expected = tensor_nbytes(tensor)
    offset = _number(tensor, entries, "offset", 0)
    length = _number(tensor, entries, "length", expected)
    if length != expected:
        raise refusal(tensor, f"has {length} bytes, its shape and type call for {expected}")
    location = entries.get("location", "")
    if location not in opened:
        opened[location] = LazyFile(_open_inside(tensor, folder, location, allowed))
    file = opened[location]
    if offset + length > file.size:
        raise refusal(tensor, f"ends at byte {offset + length} of a file of {file.size} bytes")
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.DEFAULT
    return lazy_tensor(tensor, file, offset)


def _number(tensor: onnx.TensorProto, entries: dict[str, str], key: str, default: int) -> int:
    text = entries.get(key, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 30):
        raise refusal(tensor, f"has the {key} {text[:30]!r}, not a number of bytes")
    return int(text)


def _open_inside(tensor: onnx.TensorProto, folder: Path, location: str, allowed: Allowed) -> int:
    """Open the regular file `location` below `folder`, folder by folder, following no link."""
    parts = PurePosixPath(location).parts
    absolute = location.startswith("/") or PureWindowsPath(location).is_absolute()
    if not parts or absolute or ".." in parts or "\0" in location:
        raise refusal(tensor, f"names {location!r}, not a file inside the model's folder")
    if allowed.files is not None and location not in allowed.files:
        raise refusal(tensor, f"reads a foreign file, {location!r}")
    if allowed.links_inside is not None:
        folder, parts = _resolve_links(tensor, folder, location, allowed.links_inside)
    try:
        current = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(
            f"cannot open the folder: {error.strerror}",
            where=str(folder),
            hint="check the path and its permissions",
        ) from error
    try:
        for part in parts[:-1]:
            inner = _open_part(tensor, location, part, current, _FOLDER)
            os.close(current)
            current = inner
        handle = _open_part(tensor, location, parts[-1], current, _FILE)
    finally:
        os.close(current)
    try:
        _require_plain(tensor, location, os.fstat(handle))
    except InputError:
        os.close(handle)
        raise
    return handle


def _require_plain(tensor: onnx.TensorProto, location: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        kind = "a hard link" if stat.S_ISREG(status.st_mode) else "not a regular file"
        raise refusal(tensor, f"names {location!r}, which is {kind}")


def _resolve_links(
    tensor: onnx.TensorProto, folder: Path, location: str, root: Path
) -> tuple[Path, tuple[str, ...]]:
    """Where `location` leads when links are followed: a permitted folder and the path below it.

    That path is then opened without following links, so a link swapped in between is refused.
    """
    target, home = Path(os.path.realpath(folder / location)), Path(os.path.realpath(folder))
    for top in (home, Path(os.path.realpath(root))):
        if target.is_relative_to(top) and target != top:
            return top, target.relative_to(top).parts
    raise refusal(tensor, f"names {location!r}, which leads out of {str(root)!r}")


def _open_part(tensor: onnx.TensorProto, location: str, part: str, parent: int, flags: int) -> int:
    """Open `part` inside the open folder `parent`."""
    try:
        status = os.stat(part, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            raise refusal(tensor, f"names {location!r}, which leads through a symbolic link")
        if flags == _FILE:
            _require_plain(tensor, location, status)  # before it is opened, and again afterwards
        return os.open(part, flags, dir_fd=parent)
    except OSError as error:
        raise refusal(tensor, f"names {location!r}: {error.strerror}") from error


class LazyFile:
    """An open regular file whose bytes are read on demand; closed when it is garbage-collected."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.size = os.fstat(handle).st_size
        weakref.finalize(self, os.close, handle)

    def read(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` on. Raises `InputError` where the file ends before."""
        done = 0
        while done < len(buffer):
            count = os.preadv(self.handle, [buffer[done : done + _BLOCK]], offset + done)
            if not count:
                raise InputError(
                    f"expected {len(buffer)} bytes of weights at byte {offset}, found {done}: "
                    "the file shrank while it was read",
                    hint=_LEAVE_FILES,
                )
            done += count


def lazy_tensor(tensor: onnx.TensorProto, file: LazyFile, offset: int) -> ir.LazyTensor:
    """The weight at `offset` of `file`, read again each time its value is needed, not cached.

    A digest is taken now. Reading raises `InputError` when the bytes differ from it later, so that
    a file that is overwritten in between cannot make two steps work on two models.
    """
    size, shape = tensor_nbytes(tensor), ir.Shape(tensor.dims)
    dtype, name = ir.DataType(tensor.data_type), tensor.name
    expected = _digest_of(file, offset, size)
    cached: weakref.ref[npt.NDArray[np.uint8]] | None = None

    def read() -> ir.TensorProtocol:
        nonlocal cached
        data = cached() if cached is not None else None
        if data is None:
            data = np.empty(size, np.uint8)
            file.read(offset, data.data)
            if hashlib.blake2b(data.data).digest() != expected:
                raise InputError(
                    f"the bytes of weight {name!r} changed while the model was in use",
                    hint=_LEAVE_FILES,
                )
            data.flags.writeable = False
            cached = weakref.ref(data)
        return array_of(data, dtype, shape, name)

    return ir.LazyTensor(read, dtype, shape, name=name)


def _digest_of(file: LazyFile, offset: int, size: int) -> bytes:
    digest, block = hashlib.blake2b(), np.empty(min(size, _BLOCK), np.uint8)
    for start in range(0, size, _BLOCK):
        part = block.data[: min(_BLOCK, size - start)]
        file.read(offset + start, part)
        digest.update(part)
    return digest.digest()
