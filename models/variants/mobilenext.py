"""The MobileNeXts."""

from __future__ import annotations

from flatfold.models.spec import ModelSpec


def _spec(width: float, parameters: tuple[int, int], identity_divisor: int = 1) -> ModelSpec:
    return ModelSpec(
        "mobilenext",
        "flatfold.models.mobilenext:mobilenext",
        {"width": width, "identity_divisor": identity_divisor},
        gain=2.0,
        summary="depthwise layers at the wide ends of a bottleneck (Zhou et al., 2020)",
        parameters=parameters,
        paper="2007.02269",
    )


VARIANTS = {
    "mobilenext_035": _spec(0.35, (1_913_976, 1_902_912)),
    "mobilenext_050": _spec(0.5, (2_152_304, 2_137_904)),
    "mobilenext_075": _spec(0.75, (2_766_168, 2_745_540)),
    "mobilenext_100": _spec(1.0, (3_535_416, 3_508_904)),
    "mobilenext_140": _spec(1.4, (6_126_168, 6_089_040)),
    # The shortcuts carry a half, a third, a quarter of the channels.
    **{f"mobilenext_100_d{part}": _spec(1.0, (3_535_416, 3_514_664), part) for part in (2, 3, 4)},
}
