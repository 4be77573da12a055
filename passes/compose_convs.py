"""Compose layers that follow each other into one."""

from __future__ import annotations

from flatfold.passes.rewrite import COMPOSE, Region, Rewrite


class ComposeConvs(Rewrite):
    """g(f(x)) = (g @ f)(x), for linear layers with nothing between them.

    *Given* Conv after Conv, Gemm after Gemm, a zero Pad, crop, shift or average pool beside
    either, a Pad by what the layer in front makes of zero (DBB, 2021). *Result* one layer.

    *Declines when* g's padding would see values of f that are not zero there (a bias of f, or taps
    of f that still reach the input: exact inside, wrong on the rim); one layer would cost more than
    two (a depthwise kernel times a dense matrix, a bottleneck multiplied out).
    """

    name = "compose-convs"
    kind = COMPOSE

    def accept(self, region: Region) -> None:
        """Every composed chain is work; whether it pays was decided while lifting."""
