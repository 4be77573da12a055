"""A seeded initialisation that lets equivalence tests find mistakes.

Freshly constructed layers hide mistakes: a BatchNorm with unit statistics is the identity, a
layer scale of 1e-6 mutes its branch. Here every parameter and every running statistic differs
from its neutral value, and the output of a deep network still depends on its input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

_NEGATIVE_SHARE = 0.1  # of the BatchNorm scales: a fold that assumes s > 0 must fail
_CENTRED_FROM = 16  # a kernel of fewer weights keeps its mean; centring could leave nothing


@torch.no_grad()
def initialise(module: nn.Module, *, seed: int, gain: float = 1.0) -> None:
    """Fill all parameters and running statistics of `module` in place from `seed`.

    Convolution and linear weights are uniform with variance ``gain / fan_in`` (linear layers:
    ``1 / fan_in``); a submodule with an attribute `init_gain` uses that instead. BatchNorm:
    scale in [0.4, 1.2], one in ten negative, bias and mean N(0, 0.2), variance in [0.4, 1.2]; of a
    BatchNorm with an `init_gain` of its own, the squares of scale and bias are smaller by that.
    Any other parameter moves by N(0, 0.2) from where its constructor put it.
    Same seed, same bits. The global random state is not used.
    """
    _fill(module, torch.Generator().manual_seed(seed), gain)


def _fill(layer: nn.Module, generator: torch.Generator, gain: float) -> None:
    gain = getattr(layer, "init_gain", gain)
    if isinstance(layer, _ConvNd):
        _fill_weighted(layer, generator, gain)
    elif isinstance(layer, nn.Linear):
        _fill_weighted(layer, generator, 1.0)
    elif isinstance(layer, _BatchNorm):
        _fill_batchnorm(layer, generator)
    elif isinstance(layer, (nn.LayerNorm, nn.GroupNorm)):
        _fill_affine(layer.weight, layer.bias, generator)
    else:
        _perturb(layer, generator)
    for child in layer.children():
        _fill(child, generator, gain)


def _fill_weighted(layer: _ConvNd | nn.Linear, generator: torch.Generator, gain: float) -> None:
    weight = layer.weight
    transposed = isinstance(layer, _ConvNd) and layer.transposed
    outputs = layer.out_channels if isinstance(layer, _ConvNd) and transposed else len(weight)
    fan_in = weight.numel() // outputs
    limit = math.sqrt(3.0 * gain / fan_in)
    weight.uniform_(-limit, limit, generator=generator)
    if fan_in >= _CENTRED_FROM and not transposed:
        # ReLU outputs share a large common mean. Unless each kernel ignores it, that constant
        # grows with depth until the logits hardly depend on the input any more.
        weight -= weight.mean(dim=tuple(range(1, weight.ndim)), keepdim=True)
    if layer.bias is not None:
        layer.bias.normal_(0.0, 0.1, generator=generator)
    _perturb(layer, generator, but=("weight", "bias"))


def _fill_batchnorm(layer: _BatchNorm, generator: torch.Generator) -> None:
    _fill_affine(layer.weight, layer.bias, generator)
    if layer.weight is not None:
        negative = torch.rand(layer.weight.shape, generator=generator) < _NEGATIVE_SHARE
        layer.weight[negative] *= -1
    for parameter in layer.parameters(recurse=False):
        parameter.mul_(math.sqrt(getattr(layer, "init_gain", 1.0)))
    if layer.running_mean is not None:
        layer.running_mean.normal_(0.0, 0.2, generator=generator)
    if layer.running_var is not None:
        layer.running_var.uniform_(0.4, 1.2, generator=generator)


def _fill_affine(weight: Tensor | None, bias: Tensor | None, generator: torch.Generator) -> None:
    if weight is not None:
        weight.uniform_(0.4, 1.2, generator=generator)
    if bias is not None:
        bias.normal_(0.0, 0.2, generator=generator)


def _perturb(layer: nn.Module, generator: torch.Generator, but: Sequence[str] = ()) -> None:
    for name, parameter in layer.named_parameters(recurse=False):
        if parameter.is_floating_point() and name not in but:
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
