"""RepVGGplus."""

from __future__ import annotations

from flatfold.models.spec import ModelSpec

VARIANTS = {
    "repvggplus_l2pse": ModelSpec(
        "repvggplus",
        "flatfold.models.repvggplus:repvggplus",
        {"depths": (8, 14, 24, 1), "widths": (160, 320, 640, 2560)},
        (3, 320, 320),
        gain=5.0,
        summary="RepVGG blocks with a gate behind each activation (Ding et al., 2021)",
        parameters=(140_099_224, 127_151_960),
        paper="2101.03697",
        renames=((r"\.blocks\.", "."), (r"^stage\w+_aux\.", None)),
    ),
}
