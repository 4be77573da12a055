"""The backbone of YOLOv6-N, of three kinds of blocks."""

from __future__ import annotations

from flatfold.models.spec import ModelSpec


def _spec(
    block: str, parameters: tuple[int, int], gain: float, paper: str, summary: str
) -> ModelSpec:
    return ModelSpec(
        "yolo",
        "flatfold.models.yolo:yolo",
        {"block": block, "widths": (16, 32, 64, 128, 256), "depths": (2, 4, 6, 2)},
        gain=gain,
        summary=summary,
        parameters=parameters,
        paper=paper,
    )


VARIANTS = {
    "yolo_repconv_tiny": _spec(
        "repconv",
        (3_183_600, 2_881_480),
        0.9,
        "2207.02696",
        "RepConv blocks of YOLOv7 (Wang et al., 2023)",
    ),
    "yolo_qarepvgg_tiny": _spec(
        "qarepvgg",
        (3_180_400, 2_881_480),
        4.5,
        "2212.01593",
        "one norm behind the branches (Chu et al., 2024)",
    ),
    "yolo_csla_tiny": _spec(
        "csla",
        (3_182_000, 2_881_480),
        0.65,
        "2205.15242",
        "constant scale, linear addition (Ding et al., 2023)",
    ),
}
