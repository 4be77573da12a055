"""The ACNets."""

from __future__ import annotations

from flatfold.models.spec import ModelSpec

VARIANTS = {
    "acnet_resnet18": ModelSpec(
        "acnet",
        "flatfold.models.acnet:acnet",
        {"depths": (2, 2, 2, 2), "widths": (64, 128, 256, 512)},
        gain=0.7,
        summary="3x3, 3x1 and 1x3 kernels for each 3x3 of a ResNet (Ding et al., 2019)",
        parameters=(19_028_520, 11_683_816),
        paper="1908.03930",
    ),
}
