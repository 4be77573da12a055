"""Branches of an If, and bodies of a Loop, that differ between two graphs and that no input ran."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.errors import FlatfoldError
from flatfold.proof.interpreter.operators import traits_of

Run = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Branch:
    """A graph inside a node of the original's main graph, which another graph has otherwise."""

    node: ir.Node
    attribute: str

    def runs(self, controls: list[Any]) -> bool:
        """Whether it runs where the node's first inputs have these values; None is not given."""
        if self.node.op_type == "If":
            return bool(np.all(controls[0])) == (self.attribute == "then_branch")
        trips, condition = controls
        return (trips is None or int(np.max(trips)) > 0) and bool(condition is None or condition)

    def __str__(self) -> str:
        name = self.node.name or self.node.outputs[0].name
        return f"{self.attribute} of {self.node.op_type} {name!r}"


@dataclass(frozen=True)
class Watch:
    """Sees which of `branches` run: those of the original that differ in another graph.

    Those whose condition reads no input, or only its sizes, do not count. `controls` are what
    decides, and `run` computes them; it raises FlatfoldError where it cannot.
    """

    branches: Sequence[Branch]
    controls: Sequence[ir.Value]
    run: Run | None

    @classmethod
    def of(
        cls, original: ir.Model, rewritten: ir.Model, session: Callable[[ir.Model], Run]
    ) -> Watch:
        """Of two graphs; `session` makes a function that runs a graph."""
        branches = list(_differing(original.graph, rewritten.graph))
        nodes = list(dict.fromkeys(branch.node for branch in branches))
        run = session(_with_controls(original, nodes)) if nodes else None
        return cls(branches, _controls(nodes), run)

    def missed(
        self, feeds: Iterable[Mapping[str, Any]], branches: Sequence[Branch] | None = None
    ) -> list[Branch]:
        """Those of `branches`, or of all, that run on none of `feeds`."""
        left = list(self.branches if branches is None else branches)
        for one in feeds if left else ():
            values = self._values(one)
            left = [branch for branch in left if values is None or not _ran(branch, values)]
            if not left:
                break
        return left

    def _values(self, feeds: Mapping[str, Any]) -> dict[ir.Value, Any] | None:
        assert self.run is not None
        try:
            return dict(zip(self.controls, self.run(feeds), strict=True))
        except (FlatfoldError, MemoryError):
            return None  # sizes or integers that the graph does not accept


def _ran(branch: Branch, values: Mapping[ir.Value, Any]) -> bool:
    return branch.runs([None if v is None else values[v] for v in _read(branch.node)])


def _read(node: ir.Node) -> tuple[ir.Value | None, ...]:
    """What decides whether a graph inside `node` runs."""
    return tuple(node.inputs[: 1 if node.op_type == "If" else 2])


def _controls(nodes: Iterable[ir.Node]) -> list[ir.Value]:
    return list(dict.fromkeys(v for node in nodes for v in _read(node) if v is not None))


def _with_controls(original: ir.Model, nodes: list[ir.Node]) -> ir.Model:
    """`original` with the values that the `nodes` are decided by as its only outputs."""
    positions = {node: number for number, node in enumerate(original.graph)}
    copy = original.clone()
    copies = list(copy.graph)
    values = _controls(copies[positions[node]] for node in nodes)
    copy.graph.outputs.clear()
    for number, value in enumerate(values):  # a copy, since inputs and weights are no outputs
        node = ir.node("Identity", [value], name=f"control{number}")
        node.outputs[0].name = f"flatfold.control{number}"
        node.outputs[0].type = value.type
        copy.graph.append(node)
        copy.graph.outputs.append(node.outputs[0])
    return copy


def _differing(one: ir.Graph, two: ir.Graph) -> Iterator[Branch]:
    """Branches of `one` that are not found in `two`, where nodes come in the same order."""
    found = {_signature(graph) for node in two for _, graph in _graphs(node)}
    for node in one:
        for name, graph in _graphs(node):
            if _signature(graph) not in found and _reads_data(_read(node)):
                yield Branch(node, name)


def _graphs(node: ir.Node) -> Iterator[tuple[str, ir.Graph]]:
    if node.op_type in ("If", "Loop") and node.domain in ("", "ai.onnx"):
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield attribute.name, attribute.as_graph()


def _reads_data(values: Iterable[ir.Value | None]) -> bool:
    """Whether one of `values` depends on the numbers of an input, or is random."""
    pending, seen = list(values), set()
    while pending:
        value = pending.pop()
        if value is None or value in seen:
            continue
        seen.add(value)
        node = value.producer()
        if value.is_graph_input() or (node is not None and traits_of(node).random):
            return True
        if node is not None and node.op_type not in ("Shape", "Size"):
            pending += node.inputs
    return False


def _signature(graph: ir.Graph, outer: Mapping[ir.Value, str] | None = None) -> bytes:
    """A hash of what a graph inside a node computes.

    The names of its own values do not count, nor where its constants are kept.
    """
    digest, names = hashlib.sha256(), dict(outer or {})
    for number, value in enumerate(graph.inputs):
        names[value] = f"#{number}"
    for value in graph.initializers.values():
        if value.const_value is not None:
            names[value] = _content(value.const_value)
    number = 0
    for node in graph:
        tensor = node.attributes.get("value") if node.op_type == "Constant" else None
        if tensor is not None and tensor.type == ir.AttributeType.TENSOR:
            names[node.outputs[0]] = _content(tensor.as_tensor())
            continue
        reads = [names.get(v, v.name) if v is not None else None for v in node.inputs]
        digest.update(f"{node.op_identifier()} {reads} {len(node.outputs)}".encode())
        for name, attribute in sorted(node.attributes.items()):
            digest.update(name.encode() + _attribute(attribute, names))
        names |= {v: f"{number}.{place}" for place, v in enumerate(node.outputs)}
        number += 1
    digest.update(repr([names.get(v, v.name) for v in graph.outputs]).encode())
    return digest.digest()


def _content(tensor: ir.TensorProtocol) -> str:
    digest = hashlib.sha256(tensor.tobytes()).hexdigest()
    return f"{tensor.dtype} {tensor.shape} {digest}"


def _attribute(attribute: ir.Attr, names: Mapping[ir.Value, str]) -> bytes:
    if attribute.type == ir.AttributeType.GRAPH:
        return _signature(attribute.as_graph(), names)
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        return f"{tensor.dtype} {tensor.shape}".encode() + tensor.tobytes()
    return repr(attribute.value).encode()
