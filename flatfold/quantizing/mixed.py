"""Which layers stay in float so that a quantized graph loses no more than is allowed.

The layers are in order of the noise that each alone puts into the outputs, over the arithmetic that
it has: what loses most for the time that it saves comes first, and in front of all the layers that
read an input of the model, whose values have no common range (the stem). As few of them as are
enough stay in float.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from flatfold.errors import InputError
from flatfold.narrowing import elements_of
from flatfold.passes.narrow_types import Kept
from flatfold.passes.quantization.record import Quantization
from flatfold.passes.remark import Remark
from flatfold.proof.network.reference import Reference
from flatfold.proof.network.session import PlainSession
from flatfold.quantizing.comparison import Comparison
from flatfold.quantizing.layers import Layer, layers_of
from flatfold.quantizing.steps import (
    Feeds,
    Recipe,
    Setting,
    again_corrected,
    keep_in_float,
)

RUNS = 4  # on which layers are quantized one at a time
NAME = "mixed"


@dataclass(frozen=True)
class Allowed:
    """How much may be lost: `drop` of `accuracy`, which is a function of a function that runs the
    model. Without one, of the share of rows of scores with the largest entry of the float graph."""

    drop: float
    accuracy: Callable[[Reference], float] | None = None


def enough_in_float(recipe: Recipe, feeds: Feeds, setting: Setting, allowed: Allowed) -> Recipe:
    """The recipe with as many layers in float as `allowed` asks for, the fewest by bisection.

    All of them where nothing else is enough. Raises InputError where there is nothing to judge by.
    """
    search = _Search(recipe, feeds, setting, allowed)
    if search.lost(recipe) <= allowed.drop:
        return recipe
    setting.progress("quantizing one layer at a time")
    alone = one_at_a_time(recipe, feeds, setting)
    order = by_loss(recipe.model, alone)
    few, many = 0, len(order)  # not enough, and enough
    best = search.keep(order, alone)
    while many - few > 1:
        count = (few + many) // 2
        setting.progress(f"{count} of {len(order)} layers in float")
        tried = search.keep(order[:count], alone)
        if search.lost(tried) <= allowed.drop:
            many, best = count, tried
        else:
            few = count
    kept = best.quantization.kept
    rows = [
        replace(
            row, kept=kept[row.name].code if row.name in kept else "", alone=alone.get(row.name)
        )
        for row in recipe.rows
    ]
    said = f"{many} of {len(order)} layers in float: {search.lost(best):.2%} lost"
    place = recipe.model.graph.name or ""
    remarks = [*recipe.remarks, Remark(NAME, place, True, "APPLIED", said)]
    return replace(best, rows=rows, remarks=remarks)


def one_at_a_time(recipe: Recipe, feeds: Feeds, setting: Setting) -> dict[str, float]:
    """Decibels of the outputs, by the name of the only layer that is quantized."""
    comparison = Comparison(recipe.model, feeds[:RUNS])
    now = recipe.quantization
    found = {}
    for layer in layers_of(recipe.model):
        if (name := layer.name) in now.weights:
            one = Quantization(now.ranges, {name: now.weights[name]})
            found[name] = comparison.of(setting.write(recipe.model, one)).decibels
    return found


def by_loss(model: ir.Model, alone: Mapping[str, float]) -> list[str]:
    """The layers, those first that lose most for their arithmetic; layers of inputs in front."""
    layers = {layer.name: layer for layer in layers_of(model) if layer.name in alone}

    def loss(name: str) -> tuple[bool, float]:
        stem = layers[name].data.is_graph_input()
        return stem, 10 ** (-alone[name] / 10) / products_of(layers[name])

    return sorted(layers, key=loss, reverse=True)


def products_of(layer: Layer) -> int:
    """How many products a layer computes; an open size counts as 64."""
    rows: int = layer.matrices().shape[2]
    return max(1, elements_of(layer.output) * rows)


class _Search:
    def __init__(self, recipe: Recipe, feeds: Feeds, setting: Setting, allowed: Allowed) -> None:
        self.recipe, self.feeds, self.setting, self.allowed = recipe, feeds, setting, allowed
        self.comparison = Comparison(recipe.model, feeds)
        accuracy = allowed.accuracy
        self.wanted = 1.0 if accuracy is None else accuracy(PlainSession(recipe.model))

    def keep(self, names: Sequence[str], alone: Mapping[str, float]) -> Recipe:
        """The recipe with these layers in float."""
        lost = f"in 8 bits more than {self.allowed.drop:.2%} is lost"
        kept = {
            name: Kept("DROP", f"alone it leaves {alone[name]:.0f} dB of the outputs, and {lost}")
            for name in names
        }
        now = keep_in_float(self.recipe.quantization, kept)
        now = again_corrected(self.recipe.model, now, self.feeds, self.setting)
        written = self.setting.write(self.recipe.model, now)
        return replace(self.recipe, quantization=now, difference=self.comparison.of(written))

    def lost(self, recipe: Recipe) -> float:
        """How much worse the quantized graph is than the float one."""
        if self.allowed.accuracy is not None:
            written = self.setting.write(recipe.model, recipe.quantization)
            return self.wanted - self.allowed.accuracy(PlainSession(written))
        if recipe.difference.agreement is None:
            raise InputError(
                "expected outputs that are rows of scores, to see how many are the same",
                hint="give a function of the accuracy",
            )
        return 1 - recipe.difference.agreement
