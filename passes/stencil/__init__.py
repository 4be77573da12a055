"""The algebra of affine stencils. NumPy only; knows no ONNX.

stencil.py   the affine stencil: sum and composition
geometry.py  which taps a stencil has and where they read; integers, no weights
kernels.py   arithmetic on the weights, in float64
channels.py  which channels a stencil reads and writes, as index arrays
border.py    a bias that is different near the border
taps.py      outputs, rims and channels that a stencil has and does not use
"""
