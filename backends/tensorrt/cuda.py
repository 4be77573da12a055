"""Memory, streams and graphs of a CUDA device, through PyCUDA. Nothing but TensorRT imports it.

The device's primary context is used, the one that PyTorch and the CUDA runtime use, and is current
only inside `with device.current()`: whoever else uses the device in this process is not disturbed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flatfold.backends.tensors import Array
from flatfold.errors import TargetError

_RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED: other threads may allocate meanwhile


class Device:
    """One GPU; `capability` is such as 89."""

    def __init__(self, index: int) -> None:
        import pycuda.driver as cuda

        self.cuda = cuda
        cuda.init()
        if index >= cuda.Device.count():
            raise TargetError(f"there is no GPU {index}: {cuda.Device.count()} were found")
        device = cuda.Device(index)
        self.name = str(device.name())
        major, minor = device.compute_capability()
        self.capability = 10 * int(major) + int(minor)
        self.context = device.retain_primary_context()

    @contextmanager
    def current(self) -> Iterator[None]:
        """The context of this device is that of the thread."""
        self.context.push()
        try:
            yield
        finally:
            self.cuda.Context.pop()

    def stream(self) -> Any:
        return self.cuda.Stream()

    def event(self) -> Any:
        """A moment in a stream, told by the device's own clock."""
        return self.cuda.Event()


class Buffer:
    """An array in page-locked memory and as many bytes on the device; both go with it."""

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
    """What a stream is given inside `with recording:`, to be launched again as one CUDA graph.

    PyCUDA has no graphs, so the driver that it has loaded is called.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._graph, self._runnable = ctypes.c_void_p(), ctypes.c_void_p()

    def __enter__(self) -> Recording:
        self._call("cuStreamBeginCapture_v2", self._handle(), ctypes.c_int(_RELAXED))
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None:  # the capture has to end all the same
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
