"""The RepVGGs."""

from __future__ import annotations

from typing import Any

from flatfold.models.spec import ModelSpec


def _spec(
    depths: tuple[int, ...],
    widths: tuple[int, ...],
    parameters: tuple[int, int],
    gain: float = 0.55,
    **kwargs: Any,
) -> ModelSpec:
    return ModelSpec(
        "repvgg",
        "flatfold.models.repvgg:repvgg",
        {"depths": depths, "widths": widths, **kwargs},
        gain=gain,
        summary="3x3, 1x1 and identity branches in every block (Ding et al., 2021)",
        parameters=parameters,
        paper="2101.03697",
    )


_A, _B, _D = (2, 4, 14, 1), (4, 6, 16, 1), (8, 14, 24, 1)

VARIANTS = {
    "repvgg_a0": _spec(_A, (48, 96, 192, 1280), (9_108_968, 8_309_384)),
    "repvgg_a1": _spec(_A, (64, 128, 256, 1280), (14_092_264, 12_789_864)),
    "repvgg_a2": _spec(_A, (96, 192, 384, 1408), (28_210_600, 25_499_944)),
    "repvgg_b0": _spec(_B, (64, 128, 256, 1280), (15_817_960, 14_339_048)),
    "repvgg_b1": _spec(_B, (128, 256, 512, 2048), (57_415_016, 51_829_480)),
    "repvgg_b1g2": _spec(_B, (128, 256, 512, 2048), (45_782_376, 41_360_104), groups=2),
    "repvgg_b1g4": _spec(_B, (128, 256, 512, 2048), (39_966_056, 36_125_416), groups=4),
    "repvgg_b2": _spec(_B, (160, 320, 640, 2560), (89_022_376, 80_315_112)),
    "repvgg_b2g2": _spec(_B, (160, 320, 640, 2560), (70_846_376, 63_956_712), groups=2),
    "repvgg_b2g4": _spec(_B, (160, 320, 640, 2560), (61_758_376, 55_777_512), groups=4),
    "repvgg_b3": _spec(_B, (192, 384, 768, 2560), (123_085_288, 110_960_872)),
    "repvgg_b3g2": _spec(_B, (192, 384, 768, 2560), (96_911_848, 87_404_776), groups=2),
    "repvgg_b3g4": _spec(_B, (192, 384, 768, 2560), (83_825_128, 75_626_728), groups=4),
    "repvgg_d2se": _spec(
        _D, (160, 320, 640, 2560), (133_334_836, 120_387_572), squeeze_excite=True, gain=4.5
    ),
}
