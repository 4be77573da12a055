"""The interface of an engine, and the check of what a caller feeds into it."""

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
    """One input or output. In `shape`, an int is fixed, a str names a free size, None is free.

    `dtype` is NumPy's name of it, such as "float32".
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{_sizes(self.shape)}]"

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


def specs_of(values: Iterable[ir.Value]) -> tuple[TensorSpec, ...]:
    """What a graph says of its inputs or outputs. Raises BuildError where it says too little."""
    found = []
    for value in values:
        if value.shape is None or value.dtype is None:
            raise BuildError(f"{value.name!r} has no type or rank", hint="infer shapes first")
        if value.dtype.is_string():
            raise BuildError(
                f"expected tensors that NumPy can hold, found strings for {value.name!r}",
                hint="cut the model there",
            )
        sizes = (size if isinstance(size, int) else size.value for size in value.shape)
        found.append(TensorSpec(value.name or "", value.dtype.numpy().name, tuple(sizes)))
    return tuple(found)


def named_feeds(
    args: Sequence[Any], kwargs: Mapping[str, Any], inputs: Sequence[TensorSpec]
) -> dict[str, Any]:
    """Positional and keyword arguments as one mapping by input name."""
    if len(args) > len(inputs):
        raise InputError(
            f"the engine takes {len(inputs)} inputs, found {len(args)}", hint=_signature(inputs)
        )
    feeds = {spec.name: value for spec, value in zip(inputs, args, strict=False)}
    if twice := sorted(feeds.keys() & kwargs.keys()):
        raise InputError(f"input {twice[0]!r} was given twice: by position and by name")
    return {**feeds, **kwargs}


def checked_feeds(
    feeds: Mapping[str, Array],
    inputs: Sequence[TensorSpec],
    optional: Sequence[TensorSpec] = (),
) -> dict[str, Array]:
    """`feeds` as C-contiguous arrays, copied only where they were not.

    Raises InputError, saying what was expected and what was found, for an unknown or missing
    name, a wrong dtype, rank or fixed size, and for two sizes of one named dimension.
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


def numpy_of(name: str, tensor: Any) -> Array:
    """A torch tensor as an array, without a copy when it is on the CPU."""
    try:
        array: Array = tensor.detach().cpu().numpy()
    except TypeError as error:  # a dtype that NumPy does not have
        raise InputError(f"input {name!r}: {error}", hint="convert the tensor first") from error
    return array


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
    found = f"{dtype}[{_sizes(array.shape)}]"
    return InputError(f"input {spec.name!r}: expected {spec}, found {found}", hint=hint)


def _sizes(shape: Sequence[int | str | None]) -> str:
    return ", ".join("?" if size is None else str(size) for size in shape)


def _signature(inputs: Sequence[TensorSpec]) -> str:
    return "the inputs are " + (", ".join(f"{s.name}: {s}" for s in inputs) or "none")


def check_sizes(
    inputs: Sequence[TensorSpec], batch: int | None, image: Sequence[int] | None
) -> None:
    """Raises InputError where a size asked for is not the one that the model has."""
    for spec in inputs:
        for axis, (size, wanted) in enumerate(_open_sizes(spec, batch, image)):
            if isinstance(size, int) and wanted not in (None, size):
                raise InputError(
                    f"input {spec.name!r} has a fixed size of {size} on axis {axis}, not {wanted}",
                    hint="leave batch and size out, or export the model again",
                )


def shapes_of(
    inputs: Sequence[TensorSpec], batch: int | None, image: Sequence[int] | None
) -> dict[str, tuple[int, ...]]:
    """What is asked for where the model leaves a size open, and a batch of 1 at least.

    Raises InputError where a size stays open.
    """
    shapes = {}
    for spec in inputs:
        sizes = [
            size if isinstance(size, int) else wanted
            for size, wanted in _open_sizes(spec, batch, image)
        ]
        if sizes and sizes[0] is None:
            sizes[0] = 1
        if None in sizes:
            cause = f"input {spec.name!r} leaves axis {sizes.index(None)} open"
            raise InputError(cause, hint="say the size of the image (--size)")
        shapes[spec.name] = tuple(size for size in sizes if size is not None)
    return shapes


def _open_sizes(
    spec: TensorSpec, batch: int | None, image: Sequence[int] | None
) -> list[tuple[int | str | None, int | None]]:
    """Each axis of `spec`, with what is asked for there if anything is."""
    asked: list[int | None] = [None] * len(spec.shape)
    if spec.shape:
        asked[0] = batch
    if image and len(spec.shape) > len(image):
        asked[-len(image) :] = image
    return list(zip(spec.shape, asked, strict=True))


def random_feeds(
    inputs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]]
) -> dict[str, Array]:
    """The same arrays each time: standard normal, or zeros and ones where a type has no more."""
    rng = np.random.default_rng(0)
    feeds = {}
    for spec in inputs:
        drawn = rng.standard_normal(tuple(shapes[spec.name]))
        floating = np.dtype(spec.dtype).kind == "f"
        feeds[spec.name] = (drawn if floating else drawn > 0).astype(spec.dtype)
    return feeds
