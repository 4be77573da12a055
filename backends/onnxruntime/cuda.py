"""Target ort-cuda: ONNX Runtime on an NVIDIA GPU, where it differs from target ort-cpu.

The optimised graph is not saved, since it contains the copies between host and device that belong
to one session; loading optimises model.onnx again.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from flatfold.backends.base import Availability
from flatfold.backends.onnxruntime.cpu import PACKAGES, OrtCpu, OrtEngine, open_model
from flatfold.backends.onnxruntime.session import OrtOptions, run_errors, run_session
from flatfold.backends.store import bundle
from flatfold.backends.store.bundle import log_rebuild, rebuild_reason
from flatfold.backends.tensors import Array
from flatfold.errors import InputError
from flatfold.system.host import GPU_HINT, NO_GPU, nvidia_gpu, versions

if TYPE_CHECKING:
    import onnxruntime


_INSTALL = "pip install 'onnxruntime-gpu>=1.23'"
_NO_GRAPH = -1  # the graph number with which ONNX Runtime captures nothing


@dataclass(frozen=True)
class CudaOptions(OrtOptions):
    """The options of ONNX Runtime on an NVIDIA GPU, in addition to those of `OrtOptions`.

    `device_id`: the number of the GPU. `tf32`: multiply float32 numbers with 10 bits of mantissa,
    which is faster; off by default, unlike in ONNX Runtime, because of the error. `cuda_graph`: a
    bound call replays its kernels as one CUDA graph, which needs every operator on the GPU.
    """

    device_id: int = 0
    tf32: bool = False
    cuda_graph: bool = False

    target: ClassVar[str] = "ort-cuda"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.device_id < 0:
            cause = f"option 'device_id': expected 0 or more, found {self.device_id}"
            raise InputError(cause, where=f"target {self.target}")

    def providers(self) -> list[tuple[str, dict[str, str]]]:
        """CUDA, and then the CPU for operators without a kernel for CUDA."""
        settings = {
            "device_id": str(self.device_id),
            "use_tf32": str(int(self.tf32)),
            "enable_cuda_graph": str(int(self.cuda_graph)),
        }
        return [("CUDAExecutionProvider", settings), *super().providers()]

    def runs_in(self, precision: str) -> str:
        return precision.replace("fp32", "tf32") if self.tf32 else precision


class OrtCuda(OrtCpu):
    """The backend of target "ort-cuda"."""

    name = "ort-cuda"
    options: type[OrtOptions] = CudaOptions
    needs = ("onnxruntime-gpu",)
    exact_options = MappingProxyType({"tf32": False})
    precisions = ("fp32", "fp16")

    def device(self) -> str:
        return nvidia_gpu()

    def choices(self) -> dict[str, tuple[object, ...]]:
        """See `Backend.choices`."""
        return {"graph_optimization": ("extended",)}

    def availability(self) -> Availability:
        """See `Backend.availability`; whether CUDA and cuDNN are there is only known on opening."""
        installed = versions(PACKAGES)
        if not installed["onnxruntime-gpu"]:
            uninstall = "pip uninstall onnxruntime, which has the same module, then "
            hint = f"{uninstall if installed['onnxruntime'] else ''}{_INSTALL}"
            return Availability(False, "onnxruntime-gpu is not installed", hint)
        if not nvidia_gpu():
            return Availability(False, NO_GPU, GPU_HINT)
        return Availability(True, f"onnxruntime-gpu is installed, {nvidia_gpu()} is there")

    def new_engine(self, *parts: Any) -> OrtEngine:
        return CudaEngine(*parts)

    def open_saved(
        self, folder: Path, manifest: Mapping[str, Any], options: OrtOptions
    ) -> onnxruntime.InferenceSession:
        reason = rebuild_reason(manifest, bundle.MODEL, PACKAGES, "device", nvidia_gpu())
        if reason:
            log_rebuild(folder, reason)
        return open_model(bundle.load_model(folder, manifest), options)


class CudaEngine(OrtEngine):
    """A session of ONNX Runtime on an NVIDIA GPU; inputs and outputs are copied."""

    def __init__(self, session: Any, options: CudaOptions, *rest: Any) -> None:
        super().__init__(session, options, *rest)
        self._device_id, self._cuda_graph = options.device_id, options.cuda_graph
        self._graph_numbers = itertools.count(1)
        # A session that captures graphs has one stream and allows one run at a time.
        self._lock = threading.Lock() if options.cuda_graph else nullcontext()

    def execute(self, feeds: dict[str, Array]) -> dict[str, Array]:
        with self._lock:
            outputs = run_session(self._live(), self._names, feeds, self._run_options(_NO_GRAPH))
        return dict(zip(self._names, outputs, strict=True))

    def bind(self, feeds: Mapping[str, Array]) -> Callable[[], dict[str, Array]]:
        """See `Engine.bind`; a call copies inputs to the GPU and outputs back."""
        import onnxruntime

        session, checked = self._live(), self.checked(feeds)
        value, device = onnxruntime.OrtValue, ("cuda", self._device_id)
        inputs = {n: value.ortvalue_from_numpy(x, *device) for n, x in checked.items()}
        outputs = {
            n: value.ortvalue_from_shape_and_type(y.shape, y.dtype, *device)
            for n, y in self.execute(checked).items()
        }
        binding = session.io_binding()
        run_options = self._run_options(next(self._graph_numbers))
        for name, buffer in inputs.items():
            binding.bind_ortvalue_input(name, buffer)
        for name, buffer in outputs.items():
            binding.bind_ortvalue_output(name, buffer)

        def run() -> dict[str, Array]:
            with self._lock, run_errors(session):
                for name, array in checked.items():
                    inputs[name].update_inplace(array)
                session.run_with_iobinding(binding, run_options)
                return {name: buffer.numpy() for name, buffer in outputs.items()}

        return run

    def profiled(self, feeds: dict[str, Array], runs: int) -> None:
        """None: ONNX Runtime measures how long it takes to launch a kernel, not to run it."""

    def describe(self) -> dict[str, Any]:
        return {"options": asdict(self.options), "device": nvidia_gpu()}

    def write_files(self, folder: Path) -> None:
        """Writes nothing: loading only needs model.onnx."""

    def _run_options(self, graph: int) -> onnxruntime.RunOptions | None:
        """Options with which a run is captured as, or replayed from, the CUDA graph of a number."""
        import onnxruntime

        if not self._cuda_graph:
            return None
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(graph))
        return options
