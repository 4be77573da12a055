"""Fold constant affine maps per channel into the layer beside them."""

from __future__ import annotations

from flatfold.passes.geometry import Decline
from flatfold.passes.region import FOLD, Region
from flatfold.passes.rewrite import Rewrite


class FoldBatchNorm(Rewrite):
    """s * (W x + b) + t = (s W) x + (s b + t),  and  W (s x + t) + b = (W s) x + (W t + b).

    *Given* a Conv or Gemm with BatchNormalization, constant Mul, Add, Sub, Div, Neg, the scale and
    bias of a LayerNormalization, or a choice of channels (Slice, Gather, shuffle) after it, or
    before it; a mean, Flatten, Reshape or Transpose may stand between. *Result* one Conv or Gemm.
    Several maps in a row become one.

    *Declines when* there is no layer to fold into; the map stands before zero padding and adds
    something (the rim would be wrong: the padding is not shifted); statistics are not constant; the
    value between is read elsewhere; a folded weight does not fit the graph's type.
    """

    name = "fold-batchnorm"
    kind = FOLD

    def accept(self, region: Region) -> None:
        if len(region.nodes) > 1 or region.root.op_type not in ("BatchNormalization",):
            return
        reasons = [why.reason for _, why in region.boundaries]
        raise Decline("ALONE", f"no layer to fold it into: {'; '.join(reasons)}")
