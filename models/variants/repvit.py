"""The RepViTs."""

from __future__ import annotations

from flatfold.models.spec import ModelSpec


def _spec(
    width: int, gates: tuple[str, str, str, str], parameters: tuple[int, int], gain: float = 0.6
) -> ModelSpec:
    """`width` is that of the first stage; each next is twice as wide."""
    return ModelSpec(
        "repvit",
        "flatfold.models.repvit:repvit",
        {"widths": tuple(width << stage for stage in range(4)), "gates": gates},
        gain=gain,
        summary="a depthwise 3x3 and a 1x1, and a norm behind their sum (Wang et al., 2024)",
        parameters=parameters,
        paper="2307.09283",
        renames=(
            (r"\.c\.weight$", ".conv.weight"),
            (r"\.fc1\.", ".down."),
            (r"\.fc2\.", ".up."),
            (r"\.l\.", ".linear."),
        ),
    )


VARIANTS = {
    "repvit_m0_6": _spec(40, ("10", "10", "101010100", "1"), (2_487_292, 2_468_072), 0.75),
    "repvit_m0_9": _spec(48, ("100", "100", "10" * 7 + "0", "10"), (5_103_560, 5_067_056)),
    "repvit_m1_0": _spec(56, ("100", "100", "10" * 7 + "0", "10"), (6_852_900, 6_810_312), 0.65),
    "repvit_m1_1": _spec(64, ("100", "100", "10" * 6 + "0", "10"), (8_288_888, 8_244_312)),
    "repvit_m1_5": _spec(64, ("10100", "10100", "10" * 12 + "0", "1010"), (14_130_408, 14_049_992)),
    "repvit_m2_3": _spec(
        80, ("1010100", "1010100", "10" * 17 + "0", "10"), (23_046_512, 22_926_792)
    ),
}
