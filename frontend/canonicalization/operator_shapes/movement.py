"""Output sizes of operators that move, repeat, join, cut and resize."""

from __future__ import annotations

import numpy as np

from flatfold.frontend.canonicalization.operator_shapes.rule import (
    Operands,
    Sizes,
    axis_in,
    product,
    replaced,
    unknown,
)
from flatfold.frontend.canonicalization.symbolic_dims import Shapes, Size, broadcast


def same(operands: Operands) -> list[Sizes | None]:
    """Every output has the shape of the first input."""
    return operands.outputs(operands.sizes(0))


def broadcasted(operands: Operands) -> list[Sizes | None]:
    """The common shape of all inputs."""
    return [_common([operands.sizes(i) for i in range(len(operands.node.inputs))])]


def quantized_broadcasted(operands: Operands) -> list[Sizes | None]:
    """As `broadcasted`, of inputs each with a scale and a zero point."""
    return [_common([operands.sizes(0), operands.sizes(3)])]


def _common(shapes: list[Sizes | None]) -> Sizes | None:
    known = [shape for shape in shapes if shape is not None]
    return broadcast(known) if known and len(known) == len(shapes) else None


def transpose(operands: Operands) -> list[Sizes | None]:
    before, perm = operands.sizes(0), operands.integers("perm")
    if before is None:
        return [unknown(len(perm)) if perm else None]
    if perm is not None and sorted(perm) != list(range(len(before))):
        return []
    return [tuple(before[axis] for axis in perm or range(len(before) - 1, -1, -1))]


def flatten(operands: Operands) -> list[Sizes | None]:
    before, axis = operands.sizes(0), operands.integer("axis", 1)
    if before is None:
        return [unknown(2)]
    if not -len(before) <= axis <= len(before):
        return []
    axis = axis + len(before) if axis < 0 else axis
    return [(product(before[:axis]), product(before[axis:]))]


def reshape(operands: Operands) -> list[Sizes | None]:
    """A Reshape of which the element rules know nothing but the number of sizes."""
    if operands.named("shape"):  # before opset 5
        return []
    return [_rank_from_length(operands, 1)]


def expand(operands: Operands) -> list[Sizes | None]:
    """An Expand of which the element rules know nothing but the number of sizes."""
    return [_common([operands.sizes(0), _rank_from_length(operands, 1)])]


def filled(operands: Operands) -> list[Sizes | None]:
    """ConstantOfShape by a shape of which only the number of sizes is known."""
    return [_rank_from_length(operands, 0)]


def _rank_from_length(operands: Operands, i: int) -> Sizes | None:
    length = operands.sizes(i)
    known = length is not None and len(length) == 1 and isinstance(length[0], int)
    return unknown(int(str(length[0]))) if known and length is not None else None


def tile(operands: Operands) -> list[Sizes | None]:
    before, repeats = operands.sizes(0), operands.numbers("", 1)
    if before is None or repeats is None:
        return [before and unknown(len(before))]
    pairs = zip(before, repeats, strict=True)
    return [tuple(product([size, count]) for size, count in pairs)]


def concat(operands: Operands) -> list[Sizes | None]:
    parts = [operands.sizes(i) for i in range(len(operands.node.inputs))]
    known = [part for part in parts if part is not None]
    if not known:
        return []
    rank = len(known[0])
    axis = axis_in(operands.integer("axis", 1), rank)
    columns = list(zip(*known, strict=True))
    sizes: list[Size] = [_agreed(column) for column in columns]
    whole = len(known) == len(parts) and all(isinstance(size, int) for size in columns[axis])
    sizes[axis] = sum(int(size) for size in columns[axis]) if whole else None
    named = [size for size in columns[axis] if isinstance(size, str)]
    numbers = [size for size in columns[axis] if isinstance(size, int)]
    if len(known) == len(parts) and len(named) == 1 and len(numbers) == len(parts) - 1:
        sizes[axis] = operands.shapes.added(named[0], sum(numbers))
    if len(parts) == 1:
        return [parts[0]]
    return [tuple(sizes)]


def _agreed(sizes: tuple[Size, ...]) -> Size:
    """One of several sizes that are equal in a graph that runs, a number if there is one."""
    numbers = [size for size in sizes if isinstance(size, int)]
    return numbers[0] if numbers else sizes[0]


