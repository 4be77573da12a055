"""The evaluator's pools against PyTorch's, in double precision."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.nets import Net, run


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("include", [False, True])
def test_pools_are_those_of_torch(axes: int, include: bool) -> None:
    x = np.random.default_rng(axes).standard_normal((2, 3, 7, 5, 6)[: axes + 2])
    for kernel, stride, pad, ceil in product((2, 3), (1, 2, 3), (0, 1), (False, True)):
        net = Net(x.shape)
        how = {"kernel_shape": [kernel] * axes, "strides": [stride] * axes, "ceil_mode": int(ceil)}
        how["pads"] = [pad] * 2 * axes
        mean = net.op("AveragePool", net.x, count_include_pad=int(include), **how)
        ours = run(net.model(mean, net.op("MaxPool", net.x, **how)), x)
        y, given = torch.from_numpy(x), {"stride": stride, "padding": pad, "ceil_mode": ceil}
        means, largest = (getattr(functional, f"{kind}_pool{axes}d") for kind in ("avg", "max"))
        wanted = [means(y, kernel, count_include_pad=include, **given), largest(y, kernel, **given)]
        for one, other in zip(ours, wanted, strict=True):
            # Numbers of order 1; of 27 terms the roundings differ in sign, and nine are left.
            np.testing.assert_allclose(one, other.numpy(), rtol=0, atol=9 * 2.0**-53)
