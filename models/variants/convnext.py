"""The ConvNeXts."""

from __future__ import annotations

from flatfold.models.spec import ModelSpec


def _spec(widths: tuple[int, ...], deep: int, parameters: tuple[int, int]) -> ModelSpec:
    """`deep` is the depth of the third stage."""
    return ModelSpec(
        "convnext",
        "flatfold.models.convnext:convnext",
        {"widths": widths, "depths": (3, 3, deep, 3)},
        summary="7x7 depthwise, LayerNorm and two linear layers with a scale (Liu et al., 2022)",
        parameters=parameters,
        paper="2201.03545",
    )


VARIANTS = {
    "convnext_tiny": _spec((96, 192, 384, 768), 9, (28_589_128, 28_574_440)),
    "convnext_small": _spec((96, 192, 384, 768), 27, (50_223_688, 50_195_176)),
    "convnext_base": _spec((128, 256, 512, 1024), 27, (88_591_464, 88_553_448)),
    "convnext_large": _spec((192, 384, 768, 1536), 27, (197_767_336, 197_710_312)),
}
