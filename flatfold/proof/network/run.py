"""Run two graphs with ONNX Runtime, optimisation off, and have the outputs compared.

With optimisation on, ONNX Runtime would fold the original for us and the comparison would prove
nothing.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.errors import BuildError, InputError
from flatfold.proof.equivalence import Equivalence
from flatfold.proof.network.inputs import Feeds, InputSpec, draw, settings
from flatfold.proof.network.judge import ROUNDOFF, Comparison, rounding_growth
from flatfold.proof.network.reference import NoReference, Outputs, Reference, onnx_reference
from flatfold.system.progress import Progress, silent

PROTOBUF_LIMIT = 1 << 31
MOST_ELEMENTS = 1 << 29  # of one value: 2 GiB in float32
_OUT_OF_MEMORY = ("Failed to allocate memory", "bad_alloc")
FATAL = 4  # every error arrives as an exception too; printed on stderr it would come twice


class PlainSession:
    """One graph, ready to run. Raises BuildError where ONNX Runtime refuses it."""

    def __init__(self, model: ir.Model) -> None:
        import onnxruntime as ort

        ort.set_default_logger_severity(FATAL)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = FATAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = _open(ort, model, options)
        except Exception as why:
            raise BuildError(f"ONNX Runtime refused the graph: {_last_line(why)}") from None

    def __call__(self, feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Outputs in order. Raises BuildError if the run fails, MemoryError if that is why."""
        try:
            return [np.asarray(y) for y in self._session.run(None, dict(feeds))]
        except Exception as why:
            if any(words in str(why) for words in _OUT_OF_MEMORY):
                raise MemoryError from None
            raise BuildError(f"ONNX Runtime failed on the graph: {_last_line(why)}") from None


def plain_session(model: ir.Model, which: str) -> PlainSession:
    """A session of `model`; InputError, which says `which` it is, where there can be none."""
    try:
        return PlainSession(model)
    except BuildError as error:
        raise InputError(
            f"{which} cannot be run to be compared: {error.cause}",
            hint='make a model that ONNX Runtime runs, or leave the proof out with verify="off"',
        ) from error


def require_runnable(model: ir.Model) -> int:
    """The elements of all values, as far as sizes are known.

    Raises InputError where one of them does not fit into memory.
    """
    total = 0
    made = (value for node in model.graph.all_nodes() for value in node.outputs)
    for value in (*model.graph.inputs, *made):
        dims = [dim if isinstance(dim, int) else 1 for dim in value.shape or ()]
        count = math.prod(dims)
        total += count
        if count > MOST_ELEMENTS:
            raise InputError(
                f"value {value.name!r} has {count} elements, too many to run the graph",
                hint='export it for a smaller input, or leave the proof out with verify="off"',
            )
    return total


def _open(ort: Any, model: ir.Model, options: Any) -> Any:
    providers = ["CPUExecutionProvider"]
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
    if size < PROTOBUF_LIMIT - (1 << 26):
        serialised = ir.to_proto(model).SerializeToString()
        return ort.InferenceSession(serialised, options, providers=providers)
    with tempfile.TemporaryDirectory(prefix="flatfold-") as folder:
        path = Path(folder) / "model.onnx"
        ir.save(model, path, external_data="model.data")
        return ort.InferenceSession(str(path), options, providers=providers)


def _last_line(why: Exception) -> str:
    lines = [line for line in str(why).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(why).__name__


# Above this many values the reference, which keeps them all, is not asked: 2 GiB in float64.
MOST_REFERENCED = 1 << 28

# Above this many multiply-accumulates an input, or values, only the first inputs are run.
HEAVY_MACS, HEAVY_ELEMENTS, HEAVY_INPUTS = 6_000_000_000, 1 << 27, 3


def specs_of(model: ir.Model) -> list[InputSpec]:
    """The inputs a caller feeds. Raises InputError where type or rank is unknown."""
    specs = []
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        if value.shape is None or value.dtype is None:
            raise InputError(f"input {value.name} has no type or rank", hint="give its shape")
        dims = tuple(dim if isinstance(dim, int) else None for dim in value.shape)
        specs.append(InputSpec(value.name or "", value.dtype.numpy().name, dims))
    return specs


def compare(
    original: ir.Model,
    rewritten: ir.Model,
    *,
    reference: Reference | None = None,
    macs: int = 0,
    seed: int = 0,
    progress: Progress = silent,
) -> Equivalence:
    """Verdict `sampled` or `refuted`; a difference is never an exception.

    Raises InputError for a graph that cannot be run at all.

    `reference` computes the original in float64 (a PyTorch module, say); without one the ONNX
    reference evaluator does. `macs`, for one input, limits how many inputs are run.
    """
    specs = specs_of(original)
    size = max(require_runnable(model) for model in (original, rewritten))
    heavy = macs > HEAVY_MACS or size > HEAVY_ELEMENTS
    before, after = (
        plain_session(original, "the graph"),
        plain_session(rewritten, "the other graph"),
    )
    if reference is None and size > MOST_REFERENCED:
        reference = before
    judge, name = judge_of(original, before, reference)
    dtype = original.graph.outputs[0].dtype
    roundoff = ROUNDOFF.get(dtype.name if dtype is not None else "FLOAT", 2.0**-24)
    growth = rounding_growth(original, rewritten)
    comparison = Comparison(before, after, judge, name, roundoff, growth)
    if reference is not None:
        comparison.other = lambda: judge_of(original, before, None)
    for number, shapes in enumerate(settings(specs)):
        for count, (kind, feeds) in enumerate(draw(specs, shapes, seed + number)):
            if heavy and count >= HEAVY_INPUTS:
                break
            label = f"{kind} {'x'.join(map(str, next(iter(shapes.values()))))}"
            progress(label)
            try:
                outputs = outputs_of(before, feeds)
                if outputs is None:
                    break  # the original does not accept this size
                comparison.try_input(label, feeds, outputs)
            except MemoryError as error:
                raise InputError(
                    f"not enough memory to run the graph on {label}",
                    hint='export it for a smaller input, or leave the proof out with verify="off"',
                ) from error
    if comparison.worst is None:
        raise InputError(
            "the original graph could not be run on any input tried",
            hint="check that ONNX Runtime runs the model, or fix its open sizes",
        )
    tried = tuple(comparison.tried)
    return replace(comparison.worst, inputs=tried, reference=comparison.name)


def outputs_of(session: Reference, feeds: Feeds) -> Outputs | None:
    """What the graph makes of `feeds`; None where it does not take them."""
    try:
        return session(feeds)
    except BuildError:
        return None


def judge_of(
    original: ir.Model, before: Reference, reference: Reference | None
) -> tuple[Reference, str]:
    """What the outputs are measured against, and its name: `reference` if there is one."""
    if reference is before:
        return before, "the original in its own precision"
    if reference is not None:
        return reference, "the module in float64"
    try:
        return onnx_reference(original), "the ONNX reference in float64"
    except NoReference:
        return before, "the original in its own precision"
