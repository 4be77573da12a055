"""FastViT in its training form.

Vasu et al., "FastViT: A Fast Hybrid Vision Transformer using Structural Reparameterization",
ICCV 2023, arXiv:2303.14189. Modules carry the names of the published code, so that its checkpoints
load; only the norm inside a RepMixer and the two layers of a gate are called differently there.
Stochastic depth is left out: it does nothing outside training and has no weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flatfold.models.layers import LargeKernel, conv_bn
from flatfold.models.mobileone import MobileOneBlock

HEAD = 32  # channels of one head of the attention


def _scale(channels: int, start: float) -> nn.Parameter:
    """A trained factor for each channel."""
    return nn.Parameter(torch.full((channels, 1, 1), start))


class Mixer(nn.Module):
    """BN(conv3x3(x)) + BN(conv1x1(x)) + BN(x), both convolutions depthwise."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rbr_conv = nn.ModuleList([conv_bn(channels, channels, 3, 1, channels)])
        self.rbr_scale = conv_bn(channels, channels, 1, 1, channels)
        self.rbr_skip = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.rbr_conv[0](x) + self.rbr_scale(x) + self.rbr_skip(x)
        return y


class RepMixer(nn.Module):
    """x + s * (mixer(x) - BN(x)), with a trained s for each channel."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.mixer = Mixer(channels)
        self.norm = nn.BatchNorm2d(channels)
        self.layer_scale = _scale(channels, scale)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.layer_scale * (self.mixer(x) - self.norm(x))
        return y


class ConvFFN(nn.Module):
    """conv1x1(gelu(conv1x1(BN(conv7x7(x))))): the 7x7 is depthwise, the 1x1s have a bias."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.conv = conv_bn(channels, channels, 7, 1, channels)
        self.fc1 = nn.Conv2d(channels, ratio * channels, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(ratio * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(self.act(self.fc1(self.conv(x))))
        return y


class RepMixerBlock(nn.Module):
    """y + s * ConvFFN(y), where y = RepMixer(x)."""

    def __init__(self, channels: int, ratio: int, scale: float) -> None:
        super().__init__()
        self.token_mixer = RepMixer(channels, scale)
        self.convffn = ConvFFN(channels, ratio)
        self.layer_scale = _scale(channels, scale)

    def forward(self, x: Tensor) -> Tensor:
        x = self.token_mixer(x)
        x = x + self.layer_scale * self.convffn(x)
        return x


class Attention(nn.Module):
    """proj(softmax(q k^T / sqrt(32)) v) over all pixels, in heads of 32 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).transpose(1, 2)  # [N, pixels, channels]
        qkv = self.qkv(pixels).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind()  # each [N, heads, pixels, 32]
        weight = (q * HEAD**-0.5 @ k.transpose(2, 3)).softmax(dim=-1)
        y: Tensor = self.proj((weight @ v).transpose(1, 2).flatten(2))
        return y.transpose(1, 2).reshape(x.shape)


class AttentionBlock(nn.Module):
    """y + s2 * ConvFFN(y), where y = x + s1 * attention(BN(x))."""

    def __init__(self, channels: int, ratio: int, scale: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.token_mixer = Attention(channels)
        self.convffn = ConvFFN(channels, ratio)
        self.layer_scale_1 = _scale(channels, scale)
        self.layer_scale_2 = _scale(channels, scale)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale_1 * self.token_mixer(self.norm(x))
        x = x + self.layer_scale_2 * self.convffn(x)
        return x


class PositionalEncoding(nn.Module):
    """conv7x7(x) + x, depthwise: RepCPE in the paper."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pe = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pe(x) + x
        return y


class PatchEmbed(nn.Module):
    """gelu(BN(conv1x1(y)) + BN(y)), where y = LargeKernel(x): half the size, `c_out` channels.

    No activation follows y: the published code calls one and drops what it returns.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            LargeKernel(c_in, c_out, 7, 3, 2), MobileOneBlock(c_out, c_out, 1, activation=nn.GELU)
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.proj(x)
        return y


class FastViT(nn.Module):
    """[N, 3, H, W] -> logits [N, num_classes]: four stages at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        ratio: int,
        attention: bool,
        scale: float,
        num_classes: int,
    ) -> None:
        super().__init__()
        first, last = widths[0], widths[-1]
        self.patch_embed = nn.Sequential(
            MobileOneBlock(3, first, 3, 2, activation=nn.GELU),
            MobileOneBlock(first, first, 3, 2, first, activation=nn.GELU),
            MobileOneBlock(first, first, 1, activation=nn.GELU),
        )
        self.network = nn.ModuleList()
        for i, width in enumerate(widths):
            block: type[RepMixerBlock | AttentionBlock] = RepMixerBlock
            if i > 0:
                self.network.append(PatchEmbed(widths[i - 1], width))
            if attention and i == len(widths) - 1:
                self.network.append(PositionalEncoding(width))
                block = AttentionBlock
            blocks = (block(width, ratio, scale) for _ in range(depths[i]))
            self.network.append(nn.Sequential(*blocks))
        self.conv_exp = MobileOneBlock(
            last, 2 * last, 3, 1, last, squeeze_excite=True, activation=nn.GELU
        )
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2 * last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for part in self.network:
            x = part(x)
        logits: Tensor = self.head(self.gap(self.conv_exp(x)).flatten(1))
        return logits


def fastvit(
    *,
    widths: Sequence[int],
    depths: Sequence[int],
    ratio: int = 4,
    attention: bool = False,
    scale: float = 1e-5,
    num_classes: int = 1000,
) -> FastViT:
    """A FastViT: `widths` and `depths` of its stages.

    `ratio` is how much wider a ConvFFN is inside. With `attention` the blocks of the last stage
    have attention in place of the RepMixer. `scale` is where training starts the layer scales.
    """
    return FastViT(widths, depths, ratio, attention, scale, num_classes)
