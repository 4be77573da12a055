"""The algebra of affine stencils: convolutions with a bias. NumPy only; it knows no ONNX.

geometry.py  which taps a stencil has and where they look: integers, no weights
stencil.py   Stencil: addition, composition, scales, shifts, selections of channels
kernels.py   arithmetic on weights, at BLAS speed
channels.py  which channels a stencil reads: index arrays
border.py    a bias that differs near the border of the map
taps.py      crops, zero taps at the rim, wider kernels
"""

from __future__ import annotations

from flatfold.passes.stencil.geometry import Geometry
from flatfold.passes.stencil.kernels import lifting
from flatfold.passes.stencil.stencil import Stencil, add, compose, convolution, diagonal

__all__ = ["Geometry", "Stencil", "add", "compose", "convolution", "diagonal", "lifting"]
