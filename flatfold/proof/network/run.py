"""Run two graphs with ONNX Runtime and compare their outputs with a float64 reference.

Optimisation is off: with it, ONNX Runtime would itself fold the original, and the comparison would
prove nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.errors import BuildError, InputError
from flatfold.proof.equivalence import Equivalence
from flatfold.proof.interpreter.operators import Linear, traits_of
from flatfold.proof.network.branches import Branch, Watch
from flatfold.proof.network.inputs import (
    FEW_KINDS,
    KINDS,
    MOST_ELEMENTS,
    Feeds,
    InputSpec,
    draw_feeds,
    input_specs,
)
from flatfold.proof.network.judge import (
    OWN_PRECISION,
    ROUNDOFF,
    Closer,
    Comparison,
    may_overflow,
    rounding_growth,
)
from flatfold.proof.network.jump import cut_graphs, places_to_cut, with_outputs
from flatfold.proof.network.output_range import output_scale
from flatfold.proof.network.reference import NoReference, Outputs, Reference, onnx_reference
from flatfold.proof.network.rounding import has_graph, rounded_otherwise
from flatfold.proof.network.sizes import Shapes, elements_at, enlarges_inputs, sizes_that_run
from flatfold.system.progress import Progress, silent
from flatfold.system.trial import READ, Trial

LARGE_WEIGHT = 1 << 10  # bytes

# Above this many values the reference, which keeps all of them, is not run (2 GiB in float64), and
# one input of the first size is.
MOST_REFERENCED = 1 << 28

# Above this many multiply-accumulates for one input, or values, only the first inputs are run; and
# above LONG_MACS, where each change was checked by itself.
HEAVY_MACS, HEAVY_ELEMENTS, HEAVY_INPUTS = 6_000_000_000, 1 << 27, 3
LONG_MACS, LONG_INPUTS = 100_000_000, 2

_OUT_OF_MEMORY = ("Failed to allocate memory", "bad_alloc")
# A graph is run in the trial up to this product of its weights and values, which bounds the work.
MOST_TRIED = 1 << 32
MOST_SECONDS = 0.5  # of that run; what takes longer is not tried at other sizes
MOST_VISITED = 1 << 35  # pixels of the windows of one pool; ONNX Runtime takes half a minute

ONNX_REFERENCE = "the ONNX reference in float64"
FATAL = 4  # log level: an error is raised as an exception and would otherwise also be printed


def compare(
    original: ir.Model,
    rewritten: ir.Model,
    *,
    reference: Reference | None = None,
    macs: int = 0,
    sizes: Sequence[Shapes] | None = None,
    checked: bool = False,
    before: Reference | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Equivalence:
    """The verdict on two graphs that run on the same inputs: `sampled`, `refuted` or `unknown`.

    `reference` computes the original in float64, such as a PyTorch module; without one the ONNX
    reference evaluator does. `macs`: multiply-accumulates for one input; above HEAVY_MACS fewer
    inputs are run. `sizes` are the settings of the inputs' shapes to run at, those that
    `sizes_that_run` finds if None. `checked`: each change was checked by itself, so that fewer
    inputs are enough. `before` runs the original, if it is in a session already. A difference is a
    verdict, not an exception. Raises InputError for a graph that cannot be run at all.
    """
    specs = input_specs(original)
    size = max(require_runnable(model) for model in (original, rewritten))
    before = before or plain_session(original, "the graph")
    sizes = sizes or sizes_that_run(original, run=before)
    enlarging = [model for model in (original, rewritten) if enlarges_inputs(model)]
    size = max([size, *(elements_at(model, sizes[0]) for model in enlarging)])
    after = plain_session(rewritten, "the other graph")
    if reference is None and size > MOST_REFERENCED:
        reference = before
    exact, name = _referenced_when_needed(original), ONNX_REFERENCE
    if reference is not None:
        exact, name = reference_for(original, before, reference)
    dtype = original.graph.outputs[0].dtype
    roundoff = ROUNDOFF.get(dtype.name if dtype is not None else "FLOAT", 2.0**-24)
    growth = rounding_growth(original, rewritten)
    comparison = comparison_of(original, before, after, exact, name, roundoff, growth)
    comparison.closer = lambda feeds: cut_comparison(comparison, original, rewritten, feeds)
    if reference is not None:
        comparison.fallback = lambda: reference_for(original, before, None)
    few = sizes[:1] if size > MOST_REFERENCED else sizes
    inputs = _Inputs(specs, few, _Kinds.of(checked, macs, size), seed)
    inputs.try_all(comparison, progress)
    watch = Watch.of(original, rewritten, PlainSession)
    missed = watch.missed(inputs.feeds())
    if missed and checked:  # on few inputs
        inputs = replace(inputs, kinds=_Kinds(KINDS, KINDS))
        inputs.try_all(comparison, progress)
        missed = watch.missed(inputs.feeds(), missed)
    if missed:
        more = replace(inputs, sizes=_sizes_that_reach(original, before, watch, missed))
        more.try_all(comparison, progress)
        missed = watch.missed(more.feeds(), missed)
    result = comparison.result
    if result is None:
        result = _compare_evaluated(comparison, original, rewritten, inputs)
    return _without_branches(result, [str(branch) for branch in missed])


def _sizes_that_reach(
    original: ir.Model, before: Reference, watch: Watch, missed: Sequence[Branch]
) -> list[Shapes]:
    """Settings of the inputs' shapes at which one of the `missed` runs, if any are found."""
    specs = input_specs(original)

    def run(feeds: Feeds) -> None:
        shapes = {name: np.shape(array) for name, array in feeds.items()}
        for _, drawn in draw_feeds(specs, shapes, 0, KINDS):
            if len(watch.missed([drawn], missed)) < len(missed):
                before(drawn)
                return
        raise BuildError("no branch runs that has not run")

    if all(isinstance(size, int) for spec in specs for size in spec.shape):
        return []
    try:
        return sizes_that_run(original, run=run)
    except InputError:
        return []


