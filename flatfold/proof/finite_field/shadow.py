"""Shadow execution: floating-point arrays that carry elements of the prime field along.

A `ShadowedArray` holds floats and, for each, an element of F_p. NumPy code that runs on it computes
both: the floats make the decisions (comparisons, zeros, the largest of a window), and the elements
show whether the algebra is right, because nothing rounds in F_p. A function that is no arithmetic
(square root, Exp, Tanh) becomes an arbitrary function on the elements: equal elements are mapped to
equal elements, and nothing else is assumed. What is proved therefore holds for any function in its
place.

An operation that would lose the shadow raises TypeError or ValueError.
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

ValueAndShadow = tuple[npt.NDArray[Any], Elements]

LEAST_CACHED = 1 << 12  # elements; the shadows of smaller arrays are computed each time


@dataclasses.dataclass
class _Draw:
    """A key, and the arrays shadowed with it so far, by id; holding the array keeps its id."""

    key: int = 0
    arrays: dict[int, tuple[npt.NDArray[Any], ShadowedArray]] = dataclasses.field(
        default_factory=dict
    )


_DRAW: ContextVar[_Draw | None] = ContextVar("draw", default=None)


def current_key() -> int:
    """The key by which numbers are mapped to elements; 0 outside `using_key`."""
    draw = _DRAW.get()
    return 0 if draw is None else draw.key


@contextmanager
def using_key(number: int) -> Iterator[None]:
    """Within the block, map numbers to elements by key `number`: another key is another draw."""
    token = _DRAW.set(_Draw(number))
    try:
        yield
    finally:
        _DRAW.reset(token)


class ShadowedArray(NDArrayOperatorsMixin):
    """`value`: floating-point numbers. `shadow`: elements of F_p, in an array of the same shape."""

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

    def __format__(self, specification: str) -> str:
        return format(self.value[()], specification)  # for messages

    def __len__(self) -> int:
        return len(self.value)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        """Itself: onnx_ir's tensors return it as it is, and NumPy raises, so no shadow is lost."""
        return self

    def __getitem__(self, index: Any) -> ShadowedArray:
        return ShadowedArray(self.value[index], self.shadow[index])

    def __setitem__(self, index: Any, new: Any) -> None:
        value, shadow = value_and_shadow(new)
        self.value[index], self.shadow[index] = value, shadow

    def astype(self, dtype: Any, copy: bool = True, **_: Any) -> ShadowedArray:
        value = self.value.astype(dtype, copy=copy)
        return ShadowedArray(value, self.shadow if value is self.value else self.shadow.copy())

    def reshape(self, *shape: Any, **options: Any) -> ShadowedArray:
        value = self.value.reshape(*shape, **options)
        return ShadowedArray(value, self.shadow.reshape(*shape, **options))

    def transpose(self, *order: Any) -> ShadowedArray:
        return ShadowedArray(self.value.transpose(*order), self.shadow.transpose(*order))

    def swapaxes(self, one: int, two: int) -> ShadowedArray:
        return ShadowedArray(self.value.swapaxes(one, two), self.shadow.swapaxes(one, two))

    def squeeze(self, axis: Any = None) -> ShadowedArray:
        return ShadowedArray(self.value.squeeze(axis), self.shadow.squeeze(axis))

    def copy(self) -> ShadowedArray:
        return ShadowedArray(self.value.copy(), self.shadow.copy())

    def sum(self, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> ShadowedArray:
        value = self.value.sum(axis, dtype, keepdims=keepdims)
        return ShadowedArray(value, field.total(self.shadow, axis=axis, keepdims=keepdims))

    def mean(self, axis: Any = None, keepdims: bool = False) -> Any:
        whole = self.sum(axis, keepdims=keepdims)
        return whole / (self.size // max(whole.size, 1))

    def any(self, **options: Any) -> Any:
        return self.value.any(**options)

    def max(self, axis: Any = None) -> ShadowedArray:
        """The largest values along `axis`, each with its own shadow."""
        axes = range(self.ndim) if axis is None else np.atleast_1d(axis) % self.ndim
        kept = [a for a in range(self.ndim) if a not in axes]
        flat = self.transpose([*kept, *axes]).reshape([self.shape[a] for a in kept] + [-1])
        where = np.expand_dims(flat.value.argmax(-1), -1)
        return ShadowedArray(
            *(np.take_along_axis(part, where, -1)[..., 0] for part in value_and_shadow(flat))
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None) -> Any:
        result = apply_ufunc(ufunc, method, inputs)
        if out is None or result is NotImplemented:
            return result
        out[0][...] = result
        return out[0]

    def __array_function__(self, function: Any, _: Any, args: Any, kwargs: Any) -> Any:
        return apply_function(function, args, kwargs)


def shadowed(array: npt.ArrayLike | ShadowedArray) -> ShadowedArray:
    """The array with the elements that its numbers are mapped to.

    The result may be shared between callers; do not write to it.
    """

    if isinstance(array, ShadowedArray):
        return array
    draw = _DRAW.get()
    if draw is None or not isinstance(array, np.ndarray) or array.size < LEAST_CACHED:
        return ShadowedArray(*value_and_shadow(array))
    if id(array) not in draw.arrays:
        draw.arrays[id(array)] = (array, ShadowedArray(*value_and_shadow(array)))
    return draw.arrays[id(array)][1]


def value_and_shadow(x: Any) -> ValueAndShadow:
    """(numbers, elements) of a shadowed array, or of plain numbers."""
    if isinstance(x, ShadowedArray):
        return x.value, x.shadow
    array = np.asarray(x)
    if not array.any():
        return array, np.zeros(array.shape, np.int64)
    return array, field.image(array, current_key())


def _component_of_each(args: Any, which: int) -> Any:
    """The arguments with the values (0) or the shadow (1) in place of each shadowed array."""
    if not isinstance(args, tuple):
        return args
    return tuple(value_and_shadow(a)[which] if isinstance(a, ShadowedArray) else a for a in args)


def apply_ufunc(ufunc: Any, method: str, inputs: Any) -> Any:
    """ufunc(*inputs): a shadowed array, or plain numbers where the ufunc is used for decisions."""
    if ufunc is np.add and method == "at":
        return _add_at(*inputs)
    if method != "__call__":
        return NotImplemented
    if ufunc in DECIDING_UFUNCS:
        return ufunc(*_component_of_each(inputs, 0))
    values = _component_of_each(inputs, 0)  # a Python number stays one: it widens no array
    shadows = [value_and_shadow(x)[1] for x in inputs]
    rule = FIELD_OPERATIONS.get(ufunc)
    if ufunc in SELECTING_UFUNCS:
        first = np.asarray(ufunc(*values) == values[0])
        return ShadowedArray(ufunc(*values), np.where(first, *shadows))
    if ufunc is np.power:
        exponent = int(values[1])
        if exponent != values[1] or exponent < 1:
            return NotImplemented
        return ShadowedArray(values[0] ** exponent, field.power(shadows[0], exponent))
    if rule is None and ufunc.nin == 1:  # an arbitrary function of the element
        key = zlib.crc32(ufunc.__name__.encode()) + current_key()
        flat = np.ascontiguousarray(shadows[0]).reshape(-1)
        value = ufunc(values[0])
        if value.dtype == object:  # of a Python function
            value = value.astype(np.float64)
        return ShadowedArray(value, field.mixed(flat, key).reshape(values[0].shape))
    return NotImplemented if rule is None else ShadowedArray(ufunc(*values), rule(*shadows))


def apply_function(function: Any, args: Any, kwargs: Any) -> Any:
    """function(*args, **kwargs) for any other function of NumPy."""
    if function in MOVING_FUNCTIONS:
        return ShadowedArray(
            *(function(*_component_of_each(args, part), **kwargs) for part in (0, 1))
        )
    if function in DECIDING_FUNCTIONS:
        return function(*_component_of_each(args, 0), **kwargs)
    rule = OTHER_FUNCTIONS.get(function)
    return NotImplemented if rule is None else rule(*args, **kwargs)


def _add_at(target: ShadowedArray, index: Any, new: Any) -> None:
    for part, more in zip(value_and_shadow(target), value_and_shadow(new), strict=True):
        np.add.at(part, index, more)
    target.shadow[...] = field.reduced(target.shadow)


def _divide(a: Elements, b: Elements) -> Elements:
    return field.multiply(a, field.inverse(b))


FIELD_OPERATIONS: dict[Any, Callable[..., Elements]] = {
    np.add: field.add,
    np.subtract: field.subtract,
    np.multiply: field.multiply,
    np.true_divide: _divide,
    np.matmul: field.matmul,
    np.negative: field.negative,
    np.square: lambda a: field.multiply(a, a),
    np.positive: lambda a: a,
}
SELECTING_UFUNCS = (np.maximum, np.minimum)
DECIDING_UFUNCS = (
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


def _where(condition: Any, a: Any, b: Any) -> ShadowedArray:
    return ShadowedArray(
        *(
            np.where(condition, *both)
            for both in zip(value_and_shadow(a), value_and_shadow(b), strict=True)
        )
    )


def _join(join: Any, arrays: Any, axis: int) -> ShadowedArray:
    return ShadowedArray(
        *(join(parts, axis) for parts in zip(*map(value_and_shadow, arrays), strict=True))
    )


def _clip(x: Any, low: Any, high: Any) -> Any:
    return np.minimum(np.maximum(x, low), high)


def _einsum(subscripts: str, *operands: Any) -> ShadowedArray:
    """With one operand, a view; with two, sums of at most MOST_TERMS products, which are exact."""
    values, shadows = zip(*map(value_and_shadow, operands), strict=True)
    value = np.einsum(subscripts, *values)
    if len(operands) == 1:
        return ShadowedArray(value, np.einsum(subscripts, *shadows))
    terms = max(shadow.size for shadow in shadows) // max(value.size, 1)
    if len(operands) != 2 or terms > field.MOST_TERMS:
        raise TypeError(f"a sum of {terms} products of {len(operands)} factors")
    return ShadowedArray(value, field.by_limbs(lambda a, b: np.einsum(subscripts, a, b), *shadows))


def _pad(
    x: ShadowedArray, width: Any, mode: str = "constant", constant_values: float = 0
) -> ShadowedArray:
    fill, shadow = value_and_shadow(constant_values)
    value = np.pad(x.value, width, mode, constant_values=float(fill))  # type: ignore[call-overload]
    return ShadowedArray(value, np.pad(x.shadow, width, constant_values=int(shadow)))


MOVING_FUNCTIONS = (
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
DECIDING_FUNCTIONS = (
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
OTHER_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.clip: _clip,
    np.concatenate: lambda arrays, axis=0: _join(np.concatenate, arrays, axis),
    np.einsum: _einsum,
    np.empty_like: lambda x, dtype=None: ShadowedArray(
        np.empty_like(x.value, dtype), x.shadow.copy()
    ),
    np.max: lambda x, axis=None: x.max(axis),
    np.mean: lambda x, axis=None, keepdims=False: x.mean(axis, keepdims),
    np.ones_like: lambda x: shadowed(np.ones(x.shape)),
    np.pad: _pad,
    np.stack: lambda arrays, axis=0: _join(np.stack, arrays, axis),
    np.sum: lambda x, axis=None, dtype=None, keepdims=False: x.sum(axis, dtype, keepdims),
    np.where: _where,
    np.ones: lambda shape, **_: shadowed(np.ones(shape)),  # NumPy passes its defaults by keyword
    np.zeros: lambda shape: ShadowedArray(np.zeros(shape), np.zeros(shape, np.int64)),
}
