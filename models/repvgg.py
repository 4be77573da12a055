"""RepVGG in its training form.

Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021, arXiv:2101.03697.
Modules carry the names of the published code, so that its checkpoints load.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from flatfold.models.layers import SqueezeExcite, Staged, conv_bn


class RepVGGBlock(nn.Module):
    """relu(SE(BN(conv3x3(x)) + BN(conv1x1(x)) + BN(x))).

    The identity branch BN(x) exists only where input and output have one shape. SE is the
    identity unless `squeeze_excite`.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, groups: int, squeeze_excite: bool
    ) -> None:
        super().__init__()
        same_shape = c_in == c_out and stride == 1
        self.rbr_identity = nn.BatchNorm2d(c_in) if same_shape else None
        self.rbr_dense = conv_bn(c_in, c_out, 3, stride, groups)
        self.rbr_1x1 = conv_bn(c_in, c_out, 1, stride, groups)
        self.se = SqueezeExcite(c_out, c_out // 16) if squeeze_excite else nn.Identity()
        self.nonlinearity = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        identity = 0 if self.rbr_identity is None else self.rbr_identity(x)
        y: Tensor = self.nonlinearity(self.se(self.rbr_dense(x) + self.rbr_1x1(x) + identity))
        return y


def _layer_groups(groups: int) -> Iterator[int]:
    """Groups of layer 1, 2, 3, ... (the stem is layer 0): even layers up to 26 are grouped."""
    layer = 1
    while True:
        yield groups if layer % 2 == 0 and layer <= 26 else 1
        layer += 1


def _stage(
    c_in: int, c_out: int, depth: int, layers: Iterator[int], squeeze_excite: bool
) -> nn.Sequential:
    first = RepVGGBlock(c_in, c_out, 2, next(layers), squeeze_excite)
    rest = (RepVGGBlock(c_out, c_out, 1, next(layers), squeeze_excite) for _ in range(depth - 1))
    return nn.Sequential(first, *rest)


def repvgg(
    *,
    depths: Sequence[int],
    widths: Sequence[int],
    groups: int = 1,
    squeeze_excite: bool = False,
    num_classes: int = 1000,
) -> Staged:
    """A RepVGG with `depths` blocks and `widths` channels in its stages 1 to 4.

    Only the even layers have `groups`, and all of them the gate if `squeeze_excite`.
    """
    stem = min(64, widths[0])
    layers = _layer_groups(groups)
    stages: dict[str, nn.Module] = {"stage0": RepVGGBlock(3, stem, 2, 1, squeeze_excite)}
    inputs = (stem, *widths)
    for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        stages[f"stage{i + 1}"] = _stage(inputs[i], width, depth, layers, squeeze_excite)
    return Staged(stages, widths[-1], num_classes)
