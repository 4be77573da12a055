"""The attributes of Conv and ConvTranspose that a stencil is written with."""

from __future__ import annotations

from flatfold.passes.geometry import Decline
from flatfold.passes.stencil import Stencil


def conv_attributes(f: Stencil) -> dict[str, object]:
    shape = f.geometry
    return {
        "kernel_shape": shape.kernel,
        "strides": shape.strides,
        "dilations": shape.dilations,
        "pads": (*shape.begin, *shape.end),
        "group": shape.groups,
    }


def transpose_attributes(f: Stencil) -> dict[str, object]:
    """Attributes of the ConvTranspose that is this stencil; Decline if there is none."""
    shape = f.geometry
    ends = zip(shape.span, shape.begin, shape.end, strict=True)
    pads = [(span - 1 - begin, span - 1 - end) for span, begin, end in ends]
    extra = tuple(max(-last, 0) for _, last in pads)
    short = any(x >= u for x, u in zip(extra, shape.upsample, strict=True) if x)
    if any(s > 1 for s in shape.strides) or min(first for first, _ in pads) < 0 or short:
        raise Decline(
            "UPSAMPLE",
            f"no ConvTranspose spreads by {shape.upsample}, pads by {pads} and keeps every pixel of"
            f" {shape.strides}",
        )
    return {
        "kernel_shape": shape.kernel,
        "strides": shape.upsample,
        "dilations": shape.dilations,
        "pads": (*(first for first, _ in pads), *(max(last, 0) for _, last in pads)),
        "output_padding": extra,
        "group": shape.groups,
    }
