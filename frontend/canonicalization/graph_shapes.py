"""Shapes, types and constants of a whole graph, worked out from its inputs and weights alone.

What a file declares about computed values is a claim, and is dropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import onnx_ir as ir

from flatfold.frontend.canonicalization.edit import shape_of
from flatfold.frontend.canonicalization.fold_constants import Folding
from flatfold.frontend.canonicalization.operator_shapes.rule import Operands, Sizes
from flatfold.frontend.canonicalization.operator_shapes.table import rule_of
from flatfold.frontend.canonicalization.shape_rules import RULES
from flatfold.frontend.canonicalization.symbolic_dims import KnownTensor, Shapes
from flatfold.frontend.canonicalization.tensor_types import infer_types

_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)

MAX_AXES = 64
"""The most axes that NumPy allows; of tensors with more, the shape counts as unknown."""

_MALFORMED = (
    ArithmeticError,
    AttributeError,
    IndexError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)


def evaluate_shapes(graph: ir.Graph, versions: dict[str, int]) -> Shapes:
    """What is known of the tensors of `graph`, which then declares it; `versions` are its opsets.

    Shapes that are not known are no longer declared. Of the initializers, those that the caller
    may override have the shape that they are declared with, and no known elements.
    """
    shapes = Shapes(_names(graph))
    evaluation = _Evaluation(graph, versions, shapes)
    evaluation.run(graph)
    evaluation.folding.fold_groups()
    return shapes


def _names(graph: ir.Graph) -> set[str]:
    """The names of sizes that the inputs of `graph` declare."""
    sizes = [size for value in graph.inputs for size in value.shape or ()]
    return {size.value for size in sizes if not isinstance(size, int) and size.value}


class _Evaluation:
    """One walk over a graph and the subgraphs of its nodes, in order."""

    def __init__(self, graph: ir.Graph, versions: dict[str, int], shapes: Shapes) -> None:
        self._versions = versions
        self._version = versions.get("", 1)
        self._shapes = shapes
        self.folding = Folding(graph, self._version, shapes)
        self._trying = 0  # inside so many loops whose sizes are an assumption yet

    def run(self, graph: ir.Graph) -> None:
        for node in graph:
            for value in node.outputs:
                value.shape = None
                self._shapes.tensors.pop(value, None)
        for node in graph:
            if any(attribute.type in _GRAPHS for attribute in node.attributes.values()):
                self._enter(node)
                continue
            infer_types(node, self._versions.get(node.domain, 1))
            self._record(node)
            if not self._trying and not self._known(node):
                self.folding.fold(node)
            for value in node.outputs:
                self._declare(value)

    def _enter(self, node: ir.Node) -> None:
        """Evaluate the subgraphs of `node`, and what it returns if that follows from them."""
        branches = [a.as_graph() for a in node.attributes.values() if a.type == _GRAPHS[0]]
        for branch in branches:
            state = self._state_sizes(node, branch) if node.op_type == "Loop" else []
            self._run_subgraph(branch, state)
        if (node.op_type, node.domain) not in (("If", ""), ("Loop", ""), ("Scan", "")):
            return
        skipped = 1 if node.op_type == "Loop" else 0  # the condition
        for i, output in enumerate(node.outputs):
            results = [branch.outputs[i + skipped] for branch in branches]
            output.type = results[0].type or output.type
            sizes = {self._shapes.sizes(value) for value in results}
            if node.op_type == "If" and len(sizes) == 1 and None not in sizes:
                self._shapes.tensors[output] = KnownTensor(sizes.pop() or ())
                self._declare(output)

    def _state_sizes(self, node: ir.Node, body: ir.Graph) -> list[Sizes | None]:
        """Sizes of the inputs of a Loop's body: those of the initial values that the body keeps.

        If a value of these sizes has them again after a step, it has them after every step.
        """
        state: list[Sizes | None] = [(), ()]  # the number of the step, and the condition
        state += [self._shapes.sizes(value) for value in node.inputs[2:]]
        self._trying += 1
        while any(sizes is not None for sizes in state[2:]):
            self._run_subgraph(body, state)
            after = [self._shapes.sizes(value) for value in body.outputs[1:]]
            kept = [a if a == b else None for a, b in zip(state[2:], after, strict=False)]
            if kept == state[2:]:
                break
            state[2:] = kept
        self._trying -= 1
        return state

    def _run_subgraph(self, branch: ir.Graph, known: Sequence[Sizes | None]) -> None:
        """Evaluate `branch`, whose first inputs have sizes that are `known`.

        What it declares of inputs and outputs stays, for runtimes need it.
        """
        declared = [(value, value.shape) for value in [*branch.inputs, *branch.outputs]]
        for value, sizes in itertools.zip_longest(branch.inputs, known[: len(branch.inputs)]):
            value.shape = None if sizes is None else shape_of(sizes)
        self.run(branch)
        for value, shape in declared:
            value.shape = value.shape or shape

    def _known(self, node: ir.Node) -> bool:
        """Whether the elements of the outputs of `node` are known."""
        return all(self._shapes.array(value) is not None for value in node.outputs)

    def _record(self, node: ir.Node) -> None:
        rule = RULES.get(node.op_type) if node.domain == "" else None
        if rule is not None and len(node.outputs) == 1:
            try:
                known = rule(node, self._shapes)
            except _MALFORMED:
                known = None
            if known is not None and _possible(known.shape):
                self._shapes.tensors[node.outputs[0]] = known
                return
        for value, sizes in zip(node.outputs, self._sizes(node), strict=False):
            if sizes is not None and _possible(sizes):
                self._shapes.tensors[value] = KnownTensor(sizes)

    def _sizes(self, node: ir.Node) -> list[Sizes | None]:
        rule = rule_of(node.domain, node.op_type)
        if rule is None:
            return []
        try:
            return list(rule(Operands(node, self._shapes)))
        except _MALFORMED:
            return []  # the node is malformed; the runtime will say so

    def _declare(self, value: ir.Value) -> None:
        sizes = self._shapes.sizes(value)
        value.shape = None if sizes is None else shape_of(sizes)


def _possible(sizes: Sizes) -> bool:
    negative = any(isinstance(size, int) and size < 0 for size in sizes)
    return not negative and len(sizes) <= MAX_AXES
