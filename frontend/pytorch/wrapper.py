"""What stands around a module or for it: wrappers, compiled and traced forms."""

from __future__ import annotations

import copy
import sys
from typing import TYPE_CHECKING, Any

from flatfold.errors import ExportError

if TYPE_CHECKING:
    from torch import nn


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside DataParallel, DistributedDataParallel and what torch.compile returns.

    Raises `ExportError` for a traced or scripted module, which the exporter does not read.
    """
    import torch
    from torch import nn

    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(module, parallel):
            module = module.module
        elif isinstance(getattr(module, "_orig_mod", None), nn.Module):
            module = module._orig_mod  # type: ignore[assignment]
        else:
            break
    if isinstance(module, torch.jit.ScriptModule):
        raise ExportError(
            f"expected an nn.Module, found a traced or scripted one, {type(module).__name__}",
            hint="pass the nn.Module that it was made from, or an ONNX file",
        )
    return module


def is_exported_program(model: Any) -> bool:
    """Whether `model` is what torch.export.export returns."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.export.ExportedProgram)


def copy_of(module: nn.Module) -> nn.Module:
    """A deep copy, also of a module with hooks of weight_norm or spectral_norm.

    Such a hook keeps the weight that it computed last, which `copy.deepcopy` refuses to copy. It
    computes it again whenever the module runs.
    """
    import torch

    memo: dict[int, Any] = {}
    for layer in module.modules():
        for value in vars(layer).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(module, memo)
