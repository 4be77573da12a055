"""Compose layers that follow each other into one."""

from __future__ import annotations

from flatfold.passes.lifting.sums import CompositionContext, compose_form
from flatfold.passes.reading.affine import Affine
from flatfold.passes.reading.meaning import Applied, Linear
from flatfold.passes.rewrite import Region, Rewrite
from flatfold.passes.stencil.stencil import Stencil


class ComposeConvs(Rewrite):
    """g(f(x)) = (g @ f)(x), for linear layers with nothing between them.

    *Given* Conv after Conv, Gemm after Gemm, a zero Pad, crop, shift or average pool next to
    either, a Pad by what the layer in front makes of zero (DBB, 2021). *Result* one layer.

    *Declines when* g's padding would see values of f that are not zero there (a bias of f, or taps
    of f that still reach the input: exact inside, wrong on the rim); one layer would cost more than
    two (a depthwise kernel times a dense matrix, a bottleneck multiplied out).

    The arithmetic and the border rule are in `lifting/sums.py` and `stencil/`: folding uses them,
    too.
    """

    name = "compose-convs"

    def claims(self, region: Region) -> bool:
        return sum(map(_is_layer, region.meanings.values())) > 1

    def compose(self, outer: Stencil, inner: Affine, context: CompositionContext) -> Affine | None:
        """One layer after another; a map of the channels on either side is left to folding."""
        layers = any(not term.stencil.geometry.is_diagonal for term in inner.terms)
        if outer.geometry.is_diagonal or not layers:
            return None
        return compose_form(outer, inner, context)


def _is_layer(linear: Linear) -> bool:
    """Whether an operator does more than scale channels."""
    return isinstance(linear, Applied) and not linear.stencil.geometry.is_diagonal
