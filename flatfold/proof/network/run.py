"""Run two graphs with ONNX Runtime and compare their outputs with a float64 reference.

Optimisation is off: with it, ONNX Runtime would itself fold the original, and the comparison would
prove nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.errors import BuildError, InputError
from flatfold.proof.equivalence import Equivalence
from flatfold.proof.interpreter.operators import Linear, traits_of
from flatfold.proof.network.allowance import Allowance, unbounded_session
from flatfold.proof.network.arithmetic import Rounding, TypedSession, half_types, open_session
from flatfold.proof.network.branches import Branch, Watch
from flatfold.proof.network.inputs import (
    FEW_KINDS,
    KINDS,
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
from flatfold.proof.network.session import PlainSession, require_runnable
from flatfold.proof.network.sizes import Shapes, elements_at, enlarges_inputs, sizes_that_run
from flatfold.system.progress import Progress, silent

# Above this many values the reference, which keeps all of them, is not run (2 GiB in float64), and
# one input of the first size is.
MOST_REFERENCED = 1 << 28

# Above this many multiply-accumulates for one input, or values, only the first inputs are run; and
# above LONG_MACS, where each change was checked by itself.
HEAVY_MACS, HEAVY_ELEMENTS, HEAVY_INPUTS = 6_000_000_000, 1 << 27, 3
LONG_MACS, LONG_INPUTS = 100_000_000, 2

ONNX_REFERENCE = "the ONNX reference in float64"


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
    before = before or open_session(original, "the graph")
    sizes = sizes or sizes_that_run(original, run=before)
    enlarging = [model for model in (original, rewritten) if enlarges_inputs(model)]
    size = max([size, *(elements_at(model, sizes[0]) for model in enlarging)])
    after = open_session(rewritten, "the other graph")
    if reference is None and size > MOST_REFERENCED:
        reference = before
    exact, name = referenced_when_needed(original), ONNX_REFERENCE
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
    watch = Watch.of(original, rewritten, open_session)
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
    kind = Allowance if half_types(original) else Comparison
    comparison = kind(before, after, reference, name, roundoff, growth, names)
    comparison.scales = [output_scale(value) for value in outputs]
    comparison.random = may_be_random(original)
    comparison.rounded = lambda: PlainSession(rounded_otherwise(original))
    comparison.overflows = lambda feeds: _overflows(original, feeds)
    if isinstance(comparison, Allowance):
        comparison.exactly = lambda: TypedSession(original, Rounding.NONE)
        comparison.unbounded = unbounded_session(original)
        comparison.rounded = lambda: TypedSession(original, Rounding.REWEIGHTED)
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
        arrays = [np.asarray(array) for array in open_session(copy)(feeds)]
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
    arrays = open_session(with_outputs(original, places))(feeds)
    pairs = [(p, a) for p, a in zip(places, arrays, strict=True) if a.dtype.kind == "f"]
    if not pairs:
        return None
    places, arrays = [place for place, _ in pairs], [array for _, array in pairs]
    record = open_session(with_outputs(original, places))
    cut = cut_graphs(original, rewritten, places, arrays)
    before, after = open_session(cut.before), open_session(cut.after)
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


def referenced_when_needed(original: ir.Model) -> Reference:
    """The ONNX reference evaluator, built for the first input that it is asked for."""
    built: list[Reference] = []

    def run(feeds: Mapping[str, npt.NDArray[Any]]) -> Outputs:
        if not built:
            built.append(onnx_reference(original))
        return built[0](feeds)

    return run
