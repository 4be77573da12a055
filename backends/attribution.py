"""The time of each layer of an engine, and the nodes of the graph that each layer computes.

    profile = engine.profile({"image": image}, runs=50)
    slowest = max(profile.layers, key=lambda layer: layer.seconds)

An engine fuses, reorders and renames what it is given. Its profiler names layers; `attribute_nodes`
finds the nodes of each layer from those that the SDK names and from which layer reads which.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

WARMUP = 5  # runs that do not count: the first ones create kernels and fill caches
INPUTS = -1  # in `EngineStep.reads`: the inputs of the graph
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # a step computes at most one of these
_PRODUCT_KINDS = ("conv", "gemm", "matmul", "fullyconnected")  # parts of the names of such steps


@dataclass(frozen=True)
class LayerTime:
    """A layer that the engine runs: name and kind as the engine calls them, seconds of one run.

    `nodes` are the names of the graph's nodes that the layer computes, as far as the engine reports
    them. A node that the engine runs in several layers is in each of them; a layer that only copies
    data or changes its layout has none.
    """

    name: str
    kind: str
    seconds: float
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunProfile:
    """The seconds of a whole run, and its layers in the order in which they run.

    Both are measured with the profiler on, which makes a run slower. They are medians over the
    runs, or means where the SDK only reports sums. `device_s` is the time of a run without the
    profiler, copies to and from the device included, between two events in the stream of the
    device; None on the processor.
    """

    seconds: float
    layers: tuple[LayerTime, ...]
    device_s: float | None = None


def run_seconds(run: Callable[[], object], runs: int) -> list[float]:
    """The seconds of each of `runs` runs."""
    seconds = []
    for _ in range(runs):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return seconds


@dataclass(frozen=True)
class EngineStep:
    """A step of an engine; `kind` is the engine's name for what it does.

    `known`: nodes that it computes for certain. `reads`: the positions of the steps whose results
    it reads. `moves`: it only copies data or changes its layout. `part`: it computes a part of the
    nodes of the steps that read it.
    """

    kind: str
    known: tuple[ir.Node, ...] = ()
    reads: tuple[int, ...] = ()
    moves: bool = False
    part: bool = False


def attribute_nodes(graph: ir.Graph, steps: Sequence[EngineStep]) -> list[tuple[ir.Node, ...]]:
    """The nodes of each step, in the order of the graph; `steps` are in the order they run in.

    Each node is in one step, except that a node which the engine splits is in each of its steps.
    """
    attribution = _Attribution(graph, steps)
    for index in range(len(steps)):
        attribution.assign(index)
    attribution.assign_remaining()
    attribution.copy_to_parts()
    return [tuple(sorted(nodes, key=attribution.order.__getitem__)) for nodes in attribution.nodes]


class _Attribution:
    """Which step owns each node, while the steps are visited in order.

    `claims`: the first step that is known to compute a node. `available`: for each step, and last
    for the inputs of the graph, the values that a step which reads it can use.
    """

    def __init__(self, graph: ir.Graph, steps: Sequence[EngineStep]) -> None:
        self.graph, self.steps = graph, steps
        self.order = {node: index for index, node in enumerate(graph)}
        self.outputs = set(graph.outputs)
        self.constant = _constant_values(graph)
        self.claims: dict[ir.Node, int] = {}
        for index, step in enumerate(steps):
            for node in step.known:
                self.claims.setdefault(node, index)
        self.owner: dict[ir.Node, int] = {}
        self.nodes: list[list[ir.Node]] = [[] for _ in steps]
        self.available: list[set[ir.Value]] = [set() for _ in steps]
        self.available.append({value for value in graph.inputs if not value.is_initializer()})

    def assign(self, index: int) -> None:
        """Assigns nodes to a step, and records the values that its readers can use."""
        step = self.steps[index]
        read = set().union(*(self.available[place] for place in step.reads))
        computed: set[ir.Value] = set()
        if not step.moves and not step.part:
            computed = self._backward(index) or self._forward(index, read)
            if computed:
                self._extend(index, read, computed)
        self.available[index] = computed or read

    def assign_remaining(self) -> None:
        """Assigns each node that has no step yet to the last step that it reads from."""
        for node in self.graph:
            if node not in self.owner:
                before = (v.producer() for v in node.inputs if v is not None)
                owners = [self.owner[n] for n in before if n in self.owner]
                if owners:
                    self._own(node, max(owners))

    def copy_to_parts(self) -> None:
        """Assigns to a step that is a part the nodes of the steps that read it."""
        for index in reversed(range(len(self.steps))):
            if self.steps[index].part:
                readers = (i for i, step in enumerate(self.steps) if index in step.reads)
                self.nodes[index] = list({n: None for i in readers for n in self.nodes[i]})

    def _backward(self, index: int) -> set[ir.Value]:
        """Assigns the known nodes of a step, and backwards those that no other step computes."""
        stack = [n for n in self.steps[index].known if self.claims[n] == index]
        computed: set[ir.Value] = set()
        while stack:
            node = stack.pop()
            if self._is_free(node, index):
                computed |= self._own(node, index)
                before = (v.producer() for v in node.inputs if v and v not in self.constant)
                stack += [n for n in before if n in self.order]
        return computed

    def _forward(self, index: int, read: set[ir.Value]) -> set[ir.Value]:
        """For a step without known nodes: assigns nodes that can be computed from what it reads."""
        if self.steps[index].known:
            return set()
        product = any(name in self.steps[index].kind.lower() for name in _PRODUCT_KINDS)
        computed: set[ir.Value] = set()
        stack = sorted(self._readers(read), key=self.order.__getitem__, reverse=True)
        while stack:
            node = stack.pop()
            fits = (node.op_type in PRODUCTS) == product
            if fits and self._is_free(node, index) and self._can_run(node, read | computed):
                new = self._own(node, index)
                computed |= new
                if product:
                    break
                stack += self._readers(new)
        return computed

    def _extend(self, index: int, read: set[ir.Value], computed: set[ir.Value]) -> None:
        """Assigns the nodes behind a step that only this step can have fused.

        Each is the only reader of a value of this step. Nothing is assigned where a later step has
        no known nodes, nor where a node needs a value that a later step reads, too: the node may
        belong to that step.
        """
        later = self._later(index)
        if not all(step.known for step in later):
            return
        elsewhere = {
            value for step in later for place in step.reads for value in self.available[place]
        }
        known, stack = (read - elsewhere) | computed, list(computed)
        while stack:
            value = stack.pop()
            readers = {node for node, _ in value.uses()}
            if value in self.outputs or len(readers) != 1:
                continue
            (node,) = readers
            fusible = node in self.order and node.op_type not in PRODUCTS
            if fusible and self._is_free(node, index) and self._can_run(node, known):
                new = self._own(node, index)
                stack += new
                computed |= new
                known |= new

    def _own(self, node: ir.Node, index: int) -> set[ir.Value]:
        self.owner[node] = index
        self.nodes[index].append(node)
        return set(node.outputs)

    def _is_free(self, node: ir.Node, index: int) -> bool:
        return node not in self.owner and self.claims.get(node, index) == index

    def _can_run(self, node: ir.Node, known: set[ir.Value]) -> bool:
        return all(value in known or value in self.constant for value in node.inputs)

    def _readers(self, values: Iterable[ir.Value]) -> set[ir.Node]:
        return {node for v in values for node, _ in v.uses() if node in self.order}

    def _later(self, index: int) -> list[EngineStep]:
        """The steps that read what this one computes, directly or through copies."""
        sources, readers = {index}, []
        for place in range(index + 1, len(self.steps)):
            step = self.steps[place]
            if sources.intersection(step.reads):
                if step.moves or step.part:
                    sources.add(place)
                else:
                    readers.append(step)
        return readers


def _constant_values(graph: ir.Graph) -> set[ir.Value | None]:
    """Values that are the same in every run, which an engine computes when it is built."""
    inputs = {value for value in graph.inputs if not value.is_initializer()}
    constant: set[ir.Value | None] = {None}
    for node in graph:
        constant |= {v for v in node.inputs if v and v.producer() is None and v not in inputs}
        if all(value in constant for value in node.inputs):
            constant |= set(node.outputs)
    return constant
