"""The inputs and outputs of a graph as `TensorSpec`s, for an SDK that does not keep all of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatfold.backends.base import TensorSpec
from flatfold.backends.bundle_files import damaged
from flatfold.errors import BuildError

if TYPE_CHECKING:
    import onnx_ir as ir

_INTEGERS = (f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))
DTYPES = ("bool", "float16", "float32", "float64", *_INTEGERS)

Specs = tuple[TensorSpec, ...]


def interface_of(model: ir.Model, target: str) -> tuple[Specs, Specs]:
    """What a caller feeds and what comes back. BuildError where NumPy cannot hold it."""
    fed = [value for value in model.graph.inputs if not value.is_initializer()]
    inputs, outputs = (
        tuple(_spec(value, target) for value in values) for values in (fed, model.graph.outputs)
    )
    return inputs, outputs


def saved_interface(folder: Path, manifest: Mapping[str, Any]) -> tuple[Specs, Specs]:
    """What the manifest of a bundle says they are. Raises InputError where it is no such thing."""
    try:
        inputs, outputs = (
            tuple(
                TensorSpec(str(spec["name"]), str(spec["dtype"]), tuple(spec["shape"]))
                for spec in manifest[key]
            )
            for key in ("inputs", "outputs")
        )
    except (KeyError, TypeError) as error:
        raise damaged(folder, "manifest.json", "its inputs or outputs are malformed") from error
    return inputs, outputs


def _spec(value: ir.Value, target: str) -> TensorSpec:
    name = value.name or ""
    dtype = "unknown" if value.dtype is None else value.dtype.name.lower()
    dtype = {"float": "float32", "double": "float64"}.get(dtype, dtype)
    if dtype not in DTYPES or value.shape is None:
        found = dtype if value.shape is not None else "no rank"
        raise BuildError(
            f"expected tensors that NumPy can hold, found {found} for {name!r}",
            where=f"target {target}",
            hint="cast it inside the model, or cut the model there",
        )
    return TensorSpec(
        name, dtype, tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
    )
