"""ONNX Runtime on an NVIDIA GPU: what differs from the CPU.

Its optimised graph is not saved: that one holds the copies between host and device which belong to
the session, so loading optimises model.onnx again.
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
from flatfold.backends.onnxruntime.cpu import PACKAGES, OrtCpu, OrtEngine, session_of
from flatfold.backends.onnxruntime.session import OrtOptions, run_errors, run_session
from flatfold.backends.store import bundle
from flatfold.backends.store.bundle import log_rebuild, rebuild_reason
from flatfold.backends.tensors import Array
from flatfold.errors import InputError
from flatfold.system.host import GPU_HINT, NO_GPU, nvidia_gpu, versions

if TYPE_CHECKING:
    import onnxruntime


_INSTALL = "pip install 'onnxruntime-gpu>=1.23'"
_NO_GRAPH = -1  # ONNX Runtime's word for a run that captures nothing


@dataclass(frozen=True)
class CudaOptions(OrtOptions):
    """How ONNX Runtime runs a model on an NVIDIA GPU, besides what `OrtOptions` says of the rest.

    `device_id`: which GPU. `tf32`: multiply float32 with 10 bits of mantissa, which is faster; off,
    because ONNX Runtime's own default hides an error of that size. `cuda_graph`: a bound call
    replays its kernels as one graph, which needs every operator on the GPU.
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
        """CUDA, and behind it the CPU for what CUDA has no kernel for."""
        chosen = {
            "device_id": str(self.device_id),
            "use_tf32": str(int(self.tf32)),
            "enable_cuda_graph": str(int(self.cuda_graph)),
        }
        return [("CUDAExecutionProvider", chosen), *super().providers()]

    def runs_in(self, precision: str) -> str:
        return precision.replace("fp32", "tf32") if self.tf32 else precision


class OrtCuda(OrtCpu):
    """The backend of target "ort-cuda"."""

    name = "ort-cuda"
    options: type[OrtOptions] = CudaOptions
    needs = ("onnxruntime-gpu",)
    exact_options = MappingProxyType({"tf32": False})

    def device(self) -> str:
        return nvidia_gpu()

    def availability(self) -> Availability:
        """Says what to install. Whether CUDA and cuDNN are there too, only a session tells."""
        installed = versions(PACKAGES)
        if not installed["onnxruntime-gpu"]:
            clash = "pip uninstall onnxruntime, which has the same module, then "
            hint = f"{clash if installed['onnxruntime'] else ''}{_INSTALL}"
            return Availability(False, "onnxruntime-gpu is not installed", hint)
        if not nvidia_gpu():
            return Availability(False, NO_GPU, GPU_HINT)
        return Availability(True, f"onnxruntime-gpu is installed, {nvidia_gpu()} is there")

    def engine(self, *parts: Any) -> OrtEngine:
        return CudaEngine(*parts)

    def reopened(
        self, folder: Path, manifest: Mapping[str, Any], options: OrtOptions
    ) -> onnxruntime.InferenceSession:
        reason = rebuild_reason(manifest, bundle.MODEL, PACKAGES, "device", nvidia_gpu())
        if reason:
            log_rebuild(folder, reason)
        return session_of(bundle.load_model(folder, manifest), options)


class CudaEngine(OrtEngine):
    """A session of ONNX Runtime on an NVIDIA GPU; inputs and outputs are copied to and fro."""

    def __init__(self, session: Any, options: CudaOptions, *rest: Any) -> None:
        super().__init__(session, options, *rest)
        self._device_id, self._graphed = options.device_id, options.cuda_graph
        self._graphs = itertools.count(1)
        # A session that captures graphs has one stream, so that its runs come one by one.
        self._turn = threading.Lock() if options.cuda_graph else nullcontext()

    def execute(self, feeds: dict[str, Array]) -> dict[str, Array]:
        with self._turn:
            found = run_session(self._live(), self._names, feeds, self._how(_NO_GRAPH))
        return dict(zip(self._names, found, strict=True))

    def bind(self, feeds: Mapping[str, Array]) -> Callable[[], dict[str, Array]]:
        """A call that copies `feeds` into the same memory of the GPU each time, and runs there.

        For timing, copies included. Use one bound call from one thread at a time, and not after
        `close`.
        """
        import onnxruntime

        session, checked = self._live(), self.checked(feeds)
        value, where = onnxruntime.OrtValue, ("cuda", self._device_id)
        inputs = {n: value.ortvalue_from_numpy(x, *where) for n, x in checked.items()}
        outputs = {
            n: value.ortvalue_from_shape_and_type(y.shape, y.dtype, *where)
            for n, y in self.execute(checked).items()
        }
        binding, how = session.io_binding(), self._how(next(self._graphs))
        for name, buffer in inputs.items():
            binding.bind_ortvalue_input(name, buffer)
        for name, buffer in outputs.items():
            binding.bind_ortvalue_output(name, buffer)

        def run() -> dict[str, Array]:
            with self._turn, run_errors(session):
                for name, array in checked.items():
                    inputs[name].update_inplace(array)
                session.run_with_iobinding(binding, how)
                return {name: buffer.numpy() for name, buffer in outputs.items()}

        return run

    def profiled(self, feeds: dict[str, Array], runs: int) -> None:
        """None: what ONNX Runtime measures here is how long it takes to launch the kernels."""

    def describe(self) -> dict[str, Any]:
        return {"options": asdict(self.options), "device": nvidia_gpu()}

    def write_files(self, folder: Path) -> None:
        """Nothing: model.onnx is all it needs."""

    def _how(self, graph: int) -> onnxruntime.RunOptions | None:
        """What has a run captured as, and replayed from, the graph of that number."""
        import onnxruntime

        if not self._graphed:
            return None
        how = onnxruntime.RunOptions()
        how.add_run_config_entry("gpu_graph_id", str(graph))
        return how
