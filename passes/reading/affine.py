"""A value as an affine form of the values it is computed from:  bias + sum over t of f_t(x_t)."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from flatfold.passes.stencil.border import BorderBias
from flatfold.passes.stencil.geometry import Geometry, Sizes
from flatfold.passes.stencil.kernels import Array
from flatfold.passes.stencil.stencil import Stencil


@dataclass(frozen=True)
class Term:
    """stencil(source); the stencil has no bias."""

    source: ir.Value
    stencil: Stencil
    sizes: Sizes


@dataclass(frozen=True)
class Affine:
    """bias + sum of terms.

    `pixels`: output positions for one image, known or assumed. `batched`: matrices are applied
    along the last axis of a value of more than two axes, where no Gemm can add the bias. `joined`:
    it came from a Concat, so some terms may be zero on many of the channels.
    `border_bias`: what is added to the bias near the border; such a form cannot be written.
    """

    terms: tuple[Term, ...]
    bias: Array | None
    pixels: int
    batched: bool = False
    joined: bool = False
    border_bias: BorderBias | None = None

    @property
    def geometry(self) -> Geometry:
        return self.terms[0].stencil.geometry

    @property
    def live(self) -> tuple[Term, ...]:
        """The terms that are written: those of zeros are not, which is exact for finite values."""
        kept = tuple(term for term in self.terms if not term.stencil.is_zero)
        return kept or self.terms[:1]
