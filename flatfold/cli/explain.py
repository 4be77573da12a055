"""flatfold explain: every rewrite, applied or declined, with its reason and what it saves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from flatfold.cli import options as given
from flatfold.cli.console import emit, listing, out, working
from flatfold.explanation import Group, Places, grouped, of_rule, patterns
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
    model: given.Model,
    node: Node = None,
    rule: Rule = None,
    weights: given.Weights = None,
    batch: given.Batch = None,
    size: given.Size = None,
    dynamic_batch: given.DynamicBatch = False,
    target: given.Target = "auto",
    verify: given.Verify = "off",
    passes: given.Passes = None,
    skip: given.Skip = None,
    simplify: given.Simplify = False,
    max_weights: given.MaxWeights = None,
    links_inside: given.LinksInside = None,
    json: given.Json = False,
    debug: given.Debug = False,
) -> None:
    """Tell what was rewritten and what was not, why, and what it saves. Builds no engine."""
    from flatfold import api

    with working() as progress:
        result = api.optimize(
            model,
            input_shape=given.input_shape(model, batch, size, dynamic_batch),
            dynamic_batch=dynamic_batch,
            weights=weights,
            target=target,
            passes=given.chosen_passes(passes, skip),
            verify=verify,
            simplify=simplify,
            max_weights=max_weights,
            links_inside=links_inside,
            progress=progress,
        )
    places, remarks = Places(result), list(result.remarks)
    if node is not None:
        remarks = places.select(remarks, node)
    if rule is not None:
        remarks = of_rule(remarks, rule)
    if json:
        found = [{**asdict(remark), "place": places.of(remark)} for remark in remarks]
        emit("explain", {**result.record(), "remarks": found})
        return
    filtered = node is not None or rule is not None
    for line in story(result, grouped(places.in_order(remarks), places), filtered):
        out().print(line, soft_wrap=True)


def story(result: Optimized, groups: Sequence[Group], filtered: bool) -> Iterator[str]:
    """The decisions, a line at a time; everything from the model is cleaned."""
    before, after = result.before, result.after
    yield clean(result.name)
    yield f"  {before.nodes} operators became {after.nodes}"
    yield f"  {before.parameters:,} parameters became {after.parameters:,}"
    yield f"  {count(before.macs)} multiply-accumulates became {count(after.macs)}"
    for applied, title in ((True, "applied"), (False, "left as it was")):
        chosen = [group for group in groups if group.first.applied == applied]
        yield ""
        yield f"{title}: {_sum(chosen)}"
        for group in chosen:
            yield from _paragraph(group, filtered)
    yield ""
    yield f"proof: {clean(str(result.equivalence))}"


def _sum(groups: Sequence[Group]) -> str:
    decisions = sum(len(group.remarks) for group in groups)
    return (
        f"{decisions}, of {len(groups)} kinds" if len(groups) > 1 else str(decisions or "nothing")
    )


def _paragraph(group: Group, filtered: bool) -> Iterator[str]:
    first, times = group.first, len(group.remarks)
    mark = "+" if first.applied else "-"
    number = f" x{times}" if times > 1 else ""
    alike = len({remark.reason for remark in group.remarks}) > 1
    code = "" if first.applied else f" [{clean(first.code)}]"
    yield ""
    yield f"  {mark} {clean(first.rewrite)}{number}{code}: {clean(first.reason)}" + (
        " (the first of them)" if alike else ""
    )
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
