"""Networks of the zoo without memory for their weights: for counts and names."""

from __future__ import annotations

import importlib

import torch
from torch import nn

from flatfold.models import ZOO


def on_meta(name: str) -> nn.Module:
    """The network `name`, which takes no memory however large it is."""
    module_name, _, function = ZOO[name].factory.partition(":")
    factory = getattr(importlib.import_module(module_name), function)
    with torch.device("meta"):
        module: nn.Module = factory(**ZOO[name].kwargs)
    return module
