"""What every backend and every engine promises.

A `Backend` turns an `onnx_ir.Model` into an `Engine`; an `Engine` runs it on arrays. Nothing here
knows an SDK, and torch is touched only when the caller already passes torch tensors.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
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
    """Whether a backend can be used on this machine; if not, why, and what would change that.

    One that is available but does not run here builds engines for other machines.
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
    save_built_engine: bool = False
    """Whether building takes so long that an engine needed again should be saved."""

    def device(self) -> str:
        """What an engine is built for besides the target, such as the processor; "" for any."""
        return ""

    def require(self) -> None:
        """Raises TargetUnavailable, with what is missing, where it cannot be used."""
        state = self.availability()
        if not state.available:
            raise TargetUnavailable(state.reason, where=f"target {self.name}", hint=state.hint)

    @abstractmethod
    def availability(self) -> Availability:
        """Looks for the package and the device without importing the SDK."""

    @abstractmethod
    def build(
        self, model: ir.Model, options: Mapping[str, object], progress: Progress = silent
    ) -> Engine:
        """An engine for `model`, which is left as it was; `progress` hears what takes long.

        Raises TargetUnavailable, InputError for an option that does not exist or has a wrong
        value, and BuildError when the SDK refuses the model.
        """

    @abstractmethod
    def load(self, folder: Path, manifest: Mapping[str, Any]) -> Engine:
        """The engine saved in `folder`, whose files `bundle.load` has checked already."""


class Engine(ABC):
    """A model ready to run.

    `manifest` is free for the caller (model name, proof, remarks, ...): JSON values only, saved
    and loaded with the engine; so is `certificate`, what was proved. `run` may be called from
    several threads at once.
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
        """How many kernels or fused groups the SDK runs, where it tells."""
        return None

    @property
    def model(self) -> ir.Model:
        """The graph this engine was built from. Treat it as read-only."""
        return self._model()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name, for inputs by name.

        Raises InputError when a name, dtype, rank or fixed size differs from `inputs`; nothing is
        converted silently.
        """
        return self.execute(self.checked(feeds))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Inputs in order, or by name; a single output comes back bare, several as a tuple.

        NumPy in, NumPy out. If any input is a torch tensor, the outputs are torch tensors on the
        device of the first one, outside autograd.
        """
        values = named_feeds(args, kwargs, self.inputs)
        torch = sys.modules.get("torch")
        tensors = [v for v in values.values() if torch and isinstance(v, torch.Tensor)]
        if torch is None or not tensors:
            return _bare(tuple(self.run(values).values()))
        feeds = {
            name: numpy_of(name, value) if isinstance(value, torch.Tensor) else value
            for name, value in values.items()
        }
        device = tensors[0].device
        return _bare(tuple(torch.from_numpy(y).to(device) for y in self.run(feeds).values()))

    def hold(self) -> None:
        """Reads the graph now, so that the folder it was loaded from may go.

        But weights above 1 GiB stay where they are. Raises InputError when it cannot be read.
        """
        from flatfold.backends.store.model_file import detached

        model = detached(self._model())
        self._model = lambda: model

    def bind(self, feeds: Mapping[str, Array]) -> Callable[[], dict[str, Array]]:
        """A call that runs on the memory of `feeds` each time, checked once, here.

        For timing. An engine may let it overwrite the same outputs each time. Write into the fed
        arrays to change the input. Use one bound call from one thread at a time.
        """
        checked = self.checked(feeds)
        return lambda: self.execute(checked)

    def profile(self, feeds: Mapping[str, Array], runs: int = 20) -> RunProfile | None:
        """How long each layer takes in `runs` runs, by the SDK's own profiler; None if it has none.

        A second engine is brought up for it in this process. Raises InputError as `run` does.
        """
        if runs < 1:
            raise InputError(f"expected at least one run to profile, found {runs}")
        return self.profiled(self.checked(feeds), runs)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the engine to `folder`, all or nothing; see `bundle.save`."""
        from flatfold.backends.store import bundle

        self._check_open()
        bundle.save(self, folder)

    def close(self) -> None:
        """Frees what the engine holds. A second call does nothing; outputs stay valid."""
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
        """`feeds` after every check, contiguous; copied only where they were not."""
        self._check_open()
        return checked_feeds(feeds, self.inputs, self.optional_inputs)

    def _check_open(self) -> None:
        if self._closed:
            raise TargetError(
                f"this {self.target} engine is closed",
                hint="keep the `with` block open for as long as the engine is used",
            )

    def profiled(self, feeds: dict[str, Array], runs: int) -> RunProfile | None:
        """`profile` on feeds that `checked` let through."""
        return None

    @abstractmethod
    def execute(self, feeds: dict[str, Array]) -> dict[str, Array]:
        """Runs on feeds that `checked` let through; outputs in the order of `outputs`."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """JSON values that `Backend.load` needs to bring the engine back: options, device."""

    @abstractmethod
    def write_files(self, folder: Path) -> None:
        """Writes the engine's own files into `folder`, the same bytes each time."""

    @abstractmethod
    def release(self) -> None:
        """Frees what the SDK holds; may be called twice."""


def precision_of(model: ir.Model) -> str:
    """The number format of the weights: "fp32", "fp16", ... or "fp16+fp32" when mixed.

    With no floating-point weight, that of the inputs. A graph that quantises adds "int8".
    """
    weights = {value.dtype for graph in model.graphs() for value in graph.initializers.values()}
    inputs = {value.dtype for value in model.graph.inputs}
    floats = {d for d in weights if d and d.is_floating_point()} or {
        d for d in inputs if d and d.is_floating_point()
    }
    names = {f"bf{d.bitwidth}" if d.name == "BFLOAT16" else f"fp{d.bitwidth}" for d in floats}
    quantised = any("Quant" in n.op_type or "QLinear" in n.op_type for n in model.graph)
    return "+".join(sorted(names | ({"int8"} if quantised else set()))) or "integer"


def _bare(outputs: tuple[Any, ...]) -> Any:
    return outputs[0] if len(outputs) == 1 else outputs
