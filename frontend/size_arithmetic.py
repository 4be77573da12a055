"""Arithmetic on sizes, each an int, the name of a symbolic dimension, or None where unknown.

A named size is not negative. What two known sizes leave open is None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flatfold.frontend.shape_values import Size

__all__ = ["ELEMENTWISE", "bounded", "broadcast"]

_SAFE = 2**31  # beyond it arithmetic may wrap around, depending on the type


def bounded(size: Size) -> Size:
    """`size`, unless it is a number that does not fit into every integer type."""
    return None if isinstance(size, int) and not -_SAFE <= size < _SAFE else size


def broadcast(shapes: Sequence[Sequence[Size]]) -> tuple[Size, ...]:
    """The shape of a sum of tensors of `shapes`, in a graph that runs."""
    rank = max(len(shape) for shape in shapes)
    padded: list[list[Size]] = [[*[1] * (rank - len(shape)), *shape] for shape in shapes]
    columns = zip(*padded, strict=True)
    return tuple(_joint({size for size in sizes if size != 1}) for sizes in columns)


def _joint(sizes: set[Size]) -> Size:
    """The size of an axis from those that are not 1."""
    if len(sizes) < 2:
        return next(iter(sizes), 1)
    numbers = [size for size in sizes if isinstance(size, int)]
    return numbers[0] if len(numbers) == 1 else None


def _add(a: Size, b: Size) -> Size:
    if isinstance(a, int) and isinstance(b, int):
        return bounded(a + b)
    return b if a == 0 else a if b == 0 else None


def _sub(a: Size, b: Size) -> Size:
    if isinstance(a, int) and isinstance(b, int):
        return bounded(a - b)
    if b == 0:
        return a
    return 0 if a is not None and a == b else None


def _mul(a: Size, b: Size) -> Size:
    if isinstance(a, int) and isinstance(b, int):
        return bounded(a * b)
    if a == 0 or b == 0:
        return 0
    return b if a == 1 else a if b == 1 else None


def _div(a: Size, b: Size) -> Size:
    if isinstance(a, int) and isinstance(b, int):
        return a // b if a >= 0 and b > 0 else None
    return a if b == 1 else None


def _mod(a: Size, b: Size) -> Size:
    if isinstance(a, int) and isinstance(b, int):
        return a % b if a >= 0 and b > 0 else None
    return 0 if b == 1 else None


def _neg(a: Size) -> Size:
    return bounded(-a) if isinstance(a, int) else None


def _equal(a: Size, b: Size) -> Size:
    if a is None or b is None:
        return None
    if isinstance(a, int) == isinstance(b, int):
        return a == b if isinstance(a, int) or a == b else None
    number = a if isinstance(a, int) else b
    return False if isinstance(number, int) and number < 0 else None


def _where(condition: Size, a: Size, b: Size) -> Size:
    if not isinstance(condition, int):
        return a if a == b else None
    return a if condition else b


def _extreme(choose: Callable[..., int], nothing: int) -> Callable[..., Size]:
    """Min or Max; of a number up to 0 and a named size, argument `nothing` of the two."""

    def function(*sizes: Size) -> Size:
        result = sizes[0]
        for size in sizes[1:]:
            result = pair(result, size)
        return result

    def pair(a: Size, b: Size) -> Size:
        if isinstance(a, int) and isinstance(b, int):
            return choose(a, b)
        if a is None or b is None or a == b:
            return a if a == b else None
        number, name = (a, b) if isinstance(a, int) else (b, a)
        if not isinstance(number, int) or number > 0:
            return None
        return (number, name)[nothing]

    return function


ELEMENTWISE: dict[str, Callable[..., Size]] = {
    "Add": _add,
    "Sub": _sub,
    "Mul": _mul,
    "Div": _div,
    "Mod": _mod,
    "Neg": _neg,
    "Equal": _equal,
    "Where": _where,
    "Min": _extreme(min, 0),
    "Max": _extreme(max, 1),
}
