"""What the functions of NumPy do to twins: those that this package calls, and no other."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from flatfold.proof import field
from flatfold.proof.field import Elements
from flatfold.proof.twin import Twin, key, parts_of, twin


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
