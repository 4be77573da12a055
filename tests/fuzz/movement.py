"""Operators that move numbers, and the arithmetic of shapes."""

from __future__ import annotations

import numpy as np

from tests.fuzz.sketch import FLOAT, Rejected, Sketch


def ranked(s: Sketch, x: str, low: int = 1) -> tuple[int, ...]:
    shape = s.shape(x)
    if len(shape) < low:
        raise Rejected("rank")
    return shape


def axis_of(s: Sketch, rank: int, since: int = 11) -> int:
    """Any axis, counted from the end where the opset allows that."""
    return s.between(-rank if s.opset >= since else 0, rank - 1)


def transpose(s: Sketch, x: str) -> str:
    rank = len(ranked(s, x, 2))
    if s.chance(0.1):
        return s.add("Transpose", x)
    if s.chance(0.5) and rank > 2:  # channels last, and back
        axes = [0, *range(2, rank), 1] if s.chance(0.5) else [0, rank - 1, *range(1, rank - 1)]
        return s.add("Transpose", x, perm=axes)
    return s.add("Transpose", x, perm=s.permutation(rank))


def _factors(s: Sketch, total: int, count: int) -> list[int]:
    sizes = []
    for _ in range(count - 1):
        sizes.append(s.one([n for n in range(1, total + 1) if total % n == 0]))
        total //= sizes[-1]
    return [*sizes, total]


def reshape(s: Sketch, x: str) -> str:
    shape = ranked(s, x)
    match s.between(0, 3):
        case 0:
            target = _factors(s, s.array(x).size, s.between(1, 5))
        case 1:  # the first axes stay
            keep = s.between(1, len(shape))
            rest = int(np.prod(shape[keep:]))
            target = [0] * keep + _factors(s, rest, s.between(1, 2))
        case 2:
            target = [shape[0], -1]
        case _:  # two axes become one
            at = s.between(0, max(0, len(shape) - 2))
            target = [*shape[:at], -1, *shape[at + 2 :]]
    if s.chance(0.3) and -1 not in target:
        target[s.between(0, len(target) - 1)] = -1
    return s.add("Reshape", x, s.ints(*target))


