"""Data that a model is run on to see how large its values are: arrays, feeds, files or images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flatfold.errors import InputError
from flatfold.images import MOST_RUNS, Images

if TYPE_CHECKING:
    from flatfold.proof.network.inputs import InputSpec

RANDOM = 8  # runs on random data, where that is asked for
FORMS = (
    "an array, arrays by name of the input, an iterable of those, an .npz or .npy file, or a "
    "folder of images"
)

Feeds = dict[str, np.ndarray]


def read_calibration(data: Any, specs: Sequence[InputSpec]) -> list[Feeds]:
    """Inputs for single runs of a model, at most MOST_RUNS.

    `data` is an array, or arrays by name of the input, of samples along the first axis; an iterable
    of arrays or mappings, each for one run; the path of an .npz or .npy file of arrays, or of a
    folder of images; or `Images`. An array of float64 is taken as the type of the input. Raises
    InputError where names, types or shapes are not those of the inputs.
    """
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        data = Images(path) if path.is_dir() else _from_file(path)
    if isinstance(data, Images):
        data = data.read(specs)
    if isinstance(data, Mapping | np.ndarray) or hasattr(data, "__array__"):
        return _split(_by_name(data, specs), specs)[:MOST_RUNS]
    if not isinstance(data, Iterable):
        raise InputError(f"expected {FORMS}, found {type(data).__name__}")
    runs: list[Feeds] = []
    for one in data:
        if len(runs) == MOST_RUNS:
            break
        runs += _split(_by_name(one, specs), specs)
    if not runs:
        raise InputError("expected some data to run the model on, found none")
    return runs[:MOST_RUNS]


def is_random(data: Any) -> bool:
    """Whether random data is asked for, by the word "random"."""
    return isinstance(data, str) and data == "random"


def digest(runs: Sequence[Feeds]) -> str:
    """SHA-256 of the data, in hexadecimal."""
    content = hashlib.sha256()
    for feeds in runs:
        for name, array in sorted(feeds.items()):
            content.update(f"{name} {array.dtype} {array.shape}".encode())
            content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def _from_file(path: Path) -> Any:
    try:
        loaded = np.load(path, allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else dict(loaded)
    except FileNotFoundError:
        raise InputError("no such file", where=str(path), hint=f"give {FORMS}") from None
    except (OSError, ValueError) as why:
        raise InputError(
            f"expected an .npz or .npy file of arrays: {why}",
            where=str(path),
            hint="write it with numpy.savez(path, NAME_OF_INPUT=samples)",
        ) from None


def _by_name(data: Any, specs: Sequence[InputSpec]) -> Feeds:
    """Arrays of the types of the inputs."""
    names = [spec.name for spec in specs]
    if not isinstance(data, Mapping):
        if len(specs) != 1:
            raise InputError(
                f"expected arrays for the inputs {', '.join(names)}, found one array",
                hint="give a mapping from names of inputs to arrays",
            )
        data = {names[0]: data}
    elif len(specs) == 1 and len(data) == 1 and names[0] not in data:
        data = {names[0]: next(iter(data.values()))}  # numpy.savez(path, samples)
    if set(data) != set(names):
        raise InputError(
            f"expected arrays for the inputs {', '.join(names)}, found {', '.join(sorted(data))}"
        )
    return {spec.name: _typed(np.asarray(data[spec.name]), spec) for spec in specs}


def _typed(array: np.ndarray, spec: InputSpec) -> np.ndarray:
    wanted = np.dtype(spec.dtype)
    if array.dtype != wanted and not (array.dtype == np.float64 and wanted.kind == "f"):
        raise InputError(f"input {spec.name!r}: expected {wanted}, found {array.dtype}")
    if wanted.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"input {spec.name!r}: expected finite numbers in the data to run it on")
    return array.astype(wanted, copy=False)


def _split(data: Feeds, specs: Sequence[InputSpec]) -> list[Feeds]:
    """Feeds for single runs: the batch that an input has fixed, one sample where it is open."""
    for spec in specs:
        array = data[spec.name]
        sizes = zip(array.shape[1:], spec.shape[1:], strict=False)
        fits = all(not isinstance(n, int) or n == size for size, n in sizes)
        if array.ndim != len(spec.shape) or not fits:
            wanted = ", ".join("N" if n is None else str(n) for n in spec.shape)
            raise InputError(
                f"input {spec.name!r}: expected samples of shape ({wanted}), found {array.shape}"
            )
    if any(not spec.shape for spec in specs):
        return [data]
    batches = {n if isinstance(n := spec.shape[0], int) else 1 for spec in specs}
    counts = {len(array) for array in data.values()}
    if len(batches) != 1 or len(counts) != 1:
        return [data]  # inputs without a common batch: one run
    (batch,), (count,) = batches, counts
    if count < batch:
        raise InputError(
            f"expected at least {batch} samples, the batch of the model, found {count}"
        )
    starts = range(0, count - batch + 1, batch)
    return [{k: a[start : start + batch] for k, a in data.items()} for start in starts]
