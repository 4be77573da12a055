"""Arithmetic in the prime field F_p, p = 2^31 - 1, on int64 arrays, at BLAS speed and exact.

A matrix product splits one factor into limbs of 11 bits: a product of a number below 2^31 and a
limb is below 2^42, and 2^11 of them add up to less than 2^53, which float64 holds exactly. So a
field product is three float64 products for each 2,048 columns.

Numbers enter the field by `image`, which keeps what rewrites rely on: zero, signs, small whole
numbers, halves and 1/n; any other number becomes an element of its own, drawn uniformly by a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

PRIME = 2**31 - 1
LIMB = 11  # bits
SHIFTS = tuple(range(0, 31, LIMB))
MOST_TERMS = 1 << (53 - 31 - LIMB)  # products of an element and a limb that add up exactly
FEW = 1 << 8  # whole numbers below it, times a power of two, keep their value
BLOCK = 1 << 14  # numbers
MOST_PARTS = 1 << 16  # 1/n keeps its value up to this n

Elements = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def reduced(x: Elements) -> Elements:
    """x mod p for 0 <= x < 2^62: a Mersenne prime needs no division."""
    folded = (x & PRIME) + (x >> 31)
    folded -= PRIME * (folded >= PRIME)
    return folded


def add(a: Elements, b: Elements) -> Elements:
    return reduced(np.add(a, b))


def subtract(a: Elements, b: Elements) -> Elements:
    return reduced(np.subtract(a, b) + PRIME)


def negative(a: Elements) -> Elements:
    return reduced(PRIME - a)


def multiply(a: Elements, b: Elements) -> Elements:
    return reduced(np.multiply(a, b))


def total(a: Elements, **options: Any) -> Elements:
    """Sum along axes of fewer than 2^31 elements."""
    return reduced(np.asarray(np.sum(a, **options)))


def inverse(a: Elements) -> Elements:
    """a^(p - 2), which is 1/a by Fermat; 0 stays 0."""
    return power(a, PRIME - 2)


def power(a: Elements, exponent: int) -> Elements:
    result, square = np.ones_like(a), np.asarray(a)
    while exponent:
        if exponent & 1:
            result = multiply(result, square)
        square, exponent = multiply(square, square), exponent >> 1
    return result


def matmul(a: Elements, b: Elements) -> Elements:
    """a @ b, exactly."""
    if b.ndim == 1:
        column = matmul(a, b[:, None])
        return reduced(column[..., 0])
    if b.size > a.size:  # the smaller factor is the one that is split
        swapped = matmul(b.swapaxes(-1, -2), a.swapaxes(-1, -2))
        return np.swapaxes(swapped, -1, -2)
    result: Elements = np.zeros((), np.int64)
    for start in range(0, a.shape[-1], MOST_TERMS):
        part = slice(start, start + MOST_TERMS)
        limbs = np.concatenate(list(_limbs(b[..., part, :])), axis=-1)  # so that a is read once
        product = np.matmul(a[..., part].astype(np.float64), limbs)
        result = add(result, _joined(np.split(product, len(SHIFTS), axis=-1)))
    return result


def _limbs(b: Elements) -> Iterator[Floats]:
    return (((b >> shift) & ((1 << LIMB) - 1)).astype(np.float64) for shift in SHIFTS)


def _joined(parts: Iterable[Floats]) -> Elements:
    """What products with each limb add up to."""
    result: Elements = np.zeros((), np.int64)
    for shift, part in zip(SHIFTS, parts, strict=True):
        x = part.astype(np.int64)  # below 2^53, so that folded it is below 2^32
        result = result + (((x & PRIME) + (x >> 31)) << shift)
    return reduced(result)


def by_limbs(linear: Callable[[Floats, Floats], Floats], a: Elements, b: Elements) -> Elements:
    """linear(a, b), for a function that adds up at most `MOST_TERMS` products a[..] * b[..]."""
    whole = a.astype(np.float64)
    return _joined(linear(whole, limb) for limb in _limbs(b))


def image(values: npt.ArrayLike, key: int) -> Elements:
    """The element that stands for each number, the same for the same number and key.

    Exactly m * 2^e for |m| < 256 and 1/n for n <= 2^16, with their signs, and what `_ROUNDED` has;
    anything else is a draw from a generator seeded by the number's bits and the key, so it obeys no
    relation but its own name and sign. A rewrite that is right for such numbers is right for any.
    """
    floats = np.asarray(values, np.float64)
    flat, elements = floats.reshape(-1), np.empty(floats.size, np.int64)
    for start in range(0, len(flat), BLOCK):  # a block at a time stays in the cache
        block = slice(start, start + BLOCK)
        elements[block] = _image(flat[block], key)
    return elements.reshape(floats.shape)


def _bits(number: float) -> int:
    return int(np.float64(np.float32(number)).view(np.int64))


# Numbers in single precision that activations are spelled out with: 2^32 = 2, so 2^16 is a root.
_ROUNDED = {
    _bits(2**0.5): 1 << 16,
    _bits(0.5**0.5): 1 << 15,
    _bits(1 / 6): pow(6, -1, PRIME),
}


def _image(floats: Floats, key: int) -> Elements:
    bits = floats.view(np.int64)
    size = bits & np.int64(2**63 - 1)
    elements = mixed(size, key)
    tail = size & np.int64(2**52 - 1)  # of the mantissa, without its leading 1
    few = np.flatnonzero((tail & np.int64(2**45 - 1)) == 0)
    if len(few):
        elements[few] = _few(size[few])
    odd = np.flatnonzero(tail & np.int64(2**29 - 1))  # what single precision does not have
    if len(odd):
        _divided(elements, odd, np.abs(floats[odd]))
    for number, element in _ROUNDED.items():
        elements[size == number] = element
    negated = (bits < 0) & (elements > 0)
    return np.where(negated, PRIME - elements, elements)


def _few(bits: Elements) -> Elements:
    """m * 2^e of numbers with at most 8 bits; an infinite one is drawn like any other."""
    floats = bits.view(np.float64)
    mantissa, exponent = np.frexp(np.where(np.isfinite(floats), floats, 0.0))
    scale = np.left_shift(np.int64(1), (exponent.astype(np.int64) - 8) % 31)  # 2^31 = 1
    exact = multiply((mantissa * FEW).astype(np.int64), scale)
    return np.where(np.isfinite(floats), exact, mixed(bits, 0))


def _divided(elements: Elements, where: Elements, floats: Floats) -> None:
    """Write 1/n for those numbers that are the float64 next to it."""
    with np.errstate(all="ignore"):
        parts = np.rint(1.0 / floats)
        exact = (parts <= MOST_PARTS) & (1.0 / parts == floats)
    if np.any(exact):
        elements[where[exact]] = inverse(parts[exact].astype(np.int64))


def mixed(numbers: Elements, key: int) -> Elements:
    """Elements other than 0 that look drawn at random (splitmix64: Steele et al. 2014)."""
    x = numbers.view(np.uint64) + np.uint64((key + 1) * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x ^= x >> np.uint64(shift)
        x *= np.uint64(factor)
    x ^= x >> np.uint64(31)
    x %= np.uint64(PRIME - 1)
    elements: Elements = x.view(np.int64)
    return elements + 1
