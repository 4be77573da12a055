"""Targets trt and trt-rtx: TensorRT and TensorRT for RTX, whose differences are in `options.py`.

Networks are strongly typed: the precision is that of the ONNX graph. TensorRT for RTX can build
without a GPU; running needs a GPU and PyCUDA for both. An engine file is code for the GPU, so load
none from a folder that others can write to.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flatfold.backends.attribution import LayerTime, RunProfile
from flatfold.backends.base import Availability, Backend, Engine, precision_of
from flatfold.backends.options import parse_options
from flatfold.backends.store import bundle
from flatfold.backends.store.files import read_verified
from flatfold.backends.store.model_file import detached, write_model
from flatfold.backends.tensorrt.options import EDITIONS, FACTS_FILE, PLAN_FILE, Edition, TrtOptions
from flatfold.backends.tensors import Array, specs_of
from flatfold.errors import InputError, TargetUnavailable
from flatfold.system.host import GPU_HINT, NO_GPU, nvidia_gpu, versions
from flatfold.system.isolated import build_in_subprocess
from flatfold.system.progress import Progress, silent
from flatfold.text import clean

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.backends.tensorrt.run import Runner


BUILDER = "flatfold.backends.tensorrt.build:build"

_DATATYPES = {"BFloat16": "bf16", "Float": "fp32", "Half": "fp16", "Int8": "int8"}
_PRODUCT = re.compile("conv|correlation|gemm|matmul", re.IGNORECASE)  # in the type of a layer


class TensorRT(Backend):
    """The backend of one edition of TensorRT."""

    exact_options = MappingProxyType({"tf32": False})
    precisions = ("fp32", "fp16", "bf16", "int8", "mixed")
    save_built_engine = True

    def __init__(self, edition: Edition) -> None:
        self.edition = edition
        self.name = edition.target
        self.options = edition.options
        self.packages = edition.packages
        self.needs = (*edition.packages, "pycuda")

    def device(self) -> str:
        return nvidia_gpu()

    def availability(self) -> Availability:
        edition = self.edition
        if not edition.installed:
            return Availability(False, f"{edition.name} is not installed", edition.install)
        obstacle = _obstacle()
        if obstacle is None:
            return Availability(True, f"{edition.name} is installed, {nvidia_gpu()} is there")
        reason, hint = obstacle
        if edition.builds_without_gpu:
            return Availability(True, f"builds here, but does not run: {reason}", hint, runs=False)
        return Availability(False, reason, hint)

    def build(
        self, model: ir.Model, options: Mapping[str, object], progress: Progress = silent
    ) -> TensorRTEngine:
        """See `Backend.build`; the options are the fields of `ClassicOptions` or `RtxOptions`."""
        settings = parse_options(self.edition.options, options, self.name)
        self.require()
        copy = detached(model)
        job = {**asdict(settings), "target": self.name}
        with build_in_subprocess(
            BUILDER,
            partial(write_model, copy),
            job,
            target=self.name,
            time_limit=settings.time_limit,
            progress=progress,
        ) as results:
            plan = (results / PLAN_FILE).read_bytes()
            facts = json.loads((results / FACTS_FILE).read_text(encoding="utf-8"))
        facts["device"] = nvidia_gpu()
        return TensorRTEngine(self.edition, plan, settings, facts, lambda: copy)

    def load(self, folder: Path, manifest: Mapping[str, Any]) -> TensorRTEngine:
        """See `Backend.load`. Raises InputError for an engine of another version or GPU."""
        saved = manifest["engine"]
        settings = parse_options(self.edition.options, saved.get("options", {}), self.name)
        facts = saved.get("facts", {})
        reason = self._mismatch(manifest, facts, settings)
        if reason:
            raise InputError(
                f"this engine cannot be used here: {reason}",
                where=str(folder),
                hint="compile the model again here",
            )
        plan = read_verified(folder, PLAN_FILE, manifest)
        return TensorRTEngine(
            self.edition, plan, settings, facts, lambda: bundle.load_model(folder, manifest)
        )

    def _mismatch(
        self, manifest: Mapping[str, Any], facts: Mapping[str, Any], options: TrtOptions
    ) -> str:
        """Why an engine with this manifest cannot be used here; "" if it can."""
        for package, here in versions(self.edition.packages).items():
            built_with = str(manifest["versions"].get(package))
            if package != "python" and built_with != here and not _may_be_newer(options, here):
                there = f"it is {here}" if here else "it is not installed"
                return f"it was built with {package} {clean(built_with)}, here {there}"
        gpu, device = nvidia_gpu(), str(facts.get("device") or "")
        portable = self.edition.builds_without_gpu or getattr(options, "hardware_compatible", False)
        if gpu and device != gpu and not portable:
            return f"it was built on {clean(device) or 'another GPU'}, this is {gpu}"
        return ""


def computed_in(facts: Mapping[str, Any], declared: str) -> str:
    """The precisions of the convolutions and matrix products of an engine, by what they read, where
    the engine says so and its graph has other types than float32; `declared` otherwise."""
    if not {"fp16", "bf16", "int8"} & set(declared.split("+")):
        return declared
    layers = [layer for layer in facts["layers"] if _PRODUCT.search(layer["type"])]
    read = {layer.get("datatypes", "").partition(" -> ")[0] for layer in layers}
    return "+".join(sorted(_DATATYPES[name] for name in read if name in _DATATYPES)) or declared


def trt() -> TensorRT:
    """The backend of target "trt"."""
    return TensorRT(EDITIONS["trt"])


def trt_rtx() -> TensorRT:
    """The backend of target "trt-rtx"."""
    return TensorRT(EDITIONS["trt-rtx"])


class TensorRTEngine(Engine):
    """An engine of TensorRT, which is loaded on the GPU by the first run."""

    def __init__(
        self,
        edition: Edition,
        plan: bytes,
        options: TrtOptions,
        facts: Mapping[str, Any],
        model: Callable[[], ir.Model],
    ) -> None:
        graph = model().graph
        super().__init__(
            target=edition.target,
            precision=options.runs_in(computed_in(facts, precision_of(model()))),
            inputs=specs_of(value for value in graph.inputs if not value.is_initializer()),
            outputs=specs_of(graph.outputs),
            model=model,
        )
        self.packages = edition.packages
        self.options, self.facts = options, dict(facts)
        self._edition, self._plan = edition, plan
        self._runner: Runner | None = None
        self._lock = threading.Lock()

    @property
    def layers(self) -> int:
        return len(self.facts["layers"])

    @property
    def size(self) -> int:
        """Bytes of the engine file."""
        return len(self._plan)

    def execute(self, feeds: dict[str, Array]) -> dict[str, Array]:
        with self._lock:
            outputs = self._live().run(feeds)
        return dict(zip((spec.name for spec in self.outputs), outputs, strict=True))

    def bind(self, feeds: Mapping[str, Array]) -> Callable[[], dict[str, Array]]:
        """See `Engine.bind`; a call copies inputs to the GPU and outputs back."""
        checked = self.checked(feeds)
        with self._lock:
            run = self._live().bind(checked)

        def bound() -> dict[str, Array]:
            with self._lock:
                return run()

        return bound

    def profiled(self, feeds: dict[str, Array], runs: int) -> RunProfile | None:
        with self._lock:
            device_s = self._live().device_seconds(feeds, runs)
            seconds, times = self._live().profile(feeds, runs)
        built = {layer["name"]: layer for layer in self.facts["layers"]}
        layers = tuple(_layer_time(built.get(n, {}), n, times[n]) for n in times)
        return RunProfile(seconds, layers, device_s)

    def describe(self) -> dict[str, Any]:
        return {"options": asdict(self.options), "facts": self.facts}

    def write_files(self, folder: Path) -> None:
        (folder / PLAN_FILE).write_bytes(self._plan)

    def release(self) -> None:
        runner, self._runner, self._plan = self._runner, None, b""
        if runner is not None:
            runner.release()

    def _live(self) -> Runner:
        self._check_open()
        if self._runner is None:
            obstacle = _obstacle()
            if obstacle is not None:
                reason, hint = obstacle
                raise TargetUnavailable(
                    f"this engine cannot run here: {reason}",
                    where=f"target {self.target}",
                    hint=hint,
                )
            from flatfold.backends.tensorrt.run import Runner

            self._runner = Runner(self._edition, self._plan, self.options, self.outputs)
        return self._runner


def _layer_time(built: Mapping[str, Any], name: str, seconds: float) -> LayerTime:
    # Engines saved by older versions do not have the nodes of a layer.
    return LayerTime(name, built.get("type", ""), seconds, tuple(built.get("nodes", ())))


def _obstacle() -> tuple[str, str] | None:
    """Why no engine can run here, and a hint what to change; None if one can."""
    if not nvidia_gpu():
        return NO_GPU, GPU_HINT
    if importlib.util.find_spec("pycuda") is None:
        return "pycuda is not installed", "pip install pycuda"
    return None


def _may_be_newer(options: TrtOptions, here: str) -> bool:
    return bool(here) and getattr(options, "version_compatible", False)
