"""Cut kernels down to the taps that are used, or to the width that is fastest."""

from __future__ import annotations

from flatfold.passes.region import TRIM, Region
from flatfold.passes.rewrite import Rewrite


class TrimKernels(Rewrite):
    """W with rims of zeros = the inner W, with as much less padding.

    *Given* a convolution with many weights of zero: rims, gaps, a plus, channels that use fewer
    taps than others, outputs that read one channel only (pruned or embedded kernels, choices of
    channels written as matrices). *Result* smaller ones, summed or side by side.

    *Given* a depthwise kernel of a width that the target is slow on. *Result* a wider one, with
    zeros behind its last column.

    *Declines when* the pieces cost more than the whole; where the padding is narrower than a rim,
    the rest of the rim stays.
    """

    name = "trim-kernels"
    kind = TRIM

    def accept(self, region: Region) -> None:
        """Every kernel of another size is work."""
