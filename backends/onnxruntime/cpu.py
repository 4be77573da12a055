"""Target ort-cpu: ONNX Runtime on the processor.

By default idle threads of a session wait actively and so take cores from other sessions of the same
process. To time several sessions in one process, build them with `spinning=False`.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flatfold.backends.attribution import WARMUP, RunProfile, run_seconds
from flatfold.backends.base import Availability, Backend, Engine, precision_of
from flatfold.backends.onnxruntime.session import (
    OrtOptions,
    bound_run,
    open_session,
    optimized_bytes,
    run_session,
    specs,
)
from flatfold.backends.options import parse_options
from flatfold.backends.store import bundle
from flatfold.backends.store.bundle import log_rebuild, rebuild_reason
from flatfold.backends.store.model_file import (
    EXTERNAL_ABOVE,
    detached,
    serialized,
    weight_bytes,
    write_model,
)
from flatfold.backends.tensors import Array
from flatfold.system.host import cores, processor
from flatfold.system.progress import Progress, silent

if TYPE_CHECKING:
    import onnx_ir as ir
    import onnxruntime


ENGINE_FILE = "engine.onnx"
LAYERS = ("Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul")
# Layers that compute on codes of 8 bits.
ON_CODES = (
    *("ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger"),
    *("MatMulIntegerToFloat", "QGemm", "QLinearConv", "QLinearMatMul"),
)
PACKAGES = ("onnxruntime", "onnxruntime-gpu")  # only one is installed: they have the same module
IN_MEMORY_LIMIT = 2**31 - 2**27
"""Bytes of weights up to which a model is passed in memory: protobuf allows 2 GiB at most."""


class OrtCpu(Backend):
    """The backend of target "ort-cpu", and the base class of other targets of ONNX Runtime."""

    name = "ort-cpu"
    options: type[OrtOptions] = OrtOptions
    packages = PACKAGES
    threads = "intra_threads"
    precisions: tuple[str, ...] = ("fp32", "int8", "mixed")
    timing_options = MappingProxyType(
        {"spinning": False}
    )  # else idle threads take cores from others

    def device(self) -> str:
        return processor()

    def choices(self) -> dict[str, tuple[object, ...]]:
        """See `Backend.choices`: fewer threads, and the graph without layouts of its own."""
        return {
            "intra_threads": tuple(range(1, cores() + 1)),
            "graph_optimization": ("extended",),
        }

    def availability(self) -> Availability:
        if importlib.util.find_spec("onnxruntime") is None:
            return Availability(
                False, "onnxruntime is not installed", "pip install 'onnxruntime>=1.23'"
            )
        return Availability(True, "onnxruntime is installed")

    def build(
        self, model: ir.Model, options: Mapping[str, object], progress: Progress = silent
    ) -> OrtEngine:
        """See `Backend.build`; the options are the fields of `OrtOptions`."""
        settings = parse_options(self.options, options, self.name)
        self.require()
        copy = detached(model)
        precision = precision_of(copy)
        if {"fp16", "int8"} & set(precision.split("+")):
            session, computed = open_and_read(copy, settings)
            precision = computed or precision
        else:
            session = open_model(copy, settings)
        return self.new_engine(session, settings, settings.runs_in(precision), lambda: copy)

    def load(self, folder: Path, manifest: Mapping[str, Any]) -> OrtEngine:
        """See `Backend.load`. Where the optimised graph was saved by another version of ONNX
        Runtime or for another device, builds from model.onnx again and logs why."""
        self.require()
        settings = parse_options(self.options, manifest["engine"].get("options", {}), self.name)
        session = self.open_saved(folder, manifest, settings)

        def model() -> ir.Model:
            return bundle.load_model(folder, manifest)

        return self.new_engine(session, settings, manifest["precision"], model)

    def new_engine(self, *parts: Any) -> OrtEngine:
        """An engine from the arguments of `OrtEngine`."""
        return OrtEngine(*parts)

    def open_saved(
        self, folder: Path, manifest: Mapping[str, Any], options: OrtOptions
    ) -> onnxruntime.InferenceSession:
        """The session of a saved engine."""
        reason = rebuild_reason(manifest, ENGINE_FILE, PACKAGES, "processor", processor())
        if reason:
            log_rebuild(folder, reason)
            return open_model(bundle.load_model(folder, manifest), options)
        # It was optimised when it was saved; optimising again could change what was checked.
        content = bundle.read_engine(folder, ENGINE_FILE, manifest)
        return open_session(content, options, level="disable")


class OrtEngine(Engine):
    """A session of ONNX Runtime, which shares the memory of inputs and outputs on the CPU."""

    packages = PACKAGES

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        options: OrtOptions,
        precision: str,
        model: Callable[[], ir.Model],
    ) -> None:
        super().__init__(
            target=options.target,
            precision=precision,
            inputs=specs(session.get_inputs(), options.target),
            outputs=specs(session.get_outputs(), options.target),
            optional_inputs=specs(session.get_overridable_initializers(), options.target),
            model=model,
        )
        self.options = options
        self._names = [spec.name for spec in self.outputs]
        self._session: onnxruntime.InferenceSession | None = session

    def execute(self, feeds: dict[str, Array]) -> dict[str, Array]:
        # session.run copies neither contiguous inputs nor outputs, and has a tenth of the overhead
        # of OrtValues (measured with 1.23 and 1.31).
        return dict(zip(self._names, run_session(self._live(), self._names, feeds), strict=True))

    def bind(self, feeds: Mapping[str, Array]) -> Callable[[], dict[str, Array]]:
        """See `Engine.bind`; each call overwrites the outputs of the call before."""
        return bound_run(self._live(), self._names, self.checked(feeds))

    def profiled(self, feeds: dict[str, Array], runs: int) -> RunProfile | None:
        from flatfold.backends.onnxruntime.profile import OPTIMIZED, layer_times, recording

        model = self.model
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            folder = Path(name)
            session = open_model(
                model, self.options, save_to=str(folder / OPTIMIZED), adjust=recording(folder)
            )
            run = bound_run(session, self._names, feeds)
            seconds = run_seconds(run, WARMUP + runs)[WARMUP:]
            events = Path(session.end_profiling())
            return RunProfile(median(seconds), tuple(layer_times(model, folder, events, runs)))

    def describe(self) -> dict[str, Any]:
        return {"options": asdict(self.options), "processor": processor()}

    def write_files(self, folder: Path) -> None:
        model = self.model
        if weight_bytes(model) > EXTERNAL_ABOVE:
            return  # writing a second copy of the weights takes longer than it saves in loading
        (folder / ENGINE_FILE).write_bytes(
            optimized_bytes(serialized(model), self.options, scratch=folder)
        )

    def release(self) -> None:
        self._session = None

    def _live(self) -> onnxruntime.InferenceSession:
        session = self._session
        if session is None:
            self._check_open()
        assert session is not None  # close() sets `_closed` before it drops the session
        return session


def open_and_read(model: ir.Model, options: OrtOptions) -> tuple[onnxruntime.InferenceSession, str]:
    """A session of `model`, and the precisions in which it computes its layers.

    Such as "fp32" for a model in float16 on a processor: ONNX Runtime puts Casts around layers that
    it has no kernel for. "" if there are no layers with weights.
    """
    import onnx

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / bundle.MODEL
        session = open_model(model, options, save_to=str(path))
        graph = onnx.load(path).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    names = {onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.FLOAT16: "fp16"}
    found = [names.get(types.get(n.input[1], 0), "") for n in graph.node if n.op_type in LAYERS]
    found += ["int8" for node in graph.node if node.op_type in ON_CODES]
    return session, "+".join(sorted({kind for kind in found if kind}))


def open_model(model: ir.Model, options: OrtOptions, **more: Any) -> onnxruntime.InferenceSession:
    """A session of `model`; `more` are further arguments of `open_session`."""
    if weight_bytes(model) <= IN_MEMORY_LIMIT:
        return open_session(serialized(model), options, **more)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / bundle.MODEL
        write_model(model, path)
        return open_session(str(path), options, **more)
