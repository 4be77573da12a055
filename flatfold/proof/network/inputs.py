"""Inputs on which two graphs are compared: random, the rim alone, pictures, the very large.

Natural pictures have amplitudes that fall with the frequency f as 1 / f (Field 1987). Nothing here
is NaN or Inf: a merged kernel has zeros over pixels that one of its branches did not read, and
0 * Inf is NaN; and what a Relu makes of NaN depends on the runtime.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.proof.interpreter.convolution import Array
from flatfold.proof.interpreter.operators import traits_of


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
    """Both limits of a Clip, inputs or attributes; infinite where there is none."""
    limits = [-np.inf, np.inf]
    for index, name in enumerate(("min", "max")):
        if name in node.attributes:
            limits[index] = float(node.attributes[name].value)
        value = node.inputs[index + 1] if len(node.inputs) > index + 1 else None
        tensor = ir.convenience.get_const_tensor(value) if value is not None else None
        if tensor is not None:
            limits[index] = float(tensor.numpy().reshape(-1)[0])
    return limits[0], limits[1]


@dataclass(frozen=True)
class InputSpec:
    """A graph input: a dim is an int, or None where the graph leaves it open."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


Feeds = dict[str, npt.NDArray[np.generic]]

# Sizes tried on open axes: batch above one, and maps that are odd, even and not square.
BATCHES = (2, 1)
EXTENTS = ((64, 48, 32), (65, 49, 33))


def settings(specs: Sequence[InputSpec]) -> list[dict[str, tuple[int, ...]]]:
    """Concrete shapes to try: one setting for a static graph, two where an axis is open."""
    dynamic = any(dim is None for spec in specs for dim in spec.shape)
    return [
        {spec.name: _shape(spec, BATCHES[i], EXTENTS[i]) for spec in specs}
        for i in range(2 if dynamic else 1)
    ]


def _shape(spec: InputSpec, batch: int, extents: tuple[int, ...]) -> tuple[int, ...]:
    spatial = iter(extents)
    return tuple(
        dim if dim is not None else batch if axis == 0 else next(spatial, extents[-1])
        for axis, dim in enumerate(spec.shape)
    )


def draw(
    specs: Sequence[InputSpec], shapes: dict[str, tuple[int, ...]], seed: int
) -> Iterator[tuple[str, Feeds]]:
    """Named feeds of these shapes, the most telling first."""
    for name in KINDS:
        feeds: Feeds = {}
        for index, spec in enumerate(specs):
            rng = np.random.default_rng([seed, index, KINDS.index(name)])
            array = _fill(name, shapes[spec.name], rng)
            feeds[spec.name] = _as_type(array, spec.dtype)
        yield name, feeds


def nudged(feeds: Feeds, seed: int) -> Feeds:
    """The feeds with floats that are others, by up to four units in their last place."""
    rng = np.random.default_rng(seed)
    return {name: _moved(x, rng) if _is_float(x) else x for name, x in feeds.items()}


def _moved(array: npt.NDArray[np.generic], rng: np.random.Generator) -> npt.NDArray[np.generic]:
    with np.errstate(all="ignore"):
        moved = array + rng.integers(-4, 5, array.shape) * np.spacing(array)
    return np.where(np.isfinite(moved), moved, array).astype(array.dtype)


def _is_float(array: npt.NDArray[np.generic]) -> bool:
    return array.dtype.kind == "f"


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
SIZES = {"large": 1e6, "small": 1e-6, "denormal": 1e-40}  # times a normal draw
EXTREME = tuple(SIZES)  # inputs on which rounding may be all there is


def _fill(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    array = np.zeros(shape)
    if array.size == 0:
        return array
    if kind.startswith("normal") or kind in SIZES:
        array = rng.standard_normal(shape) * SIZES.get(kind, 1.0)
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
        for place in (corner, centre):
            array[place] = rng.standard_normal(shape[:2])
    return array


def _natural(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Random pictures with the spectrum of photographs, of mean 0 and variance 1."""
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


def _as_type(array: npt.NDArray[np.float64], dtype: str) -> npt.NDArray[np.generic]:
    values = np.asarray(array)  # of no axes, NumPy makes numbers, which no session takes
    return values.astype(dtype) if np.dtype(dtype).kind == "f" else np.asarray(values > 0, dtype)
