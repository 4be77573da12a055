"""A quantized graph beside the float one, on data: as a whole, and layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.narrowing import MOST_ELEMENTS, decibels_of, difference, elements_of
from flatfold.passes.decline import Decline
from flatfold.passes.quantization.record import ENDS, Codes, Quantization, Range
from flatfold.proof.network.reference import Outputs
from flatfold.proof.network.session import PlainSession
from flatfold.quantizing.layers import Layer, by_data
from flatfold.quantizing.ranges import Histogram, arrays_of

PLACES = 2048  # of each layer, that its difference is measured at
RUNS = 8  # that they are drawn from


@dataclass(frozen=True)
class Difference:
    """Decibels of signal over difference in the worst output, and the share of rows of scores with
    the same largest entry, None without such rows."""

    decibels: float
    agreement: float | None


class Comparison:
    """The outputs of a float graph on some runs, as many as can be kept, to compare graphs with."""

    def __init__(self, model: ir.Model, feeds: Sequence[Mapping[str, Any]]) -> None:
        session = PlainSession(model)
        size = sum(map(elements_of, model.graph.outputs))
        self.feeds = feeds[: max(1, MOST_ELEMENTS // max(size, 1))]
        self.exact = [session(feed) for feed in self.feeds]

    def of(self, model: ir.Model) -> Difference:
        """How far `model` is from the float graph."""
        session = PlainSession(model)
        return self.between(session(feed) for feed in self.feeds)

    def between(self, outputs: Iterable[Outputs]) -> Difference:
        """How far these outputs of all runs are from those of the float graph."""
        return Difference(*difference(zip(self.exact, outputs, strict=True)))

    def each(self, outputs: Iterable[Outputs]) -> list[float]:
        """The decibels of each run alone."""
        pairs = zip(self.exact, outputs, strict=True)
        return [difference([pair])[0] for pair in pairs]


def fake_quantized(
    array: npt.NDArray[np.float32], limits: Range, codes: str
) -> npt.NDArray[np.float32]:
    """The numbers that the codes of an array stand for."""
    scale, zero = limits.grid(codes)
    least, most = ENDS[codes]
    rounded = np.rint(array / scale)
    np.clip(rounded, least - zero, most - zero, out=rounded)
    return rounded * scale


def layer_decibels(
    model: ir.Model,
    layers: Sequence[Layer],
    quantization: Quantization,
    feeds: Sequence[Mapping[str, Any]],
    codes: str,
) -> dict[str, float]:
    """Decibels of W x over W' x' - W x of each layer by name, where only that layer is quantized.

    x is what it reads in the float graph, W' and x' what the codes of both stand for. A layer whose
    padding depends on sizes that are not known is left out.
    """
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    feeds = feeds[:RUNS]
    of_value = by_data(layers)
    for value, number, array in arrays_of(list(of_value), model, feeds):
        limits = quantization.ranges.get(value.name or "")
        for layer in of_value[value]:
            weight = quantization.weights.get(layer.name)
            if weight is None or limits is None:
                continue
            try:
                columns = layer.columns(array, -(-PLACES // len(feeds)), number)
            except Decline:
                continue
            exact, lost = _powers(layer, weight, columns, fake_quantized(columns, limits, codes))
            signal[layer.name] = signal.get(layer.name, 0.0) + exact
            noise[layer.name] = noise.get(layer.name, 0.0) + lost
    return {name: decibels_of(signal[name], noise[name]) for name in signal}


def _powers(
    layer: Layer,
    weight: Codes,
    columns: npt.NDArray[np.float32],
    rounded: npt.NDArray[np.float32],
) -> tuple[float, float]:
    exact = layer.matrices().astype(np.float32) @ columns
    other = layer.matrices(weight.weight()).astype(np.float32) @ rounded
    return (
        float(np.square(exact, dtype=np.float64).sum()),
        float(np.square(other - exact, dtype=np.float64).sum()),
    )


def saturated(seen: Mapping[ir.Value, Histogram], quantization: Quantization) -> dict[str, float]:
    """The share of numbers of each value, by its name, that its range clips."""
    return {
        name: histogram.outside(quantization.ranges[name])
        for value, histogram in seen.items()
        if (name := value.name or "") in quantization.ranges
    }
