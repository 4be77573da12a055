"""Weights left in their file until they are asked for, and known to be the same each time."""

from __future__ import annotations

import hashlib
import os
import weakref
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.errors import InputError
from flatfold.frontend.tensors import array_of, tensor_nbytes

if TYPE_CHECKING:
    import onnx

__all__ = ["StoredFile", "stored_tensor"]

_BLOCK = 1 << 22

Buffer = npt.NDArray[np.uint8]


class StoredFile:
    """An open regular file; closed when nothing refers to it any more."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.size = os.fstat(handle).st_size
        weakref.finalize(self, os.close, handle)

    def read(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` on. Raises `InputError` where the file ends before."""
        done = 0
        while done < len(buffer):
            some = os.preadv(self.handle, [buffer[done : done + _BLOCK]], offset + done)
            if not some:
                raise InputError("a file of weights shrank while it was read")
            done += some


def stored_tensor(tensor: onnx.TensorProto, file: StoredFile, offset: int) -> ir.LazyTensor:
    """The weight at `offset` of `file`, read each time it is asked for and kept by nobody.

    Its digest is taken here; raises `InputError` when the bytes are others later, so a file that
    is overwritten meanwhile cannot make two parts of the work see two models.
    """
    size, shape = tensor_nbytes(tensor), ir.Shape(tensor.dims)
    dtype, name = ir.DataType(tensor.data_type), tensor.name
    expected = _digest_of(file, offset, size)
    alive: weakref.ref[Buffer] | None = None

    def read() -> ir.TensorProtocol:
        nonlocal alive
        data = alive() if alive is not None else None
        if data is None:
            data = np.empty(size, np.uint8)
            file.read(offset, data.data)
            if hashlib.blake2b(data.data).digest() != expected:
                raise InputError(
                    f"the bytes of weight {name!r} changed while the model was in use",
                    hint="leave the files of a model alone while it is worked on",
                )
            data.flags.writeable = False
            alive = weakref.ref(data)
        return array_of(data, dtype, shape, name)

    return ir.LazyTensor(read, dtype, shape, name=name)


def _digest_of(file: StoredFile, offset: int, size: int) -> bytes:
    digest, block = hashlib.blake2b(), np.empty(min(size, _BLOCK), np.uint8)
    for start in range(0, size, _BLOCK):
        part = block.data[: min(_BLOCK, size - start)]
        file.read(offset + start, part)
        digest.update(part)
    return digest.digest()
