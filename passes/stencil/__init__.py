<<<<<<< HEAD
"""The algebra of affine stencils. NumPy only; knows no ONNX.

stencil.py   the affine stencil: sum and composition
geometry.py  which taps a stencil has and where they read; integers, no weights
kernels.py   arithmetic on the weights, in float64
channels.py  which channels a stencil reads and writes, as index arrays
border.py    a bias that is different near the border
taps.py      outputs, rims and channels that a stencil has and does not use
"""
=======
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
>>>>>>> f01fdee (passes: public names and module lists; convolution() makes a stencil; an ablation starts with what others build on)