def shuffle(s: Sketch, x: str) -> str:
    """A channel shuffle: Reshape, Transpose, Reshape."""
    shape = ranked(s, x, 3)
    divisors = [n for n in range(2, shape[1]) if shape[1] % n == 0]
    if not divisors:
        raise Rejected("prime")
    groups = s.one(divisors)
    y = s.add("Reshape", x, s.ints(shape[0], groups, shape[1] // groups, *shape[2:]))
    y = s.add("Transpose", y, perm=[0, 2, 1, *range(3, len(shape) + 1)])
    return s.add("Reshape", y, s.ints(shape[0], -1, *shape[2:]))


def reshape_by_shape(s: Sketch, x: str) -> str:
    """Reshape to sizes that the graph computes from Shape, as exporters write a view."""
    shape = ranked(s, x, 2)
    sizes = s.add("Shape", x)
    first = s.add("Gather", sizes, s.const(np.int64(0)), axis=0)
    if s.opset >= 13:
        first = s.add("Unsqueeze", first, s.ints(0))
    else:
        first = s.add("Unsqueeze", first, axes=[0])
    rest = s.ints(-1) if s.chance(0.5) else s.ints(-1, shape[-1])
    return s.add("Reshape", x, s.add("Concat", first, rest, axis=0))


def flatten(s: Sketch, x: str) -> str:
    return s.add("Flatten", x, axis=axis_of(s, len(ranked(s, x))))


def squeeze(s: Sketch, x: str) -> str:
    shape = ranked(s, x)
    ones = [i for i, n in enumerate(shape) if n == 1]
    if not ones:
        raise Rejected("no axis of one")
    axes = s.one(([s.one(ones)], ones))
    if s.opset < 13:
        return s.add("Squeeze", x, axes=axes)
    return s.add("Squeeze", x, *([s.ints(*axes)] if s.chance(0.8) else []))


def unsqueeze(s: Sketch, x: str) -> str:
    rank = len(s.shape(x))
    if rank > 4:
        raise Rejected("rank")
    axis = s.between(0, rank)
    return (
        s.add("Unsqueeze", x, s.ints(axis)) if s.opset >= 13 else s.add("Unsqueeze", x, axes=[axis])
    )


def expand(s: Sketch, x: str) -> str:
    if s.opset < 8:
        raise Rejected("Expand")
    shape = s.shape(x)
    wide = [s.between(2, 3) if n == 1 and s.chance(0.7) else n for n in shape]
    if s.chance(0.2) and len(shape) < 5:
        wide.insert(0, 2)
    return s.add("Expand", x, s.ints(*wide))


def tile(s: Sketch, x: str) -> str:
    rank = len(ranked(s, x))
    return s.add("Tile", x, s.ints(*(s.one((1, 1, 2)) for _ in range(rank))))


def cut(s: Sketch, x: str) -> str:
    """Slice by any start, end and step, negative ones among them."""
    shape = ranked(s, x)
    axes = sorted(s.permutation(len(shape))[: s.between(1, min(2, len(shape)))])
    starts, ends, steps = [], [], []
    for axis in axes:
        n = shape[axis]
        start = s.between(0, n - 1)
        end = s.one((s.between(start + 1, n), n + 5, 2**31 - 1, 2**63 - 1))
        step = 1 if s.opset < 10 else s.one((1, 1, 1, 2, -1))
        if step < 0:
            start, end = n - 1, s.one((-(2**31), -n - 1, 0 if n > 1 else -n - 1))
        starts.append(start - n if step > 0 and s.chance(0.3) else start)
        ends.append(end)
        steps.append(step)
    if s.opset < 10:
        return s.add("Slice", x, axes=axes, starts=starts, ends=ends)
    return s.add("Slice", x, s.ints(*starts), s.ints(*ends), s.ints(*axes), s.ints(*steps))


def split(s: Sketch, x: str) -> str:
    """The parts join again in another order, or one of them is left out."""
    shape = ranked(s, x, 2)
    axis = 1 if s.chance(0.6) else s.between(0, len(shape) - 1)
    n = shape[axis]
    if n < 2:
        raise Rejected("one")
    first = s.between(1, n - 1)
    parts = [first, n - first]
    if s.opset < 13:
        names = s.add_many("Split", [x], 2, axis=axis, split=parts)
    else:
        names = s.add_many("Split", [x, s.ints(*parts)], 2, axis=axis)
    if s.chance(0.5):
        names[0] = s.add("Relu", names[0])
    if s.chance(0.5):
        names.reverse()
    return s.add("Concat", *names, axis=axis) if s.chance(0.7) else names[0]


def concat(s: Sketch, x: str) -> str:
    """With an earlier value, a constant, or itself, along any axis that fits."""
    shape = ranked(s, x)
    axis = 1 if len(shape) > 1 and s.chance(0.5) else s.between(0, len(shape) - 1)
    trimmed = (*shape[:axis], *shape[axis + 1 :])
    fits = [
        name
        for name, array in s.values.items()
        if array.ndim == len(shape)
        and array.dtype == np.float32
        and (*array.shape[:axis], *array.shape[axis + 1 :]) == trimmed
    ]
    other = s.one(fits)
    if s.chance(0.2):
        other = s.const(s.normal(*shape))
    pair = [x, other] if s.chance(0.5) else [other, x]
    return s.add(
        "Concat", *pair, axis=axis - len(shape) if s.opset >= 11 and s.chance(0.3) else axis
    )


def gather(s: Sketch, x: str) -> str:
    shape = ranked(s, x)
    axis = 1 if len(shape) > 1 and s.chance(0.5) else s.between(0, len(shape) - 1)
    n = shape[axis]
    match s.between(0, 3):
        case 0:
            index = np.array(s.permutation(n), np.int64)
        case 1:
            index = np.array(s.between(0, n - 1), np.int64)
        case 2:
            index = s.rng.integers(0, n, size=(2, 2))
        case _:
            index = s.rng.integers(0, n, size=s.between(1, n))
    if s.opset >= 11 and s.chance(0.3):
        index = index - n
    if s.chance(0.2):
        index = index.astype(np.int32)
    return s.add("Gather", x, s.const(index), axis=axis)


def gather_others(s: Sketch, x: str) -> str:
    shape = ranked(s, x, 2)
    if s.opset < 12:
        raise Rejected("GatherElements")
    if s.chance(0.5):
        axis = s.between(0, len(shape) - 1)
        index = s.rng.integers(0, shape[axis], size=shape)
        return s.add("GatherElements", x, s.const(index), axis=axis)
    rows = s.between(1, 4)
    index = np.stack([s.rng.integers(0, n, size=rows) for n in shape[:2]], -1)
    return s.add("GatherND", x, s.const(index))


def scatter(s: Sketch, x: str) -> str:
    shape = ranked(s, x, 2)
    if s.opset < 11:
        raise Rejected("Scatter")
    if s.chance(0.4):
        axis = s.between(0, len(shape) - 1)
        index = np.argsort(s.rng.random(shape), axis=axis)
        updates = s.const(s.normal(*shape))
        return s.add("ScatterElements", x, s.const(index), updates, axis=axis)
    rows = s.permutation(shape[0])[: s.between(1, shape[0])]
    index = s.const(np.array(rows, np.int64)[:, None])
    if s.chance(0.5):
        return s.add("ScatterND", x, index, s.const(s.normal(len(rows), *shape[1:])))
    part = s.add("Gather", x, s.const(np.array(rows, np.int64)), axis=0)
    return s.add("ScatterND", x, index, s.add("Relu", part))


def others(s: Sketch, x: str) -> str:
    """What few networks have."""
    shape = ranked(s, x)
    match s.between(0, 7):
        case 0:
            if s.opset < 14:
                raise Rejected("Trilu")
            ranked(s, x, 2)
            return s.add("Trilu", x, s.const(np.int64(s.between(-1, 1))), upper=s.between(0, 1))
        case 1:
            if s.opset < 11:
                raise Rejected("CumSum")
            axis = s.const(np.int64(axis_of(s, len(shape))))
            return s.add("CumSum", x, axis, exclusive=s.between(0, 1), reverse=s.between(0, 1))
        case 2:
            if s.opset < 11:
                raise Rejected("TopK")
            most = s.between(1, shape[-1])
            return s.add_many("TopK", [x, s.ints(most)], 2, axis=-1)[0]
        case 3:
            kept = s.rng.random(shape[-1]) < 0.6
            if s.opset < 9 or not kept.any():
                raise Rejected("Compress")
            return s.add("Compress", x, s.const(kept), axis=len(shape) - 1)
        case 4:
            if s.opset < 18:
                raise Rejected("CenterCropPad")
            sizes = [s.between(1, n + 2) for n in shape]
            return s.add("CenterCropPad", x, s.ints(*sizes))
        case 5:  # numbers that follow from the size
            count = s.add("Cast", s.add("Size", x), to=FLOAT)
            return s.add("Div", x, count)
        case 6:
            if s.opset < 9:
                raise Rejected("ConstantOfShape")
            return s.add("Add", x, s.add("ConstantOfShape", s.add("Shape", x)))
        case _:
            if len(shape) < 2 or s.opset < 10:
                raise Rejected("ReverseSequence")
            lengths = s.rng.integers(1, shape[0] + 1, size=shape[1])
            return s.add("ReverseSequence", x, s.const(lengths))


def best(s: Sketch, x: str) -> str:
    """ArgMax or ArgMin, as numbers."""
    rank = len(ranked(s, x))
    kind = s.one(("ArgMax", "ArgMin"))
    y = s.add(kind, x, axis=axis_of(s, rank), keepdims=s.between(0, 1))
    return s.add("Cast", s.add("Add", y, s.const(np.int64(1))), to=FLOAT)


REDUCTIONS = (
    *("ReduceMean", "ReduceMean", "ReduceMean", "ReduceSum", "ReduceSum", "ReduceMax"),
    *("ReduceMin", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceSumSquare", "ReduceProd"),
)


def reduce(s: Sketch, x: str) -> str:
    rank = len(ranked(s, x))
    kind = s.one(REDUCTIONS)
    axes = sorted(s.permutation(rank)[: s.between(1, rank)])
    if rank > 2 and s.chance(0.4):
        axes = list(range(2, rank))
    if s.opset >= 11:
        axes = [a - rank if s.chance(0.3) else a for a in axes]
    keep = {"keepdims": s.between(0, 1)} if s.chance(0.8) else {}
    if s.opset < (13 if kind == "ReduceSum" else 18):
        return s.add(kind, x, axes=axes, **keep)
    if s.chance(0.1):
        return s.add(kind, x, **keep)
    return s.add(kind, x, s.ints(*axes), **keep)


MOVEMENT = [
    *(transpose, transpose, reshape, reshape, shuffle, reshape_by_shape, flatten, squeeze),
    *(unsqueeze, expand, tile, cut, cut, split, split, concat, concat, gather, gather_others),
    *(scatter, others, best, reduce, reduce, reduce),
]
