"""The SLaKs."""

from __future__ import annotations

from flatfold.models.spec import ModelSpec

# The two strips have carried two names in the published code.
_RENAMES = ((r"\.(LoRA|Decom)1\.", ".tall."), (r"\.(LoRA|Decom)2\.", ".wide."))


def _spec(first: int, deep: int, parameters: tuple[int, int], factor: float = 1.3) -> ModelSpec:
    """`first` is the width of the first stage before `factor`, `deep` the depth of the third."""
    widths = tuple(int(first * factor * scale) for scale in (1, 2, 4, 8))
    return ModelSpec(
        "slak",
        "flatfold.models.slak:slak",
        {"widths": widths, "depths": (3, 3, deep, 3)},
        summary="depthwise strips of up to 51x5 and 5x51, and a 5x5 kernel (Liu et al., 2022)",
        parameters=parameters,
        paper="2207.03620",
        renames=_RENAMES,
    )


VARIANTS = {
    "slak_tiny": _spec(96, 9, (50_703_838, 50_426_640)),
    "slak_tiny_x1_0": _spec(96, 9, (30_816_232, 30_602_824), factor=1.0),
    "slak_small": _spec(96, 27, (91_131_820, 90_567_198)),
    "slak_base": _spec(128, 27, (157_950_792, 157_198_154)),
}
