"""Inputs on which graphs are compared: random, border only, impulses, pictures, very large, tiny.

Natural pictures have amplitudes that fall with the frequency f as 1 / f (Field 1987). No input has
a NaN or an infinity: a merged kernel has zeros over pixels that one of its branches did not read,
and 0 * Inf is NaN; and the Relu of a NaN depends on the runtime.

For values inside a graph, `within_range` maps numbers to those that can occur there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.errors import InputError
from flatfold.proof.interpreter.convolution import Array
from flatfold.proof.interpreter.operators import traits_of

KINDS = (
    "normal",
    "normal 2",
    "border",
    "impulses",
    "checkerboard",
    "ones",
    "zeros",
    "natural",
    "natural 2",
    "large",
    "small",
    "denormal",
)
# Where each change was checked by itself: what is left to see is that they were put in place.
FEW_KINDS = ("normal", "border", "natural", "large")
AMPLITUDES = {"large": 1e6, "small": 1e-6, "denormal": 1e-40}  # of a normal draw
MOST_ELEMENTS = 1 << 29  # of one value: 2 GiB in float32
EXTREME = tuple(AMPLITUDES)  # inputs on which errors may be all rounding

Feeds = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class InputSpec:
    """A graph input. Of `shape`, an open dim is its symbol, or None where it has no name.

    `choices` are the integers that it is drawn from, see `choices_of`.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]
    choices: tuple[int, ...] = (1, 0)


def input_specs(model: ir.Model) -> list[InputSpec]:
    """The inputs that a caller provides.

    Raises InputError where type or rank is unknown, or one has more than MOST_ELEMENTS elements.
    """
    specs = []
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        if value.shape is None or value.dtype in (None, ir.DataType.UNDEFINED):
            raise InputError(f"input {value.name} has no type or rank", hint="give its shape")
        dims = tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
        count = math.prod(dim for dim in dims if isinstance(dim, int))
        if count > MOST_ELEMENTS:
            raise InputError(
                f"input {value.name!r} has {count} elements, too many to run the graph",
                hint='export it for a smaller input, or leave the proof out with verify="off"',
            )
        dtype = value.dtype.numpy().name
        choices = choices_of(value) if value.dtype.is_integer() else ()
        specs.append(InputSpec(value.name or "", dtype, dims, choices or (1, 0)))
    return specs


def draw_feeds(
    specs: Sequence[InputSpec],
    shapes: dict[str, tuple[int, ...]],
    seed: int,
    kinds: Sequence[str] = KINDS,
) -> Iterator[tuple[str, Feeds]]:
    """(kind, feeds) of these shapes, the kinds that show most errors first."""
    for name in kinds:
        feeds: Feeds = {}
        for index, spec in enumerate(specs):
            rng = np.random.default_rng([seed, index, KINDS.index(name)])
            if "float" in spec.dtype:  # bfloat16 is no float to NumPy
                feeds[spec.name] = _cast(_fill(name, shapes[spec.name], rng), spec.dtype)
            else:
                feeds[spec.name] = _integers(spec, shapes[spec.name], KINDS.index(name), rng)
        yield name, feeds


def _cast(array: npt.NDArray[np.float64], dtype: str) -> npt.NDArray[np.generic]:
    """`array` in another type; numbers that are too large for float16 are its largest."""
    if dtype == "float16":
        largest = float(np.finfo(np.float16).max)
        array = np.clip(array, -largest, largest)
    return array.astype(dtype)


def without_bfloat16(feeds: Mapping[str, npt.NDArray[Any]]) -> Feeds:
    """The feeds with bfloat16 numbers in float32, which NumPy can compute with."""
    return {
        name: array.astype(np.float32) if array.dtype.name == "bfloat16" else array
        for name, array in feeds.items()
    }


def perturbed(feeds: Feeds, seed: int) -> Feeds:
    """The feeds with every float changed by up to four units in its last place."""
    rng = np.random.default_rng(seed)
    return {name: _perturb(x, rng) if _is_float(x) else x for name, x in feeds.items()}


def _perturb(array: npt.NDArray[np.generic], rng: np.random.Generator) -> npt.NDArray[np.generic]:
    with np.errstate(all="ignore"):
        moved = array + rng.integers(-4, 5, array.shape) * np.spacing(array)
    return np.where(np.isfinite(moved), moved, array).astype(array.dtype)


def _is_float(array: npt.NDArray[np.generic]) -> bool:
    return array.dtype.kind == "f"


