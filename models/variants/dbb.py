"""The networks of diverse branch blocks."""

from __future__ import annotations

from flatfold.models.spec import ModelSpec

VARIANTS = {
    "dbb_resnet18": ModelSpec(
        "dbb",
        "flatfold.models.dbb:dbb",
        {"depths": (2, 2, 2, 2), "widths": (64, 128, 256, 512)},
        gain=0.6,
        summary="four branches of one to three layers for each 3x3 of a ResNet (Ding et al., 2021)",
        parameters=(26_288_296, 11_683_816),
        paper="2103.13425",
    ),
}
