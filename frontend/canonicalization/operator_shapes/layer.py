"""Output sizes of matrix products, recurrent layers, norms and reductions."""

from __future__ import annotations

from flatfold.frontend.canonicalization.operator_shapes.rule import (
    Operands,
    OperatorRule,
    Sizes,
    axis_in,
    unknown,
)
from flatfold.frontend.canonicalization.symbolic_dims import Size, broadcast


def gemm(operands: Operands) -> list[Sizes | None]:
    a, b = operands.sizes(0), operands.sizes(1)
    rows = None if a is None else _matrix(a, operands.integer("transA", 0))[0]
    columns = None if b is None else _matrix(b, operands.integer("transB", 0))[1]
    return [(rows, columns)]


def _matrix(sizes: Sizes, transposed: int) -> Sizes:
    rows, columns = sizes
    return (columns, rows) if transposed else (rows, columns)


def product_at(second: int) -> OperatorRule:
    """The rule of a matrix product of the inputs 0 and `second`."""

    def rule(operands: Operands) -> list[Sizes | None]:
        return [_product(operands.sizes(0), operands.sizes(second))]

    return rule


def fused_product(operands: Operands) -> list[Sizes | None]:
    """com.microsoft FusedMatMul."""
    a, b = operands.sizes(0), operands.sizes(1)
    batch = operands.integer("transBatchA", 0) or operands.integer("transBatchB", 0)
    if a is None or b is None or batch:
        return []
    return [_product(_turned(a, operands, "transA"), _turned(b, operands, "transB"))]


def _turned(sizes: Sizes, operands: Operands, name: str) -> Sizes:
    if not operands.integer(name, 0) or len(sizes) < 2:
        return sizes
    return (*sizes[:-2], sizes[-1], sizes[-2])


def _product(a: Sizes | None, b: Sizes | None) -> Sizes | None:
    if not a or not b:
        return None
    batch = broadcast([a[:-2], b[:-2]]) if len(a) > 2 or len(b) > 2 else ()
    rows = a[-2:-1]
    columns = b[-1:] if len(b) > 1 else ()
    return (*batch, *rows, *columns)


def einsum(operands: Operands) -> list[Sizes | None]:
    equation = operands.text("equation", "").replace(" ", "")
    if "." in equation or not equation:
        return []
    left, _, right = equation.partition("->")
    terms = left.split(",")
    if "->" not in equation:
        right = "".join(sorted(c for c in set(left) - {","} if left.count(c) == 1))
    found: dict[str, Size] = {}
    for i, term in enumerate(terms):
        sizes = operands.sizes(i) or unknown(len(term))
        for letter, size in zip(term, sizes, strict=True):
            if not isinstance(found.get(letter), int) or found[letter] == 1:
                found[letter] = size if letter not in found or isinstance(size, int) else None
    return [tuple(found[letter] for letter in right)]


def recurrent(operands: Operands) -> list[Sizes | None]:
    """LSTM, GRU and RNN: all states, the last hidden state, the last cell state.

    DynamicQuantizeLSTM has the recurrent weights transposed.
    """
    x, r = operands.sizes(0), operands.sizes(2)
    transposed = operands.node.domain != ""
    hidden: Size = None if r is None else r[1 if transposed else 2]
    if operands.named("hidden_size"):
        hidden = operands.integer("hidden_size", 0)
    directions = 2 if operands.text("direction", "forward") == "bidirectional" else 1
    first, second = (None, None) if x is None else x[:2]
    if operands.integer("layout", 0):
        return [(first, second, directions, hidden), *[(first, directions, hidden)] * 2]
    return [(first, directions, second, hidden), *[(directions, second, hidden)] * 2]


def batch_norm(operands: Operands) -> list[Sizes | None]:
    """The normalized input, and in training mode statistics per channel."""
    return [operands.sizes(0), *[operands.sizes(3)] * 4]


def layer_norm(operands: Operands) -> list[Sizes | None]:
    """LayerNormalization: the normalized input, and statistics with sizes of 1 from `axis` on."""
    before = operands.sizes(0)
    if before is None:
        return []
    axis = axis_in(operands.integer("axis", -1), len(before))
    statistics = (*before[:axis], *(1 for _ in before[axis:]))
    return [before, statistics, statistics]


def skip_layer_norm(operands: Operands) -> list[Sizes | None]:
    """com.microsoft SkipLayerNormalization: input, statistics, sum of inputs."""
    before = operands.sizes(0)
    return [before, None, None, before]


def reduction(operands: Operands) -> list[Sizes | None]:
    """ReduceSum and the like, with axes as attribute or as input 1."""
    before, axes = operands.sizes(0), operands.numbers("axes", 1)
    if axes is None and operands.given("axes", 1):
        keeps = operands.integer("keepdims", 1)
        return [unknown(len(before)) if before is not None and keeps else None]
    if not axes and operands.integer("noop_with_empty_axes", 0):
        return [before]
    if before is None:
        return [() if not axes and not operands.integer("keepdims", 1) else None]
    return [_reduced(operands, before, axes or list(range(len(before))))]


def extreme(operands: Operands) -> list[Sizes | None]:
    """ArgMax and ArgMin."""
    before = operands.sizes(0)
    return [None if before is None else _reduced(operands, before, [operands.integer("axis", 0)])]


def _reduced(operands: Operands, before: Sizes, axes: list[int]) -> Sizes:
    gone = {axis_in(axis, len(before)) for axis in axes}
    if operands.integer("keepdims", 1):
        return tuple(1 if i in gone else size for i, size in enumerate(before))
    return tuple(size for i, size in enumerate(before) if i not in gone)


def determinant(operands: Operands) -> list[Sizes | None]:
    before = operands.sizes(0)
    return [None if before is None else before[:-2]]


def dynamic_quantization(operands: Operands) -> list[Sizes | None]:
    """DynamicQuantizeLinear: numbers, their scale, their zero point."""
    return [operands.sizes(0), (), ()]
