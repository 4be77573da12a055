"""Nodes of constants, computed by ONNX's reference implementation within a budget.

A node is computed if the sizes of its outputs are known before, so that nothing that is too large
is ever computed, and if the model does not grow by more than some elements; nodes that are computed
from each other are judged by what is left of them. What fails, and what the implementation computes
with other sizes or another type than the operator's rules say, stays as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from flatfold.frontend.canonicalization.control_flow import bodies_of
from flatfold.frontend.canonicalization.symbolic_dims import Shapes, element_count

_MAX_COMPUTED = 2**26  # elements of a constant
_MAX_GROWTH = 512 * 512  # elements by which one node may make the model larger
_MAX_TOTAL_GROWTH = 2**26  # elements by which all nodes may
_MAX_SLOW = 2**16  # elements that operators with a slow implementation may read and write
_MAX_PRODUCTS = 2**28  # of an Einsum: a second
_MAX_GROUP = 2**27  # elements of all constants of a group of nodes

_KEPT = """
Constant DequantizeLinear DynamicQuantizeLinear QuantizeLinear Multinomial Bernoulli RandomNormal
RandomNormalLike RandomUniform RandomUniformLike ImageDecoder StringNormalizer StringSplit
"""
_SLOW = """
AveragePool Col2Im Conv ConvInteger ConvTranspose DFT DeformConv Det Einsum GRU GlobalAveragePool
GlobalMaxPool GridSample LRN LSTM LpPool MaxPool MaxUnpool NonMaxSuppression RNN Resize RoiAlign
STFT TfIdfVectorizer TopK Unique Upsample
"""
KEPT_OPERATORS, _SLOW_OPERATORS = frozenset(_KEPT.split()), frozenset(_SLOW.split())
# That the implementation computes in another way than the standard says and engines do: the norm of
# all places at once, and, up to opset 12, along one axis and not along all behind it.
_WRONG = ("LRN",)
_WRONG_UP_TO = {"Hardmax": 12, "LogSoftmax": 12, "Softmax": 12}
_BOUNDED = ("Compress", "NonZero", "Unique")  # at most as large as their inputs
_NUMBERS = "biufcV"  # V: types that NumPy itself does not have


class Folding:
    """Computes the nodes of `graph` that depend on constants alone, and those of its bodies.

    `version` is its opset.
    """

    def __init__(self, graph: ir.Graph, version: int, shapes: Shapes) -> None:
        self._graph = graph
        self._version = version
        self._shapes = shapes
        self._grown = 0
        self._readers: dict[ir.Value, int] = {}

    def fold_groups(self) -> None:
        """Fold nodes that depend on constants alone, each too large by itself, as a group.

        What is large between them dies: only what other nodes read counts. All sizes are known by
        now.
        """
        waiting = self._waiting()
        for group in _groups(waiting):
            for node in group if self._is_group_affordable(group) else ():
                self.fold(node, affordable=True)

    def _waiting(self) -> list[ir.Node]:
        """The nodes, in order, that constants and each other are enough to compute."""
        waiting: dict[ir.Node, None] = {}
        for node in ir.traversal.RecursiveGraphIterator(self._graph):
            if not self._may_fold(node) or node.op_type in _BOUNDED:
                continue
            done = all(self._shapes.array(value) is not None for value in node.outputs)
            known = (
                value is None
                or self._shapes.array(value) is not None
                or value.producer() in waiting
                for value in node.inputs
            )
            if not done and all(known):
                waiting[node] = None
        return list(waiting)

    def _is_group_affordable(self, group: Sequence[ir.Node]) -> bool:
        inside = set(group)
        written = {value: self._count(value) for node in group for value in node.outputs}
        counts = [count for count in written.values() if count is not None]
        if len(counts) < len(written) or max(counts) > _MAX_COMPUTED or sum(counts) > _MAX_GROUP:
            return False
        if any(node.op_type in _SLOW_OPERATORS and not self._is_quick(node) for node in group):
            return False
        left = [c or 0 for v, c in written.items() if any(u.node not in inside for u in v.uses())]
        read = {value for node in group for value in node.inputs if value is not None}
        arrays = {value: self._shapes.array(value) for value in read}
        freed = sum(
            array.size
            for value, array in arrays.items()
            if array is not None and all(use.node in inside for use in value.uses())
        )
        growth = sum(left) - freed
        return growth <= _MAX_GROWTH and self._grown + growth <= _MAX_TOTAL_GROWTH

    def _is_quick(self, node: ir.Node) -> bool:
        """Whether a slow operator does little: an Einsum by its products, others by elements."""
        sizes = [self._shapes.sizes(value) if value is not None else () for value in node.inputs]
        if node.op_type == "Einsum":
            terms = node.attributes["equation"].as_string().partition("->")[0].split(",")
            extents = {
                letter: size
                for term, known in zip(terms, sizes, strict=False)
                for letter, size in zip(term.replace(" ", ""), known or (), strict=False)
            }
            products = 1
            for size in extents.values():
                products *= size if isinstance(size, int) else _MAX_PRODUCTS + 1
            return "..." not in "".join(terms) and products <= _MAX_PRODUCTS
        counts = [
            self._count(value) for value in (*node.inputs, *node.outputs) if value is not None
        ]
        return sum(c if c is not None else _MAX_SLOW + 1 for c in counts) <= _MAX_SLOW

    def _count(self, value: ir.Value) -> int | None:
        sizes = self._shapes.sizes(value)
        return None if sizes is None else element_count(sizes)

    def fold(self, node: ir.Node, affordable: bool = False) -> bool:
        """Record what `node` computes in the constants of the shapes; return whether it was.

        `affordable`: the group that it belongs to is known to be.
        """
        if not self._may_fold(node):
            return False
        arrays = [self._shapes.array(value) for value in node.inputs]
        missing = zip(node.inputs, arrays, strict=True)
        if any(value is not None and array is None for value, array in missing):
            return False
        known = [array for array in arrays if array is not None]
        if not (affordable or self._is_affordable(node, known)):
            return False
        results = _computed(node, self._version, arrays)
        if results is None or not self._as_expected(node, results):
            return False
        self._shapes.constants.update(zip(node.outputs, results, strict=True))
        self._release(node, results)
        return True

    def _may_fold(self, node: ir.Node) -> bool:
        if node.domain != "" or node.op_type in KEPT_OPERATORS or bodies_of(node):
            return False
        if node.op_type in _WRONG or self._version <= _WRONG_UP_TO.get(node.op_type, 0):
            return False
        return bool(node.inputs) and not any(value.is_graph_output() for value in node.outputs)

    def _is_affordable(self, node: ir.Node, inputs: Sequence[NDArray[Any]]) -> bool:
        read = sum(array.size for array in inputs)
        if node.op_type in _BOUNDED:
            return read <= _MAX_SLOW
        sizes = [self._shapes.sizes(value) for value in node.outputs]
        counts = [None if size is None else element_count(size) for size in sizes]
        written = [count for count in counts if count is not None]
        if len(written) < len(counts) or sum(written) > _MAX_COMPUTED:
            return False
        if node.op_type in _SLOW_OPERATORS and read + sum(written) > _MAX_SLOW:
            return False
        growth = sum(written) - self._freed(node)
        return self._grown + growth <= _MAX_TOTAL_GROWTH and (
            sum(written) <= _MAX_GROWTH or growth <= 0
        )

    def _freed(self, node: ir.Node) -> int:
        """The elements of constants that only `node` still reads."""
        arrays = [self._shapes.array(value) for value in node.inputs if self._unread(value) == 1]
        return sum(array.size for array in arrays if array is not None)

    def _unread(self, value: ir.Value | None) -> int:
        """How many readers of `value` have not been computed."""
        if value is None:
            return 0
        return self._readers.get(value, len(value.uses()))

    def _release(self, node: ir.Node, results: Sequence[NDArray[Any]]) -> None:
        """Count what the model has grown, and forget what is no longer read."""
        self._grown += sum(result.size for result in results) - self._freed(node)
        for value in node.inputs:
            if value is None:
                continue
            self._readers[value] = self._unread(value) - 1
            if not self._readers[value]:
                self._shapes.constants.pop(value, None)

    def _as_expected(self, node: ir.Node, results: Sequence[NDArray[Any]]) -> bool:
        return all(
            output.dtype == _dtype(result) and self._fits(output, result)
            for output, result in zip(node.outputs, results, strict=True)
        )

    def _fits(self, output: ir.Value, result: NDArray[Any]) -> bool:
        sizes = self._shapes.sizes(output)
        if sizes is None or len(sizes) != result.ndim:
            return False
        pairs = zip(sizes, result.shape, strict=True)
        return all(size == count for size, count in pairs if isinstance(size, int))


def _groups(nodes: Sequence[ir.Node]) -> list[list[ir.Node]]:
    """The nodes, in order, those together that are computed from each other."""
    group_of: dict[ir.Node, list[ir.Node]] = {}
    for node in nodes:
        makers = (value.producer() for value in node.inputs if value is not None)
        joined = {id(group_of[m]): group_of[m] for m in makers if m in group_of}
        merged = max(joined.values(), key=len, default=[])
        for other in joined.values():
            if other is not merged:
                merged += other
                group_of |= dict.fromkeys(other, merged)
        merged.append(node)
        group_of[node] = merged
    order = {node: place for place, node in enumerate(nodes)}
    groups = {id(group): group for group in group_of.values()}
    return [sorted(group, key=order.__getitem__) for group in groups.values()]


def _dtype(array: NDArray[Any]) -> ir.DataType | None:
    try:
        return ir.DataType.from_numpy(array.dtype)
    except TypeError:
        return None


def _computed(
    node: ir.Node, version: int, arrays: Sequence[NDArray[Any] | None]
) -> list[NDArray[Any]] | None:
    """The outputs of `node`; None where the implementation fails."""
    implementation = _implementation(node.op_type, version)
    if implementation is None:
        return None
    attributes = {name: _attribute(value) for name, value in node.attributes.items()}
    try:
        with np.errstate(all="ignore"):
            result = implementation(*arrays, **attributes)
    except Exception:  # whatever an implementation raises on a malformed node
        return None
    results = [np.asarray(part) for part in (result if isinstance(result, tuple) else (result,))]
    usable = all(array.dtype.kind in _NUMBERS for array in results)
    return results if usable and len(results) == len(node.outputs) else None


def _attribute(attribute: ir.Attr) -> Any:
    if attribute.type == ir.AttributeType.TENSOR:
        return ir.serde.serialize_tensor(attribute.as_tensor())
    return attribute.value


@functools.cache
def _implementation(operator: str, version: int) -> Callable[..., Any] | None:
    from onnx.reference.ops import load_op

    if operator == "BatchNormalization":  # the older ones take the statistics of the batch
        version = max(version, 14)
    try:
        evaluate: Callable[..., Any] = load_op("", operator, version).eval
    except Exception:  # there is none
        return None
    return evaluate
