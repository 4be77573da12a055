"""Graphs of one write, at indices that are constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from tests.frontend.execution import from_text


def scatter(
    indices: NDArray[np.int64],
    data: str = "float[2, 4, 5] x",
    updates: str = "float[2, 2, 5] u",
    call: str = "ScatterND (x, i, u)",
) -> ir.Model:
    sides = ", ".join(str(size) for size in indices.shape)
    items = ", ".join(str(item) for item in indices.ravel())
    shape = data.split()[0] + " " + " ".join(data.split()[1:-1])
    return from_text(
        f"""g ({data}, {updates}) => ({shape} y) <int64[{sides}] i = {{{items}}}> {{
            y = {call}
        }}"""
    )


def box(*spans: tuple[int, int]) -> NDArray[np.int64]:
    """The indices of a box, from and to along each axis."""
    axes = np.meshgrid(*[np.arange(start, end) for start, end in spans], indexing="ij")
    return np.stack(axes, -1)
