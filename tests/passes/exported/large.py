"""Blocks with large kernels: RepLKNet, UniRepLKNet, SLaK, FastViT's position encoding, ConvNeXt."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.passes.exported.exporters import SMALL, WIDE, Case
from tests.passes.exported.parts import Gate, Permuted, Residual, Scale, Sum, conv_bn

DILATED = {
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    7: ((5, 1), (3, 2), (3, 3)),
}


def dilated(c: int, k: int) -> nn.Module:
    """Depthwise kernels at several rates inside a large one, and a norm of the sum."""
    small = [conv_bn(c, c, n, dilation=r, groups=c) for n, r in DILATED[k]]
    return nn.Sequential(Sum(conv_bn(c, c, k, groups=c), *small), nn.BatchNorm2d(c))


class ResponseNorm(nn.Module):
    """Global response normalization of a map in channels-last."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.zeros(c)), nn.Parameter(torch.zeros(c))

    def forward(self, x: Tensor) -> Tensor:
        g = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        n = g / (g.mean(dim=-1, keepdim=True) + 1e-6)
        return (self.gamma * n + 1) * x + self.beta


def response(c: int) -> nn.Module:
    """The second half of a UniRepLKNet block."""
    layers = (nn.Linear(c, 4 * c), nn.GELU(), ResponseNorm(4 * c), nn.Linear(4 * c, c, bias=False))
    return Residual(Permuted(*layers), nn.BatchNorm2d(c), Scale(c))


def unireplk(c: int) -> nn.Module:
    layers = (nn.Linear(c, 4 * c), nn.GELU(), ResponseNorm(4 * c), nn.Linear(4 * c, c, bias=False))
    norm = (nn.BatchNorm2d(c), Scale(c))
    return Residual(dilated(c, 13), Gate(c), Permuted(*layers), *norm)


def replk(c: int, k: int) -> nn.Module:
    pair = Sum(conv_bn(c, c, k, groups=c), conv_bn(c, c, 5, groups=c))
    front = (nn.BatchNorm2d(c), conv_bn(c, c, 1), nn.ReLU())
    return Residual(*front, pair, nn.ReLU(), conv_bn(c, c, 1))


def slak(c: int, m: int) -> nn.Module:
    strips = [conv_bn(c, c, k, groups=c) for k in ((m, 5), (5, m), (5, 5))]
    return nn.Sequential(Sum(*strips), nn.GELU())


def convnext(c: int) -> nn.Module:
    layers = (nn.LayerNorm(c, 1e-6), nn.Linear(c, 4 * c), nn.GELU(), nn.Linear(4 * c, c))
    return Residual(nn.Conv2d(c, c, 7, padding=3, groups=c), Permuted(*layers, Scale(c, last=True)))


def position(c: int) -> nn.Module:
    return nn.Sequential(nn.Tanh(), Residual(nn.Conv2d(c, c, 7, padding=3, groups=c)), nn.GELU())


LAST = {"Transpose": 2, "Conv": 1, "MatMul": 1, "Gelu": 1}  # a 1x1 layer on either side of them
FFN = {**LAST, "ReduceL2": 1, "ReduceMean": 1, "Div": 1, "Mul": 2, "Add": 4}
GATED = {**FFN, "Conv": 4, "Mul": 3, "ReduceMean": 2, "Relu": 1, "Sigmoid": 1}
NORMED = {"Transpose": 2, "Gelu": 1, "LayerNormalization": 1}
BIG = {SMALL: (15, 16), WIDE: (28, 28)}

CASES = {
    **{f"dilated {k}": Case(lambda c, k=k: dilated(c, k), {"Conv": 1}, BIG) for k in DILATED},
    "GRN": Case(response, FFN),
    "UniRepLKNet": Case(unireplk, GATED, BIG),
    "RepLKNet 13": Case(lambda c: replk(c, 13), {"Conv": 3, "Relu": 2, "Add": 1}, BIG),
    "RepLKNet 31": Case(lambda c: replk(c, 31), {"Conv": 3, "Relu": 2, "Add": 1}),
    "SLaK 13": Case(lambda c: slak(c, 13), {"Conv": 2, "Add": 1, "Gelu": 1}, BIG),
    "SLaK 51": Case(lambda c: slak(c, 51), {"Conv": 2, "Add": 1, "Gelu": 1}),
    "ConvNeXt": Case(
        convnext,
        {**NORMED, "MatMul": 2, "Conv": 1, "Add": 3},
        small={**NORMED, "MatMul": 1, "Conv": 2, "Add": 2},
    ),
    "RepCPE": Case(position, {"Tanh": 1, "Conv": 1, "Gelu": 1}),
}
