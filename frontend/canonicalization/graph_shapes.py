"""Shapes, types and constants of a whole graph, worked out from its inputs and weights alone.

What a file declares about computed values is a claim, and is dropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import onnx_ir as ir

from flatfold.frontend.canonicalization.control_flow import BRANCHES, bodies_of
from flatfold.frontend.canonicalization.edit import shape_of
from flatfold.frontend.canonicalization.fold_constants import Folding
from flatfold.frontend.canonicalization.operator_shapes.rule import Operands, Sizes
from flatfold.frontend.canonicalization.operator_shapes.table import may_run, rule_of
from flatfold.frontend.canonicalization.shape_rules import RULES
from flatfold.frontend.canonicalization.symbolic_dims import KnownTensor, Shapes
from flatfold.frontend.canonicalization.tensor_types import infer_types

_MOST_TRIALS = 32  # each evaluates what is behind an If twice

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
        self._declared: dict[ir.Value, ir.Shape | None] = {}  # of what goes in and out of bodies
        self._trying = 0  # inside so many loops or branches whose sizes are an assumption yet
        self._trials = 0  # of branches
        self._runs = False  # what is evaluated now does run where the branch that is tried is taken
        self._failed = False  # and could not

    def run(self, graph: ir.Graph) -> None:
        nodes = list(graph)
        self._forget(nodes)
        for i, node in enumerate(nodes):
            self._evaluate(node, nodes[i + 1 :] if bodies_of(node) else ())

    def _forget(self, nodes: Sequence[ir.Node]) -> None:
        for node in nodes:
            for value in node.outputs:
                value.shape = None
                self._shapes.tensors.pop(value, None)

    def _evaluate(self, node: ir.Node, later: Sequence[ir.Node]) -> None:
        """Work out what `node` returns; `later` are the nodes behind it, if it has bodies."""
        if bodies_of(node):
            self._enter(node, later)
            return
        infer_types(node, self._versions.get(node.domain, 1))
        self._record(node)
        if not self._trying and not self._known(node):
            self.folding.fold(node)
        for value in node.outputs:
            self._declare(value)

    def _enter(self, node: ir.Node, later: Sequence[ir.Node]) -> None:
        """Evaluate the subgraphs of `node`, and what it returns if that follows from them."""
        taken, outside = self._taken(node), self._runs
        for branch in bodies_of(node):
            self._runs = outside and _is_if(node) and taken == [branch]
            state = self._state_sizes(node, branch) if node.op_type == "Loop" else []
            self._run_subgraph(branch, state)
        self._runs = outside
        if (node.op_type, node.domain) not in (("If", ""), ("Loop", ""), ("Scan", "")):
            return
        skipped = 1 if node.op_type == "Loop" else 0  # the condition
        for i, output in enumerate(node.outputs):
            output.type = taken[0].outputs[i + skipped].type or output.type
        if _is_if(node):
            results = [[self._shapes.sizes(v) for v in branch.outputs] for branch in taken]
            self._declare_all(node.outputs, self._joined(node, results, later))

    def _taken(self, node: ir.Node) -> list[ir.Graph]:
        """The bodies of `node`; of an If with a known condition only the branch that is taken."""
        condition = self._shapes.array(node.inputs[0]) if _is_if(node) else None
        if condition is None or condition.size != 1:
            return bodies_of(node)
        return [node.attributes[BRANCHES[not condition.item()]].as_graph()]

    def _joined(
        self, node: ir.Node, results: list[list[Sizes | None]], later: Sequence[ir.Node]
    ) -> list[Sizes | None]:
        """What is known of the outputs of an If from what its branches return.

        Of two branches that return other numbers of axes, one may be such that a node behind the
        If could not run: then what the other one returns is known.
        """
        if self._differ(results) and not self._trying and self._trials < _MOST_TRIALS:
            self._trials += 1
            possible = [sizes for sizes in results if self._fits(node, sizes, later)]
            results = possible if len(possible) == 1 else results
        return [_common(sizes) for sizes in zip(*results, strict=True)]

    def _differ(self, results: list[list[Sizes | None]]) -> bool:
        ranks = [[None if s is None else len(s) for s in sizes] for sizes in results]
        return any(len(set(column) - {None}) > 1 for column in zip(*ranks, strict=True))

    def _fits(self, node: ir.Node, sizes: list[Sizes | None], later: Sequence[ir.Node]) -> bool:
        """Whether the nodes behind an If may run where it returns tensors of `sizes`."""
        self._trying += 1
        self._runs, self._failed = True, False
        self._declare_all(node.outputs, sizes)
        for i, other in enumerate(later):
            if not self._failed:
                self._evaluate(other, later[i + 1 :] if bodies_of(other) else ())
        self._forget([node, *later])
        self._trying -= 1
        self._runs = False
        return not self._failed

    def _declare_all(self, values: Sequence[ir.Value], sizes: Sequence[Sizes | None]) -> None:
        for value, known in zip(values, sizes, strict=True):
            if known is not None:
                self._shapes.tensors[value] = KnownTensor(known)
                self._declare(value)

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

        What it declares of inputs and outputs stays, for runtimes need it, but says nothing.
        """
        for value in (*branch.inputs, *branch.outputs):
            self._declared.setdefault(value, value.shape)
        for value, sizes in itertools.zip_longest(branch.inputs, known[: len(branch.inputs)]):
            value.shape = None if sizes is None else shape_of(sizes)
        self.run(branch)
        for value in (*branch.inputs, *branch.outputs):
            if value.shape is None and self._declared.get(value) is not None:
                value.shape = self._declared[value]
                self._shapes.claimed.add(value)

    def _known(self, node: ir.Node) -> bool:
        """Whether the elements of the outputs of `node` are known."""
        return all(self._shapes.array(value) is not None for value in node.outputs)

    def _record(self, node: ir.Node) -> None:
        self._failed |= self._runs and not may_run(Operands(node, self._shapes))
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


def _is_if(node: ir.Node) -> bool:
    return (node.op_type, node.domain) == ("If", "")


def _common(results: Sequence[Sizes | None]) -> Sizes | None:
    """What is known of a tensor that has one of several shapes."""
    first = results[0]
    if any(sizes is None or first is None or len(sizes) != len(first) for sizes in results):
        return None
    columns = zip(*(sizes for sizes in results if sizes is not None), strict=True)
    return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in columns)


def _possible(sizes: Sizes) -> bool:
    negative = any(isinstance(size, int) and size < 0 for size in sizes)
    return not negative and len(sizes) <= MAX_AXES
