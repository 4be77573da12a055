"""The MobileOnes."""

from __future__ import annotations

from typing import Any

from flatfold.models.spec import ModelSpec


def _spec(
    widths: tuple[int, ...], parameters: tuple[int, int], gain: float = 1.2, **kwargs: Any
) -> ModelSpec:
    return ModelSpec(
        "mobileone",
        "flatfold.models.mobileone:mobileone",
        {"widths": widths, **kwargs},
        gain=gain,
        summary="several equal branches in depthwise and 1x1 blocks (Vasu et al., 2023)",
        parameters=parameters,
        paper="2206.04040",
        renames=((r"\.se\.reduce\.", ".se.down."), (r"\.se\.expand\.", ".se.up.")),
    )


VARIANTS = {
    "mobileone_s0": _spec((48, 128, 256, 1024), (5_293_272, 2_078_504), branches=4, gain=0.4),
    "mobileone_s1": _spec((96, 192, 512, 1280), (4_825_192, 4_764_840)),
    "mobileone_s2": _spec((96, 256, 640, 2048), (7_884_648, 7_808_168)),
    "mobileone_s3": _spec((128, 320, 768, 2048), (10_170_600, 10_078_312)),
    "mobileone_s4": _spec(
        (192, 448, 896, 2048), (14_951_248, 14_838_352), gated=(0, 0, 5, 1), gain=1.75
    ),
}