def split(operands: Operands) -> list[Sizes | None]:
    before, parts = operands.sizes(0), len(operands.node.outputs)
    if before is None:
        return []
    axis = axis_in(operands.integer("axis", 0), len(before))
    given = operands.given("split", 1)
    sizes: list[Size] = [None] * parts
    whole = before[axis]
    if given:
        sizes = [*(operands.numbers("split", 1) or sizes)]
    elif isinstance(whole, int):
        each = -(-whole // parts)
        last = whole - each * (parts - 1)
        if last < 0 or (last != each and not operands.named("num_outputs")):
            return []
        sizes = [*[each] * (parts - 1), last]
    return [replaced(before, axis, size) for size in sizes]


def pad(operands: Operands) -> list[Sizes | None]:
    before, pads = operands.sizes(0), operands.numbers("pads", 1)
    if before is None:
        return []
    if pads is None:
        return [unknown(len(before))]
    axes = list(range(len(before)))
    if operands.has(3):
        chosen = operands.numbers("", 3)
        if chosen is None:
            return [unknown(len(before))]
        axes = [axis_in(axis, len(before)) for axis in chosen]
    sizes = before
    for axis, begin, end in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        sizes = replaced(sizes, axis, operands.shapes.shifted(before[axis], begin + end))
    return [sizes]


def slice_(operands: Operands) -> list[Sizes | None]:
    before = operands.sizes(0)
    if before is None:
        return []
    starts, ends = operands.numbers("starts", 1), operands.numbers("ends", 2)
    count = len(starts or ends or ())
    axes = operands.numbers("axes", 3) if operands.given("axes", 3) else list(range(count))
    steps = operands.numbers("", 4) if operands.has(4) else [1] * count
    if axes is None:
        return [unknown(len(before))]
    if starts is None or ends is None or steps is None:
        cut = {axis_in(axis, len(before)) for axis in axes}
        if not axes:  # as many axes as there are bounds
            cut = set(range(len(before)))
        return [tuple(None if i in cut else size for i, size in enumerate(before))]
    sizes = before
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis = axis_in(axis, len(before))
        sizes = replaced(sizes, axis, _sliced(before[axis], start, end, step, operands.shapes))
    return [sizes]


def _sliced(size: Size, start: int, end: int, step: int, shapes: Shapes) -> Size:
    """The length of a range; of an open axis, where it has what is cut off from it."""
    if isinstance(size, int):
        return len(range(*slice(start, end, step).indices(size)))
    last = 0 if end >= np.iinfo(np.int32).max else end
    if size is None or step != 1 or start < 0 or last > 0 or (end == 0 and last == 0):
        return None
    return shapes.subtracted(size, start - last) if start - last else size


def squeeze(operands: Operands) -> list[Sizes | None]:
    before, axes = operands.sizes(0), operands.numbers("axes", 1)
    if before is None or (axes is None and operands.given("axes", 1)):
        return []
    if axes is None and not all(isinstance(size, int) for size in before):
        return []
    dropped = {i for i, size in enumerate(before) if size == 1}
    if axes is not None:
        dropped = {axis_in(axis, len(before)) for axis in axes}
    return [tuple(size for i, size in enumerate(before) if i not in dropped)]


def unsqueeze(operands: Operands) -> list[Sizes | None]:
    before, axes = operands.sizes(0), operands.numbers("axes", 1)
    if before is None:
        return []
    if axes is None:
        return [_unsqueezed_rank(operands, before)]
    rank = len(before) + len(axes)
    new, old = {axis_in(axis, rank) for axis in axes}, iter(before)
    return [tuple(1 if i in new else next(old) for i in range(rank))]


def _unsqueezed_rank(operands: Operands, before: Sizes) -> Sizes | None:
    added = _rank_from_length(operands, 1)
    return None if added is None else unknown(len(before) + len(added))


def depth_to_space(operands: Operands) -> list[Sizes | None]:
    before, block = operands.sizes(0), operands.integer("blocksize", 1)
    if before is None:
        return [unknown(4)]
    batch, channels, height, width = before
    deep = channels // block**2 if isinstance(channels, int) else None
    return [(batch, deep, product([height, block]), product([width, block]))]


def space_to_depth(operands: Operands) -> list[Sizes | None]:
    before, block = operands.sizes(0), operands.integer("blocksize", 1)
    if before is None:
        return [unknown(4)]
    batch, channels, *pixels = before
    wide = [size // block if isinstance(size, int) else None for size in pixels]
    return [(batch, product([channels, block**2]), *wide)]


def resize(operands: Operands) -> list[Sizes | None]:
    """Resize and Upsample: ``floor(scale * size)`` in single precision, or the sizes asked for."""
    before = operands.sizes(0)
    if before is None:
        return []
    axes = operands.integers("axes") or list(range(len(before)))
    axes = [axis_in(axis, len(before)) for axis in axes]
    if operands.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        kept = [None if i in axes else size for i, size in enumerate(before)]
        return [tuple(kept)]
    asked = operands.shapes.shape_operand(operands.node.inputs[3]) if operands.has(3) else None
    if asked is None:
        scales = _scales(operands, len(axes))
        pairs = zip(axes, scales, strict=True)
        asked = tuple(_scaled(before[axis], scale) for axis, scale in pairs)
    sizes = before
    for axis, size in zip(axes, asked, strict=True):
        sizes = replaced(sizes, axis, size)
    return [sizes]


def _scales(operands: Operands, count: int) -> list[float | None]:
    if operands.named("scales"):
        return list(operands.node.attributes["scales"].as_floats())
    sized = operands.has(3)
    last = len(operands.node.inputs) == 2
    scales = None if sized else operands.array(1 if last else 2)
    return [None] * count if scales is None else scales.ravel().tolist()


def _scaled(size: Size, scale: float | None) -> Size:
    if scale == 1.0:
        return size
    if scale is None or not isinstance(size, int):
        return None
    return int(np.floor(np.float32(scale) * np.float32(size)))


def center_crop_pad(operands: Operands) -> list[Sizes | None]:
    before, asked = operands.sizes(0), operands.numbers("", 1)
    if before is None:
        return []
    axes = operands.integers("axes") or list(range(len(before)))
    sizes = before
    for i, axis in enumerate(axes):
        sizes = replaced(sizes, axis_in(axis, len(before)), None if asked is None else asked[i])
    return [sizes]


def affine_grid(operands: Operands) -> list[Sizes | None]:
    asked = operands.numbers("", 1)
    if asked is None:
        return []
    return [(asked[0], *asked[2:], len(asked) - 2)]


def grid_sample(operands: Operands) -> list[Sizes | None]:
    before, grid = operands.sizes(0), operands.sizes(1)
    if before is None or grid is None:
        return [None if before is None else (*before[:2], *unknown(len(before) - 2))]
    return [(*before[:2], *grid[1:-1])]
