"""ONNX Runtime makes as many kernels of several nodes after the rewrites as before, or more."""

from __future__ import annotations

import io
import logging
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

import flatfold

# Kernels that do the same work, of which one may take the place of another.
GELUS = ("BiasGelu", "FastGelu", "Gelu", "QuickGelu", "Swish")
SKIPPING = ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
NORMS = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", *SKIPPING)
ATTENTIONS = ("Attention", "GroupQueryAttention", "MultiHeadAttention")
GROUPS = (GELUS, NORMS, SKIPPING, ATTENTIONS, ("FusedMatMul",), ("FusedConv",), ("FusedGemm",))

EXPORTS = [("legacy", 14), ("legacy", 17), ("legacy", 20), ("new", 18), ("new", 20), ("new", 23)]
WIDTH, HEADS = 32, 4


class Block(nn.Module):
    """A block of a transformer: the norms in front, and residuals."""

    def __init__(self, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        wide = 2 * WIDTH
        self.mixer = nn.Sequential(nn.Linear(WIDTH, wide), activation(), nn.Linear(wide, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mixer(self.second(x))


class Quick(nn.Module):
    """x sigmoid(1.702 x)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class RootMeanSquare(nn.Module):
    """x / sqrt(mean(x^2) + eps) * scale, as language models have it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 2, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class ChannelNorm(nn.Module):
    """A LayerNorm of the channels of a map, as ConvNeXt has in front of its strides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 2, channels)[:, None, None])
        self.bias = nn.Parameter(torch.linspace(-1, 1, channels)[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(1, keepdim=True)
        variance = centred.pow(2).mean(1, keepdim=True)
        return self.scale * (centred / torch.sqrt(variance + 1e-6)) + self.bias


class ConvNeXt(nn.Module):
    """A strided stem, a norm of its channels, and a block with its norm over the last axis."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        stem = nn.Conv2d(3, channels, 4, 4)  # which would take the mean off without the Relu
        self.stem = nn.Sequential(stem, nn.ReLU(), ChannelNorm(channels))
        self.mix = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        wide = 4 * channels
        self.mlp = nn.Sequential(nn.Linear(channels, wide), nn.GELU(), nn.Linear(wide, channels))
        self.scale = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.norm(self.mix(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.mlp(y)).permute(0, 3, 1, 2)


def between_layers(middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), middle, nn.Linear(WIDTH, WIDTH))


ROWS, PICTURE = (2, 10, WIDTH), (1, 3, 24, 20)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "gelu block": (lambda: Block(nn.GELU), ROWS),
    "tanh block": (lambda: Block(lambda: nn.GELU(approximate="tanh")), ROWS),
    "silu block": (lambda: Block(nn.SiLU), ROWS),
    "quick block": (lambda: Block(Quick), ROWS),
    "rms": (lambda: between_layers(RootMeanSquare()), ROWS),
    "convnext": (ConvNeXt, PICTURE),
}


def exported(module: nn.Module, shape: tuple[int, ...], how: str, opset: int) -> onnx.ModelProto:
    module, x, buffer = module.eval(), torch.randn(shape), io.BytesIO()
    logging.disable(logging.CRITICAL)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the legacy exporter does not know it
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            if how == "new":
                program = torch.onnx.export(
                    module, (x,), dynamo=True, opset_version=opset, verbose=False
                )
                return program.model_proto
            torch.onnx.export(module, (x,), buffer, dynamo=False, opset_version=opset)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        logging.disable(logging.NOTSET)
    return onnx.load_from_string(buffer.getvalue())


def kernels(model: onnx.ModelProto, folder: Path) -> Counter:
    """The operators that ONNX Runtime makes of a model, whatever the processor."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "fused.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "fused.onnx").graph.node)


@pytest.mark.parametrize(("how", "opset"), EXPORTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_no_kernel_is_lost(name: str, how: str, opset: int, tmp_path: Path):
    """And every Gelu and norm is one, found in what the exporter wrote or not."""
    make, shape = NETWORKS[name]
    model = exported(make(), shape, how, opset)
    result = flatfold.optimize(model)
    before, after = kernels(model, tmp_path), kernels(result.model, tmp_path)
    for group in GROUPS:
        assert sum(after[kind] for kind in group) >= sum(before[kind] for kind in group), group
    assert sum(after.values()) <= sum(before.values())
    assert result.equivalence.passed
    if opset >= 17 or name != "convnext":  # before it nothing norms the channels of a map
        assert not {"Erf", "Pow", "Sqrt", "Tanh"} & set(after)
        assert sum(after[kind] for kind in GELUS) == int(name != "rms")
        assert sum(after[kind] for kind in NORMS) == (1 if name == "rms" else 2)
