"""From a rewritten graph and data to a quantized one: which graph, the steps, what stays in float.

Channels that were equalised are alike in size, which a scale for all of them needs; but where they
were alike already, other powers of two are no better, and may be worse. So both graphs, which have
the same outputs to the bit, are quantized; the one with more layers in 8 bits is taken, and of two
with as many the nearer one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flatfold.passes.quantization.dialect import Dialect
from flatfold.passes.quantization.record import Range
from flatfold.passes.quantization.writer import raise_opset
from flatfold.passes.remark import HINTS, Remark
from flatfold.quantizing.mixed import Allowed, enough_in_float
from flatfold.quantizing.steps import NAME, Recipe, Setting, find, judged
from flatfold.result import Optimized, Rounded
from flatfold.system.progress import Progress, silent

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.precision import Precision

EQUALIZED = "equalize-channels"


def quantized(
    result: Optimized,
    precision: Precision,
    feeds: Sequence[Mapping[str, Any]],
    dialect: Dialect,
    *,
    given: bool,
    unequalized: Optimized | None = None,
    allowed: Allowed | None = None,
    progress: Progress = silent,
) -> Optimized:
    """`result`, or `unequalized` if that is the better one, with a graph quantized for `dialect`.

    `feeds` are inputs to run it on, `given` by the caller or drawn. With `allowed`, as many layers
    stay in float as that asks for. Raises InputError for a name to keep that nothing has, and where
    there is nothing to judge a drop by.
    """
    setting = Setting(dialect, precision.keep_float, progress)
    recipe, chosen, remarks = _nearest(result, unequalized, feeds, setting)
    if allowed is not None:
        recipe = enough_in_float(recipe, feeds, setting, allowed)
    graph = setting.write(recipe.model, recipe.quantization)
    remarks += [*recipe.remarks, *_layers(recipe, dialect)]
    count, total = len(recipe.quantization.weights), len(recipe.rows)
    difference = recipe.difference
    rounded = Rounded(
        *(precision.kind, count, total, 0, len(feeds), given, difference.decibels),
        agreement=difference.agreement if given else None,  # on random data it means nothing
        layers={row.name: row.decibels for row in recipe.rows if row.decibels is not None},
    )
    return replace(
        chosen,
        graph=graph,
        float_graph=chosen.graph,
        remarks=(*chosen.remarks, *remarks),
        rounded=rounded,
    )


def _nearest(
    result: Optimized,
    unequalized: Optimized | None,
    feeds: Sequence[Mapping[str, Any]],
    setting: Setting,
) -> tuple[Recipe, Optimized, list[Remark]]:
    """The better recipe, what it is for, and what is said of the choice."""
    from flatfold.proof import fingerprint

    recipe = find(named(result.graph), feeds, setting)
    if unequalized is None or fingerprint(unequalized.graph) == fingerprint(result.graph):
        return recipe, result, []
    other = find(named(unequalized.graph), feeds, setting)
    remark = _which(result.graph.graph.name or "", other, recipe)
    return (recipe, result, [remark]) if remark.applied else (other, unequalized, [remark])


def _which(place: str, before: Recipe, after: Recipe) -> Remark:
    """Whether the equalised graph, `after`, has more layers in 8 bits, or as many and is nearer.

    Layers that stayed in float make a graph nearer, and slower.
    """
    counts = [len(one.quantization.weights) for one in (before, after)]
    if counts[0] == counts[1]:
        return judged(EQUALIZED, place, before, after, 0.0)
    said = f"{counts[0]} layers in 8 bits without it, {counts[1]} with it"
    if counts[1] > counts[0]:
        return Remark(EQUALIZED, place, True, "APPLIED", said)
    return Remark(EQUALIZED, place, False, "NO-GAIN", said, hint=HINTS["NO-GAIN"])


def named(model: ir.Model) -> ir.Model:
    """A copy of the graph in which every node has a name of its own, in an opset with codes."""
    from onnx_ir.passes.common import NameFixPass

    copy = model.clone()
    raise_opset(copy)
    NameFixPass()(copy)
    return copy


def _layers(recipe: Recipe, dialect: Dialect) -> Iterator[Remark]:
    """One remark for each layer in 8 bits, and for each node that stays in float."""
    for row in recipe.rows:
        if not row.kept:
            scale, zero = Range(row.low, row.high).grid(dialect.activations)
            said = f"reads {row.low:.3g} to {row.high:.3g} as {dialect.activations}, scale "
            said += f"{scale:.3g}, zero point {zero}, {row.saturated:.2%} clipped"
            if row.decibels is not None:
                said += f"; alone it leaves {row.decibels:.0f} dB"
            if row.alone is not None:
                said += f", {row.alone:.0f} dB of the outputs"
            yield Remark(NAME, row.name, True, "APPLIED", said)
    for name, why in recipe.quantization.kept.items():
        yield Remark(NAME, name, False, why.code, why.reason, hint=HINTS[why.code])
