"""The RepLKNets."""

from __future__ import annotations

from typing import Any

from flatfold.models.spec import ModelSpec


def _spec(
    size: int,
    widths: tuple[int, ...],
    kernels: tuple[int, ...],
    parameters: tuple[int, int],
    **kwargs: Any,
) -> ModelSpec:
    return ModelSpec(
        "replknet",
        "flatfold.models.replknet:replknet",
        {"widths": widths, "kernels": kernels, **kwargs},
        (3, size, size),
        gain=2.0,
        summary="depthwise kernels of up to 31x31 with a small one beside each (Ding et al., 2022)",
        parameters=parameters,
        paper="2203.06717",
    )


VARIANTS = {
    "replknet_31b": _spec(224, (128, 256, 512, 1024), (31, 29, 27, 13), (79_864_168, 79_388_776)),
    "replknet_31l": _spec(384, (192, 384, 768, 1536), (31, 29, 27, 13), (172_671_016, 171_957_928)),
    "replknet_xl": _spec(
        320,
        (256, 512, 1024, 2048),
        (27, 27, 27, 13),
        (335_435_752, 335_110_632),
        small=None,
        inner_ratio=1.5,
    ),
}
