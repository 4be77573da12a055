"""An array with a shadow in the prime field: what NumPy code does to it, is done to both.

The floats make the decisions (comparisons, zeros, the largest of a window); the shadow says whether
the algebra is right, without rounding. Functions that are no arithmetic (square roots, Exp, Tanh)
are unknown functions of the shadow: the same element gives the same element, and nothing more is
known of it. So whoever proves with twins proves for every function in their place.

What would lose the shadow raises TypeError or ValueError: it cannot be lost unseen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

from flatfold.proof import field
from flatfold.proof.field import Elements

Parts = tuple[npt.NDArray[Any], Elements]

REMEMBERED = 1 << 12  # elements


@dataclasses.dataclass
class _Draw:
    """Which draw it is, and the twins of arrays so far; these are held, so that ids stay theirs."""

    key: int = 0
    twins: dict[int, tuple[npt.NDArray[Any], Twin]] = dataclasses.field(default_factory=dict)


_DRAW: ContextVar[_Draw | None] = ContextVar("draw", default=None)


def key() -> int:
    """Which draw it is that numbers stand for elements in."""
    draw = _DRAW.get()
    return 0 if draw is None else draw.key


@contextmanager
def keyed(number: int) -> Iterator[None]:
    """What numbers stand for, within: another key is another draw."""
    token = _DRAW.set(_Draw(number))
    try:
        yield
    finally:
        _DRAW.reset(token)


class Twin(NDArrayOperatorsMixin):
    """`value`, floating-point numbers, and `shadow`, elements of F_p of the same shape."""

    __slots__ = ("shadow", "value")

    def __init__(self, value: npt.ArrayLike, shadow: npt.ArrayLike) -> None:
        self.value = np.asarray(value)
        self.shadow = np.asarray(shadow)

    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)
    size = property(lambda self: self.value.size)
    dtype = property(lambda self: self.value.dtype)
    nbytes = property(lambda self: self.value.nbytes)
    T = property(lambda self: self.transpose())

    def __float__(self) -> float:
        raise TypeError("an attribute has single precision")

    def __format__(self, how: str) -> str:
        return format(self.value[()], how)  # for messages

    def __len__(self) -> int:
        return len(self.value)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        """For onnx_ir, whose tensors hand out what this returns; NumPy refuses it, as it should."""
        return self

    def __getitem__(self, index: Any) -> Twin:
        return Twin(self.value[index], self.shadow[index])

    def __setitem__(self, index: Any, new: Any) -> None:
        value, shadow = parts_of(new)
        self.value[index], self.shadow[index] = value, shadow

    def astype(self, dtype: Any, copy: bool = True, **_: Any) -> Twin:
        value = self.value.astype(dtype, copy=copy)
        return Twin(value, self.shadow if value is self.value else self.shadow.copy())

    def reshape(self, *shape: Any, **how: Any) -> Twin:
        return Twin(self.value.reshape(*shape, **how), self.shadow.reshape(*shape, **how))

    def transpose(self, *order: Any) -> Twin:
        return Twin(self.value.transpose(*order), self.shadow.transpose(*order))

    def swapaxes(self, one: int, two: int) -> Twin:
        return Twin(self.value.swapaxes(one, two), self.shadow.swapaxes(one, two))

    def squeeze(self, axis: Any = None) -> Twin:
        return Twin(self.value.squeeze(axis), self.shadow.squeeze(axis))

    def copy(self) -> Twin:
        return Twin(self.value.copy(), self.shadow.copy())

    def sum(self, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Twin:
        value = self.value.sum(axis, dtype, keepdims=keepdims)
        return Twin(value, field.total(self.shadow, axis=axis, keepdims=keepdims))

    def mean(self, axis: Any = None, keepdims: bool = False) -> Any:
        whole = self.sum(axis, keepdims=keepdims)
        return whole / (self.size // max(whole.size, 1))

    def any(self, **how: Any) -> Any:
        return self.value.any(**how)

    def max(self, axis: Any = None) -> Twin:
        """The largest, with its own shadow."""
        axes = range(self.ndim) if axis is None else np.atleast_1d(axis) % self.ndim
        kept = [a for a in range(self.ndim) if a not in axes]
        flat = self.transpose([*kept, *axes]).reshape([self.shape[a] for a in kept] + [-1])
        where = np.expand_dims(flat.value.argmax(-1), -1)
        return Twin(*(np.take_along_axis(part, where, -1)[..., 0] for part in parts_of(flat)))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None) -> Any:
        from flatfold.proof.twin_functions import applied

        found = applied(ufunc, method, inputs)
        if out is None or found is NotImplemented:
            return found
        out[0][...] = found
        return out[0]

    def __array_function__(self, function: Any, _: Any, args: Any, kwargs: Any) -> Any:
        from flatfold.proof.twin_functions import called

        return called(function, args, kwargs)


def twin(array: npt.ArrayLike | Twin) -> Twin:
    """The array with the elements that stand for its numbers. Shared: not to be written to."""
    if isinstance(array, Twin):
        return array
    draw = _DRAW.get()
    if draw is None or not isinstance(array, np.ndarray) or array.size < REMEMBERED:
        return Twin(*parts_of(array))
    if id(array) not in draw.twins:
        draw.twins[id(array)] = (array, Twin(*parts_of(array)))
    return draw.twins[id(array)][1]


def parts_of(x: Any) -> Parts:
    """(numbers, elements) of a twin, or of plain numbers."""
    if isinstance(x, Twin):
        return x.value, x.shadow
    array = np.asarray(x)
    if not array.any():
        return array, np.zeros(array.shape, np.int64)
    return array, field.image(array, key())
