"""What an engine's own profiler tells: how long each of its layers takes.

found = engine.profile({"image": image}, runs=50)
slowest = max(found.layers, key=lambda layer: layer.seconds)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

WARMUP = 5  # runs before those that count; the first ones make kernels and fill caches


@dataclass(frozen=True)
class LayerTime:
    """What an engine runs as one: its name and kind in the engine's words, seconds of one run.

    `nodes` are the names of those of the engine's model that it computes, as far as the engine
    tells. A node that the engine runs in several steps is in each of them; a layer that only lays
    data out anew has none.
    """

    name: str
    kind: str
    seconds: float
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunProfile:
    """The layers in the order in which they run, and the seconds of a whole run.

    Both were taken while the profiler was on, with which a run takes longer. Medians, but means
    where the SDK adds up what it measures. `device_s`: the seconds of a run without the profiler,
    copies to and from the device included, by the events of the device's own stream; None for the
    processor, where the clock of the host is all there is.
    """

    seconds: float
    layers: tuple[LayerTime, ...]
    device_s: float | None = None


def timed(run: Callable[[], object], runs: int) -> list[float]:
    """The seconds of each of `runs` runs."""
    found = []
    for _ in range(runs):
        begin = time.perf_counter()
        run()
        found.append(time.perf_counter() - begin)
    return found


INPUTS = -1  # stands among `EngineStep.reads` for the inputs of the graph
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # of which a step computes one, if any
_SIGNS = ("conv", "gemm", "matmul", "fullyconnected")


@dataclass(frozen=True)
class EngineStep:
    """What an engine runs as one: its kind, in the engine's words.

    `known` are nodes that it computes; `reads` the positions of the steps whose results it reads.
    One that `moves` only lays data out anew, or copies it; one that is a `part` does some of what
    the steps that read it are known by.
    """

    kind: str
    known: tuple[ir.Node, ...] = ()
    reads: tuple[int, ...] = ()
    moves: bool = False
    part: bool = False


def attribute_nodes(graph: ir.Graph, steps: Sequence[EngineStep]) -> list[tuple[ir.Node, ...]]:
    """The nodes of each step, in the order of the graph; `steps` come in the order they run in.

    A node is in one step, but those that an engine takes apart are in each of their steps.
    """
    cover = _Attribution(graph, steps)
    for index in range(len(steps)):
        cover.take(index)
    cover.place_the_rest()
    cover.share()
    return [tuple(sorted(nodes, key=cover.order.__getitem__)) for nodes in cover.nodes]


class _Attribution:
    def __init__(self, graph: ir.Graph, steps: Sequence[EngineStep]) -> None:
        self.graph, self.steps = graph, steps
        self.order = {node: index for index, node in enumerate(graph)}
        self.outputs = set(graph.outputs)
        self.fixed = _fixed(graph)
        self.claims: dict[ir.Node, int] = {}
        for index, step in enumerate(steps):
            for node in step.known:
                self.claims.setdefault(node, index)
        self.owner: dict[ir.Node, int] = {}
        self.nodes: list[list[ir.Node]] = [[] for _ in steps]
        self.given: list[set[ir.Value]] = [set() for _ in steps]
        self.given.append({value for value in graph.inputs if not value.is_initializer()})

    def take(self, index: int) -> None:
        """Gives a step its nodes, and says what those that read it can build on."""
        step = self.steps[index]
        read = set().union(*(self.given[place] for place in step.reads))
        made: set[ir.Value] = set()
        if not step.moves and not step.part:
            made = self._backward(index) or self._forward(index, read)
            if made:
                self._extend(index, read, made)
        self.given[index] = made or read

    def place_the_rest(self) -> None:
        """What no step is known by belongs to the last step that it builds on."""
        for node in self.graph:
            if node not in self.owner:
                before = (v.producer() for v in node.inputs if v is not None)
                owners = [self.owner[n] for n in before if n in self.owner]
                if owners:
                    self._own(node, max(owners))

    def share(self) -> None:
        """A part has the nodes of the steps that read it."""
        for index in reversed(range(len(self.steps))):
            if self.steps[index].part:
                readers = (i for i, step in enumerate(self.steps) if index in step.reads)
                self.nodes[index] = list({n: None for i in readers for n in self.nodes[i]})

    def _backward(self, index: int) -> set[ir.Value]:
        """From the nodes a step is known by back to what other steps have computed."""
        stack = [n for n in self.steps[index].known if self.claims[n] == index]
        made: set[ir.Value] = set()
        while stack:
            node = stack.pop()
            if self._is_free(node, index):
                made |= self._own(node, index)
                before = (v.producer() for v in node.inputs if v and v not in self.fixed)
                stack += [n for n in before if n in self.order]
        return made

    def _forward(self, index: int, read: set[ir.Value]) -> set[ir.Value]:
        """What can be computed from what a step reads, for one that is known by no node."""
        if self.steps[index].known:
            return set()
        product = any(sign in self.steps[index].kind.lower() for sign in _SIGNS)
        made: set[ir.Value] = set()
        stack = sorted(self._readers(read), key=self.order.__getitem__, reverse=True)
        while stack:
            node = stack.pop()
            fits = (node.op_type in PRODUCTS) == product
            if fits and self._is_free(node, index) and self._can_run(node, read | made):
                new = self._own(node, index)
                made |= new
                stack += [] if product else self._readers(new)
                if product:
                    break
        return made

    def _extend(self, index: int, read: set[ir.Value], made: set[ir.Value]) -> None:
        """With what only the step itself reads: an engine can fuse it, and nobody else has it.

        But not with what a later step may have, as it reads the same, or is known by nothing.
        """
        later = self._later(index)
        if not all(step.known for step in later):
            return
        elsewhere = {value for step in later for place in step.reads for value in self.given[place]}
        known, stack = (read - elsewhere) | made, list(made)
        while stack:
            value = stack.pop()
            readers = {node for node, _ in value.uses()}
            if value in self.outputs or len(readers) != 1:
                continue
            (node,) = readers
            able = node in self.order and node.op_type not in PRODUCTS
            if able and self._is_free(node, index) and self._can_run(node, known):
                new = self._own(node, index)
                stack += new
                made |= new
                known |= new

    def _own(self, node: ir.Node, index: int) -> set[ir.Value]:
        self.owner[node] = index
        self.nodes[index].append(node)
        return set(node.outputs)

    def _is_free(self, node: ir.Node, index: int) -> bool:
        return node not in self.owner and self.claims.get(node, index) == index

    def _can_run(self, node: ir.Node, known: set[ir.Value]) -> bool:
        return all(value in known or value in self.fixed for value in node.inputs)

    def _readers(self, values: Iterable[ir.Value]) -> set[ir.Node]:
        return {node for v in values for node, _ in v.uses() if node in self.order}

    def _later(self, index: int) -> list[EngineStep]:
        """The steps that read what this one computes."""
        sources, found = {index}, []
        for place in range(index + 1, len(self.steps)):
            step = self.steps[place]
            if sources.intersection(step.reads):
                if step.moves or step.part:
                    sources.add(place)
                else:
                    found.append(step)
        return found


def _fixed(graph: ir.Graph) -> set[ir.Value | None]:
    """Values that are the same in every run: an engine has computed them already."""
    inputs = {value for value in graph.inputs if not value.is_initializer()}
    found: set[ir.Value | None] = {None}
    for node in graph:
        found |= {v for v in node.inputs if v and v.producer() is None and v not in inputs}
        if all(value in found for value in node.inputs):
            found |= set(node.outputs)
    return found
