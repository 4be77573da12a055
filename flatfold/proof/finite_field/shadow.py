"""An array with a shadow in the prime field: what NumPy code does to it, is done to both.

The floats make the decisions (comparisons, zeros, the largest of a window); the shadow says whether
the algebra is right, without rounding. Functions that are no arithmetic (square roots, Exp, Tanh)
are unknown functions of the shadow: the same element gives the same element, and nothing more is
known of it. So whoever proves with twins proves for every function in their place.

What would lose the shadow raises TypeError or ValueError: it cannot be lost unseen.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

from flatfold.proof.finite_field import field
from flatfold.proof.finite_field.field import Elements

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

        found = applied(ufunc, method, inputs)
        if out is None or found is NotImplemented:
            return found
        out[0][...] = found
        return out[0]

    def __array_function__(self, function: Any, _: Any, args: Any, kwargs: Any) -> Any:

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


def _parts_in(args: Any, which: int) -> Any:
    """The arguments with one of its parts in place of each twin."""
    if isinstance(args, tuple):
        return tuple(parts_of(a)[which] if isinstance(a, Twin) else a for a in args)
    return args


def applied(ufunc: Any, method: str, inputs: Any) -> Any:
    """What a universal function gives for twins: one, or plain numbers where it only decides."""
    if ufunc is np.add and method == "at":
        return _added_at(*inputs)
    if method != "__call__":
        return NotImplemented
    if ufunc in PLAIN:
        return ufunc(*_parts_in(inputs, 0))
    values = _parts_in(inputs, 0)  # a Python number stays one: it widens no array
    shadows = [parts_of(x)[1] for x in inputs]
    rule = RULES.get(ufunc)
    if ufunc in CHOOSING:
        first = np.asarray(ufunc(*values) == values[0])
        return Twin(ufunc(*values), np.where(first, *shadows))
    if ufunc is np.power:
        exponent = int(values[1])
        if exponent != values[1] or exponent < 1:
            return NotImplemented
        return Twin(values[0] ** exponent, field.power(shadows[0], exponent))
    if rule is None and ufunc.nin == 1:  # an unknown function of the element
        own = zlib.crc32(ufunc.__name__.encode()) + key()
        flat = np.ascontiguousarray(shadows[0]).reshape(-1)
        return Twin(ufunc(values[0]), field.mixed(flat, own).reshape(values[0].shape))
    return NotImplemented if rule is None else Twin(ufunc(*values), rule(*shadows))


def called(function: Any, args: Any, kwargs: Any) -> Any:
    """What any other function of NumPy gives for twins."""
    if function in SAME:
        return Twin(*(function(*_parts_in(args, part), **kwargs) for part in (0, 1)))
    if function in DECIDED:
        return function(*_parts_in(args, 0), **kwargs)
    own = OWN.get(function)
    return NotImplemented if own is None else own(*args, **kwargs)


def _added_at(target: Twin, index: Any, new: Any) -> None:
    for part, more in zip(parts_of(target), parts_of(new), strict=True):
        np.add.at(part, index, more)
    target.shadow[...] = field.reduced(target.shadow)


def _divide(a: Elements, b: Elements) -> Elements:
    return field.multiply(a, field.inverse(b))


RULES: dict[Any, Callable[..., Elements]] = {
    np.add: field.add,
    np.subtract: field.subtract,
    np.multiply: field.multiply,
    np.true_divide: _divide,
    np.matmul: field.matmul,
    np.negative: field.negative,
    np.square: lambda a: field.multiply(a, a),
    np.positive: lambda a: a,
}
CHOOSING = (np.maximum, np.minimum)
PLAIN = (
    np.equal,
    np.not_equal,
    np.less,
    np.less_equal,
    np.greater,
    np.greater_equal,
    np.isfinite,
    np.isnan,
    np.signbit,
    np.absolute,
    np.rint,
)


def _where(condition: Any, a: Any, b: Any) -> Twin:
    return Twin(
        *(np.where(condition, *both) for both in zip(parts_of(a), parts_of(b), strict=True))
    )


def _together(join: Any, arrays: Any, axis: int) -> Twin:
    return Twin(*(join(parts, axis) for parts in zip(*map(parts_of, arrays), strict=True)))


def _clip(x: Any, low: Any, high: Any) -> Any:
    return np.minimum(np.maximum(x, low), high)


def _einsum(subscripts: str, *operands: Any) -> Twin:
    """Of one operand, a view; of two, a sum of so few products that limbs add up exactly."""
    values, shadows = zip(*map(parts_of, operands), strict=True)
    value = np.einsum(subscripts, *values)
    if len(operands) == 1:
        return Twin(value, np.einsum(subscripts, *shadows))
    terms = max(shadow.size for shadow in shadows) // max(value.size, 1)
    if len(operands) != 2 or terms > field.MOST_TERMS:
        raise TypeError(f"a sum of {terms} products of {len(operands)} factors")
    return Twin(value, field.by_limbs(lambda a, b: np.einsum(subscripts, a, b), *shadows))


def _pad(x: Twin, width: Any, mode: str = "constant", constant_values: float = 0) -> Twin:
    fill, shadow = parts_of(constant_values)
    value = np.pad(x.value, width, mode, constant_values=float(fill))  # type: ignore[call-overload]
    return Twin(value, np.pad(x.shadow, width, constant_values=int(shadow)))


SAME = (
    np.broadcast_to,
    np.copy,
    np.expand_dims,
    np.flip,
    np.lib.stride_tricks.sliding_window_view,
    np.moveaxis,
    np.repeat,
    np.swapaxes,
    np.take,
    np.take_along_axis,
    np.transpose,
    np.zeros_like,
)
DECIDED = (
    np.all,
    np.any,
    np.argmax,
    np.argmin,
    np.array_equal,
    np.count_nonzero,
    np.ndim,
    np.shape,
    np.size,
)
OWN: dict[Any, Callable[..., Any]] = {
    np.clip: _clip,
    np.concatenate: lambda arrays, axis=0: _together(np.concatenate, arrays, axis),
    np.einsum: _einsum,
    np.empty_like: lambda x, dtype=None: Twin(np.empty_like(x.value, dtype), x.shadow.copy()),
    np.max: lambda x, axis=None: x.max(axis),
    np.mean: lambda x, axis=None, keepdims=False: x.mean(axis, keepdims),
    np.ones_like: lambda x: twin(np.ones(x.shape)),
    np.pad: _pad,
    np.stack: lambda arrays, axis=0: _together(np.stack, arrays, axis),
    np.sum: lambda x, axis=None, dtype=None, keepdims=False: x.sum(axis, dtype, keepdims),
    np.where: _where,
    np.ones: lambda shape, **_: twin(np.ones(shape)),  # by keyword it is given what is default
    np.zeros: lambda shape: Twin(np.zeros(shape), np.zeros(shape, np.int64)),
}
