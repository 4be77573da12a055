"""Remove activations that have become linear, so that the layers around them compose."""

from __future__ import annotations

from flatfold.passes.region import COLLAPSE, Region
from flatfold.passes.rewrite import Rewrite


class CollapseActivations(Rewrite):
    """LeakyRelu(x; alpha = 1) = x, PRelu(x; 1) = x, Clip(x; a, b) = x for a <= x <= b.

    *Given* an activation that training has made linear (VanillaNet, 2023) or whose input
    cannot reach its bend (Relu of Relu, Clip(0, 1) of Sigmoid). *Result* its input.

    *Declines when* a slope is not exactly 1 and the input may be negative; a limit may be reached
    or is computed. Such an activation is not linear, and nothing is said about it.
    """

    name = "collapse-activations"
    kind = COLLAPSE

    def accept(self, region: Region) -> None:
        """Every such activation is work; layers that then meet are composed as one region."""
