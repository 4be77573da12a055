"""The Shift-ConvNets."""

from __future__ import annotations

from flatfold.models.spec import ModelSpec

_RENAMES = (
    (r"\.LoRAs\.", ".convs."),
    (r"\.bn_lora1\.", ".bn_horizontal."),
    (r"\.bn_lora2\.", ".bn_vertical."),
    (r"\.bn_small\.", ".bn_still."),
)


def _spec(version: int, width: int, deep: int, parameters: tuple[int, int]) -> ModelSpec:
    """`width` of the first stage, depth of the third."""
    return ModelSpec(
        "swnet",
        "flatfold.models.swnet:swnet",
        {
            "version": version,
            "widths": tuple(width * scale for scale in (1, 2, 4, 8)),
            "depths": (3, 3, deep, 3),
        },
        summary="3x3 kernels moved to where they make up strips of up to 51 (Li et al., 2024)",
        parameters=parameters,
        paper="2401.12736",
        renames=_RENAMES,
    )


VARIANTS = {
    "swnet_v1_tiny": _spec(1, 96, 9, (29_419_432, 29_379_214)),
    "swnet_tiny": _spec(2, 80, 18, (31_790_260, 31_694_070)),
    "swnet_small": _spec(2, 96, 27, (57_312_892, 57_158_374)),
    "swnet_base": _spec(2, 128, 27, (100_250_380, 100_043_880)),
    "swnet_large": _spec(2, 192, 27, (221_808_628, 221_499_088)),
}
