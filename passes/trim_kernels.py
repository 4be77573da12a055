"""Cut kernels down to the taps that are used."""

from __future__ import annotations

from flatfold.passes.region import TRIM, Region
from flatfold.passes.rewrite import Rewrite


class TrimKernels(Rewrite):
    """W with rims of zeros = the inner W, with as much less padding.

    *Given* a convolution whose outer rows or columns are zero in all channels (pruned or embedded
    kernels). *Result* a smaller one.

    *Declines when* the padding is narrower than the rim: the rest of the rim stays.
    """

    name = "trim-kernels"
    kind = TRIM

    def accept(self, region: Region) -> None:
        """Every smaller kernel is work."""
