"""Two ways to compute the same sums, compared up to rounding and no further."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def assert_same_sums(found: Tensor, expected: Tensor, terms: int) -> None:
    """|found - expected| <= n u m: `terms` n to a sum, unit roundoff u, largest number m.

    A sum of n products is off by at most n u times the sum of their magnitudes, whatever the order
    (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1). The largest number
    of the result stands for that sum. A number through several layers has the terms of all of them.
    """
    one, two = found.detach().numpy(), expected.detach().numpy()
    assert one.shape == two.shape
    assert one.dtype == two.dtype
    roundoff = float(np.finfo(one.dtype).eps) / 2
    off, largest = float(np.abs(one - two).max()), float(np.abs(two).max())
    assert off <= terms * roundoff * largest, f"off by {off / (roundoff * largest):.1f} roundings"
