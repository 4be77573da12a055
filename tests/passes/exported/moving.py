"""Channels picked, shuffled and joined; shifts in every way; linear layers and heads."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.passes.exported.exporters import BATCHES, EXPORTERS, Case
from tests.passes.exported.parts import Permuted, conv_bn


class Apply(nn.Module):
    """A function without weights."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def shuffle(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def swap(x: Tensor) -> Tensor:
    first, second = x.chunk(2, 1)
    return torch.cat([second, first], 1)


def split(x: Tensor) -> Tensor:
    c = x.shape[1]
    first, second, third = torch.split(x, [c // 4, c // 4, c // 2], 1)
    return torch.cat([third, first, second], 1)


def interleave(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return torch.stack(x.chunk(2, 1), 2).reshape(n, c, h, w)


def pick(x: Tensor) -> Tensor:
    """Every channel once, every fifth after the other."""
    c = x.shape[1]
    return x[:, [(5 * i + 3) % c for i in range(c)]]


def some(x: Tensor) -> Tensor:
    """Most channels, one of them twice."""
    return x[:, [1, 1, *range(3, x.shape[1])]]


def written(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :, 2:, :] = x[:, :, :-2, :]
    return y


def narrowed(x: Tensor) -> Tensor:
    return F.pad(x, [0, 0, 2, 0]).narrow(2, 0, x.shape[2])


def sampled(x: Tensor) -> Tensor:
    h, w = x.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(h) - 2, torch.arange(w), indexing="ij")
    grid = torch.stack([2 * columns / (w - 1) - 1, 2 * rows / (h - 1) - 1], -1).to(x.dtype)
    grid = grid[None].expand(x.shape[0], -1, -1, -1)
    return F.grid_sample(x, grid, "nearest", "zeros", align_corners=True)


def before_conv(function: Callable[[Tensor], Tensor]) -> Callable[[int], nn.Module]:
    """A nonlinear map, the function, a dense convolution."""

    def make(c: int) -> nn.Module:
        with torch.no_grad():
            width = function(torch.zeros(1, c, 4, 4)).shape[1]
        return nn.Sequential(nn.Tanh(), Apply(function), conv_bn(width, c, 3), nn.ReLU())

    return make


def after_conv(function: Callable[[Tensor], Tensor]) -> Callable[[int], nn.Module]:
    return lambda c: nn.Sequential(conv_bn(c, c, 3), Apply(function), nn.ReLU())


class Beside(nn.Module):
    """conv(x) + shift(x)."""

    def __init__(self, c: int, shift: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.shift = conv_bn(c, c, 5), shift

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + self.shift(x))


def permuted(c: int) -> nn.Module:
    return nn.Sequential(nn.Tanh(), Permuted(nn.Linear(c, c)), nn.ReLU())


def pooled(c: int) -> nn.Module:
    mean = Apply(lambda x: x.mean((2, 3)))
    return nn.Sequential(nn.ReLU(), nn.BatchNorm2d(c), mean, nn.Linear(c, 10))


def pooled_by_layer(c: int) -> nn.Module:
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(c, 10))
    return nn.Sequential(nn.ReLU(), nn.BatchNorm2d(c), *head)


def pooled_norm(c: int) -> nn.Module:
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(c), nn.Linear(c, 10))
    return nn.Sequential(nn.ReLU(), *head)


def two_linear(c: int) -> nn.Module:
    mean = Apply(lambda x: torch.relu(x).mean((2, 3)))
    return nn.Sequential(mean, nn.Linear(c, c), nn.BatchNorm1d(c), nn.Linear(c, 10))


def flattened(c: int) -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.BatchNorm2d(c), nn.Flatten(), nn.LazyLinear(10))


def viewed(c: int) -> nn.Module:
    head = Apply(lambda x: x.view(x.size(0), -1))
    return nn.Sequential(
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(c), head, nn.Linear(c, 10)
    )


ONE = {"Tanh": 1, "Conv": 1, "Relu": 1}
HEAD = {"Relu": 1, "ReduceMean": 1, "Gemm": 1}
FLAT = {**HEAD, "Reshape": 1}
PICKS = (shuffle, swap, split, interleave, pick)


def rolled(x: Tensor) -> Tensor:
    return torch.roll(x, 1, 2)


CASES = {
    **{f"{f.__name__}, conv": Case(before_conv(f), ONE) for f in PICKS},
    **{f"conv, {f.__name__}": Case(after_conv(f), {"Conv": 1, "Relu": 1}) for f in (*PICKS, some)},
    **{
        f"{f.__name__} beside conv": Case(
            lambda c, f=f: Beside(c, f),
            {"Conv": 1, "Relu": 1},
            exporters=("new",) if f is sampled else EXPORTERS,
            batches=("static",) if f is sampled else BATCHES,
        )
        for f in (written, narrowed, sampled)
    },
    "roll, conv": Case(before_conv(rolled), {**ONE, "Conv": 2}),
    "roll beside conv": Case(lambda c: Beside(c, rolled), {"Conv": 2, "Add": 1, "Relu": 1}),
    "linear between permutes": Case(permuted, ONE),
    "BN, mean, linear": Case(pooled, HEAD),
    "BN, pool, linear": Case(pooled_by_layer, FLAT),
    "pool, BN1d, linear": Case(pooled_norm, FLAT),
    "linear, BN1d, linear": Case(two_linear, HEAD),
    "pool, BN, view, linear": Case(viewed, FLAT),
}
