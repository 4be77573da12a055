"""The model zoo: training-form networks by name.

`ZOO` is the whole zoo, one line per variant; the modules that build the networks are imported,
and torch with them, only when a model is created.
"""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flatfold.errors import UnknownName

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ZOO", "ModelSpec", "create_model", "list_models"]


@dataclass(frozen=True)
class ModelSpec:
    """How to build one network of the zoo.

    `factory` is ``module:function``; called with `kwargs` it returns the training form.
    `input_shape` is (C, H, W). `gain` is the variance gain of convolutions under the seeded
    initialisation (see `flatfold.models.initialise`), chosen so that logits are of order 1.
    """

    family: str
    factory: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    input_shape: tuple[int, int, int] = (3, 224, 224)
    gain: float = 1.0
    summary: str = ""


def _repvgg(gain: float = 0.55, **kwargs: Any) -> ModelSpec:
    summary = "3x3, 1x1 and identity branches in every block (Ding et al., 2021)"
    factory = "flatfold.models.repvgg:repvgg"
    return ModelSpec("repvgg", factory, kwargs, gain=gain, summary=summary)


def _vanillanet(
    multiples: Sequence[int],
    pools: Sequence[int],
    unit: int = 512,
    gain: float = 1.7,
    **kwargs: Any,
) -> ModelSpec:
    """`multiples` of `unit` are the widths."""
    kwargs = {"widths": tuple(unit * multiple for multiple in multiples), "pools": pools, **kwargs}
    summary = "pairs of 1x1 convolutions whose activation becomes linear (Chen et al., 2023)"
    factory = "flatfold.models.vanillanet:vanillanet"
    return ModelSpec("vanillanet", factory, kwargs, gain=gain, summary=summary)


def _replknet(size: int, gain: float = 2.0, **kwargs: Any) -> ModelSpec:
    summary = "depthwise kernels of up to 31x31 with a small one beside each (Ding et al., 2022)"
    factory = "flatfold.models.replknet:replknet"
    return ModelSpec("replknet", factory, kwargs, (3, size, size), gain, summary)


ZOO: dict[str, ModelSpec] = {
    "repvgg_a0": _repvgg(depths=(2, 4, 14, 1), widths=(48, 96, 192, 1280)),
    "repvgg_a1": _repvgg(depths=(2, 4, 14, 1), widths=(64, 128, 256, 1280)),
    "repvgg_a2": _repvgg(depths=(2, 4, 14, 1), widths=(96, 192, 384, 1408)),
    "repvgg_b0": _repvgg(depths=(4, 6, 16, 1), widths=(64, 128, 256, 1280)),
    "repvgg_b1": _repvgg(depths=(4, 6, 16, 1), widths=(128, 256, 512, 2048)),
    "repvgg_b1g2": _repvgg(depths=(4, 6, 16, 1), widths=(128, 256, 512, 2048), groups=2),
    "repvgg_b1g4": _repvgg(depths=(4, 6, 16, 1), widths=(128, 256, 512, 2048), groups=4),
    "repvgg_b2": _repvgg(depths=(4, 6, 16, 1), widths=(160, 320, 640, 2560)),
    "repvgg_b2g2": _repvgg(depths=(4, 6, 16, 1), widths=(160, 320, 640, 2560), groups=2),
    "repvgg_b2g4": _repvgg(depths=(4, 6, 16, 1), widths=(160, 320, 640, 2560), groups=4),
    "repvgg_b3": _repvgg(depths=(4, 6, 16, 1), widths=(192, 384, 768, 2560)),
    "repvgg_b3g2": _repvgg(depths=(4, 6, 16, 1), widths=(192, 384, 768, 2560), groups=2),
    "repvgg_b3g4": _repvgg(depths=(4, 6, 16, 1), widths=(192, 384, 768, 2560), groups=4),
    "repvgg_d2se": _repvgg(
        gain=4.5, depths=(8, 14, 24, 1), widths=(160, 320, 640, 2560), squeeze_excite=True
    ),
    "replknet_31b": _replknet(224, widths=(128, 256, 512, 1024), kernels=(31, 29, 27, 13)),
    "replknet_31l": _replknet(384, widths=(192, 384, 768, 1536), kernels=(31, 29, 27, 13)),
    "replknet_xl": _replknet(
        320, widths=(256, 512, 1024, 2048), kernels=(27, 27, 27, 13), small=None, inner_ratio=1.5
    ),
    "vanillanet_5": _vanillanet((1, 2, 4, 8), (2, 2, 2)),
    "vanillanet_6": _vanillanet((1, 2, 4, 8, 8), (2, 2, 2, 1)),
    "vanillanet_7": _vanillanet((1, 1, 2, 4, 8, 8), (1, 2, 2, 2, 1)),
    "vanillanet_8": _vanillanet((1, 1, 2, 4, 4, 8, 8), (1, 2, 2, 1, 2, 1)),
    "vanillanet_9": _vanillanet((1, 1, 2, *[4] * 3, 8, 8), (1, 2, 2, *[1] * 2, 2, 1)),
    "vanillanet_10": _vanillanet((1, 1, 2, *[4] * 4, 8, 8), (1, 2, 2, *[1] * 3, 2, 1)),
    "vanillanet_11": _vanillanet((1, 1, 2, *[4] * 5, 8, 8), (1, 2, 2, *[1] * 4, 2, 1)),
    "vanillanet_12": _vanillanet((1, 1, 2, *[4] * 6, 8, 8), (1, 2, 2, *[1] * 5, 2, 1)),
    "vanillanet_13": _vanillanet((1, 1, 2, *[4] * 7, 8, 8), (1, 2, 2, *[1] * 6, 2, 1)),
    "vanillanet_13_x1_5": _vanillanet((1, 1, 2, *[4] * 7, 8, 8), (1, 2, 2, *[1] * 6, 2, 1), 768),
    # Its adaptive pools at 224 x 224, 75 -> 38 -> 19 -> 10, are MaxPools of width 3, 2 and 3.
    "vanillanet_13_x1_5_ada_pool": _vanillanet(
        (1, 1, 2, *[4] * 7, 8, 8), (1, 3, 2, *[1] * 6, 3, 1), 768, stem=(3, 1)
    ),
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
