"""Run two graphs with ONNX Runtime, optimisation off, and have the outputs compared.

With optimisation on, ONNX Runtime would fold the original for us and the comparison would prove
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx_ir as ir

from flatfold.errors import BuildError, InputError
from flatfold.proof.comparison import Comparison
from flatfold.proof.equivalence import Equivalence
from flatfold.proof.inputs import Feeds, InputSpec, draw, settings
from flatfold.proof.lengths import rounding_growth
from flatfold.proof.reference import NoReference, Outputs, Reference, onnx_reference
from flatfold.proof.roundoff import ROUNDOFF
from flatfold.proof.runtime import plain_session, require_runnable

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
    progress: Callable[[str], None] = lambda _: None,
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
