"""The FastViTs."""

from __future__ import annotations

from typing import Any

from flatfold.models.spec import ModelSpec


def _spec(
    depths: tuple[int, ...],
    width: int,
    parameters: tuple[int, int],
    **kwargs: Any,
) -> ModelSpec:
    """`width` is that of the first stage; each next is twice as wide."""
    return ModelSpec(
        "fastvit",
        "flatfold.models.fastvit:fastvit",
        {"widths": tuple(width << stage for stage in range(4)), "depths": depths, **kwargs},
        (3, 256, 256),
        gain=1.3,
        summary="x + s * (M(x) - N(x)) mixes pixels, one depthwise 3x3 (Vasu et al., 2023)",
        parameters=parameters,
        paper="2303.14189",
        renames=(
            (r"\.token_mixer\.norm\.rbr_skip\.", ".token_mixer.norm."),
            (r"\.se\.reduce\.", ".se.down."),
            (r"\.se\.expand\.", ".se.up."),
        ),
    )


_12, _24, _36 = (2, 2, 6, 2), (4, 4, 12, 4), (6, 6, 18, 6)

VARIANTS = {
    "fastvit_t8": _spec((2, 2, 4, 2), 48, (4_026_232, 3_992_392), ratio=3),
    "fastvit_t12": _spec(_12, 64, (7_553_704, 7_502_952), ratio=3),
    "fastvit_s12": _spec(_12, 64, (9_473_576, 9_422_824)),
    "fastvit_sa12": _spec(_12, 64, (11_580_968, 11_539_432), attention=True),
    "fastvit_sa24": _spec(_24, 64, (21_554_216, 21_489_512), attention=True),
    "fastvit_sa36": _spec(_36, 64, (31_527_464, 31_439_592), attention=True, scale=1e-6),
    "fastvit_ma36": _spec(_36, 76, (44_068_004, 43_963_656), attention=True, scale=1e-6),
}
