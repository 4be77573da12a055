"""What the blocks are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def conv_bn(i: int, o: int, k, *, axes: int = 2, eps: float = 1e-5, **how) -> nn.Sequential:
    """A convolution without bias that keeps the size, and its norm."""
    kernel = (k,) * axes if isinstance(k, int) else tuple(k)
    rate = how.get("dilation", 1)
    how.setdefault("bias", False)
    how.setdefault("padding", tuple(rate * (n - 1) // 2 for n in kernel))
    conv = CONVS[axes](i, o, kernel, **how)
    return nn.Sequential(conv, NORMS[axes](o, eps=eps))


class Sum(nn.Module):
    """The sum of what the branches make of one input."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = sum((branch(x) for branch in self.branches[1:]), self.branches[0](x))
        return total


class Residual(nn.Sequential):
    """x + f(x)."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        return x + y


class Permuted(nn.Sequential):
    """f in channels-last."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x.permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2)


class Scale(nn.Module):
    """gamma * x, per channel of NCHW or of NHWC."""

    def __init__(self, c: int, last: bool = False) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.linspace(-1, 1, c).reshape(c if last else (c, 1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * x


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(c, c // 4, 1), nn.Conv2d(c // 4, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.up(torch.relu(self.down(mean))))
