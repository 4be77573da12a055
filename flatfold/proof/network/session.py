"""One graph in ONNX Runtime with optimisation off, as all graphs are run to be compared.

A graph that was read from a file is first tried in another process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.errors import BuildError, InputError
from flatfold.proof.network.inputs import MOST_ELEMENTS
from flatfold.system.trial import READ, Trial

LARGE_WEIGHT = 1 << 10  # bytes
_OUT_OF_MEMORY = ("Failed to allocate memory", "bad_alloc")
# A graph is run in the trial up to this product of its weights and values, which bounds the work.
MOST_TRIED = 1 << 32
MOST_SECONDS = 0.5  # of that run; what takes longer is not tried at other sizes
MOST_VISITED = 1 << 35  # pixels of the windows of one pool; ONNX Runtime takes half a minute
FATAL = 4  # log level: an error is raised as an exception and would otherwise also be printed


class PlainSession:
    """One graph in ONNX Runtime, not optimised. Raises BuildError where ONNX Runtime refuses it.

    What has sizes that were not run before is first run by `attempt`, if that is given.
    """

    def __init__(self, model: ir.Model, attempt: Trial | None = None) -> None:
        import onnxruntime as ort

        ort.set_default_logger_severity(FATAL)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = FATAL
        options.enable_cpu_mem_arena = False  # it keeps what one run took
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session, self._weights = _open(ort, model, options)
        except Exception as why:
            raise BuildError(f"ONNX Runtime refused the graph: {_last_line(why)}") from None
        self._attempt = attempt
        self._crashes: dict[tuple[tuple[str, tuple[int, ...]], ...], str] = {}  # by sizes; "": none

    def __call__(self, feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Outputs in order. Raises BuildError if the run fails, MemoryError if memory is short."""
        self._require_harmless(feeds)
        try:
            return [np.asarray(y) for y in self._session.run(None, dict(feeds))]
        except Exception as why:
            if any(words in str(why) for words in _OUT_OF_MEMORY):
                raise MemoryError from None
            raise BuildError(f"ONNX Runtime failed on the graph: {_last_line(why)}") from None

    def _require_harmless(self, feeds: Mapping[str, npt.NDArray[Any]]) -> None:
        """Raise BuildError where ONNX Runtime crashes on inputs of these sizes."""
        shapes = {name: np.shape(array) for name, array in feeds.items()}
        sizes = tuple(sorted(shapes.items()))
        if self._attempt is not None and sizes not in self._crashes:
            self._crashes[sizes] = ""
            try:
                self._attempt.run(shapes)
            except InputError as error:
                self._crashes[sizes] = error.cause
        if self._crashes.get(sizes):
            raise BuildError(self._crashes[sizes])


def plain_session(model: ir.Model, which: str) -> PlainSession:
    """A session of `model`. Raises InputError, which calls it `which`, where none can be built.

    A graph that was read, rather than exported here, is first tried in another process.
    """
    attempt = _try(model) if model.graph.meta.get(READ) else None
    try:
        return PlainSession(model, attempt)
    except BuildError as error:
        raise InputError(
            f"{which} cannot be run to be compared: {error.cause}",
            hint='give a model that ONNX Runtime runs, or leave the proof out with verify="off"',
        ) from error


def _try(model: ir.Model) -> Trial | None:
    """Raise InputError where `model` makes ONNX Runtime crash. Large weights count as inputs.

    Returns what tries other sizes, where the graph has open ones and is not too much work.
    """
    bare, large = model.clone(), 1
    for name, value in list(bare.graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and tensor.nbytes >= LARGE_WEIGHT and not value.is_graph_input():
            large += tensor.size
            del bare.graph.initializers[name]
            bare.graph.inputs.append(value)
    attempt = Trial(ir.to_proto(bare).SerializeToString())
    light = large * require_runnable(model) <= MOST_TRIED
    if light:
        light = attempt.run({}) <= MOST_SECONDS
    model.graph.meta[READ] = False
    fixed = all(value.shape is not None and value.shape.is_static() for value in model.graph.inputs)
    return attempt if light and not fixed else None


def require_runnable(model: ir.Model) -> int:
    """The number of elements of all values together; an open dimension counts as 1.

    Raises InputError where one value is too large for memory, or the windows of a pool are so
    large that ONNX Runtime, which visits each of their pixels, takes minutes.
    """
    total = 0
    outputs = (value for node in model.graph.all_nodes() for value in node.outputs)
    for value in (*model.graph.inputs, *outputs):
        dims = [dim if isinstance(dim, int) else 1 for dim in value.shape or ()]
        count = math.prod(dims)
        total += count
        visited = count * _window_pixels(value.producer())
        if count > MOST_ELEMENTS:
            raise InputError(
                f"value {value.name!r} has {count} elements, too many to run the graph",
                hint='export it for a smaller input, or leave the proof out with verify="off"',
            )
        if visited > MOST_VISITED:
            raise InputError(
                f"the pool of {value.name!r} visits {visited} pixels, too many to run the graph",
                hint='give it smaller windows, or leave the proof out with verify="off"',
            )
    return total


def _window_pixels(node: ir.Node | None) -> int:
    """The pixels of one window of a pool; 1 for other nodes."""
    if node is None or node.op_type not in ("AveragePool", "LpPool", "MaxPool"):
        return 1
    kernel = node.attributes.get("kernel_shape")
    return math.prod(kernel.as_ints()) if kernel is not None else 1


def _open(ort: Any, model: ir.Model, options: Any) -> tuple[Any, list[Any]]:
    """A session of `model`, and large weights, which it reads where they are.

    They must live as long as the session does.
    """
    bare, weights = _without_weights(model)
    names, values = list(weights), [*map(ort.OrtValue.ortvalue_from_numpy, weights.values())]
    options.add_external_initializers(names, values)  # this alone copies them
    for name, value in zip(names, values, strict=True):
        options.add_initializer(name, value)
    serialised = ir.to_proto(bare).SerializeToString()
    session = ort.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])
    return session, values


def _without_weights(model: ir.Model) -> tuple[ir.Model, dict[str, npt.NDArray[Any]]]:
    """A copy of `model` whose large weights are said to be in a file, and those weights."""
    bare, weights = model.clone(), {}
    for name, value in bare.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.nbytes < LARGE_WEIGHT or value.is_graph_input():
            continue
        if not value.uses():  # ONNX Runtime removes it, and then does not find what replaces it
            continue
        array = np.ascontiguousarray(tensor.numpy())
        if array.dtype.kind in "biuf":  # the other types are not NumPy's own
            weights[name] = array
            value.const_value = ir.ExternalTensor(
                "weights", 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(array.shape), name=name
            )
    return bare, weights


def _last_line(why: Exception) -> str:
    lines = [line for line in str(why).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(why).__name__