def _without_branches(result: Equivalence, missed: Sequence[str]) -> Equivalence:
    """`result`, which is `unknown` at best where branches that differ were `missed`."""
    if not missed or not result.passed:
        return result
    reason = f"no input ran {', '.join(missed)}"
    reasons = "; ".join(filter(None, (result.reason, reason)))
    uncovered = (*result.uncovered, *missed)
    return replace(result, verdict="unknown", reason=reasons, uncovered=uncovered)


@dataclass(frozen=True)
class _Kinds:
    """The kinds of inputs on which graphs are compared, at the first size and at the others."""

    first: Sequence[str]
    others: Sequence[str]

    @classmethod
    def of(cls, checked: bool, macs: int, elements: int) -> _Kinds:
        """All of them; fewer where a run takes long, and where each change was `checked`."""
        if elements > MOST_REFERENCED:
            return cls(KINDS[:1], ())
        heavy = macs > HEAVY_MACS or elements > HEAVY_ELEMENTS
        if checked:
            few = heavy or macs > LONG_MACS
            return cls(FEW_KINDS[:LONG_INPUTS] if few else FEW_KINDS, FEW_KINDS[:1])
        kinds = KINDS[:HEAVY_INPUTS] if heavy else KINDS
        return cls(kinds, kinds)


@dataclass(frozen=True)
class _Inputs:
    """The inputs on which graphs are compared: of these kinds, in these sizes."""

    specs: Sequence[InputSpec]
    sizes: Sequence[Shapes]
    kinds: _Kinds
    seed: int

    def drawn(self) -> Iterator[tuple[str, Feeds]]:
        """Labels and feeds."""
        for number, shapes in enumerate(self.sizes):
            kinds = self.kinds.others if number else self.kinds.first
            for kind, feeds in draw_feeds(self.specs, shapes, self.seed + number, kinds):
                yield f"{kind} {'x'.join(map(str, next(iter(shapes.values()), ())))}", feeds

    def feeds(self) -> Iterator[Feeds]:
        return (feeds for _, feeds in self.drawn())

    def try_all(self, comparison: Comparison, progress: Progress) -> None:
        """Compare on every input that the original accepts. Raises InputError."""
        for label, feeds in self.drawn():
            progress(label)
            try:
                outputs = outputs_of(comparison.before, feeds)
                if outputs is None:  # the original does not accept this size, or these integers
                    continue
                comparison.try_input(label, feeds, outputs)
                if sum(map(np.size, outputs)) > HEAVY_ELEMENTS:
                    return
            except MemoryError as error:
                raise InputError(
                    f"not enough memory to run the graph on {label}",
                    hint='export it for a smaller input, or leave the proof out with verify="off"',
                ) from error


def _compare_evaluated(
    whole: Comparison, original: ir.Model, rewritten: ir.Model, inputs: _Inputs
) -> Equivalence:
    """The verdict where ONNX Runtime runs the original on no input: the ONNX reference runs it.

    And the rewritten graph, if ONNX Runtime does not run that either. Raises InputError.
    """
    _, feeds = next(inputs.drawn())
    why = _refusal(whole.before, feeds)
    before = evaluated(original)
    if outputs_of(before, feeds) is None:
        raise InputError(
            f"the original graph could not be run on any input tried: {why}",
            hint="check that ONNX Runtime runs the model, or fix its open sizes",
        )
    after = evaluated(rewritten) if _refusal(whole.after, feeds) else whole.after
    name = f"the ONNX reference, which ran the original since {why}"
    comparison = comparison_of(original, before, after, before, name, whole.roundoff, whole.growth)
    comparison.rounded = None
    inputs.try_all(comparison, silent)
    if comparison.result is None:
        raise InputError(f"the original graph could not be run on any input tried: {why}")
    return comparison.result


def evaluated(model: ir.Model) -> Reference:
    """Runs `model` by the ONNX reference evaluator in double, and rounds its outputs once."""
    dtypes = [
        value.dtype.numpy() if value.dtype is not None else None for value in model.graph.outputs
    ]

    def run(feeds: Mapping[str, npt.NDArray[Any]]) -> Outputs:
        try:
            outputs = onnx_reference(model)(feeds)
        except NoReference as why:
            raise BuildError(str(why)) from None
        pairs = zip(outputs, dtypes, strict=True)
        return [y if dtype is None else y.astype(dtype) for y, dtype in pairs]

    return run


