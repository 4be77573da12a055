"""RepVGG-like networks, and how correct and faulty tools fold one of their blocks.

`reliability`'s catalogue: what goes wrong when a training block is folded by hand. Norms are
calibrated: their statistics are those of what they see, and only their scale and shift are random.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper

from flatfold.proof.interpreter.convolution import convolve
from tests.nets import Net

EPSILON = float(np.float32(1e-5))
BLOCKS = 8

Array = np.ndarray


@dataclass(frozen=True)
class Norm:
    gamma: Array
    beta: Array
    mean: Array
    variance: Array

    def changed(self, field: str, channel: int, factor: float) -> Norm:
        array = getattr(self, field).copy()
        array[channel] *= factor
        return replace(self, **{field: array})


@dataclass(frozen=True)
class Block:
    """3x3 with a norm, 1x1 with a norm, and a norm alone where shapes allow; then Relu."""

    wide: Array
    narrow: Array
    norms: tuple[Norm, ...]
    stride: int = 1

    @property
    def outputs(self) -> int:
        return len(self.wide)

    @property
    def has_identity(self) -> bool:
        return len(self.norms) > 2

    def kernels(self) -> list[Array]:
        """What every branch is before its norm, as a 3x3 kernel in double."""
        padded = np.pad(self.narrow, [(0, 0), (0, 0), (1, 1), (1, 1)])
        same = np.zeros(self.wide.shape)
        same[range(same.shape[1]), range(same.shape[1]), 1, 1] = 1
        return [k.astype(np.float64) for k in (self.wide, padded, same)[: len(self.norms)]]

    def fold(self, epsilon: float = EPSILON, kernels: list[Array] | None = None) -> list[Array]:
        """Weight and bias of the one convolution that the block is."""
        weight, bias = np.zeros(self.wide.shape), np.zeros(self.outputs)
        for kernel, norm in zip(kernels or self.kernels(), self.norms, strict=True):
            double = [getattr(norm, f).astype(np.float64) for f in vars(norm)]
            scale = double[0] / np.sqrt(double[3] + epsilon)
            weight += scale.reshape(-1, 1, 1, 1) * kernel
            bias += double[1] - scale * double[2]
        return [weight, bias]

    def with_norm(self, index: int, norm: Norm) -> Block:
        norms = list(self.norms)
        norms[index] = norm
        return replace(self, norms=tuple(norms))


def drawn_block(x: Array, width: int, stride: int, rng: np.random.Generator) -> tuple[Block, Array]:
    """A block for the data `x`, and what comes out of it."""
    channels = x.shape[1]
    wide = rng.standard_normal((width, channels, 3, 3)) / np.sqrt(9 * channels)
    narrow = rng.standard_normal((width, channels, 1, 1)) / np.sqrt(channels)
    identity = channels == width and stride == 1
    block = Block(wide.astype(np.float32), narrow.astype(np.float32), (), stride)
    blank = tuple(Norm(*(np.ones(width),) * 4) for _ in range(2 + identity))
    total, norms = np.zeros(()), []
    for kernel in replace(block, norms=blank).kernels():
        y = convolve(x, kernel, (stride, stride), (1, 1), (1, 1, 1, 1), 1)
        mean, variance = y.mean((0, 2, 3)), y.var((0, 2, 3)) + 1e-3
        gamma, beta = rng.uniform(0.5, 1.5, width), rng.normal(0, 0.3, width)
        norms.append(Norm(*(a.astype(np.float32) for a in (gamma, beta, mean, variance))))
        columns = [a.reshape(-1, 1, 1) for a in (gamma / np.sqrt(variance), beta, mean)]
        total = total + columns[0] * (y - columns[2]) + columns[1]
    return replace(block, norms=tuple(norms)), np.maximum(total, 0)


def drawn_net(seed: int, width: int = 12, size: int = 16) -> list[Block]:
    rng = np.random.default_rng(seed)
    x, blocks = rng.standard_normal((4, 3, size, size)), []
    for index in range(BLOCKS):
        block, x = drawn_block(x, width + 4 * (index // 4), 2 if index in (0, 4) else 1, rng)
        blocks.append(block)
    return blocks


def training_form(blocks: list[Block], size: int = 16) -> onnx.ModelProto:
    """As it was trained; the nodes of block i are called b<i>.<branch>."""
    net = Net((1, 3, size, size), dtype=np.float32)
    value = net.x
    for index, block in enumerate(blocks):
        named, arms = f"b{index}.", []
        options = {"strides": [block.stride] * 2}
        for branch, weight in (("wide", block.wide), ("narrow", block.narrow)):
            pads = [weight.shape[2] // 2] * 4
            arms.append(net.op("Conv", value, net.const(weight), pads=pads, **options))
            net.nodes[-1].name = f"{named}{branch}.conv"
        arms += [value] * block.has_identity
        for number, norm in enumerate(block.norms):
            parts = [net.const(part) for part in vars(norm).values()]
            arms[number] = net.op("BatchNormalization", arms[number], *parts, epsilon=EPSILON)
            net.nodes[-1].name = f"{named}norm{number}"
        value = arms[0]
        for arm in arms[1:]:
            value = net.op("Add", value, arm)
            net.nodes[-1].name = f"{named}add{len(net.nodes)}"
        value = net.op("Relu", value)
    return net.model(headed(net, value, blocks))


def deploy_form(blocks: list[Block], folded: list[list[Array]], size: int = 16) -> onnx.ModelProto:
    """One convolution for each block, with the weights and biases `folded`."""
    net = Net((1, 3, size, size), dtype=np.float32)
    value = net.x
    for block, parts in zip(blocks, folded, strict=True):
        constants = [net.const(part.astype(np.float32)) for part in parts]
        options = {"strides": [block.stride] * 2, "pads": [1] * 4}
        value = net.op("Relu", net.op("Conv", value, *constants, **options))
    return net.model(headed(net, value, blocks))


def headed(net: Net, value: str, blocks: list[Block]) -> str:
    weight = np.random.default_rng(9).standard_normal((10, blocks[-1].outputs))
    flat = net.op("Flatten", net.op("GlobalAveragePool", value))
    net.nodes.append(helper.make_node("Gemm", [flat, net.const(weight)], ["y"], transB=1))
    return "y"