def _fill(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    array = np.zeros(shape)
    if array.size == 0:
        return array
    if kind.startswith("normal") or kind in AMPLITUDES:
        array = rng.standard_normal(shape) * AMPLITUDES.get(kind, 1.0)
    elif kind.startswith("natural"):
        array = _natural(shape, rng)
    elif kind == "ones":
        array = np.ones(shape)
    elif kind == "checkerboard":
        array = 1.0 - 2.0 * (np.indices(shape).sum(axis=0) % 2)
    elif kind == "border":
        array = rng.standard_normal(shape)
        if array.ndim > 2:
            inside: Any = (..., *(slice(1, -1),) * (array.ndim - 2))
            array[inside] = 0.0
    elif kind == "impulses":
        corner: Any = (..., *(0,) * (array.ndim - 2))
        centre: Any = (..., *(n // 2 for n in shape[2:]))
        for pixel in (corner, centre):
            array[pixel] = rng.standard_normal(shape[:2])
    return array


def _natural(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Random pictures with the spectrum of photographs, with mean 0 and variance 1."""
    axes = tuple(range(2, len(shape)))
    array = rng.standard_normal(shape)
    if not axes:
        return array
    lines = [np.fft.fftfreq(shape[axis], 1 / shape[axis]) for axis in axes]
    waves = np.meshgrid(*lines, indexing="ij")
    frequency = np.maximum(np.sqrt(sum(wave**2 for wave in waves)), 1.0)
    array = np.fft.ifftn(np.fft.fftn(array, axes=axes) / frequency, axes=axes).real
    array -= array.mean(axes, keepdims=True)
    array /= np.maximum(array.std(axes, keepdims=True), 1e-12)
    return array


def _integers(
    spec: InputSpec, shape: tuple[int, ...], number: int, rng: np.random.Generator
) -> npt.NDArray[np.generic]:
    """An array of its choices; a single one is each of them in turn, from draw to draw."""
    count = len(spec.choices)
    which = rng.integers(0, count, shape)
    if which.size == 1:
        which = np.full(shape, number % count)
    return np.asarray(np.asarray(spec.choices, np.int64)[which], spec.dtype)


# Operators that pass the integers of their first input on.
PASSING_ON = (
    *("Cast", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze"),
    *("Tile", "Transpose", "Unsqueeze"),
)
COMPARING = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
MOST_CHOICES = 12


def choices_of(value: ir.Value) -> tuple[int, ...]:
    """Integers that make a difference: those that the graph compares with, and their neighbours.

    Of indices, the first and last rows of the table that they index.
    """
    found: list[int] = []
    pending, seen = [value], {value}
    while pending:
        for use in pending.pop().uses():
            node = use.node
            if use.idx == 0 and node.op_type in PASSING_ON and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                pending.append(node.outputs[0])
            elif node.op_type in COMPARING:
                found += _compared_with(node.inputs[1 - use.idx])
            elif use.idx == 1 and node.op_type in ("Gather", "GatherElements"):
                found += _rows(node)
    later = [number + step for number in found for step in (1, -1)] if len(found) < 4 else []
    return tuple(dict.fromkeys((*found, *later)))[:MOST_CHOICES]


def _compared_with(value: ir.Value | None) -> list[int]:
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    if tensor is None or not tensor.dtype.is_integer():
        return []
    return [int(number) for number in tensor.numpy().reshape(-1)[:MOST_CHOICES]]


def _rows(node: ir.Node) -> list[int]:
    """The first and the last positions on the axis that a Gather takes from."""
    table, axis = node.inputs[0], node.attributes.get("axis")
    if table is None or table.shape is None:
        return [0, 1]
    size = table.shape[axis.as_int() if axis is not None else 0]
    return [*range(min(size, 6)), max(size - 1, 0)] if isinstance(size, int) else [0, 1]


def within_range(source: ir.Value, x: Array) -> Array:
    """`x` mapped to numbers that `source` may have, by the activations that compute it."""
    chain: list[ir.Node] = []
    node = source.producer()
    while node is not None and traits_of(node).output_range is not None:
        chain.append(node)
        first = node.inputs[0]
        node = first.producer() if first is not None else None
    for node in reversed(chain):
        output_range = traits_of(node).output_range
        if node.op_type == "Clip":
            x = np.minimum(np.maximum(x, limits_of(node)[0]), limits_of(node)[1])
        elif output_range is not None:
            x = output_range(x)
    return x


def limits_of(node: ir.Node) -> tuple[float, float]:
    """(lower, upper) limit of a Clip, from its inputs or attributes; infinite where it has none."""
    limits = [-np.inf, np.inf]
    for index, name in enumerate(("min", "max")):
        if name in node.attributes:
            limits[index] = float(node.attributes[name].value)
        value = node.inputs[index + 1] if len(node.inputs) > index + 1 else None
        tensor = ir.convenience.get_const_tensor(value) if value is not None else None
        if tensor is not None:
            limits[index] = float(tensor.numpy().reshape(-1)[0])
    return limits[0], limits[1]
