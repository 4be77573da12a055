"""The model zoo: training-form networks by name.

`ZOO` is the whole zoo, from a table for each family; the modules that build the networks are
imported, and torch with them, only when a model is created.

    spec.py             ModelSpec: a network before it is built
    variants/           the table of each family
    layers.py           layers that several families share
    initialise.py       seeded weights, with which no test of equivalence is vacuous
    schedule.py         VanillaNet's training: an activation that becomes linear
    shifts.py           results of small kernels, each moved to its place in a large one
    shuffles.py         where the small kernels lie in the large ones

    acnet.py            asymmetric convolution blocks
    convnext.py         ConvNeXt
    dbb.py              diverse branch blocks
    efficientnetv2.py   EfficientNetV2
    fastvit.py          FastViT
    mobilenext.py       MobileNeXt
    mobileone.py        MobileOne
    parnet.py           ParNet
    replknet.py         RepLKNet
    repvgg.py           RepVGG
    repvggplus.py       RepVGGplus
    repvit.py           RepViT
    resnet.py           a ResNet of basic blocks, for acnet.py and dbb.py
    slak.py             SLaK
    swnet.py            Shift-ConvNets
    unireplknet.py      UniRepLKNet
    vanillanet.py       VanillaNet
    yolo.py             blocks of YOLOv6 and YOLOv7
"""

from __future__ import annotations

import fnmatch
import importlib
from typing import TYPE_CHECKING

from flatfold.errors import UnknownName
from flatfold.models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ZOO", "ModelSpec", "create_model", "list_models"]


# One module each: flatfold.models.variants.NAME with the table VARIANTS.
FAMILIES = (
    "acnet",
    "convnext",
    "dbb",
    "efficientnetv2",
    "fastvit",
    "mobilenext",
    "mobileone",
    "parnet",
    "replknet",
    "repvgg",
    "repvggplus",
    "repvit",
    "slak",
    "swnet",
    "unireplknet",
    "vanillanet",
    "yolo",
)

ZOO: dict[str, ModelSpec] = {
    name: spec
    for family in FAMILIES
    for name, spec in importlib.import_module(f"flatfold.models.variants.{family}").VARIANTS.items()
}


def list_models(pattern: str = "*") -> list[str]:
    """Names in the zoo that match the shell-style `pattern`, sorted; empty when none does."""
    return sorted(fnmatch.filter(ZOO, pattern))


def create_model(name: str, *, seed: int = 0, num_classes: int = 1000) -> nn.Module:
    """The training form of `name` in eval mode, initialised from `seed`.

    The same name, seed and number of classes give the same bits; the global random state of
    torch is left as it was. Raises `UnknownName`, which lists the close names.
    """
    if name not in ZOO:
        raise UnknownName("model", name, ZOO, hint="flatfold models lists them all")
    import torch

    from flatfold.models.initialise import initialise

    spec = ZOO[name]
    module_name, _, function = spec.factory.partition(":")
    factory = getattr(importlib.import_module(module_name), function)
    with torch.random.fork_rng(devices=[]):  # layers draw default weights when constructed
        torch.manual_seed(seed)
        module: nn.Module = factory(**spec.kwargs, num_classes=num_classes)
    initialise(module, seed=seed, gain=spec.gain)
    return module.eval()
