"""The EfficientNetV2s."""

from __future__ import annotations

from flatfold.models.spec import ModelSpec


def _both(
    size: str,
    depths: tuple[int, ...],
    widths: tuple[int, ...],
    ends: tuple[int, int],
    side: int,
    parameters: tuple[int, int],
    gain: float = 2.0,
) -> dict[str, ModelSpec]:
    """A size in both styles; `ends` are the channels of stem and head, `side` is the input's.

    With tf_, the padding and the epsilon under which the authors trained their weights.
    """
    stem, head = ends
    return {
        f"{prefix}efficientnetv2_{size}": ModelSpec(
            "efficientnetv2",
            "flatfold.models.efficientnetv2:efficientnetv2",
            {"depths": depths, "widths": widths, "stem": stem, "head": head, "tensorflow": tf},
            (3, side, side),
            gain=gain,
            summary="dense 3x3 blocks, then inverted bottlenecks with gates (Tan and Le, 2021)",
            parameters=parameters,
            paper="2104.00298",
        )
        for prefix, tf in (("", False), ("tf_", True))
    }


VARIANTS = {
    **_both(
        "s",
        (2, 4, 4, 6, 9, 15),
        (24, 48, 64, 128, 160, 256),
        (24, 1280),
        384,
        (21_458_488, 21_381_552),
        gain=1.5,
    ),
    **_both(
        "m",
        (3, 5, 5, 7, 14, 18, 5),
        (24, 48, 80, 160, 176, 304, 512),
        (24, 1280),
        480,
        (54_139_356, 53_993_340),
        gain=1.5,
    ),
    **_both(
        "l",
        (4, 7, 7, 10, 19, 25, 7),
        (32, 64, 96, 192, 224, 384, 640),
        (32, 1280),
        480,
        (118_515_272, 118_258_984),
        gain=1.4,
    ),
    **_both(
        "xl",
        (4, 8, 8, 16, 24, 32, 8),
        (32, 64, 96, 192, 256, 512, 640),
        (32, 1280),
        512,
        (208_119_808, 207_731_296),
        gain=1.3,
    ),
    **_both(
        "b0",
        (1, 2, 2, 3, 5, 8),
        (16, 32, 48, 96, 112, 192),
        (32, 1280),
        224,
        (7_139_704, 7_109_400),
    ),
    **_both(
        "b1",
        (2, 3, 3, 4, 6, 9),
        (16, 32, 48, 96, 112, 192),
        (32, 1280),
        240,
        (8_141_052, 8_105_516),
    ),
    **_both(
        "b2",
        (2, 3, 3, 4, 6, 10),
        (16, 32, 56, 104, 120, 208),
        (32, 1408),
        260,
        (10_096_086, 10_054_942),
    ),
    **_both(
        "b3",
        (2, 3, 3, 5, 7, 12),
        (16, 40, 56, 112, 136, 232),
        (40, 1536),
        300,
        (14_358_406, 14_303_798),
    ),
}
