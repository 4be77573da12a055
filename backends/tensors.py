"""Inputs and outputs of an engine: their description, random values for them, and checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flatfold.errors import BuildError, InputError

if TYPE_CHECKING:
    import onnx_ir as ir


Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. In `shape`, an int is a fixed size, a str names an open one, None is
    an open one without a name. `dtype` is NumPy's name, such as "float32".
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{_sizes(self.shape)}]"

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


def specs_of(values: Iterable[ir.Value]) -> tuple[TensorSpec, ...]:
    """The descriptions of values of a graph. Raises BuildError where type or rank is missing."""
    specs = []
    for value in values:
        if value.shape is None or value.dtype is None:
            raise BuildError(f"{value.name!r} has no type or rank", hint="infer shapes first")
        if value.dtype.is_string():
            raise BuildError(
                f"expected tensors that NumPy can hold, found strings for {value.name!r}",
                hint="cut the model there",
            )
        sizes = (size if isinstance(size, int) else size.value for size in value.shape)
        specs.append(TensorSpec(value.name or "", value.dtype.numpy().name, tuple(sizes)))
    return tuple(specs)


def shapes_of(
    inputs: Sequence[TensorSpec],
    batch: int | None,
    image: Sequence[int] | None,
    likely: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, tuple[int, ...]]:
    """The shape of each input, its open sizes set to `batch` and `image` (the last axes).

    Other open sizes are those of `likely`, or without it 1 for the batch. Raises InputError where a
    size stays open.
    """
    shapes = {}
    for spec in inputs:
        known = (likely or {}).get(spec.name, ())
        others = known if len(known) == len(spec.shape) else (None,) * len(spec.shape)
        sizes = [
            size if isinstance(size, int) else other if wanted is None else wanted
            for (size, wanted), other in zip(_open_sizes(spec, batch, image), others, strict=True)
        ]
        if sizes and sizes[0] is None:
            sizes[0] = 1
        if None in sizes:
            cause = f"input {spec.name!r} leaves axis {sizes.index(None)} open"
            raise InputError(cause, hint="give the size of the image (--size)")
        shapes[spec.name] = tuple(size for size in sizes if size is not None)
    return shapes


def check_sizes(
    inputs: Sequence[TensorSpec], batch: int | None, image: Sequence[int] | None
) -> None:
    """Raises InputError where `batch` or `image` differs from a fixed size of the model."""
    for spec in inputs:
        for axis, (size, wanted) in enumerate(_open_sizes(spec, batch, image)):
            if isinstance(size, int) and wanted not in (None, size):
                raise InputError(
                    f"input {spec.name!r} has a fixed size of {size} on axis {axis}, not {wanted}",
                    hint="leave batch and size out, or export the model again",
                )


def _open_sizes(
    spec: TensorSpec, batch: int | None, image: Sequence[int] | None
) -> list[tuple[int | str | None, int | None]]:
    """For each axis of `spec` its size, and the size requested for it if there is one."""
    requested: list[int | None] = [None] * len(spec.shape)
    if spec.shape:
        requested[0] = batch
    if image and len(spec.shape) > len(image):
        requested[-len(image) :] = image
    return list(zip(spec.shape, requested, strict=True))


def random_feeds(
    inputs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]]
) -> dict[str, Array]:
    """Standard normal numbers, or zeros and ones where the type is not floating-point.

    The seed is fixed, so that equal shapes give equal arrays.
    """
    rng = np.random.default_rng(0)
    feeds = {}
    for spec in inputs:
        normal = rng.standard_normal(tuple(shapes[spec.name]))
        floating = np.dtype(spec.dtype).kind == "f"
        feeds[spec.name] = (normal if floating else normal > 0).astype(spec.dtype)
    return feeds


def named_feeds(
    args: Sequence[Any], kwargs: Mapping[str, Any], inputs: Sequence[TensorSpec]
) -> dict[str, Any]:
    """Positional and keyword arguments as one dictionary by input name."""
    if len(args) > len(inputs):
        raise InputError(
            f"the engine takes {len(inputs)} inputs, found {len(args)}", hint=_signature(inputs)
        )
    feeds = {spec.name: value for spec, value in zip(inputs, args, strict=False)}
    if twice := sorted(feeds.keys() & kwargs.keys()):
        raise InputError(f"input {twice[0]!r} is given twice: by position and by name")
    return {**feeds, **kwargs}


def numpy_of(name: str, tensor: Any) -> Array:
    """A torch tensor as an array, without a copy if it is on the CPU."""
    try:
        array: Array = tensor.detach().cpu().numpy()
    except TypeError as error:  # a dtype that NumPy does not have, such as bfloat16
        raise InputError(f"input {name!r}: {error}", hint="convert the tensor first") from error
    return array


def checked_feeds(
    feeds: Mapping[str, Array],
    inputs: Sequence[TensorSpec],
    optional: Sequence[TensorSpec] = (),
) -> dict[str, Array]:
    """`feeds` as C-contiguous arrays, copied only where they were not.

    Raises InputError for an unknown or missing name, a wrong dtype, rank or fixed size, and where
    two axes of the same name differ in size.
    """
    known = {spec.name: spec for spec in (*inputs, *optional)}
    for name in feeds:
        if name not in known:
            raise InputError(f"the engine has no input {name!r}", hint=_signature(inputs))
    for spec in inputs:
        if spec.name not in feeds:
            raise InputError(f"input {spec.name!r} ({spec}) is missing", hint=_signature(inputs))
    sizes: dict[str, tuple[int, str]] = {}
    for name, array in feeds.items():
        _check(array, known[name])
        _check_named_sizes(array, known[name], sizes)
    return {name: np.require(array, requirements=["C", "A"]) for name, array in feeds.items()}


def _check(array: object, spec: TensorSpec) -> None:
    if not isinstance(array, np.ndarray):
        kind = f"{type(array).__module__}.{type(array).__qualname__}"
        raise InputError(f"input {spec.name!r}: expected an array {spec}, found a {kind}")
    if array.dtype != np.dtype(spec.dtype):
        raise _mismatch(array, spec, f"convert it: {spec.name}.astype({spec.dtype!r})")
    if array.ndim != len(spec.shape):
        raise _mismatch(array, spec, f"it needs {len(spec.shape)} dimensions")
    for axis, (size, expected) in enumerate(zip(array.shape, spec.shape, strict=True)):
        if isinstance(expected, int) and size != expected:
            raise _mismatch(array, spec, f"axis {axis} is fixed to {expected}")


def _check_named_sizes(array: Array, spec: TensorSpec, sizes: dict[str, tuple[int, str]]) -> None:
    for axis, (size, symbol) in enumerate(zip(array.shape, spec.shape, strict=True)):
        if not isinstance(symbol, str):
            continue
        first, place = sizes.setdefault(symbol, (size, f"axis {axis} of {spec.name!r}"))
        if size != first:
            raise _mismatch(array, spec, f"{symbol} is {first} on {place}, {size} here")


def _mismatch(array: Array, spec: TensorSpec, hint: str) -> InputError:
    dtype = array.dtype.name if array.dtype.isnative else array.dtype.str
    actual = f"{dtype}[{_sizes(array.shape)}]"
    return InputError(f"input {spec.name!r}: expected {spec}, found {actual}", hint=hint)


def _signature(inputs: Sequence[TensorSpec]) -> str:
    return "the inputs are " + (", ".join(f"{s.name}: {s}" for s in inputs) or "none")


def _sizes(shape: Sequence[int | str | None]) -> str:
    return ", ".join("?" if size is None else str(size) for size in shape)
