"""OpenVINO on the CPU.

Compiling may crash or never end, on some wide depthwise convolutions and malformed graphs, so
`openvino_maker` does it in a process of its own. What comes back is what OpenVINO exports: the
graph after its transformations, without the kernels, so that importing it compiles once more. That
is safe without a second process, because the maker has imported and run those very bytes, with
the same settings on the same processor; what was saved elsewhere is made anew.

Importing forgets the settings: without them a processor with bfloat16 would run a strict engine in
bfloat16. They are given every time, and `precision` is what the imported engine says of itself.
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
from flatfold.backends.openvino.build import ENGINE_FILE, TARGET, OpenvinoOptions, imported
from flatfold.backends.options import parse_options
from flatfold.backends.store import bundle
from flatfold.backends.store.bundle import log_rebuild, rebuild_reason
from flatfold.backends.store.files import read_verified
from flatfold.backends.store.model_file import EXTERNAL_ABOVE, detached, write_model
from flatfold.backends.tensors import Array, TensorSpec, specs_of
from flatfold.errors import BuildError, InputError, TargetError
from flatfold.system.host import processor
from flatfold.system.isolated import build_in_subprocess, tail
from flatfold.system.progress import Progress, silent

if TYPE_CHECKING:
    import onnx_ir as ir


_NO_STEPS = ("Input", "Const", "Output")
_PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}


def step_count(compiled: Any) -> int:
    """The steps that OpenVINO runs: layers with what was fused into them, and reorders."""
    operators = compiled.get_runtime_model().get_ops()
    kinds = (operator.get_rt_info()["layerType"].astype(str) for operator in operators)
    return sum(kind not in _NO_STEPS for kind in kinds)


def precision_said(compiled: Any, model: ir.Model) -> str:
    """What the compiled model says it runs in, which may not be what was asked for."""
    said = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
    found = _PRECISIONS.get(said, said)
    return f"{found}+int8" if "int8" in precision_of(model) else found


def output_places(compiled: Any, names: list[str]) -> dict[str, int]:
    """The position of each output of the graph among those of the compiled model."""
    ports = {name: i for i, port in enumerate(compiled.outputs) for name in port.get_names()}
    if lost := [name for name in names if name not in ports]:
        raise BuildError(
            f"openvino lost the output {lost[0]!r}",
            where=f"target {TARGET}",
            hint="please report it with the model to the makers of openvino; ort-cpu may do",
        )
    return {name: ports[name] for name in names}


MAKER = "flatfold.backends.openvino.build:make"
_NARROWED = ("int64", "uint64")


class Openvino(Backend):
    """The backend of target "openvino"."""

    name = TARGET
    options = OpenvinoOptions
    packages = ("openvino",)
    needs = ("openvino",)
    threads = "threads"
    exact_options = MappingProxyType({"inference_precision": "f32"})
    save_built_engine = True

    def device(self) -> str:
        return processor()

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
        kept = detached(model)
        _interface_of(kept)  # what cannot be fed need not be built
        return OpenvinoEngine(_made(kept, settings, progress), settings, lambda: kept)

    def load(self, folder: Path, manifest: Mapping[str, Any]) -> OpenvinoEngine:
        """See `Backend.load`. Rebuilds from model.onnx, and logs why, where the engine was made by
        another version of OpenVINO or for another processor."""
        self.require()
        settings = parse_options(OpenvinoOptions, manifest["engine"].get("options", {}), TARGET)

        def model() -> ir.Model:
            return bundle.load_model(folder, manifest)

        reason = rebuild_reason(manifest, ENGINE_FILE, ("openvino",), "processor", processor())
        if reason:
            log_rebuild(folder, reason)
            return OpenvinoEngine(_made(model(), settings, silent), settings, model)
        return OpenvinoEngine(read_verified(folder, ENGINE_FILE, manifest), settings, model)


def _made(model: ir.Model, options: OpenvinoOptions, progress: Progress) -> bytes:
    """What OpenVINO exports of `model` after compiling it in a process of its own."""
    made = build_in_subprocess(
        MAKER,
        partial(write_model, model),
        asdict(options),
        target=TARGET,
        time_limit=options.time_limit,
        progress=progress,
    )
    with made as folder:
        return (folder / ENGINE_FILE).read_bytes()


class OpenvinoEngine(Engine):
    """A compiled model of OpenVINO on the CPU. It has a request, with memory of its own, for each
    thread that runs it at the same time.

    OpenVINO computes 64-bit integers in 32 bits and clips silently: inputs beyond are refused.
    Initializers that are inputs, too, are constants here.
    """

    packages = Openvino.packages

    def __init__(
        self, content: bytes, options: OpenvinoOptions, model: Callable[[], ir.Model]
    ) -> None:
        graph = model()
        inputs, outputs = _interface_of(graph)
        compiled = imported(content, options)
        super().__init__(
            target=TARGET,
            precision=precision_said(compiled, graph),
            inputs=inputs,
            outputs=outputs,
            model=model,
        )
        self.options = options
        # OpenVINO drops inputs that nothing reads, and may give a port more names than one.
        self._fed = {name for port in compiled.inputs for name in port.get_names()}
        self._places = output_places(compiled, [spec.name for spec in self.outputs])
        self._content = content
        self._compiled: Any = compiled
        self._idle: list[Any] = []

    @property
    def layers(self) -> int | None:
        """The steps that OpenVINO runs: layers with what was fused into them, and reorders."""
        return step_count(self._live())

    def execute(self, feeds: dict[str, Array]) -> dict[str, Array]:
        idle, compiled = self._idle, self._live()
        try:
            request = idle.pop()  # atomic, as is append: no lock is needed
        except IndexError:
            request = compiled.create_infer_request()
        try:
            return self._outputs(request, self._taken(feeds))
        finally:
            idle.append(request)

    def bind(self, feeds: Mapping[str, Array]) -> Callable[[], dict[str, Array]]:
        """A call that runs on the memory of `feeds` each time; its outputs are new each time.

        For timing. Write into the fed arrays to change the input. Use one bound call from one
        thread at a time, and not after `close`.
        """
        return self._bound(self._live().create_infer_request(), self.checked(feeds))

    def profiled(self, feeds: dict[str, Array], runs: int) -> RunProfile | None:
        from flatfold.backends.openvino.profile import profiled

        compiled = imported(self._content, self.options, PERF_COUNT=True)
        request = compiled.create_infer_request()
        return profiled(self.model, compiled, request, self._bound(request, feeds), runs)

    def _bound(self, request: Any, feeds: dict[str, Array]) -> Callable[[], dict[str, Array]]:
        import openvino

        # A read-only array cannot be shared, nor changed by the caller: a copy does.
        taken = {
            name: np.require(array, requirements=["C", "A", "W"])
            for name, array in self._taken(feeds).items()
        }
        for name, array in taken.items():
            request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

        def run(_alive: object = taken) -> dict[str, Array]:
            return self._outputs(request, None)

        return run

    def describe(self) -> dict[str, Any]:
        return {"options": asdict(self.options), "processor": processor()}

    def write_files(self, folder: Path) -> None:
        if len(self._content) <= EXTERNAL_ABOVE:  # else reading it would save less than it costs
            (folder / ENGINE_FILE).write_bytes(self._content)

    def release(self) -> None:
        self._compiled, self._idle, self._content = None, [], b""

    def _outputs(self, request: Any, feeds: dict[str, Array] | None) -> dict[str, Array]:
        try:
            # Not request.infer: with one thread it keeps errors to itself, and the outputs are
            # those of the run before.
            request.start_async(feeds, share_inputs=True)
            request.wait()
        except RuntimeError as error:
            raise TargetError(
                f"openvino could not run the model on these inputs: {tail(error)}",
                where=f"target {TARGET}",
                hint="compile with dynamic_batch=True if only the batch size differs",
            ) from error
        # Copies: the request's own memory belongs to its next run.
        return {
            name: np.array(request.get_output_tensor(place).data)
            for name, place in self._places.items()
        }

    def _taken(self, feeds: dict[str, Array]) -> dict[str, Array]:
        """The feeds that the compiled model reads. InputError for what it would clip."""
        for name, array in feeds.items():
            if array.dtype.name in _NARROWED and array.size:
                low, high = int(array.min()), int(array.max())
                if low < -(2**31) or high >= 2**31:
                    raise InputError(
                        f"input {name!r}: expected 32-bit values, found {low} to {high}",
                        where=f"target {TARGET}",
                        hint="openvino computes 64-bit integers in 32 bits; ort-cpu does not",
                    )
        return {name: array for name, array in feeds.items() if name in self._fed}

    def _live(self) -> Any:
        compiled = self._compiled
        if compiled is None:
            self._check_open()
        assert compiled is not None  # close() marks the engine before it lets the model go
        return compiled


def _interface_of(model: ir.Model) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    fed = (value for value in model.graph.inputs if not value.is_initializer())
    return specs_of(fed), specs_of(model.graph.outputs)
