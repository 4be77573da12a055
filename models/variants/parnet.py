"""The ParNets."""

from __future__ import annotations

from flatfold.models.spec import ModelSpec, Renames

# The published blocks are wrapped once more, and stages are Sequentials of norms and blocks.
_RENAMES: Renames = (
    (r"\.block\.", "."),
    (r"\.rbr_1x1\.1\.", ".rbr_1x1."),
    (r"\.se\.cvsig\.conv\.", ".gate."),
    (r"^downsamples_2\.0\.", "down."),
    (r"^downsamples_2\.1\.0\.", "fusions.0."),
    (r"^downsamples_2\.1\.2\.", "fusions.0.block."),
    (r"^combine\.0\.", "fusions.1."),
    (r"^combine\.2\.", "fusions.1.block."),
    (r"^combine\.3\.", "last."),
    (r"^head\.fc\.", "head."),
)


def _spec(widths: tuple[int, int, int], last: int, parameters: tuple[int, int]) -> ModelSpec:
    return ModelSpec(
        "parnet",
        "flatfold.models.parnet:parnet",
        {"widths": widths, "last": last},
        gain=1.7,
        summary="three parallel streams of RepVGG blocks with gates (Goyal et al., 2022)",
        parameters=parameters,
        paper="2110.07641",
        renames=_RENAMES,
    )


VARIANTS = {
    "parnet_s": _spec((92, 192, 384), 1280, (20_930_936, 19_128_980)),
    "parnet_m": _spec((128, 256, 512), 2048, (38_953_256, 35_576_616)),
    "parnet_l": _spec((160, 320, 640), 2560, (60_180_008, 54_914_824)),
    "parnet_xl": _spec((200, 400, 800), 3200, (93_176_168, 84_962_784)),
}
