"""flatfold explain: every rewrite, applied or declined, with its reason and what it saves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from flatfold.cli import options
from flatfold.cli.console import emit, listing, out, working
from flatfold.explanation import (
    Group,
    Locator,
    TypedLayer,
    grouped,
    matching,
    patterns,
    typed_layers,
)
from flatfold.text import clean, count, duration

if TYPE_CHECKING:
    from flatfold.result import Optimized

PLACES_SHOWN = 6

Node = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Only about this node or module, or a shell pattern."),
]
Rule = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only this rewrite, or this reason code.")
]


def explain(
    model: options.Model,
    node: Node = None,
    rule: Rule = None,
    weights: options.Weights = None,
    batch: options.Batch = None,
    size: options.Size = None,
    shape: options.Shape = None,
    dynamic_batch: options.DynamicBatch = False,
    target: options.Target = "auto",
    verify: options.Verify = "off",
    passes: options.Passes = None,
    skip: options.Skip = None,
    simplify: options.Simplify = False,
    max_weights: options.MaxWeights = None,
    links_inside: options.LinksInside = None,
    constant_defaults: options.ConstantDefaults = False,
    precision: options.Precision = "fp32",
    keep_float: options.KeepFloat = None,
    narrow_io: options.NarrowIo = False,
    calibration: options.Calibration = None,
    max_drop: options.MaxDrop = None,
    mean: options.Mean = None,
    std: options.Std = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Tell what was rewritten and what was not, why, and what it saves. Builds no engine."""
    from flatfold import api

    with working() as progress:
        result = api.optimize(
            model,
            input_shape=options.input_shape(model, batch, size, dynamic_batch, shape),
            dynamic_batch=dynamic_batch,
            weights=weights,
            target=target,
            passes=options.chosen_passes(passes, skip),
            verify=verify,
            simplify=simplify,
            max_weights=max_weights,
            links_inside=links_inside,
            constant_defaults=constant_defaults or None,
            precision=precision,
            keep_float=keep_float or (),
            narrow_io=narrow_io,
            calibration=options.calibration_data(calibration, mean, std),
            max_drop=max_drop,
            progress=progress,
        )
    locator, remarks = Locator(result), list(result.remarks)
    layers = typed_layers(result, locator)
    if node is not None:
        remarks = locator.select(remarks, node)
        layers = [layer for layer in layers if locator.is_inside([layer.node], node)]
    if rule is not None:
        remarks = matching(remarks, rule)
    if json:
        rows = [{**asdict(remark), "place": locator.place(remark)} for remark in remarks]
        typed = [asdict(layer) for layer in layers]
        emit("explain", {**result.record(), "remarks": rows, "layers": typed})
        return
    filtered = node is not None or rule is not None
    for line in lines(result, grouped(locator.in_order(remarks), locator), filtered):
        out().print(line, soft_wrap=True)
    _print_precision(result, layers if rule is None else ())


def _print_precision(result: Optimized, layers: Iterable[TypedLayer]) -> None:
    """What another precision than float32 changes, as a whole and layer by layer."""
    if result.rounded is not None:
        out().print(f"precision: {clean(str(result.rounded))}", soft_wrap=True)
    for layer in layers:
        out().print(_typed(layer), soft_wrap=True)


def _typed(layer: TypedLayer) -> str:
    """How a layer computes, in a line."""
    shown = layer.decibels is not None and not layer.why  # else the reason has it if it matters
    known = f"{layer.decibels:.0f} dB predicted" if shown else ""
    notes = "; ".join(filter(None, (known, layer.scaled, layer.why)))
    return f"  {layer.precision} {clean(layer.place)}: {clean(notes)}"


def lines(result: Optimized, groups: Sequence[Group], filtered: bool) -> Iterator[str]:
    """The explanation, a line at a time; `filtered` lists every place and every replaced node.

    Text from the model is cleaned.
    """
    before, after = result.before, result.after
    yield clean(result.name)
    yield f"  {before.nodes} operators became {after.nodes}"
    yield f"  {before.parameters:,} parameters became {after.parameters:,}"
    yield f"  {count(before.macs)} multiply-accumulates became {count(after.macs)}"
    for applied, title in ((True, "applied"), (False, "left as it was")):
        chosen = [group for group in groups if group.first.applied == applied]
        yield ""
        yield f"{title}: {_number(chosen)}"
        for group in chosen:
            yield from _paragraph(group, filtered)
    yield ""
    yield f"proof: {clean(str(result.equivalence))}"


def _number(groups: Sequence[Group]) -> str:
    decisions = sum(len(group.remarks) for group in groups)
    return (
        f"{decisions}, of {len(groups)} kinds" if len(groups) > 1 else str(decisions or "nothing")
    )


def _paragraph(group: Group, filtered: bool) -> Iterator[str]:
    first, times = group.first, len(group.remarks)
    mark = "+" if first.applied else "-"
    number = f" x{times}" if times > 1 else ""
    code = "" if first.applied else f" [{clean(first.code)}]"
    others = " (the first of them)" if len({r.reason for r in group.remarks}) > 1 else ""
    yield ""
    yield f"  {mark} {clean(first.rewrite)}{number}{code}: {clean(first.reason)}{others}"
    places = group.places if len(group.places) <= PLACES_SHOWN else patterns(group.places)
    shown = group.places if filtered else places
    yield f"      at {listing(shown, len(shown) if filtered else PLACES_SHOWN)}"
    yield from _costs(group)
    if first.hint:
        yield f"      try: {clean(first.hint)}"
    if filtered and first.applied:
        for remark in group.remarks:
            yield f"      {clean(remark.node)} stands for {listing(remark.replaced, 20)}"


def _costs(group: Group) -> Iterator[str]:
    old, new = group.cost("before"), group.cost("after")
    if not old.nodes and not new.nodes:
        return
    verb = "->" if group.first.applied else "would be"
    yield (
        f"      nodes {old.nodes} {verb} {new.nodes}"
        f", multiply-accumulates {count(old.macs)} {verb} {count(new.macs)}"
        f", parameters {count(old.parameters)} {verb} {count(new.parameters)}"
    )
    yield f"      estimated time {duration(old.seconds)} {verb} {duration(new.seconds)}"
