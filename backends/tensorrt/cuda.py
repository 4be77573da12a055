"""Memory, streams and graphs of a CUDA device, through PyCUDA.

The primary context of the device is used, which PyTorch and the CUDA runtime use, too. It is only
current inside `with device.current()`, so that other users of the device are not disturbed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flatfold.backends.tensors import Array
from flatfold.errors import TargetError

_RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED: other threads may allocate during a capture


class Device:
    """One GPU; `capability` is its compute capability, such as 89."""

    def __init__(self, index: int) -> None:
        import pycuda.driver as cuda

        self.cuda = cuda
        cuda.init()
        if index >= cuda.Device.count():
            raise TargetError(
                f"expected GPU {index}, found {cuda.Device.count()} GPUs (numbered from 0)"
            )
        device = cuda.Device(index)
        self.name = str(device.name())
        major, minor = device.compute_capability()
        self.capability = 10 * int(major) + int(minor)
        self.context = device.retain_primary_context()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Makes the context of this device current in this thread."""
        self.context.push()
        try:
            yield
        finally:
            self.cuda.Context.pop()

    def stream(self) -> Any:
        return self.cuda.Stream()

    def event(self) -> Any:
        """An event, which records a time in a stream by the clock of the device."""
        return self.cuda.Event()


class Buffer:
    """An array in page-locked memory, and memory of its size on the device."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: str) -> None:
        self._cuda = device.cuda
        self.host: Array = device.cuda.pagelocked_empty(shape, dtype)
        self._memory = device.cuda.mem_alloc(max(1, self.host.nbytes))  # 0 bytes are refused

    @property
    def address(self) -> int:
        return int(self._memory)

    def upload(self, stream: Any) -> None:
        if self.host.nbytes:
            self._cuda.memcpy_htod_async(self._memory, self.host, stream)

    def download(self, stream: Any) -> None:
        if self.host.nbytes:
            self._cuda.memcpy_dtoh_async(self.host, self._memory, stream)


class Recording:
    """A CUDA graph of the work that a stream is given inside `with recording:`.

    PyCUDA has no graphs, so the functions of the CUDA driver are called.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._graph, self._runnable = ctypes.c_void_p(), ctypes.c_void_p()

    def __enter__(self) -> Recording:
        self._call("cuStreamBeginCapture_v2", self._handle(), ctypes.c_int(_RELAXED))
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None:  # end the capture, whatever the error was
            self._driver.cuStreamEndCapture(self._handle(), ctypes.byref(self._graph))
            return
        self._call("cuStreamEndCapture", self._handle(), ctypes.byref(self._graph))
        runnable = ctypes.byref(self._runnable)
        self._call("cuGraphInstantiateWithFlags", runnable, self._graph, ctypes.c_ulonglong(0))

    def launch(self) -> None:
        self._call("cuGraphLaunch", self._runnable, self._handle())

    def free(self) -> None:
        if self._runnable:
            self._driver.cuGraphExecDestroy(self._runnable)
        if self._graph:
            self._driver.cuGraphDestroy(self._graph)
        self._graph, self._runnable = ctypes.c_void_p(), ctypes.c_void_p()

    def _handle(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(int(self._stream.handle))

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._driver, name)(*arguments)
        if status != 0:
            raise TargetError(f"CUDA: {name} failed with status {status}")
