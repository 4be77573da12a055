"""The VanillaNets."""

from __future__ import annotations

from typing import Any

from flatfold.models.spec import ModelSpec


def _spec(
    multiples: tuple[int, ...],
    pools: tuple[int, ...],
    parameters: tuple[int, int],
    unit: int = 512,
    **kwargs: Any,
) -> ModelSpec:
    """`multiples` of `unit` are the widths."""
    return ModelSpec(
        "vanillanet",
        "flatfold.models.vanillanet:vanillanet",
        {"widths": tuple(unit * multiple for multiple in multiples), "pools": pools, **kwargs},
        gain=1.7,
        summary="pairs of 1x1 convolutions whose activation becomes linear (Chen et al., 2023)",
        parameters=parameters,
        paper="2305.12972",
    )


VARIANTS = {
    "vanillanet_5": _spec((1, 2, 4, 8), (2, 2, 2), (22_328_800, 15_523_304)),
    "vanillanet_6": _spec((1, 2, 4, 8, 8), (2, 2, 2, 1), (56_116_704, 32_509_416)),
    "vanillanet_7": _spec((1, 1, 2, 4, 8, 8), (1, 2, 2, 2, 1), (56_670_176, 32_797_672)),
    "vanillanet_8": _spec((1, 1, 2, 4, 4, 8, 8), (1, 2, 2, 1, 2, 1), (65_175_520, 37_096_424)),
    "vanillanet_9": _spec(
        (1, 1, 2, *[4] * 3, 8, 8), (1, 2, 2, *[1] * 2, 2, 1), (73_680_864, 41_395_176)
    ),
    "vanillanet_10": _spec(
        (1, 1, 2, *[4] * 4, 8, 8), (1, 2, 2, *[1] * 3, 2, 1), (82_186_208, 45_693_928)
    ),
    "vanillanet_11": _spec(
        (1, 1, 2, *[4] * 5, 8, 8), (1, 2, 2, *[1] * 4, 2, 1), (90_691_552, 49_992_680)
    ),
    "vanillanet_12": _spec(
        (1, 1, 2, *[4] * 6, 8, 8), (1, 2, 2, *[1] * 5, 2, 1), (99_196_896, 54_291_432)
    ),
    "vanillanet_13": _spec(
        (1, 1, 2, *[4] * 7, 8, 8), (1, 2, 2, *[1] * 6, 2, 1), (107_702_240, 58_590_184)
    ),
    "vanillanet_13_x1_5": _spec(
        (1, 1, 2, *[4] * 7, 8, 8), (1, 2, 2, *[1] * 6, 2, 1), (236_942_048, 127_796_200), unit=768
    ),
    # Its adaptive pools at 224 x 224, 75 -> 38 -> 19 -> 10, are MaxPools of width 3, 2 and 3.
    "vanillanet_13_x1_5_ada_pool": _spec(
        (1, 1, 2, *[4] * 7, 8, 8),
        (1, 3, 2, *[1] * 6, 3, 1),
        (236_942_048, 127_796_200),
        unit=768,
        stem=(3, 1),
    ),
}
