"""The same block from the new exporter, and from the legacy one with and without folding."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

import flatfold
from flatfold.models.initialise import initialise
from tests.passes.exported.exporters import legacy

CHANNELS = 6


def conv_bn(c: int, k, p, groups: int = 1, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(c, c, k, stride, p, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c))


class RepVGG(nn.Module):
    """3x3 + 1x1 + identity."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = conv_bn(CHANNELS, 3, 1, 2), conv_bn(CHANNELS, 1, 0, 2)
        self.identity = nn.BatchNorm2d(CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.large(x) + self.small(x) + self.identity(x))


class ACNet(nn.Module):
    """KxK + Kx1 + 1xK; without padding the 1-D branches see a cropped input."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.cut = 1 - padding
        self.square = conv_bn(CHANNELS, 3, padding)
        self.column = conv_bn(CHANNELS, (3, 1), (padding, 0))
        self.row = conv_bn(CHANNELS, (1, 3), (0, padding))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        column = x[..., self.cut : -self.cut] if self.cut else x
        row = x[:, :, self.cut : -self.cut] if self.cut else x
        return torch.relu(self.square(x) + self.column(column) + self.row(row))


class MobileOne(nn.Module):
    """k equal branches, a 1x1, an identity, summed in place from a Python zero."""

    def __init__(self, kernel: int, groups: int) -> None:
        super().__init__()
        branches = [conv_bn(CHANNELS, kernel, kernel // 2, groups) for _ in range(4)]
        self.branches = nn.ModuleList(branches)
        self.scale = conv_bn(CHANNELS, 1, 0, groups)
        self.skip = nn.BatchNorm2d(CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.scale(x) + 0
        out += self.skip(x)
        for branch in self.branches:
            out += branch(x)
        return torch.relu(out)


class MobileOneBlocks(nn.Module):
    """A depthwise and a pointwise block with a gate between them."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.pointwise = MobileOne(3, CHANNELS), MobileOne(1, 1)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(CHANNELS, 2, 1),
            nn.ReLU(),
            nn.Conv2d(2, CHANNELS, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depthwise(x)
        return self.pointwise(y * self.gate(y))


class QARepVGG(nn.Module):
    """(3x3 - BN) + 1x1 + x + average, then an outer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = conv_bn(CHANNELS, 3, 1), nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.norm = nn.BatchNorm2d(CHANNELS, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = nn.functional.avg_pool2d(x, 3, 1, 1)
        return torch.relu(self.norm(self.large(x) + self.small(x) + x + mean))


class Mixer(nn.Module):
    """x + s * (M(x) - N(x)), FastViT's token mixer."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = (
            conv_bn(CHANNELS, 3, 1, CHANNELS),
            conv_bn(CHANNELS, 1, 0, CHANNELS),
        )
        self.skip, self.norm = nn.BatchNorm2d(CHANNELS), nn.BatchNorm2d(CHANNELS)
        self.scale = nn.Parameter(torch.linspace(-1, 1, CHANNELS).reshape(-1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = self.large(x) + self.small(x) + self.skip(x)
        return torch.relu(x + self.scale * (mixed - self.norm(x)))


BLOCKS = {
    "RepVGG": (RepVGG, {"Conv": 1, "Relu": 1}),
    "ACNet padded": (lambda: ACNet(1), {"Conv": 1, "Relu": 1}),
    "ACNet cropped": (lambda: ACNet(0), {"Conv": 1, "Relu": 1}),
    "MobileOne": (MobileOneBlocks, {"Conv": 4, "Relu": 3, "Sigmoid": 1, "Mul": 1}),
    "QARepVGG": (QARepVGG, {"Conv": 1, "Relu": 1}),
    "FastViT mixer": (Mixer, {"Conv": 1, "Relu": 1}),
}


def made(name: str) -> nn.Module:
    module = BLOCKS[name][0]().eval()
    initialise(module, seed=3)
    return module


def assert_deployed(done: flatfold.Optimized, name: str) -> None:
    found = Counter(done.after.operators)
    for pool in ("GlobalAveragePool", "ReduceMean"):
        found.pop(pool, None)
    assert found == BLOCKS[name][1]
    assert done.equivalence.passed


# An export takes seconds; tests/golden/ has the blocks of the other families from this exporter.
QUICK = ("RepVGG", "ACNet cropped", "QARepVGG")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in BLOCKS]
)
def test_new_exporter(name):
    done = flatfold.optimize(made(name), input_shape=(CHANNELS, 9, 10), dynamic_batch=True)
    assert done.equivalence.verdict == "certified"
    assert_deployed(done, name)


@pytest.mark.parametrize("folding", [False, True])
@pytest.mark.parametrize("name", BLOCKS)
def test_legacy_exporter(name, folding):
    model = legacy(made(name), (CHANNELS, 9, 10), folding, dynamic=True)
    assert_deployed(flatfold.optimize(model), name)


@pytest.mark.parametrize("name", ["RepVGG", pytest.param("MobileOne", marks=pytest.mark.slow)])
def test_inside_a_larger_network(name):
    net = nn.Sequential(nn.Conv2d(3, CHANNELS, 3), nn.GELU(), made(name), nn.MaxPool2d(2)).eval()
    done = flatfold.optimize(net, input_shape=(3, 12, 13))
    extra = 1 + BLOCKS[name][1]["Conv"]
    assert done.after.operators["Conv"] == extra
    assert "BatchNormalization" not in done.after.operators


def test_a_module_in_training_mode_is_compiled_in_its_inference_form_and_left_alone():
    module = made("RepVGG").train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    done = flatfold.optimize(module, input_shape=(CHANNELS, 9, 10))
    assert_deployed(done, "RepVGG")
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
