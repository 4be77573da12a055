"""Merge parallel linear branches into one layer."""

from __future__ import annotations

from flatfold.passes.geometry import Decline
from flatfold.passes.region import MERGE, Region
from flatfold.passes.rewrite import Rewrite


class MergeBranches(Rewrite):
    """f(x) + g(x) - h(x) + .. = (f + g - h + ..)(x), for linear branches (RepVGG, 2021).

    *Given* any nesting of Add, Sub, Sum and Concat over values that are linear in some sources.
    *Result* for each source the fewest layers that cost least, and an Add for each remaining
    source, or a Concat of blocks of channels. Kernels are aligned by where their taps look, so
    size, parity, dilation and padding are free; identity is a kernel of one tap, an average pool
    one of equal taps. A Concat is a sum whose terms are zero on each other's channels or pixels, so
    a roll is two shifts, and the identity of some of the channels a mask.

    *Declines when* the branches read different values; strides or sizes differ; the sum may
    broadcast; one kernel for both would cost more than two.
    """

    name = "merge-branches"
    kind = MERGE

    def accept(self, region: Region) -> None:
        if len(region.nodes) > 1:
            return
        sources = ", ".join(term.source.name or "?" for term in region.form.terms)
        count = len(region.form.terms)
        raise Decline("SOURCES", f"its {count} terms read different values: {sources}")
