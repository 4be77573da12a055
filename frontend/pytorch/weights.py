"""Trained weights into a module, from a file or a state dict, without running code from it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatfold.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn


_WRAPPERS = ("state_dict", "model", "model_state_dict", "params")
_PREFIX = "module."  # what DataParallel puts before every key
_SHOWN = 3


def load_weights(
    module: nn.Module,
    weights: str | os.PathLike[str] | Mapping[str, Any],
    renames: Sequence[tuple[str, str | None]] = (),
) -> None:
    """Load `weights` into `module`, in place: all of them, or none when anything does not fit.

    `weights` is a ``.safetensors`` file, a file that ``torch.load(weights_only=True)`` reads, or
    a state dict; wrapped in {"state_dict": ...} or {"model": ...}, and with every key prefixed
    by ``module.``, they are accepted too. `renames` read the keys of other code: each regular
    expression in turn is replaced in each key, and with None in its place the entry is left out;
    keys that the module itself has stay. A missing ``num_batches_tracked`` is no error. Raises
    `InputError`, which names keys that are missing, unexpected or of another shape.
    """
    where = "" if isinstance(weights, Mapping) else str(weights)
    found = _unwrap(weights if isinstance(weights, Mapping) else _read(Path(weights)), where)
    expected = module.state_dict()
    found = renamed(found, renames, expected)
    missing = [key for key in expected.keys() - found.keys() if not _is_counter(key)]
    problems = [
        _listing("missing", sorted(missing)),
        _listing("unexpected", sorted(found.keys() - expected.keys())),
        _listing("wrong shape", _misshapen(expected, found)),
    ]
    if any(problems):
        raise InputError(
            f"the weights do not fit {type(module).__name__}: "
            + "; ".join(problem for problem in problems if problem),
            where=where,
            hint="check that the weights belong to this variant",
        )
    module.load_state_dict(found, strict=False)  # strict but for the counters, see above


def _read(path: Path) -> Any:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"no such file: {path}", hint="check the path of the weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise InputError(f"not a readable weights file: {error}", where=str(path)) from error
    except Exception as error:
        raise InputError(
            "expected a state dict saved by torch.save, found a damaged file or one that holds "
            f"other objects: {str(error).strip().splitlines()[0]}",
            where=str(path),
            hint="save it again with torch.save(module.state_dict(), path)",
        ) from error


def _unwrap(found: Any, where: str) -> dict[str, Tensor]:
    import torch

    while isinstance(found, Mapping):
        inner = next((found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        found = inner
    tensors = isinstance(found, Mapping) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in found.items()
    )
    if not tensors:
        raise InputError(
            f"expected a mapping of names to tensors, found {type(found).__name__}"
            + (" with other values" if isinstance(found, Mapping) else ""),
            where=where,
            hint="save it again with torch.save(module.state_dict(), path)",
        )
    if found and all(key.startswith(_PREFIX) for key in found):
        return {key.removeprefix(_PREFIX): value for key, value in found.items()}
    return dict(found)


def renamed(
    found: dict[str, Tensor], renames: Sequence[tuple[str, str | None]], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """`found` under the names of the module, whose `own` keys stay."""
    result = {}
    for key, tensor in found.items():
        name: str | None = key
        for pattern, new in renames if key not in own else ():
            if name is not None and re.search(pattern, name):
                name = None if new is None else re.sub(pattern, new, name)
        if name is not None:
            result[name] = tensor
    return result


def _is_counter(key: str) -> bool:
    return key.rpartition(".")[2] == "num_batches_tracked"  # no part of the function computed


def _misshapen(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{key} (expected {list(expected[key].shape)}, found {list(found[key].shape)})"
        for key in expected
        if key in found and expected[key].shape != found[key].shape
    ]


def _listing(kind: str, keys: Sequence[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{kind}: {', '.join(keys[:_SHOWN])}{more}"
