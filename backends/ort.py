"""ONNX Runtime on the CPU.

Two sessions whose thread pools spin take cores from each other even while one is idle: to time
several in one process, build them with `spinning=False`, or the numbers describe the competition.
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from flatfold.backends import bundle
from flatfold.backends.base import Array, Availability, Engine, precision_of
from flatfold.backends.environment import processor, versions
from flatfold.backends.model_file import (
    EXTERNAL_ABOVE,
    detached,
    serialized,
    weight_bytes,
    write_model,
)
from flatfold.backends.options import parse_options
from flatfold.backends.ort_session import (
    TARGET,
    OrtOptions,
    bound_run,
    open_session,
    optimized_bytes,
    run_session,
    specs,
)
from flatfold.errors import TargetUnavailable
from flatfold.escaping import clean

if TYPE_CHECKING:
    import onnx_ir as ir
    import onnxruntime

ENGINE_FILE = "engine.onnx"
IN_MEMORY_LIMIT = 2**31 - 2**27
"""Bytes of weights up to which a model is handed over in memory: protobuf ends at 2 GiB."""

_log = logging.getLogger(__name__)


class OrtCpu:
    """The backend of target "ort-cpu"."""

    name = TARGET
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    def device(self) -> str:
        return processor()

    def availability(self) -> Availability:
        if importlib.util.find_spec("onnxruntime") is None:
            return Availability(
                False, "onnxruntime is not installed", "pip install 'onnxruntime>=1.23'"
            )
        return Availability(True, "onnxruntime is installed")

    def build(self, model: ir.Model, options: Mapping[str, object]) -> OrtEngine:
        """See `Backend.build`; the options are the fields of `OrtOptions`."""
        settings = parse_options(OrtOptions, options, TARGET)
        self._require()
        kept = detached(model)
        session = _session_of(kept, settings)
        return OrtEngine(session, settings, precision_of(kept), lambda: kept)

    def load(self, folder: Path, manifest: Mapping[str, Any]) -> OrtEngine:
        """See `Backend.load`. Rebuilds from model.onnx, and logs why, where the optimised graph was
        made by another version of ONNX Runtime or for another processor."""
        self._require()
        saved = manifest["engine"]
        settings = parse_options(OrtOptions, saved.get("options", {}), TARGET)
        reason = _rebuild_reason(manifest)
        if reason:
            where = clean(str(folder))
            _log.warning("%s: rebuilding the engine from %s: %s", where, bundle.MODEL, reason)
            session = _session_of(bundle.load_model(folder, manifest), settings)
        else:
            # Optimised when it was saved; a second round could only change what was proved.
            content = bundle.read_engine(folder, ENGINE_FILE, manifest)
            session = open_session(content, settings, level="disable")

        def model() -> ir.Model:
            return bundle.load_model(folder, manifest)

        return OrtEngine(session, settings, manifest["precision"], model)

    def _require(self) -> None:
        availability = self.availability()
        if not availability.available:
            raise TargetUnavailable(availability.reason, where=TARGET, hint=availability.hint)


class OrtEngine(Engine):
    """A session of ONNX Runtime on the CPU. Inputs and outputs are shared with it, not copied."""

    packages = OrtCpu.packages

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        options: OrtOptions,
        precision: str,
        model: Callable[[], ir.Model],
    ) -> None:
        super().__init__(
            target=TARGET,
            precision=precision,
            inputs=specs(session.get_inputs()),
            outputs=specs(session.get_outputs()),
            optional_inputs=specs(session.get_overridable_initializers()),
            model=model,
        )
        self.options = options
        self._names = [spec.name for spec in self.outputs]
        self._session: onnxruntime.InferenceSession | None = session

    def execute(self, feeds: dict[str, Array]) -> dict[str, Array]:
        # session.run wraps contiguous arrays and lends its outputs, both without a copy, at a tenth
        # of the overhead of OrtValues (measured with 1.23 and 1.31).
        return dict(zip(self._names, run_session(self._live(), self._names, feeds), strict=True))

    def bind(self, feeds: Mapping[str, Array]) -> Callable[[], dict[str, Array]]:
        """A call that runs on the memory of `feeds` and overwrites the same outputs each time.

        For timing: nothing is checked or allocated any more. Write into the fed arrays to change
        the input. Use one bound call from one thread at a time, and not after `close`.
        """
        return bound_run(self._live(), self._names, self.checked(feeds))

    def describe(self) -> dict[str, Any]:
        return {"options": asdict(self.options), "processor": processor()}

    def write_files(self, folder: Path) -> None:
        model = self.model
        if weight_bytes(model) > EXTERNAL_ABOVE:
            return  # a second copy of the weights would save less time than it costs to write
        (folder / ENGINE_FILE).write_bytes(
            optimized_bytes(serialized(model), self.options, scratch=folder)
        )

    def release(self) -> None:
        self._session = None

    def _live(self) -> onnxruntime.InferenceSession:
        session = self._session
        if session is None:
            self._check_open()
        assert session is not None  # close() marks the engine before it lets the session go
        return session


def _session_of(model: ir.Model, options: OrtOptions) -> onnxruntime.InferenceSession:
    if weight_bytes(model) <= IN_MEMORY_LIMIT:
        return open_session(serialized(model), options)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / bundle.MODEL
        write_model(model, path)
        return open_session(str(path), options)


def _rebuild_reason(manifest: Mapping[str, Any]) -> str:
    if ENGINE_FILE not in manifest["files"]:
        return "the optimised graph was too large to save"
    found, here = manifest["versions"].get("onnxruntime"), versions(["onnxruntime"])["onnxruntime"]
    if found != here:
        return f"it was built with onnxruntime {clean(str(found))}, this is {here}"
    built = str(manifest["engine"].get("processor"))
    if built != processor():
        return f"it was built for {clean(built)}, this is {processor()}"
    return ""
