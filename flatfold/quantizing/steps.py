"""The steps from a float graph and data to a quantized one, each kept where it gains.

Scales of weights, rounding by what layers read, ranges, bias correction. A step is kept where the
outputs of the quantized graph on the data are nearer to those of the float graph with it than
without: it is measured each time, by running the graph that would be built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from flatfold.narrowing import asked_for, chunks, elements_of
from flatfold.passes.decline import Decline
from flatfold.passes.narrow_types import Kept
from flatfold.passes.quantization.dialect import Dialect
from flatfold.passes.quantization.record import Quantization
from flatfold.passes.quantization.writer import write_codes
from flatfold.passes.remark import HINTS, Remark
from flatfold.quantizing.biases import corrected
from flatfold.quantizing.comparison import Comparison, Difference, layer_decibels, saturated
from flatfold.quantizing.layers import Layer, by_data, layers_of
from flatfold.quantizing.ranges import Histogram, arrays_of, collect, ranges_by_name
from flatfold.quantizing.rounding import Hessian, by_reading, scales_of, to_nearest
from flatfold.system.progress import Progress, silent

if TYPE_CHECKING:
    pass

Feeds = Sequence[Mapping[str, Any]]

LEAST = 10.0  # decibels of a layer, else it is tried in float: a tenth of its output is noise
GAIN = 0.1  # decibels that a step has to gain: what fits the data by chance gains less
PLACES = 1 << 14  # of a layer, whose inputs the Hessian is made of
NAME = "quantize"


@dataclass(frozen=True)
class LayerRow:
    """What became of one layer: `kept` is the code of why it stays in float, "" if it does not.

    `decibels` of signal over difference where only this layer is quantized, None where that is not
    known; `saturated` is the share of what it reads that is clipped. `alone` are the decibels of
    the outputs of the model where only this layer is quantized, if that was measured.
    """

    name: str
    operator: str
    kept: str
    low: float
    high: float
    decibels: float | None
    saturated: float
    alone: float | None = None


@dataclass
class Recipe:
    """A graph with its quantization, what that changes, and how it was found."""

    model: ir.Model
    quantization: Quantization
    difference: Difference
    remarks: list[Remark] = field(default_factory=list)
    rows: list[LayerRow] = field(default_factory=list)


@dataclass(frozen=True)
class Setting:
    """What a recipe is for: the dialect of an engine, and names that stay in float."""

    dialect: Dialect
    keep_float: tuple[str, ...] = ()
    progress: Progress = silent

    def write(self, model: ir.Model, quantization: Quantization) -> ir.Model:
        """The graph that would be built."""
        return write_codes(model, quantization, self.dialect)

    def layers(self, model: ir.Model) -> list[Layer]:
        """The layers that the engine runs on codes."""
        return [one for one in layers_of(model) if self.dialect.takes(one.node)]


def find(model: ir.Model, feeds: Feeds, setting: Setting) -> Recipe:
    """The recipe that is nearest to the float graph `model` on these runs."""
    return _Search(model, feeds, setting).run()


def judged(name: str, place: str, before: Recipe, after: Recipe, gain: float) -> Remark:
    """Whether a step gains as many decibels, as a remark: it is applied, or declined as NO-GAIN."""
    one, two = before.difference.decibels, after.difference.decibels
    if two - one >= gain:
        return Remark(name, place, True, "APPLIED", f"{one:.1f} dB to {two:.1f} dB")
    why = Decline("NO-GAIN", f"{one:.1f} dB without it, {two:.1f} dB with it")
    return Remark(name, place, False, why.code, why.reason, hint=HINTS[why.code])


class _Search:
    def __init__(self, model: ir.Model, feeds: Feeds, setting: Setting) -> None:
        self.model, self.feeds, self.setting = model, feeds, setting
        asked = dict(asked_for(model, setting.keep_float))
        self.kept = {node.name or "": why for node, why in asked.items()}
        self.layers = [layer for layer in setting.layers(model) if layer.node not in asked]
        setting.progress("collecting ranges")
        self.seen = collect(model, feeds)
        self.comparison = Comparison(model, feeds)
        self.remarks: list[Remark] = []

    def run(self) -> Recipe:
        best = self._start()
        for name, step in self._steps():
            self.setting.progress(f"quantizing: {name}")
            best = self._try(name, best, step)
        decibels = layer_decibels(
            self.model, self.layers, best.quantization, self.feeds, self.setting.dialect.activations
        )
        if noisy := self._noisy(decibels):
            best = self._try("keep-noisy", best, lambda now: self._without(now, noisy))
        best.remarks, best.rows = self.remarks, self._rows(best.quantization, decibels)
        return best

    def _noisy(self, decibels: Mapping[str, float]) -> dict[str, Kept]:
        """The layers that lose more than LEAST allows, and those that write what they read, where
        the engine needs them to write codes."""
        kept = {}
        for layer in self.layers:
            found = decibels.get(layer.name, LEAST)
            if found < LEAST:
                left = (
                    f"leaves {found:.0f} dB of the output of {layer.name}, less than {LEAST:g} dB"
                )
                kept[layer.name] = Kept("ROUNDING", f"quantizing only this layer {left}")
                for writer in self._writers(layer.data):
                    kept.setdefault(writer, Kept("ROUNDING", f"what it writes as codes {left}"))
        return kept

    def _writers(self, value: ir.Value) -> Iterator[str]:
        """The layers that have to write `value`, or what it is computed from, as codes."""
        layers = {layer.node: layer for layer in self.layers}
        open_values, seen = [value], {value}
        while open_values:
            node = open_values.pop().producer()
            if node in layers:
                if node.op_type in self.setting.dialect.ends:
                    yield layers[node].name
            elif node is not None:
                new = {one for one in node.inputs if one is not None} - seen
                open_values += new
                seen |= new

    def _without(self, now: Quantization, kept: Mapping[str, Kept]) -> Quantization:
        return again_corrected(self.model, keep_in_float(now, kept), self.feeds, self.setting)

    def _start(self) -> Recipe:
        ranges = ranges_by_name(self.seen, Histogram.extremes)
        weights = {
            layer.name: to_nearest(layer, self._scale(layer, False))
            for layer in self.layers
            if layer.data.name in ranges
        }
        kept = self.kept | {
            layer.name: Kept("RANGE", f"{layer.data.name} is not finite on data")
            for layer in self.layers
            if layer.name not in weights
        }
        return self._recipe(Quantization(ranges, weights, {}, kept))

    def _recipe(self, quantization: Quantization) -> Recipe:
        written = self.setting.write(self.model, quantization)
        return Recipe(self.model, quantization, self.comparison.of(written))

    def _scale(self, layer: Layer, clip: bool) -> Any:
        return scales_of(layer, per_channel=self.setting.dialect.per_channel, clip=clip)

    def _steps(self) -> Iterator[tuple[str, Callable[[Quantization], Quantization]]]:
        yield "clip-weights", self._clip_weights
        yield "round-by-reading", self._round_by_reading
        yield "clip-ranges", self._clip_ranges  # what that gains shows once weights lose less
        yield "correct-biases", self._correct_biases

    def _try(self, name: str, best: Recipe, step: Callable[[Quantization], Quantization]) -> Recipe:
        """The recipe with one more step if that gains, else as it was; a remark says which."""
        other = self._recipe(step(best.quantization))
        remark = judged(name, self.model.graph.name or "", best, other, GAIN)
        self.remarks.append(remark)
        return other if remark.applied else best

    def _clip_ranges(self, now: Quantization) -> Quantization:
        ranges = ranges_by_name(
            self.seen, lambda one: one.clipped(self.setting.dialect.activations)
        )
        return replace(now, ranges=ranges)

    def _clip_weights(self, now: Quantization) -> Quantization:
        weights = {
            layer.name: to_nearest(layer, self._scale(layer, True))
            for layer in self.layers
            if layer.name in now.weights
        }
        return replace(now, weights=weights)

    def _round_by_reading(self, now: Quantization) -> Quantization:
        weights = dict(now.weights)
        for some in chunks([one for one in self.layers if one.name in weights], elements_in_memory):
            for layer, hessian in hessians(self.model, some, self.feeds).items():
                self.setting.progress(f"rounding the weights of {layer.name}")
                scale = weights[layer.name].scale
                weights[layer.name] = by_reading(layer, scale, hessian)
        return replace(now, weights=weights)

    def _correct_biases(self, now: Quantization) -> Quantization:
        written = self.setting.write(self.model, now)
        return corrected(now, self.model, written, self.layers, self.feeds)

    def _rows(self, now: Quantization, decibels: Mapping[str, float]) -> list[LayerRow]:
        shares = saturated(self.seen, now)
        rows = []
        for layer in self.setting.layers(self.model):
            limits = now.ranges.get(layer.data.name or "")
            why = now.kept.get(layer.name)
            rows.append(
                LayerRow(
                    layer.name,
                    layer.node.op_type,
                    "" if why is None else why.code,
                    limits.low if limits is not None else -np.inf,
                    limits.high if limits is not None else np.inf,
                    decibels.get(layer.name),
                    shares.get(layer.data.name or "", 0.0),
                )
            )
        return rows


def keep_in_float(now: Quantization, kept: Mapping[str, Kept]) -> Quantization:
    """The quantization without these layers, each with the reason."""
    return replace(
        now,
        weights={name: codes for name, codes in now.weights.items() if name not in kept},
        biases={name: bias for name, bias in now.biases.items() if name not in kept},
        kept={**now.kept, **kept},
    )


def again_corrected(
    model: ir.Model, now: Quantization, feeds: Feeds, setting: Setting
) -> Quantization:
    """The quantization with its biases, where they were corrected, corrected for what it is now."""
    if not now.biases:
        return now
    plain = replace(now, biases={})
    return corrected(plain, model, setting.write(model, plain), setting.layers(model), feeds)


def elements_in_memory(layer: Layer) -> int:
    """How many numbers its Hessian and what it reads have together."""
    return Hessian.elements(layer) + elements_of(layer.data)


def hessians(model: ir.Model, layers: Sequence[Layer], feeds: Feeds) -> dict[Layer, Hessian]:
    """The Hessian of what each layer reads in the float graph, at PLACES places or fewer.

    A layer whose padding depends on sizes that are not known has none.
    """
    sums = {layer: Hessian.empty(layer) for layer in layers}
    of_value = by_data(layers)
    for value, number, array in arrays_of(list(of_value), model, feeds):
        for layer in of_value[value]:
            try:
                sums[layer].add(layer.columns(array, -(-PLACES // len(feeds)), number))
            except Decline:
                sums.pop(layer)
                of_value[value] = [one for one in of_value[value] if one is not layer]
    return sums