def _refusal(run: Callable[[Feeds], Outputs], feeds: Feeds) -> str:
    """Why `feeds` are not accepted; empty if they are."""
    try:
        run(feeds)
    except BuildError as error:
        return error.cause
    return ""


def comparison_of(
    original: ir.Model,
    before: Reference,
    after: Callable[[Feeds], Outputs],
    reference: Reference,
    name: str,
    roundoff: float,
    growth: float,
) -> Comparison:
    """The comparison that knows the outputs of `original` by name and range, and its roundings."""
    outputs = original.graph.outputs
    names = [value.name or "" for value in outputs]
    comparison = Comparison(before, after, reference, name, roundoff, growth, names)
    comparison.scales = [output_scale(value) for value in outputs]
    comparison.random = may_be_random(original)
    comparison.rounded = lambda: PlainSession(rounded_otherwise(original))
    comparison.overflows = lambda feeds: _overflows(original, feeds)
    return comparison


def _overflows(original: ir.Model, feeds: Feeds) -> bool:
    """Whether a number inside the original is so large that another order of sums may overflow.

    Or infinite by a sum or product already: the first infinity is not one of a Log or Div. What
    is in the body of an If or a Loop is not seen, and counts as a sum.
    """
    copy = original.clone()
    values = [value for node in copy.graph for value in node.outputs if _may_be_float(value)]
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(values)
    try:
        arrays = [np.asarray(array) for array in PlainSession(copy)(feeds)]
    except (BuildError, MemoryError, ValueError):
        return False
    for value, array in zip(values, arrays, strict=True):
        if array.dtype.kind != "f":
            continue
        if may_overflow(array):
            return True
        if np.any(np.isinf(array)):
            node = value.producer()
            summed = node is not None and traits_of(node).linear is not Linear.NONE
            return summed or (node is not None and has_graph(node))
    return False


def _may_be_float(value: ir.Value) -> bool:
    known = value.dtype is None or value.dtype.name in ROUNDOFF
    return known and bool(value.name) and isinstance(value.type, ir.TensorType | None)


def may_be_random(model: ir.Model) -> bool:
    """Whether `model` may have other outputs each time: by a random operator, or an unknown one."""
    nodes = itertools.chain(
        model.graph.all_nodes(), *(f.all_nodes() for f in model.functions.values())
    )
    return any(_may_be_random(node, model) for node in nodes)


def _may_be_random(node: ir.Node, model: ir.Model) -> bool:
    if node.op_identifier() in model.functions:
        return False
    training = node.op_type == "Dropout" and len(node.inputs) > 2
    known = node.domain in ("", "ai.onnx", "ai.onnx.ml")
    return not known or traits_of(node).random or training


def cut_comparison(
    whole: Comparison, original: ir.Model, rewritten: ir.Model, feeds: Feeds
) -> Closer | None:
    """The comparison of both graphs cut in front of their jumps; None where there is none to cut.

    Raises BuildError where ONNX Runtime refuses a graph.
    """
    places = places_to_cut(original, rewritten)
    if not places:
        return None
    arrays = PlainSession(with_outputs(original, places))(feeds)
    pairs = [(p, a) for p, a in zip(places, arrays, strict=True) if a.dtype.kind == "f"]
    if not pairs:
        return None
    places, arrays = [place for place, _ in pairs], [array for _, array in pairs]
    record = PlainSession(with_outputs(original, places))
    cut = cut_graphs(original, rewritten, places, arrays)
    before, after = PlainSession(cut.before), PlainSession(cut.after)
    exact, name = reference_for(cut.before, before, None)
    if whole.reference is whole.before:
        exact, name = before, whole.name
    comparison = comparison_of(cut.before, before, after, exact, name, whole.roundoff, whole.growth)
    return Closer(comparison, lambda feeds: cut.feeds(feeds, record(feeds)), cut.kinds)


def outputs_of(session: Reference, feeds: Feeds) -> Outputs | None:
    """The outputs for `feeds`; None where the graph does not accept them."""
    try:
        return session(feeds)
    except BuildError:
        return None


def reference_for(
    original: ir.Model, before: Reference, reference: Reference | None
) -> tuple[Reference, str]:
    """What the outputs are compared with, and its name.

    That is `reference` if there is one, else the ONNX reference evaluator, else the original itself
    (`before`).
    """
    if reference is before:
        return before, OWN_PRECISION
    if reference is not None:
        return reference, "the module in float64"
    try:
        return onnx_reference(original), ONNX_REFERENCE
    except NoReference:
        return before, OWN_PRECISION


def _referenced_when_needed(original: ir.Model) -> Reference:
    """The ONNX reference evaluator, built for the first input that it is asked for."""
    built: list[Reference] = []

    def run(feeds: Mapping[str, npt.NDArray[Any]]) -> Outputs:
        if not built:
            built.append(onnx_reference(original))
        return built[0](feeds)

    return run


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
