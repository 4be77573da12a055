"""`load_weights`: trained weights into a module, from a file or a state dict."""

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
_PREFIX = "module."  # DataParallel puts it before every key
_SHOWN = 3  # keys of each kind in the error


def load_weights(
    module: nn.Module,
    weights: str | os.PathLike[str] | Mapping[str, Any],
    renames: Sequence[tuple[str, str | None]] = (),
) -> None:
    """Load `weights` into `module`, in place: all of them, or none when anything does not fit.

    `weights` is a ``.safetensors`` file, a file that ``torch.load(weights_only=True)`` reads, or
    a state dict; wrapped in {"state_dict": ...} or {"model": ...}, and with every key prefixed
    by ``module.``, they are accepted too. `renames` read the keys of other code: each regular
    expression in turn is replaced in each key, and None instead of a replacement drops the entry;
    keys of the module stay. A missing ``num_batches_tracked`` is no error. Raises
    `InputError`, which names keys that are missing, unexpected or of another shape.
    """
    where = "" if isinstance(weights, Mapping) else str(weights)
    tensors = _unwrap(weights if isinstance(weights, Mapping) else _read(Path(weights)), where)
    expected = module.state_dict()
    tensors = renamed(tensors, renames, expected)
    missing = [key for key in expected.keys() - tensors.keys() if not _is_counter(key)]
    problems = [
        _listing("missing", sorted(missing)),
        _listing("unexpected", sorted(tensors.keys() - expected.keys())),
        _listing("wrong shape", _misshapen(expected, tensors)),
    ]
    if any(problems):
        raise InputError(
            f"the weights do not fit {type(module).__name__}: "
            + "; ".join(problem for problem in problems if problem),
            where=where,
            hint="check that the weights belong to this variant",
        )
    module.load_state_dict(tensors, strict=False)  # only counters may be missing, see above


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
        raise InputError(
            f"expected a weights file, found one that cannot be read: {error}",
            where=str(path),
            hint="check that the file is complete and in the format that its suffix says",
        ) from error
    except Exception as error:
        raise InputError(
            "expected a state dict saved by torch.save, found a damaged file or one that holds "
            f"other objects: {str(error).strip().splitlines()[0]}",
            where=str(path),
            hint="save it again with torch.save(module.state_dict(), path)",
        ) from error


def _unwrap(content: Any, where: str) -> dict[str, Tensor]:
    """The state dict in `content`, without wrappers and prefixes. Raises `InputError`."""
    import torch

    while isinstance(content, Mapping):
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = inner[0]
    tensors = isinstance(content, Mapping) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()
    )
    if not tensors:
        raise InputError(
            f"expected a mapping of names to tensors, found {type(content).__name__}"
            + (" with other values" if isinstance(content, Mapping) else ""),
            where=where,
            hint="save it again with torch.save(module.state_dict(), path)",
        )
    if content and all(key.startswith(_PREFIX) for key in content):
        return {key.removeprefix(_PREFIX): value for key, value in content.items()}
    return dict(content)


def renamed(
    tensors: dict[str, Tensor],
    renames: Sequence[tuple[str, str | None]],
    expected: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """`tensors` under the keys of the module; keys in `expected` stay. See `load_weights`."""
    result = {}
    for key, tensor in tensors.items():
        name: str | None = key
        for pattern, new in renames if key not in expected else ():
            if name is not None and re.search(pattern, name):
                name = None if new is None else re.sub(pattern, new, name)
        if name is not None:
            result[name] = tensor
    return result


def _is_counter(key: str) -> bool:
    return key.rpartition(".")[2] == "num_batches_tracked"  # has no effect on the outputs


def _misshapen(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{key} (expected {list(expected[key].shape)}, found {list(tensors[key].shape)})"
        for key in expected
        if key in tensors and expected[key].shape != tensors[key].shape
    ]


def _listing(kind: str, keys: Sequence[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{kind}: {', '.join(keys[:_SHOWN])}{more}"
