"""The UniRepLKNets."""

from __future__ import annotations

from flatfold.models.spec import ModelSpec

_RENAMES = (
    (r"\.lk_origin\.", ".large.conv."),
    (r"\.origin_bn\.", ".large.bn."),
    (r"\.dil_(conv|bn)_(k\d+_\d+)\.", r".dilated.\2.\1."),
)


def _spec(
    width: int, blocks: int, third: tuple[int, ...], parameters: tuple[int, int]
) -> ModelSpec:
    """`width` and `blocks` of the first stage, the kernels of the `third`."""
    return ModelSpec(
        "unireplknet",
        "flatfold.models.unireplknet:unireplknet",
        {
            "widths": tuple(width * scale for scale in (1, 2, 4, 8)),
            "kernels": ((3,) * blocks, (13,) * blocks, third, (13,) * blocks),
        },
        summary="13x13 depthwise and five dilated kernels in it, gates, GRN (Ding et al., 2023)",
        parameters=parameters,
        paper="2311.15599",
        renames=_RENAMES,
    )


VARIANTS = {
    "unireplknet_a": _spec(40, 2, (13,) * 6, (4_649_060, 4_436_980)),
    "unireplknet_f": _spec(48, 2, (13,) * 6, (6_489_328, 6_234_832)),
    "unireplknet_p": _spec(64, 2, (13,) * 6, (11_080_520, 10_741_192)),
    "unireplknet_n": _spec(80, 2, (13,) * 8, (18_818_880, 18_317_920)),
    "unireplknet_t": _spec(80, 3, (13, 3) * 9, (31_693_420, 31_037_340)),
    "unireplknet_s": _spec(96, 3, (13, 3, 3) * 9, (56_456_704, 55_645_216)),
}
