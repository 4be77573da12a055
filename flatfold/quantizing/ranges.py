"""What values reach on data, and where clipping them loses least.

A histogram that is filled run by run: its bins are a power of two wide, with an edge at 0, and when
a larger number comes, pairs of bins become one. So one pass over the data is enough, and what is
kept of a value does not grow with it. The range that is clipped to is the one with the smallest
mean square of x - (what the code of x stands for), as in Krishnamoorthi 2018, arXiv 1806.08342.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.narrowing import chunks, elements_of, run_to
from flatfold.passes.narrow_types import MOVING
from flatfold.passes.quantization.record import ENDS, Range

Array = npt.NDArray[np.float64]

BINS = 2048  # on each side of 0: 8 or more for each code of the larger side
SHARES = np.linspace(0.02, 1.0, 99).tolist()  # of what a value reaches, that it may be clipped to


class Histogram:
    """How often a value is how large: counts of numbers from `-BINS * width` to `BINS * width`."""

    def __init__(self) -> None:
        self.counts = np.zeros(2 * BINS, np.int64)
        self.width = 0.0
        self.low = self.high = 0.0
        self.finite = True

    def add(self, array: npt.NDArray[np.floating[Any]]) -> None:
        """Count the numbers of an array."""
        if not array.size:
            return
        low, high = float(array.min()), float(array.max())
        if not np.isfinite([low, high]).all():
            self.finite = False
            return
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(max(-self.low, self.high))
        if not self.width:
            self.counts[BINS] += array.size  # nothing but 0 so far
            return
        places = np.floor(array.reshape(-1) * np.float32(1 / self.width)).astype(np.int32) + BINS
        np.clip(places, 0, 2 * BINS - 1, out=places)
        self.counts += np.bincount(places, minlength=2 * BINS)

    def _widen(self, reach: float) -> None:
        """Make the bins wide enough for numbers of up to `reach`."""
        if reach <= self.width * BINS:
            return
        width = float(np.exp2(np.ceil(np.log2(reach / BINS))))
        width = max(width, float(np.finfo(np.float32).tiny))
        while self.width and self.width < width:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(pairs, BINS // 2)
            self.width *= 2
        self.width = width

    @property
    def centres(self) -> Array:
        return np.asarray((np.arange(2 * BINS) - BINS + 0.5) * self.width)

    def extremes(self) -> Range:
        """From the smallest number to the largest, and 0."""
        return Range(self.low, self.high)

    def clipped(self, codes: str) -> Range:
        """The range with the smallest mean square error of codes of the type `codes`."""
        seen = np.flatnonzero(self.counts)
        numbers, counts = self.centres[seen], self.counts[seen].astype(np.float64)

        def loss(candidate: Range) -> float:
            scale, zero = candidate.grid(codes)
            least, most = ENDS[codes]
            rounded = np.clip(np.rint(numbers / scale) + zero, least, most)
            return float(counts @ np.square((rounded - zero) * float(scale) - numbers))

        best = self.extremes()
        if codes == "int8":
            reaches = [share * max(-self.low, self.high) for share in reversed(SHARES)]
            return min((Range(max(self.low, -r), min(self.high, r)) for r in reaches), key=loss)
        for _ in range(2):
            best = min((Range(best.low, s * self.high) for s in reversed(SHARES)), key=loss)
            best = min((Range(s * self.low, best.high) for s in reversed(SHARES)), key=loss)
        return best

    def outside(self, limits: Range) -> float:
        """The share of numbers that `limits` clip, to within a bin."""
        total = self.counts.sum()
        ends = self.centres - self.width / 2, self.centres + self.width / 2
        beyond = (ends[0] > limits.high) & (self.centres > 0)
        beyond |= (ends[1] <= limits.low) & (self.centres < 0)
        return float(self.counts[beyond].sum() / total) if total else 0.0


def collect(model: ir.Model, feeds: Sequence[Mapping[str, Any]]) -> dict[ir.Value, Histogram]:
    """Histograms of all float32 values that depend on an input, in one pass over the data.

    Where the values together are too large, the graph is run once more for each part of them.
    """
    seen: dict[ir.Value, Histogram] = {}
    for value, _, array in arrays_of(values_of(model), model, feeds):
        seen.setdefault(value, Histogram()).add(array)
    return seen


def values_of(model: ir.Model) -> list[ir.Value]:
    """The float32 values of the main graph that are no constants, inputs first."""
    values = (*model.graph.inputs, *(v for node in model.graph for v in node.outputs))
    return [v for v in values if v.dtype == ir.DataType.FLOAT and v.name]


def arrays_of(
    values: Sequence[ir.Value], model: ir.Model, feeds: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[ir.Value, int, npt.NDArray[np.float32]]]:
    """Each value with the number of a run and its array there."""
    for value in values:
        if value.is_graph_input():
            for number, feed in enumerate(feeds):
                if (name := value.name or "") in feed:
                    yield value, number, np.asarray(feed[name])
    for chunk in chunks([v for v in values if not v.is_graph_input()], elements_of):
        run = run_to(model, chunk)
        for number, feed in enumerate(feeds):
            for value, array in zip(chunk, run(feed), strict=True):
                yield value, number, array


def ranges_by_name(
    seen: Mapping[ir.Value, Histogram], choose: Callable[[Histogram], Range]
) -> dict[str, Range]:
    """The range of each value by its name; what only moves a value around leaves it its range.

    Values that are not always finite have none.
    """
    ranges: dict[str, Range] = {}
    for value, histogram in seen.items():
        if not histogram.finite:
            continue
        node = value.producer()
        moved = node.inputs[0] if node is not None and _moves(node) else None
        if moved is not None and (known := ranges.get(moved.name or "")) is not None:
            ranges[value.name or ""] = known
        else:
            ranges[value.name or ""] = choose(histogram)
    return ranges


def _moves(node: ir.Node) -> bool:
    """Whether the numbers of the output are numbers of the first input."""
    return node.op_type in MOVING and node.op_type != "Concat" and node.domain in ("", "ai.onnx")
