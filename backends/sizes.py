"""Sizes for inputs that leave some open, and arrays of these sizes to run an engine on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from flatfold.backends.feeds import Array, TensorSpec
from flatfold.errors import InputError


def check_sizes(
    inputs: Sequence[TensorSpec], batch: int | None, image: Sequence[int] | None
) -> None:
    """Raises InputError where a size asked for is not the one that the model has."""
    for spec in inputs:
        for axis, (size, wanted) in enumerate(_sizes(spec, batch, image)):
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
            size if isinstance(size, int) else wanted for size, wanted in _sizes(spec, batch, image)
        ]
        if sizes and sizes[0] is None:
            sizes[0] = 1
        if None in sizes:
            cause = f"input {spec.name!r} leaves axis {sizes.index(None)} open"
            raise InputError(cause, hint="say the size of the image (--size)")
        shapes[spec.name] = tuple(size for size in sizes if size is not None)
    return shapes


def _sizes(
    spec: TensorSpec, batch: int | None, image: Sequence[int] | None
) -> list[tuple[int | str | None, int | None]]:
    """Each axis of `spec`, with what is asked for there if anything is."""
    asked: list[int | None] = [None] * len(spec.shape)
    if spec.shape:
        asked[0] = batch
    if image and len(spec.shape) > len(image):
        asked[-len(image) :] = image
    return list(zip(spec.shape, asked, strict=True))


def drawn(inputs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]]) -> dict[str, Array]:
    """The same arrays each time: standard normal, or zeros and ones where a type has no more."""
    rng = np.random.default_rng(0)
    feeds = {}
    for spec in inputs:
        drawn = rng.standard_normal(tuple(shapes[spec.name]))
        floating = np.dtype(spec.dtype).kind == "f"
        feeds[spec.name] = (drawn if floating else drawn > 0).astype(spec.dtype)
    return feeds
