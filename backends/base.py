"""`Backend` builds an engine for an `onnx_ir.Model`, `Engine` runs it: the classes to implement.

Nothing here imports an SDK. Torch is used only where the caller passes torch tensors.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any

from flatfold.backends.attribution import RunProfile
from flatfold.backends.tensors import Array, TensorSpec, checked_feeds, named_feeds, numpy_of
from flatfold.errors import InputError, TargetError, TargetUnavailable
from flatfold.system.progress import Progress, silent

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used on this machine; `reason` says why, `hint` what to change.

    A backend that is `available` but not `runs` builds engines for other machines.
    """

    available: bool
    reason: str
    hint: str = ""
    runs: bool = True


class Backend(ABC):
    """Builds engines for one target."""

    name: str
    """The name of the target."""
    options: type[Any]
    """A frozen dataclass with the options of the target, each with a default."""
    packages: tuple[str, ...] = ()
    """Distributions whose versions an engine depends on."""
    needs: tuple[str, ...] = ()
    """Distributions to install in addition to those that flatfold installs."""
    threads: str = ""
    """The name of the option for the number of threads; "" if there is none."""
    timing_options: Mapping[str, object] = MappingProxyType({})
    """Options for an engine that is timed in one process together with others."""
    exact_options: Mapping[str, object] = MappingProxyType({})
    """Options with which nothing is computed in a lower precision than that of the graph."""
    precisions: tuple[str, ...] = ("fp32",)
    """The precisions of a graph in which engines of the target compute, such as fp32 and bf16."""
    save_built_engine: bool = False
    """Whether building takes so long that an engine needed again should be saved."""

    def device(self) -> str:
        """The hardware that an engine is built for, such as the processor; "" for any."""
        return ""

    def choices(self) -> Mapping[str, tuple[object, ...]]:
        """Options that may make an engine faster, each with the values to try when tuning."""
        return {}

    def require(self) -> None:
        """Raises TargetUnavailable, with what is missing, if the target cannot be used here."""
        state = self.availability()
        if not state.available:
            raise TargetUnavailable(state.reason, where=f"target {self.name}", hint=state.hint)

    @abstractmethod
    def availability(self) -> Availability:
        """Whether the package and the device are there, without importing the SDK."""

    @abstractmethod
    def build(
        self, model: ir.Model, options: Mapping[str, object], progress: Progress = silent
    ) -> Engine:
        """An engine for `model`, which is not changed; long steps are reported to `progress`.

        Raises TargetUnavailable, InputError for an unknown option or a wrong value of one, and
        BuildError where the SDK refuses the model.
        """

    @abstractmethod
    def load(self, folder: Path, manifest: Mapping[str, Any]) -> Engine:
        """The engine saved in `folder`, whose files `bundle.load` has checked."""


