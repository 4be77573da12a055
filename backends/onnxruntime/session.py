"""Sessions of ONNX Runtime: options, opening, running. Its errors are raised as flatfold's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from flatfold.backends.store.model_file import serialized
from flatfold.backends.tensors import Array, TensorSpec
from flatfold.errors import BuildError, InputError, OutputError, TargetError
from flatfold.system.isolated import tail

if TYPE_CHECKING:
    import onnxruntime


NO_PROVIDER = (
    "install CUDA and cuDNN of the versions it needs (pip install 'onnxruntime-gpu[cuda,cudnn]'), "
    "and uninstall onnxruntime, which shares its module with onnxruntime-gpu"
)
LEVELS = ("disable", "basic", "extended", "all")
_FATAL = 4  # log level: errors are raised as exceptions, too, and should not appear twice
_DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bool": "bool",
    **{name: name for name in ("int8", "int16", "int32", "int64")},
    **{name: name for name in ("uint8", "uint16", "uint32", "uint64")},
}


@dataclass(frozen=True)
class OrtOptions:
    """The options of ONNX Runtime.

    `intra_threads`: threads inside one operator; 0 for one per physical core. `inter_threads`:
    operators that run at the same time; with more than 1, independent nodes run in parallel.
    `graph_optimization`: "disable", "basic", "extended" or "all" (with layouts for this processor
    only). `spinning`: idle threads wait actively, which is faster but keeps cores busy. `arena`:
    keep freed memory for the next run.
    """

    intra_threads: int = 0
    inter_threads: int = 1
    graph_optimization: str = "all"
    spinning: bool = True
    arena: bool = True

    target: ClassVar[str] = "ort-cpu"

    def __post_init__(self) -> None:
        if self.graph_optimization not in LEVELS:
            raise InputError(
                f"option 'graph_optimization': expected one of {', '.join(LEVELS)}, "
                f"found {self.graph_optimization!r}",
                where=f"target {self.target}",
            )
        for name in ("intra_threads", "inter_threads"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"option {name!r}: expected 0 or more, found {getattr(self, name)}",
                    where=f"target {self.target}",
                )

    def providers(self) -> list[tuple[str, dict[str, str]]]:
        """The execution providers with their options, in order; the first must be available."""
        return [("CPUExecutionProvider", {})]

    def runs_in(self, precision: str) -> str:
        """The precision in which a graph of precision `precision` runs."""
        return precision


def open_session(
    source: bytes | str,
    options: OrtOptions,
    *,
    level: str = "",
    save_to: str = "",
    adjust: Callable[[onnxruntime.SessionOptions], None] = lambda _: None,
) -> onnxruntime.InferenceSession:
    """A session of the model in `source`, its content or its path.

    `level` overrides `options.graph_optimization`, and `adjust` may change any setting. The
    optimised graph is written to `save_to`, if given. Raises BuildError, with the end of ONNX
    Runtime's message, where it refuses the model or falls back to another provider.
    """
    import onnxruntime

    providers = options.providers()
    provider = providers[0][0]
    if provider not in onnxruntime.get_available_providers():
        raise _no_provider(provider, options)
    settings = _settings(options, level or options.graph_optimization)
    if save_to:
        settings.optimized_model_filepath = save_to
    adjust(settings)
    try:
        session = onnxruntime.InferenceSession(source, settings, providers=providers)
    except Exception as error:  # its exception types have no common base class
        raise BuildError(
            f"onnxruntime {onnxruntime.__version__} refused the model: {tail(error)}",
            where=f"target {options.target}",
            hint="onnx.checker.check_model says whether the model itself is valid",
        ) from error
    if session.get_providers()[0] != provider:  # it falls back without an exception
        raise _no_provider(provider, options)
    return session


def _no_provider(provider: str, options: OrtOptions) -> BuildError:
    import onnxruntime

    built_with = ", ".join(onnxruntime.get_available_providers())
    name = f"onnxruntime {onnxruntime.__version__}"
    return BuildError(
        f"{name} did not start {provider}; it was built with {built_with}",
        where=f"target {options.target}",
        hint=NO_PROVIDER,
    )


def optimized_bytes(model: bytes, options: OrtOptions, *, scratch: Path) -> bytes:
    """The graph that ONNX Runtime optimises `model` to, in ONNX format, the same bytes each time.

    The ORT format is written in the order of a randomised hash table, and loads no faster.
    `scratch` is a folder for a temporary file. Raises OutputError where nothing can be written.
    """
    import onnx
    import onnx_ir as ir

    from flatfold.backends.onnxruntime.determinism import stable_names

    path = scratch / "optimized.tmp"
    try:
        open_session(model, options, save_to=str(path))
        optimized = ir.from_proto(onnx.load_model_from_string(path.read_bytes()))
        stable_names(optimized)
        content = serialized(optimized)
        # ONNX Runtime does not report a file cut short by a full disk, so check that it loads.
        open_session(content, options, level="disable")
        return content
    except OSError:
        raise
    except Exception as error:  # the model was built before, so only writing can have failed
        cause = f"cannot write the optimised graph: {tail(error)}"
        raise OutputError(cause, where=str(scratch.parent)) from error
    finally:
        path.unlink(missing_ok=True)


def run_session(
    session: onnxruntime.InferenceSession,
    names: list[str],
    feeds: dict[str, Array],
    options: onnxruntime.RunOptions | None = None,
) -> list[Array]:
    """The outputs of the given names, in that order."""
    with run_errors(session):
        outputs: list[Array] = session.run(names, feeds, options)
    return outputs


def bound_run(
    session: onnxruntime.InferenceSession, names: list[str], feeds: dict[str, Array]
) -> Callable[[], dict[str, Array]]:
    """A function that runs on the arrays of `feeds` and always writes into the same outputs.

    The session is run once at first, to learn the sizes of the outputs.
    """
    import onnxruntime

    from_numpy = onnxruntime.OrtValue.ortvalue_from_numpy
    first = run_session(session, names, feeds)
    outputs = {name: np.empty_like(array) for name, array in zip(names, first, strict=True)}
    # Not every version of a binding keeps arrays and values alive, so the function does.
    inputs = {name: from_numpy(array) for name, array in feeds.items()}
    buffers = {name: from_numpy(array) for name, array in outputs.items()}
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, value)
    for name, value in buffers.items():
        binding.bind_ortvalue_output(name, value)

    def run(_alive: tuple[object, ...] = (feeds, inputs, buffers)) -> dict[str, Array]:
        with run_errors(session):
            session.run_with_iobinding(binding)
        return outputs

    return run


def specs(arguments: Iterable[Any], target: str) -> tuple[TensorSpec, ...]:
    """The descriptions of inputs or outputs. Raises BuildError for types that NumPy lacks."""
    return tuple(TensorSpec(a.name, _dtype(a, target), tuple(a.shape)) for a in arguments)


def _dtype(argument: Any, target: str) -> str:
    kind = argument.type
    dtype = _DTYPES.get(kind.removeprefix("tensor(").removesuffix(")"))
    if dtype is None or not kind.startswith("tensor("):
        raise BuildError(
            f"expected tensors that NumPy can hold, found {kind} for {argument.name!r}",
            where=f"target {target}",
            hint="cast it inside the model, or cut the model there",
        )
    return dtype


def _settings(options: OrtOptions, level: str) -> onnxruntime.SessionOptions:
    import onnxruntime

    onnxruntime.set_default_logger_severity(_FATAL)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _FATAL
    settings.intra_op_num_threads = options.intra_threads
    settings.inter_op_num_threads = options.inter_threads
    if options.inter_threads > 1:
        settings.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    settings.graph_optimization_level = {
        "disable": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
        "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    }[level]
    settings.enable_cpu_mem_arena = options.arena
    for pool in ("intra_op", "inter_op"):
        settings.add_session_config_entry(
            f"session.{pool}.allow_spinning", "1" if options.spinning else "0"
        )
    return settings


@contextmanager
def run_errors(session: onnxruntime.InferenceSession) -> Iterator[None]:
    """Raises any exception of ONNX Runtime as a TargetError."""
    try:
        yield
    except Exception as error:
        raise TargetError(
            f"onnxruntime could not run the model on these inputs: {tail(error)}",
            where=f"onnxruntime, {session.get_providers()[0]}",
            hint="compile with dynamic_batch=True if only the batch size differs",
        ) from error
