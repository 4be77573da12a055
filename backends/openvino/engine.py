"""Target openvino: OpenVINO on the processor.

Compiling can crash or hang, for some wide depthwise convolutions and malformed graphs, so it is
done in a child process (`build.py`). The result is what OpenVINO exports: the transformed graph
without kernels, which is compiled again when it is imported. Importing is safe in this process,
because the child has imported and run the same bytes with the same settings on this processor; an
engine that was saved elsewhere is built again.

OpenVINO does not export its settings, and a processor with bfloat16 would use that by default. So
the settings are given on each import, and `precision` is what the imported engine reports.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from flatfold.backends.attribution import RunProfile
from flatfold.backends.base import Availability, Backend, Engine, precision_of
from flatfold.backends.openvino.build import ENGINE_FILE, TARGET, OpenvinoOptions, import_engine
from flatfold.backends.options import parse_options
from flatfold.backends.store import bundle
from flatfold.backends.store.bundle import log_rebuild, rebuild_reason
from flatfold.backends.store.files import read_verified
from flatfold.backends.store.model_file import EXTERNAL_ABOVE, detached, write_model
from flatfold.backends.tensors import Array, TensorSpec, specs_of
from flatfold.errors import BuildError, InputError, TargetError
from flatfold.system.host import cores, processor
from flatfold.system.isolated import build_in_subprocess, tail
from flatfold.system.progress import Progress, silent

if TYPE_CHECKING:
    import onnx_ir as ir


BUILDER = "flatfold.backends.openvino.build:build"
_LAYERS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul", "RNNCell", "RNNSeq")
_NOT_STEPS = ("Input", "Const", "Output")
_PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
_NARROWED = ("int64", "uint64")


class Openvino(Backend):
    """The backend of target "openvino"."""

    name = TARGET
    options = OpenvinoOptions
    packages = ("openvino",)
    needs = ("openvino",)
    threads = "threads"
    exact_options = MappingProxyType({"inference_precision": "f32"})
    precisions = ("fp32", "bf16", "int8", "mixed")
    save_built_engine = True

    def device(self) -> str:
        return processor()

    def choices(self) -> dict[str, tuple[object, ...]]:
        """See `Backend.choices`: fewer threads."""
        return {"threads": tuple(range(1, cores() + 1))}

    def availability(self) -> Availability:
        if importlib.util.find_spec("openvino") is None:
            return Availability(
                False, "openvino is not installed", "pip install 'flatfold[openvino]'"
            )
        return Availability(True, "openvino is installed")

    def build(
        self, model: ir.Model, options: Mapping[str, object], progress: Progress = silent
    ) -> OpenvinoEngine:
        """See `Backend.build`; the options are the fields of `OpenvinoOptions`."""
        settings = parse_options(OpenvinoOptions, options, TARGET)
        self.require()
        copy = detached(model)
        _interface_of(copy)  # raises for inputs that NumPy cannot hold, before the long build
        return OpenvinoEngine(_built(copy, settings, progress), settings, lambda: copy)

    def load(self, folder: Path, manifest: Mapping[str, Any]) -> OpenvinoEngine:
        """See `Backend.load`. Where the engine was built by another version of OpenVINO or for
        another processor, builds it from model.onnx again and logs why."""
        self.require()
        settings = parse_options(OpenvinoOptions, manifest["engine"].get("options", {}), TARGET)

        def model() -> ir.Model:
            return bundle.load_model(folder, manifest)

        reason = rebuild_reason(manifest, ENGINE_FILE, ("openvino",), "processor", processor())
        if reason:
            log_rebuild(folder, reason)
            return OpenvinoEngine(_built(model(), settings, silent), settings, model)
        return OpenvinoEngine(read_verified(folder, ENGINE_FILE, manifest), settings, model)


class OpenvinoEngine(Engine):
    """A compiled model of OpenVINO on the processor.

    Each thread that runs it at the same time gets its own infer request with its own memory.
    OpenVINO computes 64-bit integers in 32 bits and clips them silently, so inputs that do not fit
    are refused. Initializers that are also inputs are constants here.
    """

    packages = Openvino.packages

    def __init__(
        self, content: bytes, options: OpenvinoOptions, model: Callable[[], ir.Model]
    ) -> None:
        graph = model()
        inputs, outputs = _interface_of(graph)
        compiled = import_engine(content, options)
        super().__init__(
            target=TARGET,
            precision=_reported_precision(compiled, graph),
            inputs=inputs,
            outputs=outputs,
            model=model,
        )
        self.options = options
        # OpenVINO drops inputs that nothing reads, and a port may have several names.
        self._inputs_read = {name for port in compiled.inputs for name in port.get_names()}
        self._output_index = _output_index(compiled, [spec.name for spec in self.outputs])
        self._content = content
        self._compiled: Any = compiled
        self._idle_requests: list[Any] = []

    @property
    def layers(self) -> int | None:
        """The number of layers, with what is fused into each, and of reorders between them."""
        operators = self._live().get_runtime_model().get_ops()
        kinds = (operator.get_rt_info()["layerType"].astype(str) for operator in operators)
        return sum(kind not in _NOT_STEPS for kind in kinds)

    def execute(self, feeds: dict[str, Array]) -> dict[str, Array]:
        idle, compiled = self._idle_requests, self._live()
        try:
            request = idle.pop()  # atomic, as is append, so that no lock is needed
        except IndexError:
            request = compiled.create_infer_request()
        try:
            return self._outputs(request, self._read_feeds(feeds))
        finally:
            idle.append(request)

    def bind(self, feeds: Mapping[str, Array]) -> Callable[[], dict[str, Array]]:
        """See `Engine.bind`; each call returns new outputs."""
        return self._bound(self._live().create_infer_request(), self.checked(feeds))

    def profiled(self, feeds: dict[str, Array], runs: int) -> RunProfile | None:
        from flatfold.backends.openvino.profile import profiled

        compiled = import_engine(self._content, self.options, PERF_COUNT=True)
        request = compiled.create_infer_request()
        return profiled(self.model, compiled, request, self._bound(request, feeds), runs)

    def _bound(self, request: Any, feeds: dict[str, Array]) -> Callable[[], dict[str, Array]]:
        import openvino

        # A read-only array cannot be shared. The caller cannot change it, so a copy will do.
        arrays = {
            name: np.require(array, requirements=["C", "A", "W"])
            for name, array in self._read_feeds(feeds).items()
        }
        for name, array in arrays.items():
            request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

        def run(_alive: object = arrays) -> dict[str, Array]:
            return self._outputs(request, None)

        return run

    def describe(self) -> dict[str, Any]:
        return {"options": asdict(self.options), "processor": processor()}

    def write_files(self, folder: Path) -> None:
        if len(self._content) <= EXTERNAL_ABOVE:  # else reading takes longer than it saves
            (folder / ENGINE_FILE).write_bytes(self._content)

    def release(self) -> None:
        self._compiled, self._idle_requests, self._content = None, [], b""

    def _outputs(self, request: Any, feeds: dict[str, Array] | None) -> dict[str, Array]:
        try:
            # request.infer with one thread does not report errors, and returns old outputs.
            request.start_async(feeds, share_inputs=True)
            request.wait()
        except RuntimeError as error:
            raise TargetError(
                f"openvino could not run the model on these inputs: {tail(error)}",
                where=f"target {TARGET}",
                hint="compile with dynamic_batch=True if only the batch size differs",
            ) from error
        # Copies, because the next run of the request overwrites its memory.
        types = {spec.name: spec.dtype for spec in self.outputs}
        arrays = {
            name: np.array(request.get_output_tensor(index).data)
            for name, index in self._output_index.items()
        }
        # OpenVINO gives the bits of bfloat16 as float16.
        return {n: a.view("bfloat16") if types[n] == "bfloat16" else a for n, a in arrays.items()}

    def _read_feeds(self, feeds: dict[str, Array]) -> dict[str, Array]:
        """The inputs that the compiled model reads. Raises InputError for values it would clip."""
        for name, array in feeds.items():
            if array.dtype.name in _NARROWED and array.size:
                low, high = int(array.min()), int(array.max())
                if low < -(2**31) or high >= 2**31:
                    raise InputError(
                        f"input {name!r}: expected 32-bit values, found {low} to {high}",
                        where=f"target {TARGET}",
                        hint="openvino computes 64-bit integers in 32 bits; ort-cpu does not",
                    )
        return {name: array for name, array in feeds.items() if name in self._inputs_read}

    def _live(self) -> Any:
        compiled = self._compiled
        if compiled is None:
            self._check_open()
        assert compiled is not None  # close() sets `_closed` before it drops the model
        return compiled


def _built(model: ir.Model, options: OpenvinoOptions, progress: Progress) -> bytes:
    """The compiled model that OpenVINO exports, built in a child process."""
    results = build_in_subprocess(
        BUILDER,
        partial(write_model, model),
        asdict(options),
        target=TARGET,
        time_limit=options.time_limit,
        progress=progress,
    )
    with results as folder:
        return (folder / ENGINE_FILE).read_bytes()


def _interface_of(model: ir.Model) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The descriptions of inputs and outputs. Raises BuildError for types that NumPy lacks."""
    inputs = (value for value in model.graph.inputs if not value.is_initializer())
    return specs_of(inputs), specs_of(model.graph.outputs)


def _reported_precision(compiled: Any, model: ir.Model) -> str:
    """The precision that the compiled model reports, which may not be the requested one.

    Where the graph has types of half precision or codes, that is what its layers run in.
    """
    reported = {str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())}
    declared = precision_of(model)
    if {"bf16", "fp16", "int8"} & set(declared.split("+")):
        infos = [operator.get_rt_info() for operator in compiled.get_runtime_model().get_ops()]
        ran = {
            info["runtimePrecision"].astype(str)
            for info in infos
            if info["layerType"].astype(str) in _LAYERS
        }
        reported = ran & set(_PRECISIONS) or reported
    return "+".join(sorted({_PRECISIONS.get(name, name) for name in reported}))


def _output_index(compiled: Any, names: list[str]) -> dict[str, int]:
    """The index of each output of the graph among those of the compiled model."""
    ports = {name: i for i, port in enumerate(compiled.outputs) for name in port.get_names()}
    if lost := [name for name in names if name not in ports]:
        raise BuildError(
            f"openvino lost the output {lost[0]!r}",
            where=f"target {TARGET}",
            hint="please report it with the model to the makers of openvino; ort-cpu may do",
        )
    return {name: ports[name] for name in names}
