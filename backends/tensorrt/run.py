"""Running a TensorRT engine on a GPU."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from flatfold.backends.attribution import WARMUP, run_seconds
from flatfold.backends.tensorrt.cuda import Buffer, Device, Recording
from flatfold.backends.tensorrt.options import Edition, TrtOptions
from flatfold.backends.tensors import Array, TensorSpec
from flatfold.errors import TargetError

Shapes = dict[str, tuple[tuple[int, ...], str]]


class Runner:
    """An engine with one execution context on one GPU; use it from one thread at a time."""

    def __init__(
        self, edition: Edition, plan: bytes, options: TrtOptions, outputs: Sequence[TensorSpec]
    ) -> None:
        trt = importlib.import_module(edition.module)
        self._trt, self._name, self._outputs = trt, edition.name, outputs
        self._record = options.cuda_graph
        self.device = Device(options.device)
        with self.device.current():
            self._logger = trt.Logger(trt.Logger.ERROR)
            self._runtime = trt.Runtime(self._logger)
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                gpu = f"{self.device.name}, compute capability {self.device.capability}"
                raise TargetError(
                    f"{self._name} {trt.__version__} cannot use this engine on {gpu}",
                    hint="build it again on this machine",
                )
            self._context = self._engine.create_execution_context()
            self._stream = self.device.stream()
        self._memory: dict[str, Buffer] = {}
        self._memory_shapes: Shapes = {}
        self._recordings: list[Recording] = []

    def run(self, feeds: dict[str, Array]) -> list[Array]:
        """The outputs, in order, as new arrays."""
        with self.device.current():
            shapes = self._shapes(feeds)
            if shapes != self._memory_shapes:  # page-locked memory takes long to allocate
                self._memory, self._memory_shapes = self._buffers(shapes), shapes
            self._enqueue(self._memory, feeds)
            self._stream.synchronize()
            return [self._memory[spec.name].host.copy() for spec in self._outputs]

    def bind(self, feeds: dict[str, Array]) -> Callable[[], dict[str, Array]]:
        """A function that copies `feeds` in, runs, and copies the outputs to the same arrays."""
        with self.device.current():
            memory = self._buffers(self._shapes(feeds))
            self._enqueue(memory, feeds)  # the first run allocates, which cannot be recorded
            self._stream.synchronize()
            recording = self._recorded(memory, feeds) if self._record else None
        outputs = {spec.name: memory[spec.name].host for spec in self._outputs}

        def run() -> dict[str, Array]:
            with self.device.current():
                if recording is None:
                    self._enqueue(memory, feeds)
                else:
                    _fill(memory, feeds)
                    recording.launch()
                self._stream.synchronize()
            return outputs

        return run

    def profile(self, feeds: dict[str, Array], runs: int) -> tuple[float, dict[str, float]]:
        """The seconds of a run, and those of each layer by name, in the order of execution."""
        with self.device.current():
            context, self._context = self._context, self._engine.create_execution_context()
        try:
            # A new context, because a profiler cannot be removed from a context.
            self._context.profiler = profiler = _profiler(self._trt)
            seconds = run_seconds(lambda: self.run(feeds), WARMUP + runs)[WARMUP:]
        finally:
            with self.device.current():
                self._context = context
        layers = {name: median(times[-runs:]) for name, times in profiler.seconds.items()}
        return median(seconds), layers

    def device_seconds(self, feeds: dict[str, Array], runs: int) -> float:
        """The seconds of a run with its copies, between two events in the stream: a median."""
        seconds: list[float] = []
        with self.device.current():
            memory = self._buffers(self._shapes(feeds))
            start, stop = self.device.event(), self.device.event()
            for _ in range(WARMUP + runs):
                start.record(self._stream)
                self._enqueue(memory, feeds)
                stop.record(self._stream)
                self._stream.synchronize()
                seconds.append(stop.time_since(start) * 1e-3)  # from milliseconds
        return median(seconds[WARMUP:])

    def release(self) -> None:
        with self.device.current():
            for recording in self._recordings:
                recording.free()
            self._memory, self._memory_shapes = {}, {}
            self._context = self._engine = self._runtime = self._stream = None

    def _recorded(self, memory: dict[str, Buffer], feeds: dict[str, Array]) -> Recording:
        recording = Recording(self._stream)
        self._recordings.append(recording)
        with recording:
            self._enqueue(memory, feeds)
        return recording

    def _shapes(self, feeds: dict[str, Array]) -> Shapes:
        """Sets the shapes of the inputs. Returns shapes and types of all inputs and outputs."""
        for name, array in feeds.items():
            if not self._context.set_input_shape(name, array.shape):
                raise TargetError(
                    f"{self._name}: the engine was not built for {name!r} of {list(array.shape)}",
                    hint="give a wider range with the option shapes",
                )
        if missing := self._context.infer_shapes():
            raise TargetError(f"{self._name}: the sizes of {', '.join(missing)} are not known")
        shapes = {name: (array.shape, array.dtype.name) for name, array in feeds.items()}
        for spec in self._outputs:
            shapes[spec.name] = tuple(self._context.get_tensor_shape(spec.name)), spec.dtype
        return shapes

    def _buffers(self, shapes: Shapes) -> dict[str, Buffer]:
        return {name: Buffer(self.device, *facts) for name, facts in shapes.items()}

    def _enqueue(self, memory: dict[str, Buffer], feeds: dict[str, Array]) -> None:
        """Enqueues the copies in, the run and the copies out.

        Shapes and addresses are set again, because another call may have changed them.
        """
        _fill(memory, feeds)
        for name, array in feeds.items():
            self._context.set_input_shape(name, array.shape)
            memory[name].upload(self._stream)
        for name, buffer in memory.items():
            self._context.set_tensor_address(name, buffer.address)
        if not self._context.execute_async_v3(self._stream.handle):
            raise TargetError(f"{self._name} could not run the engine on these inputs")
        for spec in self._outputs:
            memory[spec.name].download(self._stream)


def _fill(memory: dict[str, Buffer], feeds: dict[str, Array]) -> None:
    for name, array in feeds.items():
        memory[name].host[...] = array


def _profiler(trt: Any) -> Any:
    """A profiler that collects the seconds of each layer in each run."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.seconds: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.seconds.setdefault(layer_name, []).append(ms / 1e3)

    return Profiler()
