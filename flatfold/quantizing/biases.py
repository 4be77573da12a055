"""Biases that undo what quantization adds to a layer's output on average.

E[y - y'] of each channel, with y of the float graph and y' of the quantized one, is added to the
bias of y': bias correction (Nagel et al. 2019, arXiv 1906.04721, section 4.2). Layer by layer, so
that what a layer reads has the corrections in front of it. The graph is run in parts, each from one
layer to the next, so that all of this takes one run of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.frontend.canonicalization.control_flow import bodies_of
from flatfold.narrowing import MOST_ELEMENTS, elements_of
from flatfold.passes.quantization.record import Quantization
from flatfold.proof.network.session import PlainSession
from flatfold.quantizing.layers import Array, Layer, bias_of
from flatfold.quantizing.ranges import arrays_of

Arrays = dict[str, npt.NDArray[Any]]


def corrected(
    quantization: Quantization,
    model: ir.Model,
    written: ir.Model,
    layers: Sequence[Layer],
    feeds: Sequence[Mapping[str, Any]],
) -> Quantization:
    """The quantization with other biases; `written` is the graph that it makes of `model`.

    A layer of which the bias cannot be changed keeps it.
    """
    able = [layer for layer in layers if layer.name in quantization.weights]
    able = [layer for layer in able if bias_of(layer) is not None]
    steps = _Steps(written, [layer.name for layer in able])
    feeds = feeds[: steps.most_runs]
    wanted = channel_means(model, able, feeds)
    runs: list[Arrays] = [dict(feed) for feed in feeds]
    biases: dict[str, Array] = {}
    for layer, name in zip(able, steps.outputs, strict=True):
        runs = steps.next(runs)
        axis = layer.channel_axis
        found = np.mean([_mean(run[name], axis) for run in runs], axis=0)
        by = wanted[layer.name] - found
        bias = quantization.biases.get(layer.name, bias_of(layer))
        assert bias is not None
        biases[layer.name] = bias + by
        for run in runs:
            array = run[name]
            shape = [1] * array.ndim
            shape[axis] = -1
            run[name] = array + by.astype(array.dtype).reshape(shape)
    return replace(quantization, biases={**quantization.biases, **biases})


def channel_means(
    model: ir.Model, layers: Sequence[Layer], feeds: Sequence[Mapping[str, Any]]
) -> dict[str, Array]:
    """The mean of each output channel of each layer, by its name."""
    by_value = {layer.output: layer for layer in layers}
    means: dict[str, Array] = {}
    for value, _, array in arrays_of(list(by_value), model, feeds):
        layer = by_value[value]
        mean = _mean(array, layer.channel_axis) / len(feeds)
        means[layer.name] = means.get(layer.name, np.zeros(layer.outputs)) + mean
    return means


def _mean(array: npt.NDArray[Any], axis: int) -> Array:
    others = tuple(n for n in range(array.ndim) if n != axis % array.ndim)
    return np.asarray(array.mean(axis=others, dtype=np.float64))


class _Steps:
    """A graph in parts that end at the outputs of the nodes with these names, which are in order.

    What a later part reads of the parts before is kept for all runs.
    """

    def __init__(self, model: ir.Model, names: Sequence[str]) -> None:
        self.model, self.nodes = model, list(model.graph)
        place = {node.name or "": n for n, node in enumerate(self.nodes)}
        self.ends = [place[name] for name in names]
        self.outputs = [self.nodes[end].outputs[0].name or "" for end in self.ends]
        last: dict[ir.Value, int] = {}
        for n, node in enumerate(self.nodes):
            inside = [v for g in bodies_of(node) for inner in g.all_nodes() for v in inner.inputs]
            last.update({value: n for value in (*node.inputs, *inside) if value is not None})
        self.last, self.done = last, -1

    def _live(self, end: int) -> list[ir.Value]:
        """Values that are there once node `end` has run, and that nodes behind it read."""
        made = [*self.model.graph.inputs, *(v for n in self.nodes[: end + 1] for v in n.outputs)]
        kept = [v for v in made if self.last.get(v, -1) > end and v.const_value is None]
        return kept or [self.nodes[end].outputs[0]]

    @property
    def most_runs(self) -> int:
        """As many as can be kept at one time."""
        sizes = [sum(map(elements_of, self._live(end))) for end in self.ends]
        return max(1, MOST_ELEMENTS // max(sizes, default=1))

    def next(self, runs: Sequence[Arrays]) -> list[Arrays]:
        """What the next part makes of the arrays that the parts before left."""
        end = min(end for end in self.ends if end > self.done)
        before = self.model.graph.inputs if self.done < 0 else self._live(self.done)
        after = self._live(end)
        if self.nodes[end].outputs[0] not in after:
            after.append(self.nodes[end].outputs[0])
        new = [value for value in after if value not in set(before)]
        part = ir.convenience.extract(self.model.graph, _named(before), _named(new))
        session = PlainSession(ir.Model(part, ir_version=self.model.ir_version))
        self.done, made = end, []
        read = {value.name for value in part.inputs}
        for run in runs:
            results = session({name: array for name, array in run.items() if name in read})
            kept = {v.name or "": run[v.name or ""] for v in after if v in set(before)}
            made.append({**kept, **dict(zip(_named(new), results, strict=True))})
        return made


def _named(values: Sequence[ir.Value]) -> list[str]:
    return [value.name or "" for value in values]