class Engine(ABC):
    """A model ready to run. `run` may be called from several threads at once.

    `manifest` holds whatever the caller puts there (model name, proof, remarks, ...) and
    `certificate` what was proved: JSON values, which are saved and loaded with the engine.
    """

    packages: tuple[str, ...] = ()
    """Distributions whose versions a saved engine records."""

    def __init__(
        self,
        *,
        target: str,
        precision: str,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        model: Callable[[], ir.Model],
        optional_inputs: tuple[TensorSpec, ...] = (),
    ) -> None:
        self.target = target
        self.precision = precision
        self.inputs = inputs
        self.outputs = outputs
        self.optional_inputs = optional_inputs
        self.manifest: dict[str, Any] = {}
        self.certificate: dict[str, Any] | None = None
        self._model = model
        self._closed = False

    @property
    def layers(self) -> int | None:
        """The number of kernels or fused groups that the SDK runs; None if it does not say."""
        return None

    @property
    def model(self) -> ir.Model:
        """The graph this engine was built from. Treat it as read-only."""
        return self._model()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name, for inputs by name.

        Raises InputError where a name, dtype, rank or fixed size differs from `inputs`; inputs are
        never converted.
        """
        return self.execute(self.checked(feeds))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The output, or a tuple of several outputs, for inputs in order or by name.

        The outputs are arrays. If any input is a torch tensor, they are torch tensors on the device
        of the first one, outside autograd.
        """
        values = named_feeds(args, kwargs, self.inputs)
        torch = sys.modules.get("torch")
        tensors = [v for v in values.values() if torch and isinstance(v, torch.Tensor)]
        if torch is None or not tensors:
            return _one_or_tuple(self.run(values).values())
        feeds = {
            name: numpy_of(name, value) if isinstance(value, torch.Tensor) else value
            for name, value in values.items()
        }
        device = tensors[0].device
        return _one_or_tuple(torch.from_numpy(y).to(device) for y in self.run(feeds).values())

    def hold(self) -> None:
        """Reads the graph into memory, so that the folder of the engine can be removed.

        Weights of more than 1 GiB are not read and need the folder. Raises InputError where the
        graph cannot be read.
        """
        from flatfold.backends.store.model_file import detached

        model = detached(self._model())
        self._model = lambda: model

    def bind(self, feeds: Mapping[str, Array]) -> Callable[[], dict[str, Array]]:
        """A function that runs the engine on the arrays of `feeds`, which are checked once, now.

        For timing. Write into the arrays to change the inputs. A call may overwrite the outputs of
        the call before. Call it from one thread at a time, and not after `close`.
        """
        checked = self.checked(feeds)
        return lambda: self.execute(checked)

    def profile(self, feeds: Mapping[str, Array], runs: int = 20) -> RunProfile | None:
        """The time of each layer in `runs` runs, by the profiler of the SDK; None if it has none.

        Another instance of the engine is created for it in this process. Raises InputError as `run`
        does.
        """
        if runs < 1:
            raise InputError(f"expected at least one run to profile, found {runs}")
        return self.profiled(self.checked(feeds), runs)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the engine to `folder`, completely or not at all; see `bundle.save`."""
        from flatfold.backends.store import bundle

        self._check_open()
        bundle.save(self, folder)

    def close(self) -> None:
        """Frees memory and devices. Outputs stay valid; a second call does nothing."""
        self._closed = True
        self.release()

    def __enter__(self) -> Engine:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("an engine cannot be pickled; use save(folder) and flatfold.load(folder)")

    def checked(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """`feeds`, checked, as contiguous arrays; copied only where they were not contiguous."""
        self._check_open()
        return checked_feeds(feeds, self.inputs, self.optional_inputs)

    def _check_open(self) -> None:
        if self._closed:
            raise TargetError(
                f"this {self.target} engine is closed",
                hint="use the engine inside its `with` block, or before close()",
            )

    def profiled(self, feeds: dict[str, Array], runs: int) -> RunProfile | None:
        """As `profile`, on inputs that are checked already."""
        return None

    @abstractmethod
    def execute(self, feeds: dict[str, Array]) -> dict[str, Array]:
        """The outputs, in the order of `outputs`, for inputs that are checked already."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """JSON values that `Backend.load` needs to load the engine, such as options and device."""

    @abstractmethod
    def write_files(self, folder: Path) -> None:
        """Writes the files of the engine itself into `folder`, the same bytes each time."""

    @abstractmethod
    def release(self) -> None:
        """Frees what the SDK has allocated; may be called twice."""


def precision_of(model: ir.Model) -> str:
    """The number formats of the weights: "fp32", "fp16", ... or "fp16+fp32" if mixed.

    Those of the inputs if no weight is floating-point. "+int8" is added for a graph that quantises,
    and "integer" stands for one without floating-point numbers.
    """
    weights = {value.dtype for graph in model.graphs() for value in graph.initializers.values()}
    inputs = {value.dtype for value in model.graph.inputs}
    floats = {d for d in weights if d and d.is_floating_point()} or {
        d for d in inputs if d and d.is_floating_point()
    }
    names = {f"bf{d.bitwidth}" if d.name == "BFLOAT16" else f"fp{d.bitwidth}" for d in floats}
    quantised = any("Quant" in n.op_type or "QLinear" in n.op_type for n in model.graph)
    return "+".join(sorted(names | ({"int8"} if quantised else set()))) or "integer"


def _one_or_tuple(outputs: Iterable[Any]) -> Any:
    values = tuple(outputs)
    return values[0] if len(values) == 1 else values
